"""What binds a table of traces to base, tokenizer, policy and settings: the header of its folder."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from decoding.files.aside import written_aside
from decoding.policies.ete import BeamETE
from decoding.provenance import commit as commit_of_code
from models.checkpoints.json_files import read_object
from models.denoiser import Denoiser

HEADER, PARTS = "header.json", "part-*.parquet"
BINDING = ("base", "dtype", "tokenizer", "beam", "task", "drivers", "labelling", "prompts", "seed")


def header(denoiser: Denoiser, beam: BeamETE, **more: Any) -> dict[str, Any]:
    """What binds a table of traces to base, tokenizer, policy and the settings it was collected with."""
    vocabulary: dict[str, int] = getattr(denoiser.tokenizer, "get_vocab", dict)()
    return {
        "format": 2,
        "base": denoiser.fingerprint(),
        "dtype": next((str(p.dtype) for p in denoiser.parameters()), ""),
        "tokenizer": identity(sorted(vocabulary.items())),
        "beam": asdict(beam),
        **more,
    }


def check_header(folder: Path, expected: Mapping[str, Any]) -> None:
    """Write the header of a new folder, or refuse one whose traces were made with another base or other settings.

    Raises:
        ValueError: naming the first thing that differs, or the parts that lie there without a header.
    """
    refuse_header(folder, expected)
    file = folder / HEADER
    if not file.exists():
        with written_aside(file) as aside:
            aside.write_text(_as_json({**expected, "commit": commit_of_code()}))


def refuse_header(folder: Path, expected: Mapping[str, Any]) -> None:
    """What `check_header` refuses, without writing anything."""
    if not (folder / HEADER).exists():
        if left := sorted(file.name for file in folder.glob(PARTS)):
            raise ValueError(
                f"{folder} must hold the {HEADER} of its traces, got {left[0]} without: choose another --out"
            )
        return
    stored, wanted = read_header(folder), json.loads(_as_json(expected))
    if "order" not in stored and "order" in wanted:  # of an earlier version: what its parts show of it
        stored["order"] = _order_of(folder, wanted["order"])
    for key in wanted:
        if stored.get(key) != wanted[key]:
            raise ValueError(
                f"{key} must be {short(stored.get(key))} to go on with the traces in {folder}, got {short(wanted[key])}: "
                "choose another --out"
            )


def _order_of(folder: Path, wanted: list[str]) -> list[str]:
    """The drivers by their turns in the first part of a folder; as wanted where it shows no row of a turn or cannot be read."""
    from pyarrow import ArrowException
    from pyarrow.parquet import read_table

    turns: dict[int, str] = {}
    with contextlib.suppress(ArrowException, OSError, TypeError):  # a broken part is told of when it is fitted on
        for part in sorted(folder.glob(PARTS))[:1]:
            table = read_table(part, columns=["prompt_id", "driver"])
            turns = {row["prompt_id"] % len(wanted): row["driver"] for row in table.to_pylist()}
    return [turns.get(turn, driver) for turn, driver in enumerate(wanted)]


def read_header(folder: Path) -> dict[str, Any]:
    """The header of a folder of traces; a ValueError names a file that holds no JSON object."""
    return read_object(folder / HEADER)


def origin_of(found: Mapping[str, Any]) -> str:
    """A short name of what a header says of base, prompts, policies and draws."""
    return identity([found.get(key) for key in BINDING])


def _as_json(header: Mapping[str, Any]) -> str:
    return json.dumps(header, indent=1, sort_keys=True, default=str)


def identity(*values: Any) -> str:
    """A short stable id of a state."""
    return hashlib.blake2b(repr(values).encode(), digest_size=8).hexdigest()


def short(value: Any) -> str:
    """A value as text, a long one cut."""
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."
