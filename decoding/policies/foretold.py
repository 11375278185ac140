"""A reading that no forward has made: what the head's cascade foretells of the next one, in the form that any rule reads."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from decoding.policies.cascade import ask, is_wide
from decoding.reading import Reading
from models.engine.window import WideTap
from models.heads.cascade import Cascade

LEAST = -100.0  # log-probability of what cannot be
KEPT = 1e-6  # of a confidence that a share leaves nothing of, so that the best position stays the best


def foretell_reading(
    cascade: Cascade, reading: Reading, committed: Bool[Tensor, "B L"], token: Int[Tensor, "B L"]
) -> Reading:
    """The reading once `committed` are in place, at the other positions of `reading`.

    p(x_j | x, x_S) over the five candidates of the present reading and the rest of the vocabulary as one (`Cascade.forward`):
    candidate, confidence, risk and the five log-probabilities are of that distribution, the entropy counts the rest as one token.
    It is believed as the cascade says it, for what is drafted by it is checked (`CascadeConfig.seen` is for what is not).

    Args:
        cascade: foretells p.
        reading: the last one that a forward made, with its taps.
        committed: positions of it that are committed since, drafts included.
        token: their tokens; any elsewhere.
    """
    committed = committed & reading.rows
    left = reading.rows & ~committed
    log_probs = ask(cascade, reading, committed, token, believed=True)
    window: WideTap | None = reading.taps[0] if is_wide(reading) else None  # type: ignore[assignment]
    candidates = reading.top_tokens[left] if window is None else window.pick(reading.top_tokens)
    top, order = log_probs[..., :-1].sort(dim=-1, descending=True, stable=True)
    tokens = candidates.gather(-1, order)
    others = torch.cat([top[..., 1:], log_probs[..., -1:]], -1).logsumexp(-1)

    def spread(found: Tensor, base: Tensor) -> Tensor:
        return _spread(left, found if window is None else window.spread(found), base, packed=window is None)

    return replace(
        reading,
        rows=left,
        token=spread(tokens[..., 0], torch.full_like(reading.token, -1)),
        confidence=spread(top[..., 0].exp(), torch.zeros_like(reading.confidence)),
        log_risk=spread(others.clamp(min=LEAST), torch.zeros_like(reading.log_risk)),
        entropy=spread(torch.special.entr(log_probs.exp()).sum(-1), torch.zeros_like(reading.entropy)),
        top_log_probs=spread(top.clamp(min=LEAST), reading.top_log_probs),
        top_tokens=spread(tokens, reading.top_tokens),
    )


def _spread(rows: Bool[Tensor, "B L"], found: Tensor, base: Tensor, *, packed: bool) -> Tensor:
    """What was found at its rows, `base` elsewhere.

    Args:
        rows: where something was found.
        found: packed, or at all positions.
        base: at all positions.
        packed: whether `found` is.
    """
    wide = rows.unsqueeze(-1) if base.ndim > rows.ndim else rows
    if packed:
        return base.masked_scatter(wide, found.to(base.dtype))
    return torch.where(wide, found.to(base.dtype), base)


def doubt(reading: Reading, share: float) -> Reading:
    """The reading with every doubt divided by `share`: what a rule accepts of it, it accepts at that share of its bound.

    1 - c, the probabilities of all other tokens and the entropy become so much larger: c >= t turns into 1 - c <= share (1 - t),
    a bound b on a sum of risks into share b, and a margin m into 1 - share (1 - m). The order of the positions stays.

    Args:
        reading: any.
        share: in (0, 1].
    """
    if share == 1.0:
        return reading
    top = reading.top_log_probs
    sure = 1 - (reading.log_risk - math.log(share)).exp()
    confidence = torch.maximum(sure, KEPT * reading.confidence)
    first = torch.maximum(1 - (1 - top[..., :1].exp()) / share, KEPT * top[..., :1].exp())
    return replace(
        reading,
        confidence=torch.where(reading.rows, confidence, reading.confidence),
        log_risk=torch.where(reading.rows, (reading.log_risk - math.log(share)).clamp(max=0.0), reading.log_risk),
        entropy=reading.entropy / share,
        top_log_probs=torch.cat([first.log(), top[..., 1:] - math.log(share)], -1).clamp(min=LEAST),
    )
