"""Fitting a cascade to the forwards that follow what is committed."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.utils.data import DataLoader

from decoding.policy import Policy
from decoding.provenance import environment, write_json
from models.denoiser import Denoiser
from models.heads.cascade import CASCADE, Cascade, CascadeConfig
from models.heads.scoring_head import save_head
from train.base.schedule import learning_rate_factor
from train.cascade.examples import CascadeExample, CascadeExamples, Prompts, divergence, examples
from train.head.drivers import policy_of
from train.head.metrics import Judged, risk_figures
from train.head.settings import CascadeFitting, TaskRun

SAVES = 4  # times a run saves what it has


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

    def training_step(self, lesson: CascadeExample, batch_idx: int) -> Tensor:
        """KL of the next forward from what the cascade says of it, averaged over positions."""
        loss = divergence(lesson.target, lesson.foretold(self.cascade)).mean()
        self.log("train/kl", loss.detach(), batch_size=1)
        return loss

    def on_train_batch_end(self, outputs: object, batch: CascadeExample, batch_idx: int) -> None:
        """The minutes end."""
        if self.done >= 1:
            self.trainer.should_stop = True

    def transfer_batch_to_device(
        self, batch: CascadeExample, device: torch.device, dataloader_idx: int
    ) -> CascadeExample:
        """Examples are on the device already."""
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
        batch: CascadeExample,
        batch_idx: int,
    ) -> None:
        """Save when another part of the minutes is over."""
        if isinstance(pl_module, CascadeModule) and int(pl_module.done * SAVES) > self.saved:
            self.saved = int(pl_module.done * SAVES)
            save_head(self.denoiser.head, self.out)


@torch.no_grad()
def judge(denoiser: Denoiser, prompts: Prompts, drivers: Sequence[Policy], *, batch_size: int) -> dict[str, Any]:
    """Mean KL of the next forward from the cascade, from the forward before it, and the share of it that the cascade explains.

    The prompts are dealt to the drivers. `changed` is how well the cascade tells the candidates that change (`judged`) on half of
    the prompts, against 1 - c; its skills compare both recalibrated on the other half.
    """
    parts: list[tuple[Tensor, ...]] = []
    for number, policy in enumerate(drivers):
        own = prompts.texts[number :: len(drivers)]
        for low in range(0, len(own), batch_size):
            for one in examples(denoiser, prompts, own[low : low + batch_size], policy, denoiser.head.taps_ahead):
                row = one.prompt.unsqueeze(-1).expand(one.left.shape)[one.left]
                prompt = number + len(drivers) * (low + row)
                parts.append((prompt, *judged(one, denoiser.head.cascade)))
    if not parts:
        return {"positions": 0}
    owner, *columns = (torch.cat(column).double().cpu().numpy() for column in zip(*parts, strict=True))
    kl, kl_without = (float(column.mean()) for column in columns[:2])
    halves = [owner // len(drivers) % 2 == half for half in (0, 1)]
    fitted_on, unseen = (Judged(owner.astype(int), *columns[2:]).where(half) for half in halves)
    both = fitted_on.mixed and unseen.mixed
    return {
        "kl": kl,
        "kl_without": kl_without,
        "skill": 1 - kl / max(kl_without, 1e-12),
        "positions": len(owner),
        **({"changed": risk_figures(fitted_on, unseen.recalibrated(fitted_on))} if both else {}),
    }


def judged(lesson: CascadeExample, cascade: Cascade) -> tuple[Tensor, ...]:
    """Of every position left: both divergences, whether its candidate changes, and the chance of that with and without the cascade.

    A candidate changes where the next forward holds another one, or all others together, for likelier.
    """
    said = lesson.foretold(cascade)
    return (
        divergence(lesson.target, said),
        divergence(lesson.target, lesson.unmoved()),
        lesson.target.argmax(-1) > 0,
        said[:, 1:].logsumexp(-1).exp(),
        lesson.reading.log_risk[lesson.left].exp(),
    )


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


def fit_cascade(
    denoiser: Denoiser, tasks: Mapping[str, TaskRun], fitting: CascadeFitting, out: Path, *, seed: int
) -> str:
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
    drivers = [driver_of(entry, denoiser) for entry in fitting.drivers]
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
    data = CascadeExamples(denoiser, train, drivers, denoiser.head.taps_ahead, batch_size=fitting.batch_size, seed=seed)
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
        f"{name:24s} " + "  ".join(f"{key} {value:.4g}" for key, value in one.items() if key != "changed")
        for name, one in found.items()
    )
