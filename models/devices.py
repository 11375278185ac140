"""Where a model runs: a device by name, refused in one sentence where there is none."""

from __future__ import annotations

import time

import torch

from models.complaints import shown
from models.ranks import launched


def find_device(device: torch.device | str | None) -> torch.device:
    """The device of a name; by default the GPU if there is one, else the CPU.

    Of several processes of a run each has a GPU of its own, the one of its number on the machine.

    Args:
        device: `cpu`, `cuda`, `cuda:1`, `mps`, ...

    Raises:
        ValueError: for a name that torch does not know, or a device that this machine does not have.
    """
    if launched().size > 1 and torch.cuda.is_available() and str(device or "cuda") == "cuda":
        return _own_gpu()
    if device is None or device == "":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.empty(1, device=found)
    except (RuntimeError, AssertionError, ImportError, TypeError):
        there = ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
        there += ["mps"] if torch.backends.mps.is_available() else []
        raise ValueError(f"device must be one of {', '.join(there)} on this machine, got {shown(device)}") from None
    if found.type == "meta":
        raise ValueError(f"device must be one that holds values, got {shown(device)}")
    return found


def _own_gpu() -> torch.device:
    """The GPU of this process among those of its machine."""
    local, there = launched().local, torch.cuda.device_count()
    if local >= there:
        raise ValueError(f"processes on a machine must be at most its GPUs ({there}), got number {local + 1}")
    torch.cuda.set_device(local)
    return torch.device(f"cuda:{local}")


def now(device: torch.device) -> float:
    """Seconds of a clock, read once the device has done its work; only differences mean anything."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def lightning_devices(device: torch.device) -> int | list[int]:
    """What a Lightning trainer is told so that it runs on a device that a model is on."""
    return 1 if device.index is None else [device.index]


def find_dtype(dtype: torch.dtype | str | None, device: torch.device) -> torch.dtype | None:
    """The number format of a name; by default float32 on the CPU, and elsewhere None: the checkpoint's own.

    Raises:
        ValueError: for anything that is no floating dtype.
    """
    if dtype is None:
        return torch.float32 if device.type == "cpu" else None
    found = getattr(torch, dtype.removeprefix("torch."), None) if isinstance(dtype, str) else dtype
    if not (isinstance(found, torch.dtype) and found.is_floating_point):
        raise ValueError(f"dtype must be a floating dtype such as float32, bfloat16 or float16, got {shown(dtype)}")
    return found
