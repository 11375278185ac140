"""The properties of tests/properties in the gate: a few hundred cases; `make fuzz` tries many more of the same."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILES = ("test_damaged_files.py", "test_generate.py", "test_long_values.py", "test_readers.py")


def test_every_file_of_properties_runs():
    assert tuple(sorted(path.name for path in (ROOT / "tests/properties").glob("test_*.py"))) == FILES


def test_properties_hold():
    options = ["-q", "-x", "-o", "addopts=--import-mode=importlib", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", *options, *(f"tests/properties/{name}" for name in FILES)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-4000:]
    assert " passed" in done.stdout
