"""How a command starts: its arguments are read off one typed function, and bad input is told in one sentence."""

from __future__ import annotations

import argparse
import inspect
import os
import re
import sys
from collections.abc import Callable, Sequence, Set
from itertools import zip_longest
from pathlib import Path

from jsonargparse import ArgumentParser

DATA = Path(__file__).resolve().parents[1] / "_data"  # only in the wheel


def parser_of(function: Callable[..., object], *, skip: Set[str] = frozenset()) -> ArgumentParser:
    """Options from the signature and docstring of a function, and `--config` for a YAML that holds any of them."""
    parser = ArgumentParser(prog=f"{function.__name__}.py", description=_summary(function), exit_on_error=False)
    parser.add_argument("--config", action="config", help="YAML with any of these options")
    parser.add_function_arguments(function, as_positional=False, skip=set(skip))
    return parser


def run(
    function: Callable[..., object],
    arguments: Sequence[str] | None = None,
    *,
    default_config: str | None = None,
    positional: str | None = None,
) -> None:
    """Run a command: parse, save the resolved options in its `out` folder where it has one, call; an `estimate` saves nothing.

    A ValueError or OSError becomes one sentence on stderr and exit code 2; with TRACEBACK=1 in the environment it stays as it is.

    Args:
        function: the command; its heavy imports stand inside it, after whatever can be judged without them.
        arguments: the command line, by default that of the process.
        default_config: the config that ships with the project and is read where none is named; `{NAME}` in it stands for the
            value of the positional parameter, and there need be no such file.
        positional: the parameter whose value may come first without its name.
    """
    try:
        parser = parser_of(function)
        given = with_flags(function, sys.argv[1:] if arguments is None else arguments)
        if positional is not None and given and not given[0].startswith("-"):
            default_config = default_config and default_config.replace(f"{{{positional}}}", given[0])
            given = [f"--{positional}={given[0]}", *given[1:]]
        named = any(one.startswith("--config") for one in given)
        if default_config is not None and not named and (positional is None or shipped(default_config).is_file()):
            given = ["--config", str(shipped(default_config)), *given]
        options = parser.parse_args(given)
        if options.get("out") is not None and not options.get("estimate"):
            out = Path(options.out)
            out.mkdir(parents=True, exist_ok=True)
            parser.save(options, out / f"{function.__name__}.yaml", overwrite=True)
        values = parser.instantiate(options).as_dict()
        function(**{name: value for name, value in values.items() if name != "config"})
    except (ValueError, OSError, argparse.ArgumentError) as error:
        if os.environ.get("TRACEBACK"):
            raise
        sys.stderr.write(f"{function.__name__}.py: {sentence(error, function)}\n")
        raise SystemExit(2) from None


def sentence(error: Exception, function: Callable[..., object]) -> str:
    """The error on one line; a value of the wrong type by name, type and value."""
    text = " ".join(str(error).split())
    named = re.match(r'Parser key "(\w+)": .*(?:Given|Got) value: (.*)', text)
    parameter = inspect.signature(function).parameters.get(named[1]) if named else None
    if named is None or parameter is None:
        return text
    return f"{named[1]} must be {inspect.formatannotation(parameter.annotation)}, got {named[2]!r}"


def with_flags(function: Callable[..., object], arguments: Sequence[str]) -> list[str]:
    """The command line with `--name` of a parameter that is False by default written as `--name=true`, `--a-name` as `--a_name`."""
    names = {f"--{name}".replace("_", "-"): f"--{name}" for name in inspect.signature(function).parameters}
    split = [one.partition("=") for one in arguments]
    arguments = [names.get(name, name) + equals + value for name, equals, value in split]
    flags = {f"--{name}" for name, value in inspect.signature(function).parameters.items() if value.default is False}
    after = zip_longest(arguments, arguments[1:], fillvalue="--")
    return [f"{this}=true" if this in flags and following.startswith("--") else this for this, following in after]


def shipped(path: str) -> Path:
    """Where a file that ships with the project lies: in the source tree, or among the package data of an installed wheel."""
    return DATA / path if DATA.is_dir() else DATA.parents[1] / path


def _summary(function: Callable[..., object]) -> str:
    return (function.__doc__ or "").strip().partition("\n\n")[0]
