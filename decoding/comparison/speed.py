"""How long rounds take on this machine, by rows, batch, cache and policy, against what the hardware allows.

`python -m models.profile` is its command.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

import models
from decoding.api import generate
from decoding.features import NAMES
from decoding.provenance import environment, write_json
from models.devices import find_device
from models.heads.cascade import Cascade, CascadeConfig
from models.heads.config import HeadConfig
from models.heads.scoring_head import ScoringHead
from models.masked_lm import MaskedLM
from models.profile import ceilings, denoiser_ms, floor_ms, plain_ms, published_ms, random_model

LOG = logging.getLogger(__name__)
PART = "speed.part.json"  # what is measured of a profile that is not whole
BRANCHES = (1, 2, 4, 8)
FREE = 1.1  # a round costs as much as one canvas up to this factor
DRAFTS = {"policy": "verified", "rule": "threshold", "threshold": 0.999}
# decodes in which every round commits as little, looks, branches, and drafts, as it can
SURE: dict[str, dict[str, Any]] = {
    "threshold": {"policy": "threshold", "threshold": 0.999},
    "learned": {"policy": "learned", "looks": 1, "risk_bound": 1e-6},
    "ete": {"policy": "ete", "gamma": 1.0, "min_masks": 0, "branches": 4, "step_budget": None, "threshold": 0.9999},
    "verified, 2 canvases": {**DRAFTS, "canvases": 2, "source": "cascade"},
    "verified, 4 canvases": {**DRAFTS, "canvases": 4, "source": "cascade"},
    "verified from the reading, 2 canvases": {**DRAFTS, "canvases": 2, "source": "reading"},
    "verified from the reading, 4 canvases": {**DRAFTS, "canvases": 4, "source": "reading"},
}


def profile(
    *,
    model: str | Path,
    head: str | Path | None = None,
    shape: Path | None = None,
    out: Path | None = None,
    device: str | None,
) -> dict[str, Any]:
    """Measure a checkpoint, or random weights of a shape.

    Args:
        model: a checkpoint folder, where no shape is given.
        head: folder of its scoring head.
        shape: folder with config.json.
        out: where speed.json and speed.png go; what is measured before the end stands in speed.part.json.
        device: cpu or cuda; by default the GPU if there is one.

    Returns:
        What speed.json holds.
    """
    where = find_device(device)
    if shape is None:
        denoiser = models.load(model, device=where, head=head)
        prompt, canvas, block = 32, 32, 8
    else:
        dtype = torch.bfloat16 if where.type == "cuda" else torch.float32
        denoiser = random_model(shape, where, dtype)
        prompt, canvas, block = 256, 256, 32
    found: dict[str, Any] = {"of": str(shape or model), "environment": environment(device=where, seed=0)}
    found["machine"] = ceilings(where, next(denoiser.parameters()).dtype)
    found["lengths"] = {"prompt": prompt, "canvas": canvas, "block": block}
    if out is not None:
        (out / PART).unlink(missing_ok=True)
    for part in measure(denoiser, found["machine"], lengths=(prompt, canvas, block)):
        found |= part
        if out is not None:
            write_json(out / PART, found)
    if out is not None:
        (out / PART).replace(out / "speed.json")
        draw(found, out / "speed.png")
    return found


def measure(
    denoiser: MaskedLM, machine: Mapping[str, float], *, lengths: tuple[int, int, int]
) -> Iterator[dict[str, Any]]:
    """Plain layers and the published loop, forwards alone, rounds of every policy, and the free lunch, each as it is measured.

    Args:
        denoiser: with a head, if `learned` is to be measured on a checkpoint.
        machine: its ceilings.
        lengths: of prompt, canvas and block in positions.

    Yields:
        Tables by name, those with rows again with each row.
    """
    prompt, canvas, block = lengths
    length, batches = prompt + canvas, (1, 8) if denoiser.device.type == "cuda" else (1,)
    _peak(denoiser)
    denoiser.use_engine("plain")
    plain = {
        f"{mode} {b}": plain_ms(denoiser, batch=b, rows=rows, length=length, mode=mode)
        for b, (mode, rows) in itertools.product(batches, (("dual", block), ("none", canvas)))
    }
    slow = round_row(denoiser, "threshold", batch=batches[-1], mode="dual", lengths=lengths)
    memory = {"plain": _peak(denoiser)}
    yield {"plain_ms": plain, "plain_round": slow}
    yield {"published_ms": {str(b): published_ms(denoiser, batch=b, length=length, canvas=canvas) for b in batches}}
    denoiser.use_engine("graphs")
    _peak(denoiser)
    first = round_row(denoiser, "threshold", batch=batches[-1], mode="dual", lengths=lengths)
    yield {"first_round": first, "peak_memory_gib": memory | {"graphs": _peak(denoiser)}}
    alone: list[dict[str, Any]] = []
    for b, (mode, rows) in itertools.product(batches, (("dual", block), ("none", length))):
        for k in BRANCHES if b == 1 else (1,):
            how: dict[str, Any] = {"batch": b, "canvases": k, "rows": rows, "length": length, "mode": mode}
            alone.append(forward_row(denoiser, machine, **how))
            yield {"denoiser": alone}
    yield {"free_lunch": free_lunch(alone)}
    if denoiser.head is None and find_spec("peft") is not None:
        denoiser.put_on(unfitted_head(denoiser))
    rounds: list[dict[str, Any]] = []
    for name, mode in itertools.product(SURE, ("dual", "none")):
        for b in batches if mode == "dual" else (1,):
            if can_run(name, denoiser):
                row = round_row(denoiser, name, batch=b, mode=mode, lengths=lengths)
                rounds.append(row | against_floor(denoiser, machine, row, lengths))
                yield {"rounds": rounds, "engine": engine_figures(denoiser)}


def can_run(name: str, denoiser: MaskedLM) -> bool:
    """Whether the model has the head, or the cascade, that a decode in SURE reads."""
    head = denoiser.head
    if SURE[name].get("source") == "cascade":
        return head is not None and head.cascade is not None
    return name != "learned" or head is not None


def against_floor(
    denoiser: MaskedLM, machine: Mapping[str, float], row: Mapping[str, Any], lengths: tuple[int, int, int]
) -> dict[str, float]:
    """The floor of a round's forward, and the round over it, with and without the openings of blocks.

    Args:
        denoiser: whose weights are read.
        machine: its ceilings.
        row: of a decode.
        lengths: of prompt, canvas and block.
    """
    prompt, canvas, block = lengths
    b = row["batch"]
    whole = floor_ms(denoiser, dict(machine), rows=b * (prompt + canvas), asked=b * block)
    cached = floor_ms(denoiser, dict(machine), rows=b * block, asked=b * block)
    one = whole if row["cache"] == "none" else cached
    mean = one + (whole - one) * row["openings"] / row["rounds"]
    return {
        "floor_ms": one,
        "times_floor": row["ms"] / one,
        "times_floor_with_openings": row["ms"] / mean,
    }


def forward_row(
    denoiser: MaskedLM, machine: Mapping[str, float], *, batch: int, canvases: int, rows: int, length: int, mode: str
) -> dict[str, Any]:
    """One forward of the denoiser alone, all its rows through the LM head.

    Args:
        denoiser: with an engine.
        machine: its ceilings, of which the floor is made.
        batch: prompts.
        canvases: of each prompt.
        rows: positions computed of each canvas.
        length: of the context.
        mode: none, prefix or dual.
    """
    ms = denoiser_ms(denoiser, batch=batch, canvases=canvases, rows=rows, length=length, mode=mode, asked=rows)
    computed = batch * canvases * rows
    floor = floor_ms(denoiser, dict(machine), rows=computed, asked=computed)
    row = {"batch": batch, "canvases": canvases, "rows": rows, "cache": mode, "ms": ms, "floor_ms": floor}
    LOG.info("profile: %s", row)
    return row | {"times_floor": ms / floor}


def round_row(denoiser: MaskedLM, name: str, *, batch: int, mode: str, lengths: tuple[int, int, int]) -> dict[str, Any]:
    """A whole decode, everything captured before: milliseconds a round, openings of blocks included.

    Args:
        denoiser: decodes.
        name: of a decode in SURE.
        batch: prompts.
        mode: none, prefix or dual.
        lengths: of prompt, canvas and block.
    """
    prompt, canvas, block = lengths
    generator = torch.Generator().manual_seed(0)
    prompts = torch.randint(5, 200, (batch, prompt), generator=generator).to(denoiser.device)
    options: dict[str, Any] = {"gen_length": canvas, "block_length": block, "use_cache": mode, "early_stop": False}
    options |= SURE[name]
    before = denoiser.engine.fallbacks if denoiser.engine else 0
    cold = generate(denoiser, prompts, **options).seconds
    made = min((generate(denoiser, prompts, **options) for _ in range(2)), key=lambda g: g.seconds)
    row = {
        "policy": name,
        "batch": batch,
        "cache": mode,
        "ms": 1e3 * made.seconds / made.nfe,
        "rounds": made.nfe,
        "openings": canvas // block,
        "canvases_a_round": float(made.sequence_forwards.sum()) / made.nfe / batch,
        "looks_a_round": float(made.looks.sum()) / made.nfe / batch,
        "first_seconds": cold,
        "fallbacks": denoiser.engine.fallbacks - before if denoiser.engine else 0,
    }
    LOG.info("profile: %s", row)
    return row


def unfitted_head(denoiser: MaskedLM) -> ScoringHead:
    """A head of one block and a cascade of four (or all there are), which cost what fitted ones cost."""
    base, blocks = denoiser.fingerprint(), min(4, len(denoiser.blocks))
    head = ScoringHead(HeadConfig("lora", NAMES, blocks=1, dropout=0.0, base=base), denoiser)
    head.cascade = Cascade(CascadeConfig(blocks=blocks, base=base), denoiser)
    head.to(denoiser.device).eval().requires_grad_(False)
    head.cascade.fold()  # as a loaded one is
    return head


def free_lunch(alone: list[dict[str, Any]]) -> dict[str, int]:
    """By cache, the most canvases of one prompt whose forward costs at most FREE times one canvas."""
    found = {}
    for mode in ("dual", "none"):
        rows = {row["canvases"]: row["ms"] for row in alone if row["batch"] == 1 and row["cache"] == mode}
        found[mode] = max(k for k, ms in rows.items() if ms <= FREE * rows[1])
    return found


def engine_figures(denoiser: MaskedLM) -> dict[str, int | float]:
    """What the engine did so far."""
    engine = denoiser.engine
    graphs = engine.graphs
    return {"fallbacks": engine.fallbacks, "graphs": graphs.captured, "capture_seconds": graphs.seconds}


def table(found: Mapping[str, Any]) -> str:
    """The profile in lines."""
    machine, lines = found["machine"], []
    lines.append(f"copy {machine['copy_tb_s']:.2f} TB/s, matrix products {machine['matrix_tflop_s']:.0f} TFLOP/s")
    for row in found["denoiser"]:
        what = f"denoiser, batch {row['batch']} x {row['canvases']} canvases x {row['rows']} rows, {row['cache']}"
        lines.append(f"{what:58}{row['ms']:9.3f} ms{row['times_floor']:8.2f} x floor")
    for row in found["rounds"]:
        what = f"round of {row['policy']}, batch {row['batch']}, {row['cache']}"
        lines.append(f"{what:58}{row['ms']:9.3f} ms{row['times_floor']:8.2f} x floor")
    lines += [f"published loop, batch {b:43}{ms:9.3f} ms" for b, ms in found["published_ms"].items()]
    plain, graphs = (found["peak_memory_gib"][kind] for kind in ("plain", "graphs"))
    if plain:
        what = "peak memory of the same rounds, engine and plain"
        lines.append(f"{what:58}{graphs:9.2f} GiB{graphs / plain:8.2f} x the {plain:.2f} GiB of the plain path")
    lines.append(f"{'first call by the engine':58}{found['first_round']['first_seconds']:9.1f} s")
    lines.append(f"canvases for the price of one: {found['free_lunch']}")
    return "\n".join(lines)


def draw(found: Mapping[str, Any], file: Path) -> None:
    """Milliseconds of rounds beside their floor, where matplotlib is installed."""
    if find_spec("matplotlib") is None:
        LOG.warning("profile: no plot without matplotlib")
        return
    from matplotlib.figure import Figure

    rows = found["rounds"]
    names = [f"{row['policy']}\n{row['cache']} x {row['batch']}" for row in rows]
    figure = Figure(figsize=(1.2 * len(rows) + 1, 4), layout="constrained")
    axes = figure.subplots()
    axes.bar(names, [row["ms"] for row in rows], color="#4477aa", label="measured")
    axes.bar(names, [row["floor_ms"] for row in rows], color="#cc6677", width=0.5, label="floor of its forward")
    axes.set(ylabel="ms a round", title=f"{found['of']} on {found['environment']['device']}")
    axes.legend()
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file)


def _peak(denoiser: MaskedLM) -> float:
    """The most GPU memory in use since the last call, in GiB."""
    if denoiser.device.type != "cuda":
        return 0.0
    most = torch.cuda.max_memory_allocated(denoiser.device) / 2**30
    torch.cuda.reset_peak_memory_stats(denoiser.device)
    return most
