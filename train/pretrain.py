"""Fit the small masked-diffusion base model: ``python -m train.pretrain --config configs/train/base.yaml``."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from transformers import AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerBase

from decoding.files.folder_lock import hold_folder
from models.complaints import shown
from models.devices import find_device, lightning_devices
from models.ranks import find_ranks, the_first_before
from train.base.base_model import BaseModelFit, CompileMode
from train.base.export import load_weights
from train.base.going_on import progress_of, settings_of
from train.base.rows import TaskData, TaskRows, load_task
from train.base.schedule import progress, require_bounds
from train.base.settings import Fit, ModelShape
from train.base.tokenizer import EOS, load
from train.base.validation import CHECKPOINT, ValidateAndExport
from train.commands.command_line import keep_options
from train.tasks import get
from train.tasks.renumbered.gsm8k_renumbered import RenumberedTask

logger = logging.getLogger(__name__)

BASE_SHAPE, BASE_FIT = ModelShape(), Fit()
MASK_TOKENS = ("<|mdm_mask|>", "<|mask|>")


class Steps:
    """An endless stream of nothing: the module draws its own rows by step number."""

    def __iter__(self) -> Iterator[int]:
        """Yield zeros."""
        while True:
            yield 0

    def state_dict(self) -> dict[str, int]:
        """Return nothing: the step number is kept by the module."""
        return {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Take nothing back."""


def pretrain(
    *,
    tasks: dict[str, TaskRows],
    out: Path,
    tokenizer: Path,
    shape: ModelShape = BASE_SHAPE,
    fit: Fit = BASE_FIT,
    max_minutes: float | None = None,
    max_steps: int | None = None,
    stop_after_minutes: float | None = None,
    stop_after_steps: int | None = None,
    validate_minutes: float = 2.0,
    dev_rows: int = 256,
    cache: Path = Path(".cache/rows"),
    compile: CompileMode = "static",
    init: Path | None = None,
    max_shard_size: int | None = None,
    points: tuple[float, ...] = (),
) -> Path:
    """Fit a base model on generated tasks and save it in the LLaDA layout.

    A call that is repeated goes on exactly where it was cut off, and does nothing where the run is over.

    Args:
        tasks: what to take from each task.
        out: folder of the run: the checkpoint, the log and `resume.ckpt`; the command adds `pretrain.yaml`.
        tokenizer: folder with the tokenizer files.
        shape: size of the model.
        fit: batch, learning rates, loss and averaging.
        max_minutes: training minutes of the whole run, data preparation and compiling not counted.
        max_steps: steps of the whole run.
        stop_after_minutes: stop this command cleanly after so many of its minutes.
        stop_after_steps: the same by steps.
        validate_minutes: minutes between validations, each with an export.
        dev_rows: development rows of each task.
        cache: folder of generated rows.
        compile: `static` compiles one graph for each task width, `dynamic` one for all, `off` none; off on a CPU.
        init: folder of a LLaDA checkpoint whose weights the run starts from.
        max_shard_size: the most bytes of a weight file; by default there is one.
        points: fractions of the run, in (0, 1], after which the weights are also kept, in `point-1`, `point-2`, ... of `out`.

    Returns:
        The folder of the run.

    Raises:
        ValueError: for a setting out of range, a `tokenizer` that is no folder, or an `out` that holds a run of other settings
            or a broken `resume.ckpt`, or that another process writes to.
    """
    refuse_call(tasks, tokenizer, points)
    bounds: dict[str, Any] = {"max_steps": max_steps, "max_minutes": max_minutes}
    progress(step=0, minutes=0.0, **bounds)
    minutes = {"validate_minutes": validate_minutes, "stop_after_minutes": stop_after_minutes}
    counts = {"stop_after_steps": stop_after_steps, "dev_rows": dev_rows, "max_shard_size": max_shard_size}
    require_bounds(minutes, counts)
    settings = settings_of(tasks, tokenizer, shape, fit, init=init, points=points, **bounds)
    begun = progress_of(out / CHECKPOINT, settings)
    if begun == 1:
        logger.info("the run in %s is over: nothing is left to do", out)
        return out
    lightning.seed_everything(fit.seed, verbose=False)
    torch.set_float32_matmul_precision("high")
    device = find_device(None)
    words = AutoTokenizer.from_pretrained(tokenizer)
    rows: dict[str, Any] = {"dev_rows": dev_rows, "seed": fit.seed, "cache": cache, "device": device}
    train_data, dev_data = the_first_before(lambda: load_data(tasks, tokenizer, **rows))
    model = LlamaForCausalLM(shape.config(vocabulary=len(words), eos_id=words.eos_token_id))
    if init is not None and begun is None:
        load_weights(model, init)
    module = BaseModelFit(model, train_data, fit, mask_id=find_mask_id(words), settings=settings, **bounds)
    module.compile_parts(compile if device.type == "cuda" else "off")
    validation = ValidateAndExport(
        out,
        dev_data,
        tokenizer=tokenizer,
        eos_id=words.eos_token_id,
        validate_minutes=validate_minutes,
        stop_after_minutes=stop_after_minutes,
        stop_after_steps=stop_after_steps,
        max_shard_size=max_shard_size,
        points=points,
    )
    keep_options()
    with hold_folder(out):
        trainer = make_trainer(out, validation, device)
        begins = None if begun is None else str(out / CHECKPOINT)
        trainer.fit(module, train_dataloaders=Steps(), ckpt_path=begins, weights_only=True)
    validation.stop.raise_if_asked()
    return out


def refuse_call(tasks: Mapping[str, TaskRows], tokenizer: Path, points: Sequence[float]) -> None:
    """Refuse points outside (0, 1], a tokenizer without its file, and a run without tasks, before any row is made."""
    if not all(0 < point <= 1 for point in points):
        raise ValueError(f"points must lie in (0, 1], got {points}")
    if not (tokenizer / "tokenizer.json").is_file():
        raise ValueError(f"tokenizer must be a folder with its files, got {shown(str(tokenizer))}")
    if not tasks:
        raise ValueError("tasks must name at least one task, got none")


def load_data(
    tasks: dict[str, TaskRows],
    tokenizer: Path,
    *,
    dev_rows: int,
    seed: int,
    cache: Path,
    device: torch.device,
) -> tuple[list[TaskData], list[TaskData]]:
    """Place training and development rows of every task on the device.

    Args:
        tasks: task -> what the run takes from it.
        tokenizer: its folder.
        dev_rows: of a task.
        seed: of the rows.
        cache: folder of encoded rows.
        device: where they live.
    """
    train_data, dev_data = [], []
    end = load(tokenizer).get_vocab()[EOS]
    for name, spec in tasks.items():
        train_data.append(load_task(name, spec, tokenizer, split="train", seed=seed, cache=cache, device=device))
        files = spec.files if isinstance(get(name), RenumberedTask) else ()
        small = dataclasses.replace(spec, rows=dev_rows, files=files, symmetric=False, narrow=None)
        dev_data.append(load_task(name, small, tokenizer, split="dev", seed=seed, cache=cache, device=device))
        shown = train_data[-1]
        if spec.narrow is not None:
            train_data.append(shown.cut(spec.narrow, eos_id=end))
            logger.info("%s: of these %d in %d columns", name, *train_data[-1].tokens.shape)
        padded = "no" if shown.padding is None else "with"
        logger.info("%s: %d rows of %d tokens, %s padding", name, *shown.tokens.shape, padded)
    return train_data, dev_data


def find_mask_id(words: PreTrainedTokenizerBase) -> int:
    """Find the id of the mask token.

    Raises:
        ValueError: if the tokenizer has none.
    """
    if words.mask_token_id is not None:
        return int(words.mask_token_id)
    vocabulary = words.get_vocab()
    for name in MASK_TOKENS:
        if name in vocabulary:
            return vocabulary[name]
    raise ValueError(f"the tokenizer must have a mask token or one of {MASK_TOKENS}, got neither")


def make_trainer(out: Path, validation: ValidateAndExport, device: torch.device) -> lightning.Trainer:
    """Build a trainer that only runs steps; `ValidateAndExport` decides when to keep and when to stop."""
    if not find_ranks().first:
        return trainer_on(device, [], validation)
    table = CSVLogger(out, name="log")  # a new version for each command: a resumed run keeps the earlier tables
    loggers: list[Logger] = [table]
    try:
        loggers.append(TensorBoardLogger(out, name="log", version=table.version))
    except ModuleNotFoundError:
        logger.info("no TensorBoard here: metrics go to the CSV file alone")
    return trainer_on(device, loggers, validation)


def trainer_on(device: torch.device, loggers: list[Logger], validation: ValidateAndExport) -> lightning.Trainer:
    """The trainer of one process, on one device; the module adds up what several processes find."""
    return lightning.Trainer(
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=lightning_devices(device),
        max_epochs=-1,
        logger=loggers,
        callbacks=[validation],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )


def main() -> None:
    """Read the command line and run."""
    from train.commands.command_line import run

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    run(pretrain, kept="{out} holds the last weights that were kept, if any: the same command goes on from there")


if __name__ == "__main__":
    main()
