"""Numbers for what a module holds: the same one as long as no weight, buffer, config or part has changed, found fast."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import chain, count
from operator import is_
from typing import Any, final
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from models.engine.weights import parts_of, version_of

_NUMBERS = count(1)
ABSENT: Any = object()
ASIDE = ("config", "folded")  # what a part holds beside its tensors and parts


@final
class Snapshot:
    """What a module held when it was last gone through.

    A call asks for it before its first round, and going through a head of some 500 modules takes milliseconds. As long as
    every part holds the very objects that it held, only the tensors themselves can have changed, and these are few.
    A part without any tensor or part of its own is not asked whether it has got one.

    Args:
        module: whose state it is.

    Attributes:
        state: `version_of` the module.
    """

    def __init__(self, module: nn.Module) -> None:
        self.state = version_of(module)
        parts = parts_of(module)
        every = (held for part in parts for held in (part._parameters, part._buffers, part._modules))
        self._dictionaries: list[dict[str, Any]] = [held for held in every if held]
        self._asides = [vars(part) for part in parts if any(name in vars(part) for name in ASIDE)]
        self._held, self._beside = _values(self._dictionaries), self._now_beside()
        tensors = [value for value in self._held if isinstance(value, Tensor)]
        self._tensors = list({id(tensor): tensor for tensor in tensors}.values())
        self._written = [tensor for tensor in self._tensors if not tensor.is_inference()]
        self._stamps = self._now()

    def stands(self) -> bool:
        """Whether the module still holds the same."""
        held, beside = _values(self._dictionaries), self._now_beside()
        return _same(held, self._held) and _same(beside, self._beside) and self._now() == self._stamps

    def _now(self) -> list[int]:
        return [tensor.data_ptr() for tensor in self._tensors] + [tensor._version for tensor in self._written]

    def _now_beside(self) -> list[Any]:
        return [own.get(name, ABSENT) for own in self._asides for name in ASIDE]


@final
class Versions:
    """The numbers of some modules.

    It lives as long as what owns it: of a head it holds the parts, and these know the base.
    """

    def __init__(self) -> None:
        self._kept: WeakKeyDictionary[nn.Module, tuple[int, Snapshot]] = WeakKeyDictionary()

    def of(self, module: nn.Module) -> int:
        """The number of what a module holds now; another one after any change."""
        number, snapshot = self._kept.get(module, (0, None))
        if snapshot is not None and snapshot.stands():
            return number
        before: tuple[Hashable, ...] | None = None if snapshot is None else snapshot.state
        snapshot = Snapshot(module)
        number = number if snapshot.state == before else next(_NUMBERS)
        self._kept[module] = number, snapshot
        return number


def _values(dictionaries: Sequence[dict[str, Any]]) -> list[Any]:
    return list(chain.from_iterable(map(dict.values, dictionaries)))


def _same(some: Sequence[Any], others: Sequence[Any]) -> bool:
    return len(some) == len(others) and all(map(is_, some, others))
