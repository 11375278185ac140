"""Copy a scoring head from the Hugging Face hub into a folder: ``fewer-rounds pull --name OWNER/NAME --into FOLDER``."""

from __future__ import annotations

from pathlib import Path

from models.complaints import shown


def pull(*, name: str, into: Path) -> None:
    """Copy a head and its cascade into a new folder, checked against the sums that were saved with it.

    Every command takes `--head OWNER/NAME` without this; a copy is for changing it, or for a machine without a network.

    Args:
        name: `owner/name` on the hub.
        into: a folder that is not there yet, or empty.
    """
    import shutil

    from models.checkpoints.hub import HUB_NAME, head_folder
    from models.checkpoints.manifest import check_files

    if not HUB_NAME.fullmatch(name) or Path(name).exists():
        raise ValueError(f"name must be `owner/name` on the hub and no folder here, got {shown(name)}")
    if into.exists() and (not into.is_dir() or any(into.iterdir())):
        raise ValueError(f"into must be a new or empty folder, got {into}")
    found = head_folder(name)
    if not (found / "head.safetensors").is_file():
        raise ValueError(f"name must be that of a scoring head, got {name} without head.safetensors")
    check_files(found)
    aside = into.with_name(into.name + ".part")
    shutil.rmtree(aside, ignore_errors=True)
    shutil.copytree(found, aside)
    if into.is_dir():
        into.rmdir()
    aside.replace(into)
    print(f"{name} lies in {into}")


if __name__ == "__main__":
    from train.commands.command_line import run

    run(pull)
