"""What collection, a head and a cascade cost on a model of random weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from models.masked_lm import MaskedLM
    from train.tasks import Example, Task


GIB = 2**30


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

    from models.devices import now
    from models.ranks import find_ranks

    on_gpu, ranks = device.type == "cuda", find_ranks()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    ranks.barrier()
    began = now(device)
    made = call()
    seconds = now(device) - began
    peak = torch.cuda.max_memory_allocated(device) / GIB if on_gpu else 0.0
    return made, {"seconds": max(ranks.gather(seconds)), "peak_gib": max(ranks.gather(peak))}


def collect(denoiser: MaskedLM, task: Task, examples: list[Example], sizes: Sizes) -> tuple[list[Any], dict[str, Any]]:
    """States with labelled branches of one batch of prompts a process, and what they cost on the plain layers.

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
    from train.traces.collection import Collector

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
    list(collector.rows(some[:1], 0, rank, "train"))  # what the first forwards load is not counted
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
    mine = PreparedBatches(denoiser, batches, taps=taps, threshold=0.9, gigabytes=0.0).of_this_process()
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


def fit_cascade(denoiser: MaskedLM, task: Task, examples: list[Example], sizes: Sizes, blocks: int) -> dict[str, Any]:
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
    from train.cascade.examples import TaskPrompts, divergence
    from train.cascade.leading import CascadeExamples
    from train.head.loss import over_all

    denoiser.put_on(ScoringHead(HeadConfig("linear", NAMES), denoiser).to(denoiser.device).eval())
    cascade = Cascade(CascadeConfig(blocks=blocks, base=denoiser.fingerprint()), denoiser).to(denoiser.device).train()
    denoiser.head.cascade = cascade
    optimizer = torch.optim.AdamW([p for p in cascade.parameters() if p.requires_grad], lr=1e-4)
    prompts = TaskPrompts(task.name, [one.prompt for one in examples], task.gen_length, task.block_length)
    how: dict[str, Any] = {"batch_size": sizes.batch_size, "seed": find_ranks().rank}
    stream: Any = iter(
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
    stream.close()  # in the middle of a decode
    all_states = sum(find_ranks().gather(states))
    rates = {
        "steps_an_hour": 3600 * sizes.steps / cost["seconds"],
        "states_an_hour": 3600 * all_states / cost["seconds"],
    }
    return {"blocks": blocks, **cost, **rates, "states": all_states}
