"""Checked drafts: what a rule would commit next is foretold, and the forward that would have read it checks it first.

From the reading of x_0 a rule R commits P_0 for certain. Drafts go on from there, each on a foretold reading:

    x_1 = x_0 + P_0                                   P_0 = R(x_0, reading of x_0)                    certain
    x_d = x_{d-1} + P_{d-1}                           P_{d-1} = R(x_{d-1}, foretold of x_{d-1})       a draft, d = 2 .. k

One forward reads all k canvases. Then R judges x_1 by its own reading, and where what it commits is what the draft committed, x_2
is real, and so is its reading; and so on. The deepest real canvas is kept, its reading is the next round's.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal, final

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor

from decoding.commit import commit_first
from decoding.policies.cascade import Step, compiled_for, is_wide
from decoding.policies.foretold import doubt, foretell_reading
from decoding.policies.rules import WrappingPolicy, require, require_one_of
from decoding.policy import Needs, Policy
from decoding.reading import Reading
from decoding.state import DecodeState, Proposal, Reason
from models.engine.window import NUMBERS
from models.heads.cascade import Cascade
from models.heads.scoring_head import ScoringHead

Mode = Literal["exact", "subset"]
Source = Literal["cascade", "reading"]


@final
@dataclass(frozen=True)
class Verified(WrappingPolicy):
    """Any rule R in fewer rounds: drafts of what it will commit, checked by the next forward before they count.

    Speculative decoding (arXiv 2211.17192) for masked diffusion: FreeDave (arXiv 2510.00294) drafts several steps from one reading,
    here a head's cascade foretells the reading that each step would see. In `exact` mode a draft counts if R commits the very same
    positions and tokens: states, text and reasons are R's own. In `subset` mode it counts if R commits at least those tokens; what
    else R commits there waits for the next forward. Either way nothing is committed that R has not accepted from a real forward.

    Args:
        rule: R: one canvas a round, no draws, nothing taken back, no cascade of its own.
        head: whose cascade foretells; read from the denoiser by `decoding.generate`, None without one.
        canvases: k, canvases a round at most: one certain and k - 1 drafts on top of each other; at least 1.
        mode: a draft counts if R commits the very same (`exact`: R's own text), or at least that (`subset`).
        source: what drafts are made from: the `cascade`, or the present `reading` as it stands, which needs no head; None takes
            the cascade where there is one.
        draft_share: part of R's bound that a draft keeps to, in (0, 1], so that drafts are more careful than R; None for all of it.
        worth: drafts that may fail for one that came true; a row begins with one draft, makes more as they come true, and none
            once it has used them up until its rounds double: at most 1 + worth * (drafts that came true) + log2(rounds) fail.
            None makes all of them in every round.
    """

    head: ScoringHead | None = field(default=None, repr=False)
    canvases: int = 4
    mode: Mode = "exact"
    source: Source | None = None
    draft_share: float | None = None
    worth: float | None = None

    def __post_init__(self) -> None:
        rule = self.rule.needs
        alone = rule.canvases == 1 and rule.rounds is None and not (rule.noise or rule.draws or rule.looks)
        require(
            self.rule.checkable and alone,
            "rule",
            "draw nothing, branch nowhere, look nowhere ahead and take nothing back",
            self.rule,
        )
        require(self.canvases >= 1, "canvases", "be at least 1", self.canvases)
        require_one_of(Mode, "mode", self.mode)
        if self.source is not None:
            require_one_of(Source, "source", self.source)
        has_cascade = self.head is not None and self.head.cascade is not None
        require(
            self.source != "cascade" or has_cascade, "source", "be reading without a head that has a cascade", "cascade"
        )
        share = self.draft_share
        require(share is None or 0 < share <= 1, "draft_share", "lie in (0, 1]", share)
        require(self.worth is None or self.worth >= 0, "worth", "be at least 0", self.worth)

    @property
    def cascade(self) -> Cascade | None:
        """What foretells, if anything does."""
        return None if self.head is None or self.source == "reading" else self.head.cascade

    @property
    def needs(self) -> Needs:
        """k canvases, a look for each draft, the blocks that the rule's head and the cascade read, and the likeliest tokens."""
        cascade = self.cascade
        taps = max(self.rule.needs.taps, () if cascade is None else cascade.taps, key=len)
        looks = 0 if cascade is None else self.canvases - 1
        return Needs(canvases=self.canvases, taps=taps, looks=looks, greedy=True)

    @property
    def fused(self) -> bool:
        """Whether nothing is looked at and R is tensor operations alone."""
        return self.cascade is None and self.rule.fused

    def propose(self, state: DecodeState, reading: Reading) -> Proposal:
        """What the rule commits, and drafts of what it will commit next, one on top of the other."""
        certain, broken = self.run(_next, reading)(self.rule, state, self.bare(reading))
        chain = [certain]
        allowed, live, looks = self.allowance(state), [state.unfinished], torch.zeros_like(state.round)
        ask, link = compiled_for(_asked, reading), self.run(_draft, reading)
        for _ in range(1, self.canvases):
            seen, left, allowed = ask(reading.rows, chain[-1], live[-1], allowed)
            foretold = self.foretell(replace(reading, rows=seen), left, chain[-1])
            looks = looks if self.cascade is None else looks + left.any(-1)
            drafted, goes_on = link(self.rule, chain[-1], self.bare(foretold))
            chain.append(drafted)
            live.append(goes_on)
        return replace(compiled_for(_stacked, reading)(state, tuple(chain), tuple(live), looks), broken=broken)

    def allowance(self, state: DecodeState) -> Int[Tensor, " B"]:
        """Drafts that a row may make: all of them, or what those that came true have earned and the failed ones left."""
        most = self.canvases - 1
        if self.worth is None:
            return torch.full_like(state.round, most)
        earned = (self.worth * state.drafts_true).floor().long()
        given = 1 + state.round.clamp(min=1).float().log2().floor().long()
        return (given + earned - (state.drafts - state.drafts_true)).clamp(0, most)

    def foretell(self, reading: Reading, left: Bool[Tensor, "B L"], state: DecodeState) -> Reading:
        """The reading of `state`, which follows from the state of `reading`, as a draft is judged by it at the positions left."""
        if self.cascade is not None and (is_wide(reading) or left.any()):
            reading = foretell_reading(self.cascade, reading, ~state.masked, state.tokens)
        reading = replace(reading, rows=left)
        return reading if self.draft_share is None else doubt(reading, self.draft_share)

    def run(self, step: Step, reading: Reading) -> Step:
        """A step that applies the rule: compiled where an engine made the reading, and nothing but tensors is in it."""
        return compiled_for(step, reading) if self.rule.fused else step

    def bare(self, reading: Reading) -> Reading:
        """The reading without the taps that the rule does not read."""
        return reading if self.rule.needs.taps else replace(reading, taps=())

    def check(
        self, canvases: DecodeState, proposal: Proposal, reading: Reading
    ) -> tuple[DecodeState, Int[Tensor, " B"]]:
        """The deepest canvas that is real, rebuilt from real readings, and how deep it lies: how many drafts came true."""
        walk, subset = self.run(_walk, reading), self.mode == "subset"
        checked: tuple[DecodeState, Tensor] = walk(
            self.rule, canvases, proposal.live, self.bare(reading), subset=subset
        )
        return checked

    def choose(self, canvases: DecodeState, proposal: Proposal, reading: Reading) -> Int[Tensor, " B"]:
        """The deepest canvas that is real."""
        return self.check(canvases, proposal, reading)[1]

    def settle(self, canvases: DecodeState, proposal: Proposal, reading: Reading) -> tuple[DecodeState, Reading]:
        """The deepest real state and its reading."""
        state, depth = self.check(canvases, proposal, reading)
        return state, self.combine(reading, depth)

    def last(self, canvases: DecodeState, proposal: Proposal) -> DecodeState:
        """The certain canvas: what ends a row is no draft."""
        return canvases.at(torch.zeros_like(canvases.round[:, 0]))

    def combine(self, reading: Reading, choice: Int[Tensor, " B"]) -> Reading:
        """The reading of the canvas chosen."""
        if not is_wide(reading):
            return super().combine(reading, choice)
        taps: Any = reading.taps
        numbers = tuple(getattr(taps[0], name) for name in NUMBERS)  # chosen once: a map would do so tap by tap
        chosen, places = compiled_for(_chosen, reading)(replace(reading, taps=()), numbers, choice)
        named = dict(zip(NUMBERS, places, strict=True))
        return replace(chosen, taps=tuple(replace(tap, **named) for tap in taps))


def may_follow(state: DecodeState) -> Bool[Tensor, " B"]:
    """Rows whose next forward opens no block, where a cache takes its keys and values from the one that does."""
    return (state.spent > 0) | (not state.layout.cached)


def _asked(
    rows: Bool[Tensor, "B L"], last: DecodeState, live: Bool[Tensor, " B"], allowed: Int[Tensor, " B"]
) -> tuple[Bool[Tensor, "B L"], Bool[Tensor, "B L"], Int[Tensor, " B"]]:
    """What is foretold for the next draft.

    Args:
        rows: positions that the forward read.
        last: the canvas on top, at first the certain one.
        live: rows where that goes on.
        allowed: drafts that a row may still make.

    Returns:
        The rows of prompts that go on, those of them that may be committed, and the drafts allowed after this one.
    """
    wanted = live & last.unfinished & (allowed > 0) & may_follow(last)
    left = rows & wanted.unsqueeze(-1) & last.feasible
    return rows & left.any(-1, keepdim=True), left, allowed - 1


def _stacked(
    state: DecodeState, chain: tuple[DecodeState, ...], live: tuple[Bool[Tensor, " B"], ...], looks: Int[Tensor, " B"]
) -> Proposal:
    """The certain canvas and its drafts as what a round proposes."""
    states = DecodeState.stack([replace(link, looks=link.looks + looks) for link in chain])
    new = state.masked.unsqueeze(1) & ~states.masked & (states.reason != int(Reason.END))
    return Proposal(
        tokens=states.tokens,
        reason=torch.where(new, states.reason, 0),
        live=torch.stack(live, 1),
        log_confidence=torch.zeros_like(states.tokens[..., 0], dtype=torch.float),
        states=states,
    )


def _chosen(
    reading: Reading, numbers: tuple[Tensor, ...], choice: Int[Tensor, " B"]
) -> tuple[Reading, tuple[Tensor, ...]]:
    """The reading of one canvas a prompt, without taps, and its numbers."""
    column = choice.unsqueeze(-1)
    return reading.at(choice), tuple(one.gather(1, column).squeeze(1) for one in numbers)


def _next(rule: Policy, state: DecodeState, reading: Reading) -> tuple[DecodeState, Bool[Tensor, ""] | None]:
    """The canvas after what the rule commits, and whether a figure of its head is broken."""
    proposal = rule.propose(state, reading)
    return commit_first(state, reading, proposal), proposal.broken


def _draft(rule: Policy, state: DecodeState, foretold: Reading) -> tuple[DecodeState, Bool[Tensor, " B"]]:
    """The canvas with a draft on top, and the rows where a forward should read it.

    What would fill a row is no draft: the check needs the round that it would save.
    """
    counted = replace(state, round=state.round + 1)  # it counts once the next forward has been read
    proposal = rule.propose(counted, foretold)
    after = commit_first(counted, foretold, proposal)
    drafted = (proposal.reason[:, 0] > 0).any(-1)
    after = state.where(drafted, replace(after, round=state.round))
    return after, drafted & after.unfinished & may_follow(after)


def _walk(
    rule: Policy, canvases: DecodeState, live: Bool[Tensor, "B K"], reading: Reading, *, subset: bool
) -> tuple[DecodeState, Int[Tensor, " B"]]:
    """The deepest real state of each row, and its depth.

    All canvases are judged at once, each as the state that it is if the drafts below it came true: a rule that is `checkable`
    reads no more of a state than its canvas, its clock and the readings before.

    Args:
        rule: judges each canvas by its own reading.
        canvases: the certain one and the drafts on top of it.
        live: those that were read.
        reading: of all of them.
        subset: whether a draft is real once the rule commits at least its tokens.
    """
    depth = torch.zeros_like(canvases.round[:, 0])
    if live.shape[1] == 1:
        return canvases.at(depth), depth
    before, tokens = canvases.map(lambda v: v[:, :-1]), canvases.tokens[:, 1:]
    new = before.masked & ~canvases.masked[:, 1:]
    past = {f"recent_{name}": _past(canvases, reading, name) for name in ("confidence", "token")}
    recent: dict[str, Any] = {name: torch.stack([v[:, 1:-1], v[:, :-2]], 2) for name, v in past.items()}
    after = _judged(rule, replace(before, **recent), reading, new if subset else None)
    failed = ~live[:, 1:] | (after.tokens.view_as(tokens) != tokens).any(-1)
    true = failed.long().cumsum(-1) == 0
    depth = true.sum(-1)
    state, taken = canvases.at(depth), new & true.unsqueeze(-1)
    found: dict[str, Any] = {}
    for name in ("committed_round", "committed_confidence", "reason"):
        made = getattr(after, name).view_as(tokens).masked_fill(~taken, 0).sum(1)  # committed on one canvas at most
        found[name] = torch.where(taken.any(1), made, getattr(canvases, name)[:, 0])
    latest = torch.stack([depth + 1, depth], 1).unsqueeze(-1).expand(-1, -1, state.masked.shape[-1])
    found |= {name: value.gather(1, latest) for name, value in past.items()}
    found |= {"drafts": state.drafts + live[:, 1:].sum(-1), "drafts_true": state.drafts_true + depth}
    return replace(state, **found), depth


def _past(canvases: DecodeState, reading: Reading, name: str) -> Shaped[Tensor, "B P L"]:
    """A figure in the readings before each canvas: of the certain one two, oldest first, and then those of the canvases."""
    recent: Tensor = getattr(canvases, f"recent_{name}")[:, 0]
    return torch.cat([recent.flip(1), getattr(reading, name)[:, :-1]], 1)


def _judged(rule: Policy, before: DecodeState, reading: Reading, wanted: Bool[Tensor, "B D L"] | None) -> DecodeState:
    """What the rule makes of every canvas but the last by its own reading, as rows; where some are wanted, of its commits those."""
    states = before.map(lambda v: v.flatten(0, 1))
    states = replace(states, round=states.round + 1)  # drafts count from the forward that has just been read
    read = reading.map(lambda v: v[:, :-1].flatten(0, 1))
    proposal = rule.propose(states, read)
    if wanted is not None:
        proposal = Proposal.single(states, read, torch.where(wanted.flatten(0, 1), proposal.reason[:, 0], 0))
    return commit_first(states, read, proposal)
