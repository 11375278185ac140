"""What surrounds the steps of a base-model run: validation, export, checkpoint and the clean stop."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor

from decoding.files.aside import written_aside
from models.ranks import find_ranks
from train.base.base_model import BaseModelFit
from train.base.diffusion_loss import mask_canvas
from train.base.export import export
from train.base.rows import TaskData
from train.commands.interruption import StopGently, interruptible

logger = logging.getLogger(__name__)

RATES = (0.25, 0.5, 0.75)
CHECKPOINT = "resume.ckpt"


@torch.no_grad()
def validate(module: BaseModelFit, data: TaskData) -> dict[str, float]:
    """Measure one task at fixed mask rates with fixed masks.

    Args:
        module: the run; its weights in place are measured.
        data: development rows.

    Returns:
        Cross-entropy on masked positions (mean over the rates) and the share of right top tokens at each rate.
    """
    batch = data.take(len(data.tokens))
    canvas, device = batch.tokens[:, -batch.canvas :], batch.tokens.device
    entropies: list[Tensor] = []
    metrics: dict[str, Tensor] = {}
    for rate in RATES:
        coins = torch.rand(canvas.shape, generator=torch.Generator(device).manual_seed(0), device=device)
        rates = torch.full((len(canvas),), rate, device=device)
        noisy, masked = mask_canvas(canvas, rates, coins, mask_id=module.mask_id)
        tokens = torch.cat([batch.tokens[:, : -batch.canvas], noisy], dim=1)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
            hidden = module.hidden_states(tokens, batch.padding)[:, -batch.canvas :]
            logits = module.model.lm_head(hidden)[masked].float()
        entropies.append(torch.nn.functional.cross_entropy(logits, canvas[masked]))
        metrics[f"{data.name}/right_at_{rate}"] = (logits.argmax(-1) == canvas[masked]).float().mean()
    metrics[f"{data.name}/entropy"] = torch.stack(entropies).mean()
    return {key: round(float(value), 5) for key, value in metrics.items()}


class ValidateAndExport(lightning.Callback):
    """Validates and exports every few minutes, and stops the run when it is over, its time is up or a signal asks for it."""

    def __init__(
        self,
        out: Path,
        dev: Sequence[TaskData],
        *,
        tokenizer: Path,
        eos_id: int,
        validate_minutes: float,
        stop_after_minutes: float | None = None,
        stop_after_steps: int | None = None,
        log_every: int = 50,
        max_shard_size: int | None = None,
        points: Sequence[float] = (),
    ) -> None:
        """Take places and times; `stop_after_*` count this command alone, `points` are fractions of the whole run."""
        self.out, self.dev, self.tokenizer, self.eos_id = out, dev, tokenizer, eos_id
        self.validate_minutes, self.stop_after_minutes = validate_minutes, stop_after_minutes
        self.stop_after_steps, self.log_every = stop_after_steps, log_every
        self.max_shard_size, self.points = max_shard_size, sorted(points)
        self.points_kept = 0
        self.stop = StopGently()
        self._signals = contextlib.ExitStack()
        self.first_minutes = self.last_minutes = 0.0
        self.first_step = 0

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Note where this command starts."""
        module = _run(pl_module)
        self.first_minutes = self.last_minutes = module.minutes
        self.first_step = module.steps_done
        self.points_kept = sum(point <= module.progress for point in self.points)
        self._signals.enter_context(interruptible(self.stop.handle))  # in place of Lightning's own
        logger.info("step %d: %.2f minutes done before this command", module.steps_done, module.minutes)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log, keep and stop when each is due."""
        module = _run(pl_module)
        if module.steps_done % self.log_every == 0:
            self._log_step(module, outputs)
        ranks = find_ranks()
        over = ranks.decide(module.progress >= 1 or self._time_is_up(module) or self.stop.asked)
        if ranks.first:
            self._keep_points(module)
            if over or module.minutes - self.last_minutes >= self.validate_minutes:
                self.keep(trainer, module)
                self.last_minutes = module.minutes
        if over:
            trainer.should_stop = True

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Signals end the command at once again."""
        self._signals.close()

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        """The same where the run breaks off."""
        self._signals.close()

    def keep(self, trainer: lightning.Trainer, module: BaseModelFit) -> None:
        """Validate and export the averaged weights, and write the checkpoint to resume from."""
        metrics: dict[str, float] = {}
        with module.averaged(), torch.compiler.set_stance("force_eager"):
            for data in self.dev:
                metrics |= validate(module, data)
            self._export(module, self.out)
        with written_aside(self.out / CHECKPOINT) as aside:
            trainer.save_checkpoint(aside)
        self._write(module, metrics)
        shown = " ".join(f"{key}={value:.4f}" for key, value in metrics.items() if "right_at_0.5" in key)
        logger.info(
            "step %d, %.2f minutes, progress %.3f: %s", module.steps_done, module.minutes, module.progress, shown
        )

    def _keep_points(self, module: BaseModelFit) -> None:
        """Export the averaged weights to `point-1`, `point-2`, ... as the run passes each point."""
        while self.points_kept < len(self.points) and module.progress >= self.points[self.points_kept]:
            self.points_kept += 1
            with module.averaged():
                self._export(module, self.out / f"point-{self.points_kept}")
            logger.info("point %d kept at step %d", self.points_kept, module.steps_done)

    def _export(self, module: BaseModelFit, folder: Path) -> None:
        export(
            module.model,
            folder,
            tokenizer=self.tokenizer,
            mask_id=module.mask_id,
            eos_id=self.eos_id,
            max_shard_size=self.max_shard_size,
        )

    def _time_is_up(self, module: BaseModelFit) -> bool:
        by_time = self.stop_after_minutes is not None and module.minutes - self.first_minutes >= self.stop_after_minutes
        by_step = self.stop_after_steps is not None and module.steps_done - self.first_step >= self.stop_after_steps
        return by_time or by_step

    def _log_step(self, module: BaseModelFit, outputs: Any) -> None:
        loss = outputs["loss"] if isinstance(outputs, dict) else outputs
        metrics = {"loss": float(loss), "seconds_per_step": 60 * module.minutes / module.steps_done}
        self._write(module, metrics)
        if module.steps_done % (20 * self.log_every) == 0:
            logger.info(
                "step %d: loss %.4f, %.4f s a step, %d skipped", module.steps_done, *metrics.values(), module.skipped
            )

    def _write(self, module: BaseModelFit, metrics: dict[str, float]) -> None:
        row = metrics | {"minutes": module.minutes, "progress": module.progress}
        for sink in module.loggers:
            sink.log_metrics(row, step=module.steps_done)
            sink.save()


def _run(module: lightning.LightningModule) -> BaseModelFit:
    if not isinstance(module, BaseModelFit):
        raise TypeError(f"ValidateAndExport keeps a BaseModelFit, got {type(module).__name__}")
    return module
