"""The comparison that a run of `train.py` closes with: its head and rivals on the same fresh prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from train.commands.compare import CompareCall, check_compare, run_compare
from train.head.head_run import HeadRun
from train.tasks import get
from train.tasks.text import TEXT

if TYPE_CHECKING:
    from train.head.settings import TaskRun


def compare_heads(head_run: HeadRun) -> str:
    """The fitted head and its rivals on the same fresh prompts, through the code of `compare.py`."""
    if not head_run.catalogue:
        return "no arms to compare"
    call = compare_call(head_run, str(head_run.out))
    if call is None:
        return "no task with a checker to compare on"
    options: dict[str, Any] = {"batch_size": head_run.batch_size, "seed": head_run.seed}
    options |= {"device": head_run.device, "dtype": head_run.dtype}
    return run_compare(call, out=str(head_run.out), **options)


def comparable(name: str, run: TaskRun) -> bool:
    """Whether decoders can be compared on a task: not on a user's file without answers, or with too few prompts to share out."""
    task = get(name)
    if name == TEXT.name or task.make is not None or not run.at_most or run.prompts_file is None:
        return name != TEXT.name
    found = list(task.read(run.prompts_file))
    splits = {task.split_of(example.prompt) for example in found}
    return {"dev", "test"} <= splits and all(task.judges(example) for example in found)


def compare_call(head_run: HeadRun, head: str | None) -> CompareCall | None:
    """The closing comparison of a head, None where there is none; without a head only what does not need one.

    Raises:
        ValueError: if a task's prompts are too few or cannot be judged.
    """
    judged = [name for name in head_run.tasks if comparable(name, head_run.tasks[name])]
    if not head_run.catalogue or not judged:
        return None
    runs = {name: head_run.tasks[name] for name in judged}
    return check_compare(
        head_run.catalogue,
        None,
        ",".join(judged),
        num_prompts=head_run.num_prompts,
        num_dev=head_run.num_dev,
        seed=head_run.seed,
        model=head_run.base,
        adapter=head_run.adapter,
        head=head,
        prompts={name: run.prompts_file for name, run in head_run.tasks.items() if run.prompts_file is not None},
        gen_length={name: run.gen_length for name, run in runs.items() if run.gen_length is not None},
        block_length={name: run.block_length for name, run in runs.items() if run.block_length is not None},
        use_cache={name: run.use_cache for name, run in runs.items()},
        run_code=head_run.run_code,
    )
