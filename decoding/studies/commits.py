"""Exploration commits found in a decode, and the judgement of each: its cascade, what of it is right, what it did."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from decoding.commit import is_one_of
from decoding.comparison.problems import CheckedProblems
from decoding.comparison.results import Row
from decoding.generation import Generation
from decoding.policies.quota import Sequential
from decoding.reading import Reading
from decoding.state import DecodeState, Reason
from decoding.traces.branches import finish, predict
from models.denoiser import Denoiser

OUTCOMES = ("right cascade", "no cascade", "wrong cascade", "wrong commit", "after an error")
"""Of a commit: right with a right cascade, right without one, right with an error in its cascade, wrong, or in a state that an
earlier error had spoilt."""


@dataclass(frozen=True)
class Commits:
    """S exploration commits, in the state right after each.

    Attributes:
        state: with the commit in it.
        row: the prompt each belongs to.
        here: where it is.
        token, confidence: of the reading that followed; -1 and 0 where it read nothing, as of a finished canvas.
    """

    state: DecodeState
    row: Int[Tensor, " S"]
    here: Bool[Tensor, "S L"]
    token: Int[Tensor, "S L"]
    confidence: Float[Tensor, "S L"]

    def without(self) -> DecodeState:
        """The states with the commit taken back."""
        tokens = self.state.tokens.masked_fill(self.here, self.state.layout.mask_id)
        return replace(self.state, tokens=tokens, masked=self.state.masked | self.here)

    def with_(self, cascade: Bool[Tensor, "S L"]) -> DecodeState:
        """The states with the cascade committed as well."""
        tokens = torch.where(cascade, self.token, self.state.tokens)
        return replace(self.state, tokens=tokens, masked=self.state.masked & ~cascade)


def exploration_commits(steps: Sequence[tuple[DecodeState, Reading]], final: DecodeState) -> Commits:
    """Find every position that was committed to set off a cascade, and the state and reading after it."""
    after = [state for state, _ in steps[1:]] + [final]
    blank = Reading.empty(tuple(final.tokens.shape), final.tokens.device)
    readings = [reading for _, reading in steps[1:]] + [blank]
    explored = torch.stack(
        [(b.reason == int(Reason.EXPLORE)) & a.masked for (a, _), b in zip(steps, after, strict=True)]
    )
    step, row, position = explored.nonzero().unbind(-1)
    state = DecodeState.stack(after).map(lambda v: v[row, step])
    here = torch.nn.functional.one_hot(position, final.tokens.shape[-1]).bool()
    token = torch.stack([r.token for r in readings])[step, row]
    confidence = torch.stack([r.confidence for r in readings])[step, row]
    return Commits(state, row, here, token, confidence)


@dataclass(frozen=True)
class CommitEvaluator:
    """Says what became of the commits of one batch of prompts.

    Args:
        denoiser: the model.
        checked: whose checker judges answers.
        made: the decode.
        attention_mask: of the prompts.
        reference: the only right canvas of each prompt, -1 where none is known.
        prompts: the prompts.
        batch_size: canvases in one forward.
    """

    denoiser: Denoiser
    checked: CheckedProblems
    made: Generation
    attention_mask: Bool[Tensor, "B P"] | None
    reference: Int[Tensor, "B G"]
    prompts: Sequence[str]
    batch_size: int

    def rows_of(self, commits: Commits, first: int) -> Iterator[Row]:
        """One row for each commit: confidence, cascade, outcome, and the final answer."""
        cascade = self.cascade(commits)
        unique = bool((self.reference >= 0).all())
        outcome, right = (self.by_reference if unique else self.by_finish)(commits, cascade)
        answers = self.accepted(self.made.sequences, torch.arange(len(self.prompts)))
        confidence = commits.state.committed_confidence[commits.here]
        for s, row in enumerate(commits.row.tolist()):
            yield {
                "prompt": first + row,
                "confidence": float(confidence[s]),
                "size": int(cascade[s].sum()),
                "size_right": None if right is None else int(right[s]),
                "outcome": OUTCOMES[int(outcome[s])],
                "answer_right": bool(answers[row]),
            }

    def cascade(self, commits: Commits) -> Bool[Tensor, "S L"]:
        """What crosses the threshold with the commit and not without it."""
        bar = float(getattr(self.made.policy, "threshold"))  # noqa: B009  # every exploring policy has one
        crossed = commits.confidence >= bar
        crossed &= ~is_one_of(commits.token, self.made.end_ids)
        tokens, mask = commits.without().tokens, self.mask_of(commits.row)
        for few in torch.split(crossed.any(-1).nonzero().squeeze(-1), self.batch_size):
            bare = predict(self.denoiser, tokens[few], commits.token[few] >= 0, None if mask is None else mask[few])
            crossed[few] &= bare.confidence < bar
        return crossed

    def by_reference(
        self, commits: Commits, cascade: Bool[Tensor, "S L"]
    ) -> tuple[Int[Tensor, " S"], Int[Tensor, " S"]]:
        """Outcomes where the answer is unique, and how much of each cascade is right."""
        canvas = self.made.state.block[0] >= 0
        reference = torch.full_like(commits.state.tokens, -1)
        reference[:, canvas] = self.reference[commits.row]
        wrong = (commits.state.tokens != reference) & ~commits.state.masked & canvas
        right = (cascade & (commits.token == reference)).sum(-1)
        size = cascade.sum(-1)
        return outcomes((wrong & ~commits.here).any(-1), (wrong & commits.here).any(-1), right < size, size), right

    def by_finish(self, commits: Commits, cascade: Bool[Tensor, "S L"]) -> tuple[Int[Tensor, " S"], None]:
        """Outcomes by what the careful decoder makes of the state without the commit, with it, and with its cascade."""
        lost, wrong, spoilt = (
            ~self.finished(state, commits.row) for state in (commits.without(), commits.state, commits.with_(cascade))
        )
        return outcomes(lost, wrong, spoilt, cascade.sum(-1)), None

    def finished(self, state: DecodeState, row: Int[Tensor, " S"]) -> Bool[Tensor, " S"]:
        """Whether the careful decoder finishes each state with an answer that the checker accepts."""
        mask, accepted = self.mask_of(row), []
        for few in torch.split(torch.arange(len(row), device=row.device), self.batch_size):
            part = state.map(lambda v, few=few: v[few])  # type: ignore[misc]
            few_mask = None if mask is None else mask[few]
            tokens = finish(self.denoiser, part, Sequential(), attention_mask=few_mask)
            accepted.append(self.accepted(tokens, row[few]))
        return torch.cat(accepted)

    def accepted(self, tokens: Int[Tensor, "S L"], row: Int[Tensor, " S"]) -> Bool[Tensor, " S"]:
        """The checker's word on the text of every canvas."""
        texts = replace(self.made, sequences=tokens).text
        right = [self.checked.check(self.prompts[r], text) for r, text in zip(row.tolist(), texts, strict=True)]
        return torch.tensor(right, device=tokens.device)

    def mask_of(self, row: Int[Tensor, " S"]) -> Bool[Tensor, "S L"] | None:
        """The attention mask of the prompts, over prompt and canvas."""
        if self.attention_mask is None:
            return None
        return torch.nn.functional.pad(self.attention_mask, (0, self.reference.shape[1]), value=True)[row]


def outcomes(
    lost: Bool[Tensor, " S"], wrong: Bool[Tensor, " S"], spoilt: Bool[Tensor, " S"], size: Int[Tensor, " S"]
) -> Int[Tensor, " S"]:
    """Index into OUTCOMES.

    Args:
        lost: an error came before the commit.
        wrong: the commit is one.
        spoilt: its cascade holds one.
        size: of the cascade.
    """
    outcome = torch.where(size > 0, 0, 1)
    outcome = torch.where(spoilt, 2, outcome)
    outcome = torch.where(wrong, 3, outcome)
    return torch.where(lost, 4, outcome)
