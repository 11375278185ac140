"""FreeDave: what one reading would commit next, one position after the other, checked by the next forward."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import final

from decoding.policies.quota import Sequential
from decoding.policies.rules import require
from decoding.policies.verified import Verified
from decoding.policy import Needs, Policy
from decoding.reading import Reading
from decoding.state import DecodeState, Proposal


@final
@dataclass(frozen=True)
class FreeDave(Policy):
    """One position a round by confidence, with unlearned drafts that are checked exactly: FreeDave, arXiv 2510.00294.

    Draft d commits the d most confident positions of the present reading; one forward reads all drafts, and the deepest one that
    decoding one position at a time would have reached is kept. The text is that of `sequential`. This is `verified` around
    `sequential` with drafts from the reading, none of which leaves the block that it began in.

    Args:
        draft_steps: d, canvases a round at most, at least 1; 4 in the published runs.
    """

    draft_steps: int = 4

    def __post_init__(self) -> None:
        require(self.draft_steps >= 1, "draft_steps", "be at least 1", self.draft_steps)

    @property
    def checked(self) -> Verified:
        """The checked drafts."""
        return Verified(Sequential(), canvases=self.draft_steps, source="reading")

    @property
    def needs(self) -> Needs:
        """The drafts."""
        return self.checked.needs

    def propose(self, state: DecodeState, reading: Reading) -> Proposal:
        """The first position, and the drafts on top of it that stay in its block."""
        proposal = self.checked.propose(state, reading)
        assert proposal.states is not None
        opened = proposal.states.opened
        return replace(proposal, live=proposal.live & (opened == opened[:, :1]))

    def settle(self, canvases: DecodeState, proposal: Proposal, reading: Reading) -> tuple[DecodeState, Reading]:
        """The deepest draft that came true and its reading."""
        return self.checked.settle(canvases, proposal, reading)

    def last(self, canvases: DecodeState, proposal: Proposal) -> DecodeState:
        """The certain canvas."""
        return self.checked.last(canvases, proposal)
