"""Fitting a cascade: the frozen base leads through states, and every forward is the label of the one before it."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from operator import itemgetter
from pathlib import Path

import lightning
import torch
from jaxtyping import Bool, Float, Int
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from decoding.cascade import ask
from decoding.policy import Policy
from decoding.prompts import read_prompts
from decoding.provenance import environment, write_json
from decoding.reading import Reading, Sampling, read
from decoding.state import DecodeState, commit, start
from models.cascade import CASCADE, LEAST, Cascade, CascadeConfig, rest_of
from models.denoiser import Denoiser, Prediction
from models.scoring_head import save_head
from train.fit import prompts_of
from train.head_settings import CascadeFitting, TaskRun
from train.job import policy_of
from train.schedule import learning_rate_factor
from train.tasks import get

LAST = 4  # a batch is left when fewer than one row in so many is unfinished
SAVES = 4  # times a run saves what it has


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
class Lesson:
    """A state, what its round commits, and what the base says of the positions left once that is done.

    Attributes:
        reading: of the state, with taps.
        committed: positions that the round commits; the token is that of the reading.
        left: positions that are still masked then.
        target: log-probabilities there of the state's five candidates and of the rest together, packed.
    """

    reading: Reading
    committed: Bool[Tensor, "B L"]
    left: Bool[Tensor, "B L"]
    target: Float[Tensor, "M 6"]

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


@torch.no_grad()
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


def lessons(
    denoiser: Denoiser, prompts: Prompts, texts: Sequence[str], policy: Policy, taps: Sequence[int]
) -> Iterator[Lesson]:
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
    while True:
        prediction, reading = look(denoiser, state, mask, taps)
        if before is not None:
            seen, committed = before
            left = state.feasible & seen.rows
            target = candidates(prediction, seen.top_tokens, seen.top_log_probs, left)
            yield Lesson(seen, committed, left, target)
        proposal = policy.propose(state, reading)
        after = commit(state, reading, proposal).at(torch.zeros_like(state.opened))
        live = after.unfinished
        if LAST * int(live.sum()) < len(texts):
            return
        committed = proposal.reason[:, 0] > 0
        reading = replace(reading, token=torch.where(committed, proposal.tokens[:, 0], reading.token))
        pick = itemgetter(live)
        before = reading.map(pick), pick(committed)
        state, mask = after.map(pick), None if mask is None else pick(mask)


class Lessons(IterableDataset[Lesson]):
    """Lessons without end, as many of each task whatever the rounds of its decodes; prompts and drivers are drawn from a seed."""

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

    def __iter__(self) -> Iterator[Lesson]:
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


class CascadeModule(lightning.LightningModule):
    """Steps and optimiser of a cascade; the base is frozen and no part of it."""

    def __init__(self, cascade: Cascade, fitting: CascadeFitting) -> None:
        super().__init__()
        self.cascade, self.fitting = cascade, fitting
        self.began = time.monotonic()

    @property
    def done(self) -> float:
        """Share of the minutes that is over."""
        return min(1.0, (time.monotonic() - self.began) / (60 * self.fitting.minutes))

    def on_train_start(self) -> None:
        """The minutes begin."""
        self.began = time.monotonic()

    def training_step(self, lesson: Lesson, batch_idx: int) -> Tensor:
        """KL of the next forward from what the cascade says of it, averaged over positions."""
        loss = divergence(lesson.target, lesson.foretold(self.cascade)).mean()
        self.log("train/kl", loss.detach(), batch_size=1)
        return loss

    def on_train_batch_end(self, outputs: object, batch: Lesson, batch_idx: int) -> None:
        """The minutes end."""
        if self.done >= 1:
            self.trainer.should_stop = True

    def transfer_batch_to_device(self, batch: Lesson, device: torch.device, dataloader_idx: int) -> Lesson:
        """Lessons are on the device already."""
        return batch

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW over what the cascade owns, up and down again with the minutes."""
        own = [p for p in self.cascade.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(own, lr=self.fitting.learning_rate, weight_decay=0.01)

        def factor(step: int) -> float:
            return max(1e-3, learning_rate_factor(self.done, warmup=0.05, decay=0.9)) if step else 1e-3

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Keep(lightning.Callback):
    """Saves the head with its cascade a few times on the way."""

    def __init__(self, denoiser: Denoiser, out: Path) -> None:
        self.denoiser, self.out = denoiser, out
        self.saved = 0

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: object,
        batch: Lesson,
        batch_idx: int,
    ) -> None:
        """Save when another part of the minutes is over."""
        if isinstance(pl_module, CascadeModule) and int(pl_module.done * SAVES) > self.saved:
            self.saved = int(pl_module.done * SAVES)
            save_head(self.denoiser.head, self.out)


@torch.no_grad()
def judge(denoiser: Denoiser, prompts: Prompts, drivers: Sequence[Policy], *, batch_size: int) -> dict[str, float]:
    """Mean KL of the next forward from the cascade, from the forward before it, and the share of it that the cascade explains.

    The prompts are dealt to the drivers.
    """
    cascade = denoiser.head.cascade
    total = torch.zeros(3, dtype=torch.double)
    for number, policy in enumerate(drivers):
        own = prompts.texts[number :: len(drivers)]
        for low in range(0, len(own), batch_size):
            for lesson in lessons(denoiser, prompts, own[low : low + batch_size], policy, denoiser.head.taps_ahead):
                with_cascade = divergence(lesson.target, lesson.foretold(cascade)).sum()
                without = divergence(lesson.target, lesson.unmoved()).sum()
                total += torch.tensor([float(with_cascade), float(without), len(lesson.target)], dtype=torch.double)
    kl, kl_without, positions = total.tolist()
    if not positions:
        return {"positions": 0.0}
    return {
        "kl": kl / positions,
        "kl_without": kl_without / positions,
        "skill": 1 - kl / max(kl_without, 1e-12),
        "positions": positions,
    }


def teach(denoiser: Denoiser, tasks: Mapping[str, TaskRun], fitting: CascadeFitting, out: Path, *, seed: int) -> str:
    """Fit the cascade of the denoiser's head and save the head with it and `cascade/metrics.json`; returns these as lines.

    Args:
        denoiser: the base with its head; a cascade of another shape gives way to a new one.
        tasks: which prompts.
        fitting: how long, how large, and which drivers.
        out: folder of the head.
        seed: of prompts and draws.
    """
    torch.manual_seed(seed)
    shape: dict[str, int] = {"blocks": fitting.blocks, "rank": fitting.rank, "alpha": 2 * fitting.rank}
    config = CascadeConfig(**shape, base=denoiser.fingerprint())
    if denoiser.head.cascade is None or denoiser.head.cascade.config != config:
        denoiser.head.cascade = Cascade(config, denoiser).to(denoiser.device)
    cascade = denoiser.head.cascade
    drivers = [policy_of(entry, denoiser) for entry in fitting.drivers]
    train, dev = (
        [Prompts.of(name, run, split, fitting.prompts, seed=seed) for name, run in tasks.items()]
        for split in ("train", "dev")
    )
    trainer = lightning.Trainer(
        max_epochs=1,
        accelerator="gpu" if denoiser.device.type == "cuda" else "cpu",
        devices=1,
        logger=CSVLogger(out, name="", version="cascade-logs"),
        enable_checkpointing=False,
        enable_model_summary=False,
        gradient_clip_val=1.0,
        log_every_n_steps=50,
        callbacks=[Keep(denoiser, out)],
    )
    data = Lessons(denoiser, train, drivers, denoiser.head.taps_ahead, batch_size=fitting.batch_size, seed=seed)
    cascade.train()
    trainer.fit(CascadeModule(cascade, fitting), DataLoader(data, batch_size=None))
    cascade.to(denoiser.device).eval()
    save_head(denoiser.head, out)
    found = {prompts.task: judge(denoiser, prompts, drivers, batch_size=fitting.batch_size) for prompts in dev}
    about = {
        "steps": trainer.global_step,
        "fitting": asdict(fitting),
        "environment": environment(device=denoiser.device, seed=seed),
    }
    write_json(out / CASCADE / "metrics.json", {"tasks": found, **about})
    return "\n".join(
        f"{name:24s} " + "  ".join(f"{key} {value:.4g}" for key, value in one.items()) for name, one in found.items()
    )
