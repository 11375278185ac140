"""Every YAML under configs/ is read by the command that its first lines name."""

import importlib
import importlib.util
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from train.commands.command_line import parser_of

ROOT = Path(__file__).parents[1]
CONFIGS = sorted((ROOT / "configs").rglob("*.y*ml"))


def command_of(config: Path) -> tuple[Callable[..., object], list[Path]]:
    """What is behind `python train.py --config PATH` or `python -m train.pretrain --config PATH` in the comments on top.

    Returns the command's function, and the configs that it reads: the last adds to those that it names before.
    """
    path = config.relative_to(ROOT).as_posix()
    named = rf"^# .*python (?:-m ([\w.]+)|(\w+)\.py) ((?:--config \S+ )*)--config {re.escape(path)}\b"
    found = re.search(named, config.read_text(), re.M)
    assert found, f"{path} must name its command in a comment, with --config {path}"
    read = [*(ROOT / one for one in found[3].split()[1::2]), config]
    if found[1]:
        place = f"{found[1]}.__main__" if (ROOT / found[1].replace(".", "/")).is_dir() else found[1]
        module = importlib.import_module(place)
        return getattr(module, found[1].rpartition(".")[2]), read
    spec = importlib.util.spec_from_file_location(f"{found[2]}_command", ROOT / f"{found[2]}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, found[2]), read


def test_there_are_configs():
    assert CONFIGS


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_config_parses_with_its_command(config):
    command, read = command_of(config)
    parser = parser_of(command)
    parser.instantiate(parser.parse_args([part for one in read for part in ("--config", str(one))]))


GRIDS = [path for path in CONFIGS if path.parent.name == "compare" and path.stem != "parity"]


@pytest.mark.parametrize("config", GRIDS, ids=lambda path: path.name)
def test_arms_of_a_threshold_share_one_with_the_plain_threshold(config):
    """Verdicts hold an arm against `threshold` at the same C; with no C in common they would be silent."""
    read = yaml.safe_load(config.read_text())
    tasks = read["task"].split(",")
    arms = {arm["name"]: arm for arm in read["catalogue"] if arm.get("dial") == "threshold"}

    def grid(arm, task):
        return set(arm.get("values_for", {}).get(task, arm["values"]))

    for name, arm in arms.items():
        for task in tasks:
            assert grid(arm, task) & grid(arms["threshold"], task), f"{name} on {task}"
