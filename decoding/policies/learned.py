"""Decoding by a scoring head: as many positions a round as it holds safe together, and what it foretells that these make sure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from decoding.features import NAMES, features
from decoding.policies.bounds import prefix_sum, within_risk
from decoding.policies.cascade import follow, is_wide
from decoding.policies.rules import at_least_one, confident, require, require_one_of
from decoding.policy import Needs, Policy, best, rank
from decoding.reading import Reading
from decoding.state import DecodeState, Proposal, Reason
from models.engine.graphs import compiled
from models.heads.scoring_head import Scores, ScoringHead

PASSES = 9  # odd: see compatible_set
RiskRule = Literal["each", "sum", "pairs", "total", "confidence"]
PAIRWISE = ("pairs", "total")


def score(head: ScoringHead, state: DecodeState, reading: Reading) -> Scores:
    """The head's risk and gain of every feasible mask; it imagines those over its own threshold already committed."""
    exploit = confident(reading, head.config.threshold)
    describe = compiled(features, reading.rows.device) if is_wide(reading) else features
    scores: Scores = head(describe(state, reading, exploit), reading.rows, reading.token, reading.taps)
    return scores


def check_head(head: ScoringHead | None) -> None:
    """Refuse a head that was fitted on other features than those of this version."""
    require(head is not None, "head", "be a scoring head", head)
    names = head.config.feature_names if head is not None else ()
    require(names == NAMES, "features of the head", f"be the {len(NAMES)} of this version in their order", names)


@final
@dataclass(frozen=True)
class Learned(Policy):
    """Risk mode: commit what the head holds safe, never past a bound on risk, and the cascade that it foretells.

    E = {i : r_i < b} (each); the longest prefix in order of risk with summed risk < b (sum); or, from the safest on, every j that
    keeps max_{i in E} k_ij + r_j < b (pairs) or sum_{j in E} (r_j + sum_{i in E before j} k_ij) < b (total), k_ij the larger of the
    probabilities that committing one of the two changes the candidate of the other. `each` bounds the error of every position,
    `pairs` that of every two committed together, `sum` and `total` that of the whole set, by union bounds; `confidence` is
    `risk-sum`, which asks no head. At least the safest position. A head with a cascade then foretells what all these
    make sure and commits that as well (`decoding.policies.cascade.follow`).

    Args:
        head: the scoring head; read from the denoiser by `decoding.generate`.
        risk_bound: b, the dial between accuracy and rounds, in (0, 1].
        rule: each position on its own, the summed risk of all, risk and conflict of every two, the sum of these, or the summed
            1 - c; None means `total` with a head that has a conflict output, else `sum`: what is harmless alone may be wrong
            together.
        step_budget: N, rounds before the next block opens; None waits until the opened blocks are full.
        looks: at the cascade a round at most; None means 2 with a head that has one, else 0.
        share: part of the bound that the summed risk of what a look commits may reach, above 0.
    """

    checkable: ClassVar[bool] = True
    head: ScoringHead = field(repr=False)
    risk_bound: float = 0.01
    rule: RiskRule | None = None
    step_budget: int | None = None
    looks: int | None = None
    share: float = 1.0

    def __post_init__(self) -> None:
        check_head(self.head)
        require(0 < self.risk_bound <= 1, "risk_bound", "lie in (0, 1]", self.risk_bound)
        if self.rule is not None:
            require_one_of(RiskRule, "rule", self.rule)
        seen = self.rule not in PAIRWISE or self.head.config.pairs > 0
        require(seen, "rule", "be each, sum or confidence for a head without a conflict output", self.rule)
        require(self.step_budget is None or self.step_budget >= 1, "step_budget", "be at least 1", self.step_budget)
        require(self.looks is None or self.looks >= 0, "looks", "be at least 0", self.looks)
        require(not self.looks or self.head.cascade is not None, "looks", "be 0 for a head without cascade", self.looks)
        require(self.share > 0, "share", "be above 0", self.share)

    @classmethod
    def brought(cls, head: ScoringHead | None, task: str | None) -> Mapping[str, Any]:
        """The defaults that were chosen for the head on dev prompts, where they were; checked drafts say nothing of this policy."""
        chosen = None if head is None or head.defaults is None else head.defaults.of(task)
        return {} if chosen is None or chosen.checked else chosen.settings

    @property
    def needs(self) -> Needs:
        """Base blocks the head reads, and those of its cascade where that is asked."""
        looks = self.most_looks
        if self.rule == "confidence":
            return Needs(taps=self.head.cascade.taps if self.head.cascade is not None and looks else (), looks=looks)
        return Needs(taps=self.head.taps_ahead if looks else self.head.taps, looks=looks)

    @property
    def most_looks(self) -> int:
        """Looks at the cascade a round, as set or by default."""
        return 0 if self.head.cascade is None else 2 if self.looks is None else self.looks

    def propose(self, state: DecodeState, reading: Reading) -> Proposal:
        """What is safe, then what follows from it."""
        broken: Bool[Tensor, ""] | None = None
        if self.rule == "confidence":
            reason = at_least_one(within_risk(reading, self.risk_bound), reading.log_odds, reading)
        else:
            scores = score(self.head, state, reading)
            reason, broken = self.held_safe(scores, reading), scores.broken
        if self.head.cascade is None or not self.most_looks:
            return replace(Proposal.single(state, reading, reason), broken=broken)
        bound, looks = self.share * self.risk_bound, self.most_looks
        plan = follow(self.head.cascade, state, reading, reason, bound=bound, looks=looks)
        return replace(plan, broken=plan.broken if plan.broken is None or broken is None else plan.broken | broken)

    def held_safe(self, scores: Scores, reading: Reading) -> Int[Tensor, "B L"]:
        """The reason of every commit by the head's own risks, FORCED at the safest position of a row where none is safe."""
        if scores.conflicts is None or self.rule not in (*PAIRWISE, None):
            safe = safe_set(scores.risk, reading.rows, self.risk_bound, each=self.rule == "each")
            return reasons_of(safe, scores.risk_logit, reading.rows)
        total = self.rule != "pairs"
        if not is_wide(reading):
            conflict = scores.conflicts.probability
            safe = compatible_set(scores.risk, conflict, reading.rows, self.risk_bound, total=total)
            return reasons_of(safe, scores.risk_logit, reading.rows)
        tap: Any = reading.taps[0]
        walk = compiled(_held_in_window, reading.rows.device)
        limit = torch.full_like(scores.risk_logit[0, 0], self.risk_bound)  # a number would be compiled into it
        return walk(scores, reading.rows, (tap.rows, tap.inside, tap.back), limit, total=total)


def reasons_of(
    safe: Bool[Tensor, "B L"], risk_logit: Float[Tensor, "B L"], rows: Bool[Tensor, "B L"]
) -> Int[Tensor, "B L"]:
    """EXPLOIT at what is safe, FORCED at the safest position of a row where nothing is."""
    nothing = ~safe.any(-1, keepdim=True)
    reason = torch.where(safe, int(Reason.EXPLOIT), 0)
    return torch.where(nothing & best(-risk_logit, rows), int(Reason.FORCED), reason)


def safe_set(risk: Tensor, rows: Bool[Tensor, "B L"], bound: float, *, each: bool = False) -> Bool[Tensor, "B L"]:
    """The positions whose risk, or whose summed risk with all safer ones, stays under the bound.

    Args:
        risk: [B, L], in (0, 1).
        rows: the positions asked for.
        bound: b, above 0.
        each: bound every risk by itself in place of the sum.
    """
    level = risk if each else prefix_sum(risk, -risk, rows)
    return rows & (level < bound)


def _held_in_window(
    scores: Scores, rows: Bool[Tensor, "B L"], place: tuple[Tensor, Tensor, Tensor], bound: Tensor, *, total: bool
) -> Int[Tensor, "B L"]:
    """The reasons by the compatible set of an engine's window.

    Args:
        scores: with conflicts of the window.
        rows: positions scored.
        place: places of the window, which of them lie on the canvas, and which stands for each position.
        bound: b.
        total: as in `compatible_set`.
    """
    window, inside, back = place
    assert scores.conflicts is not None
    risk, asked = scores.risk.gather(1, window), rows.gather(1, window) & inside
    taken = compatible_set(risk, scores.conflicts.probability, asked, bound, total=total)
    return reasons_of(taken.gather(1, back) & rows, scores.risk_logit, rows)


def compatible_set(
    risk: Float[Tensor, "B L"],
    conflict: Float[Tensor, "B L L"],
    rows: Bool[Tensor, "B L"],
    bound: float | Tensor,
    *,
    total: bool = False,
) -> Bool[Tensor, "B L"]:
    """From the safest on, every position that stays under the bound beside those taken before it.

    Two positions conflict as much as the worse of the two changes the other, since both are committed from one forward. A pass
    judges all positions beside those of the pass before; after n passes the first n places are those of a walk from the safest
    on. An even pass takes too much, an odd one too little if anything: the last is odd, so that whatever is taken is compatible.

    Args:
        risk: r_i.
        conflict: at [:, i, j] the probability that committing i changes the candidate at j.
        rows: positions that may be taken.
        bound: b.
        total: bound the sum of all risks and conflicts of the set, in place of every risk and its largest conflict.
    """
    place = rank(-risk, rows)
    before = place.unsqueeze(-1) < place.unsqueeze(-2)
    either = torch.maximum(conflict, conflict.transpose(-1, -2))
    taken = rows & (risk < bound)
    for _ in range(PASSES):
        held = either * before * taken.unsqueeze(-1)
        level = risk + (held.sum(-2) if total else held.amax(-2))
        if total:
            level = level + ((level * taken).unsqueeze(-2) @ before.to(level.dtype)).squeeze(-2)
        taken = rows & (level < bound)
    return taken
