"""One console script for all commands: `fewer-rounds NAME ...` runs what `python NAME.py ...` runs in the source tree."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from decoding.names import nearest
from train.commands.command_line import shipped, typed_as

FILES = ("generate", "compare", "train", "study", "calibrate")
MODULES = {
    "profile": ("train.head_cost", "what a round costs, with and without a scoring head"),
    "report": ("train.report", "write report.html of a finished comparison"),
    "lm-eval": ("train.harness", "lm-evaluation-harness on a masked diffusion language model"),
    "fit-cascade": ("train.cascade", "give a scoring head its cascade"),
    "compact": ("train.compact", "make a scoring head small"),
    "recipe": ("train.recipe", "a head from prompts to scores by one config"),
    "push": ("train.hub.push", "put a scoring head on the hub"),
    "pull": ("train.hub.pull", "copy a scoring head from the hub"),
}
"""Commands that have no file of their own at the top: name -> module, and what it does."""


def main(arguments: Sequence[str]) -> None:
    """Run the command that comes first with the rest of the arguments.

    Raises:
        SystemExit: 2 for an unknown command, 0 after the list of commands; else as the command ends.
    """
    name, rest = (arguments[0] if arguments else "--help"), list(arguments[1:])
    if name in ("-h", "--help", "help"):
        sys.stdout.write(usage())
        raise SystemExit(0)
    if name == "--version":
        sys.stdout.write(f"{_version()}\n")
        raise SystemExit(0)
    if name not in (*FILES, *MODULES):
        known = ", ".join((*FILES, *MODULES))
        sys.stderr.write(
            f"fewer-rounds: command must be one of {known}, got {name!r}{nearest(name, (*FILES, *MODULES))}\n"
        )
        raise SystemExit(2)
    with typed_as(f"fewer-rounds {name}"):
        if name in FILES:
            file = str(shipped(f"{name}.py"))
            sys.argv = [file, *rest]
            runpy.run_path(file, run_name="__main__")
        else:
            sys.argv = [name, *rest]
            runpy.run_module(MODULES[name][0], run_name="__main__", alter_sys=True)


def usage() -> str:
    """The commands, a line each, with the first line of what their files say."""
    said = {name: shipped(f"{name}.py").read_text(encoding="utf-8").partition('"""')[2] for name in FILES}
    lines = {name: text.partition(":")[0].partition("\n")[0] for name, text in said.items()}
    lines |= {name: about for name, (_, about) in MODULES.items()}
    body = "\n".join(f"  {name:14} {line}" for name, line in lines.items())
    return f"usage: fewer-rounds COMMAND [OPTIONS]\n\n{body}\n\nfewer-rounds COMMAND --help says more\n"


def _version() -> str:
    try:
        return version("fewer-rounds")
    except PackageNotFoundError:
        return "not installed"
