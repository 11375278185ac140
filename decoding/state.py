"""What a decode knows: the canvas, its masks, the block clock, and when and why each token was committed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from enum import IntEnum

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from decoding.reading import Reading


class Reason(IntEnum):
    """Why a position was committed (`DecodeState.reason`)."""

    NONE = 0  # prompt, or still masked
    EXPLOIT = 1  # the rule accepted it: confidence over the threshold, risk under the bound, quota
    FORCED = 2  # nothing passed: the best position of the round
    IMPLICIT = 3  # implicit exploration: best position of an active block
    EXPLORE = 4  # targeted exploration: chosen because it sets off a cascade
    END = 5  # filled with EOS after an early stop; never predicted, never counted
    REVOKED = 6  # was committed, taken back, and is masked again
    AGAIN = 7  # committed after it was taken back; never taken back again
    CASCADE = 8  # sure once the round's other commits are in place, says the head's cascade


@dataclass(frozen=True)
class Layout:
    """What never changes during a decode, and holds for all rows.

    Attributes:
        mask_id, eos_id: special ids; eos_id fills what follows an end, None switches the early stop off.
        step_budget: rounds per block before the next one opens (N); None opens a block only when the last is full.
        cached: whether the forward that opens a block decides what later forwards of that block read.
        also_ends: ids beside eos_id that end an answer, such as the end of a turn.
    """

    mask_id: int
    eos_id: int | None
    step_budget: int | None
    cached: bool = False
    also_ends: tuple[int, ...] = ()

    @property
    def end_ids(self) -> tuple[int, ...]:
        """Every id that ends an answer."""
        return () if self.eos_id is None else (self.eos_id, *self.also_ends)


@dataclass(frozen=True)
class DecodeState:
    """A batch of canvases in the middle of decoding, frozen; `...` is B, or B K while branches are open.

    Attributes:
        block: block index of every position, -1 outside the canvas.
        num_blocks: number of blocks.
        tokens: prompt and canvas, mask id where nothing is committed yet.
        masked: canvas positions still to be committed.
        opened: number of blocks opened so far; positions of later blocks are not feasible.
        spent: rounds since the last block was opened.
        round: forwards this row has used.
        committed_round: forward after which a position was committed (1-based); 0 for the prompt, -1 while masked.
        committed_confidence: its confidence then; 0 elsewhere.
        reason: a Reason for every position.
        recent_confidence, recent_token: confidence and candidate in the two readings before the current one, newest first;
            0 and -1 where there was none.
        looks: readings that the head's cascade foretold for this row.
        drafts, drafts_true: foretold commits that a forward has checked, and those of them that came true.
        memory: what the policy itself remembers of each position (`Needs.memory` planes), 0 at first.
    """

    layout: Layout
    block: Int[Tensor, "... L"]
    num_blocks: Int[Tensor, "..."]
    tokens: Int[Tensor, "... L"]
    masked: Bool[Tensor, "... L"]
    opened: Int[Tensor, "..."]
    spent: Int[Tensor, "..."]
    round: Int[Tensor, "..."]
    committed_round: Int[Tensor, "... L"]
    committed_confidence: Float[Tensor, "... L"]
    reason: Int[Tensor, "... L"]
    recent_confidence: Float[Tensor, "... 2 L"]
    recent_token: Int[Tensor, "... 2 L"]
    looks: Int[Tensor, "..."]
    drafts: Int[Tensor, "..."]
    drafts_true: Int[Tensor, "..."]
    memory: Float[Tensor, "... M L"]

    @property
    def feasible(self) -> Bool[Tensor, "... L"]:
        """S_t: masks in the opened blocks."""
        return self.masked & (self.block < self.opened[..., None])

    @property
    def frontier(self) -> Bool[Tensor, "... L"]:
        """Masks of the earliest block that still has one."""
        earliest = torch.where(self.masked, self.block, self.num_blocks[..., None]).amin(-1, keepdim=True)
        return self.masked & (self.block == earliest)

    @property
    def accepted(self) -> Bool[Tensor, "... L"]:
        """Positions whose token the rule took by its own bound, at once or in the cascade."""
        return (self.reason == int(Reason.EXPLOIT)) | (self.reason == int(Reason.CASCADE))

    @property
    def unfinished(self) -> Bool[Tensor, "..."]:
        """Rows that still hold a mask."""
        return self.masked.any(-1)

    def repeat(self, branches: int) -> DecodeState:
        """Every row as `branches` equal canvases: [B] becomes [B, K]."""
        return self.map(lambda v: v.unsqueeze(1).expand(v.shape[0], branches, *v.shape[1:]))

    def at(self, choice: Int[Tensor, " B"]) -> DecodeState:
        """One canvas per row: [B, K] becomes [B]."""
        if self.masked.shape[1] == 1:
            return self.map(lambda v: v[:, 0])
        place = torch.arange(choice.shape[0], device=choice.device) * self.masked.shape[1] + choice
        return self.map(lambda v: v.flatten(0, 1).index_select(0, place))

    @staticmethod
    def stack(states: Sequence[DecodeState]) -> DecodeState:
        """K states as the canvases of one: [B] becomes [B, K]."""
        return DecodeState(states[0].layout, *(torch.stack([getattr(s, n) for s in states], 1) for n in TENSORS))

    @staticmethod
    def cat(states: Sequence[DecodeState]) -> DecodeState:
        """The rows of one state after those of another."""
        return DecodeState(states[0].layout, *(torch.cat([getattr(s, n) for s in states]) for n in TENSORS))

    def where(self, rows: Bool[Tensor, " B"], other: DecodeState) -> DecodeState:
        """The state with these rows as they are in `other`."""
        pairs = ((getattr(other, n), getattr(self, n)) for n in TENSORS)
        return DecodeState(self.layout, *(torch.where(rows.view(-1, *[1] * (a.ndim - 1)), a, b) for a, b in pairs))

    def to(self, device: torch.device) -> DecodeState:
        """The state on another device."""
        return self.map(lambda v: v.to(device))

    def count(self, reading: Reading) -> DecodeState:
        """Count the forward just read; rows without one (finished) stay as they are."""
        return replace(self, round=self.round + reading.rows.any(-1).long())

    def map(self, function: Callable[[Tensor], Tensor]) -> DecodeState:
        """The same function on every tensor."""
        return DecodeState(self.layout, *(function(getattr(self, name)) for name in TENSORS))


TENSORS = tuple(f.name for f in fields(DecodeState) if f.name != "layout")
"""All of a state but its layout."""


@dataclass(frozen=True)
class Proposal:
    """What a policy wants committed: K canvases per row, of which one will be chosen after their forward.

    Attributes:
        tokens: the canvases after the commit.
        reason: a Reason at every position committed by this proposal, REVOKED at every position that it masks again (once in a
            decode, and fewer than it commits), 0 elsewhere.
        live: canvases worth a forward; canvas 0 of an unfinished row always is.
        log_confidence: log c_j of the token that sets branch j apart (Eq. 7); 0 where there is no look-ahead.
        confidence: of the tokens committed, where they are not the candidates of the reading; else None.
        chance: uniform draws for a policy that chooses at random; else None.
        looks: readings foretold for each row in making this proposal; None where there were none.
        states: the canvases as they will stand, where each was committed on top of the one before with a tick of its own
            clock; None where one commit writes all of them.
        memory: what the policy remembers from here on; None where it stays as it is.
        broken: whether a figure of the policy's head that it rests on is NaN or infinite; None where none was asked.
    """

    tokens: Int[Tensor, "B K L"]
    reason: Int[Tensor, "B K L"]
    live: Bool[Tensor, "B K"]
    log_confidence: Float[Tensor, "B K"]
    confidence: Float[Tensor, "B K L"] | None = None
    chance: Float[Tensor, "B S"] | None = None
    looks: Int[Tensor, " B"] | None = None
    states: DecodeState | None = None
    memory: Float[Tensor, "B M L"] | None = None
    broken: Bool[Tensor, ""] | None = None

    @staticmethod
    def single(state: DecodeState, reading: Reading, reason: Int[Tensor, "B L"]) -> Proposal:
        """One canvas per row: the candidates of `reading` at every position that has a reason."""
        tokens = torch.where(reason > 0, reading.token, state.tokens)
        return Proposal(
            tokens=tokens.unsqueeze(1),
            reason=reason.unsqueeze(1),
            live=state.unfinished.unsqueeze(1),
            log_confidence=torch.zeros_like(tokens[:, :1], dtype=torch.float),
        )


def start(
    tokens: Int[Tensor, "B L"],
    *,
    gen_length: int | Int[Tensor, " B"],
    block_length: int | Int[Tensor, " B"],
    mask_id: int,
    eos_id: int | Sequence[int] | None,
    step_budget: int | None = None,
    initial_blocks: int = 1,
    cached: bool = False,
) -> DecodeState:
    """The state before the first forward: prompt (left padded) followed by `gen_length` masks.

    Args:
        tokens: prompts, left padded.
        gen_length: masks behind each, at least 1; of each row where they differ.
        block_length: of a block, a divisor of gen_length; of each row where they differ.
        mask_id, eos_id: special ids; of several eos_id each ends an answer and the first fills what follows, None switches
            the early stop off.
        step_budget: rounds of a block before the next opens; None waits until it is full.
        initial_blocks: blocks open at first, at least 1.
        cached: whether the forward that opens a block decides what later forwards of it read.
    """
    eos_id, *also_ends = (eos_id,) if eos_id is None or isinstance(eos_id, int) else tuple(eos_id) or (None,)
    batch, length = tokens.shape
    count = torch.zeros(batch, dtype=torch.long, device=tokens.device)
    masks, each = count + gen_length, count + block_length
    position = torch.arange(length, device=tokens.device) - (length - masks).unsqueeze(-1)
    block = torch.where(position >= 0, position.div(each.unsqueeze(-1), rounding_mode="floor"), -1)
    num_blocks, masked = masks.div(each, rounding_mode="floor").clamp(min=1), block >= 0
    return DecodeState(
        layout=Layout(mask_id, eos_id, step_budget, cached, tuple(also_ends)),
        block=block,
        num_blocks=num_blocks,
        tokens=tokens.masked_fill(masked, mask_id),
        masked=masked,
        opened=num_blocks.clamp(max=initial_blocks),
        spent=count,
        round=count,
        committed_round=torch.where(masked, -1, 0),
        committed_confidence=torch.zeros(batch, length, device=tokens.device),
        reason=torch.zeros_like(tokens),
        recent_confidence=torch.zeros(batch, 2, length, device=tokens.device),
        recent_token=torch.full((batch, 2, length), -1, device=tokens.device),
        looks=count,
        drafts=count,
        drafts_true=count,
        memory=torch.zeros(batch, 0, length, device=tokens.device),
    )


BLANK = {"block": -1, "recent_token": -1}
COUNTERS = ("num_blocks", "opened", "spent", "round", "looks", "drafts", "drafts_true")


def extend(state: DecodeState, left: int) -> DecodeState:
    """The state with columns of padding put before every row; fewer than none leave columns off, as views."""

    def one(name: str) -> Tensor:
        value: Tensor = getattr(state, name)
        if name in COUNTERS or not left:
            return value
        if left < 0:
            return value[..., -left:]
        return torch.nn.functional.pad(value, (left, 0), value=BLANK.get(name, 0))

    return DecodeState(state.layout, *map(one, TENSORS))
