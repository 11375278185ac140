"""How a command starts: its arguments are read off one typed function, and bad input is told in one sentence."""

from __future__ import annotations

import argparse
import contextlib
import inspect
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence, Set
from contextvars import ContextVar
from itertools import zip_longest
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml
from jsonargparse import ArgumentParser, DefaultHelpFormatter

from decoding.files.aside import written_aside
from decoding.files.folder_lock import discard_new, first_missing, hold_folder
from decoding.names import nearest
from models.complaints import cut, shown
from models.ranks import find_ranks
from train.commands.answering.memory import is_want_of_memory
from train.commands.interruption import Interrupted, interruptible
from train.commands.options.nulls import refuse_nulls
from train.commands.options.seeds import check_seeds, tell_range
from train.commands.options.spelling import settings_help, several, spread
from train.commands.raw_arguments import check_arguments, check_configs, forget_launcher

DATA = Path(__file__).resolve().parents[1] / "_data"  # only in the wheel
NOTHING_KEPT = "nothing is kept: start it again"
FILES = (".jsonl",)  # an `out` that ends so is a file, no folder that keeps the options beside the results
LONGEST = 1000  # letters of a complaint
GOES_ON = "what is done is kept in {out}: the same command goes on from there"

READER_LEFT = 141  # exit code where who reads standard output has closed it, as `head` does

_keep: ContextVar[Callable[[], None] | None] = ContextVar("keep", default=None)
_typed: ContextVar[str] = ContextVar("typed", default="")


def parser_of(function: Callable[..., object], *, skip: Set[str] = frozenset(), closing: str = "") -> ArgumentParser:
    """Options from the signature and docstring of a function, and `--config` for a YAML that holds any of them.

    Names are not abbreviated. A value of a text option is taken as it is, where jsonargparse reads `null`, `~` and `# ...` as None.

    Args:
        function: the command.
        skip: parameters that are no options.
        closing: what the help says last, line by line.
    """
    parser = ArgumentParser(
        prog=prog_of(function),
        description=_summary(function),
        epilog=closing,
        formatter_class=_Help,
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument("--config", action="config", help="YAML with any of these options")
    parser.add_function_arguments(function, as_positional=False, skip=set(skip))
    for action in parser._actions:
        if getattr(action, "_typehint", None) == str | None:
            action._typehint = str  # type: ignore[attr-defined]
    tell_range(parser._actions)
    return parser


def run(
    function: Callable[..., object],
    arguments: Sequence[str] | None = None,
    *,
    default_config: str | None = None,
    positional: str | None = None,
    kept: str = NOTHING_KEPT,
    shared: bool = False,
) -> None:
    """Run a command: parse, hold its `out` folder where it has one, call it, and save the resolved options there.

    The options are saved when the command says that everything is judged (`keep_options`), at the latest at its end; a refused
    call and an `estimate` save nothing and leave no folder behind. A ValueError or OSError becomes one sentence on stderr and
    exit code 2; with TRACEBACK=1 in the environment it stays as it is. Ctrl-C becomes one line and exit code 130, SIGTERM 143.
    Where the reader of standard output has left, the command ends without a word, with exit code 141.

    Args:
        function: the command; its heavy imports stand inside it, after whatever can be judged without them.
        arguments: the command line, by default that of the process.
        default_config: the config that ships with the project and is read where none is named; `{NAME}` in it stands for the
            value of the positional parameter, and there need be no such file.
        positional: the parameter whose value may come first without its name.
        kept: what an interrupted command leaves, and how to go on; `{out}` stands for its folder.
        shared: several calls may write to `out`, which the command holds itself, part by part; options are not saved there.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    options: dict[str, Any] = {}
    try:
        with interruptible():
            _write_anything()
            parser, namespace = _parse(function, given, default_config=default_config, positional=positional)
            options |= namespace.as_dict()
            values = parser.instantiate(namespace).as_dict()
            holding = contextlib.nullcontext() if shared else _holding(function, parser, namespace)
            with holding, _said_once(), _memory_told():
                function(**{name: value for name, value in values.items() if name != "config"})
            sys.stdout.flush()
    except Interrupted as stopped:
        out = options.get("out")
        said = NOTHING_KEPT if out is None or not Path(out).exists() else kept.format(out=out)
        sys.stderr.write(f"{prog_of(function)}: {stopped}, {said}\n")
        raise SystemExit(stopped.exit_code) from None
    except BrokenPipeError:
        _write_nowhere()
        raise SystemExit(READER_LEFT) from None
    except _refusals() as error:
        if os.environ.get("TRACEBACK"):
            raise
        sys.stderr.write(f"{prog_of(function)}: {sentence(error, function)}\n")
        raise SystemExit(2) from None


def keep_options() -> None:
    """Write the options of the running command into its folder: called once everything about them is judged."""
    keep = _keep.get()
    if keep is not None and find_ranks().first:
        keep()


def _parse(
    function: Callable[..., object], given: list[str], *, default_config: str | None, positional: str | None
) -> tuple[ArgumentParser, Any]:
    """The parser of a command and what it makes of the command line, the default config read first."""
    forget_launcher()
    check_arguments(given, several(function))
    closing = settings_help(function, given)
    if positional is not None and given and not given[0].startswith("-"):
        default_config = default_config and default_config.replace(f"{{{positional}}}", given[0])
        given = [f"--{positional}={given[0]}", *given[1:]]
    given = with_flags(function, spread(function, given))
    named = any(one.partition("=")[0] == "--config" for one in given)
    if default_config is not None and not named and (positional is None or shipped(default_config).is_file()):
        given = ["--config", str(shipped(default_config)), *given]
    check_configs(given)
    parser = parser_of(function, closing=closing)
    namespace = parser.parse_args(given)
    refuse_nulls(function, vars(namespace))
    check_seeds(namespace)
    return parser, namespace


@contextlib.contextmanager
def _holding(function: Callable[..., object], parser: ArgumentParser, options: Any) -> Iterator[None]:
    """Hold the command's folder, and keep its options there once it says so or is done."""
    if options.get("out") is None or options.get("estimate") or str(options.out).endswith(FILES):
        yield
        return
    if not str(options.out).strip():
        raise ValueError(f"out must be a folder, got {shown(str(options.out))}")
    out = Path(options.out)
    made = first_missing(out)
    with hold_folder(out):
        token = _keep.set(lambda: _save(parser, options, out / f"{function.__name__}.yaml"))
        try:
            yield
            keep_options()
        except BaseException:
            if find_ranks().first:
                discard_new(out, made)
            raise
        finally:
            _keep.reset(token)


@contextlib.contextmanager
def _memory_told() -> Iterator[None]:
    """Turn torch's error for want of memory into a MemoryError, which is told in one sentence."""
    try:
        yield
    except RuntimeError as error:
        if not is_want_of_memory(error):
            raise
        raise MemoryError(f"sizes must fit the memory there is, got: {error}") from error


@contextlib.contextmanager
def _said_once() -> Iterator[None]:
    """Of several processes of a run the first alone writes to standard output."""
    with contextlib.ExitStack() as stack:
        if not find_ranks().first:
            stack.enter_context(contextlib.redirect_stdout(stack.enter_context(open(os.devnull, "w"))))
        yield


def _save(parser: ArgumentParser, options: Any, file: Path) -> None:
    """Write options aside and rename them; a text that looks like a number is quoted, which PyYAML forgets for 1e3."""
    known = json.loads(parser.dump(options, format="json"))
    with written_aside(file) as aside:
        aside.write_text(yaml.dump(known, Dumper=_Quoting, sort_keys=False, allow_unicode=True), encoding="utf-8")


class _Quoting(yaml.SafeDumper):
    """Writes every text that holds a digit in quotes."""


_Quoting.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style="'" if any(map(str.isdigit, text)) else None
    ),
)


def _write_anything() -> None:
    """Let a terminal of fewer letters show others by their number, in place of an error."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError, OSError):  # a stand-in for a stream, or a closed one
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def _write_nowhere() -> None:
    """Let what is left in the buffer of standard output go nowhere, where the interpreter would complain at its end."""
    with contextlib.suppress(AttributeError, ValueError, OSError):  # a stand-in for a stream
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _refusals() -> tuple[type[Exception], ...]:
    """What is told in one sentence."""
    known = (ValueError, OSError, MemoryError, argparse.ArgumentError)
    safetensors = sys.modules.get("safetensors")  # its error, of a full disk too, is neither ValueError nor OSError
    return known if safetensors is None else (*known, safetensors.SafetensorError)


def sentence(error: Exception, function: Callable[..., object]) -> str:
    """The error on one line of at most LONGEST letters; a value of the wrong type by name, type and value."""
    text = " ".join(str(error).split()) or type(error).__name__
    named = re.match(r'Parser key "(\w+)": .*(?:Given|Got) value: (.*)', text)
    parameter = inspect.signature(function).parameters.get(named[1]) if named else None
    if named is None or parameter is None:
        return cut(text, LONGEST)
    kind = parameter.annotation
    kind = get_type_hints(function)[named[1]] if isinstance(kind, str) else kind
    values = _values_of(kind)
    rule = f"one of {', '.join(values)}" if values else inspect.formatannotation(kind)
    return f"{named[1]} must be {rule}, got {shown(named[2])}{nearest(named[2], values)}"


def _values_of(hint: Any) -> tuple[str, ...]:
    """The values that a type names one by one, alone or beside None; () where it does not."""
    if get_origin(hint) is Literal:
        return tuple(map(str, get_args(hint)))
    kinds = [one for one in get_args(hint) if one is not type(None)]
    return _values_of(kinds[0]) if len(kinds) == 1 and get_origin(hint) in (Union, UnionType) else ()


def with_flags(function: Callable[..., object], arguments: Sequence[str]) -> list[str]:
    """The command line with `--name` of a parameter that is False by default written as `--name=true`, `--a-name` as `--a_name`."""
    names = {f"--{name}".replace("_", "-"): f"--{name}" for name in inspect.signature(function).parameters}
    split = [one.partition("=") for one in arguments]
    arguments = [names.get(name, name) + equals + value for name, equals, value in split]
    flags = {f"--{name}" for name, value in inspect.signature(function).parameters.items() if value.default is False}
    after = zip_longest(arguments, arguments[1:], fillvalue="--")
    return [f"{this}=true" if this in flags and following.startswith("--") else this for this, following in after]


def prog_of(function: Callable[..., object]) -> str:
    """What a user types: the console script and the name of a command, or a file of the source tree."""
    return _typed.get() or f"{function.__name__}.py"


@contextlib.contextmanager
def typed_as(name: str) -> Iterator[None]:
    """Let help and complaints of a command begin with what was typed to start it."""
    token = _typed.set(name)
    try:
        yield
    finally:
        _typed.reset(token)


def shipped(path: str) -> Path:
    """Where a file that ships with the project lies: in the source tree, or among the package data of an installed wheel."""
    return DATA / path if DATA.is_dir() else DATA.parents[1] / path


class _Help(argparse.RawDescriptionHelpFormatter, DefaultHelpFormatter):
    """Keeps the lines of the closing part."""


def _summary(function: Callable[..., object]) -> str:
    return (function.__doc__ or "").strip().partition("\n\n")[0]
