"""Which tasks a run is on: those of its config, or what the command line names in their place; imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from models.complaints import shown
from train.head.settings import Cache, TaskRun


def only(
    tasks: Mapping[str, TaskRun],
    task: str | None,
    prompts: str | None,
    leave_out: str | None = None,
    *,
    gen_length: int | None = None,
    use_cache: Cache | None = None,
) -> dict[str, TaskRun]:
    """The tasks of a run without those left out, or the one that the command line names, with the file of its prompts.

    Args:
        tasks: of the run.
        task: the one named on the command line, or None.
        prompts: file of its prompts, or None.
        leave_out: names with commas between them, or None.
        gen_length, use_cache: of every task in place of its own, or None.

    Raises:
        ValueError: for a file without a task, and for names left out that are not the run's or are all of them.
    """
    if task is None and prompts is not None:
        raise ValueError(f"prompts must come with a task, got {prompts} alone")
    if task is not None:
        run = tasks.get(task, TaskRun())
        tasks = {task: run if prompts is None else replace(run, prompts_file=prompts, at_most=True)}
    without = names_of(leave_out)
    for name in without:
        if name not in tasks:
            raise ValueError(f"leave_out must be among the run's tasks {', '.join(tasks)}, got {shown(name)}")
    if without and len(set(without)) == len(tasks):
        raise ValueError(f"leave_out must leave a task to fit on, got all of them, {leave_out}")
    wanted: dict[str, Any] = {"gen_length": gen_length, "use_cache": use_cache}
    given = {name: value for name, value in wanted.items() if value is not None}
    return {name: replace(run, **given) for name, run in tasks.items() if name not in without}


def names_of(text: str | None) -> tuple[str, ...]:
    """Names with commas between them; none for None."""
    return () if text is None else tuple(name.strip() for name in text.split(","))
