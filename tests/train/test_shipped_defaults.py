"""A command finds what ships wherever it is called from."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

import pytest

import models
from train.cascade.__main__ import cascade
from train.commands.command_line import shipped
from train.commands.folders import HEAD, MODEL
from train.head_defaults import head_defaults

COMMANDS = ("accuracy", "cascade.__main__", "compact", "head_cost", "head_defaults", "head_risk", "real_size")


class Loaded(Exception):
    """A model was asked for."""


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """What `models.load` is asked for, in a folder without checkpoints."""
    seen = {}

    def load(model, **how):
        seen.update({"model": model, **how})
        raise Loaded

    monkeypatch.setattr(models, "load", load)
    monkeypatch.chdir(tmp_path)
    return seen


@pytest.mark.parametrize("name", COMMANDS)
def test_no_default_is_a_path_relative_to_the_caller(name):
    module = importlib.import_module(f"train.{name}")
    function = getattr(module, name.partition(".")[0])
    defaults = {one: value.default for one, value in inspect.signature(function).parameters.items()}
    relative = [one for one, value in defaults.items() if str(value).startswith("checkpoints/") and one != "out"]
    assert relative == []


def test_settings_of_a_head_are_chosen_on_the_shipped_model(asked):
    with pytest.raises(Loaded):
        head_defaults(head=str(shipped(HEAD)), task="countdown3")
    assert Path(asked["model"]) == shipped(MODEL)


def test_a_control_is_not_written_beside_the_head(asked):
    with pytest.raises(
        ValueError, match=r"^out must be given with random_cascade, whose defaults are not the head's own, got none$"
    ):
        head_defaults(head=str(shipped(HEAD)), task="countdown3", random_cascade=True)
    assert asked == {}


def test_a_control_does_not_overwrite_the_defaults_of_the_head(asked, tmp_path):
    head = shipped(HEAD)
    other = tmp_path / "link"
    other.symlink_to(head)
    for out in (head, other, head / "cascade" / ".."):
        with pytest.raises(ValueError, match=r"^out must not be the head's own folder with random_cascade, got '.*'$"):
            head_defaults(head=str(head), task="countdown3", random_cascade=True, out=out)
    assert asked == {}


def test_a_cascade_is_fitted_on_what_ships(asked, tmp_path):
    from train.head.settings import CascadeFitting, TaskRun

    with pytest.raises(Loaded):
        cascade(tasks={"countdown3": TaskRun()}, fitting=CascadeFitting(), out=tmp_path / "out")
    assert (Path(asked["model"]), Path(asked["head"])) == (shipped(MODEL), shipped(HEAD))
