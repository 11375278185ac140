"""The Lightning module that fits a base model: one step, two optimisers, averaged weights."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import lightning
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import LlamaForCausalLM

from models.ranks import find_ranks
from train.base.diffusion_loss import Weighting, denoising_loss, mask_canvas, mask_rates
from train.base.muon import StackedMuon
from train.base.rows import Batch, TaskData, draw_task
from train.base.schedule import learning_rate_factor, progress
from train.base.settings import Fit

logger = logging.getLogger(__name__)

CompileMode = Literal["off", "static", "dynamic"]


def canvas_loss(
    hidden: Float[Tensor, "B C D"],
    head: Float[Tensor, "V D"],
    canvas: Int[Tensor, "B C"],
    masked: Bool[Tensor, "B C"],
    rates: Float[Tensor, " B"],
    weighting: Weighting,
    certainty: float = 0.0,
) -> Float[Tensor, ""]:
    """Apply the head to the canvas rows alone and take the loss.

    Args:
        hidden: of the canvas positions.
        head: the LM head's matrix.
        canvas: the right tokens.
        masked: positions the loss is taken over.
        rates: mask rate of each row, in (0, 1].
        weighting: of a row by its rate.
        certainty: weight of the entropy of tokens that are right already.
    """
    return denoising_loss(nn.functional.linear(hidden, head), canvas, masked, rates, weighting, certainty)


class BaseModelFit(lightning.LightningModule):
    """Masked-diffusion training of a native Llama model on device-resident rows."""

    def __init__(
        self,
        model: LlamaForCausalLM,
        data: Sequence[TaskData],
        fit: Fit,
        *,
        mask_id: int,
        max_steps: int | None = None,
        max_minutes: float | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        """Take the parts; weights stay float32, see `embed` for what runs in bfloat16. `settings` go into the checkpoint."""
        super().__init__()
        progress(step=0, minutes=0.0, max_steps=max_steps, max_minutes=max_minutes)
        if any(one.rows_for(fit.tokens_per_step) < find_ranks().size for one in data):
            raise ValueError(f"tokens_per_step must hold a row for each process, got {fit.tokens_per_step}")
        self.model, self.data, self.fit_settings, self.mask_id = model, data, fit, mask_id
        self.max_steps, self.max_minutes, self.settings = max_steps, max_minutes, settings
        self.automatic_optimization = False
        self.steps_done = self.skipped = 0
        self.minutes_before = 0.0
        self.started: float | None = None
        self.averages = [p.detach().clone() for p in model.parameters()] if fit.ema_decay else []
        self.loss_of_canvas = canvas_loss
        self.source: torch.Generator | None = None

    @property
    def minutes(self) -> float:
        """Training minutes so far, earlier commands of a resumed run included."""
        return self.minutes_before + (0.0 if self.started is None else (time.monotonic() - self.started) / 60)

    @property
    def progress(self) -> float:
        """Fraction of the run that is over."""
        return progress(
            step=self.steps_done, minutes=self.minutes, max_steps=self.max_steps, max_minutes=self.max_minutes
        )

    def compile_parts(self, mode: CompileMode) -> None:
        """Compile each block, the final norm and the loss; one graph serves all blocks of a shape."""
        if mode == "off":
            return
        torch._dynamo.config.recompile_limit = 256
        dynamic = None if mode == "dynamic" else False
        for layer in self.model.model.layers:
            layer.compile(dynamic=dynamic)
        self.model.model.norm.compile(dynamic=dynamic)
        self.loss_of_canvas = torch.compile(canvas_loss, dynamic=dynamic)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """Muon for the matrices of the blocks, fused AdamW for the rest."""
        matrices = [p for p in self.model.model.layers.parameters() if p.ndim == 2]
        chosen = {id(p) for p in matrices}
        others = [p for p in self.model.parameters() if id(p) not in chosen]
        fit = self.fit_settings
        adam = torch.optim.AdamW(others, lr=fit.adam_lr, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
        return [StackedMuon(matrices, lr=fit.muon_lr, momentum=fit.momentum, weight_decay=fit.weight_decay), adam]

    def hidden_states(self, tokens: Int[Tensor, "B L"], padding: Int[Tensor, " B"] | None) -> Float[Tensor, "B L D"]:
        """Run the blocks with bidirectional attention; padded keys are hidden.

        The mask is handed over as ``[B, 1, 1, L]`` (bool, scaled-dot-product attention): a 2-D mask would be
        inspected on the host, which waits for the device at every step.

        Args:
            tokens: ``[B, L]``.
            padding: ``[B]`` padded columns on the left, or None.

        Returns:
            ``[B, L, D]`` after the final norm; rows of padded positions mean nothing.
        """
        columns = torch.arange(tokens.shape[1], device=tokens.device)
        embedded = self.model.model.embed_tokens(tokens)
        if torch.is_autocast_enabled(tokens.device.type):
            embedded = embedded.to(torch.get_autocast_dtype(tokens.device.type))  # keeps the residual stream narrow
        mask, positions = None, columns[None]
        if padding is not None:
            mask = (columns >= padding[:, None])[:, None, None]
            positions = (columns - padding[:, None]).clamp(min=0)
        output = self.model.model(inputs_embeds=embedded, attention_mask=mask, position_ids=positions)
        hidden: Tensor = output.last_hidden_state
        return hidden

    def loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Mask the canvas of a batch and take the denoising loss; of several processes the part of each, which add up to it."""
        canvas = batch.tokens[:, -batch.canvas :]
        device, fit = canvas.device, self.fit_settings
        uniforms = torch.rand(len(canvas), generator=generator, device=device)
        rates = mask_rates(uniforms, floor=1 / batch.canvas, schedule=fit.mask_schedule)
        coins = torch.rand(canvas.shape, generator=generator, device=device)
        noisy, masked = mask_canvas(canvas, rates, coins, mask_id=self.mask_id)
        tokens, padding = torch.cat([batch.tokens[:, : -batch.canvas], noisy], dim=1), batch.padding
        part: float | Tensor = 1.0
        if (ranks := find_ranks()).size > 1:  # all draw the whole batch, and each takes its rows
            mine = slice(ranks.rank, None, ranks.size)
            by_row = fit.weighting == "inverse"
            part = len(canvas[mine]) / len(canvas) if by_row else masked[mine].sum() / masked.sum().clamp(min=1)
            tokens, canvas, masked, rates = tokens[mine], canvas[mine], masked[mine], rates[mine]
            padding = None if padding is None else padding[mine]
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
            hidden = self.hidden_states(tokens, padding)[:, -batch.canvas :]
            how = (fit.weighting, fit.certainty)
            loss: Tensor = self.loss_of_canvas(hidden, self.model.lm_head.weight, canvas, masked, rates, *how)
        return part * loss

    def generator_at(self, step: int) -> torch.Generator:
        """Seed the generator for a step: a batch depends on the run's seed and the step alone."""
        if self.source is None:
            self.source = torch.Generator(self.model.device)
        return self.source.manual_seed(self.fit_settings.seed * 1_000_003 + step)

    def rehearse(self) -> None:
        """Run every shape once, forward and backward, without a step: compiling stays outside the run's minutes."""
        for data in self.data:
            generator = self.generator_at(-1 - self.fit_settings.seed * 1_000_003)
            batch = data.draw(data.rows_for(self.fit_settings.tokens_per_step), generator)
            torch.autograd.backward(self.loss(batch, generator))
        self.model.zero_grad(set_to_none=True)

    def on_train_start(self) -> None:
        """Compile by rehearsal, then start the clock."""
        self.averages = [a.to(self.model.device) for a in self.averages]
        find_ranks().equalise([*self.model.parameters(), *self.averages])
        began = time.monotonic()
        self.rehearse()
        if self.model.device.type == "cuda":
            torch.cuda.synchronize(self.model.device)
        self.started = time.monotonic()
        logger.info("every shape was run once in %.1f s, not counted", self.started - began)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Take one step on rows of one task."""
        fit, step = self.fit_settings, self.steps_done
        ranks = find_ranks()
        factor = learning_rate_factor(ranks.decide(self.progress), warmup=fit.warmup, decay=fit.decay)
        data = self.data[draw_task(step, [d.share for d in self.data], seed=fit.seed)]
        generator = self.generator_at(step)
        loss = self.loss(data.draw(data.rows_for(fit.tokens_per_step), generator), generator)
        self.manual_backward(loss)
        ranks.sum_gradients(self.model.parameters())
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), fit.clip, foreach=True)
        finite = bool(torch.isfinite(norm))  # one bad batch must not end the run
        self.skipped += not finite
        optimisers: Any = self.optimizers(use_pl_optimizer=False)
        for optimiser, rate in zip(optimisers, (fit.muon_lr, fit.adam_lr), strict=True):
            for group in optimiser.param_groups:
                group["lr"] = rate * factor
            if finite:
                optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        self.steps_done += 1
        self.average()
        return ranks.sum(loss)

    @torch.no_grad()
    def average(self) -> None:
        """Move the averaged weights towards the raw ones; the mean is short while the run is young."""
        if self.averages:
            decay = min(self.fit_settings.ema_decay, (1 + self.steps_done) / (10 + self.steps_done))
            torch._foreach_lerp_(self.averages, [p.detach() for p in self.model.parameters()], 1 - decay)

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Put the averaged weights in place, and the raw ones back afterwards."""
        parameters = [p.detach() for p in self.model.parameters()]
        raw = [p.clone() for p in parameters]
        if self.averages:
            torch._foreach_copy_(parameters, self.averages)
        try:
            yield
        finally:
            torch._foreach_copy_(parameters, raw)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what an exact resume needs; batches need the step alone."""
        done = {"steps": self.steps_done, "minutes": self.minutes, "settings": self.settings}
        checkpoint["base_model_fit"] = {**done, "averages": self.averages}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take it back."""
        state = checkpoint["base_model_fit"]
        self.steps_done, self.minutes_before, self.averages = state["steps"], state["minutes"], state["averages"]
