"""Scoring heads: traces behind the frozen base, the fit of every variant, its metrics on unseen prompts, and what is saved."""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger

from decoding.features import NAMES
from decoding.provenance import environment, write_json
from decoding.traces.trace import check_drift, load_table
from models.denoiser import Denoiser
from models.devices import lightning_devices
from models.heads.scoring_head import ScoringHead, save_head
from models.ranks import alone, by_the_first, find_ranks
from train.defaults.evidence import summary
from train.head.conflict_metrics import collect_conflicts, conflict_figures
from train.head.data import HeadData, columns
from train.head.metrics import choice_figures, collect_choices, collect_risk, risk_figures
from train.head.module import HeadModule, KeepBest, PreparedBatches
from train.head.settings import VARIANTS, Fitting, Recipe

log = logging.getLogger(__name__)

JUDGED = 64  # train batches that recalibrate what the pairs are compared with


@dataclass(frozen=True)
class Data:
    """Batches behind the frozen trunk, the prompt of every state, and the task of every train batch.

    Attributes:
        train: what heads are fitted on.
        held: a tenth of the train prompts, which chooses among the weights of a fit; dev prompts judge, and choose nothing.
        dev: task -> unseen prompts.
        train_prompts, dev_prompts: the prompt of each state.
        train_task: the task of each train batch.
        held_prompts: the prompt of each state held out, numbered over all tasks.
    """

    train: PreparedBatches
    held: PreparedBatches
    dev: dict[str, PreparedBatches]
    train_prompts: list[int]
    dev_prompts: dict[str, list[int]]
    train_task: list[str]
    held_prompts: list[int] = field(default_factory=list)


def prepare(denoiser: Denoiser, folders: Sequence[Path], fitting: Fitting, *, threshold: float, seed: int) -> Data:
    """Read traces and put them behind the trunk; splits are by prompt, made at collection.

    Args:
        denoiser, folders: the frozen base, and the traces, one folder a task.
        fitting: batch size, memory and variants.
        threshold, seed: confidence that counts as crossed, in (0, 1); of the order of the batches.
    """
    rows = [row for folder in folders for row in load_table(folder, denoiser)]
    check_drift(denoiser, rows)
    width = max((len(columns(r["branches"])) for r in rows), default=0)
    taps = taps_of(denoiser, fitting)

    def ready(rows: list[dict[str, Any]], shuffle: bool) -> PreparedBatches:
        data = HeadData(rows, denoiser.mask_id, denoiser.eos_id, threshold, max(1, width))
        generator = torch.Generator().manual_seed(seed) if shuffle else None
        batches = list(data.batches(fitting.batch_size, generator=generator))
        return PreparedBatches(denoiser, batches, taps=taps, threshold=threshold, gigabytes=fitting.gigabytes)

    tasks = sorted({r["task"] for r in rows})
    seen = {t: [r for r in rows if r["split"] == "train" and r["task"] == t] for t in tasks}
    held_ids = {t: held_out(sorted({r["prompt_id"] for r in task_rows})) for t, task_rows in seen.items()}
    train = [r for t, task_rows in seen.items() for r in task_rows if r["prompt_id"] not in held_ids[t]]
    held = [r for t, task_rows in seen.items() for r in task_rows if r["prompt_id"] in held_ids[t]]
    shuffled = ready(train, True)
    dev = {t: [r for r in rows if r["split"] == "dev" and r["task"] == t] for t in tasks}
    return Data(
        train=shuffled,
        held=ready(held, False),
        dev={t: ready(task_rows, False) for t, task_rows in dev.items()},
        train_prompts=[r["prompt_id"] for r in train],
        dev_prompts={t: [r["prompt_id"] for r in task_rows] for t, task_rows in dev.items()},
        train_task=[train[int(b.state_index[0])]["task"] for b in shuffled.batches],
        held_prompts=[tasks.index(r["task"]) + len(tasks) * r["prompt_id"] for r in held],
    )


def held_out(prompts: Sequence[int]) -> set[int]:
    """The last tenth of the prompts, at least one where another is left to fit on."""
    return set(prompts[len(prompts) - max(len(prompts) // 10, len(prompts) > 1) :])


def taps_of(denoiser: Denoiser, fitting: Fitting) -> tuple[int, ...]:
    """Base blocks that any of the variants reads."""
    configs = [fitting.config(VARIANTS[name], ()) for name in fitting.variants]
    blocks = max((config.blocks for config in configs if config.reads_hidden), default=0)
    layers = len(denoiser.blocks) if blocks else 0
    if blocks > layers:
        raise ValueError(f"blocks must be at most the base's {layers}, got {blocks}")
    return tuple(range(layers - blocks, layers))


def fit_head(
    denoiser: Denoiser, data: Data, recipe: Recipe, fitting: Fitting, *, seed: int, threshold: float, logs: Path | None
) -> ScoringHead:
    """Fit one head.

    Args:
        denoiser, data: the frozen base, and batches behind its trunk.
        recipe, fitting: the variant; sizes and objective.
        seed, threshold: of weights and order; of the head's own plan, in (0, 1).
        logs: folder of the logs, or None.
    """
    lightning.seed_everything(seed, verbose=False)
    config = fitting.config(recipe, NAMES, threshold=threshold)
    fingerprint = denoiser.fingerprint()
    target = recipe.target or fitting.objective.target
    config = replace(config, base=fingerprint if config.reads_hidden else "", fitted_on=fingerprint, target=target)
    head = ScoringHead(config, denoiser).to(denoiser.device)
    first = [data.train[i] for i in range(min(8, len(data.train)))]
    head.normalise_by(torch.cat([one.features[one.reading.rows] for one in first]))
    find_ranks().equalise_fitted(head)
    train, held = data.train.of_this_process(), data.held.of_this_process()
    if recipe.shuffled:  # the held labels as well, or they would pick the weights
        train, held = train.with_shuffled_labels(seed), held.with_shuffled_labels(seed)
    trainer = make_trainer(denoiser, fitting, logs, KeepBest([held[i] for i in range(len(held))]))
    objective = replace(fitting.objective, target=target, conflict=fitting.conflict(recipe))
    trainer.fit(HeadModule(head, objective), train.loader(seed=seed))
    return head.to(denoiser.device).eval()


def make_trainer(denoiser: Denoiser, fitting: Fitting, logs: Path | None, checkpoint: KeepBest) -> lightning.Trainer:
    """One device a process, no checkpoints (a head is fitted in minutes and saved by us), CSV and TensorBoard logs.

    Args:
        denoiser, fitting: say where to run, and for how many epochs.
        logs, checkpoint: folder of the logs, or None; keeps the weights that do best.
    """
    loggers: list[Logger] = []
    if logs is not None and find_ranks().first:
        loggers = [CSVLogger(str(logs), name="", version="")]
        with contextlib.suppress(ModuleNotFoundError):  # no TensorBoard here
            loggers.append(TensorBoardLogger(str(logs), name="", version=""))
    return lightning.Trainer(
        max_epochs=fitting.epochs,
        accelerator="gpu" if denoiser.device.type == "cuda" else "cpu",
        devices=lightning_devices(denoiser.device),
        logger=loggers,
        callbacks=[checkpoint],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        gradient_clip_val=1.0,
        log_every_n_steps=10,
    )


def figures(head: ScoringHead, data: Data) -> dict[str, Any]:
    """Metrics of a head on the dev prompts of every task."""
    out: dict[str, Any] = {}
    for task, batches in data.dev.items():
        prepared = [batches[i] for i in range(len(batches))]
        prompts = data.dev_prompts[task]
        unseen = collect_risk(head, prepared, prompts)
        train_batches = [data.train[i] for i, of in enumerate(data.train_task) if of == task]
        seen_risk = collect_risk(head, train_batches, data.train_prompts) if train_batches else None
        risk = {"positions": 0} if seen_risk is None else risk_figures(seen_risk, unseen)
        out[task] = {"risk": risk, "choice": choice_figures(collect_choices(head, prepared, prompts))}
        if head.config.pairs:
            seen = collect_conflicts(head, train_batches[:JUDGED], data.train_prompts)
            out[task]["conflict"] = conflict_figures(seen, collect_conflicts(head, prepared, prompts))
    return out


def fit(
    denoiser: Denoiser,
    data: Data,
    fitting: Fitting,
    out: Path,
    *,
    threshold: float,
    seed: int,
    about: Mapping[str, Any] | None = None,
) -> dict[str, ScoringHead]:
    """Fit every variant and seed, save them, and write metrics.json, `about` in it; returns the first seed of each variant.

    Args:
        denoiser, data: the frozen base, and batches behind its trunk.
        fitting, out: variants, seeds and sizes; folder of the heads.
        threshold, seed: of the heads' own plan, in (0, 1); of the first fit.
        about: written into metrics.json.
    """
    heads: dict[str, ScoringHead] = {}
    metrics: dict[str, list[dict[str, Any]]] = {}
    for number in range(fitting.seeds):  # seed by seed, so that a run that is cut off has every variant
        for name in fitting.variants:
            logs = out / "logs" / f"{name}-{number}"
            by_the_first(lambda: shutil.rmtree(logs, ignore_errors=True))  # noqa: B023  (of the same fit, done before)
            head = fit_head(denoiser, data, VARIANTS[name], fitting, seed=seed + number, threshold=threshold, logs=logs)
            heads.setdefault(name, head)
            if not find_ranks().first:
                continue
            with alone():
                metrics.setdefault(name, []).append(figures(head, data))
            log.info("head %s, seed %d, on dev prompts\n%s", name, seed + number, summary(metrics[name][-1]))
            first = name == fitting.variants[0] and number == 0
            save_head(head, out if first else out / "variants" / f"{name}-{number}")
            metrics_file = {**(about or {}), "variants": metrics, "train_states": len(data.train_prompts)}
            write_json(
                out / "metrics.json", metrics_file | {"environment": environment(device=denoiser.device, seed=seed)}
            )
    return heads
