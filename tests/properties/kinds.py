"""Every kind of file that is read, as a sound one and the reader that a user's call goes through."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import models
from decoding.api import generate
from decoding.calls.request import resolve
from decoding.comparison.arms import Cell
from decoding.comparison.calibration import Calibration, Conditions
from decoding.comparison.records.format import read_rows as read_rows_of
from decoding.comparison.records.format import write_rows
from decoding.comparison.records.ledger import COLUMNS, Ledger
from decoding.comparison.replay.table import ANSWER, COUNTED, OutcomeTable, StoredCell
from decoding.policies.threshold import Threshold
from decoding.traces.header import check_header
from decoding.traces.trace import load_table, rebuild, write_part
from models.toys.convolutional import load_convolutional
from tests.properties.bases import (
    GOLDEN,
    PROMPT,
    SHIPPED,
    TASK,
    decode,
    load_base,
    load_ids,
    make_adapter,
    make_base,
    make_head,
    make_open_base,
    make_prompts,
    read_prompts,
)
from train.base.going_on import progress_of
from train.base.rows import TaskRows, load_task
from train.commands.answering.lines import lines_of
from train.commands.command_line import shipped
from train.commands.raw_arguments import check_config
from train.defaults.model_card import losses
from train.harness.journal import Journal
from train.head.estimate import _earlier_cut
from train.head.stages import fitted

BOUNDS = {"max_steps": 9, "max_minutes": None}
HEADER = {"task": "x", "model": "abc", "seed": 0}
CELL = Cell("sequential", "sequential", None, {})


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        name: of the kind.
        folder: what lies beside it, all sound.
        file: its path within the folder.
        read: what a user's call makes of the folder.
        sealed: whether a checksum covers it, so that every change is refused.
        same: whether a reading that is not refused must be that of the sound file.
        text: whether it is text.
    """

    name: str
    folder: Path
    file: str
    read: Callable[[Path], Any]
    sealed: bool = False
    same: bool = False
    text: bool = False


def make_ledger(folder: Path) -> Path:
    """Figures of five prompts."""
    table = np.arange(5 * len(COLUMNS), dtype=float).reshape(5, -1)
    table[:, 0] %= 2  # right or not
    Ledger(folder / "x.jsonl", HEADER, sizes={"dev": 5}).add("dev", CELL, range(5), table)
    return folder


def read_ledger(folder: Path) -> Any:
    """Every figure that a comparison would go on with."""
    kept = Ledger(folder / "x.jsonl", HEADER, sizes={"dev": 5}).lines
    values = [value for rows in kept.values() for row in rows.values() for value in row]
    assert np.isfinite(np.array(values, dtype=float)).all()
    return kept


def make_traces(folder: Path, base: Path) -> Path:
    """A table of two states."""
    denoiser = models.load(base, device="cpu")
    facts = {"base": denoiser.fingerprint(), "task": "t", "chunk": 2, "prompts": {"train": [2, "x"]}, "seed": 0}
    check_header(folder, facts)
    branch = {
        "position": 1, "kind": 0, "propensity": 0.5, "log_confidence": -0.5, "eq7": 0.1, "token": [3, -1], "log_risk": [-1.0, 0.0],
        "harm": 0, "benefit": 1, "answer": [3, 4],
    }  # fmt: skip
    row = {
        "state_id": "a", "split": "train", "task": "t", "driver": "d", "tokens": [2, 1, 1], "reference": [3, 4],
        "unique_answer": True, "committed_round": [0, 0], "recent_confidence": [0.0] * 4, "recent_token": [-1] * 4,
        "opened": 1, "spent": 0, "round": 1, "block_length": 2, "asked": [True, False], "branches": [branch],
    }  # fmt: skip
    write_part([{**row, "prompt_id": number} for number in range(2)], folder / "part-train-00000.parquet")
    return folder


def read_traces(folder: Path, base: Path) -> Any:
    """The states that a head would be fitted on."""
    table = load_table(folder, models.load(base, device="cpu"))
    rows = [dict(row) for row in table]
    state, _ = rebuild(rows, mask_id=1, eos_id=0)
    return rows, state.tokens.tolist()


def make_calibration(folder: Path, base: Path) -> Path:
    """A promise about `threshold`."""
    folder.mkdir()
    denoiser = models.load(base, device="cpu")
    request = resolve("threshold", {"threshold": 0.6, "gen_length": 8, "block_length": 4})
    found = Calibration(
        policy="threshold", settings={}, dial="threshold", chosen=0.6, bound=0.1, loss="flip", max_loss=0.5, confidence=0.9,
        task="x", prompts="abc", n=4, checked=True, tested=[{"value": 0.6, "loss": 0.0, "bound": 0.1, "rounds": 2.0}],
        conditions=Conditions.of(denoiser, Threshold(0.6), request, denoiser.end_ids),
    )  # fmt: skip
    (folder / "calibration.json").write_text(json.dumps(found.record({}), indent=1))
    return folder


def read_calibration(folder: Path, base: Path) -> Any:
    """A decode that must be the calibrated one."""
    denoiser = models.load(base, device="cpu")
    made = generate(denoiser, [PROMPT], calibrated=folder / "calibration.json")
    return made.text


def make_bulk(folder: Path) -> Path:
    """Two answers of `generate.py --out`."""
    folder.mkdir()
    line = {
        "id": 1, "sample": 0, "prompt": "a", "text": "b", "rounds": 2, "sequence_forwards": 2, "token_positions": 9, "looks": 0,
        "drafts": 0, "drafts_true": 0, "tokens": 4, "seconds": 0.1, "seed": 0, "settings": {"batch_size": 2, "seed": 0},
    }  # fmt: skip
    (folder / "a.jsonl").write_text("".join(json.dumps({**line, "id": n}) + "\n" for n in range(3)))
    return folder


def make_records(folder: Path) -> Path:
    """Small records that a resumed run reads: a budget, a journal, a config, a log."""
    folder.mkdir()
    asked = {"asked": {"x": [4, 2]}, "hours": 1.0}
    (folder / "budget.json").write_text(json.dumps({**asked, "cut": {"x": [2, 1]}}))
    journal = Journal(str(folder), 0, {"model": "abc"})
    journal.add("k", {"text": "t", "loglikelihood": -1.0})
    journal.add("l", {"text": "u", "loglikelihood": -2.0})
    shutil.copy(shipped("configs/train/head.yaml"), folder / "head.yaml")
    rows = ["epoch,step,train/loss", *(f"0,{step},{1 / (step + 1)}" for step in range(5))]
    (folder / "metrics.csv").write_text("\n".join(rows) + "\n")
    (folder / "fitted.json").write_text(json.dumps({"asked": "another"}))
    return folder


def make_rows(folder: Path) -> Path:
    """Encoded rows in the cache of `python -m train.pretrain`."""
    read_rows(folder)
    (entry,) = folder.glob("*.npy")
    entry.rename(folder / "rows.npy")
    (folder / "name").write_text(entry.name)
    return folder


def read_rows(folder: Path) -> Any:
    """The rows of a small task."""
    name = folder / "name"
    if name.is_file():
        shutil.copy(folder / "rows.npy", folder / name.read_text())
    spec = TaskRows(1.0, 8)
    data = load_task("countdown3", spec, SHIPPED, split="train", seed=0, cache=folder, device=torch.device("cpu"))
    return data.tokens.tolist()


def make_resume(folder: Path) -> Path:
    """What a run of `train.pretrain` goes on from."""
    folder.mkdir()
    state = {"weights": {"a": torch.arange(64.0)}, "base_model_fit": {"steps": 3, "minutes": 0.5, "settings": BOUNDS}}
    torch.save(state, folder / "resume.ckpt")
    return folder


def make_outcomes(folder: Path) -> Path:
    """A stored table of outcomes and the texts of a comparison."""
    cells = tuple(StoredCell("threshold", "headless", "threshold", "threshold", value, {}) for value in (0.9, 0.5))
    columns = {name: np.arange(8, dtype=np.int32).reshape(2, 4) for name in (*COUNTED, ANSWER)}
    OutcomeTable(TASK, cells, columns, {"prompts": "abc"}).save(folder / "t.npz")
    write_rows(folder / "texts.jsonl.gz", [{"task": TASK, "cell": "a", "prompt_id": n, "text": "x"} for n in range(4)])
    return folder


def read_outcomes(folder: Path) -> Any:
    """What a choice of a dial is replayed from."""
    table = OutcomeTable.load(folder / "t.npz")
    return table.prompts, table.arms, [table.columns[name].tolist() for name in sorted(table.columns)]


def read_convolutional(folder: Path) -> Any:
    """A decode with the toy of convolutions."""
    return decode(load_convolutional(folder, device="cpu"))


def every_kind(root: Path, write_tiny: Callable[..., Path]) -> dict[str, Kind]:
    """Make the sound files and say how each is read.

    Args:
        root: an empty folder.
        write_tiny: the fixture.
    """
    base = make_base(root / "base", write_tiny)
    opened = make_open_base(root / "open", base)
    heads = {variant: make_head(root / f"head-{variant}", base, variant) for variant in ("linear", "lora")}
    adapter, prompts = make_adapter(root / "adapter", base), make_prompts(root / "prompts")
    ledger, traces = make_ledger(root / "ledger"), make_traces(root / "traces", base)
    calibration, bulk = make_calibration(root / "calibration", base), make_bulk(root / "bulk")
    records, rows, resume = make_records(root / "records"), make_rows(root / "rows"), make_resume(root / "resume")
    outcomes = make_outcomes(root / "outcomes")
    toy = shutil.copytree(shipped("checkpoints/multiplication-convolutional"), root / "toy")
    dream = shutil.copytree(GOLDEN / "dream", root / "dream")

    def with_head(folder: Path) -> Any:
        return decode(models.load(base, head=folder, device="cpu"), policy="learned")

    def with_adapter(folder: Path) -> Any:
        return decode(models.load(base, adapter=folder, device="cpu"))

    def budget(folder: Path) -> Any:
        return _earlier_cut(folder / "budget.json", {"asked": {"x": [4, 2]}, "hours": 1.0})

    kinds = [
        *(Kind(f"base/{name}", base, name, load_base, sealed=True, text=name.endswith("json"))
          for name in ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json")),
        Kind("base/checksums.json", base, "checksums.json", load_base, same=True, text=True),
        *(Kind(f"open/{name}", opened, name, load_base, text=name.endswith("json")) for name in (
            "model-00001-of-00002.safetensors", "model.safetensors.index.json", "config.json", "tokenizer.json",
            "tokenizer_config.json", "generation_config.json")),
        Kind("dream/config.json", dream, "config.json", load_ids, text=True),
        *(Kind(f"lora/{name}", heads["lora"], name, with_head, sealed=True, text=name.endswith("json")) for name in (
            "head.safetensors", "adapter_model.safetensors", "adapter_config.json", "cascade/cascade.safetensors",
            "cascade/adapter_model.safetensors")),
        Kind("lora/checksums.json", heads["lora"], "checksums.json", with_head, same=True, text=True),
        Kind("linear/head.safetensors", heads["linear"], "head.safetensors", with_head, sealed=True),
        Kind("linear/defaults.json", heads["linear"], "defaults.json", with_head, sealed=True, text=True),
        Kind("adapter/adapter_config.json", adapter, "adapter_config.json", with_adapter, text=True),
        Kind("adapter/adapter_model.safetensors", adapter, "adapter_model.safetensors", with_adapter),
        Kind("toy/model.safetensors", toy, "model.safetensors", read_convolutional, sealed=True),
        Kind("toy/config.json", toy, "config.json", read_convolutional, sealed=True, text=True),
        *(Kind(f"prompts/{name}/{task}", prompts, name, lambda folder, n=name, t=task: read_prompts(folder / n, t),
               text=not name.endswith("gz"))
          for name, task in (("p.jsonl", None), ("p.jsonl", "countdown3"), ("p.txt", None), ("p.txt", "countdown3"),
                             ("p.jsonl.gz", None), ("c.jsonl", None), ("g.jsonl", "gsm8k"))),
        Kind("ledger", ledger, "x.jsonl", read_ledger, text=True),
        Kind("traces/header", traces, "header.json", lambda folder: read_traces(folder, base), text=True),
        Kind("traces/part", traces, "part-train-00000.parquet", lambda folder: read_traces(folder, base), same=True),
        Kind("calibration", calibration, "calibration.json", lambda folder: read_calibration(folder, base), text=True),
        Kind("bulk", bulk, "a.jsonl", lambda folder: lines_of(folder / "a.jsonl"), text=True),
        Kind("budget", records, "budget.json", budget, text=True),
        Kind("journal", records, "samples-0.jsonl", lambda f: Journal(str(f), 0, {"model": "abc"}).known, text=True),
        Kind("config", records, "head.yaml", lambda folder: check_config(folder / "head.yaml"), text=True),
        Kind("log", records, "metrics.csv", lambda folder: losses(folder / "metrics.csv"), text=True),
        Kind("fitted", records, "fitted.json", lambda folder: fitted(folder, "this", models.load(base, device="cpu")), text=True),
        Kind("outcomes", outcomes, "t.npz", read_outcomes),
        Kind("texts", outcomes, "texts.jsonl.gz", lambda folder: list(read_rows_of(folder / "texts.jsonl.gz"))),
        Kind("rows", rows, "rows.npy", read_rows),
        Kind("resume", resume, "resume.ckpt",
             lambda folder: progress_of(folder / "resume.ckpt", BOUNDS)),
    ]  # fmt: skip
    return {kind.name: kind for kind in kinds}
