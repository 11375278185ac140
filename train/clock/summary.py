"""What the clocked arms of a task say: the fastest of each kind at reference accuracy, and ratios with intervals over batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from decoding.comparison import curves
from decoding.comparison.arms import REFERENCE, Arm
from train.clock.store import Results, Row

FEWEST = 10  # batches that an interval goes over
LOOK_AHEAD, IN_ITS_PLACE = ("ete",), ("learned-ete", "learned-parity")  # policies
EPSILON = 1e-9


def summarise(results: Results) -> Row:
    """One task as a row of `clock.json`.

    Args:
        results: of the task.
    """
    sizes = list(dict.fromkeys((results.how["batch_size"], 1)))
    rows = {size: rows_of(results, size) for size in sizes}
    return {
        "task": results.file.parent.name,
        "how": results.how,
        "place": results.place,
        "environment": results.environment,
        "reference": reference_of(results),
        "chosen": results.chosen,
        "dev": list(results.dev.values()),
        "clocked": [row for some in rows.values() for row in some],
        "comparisons": [compared(size, some) for size, some in rows.items() if some],
    }


def reference_of(results: Results) -> Row:
    """One token a round: its figures on the dev prompts, and on the test prompts where they are known."""
    cell = Arm(REFERENCE, "headless", REFERENCE).cells[0]
    size = results.how["batch_size"]
    return {"dev": results.dev.get(cell.key), "test": results.clocked.get(f"{cell.key} {size}")}


def rows_of(results: Results, size: int) -> list[Row]:
    """The arms that are at the reference on the dev prompts and clocked at a batch size, in the order they ran.

    `holds` says whether an arm is there on the test prompts too, by those decoded in batches; None where that is not known.
    """
    test = reference_of(results)["test"]
    rows = []
    for name, choice in results.chosen.items():
        row = results.clocked.get(f"{choice['key']} {size}")
        if row is None:
            continue
        batched = results.clocked.get(f"{choice['key']} {results.how['batch_size']}")
        holds = None
        if test is not None and batched is not None:
            lost = test["accuracy"]["estimate"] - batched["accuracy"]["estimate"]
            holds = lost <= results.how["slack"] + EPSILON
        rows.append({**row, "arm": name, **choice, "holds": holds})
    return rows


def compared(size: int, rows: Sequence[Row]) -> Row:
    """The fastest arms of each kind at a batch size, and their ratios; arms that are not at the reference on test are left out.

    Args:
        size: prompts of a batch.
        rows: of `rows_of`.
    """
    lost = [str(row["arm"]) for row in rows if row["holds"] is False]
    rows = [row for row in rows if row["holds"] is not False]
    headless, learned = (fastest([row for row in rows if row["kind"] == kind]) for kind in ("headless", "learned"))
    ahead, replaced = (
        fastest([row for row in rows if row["policy"] in policies]) for policies in (LOOK_AHEAD, IN_ITS_PLACE)
    )
    rule, looking = (fastest(list(filter(wanted, rows))) for wanted in (is_plain, has_one_look))
    return {
        "batch": size,
        "known_on_test": all(row["holds"] for row in rows),
        "lost_on_test": lost,
        "headless": name_of(headless),
        "learned": name_of(learned),
        "time": ratio(learned, headless),
        "look_ahead": name_of(ahead),
        "in_its_place": name_of(replaced),
        "time_in_its_place": ratio(replaced, ahead),
        "rule": name_of(rule),
        "one_look": name_of(looking),
        "round": None if looking is None or rule is None else looking["ms_a_round"] / rule["ms_a_round"],
    }


def fastest(rows: Sequence[Row]) -> Row | None:
    """The row of the least time a prompt, None where there is none."""
    return min(rows, key=lambda row: float(row["ms"]), default=None)


def is_plain(row: Row) -> bool:
    """Whether an arm is a rule that runs one canvas a round."""
    one = row["sequence_forwards"] <= row["rounds"] + EPSILON
    return bool(row["kind"] == "headless" and row["policy"] not in LOOK_AHEAD and one)


def has_one_look(row: Row) -> bool:
    """Whether an arm is `learned` with one look a round."""
    return bool(row["policy"] == "learned" and row["settings"].get("looks") == 1)


def name_of(row: Row | None) -> str | None:
    """The name of the arm of a row."""
    return None if row is None else str(row["arm"])


def ratio(above: Row | None, below: Row | None) -> Any:
    """Time of one arm over that of another on the same batches, with a bootstrap interval over batches; None without both.

    Under ten batches the ends of the interval are None.
    """
    if above is None or below is None:
        return None
    own, other = (np.array(row["seconds"]) for row in (above, below))
    if len(own) < FEWEST:
        return {"estimate": float(own.sum() / other.sum()), "low": None, "high": None}
    weights = curves.resample(len(own))
    found = curves.interval((weights @ own) / (weights @ other))
    return found and asdict(found)
