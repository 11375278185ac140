"""A comparison of three arms on a toy, run in a folder."""

from __future__ import annotations

from decoding.comparison.arms import Arm
from decoding.comparison.compare import Comparison, compare
from decoding.comparison.problems import Problems
from tests.decoding.comparison.toys import GROUPS, SIZE, toy

SEQUENTIAL = Arm("sequential", "headless", "sequential")
THRESHOLD = Arm("threshold", "headless", "threshold", "threshold", (0.4, 0.9), promise="one minus dial")
ETE_SETTINGS = {"gamma": 0.6, "min_masks": 0, "step_budget": None, "initial_blocks": GROUPS}
ETE_SETTINGS |= {"branches": 4, "c_info": 0.5, "implicit_scope": "global"}
ETE = Arm("ete", "headless", "ete", "threshold", (0.9,), ETE_SETTINGS)
ARMS = (SEQUENTIAL, THRESHOLD, ETE)
ALL_ZERO = "0" * GROUPS * SIZE


def problems(**changes) -> Problems:
    values = {
        "dev": ("010", "011", "000"),
        "test": ("100", "101", "110", "111", "001"),
        "references": {"100": ALL_ZERO},
    }
    return Problems(**{"task": "groups", "gen_length": GROUPS * SIZE, "block_length": SIZE, **values, **changes})


def starts_with_zero(prompt: str, text: str) -> bool:
    return text.startswith("0")


def compared(*arms: Arm, **options) -> Comparison:
    options = {"batch_size": 2, "progress": False, **options}
    return compare(toy(), arms or ARMS, problems(), starts_with_zero, **options)
