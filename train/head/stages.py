"""What a job has done already: a stage that was finished with the same settings is read back, not done again."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.checkpoints.json_files import read_object
from models.checkpoints.manifest import settle

if TYPE_CHECKING:
    from models.denoiser import Denoiser
    from models.heads.scoring_head import ScoringHead
    from train.head.head_run import HeadRun

FITTED = "fitted.json"
HEAD, CASCADE = "*.safetensors", "cascade/*.safetensors"


def asked(head_run: HeadRun, denoiser: Denoiser, folders: list[Path]) -> str:
    """Hash of all that the fit of a head depends on: settings, base, and the traces by name and size."""
    traces = [[file.name, file.stat().st_size] for folder in folders for file in sorted(folder.glob("part-*.parquet"))]
    what = [asdict(head_run.fitting), dict(head_run.beam), head_run.seed, denoiser.fingerprint(), traces]
    return hashlib.blake2b(json.dumps(what, sort_keys=True, default=str).encode(), digest_size=12).hexdigest()


def named(head: Path, tasks: Any, seed: int) -> str:
    """Hash of all that the fit of a cascade behind a saved head depends on but its own settings."""
    return hashlib.blake2b(repr([sums(head), tasks, seed]).encode(), digest_size=12).hexdigest()


def sums(folder: Path, *patterns: str) -> list[str]:
    """Hashes of the weights of a saved head, by default with its cascade: what a stage that was finished is known by."""
    settle(folder)  # a save that was whole when it was cut off counts
    files = [file for pattern in patterns or (HEAD, CASCADE) for file in sorted(folder.glob(pattern))]
    return [hashlib.blake2b(file.read_bytes()).hexdigest() for file in files]


def fitted(out: Path, asked_for: str, denoiser: Denoiser) -> ScoringHead | None:
    """The run's head where one was fitted with the same settings and is there yet, without cascade and defaults; else None."""
    from models.heads.scoring_head import load_head

    found = _read(out / FITTED)
    if found.get("asked") != asked_for or found.get("weights") != sums(out, HEAD):
        return None
    head = load_head(out, denoiser)
    head.cascade = head.defaults = None
    return head


def mark_fitted(out: Path, asked_for: str) -> None:
    """Say that the head of a run is fitted, and which weights that is said of: a later fit that is cut off leaves others."""
    from decoding.provenance import write_json

    write_json(out / FITTED, {"asked": asked_for, "weights": sums(out, HEAD)})


def cascade_done(out: Path, fitting: Any, asked_for: str) -> bool:
    """Whether the cascade in a folder was fitted with these settings behind this head, to its end."""
    found = _read(out / "cascade" / "metrics.json")
    same = found.get("fitting") == json.loads(json.dumps(asdict(fitting)))
    return bool(same and found.get("asked") == asked_for and found.get("weights") == sums(out))


def _read(file: Path) -> dict[str, Any]:
    try:
        return read_object(file, finite=False)
    except ValueError:  # none, or a broken one: the stage is done again
        return {}
