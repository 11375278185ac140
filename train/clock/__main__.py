"""Milliseconds a prompt at reference accuracy: ``python -m train.clock --task sudoku,countdown3``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from decoding.comparison.arms import Arm
from train.clock.call import How, check_clock
from train.clock.store import FILE, Results, read_results
from train.clock.turns import Deadline, OutOfTime
from train.commands.command_line import GOES_ON, run

if TYPE_CHECKING:
    from train.tasks import Task


def clock(
    catalogue: list[Arm],
    task: str,
    arms: str | None = None,
    first: str | None = None,
    num_dev: int = 2048,
    num_prompts: int = 2048,
    alone: int = 200,
    batch_size: int = 64,
    repeats: int = 2,
    slack: float = 0.01,
    all_dials: bool = False,
    minutes: float | None = None,
    draw: bool = False,
    table: bool = False,
    model: str | None = None,
    head: str | None = None,
    out: str = "checkpoints/runs/clock",
    prompts: str | None = None,
    seed: int = 0,
    device: str | None = None,
    dtype: Literal["float32", "bfloat16", "float16"] = "float32",
    engine: Literal["auto", "plain", "graphs"] = "auto",
) -> None:
    """Clock every arm at reference accuracy, in batches and one prompt at a time; see docs/speed.md.

    A call that was stopped goes on where it was. Several calls at once share a folder: each takes tasks that no other holds.

    Args:
        catalogue: the arms, declared in a config; a variant is an arm of its own.
        task: one or more tasks with a generator, with commas between them.
        arms: names of those to run, with commas between them; default all.
        first: names of those that run on all tasks before any other, in this order.
        num_dev: dev prompts of a task, which choose the dials in batches.
        num_prompts: test prompts of a task that are clocked in batches.
        alone: of these, the first that are clocked one by one.
        batch_size: prompts of a batch.
        repeats: runs of each arm; the best counts. One token a round runs once.
        slack: accuracy that an arm may lose on the dev prompts against one token a round.
        all_dials: decode the dev prompts at every setting of a dial, in place of bisection from the careful end.
        minutes: after which the command stops; what is done is kept.
        draw: draw the prompts and end: some generators take minutes.
        table: write clock.json and table.md of what is there and end.
        model: checkpoint folder or hub id; default the shipped one that speaks the task.
        head: folder of a scoring head; default the one that ships for the model.
        out: folder for clock.json, table.md and a folder of results for each task.
        prompts: folder of the prompts; default in `out`.
        seed: of the prompts and the resamples.
        device: cpu, cuda, ...; default the GPU if there is one.
        dtype: of the weights.
        engine: what runs the forwards; auto takes captured graphs on a GPU.
    """
    deadline = Deadline(minutes)
    how = How(num_dev, num_prompts, alone, batch_size, repeats, slack, seed, dtype, engine)
    chosen = {"arms": arms, "first": first, "model": model, "head": head}
    call = check_clock(catalogue, task, how, **chosen, all_dials=all_dials)
    folder, drawn = Path(out), Path(out) / "prompts" if prompts is None else Path(prompts)
    for one in call.tasks:
        Results.open(folder / one.name, how, call.bases[one.name])
    if draw:
        draw_prompts(call.tasks, drawn, how)
        return
    if not table:
        judge_prompts(call.tasks, drawn, how)
        import torch

        from train.clock.work import Clockwork

        torch.set_float32_matmul_precision("highest")
        work = Clockwork(call, folder, drawn, device, deadline, lambda line: print(line, flush=True))
        work.judge()
        if call.left_out:
            print(f"left out for want of a scoring head: {', '.join(call.left_out)}")
        try:
            work.run()
        except OutOfTime:
            print(f"{minutes:g} minutes are over: {GOES_ON.format(out=out)}")
    print(write_tables(folder, call.tasks))


def draw_prompts(tasks: tuple[Task, ...], folder: Path, how: How) -> None:
    """Draw and keep the prompts of all tasks."""
    from train.tasks.problems import kept_problems

    for task in tasks:
        kept_problems(task, folder, **how.drawn)


def judge_prompts(tasks: tuple[Task, ...], folder: Path, how: How) -> None:
    """Refuse damaged prompts, and those of another call, before any are decoded; those that are not there are drawn later.

    Raises:
        ValueError: naming the file.
    """
    from train.tasks.problems import kept_file, kept_problems

    for task in tasks:
        if kept_file(task, folder, **how.drawn).is_file():
            kept_problems(task, folder, **how.drawn)


def write_tables(folder: Path, tasks: tuple[Task, ...]) -> str:
    """Write clock.json and table.md of all results in a folder, and return the table.

    Raises:
        ValueError: where there are none.
    """
    from decoding.provenance import write_json, write_text
    from train.clock.summary import summarise
    from train.clock.table import table
    from train.clock.turns import wait_for

    named = [task.name for task in tasks]
    others = sorted(file.parent.name for file in folder.glob(f"*/{FILE}") if file.parent.name not in named)
    if not any((folder / name / FILE).is_file() for name in (*named, *others)):
        raise ValueError(f"out must be a folder with results of a task, got none in {folder}")
    with wait_for(folder):
        found = [read_results(folder / name) for name in (*named, *others)]
        rows = [summarise(results) for results in found if results is not None]
        write_json(folder / "clock.json", {"tasks": rows}, allow_nan=False)
        write_text(folder / "table.md", table(rows))
    return (folder / "table.md").read_text(encoding="utf-8")


if __name__ == "__main__":
    run(clock, default_config="configs/compare/clock.yaml", kept=GOES_ON, shared=True)
