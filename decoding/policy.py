"""What decides: a policy proposes which positions to commit now, and chooses among its own branches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from decoding.reading import Reading
from decoding.state import DecodeState, Proposal, start
from models.denoiser import Denoiser

MOST_PAIRS = 1 << 28  # of positions, a byte each in a few tensors


@dataclass(frozen=True)
class Needs:
    """What a policy asks of every round.

    Attributes:
        canvases: K, canvases of a row in one forward at most.
        taps: base blocks whose input, keys and values its head reads.
        looks: readings of a foretold forward in a round at most; their tokens are the likeliest ones, which no sampling draws.
        noise: whether every position gets a uniform draw (`Reading.noise`).
        draws: tokens drawn at every position from p^power, beside its candidate (`Reading.draws`).
        power: exponent of those draws, above 0.
        rounds: rounds of a decode at most, for a rule whose rounds may commit nothing; None for a rule that always commits.
        greedy: whether the candidates must be the most likely tokens, so that no temperature goes with it.
        earlier: whether a reading says how far each distribution has moved since the forward before (`Reading.drift`); one
            canvas a round.
        committed: whether committed positions of the canvas are read too.
        hides: whether a forward sees no more than `Policy.visible` lets it.
        memory: planes of `DecodeState.memory`, what a rule remembers of each position.
        shadows: whether committed positions of the newest block are read too, each by a mask row that does not see it; the
            candidate there is the token that stands.
        maps: last blocks of the base whose attention is read (`Reading.attention`), and the prompt and all committed positions
            with it; 0 for none.
        losses: whether a round may take back as much as it commits; a decode then ends within a round for each position.
    """

    canvases: int = 1
    taps: tuple[int, ...] = ()
    looks: int = 0
    noise: bool = False
    draws: int = 0
    power: float = 1.0
    rounds: int | None = None
    greedy: bool = False
    earlier: bool = False
    committed: bool = False
    hides: bool = False
    memory: int = 0
    shadows: bool = False
    maps: int = 0
    losses: bool = False

    @property
    def plain(self) -> bool:
        """Whether only the plain driver can serve them."""
        beside = self.earlier or self.committed or self.hides or self.memory > 0
        return beside or self.shadows or self.maps > 0 or self.losses

    def asked(self, state: DecodeState) -> Bool[Tensor, "... L"]:
        """Positions whose distribution a forward gives: the masks of the opened blocks, and what is wanted beside them.

        Distributions that are kept for the next forward include those of later blocks, unless a cache leaves them out.
        """
        opened = (state.block < state.opened.unsqueeze(-1)) & state.unfinished.unsqueeze(-1)
        if self.shadows:
            return state.feasible | (newest_block(state) & opened)
        if self.maps:
            return opened
        if self.committed:
            return opened & (state.block >= 0)
        return state.masked if self.earlier and not state.layout.cached else state.feasible


@dataclass(frozen=True)
class Policy(ABC):
    """A decoding rule: a frozen dataclass that holds its settings. A new decoder is one file with one final subclass.

    `propose` and `choose` work on the whole batch: no `.item()`, no Python loop over rows or positions. Each unfinished row must
    commit at least one position a round unless `needs` say otherwise, and only positions that are masked. It may take back
    fewer positions than it commits, none of them twice unless it `repeats`.
    """

    checkable: ClassVar[bool] = False
    """Whether what it commits follows from canvas, block clock, recent readings and reading alone, on one canvas, and stands.

    Not from when, why or how surely a token was committed: drafts are judged side by side, before that is known of them.
    """
    repeats: ClassVar[bool] = False
    """Whether it may take the same position back more than once."""

    @classmethod
    def brought(cls, head: Any, task: str | None) -> Mapping[str, Any]:
        """Settings that a model's scoring head brings with it, for those that are not given; it may have some for a task."""
        return {}

    @property
    def step_budget(self) -> int | None:
        """Rounds per block before the next one opens (N of fast block diffusion); None: only when the block is full."""
        return None

    @property
    def initial_blocks(self) -> int:
        """Blocks open at the first round."""
        return 1

    @property
    def needs(self) -> Needs:
        """What a round must hold for this rule, declared once."""
        return Needs()

    def check_blocks(self, num_blocks: int) -> None:  # noqa: B027 - most rules fit any canvas
        """Refuse a canvas of so many blocks that the rule does not fit.

        Raises:
            ValueError: in one sentence.
        """

    @abstractmethod
    def propose(self, state: DecodeState, reading: Reading) -> Proposal:
        """Which positions to commit, from the reading of `state` itself."""

    def choose(self, canvases: DecodeState, proposal: Proposal, reading: Reading) -> Int[Tensor, " B"]:
        """Which of the K canvases to keep, from their own readings ([B, K, ...]); a policy without look-ahead keeps the first."""
        return torch.zeros_like(proposal.live[:, 0], dtype=torch.long)

    def combine(self, reading: Reading, choice: Int[Tensor, " B"]) -> Reading:
        """What the next `propose` sees of the K readings: that of the canvas chosen, unless others have something to add."""
        return reading.at(choice)

    def visible(self, state: DecodeState) -> Bool[Tensor, "... L"]:
        """Positions that the next forward of `state` may attend to, where `needs.hides`; all of them otherwise."""
        return torch.ones_like(state.masked)

    @property
    def fused(self) -> bool:
        """Whether `settle` and `propose` are tensor operations alone, which an engine compiles as one program."""
        return False

    @property
    def takes_back(self) -> bool:
        """Whether the rule may mask a committed position again."""
        return False

    def settle(self, canvases: DecodeState, proposal: Proposal, reading: Reading) -> tuple[DecodeState, Reading]:
        """The canvas chosen, and what the next `propose` sees; a policy that checks its canvases rewrites what it keeps."""
        choice = self.choose(canvases, proposal, reading)
        return canvases.at(choice), self.combine(reading, choice)

    def last(self, canvases: DecodeState, proposal: Proposal) -> DecodeState:
        """The canvas kept of every row once none of its canvases is left to read."""
        return self.settle(canvases, proposal, Reading.empty(tuple(canvases.tokens.shape), canvases.tokens.device))[0]


def first_state(
    denoiser: Denoiser,
    tokens: Int[Tensor, "B L"],
    policy: Policy,
    *,
    gen_length: int | Int[Tensor, " B"],
    block_length: int | Int[Tensor, " B"],
    end_ids: Sequence[int] | None,
) -> DecodeState:
    """The state before the first forward of a decode by a denoiser and a policy; `decoding.state.start` has the canvas.

    Args:
        denoiser: whose mask id and cache count.
        tokens: prompts, left padded, and canvases.
        policy: says when blocks open.
        gen_length, block_length: of the canvases.
        end_ids: ids that end an answer; None or none switches the early stop off.
    """
    return start(
        tokens,
        gen_length=gen_length,
        block_length=block_length,
        mask_id=denoiser.mask_id,
        eos_id=end_ids,
        step_budget=policy.step_budget,
        initial_blocks=policy.initial_blocks,
        cached=getattr(denoiser, "cache", None) is not None,
    )


def identity_of(policy: Policy, version: Callable[[nn.Module], Hashable]) -> Hashable:
    """What tells a policy's graphs from those of all others: its class and all that it holds, be it a field or not.

    Args:
        policy: whose settings, inner rules and heads stand in graphs as constants.
        version: of a head's tensors.
    """

    def one(value: Any) -> Hashable:
        if isinstance(value, Policy):
            return identity_of(value, version)
        return (value, version(value)) if isinstance(value, nn.Module) else value

    return (type(policy), *((name, one(value)) for name, value in vars(policy).items()))


def newest_block(state: DecodeState) -> Bool[Tensor, "... L"]:
    """The block opened last."""
    return state.block == state.opened.unsqueeze(-1) - 1


def rank(score: Float[Tensor, "B L"], within: Bool[Tensor, "B L"]) -> Int[Tensor, "B L"]:
    """Place of each position in descending order of score, 0 the best; positions outside `within` come last. Ties go leftmost."""
    if _by_pairs(score):
        return counted_places(score.masked_fill(~within, -torch.inf))
    return torch.argsort(order(score, within), dim=-1, stable=True)


def order(score: Float[Tensor, "B L"], within: Bool[Tensor, "B L"]) -> Int[Tensor, "B L"]:
    """The positions in descending order of score, those outside `within` last. Ties go leftmost."""
    score = score.masked_fill(~within, -torch.inf)
    if not _by_pairs(score):
        return torch.argsort(score, dim=-1, descending=True, stable=True)
    places = counted_places(score)
    positions = torch.arange(places.shape[-1], device=places.device)
    return torch.empty_like(places).scatter(-1, places, positions.expand_as(places))


def _by_pairs(score: Float[Tensor, "B L"]) -> bool:
    """Whether places are counted: on a GPU, where a sort takes many launches, and uncompiled where memory bears all pairs."""
    return score.is_cuda and (torch.compiler.is_compiling() or score.numel() * score.shape[-1] <= MOST_PAIRS)


def counted_places(score: Float[Tensor, "B L"]) -> Int[Tensor, "B L"]:
    """How many scores of the row are larger, or equal and further left: on a GPU a sort of a short row takes many launches."""
    return _larger(score).sum(-1)


def ahead(score: Float[Tensor, "B L"], within: Bool[Tensor, "B L"]) -> Bool[Tensor, "B L L"]:
    """At [i, j] whether position j comes before position i in descending order of score, those outside `within` last."""
    return _larger(score.masked_fill(~within, -torch.inf))


def _larger(score: Float[Tensor, "B L"]) -> Bool[Tensor, "B L L"]:
    position = torch.arange(score.shape[-1], device=score.device)
    score = score.nan_to_num(nan=torch.inf)
    other, own = score.unsqueeze(-2), score.unsqueeze(-1)
    return (other > own) | ((other == own) & (position < position.unsqueeze(-1)))


def best(score: Float[Tensor, "B L"], within: Bool[Tensor, "B L"]) -> Bool[Tensor, "B L"]:
    """The single best position of each row, none where `within` is empty."""
    first = score.masked_fill(~within, -torch.inf).argmax(-1, keepdim=True)
    return (torch.arange(score.shape[-1], device=score.device) == first) & within
