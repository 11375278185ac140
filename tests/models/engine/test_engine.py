"""What an engine cannot run is decoded plainly, and buffers of other shapes make way where the memory is too small."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import models
from decoding import generate
from models.engine import engine
from models.engine.engine import why_unfit
from models.engine.session import Session

GOLDEN = Path(__file__).parents[2] / "golden" / "llada"
SETTINGS = {"threshold": 0.02, "gen_length": 16, "block_length": 8, "use_cache": "dual"}


@pytest.fixture
def pair():
    return [models.load(GOLDEN, device="cpu", dtype="float64", engine=kind) for kind in ("plain", "graphs")]


def equal(pair, prompts):
    plain, fast = (generate(one, prompts, "threshold", **SETTINGS).sequences for one in pair)
    return torch.equal(plain, fast)


def on_gpu(**given):
    """A denoiser as far as it is asked, with weights on a GPU that is not there."""
    has = {"dtype": torch.float32, "head_dim": 64, **given}
    weight = SimpleNamespace(device=torch.device("cuda:0"), dtype=has["dtype"])
    block = SimpleNamespace(self_attn=SimpleNamespace(head_dim=has["head_dim"]))
    return SimpleNamespace(token_embedding=SimpleNamespace(weight=weight), blocks=[block], final_norm=None)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"dtype": torch.float64}, "weights must be bfloat16, float16 or float32 for its kernels, got torch.float64"),
        ({"head_dim": 24}, "heads must be 16, 32, 64, ... numbers wide for its kernels, got 24"),
        ({"head_dim": 8}, "heads must be 16, 32, 64, ... numbers wide for its kernels, got 8"),
    ],
)
def test_what_kernels_cannot_read_is_said_in_one_sentence(given, said):
    assert why_unfit(on_gpu(**given)) == said


def test_bfloat16_needs_a_gpu_that_has_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    said = "compute capability must be at least 8.0 for its kernels in bfloat16, got 7.5"
    assert why_unfit(on_gpu(dtype=torch.bfloat16)) == said


def test_a_machine_without_triton_is_no_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    assert why_unfit(on_gpu()).startswith("Triton must run on this machine for its kernels, got ")


def test_a_denoiser_on_a_cpu_needs_no_kernels(pair):
    assert why_unfit(pair[1]) == ""


def test_an_engine_that_does_not_serve_is_told_of_once_and_every_decode_counted(pair, monkeypatch, caplog):
    monkeypatch.setattr(engine, "why_unfit", lambda _: "Triton must run on this machine")
    with caplog.at_level(logging.WARNING, "models.engine.engine"):
        assert equal(pair, [[5, 9, 77]])
        assert equal(pair, [[5, 9]])
    assert pair[1].engine.fallbacks == 2
    assert [one.getMessage() for one in caplog.records] == [
        "engine: decodes run on the plain path: Triton must run on this machine"
    ]


def test_buffers_of_other_shapes_make_way_for_those_of_a_new_one(pair, monkeypatch):
    assert equal(pair, [[5, 9, 77]])
    assert equal(pair, [[5, 9, 77], [3]])
    held = pair[1].engine._sessions

    def scarce(*given):
        if held:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return Session(*given)

    monkeypatch.setattr(engine, "Session", scarce)
    assert equal(pair, [[5, 9, 77], [3], [4]])
    assert len(held) == 1


def test_and_for_a_forward(pair, monkeypatch):
    assert equal(pair, [[5, 9, 77]])
    held, whole = pair[1].engine._sessions, Session._whole

    def scarce(session, *given):
        if len(held) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        whole(session, *given)

    monkeypatch.setattr(Session, "_whole", scarce)
    assert equal(pair, [[5, 9, 77], [3]])
    assert [shape.prompts for shape in held] == [2]


def test_want_of_memory_with_no_other_buffers_is_raised(pair, monkeypatch):
    def none(*given):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(engine, "Session", none)
    with pytest.raises(torch.OutOfMemoryError):
        equal(pair, [[5, 9, 77]])
    assert not pair[1].engine.in_use.locked()
