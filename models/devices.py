"""Where a model runs: a device by name, refused in one sentence where there is none."""

from __future__ import annotations

import torch


def find_device(device: torch.device | str | None) -> torch.device:
    """The device of a name; by default the GPU if there is one, else the CPU.

    Args:
        device: `cpu`, `cuda`, `cuda:1`, `mps`, ...

    Raises:
        ValueError: for a name that torch does not know, or a device that this machine does not have.
    """
    if device is None or device == "":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.empty(1, device=found)
    except (RuntimeError, AssertionError, ImportError, TypeError):
        there = ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
        there += ["mps"] if torch.backends.mps.is_available() else []
        raise ValueError(f"device must be one of {', '.join(there)} on this machine, got {device!r}") from None
    if found.type == "meta":
        raise ValueError(f"device must be one that holds values, got {device!r}")
    return found
