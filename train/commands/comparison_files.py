"""What a comparison has left in its folder, told in a few lines."""

from __future__ import annotations

import textwrap
from pathlib import Path

from decoding.comparison.records.format import TEXTS, TRACES

WIDTH = 100
KNOWN = ("comparison.json", "table.md", "report.html", TEXTS, TRACES)


def written(folder: Path, *, report: bool) -> str:
    """The names of the files of a comparison, its report written first where it is asked for.

    Args:
        folder: of the results.
        report: write report.html, or say what is missing for it.
    """
    said = write_page(folder) if report else []
    there = [name for name in KNOWN if (folder / name).is_file()] + sorted(file.name for file in folder.glob("*.png"))
    lines = textwrap.wrap(
        f"written to {folder}: {', '.join(there)}", WIDTH, break_long_words=False, break_on_hyphens=False
    )
    return "\n".join([*lines, *said])


def write_page(folder: Path) -> list[str]:
    """Write report.html; a line where that cannot be done."""
    from train.report.page import missing_packages, write_report

    if missing := missing_packages():
        return [f"no report.html: {', '.join(missing)} not installed (extra `report`)"]
    write_report(folder)
    return []
