"""Checked drafts against every headless rule: ``python -m train.standings --outcomes checkpoints/runs/outcomes``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from decoding.comparison.replay.standings import Contest, SameTexts

EXACT = {"threshold-exact-4": "threshold"}  # arm -> its rule


def standings(
    *, outcomes: str, num_dev: int = 800, num_prompts: int = 2000, tolerances: str = "0.01,0", out: Path | None = None
) -> None:
    """Choose arm and dial of either side on the first prompts of a table, and compare them on the prompts behind.

    Args:
        outcomes: folders of tables that `python -m train.outcomes` wrote, with commas between them.
        num_dev: prompts that choose.
        num_prompts: prompts that are reported and choose nothing.
        tolerances: how far under one token a round a setting may be on the prompts that choose.
        out: folder for standings.json, or none.
    """
    from dataclasses import asdict

    from decoding.comparison.replay.standings import Splits, contest, same_texts
    from train.replay import read_tables

    contests: list[Contest] = []
    same: dict[str, list[SameTexts]] = {}
    for table in read_tables(outcomes):
        splits = Splits(table, num_dev, num_prompts)
        contests += [contest(splits, tolerance=float(one)) for one in tolerances.split(",")]
        pairs = [(arm, rule) for arm, rule in EXACT.items() if arm in table.arms]
        same[table.task] = [one for arm, rule in pairs for one in same_texts(table, arm, rule)]
    print("\n".join(line for tolerance in tolerances.split(",") for line in report(contests, float(tolerance))))
    print("\n".join(said_of(task, found) for task, found in same.items() if found))
    if out is not None:
        import torch

        from decoding.provenance import environment, write_json

        rows: dict[str, Any] = {"contests": [one.row() for one in contests]}
        rows |= {"exact": {task: [asdict(one) for one in found] for task, found in same.items()}}
        write_json(out / "standings.json", {**rows, "environment": environment(device=torch.device("cpu"), seed=0)})


def report(contests: list[Contest], tolerance: float) -> list[str]:
    """Lines of a table in markdown."""
    lines = [
        f"At {100 * tolerance:g} points under one token a round:",
        "| task | n | reference | best headless arm | checked drafts | ratio | read off the curves | fewer than all |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in contests:
        if one.tolerance == tolerance:
            sides = " | ".join("none" if side is None else _shown(side) for side in (one.rival, one.checked))
            ratios = " | ".join(_interval(ratio) for ratio in (one.ratio, one.read_off))
            fewer = "yes" if one.fewer_than_all else "no"
            lines.append(f"| {one.task} | {one.test} | {one.reference:.3f} | {sides} | {ratios} | {fewer} |")
    return lines


def _shown(side: dict[str, Any]) -> str:
    points = 100 * side["accuracy_difference"]["estimate"]
    forwards = side["sequence_forwards"]["estimate"]
    return f"`{side['arm']}` {side['dial']:g}: {_interval(side['rounds'])} ({forwards:.1f}), {points:+.1f} points"


def _interval(found: dict[str, float] | None) -> str:
    return "-" if found is None else f"{found['estimate']:.2f} [{found['low']:.2f}, {found['high']:.2f}]"


def said_of(task: str, found: list[SameTexts]) -> str:
    """One line on exact texts."""
    equal, prompts = (sum(getattr(one, name) for one in found) for name in ("equal", "prompts"))
    ratios = ", ".join(f"{one.rounds_ratio:.2f}" for one in found)
    most = max(one.most_rounds for one in found)
    return f"{task}: {equal} of {prompts} exact texts equal, rounds {ratios} of the rule's, no prompt over {most:.2f}"


if __name__ == "__main__":
    from train.commands.command_line import run

    run(standings)
