"""What was clocked, as tables in markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from train.clock.store import Row

ABOUT = (
    "Accuracy @ rounds, milliseconds a prompt; ratios with 95 % intervals over batches, arms as chosen; none under ten "
    "batches. Arms that are not at the reference on the test prompts are left out; *: that is not known yet."
)
BARS = (0.85, 1.0)  # times those of the best headless arm
HEADER = (
    "| Task | Batch | Reference | Fastest without a head | Fastest with one | Time | Look-ahead | Head in its place | Time "
    "| Round with one look |"
)


def table(tasks: Sequence[Row]) -> str:
    """The comparisons of all tasks, how many keep each bar, and every arm of every task.

    Args:
        tasks: rows of `summarise`.
    """
    lines = [ABOUT, "", HEADER]
    lines += ["|---" * 10 + "|"]
    lines += [compared(task, found) for task in tasks for found in task["comparisons"]]
    lines += ["", *(counted(some, size) for some in alike(tasks) for size in sizes(some))]
    for task in tasks:
        lines += ["", *arms(task)]
    return "\n".join(lines) + "\n"


def sizes(tasks: Sequence[Row]) -> list[int]:
    """Batch sizes of all tasks."""
    return list(dict.fromkeys(found["batch"] for task in tasks for found in task["comparisons"]))


def alike(tasks: Sequence[Row]) -> list[list[Row]]:
    """The tasks in groups of one device, commit and code each."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for task in tasks:
        place = task["place"]
        groups.setdefault((place.get("device"), task["environment"].get("commit"), place.get("code")), []).append(task)
    return list(groups.values())


def compared(task: Row, found: Row) -> str:
    """One task at one batch size."""
    rows = {row["arm"]: row for row in task["clocked"] if row["batch"] == found["batch"]}
    batched = {row["arm"]: row for row in task["clocked"] if row["batch"] == task["how"]["batch_size"]}

    def shown(role: str) -> str:
        name = found[role]
        if name is None:
            return "-"
        row = rows[name]
        accuracy = batched.get(name, row)["accuracy"]["estimate"]
        return f"`{name}`{value_of(row)} {accuracy:.3f} @ {row['rounds']:.1f}, {row['ms']:.2f}"

    mark = "" if found["known_on_test"] else "*"
    cells = [f"{task['task']}{mark}", str(found["batch"]), reference(task), shown("headless"), shown("learned")]
    cells += [interval(found["time"]), shown("look_ahead"), shown("in_its_place"), interval(found["time_in_its_place"])]
    return "| " + " | ".join([*cells, "-" if found["round"] is None else f"{found['round']:.2f}"]) + " |"


def value_of(row: Row) -> str:
    """The setting of the dial behind the name of an arm."""
    return "" if row["value"] is None else f" {row['value']:g}"


def reference(task: Row) -> str:
    """Accuracy of one token a round on the test prompts, else on the dev prompts."""
    found = task["reference"]
    row = found["test"] or found["dev"]
    said = "" if found["test"] else " (dev)"
    return "-" if row is None else f"{row['accuracy']['estimate']:.3f} @ {row['rounds']:.1f}{said}"


def interval(found: Any) -> str:
    """A ratio with its interval, where it has one."""
    if found is None:
        return "-"
    return f"{found['estimate']:.2f}" + ("" if found["low"] is None else f" [{found['low']:.2f}, {found['high']:.2f}]")


def counted(tasks: Sequence[Row], size: int) -> str:
    """On how many tasks the ratios at a batch size keep the bars.

    Args:
        tasks: of one device and commit.
        size: prompts of a batch.
    """
    place, commit = tasks[0]["place"], tasks[0]["environment"].get("commit")
    found = [one for task in tasks for one in task["comparisons"] if one["batch"] == size]
    said = []
    for name, what in (("time", "head / best rule"), ("time_in_its_place", "head / look-ahead")):
        ratios = [one[name]["estimate"] for one in found if one[name] is not None]
        kept = ", ".join(f"{sum(ratio <= bar for ratio in ratios)} at {bar:g} or less" for bar in BARS)
        said.append(f"{what} on {len(ratios)} tasks, {kept}")
    return f"Batch {size} ({place.get('device')}, commit {commit}): {'; '.join(said)}.\n" if found else ""


def arms(task: Row) -> list[str]:
    """Every arm of a task that is clocked, and those that are not at the reference."""
    how, place = task["how"], task["place"]
    first = f"{task['task']}: {place.get('device')}, {place.get('dtype')}, engine {place.get('engine')}"
    columns = [f"ms, batch {size}" for size in (how["batch_size"], 1)]
    lines = [
        f"{first}, torch {place.get('torch')}, commit {task['environment'].get('commit')}, seed {how['seed']}; "
        f"{how['num_dev']} dev prompts, reference {reference(task)}.",
        "",
        f"| Arm | n | Accuracy | Holds | Rounds | Forwards | Looks | {' | '.join(columns)} | ms a round | Fallbacks |",
        "|---" * 11 + "|",
    ]
    lines += [line for name in task["chosen"] if (line := arm(task, name)) is not None]
    lost = [name for name, choice in task["chosen"].items() if choice["key"] is None]
    lost_on_test = dict.fromkeys(name for found in task["comparisons"] for name in found["lost_on_test"])
    for what, names in (("", lost), (" on test", lost_on_test)):
        lines += ["", f"Not at the reference{what}: {', '.join(names)}."] if names else []
    return lines


def arm(task: Row, name: str) -> str | None:
    """One arm at all batch sizes; None where it is not clocked."""
    rows = [row for row in task["clocked"] if row["arm"] == name]
    if not rows:
        return None
    row = rows[0]
    by_size = {one["batch"]: one for one in rows}
    own = [by_size.get(size) for size in dict.fromkeys((task["how"]["batch_size"], 1))]
    ms = " | ".join("-" if one is None else f"{one['ms']:.2f}" for one in own)
    a_round = " / ".join("-" if one is None else f"{one['ms_a_round']:.2f}" for one in own)
    holds = {None: "-", True: "yes", False: "no"}[row["holds"]]
    counts = " | ".join(f"{row[key]:.2f}" for key in ("rounds", "sequence_forwards", "looks"))
    fallbacks = sum(one["fallbacks"] for one in rows)
    first = f"`{name}`{value_of(row)} | {row['n']} | {interval_of(row['accuracy'])} | {holds} | {counts}"
    return f"| {first} | {ms} | {a_round} | {fallbacks} |"


def interval_of(found: Row) -> str:
    """An accuracy with its interval."""
    return f"{found['estimate']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"
