"""What is judged of a command line before it is parsed: text that is none, what is said twice, configs that are no YAML."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Sequence, Set
from itertools import zip_longest
from pathlib import Path
from typing import Any

import yaml

from models.ranks import is_distributed

MOST_NODES = 100_000  # of a config with every alias written out
LEFTOVERS = (
    "SLURM_NTASKS",
    "SLURM_PROCID",
    "SLURM_LOCALID",
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
    "GROUP_RANK",
    "NODE_RANK",
)
LAYERED = ("config", "print_config")  # may come more than once: a later config goes over an earlier one


def forget_launcher() -> None:
    """Take what a launcher of several processes left behind out of the environment of a process that runs alone."""
    if is_distributed():
        return
    left = [f"{name}={os.environ.pop(name)}" for name in LEFTOVERS if name in os.environ]
    if any(not one.endswith(("=0", "=1", "=")) for one in left):
        sys.stderr.write(f"run by itself, so {', '.join(left)} of a launcher is ignored\n")


def check_arguments(arguments: Sequence[str], several: Set[str] = frozenset()) -> None:
    """Refuse arguments that are no text, and options that are given twice but those in `several`.

    Raises:
        ValueError: naming the option.
    """
    name, seen = "argument", set[str]()
    for one in arguments:
        is_option = one.startswith("--") and len(one) > 2
        name = one[2:].partition("=")[0].replace("-", "_") if is_option else name
        require_text(name, one)
        if is_option:
            if name in seen and name not in (*LAYERED, *several) and not name.endswith("+"):
                raise ValueError(f"{name} must be given once, got it twice")
            seen.add(name)


def require_text(name: str, value: str) -> None:
    """Refuse a string that no UTF-8 spells: a lone surrogate, or bytes of a command line that are no text.

    Raises:
        ValueError: in one sentence.
    """
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"{name} must be text in UTF-8, got {value[error.start : error.start + 1]!a} in it") from None


def check_configs(arguments: Sequence[str]) -> None:
    """Read the configs of a command line as YAML, so that none is taken in part or grows without end.

    Raises:
        ValueError: naming the file, for text that is no UTF-8, broken YAML, a key that is there twice, or endless aliases.
    """
    for one, following in zip_longest(arguments, arguments[1:], fillvalue=""):
        name, equals, value = one.partition("=")
        file = Path(value if equals else following)
        if name == "--config" and file.is_fifo():
            raise ValueError(f"config must be a file that is there, got the pipe {file}")
        if name == "--config" and file.is_file():
            check_config(file)


def check_config(file: Path) -> None:
    """Refuse one config; see `check_configs`."""
    try:
        text = file.read_text(encoding="utf-8")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if not isinstance(root, yaml.MappingNode):
            raise ValueError(f"config must hold options, name: value, got {'other text' if root else 'none'} in {file}")
        if _size(root, {}) > MOST_NODES:
            raise ValueError(f"config must hold at most {MOST_NODES} values, aliases written out, got more in {file}")
    except UnicodeDecodeError as error:
        raise ValueError(f"config must be text in UTF-8, got {file} with other bytes at {error.start}") from None
    except yaml.YAMLError as error:
        raise ValueError(f"config must be YAML, got {file}: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise ValueError(f"config must be nested less deeply, got {file}") from None


def _size(node: Any, known: dict[int, int]) -> int:
    """How many values a node holds with every alias written out; refuses a key that is there twice, and a circle."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    if known.get(id(node)) == 0:
        raise ValueError(f"config must end, got an alias of itself at line {node.start_mark.line + 1}")
    if id(node) not in known:
        known[id(node)] = 0
        pairs = node.value if isinstance(node, yaml.MappingNode) else [(None, one) for one in node.value]
        keys = Counter(key.value for key, _ in pairs if isinstance(key, yaml.ScalarNode))
        twice = next((key for key, count in keys.items() if count > 1 and key != "<<"), None)
        if twice is not None:
            raise ValueError(f"{twice} must be given once in a config, got it twice at line {node.start_mark.line + 1}")
        known[id(node)] = 1 + sum(_size(one, known) for _, one in pairs)
    return known[id(node)]
