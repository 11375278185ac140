"""Decoding with a scoring head in the place of the look-ahead: one canvas per row, two where a gate asks for them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from decoding.bounds import prefix_sum
from decoding.cascade import follow, foretell
from decoding.explore import BranchingPolicy, Plan
from decoding.features import NAMES, features
from decoding.policy import Policy, best, rank
from decoding.reading import Reading
from decoding.state import DecodeState, Proposal, Reason
from decoding.threshold import confident, require, require_one_of
from models.scoring_head import Scores, ScoringHead, prior_of

TURNS = 9  # odd: see compatible_set
NOTHING = 1e4  # nats below any score of Eq. 7 that sets something off
RiskRule = Literal["each", "sum", "pairs", "total", "confidence"]
PAIRWISE = ("pairs", "total")
Among = Literal["candidates", "all"]
Judge = Literal["gain", "cascade"]


def score(head: ScoringHead, state: DecodeState, reading: Reading) -> Scores:
    """The head's risk and gain of every feasible mask; it imagines those over its own threshold already committed."""
    exploit = confident(reading, head.config.threshold)
    scores: Scores = head(features(state, reading, exploit), reading.rows, reading.token, reading.taps)
    return scores


def unscored(reading: Reading) -> Scores:
    """The confidence itself: r = 1 - c, no gain."""
    return Scores(risk_logit=prior_of(reading.log_risk), gain=torch.zeros_like(reading.log_risk))


def check_head(head: ScoringHead | None) -> None:
    """Refuse a head that was fitted on other features than those of this version."""
    require(head is not None, "head", "be a scoring head", head)
    names = head.config.feature_names if head is not None else ()
    require(names == NAMES, "features of the head", f"be the {len(NAMES)} of this version in their order", names)


@final
@dataclass(frozen=True)
class Learned(Policy):
    """Risk mode: commit what the head holds safe, then what it expects to set off a cascade, never past a bound on risk.

    E = {i : r_i < b} (each); the longest prefix in order of risk with summed risk < b (sum); or, from the safest on, every j that
    keeps max_{i in E} k_ij + r_j < b (pairs) or sum_{j in E} (r_j + sum_{i in E before j} k_ij) < b (total), k_ij the larger of the
    probabilities that committing one of the two changes the candidate of the other. `each` bounds the error of every position,
    `pairs` that of every two committed together, `sum` and `total` that of the whole set, by union bounds; `confidence` is `sum`
    with 1 - c for r, without a look at the head. At least the safest position. Then up to `explore` positions of the rest, greedily
    by gain - risk_weight * risk, while their summed risk stays within `explore_bound`; with conflicts their risk holds those with
    E, not those among each other. A head with a cascade then foretells what all these make sure and commits that as well
    (`decoding.cascade.follow`).

    Args:
        head: the scoring head; read from the denoiser by `decoding.generate`.
        risk_bound: b, the dial between accuracy and rounds, in (0, 1].
        rule: each position on its own, the summed risk of all, risk and conflict of every two, the sum of these, or the summed
            1 - c; None means `pairs` with a head that has a pairwise output, else `sum`: what is harmless alone may be wrong
            together.
        explore: exploration commits a round at most; 0 switches them off.
        explore_bound: bound on their summed risk, in (0, 1].
        risk_weight: lambda, positions of gain that a certain error outweighs, at least 0.
        step_budget: N, rounds before the next block opens; None waits until the opened blocks are full.
        turns: looks at the cascade a round; None means 1 with a head that has one, else 0.
        share: part of the bound that the summed risk of a turn's cascade may reach, above 0.
    """

    head: ScoringHead = field(repr=False)
    risk_bound: float = 0.005
    rule: RiskRule | None = None
    explore: int = 0
    explore_bound: float = 0.1
    risk_weight: float = 10.0
    step_budget: int | None = None
    turns: int | None = None
    share: float = 1.0

    def __post_init__(self) -> None:
        check_head(self.head)
        require(0 < self.risk_bound <= 1, "risk_bound", "lie in (0, 1]", self.risk_bound)
        if self.rule is not None:
            require_one_of(RiskRule, "rule", self.rule)
        seen = self.rule not in PAIRWISE or self.head.config.pairs > 0
        require(seen, "rule", "be each, sum or confidence for a head without a conflict output", self.rule)
        require(self.explore >= 0, "explore", "be at least 0", self.explore)
        ranks = self.head.config.target != "gain"  # nothing to weigh against risk
        require(not (self.explore and ranks), "explore", "be 0 for a head whose gain only ranks", self.explore)
        require(0 < self.explore_bound <= 1, "explore_bound", "lie in (0, 1]", self.explore_bound)
        require(self.risk_weight >= 0, "risk_weight", "be at least 0", self.risk_weight)
        require(self.step_budget is None or self.step_budget >= 1, "step_budget", "be at least 1", self.step_budget)
        require(self.turns is None or self.turns >= 0, "turns", "be at least 0", self.turns)
        require(not self.turns or self.head.cascade is not None, "turns", "be 0 for a head without cascade", self.turns)
        require(self.share > 0, "share", "be above 0", self.share)

    @property
    def looks(self) -> int:
        """Looks at the cascade a round."""
        return 0 if self.head.cascade is None else 1 if self.turns is None else self.turns

    @property
    def taps(self) -> tuple[int, ...]:
        """Base blocks the head reads, and those of its cascade where that is asked."""
        return self.head.taps_ahead if self.looks else self.head.taps

    def propose(self, state: DecodeState, reading: Reading) -> Proposal:
        """Exploit by risk, then explore by gain."""
        scores = unscored(reading) if self.rule == "confidence" else score(self.head, state, reading)
        risk = scores.risk
        if scores.pairs is not None and self.rule in (*PAIRWISE, None):
            conflict, total = scores.pairs.conflict, self.rule == "total"
            safe, risk = compatible_set(risk, conflict, reading.rows, self.risk_bound, total=total)
        else:
            safe = safe_set(risk, reading.rows, self.risk_bound, each=self.rule == "each")
        nothing = ~safe.any(-1, keepdim=True)
        reason = torch.where(safe, int(Reason.EXPLOIT), 0)
        reason = torch.where(nothing & best(-scores.risk, reading.rows), int(Reason.FORCED), reason)
        if self.explore:
            left = reading.rows & (reason == 0)
            worth = scores.gain - self.risk_weight * risk
            chosen = rank(worth, left) < self.explore
            within = prefix_sum(risk, worth, left) <= self.explore_bound
            reason = torch.where(left & chosen & within & (worth > 0), int(Reason.EXPLORE), reason)
        if self.head.cascade is None or not self.looks:
            return Proposal.single(state, reading, reason)
        return follow(self.head.cascade, state, reading, reason, bound=self.share * self.risk_bound, turns=self.looks)


def safe_set(risk: Tensor, rows: Bool[Tensor, "B L"], bound: float, *, each: bool = False) -> Bool[Tensor, "B L"]:
    """The positions whose risk, or whose summed risk with all safer ones, stays under the bound."""
    level = risk if each else prefix_sum(risk, -risk, rows)
    return rows & (level < bound)


def compatible_set(
    risk: Float[Tensor, "B L"],
    conflict: Float[Tensor, "B L L"],
    rows: Bool[Tensor, "B L"],
    bound: float,
    *,
    total: bool = False,
) -> tuple[Bool[Tensor, "B L"], Float[Tensor, "B L"]]:
    """From the safest on, every position that stays under the bound beside those taken before it.

    Two positions conflict as much as the worse of the two changes the other, since both are committed from one forward. A turn
    judges all positions beside those of the turn before; after n turns the first n places are those of a walk from the safest
    on. An even turn takes too much, an odd one too little if anything: the last is odd, so that whatever is taken is compatible.

    Args:
        risk: r_i.
        conflict: at [:, i, j] the probability that committing i changes the candidate at j.
        rows: positions that may be taken.
        bound: b.
        total: bound the sum of all risks and conflicts of the set, in place of every risk and its largest conflict.

    Returns:
        The positions taken, and the risk of every other one beside them: r_j plus its conflicts (total) or the largest with
        what is committed, which is the safest position where none is taken.
    """
    place = rank(-risk, rows)
    before = place.unsqueeze(-1) < place.unsqueeze(-2)
    either = torch.maximum(conflict, conflict.transpose(-1, -2))
    first = rows & (place == 0)

    def beside(taken: Tensor, among: Tensor) -> Tensor:
        held = among * taken.unsqueeze(-1)
        return risk + (held.sum(-2) if total else held.amax(-2))

    taken = rows & (risk < bound) | first
    for _ in range(TURNS):
        level = beside(taken, either * before)
        if total:
            level = level + ((level * taken).unsqueeze(-2) @ before.to(level.dtype)).squeeze(-2)
        taken = rows & (level < bound) | first
    return taken & (risk < bound), beside(taken, either)


@final
@dataclass(frozen=True)
class LearnedParity(BranchingPolicy):
    """Beam ETE with the head in place of the look-ahead: exploit by confidence, explore where w = gain - lambda * risk is largest.

    With `by` cascade w = s(j) - lambda * risk, s being Eq. 7 on what the head foretells of the forward after j in place of that
    forward. Where the two best differ by less than `gate`, both become branches of the next forward and Eq. 7 keeps one.

    Args:
        head: the scoring head.
        by: whether candidates are compared by the gain that the head gives them, or by the cascade that it foretells for each.
        among: choose among the k candidates of Eq. 6 (`candidates`), as the beam does, or among all masks left (`all`).
        risk_weight: lambda, positions of gain that a certain error outweighs, at least 0.
        gate: difference of w under which two branches are run, at least 0; 0 never runs them.
    """

    head: ScoringHead | None = field(default=None, repr=False)
    by: Judge = "gain"
    among: Among = "candidates"
    risk_weight: float = 0.0
    gate: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
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
    def taps(self) -> tuple[int, ...]:
        """Base blocks the head reads, and those of its cascade where that judges."""
        assert self.head is not None
        return self.head.taps if self.by == "gain" else self.head.taps_ahead

    def propose(self, state: DecodeState, reading: Reading) -> Proposal:
        """The plan of Explore-Then-Exploit with the head's candidate, or with its two best where they are close."""
        assert self.head is not None
        plan = self.plan(state, reading)
        if self.among == "all":
            left = reading.rows & (plan.reason == 0) & plan.valid.any(-1, keepdim=True)
            everywhere = torch.arange(left.shape[-1], device=left.device).expand_as(left)
            plan = replace(plan, candidates=everywhere, valid=left)
        scores = score(self.head, state, reading)
        gain = scores.gain.gather(-1, plan.candidates) if self.by == "gain" else self.foreseen(state, reading, plan)
        worth = gain - self.risk_weight * scores.risk.gather(-1, plan.candidates)
        worth = worth.masked_fill(~plan.valid, -torch.inf)
        top = worth.argsort(stable=True, dim=-1, descending=True)[:, : 2 if self.gate else 1]
        plan = plan.keep(top)
        if self.gate:
            worth = worth.gather(-1, top)
            plan = replace(plan, valid=plan.valid & (worth[:, :1] - worth < self.gate))
        return plan.branches(state, reading)

    def foreseen(self, state: DecodeState, reading: Reading, plan: Plan) -> Float[Tensor, "B K"]:
        """Eq. 7 of every candidate on the foretold forward; far below all others where that sets off nothing."""
        assert self.head is not None
        assert self.head.cascade is not None
        proposal = plan.branches(state, reading)
        reason = proposal.reason.flatten(0, 1)
        each = reading.map(lambda v: v.repeat_interleave(proposal.reason.shape[1], 0))
        _, risk = foretell(self.head.cascade, each, reason, each.token)
        sure = (1 - risk).masked_fill(~each.rows | (reason > 0), 0.0).reshape(proposal.reason.shape)
        return self.score(proposal, replace(each, confidence=sure)).clamp(min=-NOTHING)
