"""The numbers of a `config.json`, judged before anything is built from them, and its two spellings of RoPE."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from models.complaints import shown

MOST_LAYERS = 4096
MOST = 2**31 - 1
LONGEST = 1000  # characters of a complaint
HARMLESS_ROPE = {"factor": 1, "partial_rotary_factor": 1, "attention_factor": 1}


class CheckpointError(ValueError):
    """A checkpoint, adapter or loaded model that cannot be used; the message says what was found and what is needed.

    Args:
        message: one sentence; it is put on one line, and a long value at its end is cut.
    """

    def __init__(self, message: str) -> None:
        line = " ".join(message.splitlines())
        super().__init__(line if len(line) <= LONGEST else line[: LONGEST - 3] + "...")


def is_finite(value: Any) -> bool:
    """Whether a value of JSON is a number that a float holds; its whole numbers may be larger."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and abs(value) <= sys.float_info.max


def says_nothing(value: Any) -> bool:
    """Whether a setting is as good as left out: null, false or empty; the number 0 is a setting."""
    return value is None or value is False or (isinstance(value, str | list | tuple | Mapping) and not value)


def whole(config: Mapping[str, Any], key: str, *, most: int = MOST) -> int:
    """A size of a model: a whole number from 1 to `most`; KeyError where it is missing."""
    value = config[key]
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise CheckpointError(f"{key} of config.json must be a whole number from 1 to {most}, got {shown(value)}")
    return value


def positive(config: Mapping[str, Any], key: str, *, most: float = sys.float_info.max) -> float:
    """A finite number above 0, of at most `most`; KeyError where it is missing."""
    value = config[key]
    if is_finite(value) and value > most:
        raise CheckpointError(f"{key} of config.json must be at most {most:g}, got {repr(value)[:60]}")
    if not is_finite(value) or value <= 0:
        raise CheckpointError(f"{key} of config.json must be a finite number above 0, got {repr(value)[:60]}")
    return float(value)


def divides(config: Mapping[str, Any], part: str, sized: str, *, times: int = 1) -> None:
    """Refuse a config whose `part` does not divide its `sized` (by a multiple of `times`).

    Args:
        config: of the model.
        part: key of the divisor.
        sized: key of what it must divide.
        times: factor of the divisor.
    """
    if config[sized] % (config[part] * times):
        even = " into even parts" if times > 1 else ""
        raise CheckpointError(
            f"{part} of config.json must divide {sized} ({config[sized]}){even}, got {shown(config[part])}"
        )


def rope_parameters(config: Mapping[str, Any], model: str) -> dict[str, Any]:
    """Plain RoPE from `rope_theta`, `rope_scaling` and transformers 5's `rope_parameters`, whichever are there.

    Args:
        config: of the model.
        model: name of its family, for the complaint.

    Returns:
        `{"rope_type": "default", "rope_theta": theta}`; KeyError where no theta is named.

    Raises:
        CheckpointError: if they scale positions or contradict one another.
    """
    parts = {}
    for key in ("rope_scaling", "rope_parameters"):
        if not says_nothing(config.get(key)):
            parts[key] = _flat(config[key])
            if not _is_plain(parts[key]):
                rule = "plain RoPE (rope_type 'default', no scaling)"
                raise CheckpointError(f"{key} of a {model} model must be {rule}, got {shown(config[key])}")
    thetas = {key: positive(part, "rope_theta") for key, part in parts.items() if part.get("rope_theta") is not None}
    if config.get("rope_theta") is not None or not thetas:
        thetas["config.json"] = positive(config, "rope_theta")
    if len(set(thetas.values())) > 1:
        found = ", ".join(f"{value:g} in {key}" for key, value in thetas.items())
        raise CheckpointError(f"rope_theta must be the same wherever it stands, got {found}")
    return {"rope_type": "default", "rope_theta": next(iter(thetas.values()))}


def _flat(part: Any) -> Any:
    """The settings of the one kind of layer there is."""
    nested = isinstance(part, Mapping) and set(part) == {"full_attention"}
    return part["full_attention"] if nested else part


def _is_plain(part: Any) -> bool:
    """Whether positions under these settings are those of RoPE without scaling, and no two of them disagree."""
    if not isinstance(part, Mapping):
        return False
    kinds = [part[name] for name in ("rope_type", "type") if part.get(name) is not None]
    unscaled = ("default", "linear", "dynamic") if part.get("factor") == 1 else ("default",)
    if any(kind not in unscaled for kind in kinds) or len(set(kinds)) > 1:
        return False
    known = {"rope_type", "type", "rope_theta", "original_max_position_embeddings"}
    other = {name: value for name, value in part.items() if name not in known}
    return all(says_nothing(value) or HARMLESS_ROPE.get(name) == value for name, value in other.items())
