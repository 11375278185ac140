"""Many prompts through one model, batch by batch: the one place that continuous batching would replace."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING

from decoding.names import Request
from train.commands.answering.memory import told_in_one_sentence

if TYPE_CHECKING:
    from decoding import Row
    from models.denoiser import Denoiser

WINDOW = 8  # batches within which rows are sorted by length; answers are in order from one window to the next
SEED_STEP = 1_000_003  # between the seeds of two batches


@dataclass(frozen=True)
class Answer:
    """One row that has been decoded.

    Attributes:
        index: of the row.
        row: its text and what it cost.
        seconds: its equal share of the time of its batch.
        seed: of its batch's draws.
    """

    index: int
    row: Row
    seconds: float
    seed: int


def make_batches(lengths: Sequence[int], batch_size: int) -> list[tuple[int, ...]]:
    """Rows of like length together, so that little is padded; the same batches for the same lengths.

    Args:
        lengths: of the prompts in tokens.
        batch_size: rows of a batch at most.
    """
    found: list[tuple[int, ...]] = []
    for start in range(0, len(lengths), WINDOW * batch_size):
        rows = range(start, min(len(lengths), start + WINDOW * batch_size))
        order = sorted(rows, key=lambda index: (lengths[index], index))
        found += [tuple(order[first : first + batch_size]) for first in range(0, len(order), batch_size)]
    return found


def decode_all(
    denoiser: Denoiser,
    prompts: Sequence[Sequence[int]],
    request: Request,
    *,
    batch_size: int,
    seed: int,
    done: Set[int] = frozenset(),
    calibrated: str | None = None,
) -> Iterator[Answer]:
    """Decode prompts of any lengths and yield their answers in the order of the prompts.

    Args:
        denoiser: the model, with its head.
        prompts: token ids, one list a row.
        request: policy, lengths and settings.
        batch_size: rows of a batch at most.
        seed: of the draws; the batch of number n draws from seed + n * 1,000,003.
        done: rows whose answers are known: a batch of nothing else is not run, and none of them is yielded.
        calibrated: file of calibrate.py that the decode must agree with, or None.

    Raises:
        ValueError: for settings that do not fit the model, and where a batch needs more memory than there is.
    """
    waiting: dict[int, Answer] = {}
    following = 0
    for number, rows in enumerate(make_batches([len(ids) for ids in prompts], batch_size)):
        if not set(rows) <= done:
            batch = [prompts[index] for index in rows]
            answers = _decode(denoiser, batch, request, seed=seed + number * SEED_STEP, calibrated=calibrated)
            waiting |= {index: Answer(index, *answer) for index, answer in zip(rows, answers, strict=True)}
        while following in waiting or following in done:
            answer = waiting.pop(following, None)
            if answer is not None and following not in done:
                yield answer
            following += 1


def _decode(
    denoiser: Denoiser, batch: Sequence[Sequence[int]], request: Request, *, seed: int, calibrated: str | None
) -> list[tuple[Row, float, int]]:
    """Row, seconds and seed of every prompt of a batch; arguments as in `decode_all`."""
    import torch

    from decoding import generate

    with told_in_one_sentence(len(batch), max(map(len, batch)) + request.gen_length):
        result = generate(
            denoiser,
            [list(ids) for ids in batch],
            request.policy,
            gen_length=request.gen_length,
            block_length=request.block_length,
            generator=torch.Generator(denoiser.device).manual_seed(seed),
            calibrated=calibrated,
            **request.options,
            **request.settings,
        )
    return [(result.row(index), result.seconds / len(batch), seed) for index in range(len(batch))]
