"""What a forward is asked for beside the masks of the opened blocks, by what the policy needs."""

from __future__ import annotations

from dataclasses import replace

from jaxtyping import Bool
from torch import Tensor

from decoding.policy import Needs
from decoding.state import DecodeState
from models.denoiser import Prediction


def asked(state: DecodeState, needs: Needs) -> Bool[Tensor, "B K L"]:
    """Positions whose distribution a forward gives: the masks of the opened blocks, and what the policy asks for beside them.

    Distributions that are kept for the next forward include those of later blocks, unless a cache leaves them out.
    """
    if needs.shadows:
        return state.feasible | (newest_block(state) & state.unfinished.unsqueeze(-1))
    if needs.maps:
        return (state.layout.block < state.opened.unsqueeze(-1)) & state.unfinished.unsqueeze(-1)
    if needs.committed:
        canvas = (state.layout.block >= 0) & (state.layout.block < state.opened.unsqueeze(-1))
        return canvas & state.unfinished.unsqueeze(-1)
    return state.masked if needs.earlier and not state.layout.cached else state.feasible


def newest_block(state: DecodeState) -> Bool[Tensor, "B K L"]:
    """The block opened last."""
    return state.layout.block == state.opened.unsqueeze(-1) - 1


def narrowed(prediction: Prediction, rows: Bool[Tensor, "N L"]) -> Prediction:
    """The prediction at those of its positions that are in `rows`."""
    kept = prediction.rows & rows
    return replace(prediction, logits=prediction.logits[kept[prediction.rows]], rows=kept)
