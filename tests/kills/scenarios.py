"""What is killed: each command that writes, small enough to end within seconds, and what must be left in the end."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

TASK = "countdown3"
TIMES = {"seconds", "minutes", "commit", "environment", "made_by", "seconds_per_step"}
"""Entries of records that no two runs share."""
UNLIKE = (".png", ".md", "report.html", "resume.ckpt", ".csv", "metrics.json")
"""Files that hold times of the clock, or what a plotted picture holds; whether they are there is compared all the same."""
LOGS = {"log", "logs", "cascade-logs"}


@dataclass(frozen=True)
class Scenario:
    """A command that is killed.

    Attributes:
        name: of the command.
        command: module or script and its arguments, run in a folder of its own; results go to `out`.
        files: path -> content, written into that folder first.
    """

    name: str
    command: tuple[str, ...]
    files: Mapping[str, str]


def scenarios(base: Path, head: Path) -> dict[str, Scenario]:
    """Every scenario by its name.

    Args:
        base: folder of a small base model.
        head: folder of a head for it.
    """
    labelling = {"states_per_prompt": 2, "labelled": 1, "branches": 3, "strata": 1, "finished": 1}
    lengths = {"gen_length": 8, "block_length": 8}
    drivers = {"one": {"policy": "threshold", "threshold": 0.9}}
    arms = [
        {"name": "sequential", "kind": "headless", "policy": "sequential"},
        {"name": "threshold", "kind": "headless", "policy": "threshold", "dial": "threshold", "values": [0.3, 0.9]},
        {"name": "random", "kind": "headless", "policy": "random"},
    ]
    fit_cascade = {"steps": 4, "minutes": 5.0, "prompts": 6, "batch_size": 2, "rank": 2, "positions": 1}
    fit_cascade |= {"drivers": [{"policy": "quota", "steps": 12}]}
    trials = {"screen": 2, "confirm": 3, "bounds": [0.5, 0.1]}
    job: dict[str, Any] = {
        "tasks": {TASK: {"prompts": 24, "dev_prompts": 4, **lengths}},
        "beam": {"branches": 2}, "drivers": drivers, "relabel": {}, "labelling": labelling,
        "fitting": {"variants": ["linear", "lora"], "epochs": 1, "width": 16, "rank": 2, "batch_size": 8},
        "cascade": fit_cascade, "trials": trials, "catalogue": arms[:2], "num_prompts": 4, "num_dev": 2, "batch_size": 2,
        "model": str(base), "device": "cpu", "dtype": "float32", "out": "out",
    }  # fmt: skip
    second = {"tasks": {TASK: {"prompts": 6, "dev_prompts": 2, **lengths}}, "fitting": fit_cascade, "trials": trials}
    second |= {"model": str(base), "head": str(head), "device": "cpu", "dtype": "float32", "out": "out"}
    fit = {"tokens_per_step": 256, "warmup": 0.0, "decay": 0.5, "seed": 3}
    shape = {"layers": 1, "width": 16, "heads": 2, "mlp_width": 24, "max_positions": 64}
    pretrain = {"tasks": {TASK: {"share": 1.0, "rows": 64}}, "tokenizer": str(base), "shape": shape, "fit": fit}
    pretrain |= {"max_steps": 4, "validate_minutes": 1e-9, "dev_rows": 8, "max_shard_size": 8000, "out": "out"}
    pretrain |= {"cache": "cache", "points": [0.5]}
    compare = {"catalogue": arms, "task": TASK, "num_prompts": 6, "num_dev": 4, "batch_size": 3, "model": str(base)}
    compare |= {"device": "cpu", "out": "out", "gen_length": 8, "block_length": 8}
    prompts = "".join(json.dumps({"id": f"p{n}", "prompt": f"{n},2,3,{n + 5}"}) + "\n" for n in range(1, 13))
    known = [
        Scenario("train", ("train.py", "--config", "job.yaml"), {"job.yaml": yaml.safe_dump(job)}),
        Scenario("cascade", ("train.cascade", "--config", "job.yaml"), {"job.yaml": yaml.safe_dump(second)}),
        Scenario("pretrain", ("train.pretrain", "--config", "job.yaml"), {"job.yaml": yaml.safe_dump(pretrain)}),
        Scenario("compare", ("compare.py", "--config", "job.yaml"), {"job.yaml": yaml.safe_dump(compare)}),
        Scenario("calibrate", (
            "calibrate.py", "--policy", "threshold", "--task", TASK, "--model", str(base), "--num_prompts", "12",
            "--gen_length", "8", "--block_length", "8", "--batch_size", "3", "--max_loss", "0.7", "--confidence", "0.6",
            "--values", "0.9,0.5,0.3", "--device", "cpu", "--out", "out"), {}),
        Scenario("generate", (
            "generate.py", "--prompts", "p.jsonl", "--policy", "threshold", "--threshold", "0.3", "--model", str(base),
            "--gen_length", "8", "--batch_size", "2", "--device", "cpu", "--out", "out/answers.jsonl"), {"p.jsonl": prompts}),
    ]  # fmt: skip
    return {one.name: one for one in known}


def facts(folder: Path) -> dict[str, Any]:
    """What a run has left in `out`, without what depends on the clock; files that are only of a run in progress by their names."""
    found: dict[str, Any] = {}
    for file in sorted((folder / "out").rglob("*")):
        name = file.relative_to(folder / "out").as_posix()
        if file.is_file() and not LOGS & {*file.parts} and not file.name.startswith("events.out"):
            found[name] = content(file, name)
    return found


def content(file: Path, name: str) -> Any:
    """A file's content as it is compared."""
    if any(part in name for part in UNLIKE):
        return None
    if file.suffix == ".parquet":
        from pyarrow.parquet import read_table

        return digest(json.dumps(read_table(file).to_pylist(), sort_keys=True, default=str).encode())
    if file.suffix == ".jsonl":
        rows = [without_times(json.loads(line)) for line in file.read_text(encoding="utf-8").splitlines()]
        return [rows[0], *sorted(rows[1:], key=lambda row: json.dumps(row, sort_keys=True))] if rows else []
    if file.suffix == ".json":
        return without_times(json.loads(file.read_text(encoding="utf-8")))
    if file.suffix == ".yaml":
        return yaml.safe_load(file.read_text(encoding="utf-8"))
    return digest(file.read_bytes())


def without_times(value: Any) -> Any:
    """A record without the entries of TIMES, however deep."""
    if isinstance(value, dict):
        return {name: without_times(one) for name, one in value.items() if name not in TIMES}
    return [without_times(one) for one in value] if isinstance(value, list) else value


def digest(data: bytes) -> str:
    """Short name of some bytes."""
    return hashlib.blake2b(data, digest_size=12).hexdigest()


def differences(whole: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """What a run that was killed and went on has lost, doubled or mixed against one that was not; [] where nothing."""
    said = [f"lost {name}" for name in whole if name not in found]
    said += [f"left over {name}" for name in found if name not in whole]
    for name in whole.keys() & found.keys():
        if whole[name] == found[name]:
            continue
        if not isinstance(whole[name], list):
            said.append(f"other content in {name}")
            continue
        mine, theirs = ([json.dumps(row, sort_keys=True) for row in rows] for rows in (found[name], whole[name]))
        twice = len(mine) - len(set(mine))
        lost, foreign = len(set(theirs) - set(mine)), len(set(mine) - set(theirs))
        said.append(f"{name}: {lost} lines lost, {twice} doubled, {foreign} others")
    return said
