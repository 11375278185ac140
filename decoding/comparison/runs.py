"""The runs behind a comparison: the same prompts through every cell, in interleaved chunks, and what is measured of each."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from tqdm.auto import tqdm

from decoding.api import generate
from decoding.comparison.arms import BLOCK_LENGTH, USE_CACHE, Cell
from decoding.comparison.curves import Array
from decoding.comparison.problems import Check, Problems, Split
from decoding.comparison.records.ledger import COLUMNS, Ledger
from decoding.comparison.statistics import is_predicted, statistics
from decoding.generation import Generation
from decoding.policy import Policy
from decoding.prompts import read_prompts
from decoding.rounds.round import Counts, OnStep
from decoding.state import DecodeState, Reason
from models.denoiser import Denoiser
from models.ranks import Ranks, find_ranks

Job = tuple[Cell, Policy, Denoiser]  # what decodes, and on which model


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
        batch = read_prompts(list(prompts), None, denoiser).to(denoiser.device)
        rows = [canvas_of(problems.references.get(p, ""), problems.gen_length, denoiser) for p in prompts]
        return Encoded(batch.tokens, batch.attention_mask, torch.tensor(rows, device=batch.tokens.device))


def canvas_of(answer: str, gen_length: int, denoiser: Denoiser) -> list[int]:
    """The canvas that spells an answer, EOS behind it; -1 where there is none or it does not fit."""
    ids = denoiser.tokenizer(answer, add_special_tokens=False)["input_ids"] if answer else []
    if not ids or len(ids) > gen_length or (denoiser.eos_id is None and len(ids) < gen_length):
        return [-1] * gen_length
    return [*ids] + [denoiser.eos_id if denoiser.eos_id is not None else -1] * (gen_length - len(ids))


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
