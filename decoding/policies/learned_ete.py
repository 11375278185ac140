"""Explore-Then-Exploit with a head in the place of the look-ahead: one canvas a round, two where a gate asks for them."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from operator import itemgetter
from typing import Literal, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from decoding.policies.cascade import follow, foretell, is_wide
from decoding.policies.ete import BranchingPolicy, Plan, best_branch, by_confidence, require_factor
from decoding.policies.learned import check_head, safe_set, score
from decoding.policies.rules import require, require_one_of
from decoding.policy import Needs
from decoding.reading import Reading
from decoding.state import DecodeState, Proposal
from models.heads.cascade import Cascade
from models.heads.scoring_head import ScoringHead

COPIED = 1 << 28  # numbers of the taps that canvases looked at together may copy
NOTHING = 10_000  # nats below any score of Eq. 7 that sets something off
Among = Literal["candidates", "all"]
Judge = Literal["gain", "cascade"]


@final
@dataclass(frozen=True)
class LearnedETE(BranchingPolicy):
    """Explore-Then-Exploit in one forward: every branch is foretold in place of being run, and the one kept is followed at once.

    E: the most confident positions with sum (1 - c_i) < b, at least one                                exploit
    if the row explores: of the k candidates of Eq. 6 commit the j that maximises Eq. 7 on what is
    foretold once E and j are committed                                                                 explore
    `looks` times: commit what is foretold, as long as the risks of a look add up to share * b          follow

    Without exploration (gamma 0) it is `Learned` with the rule `confidence` and the same b, looks and share. `threshold` is C of
    Eq. 7 and of the candidate band, and exploits nothing. Where no branch is foretold to set off anything the first is kept.

    Args:
        head: one with a cascade; read from the denoiser by `decoding.generate`.
        risk_bound: b, the dial between accuracy and rounds, in (0, 1].
        looks: at the cascade a round, at least 1; the first of them is at every branch.
        share: part of the bound that the summed risk of what a look commits may reach, above 0.
    """

    threshold: float = 0.7
    gamma: float = 0.85
    min_masks: int = 8
    step_budget: int | None = None
    implicit: bool = False
    head: ScoringHead | None = field(default=None, repr=False)
    risk_bound: float = 0.05
    looks: int = 2
    share: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(cascade_of(self.head) is not None, "cascade of the head", "be there", None)
        require(0 < self.risk_bound <= 1, "risk_bound", "lie in (0, 1]", self.risk_bound)
        require(self.looks >= 1, "looks", "be at least 1", self.looks)
        require(self.share > 0, "share", "be above 0", self.share)

    @property
    def needs(self) -> Needs:
        """Base blocks the cascade reads; a look at several branches is counted once."""
        return Needs(taps=self.cascade.taps, looks=self.looks)

    @property
    def cascade(self) -> Cascade:
        """What foretells."""
        cascade = cascade_of(self.head)
        assert cascade is not None
        return cascade

    def exploit(self, reading: Reading) -> Bool[Tensor, "B L"]:
        """The summed risk of all stays under the bound."""
        return safe_set(reading.log_risk.exp(), reading.rows, self.risk_bound)

    def propose(self, state: DecodeState, reading: Reading) -> Proposal:
        """The plan with the branch that is foretold to set off most, and what is foretold of it."""
        branches = self.plan(state, reading).branches(state, reading)
        token, risk = foretell_branches(self.cascade, branches, reading)
        terms = self.terms(branches, foretold(reading, token, risk))
        choice = best_branch(terms, branches.live, torch.zeros_like(terms[0]))
        kept = (torch.arange(len(token), device=token.device), choice)
        first, bound = (token[kept], risk[kept]), self.share * self.risk_bound
        plan = follow(self.cascade, state, reading, branches.reason[kept], bound=bound, looks=self.looks, first=first)
        more = (branches.live.sum(-1) - 1).clamp(min=0)  # the first look was at every branch
        return replace(plan, looks=more if plan.looks is None else plan.looks + more)


def cascade_of(head: ScoringHead | None) -> Cascade | None:
    """The cascade of a head that was fitted on this version's features."""
    check_head(head)
    return None if head is None else head.cascade


def foretell_branches(
    cascade: Cascade, proposal: Proposal, reading: Reading
) -> tuple[Int[Tensor, "B K L"], Float[Tensor, "B K L"]]:
    """The likeliest token and its risk at every position left in every live canvas; -1 and 0 elsewhere."""
    token, risk = (
        torch.full_like(proposal.reason, -1),
        torch.zeros(proposal.reason.shape, device=proposal.reason.device),
    )
    if is_wide(reading):
        count = proposal.live.shape[1]
        each = reading.map(lambda v: v.repeat_interleave(count, 0))
        told = foretell(cascade, each, proposal.reason.flatten(0, 1), each.token)
        said, doubt = (torch.unflatten(value, 0, (-1, count)) for value in told)
        idle = ~proposal.live.unsqueeze(-1)
        return said.masked_fill(idle, -1), doubt.masked_fill(idle, 0.0)
    copied = sum(getattr(tap, f.name).shape[1:].numel() for tap in reading.taps for f in fields(tap))
    for some in torch.split(proposal.live.nonzero(), max(1, COPIED // max(1, copied))):
        place = some.unbind(-1)
        each = reading.map(itemgetter(place[0]))
        told = foretell(cascade, each, proposal.reason[place], each.token)
        token, risk = token.index_put(place, told[0].to(token.dtype)), risk.index_put(place, told[1])
    return token, risk


def foretold(reading: Reading, token: Int[Tensor, "B K L"], risk: Float[Tensor, "B K L"]) -> Reading:
    """A reading of all canvases with the confidences that are foretold, for Eq. 7."""
    there = token >= 0
    return replace(
        reading.map(lambda v: v.unsqueeze(1)),
        confidence=torch.where(there, 1 - risk, 0.0),
        log_risk=torch.where(there, risk.log(), 0.0),
    )


@final
@dataclass(frozen=True)
class LearnedParity(BranchingPolicy):
    """Beam ETE with the head in place of the look-ahead: exploit by confidence, explore where w = gain - lambda * risk is largest.

    With `by` cascade w = s(j) - lambda * risk, s being Eq. 7 on what the head foretells of the forward after j in place of that
    forward. Where the two best differ by less than `gate`, both become branches of the next forward and Eq. 7 keeps one.

    Args:
        factor: f, above 0, as in `BeamETE`.
        head: the scoring head.
        by: whether candidates are compared by the gain that the head gives them, or by the cascade that it foretells for each.
        among: choose among the k candidates of Eq. 6 (`candidates`), as the beam does, or among all masks left (`all`).
        risk_weight: lambda, positions of gain that a certain error outweighs, at least 0.
        gate: difference of w under which two branches are run, at least 0; 0 never runs them.
    """

    factor: float | None = None
    head: ScoringHead | None = field(default=None, repr=False)
    by: Judge = "gain"
    among: Among = "candidates"
    risk_weight: float = 0.0
    gate: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_factor(self.factor)
        require_one_of(Judge, "by", self.by)
        require_one_of(Among, "among", self.among)
        require(self.risk_weight >= 0, "risk_weight", "be at least 0", self.risk_weight)
        require(self.gate >= 0, "gate", "be at least 0", self.gate)
        check_head(self.head)
        foresees = self.head is not None and self.head.cascade is not None and self.among == "candidates"
        require(
            self.by == "gain" or foresees, "by", "be gain for a head without a cascade, or among all masks", self.by
        )

    @property
    def needs(self) -> Needs:
        """Base blocks the head reads, and those of its cascade where that judges; two branches where a gate asks for them."""
        assert self.head is not None
        return Needs(canvases=2 if self.gate else 1, taps=self.head.taps if self.by == "gain" else self.head.taps_ahead)

    def exploit(self, reading: Reading) -> Bool[Tensor, "B L"]:
        """c >= C, or the factor rule."""
        return by_confidence(reading, self.threshold, self.factor)

    def propose(self, state: DecodeState, reading: Reading) -> Proposal:
        """The plan of Explore-Then-Exploit with the head's candidate, or with its two best where they are close."""
        assert self.head is not None
        plan = self.plan(state, reading)
        if self.among == "all":
            left = reading.rows & (plan.reason == 0) & plan.valid.any(-1, keepdim=True)
            everywhere = torch.arange(left.shape[-1], device=left.device).expand_as(left)
            plan = replace(plan, candidates=everywhere, valid=left)
        scores = score(self.head, state, reading)
        gain = scores.gain.gather(-1, plan.candidates) if self.by == "gain" else self.foreseen(plan, state, reading)
        worth = gain - self.risk_weight * scores.risk.gather(-1, plan.candidates)
        worth = worth.masked_fill(~plan.valid, -torch.inf)
        top = worth.argsort(stable=True, dim=-1, descending=True)[:, : 2 if self.gate else 1]
        plan = plan.keep(top)
        if self.gate:
            worth = worth.gather(-1, top)
            plan = replace(plan, valid=plan.valid & (worth[:, :1] - worth < self.gate))
        return replace(plan.branches(state, reading), broken=scores.broken)

    def choose(self, canvases: DecodeState, proposal: Proposal, reading: Reading) -> Int[Tensor, " B"]:
        """The branch with the largest s(j), else the one that the head likes best."""
        terms = self.terms(proposal, reading)
        return best_branch(terms, proposal.live, torch.zeros_like(terms[0]))

    def foreseen(self, plan: Plan, state: DecodeState, reading: Reading) -> Float[Tensor, "B K"]:
        """Eq. 7 of every candidate on the foretold forward; far below all others where that sets off nothing."""
        assert self.head is not None
        assert self.head.cascade is not None
        branches = plan.branches(state, reading)
        token, risk = foretell_branches(self.head.cascade, branches, reading)
        return self.score(branches, foretold(reading, token, risk)).clamp(min=-NOTHING)
