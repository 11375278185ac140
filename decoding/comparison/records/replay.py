"""The rounds of a decode as rows of traces.jsonl.gz: what each committed, took back, drafted and tried."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from decoding.commit import commit
from decoding.policies.learned import score
from decoding.policy import Policy
from decoding.reading import Reading
from decoding.state import COUNTERS, TENSORS, DecodeState, Proposal, Reason
from models.heads.scoring_head import ScoringHead

Row = dict[str, Any]
DIGITS = 6  # of confidence and risk


@dataclass(frozen=True)
class Turn:
    """One round between its forward and the next, on the CPU; B rows, of the canvas alone.

    Attributes:
        state: what the forward read.
        canvases: what the policy proposed, committed.
        live: of those, the ones that the next forward reads.
        chained: whether each canvas goes on from the one before, as drafts do.
        risk: of every position, by the policy's head; None without one.
    """

    state: DecodeState
    canvases: DecodeState
    live: Bool[Tensor, "B K"]
    chained: bool
    risk: Float[Tensor, "B G"] | None


@dataclass
class Replay:
    """A hook of one decode that writes down the rounds of its first rows.

    Args:
        policy: whose decode it is; it is asked once more in every round.
        count: rows that are written down.
        spell: token id -> text.
        rounds: of each row, as docs/report.md describes them.
    """

    policy: Policy
    count: int
    spell: Callable[[int], str]
    rounds: list[list[Row]] = field(default_factory=list)
    _turn: Turn | None = None

    def step(self, state: DecodeState, reading: Reading) -> None:
        """Note the round that `state` begins, and end the one before."""
        self.finish(state)
        proposal = self.policy.propose(state, reading)
        self._turn = self._note(state, reading, proposal)

    def finish(self, state: DecodeState) -> None:
        """End the last round with what it left."""
        if self._turn is None:
            self.rounds = [[] for _ in range(min(self.count, len(state.tokens)))]
            return
        after = canvas_of(state, len(self.rounds))
        for row, rounds in enumerate(self.rounds):
            if self._turn.state.masked[row].any():
                rounds.append(self._written(self._turn, row, after))

    def _note(self, state: DecodeState, reading: Reading, proposal: Proposal) -> Turn:
        rows = len(self.rounds)
        canvas, risk = state.block[0] >= 0, risk_of(self.policy, state, reading)
        return Turn(
            state=canvas_of(state, rows),
            canvases=canvas_of(commit(state, reading, proposal), rows),
            live=proposal.live[:rows].cpu(),
            chained=proposal.states is not None,
            risk=None if risk is None else risk[:rows, canvas].float().cpu(),
        )

    def _written(self, turn: Turn, row: int, after: DecodeState) -> Row:
        """One round of one row."""
        before = turn.state
        end = end_of(after, row)
        here = torch.arange(len(after.tokens[row])) <= end
        changed = before.tokens[row] != after.tokens[row]
        new = here & ~after.masked[row] & (before.masked[row] | changed)
        taken = (~before.masked[row] & after.masked[row]).nonzero().flatten().tolist()
        kept = kept_canvas(turn, row, after)
        drafts, branches = (
            (self._drafts(turn, row, kept), []) if turn.chained else ([], self._branches(turn, row, kept))
        )
        return {
            "commits": [self._commit(turn, row, position, after) for position in new.nonzero().flatten().tolist()],
            "taken_back": taken,
            "ended_from": end + 1 if bool((changed & ~here).any()) else None,
            "drafts": drafts,
            "branches": branches,
        }

    def _commit(self, turn: Turn, row: int, position: int, after: DecodeState) -> Row:
        draft = int(after.committed_round[row, position]) > int(turn.state.round[row])
        risk = None if turn.risk is None or draft else round(float(turn.risk[row, position]), DIGITS)
        return {
            **self._token(after.tokens[row], position),
            "confidence": round(float(after.committed_confidence[row, position]), DIGITS),
            "risk": risk,
            "reason": Reason(int(after.reason[row, position])).name.lower(),
            "draft": draft,
        }

    def _token(self, tokens: Int[Tensor, " G"], position: int) -> Row:
        return {"position": position, "token": self.spell(int(tokens[position]))}

    def _drafts(self, turn: Turn, row: int, kept: int | None) -> list[Row]:
        """What each canvas of a chain adds to the one before."""
        found, chain = [], turn.canvases
        for depth in (d for d in range(1, turn.live.shape[1]) if turn.live[row, d]):
            new = chain.masked[row, depth - 1] & ~chain.masked[row, depth]
            told = {"depth": depth, "came_true": kept is not None and depth <= kept}
            found += [self._token(chain.tokens[row, depth], p) | told for p in new.nonzero().flatten().tolist()]
        return found

    def _branches(self, turn: Turn, row: int, kept: int | None) -> list[Row]:
        """The commits that tell the canvases run side by side apart; none where there is one canvas."""
        live = turn.live[row].nonzero().flatten().tolist()
        if len(live) < 2:
            return []
        new = turn.state.masked[row] & ~turn.canvases.masked[row]
        own = new & ~new[live].all(0)
        places = {k: own[k].nonzero().flatten().tolist() for k in live}
        told = {k: [self._token(turn.canvases.tokens[row, k], p) for p in some] for k, some in places.items()}
        return [{"kept": k == kept, "commits": commits} for k, commits in told.items()]


def canvas_of(state: DecodeState, rows: int) -> DecodeState:
    """The canvas of the first rows, on the CPU."""
    canvas = state.block.flatten(0, -2)[0] >= 0  # the rows of a comparison have theirs at the same places

    def one(name: str) -> Tensor:
        value: Tensor = getattr(state, name)[:rows]
        return (value if name in COUNTERS else value[..., canvas]).cpu()

    return DecodeState(state.layout, *(one(name) for name in TENSORS))


def end_of(state: DecodeState, row: int) -> int:
    """The position whose token ends the answer, all before it being committed; the length of the canvas where there is none."""
    tokens, masked = state.tokens[row].tolist(), state.masked[row].tolist()
    ends = state.layout.end_ids
    for position, (token, hidden) in enumerate(zip(tokens, masked, strict=True)):
        if hidden or token in ends:
            return len(tokens) if hidden else position
    return len(tokens)


def kept_canvas(turn: Turn, row: int, after: DecodeState) -> int | None:
    """The first live canvas that the next round starts from; None where that was put together from several."""
    same = (turn.canvases.tokens[row] == after.tokens[row]).all(-1) & turn.live[row]
    return int(same.long().argmax()) if same.any() else None


def risk_of(policy: Policy, state: DecodeState, reading: Reading) -> Float[Tensor, "B L"] | None:
    """What the head of a policy, or of the rule that it checks, says of every position; None where none has been read."""
    for rule in (policy, getattr(policy, "rule", None)):
        head = getattr(rule, "head", None)
        if isinstance(head, ScoringHead) and policy.needs.taps in (head.taps, head.taps_ahead):
            return score(head, state, reading).risk
    return None
