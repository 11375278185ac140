"""What lies on the Hugging Face hub under `owner/name`, or in its cache where the hub is not reached; no torch here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from models.checkpoints.config_numbers import CheckpointError
from models.complaints import shown

HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
BASE_FILES = ("*.json", "*.safetensors", "*.txt", "*.jinja")
HEAD_FILES = ("*.json", "*.safetensors", "README.md")  # `*` reaches into cascade/ too


def is_place(named: Any) -> bool:
    """Whether a value can name a folder, or what lies on the hub."""
    return isinstance(named, str | PathLike) and str(named) != ""


def is_hub_name(name: str | Path) -> bool:
    """Whether it is spelled `owner/name` and is neither a folder here nor one missing from a folder that is here."""
    here = Path(name).expanduser()
    return not here.exists() and not here.parent.is_dir() and HUB_NAME.fullmatch(str(name)) is not None


def snapshot(name: str, patterns: Sequence[str], called: str) -> Path:
    """The folder of a snapshot, which is fetched as far as it is not in the cache.

    Args:
        name: `owner/name`.
        patterns: of the files that are wanted; nothing else is fetched.
        called: what the caller's argument is called, for the complaint.

    Raises:
        CheckpointError: if it is neither on the hub nor in the cache.
    """
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=list(patterns)))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().split("\n")[0]
        raise CheckpointError(f"{called} must be a local folder or on the hub, got {shown(name)} ({reason})") from error


def bytes_to_download(name: str | Path) -> int:
    """How much of a checkpoint on the hub is not on this machine yet; 0 for a folder, and where the hub does not answer."""
    if not is_hub_name(name):
        return 0
    import huggingface_hub

    try:
        files = huggingface_hub.snapshot_download(str(name), allow_patterns=list(BASE_FILES), dry_run=True)
    except (OSError, ValueError):  # offline, or no such name: the load itself says which
        return 0
    return sum(file.file_size or 0 for file in files if file.will_download)


def head_folder(path_or_hub_id: Any) -> Path:
    """The folder of a scoring head: a local one as it is, otherwise the hub's snapshot of `owner/name`.

    Raises:
        CheckpointError: if it names neither, or there is neither.
    """
    if not is_place(path_or_hub_id):
        raise CheckpointError(f"head must be a folder or `owner/name` on the hub, got {shown(path_or_hub_id)}")
    if is_hub_name(path_or_hub_id):
        return snapshot(str(path_or_hub_id), HEAD_FILES, "head")
    return Path(path_or_hub_id).expanduser()
