"""The stages of a recipe as command lines: what each command of the project is told, judged before the first of them runs."""

from __future__ import annotations

import runpy
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from models.complaints import shown
from train.commands.command_line import parser_of, shipped
from train.commands.options.seeds import check_seeds
from train.tasks.hub import HUB

STAGES = ("train", "calibrate", "compare", "lm_eval")
FOLDERS = {"train": "head", "calibrate": "calibration", "compare": "comparison", "lm_eval": "lm-eval"}
OWN = ("model", "head", "adapter", "device", "dtype", "out")
"""What the recipe itself says to every stage."""


@dataclass(frozen=True)
class Base:
    """What all stages share.

    Args:
        model: checkpoint folder or hub id.
        adapter: folder of a PEFT LoRA adapter, or None.
        device: where to run, or None.
        dtype: of the weights, or None.
        out: folder of the recipe.
    """

    model: str
    adapter: str | None
    device: str | None
    dtype: str | None
    out: Path

    def folder(self, stage: str) -> Path:
        """Where a stage leaves its results."""
        return self.out / FOLDERS[stage]

    def options(self, stage: str, section: Mapping[str, Any]) -> dict[str, Any]:
        """All options of a stage that reads a config: those of its section, and what all share."""
        shared = {"model": self.model, "adapter": self.adapter, "device": self.device, "dtype": self.dtype}
        shared |= {"head": str(self.folder("train"))} if stage != "train" else {}
        known = {name: value for name, value in shared.items() if value is not None}
        return {**section, **known, "out": str(self.folder(stage))}


def with_comparison(train: Mapping[str, Any], compare: Mapping[str, Any]) -> dict[str, Any]:
    """The first stage with the arms and prompts of the comparison for those of its own, which its estimate counts."""
    return {**train, **{name: compare[name] for name in ("catalogue", "num_prompts", "num_dev") if name in compare}}


def judge(base: Base, sections: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse what a later stage would refuse of its own options, before the first one takes its hours.

    Args:
        base: of the recipe.
        sections: stage -> its options.

    Raises:
        ValueError: naming the stage.
    """
    for stage, section in sections.items():
        wrong = next((name for name in OWN if name in section), None)
        if wrong is not None:
            raise ValueError(f"{stage} must leave {wrong} to the recipe, got {shown(section[wrong])}")
        file = section.get("prompts")
        if file not in (None, HUB) and not Path(str(file)).is_file():
            raise ValueError(f"prompts of {stage} must be a file or {HUB}, got {file}")
        if stage == "lm_eval":
            judge_lm_eval(section)
            continue
        command = runpy.run_path(str(shipped(f"{stage}.py")), run_name="judged")[stage]
        try:
            parser = parser_of(command)
            options = parser.parse_object(base.options(stage, section))
            check_seeds(options)
            parser.instantiate(options)
        except Exception as error:  # whatever jsonargparse makes of a wrong value
            raise ValueError(f"{stage} must hold options of {stage}.py, got: {' '.join(str(error).split())}") from error


def judge_lm_eval(section: Mapping[str, Any]) -> None:
    """Refuse a section that the harness could not run."""
    if not isinstance(section.get("tasks"), str):
        raise ValueError(f"tasks of lm_eval must be names with commas between them, got {shown(section.get('tasks'))}")
    if not isinstance(section.get("model_args", {}), Mapping):
        raise ValueError(f"model_args of lm_eval must be names with values, got {shown(section['model_args'])}")
    if find_spec("lm_eval") is None:
        raise ValueError('lm_eval must be installed for its stage (pip install "fewer-rounds[eval]"), got none')


def arguments_of(base: Base, stage: str, section: Mapping[str, Any], config: Path) -> list[str]:
    """The command line of a stage, without the script.

    Args:
        base: of the recipe.
        stage: one of STAGES.
        section: its options.
        config: file that holds them, of a stage that reads one.
    """
    if stage != "lm_eval":
        return [stage, "--config", str(config)]
    folder = base.folder(stage)
    model = {"pretrained": base.model, "adapter": base.adapter, "dtype": base.dtype, "device": base.device}
    model |= {"head": str(base.folder("train")), "save_dir": str(folder / "samples"), **section.get("model_args", {})}
    spelled = ",".join(f"{name}={value}" for name, value in model.items() if value is not None)
    given = ["lm-eval", "--model_args", spelled, "--output_path", str(folder)]
    for name, value in section.items():
        if name != "model_args" and value is not False:
            given += [f"--{name}", *([] if value is True else [str(value)])]
    return given


def run_stage(base: Base, stage: str, section: Mapping[str, Any]) -> None:
    """Write the config of a stage and run its command.

    Args:
        base: of the recipe.
        stage: one of STAGES.
        section: its options.

    Raises:
        SystemExit: with the status of a command that did not end well; it has said why.
    """
    from decoding.provenance import write_text

    with tempfile.TemporaryDirectory() as aside:  # an estimate leaves nothing behind
        config = (Path(aside) if section.get("estimate") else base.out) / f"{stage}.yaml"
        if stage != "lm_eval":
            write_text(config, yaml.safe_dump(base.options(stage, section), sort_keys=False))
        status = start(arguments_of(base, stage, section, config))
    if status:
        raise SystemExit(status)


def start(arguments: Sequence[str]) -> int:
    """Run one command of the project in a process of its own, which gives its memory back; returns its exit status."""
    script = Path(__file__).resolve().parents[2] / "fewer_rounds.py"
    return subprocess.run([sys.executable, str(script), *arguments], check=False).returncode
