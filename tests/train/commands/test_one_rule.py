"""What is left out is filled in alike in every command: the head that ships, device, number format, canvas and cache."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any, Literal, get_type_hints

import pytest

import calibrate as calibrate_command
import compare as compare_command
import generate as generate_command
import study as study_command
from decoding.comparison.risk_control import RiskControl
from tests.complaint import complaint
from tests.test_configs import CONFIGS, command_of
from train.cascade.__main__ import cascade
from train.commands.calibrate import check_calibrate
from train.commands.command_line import shipped
from train.commands.folders import find_head, head_of
from train.commands.generate import check_generate
from train.draft_price import draft_price
from train.harness.arguments import judge_arguments
from train.head_cost import head_cost
from train.head_defaults import head_defaults
from train.head_risk import head_risk
from train.outcomes.__main__ import outcomes
from train.recipe.__main__ import recipe

TRAIN = next(command_of(config)[0] for config in CONFIGS if config.name == "head.yaml")
DECODE = [generate_command.generate, compare_command.compare, calibrate_command.calibrate, TRAIN]
LOAD = [*DECODE, study_command.study, recipe, cascade, outcomes, head_defaults, head_risk, head_cost, draft_price]
ARMS = '[{"name": "sequential", "kind": "headless", "policy": "sequential"}]'
DTYPE = Literal["float32", "bfloat16", "float16"] | None
RULE = "default float32 on the CPU, the checkpoint's own elsewhere"


def said_of(function: Any, name: str) -> str:
    """What the docstring says of a parameter."""
    found = re.search(rf"^ +{name}: (.*)$", inspect.getdoc(function) or "", re.M)
    assert found, f"{function.__name__} must explain {name}"
    return found[1]


@pytest.mark.parametrize("function", LOAD, ids=lambda one: one.__name__)
def test_device_and_number_format_follow_one_rule(function):
    parameters = inspect.signature(function).parameters
    assert parameters["device"].default is None if "device" in parameters else parameters["devices"].default == ""
    if "dtype" in parameters:
        assert parameters["dtype"].default is None
        assert get_type_hints(function)["dtype"] == DTYPE
        assert RULE in said_of(function, "dtype")


def test_every_command_of_the_top_level_takes_a_number_format():
    commands = [*DECODE, study_command.study, recipe, cascade, head_cost]  # the last is `fewer-rounds profile`
    assert all("dtype" in inspect.signature(function).parameters for function in commands)


@pytest.mark.parametrize("function", DECODE, ids=lambda one: one.__name__)
def test_every_command_that_decodes_takes_canvas_and_cache(function):
    assert {"gen_length", "use_cache"} <= set(inspect.signature(function).parameters)


@pytest.mark.parametrize("name", ["reason-7m", "gsm-12m"])
def test_a_model_that_ships_finds_the_head_that_ships_for_it(name, tmp_path):
    model, head = str(shipped(f"checkpoints/{name}")), str(shipped(f"checkpoints/{name}-head"))
    assert find_head(model) == head
    assert head_of(model, None) == head
    (tmp_path / "elsewhere").symlink_to(model)
    assert find_head(str(tmp_path / "elsewhere")) == head  # by what its weights are, not by its name
    assert check_generate(["1"], None, "learned", {}, model=model).head == head
    promise = RiskControl("flip", 0.5, 0.95)
    assert check_calibrate("learned", "countdown3", promise, {}, num_prompts=20, model=model).head == head


def test_a_model_without_a_head_of_its_own_has_none(tmp_path, write_tiny):
    tiny = str(write_tiny(tmp_path))
    assert find_head(tiny) is None
    with pytest.raises(ValueError, match=r"head must be a folder with head\.safetensors, for none ships for "):
        head_of(tiny, None)
    assert Path(find_head(tiny, str(shipped("checkpoints/reason-7m-head")))).name == "reason-7m-head"


@pytest.mark.parametrize("function", DECODE[:3], ids=lambda one: one.__name__)
def test_a_head_of_another_base_is_refused_whatever_the_policy(capsys, tmp_path, function):
    given = {
        "generate": ("--prompt", "1", "--policy", "threshold"),
        "calibrate": ("--policy", "threshold", "--task", "countdown3", "--max_loss", "0.3", "--num_prompts", "15"),
        "compare": ("--catalogue", ARMS, "--task", "countdown3", "--num_prompts", "1", "--num_dev", "1"),
    }[function.__name__]
    head = str(shipped("checkpoints/gsm-12m-head"))
    out = () if function.__name__ == "generate" else ("--out", str(tmp_path / "out"))
    told = complaint(capsys, function, *given, *out, "--head", head, "--device", "cpu")
    assert told.startswith(f"{function.__name__}.py: the head in {head} must be used on its own base (")
    assert list(tmp_path.iterdir()) == []


def test_a_head_that_is_named_is_loaded_whatever_the_policy_and_none_is_looked_for():
    head = str(shipped("checkpoints/universal-head"))
    promise = RiskControl("flip", 0.5, 0.95)
    for named in (head, None):
        assert check_generate(["1"], None, "threshold", {}, head=named).head == named
        assert check_calibrate("threshold", "countdown3", promise, {}, num_prompts=20, head=named).head == named
        assert judge_arguments({"policy": "threshold", "head": named}).head == named
