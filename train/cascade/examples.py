"""What a cascade learns from: the frozen base is led through states, and every forward is the label of the one before it."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils.data import IterableDataset

from decoding.policies.cascade import ask
from decoding.policy import Policy
from decoding.prompts import read_prompts
from decoding.reading import Reading, Sampling, read
from decoding.state import DecodeState, commit, start
from models.denoiser import Denoiser, Prediction
from models.heads.cascade import LEAST, Cascade, rest_of
from train.head.fit import prompts_of
from train.head.settings import TaskRun
from train.tasks import get

LAST = 4  # a batch is left when fewer than one row in so many is unfinished


@dataclass(frozen=True)
class Prompts:
    """The prompts of a task, and the canvas behind them."""

    task: str
    texts: Sequence[str]
    gen_length: int
    block_length: int

    @staticmethod
    def of(name: str, run: TaskRun, split: str, count: int | None, *, seed: int) -> Prompts:
        """Those of a split that a run names, or `count` train prompts where the task generates them."""
        task = get(name)
        own = run.prompts if split == "train" else run.dev_prompts
        wanted = count if count is not None and split == "train" and run.prompts_file is None else own
        texts = [example.prompt for example in prompts_of(task, run, split, wanted, seed=seed)]
        return Prompts(name, texts, task.gen_length, run.block_length or task.block_length)


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
        said = ask(cascade, self.reading, self.committed, self.reading.token)
        return said[self.left[self.reading.rows & ~self.committed]]

    def unmoved(self) -> Float[Tensor, "M 6"]:
        """What the state's own forward said there."""
        return with_rest(self.reading.top_log_probs[self.left])


def with_rest(log_probs: Float[Tensor, "M 5"]) -> Float[Tensor, "M 6"]:
    """The candidates, and all other tokens together behind them."""
    return torch.cat([log_probs, rest_of(log_probs)], -1).log_softmax(-1)


def divergence(target: Float[Tensor, "M 6"], said: Float[Tensor, "M 6"]) -> Float[Tensor, " M"]:
    """KL(target || said) in nats."""
    return (target.exp() * (target - said)).sum(-1)


def look(
    denoiser: Denoiser, state: DecodeState, attention_mask: Tensor | None, taps: Sequence[int]
) -> tuple[Prediction, Reading]:
    """One forward of the base."""
    prediction: Prediction = denoiser(state.tokens, attention_mask=attention_mask, rows=state.feasible, taps=taps)
    return prediction, read(prediction, Sampling(forbidden=(denoiser.mask_id,)))


def candidates(
    prediction: Prediction, tokens: Int[Tensor, "B L 5"], known: Float[Tensor, "B L 5"], left: Bool[Tensor, "B L"]
) -> Float[Tensor, "M 6"]:
    """Log-probabilities of given candidates, and of the rest together, at `left`, which are rows of the prediction."""
    log_probs = prediction.logits.float().log_softmax(-1)[left[prediction.rows]]
    top = log_probs.gather(-1, tokens[left]).clamp(min=LEAST).masked_fill(known[left] <= LEAST, LEAST)
    return with_rest(top)


@torch.no_grad()
def lessons(
    denoiser: Denoiser, prompts: Prompts, texts: Sequence[str], policy: Policy, taps: Sequence[int]
) -> Iterator[CascadeExample]:
    """Decode with a policy; every round but the first gives the lesson of the one before."""
    batch = read_prompts(list(texts), None, denoiser).with_canvas(prompts.gen_length)
    state = start(
        batch.tokens,
        gen_length=prompts.gen_length,
        block_length=prompts.block_length,
        mask_id=denoiser.mask_id,
        eos_id=denoiser.eos_id,
        step_budget=policy.step_budget,
        initial_blocks=policy.initial_blocks,
    )
    mask, before = batch.attention_mask, None
    prompt = torch.arange(len(texts), device=state.tokens.device)
    while True:
        prediction, reading = look(denoiser, state, mask, taps)
        if before is not None:
            seen, committed = before
            left = state.feasible & seen.rows
            target = candidates(prediction, seen.top_tokens, seen.top_log_probs, left)
            yield CascadeExample(seen, committed, left, target, prompt)
        proposal = policy.propose(state, reading)
        after = commit(state, reading, proposal).at(torch.zeros_like(state.opened))
        live = after.unfinished
        if LAST * int(live.sum()) < len(texts):
            return
        committed = proposal.reason[:, 0] > 0
        reading = replace(reading, token=torch.where(committed, proposal.tokens[:, 0], reading.token))
        pick = itemgetter(live)
        before = reading.map(pick), pick(committed)
        state, mask, prompt = after.map(pick), None if mask is None else pick(mask), pick(prompt)


class CascadeExamples(IterableDataset[CascadeExample]):
    """Examples without end, as many of each task whatever its rounds; prompts and drivers are drawn from a seed."""

    def __init__(
        self,
        denoiser: Denoiser,
        tasks: Sequence[Prompts],
        drivers: Sequence[Policy],
        taps: Sequence[int],
        *,
        batch_size: int,
        seed: int,
    ) -> None:
        self.denoiser, self.tasks, self.drivers, self.taps = denoiser, tasks, drivers, taps
        self.batch_size, self.seed = batch_size, seed

    def __iter__(self) -> Iterator[CascadeExample]:
        """Draw."""
        draw = random.Random(self.seed)
        given = [0] * len(self.tasks)
        while True:
            least = given.index(min(given))
            task, given[least] = self.tasks[least], given[least] + 1  # a decode of one round gives none
            texts = draw.sample(task.texts, min(self.batch_size, len(task.texts)))
            for lesson in lessons(self.denoiser, task, texts, draw.choice(self.drivers), self.taps):
                yield lesson
                given[least] += 1
