"""A cascade in a folder of its own; the commands save it beside its head."""

from pathlib import Path

from models.checkpoints.manifest import saving
from models.heads.cascade import Cascade, write_cascade


def save_cascade(cascade: Cascade, folder: Path) -> None:
    """Write the files of a cascade, all or nothing."""
    with saving(folder, "cascade", {"base": cascade.base.stored_bytes}) as aside:
        write_cascade(cascade, aside)
