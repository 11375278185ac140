"""The settings that a head decodes with by default, chosen by decoding dev prompts end to end, and written into its folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from decoding.comparison.curves import Array
from decoding.comparison.problems import Check, Problems, judge_of
from decoding.comparison.runner import Runner, make_runner
from decoding.prompts import leave_room
from decoding.provenance import dtype_name, write_json
from models.denoiser import Denoiser
from models.heads.defaults import ALONE, Defaults, write_defaults
from train.defaults.careful_texts import CarefulTexts
from train.defaults.choice import Choice, Choices, Decode, Part, Tables
from train.defaults.choosing import choose, general
from train.defaults.evidence import ENOUGH
from train.defaults.running import EFFORT, affordable, figures, first_of, forms_of
from train.defaults.settings import Trials
from train.head.settings import TaskRun
from train.tasks import get
from train.tasks.problems import draw
from train.tasks.task import Example, Task
from train.traces.prompts import prompts_of

FOLDER = "trials"
FURTHER = 1_000_000  # added to the seed of a run: prompts apart from those of the metrics


@dataclass(frozen=True)
class Panel:
    """The dev prompts of one task that settings are tried on.

    Attributes:
        task: whose.
        screen, confirm: the prompts, all different.
        block_length: that they are decoded in.
        use_cache: none, prefix or dual.
    """

    task: Task
    screen: tuple[Example, ...]
    confirm: tuple[Example, ...]
    block_length: int
    use_cache: str = "none"

    @staticmethod
    def of(denoiser: Denoiser, name: str, run: TaskRun, trials: Trials, *, seed: int, run_code: bool) -> Panel:
        """As many as `trials` asks for; where there are fewer a quarter screens at most.

        Args:
            denoiser: the base.
            name: of the task.
            run: what the run takes from it.
            trials: how many screen and confirm.
            seed: of the generator.
            run_code: let checkers run what the model writes.
        """
        task = run.task(name, run_code=run_code)
        wanted = trials.screen + trials.confirm
        found = {example.prompt: example for example in dev_prompts(task, run, wanted, seed=seed)}
        fits = leave_room(list(found), denoiser, task.gen_length) if found else []
        mine = [example for example, fit in zip(found.values(), fits, strict=True) if fit]
        first = min(trials.screen, len(mine) // 4)
        return Panel(task, tuple(mine[:first]), tuple(mine[first:]), task.block_length, run.use_cache)

    @property
    def judged(self) -> bool:
        """Whether the task's checker can judge every prompt."""
        return bool(self.confirm) and all(self.task.judges(example) for example in (*self.screen, *self.confirm))

    @property
    def problems(self) -> Problems:
        """For a runner: dev screens, test confirms."""
        screen, confirm = (tuple(e.prompt for e in some) for some in (self.screen, self.confirm))
        lengths = self.task.gen_length, self.block_length
        return Problems(self.task.name, screen, confirm, *lengths, use_cache=self.use_cache)


def dev_prompts(task: Task, run: TaskRun, count: int, *, seed: int) -> list[Example]:
    """At most so many prompts of the dev split: drawn anew, or out of the run's file.

    Args:
        task: the task.
        run: names the file, where it has one.
        count: at most.
        seed: of the generator.
    """
    if run.prompts_file is not None:
        return prompts_of(task, replace(run, at_most=True), "dev", count, seed=seed)
    return draw(task, "dev", count, seed=seed + FURTHER)


def first_prompts(tasks: Mapping[str, TaskRun], *, seed: int) -> dict[str, str]:
    """A dev prompt of every task that has one."""
    found = {name: dev_prompts(get(name), run, 1, seed=seed) for name, run in tasks.items()}
    return {name: some[0].prompt for name, some in found.items() if some}


def check_of(panel: Panel, denoiser: Denoiser, trials: Trials, folder: Path, *, batch_size: int) -> Check:
    """The task's checker; without answers, whether a text is that of the rule alone at its most careful bound.

    Args:
        panel: prompts of the task.
        denoiser: the base.
        trials: says how careful the rule is.
        folder: of what is kept.
        batch_size: prompts in one decode.
    """
    examples = {example.prompt: example for example in (*panel.screen, *panel.confirm)}
    if panel.judged:
        return lambda prompt, text: panel.task.check(examples[prompt], text)
    file = folder / f"{panel.task.name}-careful-{judge_of(careful_of(panel, denoiser, trials))}.json"
    canvas = {"gen_length": panel.task.gen_length, "block_length": panel.block_length, "use_cache": panel.use_cache}
    how = {**canvas, "risk_bound": min(trials.bounds)}
    careful = CarefulTexts(denoiser, list(examples), how, file, batch_size=batch_size)
    return lambda prompt, text: careful.of(prompt) == text


def careful_of(panel: Panel, denoiser: Denoiser, trials: Trials) -> list[object]:
    """All that the texts of the careful rule depend on, beside the prompts."""
    canvas = [panel.task.gen_length, panel.block_length, *([] if panel.use_cache == "none" else [panel.use_cache])]
    return [min(trials.bounds), denoiser.fingerprint(), dtype_name(denoiser), *canvas]


def choose_defaults(
    denoiser: Denoiser,
    tasks: Mapping[str, TaskRun],
    trials: Trials,
    out: Path,
    *,
    batch_size: int,
    seed: int,
    run_code: bool = False,
) -> Choices:
    """Decode dev prompts with the denoiser's head and without, and write what is chosen to `defaults.json` (`choose`).

    Args:
        denoiser: the base with its head.
        tasks: whose prompts.
        trials: how many, and which bounds.
        out: folder of the head; every figure is kept in `trials/` there, and a later call goes on with them.
        batch_size: prompts at a time.
        seed: of the prompts.
        run_code: let checkers run what the base writes.
    """
    denoiser.head.defaults = None  # what is tried is told in full
    panels = panels_of(denoiser, tasks, trials, seed=seed, run_code=run_code)
    runners: dict[str, Runner] = {}

    def runner(panel: Panel) -> Runner:
        if panel.task.name not in runners:
            check = check_of(panel, denoiser, trials, out / FOLDER, batch_size=batch_size)
            made = runner_of(panel, denoiser, trials, check, out, batch_size=batch_size, seed=seed)
            runners[panel.task.name] = made
        return runners[panel.task.name]

    def decode_on(some: Sequence[Panel], *, unread: bool = False) -> Decode:
        def decode(setting: Defaults, part: Part, count: int | None = None) -> Tables:
            cut = {one.task.name: first_of(runner(one), counts[one.task.name]) for one in some}
            return {task: figures(one, setting, part, count, unread=unread) for task, one in cut.items()}

        return decode

    def chosen_for(panel: Panel, count: int) -> Choice:
        decode, unread = (decode_on([panel], unread=without) for without in (False, True))
        agreed = () if panel.judged else (panel.task.name,)
        return choose(decode, forms, trials.bounds, {panel.task.name: count}, unread=unread, agreed=agreed)

    forms, careful = forms_of(denoiser), Defaults(ALONE, min(trials.bounds), 0)
    pace = {one.task.name: pace_of(one, figures(runner(one), careful, "screen")) for one in panels if enough(one)}
    counts = affordable({one.task.name: len(one.confirm) for one in panels}, pace, trials.minutes)
    each = {panel.task.name: chosen_for(panel, counts[panel.task.name]) for panel in panels}
    chosen = general(decode_on(panels), each, unread=decode_on(panels, unread=True))
    denoiser.head.defaults = chosen.defaults
    write_json(out / FOLDER / "choice.json", chosen.as_json())
    write_defaults(chosen.defaults, out)
    return chosen


def enough(panel: Panel) -> bool:
    """Whether there are prompts to decide by."""
    return len(panel.confirm) >= ENOUGH


def pace_of(panel: Panel, careful: Mapping[str, Array]) -> float:
    """Seconds a prompt by the most careful rule; where it is the judge as well, what that takes is added to each effort.

    Args:
        panel: prompts of a task.
        careful: figures of that rule.
    """
    return float(careful["seconds"].mean()) * (1.0 if panel.judged else (EFFORT + 1) / EFFORT)


def panels_of(
    denoiser: Denoiser, tasks: Mapping[str, TaskRun], trials: Trials, *, seed: int, run_code: bool
) -> list[Panel]:
    """The dev prompts of every task; arguments as in `choose_defaults`.

    Args:
        denoiser, tasks, trials, seed, run_code: of the choice.
    """
    return [Panel.of(denoiser, name, run, trials, seed=seed, run_code=run_code) for name, run in tasks.items()]


def runner_of(
    panel: Panel, denoiser: Denoiser, trials: Trials, check: Check, out: Path, *, batch_size: int, seed: int
) -> Runner:
    """What decodes the prompts of a panel and keeps the figures in `trials/`; refuses figures of other settings there.

    Args:
        panel: prompts of a task.
        denoiser: the base.
        trials: says how careful the rule is that judges where nothing else does.
        check: of the texts.
        out: folder of the head.
        batch_size: prompts at a time.
        seed: of the prompts.
    """
    problems = replace(panel.problems, judge=judge_of(panel.judged or careful_of(panel, denoiser, trials)))
    how: dict[str, Any] = {"heads": None, "batch_size": batch_size, "seed": seed, "progress": False}
    return make_runner(denoiser, problems, check, out=out / FOLDER, **how)


def refuse_trials(
    denoiser: Denoiser,
    tasks: Mapping[str, TaskRun],
    trials: Trials,
    out: Path,
    *,
    batch_size: int,
    seed: int,
    run_code: bool = False,
) -> None:
    """Refuse figures in `trials/` that `choose_defaults` could not go on with, before there is a head; writes nothing.

    Args:
        denoiser, tasks, trials, out, batch_size, seed, run_code: as in `choose_defaults`.

    Raises:
        ValueError: naming what differs.
    """
    for panel in panels_of(denoiser, tasks, trials, seed=seed, run_code=run_code):
        runner_of(panel, denoiser, trials, lambda prompt, text: False, out, batch_size=batch_size, seed=seed)
