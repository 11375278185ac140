"""What a cascade learns from: the frozen base is led through states, and every forward is the label of the one before it."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Any, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils.data import IterableDataset

from decoding.loop import rounds
from decoding.policies.cascade import ask
from decoding.policy import Needs, Policy, rank
from decoding.prompts import read_prompts
from decoding.reading import Reading, Sampling
from decoding.state import DecodeState, Proposal, start
from models.denoiser import Denoiser, Prediction
from models.heads.cascade import Cascade
from models.heads.foretelling import LEAST, rest_of
from models.ranks import find_ranks
from train.head.fit import prompts_of
from train.head.settings import TaskRun
from train.tasks import get

BARREN = 100  # decodes of a task one after the other in which every round is the last, after which it is left out
OPEN = 0.01  # nats
LAST = 4  # a batch is left when fewer than one row in so many is unfinished


@dataclass(frozen=True)
class TaskPrompts:
    """The prompts of a task, and the canvas behind them."""

    task: str
    texts: Sequence[str]
    gen_length: int
    block_length: int

    @staticmethod
    def of(name: str, run: TaskRun, split: str, count: int | None, *, seed: int) -> TaskPrompts:
        """Those of a split that a run names, or `count` train prompts where the task generates them.

        Args:
            name: of the task.
            run: what a run takes from it.
            split: train or dev.
            count: train prompts in place of the run's own; None for these.
            seed: of the generator.
        """
        task = get(name)
        usual = run.prompts if split == "train" else run.dev_prompts
        free = run.prompts_file is None or run.at_most
        wanted = count if count is not None and split == "train" and free else usual
        texts = [example.prompt for example in prompts_of(task, run, split, wanted, seed=seed)]
        return TaskPrompts(name, texts, task.gen_length, run.block_length or task.block_length)

    def divided(self, most: int) -> tuple[TaskPrompts, TaskPrompts]:
        """Those to fit on, and the last eighth, `most` at most, held out of it; the same twice where there is one alone."""
        count = max(1, min(most, len(self.texts) // 8))
        fitted = self.texts[:-count] or self.texts
        return replace(self, texts=fitted), replace(self, texts=self.texts[-count:])


@dataclass(frozen=True)
class CascadeExample:
    """A state, what its round commits, and what the base says of the positions left once that is done.

    Attributes:
        reading: of the state, with taps.
        committed: positions that the round commits; the token is that of the reading.
        left: positions that are still masked then.
        target: log-probabilities there of the state's five candidates and of the rest together, packed.
        prompt: which of the prompts each row decodes.
    """

    reading: Reading
    committed: Bool[Tensor, "B L"]
    left: Bool[Tensor, "B L"]
    target: Float[Tensor, "M 6"]
    prompt: Int[Tensor, " B"]

    def foretold(self, cascade: Cascade) -> Float[Tensor, "M 6"]:
        """What the cascade says at `left`."""
        foretold = ask(cascade, self.reading, self.committed, self.reading.token)
        return foretold[self.left[self.reading.rows & ~self.committed]]

    @property
    def to_learn(self) -> int:
        """Positions of which the next forward says something new: KL of the next forward from this one above OPEN."""
        return int((divergence(self.target, self.unmoved()) > OPEN).sum())

    def unmoved(self) -> Float[Tensor, "M 6"]:
        """What the state's own forward said there."""
        return with_rest(self.reading.top_log_probs[self.left])


def with_rest(log_probs: Float[Tensor, "M 5"]) -> Float[Tensor, "M 6"]:
    """The candidates, and all other tokens together behind them."""
    return torch.cat([log_probs, rest_of(log_probs)], -1).log_softmax(-1)


def divergence(target: Float[Tensor, "M 6"], predicted: Float[Tensor, "M 6"]) -> Float[Tensor, " M"]:
    """KL(target || said) in nats."""
    return (target.exp() * (target - predicted)).sum(-1)


class Recorded(Denoiser):
    """A denoiser read at other taps than the policy asks for, which keeps its last prediction: the target of an example.

    Args:
        inner: the base.
        taps: blocks that the cascade reads.
    """

    def __init__(self, inner: Denoiser, taps: Sequence[int]) -> None:
        super().__init__()
        self.inner, self.read_at = inner, tuple(taps)
        self.mask_id, self.eos_id, self.vocab_size = inner.mask_id, inner.eos_id, inner.vocab_size
        self.prediction: Prediction | None = None

    def forward(
        self,
        tokens: Int[Tensor, "N L"],
        *,
        attention_mask: Bool[Tensor, "N L"] | None = None,
        rows: Bool[Tensor, "N L"] | None = None,
        **_: Any,
    ) -> Prediction:
        """See `Denoiser.forward`: the inner prediction, of whole canvases without a cache."""
        prediction: Prediction = self.inner(tokens, attention_mask=attention_mask, rows=rows, taps=self.read_at)
        self.prediction = prediction
        return prediction


def candidates(
    prediction: Prediction, tokens: Int[Tensor, "B L 5"], known: Float[Tensor, "B L 5"], left: Bool[Tensor, "B L"]
) -> Float[Tensor, "M 6"]:
    """Log-probabilities of given candidates, and of the rest together, at `left`, which are rows of the prediction.

    Args:
        prediction: of the next forward.
        tokens: five candidates of each position.
        known: their log-probabilities before; those that had none stay at LEAST.
        left: positions still masked.
    """
    log_probs = prediction.logits.float().log_softmax(-1)[left[prediction.rows]]
    top = log_probs.gather(-1, tokens[left]).clamp(min=LEAST).masked_fill(known[left] <= LEAST, LEAST)
    return with_rest(top)


@torch.no_grad()
def examples(
    denoiser: Denoiser, prompts: TaskPrompts, texts: Sequence[str], policy: Policy, taps: Sequence[int]
) -> Iterator[CascadeExample]:
    """Decode with a policy; every round but the first gives the example of the one before.

    Args:
        denoiser: the base.
        prompts: of the task, with its canvas.
        texts: those of them that are decoded together; left when fewer than one in LAST is unfinished.
        policy: leads, with one canvas a round and nothing drawn.
        taps: base blocks that the cascade reads.
    """
    batch = read_prompts(list(texts), None, denoiser).with_canvas(prompts.gen_length)
    first = start(
        batch.tokens,
        gen_length=prompts.gen_length,
        block_length=prompts.block_length,
        mask_id=denoiser.mask_id,
        eos_id=denoiser.end_ids,
        step_budget=policy.step_budget,
        initial_blocks=policy.initial_blocks,
    )
    base, number = Recorded(denoiser, taps), torch.arange(len(texts), device=first.tokens.device)
    sampling, before = Sampling(forbidden=(denoiser.mask_id,)), None
    for step in rounds(base, first, policy, attention_mask=batch.attention_mask, sampling=sampling):
        live = step.state.unfinished
        if step.proposal is None or LAST * int(live.sum()) < len(texts):
            return
        if before is not None and base.prediction is not None:
            seen, committed = before[0].map(itemgetter(live)), before[1][live]
            left = step.state.feasible[live] & seen.rows
            target = candidates(base.prediction, seen.top_tokens, seen.top_log_probs, left)
            yield CascadeExample(seen, committed, left, target, number[live])
        committed = step.proposal.reason[:, 0] > 0
        token = torch.where(committed, step.proposal.tokens[:, 0], step.reading.token)
        before = replace(step.reading, token=token), committed


@final
@dataclass(frozen=True)
class Part(Policy):
    """Commits the surest part of what another policy would, at least one position: more rounds, and more left to foretell.

    Args:
        whole: the other policy.
        share: of its commits, in (0, 1].
    """

    whole: Policy
    share: float

    @property
    def step_budget(self) -> int | None:
        """That of the other policy."""
        return self.whole.step_budget

    @property
    def initial_blocks(self) -> int:
        """That of the other policy."""
        return self.whole.initial_blocks

    @property
    def needs(self) -> Needs:
        """Those of the other policy."""
        return self.whole.needs

    def propose(self, state: DecodeState, reading: Reading) -> Proposal:
        """The other's proposal without its least sure commits."""
        proposal = self.whole.propose(state, reading)
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
    ) -> None:
        self.denoiser, self.tasks, self.drivers, self.taps = denoiser, tasks, drivers, taps
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

    def __iter__(self) -> Iterator[CascadeExample]:
        """Draw."""
        draw = random.Random(self.seed)
        given = [0] * len(self.tasks)
        while self.open:
            least = min(self.open, key=lambda i: (min(self.learned[i], self.positions), given[i]))
            task, given[least] = self.tasks[least], given[least] + 1  # a decode of one round gives none
            texts = draw.sample(task.texts, min(self.batch_size, len(task.texts)))
            self.barren[least] += 1
            policy = Part(draw.choice(self.drivers), draw.choice(self.parts))
            for example in examples(self.denoiser, task, texts, policy, self.taps):
                if not len(example.target):
                    continue
                self.learned[least] += example.to_learn
                self.barren[least] = 0
                given[least] += 1
                yield example
        if any(self.learned) and find_ranks().size > 1:
            raise ValueError("tasks must give examples without end where several processes fit, got none any more")
