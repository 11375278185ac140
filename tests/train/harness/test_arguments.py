"""`--model_args` in both dialects of the field, and what they refuse."""

import subprocess
import sys
from pathlib import Path

import pytest

from models.devices import find_device
from models.heads.defaults import read_defaults
from train.commands.command_line import shipped
from train.harness.__main__ import with_device
from train.harness.arguments import as_value, judge_arguments

BASE, HEAD = str(shipped("checkpoints/reason-7m")), str(shipped("checkpoints/reason-7m-head"))


def test_both_dialects_say_the_same():
    llada = {"model_path": BASE, "gen_length": "64", "block_length": "32", "threshold": "0.9", "mc_num": "8"}
    llada |= {"is_check_greedy": "False", "dual_cache": "True", "cfg": "0.0", "show_speed": "True"}
    dream = {"pretrained": BASE, "max_new_tokens": 64, "block_size": 32, "confidence_threshold": 0.9, "samples": 8}
    dream |= {"check_greedy": False, "use_cache": "dual", "trust_remote_code": True}
    one, two = judge_arguments(llada), judge_arguments(dream)
    assert one.request() == two.request()
    assert (one.request().policy, one.request().settings) == ("threshold", {"threshold": 0.9})
    assert one.request().options["use_cache"] == "dual"
    assert (
        (one.samples, one.gen_length, one.check_greedy)
        == (two.samples, two.gen_length, two.check_greedy)
        == (8, 64, False)
    )


@pytest.mark.parametrize("block", ["block_length", "block_size", "canvas_length", "dllm_block_length"])
def test_lengths_follow_the_task_where_none_is_given(block):
    evaluation = judge_arguments({"pretrained": BASE, "policy": "threshold", block: 32})
    assert evaluation.request(100).gen_length == 128
    assert evaluation.request(None).gen_length == 256
    for name in ("gen_length", "max_tokens", "gen_len"):
        assert judge_arguments({"pretrained": BASE, name: 64, "policy": "threshold"}).request(100).gen_length == 64


def test_the_head_that_ships_for_the_model_is_found():
    assert judge_arguments({"pretrained": BASE}).head == HEAD
    assert judge_arguments({}).head == HEAD
    assert judge_arguments({"pretrained": BASE, "threshold": 0.9}).head is None


def test_without_a_policy_the_head_says_how_and_without_a_head_ete_decodes(tmp_path, write_tiny):
    policy, settings = read_defaults(Path(HEAD)).decoder
    request = judge_arguments({"pretrained": BASE}).request()
    assert (request.policy, request.settings) == (policy, settings)
    assert judge_arguments({"pretrained": BASE, "policy": "learned"}).request().settings == {}
    assert judge_arguments({"pretrained": str(write_tiny(tmp_path))}).request().policy == "ete"


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"policy": "treshold"}, "policy must be one of .*got 'treshold': did you mean threshold?"),
        ({"policy": "threshold", "gama": 0.5}, "settings of policy threshold must be among threshold, got gama"),
        ({"samples": 0}, "samples must be a whole number of at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1, got 0"),
        ({"cfg": 1.5}, "cfg must be 0 here, got 1.5"),
        ({"nll_type": "exact"}, "nll_type must be 'mc' here, got 'exact'"),
        ({"pretrained": "a/b", "model_path": "c/d"}, "model_path must agree with pretrained, got 'c/d' and 'a/b'"),
        ({"long": "skip"}, "long must be refuse or cut, got 'skip'"),
        ({"is_check_greedy": 2}, "check_greedy must be true or false, got 2"),
        ({"pretrained": BASE, "head": "tests"}, "head must be a folder with head.safetensors"),
    ],
)
def test_bad_arguments_are_one_sentence(given, sentence):
    with pytest.raises(ValueError, match=sentence):
        judge_arguments(given)


@pytest.mark.parametrize(
    ("text", "value"),
    [("True", True), ("none", None), ("64", 64), ("0.9", 0.9), ("1e-3", 1e-3), ("a/b", "a/b"), ("[1]", "[1]"), (3, 3)],
)
def test_strings_become_what_they_spell(text, value):
    assert as_value(text) == value
    assert type(as_value(text)) is type(value)


def test_arguments_are_judged_without_torch():
    code = (
        "import sys\nfrom train.harness.arguments import judge_arguments\n"
        "judge_arguments({'policy': 'threshold'})\nprint('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "False\n"


def test_the_harness_is_told_a_device_that_is_here():
    """It says cuda:0 by itself, on a machine without a GPU too."""
    assert with_device(["run", "--tasks", "x"]) == ["--device", str(find_device(None))]
    assert with_device(["run", "--device", "cuda:1"]) == with_device(["run", "--device=mps"]) == []
