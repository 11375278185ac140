"""Batches a head is fitted on: states rebuilt from trace rows, with risk and gain labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from decoding.state import DecodeState
from decoding.traces.branches import BARE, KINDS
from decoding.traces.trace import rebuild
from models.ranks import Ranks

UNKNOWN = -1


@dataclass(frozen=True)
class HeadBatch:
    """S states of one canvas length with their labels.

    Attributes:
        state: the states themselves.
        attention_mask: False on left padding.
        reference: reference token of each canvas position, -1 where there is none.
        unique: states whose answer is unique, so that every position has a risk label.
        harm: 1 or 0 where a forced finish was judged, else -1.
        position: positions of the branches, in sequence coordinates; -1 where there is none.
        gain: net correct cascade of each branch over the exploit-only one.
        eq7: Eq. 7's score; -inf where nothing crossed (`train.head.loss.floored` gives these a number).
        beam: branches among ETE's own k.
        log_confidence: log c of the branch's token.
        state_index: running number of each state, for metrics grouped by state.
        alone: candidate of each position without a branch, -1 where it is not asked: the state's own in a state with bare branches,
            elsewhere that once what is committed in any case is.
        changed: 1 or 0 where the branch has another candidate than `alone`, or the same; -1 where one of them has none, and for
            the branches that are not bare of a state with bare ones.
        bare: branches that commit their token alone: of another canvas than the others, so that nothing but `changed` is theirs.
    """

    state: DecodeState
    attention_mask: Bool[Tensor, "S L"]
    reference: Int[Tensor, "S L"]
    unique: Bool[Tensor, " S"]
    harm: Int[Tensor, "S L"]
    position: Int[Tensor, "S K"]
    gain: Float[Tensor, "S K"]
    eq7: Float[Tensor, "S K"]
    beam: Bool[Tensor, "S K"]
    log_confidence: Float[Tensor, "S K"]
    state_index: Int[Tensor, " S"]
    alone: Int[Tensor, "S L"]
    changed: Int[Tensor, "S K L"]
    bare: Bool[Tensor, "S K"]

    @property
    def valid(self) -> Bool[Tensor, "S K"]:
        """Branches that have a gain and a score: those there are, without the bare ones."""
        return (self.position >= 0) & ~self.bare

    def to(self, device: torch.device) -> HeadBatch:
        """The batch on another device."""
        return HeadBatch(**{f.name: getattr(self, f.name).to(device) for f in fields(HeadBatch)})

    def of_rank(self, ranks: Ranks) -> HeadBatch:
        """The states of one process among those that share the batch: one without a label where there are too few."""
        count = len(self.state_index)
        mine = torch.arange(count)[ranks.rank :: ranks.size] if ranks.rank < count else torch.zeros(1, dtype=torch.long)
        labels = {f.name: getattr(self, f.name)[mine] for f in fields(HeadBatch) if f.name != "state"}
        batch = HeadBatch(state=self.state.map(lambda v: v[mine]), **labels)
        if ranks.rank < count:
            return batch
        unknown: dict[str, Any] = {
            name: torch.full_like(labels[name], UNKNOWN) for name in ("reference", "harm", "position", "changed")
        }
        return replace(batch, unique=torch.zeros_like(batch.unique), **unknown)


def cascade_gain(branch: dict[str, Any], alone: dict[str, Any], reference: np.ndarray, *, threshold: float) -> float:
    """Net correct cascade: positions that cross the threshold with this branch and not without it, right minus wrong.

    `reference` is that of the asked positions, -1 where unknown and the EOS id made unknown beforehand, so that
    neither counts.

    Args:
        branch: what the base says after the commit.
        alone: what it says without.
        reference: [positions asked for], the right tokens.
        threshold: confidence from which a position counts, in (0, 1).
    """
    bar = np.log1p(-threshold)
    after, before = np.asarray(branch["log_risk"], np.float32), np.asarray(alone["log_risk"], np.float32)
    token = np.asarray(branch["token"])
    new = (after <= bar) & (before > bar) & (token >= 0)
    known = reference >= 0
    return float((new & known & (token == reference)).sum() - (new & known & (token != reference)).sum())


def columns(branches: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The branches of a row that set a position apart, in the order of the columns of a batch."""
    return [one for one in branches[1:] if one["position"] >= 0]


def fill_changes(
    branches: Sequence[dict[str, Any]], known: Sequence[bool], alone: Int[Tensor, " L"], changed: Int[Tensor, "K L"]
) -> None:
    """Write where the candidates of the branches of one canvas differ from those without a branch, masked in both.

    y_kj = [candidate at j after the commit at k is not the state's own], of bare branches if the row has any: they alone show what
    the tokens of the plan do to each other. Without any, of the others against branch 0.

    Args:
        branches: of one canvas, as in the trace table.
        known: positions asked for.
        alone: filled with the candidates without a branch.
        changed: filled with 0 or 1 where both are known.
    """
    if not branches:
        return
    bare = [one for one in branches if one["kind"] == BARE]
    there = torch.tensor(known)
    before = torch.tensor((bare or branches)[0]["token"])
    alone[there] = before.to(alone.dtype)
    for k, one in enumerate(columns(branches)[: len(changed)]):
        if bare and one["kind"] != BARE:
            continue
        after = torch.tensor(one["token"])
        flips = (after != before).to(changed.dtype)
        changed[k, there] = flips.masked_fill((after < 0) | (before < 0), UNKNOWN)


@dataclass(frozen=True)
class HeadData:
    """All rows of one split in memory, served as batches of equal canvas length.

    Args:
        rows: trace rows.
        mask_id, eos_id: the base's ids.
        threshold: confidence from which a position counts as crossed.
        branches: K, the width of the branch columns.
    """

    rows: Sequence[dict[str, Any]]
    mask_id: int
    eos_id: int | None
    threshold: float
    branches: int

    def batches(self, size: int, *, generator: torch.Generator | None) -> Iterator[HeadBatch]:
        """One pass over the rows; batches hold one task, in random order if a generator is given."""
        groups: dict[tuple[str, int], list[int]] = {}
        for index, row in enumerate(self.rows):
            groups.setdefault((row["task"], row["block_length"]), []).append(index)
        chunks: list[list[int]] = []
        for members in groups.values():
            order = members
            if generator is not None:
                order = [members[i] for i in torch.randperm(len(members), generator=generator).tolist()]
            chunks += [order[i : i + size] for i in range(0, len(order), size)]
        if generator is not None:
            chunks = [chunks[i] for i in torch.randperm(len(chunks), generator=generator).tolist()]
        for chunk in chunks:
            yield self.batch(chunk)

    def batch(self, index: Sequence[int]) -> HeadBatch:
        """Rebuild the states of some rows of one task."""
        rows = [self.rows[i] for i in index]
        state, attention = rebuild(rows, mask_id=self.mask_id, eos_id=self.eos_id)
        (count, width), gen = state.tokens.shape, len(rows[0]["reference"])
        reference, harm = torch.full((count, width), UNKNOWN), torch.full((count, width), UNKNOWN)
        branch = {name: torch.zeros(count, self.branches) for name in ("gain", "eq7", "log_confidence")}
        position = torch.full((count, self.branches), -1)
        alone = torch.full((count, width), UNKNOWN)
        changed = torch.full((count, self.branches, width), UNKNOWN, dtype=torch.int8)  # the largest column
        kind = torch.full((count, self.branches), UNKNOWN)
        for s, row in enumerate(rows):
            reference[s, -gen:] = torch.tensor(row["reference"])
            self._fill_branches(row, s, width - gen, position, kind, branch, harm)
            fill_changes(row["branches"], row["asked"], alone[s, -gen:], changed[s, :, -gen:])
        return HeadBatch(
            state=state,
            attention_mask=attention,
            reference=reference,
            unique=torch.tensor([r["unique_answer"] for r in rows]),
            harm=harm,
            position=position,
            beam=kind == KINDS.index("beam"),
            state_index=torch.tensor(list(index)),
            alone=alone,
            changed=changed,
            bare=kind == BARE,
            **branch,
        )

    def _fill_branches(
        self,
        row: dict[str, Any],
        s: int,
        offset: int,
        position: Tensor,
        kind: Tensor,
        branch: dict[str, Tensor],
        harm: Tensor,
    ) -> None:
        if not row["branches"]:
            return
        alone = row["branches"][0]
        shared = np.asarray(row["reference"])[np.asarray(row["asked"], bool)]
        for k, one in enumerate(columns(row["branches"])[: self.branches]):
            position[s, k] = one["position"] + offset
            kind[s, k] = one["kind"]
            if one["kind"] == BARE:
                continue
            branch["log_confidence"][s, k] = one["log_confidence"]
            branch["eq7"][s, k] = one["eq7"]
            reference = (
                np.asarray(one["answer"]) if len(one["answer"]) else shared
            )  # the branch's own right answer first
            reference = np.where(reference == self.eos_id, UNKNOWN, reference)
            branch["gain"][s, k] = cascade_gain(one, alone, reference, threshold=self.threshold)
            harm[s, one["position"] + offset] = one["harm"]
