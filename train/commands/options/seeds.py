"""The range of a seed: what every generator takes, of torch, NumPy and Python alike."""

from __future__ import annotations

from argparse import Action
from collections.abc import Iterable

from jsonargparse import Namespace

from models.complaints import shown

SEEDS = 1 << 32


def check_seeds(options: Namespace) -> None:
    """Refuse a seed outside [0, SEEDS), wherever among the options of a command it stands.

    Raises:
        ValueError: naming the option.
    """
    for name, value in options.items():
        if _is_seed(name) and isinstance(value, int) and not 0 <= value < SEEDS:
            rule = "at least 0" if value < 0 else f"at most {SEEDS - 1}"
            raise ValueError(f"{name} must be {rule}, got {shown(value)}")


def tell_range(actions: Iterable[Action]) -> None:
    """Let the help of every seed say its range."""
    for action in actions:
        if _is_seed(action.dest):
            action.help = f"{(action.help or '').removesuffix('.')}, from 0 to {SEEDS - 1}."


def _is_seed(option: str) -> bool:
    return option.rpartition(".")[2] == "seed"
