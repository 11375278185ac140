"""Collection of beam traces: decode prompts with several drivers, keep states, try branches, judge, write parts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress, takewhile
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from decoding.files.folder_lock import hold_folder
from decoding.policies.ete import BeamETE
from decoding.policy import Policy
from decoding.prompts import leave_room, read_prompts
from decoding.state import DecodeState, start
from decoding.traces.branches import try_alone, try_branches
from decoding.traces.header import check_header, header, identity, refuse_header
from decoding.traces.labelling import Labelling
from decoding.traces.trace import write_part
from decoding.traces.visits import visit
from models.denoiser import Denoiser
from models.ranks import by_the_first, find_ranks
from train.head.labels import Accepts, Verdicts, label_by_finishing, label_held_back, rows_of, rows_of_bare, take
from train.tasks.task import Example, Task

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Canvases:
    """Prompts with room for the answer, left padded, and the reference canvas where there is one.

    Attributes:
        tokens: prompts and canvases.
        attention_mask: False on padding.
        reference: token ids of the reference answer, EOS filled; -1 outside the canvas and where there is no reference.
    """

    tokens: Int[Tensor, "B L"]
    attention_mask: Bool[Tensor, "B L"]
    reference: Int[Tensor, "B L"]


def encode(denoiser: Denoiser, task: Task, examples: Sequence[Example]) -> Canvases:
    """Turn examples into canvases; prompt and response are encoded apart."""
    prompts = read_prompts([e.prompt for e in examples], None, denoiser).with_canvas(task.gen_length)
    mask = prompts.attention_mask
    eos = denoiser.eos_id if denoiser.eos_id is not None else 0
    reference = torch.full_like(prompts.tokens, -1)
    for row, example in enumerate(examples):
        answer = denoiser.tokenizer(example.response, add_special_tokens=False).input_ids
        if example.response and len(answer) <= task.gen_length:
            filled = answer + [eos] * (task.gen_length - len(answer))
            reference[row, -task.gen_length :] = torch.tensor(filled)
    return Canvases(
        prompts.tokens, torch.ones_like(prompts.tokens, dtype=torch.bool) if mask is None else mask, reference
    )


def without_long(denoiser: Denoiser, task: Task, examples: Sequence[Example]) -> list[Example]:
    """The examples whose prompts leave room for the canvas; says how many do not."""
    fits = leave_room([example.prompt for example in examples], denoiser, task.gen_length)
    if not all(fits):
        log.warning("%s: %d prompts too long for the model are left out", task.name, fits.count(False))
    return list(compress(examples, fits))


def decode_text(denoiser: Denoiser, canvas: Tensor) -> str:
    """The text of one canvas up to the first id that ends an answer."""
    ids = canvas.tolist()
    return str(denoiser.tokenizer.decode(list(takewhile(lambda token: token not in denoiser.end_ids, ids))))


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
        begin = start(
            prompts.tokens,
            gen_length=self.task.gen_length,
            block_length=self.blocks.get(driver, self.block_length),
            mask_id=self.denoiser.mask_id,
            eos_id=self.denoiser.end_ids,
            step_budget=policy.step_budget,
            initial_blocks=policy.initial_blocks,
        )
        visited = visit(
            self.denoiser,
            begin,
            policy,
            keep=self.labelling.states_per_prompt,
            attention_mask=prompts.attention_mask,
            generator=generator,
        )
        state, row, labelled = visited.state, visited.row, visited.place < self.labelling.labelled
        rows = _Rows(self, prompts, examples, ids, driver, split)
        yield from rows.without_branches(take(state, ~labelled), row[~labelled])
        known = torch.tensor([self.task.judges(example) for example in examples], device=row.device)[row]
        for part in (labelled & known, labelled & ~known):
            yield from rows.with_branches(take(state, part), row[part], generator)


@dataclass(frozen=True)
class _Rows:
    """Turns states and branches into table rows."""

    of: Collector
    prompts: Canvases
    examples: list[Example]
    ids: list[int]
    driver: str
    split: str

    def without_branches(self, state: DecodeState, row: Tensor) -> Iterator[dict[str, Any]]:
        if not self.of.task.unique_answer:
            return  # nothing can be learnt from such a state
        reference = self.prompts.reference[row]
        yield from self._write(state, row, reference, state.feasible, lambda s, canvas: [])

    def with_branches(self, state: DecodeState, row: Tensor, generator: torch.Generator) -> Iterator[dict[str, Any]]:
        if not len(row):
            return
        mask = self.prompts.attention_mask[row]
        labelling, denoiser = self.of.labelling.of_split(self.split, self.of.task.gen_length), self.of.denoiser
        options: dict[str, Any] = {"attention_mask": mask, "generator": generator, "batch_size": self.of.batch_size}
        branches = try_branches(denoiser, state, self.of.beam, labelling, **options).cpu()
        bare = None
        if labelling.bare:
            asked = branches.asked.to(mask.device)
            bare = try_alone(denoiser, state, self.of.beam, labelling.bare, asked=asked, **options).cpu()
        verdicts = Verdicts.unjudged(branches, self.prompts.reference[row])
        if not self.of.task.unique_answer:
            options = {"finished": labelling.finished, "batch_size": self.of.batch_size}
            if self.of.task.judges(self.examples[int(row[0])]):
                verdicts = label_by_finishing(
                    denoiser, state, branches, self._accepts(row), attention_mask=mask, **options
                )
            else:
                verdicts = label_held_back(denoiser, state, branches, attention_mask=mask, **options)
        yield from self._write(
            state,
            row,
            verdicts.reference,
            branches.asked,
            lambda s, canvas: rows_of(branches, verdicts, s, canvas) + rows_of_bare(bare, s, canvas),
        )

    def _accepts(self, row: Tensor) -> Accepts:
        """The task's checker over canvases of some of the states, whose prompts are `row`."""
        gen, check = self.of.task.gen_length, self.of.task.check

        def accepts(state: Tensor, tokens: Tensor) -> Tensor:
            texts = [decode_text(self.of.denoiser, t[-gen:]) for t in tokens.cpu()]
            prompts = row.cpu()[state.cpu()].tolist()
            return torch.tensor([check(self.examples[p], text) for p, text in zip(prompts, texts, strict=True)])

        return accepts

    def _write(
        self,
        state: DecodeState,
        row: Tensor,
        reference: Tensor,
        asked: Tensor,
        branches: Callable[[int, int], list[dict[str, Any]]],
    ) -> Iterator[dict[str, Any]]:
        """One table row a state; everything is moved to the CPU once."""
        gen, task = self.of.task.gen_length, self.of.task
        mask = self.prompts.attention_mask[row].cpu()
        reference, asked, state = reference.cpu(), asked.cpu(), state.to(torch.device("cpu"))
        canvas = slice(mask.shape[1] - gen, None)
        for s, b in enumerate(row.tolist()):
            tokens = state.tokens[s]
            yield {
                "state_id": identity(self.split, self.ids[b], self.driver, tokens[mask[s]].tolist()),
                "prompt_id": self.ids[b],
                "split": self.split,
                "task": task.name,
                "driver": self.driver,
                "tokens": tokens[mask[s]].tolist(),
                "reference": reference[s, canvas].tolist(),
                "unique_answer": task.unique_answer,
                "committed_round": state.committed_round[s, canvas].tolist(),
                "recent_confidence": state.recent_confidence[s, :, canvas].flatten().tolist(),
                "recent_token": state.recent_token[s, :, canvas].flatten().tolist(),
                "opened": int(state.opened[s]),
                "spent": int(state.spent[s]),
                "round": int(state.round[s]),
                "block_length": self.of.blocks.get(self.driver, self.of.block_length),
                "asked": asked[s, canvas].tolist(),
                "branches": branches(s, canvas.start),
            }
