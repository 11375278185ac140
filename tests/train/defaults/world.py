"""A world in which every setting of a head has its rounds and its share of wrong answers."""

from __future__ import annotations

import numpy as np

from models.heads.defaults import Defaults

BOUNDS = (0.1, 0.03, 0.01, 0.003, 0.001)
LOOKS, OWN = Defaults("confidence", 1.0, 2), Defaults(None, 1.0, 0)
EXACT, SUBSET = (Defaults("confidence", 1.0, 0, checked=mode) for mode in ("exact", "subset"))
COUNTS = {"sudoku": 600, "sums": 600}


class World:
    """Decodes by a table: kind of the setting -> rounds, and the answers in a hundred that a setting loses."""

    def __init__(self, rounds, lost, screen=64, confirm=600):
        self.rounds, self.lost, self.sizes = rounds, lost, {"screen": screen, "confirm": confirm}
        self.asked = []

    def __call__(self, setting, part, count=None):
        self.asked.append((setting, part))
        n = count or self.sizes[part]
        kind = setting.checked or ("rule" if setting.alone else "looks" if setting.looks else "head")
        right = np.ones(n)
        right[: round(n * self.lost(kind, setting.risk_bound))] = 0
        spread = 0.1 * (np.arange(n) % 3)
        bold = 1 + 0.2 * np.log10(0.1 / setting.risk_bound)
        return {task: {"right": right, "rounds": self.rounds[kind] * bold + spread} for task in COUNTS}


def bold_is_wrong(kind, bound):
    return 0.05 if bound > 0.05 else 0.0
