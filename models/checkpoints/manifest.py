"""A save that is whole or not there: written aside with the checksums of every file, then moved into place.

A folder's `checksums.json` names what was saved together. It is written into `.saving`, last, and moves last: a save that was
killed before is not there, and one killed after is finished by whoever reads or saves next.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from models.checkpoints.config_numbers import CheckpointError
from models.checkpoints.json_files import read_object

MANIFEST = "checksums.json"
ASIDE = ".saving"
TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"),
    *("vocab.json", "merges.txt", "added_tokens.json"),
)
OWN: Mapping[str, tuple[str, ...]] = {
    "base": (
        *("model*.safetensors", "model.safetensors.index.json", "config.json", "generation_config.json"),
        *TOKENIZER_FILES,
    ),
    "head": (
        *("head.safetensors", "adapter_model.safetensors", "adapter_config.json", "defaults.json"),
        *("cascade/cascade.safetensors", "cascade/adapter_model.safetensors", "cascade/adapter_config.json"),
    ),
    "cascade": ("cascade.safetensors", "adapter_model.safetensors", "adapter_config.json"),
    "adapter": ("adapter_model.safetensors", "adapter_config.json"),
}
"""Kind of a save -> its files, those of an earlier save that give way included."""
FACTS = {"tensors", "shards", "base"}
"""What a manifest of ours may say beside kind and files."""
BLOCK = 1 << 20


@contextmanager
def saving(folder: Path, kind: str, facts: Mapping[str, Any] | None = None) -> Iterator[Path]:
    """A folder to write a save into, which becomes part of `folder` as a whole or not at all.

    Args:
        folder: where the save goes; made if missing.
        kind: a name of OWN.
        facts: entries of the manifest beside the checksums of the files; may be filled while the save is written.
    """
    settle(folder)
    with _aside(folder) as aside:
        yield aside
        write_manifest(aside, kind, sorted(_files(aside)), facts or {})
    settle(folder)


@contextmanager
def _aside(folder: Path) -> Iterator[Path]:
    """An empty folder for what is saved next, gone where that fails."""
    aside = folder / ASIDE
    shutil.rmtree(aside, ignore_errors=True)  # of a save that was killed while it was written
    aside.mkdir(parents=True)
    try:
        yield aside
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


@contextmanager
def adding(folder: Path) -> Iterator[Path]:
    """A folder to write files into that join those saved in `folder`, under its manifest where it has one.

    Args:
        folder: where they go; made if missing.
    """
    settle(folder)
    held = read_manifest(folder)
    if held:
        with _aside(folder) as aside:
            yield aside
            sums = {name.as_posix(): sha256(aside / name) for name in _names(aside)}
            _write(aside, {**held, "files": held["files"] | sums})
        settle(folder)
        return
    with _aside(folder) as aside:
        yield aside
        for name in _names(aside):
            _move(aside / name, folder / name)
        aside.rmdir()


def write_manifest(folder: Path, kind: str, files: Sequence[Path], facts: Mapping[str, Any]) -> None:
    """Write `checksums.json`: sha256 of every file but those whose tensors have sums of their own in `facts`.

    Args:
        folder: that holds the files.
        kind: what the folder is.
        files: all that were written.
        facts: what else is recorded, sums of tensors under "tensors".
    """
    summed = "model*.safetensors" if "tensors" in facts else ""
    sums = {f.relative_to(folder).as_posix(): sha256(f) for f in files if not (summed and f.match(summed))}
    _write(folder, {"kind": kind, "files": sums, **facts})


def _write(folder: Path, content: Mapping[str, Any]) -> None:
    part = folder / f"{MANIFEST}.part"
    part.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    part.chmod(0o644)
    part.replace(folder / MANIFEST)


def settle(folder: Path) -> None:
    """Finish a save that was whole when it was killed; one that was not stays aside and counts for nothing.

    Raises:
        CheckpointError: if the files cannot be moved.
    """
    aside = folder / ASIDE
    found = {} if aside.is_symlink() else read_manifest(aside)
    if not found:  # there is none, it was not whole, or it is another tool's
        return
    names = _names(aside)
    try:
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            _move(aside / name, folder / name)
        kept = {folder / name for name in (*names, *found["files"], *found.get("shards", ()))}
        for pattern in OWN[found["kind"]]:
            for file in set(folder.glob(pattern)) - kept:
                file.unlink(missing_ok=True)
        _move(aside / MANIFEST, folder / MANIFEST)
        shutil.rmtree(aside, ignore_errors=True)
    except OSError as error:
        raise CheckpointError(f"the save that was interrupted in {aside} must be finished, got {error}") from error


def _move(source: Path, target: Path) -> None:
    try:
        source.replace(target)
    except FileNotFoundError:
        if not target.is_file():  # another reader was faster
            raise


def _names(aside: Path) -> list[Path]:
    return sorted(file.relative_to(aside) for file in _files(aside))


def _files(folder: Path) -> list[Path]:
    return [f for f in folder.rglob("*") if f.is_file() and not f.is_symlink() and not f.name.startswith(MANIFEST)]


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a folder, {} where there is none, or one of another tool, which has no kind of ours.

    Raises:
        CheckpointError: if it is damaged.
    """
    file = folder / MANIFEST
    if not file.exists():
        return {}
    try:
        content = read_object(file)
        if not _is_ours(content):
            return {}
        if not _is_sound(content):
            raise ValueError("other entries")
    except ValueError as error:
        raise CheckpointError(f"{file} must hold the checksums of a save, got a damaged file ({error})") from error
    return content


def _is_ours(content: Mapping[str, Any]) -> bool:
    """Whether a manifest is none of another tool: it names a kind of save, or has lost that name alone."""
    shaped = "files" in content and bool(content.keys() & {"kind", *FACTS})
    return not content or content.get("kind") in tuple(OWN) or shaped


def _is_sound(content: Mapping[str, Any]) -> bool:
    """Whether a manifest names its kind, and files of its own folder with their sums."""
    files, shards, tensors = (content.get(name) for name in ("files", "shards", "tensors"))
    return (
        content.get("kind") in tuple(OWN)
        and isinstance(files, dict)
        and isinstance([] if shards is None else shards, list)
        and all(_is_inside(name) for name in (*files, *(shards or ())))
        and (isinstance(tensors, dict) if content["kind"] == "base" else tensors is None)
        and isinstance(content.get("base", ""), str)
    )


def _is_inside(name: Any) -> bool:
    sound = isinstance(name, str) and bool(name) and "\0" not in name
    return sound and not Path(name).is_absolute() and ".." not in Path(name).parts


def check_files(folder: Path) -> dict[str, Any]:
    """Finish a save that was interrupted, compare every file with the manifest, and return this; {} where there is none.

    Raises:
        CheckpointError: naming the file that was damaged, changed or exchanged since it was saved.
    """
    settle(folder)
    found = read_manifest(folder)
    _require_all_named(folder, found)
    for name, wanted in found.get("files", {}).items():
        file = folder / name
        if not file.is_file():
            raise CheckpointError(f"{folder} must hold every file of its {MANIFEST}, got no {name}")
        if sha256(file) != wanted:
            raise CheckpointError(
                f"{file} must be as it was saved ({MANIFEST} holds its sha256), got other bytes: it was damaged, or changed by"
                f" hand (python -m train.seal --folder {folder}, for a head with its --base, takes it as it is)"
            )
    return found


def _require_all_named(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Refuse weights beside a manifest that does not name them; those of a base are compared tensor by tensor."""
    if manifest.get("kind", "base") == "base":
        return
    beside = [
        file for pattern in OWN[manifest["kind"]] if pattern.endswith(".safetensors") for file in folder.glob(pattern)
    ]
    for file in beside:
        sealed_there = file.parent != folder and (file.parent / MANIFEST).is_file()
        if file.relative_to(folder).as_posix() not in manifest["files"] and not sealed_there:
            raise CheckpointError(
                f"{folder / MANIFEST} must name all weights of its save, got {file.relative_to(folder)} beside it"
                f" (python -m train.seal --folder {folder}, for a head with its --base, takes it as it is)"
            )


def sha256(file: Path) -> str:
    """Of a file's bytes."""
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while block := opened.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()
