"""Null in the config of a command: for an option that must have a value it is refused by name, however deep it stands."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

import pytest
import yaml

import train
from tests.complaint import complaint
from train.commands.command_line import _parse, run
from train.commands.options.nulls import refuse_nulls

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Part:
    """A group of options."""

    count: int = 3
    share: float | None = None


def command(
    policy: str,
    tasks: dict[str, Part],
    part: Part = Part(),
    count: int = 3,
    share: float = 2.0,
    watch: bool = False,
    kind: Literal["a", "b"] = "a",
    seed: int | None = 4,
    parts: list[Part] | None = None,
    free: dict[str, Any] | None = None,
) -> None:
    """Do nothing."""


SOUND: dict[str, Any] = {"policy": "x", "tasks": {"t": {"count": 2}}}


def config(folder: Path, **changes: Any) -> str:
    (folder / "job.yaml").write_text(yaml.safe_dump({**SOUND, **changes}))
    return str(folder / "job.yaml")


@pytest.mark.parametrize(
    ("changes", "name", "rule"),
    [
        ({"count": None}, "count", "int"),
        ({"share": None}, "share", "float"),
        ({"watch": None}, "watch", "bool"),
        ({"kind": None}, "kind", "Literal['a', 'b']"),
        ({"part": None}, "part", "tests.test_nulls.Part"),
        ({"part": {"count": None}}, "part.count", "int"),
        ({"tasks": {"t": {"count": None}}}, "tasks.t.count", "int"),
        ({"parts": [{"count": 1}, {"count": None}]}, "parts.1.count", "int"),
    ],
)
def test_null_is_refused_by_name(tmp_path, capsys, changes, name, rule):
    said = complaint(capsys, command, "--config", config(tmp_path, **changes))
    assert said == f"command.py: {name} must be {rule}, got null"


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"seed": None},
        {"parts": None},
        {"part": {"share": None}},
        {"tasks": {"t": {"share": None}}},
        {"free": None},
        {"free": {"a": None}},
    ],
)
def test_null_passes_where_it_may_stand(tmp_path, changes):
    run(command, ["--config", config(tmp_path, **changes)])


def commands() -> dict[str, Any]:
    """Every command that is started by `run`: its function, and the config that is read where none is named."""
    found = {}
    here = [*ROOT.glob("*.py"), *Path(train.__path__[0]).rglob("*.py")]
    for file in sorted(here):
        for name, rest in re.findall(r"^    run\(\s*(\w+)(.*?)\)$", file.read_text(encoding="utf-8"), re.S | re.M):
            default = re.search(r'default_config="([^"{]+)"', rest)
            found[name] = (file, None if default is None else default[1])
    return found


COMMANDS = commands()


def function_of(file: Path, name: str) -> Any:
    """The function of a command; train.py lies beside the package of its name."""
    if file.parent != ROOT:
        return getattr(import_module(".".join(file.relative_to(ROOT).with_suffix("").parts)), name)
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location(f"command_{name}", file)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)


def paths(options: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Groups of options, each with the name of every value in it."""
    return [(group, name) for group, values in options.items() if isinstance(values, dict) for name in values]


def test_the_commands_are_found():
    assert {"compare", "calibrate", "generate", "study", "train", "pretrain"} <= COMMANDS.keys()


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_null_for_an_option_of_a_command_is_taken_or_refused_by_name(name):
    function = function_of(COMMANDS[name][0], name)
    parameters = inspect.signature(function).parameters
    refuse_nulls(function, {one.name: one.default for one in parameters.values() if one.default is not one.empty})
    for one in parameters.values():
        if one.default is not None and "None" not in str(one.annotation):
            with pytest.raises(ValueError, match=rf"^{one.name} must be .+, got null$"):
                refuse_nulls(function, {one.name: None})


@pytest.mark.parametrize("name", [name for name in sorted(COMMANDS) if COMMANDS[name][1] is not None])
def test_null_within_a_group_of_options_is_refused_by_its_path(name):
    file, default = COMMANDS[name]
    function = function_of(file, name)
    _, options = _parse(function, [], default_config=default, positional=None)
    groups = [
        (group, field) for group, field in paths(options.as_dict()) if is_dataclass(get_type_hints(function)[group])
    ]
    for group, field in groups:
        hint = get_type_hints(get_type_hints(function)[group])[field]
        if type(None) not in get_args(hint) and hint is not Any:
            changed = vars(options) | {group: {**options.as_dict()[group], field: None}}
            with pytest.raises(ValueError, match=rf"^{group}.{field} must be .+, got null$"):
                refuse_nulls(function, changed)
    assert groups or name != "train"
