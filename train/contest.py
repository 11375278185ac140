"""A comparison from the command line: judged before torch is imported, then run task by task and reported."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from decoding.arms import Arm, select
from decoding.problems import Check, Problems, Split
from train.command import shipped
from train.question import HEAD, MODEL, check_model
from train.tasks import Example, Task, get

if TYPE_CHECKING:
    from decoding.comparison import Comparison

DRAWS = 20  # instances drawn at most for each one wanted, where a task has few


@dataclass(frozen=True)
class Entry:
    """One task of a contest: its prompts and how a text is judged."""

    problems: Problems
    check: Check


@dataclass(frozen=True)
class Contest:
    """What is compared on what, as far as that can be judged without torch.

    Attributes:
        arms: those that run.
        left_out: names of arms that lack a scoring head.
        entries: the tasks.
        model: checkpoint folder or hub id.
        head: folder of the scoring head of learned arms without their own, or None.
    """

    arms: tuple[Arm, ...]
    left_out: tuple[str, ...]
    entries: tuple[Entry, ...]
    model: str
    head: str | None


def judge(
    catalogue: Sequence[Arm],
    arms: str | None,
    task: str,
    *,
    prompts: str | None = None,
    num_prompts: int,
    num_dev: int,
    seed: int = 0,
    model: str | None = None,
    head: str | None = None,
) -> Contest:
    """Refuse what cannot be compared, and fill in what was left out.

    Args:
        catalogue: the arms declared.
        arms: names of those that run, with commas between them; None runs all that can.
        task: names of tasks, with commas between them.
        prompts: file of test prompts, for one task; None generates them.
        num_prompts: test prompts of a task at most.
        num_dev: dev prompts of a task, always generated.
        seed: of the generators.
        model: checkpoint folder or hub id; by default the one that ships.
        head: folder of a scoring head; by default the one that ships, with the model that ships.

    Raises:
        ValueError: in one sentence with name, rule and value.
    """
    for name, value in (("num_prompts", num_prompts), ("num_dev", num_dev)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    tasks = [get(name.strip()) for name in task.split(",")]
    if prompts is not None and len(tasks) > 1:
        raise ValueError(f"prompts must come with one task, got {task}")
    if head is None and model is None and shipped(HEAD).is_dir():
        head = str(shipped(HEAD))
    running, left_out = select(catalogue, arms, has_head=head is not None)
    for folder in {head, *(arm.head for arm in running)} - {None}:
        if not (Path(str(folder)) / "head.safetensors").is_file():
            raise ValueError(f"head must be a folder with head.safetensors, got {folder}")
    model = str(shipped(MODEL)) if model is None else model
    check_model(model, "")
    entries = [enter(kind, prompts, num_prompts=num_prompts, num_dev=num_dev, seed=seed) for kind in tasks]
    return Contest(tuple(running), tuple(left_out), tuple(entries), model, head)


def enter(task: Task, prompts: str | None, *, num_prompts: int, num_dev: int, seed: int) -> Entry:
    """The prompts of one task: dev from its generator, test from a file or from its generator, all different.

    Raises:
        ValueError: if the file holds no prompt, or a line that cannot be read.
    """
    dev = draw(task, "dev", num_dev, seed=seed)
    if prompts is None:
        test = draw(task, "test", num_prompts, seed=seed)
    else:
        known = {example.prompt for example in dev}
        different = {example.prompt: example for example in task.read(prompts) if example.prompt not in known}
        test = list(itertools.islice(different.values(), num_prompts))
        if not test:
            raise ValueError(f"prompts must hold at least one prompt of task {task.name}, got none in {prompts}")
    examples = {example.prompt: example for example in (*dev, *test)}
    problems = Problems(
        task=task.name,
        dev=tuple(example.prompt for example in dev),
        test=tuple(example.prompt for example in test),
        gen_length=task.gen_length,
        block_length=task.block_length,
        references={p: example.response for p, example in examples.items() if task.unique_answer and example.response},
    )
    return Entry(problems, lambda prompt, text: task.check(examples[prompt], text))


def draw(task: Task, split: Split, count: int, *, seed: int) -> list[Example]:
    """The first `count` different instances of a split, fewer where the task has no more."""
    found: dict[str, Example] = {}
    for example in itertools.islice(task.generate(split, seed=seed), DRAWS * count):
        found.setdefault(example.prompt, example)
        if len(found) == count:
            break
    return list(found.values())


def hold(
    contest: Contest,
    *,
    out: str,
    tuning: int = 0,
    parity: int = 0,
    batch_size: int | None = None,
    seed: int = 0,
    device: str | None = None,
    tf32: bool = False,
) -> str:
    """Run every task, write comparison.json, table.md and a picture of the curves as they come, and return the tables.

    Args:
        contest: what `judge` let through.
        out: folder of the results and of the lines that a later call goes on with.
        tuning: random points tried on dev prompts for every arm with a tuning space.
        parity: points searched in a parity study; 0 compares curves.
        batch_size: prompts at a time.
        seed: of random policies, tuning and resamples.
        device: where to run; by default the GPU if there is one.
        tf32: let the GPU round the inputs of matrix products to 10 bits.
    """
    import torch

    import models
    from decoding.ab_table import plot, table
    from decoding.comparison import Comparison, compare
    from decoding.provenance import environment

    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    folder = Path(out)
    denoiser = models.load(contest.model, dtype=torch.float32, device=device, head=contest.head)
    heads = {
        arm.name: models.load(contest.model, dtype=torch.float32, device=device, head=arm.head)
        for arm in contest.arms
        if arm.head is not None
    }
    whole: Comparison = Comparison()
    for entry in contest.entries:
        whole += compare(
            denoiser,
            contest.arms,
            entry.problems,
            entry.check,
            out=folder,
            heads=heads,
            tuning=tuning,
            parity=parity,
            batch_size=batch_size,
            seed=seed,
        )
        whole.save(folder / "comparison.json", environment(device=denoiser.device, seed=seed))
        (folder / "table.md").write_text(table(whole), encoding="utf-8")
        plot(whole, folder)
    said = [f"left out for want of a scoring head: {', '.join(contest.left_out)}\n"] if contest.left_out else []
    return "\n".join([table(whole), *said])
