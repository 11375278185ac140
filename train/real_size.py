"""Memory and time of a checkpoint's exact shape, without its weights: ``python -m train.real_size --metadata FOLDER``.

A random checkpoint is written in the published sharded layout, loaded as any other, decoded with every cache, and a head is
fitted on it.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from models.masked_lm import MaskedLM

GIB = 2**30
POLICIES = {"threshold": {}, "ete": {"gamma": 1.0, "min_masks": 0, "branches": 4}, "learned": {}}


def real_size(
    *,
    metadata: Path,
    out: Path,
    work: Path,
    tokenizer: Path | None = None,
    gen_length: int = 64,
    device: str = "cuda",
) -> None:
    """Write, load, decode and fit at the real size on one device, and print what it took.

    Args:
        metadata: folder with config.json and model.safetensors.index.json of a published checkpoint.
        out: folder for real-size.json.
        work: folder for the random checkpoint (16 GB at 8B) and the head; the checkpoint is removed afterwards.
        tokenizer: folder of a tokenizer that encodes the prompts; default the shipped model's.
        gen_length: of the decodes, a multiple of 32.
        device: where the model goes; GPU memory is reported on cuda alone.
    """
    for name in ("config.json", "model.safetensors.index.json"):
        if not (metadata / name).is_file():
            raise ValueError(f"metadata must be a folder with {name}, got {metadata}")
    if gen_length < 32 or gen_length % 32:
        raise ValueError(f"gen_length must be a multiple of 32, got {gen_length}")
    from train.commands.folders import MODEL, or_shipped

    tokenizer = Path(or_shipped(None if tokenizer is None else str(tokenizer), MODEL))
    checkpoint = work / "checkpoint"
    if checkpoint.exists():
        raise ValueError(f"work must hold no folder checkpoint, which is written and removed, got one in {work}")
    from multiprocessing import get_context

    import torch

    from decoding.provenance import environment, write_json

    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device must be one of this machine, got {device} without a GPU")
    figures: dict[str, Any] = {"metadata": metadata.name}
    try:
        figures["largest_shard_gib"] = write_random(metadata, checkpoint, device)
        with get_context("spawn").Pool(1) as fresh:
            figures |= fresh.apply(load_alone, (checkpoint, device))
        figures |= use(checkpoint, work, tokenizer, gen_length=gen_length, device=device)
    finally:
        shutil.rmtree(checkpoint, ignore_errors=True)
    write_json(out / "real-size.json", figures | {"environment": environment(device=torch.device(device), seed=0)})
    print(json.dumps(figures, indent=1))


def write_random(metadata: Path, folder: Path, device: str) -> float:
    """Write random bfloat16 weights in the layout of the index; returns the size of the largest shard in GiB."""
    import torch
    from safetensors.torch import save_file

    from models.checkpoints.families import family_of
    from models.checkpoints.loading import empty_model, native_names

    folder.mkdir(parents=True, exist_ok=True)
    config = json.loads((metadata / "config.json").read_text())
    weight_map: dict[str, str] = json.loads((metadata / "model.safetensors.index.json").read_text())["weight_map"]
    for name in ("config.json", "model.safetensors.index.json"):
        shutil.copy(metadata / name, folder)
    family = family_of(config)
    shapes = {name: p.shape for name, p in empty_model(family, config).named_parameters()}
    native = native_names(family, weight_map)
    torch.manual_seed(0)
    largest = 0
    for file in sorted(set(weight_map.values())):
        part = {}
        for name in (name for name, of in weight_map.items() if of == file):
            shape = shapes[native[name]]
            scale = 1.0 if len(shape) == 1 and name.endswith("weight") else 0.02
            value = torch.ones(shape) if scale == 1.0 else torch.randn(shape, device=device) * scale
            part[name] = value.to(torch.bfloat16).cpu()
        save_file(part, folder / file, metadata={"format": "pt"})
        largest = max(largest, (folder / file).stat().st_size)
    return largest / GIB


def load_alone(folder: Path, device: str) -> dict[str, float]:
    """Load in a process of its own; host memory is the most it ever held over what it held before."""
    import torch

    import models

    torch.zeros(1, device=device)
    before, began = host_memory("VmRSS"), time.perf_counter()
    denoiser = models.load(folder, device=device)
    next(denoiser.blocks[-1].parameters()).sum().item()  # waits for the copies
    return {
        "load_seconds": time.perf_counter() - began,
        "host_gib_before": before,
        "host_gib_peak": host_memory("VmHWM"),
        "weights_gib": sum(p.nbytes for p in denoiser.parameters()) / GIB,
        "parameters": sum(p.numel() for p in denoiser.parameters()),
    }


def host_memory(field: str) -> float:
    """A figure of this process's memory in GiB (Linux)."""
    line = next(one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith(field + ":"))
    return int(line.split()[1]) * 1024 / GIB


def use(folder: Path, work: Path, tokenizer: Path, *, gen_length: int, device: str) -> dict[str, Any]:
    """Fit a head, save it, load it again, and decode four prompts with every policy and cache.

    Args:
        folder: the checkpoint.
        work: folder of what is fitted.
        tokenizer: its folder.
        gen_length: positions to fill.
        device: where to run.
    """
    from transformers import AutoTokenizer

    import models
    from decoding import generate
    from models.heads.scoring_head import load_head

    denoiser = models.load(folder, device=device)
    denoiser.tokenizer = AutoTokenizer.from_pretrained(tokenizer)
    fitted = measured(lambda: fit_and_save(denoiser, work))
    denoiser.put_on(load_head(work / "head", denoiser))
    prompts = [list(range(5, 5 + length)) for length in (16, 40, 64, 128)]
    rows = []
    for cache in ("none", "prefix", "dual"):
        for policy, settings in POLICIES.items():
            options: dict[str, Any] = {"gen_length": gen_length, "block_length": 32, "use_cache": cache, **settings}
            figures = measured(lambda: generate(denoiser, prompts, policy, early_stop=False, **options))  # noqa: B023
            rows.append({"policy": policy, "cache": cache, **figures})
    return {"head": fitted, "decodes": rows}


def fit_and_save(denoiser: MaskedLM, work: Path) -> None:
    """A head through collection, two passes of one step or more, and saving."""
    from decoding.policies.ete import BeamETE
    from decoding.policies.threshold import Threshold
    from decoding.policy import Policy
    from decoding.traces.labelling import Labelling
    from models.heads.scoring_head import save_head
    from train.head.fit import fit_head, prepare
    from train.head.settings import VARIANTS, Fitting, TaskRun
    from train.traces.collection import collect

    beam = BeamETE()
    drivers: dict[str, Policy] = {"threshold": Threshold(0.9)}
    labelling = Labelling(states_per_prompt=2, labelled=1, branches=4, dev_branches=4)
    tasks = {"multiplication": TaskRun(prompts=4, dev_prompts=1)}
    collect(denoiser, tasks, work / "traces", beam=beam, drivers=drivers, labelling=labelling, batch_size=4, seed=0)
    fitting = Fitting(variants=("lora",), epochs=2, batch_size=4)
    data = prepare(denoiser, [work / "traces" / "multiplication"], fitting, threshold=beam.threshold, seed=0)
    head = fit_head(denoiser, data, VARIANTS["lora"], fitting, seed=0, threshold=beam.threshold, logs=None)
    save_head(head, work / "head")


def measured(call: Callable[[], object]) -> dict[str, float]:
    """Seconds and, on a GPU, peak memory of a call."""
    import torch

    from models.devices import find_device, now

    device = find_device(None)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    began = now(device)
    made = call()
    figures = {"seconds": now(device) - began}
    if device.type == "cuda":
        figures["peak_gpu_gib"] = torch.cuda.max_memory_allocated() / GIB
    calls = getattr(made, "nfe", 0)
    return figures | ({"nfe": calls, "ms_a_call": 1e3 * figures["seconds"] / calls} if calls else {})


if __name__ == "__main__":
    from train.commands.command_line import run

    run(real_size)
