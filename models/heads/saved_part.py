"""What is fitted on a base and saved beside it: its own tensors with their config in one file, and PEFT's files of its LoRA."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from models.checkpoints.files import require_regular
from models.checkpoints.json_files import parse
from models.checkpoints.sums import check_finite
from models.denoiser import Denoiser
from models.heads.side_stream import load_lora

Config = TypeVar("Config")


def write_fitted(folder: Path, name: str, tensors: Mapping[str, Tensor], config: Mapping[str, Any], lora: Any) -> None:
    """Write a LoRA's `adapter_config.json` and `adapter_model.safetensors`, and the file `name`, into a folder of `saving`.

    Args:
        folder: where to.
        name: of the file with the tensors.
        tensors: the part's own, by name.
        config: written into the file's metadata.
        lora: PEFT model whose adapter is saved beside it, or None.

    Raises:
        ValueError: if a value is no number; nothing is then saved.
    """
    folder.mkdir(parents=True, exist_ok=True)
    own = {key: tensor.contiguous() for key, tensor in tensors.items()}
    check_finite(own, f"the {Path(name).stem} to save")
    if lora is not None:
        check_finite({n: t for n, t in lora.named_parameters() if "lora_" in n}, f"the {Path(name).stem} to save")
        lora.save_pretrained(folder)
        (folder / "README.md").unlink()  # PEFT's empty model card
    save_file(own, folder / name, metadata={"config": json.dumps(dict(config))})
    for one in folder.iterdir():
        if one.is_file():
            one.chmod(0o644)  # safetensors are written for their owner alone


def read_fitted(file: Path, kind: str, make: Callable[[dict[str, Any]], Config]) -> Config:
    """The config of a saved part.

    Args:
        file: that `write_fitted` wrote.
        kind: what it should be, for the complaint.
        make: the config from its JSON object.

    Raises:
        ValueError: if the file is missing, or not such a part.
    """
    try:
        require_regular(file)
        with safe_open(file, framework="pt") as opened:
            raw = parse((opened.metadata() or {})["config"])
        if not isinstance(raw.get("base", ""), str):
            raise ValueError("base must be a fingerprint")
        return make(raw)
    except (KeyError, TypeError, AttributeError, ValueError, OSError, SafetensorError) as error:
        raise ValueError(f"{file} must be a {kind} of this project, got a foreign, broken or missing file") from error


def check_base(kind: str, folder: Path, base: str, denoiser: Denoiser, full: str = "") -> None:
    """Refuse a part that is bound to another base; "" binds it to none.

    Args:
        kind: of the part, for the complaint.
        folder: where it is.
        base: fingerprint of its base.
        denoiser: what it is put on.
        full: fingerprint over every byte of its base, where that was taken; bases in another number format are not compared.

    Raises:
        ValueError: for another base.
    """
    if base and base != denoiser.fingerprint():
        other = denoiser.fingerprint()[:12]
        raise ValueError(f"the {kind} in {folder} must be used on its own base ({base[:12]}), got a base {other}")
    formats = [one.partition(":")[0] for one in (full, denoiser.stored_bytes)]
    if base and full and formats[0] == formats[1] and full != denoiser.stored_bytes:
        raise ValueError(
            f"the {kind} in {folder} must be used on its own base, got one that looks the same and differs in some bytes:"
            " the base was damaged or changed"
        )


def require_bound(kind: str, folder: Path, base: str, denoiser: Denoiser) -> None:
    """Refuse a part that reads hidden states and names no base.

    Args:
        kind: of the part, for the complaint.
        folder: that it lies in.
        base: fingerprint that it names.
        denoiser: that it is put on.
    """
    if not base and denoiser.fingerprint():
        raise ValueError(f"base of the {kind} in {folder} must name the base whose hidden states it reads, got ''")


def check_shapes(file: Path, expected: Mapping[str, Tensor], lora_rank: int | None) -> None:
    """Refuse a file whose tensors are not those of its config, from the headers alone.

    Args:
        file: that `write_fitted` wrote.
        expected: the tensors that belong in it, by name; they may be on the meta device.
        lora_rank: rank of the LoRA in `adapter_model.safetensors` beside it, None where there is none.

    Raises:
        ValueError: naming the first that differs.
    """
    with safe_open(file, framework="pt") as opened:
        stored = {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
    needed = {name: tuple(tensor.shape) for name, tensor in expected.items()}
    wrong = sorted({name for name, _ in set.symmetric_difference(set(stored.items()), set(needed.items()))})
    if wrong:
        raise ValueError(f"{file} must hold the {len(expected)} tensors of this part, got others for {wrong[0]}")
    adapter = file.parent / "adapter_model.safetensors"
    if lora_rank is None or not adapter.is_file():
        return
    try:
        with safe_open(adapter, framework="pt") as opened:
            ranks = {n: opened.get_slice(n).get_shape() for n in opened.keys() if "lora_A" in n}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{adapter} must be a whole safetensors file, got a broken one") from error
    for name, shape in ranks.items():
        if shape[0] != lora_rank:
            wanted = f"{2 * len(ranks)} LoRA matrices of this head, of rank {lora_rank}"
            raise ValueError(f"{adapter} must hold the {wanted}, got rank {shape[0]} for {name}")


def load_fitted(part: nn.Module, expected: Mapping[str, Tensor], file: Path, lora: nn.Module | None) -> None:
    """Read the tensors of a file, and the adapter beside it, into a part.

    Args:
        part: of the saved config.
        expected: the tensors that belong in the file, by name.
        file: that `write_fitted` wrote.
        lora: the part's stream, where that has LoRA.

    Raises:
        ValueError: if names or shapes differ, or a value is no number.
    """
    check_shapes(file, expected, None)
    stored = load_file(file)
    check_finite(stored, file)
    part.load_state_dict(stored, strict=False)
    if lora is not None:
        load_lora(lora, file.parent)
        check_finite({n: t for n, t in lora.named_parameters() if "lora_" in n}, file.parent)
