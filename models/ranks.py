"""One process among those that a launcher started for a run (`torchrun`, `accelerate launch`), or one that runs alone.

Imports torch only where processes talk, so that a command line is judged without it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from torch import Tensor, nn

VARIABLES = (
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
    "MASTER_ADDR",
)  # of the environment; all are set, or a process runs alone
PATIENCE = timedelta(days=2)  # of a process that waits for others; a launcher ends all where one fails

T = TypeVar("T")

_alone: ContextVar[bool] = ContextVar("alone", default=False)


def is_distributed() -> bool:
    """Whether a launcher started this process as one of several."""
    return all(os.environ.get(name) for name in VARIABLES)


def find_ranks() -> Ranks:
    """This process among the others of its run.

    Raises:
        ValueError: for numbers in the environment that no launcher sets.
    """
    return Ranks() if _alone.get() else launched()


def launched() -> Ranks:
    """The same, also within `alone`."""
    if not is_distributed():
        return Ranks()
    try:
        rank, size, local = (int(os.environ[name]) for name in VARIABLES[:3])
    except ValueError:
        said = ", ".join(f"{name}={os.environ[name]}" for name in VARIABLES[:3])
        raise ValueError(f"RANK, WORLD_SIZE and LOCAL_RANK must be whole numbers, got {said}") from None
    if not 0 <= rank < size or local < 0:
        raise ValueError(f"RANK must be at least 0 and below WORLD_SIZE, got {rank} of {size} (LOCAL_RANK {local})")
    return Ranks(rank, size, local)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Within the block this process runs by itself: for what one process does while the others wait."""
    token = _alone.set(True)
    try:
        yield
    finally:
        _alone.reset(token)


def by_the_first(call: Callable[[], T]) -> T | None:
    """What the first process gives, by itself, while all others wait until it is done; None at those."""
    ranks, found = find_ranks(), None
    if ranks.first:
        with alone():
            found = call()
    ranks.barrier()
    return found


def the_first_before(call: Callable[[], T]) -> T:
    """The same call at all processes, the others once the first has left in files what it found out."""
    ranks = find_ranks()
    if not ranks.first:
        ranks.barrier()
    with alone():
        found = call()
    if ranks.first:
        ranks.barrier()
    return found


@dataclass(frozen=True)
class Ranks:
    """A process among those of its run; every method but `mine` is called by all of them, in the same order.

    Attributes:
        rank: of this process, from 0.
        size: number of processes.
        local: number of this process on its machine, and of its GPU.
    """

    rank: int = 0
    size: int = 1
    local: int = 0

    @property
    def first(self) -> bool:
        """Whether this process writes what there is one of."""
        return self.rank == 0

    def mine(self, items: Sequence[T]) -> Sequence[T]:
        """Every size-th of the items, from the rank on."""
        return items[self.rank :: self.size]

    def barrier(self) -> None:
        """Wait for all processes."""
        self.gather(None)

    def decide(self, value: T) -> T:
        """The value of the first process, at all."""
        if self.size == 1:
            return value
        box = [value]
        self._talk().broadcast_object_list(box, src=0)
        return box[0]

    def gather(self, value: T) -> list[T]:
        """The values of all processes in their order, at all."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        self._talk().all_gather_object(found, value)
        return found

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, without a gradient."""
        total = tensor.detach().clone()
        if self.size > 1:
            self._talk().all_reduce(total)
        return total

    def sum_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Put the sum over all processes in place of every gradient; one that none of them has stays away."""
        if self.size == 1:
            return
        import torch

        fitted = [p for p in parameters if p.requires_grad]
        for dtype in dict.fromkeys(p.dtype for p in fitted):
            some = [p for p in fitted if p.dtype == dtype]
            there = torch.tensor([p.grad is not None for p in some], dtype=dtype, device=some[0].device)
            parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in some]
            total = self.sum(torch.cat([there, *(part.flatten() for part in parts)]))
            has = (total[: len(some)] > 0).tolist()
            for p, sent, value in zip(
                some, has, torch.split(total[len(some) :], [p.numel() for p in some]), strict=True
            ):
                p.grad = value.view_as(p).clone() if sent else None

    def equalise(self, tensors: Iterable[Tensor]) -> None:
        """Put the values of the first process in place of everyone's own."""
        if self.size > 1:
            for tensor in tensors:
                self._talk().broadcast(tensor.detach(), src=0)

    def equalise_fitted(self, module: nn.Module) -> None:
        """The same for what is fitted of a module, and its buffers; what stays as it is, is left alone."""
        self.equalise([*(p for p in module.parameters() if p.requires_grad), *module.buffers()])

    def _talk(self) -> Any:
        """torch.distributed, the group of all processes made at the first use."""
        import torch
        import torch.distributed as dist

        if not dist.is_initialized():
            on_gpu = torch.cuda.is_available() and self.local < torch.cuda.device_count()
            if on_gpu:
                torch.cuda.set_device(self.local)
            backend = "cpu:gloo,cuda:nccl" if on_gpu else "gloo"
            dist.init_process_group(backend, rank=self.rank, world_size=self.size, timeout=PATIENCE)
        return dist
