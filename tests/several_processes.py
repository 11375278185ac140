"""What a process does in `test_several_processes.py`, alone or as one of several.

python tests/several_processes.py WORK OUT DEVICE SIZE. DEVICE is cpu or cuda: the GPU of the process's number. On CPUs the
processes are forks of one, which imports what all of them use; on GPUs each is started by itself, with RANK, WORLD_SIZE,
LOCAL_RANK and MASTER_ADDR in its environment.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
import torch.distributed as dist  # noqa: E402

import models  # noqa: E402
from decoding.comparison.arms import Arm  # noqa: E402
from decoding.features import NAMES  # noqa: E402
from decoding.policies.ete import BeamETE  # noqa: E402
from decoding.policies.threshold import Threshold  # noqa: E402
from decoding.traces.labelling import Labelling  # noqa: E402
from models.heads.cascade import Cascade, CascadeConfig  # noqa: E402
from models.heads.config import HeadConfig  # noqa: E402
from models.heads.scoring_head import ScoringHead, save_head  # noqa: E402
from models.ranks import find_ranks  # noqa: E402
from train.base.base_model import BaseModelFit  # noqa: E402
from train.base.corpus import Rows  # noqa: E402
from train.base.rows import TaskRows, load_rows  # noqa: E402
from train.base.settings import Fit, ModelShape  # noqa: E402
from train.cascade.examples import CascadeExample, TaskPrompts, examples  # noqa: E402
from train.cascade.fit import CascadeModule, fit_cascade  # noqa: E402
from train.cascade.leading import Part  # noqa: E402
from train.commands.compare import check_compare, run_compare  # noqa: E402
from train.commands.generate import check_generate, run_generate  # noqa: E402
from train.head.fit import fit, prepare  # noqa: E402
from train.head.module import HeadModule  # noqa: E402
from train.head.settings import VARIANTS, CascadeFitting, Fitting, Objective, TaskRun  # noqa: E402
from train.traces.collection import collect  # noqa: E402

Gradients = dict[str, torch.Tensor]
FITTING = Fitting(variants=("conflict",), epochs=1, batch_size=5, rank=2, dropout=0.0)
TASKS = {"countdown3": TaskRun(prompts=6, dev_prompts=2)}


def in_float64(value: torch.Tensor) -> torch.Tensor:
    return value.double() if value.is_floating_point() else value


def gradients(module: torch.nn.Module) -> Gradients:
    return {name: p.grad.detach().cpu().clone() for name, p in module.named_parameters() if p.grad is not None}


def gather_traces(denoiser: Any, out: Path) -> list[str]:
    """Traces of three parts of train prompts and one of dev prompts, and of a collection that the first process ends."""
    how: dict[str, Any] = {
        "beam": BeamETE(branches=2),
        "drivers": {"threshold": Threshold(0.8)},
        "labelling": Labelling(states_per_prompt=3, labelled=2, branches=4, strata=2, finished=4, bare=2),
        "batch_size": 1,
        "seed": 0,
    }
    collect(denoiser, TASKS, out / "traces", **how)
    first = find_ranks().first
    collect(denoiser, TASKS, out / "ended", **how, stop=lambda: first)
    return sorted(file.name for file in (out / "ended" / "countdown3").glob("part-*"))


def base_gradients(weighting: Any, device: str) -> Gradients:
    """Of one step on rows with padding, in float64."""
    tokens = torch.arange(48).reshape(8, 6).numpy() % 9 + 3
    rows = Rows(tokens.astype("uint16"), torch.tensor([2, 1, 2, 2, 1, 2, 2, 2]).numpy())
    data = load_rows("some", rows, TaskRows(1.0, 8, pad_to=8), canvas=4, device=torch.device(device))
    torch.manual_seed(0)
    from transformers import LlamaForCausalLM

    shape = ModelShape(layers=2, width=16, heads=2, mlp_width=24, max_positions=16)
    model = LlamaForCausalLM(shape.config(vocabulary=16, eos_id=1)).double().to(device)
    fit = Fit(tokens_per_step=40, weighting=weighting)
    module = BaseModelFit(model, [data], fit, mask_id=2, max_steps=2)
    generator = module.generator_at(0)
    module.loss(data.draw(data.rows_for(40), generator), generator).backward()
    find_ranks().sum_gradients(module.model.parameters())
    return gradients(module.model)


def head_gradients(denoiser: Any, out: Path) -> Gradients:
    """Of one batch of five states, in float64: shares of 3 and 2, or of 2, 1, 1 and 1."""
    data = prepare(denoiser, [out / "traces" / "countdown3"], FITTING, threshold=0.9, seed=0)
    torch.manual_seed(0)
    head = ScoringHead(FITTING.config(VARIANTS["conflict"], NAMES), denoiser).double().to(denoiser.device)
    torch.nn.init.normal_(next(p for n, p in head.named_parameters() if p.requires_grad and "lora_B" in n), std=0.1)
    module = HeadModule(head.train(), Objective(conflict=1.0, focus=1.0))
    one = data.train.of_this_process()[0]
    reading, wrong, features = one.reading.map(in_float64), one.wrong.double(), one.features.double()
    batch = replace(one.batch, gain=one.batch.gain.double(), eq7=one.batch.eq7.double())
    module.losses(replace(one, batch=batch, reading=reading, wrong=wrong, features=features))["loss"].backward()
    module.on_after_backward()
    return gradients(head)


def fitted_head(denoiser: Any, out: Path) -> Gradients:
    """Weights after a pass over all batches; the first process measures and saves."""
    data = prepare(denoiser, [out / "traces" / "countdown3"], FITTING, threshold=0.9, seed=0)
    heads = fit(denoiser, data, FITTING, out / "heads", seed=0, threshold=0.9)
    return dict(heads["conflict"].named_parameters())


def in_part(example: CascadeExample) -> CascadeExample:
    """Every process's rows of an example."""
    ranks = find_ranks()
    mine = torch.arange(len(example.prompt))[ranks.rank :: ranks.size]
    row = example.left.nonzero()[:, 0]
    return replace(
        example,
        reading=example.reading.map(lambda v: in_float64(v[mine])),
        committed=example.committed[mine],
        left=example.left[mine],
        target=torch.cat([example.target[row == one] for one in mine]),
        prompt=example.prompt[mine],
    )


def cascade_gradients(denoiser: Any) -> Gradients:
    """Of one example of five prompts, in float64."""
    prompts = TaskPrompts.of("countdown3", TaskRun(prompts=5, dev_prompts=1), "train", None, seed=0)
    cascade = Cascade(CascadeConfig(rank=2, base=denoiser.fingerprint()), denoiser).double().to(denoiser.device)
    torch.manual_seed(0)
    for name, p in cascade.named_parameters():
        if p.requires_grad and "lora_B" in name:
            torch.nn.init.normal_(p, std=0.1)
    module = CascadeModule(cascade, CascadeFitting(steps=1), lambda: 1.0)
    module.log = lambda *args, **kwargs: None  # type: ignore[method-assign,assignment]
    denoiser.put_on(ScoringHead(HeadConfig("linear", NAMES), denoiser).to(denoiser.device).eval())
    denoiser.head.cascade = cascade
    one = next(examples(denoiser, prompts, prompts.texts, Part(Threshold(0.7), 0.3), denoiser.head.taps_ahead))
    module.training_step(in_part(one), 0).backward()
    module.on_after_backward()
    return gradients(cascade)


def fitted_cascade(denoiser: Any, out: Path) -> tuple[str, Gradients]:
    """A fit of two steps: what is said, and the weights."""
    denoiser.put_on(ScoringHead(HeadConfig("linear", NAMES), denoiser).to(denoiser.device).eval())
    drivers = ({"policy": "threshold", "threshold": 0.7},)
    fitting = CascadeFitting(steps=2, batch_size=3, rank=2, drivers=drivers, positions=1, parts=(0.3,))
    if find_ranks().first:
        save_head(denoiser.head, out / "head")
    said = fit_cascade(denoiser, TASKS, fitting, out / "head", seed=0)
    return said, dict(denoiser.head.cascade.named_parameters())


def compared(base: Path, out: Path, device: str) -> str:
    """Two arms on five prompts."""
    arms = [Arm("sequential", "headless", "sequential")]
    arms.append(Arm("threshold", "headless", "threshold", "threshold", (0.9, 0.5)))
    size = {"num_prompts": 5, "num_dev": 3, "block_length": 8}
    call = check_compare(arms, None, "countdown3", **size, model=str(base))
    return run_compare(call, out=str(out / "compare"), batch_size=2, device=device)


def answered(base: Path, out: Path, device: str) -> str:
    """Five prompts in three batches."""
    prompts = ["1,2,3,6", "4,5,6,15", "1,1,1,3", "10,20,30,60", "7,8,9,24"]
    options = {"gen_length": 8, "block_length": 8}
    call = check_generate(prompts, None, "threshold", options, model=str(base))
    return run_generate(call, out=str(out / "answers.jsonl"), batch_size=2, device=device)


def everything(work: Path, out: Path, device: str) -> dict[str, Any]:
    """What a process finds.

    Args:
        work: folder with the base.
        out: where it writes.
        device: cpu, or the GPU of this process.
    """
    base = work / "base"
    denoiser = models.load(base, device=device)
    found: dict[str, Any] = {"ended": gather_traces(denoiser, out)}
    found["base"] = {weighting: base_gradients(weighting, device) for weighting in ("inverse", "uniform")}
    precise = models.load(base, device=device, dtype=torch.float64)
    found["head"], found["cascade"] = head_gradients(precise, out), cascade_gradients(precise)
    if find_ranks().size > 1:  # what is fitted is held against the other processes alone
        found["fitted head"] = fitted_head(denoiser, out)
        found["fitted cascade"] = fitted_cascade(denoiser, out)
    found["compared"], found["answered"] = compared(base, out, device), answered(base, out, device)
    return found


def take_part(work: Path, out: Path, device: str) -> None:
    """Find everything, as the process that the environment says, and leave it in a file."""
    ranks = find_ranks()
    if device == "cuda":
        device = f"cuda:{ranks.local}"
        torch.cuda.set_device(device)
    if ranks.size > 1:
        backend = "gloo" if device == "cpu" else "cpu:gloo,cuda:nccl"  # as models.ranks does
        store = f"file://{out / 'store'}"
        dist.init_process_group(backend, init_method=store, rank=ranks.rank, world_size=ranks.size)
    torch.save(everything(work, out, device), out / f"found-{ranks.rank}.pt")
    if ranks.size > 1:
        dist.destroy_process_group()


def take_part_as(rank: int, size: int, *given: Any) -> None:
    """The same in a fork."""
    own = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1"}
    os.environ |= {name: str(value) for name, value in own.items()}
    take_part(*given)


def fork(size: int, *given: Any) -> bool:
    """Whether all of some forks ended well; where one fails the others, which wait for it, are ended."""
    context = multiprocessing.get_context("fork")
    forks = [context.Process(target=take_part_as, args=(rank, size, *given), daemon=True) for rank in range(size)]
    for one in forks:
        one.start()
    while any(one.is_alive() for one in forks) and not any(one.exitcode for one in forks):
        time.sleep(0.02)
    return not any(one.exitcode for one in forks)


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    given = (Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
    size = int(sys.argv[4])
    if size == 1 or find_ranks().size > 1:
        take_part(*given)
    elif not fork(size, *given):
        sys.exit(1)
