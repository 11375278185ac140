"""The rows of a trace table: one a state, with the branches that were tried there and what became of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from decoding.policies.ete import BeamETE
from decoding.state import DecodeState
from decoding.traces.branches import Branches, try_alone, try_branches
from decoding.traces.header import identity
from decoding.traces.labelling import Labelling
from models.denoiser import Denoiser
from train.tasks.task import Example, Task
from train.traces.canvases import Canvases, decode_text
from train.traces.labels import Accepts, Verdicts, label_by_finishing, label_held_back


def rows_of(branches: Branches, verdicts: Verdicts, s: int, canvas: int) -> list[dict[str, Any]]:
    """Branch 0 and every branch there is; positions count from the first place of the canvas.

    Args:
        branches: of S states, on the CPU.
        verdicts: their labels.
        s: which state.
        canvas: first position of the canvas.
    """
    asked = branches.asked[s]
    rows = []
    for k in range(branches.position.shape[1]):
        if k and branches.position[s, k] < 0:
            continue
        rows.append(
            {
                "position": int(branches.position[s, k]) - canvas if k else -1,
                "kind": int(branches.kind[s, k]),
                "propensity": float(branches.propensity[s, k]),
                "log_confidence": float(branches.log_confidence[s, k]),
                "eq7": float(branches.eq7[s, k]),
                "token": branches.token[s, k][asked].tolist(),
                "log_risk": branches.log_risk[s, k][asked].tolist(),
                "harm": int(verdicts.harm[s, k]),
                "benefit": int(verdicts.benefit[s, k]),
                "answer": verdicts.answers[s, k][asked].tolist() if (verdicts.answers[s, k] >= 0).any() else [],
            }
        )
    return rows


def rows_of_bare(bare: Branches | None, s: int, canvas: int) -> list[dict[str, Any]]:
    """The same of the branches that commit their token alone, which nobody judges; the first of them commits nothing."""
    if bare is None:
        return []
    return rows_of(bare, Verdicts.unjudged(bare, bare.token[:, 0]), s, canvas)


@dataclass(frozen=True)
class Rows:
    """Turns states and branches into table rows.

    Args:
        denoiser, task, beam, labelling, batch_size: as in `train.traces.collection.Collector`.
        prompts: the canvases of some prompts.
        examples, ids: these prompts, and their numbers in the split.
        driver: the policy that led through the states.
        split: train or dev.
        block_length: block length of the driver.
    """

    denoiser: Denoiser
    task: Task
    beam: BeamETE
    labelling: Labelling
    batch_size: int
    prompts: Canvases
    examples: list[Example]
    ids: list[int]
    driver: str
    split: str
    block_length: int

    def without_branches(self, state: DecodeState, row: Tensor) -> Iterator[dict[str, Any]]:
        """The rows of states at which nothing is tried; `row` is the prompt of each."""
        if not self.task.unique_answer:
            return  # nothing can be learnt from such a state
        reference = self.prompts.reference[row]
        yield from self._write(state, row, reference, state.feasible, lambda s, canvas: [])

    def with_branches(self, state: DecodeState, row: Tensor, generator: torch.Generator) -> Iterator[dict[str, Any]]:
        """The rows of states at which branches are tried and judged; `row` is the prompt of each."""
        if not len(row):
            return
        mask = self.prompts.attention_mask[row]
        labelling, denoiser = self.labelling.of_split(self.split, self.task.gen_length), self.denoiser
        options: dict[str, Any] = {"attention_mask": mask, "generator": generator, "batch_size": self.batch_size}
        branches = try_branches(denoiser, state, self.beam, labelling, **options).cpu()
        bare = None
        if labelling.bare:
            asked = branches.asked.to(mask.device)
            bare = try_alone(denoiser, state, self.beam, labelling.bare, asked=asked, **options).cpu()
        verdicts = Verdicts.unjudged(branches, self.prompts.reference[row])
        if not self.task.unique_answer:
            options = {"finished": labelling.finished, "batch_size": self.batch_size}
            if self.task.judges(self.examples[int(row[0])]):
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
        gen, check = self.task.gen_length, self.task.check

        def accepts(state: Tensor, tokens: Tensor) -> Tensor:
            texts = [decode_text(self.denoiser, t[-gen:]) for t in tokens.cpu()]
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
        gen, task = self.task.gen_length, self.task
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
                "block_length": self.block_length,
                "asked": asked[s, canvas].tolist(),
                "branches": branches(s, canvas.start),
            }
