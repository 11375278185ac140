"""Commit the cascade with what sets it off: positions that the round's other commits make sure, in the same round."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from decoding.policies.bounds import prefix_sum
from decoding.reading import Reading
from decoding.state import DecodeState, Proposal, Reason
from models.engine.graphs import compiled
from models.engine.window import WideTap
from models.heads.cascade import Cascade

Step = TypeVar("Step", bound=Callable[..., Any])
Foretold = tuple[Int[Tensor, "B L"], Float[Tensor, "B L"]]  # token and risk


def follow(
    cascade: Cascade,
    state: DecodeState,
    reading: Reading,
    reason: Int[Tensor, "B L"],
    *,
    bound: float,
    looks: int,
    first: Foretold | None = None,
) -> Proposal:
    """What a round commits beside `reason`: as long as their risks add up to the bound at most, the safest of the positions left.

    With S the positions committed so far in the round, r_j = 1 - max_v p(x_j = v | x, x_S) as the cascade foretells it, and every
    look commits the longest prefix in order of risk with sum r_j <= bound; the next follows where there was one. Its tokens are the
    likeliest ones: at temperature 1 a draw would differ with probability r_j, at a lower one with less, at a higher one with more.

    Args:
        cascade: foretells p.
        state: before the round.
        reading: of that state.
        reason: why positions are committed in any case.
        bound: on the summed risk of what a look commits, above 0.
        looks: at the cascade, at least 0.
        first: what the first look foretells, where that is known.
    """
    wide, limit = is_wide(reading), torch.full((), bound, dtype=reading.confidence.dtype, device=reading.rows.device)
    begin, take = compiled_for(_begin, reading), compiled_for(_take, reading)
    held = begin(reading.token, reading.confidence, reason, reading.rows)
    for look in range(looks):
        if not wide and not held.left.any():
            break
        asked = replace(reading, rows=held.asked)
        said = first if first is not None and not look else foretell(cascade, asked, held.reason, held.token)
        held = take(said, held, reading.rows, limit)
    plan = Proposal.single(state, replace(reading, token=held.token), held.reason)
    return replace(plan, confidence=held.confidence.unsqueeze(1), looks=held.count, broken=held.broken)


@dataclass(frozen=True)
class Held:
    """What a round holds between two looks.

    Attributes:
        token, confidence, reason: of every position, as it will be committed.
        left: positions still to be foretold.
        asked: all that were read, of rows where one is left.
        count: looks of each row.
        broken: whether a figure was NaN or infinite.
    """

    token: Int[Tensor, "B L"]
    confidence: Float[Tensor, "B L"]
    reason: Int[Tensor, "B L"]
    left: Bool[Tensor, "B L"]
    asked: Bool[Tensor, "B L"]
    count: Int[Tensor, " B"]
    broken: Bool[Tensor, ""]


def _begin(token: Tensor, confidence: Tensor, reason: Tensor, rows: Bool[Tensor, "B L"]) -> Held:
    """Before the first look."""
    left = rows & (reason == 0)
    count = torch.zeros_like(rows[:, 0], dtype=torch.long)
    return Held(token, confidence, reason, left, rows & left.any(-1, keepdim=True), count, torch.zeros_like(rows[0, 0]))


def _take(said: Foretold, held: Held, rows: Bool[Tensor, "B L"], bound: Float[Tensor, ""]) -> Held:
    """After the safest of what a look foretells are taken."""
    (likeliest, risk), left = said, held.left
    sure = left & (prefix_sum(risk, -risk, left) <= bound)
    still = left & ~sure & sure.any(-1, keepdim=True)  # elsewhere a look would say the same
    return Held(
        token=torch.where(sure, likeliest, held.token),
        confidence=torch.where(sure, 1 - risk, held.confidence),
        reason=torch.where(sure, int(Reason.CASCADE), held.reason),
        left=still,
        asked=rows & still.any(-1, keepdim=True),
        count=held.count + left.any(-1).long(),
        broken=held.broken | ~risk.isfinite().all(),
    )


def compiled_for(step: Step, reading: Reading) -> Step:
    """A tensor program, compiled where an engine made the reading."""
    return compiled(step, reading.rows.device) if is_wide(reading) else step


def is_wide(reading: Reading) -> bool:
    """Whether an engine made the reading: then a look is of fixed width and asks the host nothing."""
    return bool(reading.taps) and isinstance(reading.taps[0], WideTap)


def foretell(cascade: Cascade, reading: Reading, reason: Int[Tensor, "B L"], token: Int[Tensor, "B L"]) -> Foretold:
    """The likeliest token of every position left and its risk; -1 and 0 elsewhere.

    Args:
        cascade: the head's.
        reading: with taps.
        reason: 0 at positions that are not committed.
        token: what is committed elsewhere.
    """
    committed, left = compiled_for(_parted, reading)(reading.rows, reason)
    log_probs = ask(cascade, reading, committed, token)
    if is_wide(reading):
        tap: Any = reading.taps[0]
        likeliest_of = compiled_for(_likeliest_in_window, reading)
        return likeliest_of(log_probs, reading.top_tokens, left, tap.rows, tap.back)
    likeliest, risk = _likeliest(log_probs, reading.top_tokens[left])
    return (
        torch.full_like(token, -1).masked_scatter(left, likeliest),
        torch.zeros_like(reading.confidence).masked_scatter(left, risk),
    )


def _parted(rows: Bool[Tensor, "B L"], reason: Int[Tensor, "B L"]) -> tuple[Tensor, Tensor]:
    """The rows that are committed, and those left."""
    committed = rows & (reason > 0)
    return committed, rows & ~committed


def _likeliest_in_window(
    log_probs: Float[Tensor, "N W 6"],
    tokens: Int[Tensor, "N L 5"],
    left: Bool[Tensor, "N L"],
    window: Int[Tensor, "N W"],
    back: Int[Tensor, "N L"],
) -> Foretold:
    """The likeliest candidate of every position left and its risk, from those of a window; -1 and 0 elsewhere."""
    candidates = tokens.gather(1, window.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))
    likeliest, risk = (found.gather(1, back) for found in _likeliest(log_probs, candidates))
    return likeliest.masked_fill(~left, -1), risk.masked_fill(~left, 0.0)


def _likeliest(log_probs: Float[Tensor, "*M 6"], tokens: Int[Tensor, "*M 5"]) -> tuple[Tensor, Tensor]:
    """The likeliest candidate of each position and its risk."""
    best = log_probs[..., :-1].argmax(-1, keepdim=True)
    risk = log_probs.scatter(-1, best, -torch.inf).logsumexp(-1).exp()
    return tokens.gather(-1, best).squeeze(-1), risk


def ask(
    cascade: Cascade,
    reading: Reading,
    committed: Bool[Tensor, "B L"],
    token: Int[Tensor, "B L"],
    *,
    believed: bool = False,
) -> Float[Tensor, "... 6"]:
    """Log-probabilities of the reading's candidates, and of the rest, at the positions left, packed (`Cascade.forward`).

    Args:
        cascade: the head's.
        reading: with taps.
        committed: positions that are taken for committed.
        token: what they hold.
        believed: as the cascade says it, whatever held-out states bear out.
    """
    figures = (reading.top_tokens, reading.top_log_probs, reading.log_normaliser)
    forward: Any = cascade.foretell_wide if is_wide(reading) else cascade
    log_probs: Tensor = forward(reading.taps, reading.rows, committed, token, *figures, believed=believed)
    return log_probs
