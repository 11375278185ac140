"""A running test on prompts without labels: seldom a false alarm, soon a true one, and one line in `generate`."""

from __future__ import annotations

import itertools
import json
import logging
import random

import pytest

from decoding.api import generate
from decoding.comparison.calibration import Calibration
from decoding.comparison.shift.exchangeable import Gambler, Reference, ShiftTest, scores_of
from decoding.comparison.shift.watch import figures_of
from tests.decoding.comparison.test_calibration import made, toy

NAMES = ("surprise", "forced", "failed_drafts")


def reference(draws: random.Random, prompts: int = 100) -> Reference:
    return Reference(1, {name: [draws.gauss(0, 1) for _ in range(prompts)] for name in NAMES})


def test_false_alarms_are_as_rare_as_promised():
    """Of 150 streams of 200 exchangeable prompts at most a tenth may warn at an alarm of .1, within two standard errors."""
    warned = 0
    for seed in range(150):
        draws = random.Random(seed)
        test = ShiftTest(reference(draws), alarm=0.1, seed=seed)
        for _ in range(200):
            test.see({name: draws.gauss(0, 1) for name in NAMES})
        warned += test.shifted
    assert warned / 150 <= 0.1 + 2 * (0.1 * 0.9 / 150) ** 0.5


@pytest.mark.parametrize("moved", NAMES)
@pytest.mark.parametrize("by", [3.0, -3.0])
def test_prompts_of_another_kind_are_soon_noticed(moved, by):
    draws = random.Random(0)
    test = ShiftTest(reference(draws), seed=0)
    for count in itertools.count(1):
        test.see({name: draws.gauss(by if name == moved else 0, 1) for name in NAMES})
        if test.shifted or count == 200:
            break
    assert count <= 60
    assert test.chance <= 0.01
    assert f"{moved} {'-' if by < 0 else ''}" in test.sentence()
    assert "\n" not in test.sentence()


def test_a_change_after_many_usual_prompts_is_noticed():
    draws = random.Random(1)
    test = ShiftTest(reference(draws), seed=1)
    for _ in range(500):
        test.see({name: draws.gauss(0, 1) for name in NAMES})
    assert not test.shifted
    for _ in range(80):
        test.see({name: draws.gauss(3, 1) for name in NAMES})
    assert test.shifted


def test_the_capital_is_a_fair_bet():
    """The mean capital after a bet, over all places that a new score may take, is the capital before it."""
    seen = [float(value) for value in range(9)]
    before = Gambler(list(seen), [0.2, 0.3, 0.9])
    draws = [
        Gambler(list(seen), list(before.stakes)).see(score - 0.5, (i + 0.5) / 50)
        for score in range(10)
        for i in range(50)
    ]
    assert sum(draws) / len(draws) == pytest.approx(1.4, rel=1e-9)


def test_equal_scores_are_placed_by_the_draw():
    low, high = (Gambler([1.0] * 4).see(1.0, tie) for tie in (0.1, 0.9))
    assert low == pytest.approx(high, rel=1e-9)  # the bets on both sides are equal at first
    first = Gambler([1.0] * 4, [1.0, 0.0, 0.0])
    assert first.see(1.0, 0.1) > 1.0 > Gambler([1.0] * 4, [1.0, 0.0, 0.0]).see(1.0, 0.9)


def test_scores_that_tell_nothing_are_left_out_and_files_without_scores_are_not_tested():
    figures = {"bits": [1.0, 3.0], "commits": [2, 2], "unforced": [2, 2], "drafts": [0, 0], "drafts_true": [0, 0]}
    assert scores_of(figures) == {"surprise": [0.5, 1.5], "forced": [0.0, 0.0], "failed_drafts": [0.0, 0.0]}
    assert list(Reference.of(figures).scores) == ["surprise"]
    assert Reference.read(None) is None
    assert Reference.read({"version": 2, "scores": {}}) is None
    for wrong in ({"surprise": ["x"]}, {"surprise": [float("nan")]}, 3):
        with pytest.raises(ValueError, match="reference must hold"):
            Reference.read({"version": 1, "scores": wrong})


def prompts() -> list[str]:
    return ["".join(digits) for digits in itertools.product("01", repeat=6)]


def file_with(tmp_path, scores) -> str:
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps(made(reference={"version": 1, "scores": scores}).record({})))
    return str(path)


def test_generate_says_once_that_prompts_are_of_another_kind(tmp_path, caplog):
    path = file_with(tmp_path, {"surprise": [7.0 + i / 100 for i in range(100)]})
    with caplog.at_level(logging.WARNING):
        for start in range(0, 64, 8):
            generate(toy(), prompts()[start : start + 8], calibrated=path)
    (record,) = caplog.records
    assert "do not look like those calibrated on: tokens are surer" in record.getMessage()


def test_generate_is_silent_on_prompts_like_those_calibrated_on_and_on_one_prompt_again_and_again(tmp_path, caplog):
    usual = generate(toy(), prompts(), calibrated=file_with(tmp_path, {}))
    scores = scores_of(figures_of(usual))["surprise"]
    draws = random.Random(0)
    path = file_with(tmp_path, {"surprise": [one + draws.random() * 1e-3 - 5e-4 for one in scores]})
    with caplog.at_level(logging.WARNING):
        generate(toy(), prompts(), calibrated=path)
        odd = tmp_path / "odd"
        odd.mkdir()
        again = file_with(odd, {"surprise": [7.0 + i / 100 for i in range(100)]})
        for _ in range(60):
            generate(toy(), "010101", calibrated=again)
    assert not caplog.records


def test_a_file_with_broken_scores_is_refused(tmp_path):
    with pytest.raises(ValueError, match="calibrated must be a file of calibrate"):
        Calibration.load(file_with(tmp_path, {"surprise": ["much"]}))


def test_an_old_file_still_loads(tmp_path):
    path = tmp_path / "calibration.json"
    record = made().record({})
    del record["reference"], record["sha256"]  # an old file has neither
    path.write_text(json.dumps(record))
    assert Calibration.load(path).reference is None
    assert generate(toy(), "010", calibrated=path).rounds.tolist()
