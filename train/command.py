"""How a command starts: its arguments are read off one typed function, and bad input is told in one sentence."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from jsonargparse import ArgumentParser

DATA = Path(__file__).resolve().parent / "_data"  # only in the wheel


def parser_of(function: Callable[..., object]) -> ArgumentParser:
    """Options from the signature and docstring of a function, and `--config` for a YAML that holds any of them."""
    parser = ArgumentParser(prog=f"{function.__name__}.py", description=_summary(function), exit_on_error=False)
    parser.add_argument("--config", action="config", help="YAML with any of these options")
    parser.add_function_arguments(function, as_positional=False)
    return parser


def run(function: Callable[..., object], arguments: Sequence[str] | None = None) -> None:
    """Run a command: parse, save the resolved options in its `out` folder where it has one, call.

    A ValueError or OSError becomes one sentence on stderr and exit code 2; with TRACEBACK=1 in the environment it stays as it is.

    Args:
        function: the command; its heavy imports stand inside it, after whatever can be judged without them.
        arguments: the command line, by default that of the process.
    """
    try:
        parser = parser_of(function)
        options = parser.parse_args(arguments)
        if options.get("out") is not None:
            out = Path(options.out)
            out.mkdir(parents=True, exist_ok=True)
            parser.save(options, out / f"{function.__name__}.yaml", overwrite=True)
        values = parser.instantiate_classes(options).as_dict()
        function(**{name: value for name, value in values.items() if name != "config"})
    except (ValueError, OSError, argparse.ArgumentError) as error:
        if os.environ.get("TRACEBACK"):
            raise
        sys.stderr.write(f"{function.__name__}.py: {' '.join(str(error).split())}\n")
        raise SystemExit(2) from None


def shipped(path: str) -> Path:
    """Where a file that ships with the project lies: in the source tree, or among the package data of an installed wheel."""
    return DATA / path if DATA.is_dir() else DATA.parents[1] / path


def _summary(function: Callable[..., object]) -> str:
    return (function.__doc__ or "").strip().partition("\n\n")[0]
