"""Explore-Then-Exploit (arXiv 2511.21103): fast block diffusion, a trigger, implicit exploration, targeted look-ahead.

One round, S_t being the masks of the opened blocks:

    E = {i in S_t : c_i >= C}, or the factor rule                exploit
    F = S_t minus E;  explore if mean c over the frontier < gamma and |F| > N_e
    if E is empty or the row explores:  commit argmax c_i of F in every active block          implicit exploration
    if the row explores:  candidates j_1..j_k of the rest of F, c_j near c_info               targeted exploration
        BeamETE: k branches, branch j commits j as well; the next forward reads all of them and Eq. 7 keeps one

What the paper leaves open is a setting here. `plan` does all but the last line, for every way of choosing among the
candidates.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Literal, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from decoding.policies.bounds import within_factor
from decoding.policies.candidates import CANDIDATE_RULES, IMPLICIT_SCOPES, lowest
from decoding.policies.rules import at_least_one, confident, require, require_one_of
from decoding.policy import Needs, Policy, order
from decoding.reading import Reading
from decoding.state import DecodeState, Proposal, Reason

CandidateRule = Literal["nearest", "band", "information"]
Frontier = Literal["frontier", "feasible"]
Scope = Literal["block", "global"]
CascadeOver = Literal["threshold", "masks"]


@dataclass(frozen=True)
class Plan:
    """What a round of exploration commits in any case, and what it may commit on top.

    Attributes:
        reason: a Reason at every position that all canvases of the row commit.
        triggered: rows that explore.
        candidates: positions for targeted exploration, the best by the candidate rule first.
        valid: which of them exist; none in a row that does not explore.
    """

    reason: Int[Tensor, "B L"]
    triggered: Bool[Tensor, " B"]
    candidates: Int[Tensor, "B K"]
    valid: Bool[Tensor, "B K"]

    def branches(self, state: DecodeState, reading: Reading) -> Proposal:
        """One canvas for each valid candidate, which it commits on top of the plan; one canvas where there is none."""
        chosen = torch.nn.functional.one_hot(self.candidates, reading.rows.shape[-1]).bool() & self.valid.unsqueeze(-1)
        reason = torch.where(chosen, int(Reason.EXPLORE), self.reason.unsqueeze(1))
        first = torch.arange(self.valid.shape[1], device=self.valid.device) == 0
        log_confidence = reading.log_confidence.gather(-1, self.candidates).clamp(min=lowest())
        return Proposal(
            tokens=torch.where(reason > 0, reading.token.unsqueeze(1), state.tokens.unsqueeze(1)),
            reason=reason,
            live=(self.valid | first) & state.unfinished.unsqueeze(-1),
            log_confidence=log_confidence.masked_fill(~self.valid, 0.0),
        )

    def keep(self, choice: Int[Tensor, "B n"]) -> Plan:
        """The plan with n candidates left: those at the places `choice` of each row, in that order."""
        return replace(self, candidates=self.candidates.gather(-1, choice), valid=self.valid.gather(-1, choice))


@dataclass(frozen=True)
class ExplorePolicy(Policy):
    """Explore-Then-Exploit up to the choice among the candidates of targeted exploration, which a subclass makes.

    Args:
        threshold: C, the confidence of the candidate band and of Eq. 7, in (0, 1].
        gamma: explore when the mean confidence is below this, in [0, 1]; 0 never explores.
        min_masks: N_e; explore only while more masks than this are left in the opened blocks.
        step_budget: N, rounds before the next block opens; None waits until the opened blocks are full.
        initial_blocks: blocks open at the first round.
        branches: k, candidates of a round that explores.
        c_info: confidence of the most informative candidate, in (0, 1).
        candidate_rule: Eq. 6 as nearest (smallest |c - c_info|), band (largest c with c_info <= c < C) or
            information (largest -c^a log c, whose peak e^(-1/a) is c_info).
        frontier: the mean confidence is taken over the masks left in the earliest block that has any (frontier) or in
            all opened blocks (feasible).
        implicit: whether implicit exploration runs; without it the best position is committed when nothing passes.
        implicit_scope: one position in each active block (block), or one a row (global).
        targeted: whether targeted exploration runs.
    """

    threshold: float = 0.9
    gamma: float = 0.5
    min_masks: int = 4
    step_budget: int | None = 8
    initial_blocks: int = 1
    branches: int = 4
    c_info: float = 0.2
    candidate_rule: CandidateRule = "nearest"
    frontier: Frontier = "frontier"
    implicit: bool = True
    implicit_scope: Scope = "block"
    targeted: bool = True

    def __post_init__(self) -> None:
        require(0 < self.threshold <= 1, "threshold", "lie in (0, 1]", self.threshold)
        require(0 <= self.gamma <= 1, "gamma", "lie in [0, 1]", self.gamma)
        require(self.min_masks >= 0, "min_masks", "be at least 0", self.min_masks)
        require(self.step_budget is None or self.step_budget >= 1, "step_budget", "be at least 1", self.step_budget)
        require(self.initial_blocks >= 1, "initial_blocks", "be at least 1", self.initial_blocks)
        require(self.branches >= 1, "branches", "be at least 1", self.branches)
        require(0 < self.c_info < 1, "c_info", "lie in (0, 1)", self.c_info)
        require_one_of(CandidateRule, "candidate_rule", self.candidate_rule)
        require_one_of(Frontier, "frontier", self.frontier)
        require_one_of(Scope, "implicit_scope", self.implicit_scope)

    @abstractmethod
    def exploit(self, reading: Reading) -> Bool[Tensor, "B L"]:
        """E: what is committed whether or not the row explores."""

    def plan(self, state: DecodeState, reading: Reading) -> Plan:
        """Exploit, decide whether to explore, explore implicitly, and list the candidates of targeted exploration."""
        exploited = self.exploit(reading)
        left = reading.rows & ~exploited
        triggered = trigger(state, reading, left, over=self.frontier, gamma=self.gamma, min_masks=self.min_masks)
        reason = at_least_one(exploited, reading.log_odds, reading)
        if self.implicit:
            explores = triggered | ~exploited.any(-1)
            implied = IMPLICIT_SCOPES[self.implicit_scope](state, reading, left) & explores.unsqueeze(-1)
            reason = torch.where(implied, int(Reason.IMPLICIT), reason)
        score, eligible = CANDIDATE_RULES[self.candidate_rule](reading, self.c_info, self.threshold)
        within = left & (reason == 0) & eligible & (triggered & self.targeted).unsqueeze(-1)
        candidates = order(score, within)[:, : self.branches]
        return Plan(reason, triggered, candidates, within.gather(-1, candidates))


def trigger(
    state: DecodeState, reading: Reading, left: Bool[Tensor, "B L"], *, over: Frontier, gamma: float, min_masks: int
) -> Bool[Tensor, " B"]:
    """TriggerExplore: mean confidence below gamma, and more than min_masks of the opened blocks' masks left.

    Args:
        state, reading: B rows.
        left: positions that exploitation does not take.
        over: the mean is taken over the earliest open block or over all.
        gamma: explore below this mean, in [0, 1].
        min_masks: N_e, explore only while more are left, at least 0.
    """
    seen = left & (earliest_block(state, left) | (over == "feasible"))
    mean = (reading.confidence * seen).sum(-1) / seen.sum(-1).clamp(min=1)
    return (mean < gamma) & (left.sum(-1) > min_masks)


def earliest_block(state: DecodeState, left: Bool[Tensor, "B L"]) -> Bool[Tensor, "B L"]:
    """Positions of the earliest block that holds one of `left`."""
    return state.block == torch.where(left, state.block, state.num_blocks[..., None]).amin(-1, keepdim=True)


def by_confidence(reading: Reading, threshold: float, factor: float | None) -> Bool[Tensor, "B L"]:
    """Every c >= C, or the factor rule where a factor is given."""
    return confident(reading, threshold) if factor is None else within_factor(reading, factor)


def require_factor(factor: float | None) -> None:
    """Refuse a factor that is not above 0."""
    require(factor is None or factor > 0, "factor", "be above 0", factor)


@dataclass(frozen=True)
class BranchingPolicy(ExplorePolicy):
    """Explore-Then-Exploit whose branches are compared by Eq. 7: those of the next forward, or what is foretold of them.

    s(j) = alpha log c_j + log sum_{i in U_j} c_i^(t+1; j), U_j = {i in S_{t+1} : c_i^(t+1; j) >= eq7_threshold}; an
    empty U_j scores -inf. arXiv 2511.21103.

    Args:
        alpha: weight of the candidate's own confidence, at least 0.
        eq7_over: sum over the confident positions of S_{t+1} (threshold) or over all of them (masks).
        eq7_threshold: what confident means in Eq. 7, in (0, 1]; None takes C.
    """

    alpha: float = 1.0
    eq7_over: CascadeOver = "threshold"
    eq7_threshold: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.alpha >= 0, "alpha", "be at least 0", self.alpha)
        require_one_of(CascadeOver, "eq7_over", self.eq7_over)
        bar = self.eq7_threshold
        require(bar is None or 0 < bar <= 1, "eq7_threshold", "lie in (0, 1]", bar)

    def score(self, proposal: Proposal, reading: Reading) -> Float[Tensor, "B K"]:
        """Eq. 7 for every branch."""
        first, second = self.terms(proposal, reading)
        return first + second

    def terms(self, proposal: Proposal, reading: Reading) -> tuple[Float[Tensor, "B K"], Float[Tensor, "B K"]]:
        """Eq. 7 as a sum of two: log n of the n positions with c above 1/2, and what lacks there and comes on top.

        Near confidence 1 the second is far below the steps of the first, and is all that tells branches apart.
        """
        bar = self.threshold if self.eq7_threshold is None else self.eq7_threshold
        cascade = reading.rows & ((reading.confidence >= bar) | (self.eq7_over == "masks"))
        likely = cascade & (reading.confidence > 0.5)
        count = likely.sum(-1)
        lacking = (reading.log_risk.exp() * likely).sum(-1)
        more = (reading.confidence * (cascade & ~likely)).sum(-1)
        beside = torch.where(count > 0, ((more - lacking) / count.clamp(min=1)).log1p(), more.log())
        return count.clamp(min=1).log(), self.alpha * proposal.log_confidence + beside


def best_branch(
    terms: tuple[Float[Tensor, "B K"], Float[Tensor, "B K"]], live: Bool[Tensor, "B K"], otherwise: Float[Tensor, "B K"]
) -> Int[Tensor, " B"]:
    """The live branch with the largest sum of terms, the leftmost of equals; where all are -inf, the largest of `otherwise`.

    Equal sums are told apart by what their rounding lost.
    """
    first, second = terms
    score = (first + second).masked_fill(~live, -torch.inf)
    nothing = torch.isneginf(score).all(-1, keepdim=True)
    lost = torch.where(nothing, 0.0, (first - score) + second)
    score = torch.where(nothing, otherwise.masked_fill(~live, -torch.inf), score)
    return lost.masked_fill(score < score.amax(-1, keepdim=True), -torch.inf).argmax(-1)


@final
@dataclass(frozen=True)
class BeamETE(BranchingPolicy):
    """Explore-Then-Exploit, arXiv 2511.21103: where confidence is low k branches share the next forward and one is kept.

    All branches share the next forward; Eq. 7 keeps one, whose reading is the next round's. Where no branch sets off anything the
    one with the largest c_j is kept.

    Args:
        threshold: C, the confidence of exploitation, of the candidate band and of Eq. 7, in (0, 1].
        factor: f, above 0; if given, exploitation follows the factor rule, and C only serves Eq. 7 and the candidate band.
    """

    factor: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_factor(self.factor)

    @property
    def needs(self) -> Needs:
        """A canvas for each branch."""
        return Needs(canvases=self.branches)

    @property
    def fused(self) -> bool:
        """True: there are tensor operations alone."""
        return True

    def exploit(self, reading: Reading) -> Bool[Tensor, "B L"]:
        """c >= C, or the factor rule."""
        return by_confidence(reading, self.threshold, self.factor)

    def propose(self, state: DecodeState, reading: Reading) -> Proposal:
        """One canvas for each candidate of an exploring row, one for every other row."""
        return self.plan(state, reading).branches(state, reading)

    def choose(self, canvases: DecodeState, proposal: Proposal, reading: Reading) -> Int[Tensor, " B"]:
        """The branch with the largest s(j), else the most confident candidate."""
        return best_branch(self.terms(proposal, reading), proposal.live, proposal.log_confidence)


@final
@dataclass(frozen=True)
class RandomParity(ExplorePolicy):
    """Explore-Then-Exploit without look-ahead: a uniformly drawn candidate on one canvas, the control for scoring.

    Args:
        factor: f, above 0, as in `BeamETE`.
    """

    factor: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_factor(self.factor)

    @property
    def needs(self) -> Needs:
        """Draws a candidate."""
        return Needs(noise=True)

    def exploit(self, reading: Reading) -> Bool[Tensor, "B L"]:
        """c >= C, or the factor rule."""
        return by_confidence(reading, self.threshold, self.factor)

    def propose(self, state: DecodeState, reading: Reading) -> Proposal:
        """Commit the plan and one candidate, all equally likely."""
        plan = self.plan(state, reading)
        draw = reading.noise.gather(-1, plan.candidates).masked_fill(~plan.valid, -1.0)
        return plan.keep(draw.argmax(-1, keepdim=True)).branches(state, reading)
