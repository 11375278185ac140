"""Countdown: what counts as a solution, and what the generator draws."""

import random
import re
from collections import Counter

import pytest

from train.tasks import TASKS, Example
from train.tasks.puzzles.countdown import HELD_OUT, NUMBERS, OPERATOR_WEIGHTS, TARGETS, make


@pytest.mark.parametrize(
    ("prompt", "text", "right"),
    [
        ("15,44,79,50", "44-15=29,79-29=50", True),
        ("15,44,79,50", "79-44=35,35+15=50", True),
        ("15,44,79,50", "79-44=35,15+35=50", True),
        ("15,44,79,50", "79-44=35,15+36=51", False),  # 36 was never made
        ("15,44,79,50", "79-44=34,15+35=50", False),  # wrong step
        ("15,44,79,50", "15-44=-29,79-29=50", False),  # negative
        ("15,44,79,94", "79+15=94", False),  # 44 is left over
        ("15,44,79,94", "79+15=94,94+44=138", False),  # wrong last result
        ("15,44,79,50", "44-15=29,79-29=50,", False),
        ("15,44,79,50", "44-15=29, 79-29=50", False),
        ("15,44,79,50", "44-15=029,79-29=50", False),
        ("15,44,79,50", "", False),
        ("4,4,8,16", "4+4=8,8+8=16", True),  # equal numbers, each once
        ("4,5,8,16", "4+4=8,8+8=16", False),  # 4 twice, 5 unused
        ("9,2,5,9", "9/2=4,4+5=9", False),  # not exact
        ("9,3,5,8", "9/3=3,3+5=8", True),
        ("9,0,5,14", "9/0=9,9+5=14", False),
        ("9,0,5,14", "9/0=0,9+5=14", False),
        ("5,5,7,7", "5-5=0,0+7=7", True),
        ("3,8,2,8", "3*8=24,24-2=22", False),
        ("15,44,79,50", "44-15=29,79-29=50,50-0=50", False),
    ],
)
def test_solutions_are_judged_by_evaluating(prompt: str, text: str, right: bool) -> None:
    assert TASKS["countdown3"].check(Example(prompt, ""), text) is right


def test_the_first_target_is_not_a_number_to_use() -> None:
    assert TASKS["countdown4"].check(Example("86,28,13,31,96", ""), "86+28=114,31-13=18,114-18=96")
    assert not TASKS["countdown4"].check(Example("86,28,13,31,96", ""), "96+28=124,124-28=96,86-31=55")


@pytest.mark.parametrize("count", [3, 4])
def test_drawn_instances_stay_in_range_and_off_the_held_out_targets(count: int) -> None:
    rng = random.Random(count)
    for _ in range(300):
        example = make(rng, count=count)
        *numbers, target = map(int, example.prompt.split(","))
        assert len(numbers) == count
        assert NUMBERS[0] <= min(numbers) <= max(numbers) <= NUMBERS[1]
        assert TARGETS[0] <= target <= TARGETS[1]
        assert target not in HELD_OUT[count]
        assert TASKS[f"countdown{count}"].check(example, example.response)


@pytest.mark.parametrize(("count", "shares"), [(3, (0.30, 0.54, 0.07, 0.09)), (4, (0.25, 0.47, 0.11, 0.16))])
def test_operators_come_in_the_shares_stated(count: int, shares: tuple[float, ...]) -> None:
    rng = random.Random(count)
    found = Counter("".join(re.findall(r"[-+*/]", "".join(make(rng, count=count).response for _ in range(1500)))))
    assert sum(OPERATOR_WEIGHTS[count]) == pytest.approx(1)
    for sign, share in zip("+-*/", shares, strict=True):
        assert found[sign] / found.total() == pytest.approx(share, abs=0.04)
