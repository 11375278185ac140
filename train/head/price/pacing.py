"""What a task's prompts take on this machine: a few forwards and decodes, cut short where the base is slow."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from train.head.price.amounts import Decoded, Pace

if TYPE_CHECKING:
    from torch import Tensor

    from decoding.policy import Policy
    from decoding.prompts import Prompts
    from decoding.rounds.round import Round
    from decoding.state import DecodeState
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

    Forwards of one canvas grow to a whole one where the time allows it, and then in number for a quarter of the time. What a decode
    takes is read off decodes that stop when their time is over: a round commits as much later as it did so far.

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
    first = clock()
    canvas, rows, whole = _forwards(denoiser, batch, seconds=seconds, clock=clock)
    left = max(seconds - (clock() - first), seconds / 4)
    if not whole:
        whole_canvas, half = float(gen_length), gen_length / 2
        one_a_round = Decoded(whole_canvas, whole_canvas, half, half, half)
        return Pace(canvas, length, dict.fromkeys(drivers, one_a_round), guessed=True)
    share = left / len(drivers)
    fits = int(share / max(canvas * gen_length / 4, 1e-9))  # of a decode of four tokens a round
    count = max(1, min(fits, rows, len(batch.tokens)))
    decoded, taken = {}, 0.0
    for name, (policy, block_length) in drivers.items():
        began = clock()
        state = _begun(denoiser, batch, policy, gen_length, block_length)
        rounds = _rounds(denoiser, policy, state.map(lambda v: v[:count]), batch)
        decoded[name], ran = _read_off(rounds, threshold, until=began + share, clock=clock)
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
        share = seconds if positions < length else seconds / 4
        if (few, positions) == (rows, length) or 2 * taken > share:
            return taken / few * length / positions, few, positions == length
        few, positions = (1, min(2 * positions, length)) if positions < length else (min(2 * few, rows), length)


def _forward(denoiser: Denoiser, batch: Prompts, rows: int, positions: int) -> None:
    import torch

    mask = batch.attention_mask
    with torch.inference_mode():
        few = batch.tokens[:rows, -positions:]
        prediction = denoiser(few, attention_mask=None if mask is None else mask[:rows, -positions:])
        prediction.logits[-1, -1].item()  # waits for the device


def _begun(denoiser: Denoiser, batch: Prompts, policy: Policy, gen_length: int, block_length: int) -> DecodeState:
    """The prompts before their first round."""
    from decoding.policy import first_state

    canvas = {"gen_length": gen_length, "block_length": block_length}
    return first_state(denoiser, batch.tokens, policy, **canvas, end_ids=denoiser.end_ids)


def _rounds(denoiser: Denoiser, policy: Policy, state: DecodeState, batch: Prompts) -> Iterator[Round]:
    """The rounds of a decode of the first prompts of a batch."""
    import torch

    from decoding.loop import rounds
    from decoding.sampling import Sampling

    mask = None if batch.attention_mask is None else batch.attention_mask[: len(state.tokens)]
    sampling = Sampling(forbidden=(denoiser.mask_id,), noise=policy.needs.noise)
    generator = torch.Generator(denoiser.device).manual_seed(0)
    with torch.inference_mode():
        yield from rounds(denoiser, state, policy, attention_mask=mask, sampling=sampling, generator=generator)


def _read_off(rounds: Iterator[Round], threshold: float, *, until: float, clock: Clock) -> tuple[Decoded, float]:
    """What the decode of one prompt takes, of a part of it where the time is over; and the canvases that were run for all."""
    import torch

    seen = []
    for round_ in rounds:
        if round_.proposal is not None:
            seen.append(_figures(round_, threshold))
        if clock() > until:
            break
    open_, unsure, masked, rows = torch.stack(seen).double().cpu().unbind(1)
    canvas, states, count = float(masked[0]), float(rows.sum()), float(rows[0])
    left = float(round_.state.masked.sum()) if round_.proposal is not None else 0.0
    whole = canvas / max(canvas - left, states)  # at least a token a round; 1 for a decode that ended
    ran = float(round_.counts.sequence_forwards.sum())
    still = float(masked.sum()) / states if whole <= 1 else canvas / count / 2
    mean_open, mean_unsure = (float(part.sum()) / states for part in (open_, unsure))
    return Decoded(whole * states / count, whole * ran / count, mean_open, mean_unsure, still), ran


def _figures(round_: Round, threshold: float) -> Tensor:
    """Positions open, unsure and masked, and rows that go on."""
    import torch

    state = round_.state
    unsure = state.feasible & (round_.reading.confidence < threshold)
    return torch.stack([part.sum() for part in (state.feasible, unsure, state.masked, state.unfinished)])
