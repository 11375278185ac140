"""The runs behind a comparison: the same prompts through every cell, in interleaved chunks, written down as they finish."""

from __future__ import annotations

import hashlib
import itertools
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor
from tqdm.auto import tqdm

from decoding.api import generate
from decoding.comparison.arms import BLOCK_LENGTH, USE_CACHE, Cell
from decoding.comparison.curves import Array
from decoding.comparison.problems import Check, Problems, Split
from decoding.comparison.statistics import is_predicted, statistics
from decoding.generation import Generation
from decoding.policy import Policy
from decoding.prompts import read_prompts
from decoding.rounds.round import Counts, OnStep
from decoding.state import DecodeState, Reason
from models.checkpoints.json_files import parse, whole_lines
from models.denoiser import Denoiser
from models.ranks import Ranks, find_ranks

COLUMNS = (
    "right",
    "rounds",
    "sequence_forwards",
    "token_positions",
    "new_tokens",
    "bits",
    "explored",  # rounds with more than one canvas
    "looks",  # forwards foretold by the cascade
    "drafts",  # foretold commits that a forward has checked
    "drafts_true",  # of those, the ones that came true
    "idle",  # rounds in which the rule accepted nothing
    "commits",
    "unforced",  # commits that the rule accepted
    "clean",  # of those, made from states without a wrong token; -1 without a reference
    "wrong",  # of those, wrong
    "seconds",  # of the chunk, shared equally
    "answer",  # a number that names the text up to EOS
)
Job = tuple[Cell, Policy, Denoiser]  # what decodes, and on which model

INFINITE = float("inf")
RANGES = {  # of a column; of all others any number that is not negative
    "clean": (-1, INFINITE),
    "wrong": (-1, INFINITE),
    "bits": (-1e-3, INFINITE),  # of a token drawn against all odds; rounding may leave a little less than none
}


class ForeignLine(ValueError):
    """A line of a ledger that is not of this comparison, or there twice."""


@dataclass(frozen=True)
class Encoded:
    """Prompts of a split as ids, left padded, with the canvas of the only right answer (-1 where none is known)."""

    tokens: Int[Tensor, "B P"]
    attention_mask: Bool[Tensor, "B P"] | None
    reference: Int[Tensor, "B G"]

    @staticmethod
    def of(problems: Problems, split: Split, denoiser: Denoiser) -> Encoded:
        """Encode every prompt once."""
        prompts = problems.split(split)
        batch = read_prompts(list(prompts), None, denoiser)
        rows = [canvas_of(problems.references.get(p, ""), problems.gen_length, denoiser) for p in prompts]
        return Encoded(batch.tokens, batch.attention_mask, torch.tensor(rows, device=batch.tokens.device))


def canvas_of(answer: str, gen_length: int, denoiser: Denoiser) -> list[int]:
    """The canvas that spells an answer, EOS behind it; -1 where there is none or it does not fit."""
    ids = denoiser.tokenizer(answer, add_special_tokens=False)["input_ids"] if answer else []
    if not ids or len(ids) > gen_length or (denoiser.eos_id is None and len(ids) < gen_length):
        return [-1] * gen_length
    return [*ids] + [denoiser.eos_id if denoiser.eos_id is not None else -1] * (gen_length - len(ids))


class OtherSettings(ValueError):
    """A ledger whose header is not that of this comparison."""


class Ledger:
    """Every figure of every run, a line of JSON for each (split, cell, prompt), in a file that a later call goes on with.

    Nothing is written before the first lines are added.

    Attributes:
        texts: what this process has decoded: (split, cell) -> number of a prompt -> its text.
        agree_with: key of a cell; where there is no checker, a text is right that is also that cell's.

    Args:
        path: the file; None keeps everything in memory.
        header: what all lines share; a file with another header is refused.
        sizes: split -> its number of prompts; a line of any other prompt is refused.

    Raises:
        ValueError: if the file belongs to other settings, or holds a line that cannot be read, is foreign or is there twice.
    """

    def __init__(
        self, path: Path | None, header: Mapping[str, object], *, sizes: Mapping[str, int] | None = None
    ) -> None:
        self.path, self.header, self.sizes, self.whole = path, dict(header), sizes, 0
        self.lines: dict[tuple[str, str], dict[int, list[float]]] = {}
        self.texts: dict[tuple[str, str], dict[int, str]] = {}
        self.agree_with: str | None = None
        if path is not None and path.exists():
            self._resume(path)

    def _resume(self, path: Path) -> None:
        lines = whole_lines(path)
        for number, line in enumerate((one.decode("utf-8", "replace") for one in lines), 1):
            try:
                record = parse(line, finite=False)  # what is no number is named by its column
                if number == 1:
                    self._agree(path, record)
                else:
                    self._keep(record["split"], record["cell"], record["prompt"], [record[name] for name in COLUMNS])
            except ForeignLine as error:
                raise ValueError(f"{path}, line {number}: {error}") from error
            except OtherSettings:
                raise
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                what = "the header" if number == 1 else "a line"
                raise ValueError(f"{path}, line {number} must be {what} of a comparison, got {line[:60]!r}") from error
        self.whole = sum(len(line) + 1 for line in lines)

    def _agree(self, path: Path, settings: Mapping[str, object]) -> None:
        if not settings.keys() & self.header.keys():
            raise ForeignLine(f"a comparison must begin with its header, got {', '.join(settings) or 'an empty line'}")
        for name, value in self.header.items():
            if settings.get(name) != json.loads(json.dumps(value)):
                raise OtherSettings(
                    f"{name} must be {settings.get(name)!r} to go on with {path}, got {value!r}: choose another --out"
                )

    def _keep(self, split: str, cell: str, prompt: object, values: Sequence[object]) -> None:
        size = None if self.sizes is None else self.sizes.get(split, 0)
        if (
            not isinstance(prompt, int)
            or isinstance(prompt, bool)
            or prompt < 0
            or (size is not None and prompt >= size)
        ):
            raise ForeignLine(f"prompt must be one of the {size} of split {split}, got {prompt!r}")
        found = [_number(name, value) for name, value in zip(COLUMNS, values, strict=True)]
        kept = self.lines.setdefault((split, cell), {})
        if prompt in kept:
            raise ForeignLine(f"prompt {prompt} of cell {cell} must be there once in split {split}, got it again")
        kept[prompt] = found

    def has(self, split: Split, cell: Cell, prompts: Sequence[int]) -> bool:
        """Whether all these prompts are there."""
        kept = self.lines.get((split, cell.key), {})
        return all(prompt in kept for prompt in prompts)

    def add(self, split: Split, cell: Cell, prompts: Sequence[int], table: Array) -> list[str]:
        """Write the lines of one chunk at once, and return them; those that a killed run left of it stay as they are.

        Args:
            split: dev or test.
            cell: what ran.
            prompts: their numbers within the split.
            table: [prompts, columns], in the order of COLUMNS.
        """
        lines, known = [], set(self.lines.get((split, cell.key), {}))
        for prompt, values in zip(prompts, table.tolist(), strict=True):
            if prompt in known:
                continue
            self._keep(split, cell.key, prompt, values)
            names = {"split": split, "arm": cell.arm, "dial": cell.dial, "cell": cell.key, "prompt": prompt}
            lines.append(json.dumps(names | dict(zip(COLUMNS, values, strict=True))) + "\n")
        if self.path is not None:
            self._append("".join(lines))
        return lines

    def aside(self, rank: int) -> Ledger:
        """A new ledger for one process among several, in a file beside this one's, which `take_in` reads."""
        path = None if self.path is None else self.path.with_name(f"{self.path.name}.rank-{rank}")
        return Ledger(path, self.header, sizes=self.sizes)

    def left_aside(self) -> list[Path]:
        """Files of processes that were cut off."""
        return [] if self.path is None else sorted(self.path.parent.glob(f"{self.path.name}.rank-*"))

    def take_in(self, lines: Sequence[str], *, write: bool) -> None:
        """Keep lines of other processes that are not there yet, and write them where one process does so for all."""
        new = []
        for line in lines:
            record = json.loads(line)
            split, cell, prompt = (record[name] for name in ("split", "cell", "prompt"))
            if prompt not in self.lines.get((split, cell), {}):
                self._keep(split, cell, prompt, [record[name] for name in COLUMNS])
                new.append(line)
        if write and new and self.path is not None:
            self._append("".join(new))

    def _append(self, text: str) -> None:
        assert self.path is not None
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = text if self.whole else json.dumps(self.header) + "\n" + text
        with self.path.open("r+b" if self.path.is_file() else "wb") as file:
            file.truncate(self.whole)
            file.seek(self.whole)
            file.write(new.encode())
        self.whole += len(new.encode())

    def table(self, split: Split, cell: Cell) -> dict[str, Array]:
        """Every column over the prompts of a split, in their order."""
        kept = self.lines[split, cell.key]
        values = np.array([kept[prompt] for prompt in sorted(kept)])
        table = {name: values[:, index] for index, name in enumerate(COLUMNS)}
        if self.agree_with is None:
            return table
        careful, place = self.lines[split, self.agree_with], COLUMNS.index("answer")
        same = [careful[prompt][place] == kept[prompt][place] for prompt in sorted(kept)]
        return table | {"right": np.array(same, dtype=float)}


def _number(name: str, value: object) -> float:
    low, high = RANGES.get(name, (0, sys.float_info.max))
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ForeignLine(f"{name} must be a number from {low} to {high:g}, got {value!r}")
    return value


def run_cells(
    ledger: Ledger,
    problems: Problems,
    split: Split,
    jobs: Sequence[Job],
    check: Check,
    *,
    batch_size: int,
    seed: int,
    progress: bool,
) -> None:
    """Run every cell over every prompt of a split, chunk by chunk, the order of the cells turned by one with every chunk.

    Several processes of a run share the chunks out; then all have all lines, and the first writes them.

    Args:
        ledger: where the figures go, and what is already there.
        problems: prompts and lengths.
        split: which of the prompts.
        jobs: cells with their policies and denoisers.
        check: judges the text of a prompt.
        batch_size: prompts of a chunk.
        seed: of policies that draw.
        progress: show a bar.
    """
    prompts = problems.split(split)
    encoded = {id(denoiser): Encoded.of(problems, split, denoiser) for _, _, denoiser in jobs}
    schedule = list(interleave(len(prompts), len(jobs), batch_size))
    ranks, mine = find_ranks(), list[str]()
    take_in_leftovers(ledger, ranks)
    own = ledger if ranks.size == 1 else ledger.aside(ranks.rank)
    chunks = {first: list(range(first, min(first + batch_size, len(prompts)))) for first, _ in schedule}
    left = [(first, number) for first, number in schedule if not ledger.has(split, jobs[number][0], chunks[first])]
    for chunk, number in tqdm(ranks.mine(left), desc=f"{problems.task} {split}", disable=None if progress else True):
        cell, _, denoiser = jobs[number]
        index = chunks[chunk]
        batch = encoded[id(denoiser)]
        made = decode_chunk(problems, batch, jobs[number], index, seed=seed)
        right = [check(prompts[i], text) for i, text in zip(index, made.text, strict=True)]
        mine += own.add(split, cell, index, measure(made, right, batch.reference[index]))
        own.texts.setdefault((split, cell.key), {}).update(zip(index, made.text, strict=True))
    if own is not ledger:
        ledger.take_in(list(itertools.chain(*ranks.gather(mine))), write=ranks.first)
        for key, texts in itertools.chain(*(texts.items() for texts in ranks.gather(own.texts))):
            ledger.texts.setdefault(key, {}).update(texts)
        if own.path is not None:
            own.path.unlink(missing_ok=True)


def decode_chunk(
    problems: Problems, encoded: Encoded, job: Job, index: Sequence[int], *, seed: int, on_step: OnStep | None = None
) -> Generation:
    """Decode neighbouring prompts of a split by one cell.

    Args:
        problems: the lengths of the canvas.
        encoded: every prompt of the split.
        job: the cell with its policy and denoiser.
        index: numbers of the prompts; the first of them and `seed` seed the draws.
        seed: of policies that draw.
        on_step: called with state and reading before every commit; only reads.
    """
    cell, policy, denoiser = job
    mask = None if encoded.attention_mask is None else encoded.attention_mask[index]
    return generate(
        denoiser,
        encoded.tokens[index],
        policy,
        gen_length=problems.gen_length,
        block_length=cell.settings.get(BLOCK_LENGTH) or problems.block_length,
        attention_mask=mask,
        generator=torch.Generator(denoiser.device).manual_seed(seed * 1_000_003 + index[0]),
        temperature=problems.temperature,
        use_cache=cell.settings.get(USE_CACHE, problems.use_cache),
        on_step=on_step,
    )


def take_in_leftovers(ledger: Ledger, ranks: Ranks) -> None:
    """Put what several processes wrote aside before they were cut off into the ledger of all."""
    if not any(ranks.gather(bool(ledger.left_aside()))):
        return
    files = ledger.left_aside() if ranks.first else []
    lines: list[str] = []
    for file in files:
        _, *found = file.read_text(encoding="utf-8").splitlines(keepends=True) or [""]
        Ledger(file, ledger.header, sizes=ledger.sizes)  # refuses lines of another comparison
        lines += [line for line in found if line.endswith("\n")]
    ledger.take_in(ranks.decide(lines), write=ranks.first)
    for file in files:
        file.unlink()
    ranks.barrier()


def interleave(prompts: int, jobs: int, batch_size: int) -> Iterator[tuple[int, int]]:
    """(first prompt, job) so that every job sees a chunk before any sees the next, each time another one first."""
    for turn, chunk in enumerate(range(0, prompts, batch_size)):
        for step in range(jobs):
            yield chunk, (turn + step) % jobs


def name_text(text: str) -> int:
    """A number of 52 bits that names a text, so that a float holds it exactly."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big") >> 12


def measure(made: Generation, right: Sequence[bool], reference: Int[Tensor, "B G"]) -> Array:
    """The COLUMNS of every row of a decode, [B, columns]."""
    state = made.state
    counts = Counts(made.rounds, made.sequence_forwards, made.token_positions, made.explored, made.nfe)
    figures = statistics(state, counts, eos_id=made.end_ids)
    accepted = state.accepted
    clean, wrong = clean_commits(state, reference)
    columns = {
        "right": torch.tensor(right, device=state.tokens.device),
        "rounds": figures.rounds,
        "sequence_forwards": figures.sequence_forwards,
        "token_positions": figures.token_positions,
        "new_tokens": figures.new_tokens,
        "bits": figures.bits,
        "explored": counts.explored,
        "looks": made.looks,
        "drafts": made.drafts,
        "drafts_true": made.drafts_true,
        "idle": figures.rounds - rounds_with(accepted, state.committed_round),
        "commits": is_predicted(state).sum(-1),
        "unforced": accepted.sum(-1),
        "clean": clean,
        "wrong": wrong,
        "seconds": torch.full((len(right),), made.seconds / len(right), device=state.tokens.device),
        "answer": torch.tensor([name_text(text) for text in made.text], device=state.tokens.device),
    }
    table: Array = torch.stack([columns[name].double() for name in COLUMNS], -1).cpu().numpy()
    return table


def rounds_with(committed: Bool[Tensor, "B L"], committed_round: Int[Tensor, "B L"]) -> Int[Tensor, " B"]:
    """Number of different rounds in which one of `committed` was committed."""
    round_index = torch.where(committed, committed_round, 0)
    seen = torch.zeros(len(round_index), int(round_index.max()) + 1, dtype=torch.bool, device=round_index.device)
    return seen.scatter(-1, round_index, True)[:, 1:].sum(-1)


def clean_commits(state: DecodeState, reference: Int[Tensor, "B G"]) -> tuple[Int[Tensor, " B"], Int[Tensor, " B"]]:
    """Commits that the rule accepted in states without a wrong token, and how many of them are wrong; -1 without a reference.

    The states up to the round of the first wrong commit hold no wrong token, so that round's own commits count: but for what a
    cascade commits behind a wrong one that is not its own, for the state it is made from holds these. What a second look commits
    behind a wrong commit of the first still counts: the state does not tell looks apart.
    """
    canvas = state.block[0] >= 0
    predicted = is_predicted(state)[:, canvas]
    differs = predicted & (state.tokens[:, canvas] != reference)
    round_index = state.committed_round[:, canvas]
    last = torch.iinfo(round_index.dtype).max
    follows = state.reason[:, canvas] == int(Reason.CASCADE)
    first_wrong = torch.where(differs, round_index, last).amin(-1, keepdim=True)
    there = round_index == first_wrong
    behind = there & follows & (there & differs & ~follows).any(-1, keepdim=True)
    counted = state.accepted[:, canvas] & (round_index <= first_wrong) & ~behind
    known = (reference >= 0).all(-1)
    clean, wrong = counted.sum(-1), (counted & differs).sum(-1)
    return torch.where(known, clean, -1), torch.where(known, wrong, -1)
