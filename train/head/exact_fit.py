"""A features-only head for a denoiser without text, fitted on draws from its own distribution."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from decoding.policies.rules import confident
from decoding.reading import Reading, read
from decoding.sampling import Sampling
from decoding.state import DecodeState, start
from decoding.traces.branches import predict
from models.denoiser import Denoiser
from models.heads.scoring_head import ScoringHead
from train.head.data import HeadBatch
from train.head.fit import Data, fit_head
from train.head.module import PreparedBatches
from train.head.settings import VARIANTS, Fitting, Objective


def fit_features(
    denoiser: Denoiser,
    sequences: Int[Tensor, "S L"],
    *,
    block_length: int,
    threshold: float = 0.9,
    epochs: int = 6,
    pairs: bool = False,
    seed: int = 0,
) -> ScoringHead:
    """Fit risk and gain, or risk and conflict, on states that reveal a random part of each sequence; the rest is the reference.

    A tenth of the states chooses the weights.

    Args:
        denoiser: the model.
        sequences: draws from its distribution, prompt none.
        block_length: of the decoding; blocks before a random one are revealed whole, later ones not at all.
        threshold: confidence from which a position counts as crossed.
        epochs: passes over the states.
        pairs: fit a conflict output in the place of the gain.
        seed: of states and fit.
    """
    generator = torch.Generator().manual_seed(seed)
    states = reveal_some(denoiser, sequences, block_length, generator)
    if pairs:
        states = with_history(denoiser, states, generator)
    batches = [label(denoiser, one, few, threshold) for one, few in _in_batches(states, sequences, 32)]
    if pairs:
        batches = [label_pairs(denoiser, batch, generator) for batch in batches]
    held = max(1, len(batches) // 10)
    prepared = [
        PreparedBatches(denoiser, some, taps=(), threshold=threshold) for some in (batches[held:], batches[:held])
    ]
    data = Data(prepared[0], prepared[1], dev={}, train_prompts=[], dev_prompts={}, train_task=[])
    fitting = Fitting(variants=("features",), epochs=epochs, width=32, objective=Objective(conflict=float(pairs)))
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    return fit_head(denoiser, data, VARIANTS["features"], fitting, seed=seed, threshold=threshold, logs=None)


def reveal_some(
    denoiser: Denoiser, sequences: Int[Tensor, "S L"], block_length: int, generator: torch.Generator
) -> DecodeState:
    """States that show the blocks before a random one, and a random share of that one.

    Args:
        denoiser: the exact model.
        sequences: whole canvases.
        block_length: a divisor of their length.
        generator: of the draws.
    """
    count, length = sequences.shape
    state = start(
        sequences, gen_length=length, block_length=block_length, mask_id=denoiser.mask_id, eos_id=denoiser.eos_id
    )
    block = torch.randint(length // block_length, (count, 1), generator=generator)
    share = torch.rand(count, 1, generator=generator)
    here = torch.rand(count, length, generator=generator) < share
    last = torch.arange(length).expand(count, -1) == (block + 1) * block_length - 1
    masked = (state.block > block) | ((state.block == block) & (~here | last))
    return replace(
        state,
        tokens=sequences.masked_fill(masked, denoiser.mask_id),
        masked=masked,
        opened=block.squeeze(1) + 1,
        committed_round=torch.where(masked, -1, 1),
    )


def label(denoiser: Denoiser, state: DecodeState, reference: Int[Tensor, "S L"], threshold: float) -> HeadBatch:
    """Every mask of the open blocks tried as a branch on top of what is confident; gain = right minus wrong new crossings.

    Args:
        denoiser: the exact model.
        state: S states.
        reference: the right canvases.
        threshold: confidence of the plan, in (0, 1).
    """
    alone = predict(denoiser, state.tokens, state.feasible, None)
    exploit = confident(alone, threshold)
    plan = torch.where(exploit, alone.token, state.tokens)
    left = state.feasible & ~exploit
    width = int(left.sum(-1).max().clamp(min=1))
    position = torch.argsort(left.long(), dim=-1, descending=True, stable=True)[:, :width]
    valid = left.gather(-1, position)
    chosen = torch.nn.functional.one_hot(position, left.shape[-1]).bool()
    tried = torch.where(chosen, alone.token.unsqueeze(1), plan.unsqueeze(1))
    before = predict(denoiser, plan, left, None)
    after = predict(denoiser, tried.flatten(0, 1), (left.unsqueeze(1) & ~chosen).flatten(0, 1), None)
    gain = crossings(after, before, reference, (len(plan), width), threshold)
    nothing = torch.full_like(position, -1)
    return HeadBatch(
        state=state,
        attention_mask=torch.ones_like(state.masked),
        reference=reference,
        unique=torch.ones_like(state.opened, dtype=torch.bool),
        harm=torch.full_like(reference, -1),
        position=torch.where(valid, position, nothing),
        gain=gain,
        eq7=torch.full_like(gain, -torch.inf),
        beam=torch.zeros_like(valid),
        log_confidence=alone.confidence.gather(-1, position).clamp(min=1e-9).log(),
        state_index=torch.arange(len(plan)),
        alone=torch.full_like(reference, -1),
        changed=torch.full((*position.shape, reference.shape[1]), -1, dtype=torch.int8),
        bare=torch.zeros_like(valid),
    )


def with_history(denoiser: Denoiser, state: DecodeState, generator: torch.Generator) -> DecodeState:
    """The states with the two readings that a decode might have had before: of states with half as much of the block shown."""
    confidence, token = torch.zeros_like(state.recent_confidence), torch.full_like(state.recent_token, -1)
    shown = ~state.masked & (state.block == state.opened.unsqueeze(1) - 1)
    tokens = state.tokens
    for age in range(2):
        there = shown.any(-1, keepdim=True) & state.feasible
        shown = shown & (torch.rand(shown.shape, generator=generator) < 0.5)
        here = state.block == state.opened.unsqueeze(1) - 1
        tokens = tokens.masked_fill(here & ~shown, denoiser.mask_id)
        reading = predict(denoiser, tokens, there, None)
        confidence[:, age] = torch.where(there, reading.confidence, 0.0)
        token[:, age] = torch.where(there, reading.token, -1)
    return replace(state, recent_confidence=confidence, recent_token=token)


def label_pairs(denoiser: Denoiser, batch: HeadBatch, generator: torch.Generator) -> HeadBatch:
    """Every mask of the open blocks as a branch of its own, nothing else committed, with a token drawn from p at i.

    y_ij = [the most probable token at j is another one]: for a decode that draws its tokens, kappa_ij is the probability that what
    is drawn at i makes another token the likelier one at j. These branches have no gain.
    """
    state = batch.state
    alone = predict(denoiser, state.tokens, state.feasible, None)
    sampling = Sampling(temperature=1.0, forbidden=(denoiser.mask_id,))
    drawn = read(denoiser(state.tokens, rows=state.feasible), sampling, generator).token
    width = int(state.feasible.sum(-1).max().clamp(min=1))
    position = torch.argsort(state.feasible.long(), dim=-1, descending=True, stable=True)[:, :width]
    valid = state.feasible.gather(-1, position)
    chosen = torch.nn.functional.one_hot(position, state.tokens.shape[-1]).bool() & valid.unsqueeze(-1)
    tried = torch.where(chosen, drawn.unsqueeze(1), state.tokens.unsqueeze(1))
    rows = state.feasible.unsqueeze(1) & ~chosen & valid.unsqueeze(-1)
    after = predict(denoiser, tried.flatten(0, 1), rows.flatten(0, 1), None)
    changed = torch.unflatten(after.token, 0, valid.shape) != alone.token.unsqueeze(1)
    nothing = torch.zeros_like(position, dtype=torch.float)
    return replace(
        batch,
        position=position.masked_fill(~valid, -1),
        gain=nothing,
        eq7=nothing - torch.inf,
        beam=torch.zeros_like(valid),
        log_confidence=alone.confidence.gather(-1, position).clamp(min=1e-9).log(),
        alone=alone.token,
        changed=changed.to(torch.int8).masked_fill(~rows, -1),
        bare=valid,
    )


def crossings(
    after: Reading, before: Reading, reference: Int[Tensor, "S L"], shape: tuple[int, int], threshold: float
) -> Tensor:
    """Positions of each branch that cross the threshold and did not without it, right minus wrong, [S, K].

    Args:
        after: of S x K canvases.
        before: of the S states.
        reference: the right canvases.
        shape: (S, K).
        threshold: confidence from which a position counts, in (0, 1).
    """
    new: Bool[Tensor, "S K L"] = torch.unflatten(confident(after, threshold), 0, shape)
    new = new & ~confident(before, threshold).unsqueeze(1)
    right = torch.unflatten(after.token, 0, shape) == reference.unsqueeze(1)
    return ((new & right).sum(-1) - (new & ~right).sum(-1)).float()


def _in_batches(state: DecodeState, reference: Tensor, size: int) -> list[tuple[DecodeState, Tensor]]:
    parts = torch.split(torch.arange(len(reference)), size)
    return [(state.map(_taking(index)), reference[index]) for index in parts]


def _taking(index: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda value: value[index]
