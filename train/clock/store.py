"""What is known of a task so far, in one file that is written anew as each result ends."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from models.checkpoints.json_files import SUM, read_object, require_sound, sealed
from models.complaints import listed, shown
from train.clock.call import Base, How

Row = dict[str, Any]

FILE = "results.json"
FIGURES = {"accuracy", "rounds", "sequence_forwards"}
COLUMNS: Mapping[str, set[str]] = {
    "dev": FIGURES,
    "chosen": {"kind", "policy", "key", "value", "settings"},
    "clocked": FIGURES | {"n", "looks", "fallbacks", "ms", "ms_a_round", "seconds"},
}


@dataclass
class Results:
    """The results of one task; `keep` writes them aside and renames them.

    Attributes:
        file: where they are kept.
        how: what must be the same in every call.
        place: device, code, weights and prompts, known once a model is loaded.
        environment: of the last call that wrote.
        dev: cell -> its figures on the dev prompts.
        chosen: arm -> its kind and the setting that keeps the accuracy, or none.
        clocked: cell and batch size -> its figures on the test prompts.
    """

    file: Path
    how: Row
    place: Row = field(default_factory=dict)
    environment: Row = field(default_factory=dict)
    dev: dict[str, Row] = field(default_factory=dict)
    chosen: dict[str, Row] = field(default_factory=dict)
    clocked: dict[str, Row] = field(default_factory=dict)

    @staticmethod
    def open(folder: Path, how: How, base: Base) -> Results:
        """Those of a folder, or none yet.

        Args:
            folder: of the task.
            how: sizes of this call.
            base: models of this call.

        Raises:
            ValueError: for those of another call.
        """
        now = {**asdict(how), "model": Path(base.model).name, "head": base.head and Path(base.head).name}
        found = read_results(folder)
        if found is None:
            return Results(folder / FILE, now)
        require_same(folder, found.how, now)
        return found

    def stand_on(self, place: Mapping[str, Any], environment: Row) -> None:
        """Say where the results come from.

        Raises:
            ValueError: where those that there are come from elsewhere.
        """
        if self.place:
            require_same(self.file.parent, self.place, place)
        self.place, self.environment = dict(place), environment

    def keep(self) -> None:
        """Write everything."""
        from decoding.provenance import write_json

        stored = {name: value for name, value in vars(self).items() if name != "file"}
        write_json(self.file, sealed(stored), allow_nan=False)


def read_results(folder: Path) -> Results | None:
    """The results of a task's folder, None where there are none.

    Raises:
        ValueError: naming the file, where it is damaged or holds something else.
    """
    file = folder / FILE
    if not file.is_file():
        return None
    stored = read_object(file)
    names = {"how", "place", "environment", "dev", "chosen", "clocked"}
    if stored.keys() - {SUM} != names:
        raise ValueError(f"{file} must hold {', '.join(sorted(names))}, got {listed(sorted(stored)) or 'nothing'}")
    try:
        require_sound(stored)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    stored.pop(SUM, None)
    for name, value in stored.items():
        require_rows(file, name, value)
    return Results(file, **stored)


def require_rows(file: Path, name: str, value: Any) -> None:
    """Refuse a part of a file that is no object, or a row of it without the figures that a table needs.

    Raises:
        ValueError: naming the file.
    """
    if not isinstance(value, dict):
        raise ValueError(f"{file} must hold an object as {name}, got {shown(value)}")
    for row in value.values() if name in COLUMNS else ():
        if not isinstance(row, dict) or not row.keys() >= COLUMNS[name]:
            raise ValueError(
                f"{file} must hold rows with {', '.join(sorted(COLUMNS[name]))} as {name}, got {shown(row)}"
            )


def require_same(folder: Path, kept: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to go on with results that were made in another way.

    Raises:
        ValueError: naming the first difference.
    """
    for name, value in json.loads(json.dumps(dict(now))).items():
        if kept.get(name) != value:
            raise ValueError(
                f"out must be a folder of results with {name} {shown(value)}, got {shown(kept.get(name))} in {folder}"
            )
