"""Where a number comes from: what stands beside every result."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shlex
import subprocess
import sys
from dataclasses import asdict
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from decoding.files.aside import written_aside
from models.checkpoints.files import combine, digest


def write_json(file: Path, value: Any, *, allow_nan: bool = True) -> None:
    """Write a result as JSON, aside and renamed: what stood there before is whole or gone, never half.

    Args:
        file: where it goes; its folder is made.
        value: what `json` can write.
        allow_nan: let NaN through, which is no JSON.

    Raises:
        ValueError: for NaN where it is not allowed.
    """
    write_text(file, json.dumps(value, indent=1, allow_nan=allow_nan) + "\n")


def write_text(file: Path, text: str) -> None:
    """Write a text file aside and rename it; its folder is made."""
    with written_aside(file) as aside:
        aside.write_text(text, encoding="utf-8")


def environment(*, device: torch.device, seed: int) -> dict[str, Any]:
    """Command, commit, seed, device and library versions of this process.

    Args:
        device: where the models run.
        seed: of the run.
    """
    return {
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "commit": commit(),
        "seed": seed,
        "device": device_name(device),
        "versions": {
            "python": platform.python_version(),
            **{name: installed(name) for name in ("torch", "transformers")},
        },
    }


def commit() -> str | None:
    """The commit this code was taken from, with `+` where files were changed since.

    A copy without its history says what the environment variable COMMIT says, or None.
    """
    here = Path(__file__).resolve().parents[1]
    if not (here / ".git").exists():
        return os.environ.get("COMMIT")
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--abbrev=12", "--exclude=*", "--dirty=+"],
            cwd=here,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return described.stdout.strip()


@cache
def code() -> str:
    """Hash of the source of `decoding` and `models`: figures of different code are not to be mixed."""
    here = Path(__file__).resolve().parents[1]
    files = sorted(path for package in ("decoding", "models") for path in (here / package).rglob("*.py"))
    return hashlib.blake2b(b"\0".join(path.read_bytes() for path in files), digest_size=8).hexdigest()


def head_fingerprint(head: Any) -> str:
    """Hash of the weights of a scoring head, and of what is trusted of it and how it decodes by default."""
    weights = {name: digest(name, tensor) for name, tensor in head.state_dict().items()}
    trust = [head.config.trust, head.cascade and [head.cascade.config.foretold, head.cascade.config.seen]]
    said = json.dumps([trust, head.defaults and asdict(head.defaults)]).encode()
    return combine({**weights, "said": hashlib.sha256(said).digest()})


def weights_of(denoiser: Any) -> dict[str, str | None]:
    """Fingerprints of a model's weights, with what an adapter changes of them, and of its scoring head: folders may get others."""
    head = denoiser.head
    return {"weights": denoiser.fingerprint(), "head_weights": None if head is None else head_fingerprint(head)}


def dtype_name(model: nn.Module) -> str:
    """Number format of a model's weights; "" where it has none."""
    return next((str(weight.dtype) for weight in model.parameters()), "")


def device_name(device: torch.device) -> str:
    """The GPU's name, or the CPU's architecture and the threads in use."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} ({platform.machine()}, {torch.get_num_threads()} threads)"


def installed(package: str) -> str | None:
    """Version of a package, None where it is absent."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
