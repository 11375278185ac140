"""What the report shows of one task: a verdict, the arms at the settings chosen, pairs and calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from train.report.folder import Results, Row

REFERENCE = "sequential"
UNCHECKED = "no checker"  # finding of a task whose texts are compared with the reference's
COMPARED_WITH = ("control", "ceiling")  # kinds that no verdict names
ENOUGH = 500  # prompts of a claim


@dataclass(frozen=True)
class ArmView:
    """An arm at the setting shown.

    Attributes:
        row: of `results`, on the test split.
        curve: of `curves`; None where no curves were drawn.
    """

    row: Mapping[str, Any]
    curve: Mapping[str, Any] | None

    @property
    def reached(self) -> bool:
        """Whether a setting was within a point of the reference on the dev split."""
        return self.curve is None or self.curve["rounds_at_reference"] is not None

    @property
    def milliseconds(self) -> float:
        """Wall clock of a prompt."""
        return 1000.0 * float(self.row["seconds"])

    @property
    def tokens_a_second(self) -> float | None:
        """New tokens over wall clock, None where no time was kept."""
        return float(self.row["new_tokens"]["estimate"]) / self.row["seconds"] if self.row["seconds"] else None


@dataclass(frozen=True)
class TaskView:
    """One task of the report.

    Attributes:
        name: of the task.
        prompts: number of test prompts.
        checked: whether a checker judged the texts.
        arms: those compared, in their order.
        pairs: rows of `pairs` by the arm that others are compared with.
        calibration: rows of `calibration`.
        sentences: what the comparison says.
        verdict: all of it in a sentence.
    """

    name: str
    prompts: int
    checked: bool
    arms: Sequence[ArmView]
    pairs: Mapping[str, Sequence[Row]]
    calibration: Sequence[Row]
    sentences: Sequence[str]
    verdict: str

    @property
    def measure(self) -> str:
        """What the share of right texts is called."""
        return "accuracy" if self.checked else f"agreement with {REFERENCE}"


def view_task(results: Results, task: str) -> TaskView:
    """What the report shows of a task."""
    rows = [row for row in results.of_task("results", task) if row["split"] == "test"]
    curves = {row["arm"]: row for row in results.of_task("curves", task)}
    shown = [row for row in rows if row["arm"] not in curves or row["dial"] == curves[row["arm"]]["dial_shown"]]
    arms = [ArmView(row, curves.get(row["arm"])) for row in shown]
    pairs: dict[str, list[Row]] = {}
    for row in results.of_task("pairs", task):
        pairs.setdefault(row["b"], []).append(row)
    said = results.of_task("verdicts", task)
    checked = all(row["finding"] != UNCHECKED for row in said)
    prompts = rows[0]["n"] if rows else 0
    return TaskView(
        name=task,
        prompts=prompts,
        checked=checked,
        arms=arms,
        pairs=pairs,
        calibration=results.of_task("calibration", task),
        sentences=[row["sentence"] for row in said],
        verdict=verdict(task, arms, prompts=prompts, checked=checked),
    )


def verdict(task: str, arms: Sequence[ArmView], *, prompts: int, checked: bool) -> str:
    """The arm that needs the fewest rounds at the reference's accuracy, beside the reference, in a sentence.

    Args:
        task: its name.
        arms: with their curves.
        prompts: test prompts.
        checked: whether a checker judged the texts.
    """
    held = [a for a in arms if a.curve is not None and a.reached and a.curve["holds"] is not False]
    reference = next((a for a in held if a.row["arm"] == REFERENCE), None)
    rivals = [a for a in held if a.row["arm"] != REFERENCE and a.row["kind"] not in COMPARED_WITH]
    size = f"{prompts} test prompts" + ("" if prompts >= ENOUGH else ", which make a look and no claim")
    if reference is None:
        return f"On {task} no curves were drawn ({size})."
    kept = f"the accuracy of {REFERENCE}" if checked else f"the texts of {REFERENCE}"
    if not rivals:
        return f"On {task} no arm keeps {kept} within one point ({size})."
    best = min(rivals, key=rounds_at_reference)
    low, high = (best.row["rounds"][end] for end in ("low", "high"))
    slow, fast = rounds_at_reference(reference), rounds_at_reference(best)
    dial = "" if best.row["dial"] is None else f" at {best.row['dial']:g}"
    return (
        f"On {task} {best.row['arm']}{dial} keeps {kept} within one point in {fast:.1f} rounds "
        f"[{low:.1f}, {high:.1f}] where {REFERENCE} takes {slow:.1f}, {slow / fast:.1f} times as many ({size})."
    )


def rounds_at_reference(arm: ArmView) -> float:
    """Rounds at the setting chosen on the dev split."""
    assert arm.curve is not None
    return float(arm.curve["rounds_at_reference"]["estimate"])
