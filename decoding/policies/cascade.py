"""Commit the cascade with what sets it off: positions that the round's other commits make sure, in the same round."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from decoding.policies.bounds import prefix_sum
from decoding.reading import Reading
from decoding.state import DecodeState, Proposal, Reason
from models.engine.graphs import compiled
from models.engine.window import WideTap
from models.heads.cascade import Cascade

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
    token, confidence, left = reading.token, reading.confidence, reading.rows & (reason == 0)
    wide, limit = is_wide(reading), torch.full((), bound, dtype=confidence.dtype, device=confidence.device)
    take = compiled(_take, confidence.device) if wide else _take
    count = torch.zeros_like(state.round)
    broken = torch.zeros((), dtype=torch.bool, device=count.device)
    for look in range(looks):
        if not wide and not left.any():
            break
        asked = replace(reading, rows=reading.rows & left.any(-1, keepdim=True))
        count = count + left.any(-1).long()
        said = first if first is not None and not look else foretell(cascade, asked, reason, token)
        broken = broken | ~said[1].isfinite().all()
        token, confidence, reason, left = take(said, (token, confidence, reason, left), limit)
    plan = Proposal.single(state, replace(reading, token=token), reason)
    return replace(plan, confidence=confidence.unsqueeze(1), looks=count, broken=broken)


def _take(
    said: Foretold, held: tuple[Tensor, Tensor, Tensor, Tensor], bound: Float[Tensor, ""]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Token, confidence, reason, and the positions left, after the safest of what a look foretells are taken."""
    (likeliest, risk), (token, confidence, reason, left) = said, held
    sure = left & (prefix_sum(risk, -risk, left) <= bound)
    token, confidence = torch.where(sure, likeliest, token), torch.where(sure, 1 - risk, confidence)
    reason = torch.where(sure, int(Reason.CASCADE), reason)
    return token, confidence, reason, left & ~sure & sure.any(-1, keepdim=True)  # elsewhere a look would say the same


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
    wide, device = is_wide(reading), reason.device
    committed, left = (compiled(_parted, device) if wide else _parted)(reading.rows, reason)
    log_probs = ask(cascade, reading, committed, token)
    if wide:
        tap: Any = reading.taps[0]
        return compiled(_likeliest_in_window, device)(log_probs, reading.top_tokens, left, tap.rows, tap.back)
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
