"""A comparison from the command line: judged before torch is imported, then run task by task and reported."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decoding.comparison.arms import Arm, of_parity, require_different, select, with_cache
from decoding.comparison.problems import CheckedProblems
from decoding.comparison.records.format import REPLAYS, TEXTS, TRACES, check_replays
from models.complaints import shown
from models.ranks import find_ranks
from train.commands.calibrated_arm import require_arm
from train.commands.command_line import keep_options, shipped
from train.commands.folders import MODEL, check_adapter, check_head_folder, check_model, find_head
from train.tasks import Task, get, require_permission
from train.tasks.own_check import find_check
from train.tasks.problems import leave_out_long, make_problems
from train.tasks.text import TEXT

if TYPE_CHECKING:
    from decoding.comparison.compare import Comparison
    from decoding.comparison.risk_control import RiskControl
    from models.denoiser import Denoiser

Lengths = int | Mapping[str, int] | None
WIDTH = 100  # characters of a line
RESULTS, TABLE, PAGE = "comparison.json", "table.md", "report.html"


@dataclass(frozen=True)
class CompareCall:
    """What is compared on what, as far as that can be judged without torch.

    Attributes:
        arms: those that run.
        left_out: names of arms that lack a scoring head.
        tasks: the prompts of every task, with its checker.
        model: checkpoint folder or hub id.
        head: folder of the scoring head of learned arms without their own, or None.
        adapter: folder of a PEFT adapter that is merged into the model, or None.
        caches: task -> the block cache of every arm there that does not say it itself.
        aside: names of arms that a parity study has no use for.
    """

    arms: tuple[Arm, ...]
    left_out: tuple[str, ...]
    tasks: tuple[CheckedProblems, ...]
    model: str
    head: str | None
    adapter: str | None = None
    caches: Mapping[str, str] = field(default_factory=dict)
    aside: tuple[str, ...] = ()

    def arms_on(self, task: str) -> list[Arm]:
        """Those that run, behind the cache of a task."""
        return [with_cache(arm, self.caches.get(task)) for arm in self.arms]


def check_compare(
    catalogue: Sequence[Arm],
    arms: str | None,
    task: str,
    *,
    prompts: str | Mapping[str, str] | None = None,
    num_prompts: int,
    num_dev: int,
    seed: int = 0,
    model: str | None = None,
    head: str | None = None,
    adapter: str | None = None,
    gen_length: Lengths = None,
    block_length: Lengths = None,
    use_cache: str | Mapping[str, str] | None = None,
    run_code: bool = False,
    check: str | None = None,
    parity: int = 0,
) -> CompareCall:
    """Refuse what cannot be compared, and fill in what was left out.

    Args:
        catalogue: the arms declared.
        arms: names of those that run, with commas between them; None runs all that can.
        task: names of tasks, with commas between them.
        prompts: file of test prompts, for one task; None generates them, or takes a benchmark's from the hub. A mapping gives
            benchmarks the files whose train split a head was fitted on. Then, and wherever `head` or an arm names a head, test
            prompts of a benchmark are rows of the test split alone.
        num_prompts: test prompts of a task at most.
        num_dev: dev prompts of a task, generated, or out of a benchmark's file.
        seed: of the generators.
        model: checkpoint folder or hub id; by default the one that ships.
        head: folder of a scoring head; by default the one that ships for the model.
        adapter: folder of a PEFT LoRA adapter, merged into the model.
        gen_length, block_length: in place of the tasks' own; a mapping says them task by task.
        use_cache: none, prefix or dual, of every arm that does not say it itself; a mapping says it task by task.
        run_code: let checkers run what the models write, where they have to.
        check: module:function in place of the tasks' checkers. Without it prompts of task `text` are judged by agreement with
            the reference.
        parity: if above 0, the arms are those of a parity study.

    Raises:
        ValueError: in one sentence with name, rule and value.
    """
    require_at_least(1, num_prompts=num_prompts, num_dev=num_dev)
    require_at_least(0, parity=parity)
    tasks = [get(name.strip(), run_code=run_code) for name in task.split(",")]
    require_different("task", [kind.name for kind in tasks])
    own = find_check(check)
    agree = own is None and TEXT.name in [kind.name for kind in tasks]
    for kind in tasks:
        require_permission(kind, run_code or own is not None)
    if isinstance(prompts, str) and len(tasks) > 1:
        raise ValueError(f"prompts must come with one task, got {task}")
    fitted = head is not None  # maybe on these very files; the one that ships is fitted on generated prompts
    check_model(str(shipped(MODEL)) if model is None else model, "")
    check_adapter(adapter)
    head = find_head(model, head, adapter)
    running, left_out = select(catalogue, arms, has_head=head is not None)
    running, aside = of_parity(running, arms, agree=agree) if parity else (running, [])
    caches = {} if use_cache is None else use_cache
    if isinstance(caches, str):
        running, caches = [with_cache(arm, caches) for arm in running], {}
    for name in {name for arm in running for name in (*arm.values_for, *arm.tune_for)}:
        get(name, run_code=run_code)
    fitted = fitted or any(arm.head is not None for arm in running)
    for folder in {head, *(arm.head for arm in running)} - {None}:
        check_head_folder(str(folder))
    model = str(shipped(MODEL)) if model is None else model
    tasks = [with_lengths(kind, gen_length, block_length) for kind in tasks]
    for arm, kind in itertools.product(running, tasks):
        arm.on(kind.name).require_canvas(kind.name, kind.gen_length)
    sizes: dict[str, Any] = {"num_prompts": num_prompts, "num_dev": num_dev, "seed": seed, "seen": fitted}
    checked = [make_problems(kind, prompts, **sizes, own=own, agree=agree) for kind in tasks]
    return CompareCall(tuple(running), tuple(left_out), tuple(checked), model, head, adapter, caches, tuple(aside))


def kept_replays(replays: int | None, parity: int, *, tuning: int, choose: str, calibrated: str | None) -> int | None:
    """How many test prompts keep their rounds; None in a parity study, which keeps none.

    Args:
        replays: as asked for, or None.
        parity: points of a parity study, or 0.
        tuning, choose, calibrated: options of the command that such a study would not use.

    Raises:
        ValueError: for a number out of range, or an option beside `parity` that would not be used.
    """
    if not parity:
        check_replays(REPLAYS if replays is None else replays)
        return REPLAYS if replays is None else replays
    unused = {"tuning": tuning or None, "choose": None if choose == "estimate" else choose}
    for name, value in {**unused, "calibrated": calibrated, "replays": replays}.items():
        if value is not None:
            raise ValueError(f"{name} must be left out with parity, got {shown(value)}")
    return None


def require_at_least(least: int, **numbers: int | None) -> None:
    """Refuse numbers below the least one; None is not given.

    Raises:
        ValueError: naming the first of them.
    """
    for name, value in numbers.items():
        if value is not None and value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")


def with_lengths(task: Task, gen_length: Lengths, block_length: Lengths) -> Task:
    """The task on a canvas of these lengths; None, and a mapping without it, leave its own."""
    given = {"gen_length": gen_length, "block_length": block_length}
    own: dict[str, Any] = {
        name: value.get(task.name) if isinstance(value, Mapping) else value for name, value in given.items()
    }
    return replace(task, **{name: value for name, value in own.items() if value is not None})


def tasks_that_fit(call: CompareCall, denoiser: Denoiser) -> tuple[list[CheckedProblems], list[str]]:
    """The tasks without prompts too long for the model, and lines that say what is left out."""
    left_out = [f"left out for want of a scoring head: {', '.join(call.left_out)}\n"] if call.left_out else []
    if call.aside:
        left_out.append(f"left out of the parity study: {', '.join(call.aside)}\n")
    tasks = []
    for whole_task in call.tasks:
        checked, long = leave_out_long(whole_task, denoiser)
        tasks.append(checked)
        if long:
            left_out.append(f"left out of {checked.problems.task}: {long} prompts too long for the model\n")
    return tasks, left_out


def run_compare(
    call: CompareCall,
    *,
    out: str,
    tuning: int = 0,
    parity: int = 0,
    batch_size: int | None = None,
    seed: int = 0,
    device: str | None = None,
    dtype: str | None = None,
    engine: str = "auto",
    tf32: bool = False,
    calibrated: str | None = None,
    control: RiskControl | None = None,
    replays: int | None = None,
    report: bool = False,
) -> str:
    """Run every task, write its results as they come, and return tables for a terminal with the names of the files.

    Args:
        call: what `check_compare` let through.
        out: folder of the results and of the lines that a later call goes on with.
        tuning: random points tried on dev prompts for every arm with a tuning space.
        parity: points searched in a parity study; 0 compares curves.
        batch_size: prompts at a time.
        seed: of random policies, tuning and resamples.
        device: where to run; by default the GPU if there is one.
        dtype: of the weights; by default float32 on the CPU and the checkpoint's own elsewhere.
        engine: of the decodes, `plain` where few cells would not pay for capturing graphs.
        tf32: let the GPU round the inputs of matrix products to 10 bits.
        calibrated: file of the arm that `with_calibrated` added.
        control: chooses dials by this promise in place of the point estimate.
        replays: prompts of a task whose rounds are kept beside all texts; None keeps neither.
        report: write report.html at the end.
    """
    require_at_least(0, tuning=tuning, parity=parity, seed=seed)
    require_at_least(1, batch_size=batch_size)

    import torch

    import models
    from decoding.comparison.compare import Comparison, compare
    from decoding.comparison.records.record import Records
    from decoding.comparison.runner import make_runner, refuse_settings
    from decoding.comparison.table import plot, table
    from decoding.provenance import environment, write_text

    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    folder = Path(out)
    base: dict[str, Any] = {"dtype": dtype, "device": device, "adapter": call.adapter, "engine": engine}
    denoiser = models.load(call.model, head=call.head, **base)
    heads = {arm.name: models.load(call.model, head=arm.head, **base) for arm in call.arms if arm.head is not None}
    for checked in call.tasks:
        task = checked.problems.task
        refuse_settings(call.arms_on(task), task, denoiser, heads, points=parity or tuning, seed=seed)
    require_arm(calibrated, call.tasks, denoiser)
    whole: Comparison = Comparison()
    tasks, left_out = tasks_that_fit(call, denoiser)
    how: dict[str, Any] = {"out": folder, "heads": heads, "batch_size": batch_size, "seed": seed}
    for checked in tasks:
        # refuses lines of another comparison
        make_runner(denoiser, checked.problems, checked.check, **how, progress=False)
    keep_options()
    first = find_ranks().first
    how |= {"records": Records(folder, replays) if replays is not None and first else None}
    how |= {"tuning": tuning, "parity": parity, "control": control}
    pictures: list[Path] = []
    for checked in tasks:
        arms = call.arms_on(checked.problems.task)
        whole += compare(denoiser, arms, checked.problems, checked.check, **how)
        whole.save(folder / RESULTS, environment(device=denoiser.device, seed=seed))
        if first:
            write_text(folder / TABLE, table(whole))
            pictures = plot(whole, folder)
    made = [RESULTS, TABLE, *((TEXTS, TRACES) if how["records"] else ()), *(file.name for file in pictures)]
    return "\n".join([table(whole, narrow=True), *left_out, written(folder, made, report=report and first)])


def written(folder: Path, made: Sequence[str], *, report: bool) -> str:
    """What a comparison wrote, its report first where it is asked for, and what an earlier one left in its folder.

    Args:
        folder: of the results.
        made: names of the files written so far.
        report: write report.html, or say what is missing for it.
    """
    said = _write_page(folder) if report else []
    made = [*made, *([PAGE] if report and not said else ())]
    earlier = [name for name in (PAGE, TEXTS, TRACES) if name not in made and (folder / name).is_file()]
    said += [f"of an earlier comparison: {', '.join(earlier)}"] if earlier else []
    lines = textwrap.wrap(
        f"written to {folder}: {', '.join(made)}", WIDTH, break_long_words=False, break_on_hyphens=False
    )
    return "\n".join([*lines, *said])


def _write_page(folder: Path) -> list[str]:
    """Write report.html; a line where that cannot be done."""
    from train.report.page import missing_packages, write_report

    if missing := missing_packages():
        return [f"no report.html: {', '.join(missing)} not installed (extra `report`)"]
    write_report(folder)
    return []
