"""report.html of a finished comparison: python -m train.report FOLDER"""

from pathlib import Path


def report(folder: Path, page: Path | None = None) -> None:
    """Write report.html of a results folder, one file that opens in any browser without a network.

    Args:
        folder: with comparison.json, and texts.jsonl.gz and traces.jsonl.gz where there are any.
        page: the file; default report.html in the folder.
    """
    import sys

    from train.report.page import write_report

    sys.stdout.write(f"written to {write_report(folder, page)}\n")
