"""What a comparison keeps for people and other tools: the text of every prompt at the settings shown, and the rounds of some."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from decoding.comparison.arms import Arm, Cell
from decoding.comparison.records.format import (
    TEXTS,
    TRACES,
    VERSION,
    Key,
    Row,
    check_replays,
    keyed,
    read_rows,
    write_rows,
)
from decoding.comparison.records.replay import Replay
from decoding.comparison.runner import Runner
from decoding.comparison.runs import Encoded, decode_chunk, name_text
from models.denoiser import Denoiser

COSTS = ("rounds", "sequence_forwards", "new_tokens")


@dataclass
class Records:
    """Texts and traces of a results folder; docs/report.md describes both files.

    Args:
        folder: of the results. Texts and rounds that it holds already are not decoded again where they are those of the ledger.
        replays: test prompts of a task whose rounds are kept, from the first on; 0 to MOST_REPLAYS.
    """

    folder: Path
    replays: int = 0
    texts: list[Row] = field(default_factory=list)
    traces: list[Row] = field(default_factory=list)

    def __post_init__(self) -> None:
        check_replays(self.replays)

    def add(self, runner: Runner, shown: Sequence[tuple[Arm, Cell]]) -> None:
        """Write the test prompts of one task at the settings shown beside those of the tasks before.

        Args:
            runner: of the task, in which all of `shown` has run.
            shown: every arm with its cell.
        """
        texts, traces = keyed(read_rows(self.folder / TEXTS)), keyed(read_rows(self.folder / TRACES))
        encoded: dict[int, Encoded] = {}
        for arm, cell in shown:
            one = Recorder(runner, arm, cell, encoded)
            self.traces += one.traces(traces, self.replays)
            self.texts += one.texts(texts)
        write_rows(self.folder / TEXTS, self.texts)
        write_rows(self.folder / TRACES, self.traces)


@dataclass(frozen=True)
class Recorder:
    """Records one cell that has run.

    Args:
        runner: of the task.
        arm, cell: which of its arms at which setting.
        encoded: prompts by the id of their denoiser, filled as needed.
    """

    runner: Runner
    arm: Arm
    cell: Cell
    encoded: dict[int, Encoded]

    @property
    def who(self) -> Row:
        """What texts and traces of the cell share."""
        task = {"version": VERSION, "task": self.runner.problems.task, "split": "test"}
        return task | {"arm": self.arm.name, "dial": self.cell.dial, "cell": self.cell.key}

    def traces(self, known: Mapping[Key, Row], count: int) -> list[Row]:
        """The rounds of the first `count` prompts, as they are known or decoded once more in the same chunks."""
        prompts, size = len(self.runner.problems.test), self.runner.batch_size
        rounds = self.runner.ledger.table("test", self.cell)["rounds"]
        rows = []
        for first in range(0, min(count, prompts), size):
            wanted = range(first, min(first + size, count, prompts))
            found = [known.get(self._key(i)) for i in wanted]
            if not all(row and len(row["rounds"]) == rounds[i] for i, row in zip(wanted, found, strict=True)):
                found = [self._traced(i, told) for i, told in zip(wanted, self._replay(wanted), strict=True)]
            rows += [{**row, **self.who} for row in found if row is not None]
        return rows

    def texts(self, known: Mapping[Key, Row]) -> list[Row]:
        """One row for each prompt: as this process decoded it, as it is known, or decoded once more."""
        table, problems = self.runner.ledger.table("test", self.cell), self.runner.problems
        mine = self.runner.ledger.texts.setdefault(("test", self.cell.key), {})
        for i in range(len(problems.test)):
            row = known.get(self._key(i))
            if i not in mine and row is not None and name_text(row["text"]) == table["answer"][i]:
                mine[i] = row["text"]
            if i not in mine:
                self._replay(self._chunk(i), rows=0)
        return [
            {
                **self.who,
                "kind": self.arm.kind,
                "prompt_id": i,
                "prompt": prompt,
                "reference": problems.references.get(prompt),
                "text": mine[i],
                "right": bool(table["right"][i]) if problems.checked else None,
                **{name: int(table[name][i]) for name in COSTS},
            }
            for i, prompt in enumerate(problems.test)
        ]

    def _key(self, prompt: int) -> Key:
        return self.runner.problems.task, self.cell.key, prompt

    def _chunk(self, prompt: int) -> range:
        first = prompt - prompt % self.runner.batch_size
        return range(first, min(first + self.runner.batch_size, len(self.runner.problems.test)))

    def _replay(self, wanted: range, rows: int | None = None) -> list[list[Row]]:
        """Decode the chunk of some prompts once more: their rounds, and the texts of all of it."""
        runner, job = self.runner, self.runner.job(self.cell)
        _, policy, denoiser = job
        if id(denoiser) not in self.encoded:
            self.encoded[id(denoiser)] = Encoded.of(runner.problems, "test", denoiser)
        encoded, index = self.encoded[id(denoiser)], list(self._chunk(wanted[0]))
        count = len(wanted) if rows is None else rows
        replay = Replay(policy, count, speller(denoiser))
        hook = replay.step if count else None
        made = decode_chunk(runner.problems, encoded, job, index, seed=runner.seed, on_step=hook)
        if count:
            replay.finish(made.state)
        runner.ledger.texts.setdefault(("test", self.cell.key), {}).update(zip(index, made.text, strict=True))
        return replay.rounds

    def _traced(self, prompt: int, rounds: list[Row]) -> Row:
        problems, denoiser = self.runner.problems, self.runner.denoiser_of(self.arm.name)
        spell = speller(denoiser)
        canvas = {"gen_length": problems.gen_length, "block_length": self.cell.settings.get("block_length")}
        canvas["block_length"] = canvas["block_length"] or problems.block_length
        ends = sorted({spell(one) for one in denoiser.end_ids})
        return {**self.who, "prompt_id": prompt, **canvas, "end_tokens": ends, "rounds": rounds}


def speller(denoiser: Denoiser) -> Callable[[int], str]:
    """Token id -> its text, special tokens by their names."""
    known: dict[int, str] = {}

    def spell(token: int) -> str:
        if token not in known:
            known[token] = str(denoiser.tokenizer.decode([token]))
        return known[token]

    return spell
