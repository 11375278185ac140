"""Collection of beam traces: decode prompts with several drivers, keep states, try branches, judge, write parts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress
from pathlib import Path
from typing import Any

import torch

from decoding.files.folder_lock import hold_folder
from decoding.policies.ete import BeamETE
from decoding.policy import Policy, first_state
from decoding.prompts import leave_room
from decoding.traces.header import check_header, header, identity, refuse_header
from decoding.traces.labelling import Labelling
from decoding.traces.trace import write_part
from decoding.traces.visits import visit
from models.denoiser import Denoiser
from models.ranks import by_the_first, find_ranks
from train.head.settings import TaskRun
from train.tasks.task import Example, Task
from train.traces.canvases import encode, without_long
from train.traces.labels import take
from train.traces.prompts import prompts_of
from train.traces.rows import Rows

log = logging.getLogger(__name__)


def place_of(folder: Path, split: str, part: int) -> Path:
    """The file of a part."""
    return folder / f"part-{split}-{part:05d}.parquet"


@dataclass(frozen=True)
class Collector:
    """Collects the traces of one task into a folder of parts, and goes on where an earlier run stopped.

    Several processes of a run share the parts out; a part is the same whoever makes it.

    Args:
        denoiser: the base.
        task: the task.
        beam: the reference policy, whose candidates and scores are stored.
        drivers: policies that lead through the states, by name; prompts take turns.
        labelling: how much is kept and tried.
        block_length: block length of decoding and labelling.
        blocks: driver -> its own block length.
        batch_size: canvases in one forward.
        seed: of the draws; part p uses seed + p.
        chunk: prompts per part.
    """

    denoiser: Denoiser
    task: Task
    beam: BeamETE
    drivers: dict[str, Policy]
    labelling: Labelling
    block_length: int
    batch_size: int
    seed: int
    chunk: int = 32
    blocks: Mapping[str, int] = field(default_factory=dict)

    def run(
        self,
        examples: Mapping[str, Sequence[Example]],
        folder: Path,
        *,
        progress: Callable[[int], None] = lambda _: None,
        stop: Callable[[], bool] | None = None,
    ) -> None:
        """Collect all parts that are not there yet, the splits at the same pace.

        Args:
            examples: split -> its prompts; those that the model has too few positions for are left out.
            folder: where the parts go.
            progress: told the number of prompts of every part.
            stop: asked before every part but the first of a split; True leaves the rest out. The first process asks for all.

        Raises:
            ValueError: if the folder holds traces of other prompts, another base or other settings.
        """
        kept = {split: without_long(self.denoiser, self.task, some) for split, some in examples.items()}
        with hold_folder(folder):
            by_the_first(lambda: check_header(folder, self._settings(kept)))
            self._collect(kept, folder, progress, stop)
            find_ranks().barrier()

    def check(self, examples: Mapping[str, Sequence[Example]], folder: Path) -> None:
        """Refuse what `run` would refuse of a folder, and write nothing.

        Raises:
            ValueError: if the folder holds traces of other prompts, another base or other settings, or parts without a header.
        """
        gen_length = self.task.gen_length
        fits = {
            split: leave_room([e.prompt for e in some], self.denoiser, gen_length) for split, some in examples.items()
        }
        refuse_header(folder, self._settings({split: list(compress(examples[split], fits[split])) for split in fits}))

    def _settings(self, kept: Mapping[str, Sequence[Example]]) -> dict[str, Any]:
        """The header of the traces of these prompts."""
        return header(
            self.denoiser,
            self.beam,
            task=self.task.name,
            gen_length=self.task.gen_length,
            block_length=self.block_length,
            drivers={name: repr(policy) for name, policy in self.drivers.items()},
            order=list(self.drivers),
            labelling=self.labelling,
            bare=self.labelling.bare or None,
            blocks=dict(self.blocks) or None,
            prompts={split: [len(some), identity(some)] for split, some in kept.items()},
            batch_size=self.batch_size,
            seed=self.seed,
            chunk=self.chunk,
        )

    def _collect(
        self,
        examples: Mapping[str, Sequence[Example]],
        folder: Path,
        progress: Callable[[int], None],
        stop: Callable[[], bool] | None,
    ) -> None:
        ranks = find_ranks()
        sizes = {split: len(some) for split, some in examples.items()}
        parts = [(first / size, split, first) for split, size in sizes.items() for first in range(0, size, self.chunk)]
        for low in range(0, len(parts), ranks.size):
            turn = [(split, first // self.chunk) for _, split, first in sorted(parts)[low : low + ranks.size]]
            over = False
            if stop is not None:  # the first process decides, about parts that are not there
                asked = ranks.first and any(part and not place_of(folder, split, part).exists() for split, part in turn)
                over = ranks.decide(asked and stop())
            for number, (split, part) in enumerate(turn):
                file, first = place_of(folder, split, part), part * self.chunk
                batch = examples[split][first : first + self.chunk]
                if not file.exists():
                    if over and part:
                        continue
                    if number == ranks.rank:
                        write_part(list(self.rows(batch, first, part, split)), file)
                progress(len(batch))

    def rows(self, examples: Sequence[Example], first: int, part: int, split: str) -> Iterator[dict[str, Any]]:
        """The rows of one part.

        Args:
            examples: the prompts of the part.
            first: number of the first of them within the split.
            part: its number, which seeds the draws.
            split: train or dev.
        """
        generator = torch.Generator().manual_seed(self.seed * 100_003 + part)
        names = list(self.drivers)
        for turn, name in enumerate(names):
            turn_of = [i for i in range(len(examples)) if (first + i) % len(names) == turn]
            for low in range(0, len(turn_of), self.batch_size):
                few = turn_of[low : low + self.batch_size]
                yield from self._rows_of([examples[i] for i in few], [first + i for i in few], name, generator, split)

    def _rows_of(
        self, examples: list[Example], ids: list[int], driver: str, generator: torch.Generator, split: str
    ) -> Iterator[dict[str, Any]]:
        prompts = encode(self.denoiser, self.task, examples)
        policy = self.drivers[driver]
        first = first_state(
            self.denoiser,
            prompts.tokens,
            policy,
            gen_length=self.task.gen_length,
            block_length=self.blocks.get(driver, self.block_length),
            end_ids=self.denoiser.end_ids,
        )
        visited = visit(
            self.denoiser,
            first,
            policy,
            keep=self.labelling.states_per_prompt,
            attention_mask=prompts.attention_mask,
            generator=generator,
        )
        state, row, labelled = visited.state, visited.row, visited.place < self.labelling.labelled
        rows = Rows(
            self.denoiser,
            self.task,
            self.beam,
            self.labelling,
            self.batch_size,
            prompts,
            examples=examples,
            ids=ids,
            driver=driver,
            split=split,
            block_length=self.blocks.get(driver, self.block_length),
        )
        yield from rows.without_branches(take(state, ~labelled), row[~labelled])
        known = torch.tensor([self.task.judges(example) for example in examples], device=row.device)[row]
        for part in (labelled & known, labelled & ~known):
            yield from rows.with_branches(take(state, part), row[part], generator)


def collect(
    denoiser: Denoiser,
    tasks: Mapping[str, TaskRun],
    folder: Path,
    *,
    beam: BeamETE,
    drivers: dict[str, Policy],
    labelling: Labelling,
    batch_size: int,
    seed: int,
    beam_drives: bool = True,
    blocks: Mapping[str, int] | None = None,
    run_code: bool = False,
    progress: Callable[[int], None] = lambda _: None,
    stop: Callable[[], bool] | None = None,
    judged: Callable[[], None] = lambda: None,
) -> None:
    """Collect the traces of every task into `folder/TASK`, train and dev prompts, going on where a run was cut off.

    With `beam_drives` the beam of a task is one of its drivers: the head learns in the states that the look-ahead leads to.

    Args:
        denoiser, folder: the base, and the folder of the traces.
        tasks: task -> what the run takes from it.
        beam: the look-ahead whose branches are labelled; a task may change its settings.
        drivers, blocks: name -> policy, dealt to the prompts in turn; name -> its own block length.
        labelling: how many states and branches; a task may have its own.
        batch_size, seed: canvases in one forward; of prompts and draws.
        beam_drives: whether the beam of a task is a driver too.
        run_code: let checkers run what the model wrote.
        progress, stop: told of prompts done; asked before each part.
        judged: called once no task's folder holds traces of another run.
    """
    collections = []
    for name, run in tasks.items():
        task, task_beam = run.task(name, run_code=run_code), replace(beam, **run.beam)
        task_drivers = {**drivers, "beam": task_beam} if beam_drives else drivers
        collector = Collector(
            denoiser,
            task,
            task_beam,
            task_drivers,
            run.labelling or labelling,
            task.block_length,
            batch_size,
            seed,
            chunk=batch_size * len(task_drivers),
            blocks={name: length for name, length in (blocks or {}).items() if task.gen_length % length == 0},
        )
        counts = {"train": run.prompts, "dev": run.dev_prompts}
        examples = {split: prompts_of(task, run, split, count, seed=seed) for split, count in counts.items()}
        collections.append((collector, examples, folder / name))
    for collector, examples, place in collections:
        collector.check(examples, place)
    judged()
    for collector, examples, place in collections:
        collector.run(examples, place, progress=progress, stop=stop)
