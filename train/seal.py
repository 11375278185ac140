"""Checksums for a folder that was saved without them: ``python -m train.seal --folder HEAD --base BASE``."""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory


def seal(*, folder: Path, base: str | None = None) -> None:
    """Write `checksums.json` beside the weights of a base, a head, a cascade or an adapter, which stay as they are.

    Args:
        folder: what to seal; it must load as it is.
        base: folder or hub id of the base that a head or a cascade was fitted on, whose every byte it is then bound to.
    """
    from train.commands.folders import check_model

    kinds = {"head.safetensors": "head", "cascade.safetensors": "cascade", "adapter_model.safetensors": "adapter"}
    kind = next((kind for name, kind in kinds.items() if (folder / name).is_file()), "base")
    if kind == "base" and not (folder / "config.json").is_file():
        raise ValueError(f"folder must hold a base, a head, a cascade or an adapter, got {folder}")
    if kind == "head" and base is None:
        raise ValueError(f"base must be given for a head, got none for {folder}")
    if base is not None:
        check_model(base, "")

    from models.checkpoints.manifest import OWN, write_manifest

    files = [file for pattern in OWN[kind] for file in sorted(folder.glob(pattern))]
    if kind == "base":
        write_manifest(folder, kind, files, sums_of(folder))
    else:
        write_manifest(folder, kind, files, {"base": stored_bytes(base, folder, kind)})


def sums_of(folder: Path) -> dict[str, object]:
    """The sum of every stored tensor of a base, and the files they are in."""
    from models.checkpoints.files import stored_shapes, stream, weight_files
    from models.checkpoints.sums import byte_sum, check_finite, spelled

    files = weight_files(folder)
    stored_shapes(files)
    sums = {}
    for name, tensor in stream(files):
        check_finite({name: tensor}, folder)
        sums[name] = byte_sum(tensor)
    return {"tensors": spelled(sums), "shards": [file.name for file in files]}


def stored_bytes(base: str | None, folder: Path, kind: str) -> str:
    """The fingerprint over every byte of the base, on which a head must load."""
    import models
    from models.checkpoints.manifest import OWN

    if base is None:
        return ""
    if kind != "head":
        return models.load(base, device="cpu", verify=True).stored_bytes
    with TemporaryDirectory() as aside:  # without the sums that it had, which a changed file no longer fits
        for file in (file for pattern in OWN[kind] for file in folder.glob(pattern)):
            copy = Path(aside) / file.relative_to(folder)
            copy.parent.mkdir(exist_ok=True)
            shutil.copyfile(file, copy)
        return models.load(base, head=aside, device="cpu", verify=True).stored_bytes


if __name__ == "__main__":
    from train.commands.command_line import run

    run(seal)
