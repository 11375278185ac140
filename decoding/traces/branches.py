"""States that a decoder visited, and what happens to every other position when one more token is committed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from decoding.commit import commit, commit_first
from decoding.loop import decode
from decoding.policies.ete import BeamETE, Plan
from decoding.policy import Policy, rank
from decoding.reading import Reading, read
from decoding.sampling import Sampling
from decoding.state import DecodeState, Proposal, Reason
from decoding.traces.labelling import Labelling
from models.denoiser import Denoiser

KINDS = ("exploit", "anchor", "beam", "stratum", "uniform", "bare")  # in the order in which they are taken
BARE = KINDS.index("bare")  # of another canvas than the others: committed without the plan
FLOOR = -60.0  # log(1 - c) that is stored for positions the branch itself committed, or that were not read


@dataclass(frozen=True)
class Branches:
    """K one-token commits tried from each of S states; branch 0 commits the plan alone, what the beam commits in any case.

    Attributes:
        position: the position that sets the branch apart, -1 in branch 0 and where there is no branch.
        kind: index into KINDS.
        propensity: probability with which the position was drawn.
        log_confidence: log c_j of the committed token.
        eq7: Eq. 7's score.
        token, log_risk: candidate and log(1 - c) of every position in `asked`, after the commit.
        asked: positions that are masked in the state and open in the next round.
    """

    position: Int[Tensor, "S K"]
    kind: Int[Tensor, "S K"]
    propensity: Float[Tensor, "S K"]
    log_confidence: Float[Tensor, "S K"]
    eq7: Float[Tensor, "S K"]
    token: Int[Tensor, "S K L"]
    log_risk: Float[Tensor, "S K L"]
    asked: Bool[Tensor, "S L"]

    def cpu(self) -> Branches:
        """The same on the CPU, where rows are written."""
        return Branches(*(getattr(self, f.name).cpu() for f in fields(self)))


def predict(
    denoiser: Denoiser,
    tokens: Int[Tensor, "N L"],
    rows: Bool[Tensor, "N L"],
    attention_mask: Bool[Tensor, "N L"] | None,
    *,
    taps: Sequence[int] = (),
) -> Reading:
    """One reading at temperature 0, outside the decode loop (labels and fitting).

    Args:
        denoiser: the base.
        tokens: N canvases.
        rows: positions asked for.
        attention_mask: False on padding, None without.
        taps: blocks whose hidden states are kept.
    """
    prediction = denoiser(tokens, attention_mask=attention_mask, rows=rows, taps=taps)
    return read(prediction, Sampling(forbidden=(denoiser.mask_id,)))


@torch.inference_mode()
def try_branches(
    denoiser: Denoiser,
    state: DecodeState,
    beam: BeamETE,
    labelling: Labelling,
    *,
    attention_mask: Bool[Tensor, "S L"] | None,
    generator: torch.Generator,
    batch_size: int,
) -> Branches:
    """Commit what the beam commits in any case plus one more token, for each of several positions, and read the others.

    Every state is treated as one that explores: implicit exploration included, as in the beam's own branches.

    Args:
        denoiser: the base.
        state: S states.
        beam: whose plan and Eq. 7 they follow.
        labelling: how many branches, of which kinds.
        attention_mask: False on padding, None without.
        generator: says which positions are tried.
        batch_size: canvases in one forward.
    """
    reading = predict(denoiser, state.tokens, state.feasible, attention_mask)
    plan = _explored(beam, state, reading)
    free = reading.rows & (plan.reason == 0)
    position, kind, propensity = _draw_branches(reading, free, plan, labelling, generator)
    canvases = _committed(state, reading, plan.reason, position)
    asked = state.masked & (state.block < canvases.opened.amax(1, keepdim=True))
    live = (position >= 0) & canvases.unfinished
    live[:, 0] = canvases.unfinished[:, 0]
    after = _read_in_batches(denoiser, canvases, live, asked, attention_mask, batch_size)
    log_confidence = reading.log_confidence.gather(1, position.clamp(min=0))
    proposal = Proposal(canvases.tokens, canvases.reason, live, log_confidence)
    rows = canvases.masked & asked.unsqueeze(1)
    return Branches(
        position=position,
        kind=kind,
        propensity=propensity,
        log_confidence=log_confidence,
        eq7=beam.score(proposal, after),
        token=torch.where(rows, after.token, -1),
        log_risk=torch.where(rows, after.log_risk, FLOOR),
        asked=asked,
    )


@torch.inference_mode()
def try_alone(
    denoiser: Denoiser,
    state: DecodeState,
    beam: BeamETE,
    count: int,
    *,
    asked: Bool[Tensor, "S L"],
    attention_mask: Bool[Tensor, "S L"] | None,
    generator: torch.Generator,
    batch_size: int,
) -> Branches:
    """Commit one token and nothing else, at up to `count` positions in turn, and read what else is feasible; branch 0 commits none.

    Half of the positions are drawn from the beam's plan and half from the rest; where one of them has too few, more of the other.
    `asked` is that of `try_branches` in the same states. Eq. 7 of these branches is -inf: they have no cascade.

    Args:
        denoiser: the base.
        state: S states.
        beam: whose plan half of the positions come from.
        count: branches of a state at most.
        asked: positions read in `try_branches`.
        attention_mask, generator, batch_size: as there.
    """
    reading = predict(denoiser, state.tokens, state.feasible, attention_mask)
    planned = _explored(beam, state, reading).reason > 0
    position, propensity = _draw_alone(reading.rows & planned, reading.rows & ~planned, count, generator)
    canvases = _committed(state, reading, torch.zeros_like(state.reason), position)
    live = (position >= 0) & canvases.unfinished
    after = _read_in_batches(denoiser, canvases, live, state.feasible, attention_mask, batch_size)
    trunk = torch.arange(position.shape[1], device=position.device).view(1, -1, 1) == 0  # branch 0 has been read
    rows = canvases.masked & state.feasible.unsqueeze(1)
    return Branches(
        position=position,
        kind=torch.full_like(position, BARE),
        propensity=propensity,
        log_confidence=reading.log_confidence.gather(1, position.clamp(min=0)),
        eq7=torch.full_like(propensity, -torch.inf),
        token=torch.where(rows, torch.where(trunk, reading.token.unsqueeze(1), after.token), -1),
        log_risk=torch.where(rows, torch.where(trunk, reading.log_risk.unsqueeze(1), after.log_risk), FLOOR),
        asked=asked,
    )


def _explored(beam: BeamETE, state: DecodeState, reading: Reading) -> Plan:
    """The beam's plan in states that all explore."""
    return replace(beam, gamma=1.0, min_masks=0).plan(state, reading)


def _draw_alone(
    planned: Bool[Tensor, "S L"], beyond: Bool[Tensor, "S L"], count: int, generator: torch.Generator
) -> tuple[Int[Tensor, "S K"], Float[Tensor, "S K"]]:
    """Positions in turn from either side, all of a side equally likely, and how likely; -1 and 1 first."""
    noise = torch.rand(planned.shape, generator=generator).to(planned.device)
    turn = torch.where(planned, 2 * rank(noise, planned), 2 * rank(noise, beyond) + 1)
    there = planned | beyond
    slots = torch.argsort(torch.where(there, turn, 2 * there.shape[1]), dim=1)[:, :count]
    valid = there.gather(1, slots)
    drawn = torch.zeros_like(there).scatter(1, slots, valid)
    ours, theirs = ((drawn & s).sum(-1, keepdim=True) / s.sum(-1, keepdim=True).clamp(min=1) for s in (planned, beyond))
    propensity = torch.where(planned, ours, theirs).gather(1, slots)
    nothing = torch.zeros_like(slots[:, :1])
    return torch.cat([nothing - 1, torch.where(valid, slots, -1)], 1), torch.cat([nothing + 1.0, propensity], 1)


def _draw_branches(
    reading: Reading, free: Bool[Tensor, "S L"], plan: Plan, labelling: Labelling, generator: torch.Generator
) -> tuple[Int[Tensor, "S K"], Int[Tensor, "S K"], Float[Tensor, "S K"]]:
    """Position, kind and propensity of branch 0 (the plan alone) and of up to `branches` others.

    A position that is several things counts as the beam's before the anchor's before a stratum's. Within a kind that does not fit
    whole, all are equally likely.
    """
    count = free.sum(-1, keepdim=True).clamp(min=1)
    ranks = rank(reading.log_odds, free)
    stratum = ((ranks + 1) * labelling.strata // count) > (ranks * labelling.strata // count)
    beam = torch.zeros_like(free).scatter(1, plan.candidates, plan.valid)
    kind = torch.full_like(ranks, KINDS.index("uniform"))
    for name, chosen in (("stratum", stratum), ("anchor", ranks == 0), ("beam", beam)):
        kind = torch.where(chosen & free, KINDS.index(name), kind)
    noise = torch.rand(free.shape, generator=generator).to(free.device)
    order = rank(noise - kind.float(), free)  # smaller kinds first
    sizes = nn.functional.one_hot(kind.masked_fill(~free, 0), len(KINDS)).sum(1)
    room = (labelling.branches - sizes.cumsum(1) + sizes[:, :1] + sizes).clamp(min=0)  # kind 0 counts what is not free
    propensity = (room / sizes.clamp(min=1)).clamp(max=1.0).gather(1, kind)
    slots = torch.argsort(torch.where(free, order, free.shape[1]), dim=1)[:, : labelling.branches]
    valid = free.gather(1, slots)
    nothing = torch.zeros_like(slots[:, :1])
    return (
        torch.cat([nothing - 1, torch.where(valid, slots, -1)], 1),
        torch.cat([nothing, kind.gather(1, slots)], 1),
        torch.cat([nothing + 1.0, propensity.gather(1, slots)], 1),
    )


def _committed(
    state: DecodeState, reading: Reading, planned: Int[Tensor, "S L"], position: Int[Tensor, "S K"]
) -> DecodeState:
    """The state after the plan and, in branch k, one more token: written by `commit` as a decode would."""
    reason = planned.unsqueeze(1).repeat(1, position.shape[1], 1)
    extra = torch.zeros_like(reason, dtype=torch.bool).scatter(2, position.clamp(min=0).unsqueeze(2), True)
    reason = torch.where(extra & (position >= 0).unsqueeze(2), int(Reason.EXPLORE), reason)
    tokens = torch.where(reason > 0, reading.token.unsqueeze(1), state.tokens.unsqueeze(1))
    live = torch.ones_like(position, dtype=torch.bool)
    return commit(state, reading, Proposal(tokens, reason, live, torch.zeros_like(live, dtype=torch.float)))


def _read_in_batches(
    denoiser: Denoiser,
    canvases: DecodeState,
    live: Bool[Tensor, "S K"],
    asked: Bool[Tensor, "S L"],
    attention_mask: Bool[Tensor, "S L"] | None,
    batch_size: int,
) -> Reading:
    shape = (live.shape[0], live.shape[1])
    whole = Reading.empty(tuple(canvases.tokens.shape), live.device)
    parts: list[Reading] = []
    index = live.nonzero()
    if not len(index):
        return whole
    for chunk in torch.split(index, batch_size):
        row, branch = chunk.unbind(-1)
        mask = None if attention_mask is None else attention_mask[row]
        rows = canvases.masked[row, branch] & asked[row]
        parts.append(predict(denoiser, canvases.tokens[row, branch], rows, mask))
    names = [f.name for f in fields(Reading) if isinstance(getattr(parts[0], f.name), Tensor)]
    joined: dict[str, Any] = {n: torch.cat([getattr(p, n) for p in parts]) for n in names}
    packed = Reading(**joined)
    return packed.scatter(index, shape)


@torch.inference_mode()
def finish(
    denoiser: Denoiser,
    state: DecodeState,
    careful: Policy,
    *,
    attention_mask: Bool[Tensor, "S L"] | None,
    forced: Int[Tensor, " S"] | None = None,
) -> Int[Tensor, "S L"]:
    """Decode every state to the end with the careful policy, after forcing the candidate at `forced` (-1: nothing).

    Args:
        denoiser: the base.
        state: S states.
        careful: decides from there on.
        attention_mask: False on padding, None without.
        forced: position committed first, -1 for none.
    """
    if forced is not None:
        reading = predict(denoiser, state.tokens, state.feasible, attention_mask)
        reason = torch.zeros_like(state.reason).scatter(1, forced.clamp(min=0).unsqueeze(1), int(Reason.EXPLORE))
        reason = torch.where((forced >= 0).unsqueeze(1), reason, 0)
        state = commit_first(state, reading, Proposal.single(state, reading, reason))
    state = replace(state, layout=replace(state.layout, step_budget=None))
    sampling = Sampling(forbidden=(denoiser.mask_id,))
    return decode(denoiser, state, careful, attention_mask=attention_mask, sampling=sampling)[0].tokens
