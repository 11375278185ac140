"""Integer sums over the stored bytes of tensors, taken where the tensors are, and the check that every value is finite."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from functools import lru_cache

import torch
from jaxtyping import Int
from torch import Tensor

from models.checkpoints.config_numbers import CheckpointError
from models.checkpoints.manifest import MANIFEST

ROW = 1 << 13  # words of 8 bytes
WORDS_AT_ONCE = 1 << 24  # on a device that multiplies before it adds
LARGEST = 1e18  # of a base's weight: the norms square what a layer adds up, and float32 ends at 3.4e38
MIX = (-7046029254386353131, -4658895280553007687)  # odd constants of splitmix64


@lru_cache(maxsize=8)
def factors(count: int, start: int, device: str) -> Int[Tensor, " n"]:
    """`count` odd 64-bit factors, scattered by splitmix64's constants: no two places share one."""
    place = torch.arange(start, start + count, device=device)
    mixed = place * MIX[0]
    mixed = (mixed ^ (mixed >> 29)) * MIX[1]
    return mixed | 1


def byte_sum(tensor: Tensor) -> Int[Tensor, ""]:
    """sum_{r,j} a_r b_j w_rj mod 2^64 over the 8-byte words of a tensor, in rows of 2^13; the same on every device.

    a and b are odd, so that any change within one word changes the sum, and no two words can change places.
    """
    flat = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    whole = flat.numel() // (8 * ROW) * (8 * ROW)
    tail = torch.nn.functional.pad(flat[whole:], (0, -(flat.numel() - whole) % (8 * ROW)))
    total = torch.zeros((), dtype=torch.int64, device=flat.device)
    for start, part in ((0, flat[:whole]), (whole // (8 * ROW), tail)):
        words = part.view(torch.int64).view(-1, ROW)
        weights = factors(ROW, 1, str(flat.device))
        at_once = len(words) if flat.device.type == "cpu" else max(1, WORDS_AT_ONCE // ROW)
        for number, rows in enumerate(torch.split(words, at_once) if len(words) else ()):
            sums = torch.mv(rows, weights) if rows.device.type == "cpu" else (rows * weights).sum(1)
            place = factors_from(len(rows), ROW + 1 + start + number * at_once, flat.device)
            total = total + (sums * place).sum()
    return total


def factors_from(count: int, start: int, device: torch.device) -> Int[Tensor, " n"]:
    """The same factors without keeping them."""
    return factors.__wrapped__(count, start, str(device))


def spelled(sums: Mapping[str, Tensor]) -> dict[str, str]:
    """The sums as 16 hexadecimal digits, read from the device at once."""
    if not sums:
        return {}
    values = torch.stack(list(sums.values())).tolist()
    return {name: f"{value % 2**64:016x}" for name, value in zip(sums, values, strict=True)}


def fingerprint_of(sums: Mapping[str, str], dtypes: Iterable[torch.dtype]) -> str:
    """One fingerprint of all stored bytes: number format and sha256 over names and sums; comparable within a format."""
    kinds = "+".join(sorted({str(dtype).removeprefix("torch.") for dtype in dtypes}))
    text = "".join(f"{name}={sums[name]};" for name in sorted(sums))
    return f"{kinds}:{hashlib.sha256(text.encode()).hexdigest()}"


def check_sums(found: Mapping[str, str], saved: Mapping[str, str], where: object) -> None:
    """Refuse tensors whose bytes are not those that were saved.

    Raises:
        CheckpointError: naming the first of them.
    """
    for name, value in found.items():
        if saved.get(name) != value:
            raise CheckpointError(
                f"{name} of {where} must be as it was saved ({MANIFEST} holds its sum), got other bytes: damaged or changed"
            )


class FiniteCheck:
    """Says which tensor holds a NaN, an infinity or a value too large to compute with, with one wait for the device for all.

    Args:
        largest: size of the largest value that passes.
    """

    def __init__(self, largest: float = torch.inf) -> None:
        self.largest = largest
        self.sums: dict[str, Tensor] = {}

    def add(self, name: str, tensor: Tensor) -> None:
        """Take the sum, which is finite only where every value is (or the sum overflows, which `finish` tells apart)."""
        if tensor.is_floating_point() and tensor.numel():
            self.sums[name] = (
                tensor.detach().sum(dtype=torch.float32 if tensor.dtype == torch.float16 else None).float()
            )

    def finish(self, tensors: Mapping[str, Tensor], where: object) -> None:
        """Refuse the first tensor with a value that is none.

        Raises:
            CheckpointError: naming it.
        """
        if not self.sums:
            return
        found = torch.stack(list(self.sums.values()))
        sound = (found.isfinite() & (found.abs() <= self.largest)).tolist()
        for name in (name for name, good in zip(self.sums, sound, strict=True) if not good):
            strange = ~tensors[name].detach().isfinite()
            if bool(strange.any()):
                value = float(tensors[name].detach()[strange][0])
                raise CheckpointError(f"{name} of {where} must hold finite numbers, got {value} in it")
            most = float(tensors[name].detach().abs().max())
            if most > self.largest:
                rule = f"must hold numbers of at most {self.largest:g} in size"
                raise CheckpointError(f"{name} of {where} {rule}, got {most:g} in it: the weight is damaged")


def check_finite(tensors: Mapping[str, Tensor], where: object) -> None:
    """Refuse tensors with a NaN or an infinity.

    Raises:
        CheckpointError: naming the first of them.
    """
    check = FiniteCheck()
    for name, tensor in tensors.items():
        check.add(name, tensor)
    check.finish(tensors, where)
