"""Bisection finds the boldest setting that holds, and asks few."""

from __future__ import annotations

import itertools

import pytest

from decoding.comparison.arms import Arm
from train.clock.dial import boldest, careful_first

VALUES = (0.5, 0.9, 0.6, 0.8, 0.7)


@pytest.mark.parametrize(("policy", "dial", "order"), [("threshold", "threshold", -1), ("risk-sum", "risk_bound", 1)])
def test_cells_come_from_the_careful_end(policy, dial, order):
    cells = careful_first(Arm("arm", "headless", policy, dial, VALUES))
    assert [cell.dial for cell in cells] == sorted(VALUES)[::order]


@pytest.mark.parametrize(("settings", "kept"), [(n, k) for n in range(1, 8) for k in range(n + 1)])
@pytest.mark.parametrize("all_of_them", [False, True])
def test_the_boldest_setting_that_holds_is_found(settings, kept, all_of_them):
    values = tuple(round(0.9 - 0.1 * number, 1) for number in range(settings))
    asked = []

    def holds(cell):
        asked.append(cell.dial)
        return cell.dial in values[:kept]

    found = boldest(
        careful_first(Arm("arm", "headless", "threshold", "threshold", values)), holds, all_of_them=all_of_them
    )
    assert (found and found.dial) == (values[kept - 1] if kept else None)
    assert len(asked) == (settings if all_of_them else len(set(asked)))
    assert len(asked) <= settings.bit_length() or all_of_them


def test_all_settings_find_one_behind_a_gap_that_bisection_does_not():
    cells = careful_first(Arm("arm", "headless", "threshold", "threshold", VALUES))
    held = dict(zip((cell.dial for cell in cells), (True, False, False, True, False), strict=True))
    found = [boldest(cells, lambda cell: held[cell.dial], all_of_them=all_of_them) for all_of_them in (False, True)]
    assert [cell.dial for cell in found] == [0.9, 0.6]


def test_an_arm_of_one_point_holds_or_does_not():
    (cell,) = cells = careful_first(Arm("one", "headless", "random"))
    for kept, every in itertools.product((True, False), repeat=2):
        assert boldest(cells, lambda _, kept=kept: kept, all_of_them=every) == (cell if kept else None)
