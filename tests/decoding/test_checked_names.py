"""The settings of `verified` and of the rule inside it, taken apart before anything heavy is imported."""

import subprocess
import sys

import pytest

from decoding.calls.request import resolve
from decoding.checked_names import CheckedSettings, needs_head, uses_head
from decoding.comparison.arms import Arm

CANVAS = {"gen_length": 12, "block_length": 4}


@pytest.mark.parametrize(
    ("given", "settings"),
    [
        ({}, {"rule": "threshold"}),
        ({"confidence_threshold": 0.7, "canvases": 2}, {"rule": "threshold", "threshold": 0.7, "canvases": 2}),
        ({"rule": "risk_sum", "risk_bound": 0.2}, {"rule": "risk-sum", "risk_bound": 0.2}),
        ({"rule": "quota", "denoising_steps": 2}, {"rule": "quota", "steps": 6}),
        ({"rule": "threshold", "threshold": 0.9, "steps": 6}, {"rule": "threshold", "threshold": 0.9}),
        ({"eb_threshold": 0.1, "mode": "subset"}, {"rule": "entropy-bound", "entropy_bound": 0.1, "mode": "subset"}),
    ],
)
def test_the_spellings_of_the_field_reach_the_rule(given, settings):
    assert resolve("verified", {**CANVAS, **given}).settings == settings


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (
            {"rule": "margin", "entropy_threshold": 0.3},
            "entropy_threshold must be left out with policy margin, got 0.3",
        ),
        ({"rule": "quota", "steps": 7}, r"steps must be a multiple of the number of blocks \(3\), got 7"),
        ({"rule": "lopa"}, "rule of policy verified must be one of sequential, .*, got 'lopa'"),
    ],
)
def test_contradictions_are_refused_before_a_policy_is_made(given, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}"):
        resolve("verified", {**CANVAS, **given})


def test_a_rule_of_ones_own_keeps_its_name():
    assert CheckedSettings.of({"rule": "my_rules.mine:Rule", "bar": 1}, meant="threshold").rule == "my_rules.mine:Rule"


def test_a_head_is_needed_by_a_named_cascade_and_by_a_learned_rule_and_used_by_any_draft_from_it():
    asked = [{"rule": "threshold"}, {"rule": "threshold", "source": "cascade"}, {"rule": "margin", "source": "reading"}]
    asked += [{"rule": "learned"}, {"rule": "learned", "source": "reading"}]
    assert [needs_head("verified", one, True) for one in asked] == [False, True, False, True, True]
    assert [uses_head("verified", one, True) for one in asked] == [True, True, False, True, True]
    assert needs_head("learned", {}, True)
    assert not uses_head("threshold", {}, False)


def test_an_arm_is_left_out_without_a_head_unless_its_drafts_need_none():
    def arm(**settings):
        return Arm("checked", "learned", "verified", settings=settings).needs_head

    assert arm(rule="threshold", mode="subset")
    assert not arm(rule="threshold", source="reading")


def test_the_names_are_read_without_torch():
    code = "import sys, decoding.calls.request, decoding.checked_names; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
