"""The law that independent Metropolis-Hastings samples on a small exhaustive model, by enumeration.

With the true future Z it is p^alpha / sum p^alpha; with the mean-field one it is prod_i p_i^alpha Z_mf / sum, another law.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from decoding.loop import decode
from decoding.policies.imh import Future, IndependentMH
from decoding.reading import Reading, read
from decoding.sampling import Sampling
from decoding.state import DecodeState, start
from models.toys.toy import JointDenoiser


def tempered(model: JointDenoiser, alpha: float) -> Float[Tensor, " s"]:
    """p(x)^alpha / sum p^alpha."""
    power: Tensor = model.joint**alpha
    return power / power.sum()


def exact_future(model: JointDenoiser, alpha: float) -> Future:
    """log Z(v) = log sum_rest p(rest | x_C, v)^alpha by enumeration."""

    def future(canvases: DecodeState, reading: Reading) -> Float[Tensor, "B K"]:
        weight = model.fits(canvases.tokens) * model.joint
        return (weight**alpha).sum(-1).log() - alpha * weight.sum(-1).log()

    return future


def law(model: JointDenoiser, future: Future, alpha: float) -> Float[Tensor, " s"]:
    """prod_i pi(x_i | x_<i) with pi ∝ p_i^alpha Z, from left to right: what chains of infinite length sample."""
    count = model.mask_id
    total = torch.ones(len(model.sequences))
    sampling = Sampling(forbidden=(count,), draws=1, power=alpha)
    for position in range(model.length):
        heads = model.sequences.clone()
        heads[:, position:] = count
        p = model.logits(heads)[:, position, :count].softmax(-1)
        tokens = heads.unsqueeze(1).repeat(1, count, 1)
        tokens[:, :, position] = torch.arange(count)
        canvases = blank(model, len(heads)).repeat(count)
        canvases = _with_tokens(canvases, tokens)
        flat = tokens.flatten(0, 1)
        index = torch.ones(tokens.shape[:2], dtype=torch.bool).nonzero()
        reading = read(model(flat, rows=flat == count), sampling).scatter(index, (len(heads), count))
        weight = alpha * p.log() + future(canvases, reading)
        total = total * weight.softmax(-1).gather(-1, model.sequences[:, position : position + 1]).squeeze(-1)
    return total


def blank(model: JointDenoiser, rows: int) -> DecodeState:
    """States with nothing revealed, in one block."""
    tokens = torch.zeros(rows, model.length, dtype=torch.long)
    return start(tokens, gen_length=model.length, block_length=model.length, mask_id=model.mask_id, eos_id=None)


def sampled(model: JointDenoiser, policy: IndependentMH, rows: int, generator: torch.Generator) -> Float[Tensor, " s"]:
    """Shares of the sequences among `rows` decodes of the ordinary loop.

    Args:
        model: the exhaustive model.
        policy: what decides.
        rows: decodes.
        generator: of the draws.
    """
    sampling = Sampling(forbidden=(model.mask_id,), noise=True, draws=policy.needs.draws, power=policy.needs.power)
    final, _ = decode(model, blank(model, rows), policy, sampling=sampling, generator=generator)
    base = model.mask_id ** torch.arange(model.length - 1, -1, -1)
    return torch.bincount(final.tokens @ base, minlength=len(model.sequences)) / rows


def distance(one: Tensor, other: Tensor) -> float:
    """Total variation."""
    return float(0.5 * (one - other).abs().sum())


def _with_tokens(state: DecodeState, tokens: Tensor) -> DecodeState:
    return replace(state, tokens=tokens, masked=tokens == state.layout.mask_id)
