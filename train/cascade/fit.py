"""Fitting a cascade to the forwards that follow what is committed."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.utils.data import DataLoader

from decoding.names import find_policy
from decoding.policy import Policy
from decoding.provenance import environment, write_json
from models.denoiser import Denoiser
from models.devices import lightning_devices
from models.heads.cascade import CASCADE, Cascade, CascadeConfig, load_cascade
from models.heads.defaults import ALONE, CAREFUL, Defaults
from models.heads.scoring_head import save_head
from models.ranks import by_the_first, find_ranks
from train.base.schedule import learning_rate_factor
from train.cascade.beginning import begin, first_examples
from train.cascade.evaluation import evaluate, trust
from train.cascade.examples import CascadeExample, TaskPrompts
from train.cascade.leading import CascadeExamples
from train.cascade.losses import losses_of
from train.defaults.evidence import worded
from train.head.loss import over_all
from train.head.settings import CascadeFitting, TaskRun
from train.head.stages import sums
from train.traces.drivers import policy_of

LONGEST = 2
HELD = 64  # prompts of a task at most that are held out of the fit, an eighth of them where there are few
RANK_STEP = 1_000_003  # between the seeds of two processes
SAVES = 4  # times a run saves what it has


class CascadeModule(lightning.LightningModule):
    """Steps and optimiser of a cascade; the base is frozen and no part of it."""

    def __init__(self, cascade: Cascade, fitting: CascadeFitting, gathered: Callable[[], float]) -> None:
        super().__init__()
        self.cascade, self.fitting, self.gathered = cascade, fitting, gathered
        self.began = time.monotonic()
        self.steps = 0
        self.done = 0.0

    def share_done(self) -> float:
        """Share of the fit that is over: of the steps where they are given, else the lesser of minutes and positions.

        The positions are waited for until LONGEST times the minutes are over.
        """
        if self.fitting.steps is not None:
            return min(1.0, self.steps / self.fitting.steps)
        minutes = (time.monotonic() - self.began) / (60 * self.fitting.minutes)
        return min(1.0, max(minutes / LONGEST, min(minutes, self.gathered())))

    def on_train_start(self) -> None:
        """The minutes begin, with the same weights at all processes."""
        find_ranks().equalise_fitted(self.cascade)
        self.began = time.monotonic()

    def training_step(self, example: CascadeExample, batch_idx: int) -> Tensor:
        """What separates the next forward from what the cascade says of it, averaged over the positions of all processes."""
        apart = losses_of(example, self.cascade, self.fitting.target)
        loss = over_all(apart.sum(), torch.tensor(len(apart), device=apart.device))
        name = "train/kl" if self.fitting.target == "candidates" else "train/loss"
        self.log(name, find_ranks().sum(loss), batch_size=1)
        return loss

    def on_after_backward(self) -> None:
        """Every process has the gradient of its example: their sum is that of all."""
        find_ranks().sum_gradients(self.cascade.parameters())

    def on_train_batch_end(self, outputs: object, batch: CascadeExample, batch_idx: int) -> None:
        """The fit goes on, or ends where the first process says so."""
        self.steps += 1
        self.done = find_ranks().decide(self.share_done())
        if self.done >= 1:
            self.trainer.should_stop = True

    def transfer_batch_to_device(
        self, batch: CascadeExample, device: torch.device, dataloader_idx: int
    ) -> CascadeExample:
        """Examples are on the device already."""
        return batch

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW over what the cascade owns, up and down again as it goes on."""
        trained = [p for p in self.cascade.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=self.fitting.learning_rate, weight_decay=0.01)

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
        batch: CascadeExample,
        batch_idx: int,
    ) -> None:
        """Save when another part of the fit is over."""
        if find_ranks().first and isinstance(pl_module, CascadeModule) and int(pl_module.done * SAVES) > self.saved:
            self.saved = int(pl_module.done * SAVES)
            save_head(self.denoiser.head, self.out)


def driver_of(entry: Mapping[str, Any], denoiser: Denoiser) -> Policy:
    """The policy that an entry names, which must run one canvas a round and draw nothing.

    Raises:
        ValueError: in one sentence.
    """
    policy = policy_of(entry, denoiser)
    needs = policy.needs
    if needs.canvases > 1 or needs.noise or needs.draws or needs.rounds is not None:
        raise ValueError(f"a driver must commit on one canvas a round without draws, got {dict(entry)}")
    return policy


def require_fitting(denoiser: Denoiser, fitting: CascadeFitting) -> None:
    """Refuse more blocks than the base has, and drivers as `driver_of` does; those that read a head can be judged with it alone."""
    if fitting.blocks > len(denoiser.blocks):
        raise ValueError(f"blocks must be at most the base's {len(denoiser.blocks)}, got {fitting.blocks}")
    for entry in fitting.drivers:
        if not find_policy(entry["policy"]).head:
            driver_of(entry, denoiser)


def fit_cascade(
    denoiser: Denoiser,
    tasks: Mapping[str, TaskRun],
    fitting: CascadeFitting,
    out: Path,
    *,
    seed: int,
    asked: str | None = None,
    judged: Callable[[], None] = lambda: None,
) -> str:
    """Fit the cascade of the denoiser's head and save the head with it and `cascade/metrics.json`; returns these as lines.

    Every process of a run leads prompts of its own, so a step is of one example each. A part of the train prompts is held out, and
    says how far the risks that it foretells are to be trusted (`trust`). The head is saved with the defaults of the rule alone:
    `choose_defaults` finds better ones.

    Args:
        denoiser: the base with its head; a cascade of another shape gives way to a new one.
        tasks: which prompts.
        fitting: how long, how large, and which drivers.
        out: folder of the head.
        seed: of prompts and draws.
        asked: what names the run, kept beside the figures for one that goes on.
        judged: called once shape, drivers and prompts are found good, before anything is written.
    """
    torch.manual_seed(seed)
    before = denoiser.head.cascade
    cascade = cascade_of(denoiser, fitting)
    drivers = [driver_of(entry, denoiser) for entry in fitting.drivers]
    denoiser.head.defaults = Defaults(ALONE, CAREFUL, 0)  # until dev prompts have chosen others
    cascade.trusting((1.0,), (1.0,))  # what is saved on the way is not believed
    train = [
        TaskPrompts.of(name, run, "train", fitting.prompts, seed=seed).divided(HELD) for name, run in tasks.items()
    ]
    dev = [TaskPrompts.of(name, judged_by(run, fitting), "dev", None, seed=seed) for name, run in tasks.items()]
    judged()
    if cascade is not before:
        begin(cascade, first_examples(denoiser, [mine for mine, _ in train], drivers, fitting.parts))
    data = CascadeExamples(
        denoiser,
        [mine for mine, _ in train],
        drivers,
        denoiser.head.taps_ahead,
        seed=seed + RANK_STEP * find_ranks().rank,
        parts=fitting.parts,
        positions=-(-fitting.positions // find_ranks().size),
        batch_size=fitting.batch_size,
        depth=fitting.depth,
        whole=fitting.target == "whole",
        ahead=fitting.ahead,
    )
    steps = run_fit(
        denoiser, CascadeModule(cascade, fitting, lambda: data.share), DataLoader(data, batch_size=None), out
    )
    learned = find_ranks().sum(torch.tensor(data.learned)).tolist()
    held = [kept for _, kept in train]
    about = {"steps": steps, "asked": asked}
    said = by_the_first(
        lambda: judge(denoiser, held, dev, drivers, fitting, out, seed=seed, learned=learned, about=about)
    )
    if said is None:
        denoiser.head.cascade = load_cascade(out / CASCADE, denoiser)
    return said or ""


def judged_by(run: TaskRun, fitting: CascadeFitting) -> TaskRun:
    """The run with as many dev prompts as the fitting asks for, where the task draws them."""
    asked = fitting.dev_prompts if run.prompts_file is None else None
    return run if asked is None else replace(run, dev_prompts=asked)


def judge(
    denoiser: Denoiser,
    held: Sequence[TaskPrompts],
    dev: Sequence[TaskPrompts],
    drivers: Sequence[Policy],
    fitting: CascadeFitting,
    out: Path,
    *,
    seed: int,
    learned: Sequence[int],
    about: Mapping[str, Any],
) -> str:
    """Hold a cascade that is fitted against prompts held out, save the head with it and its figures; these as lines.

    Args:
        denoiser, fitting, out, seed: as in `fit_cascade`.
        held, dev: prompts of every task, held out of the fit, and of the dev split.
        drivers: lead through the states.
        learned: positions that each task gave.
        about: steps of the fit, and what names the run.
    """
    how: dict[str, Any] = {"batch_size": fitting.batch_size}
    held_positions = trust(denoiser, held, drivers, fitting.parts, **how)
    save_head(denoiser.head, out)
    found = {one.task: evaluate(denoiser, one, drivers, parts=fitting.parts, **how) for one in dev}
    for name, positions in zip(found, learned, strict=True):
        found[name]["learned"] = positions
    origin = {"fitting": asdict(fitting), "environment": environment(device=denoiser.device, seed=seed)}
    figures = {"tasks": found, **about, "weights": sums(out), "held_positions": held_positions, **origin}
    write_json(out / CASCADE / "metrics.json", figures)
    return "\n".join(line_of(name, one) for name, one in found.items())


def cascade_of(denoiser: Denoiser, fitting: CascadeFitting) -> Cascade:
    """The cascade of the denoiser's head, a new one where it has none of this shape or one is asked for."""
    config = CascadeConfig(
        blocks=fitting.blocks, rank=fitting.rank, alpha=2 * fitting.rank, base=denoiser.fingerprint()
    )
    own = denoiser.head.cascade
    if fitting.anew or own is None or replace(own.config, foretold=(), seen=()) != config:
        denoiser.head.cascade = Cascade(config, denoiser).to(denoiser.device)
    made: Cascade = denoiser.head.cascade
    return made


def run_fit(denoiser: Denoiser, module: CascadeModule, data: DataLoader[CascadeExample], out: Path) -> int:
    """Fit until the module has enough, and say after how many steps that was.

    Args:
        denoiser: the base with its head.
        module: of the cascade that is fitted.
        data: the examples.
        out: folder of the head and of the logs.
    """
    trainer = lightning.Trainer(
        max_epochs=1,
        accelerator="gpu" if denoiser.device.type == "cuda" else "cpu",
        devices=lightning_devices(denoiser.device),
        logger=CSVLogger(out, name="", version="cascade-logs") if find_ranks().first else False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        gradient_clip_val=1.0,
        log_every_n_steps=10,
        callbacks=[Keep(denoiser, out)],
    )
    module.cascade.train()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*(num_workers|LeafSpec|IterableDataset)")
        trainer.fit(module, data)
    module.cascade.to(denoiser.device).eval()
    return trainer.global_step


def line_of(name: str, found: Mapping[str, Any]) -> str:
    """What a task's prompts gave to learn from, and what of the next forward is foretold on unseen ones."""
    explained = worded(found.get("explained"), found.get("open", 0), of="dev positions", digits=2)
    return f"{name}: learned from {found['learned']:,} positions; share of the next forward foretold: {explained}"
