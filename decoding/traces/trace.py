"""Beam traces as tables: how states and their branches are written, read back and checked against the base.

A trace holds ids and labels only, never hidden states: the trunk is run again when a head is fitted.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool
from torch import Tensor

from decoding.commit import commit_first
from decoding.files.aside import written_aside
from decoding.state import DecodeState, Layout, Proposal, Reason
from decoding.traces.branches import predict
from decoding.traces.header import HEADER, PARTS, origin_of, read_header, short
from models.complaints import shown
from models.denoiser import Denoiser

if TYPE_CHECKING:
    from datasets import Dataset

PART = re.compile(r"part-(?P<split>\w+)-(?P<number>\d{5,})\.parquet")
ORIGIN = b"traces"  # key of a part's own metadata


def table_features() -> Any:
    """The columns of a trace table as `datasets.Features`; canvas columns have gen_length entries."""
    from datasets import Features, List, Value

    ints, floats = List(Value("int32")), List(Value("float16"))
    branch = {
        "position": Value("int32"),
        "kind": Value("int8"),
        "propensity": Value("float32"),
        "log_confidence": Value("float32"),
        "eq7": Value("float32"),
        "token": ints,
        "log_risk": floats,
        "harm": Value("int8"),
        "benefit": Value("int8"),
        "answer": ints,
    }
    return Features(
        {
            "state_id": Value("string"),
            "prompt_id": Value("int64"),
            "split": Value("string"),
            "task": Value("string"),
            "driver": Value("string"),
            "tokens": ints,
            "reference": ints,
            "unique_answer": Value("bool"),
            "committed_round": List(Value("int16")),
            "recent_confidence": List(Value("float32")),
            "recent_token": ints,
            "opened": Value("int32"),
            "spent": Value("int32"),
            "round": Value("int32"),
            "block_length": Value("int32"),
            "asked": List(Value("bool")),
            "branches": List(branch),
        }
    )


def write_part(rows: list[dict[str, Any]], file: Path) -> None:
    """Write one part of a table aside and rename it, so that a part on disk is always whole; it names its folder's header."""
    from datasets import Dataset
    from pyarrow.parquet import write_table

    columns = table_features()
    table = Dataset.from_dict({name: [row[name] for row in rows] for name in columns}, features=columns).data.table
    there = (file.parent / HEADER).is_file()
    origin = {ORIGIN: origin_of(read_header(file.parent)).encode()} if there else {}
    named = table.replace_schema_metadata({**(table.schema.metadata or {}), **origin})
    with written_aside(file) as aside:
        write_table(named, aside, write_page_checksum=True)


def load_table(folder: Path, denoiser: Denoiser) -> Dataset:
    """Read all parts of a folder; refuses traces of another base.

    Raises:
        ValueError: if the folder holds no traces, or not this base's.
    """
    from datasets import concatenate_datasets

    parts = sorted(folder.glob(PARTS))
    if not (folder / HEADER).is_file() or not parts:
        raise ValueError(f"a trace folder must hold {HEADER} and {PARTS}, got {folder}")
    stored = read_header(folder)
    base = str(stored.get("base"))
    if base != denoiser.fingerprint():
        raise ValueError(f"the traces in {folder} must be of this base {denoiser.fingerprint()[:12]}, got {base[:12]}")
    return concatenate_datasets([_read_part(part, stored) for part in parts])


def _read_part(file: Path, found: Mapping[str, Any]) -> Dataset:
    """One part, in memory: `Dataset.from_parquet` would leave a copy in the user's cache."""
    from datasets import Dataset
    from pyarrow import ArrowException
    from pyarrow.parquet import read_table

    try:
        table = read_table(file, page_checksum_verification=True)
        table.validate(full=True)
        part = Dataset(table)
    except (ArrowException, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{file} must be a whole parquet file, got a broken one") from error
    if part.features != table_features():
        raise ValueError(f"{file} must have the columns of this version's traces, got {', '.join(part.column_names)}")
    origin = (table.schema.metadata or {}).get(ORIGIN, b"").decode()
    if origin not in ("", origin_of(found)):
        raise ValueError(f"{file} must be of the run of its {HEADER}, got a part of another one")
    _check_place(file, part, found)
    return part


def _check_place(file: Path, part: Dataset, found: Mapping[str, Any]) -> None:
    """Refuse, by its file, a part whose name is not that of its prompts: copied within the folder, or from elsewhere."""
    name = PART.fullmatch(file.name)
    if name is None:
        raise ValueError(f"{file} must be named part-SPLIT-NUMBER.parquet, got another name")
    split = name["split"]
    chunk: Any = found.get("chunk")
    prompts: Any = found.get("prompts")
    if chunk is None and prompts is None:  # a table that was not collected
        return
    try:
        first, count = int(name["number"]) * operator.index(chunk), operator.index(prompts.get(split, [0])[0])
    except (TypeError, AttributeError, LookupError):
        wanted = "the prompts of every split and how many are in a part"
        raise ValueError(f"{file.parent / HEADER} must say {wanted}, got {short([prompts, chunk])}") from None
    mine = range(first, min(first + chunk, count))
    if not mine:
        raise ValueError(f"{file} must be of the {count} {split} prompts of its run, got prompts from {first} on")
    for column, allowed in (("split", {split}), ("task", {found.get("task")}), ("prompt_id", mine)):
        strange = next((value for value in part[column] if value not in allowed), None)
        if strange is not None:
            raise ValueError(f"{file} must hold its own part of the prompts, got {column} {shown(strange)}")


def rebuild(
    rows: Sequence[Mapping[str, Any]], *, mask_id: int, eos_id: int | None
) -> tuple[DecodeState, Bool[Tensor, "S L"]]:
    """The states of rows of one task, left padded to one length, and their attention mask.

    Reasons, confidences of committed tokens, the step budget and what drafts cost are not recorded; heads read none of them.
    """
    gen, block_length = len(rows[0]["reference"]), rows[0]["block_length"]
    width, count = max(len(row["tokens"]) for row in rows), len(rows)
    tokens = torch.full((count, width), 0 if eos_id is None else eos_id)
    attention = torch.zeros(count, width, dtype=torch.bool)
    committed_round = torch.zeros(count, width, dtype=torch.long)
    recent_confidence, recent_token = torch.zeros(count, 2, width), torch.full((count, 2, width), -1)
    for s, row in enumerate(rows):
        tokens[s, width - len(row["tokens"]) :] = torch.tensor(row["tokens"])
        attention[s, width - len(row["tokens"]) :] = True
        committed_round[s, -gen:] = torch.tensor(row["committed_round"])
        recent_confidence[s, :, -gen:] = torch.tensor(row["recent_confidence"]).view(2, gen)
        recent_token[s, :, -gen:] = torch.tensor(row["recent_token"]).view(2, gen)
    position = torch.arange(width) - (width - gen)
    block = torch.where(position >= 0, position.div(block_length, rounding_mode="floor"), -1)
    nothing = torch.zeros(count, dtype=torch.long)
    state = DecodeState(
        layout=Layout(mask_id, eos_id, None),
        block=block.expand(count, width),
        num_blocks=torch.full((count,), gen // block_length),
        tokens=tokens,
        masked=(tokens == mask_id) & (block >= 0),
        opened=torch.tensor([row["opened"] for row in rows]),
        spent=torch.tensor([row["spent"] for row in rows]),
        round=torch.tensor([row["round"] for row in rows]),
        committed_round=committed_round,
        committed_confidence=torch.zeros(count, width),
        reason=torch.zeros_like(tokens),
        recent_confidence=recent_confidence,
        recent_token=recent_token,
        looks=nothing,
        drafts=nothing,
        drafts_true=nothing,
        memory=torch.zeros(count, 0, width),
    )
    return state, attention


def check_drift(
    denoiser: Denoiser, rows: Sequence[Mapping[str, Any]], *, count: int = 16, tolerance: float | None = None
) -> None:
    """Try the exploit-only branch of up to `count` labelled states again and refuse traces that this base does not repeat.

    Args:
        denoiser: the base.
        rows: of a trace table; the states are taken evenly from those with branches.
        count: states tried.
        tolerance: largest difference of log(1 - c) where it was above -12, stored in float16; by default .05, and .5 where the
            base's weights are coarser than float32.

    Raises:
        ValueError: naming the state that differs most.
    """
    if tolerance is None:
        coarse = any(p.dtype in (torch.bfloat16, torch.float16) for p in denoiser.parameters())
        tolerance = 0.5 if coarse else 0.05
    labelled = [row for row in rows if row["branches"]]
    chosen = labelled[:: max(1, len(labelled) // count)][:count]
    drifts = {row["state_id"]: _drift(denoiser, row) for row in chosen}
    worst = max(drifts, key=drifts.__getitem__, default=None)
    if worst is not None and drifts[worst] > tolerance:
        raise ValueError(
            f"log_risk in the traces must be what this base gives within {tolerance}, "
            f"got a difference of {drifts[worst]:.2g} in state {worst}"
        )


@torch.inference_mode()
def _drift(denoiser: Denoiser, row: Mapping[str, Any]) -> float:
    """Largest difference of log(1 - c) between a row's branch 0 and that branch tried again."""
    state, attention = rebuild([row], mask_id=denoiser.mask_id, eos_id=denoiser.eos_id)
    state, attention = state.to(denoiser.device), attention.to(denoiser.device)
    asked = torch.zeros_like(state.masked)
    asked[0, -len(row["asked"]) :] = torch.tensor(row["asked"], device=asked.device)
    stored = torch.tensor(row["branches"][0]["log_risk"], device=asked.device, dtype=torch.float)
    left = torch.tensor(row["branches"][0]["token"], device=asked.device) >= 0
    reading = predict(denoiser, state.tokens, state.feasible, attention)
    exploited = state.feasible & asked.masked_scatter(asked, ~left)
    after = commit_first(state, reading, Proposal.single(state, reading, exploited * int(Reason.EXPLOIT)))
    rows = asked.masked_scatter(asked, left)
    again = predict(denoiser, after.tokens, rows, attention).log_risk[rows]
    seen = stored[left] > -12
    apart = (again - stored[left])[seen].abs().nan_to_num(nan=torch.inf)
    return float(apart.amax()) if len(apart) else 0.0
