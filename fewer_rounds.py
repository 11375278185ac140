"""The console script: fewer-rounds generate|compare|train|study|calibrate|profile|lm-eval, from any folder."""

import sys
from pathlib import Path


def fewer_rounds() -> None:
    """Run one of the commands; our packages come before a user's own models/ or train.py of the same names."""
    sys.path[:0] = [str(Path(__file__).resolve().parent)]
    sys.path.append(str(Path.cwd()))  # for a policy or checker of the user's own
    from train.commands.console import main

    main(sys.argv[1:])


if __name__ == "__main__":
    fewer_rounds()
