"""Accuracy of a base model at one token a round: ``python -m train.accuracy --model checkpoints/reason-7m``."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from train.tasks import TASKS, Example, Split, Task, get, require_answers, require_permission


def accuracy(
    *,
    model: str | None = None,
    tasks: tuple[str, ...] = (),
    num_prompts: int = 500,
    split: Split = "test",
    prompts: str | None = None,
    seed: int = 0,
    batch_size: int = 64,
    device: str | None = None,
    run_code: bool = False,
    out: Path | None = None,
) -> None:
    """Decode fresh prompts of every task with `sequential` at temperature 0 and print the share that the checker accepts.

    Args:
        model: folder or hub id of the base; default the shipped model.
        tasks: task names; empty means all.
        num_prompts: prompts of each task.
        split: test, dev or train.
        prompts: a file with prompts and answers for one task, taken in order in place of fresh ones; `hub` for its dataset.
        seed: of the prompts.
        batch_size: prompts decoded together.
        device: where to run; by default the GPU if there is one.
        run_code: let the checkers of humaneval and mbpp run the model's code on this machine.
        out: folder for accuracy.json, or none.
    """
    if num_prompts < 1 or batch_size < 1:
        raise ValueError(f"num_prompts and batch_size must be at least 1, got {num_prompts} and {batch_size}")
    checked = read_examples(tasks, prompts, split, num_prompts, seed=seed, run_code=run_code)

    from typing import Any

    import torch

    import models
    from decoding import generate
    from decoding.provenance import write_json
    from train.commands.folders import MODEL, or_shipped

    denoiser = models.load(or_shipped(model, MODEL), device=device, dtype=torch.float32)
    table: dict[str, Any] = {}
    for task, examples in checked:
        right = 0
        for low in range(0, len(examples), batch_size):
            few = examples[low : low + batch_size]
            answer = generate(
                denoiser,
                [e.prompt for e in few],
                "sequential",
                gen_length=task.gen_length,
                block_length=task.block_length,
            )
            right += sum(task.check(e, text) for e, text in zip(few, answer.text, strict=True))
        share = right / len(examples)
        half = 1.96 * (share * (1 - share) / len(examples)) ** 0.5
        low_high = {"low": max(0.0, share - half), "high": min(1.0, share + half)}
        table[task.name] = {"accuracy": share, **low_high, "n": len(examples)}
        print(f"{task.name:16s} {share:.3f} +- {half:.3f} (n = {len(examples)})", flush=True)
    if out is not None:
        about = {
            "model": model or MODEL,
            "split": split if prompts is None else prompts,
            "seed": seed,
            "device": str(denoiser.device),
        }
        write_json(out / "accuracy.json", {**about, "tasks": table})


def read_examples(
    tasks: tuple[str, ...], prompts: str | None, split: Split, count: int, *, seed: int, run_code: bool
) -> list[tuple[Task, list[Example]]]:
    """The examples of every task, all of which can be judged.

    Args:
        tasks: names; empty for all.
        prompts: a file for the one task named, or None.
        split: of the generated prompts.
        count: examples a task at most.
        seed: of the generators.
        run_code: let checkers run what the model writes.

    Raises:
        ValueError: if some cannot, there are none, or a checker may not run code that it has to run.
    """
    chosen = [get(name, run_code=run_code) for name in tasks or TASKS]
    if prompts is not None and len(chosen) != 1:
        raise ValueError(f"tasks must name one task where prompts is given, got {len(chosen)}")
    by_task = []
    for task in chosen:
        require_permission(task, run_code)
        stream = task.generate(split, seed=seed) if prompts is None else task.read(prompts)
        examples = list(islice(stream, count))
        if not examples:
            raise ValueError(f"prompts must hold examples of task {task.name}, got none in {prompts}")
        require_answers(task, examples)
        by_task.append((task, examples))
    return by_task


if __name__ == "__main__":
    from train.commands.command_line import run

    run(accuracy)
