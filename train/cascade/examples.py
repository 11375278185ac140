"""What a cascade learns from: the frozen base is led through states, and every forward is the label of the one before it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from decoding.commit import commit
from decoding.loop import rounds
from decoding.policies.cascade import ask
from decoding.policy import Policy, first_state
from decoding.prompts import read_prompts
from decoding.reading import Reading
from decoding.sampling import Sampling
from decoding.state import DecodeState, Proposal
from models.denoiser import Denoiser, Prediction
from models.engine.figures import least
from models.heads.cascade import Cascade
from models.heads.foretelling import rest_of
from train.head.settings import TaskRun
from train.traces.prompts import prompts_of

Round = tuple[Reading, Proposal, DecodeState]  # what a round read and proposed, and the canvases that it made

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
        task = run.task(name)
        usual = run.prompts if split == "train" else run.dev_prompts
        free = run.prompts_file is None or run.at_most
        wanted = count if count is not None and split == "train" and free else usual
        texts = [example.prompt for example in prompts_of(task, run, split, wanted, seed=seed)]
        return TaskPrompts(name, texts, task.gen_length, task.block_length)

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
        logits: of the next forward at `left`, packed, where they are asked for.
        depth: 1 for what a round commits, more for drafts on top of it and for the rounds after it.
        entered: what the next forward holds at `committed` before each of the blocks that were read, packed, where it is asked for.
    """

    reading: Reading
    committed: Bool[Tensor, "B L"]
    left: Bool[Tensor, "B L"]
    target: Float[Tensor, "M 6"]
    prompt: Int[Tensor, " B"]
    logits: Float[Tensor, "M V"] | None = None
    depth: int = 1
    entered: Float[Tensor, "K C D"] | None = None

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
        known: their log-probabilities before; those that had none stay at `least()`.
        left: positions still masked.
    """
    log_probs = prediction.logits.float().log_softmax(-1)[left[prediction.rows]]
    top = log_probs.gather(-1, tokens[left]).clamp(min=least()).masked_fill(known[left] <= least(), least())
    return with_rest(top)


@torch.no_grad()
def examples(
    denoiser: Denoiser,
    prompts: TaskPrompts,
    texts: Sequence[str],
    policy: Policy,
    taps: Sequence[int],
    *,
    whole: bool = False,
    entered: bool = False,
    ahead: int = 1,
) -> Iterator[CascadeExample]:
    """Decode with a policy; every round but the first gives the examples of the one before, one for each of its canvases.

    With `ahead` it is the label of earlier readings as well, which foretell it from all that has been committed since.

    Args:
        denoiser: the base.
        prompts: of the task, with its canvas.
        texts: those of them that are decoded together; left when fewer than one in LAST is unfinished.
        policy: leads, with nothing drawn: one canvas a round, or drafts on top of each other.
        taps: base blocks that the cascade reads.
        whole: keep the logits of the next forward.
        entered: keep what it holds at the commits.
        ahead: rounds that a reading foretells at most, where it leads with one canvas.
    """
    batch = read_prompts(list(texts), None, denoiser).to(denoiser.device).with_canvas(prompts.gen_length)
    canvas = {"gen_length": prompts.gen_length, "block_length": prompts.block_length}
    first = first_state(denoiser, batch.tokens, policy, **canvas, end_ids=denoiser.end_ids)
    base, number = Recorded(denoiser, taps), torch.arange(len(texts), device=first.tokens.device)
    sampling, before = Sampling(forbidden=(denoiser.mask_id,)), deque[Round](maxlen=ahead)
    with closing(rounds(base, first, policy, attention_mask=batch.attention_mask, sampling=sampling)) as steps:
        for step in steps:
            if step.proposal is None or LAST * int(step.state.unfinished.sum()) < len(texts):
                return
            if before and base.prediction is not None:
                last = before[-1]
                yield from labelled(*last, base.prediction, number, whole=whole, entered=entered)
                for gap, (reading, _, _) in enumerate(
                    reversed(list(before)[:-1] if last[2].tokens.shape[1] == 1 else []), 2
                ):
                    since = since_then(reading, last[1], last[2])
                    for one in labelled(reading, since, last[2], base.prediction, number, whole=whole, entered=entered):
                        yield replace(one, depth=gap)
            before.append((step.reading, step.proposal, commit(step.state, step.reading, step.proposal)))


def since_then(reading: Reading, proposal: Proposal, canvases: DecodeState) -> Proposal:
    """All that was committed since an earlier reading, as if its own round had proposed it.

    Args:
        reading: the earlier one.
        proposal: the last one.
        canvases: that it made.
    """
    filled = reading.rows.unsqueeze(1) & ~canvases.masked
    return replace(proposal, tokens=canvases.tokens, reason=filled.to(proposal.reason.dtype))


def labelled(
    reading: Reading,
    proposal: Proposal,
    canvases: DecodeState,
    prediction: Prediction,
    number: Int[Tensor, " B"],
    *,
    whole: bool,
    entered: bool,
) -> Iterator[CascadeExample]:
    """The examples of a round, once its canvases have been read.

    Args:
        reading: of the state that the round began with.
        proposal: what was proposed from it.
        canvases: that it made, [B, K].
        prediction: of the live ones, packed in the order of rows and canvases.
        number: the prompt of each row.
        whole: keep the logits.
        entered: keep what the commits became.
    """
    live = proposal.live & canvases.unfinished
    branch = live.nonzero()[:, 1]
    for depth in range(live.shape[1]):
        rows, mine = live[:, depth], branch == depth
        if not mine.any():
            continue
        asked = prediction.rows[mine]
        logits = prediction.logits[mine.unsqueeze(-1).expand_as(prediction.rows)[prediction.rows]]
        committed = proposal.reason[rows, depth] > 0
        seen = reading.map(itemgetter(rows))
        seen = replace(seen, token=torch.where(committed, proposal.tokens[rows, depth], seen.token))
        left = canvases.feasible[rows, depth] & seen.rows
        read = Prediction(logits, asked, prediction.positions[mine])
        target = candidates(read, seen.top_tokens, seen.top_log_probs, left)
        kept = logits[left[asked]] if whole else None
        inputs = [tap.hidden[mine][committed] for tap in prediction.taps] if entered else []
        became = torch.stack(inputs) if inputs else None
        yield CascadeExample(seen, committed, left, target, number[rows], kept, depth + 1, became)
