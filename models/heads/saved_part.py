"""What is fitted on a base and saved beside it: its own tensors with their config in one file, and PEFT's files of its LoRA."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar, cast

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from models.denoiser import Denoiser
from models.heads.side_stream import load_lora

Config = TypeVar("Config")


def save_fitted(file: Path, tensors: Mapping[str, Tensor], config: Mapping[str, Any], lora: nn.Module | None) -> None:
    """Write a LoRA's `adapter_config.json` and `adapter_model.safetensors`, and `file`: all aside, then renamed."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=file.parent, prefix=file.stem) as folder:
        aside = Path(folder)
        if lora is not None:
            cast(Any, lora).save_pretrained(folder)
            (aside / "README.md").unlink()  # PEFT's empty model card
        own = {name: tensor.contiguous() for name, tensor in tensors.items()}
        save_file(own, aside / file.name, metadata={"config": json.dumps(dict(config))})
        last = aside / file.name  # says that all is there
        for one in [*({*aside.iterdir()} - {last}), last]:
            one.chmod(0o644)  # safetensors are written for their owner alone
            one.replace(file.with_name(one.name))


def read_fitted(file: Path, kind: str, make: Callable[[dict[str, Any]], Config]) -> Config:
    """The config of a saved part.

    Args:
        file: that `save_fitted` wrote.
        kind: what it should be, for the complaint.
        make: the config from its JSON object.

    Raises:
        ValueError: if the file is missing, or not such a part.
    """
    try:
        with safe_open(file, framework="pt") as opened:
            return make(json.loads((opened.metadata() or {})["config"]))
    except (KeyError, TypeError, ValueError, OSError, SafetensorError) as error:
        raise ValueError(f"{file} must be a {kind} of this project, got a foreign, broken or missing file") from error


def check_base(kind: str, folder: Path, base: str, denoiser: Denoiser) -> None:
    """Refuse a part that is bound to another base; "" binds it to none."""
    if base and base != denoiser.fingerprint():
        found = denoiser.fingerprint()[:12]
        raise ValueError(f"the {kind} in {folder} must be used on its own base ({base[:12]}), got a base {found}")


def load_fitted(part: nn.Module, own: Mapping[str, Tensor], file: Path, lora: nn.Module | None) -> None:
    """Read the tensors of a file, and the adapter beside it, into a part.

    Args:
        part: of the saved config.
        own: the tensors that belong in the file, by name.
        file: that `save_fitted` wrote.
        lora: the part's stream, where that has LoRA.

    Raises:
        ValueError: if names or shapes differ.
    """
    stored = load_file(file)
    shapes = ({name: tensor.shape for name, tensor in tensors.items()} for tensors in (stored, own))
    wrong = sorted({name for name, _ in set.symmetric_difference(*(set(s.items()) for s in shapes))})
    if wrong:
        raise ValueError(f"{file} must hold the {len(own)} tensors of this part, got others for {wrong[0]}")
    part.load_state_dict(stored, strict=False)
    if lora is not None:
        load_lora(lora, file.parent)
