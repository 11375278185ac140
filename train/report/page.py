"""report.html: a comparison as one file that needs nothing else, no network either."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from decoding.comparison.records.format import TEXTS, TRACES
from decoding.files.aside import written_aside
from train.report.charts import charts
from train.report.folder import Results, read_results
from train.report.payload import Payload, pack
from train.report.view import REFERENCE, view_task

PAGE = "report.html"
TEMPLATES = Path(__file__).resolve().parent / "templates"
PACKAGES = ("jinja2", "jsonschema", "vl_convert")  # of the extra `report`
LARGEST = 5_000_000  # bytes of the file
MARGIN = 50_000


def missing_packages() -> list[str]:
    """The packages of the extra `report` that are not installed."""
    return [name for name in PACKAGES if find_spec(name) is None]


def write_report(folder: str | Path, page: str | Path | None = None) -> Path:
    """Write the report of a results folder, aside and renamed.

    Args:
        folder: that `compare.py` or another tool has written, as docs/report.md says.
        page: the file; by default report.html in the folder.

    Returns:
        The file.

    Raises:
        ValueError: for a folder that cannot be read, and where the extra `report` is not installed.
    """
    if missing := missing_packages():
        raise ValueError(f"a report must have {', '.join(PACKAGES)} (extra `report`), got no {', '.join(missing)}")
    text = render(read_results(folder))
    file = Path(folder) / PAGE if page is None else Path(page)
    with written_aside(file) as aside:
        aside.write_text(text, encoding="utf-8")
    return file


def render(results: Results) -> str:
    """The page of a comparison; of texts and rounds as many prompts as fit into LARGEST bytes."""
    tasks = [view_task(results, name) for name in results.tasks]
    values: dict[str, Any] = {
        "tasks": tasks,
        "reference": REFERENCE,
        "environment": flat(results.figures.get("environment") or {}),
        "charts": {task.name: charts(task, rows_on_test(results, task.name)) for task in tasks},
        "files": (TEXTS, TRACES),
        "library": library(),
        "style": _read("report.css"),
        "scripts": [_read(name) for name in ("report.js", "texts.js", "replay.js")],
    }
    bare = len(_filled(values, pack(results, 0)).encode())
    return _filled(values, pack(results, LARGEST - MARGIN - bare))


@cache
def library() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script."""
    import vl_convert

    bundle: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return bundle.replace("</script", "<\\/script")


def rows_on_test(results: Results, task: str) -> Sequence[dict[str, Any]]:
    """The rows of `results` of a task on the test split, at every setting."""
    return [row for row in results.of_task("results", task) if row["split"] == "test"]


def flat(found: dict[str, Any], before: str = "") -> dict[str, str]:
    """Nested values by dotted names."""
    lines: dict[str, str] = {}
    for name, value in found.items():
        nested = isinstance(value, dict)
        lines |= flat(value, f"{before}{name}.") if nested else {before + name: "" if value is None else str(value)}
    return lines


def _read(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


def _filled(values: dict[str, Any], records: Payload) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text: str = environment.get_template("report.html.j2").render(**values, records=records)
    return text
