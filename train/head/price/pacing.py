"""What a task's prompts take on this machine: a few forwards and decodes, cut short where the base is slow."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from train.head.price.amounts import Decoded, Pace

if TYPE_CHECKING:
    from torch import Tensor

    from decoding.policy import Policy
    from decoding.prompts import Prompts
    from decoding.rounds import Round
    from models.denoiser import Denoiser

FIRST = 16  # positions of the first forward, which a base of any size does in a moment
Clock = Callable[[], float]


def measure_pace(
    denoiser: Denoiser,
    batch: Prompts,
    drivers: Mapping[str, tuple[Policy, int]],
    *,
    gen_length: int,
    threshold: float,
    seconds: float,
    clock: Clock = time.monotonic,
) -> Pace:
    """The pace of a task, in about so many seconds.

    Forwards of one canvas grow until a whole one fits into an eighth of the time, and then in number. What a decode takes is read
    off decodes that stop when their time is over: a round commits as much later as it did so far.

    Args:
        denoiser: the base.
        batch: prompts with their canvases, as many as run together.
        drivers: name -> policy, and its block length.
        gen_length: of the canvas.
        threshold: of the look-ahead, in (0, 1).
        seconds: for all of it.
        clock: seconds, for tests.
    """
    length = batch.tokens.shape[1]
    canvas, rows, whole = _forwards(denoiser, batch, seconds=seconds / 4, clock=clock)
    if not whole:
        one_a_round = Decoded(gen_length, gen_length, *(3 * [gen_length / 2]))
        return Pace(canvas, length, dict.fromkeys(drivers, one_a_round), guessed=True)
    share = 0.75 * seconds / len(drivers)
    fits = int(share / max(canvas * gen_length / 4, 1e-9))  # of a decode of four tokens a round
    count = max(1, min(fits, rows, len(batch.tokens)))
    decoded, taken = {}, 0.0
    for name, (policy, block_length) in drivers.items():
        began = clock()
        decoded[name], ran = _decode(
            denoiser,
            batch,
            policy,
            count,
            (gen_length, block_length),
            threshold,
            over=lambda began=began: clock() - began > share,
        )
        taken = max(taken, (clock() - began) / ran)
    return Pace(max(canvas, taken), length, decoded)


def _forwards(denoiser: Denoiser, batch: Prompts, *, seconds: float, clock: Clock) -> tuple[float, int, bool]:
    """Seconds of a canvas, canvases of the largest forward that was run, and whether that ran whole ones."""
    rows, length = batch.tokens.shape
    few, positions = 1, min(FIRST, length)
    _forward(denoiser, batch, 1, positions)  # the first one warms up
    while True:
        began = clock()
        _forward(denoiser, batch, few, positions)
        taken = clock() - began
        seconds -= taken
        if (few, positions) == (rows, length) or 4 * taken > seconds:
            return taken / few * length / positions, few, positions == length
        few, positions = (1, min(2 * positions, length)) if positions < length else (min(2 * few, rows), length)


def _forward(denoiser: Denoiser, batch: Prompts, rows: int, positions: int) -> None:
    import torch

    mask = batch.attention_mask
    with torch.inference_mode():
        few = batch.tokens[:rows, -positions:]
        prediction = denoiser(few, attention_mask=None if mask is None else mask[:rows, -positions:])
        prediction.logits[-1, -1].item()  # waits for the device


def _decode(
    denoiser: Denoiser,
    batch: Prompts,
    policy: Policy,
    count: int,
    lengths: tuple[int, int],
    threshold: float,
    *,
    over: Callable[[], bool],
) -> tuple[Decoded, float]:
    """What a decode of one of `count` prompts takes, and the canvases that were run for all of them."""
    import torch

    from decoding.loop import rounds
    from decoding.reading import Sampling
    from decoding.state import start

    mask = batch.attention_mask
    state = start(
        batch.tokens[:count],
        gen_length=lengths[0],
        block_length=lengths[1],
        mask_id=denoiser.mask_id,
        eos_id=denoiser.end_ids,
        step_budget=policy.step_budget,
        initial_blocks=policy.initial_blocks,
    )
    sampling = Sampling(forbidden=(denoiser.mask_id,), noise=policy.needs.noise)
    how: dict[str, Any] = {"attention_mask": None if mask is None else mask[:count], "sampling": sampling}
    seen: list[Tensor] = []
    with torch.inference_mode():
        how["generator"] = torch.Generator(denoiser.device).manual_seed(0)
        for round_ in rounds(denoiser, state, policy, **how):
            if round_.proposal is not None:
                seen.append(_figures(round_, threshold))
            if over():
                break
    return _read_off(round_, seen, count)


def _figures(round_: Round, threshold: float) -> Tensor:
    """Positions open, unsure and masked, and rows that go on."""
    import torch

    state = round_.state
    unsure = state.feasible & (round_.reading.confidence < threshold)
    return torch.stack([part.sum() for part in (state.feasible, unsure, state.masked, state.unfinished)])


def _read_off(round_: Round, seen: list[Tensor], count: int) -> tuple[Decoded, float]:
    """A whole decode from a part of one."""
    import torch

    open_, unsure, masked, rows = torch.stack(seen).double().cpu().unbind(1)
    canvas = float(masked[0])
    left = float(round_.state.masked.sum()) if round_.proposal is not None else 0.0
    whole = canvas / max(canvas - left, float(rows.sum()))  # at least a token a round; 1 for a decode that ended
    states = float(rows.sum())
    ran = float(round_.counts.sequence_forwards.sum())
    still = float(masked.sum()) / states if whole <= 1 else canvas / count / 2
    mean_open, mean_unsure = (float(part.sum()) / states for part in (open_, unsure))
    return Decoded(whole * states / count, whole * ran / count, mean_open, mean_unsure, still), ran
