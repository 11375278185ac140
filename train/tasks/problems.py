"""Dev and test prompts of a task for a comparison, all different, with the checker that judges them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decoding.comparison.problems import CheckedProblems, Problems, Split, judge_of
from models.checkpoints.json_files import read_object, require_sound, sealed
from models.complaints import listed, shown
from train.tasks import Example, Task, require_answers
from train.tasks.hub import HUB
from train.tasks.own_check import OwnCheck
from train.tasks.text import TEXT

if TYPE_CHECKING:
    from models.denoiser import Denoiser


DEV_SHARE = 4  # of a benchmark's file at most one dev prompt for so many test prompts
DRAWS = 20  # instances drawn at most for each one wanted, where a task has few


def make_problems(
    task: Task,
    prompts: str | Mapping[str, str] | None,
    *,
    num_prompts: int,
    num_dev: int,
    seed: int,
    seen: bool = False,
    own: OwnCheck | None = None,
    agree: bool = False,
) -> CheckedProblems:
    """The prompts of one task, all different: dev from its generator, test from a file or from its generator.

    A task without a generator takes both from its file, or from the hub; `seen` says that a head may know its train split.

    Args:
        task: the task.
        prompts: file of test prompts, task -> file, or None.
        num_prompts, num_dev: at most, at least 1.
        seed: of the generator.
        seen: a head may know the file's train split.
        own: checker in place of the task's.
        agree: leave task `text`, which has no checker, to agreement with the reference.

    Raises:
        ValueError: if the file holds no prompt, or one that cannot be read or judged.
    """
    judged = own is not None or (agree and task.name == TEXT.name)  # needs no answers
    if task.make is None:
        few = min(num_dev, max(1, num_prompts // DEV_SHARE))
        dev, test = divide(task, prompts, num_prompts=num_prompts, num_dev=few, seen=seen, judged=judged)
        return checked_by(task, dev, test, own=own, agree=agree and task.name == TEXT.name)
    dev = draw(task, "dev", num_dev, seed=seed)
    if not isinstance(prompts, str):
        test = draw(task, "test", num_prompts, seed=seed)
    else:
        known = {example.prompt for example in dev}
        different = {example.prompt: example for example in task.read(prompts) if example.prompt not in known}
        test = list(itertools.islice(different.values(), num_prompts))
        if not test:
            raise ValueError(f"prompts must hold at least one prompt of task {task.name}, got none in {prompts}")
        if not judged:
            require_answers(task, test)
    return checked_by(task, dev, test, own=own)


def divide(
    task: Task,
    prompts: str | Mapping[str, str] | None,
    *,
    num_prompts: int,
    num_dev: int,
    seen: bool = False,
    judged: bool = False,
) -> tuple[list[Example], list[Example]]:
    """Dev and test prompts of a benchmark in the order of its file: dev those of the dev split, test any others.

    Where a head may have seen the file's train split (`seen`, or a mapping), test prompts are those of the test split alone.

    Args:
        task: a benchmark.
        prompts: its file, task -> file, or None for the hub.
        num_prompts, num_dev: at most, at least 1.
        seen: a head may know the file's train split.
        judged: answers are not needed.

    Raises:
        ValueError: if the file holds too few prompts, or one that cannot be judged.
    """
    seen = seen or isinstance(prompts, Mapping)
    source = prompts.get(task.name, HUB) if isinstance(prompts, Mapping) else prompts or HUB
    examples = {example.prompt: example for example in task.read(source)}
    split = {prompt: task.split_of(prompt) for prompt in examples}
    dev = [e for e in examples.values() if split[e.prompt] == "dev"][:num_dev]
    if not dev and not seen:  # a file of a few rows
        dev = list(examples.values())[-1:]
    kept = {example.prompt for example in dev}
    others = (e for e in examples.values() if e.prompt not in kept and (not seen or split[e.prompt] == "test"))
    test = list(itertools.islice(others, num_prompts))
    if not dev or not test:
        raise ValueError(
            f"prompts must hold prompts of task {task.name} for dev and for test, got {len(dev)} and {len(test)} in {source}"
        )
    if not judged:
        require_answers(task, (*dev, *test))
    return dev, test


def checked_by(
    task: Task, dev: Sequence[Example], test: Sequence[Example], *, own: OwnCheck | None = None, agree: bool = False
) -> CheckedProblems:
    """Dev and test prompts with the checker of their task, or one of the user's own.

    Args:
        task: whose prompts these are.
        dev, test: the prompts.
        own: the user's check, or None.
        agree: nothing judges a text: it counts as the reference's or not.
    """
    examples = {example.prompt: example for example in (*dev, *test)}
    judge = [own.source] if own is not None else ["agreement"] if agree else []
    problems = Problems(
        task=task.name,
        dev=tuple(example.prompt for example in dev),
        test=tuple(example.prompt for example in test),
        gen_length=task.gen_length,
        block_length=task.block_length,
        references={p: example.response for p, example in examples.items() if task.unique_answer and example.response},
        judge=judge_of([(e.response, e.answer) for e in examples.values()], *judge),
        checked=not agree,
    )
    if own is not None:
        splits = (("dev", dev), ("test", test))
        places = {
            e.prompt: f"{split} prompt {n} of task {task.name}" for split, some in splits for n, e in enumerate(some, 1)
        }
        return CheckedProblems(problems, lambda p, text: own.judge(p, text, examples[p].response, place=places[p]))
    if agree:
        return CheckedProblems(problems, lambda prompt, text: False)
    return CheckedProblems(problems, lambda prompt, text: task.check(examples[prompt], text))


def draw(task: Task, split: Split, count: int, *, seed: int) -> list[Example]:
    """The first `count` different instances of a split, fewer where the task has no more.

    Args:
        task, split, count: with a generator; dev or test; instances wanted, at least 1.
        seed: of the generator.
    """
    instances: dict[str, Example] = {}
    for example in itertools.islice(task.generate(split, seed=seed), DRAWS * count):
        instances.setdefault(example.prompt, example)
        if len(instances) == count:
            break
    return list(instances.values())


def kept_problems(task: Task, folder: Path, *, num_prompts: int, num_dev: int, seed: int) -> CheckedProblems:
    """Prompts of a task with its checker, kept in a folder: some generators take minutes.

    Args:
        task: with a generator.
        folder: of a file for each task, read where it is there and else written.
        num_prompts, num_dev: test and dev prompts, fewer where the task has no more.
        seed: of the generator.

    Raises:
        ValueError: naming the file, where it is damaged or holds other prompts than asked.
    """
    file = kept_file(task, folder, num_prompts=num_prompts, num_dev=num_dev, seed=seed)
    asked = {"task": task.name, "dev": num_dev, "test": num_prompts, "seed": seed}
    if not file.is_file():
        from decoding.provenance import write_json

        drawn = {"dev": draw(task, "dev", num_dev, seed=seed), "test": draw(task, "test", num_prompts, seed=seed)}
        rows = {split: [asdict(example) for example in some] for split, some in drawn.items()}
        write_json(file, sealed({**rows, "asked": asked}))
    stored = read_object(file)
    try:
        return checked_by(task, *read_examples(stored, asked))
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def kept_file(task: Task, folder: Path, *, num_prompts: int, num_dev: int, seed: int) -> Path:
    """Where `kept_problems`, which has the arguments, keeps the prompts."""
    return folder / f"{task.name}-{num_dev}-{num_prompts}-{seed}.json"


def read_examples(stored: Mapping[str, Any], asked: Mapping[str, Any]) -> tuple[list[Example], list[Example]]:
    """The dev and test prompts that `kept_problems` wrote; a file that does not say what was asked must hold just so many.

    Raises:
        ValueError: for damaged content, or that of another call.
    """
    require_sound(stored)
    try:
        dev, test = ([Example(**fields) for fields in stored[split]] for split in ("dev", "test"))
    except (KeyError, TypeError) as error:
        raise ValueError(f"it must hold prompts as dev and as test, got {listed(sorted(stored))}") from error
    for text in (text for one in (*dev, *test) for text in astuple(one)):
        if not isinstance(text, str):
            raise ValueError(f"it must hold texts as prompts and answers, got {shown(text)}")
    held = {**asked, "dev": len(dev), "test": len(test)}
    if stored.get("asked", held) != asked:
        raise ValueError(f"it must hold the prompts of {shown(asked)}, got {shown(stored.get('asked', held))}")
    return dev, test


def leave_out_long(checked: CheckedProblems, denoiser: Denoiser) -> tuple[CheckedProblems, int]:
    """The task without prompts for which the model has too few positions, and how many those are.

    Raises:
        ValueError: if none is left for dev or for test.
    """
    from decoding.prompts import leave_room

    problems = checked.problems
    prompts = [*problems.dev, *problems.test]
    long = {p for p, fits in zip(prompts, leave_room(prompts, denoiser, problems.gen_length), strict=True) if not fits}
    dev, test = (tuple(p for p in some if p not in long) for some in (problems.dev, problems.test))
    if not dev or not test:
        raise ValueError(
            f"prompts of task {problems.task} must leave {problems.gen_length} of the model's {denoiser.max_length} positions, "
            f"got {len(dev)} dev and {len(test)} test prompts that do"
        )
    return replace(checked, problems=replace(problems, dev=dev, test=test)), len(long)
