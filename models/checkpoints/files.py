"""Files of a checkpoint folder: find it, read its config, list its tensors, stream them onto a model one at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from models.checkpoints.families import CheckpointError
from models.checkpoints.hub import BASE_FILES, HUB_NAME, is_place, snapshot
from models.checkpoints.json_files import read_object
from models.complaints import cut, shown

INDEX = "model.safetensors.index.json"
SAMPLE = 2**18  # values of each tensor that enter the fingerprint: all of a small model, a comb of a large one


def find_folder(path_or_hub_id: Any) -> Path:
    """A local folder as it is; otherwise the hub's snapshot of `owner/name`, from the cache where the hub is offline.

    Raises:
        CheckpointError: if there is neither.
    """
    named, name = is_place(path_or_hub_id), str(path_or_hub_id)
    folder = Path(name).expanduser()
    if named and folder.is_dir():
        return folder
    if not named or folder.exists() or not HUB_NAME.fullmatch(name):
        raise CheckpointError(
            f"path_or_hub_id must be a checkpoint folder or `owner/name` on the hub, got {shown(path_or_hub_id)}"
        )
    return snapshot(name, BASE_FILES, "path_or_hub_id")


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file; CheckpointError where the file is missing or holds something else."""
    if not file.exists():
        raise CheckpointError(f"a checkpoint folder must hold {file.name}, got none in {file.parent}")
    try:
        return read_object(file)
    except ValueError as error:
        raise CheckpointError(str(error)) from error


def require_regular(file: Path) -> None:
    """Refuse a pipe or a device, which would be waited for without end; a file that is missing is the reader's affair."""
    if file.exists() and not file.is_file():
        raise CheckpointError(f"{file} must be a regular file, got a folder, a pipe or a device")


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint, in order; the index decides where there is one."""
    if (folder / INDEX).exists():
        weight_map = read_json(folder / INDEX).get("weight_map")
        if not isinstance(weight_map, dict):
            raise CheckpointError(f"{folder / INDEX} must hold a weight_map, got none")
        names = list(weight_map.values())
        strange = [name for name in names if not isinstance(name, str) or name != Path(name).name or name in ("", "..")]
        if strange:  # judged as written: files of a hub's snapshot are links to elsewhere
            raise CheckpointError(f"{folder / INDEX} must name files of its own folder, got {shown(strange[0])}")
        files = [folder / name for name in sorted(set(names))]
        absent = [file.name for file in files if not file.exists()]
        if absent:
            raise CheckpointError(f"{folder} must hold every file of its index, got no {cut(_first(absent))}")
        return files
    files = sorted(folder.glob("model*.safetensors"))
    if not files:
        pickled = sorted(file.name for pattern in ("*.bin", "*.pt", "*.pth") for file in folder.glob(pattern))
        found = f"only {_first(pickled)}, which would run code" if pickled else "none"
        raise CheckpointError(f"{folder} must hold its weights as model*.safetensors, got {found}")
    return files


def stored_shapes(files: Iterable[Path]) -> dict[str, tuple[int, ...]]:
    """Name and shape of every stored tensor, from the headers alone."""
    shapes: dict[str, tuple[int, ...]] = {}
    for file in files:
        with _opened(file) as opened:
            for name in opened.keys():  # noqa: SIM118 - a safetensors handle is no mapping
                if name in shapes:
                    raise CheckpointError(f"{name} must be stored once, got it again in {file}: a file of another save")
                shapes[name] = tuple(opened.get_slice(name).get_shape())
    return shapes


def stream(files: Iterable[Path]) -> Iterator[tuple[str, Tensor]]:
    """Every stored tensor in turn, mapped from its file and not read until it is used."""
    for file in files:
        with _opened(file) as opened:
            for name in opened.keys():  # noqa: SIM118
                yield name, opened.get_tensor(name)


def _opened(file: Path) -> Any:
    require_regular(file)
    try:
        return safe_open(file, framework="pt")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file} must be a whole safetensors file, got {error}") from error


def check_names(model: nn.Module, shapes: Mapping[str, tuple[int, ...]], *, tied: bool) -> None:
    """Refuse weights that do not fit the model exactly: 0 missing, 0 unexpected, every shape equal."""
    needed = {name: tuple(p.shape) for name, p in model.named_parameters(remove_duplicate=False)}
    if tied:
        needed.pop("lm_head.weight", None)
    missing, unexpected = sorted(needed.keys() - shapes.keys()), sorted(shapes.keys() - needed.keys())
    if missing or unexpected:
        raise CheckpointError(
            f"the weights must match the config exactly, got {len(missing)} missing{_list(missing)}"
            f" and {len(unexpected)} unexpected{_list(unexpected)} (native names)"
        )
    for name, shape in needed.items():
        if shapes[name] != shape:
            raise CheckpointError(f"{name} must have the shape {shape} by the config, got {shapes[name]}")


def assign(model: nn.Module, name: str, tensor: Tensor) -> None:
    """Put a tensor in the place of a parameter, without a copy."""
    owner, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(owner), leaf, nn.Parameter(tensor, requires_grad=False))


def digest(name: str, tensor: Tensor) -> bytes:
    """sha256 of a tensor's name, shape and float32 values; of a large one every n-th value, at most 2^18 of them."""
    values = tensor.detach().reshape(-1)
    values = values[:: -(-values.numel() // SAMPLE) or 1].to("cpu", torch.float32).contiguous()
    return hashlib.sha256(f"{name}{tuple(tensor.shape)}".encode() + values.numpy().tobytes()).digest()


def combine(digests: Mapping[str, bytes]) -> str:
    """One fingerprint from the digests of all tensors, in the order of their names."""
    return hashlib.sha256(b"".join(digests[name] for name in sorted(digests))).hexdigest()


def _first(names: list[str]) -> str:
    return names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")


def _list(names: list[str]) -> str:
    return f" ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})" if names else ""
