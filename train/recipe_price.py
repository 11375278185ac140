"""What fitting a head costs at a published shape: ``python -m train.recipe_price --shapes FOLDER,FOLDER --out DIR``.

Weights are random, so only the cost is measured. `torchrun --nproc-per-node 4 -m train.recipe_price` measures it on four GPUs.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from models.masked_lm import MaskedLM
    from train.tasks import Example, Task

GIB = 2**30
MARK = "<!-- price -->"
STATES = 1_000_000  # rows of examples: the shipped cascade of reason-7m saw 3,552 batches of at most 384
COLUMNS = (
    *("shape", "K", "GPUs", "collection, states an hour", "head, states an hour"),
    *("cascade, steps an hour", "cascade, states an hour", "peak GiB a GPU", "GPU-hours for 1M states"),
)


@dataclass(frozen=True)
class Sizes:
    """How much is measured, the same at every number of GPUs.

    Attributes:
        prompt, gen_length, block_length: in positions.
        rounds: of a decode.
        batch_size: prompts of each process.
        steps: of each fit.
        warm: steps before them that are not timed.
    """

    prompt: int
    gen_length: int
    block_length: int
    rounds: int
    batch_size: int
    steps: int
    warm: int = 2


def recipe_price(
    *,
    shapes: str,
    out: Path,
    page: Path | None = None,
    blocks: tuple[int, ...] = (2, 4, 8),
    prompt: int = 256,
    gen_length: int = 256,
    block_length: int = 32,
    rounds: int = 64,
    batch_size: int = 8,
    steps: int = 12,
    tokenizer: Path = Path("checkpoints/reason-7m"),
    device: str | None = None,
) -> None:
    """Measure collection, head fit and cascade fit with random weights of a shape, and print and write the table of all runs.

    Of several processes each collects states of its own and leads prompts of its own for the cascade; the states of a head's
    batch are shared out. The figures of one number of GPUs go into a file of `out`, and the table has those of all.

    Args:
        shapes: folders with config.json, with commas between them.
        out: folder of SHAPE-GPUS.json and price.md.
        page: a page whose part between two comments `price` gets the table.
        blocks: K of each cascade.
        prompt: tokens of a prompt.
        gen_length: positions to fill.
        block_length: divides gen_length.
        rounds: of a decode, a multiple of the number of blocks.
        batch_size: prompts in one forward of a process.
        steps: of each fit that is timed.
        tokenizer: folder of a tokenizer that spells digits apart.
        device: where to run; by default the GPU if there is one.
    """
    folders = [Path(one.strip()) for one in shapes.split(",")]
    for folder in folders:
        if not (folder / "config.json").is_file():
            raise ValueError(f"shapes must be folders with config.json, got {folder}")
    for name, value in (
        ("prompt", prompt),
        ("batch_size", batch_size),
        ("steps", steps),
        ("block_length", block_length),
    ):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if gen_length % block_length or rounds % (gen_length // block_length):
        raise ValueError(f"rounds must be a multiple of the {gen_length // block_length} blocks, got {rounds}")
    if page is not None and page.read_text(encoding="utf-8").count(MARK) != 2:
        raise ValueError(f"page must hold {MARK} twice, got {page}")

    from decoding.provenance import environment, write_json, write_text
    from models.devices import find_device
    from models.ranks import find_ranks

    where, ranks = find_device(device), find_ranks()
    sizes = Sizes(prompt, gen_length, block_length, rounds, batch_size, steps)
    for folder in folders:
        figures = measure(folder, sizes, blocks, tokenizer=tokenizer, device=where)
        if ranks.first:
            about = {"shape": folder.name, "gpus": ranks.size, "sizes": vars(sizes), **figures}
            file = out / f"{folder.name}-{ranks.size}.json"
            write_json(file, about | {"environment": environment(device=where, seed=0)})
    if ranks.first:
        text = table([json.loads(file.read_text(encoding="utf-8")) for file in sorted(out.glob("*-*.json"))])
        write_text(out / "price.md", text)
        if page is not None:
            before, _, after = page.read_text(encoding="utf-8").split(MARK)
            write_text(page, f"{before}{MARK}\n{text}{MARK}{after}")
        print(text)


def measure(folder: Path, sizes: Sizes, blocks: tuple[int, ...], *, tokenizer: Path, device: Any) -> dict[str, Any]:
    """All figures of one shape.

    Args:
        folder: with config.json.
        sizes: of prompts, batches and fits.
        blocks: K of each cascade.
        tokenizer: its folder.
        device: where to run.
    """
    import torch
    from transformers import AutoTokenizer

    from models.profile import random_model

    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    denoiser = random_model(folder, device, dtype)
    denoiser.tokenizer = AutoTokenizer.from_pretrained(tokenizer)
    task, examples = task_of(sizes)
    rows, collected = collect(denoiser, task, examples, sizes)
    found: dict[str, Any] = {"parameters": sum(p.numel() for p in denoiser.model.parameters()), "collection": collected}
    found["head"] = fit_head(denoiser, rows, sizes)
    kept = [k for k in blocks if k <= len(denoiser.blocks)]
    found["cascades"] = [fit_cascade(denoiser, task, examples, sizes, k) for k in kept]
    return found


def task_of(sizes: Sizes) -> tuple[Task, list[Example]]:
    """Prompts of digits, as many for every process, and answers of which nothing is expected."""
    from train.tasks import Example, get

    task = replace(get("multiplication"), gen_length=sizes.gen_length, block_length=sizes.block_length)
    digits = "1234567890" * (sizes.prompt // 10 + 1)
    return task, [Example(digits[: sizes.prompt - 1] + str(one % 10), "1") for one in range(2 * sizes.batch_size)]


def clocked(call: Callable[[], Any], device: Any) -> tuple[Any, dict[str, float]]:
    """What a call gives, with its seconds and the peak of a GPU's memory in GiB, the most of all processes."""
    import torch

    from models.ranks import find_ranks

    on_gpu, ranks = device.type == "cuda", find_ranks()
    if on_gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    ranks.barrier()
    began = time.perf_counter()
    made = call()
    if on_gpu:
        torch.cuda.synchronize()
    seconds = time.perf_counter() - began
    peak = torch.cuda.max_memory_allocated() / GIB if on_gpu else 0.0
    return made, {"seconds": max(ranks.gather(seconds)), "peak_gib": max(ranks.gather(peak))}


def collect(
    denoiser: MaskedLM, task: Task, examples: list[Example], sizes: Sizes
) -> tuple[list[Any], dict[str, float]]:
    """States with labelled branches of one batch of prompts a process, and what they cost.

    Args:
        denoiser: the base.
        task: of the canvas.
        examples: two batches of prompts.
        sizes: of the batch.
    """
    from decoding.policies.ete import BeamETE
    from decoding.policies.quota import Quota
    from decoding.traces.labelling import Labelling
    from models.ranks import find_ranks
    from train.head.collection import Collector

    labelling = Labelling(states_per_prompt=8, labelled=2, branches=12, strata=6, bare=4)
    drivers: dict[str, Any] = {"quota": Quota(steps=sizes.rounds)}
    collector = Collector(
        denoiser,
        task,
        BeamETE(),
        drivers,
        labelling,
        sizes.block_length,
        2 * sizes.batch_size,
        0,
        chunk=sizes.batch_size,
    )
    some, rank = examples[: sizes.batch_size], find_ranks().rank
    rows, cost = clocked(lambda: list(collector.rows(some, 0, rank, "train")), denoiser.device)
    states = sum(find_ranks().gather(len(rows)))
    return find_ranks().decide(rows), cost | {"states": states, "states_an_hour": 3600 * states / cost["seconds"]}


def fit_head(denoiser: MaskedLM, rows: list[Any], sizes: Sizes) -> dict[str, float]:
    """Steps on batches of states, the trunk run anew in each; of several processes each has its states of every batch.

    Args:
        denoiser: the base.
        rows: of traces.
        sizes: of the fit.
    """
    import torch

    from decoding.features import NAMES
    from models.heads.scoring_head import ScoringHead
    from models.ranks import find_ranks
    from train.head.data import HeadData, columns
    from train.head.module import HeadModule, PreparedBatches
    from train.head.settings import VARIANTS, Fitting, Objective

    fitting, size = Fitting(), 2 * sizes.batch_size
    width = max(1, *(len(columns(row["branches"])) for row in rows))
    batches = list(HeadData(rows, denoiser.mask_id, denoiser.eos_id, 0.9, width).batches(size, generator=None))
    taps = (len(denoiser.blocks) - 1,)
    mine = PreparedBatches(denoiser, batches, taps=taps, threshold=0.9, gigabytes=0).of_this_process()
    head = ScoringHead(fitting.config(VARIANTS["conflict"], NAMES), denoiser).to(denoiser.device).train()
    module = HeadModule(head, Objective(conflict=1.0))
    optimizer = torch.optim.AdamW([p for p in head.parameters() if p.requires_grad], lr=1e-4)

    def step(number: int) -> None:
        loss: Any = module.losses(mine[number % len(mine)])["loss"]
        loss.backward()
        find_ranks().sum_gradients(head.parameters())
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    for number in range(sizes.warm):
        step(number)
    _, cost = clocked(lambda: list(map(step, range(sizes.steps))), denoiser.device)
    states = sum(len(batches[number % len(batches)].state_index) for number in range(sizes.steps))
    return cost | {
        "states_an_hour": 3600 * states / cost["seconds"],
        "steps_an_hour": 3600 * sizes.steps / cost["seconds"],
    }


def fit_cascade(denoiser: MaskedLM, task: Task, examples: list[Example], sizes: Sizes, blocks: int) -> dict[str, float]:
    """Steps of a cascade, decodes that lead to its examples among them; every process leads prompts of its own.

    Args:
        denoiser: the base.
        task: of the canvas.
        examples: two batches of prompts.
        sizes: of the fit.
        blocks: K.
    """
    import torch

    from decoding.features import NAMES
    from decoding.policies.quota import Quota
    from models.heads.cascade import Cascade, CascadeConfig
    from models.heads.config import HeadConfig
    from models.heads.scoring_head import ScoringHead
    from models.ranks import find_ranks
    from train.cascade.examples import CascadeExample, TaskPrompts, divergence
    from train.cascade.leading import CascadeExamples
    from train.head.loss import over_all

    denoiser.put_on(ScoringHead(HeadConfig("linear", NAMES), denoiser).to(denoiser.device).eval())
    cascade = Cascade(CascadeConfig(blocks=blocks, base=denoiser.fingerprint()), denoiser).to(denoiser.device).train()
    denoiser.head.cascade = cascade
    optimizer = torch.optim.AdamW([p for p in cascade.parameters() if p.requires_grad], lr=1e-4)
    prompts = TaskPrompts(task.name, [one.prompt for one in examples], task.gen_length, task.block_length)
    how: dict[str, Any] = {"batch_size": sizes.batch_size, "seed": find_ranks().rank}
    stream: Iterator[CascadeExample] = iter(
        CascadeExamples(denoiser, [prompts], [Quota(steps=sizes.rounds)], denoiser.head.taps_ahead, **how)
    )

    def steps(count: int) -> int:
        states = 0
        for one in islice(stream, count):
            apart = divergence(one.target, one.foretold(cascade))
            loss: Any = over_all(apart.sum(), torch.tensor(len(apart), device=apart.device))
            loss.backward()
            find_ranks().sum_gradients(cascade.parameters())
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            states += len(one.prompt)
        return states

    steps(sizes.warm)
    states, cost = clocked(lambda: steps(sizes.steps), denoiser.device)
    all_states = sum(find_ranks().gather(states))
    rates = {
        "steps_an_hour": 3600 * sizes.steps / cost["seconds"],
        "states_an_hour": 3600 * all_states / cost["seconds"],
    }
    return {"blocks": blocks, **cost, **rates, "states": all_states}


def table(runs: list[dict[str, Any]]) -> str:
    """A line for every shape, K and number of GPUs; GPU-hours are those of as many states as a shipped cascade saw."""
    lines = [f"| {' | '.join(COLUMNS)} |", f"|{' --- |' * len(COLUMNS)}"]
    for run in sorted(runs, key=lambda one: (one["shape"], one["gpus"])):
        for one in run["cascades"]:
            rates = [run["collection"]["states_an_hour"], run["head"]["states_an_hour"]]
            rates += [one["steps_an_hour"], one["states_an_hour"]]
            cells = [run["shape"], str(one["blocks"]), str(run["gpus"]), *(f"{rate:,.0f}" for rate in rates)]
            hours = run["gpus"] * STATES / one["states_an_hour"]
            cells += [f"{one['peak_gib']:.1f}", f"{hours:.1f}"]
            lines.append(f"| {' | '.join(cells)} |")
    devices = ", ".join(sorted({run["environment"]["device"] for run in runs}))
    sizes = runs[0]["sizes"]
    canvas = f"prompts of {sizes['prompt']}, canvas {sizes['gen_length']} in blocks of {sizes['block_length']}"
    how = f"{sizes['rounds']} rounds, {sizes['batch_size']} prompts a GPU, no cache"
    return "\n".join([*lines, "", f"Random weights, {devices}; {canvas}, {how}.", ""])


if __name__ == "__main__":
    from train.commands.command_line import run

    run(recipe_price)
