"""Triton's kernels compute what the torch operations beside them do, on a GPU, or on a CPU by Triton's interpreter:
`TRITON_INTERPRET=1 pytest -W ignore::DeprecationWarning` with NumPy below 2.4, where Triton is installed."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest
import torch

from models.engine import kernels
from models.engine.figures import TOP, figures
from models.engine.place import Place
from models.engine.weights import BlockWeights

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = torch.device("cuda" if torch.cuda.is_available() and not INTERPRETED else "cpu")
pytestmark = pytest.mark.skipif(
    DEVICE.type == "cpu" and not INTERPRETED, reason="needs a CUDA device, or Triton with TRITON_INTERPRET=1"
)
DTYPES = [torch.float32, torch.float16, torch.bfloat16]
SHAPES = [  # canvases, heads, key-value heads, rows, width, contexts, places, and whether some places hold no token
    (2, 4, 4, 8, 16, 3, 64, False),
    (2, 4, 2, 33, 32, 2, 100, False),
    (1, 2, 1, 17, 64, 1, 577, False),
    (1, 2, 2, 40, 128, 2, 130, True),
    (1, 1, 1, 1, 16, 1, 1, False),
    (1, 7, 1, 5, 128, 1, 300, True),
]


@pytest.fixture(params=DTYPES, ids=str)
def dtype(request):
    if INTERPRETED and request.param is torch.bfloat16:
        pytest.skip("the interpreter multiplies no bfloat16")
    return request.param


@pytest.fixture
def random():
    generator = torch.Generator().manual_seed(0)

    def numbers(*shape, dtype):
        return torch.randn(*shape, generator=generator).to(DEVICE, dtype)

    return numbers


def close(some, others, dtype):
    """Computed in float32 inside, so that only the last rounding differs; the other side rounds more often."""
    assert some.dtype == others.dtype == dtype
    step = torch.finfo(dtype).eps
    torch.testing.assert_close(some.cpu().float(), others.cpu().float(), rtol=16 * step, atol=16 * step)


def exact(step, *given, **named):
    """What the torch operations give on a CPU."""
    cpu = [one.cpu() if isinstance(one, torch.Tensor) else one for one in given]
    return step(*cpu, **named)


def triton():
    from models.engine.triton import attention, kernels
    from models.engine.triton import figures as triton_figures

    return SimpleNamespace(attention=attention, kernels=kernels, figures=triton_figures)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_attention_over_a_context_and_the_span_itself(random, dtype, shape):
    canvases, heads, kv_heads, rows, dim, contexts, places, holes = shape
    generator = torch.Generator().manual_seed(1)

    def draw(low, high):
        return torch.randint(low, high, (canvases,), generator=generator).to(DEVICE)

    place = Place(
        slot=draw(0, contexts),
        start=draw(0, max(1, places - rows + 1)),
        count=draw(1, rows + 1),
        low=draw(0, min(5, places)),
        seen=(torch.rand(canvases, places, generator=generator) > 0.3).to(DEVICE) if holes else None,
    )
    query = random(canvases, heads, rows, dim, dtype=dtype)
    key, value = (random(canvases, kv_heads, rows, dim, dtype=dtype) for _ in range(2))
    held = tuple(random(contexts, kv_heads, places, dim, dtype=dtype) for _ in range(2))
    found = triton().attention.attend_span(query, key, value, held, place, dim**-0.5)
    there = Place(*(None if one is None else one.cpu() for one in vars(place).values()))
    expected = exact(kernels.attend_span, query, key, value, tuple(one.cpu() for one in held), there, dim**-0.5)
    real = torch.arange(rows) < there.count.unsqueeze(-1)
    close(found.cpu()[real], expected[real], dtype)


@pytest.mark.parametrize(
    "shape", [(2, 4, 4, 8, 16), (3, 4, 2, 33, 32), (1, 2, 1, 128, 64), (2, 7, 1, 200, 128)], ids=str
)
def test_attention_of_whole_canvases(random, dtype, shape):
    canvases, heads, kv_heads, rows, dim = shape
    fused = random(canvases, heads + 2 * kv_heads, rows, dim, dtype=dtype)  # one tensor, as `rotate_heads` leaves it
    query, key, value = fused.split([heads, kv_heads, kv_heads], 1)
    low = torch.arange(canvases, device=DEVICE) * (rows // 2)
    outside = torch.arange(rows, device=DEVICE) < low.unsqueeze(-1)
    padding = torch.zeros(canvases, rows, dtype=dtype, device=DEVICE).masked_fill(outside, -torch.inf)
    found = triton().attention.attend_whole(query, key, value, low, dim**-0.5)
    close(found, exact(kernels.attend_whole, query, key, value, padding, low, dim**-0.5), dtype)


@pytest.mark.parametrize("width", [96, 256, 2050])
def test_norm(random, dtype, width):
    x, weight = random(3, width, dtype=dtype), random(width, dtype=dtype)
    close(triton().kernels.rms_norm(x, weight, 1e-5), exact(kernels.rms_norm, x, weight, 1e-5), dtype)


@pytest.mark.parametrize("width", [64, 1100])
def test_activation(random, dtype, width):
    both = random(5, 2 * width, dtype=dtype)
    close(triton().kernels.silu_mul(both), exact(kernels.silu_mul, both), dtype)


@pytest.mark.parametrize("dim", [16, 64, 128])
def test_rotation_leaves_values_as_they_are(random, dtype, dim):
    one = torch.zeros(1, 1)
    wide: dict = {
        "enter": one[0],
        "middle": one[0],
        "qkv_bias": None,
        **dict.fromkeys(("qkv", "out", "gate_up", "down"), one),
    }
    weights = BlockWeights(**wide, heads=5, kv_heads=3, head_dim=dim, eps=1e-5, scale=1.0)
    fused = random(2, 7, 11 * dim, dtype=dtype)
    cos, sin = (random(2, 7, dim // 2, dtype=dtype).repeat(1, 1, 2) for _ in range(2))
    found = triton().kernels.rotate_heads(fused, cos, sin, rotated=8, head_dim=dim)
    expected = torch.cat(exact(kernels.rotate_heads, fused, cos, sin, weights=weights), 1)
    close(found, expected, dtype)
    assert torch.equal(found[:, 8:].cpu(), expected[:, 8:])


@pytest.mark.parametrize("lines", [1, 37, 64])
@pytest.mark.parametrize("normed", [False, True])
def test_product_of_few_rows(random, lines, normed):
    dtype, width = torch.float16 if INTERPRETED else torch.bfloat16, 2048
    hidden, x, norm = random(lines, width, dtype=dtype), random(lines, width, dtype=dtype), random(width, dtype=dtype)
    weight = random(width, width, dtype=dtype) / width**0.5
    expected = hidden.float() + x.float() @ weight.float().T
    found = triton().kernels.add_norm(hidden, x, weight, norm if normed else None, 1e-5)
    close(hidden, expected.to(dtype), dtype)
    if normed:
        close(found, exact(kernels.rms_norm, hidden, norm, 1e-5), dtype)
    else:
        assert found is None


@pytest.mark.parametrize(
    ("vocabulary", "forbidden"),
    [(7, (2,)), (30, (7, 2)), (1024, (3,)), (1025, (1024,)), (1026, (1024, 1025)), (3000, (1,)), (4096, (1, 2))],
)
def test_figures(random, vocabulary, forbidden):
    """Of a vocabulary whose last part is forbidden as a whole too."""
    logits = 4 * random(3, vocabulary, dtype=torch.float32)
    logits[:, list(forbidden)] = 6  # no candidate, and yet part of the normaliser
    floats, ints = triton().figures.figures(logits, forbidden, TOP)
    expected = figures(logits.cpu(), forbidden)
    torch.testing.assert_close(floats.cpu(), expected[0], rtol=1e-5, atol=1e-5)
    assert torch.equal(ints.cpu(), expected[1])


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_broken_logits_show_in_the_normaliser(random, broken):
    for place in (0, 3, 1400):
        logits = random(2, 1500, dtype=torch.float32)
        logits[0, place] = broken
        normaliser = triton().figures.figures(logits, (4,), TOP)[0][:, 3]
        assert normaliser.isfinite().tolist() == [False, True]
