"""Null where an option must have a value: jsonargparse lets it through where it stands in a config."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import is_dataclass
from typing import Any, Union, get_args, get_origin, get_type_hints

from jsonargparse import Namespace


def refuse_nulls(function: Callable[..., object], options: Mapping[str, Any]) -> None:
    """Refuse null for an option, a field of one or an entry of one that must have a value.

    Args:
        function: the command, whose annotations say what may be null.
        options: its options as they were parsed.

    Raises:
        ValueError: naming the option.
    """
    hints = get_type_hints(function)
    for name in inspect.signature(function).parameters.keys() & options.keys():
        _check(name, options[name], hints.get(name, Any))


def _check(name: str, value: Any, hint: Any) -> None:
    """Refuse null in a value, as deep as its type is declared."""
    if hint is Any:
        return
    kinds = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    if value is None:
        if type(None) not in kinds and Any not in kinds:
            raise ValueError(f"{name} must be {inspect.formatannotation(hint)}, got null")
        return
    for kind in kinds:
        for inner, one, declared in _parts(value, kind):
            _check(f"{name}.{inner}", one, declared)


def _parts(value: Any, kind: Any) -> list[tuple[object, Any, Any]]:
    """Name, value and type of what a value of a type consists of; [] where the type does not say or is another."""
    origin, inner = get_origin(kind) or kind, get_args(kind)
    if isinstance(value, Namespace | Mapping):
        values = vars(value) if isinstance(value, Namespace) else value
        if is_dataclass(origin):
            hints = get_type_hints(origin)
            return [(name, one, hints[name]) for name, one in values.items() if name in hints]
        mapping = isinstance(origin, type) and issubclass(origin, Mapping)
        return [(name, one, inner[1]) for name, one in values.items()] if mapping and len(inner) == 2 else []
    listed = isinstance(value, list | tuple) and isinstance(origin, type) and issubclass(origin, Sequence)
    return [(place, one, inner[0]) for place, one in enumerate(value)] if listed and inner else []
