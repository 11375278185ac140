"""lm-evaluation-harness on a masked diffusion model: fewer-rounds lm-eval --model_args pretrained=... --tasks gsm8k"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec

NAME = "fewer_rounds"


def lm_eval() -> None:
    """Register our model and hand the command line to the harness; bad input becomes one sentence and exit code 2."""
    if find_spec("lm_eval") is None:
        sys.stderr.write(
            'fewer-rounds lm-eval: lm_eval must be installed (pip install "fewer-rounds[eval]"), got none\n'
        )
        raise SystemExit(2)
    from lm_eval.__main__ import cli_evaluate
    from lm_eval.api.registry import model_registry

    model_registry.register(NAME, target="train.harness.model:FewerRounds")
    given = sys.argv[1:]
    if not given or given[0] in ("-h", "--help"):
        given = ["run", "--help"]
    elif given[0].startswith("-"):
        given = ["run", *given]
    if given[0] == "run" and not any(one.partition("=")[0] in ("--model", "-M", "--help", "-h") for one in given):
        given += ["--model", NAME]
        given += with_device(given)
    sys.argv = ["lm-eval", *given]
    try:
        cli_evaluate()
    except (ValueError, OSError) as error:
        if os.environ.get("TRACEBACK"):
            raise
        sys.stderr.write(f"fewer-rounds lm-eval: {' '.join(str(error).split())}\n")
        raise SystemExit(2) from None


def with_device(given: Sequence[str]) -> list[str]:
    """The option that puts the model where every command does, unless one is given: the harness says cuda:0 without a GPU too."""
    from models.devices import find_device

    told = any(one.partition("=")[0] == "--device" for one in given)
    return [] if told else ["--device", str(find_device(None))]


if __name__ == "__main__":
    lm_eval()
