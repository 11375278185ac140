"""Where weights go and in which number format, by one rule for every command and call."""

from __future__ import annotations

import torch


def pick_device(device: torch.device | str | None) -> torch.device:
    """The device asked for; by default the GPU if there is one, else the CPU.

    Raises:
        ValueError: if there is no such device here.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    here = [
        "cpu",
        *(["cuda"] if torch.cuda.is_available() else []),
        *(["mps"] if torch.backends.mps.is_available() else []),
    ]
    try:
        found = torch.device(device)
    except RuntimeError:
        found = None
    count = torch.cuda.device_count() if found is not None and found.type == "cuda" else 1
    if found is None or found.type not in (*here, "meta") or (found.index or 0) >= count:
        raise ValueError(f"device must be one that is here ({', '.join(here)}), got {str(device)!r}")
    return found


def pick_dtype(dtype: torch.dtype | str | None, device: torch.device) -> torch.dtype | None:
    """The number format asked for; by default float32 on the CPU, and elsewhere None: the checkpoint's own.

    Raises:
        ValueError: for anything that is no floating dtype.
    """
    if dtype is None:
        return torch.float32 if device.type == "cpu" else None
    found = getattr(torch, dtype.removeprefix("torch."), None) if isinstance(dtype, str) else dtype
    if not (isinstance(found, torch.dtype) and found.is_floating_point):
        raise ValueError(f"dtype must be a floating dtype such as bfloat16, got {dtype!r}")
    return found
