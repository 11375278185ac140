"""Fitting a scoring head: what a step computes, and nothing else."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import lightning
import torch
from jaxtyping import Bool, Float
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from decoding.features import features
from decoding.policies.rules import confident
from decoding.reading import Reading
from decoding.traces.branches import predict
from models.denoiser import Denoiser
from models.heads.scoring_head import Scores, ScoringHead
from models.ranks import find_ranks
from train.head.data import HeadBatch
from train.head.loss import conflict_loss, floored, huber_gain_loss, listwise_loss, risk_loss
from train.head.settings import Objective


@dataclass(frozen=True)
class Prepared:
    """A batch after the frozen trunk: what every head variant is fitted on; `wrong` and `known` are the risk labels."""

    batch: HeadBatch
    reading: Reading
    features: Float[Tensor, "S L F"]
    wrong: Float[Tensor, "S L"]
    known: Bool[Tensor, "S L"]

    def scored_by(self, head: ScoringHead) -> Scores:
        """What a head says of every candidate."""
        scores: Scores = head(self.features, self.reading.rows, self.reading.token, self.reading.taps)
        return scores

    def shuffled(self, generator: torch.Generator) -> Prepared:
        """The control: the same labels, dealt to other positions and branches of the batch."""

        def deal(value: Tensor, where: Tensor) -> Tensor:
            held = value[where]
            order = torch.randperm(len(held), generator=generator).to(held.device)
            return value.masked_scatter(where, held[order])

        gain, wrong = deal(self.batch.gain, self.batch.valid), deal(self.wrong, self.known)
        changed = deal(self.batch.changed, self.batch.changed >= 0)
        return replace(self, batch=replace(self.batch, gain=gain, changed=changed), wrong=wrong)


def risk_labels(batch: HeadBatch, reading: Reading) -> tuple[Float[Tensor, "S L"], Bool[Tensor, "S L"]]:
    """Whether committing a candidate is wrong, and where that is known.

    Unique answers: the candidate is not the reference, known in states without a wrong token: what follows an error is lost
    whatever is committed, and its confident wrong tokens would teach that confidence means nothing. Elsewhere: a forced finish
    was judged harmful.
    """
    committed = (batch.reference >= 0) & ~batch.state.masked
    clean = ((batch.state.tokens == batch.reference) | ~committed).all(-1, keepdim=True)
    differs = (reading.token != batch.reference).float()
    unique = batch.unique[:, None]
    wrong = torch.where(unique, differs, batch.harm.clamp(min=0).float())
    known = torch.where(unique, clean & (batch.reference >= 0), batch.harm >= 0)
    return wrong, known & reading.rows


def conflict_labels(batch: HeadBatch, reading: Reading) -> tuple[Float[Tensor, "S K L"], Bool[Tensor, "S K L"]]:
    """Whether a branch changes the candidate at j, and where that is known.

    y_kj = [candidate at j after the branch is not v_j], for every j that is masked with and without the branch and whose candidate
    v_j what is committed in any case leaves as it is: else the change would not be the branch's own.
    """
    stays = (batch.alone == reading.token) & reading.rows
    return (batch.changed > 0).float(), (batch.changed >= 0) & stays.unsqueeze(1)


def of_branches(value: Float[Tensor, "S L L"], batch: HeadBatch) -> Float[Tensor, "S K L"]:
    """The rows of a pairwise figure that belong to the positions of the branches."""
    position = batch.position.clamp(min=0).unsqueeze(-1)
    return value.gather(1, position.expand(-1, -1, value.shape[-1]))


def worth(prepared: Prepared, harm_weight: float) -> tuple[Float[Tensor, "S K"], Bool[Tensor, "S K"]]:
    """s(j) - harm_weight * harm(j) of every branch j, s being Eq. 7 with its floor, and the branches whose harm is known.

    Harm is the label of the risk: the branch commits a wrong token, or was judged harmful.
    """
    position = prepared.batch.position.clamp(min=0)
    known = prepared.known.gather(1, position) & prepared.batch.valid
    score = floored(prepared.batch.eq7, prepared.batch.valid)
    return score - harm_weight * prepared.wrong.gather(1, position), known


class PreparedBatches(Dataset[Prepared]):
    """Batches behind the trunk, kept in memory up to a budget and recomputed beyond it.

    Args:
        denoiser: the frozen base.
        batches: the batches.
        taps: base blocks that any of the heads reads.
        threshold: confidence from which a position counts as about to be committed.
        gigabytes: memory for kept batches.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        batches: Sequence[HeadBatch],
        *,
        taps: tuple[int, ...],
        threshold: float,
        gigabytes: float = 4.0,
    ) -> None:
        self.denoiser, self.batches, self.taps = denoiser, batches, taps
        self.threshold, self.budget = threshold, gigabytes * 1e9
        self.kept: dict[int, Prepared] = {}
        self.sizes: dict[int, int] = {}  # bytes of what is kept, shared as that is
        self.shuffle_seed: int | None = None

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> Prepared:
        prepared = self._prepared(index)
        if self.shuffle_seed is None:
            return prepared
        return prepared.shuffled(torch.Generator().manual_seed(self.shuffle_seed * 100_003 + index))

    def with_shuffled_labels(self, seed: int) -> PreparedBatches:
        """The same batches, sharing what is kept, with labels dealt to other positions."""
        control = copy.copy(self)
        control.shuffle_seed = seed
        return control

    def of_this_process(self) -> PreparedBatches:
        """This process's states of every batch; all of them where it runs alone."""
        ranks = find_ranks()
        if ranks.size == 1:
            return self
        mine = [batch.of_rank(ranks) for batch in self.batches]
        how: dict[str, Any] = {"taps": self.taps, "threshold": self.threshold, "gigabytes": self.budget / 1e9}
        return PreparedBatches(self.denoiser, mine, **how)

    def _prepared(self, index: int) -> Prepared:
        if index in self.kept:
            return self.kept[index]
        prepared = self.prepare(self.batches[index].to(self.denoiser.device))
        size = prepared.features.nbytes + sum(
            t.hidden.nbytes + t.keys.nbytes + t.values.nbytes for t in prepared.reading.taps
        )
        if size + sum(self.sizes.values()) <= self.budget:
            self.kept[index], self.sizes[index] = prepared, size
        return prepared

    @torch.no_grad()
    def prepare(self, batch: HeadBatch) -> Prepared:
        """Run the trunk on a batch."""
        reading = predict(self.denoiser, batch.state.tokens, batch.state.feasible, batch.attention_mask, taps=self.taps)
        exploit = confident(reading, self.threshold)
        return Prepared(batch, reading, features(batch.state, reading, exploit), *risk_labels(batch, reading))

    def loader(self, *, seed: int | None) -> DataLoader[Prepared]:
        """The batches in order, or shuffled anew each epoch from a seed."""
        if seed is None:
            return DataLoader(self, batch_size=None)
        generator = torch.Generator().manual_seed(seed)
        return DataLoader(self, batch_size=None, shuffle=True, generator=generator)


class HeadModule(lightning.LightningModule):
    """Steps and optimiser of a scoring head; the base is frozen and no part of the checkpoint."""

    def __init__(self, head: ScoringHead, objective: Objective) -> None:
        super().__init__()
        self.head = head
        self.objective = objective

    def losses(self, prepared: Prepared) -> dict[str, Tensor]:
        """The weighted parts of the loss and their sum."""
        aim, batch = self.objective, prepared.batch
        scores = prepared.scored_by(self.head)
        of_branch = scores.gain.gather(1, batch.position.clamp(min=0))
        if aim.target == "gain":
            listwise = listwise_loss(of_branch, batch.gain, batch.valid, temperature=aim.temperature)
            huber = huber_gain_loss(of_branch, batch.gain, batch.valid)
        else:
            if aim.target == "eq7":
                valid = batch.beam & batch.valid
                wanted = floored(batch.eq7, valid)
            else:
                wanted, valid = worth(prepared, aim.harm_weight)
            listwise = listwise_loss(of_branch, wanted, valid, temperature=aim.temperature)
            huber = torch.zeros_like(listwise)
        risk = risk_loss(scores.risk_logit, prepared.wrong, prepared.known, focus=aim.focus)
        parts = {"listwise": aim.gain * listwise, "huber": aim.huber * huber, "risk": aim.risk * risk}
        loss = parts["listwise"] + parts["huber"] + parts["risk"]
        if aim.conflict and scores.conflicts is not None:
            logit = of_branches(scores.conflicts.logit, batch)
            parts["conflict"] = aim.conflict * conflict_loss(logit, *conflict_labels(batch, prepared.reading))
            loss = loss + parts["conflict"]
        return {**parts, "loss": loss}

    def training_step(self, prepared: Prepared, batch_idx: int) -> Tensor:
        """One batch."""
        losses = self.losses(prepared)
        whole = find_ranks().sum(torch.stack(list(losses.values()))).unbind()
        self.log_dict({f"train/{k}": v for k, v in zip(losses, whole, strict=True)}, batch_size=1)
        return losses["loss"]

    def on_after_backward(self) -> None:
        """Every process has the gradient of its states: their sum is that of the batch."""
        find_ranks().sum_gradients(self.head.parameters())

    @torch.no_grad()
    def mean_loss(self, batches: Sequence[Prepared]) -> float:
        """Loss over whole batches, each counted once, without dropout."""
        self.head.eval()
        total = torch.tensor(sum(float(self.losses(one)["loss"]) for one in batches), dtype=torch.float64)
        self.head.train()
        return float(find_ranks().sum(total)) / max(1, len(batches))

    def transfer_batch_to_device(self, batch: Prepared, device: torch.device, dataloader_idx: int) -> Prepared:
        """Batches are on the device already."""
        return batch

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW over what the head owns, warm-up then cosine."""
        aim = self.objective
        trained = [p for p in self.head.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=aim.learning_rate, weight_decay=aim.weight_decay)
        steps = int(self.trainer.estimated_stepping_batches)

        def factor(step: int) -> float:
            if step < aim.warm_up:
                return (step + 1) / (aim.warm_up + 1)
            part = (step - aim.warm_up) / max(1, steps - aim.warm_up)
            return 0.5 * (1 + float(torch.cos(torch.tensor(3.14159265 * min(1.0, part)))))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class KeepBest(lightning.Callback):
    """Ends a fit with the weights that did best on prompts held back; those before the first step are a candidate too."""

    def __init__(self, held: Sequence[Prepared]) -> None:
        self.held = held
        self.best = float("inf")
        self.weights: dict[str, Tensor] = {}

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """The untrained head, which is the confidence itself."""
        self.consider(pl_module)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """After every pass over the traces."""
        pl_module.log("held/loss", self.consider(pl_module))

    def on_fit_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Put the best weights back."""
        pl_module.load_state_dict(self.weights, strict=False)

    def consider(self, module: lightning.LightningModule) -> float:
        """Measure, and keep a copy of what is fitted if it is the best so far."""
        if not isinstance(module, HeadModule):
            raise TypeError(f"KeepBest serves a HeadModule, got {type(module).__name__}")
        loss = module.mean_loss(self.held)
        if loss < self.best:
            self.best = loss
            self.weights = {n: p.detach().clone() for n, p in module.named_parameters() if p.requires_grad}
        return loss
