"""What leads through the states that a cascade learns from: drivers drawn for every batch of prompts, with drafts or in parts."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import final

import torch
from torch.utils.data import IterableDataset

from decoding.policies.rules import WrappingPolicy
from decoding.policies.verified import Verified
from decoding.policy import Needs, Policy, rank
from decoding.reading import Reading
from decoding.state import DecodeState, Proposal
from models.denoiser import Denoiser
from models.ranks import find_ranks
from train.cascade.examples import CascadeExample, TaskPrompts, examples

BARREN = 100  # decodes of a task one after the other in which every round is the last, after which it is left out


@final
@dataclass(frozen=True)
class Part(WrappingPolicy):
    """Commits the surest part of what another policy would, at least one position: more rounds, and more left to foretell.

    Args:
        rule: the other policy.
        share: of its commits, in (0, 1].
    """

    share: float

    @property
    def needs(self) -> Needs:
        """Those of the other policy."""
        return self.rule.needs

    def propose(self, state: DecodeState, reading: Reading) -> Proposal:
        """The other's proposal without its least sure commits."""
        proposal = self.rule.propose(state, reading)
        if self.share == 1:
            return proposal
        wanted = proposal.reason[:, 0] > 0
        kept = rank(-reading.log_risk, wanted) < (self.share * wanted.sum(-1, keepdim=True)).ceil()
        kept = (kept & wanted).unsqueeze(1)
        tokens = torch.where(kept, proposal.tokens, state.tokens.unsqueeze(1))
        return replace(proposal, tokens=tokens, reason=proposal.reason * kept)


class CascadeExamples(IterableDataset[CascadeExample]):
    """Examples without end; prompts, drivers and parts are drawn from a seed.

    A task that has fewer than `positions` in which something is still to be learned goes first; then every task gives as many
    examples, whatever its rounds. Of several processes each draws its own, without end, for they take every step together.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        tasks: Sequence[TaskPrompts],
        drivers: Sequence[Policy],
        taps: Sequence[int],
        *,
        batch_size: int,
        seed: int,
        parts: Sequence[float] = (1.0,),
        positions: int = 0,
        depth: int = 1,
        whole: bool = False,
        ahead: int = 1,
    ) -> None:
        self.denoiser, self.tasks, self.drivers, self.taps = denoiser, tasks, drivers, taps
        self.depth, self.whole, self.ahead = depth, whole, ahead
        self.batch_size, self.seed, self.parts, self.positions = batch_size, seed, parts, positions
        self.learned, self.barren = [0] * len(tasks), [0] * len(tasks)

    @property
    def open(self) -> list[int]:
        """The tasks that still give examples."""
        return [task for task, barren in enumerate(self.barren) if barren < BARREN]

    @property
    def share(self) -> float:
        """Part of the positions asked for that the task with fewest has given, of those that give any."""
        return min((self.learned[task] / max(1, self.positions) for task in self.open), default=1.0)

    def leader(self, driver: Policy, part: float) -> Policy:
        """What leads a batch: a part of the driver's commits, or all of them with drafts of the cascade's own on top."""
        if self.depth > 1 and driver.checkable:
            return Verified(driver, head=self.denoiser.head, canvases=self.depth)
        return Part(driver, part)

    def __iter__(self) -> Iterator[CascadeExample]:
        """Draw."""
        draw = random.Random(self.seed)
        given = [0] * len(self.tasks)
        while self.open:
            least = min(self.open, key=lambda i: (min(self.learned[i], self.positions), given[i]))
            task, given[least] = self.tasks[least], given[least] + 1  # a decode of one round gives none
            texts = draw.sample(task.texts, min(self.batch_size, len(task.texts)))
            self.barren[least] += 1
            policy = self.leader(draw.choice(self.drivers), draw.choice(self.parts))
            for example in examples(self.denoiser, task, texts, policy, self.taps, whole=self.whole, ahead=self.ahead):
                if not len(example.target):
                    continue
                self.learned[least] += example.to_learn if example.depth == 1 or self.depth > 1 else 0
                self.barren[least] = 0
                given[least] += 1
                yield example
        if any(self.learned) and find_ranks().size > 1:
            raise ValueError("tasks must give examples without end where several processes fit, got none any more")
