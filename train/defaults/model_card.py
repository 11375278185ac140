"""What a fit leaves for its reader: what was won in one sentence, a table, a model card and a picture of the losses."""

from __future__ import annotations

import csv
import shlex
import textwrap
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from decoding.comparison.curves import Estimate
from decoding.provenance import write_text
from models.heads.defaults import Defaults
from train.defaults.choice import Against, Choice, Choices, Confirmed, Worth
from train.defaults.evidence import ENOUGH, Paired

SAVING = 0.97  # of the rounds, from which a setting that was not taken is worth a word
WIDTH = 100  # columns of what is printed
COLUMNS = ("decoder", "bound", "n", "right %", "rounds", "right - rule, points", "rounds / rule")


def name_of(setting: Defaults) -> str:
    """What people call a setting."""
    if setting.checked:
        return "rule, checked drafts" + (" one by one" if setting.checked == "subset" else "")
    first = "rule alone" if setting.rule == "confidence" else "head"
    looks = {0: "", 1: " + 1 look"}.get(setting.looks, f" + {setting.looks} looks")
    return f"{'rule' if looks and first != 'head' else first}{looks}"


def sentence(choice: Choice) -> str:
    """What was won over the rule alone, or that nothing was and why."""
    rule = f"the rule alone, risk-sum at {choice.rule.risk_bound:g}"
    if not choice.enough:
        task = min(choice.n, key=lambda one: choice.n[one])
        few = f"{task} has {choice.n[task]} dev prompts to decide by and needs {ENOUGH}"
        return f"Nothing decided: {few}, which is too few; by default the head decodes as {rule}."
    won = choice.won
    if won is None:
        return f"Nothing won: by default the head decodes as {rule}{_closest(choice)}{_void(choice)}."
    each = "; ".join(f"{task} {told(won, task)}" for task in won.tasks)
    how = f"{name_of(won.setting)} at {won.setting.risk_bound:g}"
    agreed = f"; answers of {', '.join(choice.agreed)} are those of the careful rule" if choice.agreed else ""
    worth = "".join(
        f"; with the cascade's drafts {ratios_of(one)} of the rounds that drafts without it take"
        for one in choice.worth
        if one.setting == won.setting
    )
    found = f"{each}{agreed}{worth}"
    return f"Won: {1 - won.ratio:.0%} fewer rounds at equal accuracy than {rule}, with {how} ({found}){_void(choice)}."


def told(confirmed: Confirmed, task: str) -> str:
    """A task in one phrase."""
    one, drawn = confirmed.tasks[task], confirmed.drawn(task)
    rounds = f"rounds {one.rounds:.2f} for {one.rule_rounds:.2f}, ratio {with_interval(one.ratio)}"
    known = "" if drawn is None else f", with what is known of such drafts beforehand {points(drawn)}"
    return f"{rounds}, accuracy {points(one.difference, ' points')}{known}, n {one.difference.n}"


def points(one: Paired, unit: str = "") -> str:
    """A difference of accuracies in points, with its interval."""
    return f"{100 * one.estimate:+.1f}{unit} [{100 * one.low:+.1f}, {100 * one.high:+.1f}]"


def with_interval(one: Estimate) -> str:
    """A ratio with its interval."""
    return f"{one.estimate:.2f} [{one.low:.2f}, {one.high:.2f}]"


def ratios_of(one: Worth) -> str:
    """The rounds of drafts of the cascade over those of drafts without it, a ratio for every task."""
    return ", ".join(with_interval(ratio) for ratio in one.ratios.values())


def _void(choice: Choice) -> str:
    """The checked drafts that were left out, for the cascade saves them no rounds."""
    left = [f"{name_of(one.setting)} {ratios_of(one)}" for one in choice.worth if not one.saves]
    return f"; left out, rounds with the cascade over those without it: {'; '.join(left)}" if left else ""


def _closest(choice: Choice) -> str:
    if not choice.confirmed:
        return "; no setting of the head saved rounds where it was tried"
    saving = [one for one in choice.confirmed if one.ratio < SAVING] or choice.confirmed
    best = max(saving, key=lambda one: min(found.difference.low for found in one.tasks.values()))
    task = min(best.tasks, key=lambda name: best.tasks[name].difference.low)
    return f"; {name_of(best.setting)} at {best.setting.risk_bound:g} came closest ({task}: {told(best, task)})"


def table(choice: Choice) -> str:
    """For each task the rule alone, the head without looks and with, on the dev prompts that decided; * stands at the default."""
    return "\n\n".join(_of_task(task, choice) for task in choice.n) if choice.confirmed else ""


def _of_task(task: str, choice: Choice) -> str:
    longest = max((one.tasks[task] for one in choice.confirmed), key=lambda found: found.difference.n)
    mark = "*" if choice.defaults == choice.rule else ""
    figures = (f"{longest.difference.n}", f"{100 * longest.rule_accuracy:.1f}", f"{longest.rule_rounds:.2f}")
    lines: list[tuple[str, ...]] = [COLUMNS, ("rule alone" + mark, f"{choice.rule.risk_bound:g}", *figures, "", "")]
    lines += [_line(one, one.tasks[task], starred=one.setting == choice.defaults) for one in choice.confirmed]
    widths = [max(len(line[i]) for line in lines) for i in range(len(COLUMNS))]
    grid = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines)
    return "\n".join([f"{task}, the first n of {choice.n[task]} dev prompts", *grid])


def _line(one: Confirmed, found: Against, *, starred: bool) -> tuple[str, ...]:
    d, r = found.difference, found.ratio
    return (
        name_of(one.setting) + ("*" if starred else ""),
        f"{one.setting.risk_bound:g}",
        f"{d.n}",
        f"{100 * found.accuracy:.1f}",
        f"{found.rounds:.2f}",
        points(d),
        with_interval(r),
    )


def card(choices: Choices, about: Mapping[str, Any], usage: str) -> str:
    """The README of the head's folder.

    Args:
        choices: its defaults and what they rest on.
        about: what it was made of and how, a line each.
        usage: the command that uses it.
    """
    made = "\n".join(f"- {name}: {value}" for name, value in about.items())
    tables = [table(choice) for choice in choices.each.values() if choice.confirmed]
    figures = "\n```\n" + "\n\n".join(tables) + "\n```\n" if tables else ""
    general = replace(choices.defaults, tasks=())
    named = [(task, one) for task, one in choices.defaults.tasks] + [
        ("any other prompt" if choices.defaults.tasks else "any prompt", general)
    ]
    settings = "\n".join(f"- {task}: {settings_of(one)}" for task, one in named)
    return (
        f"# A scoring head\n\n{sentences(choices)}\n{figures}\n"
        f"How it decodes where no policy is named (`defaults.json`):\n\n{settings}\n\n```sh\n{usage}\n```\n\n{made}\n\n"
        "Accuracies are paired, with intervals of Agresti and Min; rounds with bootstrap intervals over prompts. "
        "`metrics.json`,\n`cascade/metrics.json` and `trials/choice.json` hold every figure with its n.\n"
    )


def settings_of(one: Defaults) -> str:
    """Policy and settings in words."""
    policy, settings = one.decoder
    return ", ".join(
        [f"`{policy}`", *(f"{name} {'of the head' if value is None else value}" for name, value in settings.items())]
    )


def sentences(choices: Choices) -> str:
    """What was won on each task."""
    many = len(choices.each) > 1
    return "\n".join((f"{task}: " if many else "") + sentence(choice) for task, choice in choices.each.items())


def picture(out: Path) -> Path | None:
    """Draw the losses of the fits under `out`, None without matplotlib or logs."""
    logs = {"head": sorted((out / "logs").glob("*/metrics.csv")), "cascade": [out / "cascade-logs" / "metrics.csv"]}
    drawn = {part: [(file, losses(file)) for file in files if file.is_file()] for part, files in logs.items()}
    drawn = {part: [one for one in some if one[1]] for part, some in drawn.items()}
    if find_spec("matplotlib") is None or not any(drawn.values()):
        return None
    from matplotlib.figure import Figure

    canvas = Figure(figsize=(9, 4), layout="constrained")
    shown = [part for part, some in drawn.items() if some]
    for place, part in enumerate(shown):
        axes = canvas.add_subplot(1, len(shown), place + 1, xlabel="step", ylabel="loss", title=part)
        for file, points in drawn[part]:
            axes.plot(*zip(*points, strict=True), label=file.parent.name)
        axes.legend()
    canvas.savefig(out / "losses.png", dpi=110)
    return out / "losses.png"


def losses(file: Path) -> list[tuple[float, float]]:
    """Step and training loss from a log.

    Raises:
        ValueError: naming the file, if it is no log of a fit.
    """
    with file.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    names = [name for name in ("train/loss", "train/kl") if rows and name in rows[0]]
    try:
        return [(float(row["step"]), float(row[name])) for row in rows for name in names if row[name]]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{file} must hold the log of a fit, with a number in every step, got {error}") from error


def leave(out: Path, choices: Choices, about: Mapping[str, Any], usage: str) -> str:
    """Write README.md and the picture, and return what the job says last.

    Args:
        out: folder of the head.
        choices: what was chosen, and by which figures.
        about: facts of the run, for the page.
        usage: the command that decodes with the head.
    """
    write_text(out / "README.md", card(choices, about, usage))
    picture(out)
    return f"{said_of(choices)}\n\nThe head lies in {out}. It decodes with:\n{usage}"


def said_of(choices: Choices) -> str:
    """The tables, and what was won in one sentence a task."""
    said = [textwrap.fill(line, WIDTH, break_on_hyphens=False) for line in sentences(choices).splitlines()]
    tables = [table(choice) for choice in choices.each.values()]
    return "\n\n".join(part for part in (*tables, "\n".join(said)) if part)


def usage_of(out: Path, prompts: Mapping[str, str], model: str | None) -> str:
    """A command that decodes a prompt with the head; of the tasks the one with the shortest prompt."""
    task = min(prompts, key=lambda name: len(prompts[name]))
    words = ["python", "generate.py", "--task", task, "--head", str(out), "--prompt", prompts[task]]
    return shlex.join(words + ([] if model is None else ["--model", model]))
