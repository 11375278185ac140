"""A calibration: made on a toy denoiser, read back, and refused for any other decoder."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest
import torch

from decoding.api import generate, make_policy
from decoding.calls.request import resolve
from decoding.comparison.arms import Arm
from decoding.comparison.calibration import Calibration, Conditions, picture
from decoding.comparison.problems import Problems
from decoding.comparison.risk_control import RiskControl
from decoding.comparison.runner import control_dial, make_runner
from decoding.policies.threshold import Threshold
from tests.decoding.comparison.toys import toy

CONTROL = RiskControl("flip", 0.5, 0.9)
CANVAS = {"gen_length": 6, "block_length": 3}


def made(**changes) -> Calibration:
    """What the command would write for threshold .4 on the toy."""
    known = {
        "policy": "threshold", "settings": {}, "dial": "threshold", "chosen": 0.4, "bound": 0.1, "loss": "flip",
        "max_loss": 0.5, "confidence": 0.9, "task": "groups", "prompts": "abc", "n": 4, "checked": True,
        "tested": [{"value": 0.4, "loss": 0.0, "bound": 0.1, "rounds": 2.0, "accuracy": 1.0, "holds": True}],
        "conditions": Conditions.of(toy(), Threshold(0.4), resolve(Threshold(0.4), CANVAS), toy().end_ids),
    }  # fmt: skip
    return Calibration(**(known | changes))


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps(made().record({})))
    return path


def test_a_file_is_read_back_whole(file):
    assert asdict(Calibration.load(file)) == asdict(made())


def test_what_a_call_leaves_out_is_as_calibrated(file):
    found = generate(toy(), "010", calibrated=file)
    assert found.policy == Threshold(0.4)
    assert found.canvas.shape == (1, 6)
    same = generate(toy(), "010", "threshold", threshold=0.4, **CANVAS)
    assert torch.equal(found.sequences, same.sequences)
    assert found.policy == generate(toy(), "010", Threshold(0.4), calibrated=str(file)).policy


@pytest.mark.parametrize(
    ("policy", "options", "sentence"),
    [
        ("ete", {}, "policy must be threshold as calibrated, got 'ete'"),
        (None, {"threshold": 0.9}, r"policy must be 'Threshold.*0.4\)' as calibrated in .*, got 'Threshold\(threshold=0.9\)'"),
        (None, {"confidence_threshold": 0.9}, r"policy must be 'Threshold\(threshold=0.4\)' as calibrated in"),
        (Threshold(0.5), {}, r"policy must be 'Threshold\(threshold=0.4\)' as calibrated in"),
        (None, {"gen_length": 3}, "gen_length must be 6 as calibrated in"),
        (None, {"block_length": 2}, "block_length must be 3 as calibrated in"),
        (None, {"temperature": 0.5}, "temperature must be 0.0 as calibrated in"),
        (None, {"logits_eos_inf": True}, "logits_eos_inf must be left out with calibrated, got True"),
        (None, {"top_p": 0.5}, "top_p must be left out with calibrated, got 0.5"),
    ],
)  # fmt: skip
def test_another_decoder_is_refused_in_one_sentence(file, policy, options, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}"):
        generate(toy(), "010", policy, calibrated=file, **options)


@pytest.mark.parametrize("name", [f.name for f in fields(Conditions)])
def test_every_condition_is_held_to(tmp_path, name):
    conditions = made().conditions
    other: object = (
        12
        if name in ("gen_length", "block_length")
        else 0.5
        if name == "temperature"
        else [7]
        if name == "end_ids"
        else "prefix"
    )
    path = tmp_path / "other.json"
    path.write_text(json.dumps(made(conditions=replace(conditions, **{name: other})).record({})))
    with pytest.raises(
        ValueError, match=rf"^{name} must be {re.escape(repr(other))} as calibrated in .*other.json, got "
    ):
        generate(toy(), "010", calibrated=path, **CANVAS, use_cache="none")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "calibrated must be a file of calibrate.py, got .* \\(FileNotFoundError"),
        ("[]", "calibrated must be a file of calibrate.py, got .* \\(ValueError .* must hold a JSON object, got list\\)"),
        ('{"policy": "threshold"}', "calibrated must be a file of calibrate.py, got .* \\(KeyError 'conditions'"),
        (json.dumps(made(chosen=None).record({})), "calibrated must hold a setting of threshold that kept the promise, got none"),
    ],
)  # fmt: skip
def test_a_file_without_a_promise_is_refused(tmp_path, content, sentence):
    path = tmp_path / "calibration.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ValueError, match=f"^{sentence}"):
        Calibration.load(path)


def runner_on(check, *, prompts=("010", "011", "000", "100"), **changes):
    problems = Problems("groups", prompts, (), 6, 3, **changes)
    return make_runner(toy(), problems, check, out=None, heads=None, batch_size=2, seed=0, progress=False)


def test_a_dial_is_tested_against_the_careful_decode_and_later_settings_are_not_decoded():
    runner = runner_on(lambda prompt, text: text == "000000" or prompt == "010")
    arm = Arm("threshold", "headless", "threshold", "threshold", (0.9, 0.4, 0.3))
    strict = RiskControl("flip", 0.5, 0.9)
    tested = control_dial(runner, arm, strict)
    assert tested[0].value == 0.9
    decoded = {cell for _, cell in runner.ledger.lines}
    assert len(decoded) == 1 + len(tested)
    assert all(dial.holds for dial in tested[:-1])


def test_texts_are_compared_where_nothing_is_checked():
    runner = runner_on(lambda prompt, text: False)
    same, other = (Arm(n, "headless", p) for n, p in (("a", "sequential"), ("b", "left-to-right")))
    runner.run([same, other], "dev")
    tables = [runner.ledger.table("dev", runner.cells_of(arm)[0]) for arm in (same, other)]
    texts = [
        generate(toy(), list(runner.problems.dev), make_policy(n, {}, toy()), **CANVAS).text
        for n in ("sequential", "left-to-right")
    ]
    assert (tables[0]["answer"] == tables[1]["answer"]).tolist() == [a == b for a, b in zip(*texts, strict=True)]


def test_a_comparison_asks_for_test_prompts():
    with pytest.raises(ValueError, match=r"^test prompts of task groups must be at least one, got none$"):
        Problems("groups", ("0",), (), 6, 3).require_prompts("test")


def test_the_picture_shows_loss_bound_and_promise():
    pytest.importorskip("matplotlib")
    (axes,) = picture(made()).axes
    assert {text.get_text() for text in axes.get_legend().get_texts()} == {
        "measured", "upper bound, confidence 0.9", "promise 0.5", "chosen"
    }  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"chosen": "0.4"},
        {"settings": []},
        {"policy": 3},
        {"tested": [{}]},
        {"tested": {}},
        {"checked": 1},
        {"n": None},
        {"dial": None},
    ],
    ids=str,
)
def test_values_of_other_kinds_are_refused(file, change):
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(
        ValueError, match=rf"^calibrated must be a file of calibrate.py, got .* in {next(iter(change))}\)"
    ):
        generate(toy(), "010", calibrated=file)
