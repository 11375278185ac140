"""Where a round's time goes on this machine: ``python -m models.profile [--model FOLDER] [--shape FOLDER] [--out DIR]``.

Measures copy bandwidth and matrix rate, from them the floor of a round, then what rounds take against it.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from models.masked_lm import MaskedLM

GIB = 2**30


def median_ms(call: Callable[[], object], device: torch.device, *, repeats: int = 20, warm: int = 3) -> float:
    """Median milliseconds of a call, by events on a GPU and by the clock elsewhere.

    Args:
        call: what is timed.
        device: where it runs.
        repeats: timed calls.
        warm: calls before them.
    """
    import torch

    for _ in range(warm):
        call()
    times = []
    for _ in range(repeats):
        if device.type == "cuda":
            make: Any = torch.cuda.Event
            first, last = (make(enable_timing=True) for _ in range(2))
            first.record()
            call()
            last.record()
            last.synchronize()
            times.append(first.elapsed_time(last))
        else:
            began = time.perf_counter()
            call()
            times.append(1e3 * (time.perf_counter() - began))
    return float(statistics.median(times))


def ceilings(device: torch.device, dtype: torch.dtype) -> dict[str, float]:
    """Copy bandwidth in TB/s, reads and writes counted, and matrix rate in TFLOP/s; the best of ten on random data."""
    import torch

    on_gpu = device.type == "cuda"
    source = torch.empty(4 * GIB if on_gpu else GIB // 4, dtype=torch.uint8, device=device).random_()
    goal = torch.empty_like(source)
    copying = min(median_ms(lambda: goal.copy_(source), device, repeats=1, warm=1) for _ in range(10))
    size = 8192 if on_gpu else 1024
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    product = min(median_ms(lambda: left @ right, device, repeats=1, warm=1) for _ in range(10))
    return {"copy_tb_s": 2 * source.numel() / copying / 1e9, "matrix_tflop_s": 2 * size**3 / product / 1e9}


def floor_ms(denoiser: MaskedLM, machine: dict[str, float], *, rows: int, asked: int) -> float:
    """The least a forward can take: bytes of its weights over the bandwidth, or operations over the matrix rate.

    Args:
        denoiser: whose blocks and LM head are read once.
        machine: from `ceilings`.
        rows: positions computed, over all canvases.
        asked: positions that go through the LM head.
    """
    blocks = sum(p.numel() for p in denoiser.blocks.parameters())
    head = denoiser.lm_head.weight
    reading = (blocks + head.numel()) * head.element_size() / machine["copy_tb_s"] / 1e9
    computing = 2 * (blocks * rows + head.numel() * asked) / machine["matrix_tflop_s"] / 1e9
    return float(max(reading, computing))


def random_model(folder: Path, device: torch.device, dtype: torch.dtype) -> MaskedLM:
    """A model of a published shape with random weights, from its config.json alone."""
    import torch

    from models.checkpoints.families import family_of
    from models.checkpoints.loading import empty_model, finish
    from models.checkpoints.special_ids import special_ids
    from models.masked_lm import MaskedLM

    config = json.loads((folder / "config.json").read_text())
    family = family_of(config)
    model = empty_model(family, config)
    model = model.to(dtype).to_empty(device=device)
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.fill_(1.0) if "norm" in name else parameter.normal_(std=0.02)
    finish(model, tied=False)
    model.requires_grad_(False)
    denoiser = MaskedLM(model, shifted=family.shifted, fingerprint="random", **special_ids(family, config, None, {}))
    return denoiser.eval()


def denoiser_ms(
    denoiser: MaskedLM, *, batch: int, canvases: int, rows: int, length: int, mode: str, asked: int
) -> float:
    """Milliseconds of one forward by the engine: `rows` of `length` positions over a context, or whole canvases.

    Args:
        denoiser: with an engine.
        batch: prompts.
        canvases: of each prompt.
        rows: positions computed of each canvas.
        length: of the context.
        mode: none, prefix or dual.
        asked: positions that the LM head reads.
    """
    import torch

    from models.engine.session import Shape

    shape = Shape(batch, canvases, length, mode, (), padded=False, holes=False, forbidden=(denoiser.mask_id,))
    with torch.inference_mode():
        session = denoiser.engine.session(shape)
        device = denoiser.device
        tokens = torch.randint(5, 200, (batch, 1, length), device=device).expand(-1, canvases, -1).contiguous()
        tokens[..., length - rows :] = denoiser.mask_id
        wanted = torch.zeros_like(tokens, dtype=torch.bool)
        wanted[..., length - asked :] = True
        live = torch.ones(batch, canvases, dtype=torch.bool, device=device)
        session.begin(torch.ones(batch, length, dtype=torch.bool, device=device))
        one = live & (torch.arange(canvases, device=device) == 0)
        calm = torch.zeros((), dtype=torch.long, device=device)
        session.prepare(tokens, wanted & one.unsqueeze(-1), one, one, calm)
        flags = session.plan.flags.tolist()[:4]
        session.forward(flags)
        session.prepare(tokens, wanted, live, torch.zeros_like(live), calm)
        flags = session.plan.flags.tolist()[:4]
        return median_ms(lambda: session.forward(flags), device)


def plain_ms(denoiser: MaskedLM, *, batch: int, rows: int, length: int, mode: str) -> float:
    """The same by the plain path.

    Args:
        denoiser: the base.
        batch: prompts.
        rows: positions computed of each canvas.
        length: of the context.
        mode: none, prefix or dual.
    """
    import torch

    twin = denoiser.with_cache(mode)
    with torch.inference_mode():
        tokens = torch.randint(5, 200, (batch, length), device=denoiser.device)
        tokens[:, length - rows :] = denoiser.mask_id
        wanted = tokens == denoiser.mask_id
        never = torch.zeros(batch, dtype=torch.bool, device=denoiser.device)
        return median_ms(lambda: twin(tokens, rows=wanted, refresh=never), denoiser.device, repeats=8)


def published_ms(denoiser: MaskedLM, *, batch: int, length: int, canvas: int) -> float:
    """A round of the published loop: logits of every position, their softmax in float64, a loop over the rows, no cache.

    Args:
        denoiser: the base.
        batch: prompts.
        length: of prompt and canvas.
        canvas: positions to fill.
    """
    import torch

    model = denoiser.model
    tokens = torch.randint(5, 200, (batch, length), device=denoiser.device)
    tokens[:, length - canvas :] = denoiser.mask_id

    def round_() -> None:
        masked = tokens == denoiser.mask_id
        logits = model(tokens, is_causal=False).logits
        token = logits.argmax(-1)
        chance = torch.softmax(logits.to(torch.float64), -1)
        confidence = chance.gather(-1, token.unsqueeze(-1)).squeeze(-1)
        confidence = torch.where(masked, confidence, -torch.inf)
        token = torch.where(masked, token, tokens)
        chosen = torch.zeros_like(masked)
        for row in range(batch):
            chosen[row, confidence[row].topk(1).indices] = True
        written = tokens.clone()
        written[chosen] = token[chosen]

    with torch.inference_mode():
        return median_ms(round_, denoiser.device, repeats=10)


if __name__ == "__main__":
    import_module("train.commands.profile").main()  # a command stands above the library, which imports the other way
