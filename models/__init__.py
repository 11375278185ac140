"""What predicts: denoisers, and `load` to get one from a checkpoint."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from models.checkpoints.families import CheckpointError as CheckpointError
    from models.checkpoints.loading import load as load
    from models.checkpoints.loading import wrap as wrap

__all__ = ["CheckpointError", "load", "wrap"]

_HOMES = {"CheckpointError": "models.checkpoints.families"}
_HOMES |= dict.fromkeys(("load", "wrap"), "models.checkpoints.loading")


def __getattr__(name: str) -> Any:
    """Import torch and transformers only when a name is used."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
