"""A reading that no forward has made: what the head's cascade foretells of the next one, in the form that any rule reads."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from decoding.policies.cascade import ask, compiled_for, is_wide
from decoding.reading import Reading
from models.engine.figures import least
from models.heads.cascade import Cascade


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
    committed, left = compiled_for(_parted, reading)(reading.rows, committed)
    log_probs, bare = ask(cascade, reading, committed, token, believed=True), replace(reading, taps=())
    if is_wide(reading):
        tap: Any = reading.taps[0]
        return replace(compiled_for(_in_window, reading)(log_probs, bare, left, tap.rows, tap.back), taps=reading.taps)
    found = _figures(log_probs, reading.top_tokens[left])
    return _rewritten(
        reading, left, lambda name, base: base.masked_scatter(_like(left, base), found[name].to(base.dtype))
    )


def _parted(rows: Bool[Tensor, "B L"], committed: Bool[Tensor, "B L"]) -> tuple[Tensor, Tensor]:
    """The rows that are committed, and those left."""
    return rows & committed, rows & ~committed


def _in_window(
    log_probs: Float[Tensor, "N W 6"],
    reading: Reading,
    left: Bool[Tensor, "N L"],
    window: Int[Tensor, "N W"],
    back: Int[Tensor, "N L"],
) -> Reading:
    """What the places of an engine's window say, at all positions.

    Args:
        log_probs: of each place's candidates, and of the rest.
        reading: without taps.
        left: positions that are foretold.
        window: places of the window.
        back: which of them stands for each position.
    """
    found = _figures(log_probs, reading.top_tokens.gather(1, _wide(window, reading.top_tokens)))

    def placed(name: str, base: Tensor) -> Tensor:
        return torch.where(_like(left, base), found[name].gather(1, _wide(back, found[name])).to(base.dtype), base)

    return _rewritten(reading, left, placed)


def _figures(log_probs: Float[Tensor, "*M 6"], candidates: Int[Tensor, "*M 5"]) -> dict[str, Tensor]:
    """The figures of a reading, from what is foretold of its candidates and of all other tokens together."""
    top, order = log_probs[..., :-1].sort(dim=-1, descending=True, stable=True)
    tokens = candidates.gather(-1, order)
    others = torch.cat([top[..., 1:], log_probs[..., -1:]], -1).logsumexp(-1)
    return {
        "token": tokens[..., 0],
        "confidence": top[..., 0].exp(),
        "log_risk": others.clamp(min=least()),
        "entropy": torch.special.entr(log_probs.exp()).sum(-1),
        "top_log_probs": top.clamp(min=least()),
        "top_tokens": tokens,
    }


def _rewritten(reading: Reading, left: Bool[Tensor, "B L"], placed: Callable[[str, Tensor], Tensor]) -> Reading:
    """The reading with new figures at the positions left; of the others only the candidates stay.

    Args:
        reading: the one before.
        left: positions that are foretold.
        placed: name of a figure and what stands elsewhere -> that figure at every position.
    """
    bases: dict[str, Tensor] = {
        "token": torch.full_like(reading.token, -1),
        "confidence": torch.zeros_like(reading.confidence),
        "log_risk": torch.zeros_like(reading.log_risk),
        "entropy": torch.zeros_like(reading.entropy),
        "top_log_probs": reading.top_log_probs,
        "top_tokens": reading.top_tokens,
    }
    figures: dict[str, Any] = {name: placed(name, base) for name, base in bases.items()}
    return replace(reading, rows=left, **figures)


def _like(rows: Bool[Tensor, "B L"], base: Tensor) -> Tensor:
    return rows.unsqueeze(-1) if base.ndim > rows.ndim else rows


def _wide(place: Int[Tensor, "N M"], values: Tensor) -> Tensor:
    return place if values.ndim == 2 else place.unsqueeze(-1).expand(-1, -1, values.shape[-1])


def doubt(reading: Reading, share: float) -> Reading:
    """The reading with every doubt divided by `share`: what a rule accepts of it, it accepts at that share of its bound.

    1 - c, the probabilities of all other tokens and the entropy become so much larger: c >= t turns into 1 - c <= share (1 - t),
    a bound b on a sum of risks into share b, and a margin m into 1 - share (1 - m). The order of the positions stays.

    Args:
        reading: any.
        share: in (0, 1]; at 1 nothing changes but by rounding.
    """
    top = reading.top_log_probs
    kept = 1e-6  # of a confidence of which nothing is left, so that the best position stays the best
    sure = 1 - (reading.log_risk - math.log(share)).exp()
    confidence = torch.maximum(sure, kept * reading.confidence)
    first = torch.maximum(1 - (1 - top[..., :1].exp()) / share, kept * top[..., :1].exp())
    return replace(
        reading,
        confidence=torch.where(reading.rows, confidence, reading.confidence),
        log_risk=torch.where(reading.rows, (reading.log_risk - math.log(share)).clamp(max=0.0), reading.log_risk),
        entropy=reading.entropy / share,
        top_log_probs=torch.cat([first.log(), top[..., 1:] - math.log(share)], -1).clamp(min=least()),
    )
