"""Whether calibrated dials keep their promise: ``python -m train.replay --outcomes checkpoints/runs/outcomes``."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.complaints import shown

if TYPE_CHECKING:
    from decoding.comparison.replay.promises import Acceptance
    from decoding.comparison.replay.table import OutcomeTable

CALIBRATED = "threshold,risk-sum,threshold-subset-4,learned"
PROMISES = "0.01,0.02,0.03,0.05,0.08"


def replay(
    *,
    outcomes: str,
    arms: str = CALIBRATED,
    losses: str = "flip,difference",
    promises: str = PROMISES,
    prompts: str = "500,2000",
    confidence: float = 0.95,
    replays: int = 200,
    seed: int = 0,
    out: Path | None = None,
) -> None:
    """Calibrate every arm again and again on prompts of a table of outcomes, and judge each promise on all its other prompts.

    Args:
        outcomes: folders of tables that `python -m train.outcomes` wrote, with commas between them.
        arms: names, with commas between them.
        losses: flip, difference.
        promises: values of max_loss.
        prompts: of a calibration.
        confidence: of every promise.
        replays: calibrations of each arm, loss and number of prompts.
        seed: of the draws.
        out: folder for replay.json and a picture (with matplotlib), or none.
    """
    from decoding.comparison.replay.promises import acceptances
    from decoding.comparison.risk_control import LOSSES

    names = [one.strip() for one in losses.split(",")]
    for name in names:
        if name not in LOSSES:
            raise ValueError(f"losses must be among {', '.join(LOSSES)}, got {shown(name)}")
    if replays < 1:
        raise ValueError(f"replays must be at least 1, got {replays}")
    how: dict[str, Any] = {
        "losses": names,
        "promises": [float(one) for one in promises.split(",")],
        "sizes": [int(one) for one in prompts.split(",")],
        "confidence": confidence,
        "replays": replays,
        "seed": seed,
    }
    found: list[Acceptance] = []
    for table in read_tables(outcomes):
        running = [one.strip() for one in arms.split(",") if whole(table, one.strip(), max(how["sizes"]))]
        found += acceptances(table, running, **how)
        print(report([row for row in found if row.task == table.task]), flush=True)
    if out is not None:
        save(found, out)


def whole(table: OutcomeTable, arm: str, prompts: int) -> bool:
    """Whether an arm ran on more prompts than a calibration takes."""
    return arm in table.arms and len(table.complete(table.rows(arm))) > prompts


def read_tables(outcomes: str) -> list[OutcomeTable]:
    """Every table of some folders or files, those of one task joined.

    Args:
        outcomes: folders and files, with commas between them.

    Raises:
        ValueError: where there is none, and for tables of a task on other prompts.
    """
    from decoding.comparison.replay.table import OutcomeTable

    found: dict[str, OutcomeTable] = {}
    for path in (Path(one.strip()) for one in outcomes.split(",")):
        files = [path] if path.is_file() else sorted(path.glob("*.npz"))
        if not files:
            raise ValueError(f"outcomes must be a folder with tables of python -m train.outcomes, got {path}")
        for table in map(OutcomeTable.load, files):
            found[table.task] = found[table.task].joined(table) if table.task in found else table
    return list(found.values())


def report(found: list[Acceptance]) -> str:
    """Lines for people."""
    lines = [
        f"{'task':>16} {'arm':>18} {'loss':>10} promise  prompts  none  broken (bar)  true loss  rounds / best that holds"
    ]
    for row in found:
        loss, ratio = (
            "-" if value is None else f"{value:.{digits}f}"
            for value, digits in ((row.true_loss, 4), (row.rounds_ratio, 2))
        )
        bar = 1 - row.confidence + 2 * row.standard_error
        figures = (
            f"{row.max_loss:7g} {row.prompts:8} {row.none:5.2f} {row.exceeded:7.3f} ({bar:.3f}) {loss:>9} {ratio:>6}"
        )
        lines.append(f"{row.task:>16} {row.arm:>18} {row.loss:>10} {figures}{'' if row.kept else '  NOT KEPT'}")
    return "\n".join(lines)


def save(found: list[Acceptance], out: Path) -> None:
    """Write replay.json, and a picture of the first loss at the fewest prompts."""
    import torch

    from decoding.comparison.replay.picture import draw
    from decoding.provenance import environment, write_json

    where = environment(device=torch.device("cpu"), seed=0)
    write_json(out / "replay.json", {"rows": [row.row() for row in found], "environment": where})
    if find_spec("matplotlib") is not None:
        shown = [row for row in found if (row.loss, row.prompts) == (found[0].loss, found[0].prompts)]
        draw(shown, out / "promised.png")


if __name__ == "__main__":
    from train.commands.command_line import run

    run(replay)
