"""Which modules an adapter says it changes, held against those whose matrices it stores."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from models.checkpoints.config_numbers import CheckpointError
from models.complaints import shown

CHOICE = ("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern")
"""Settings by which PEFT chooses modules."""


def check_targets(settings: Mapping[str, Any], stored: Collection[str], folder: Path) -> None:
    """Refuse an adapter whose settings leave out a module that it stores: PEFT sets its matrices aside without an error.

    Args:
        settings: of adapter_config.json; without target_modules nothing is compared.
        stored: names of the modules with matrices.
        folder: of the adapter.

    Raises:
        CheckpointError: naming the first such module.
    """
    if settings.get("target_modules") in (None, [], ""):
        return
    aside = next((name for name in sorted(stored) if not _is_chosen(settings, name)), None)
    if aside is not None:
        raise CheckpointError(
            "target_modules of the adapter (with exclude_modules and layers_to_transform) must choose every module that"
            f" {folder} stores, got {aside} left out"
        )


def _is_chosen(settings: Mapping[str, Any], name: str) -> bool:
    from peft.tuners.tuners_utils import check_target_module_exists

    choice: Any = SimpleNamespace(**{key: settings.get(key) for key in CHOICE})
    try:
        return bool(check_target_module_exists(choice, name))
    except (re.error, TypeError, ValueError, AttributeError) as error:
        known = ", ".join(CHOICE)
        raise CheckpointError(f"{known} of the adapter must name modules as PEFT does, got {error}") from error


def check_patterns(settings: Mapping[str, Any], names: Collection[str]) -> None:
    """Refuse patterns that are no regular expressions.

    Args:
        settings: of adapter_config.json.
        names: of those that are patterns of modules.
    """
    for name in names:
        for pattern in settings.get(name) or {}:
            try:
                re.compile(pattern)
            except re.error as error:
                raise CheckpointError(
                    f"{name} of the adapter must hold regular expressions, got {shown(pattern)} ({error})"
                ) from error
