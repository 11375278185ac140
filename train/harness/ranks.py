"""Several processes of one evaluation, as a launcher starts them (`torchrun`, `accelerate launch`)."""

from __future__ import annotations

import os
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor


class Ranks:
    """This process among those of its launcher; alone where there is none.

    Attributes:
        rank: of this process.
        size: number of processes.
    """

    def __init__(self) -> None:
        self.rank, self.size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        if self.size > 1 and not dist.is_initialized():
            dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")

    def device(self, named: str | None) -> str | None:
        """The device named, else the GPU of this process among those of the machine."""
        if named not in (None, "cuda") or not torch.cuda.is_available() or self.size == 1:
            return named
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        torch.cuda.set_device(device)
        return device

    def all_gather(self, tensor: Tensor) -> Tensor:
        """The tensors of all processes, one after the other."""
        if self.size == 1:
            return tensor
        found = [torch.zeros_like(tensor) for _ in range(self.size)]
        dist.all_gather(found, tensor)
        return torch.stack(found).flatten() if tensor.ndim == 0 else torch.cat(found)

    def gather_object(self, value: Any, dst: int = 0) -> list[Any] | None:
        """The values of all processes at one of them, None elsewhere."""
        if self.size == 1:
            return [value]
        found: list[Any] | None = [None] * self.size if self.rank == dst else None
        dist.gather_object(value, found, dst=dst)
        return found

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.size > 1:
            cast(Any, dist).barrier()
