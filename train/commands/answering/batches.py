"""Many prompts through one model: what order they are decoded in, and their answers in the order of the prompts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING

from decoding.calls.request import Request
from train.commands.answering.memory import told_in_one_sentence

if TYPE_CHECKING:
    from decoding import Row
    from models.denoiser import Denoiser

WINDOW = 8  # batches within which rows are sorted by length; answers are in order from one window to the next


@dataclass(frozen=True)
class Answer:
    """One row that has been decoded.

    Attributes:
        index: of the row.
        row: its text and what it cost.
        seconds: its share of the time, that of every round divided among the rows in it.
        seed: of the draws, which follow from it and the row's index.
    """

    index: int
    row: Row
    seconds: float
    seed: int


def decode_order(lengths: Sequence[int], batch_size: int) -> list[int]:
    """Rows of like length one after the other, so that little is padded, within windows of eight batches.

    Args:
        lengths: of the prompts in tokens.
        batch_size: rows at a time.
    """
    size = WINDOW * batch_size
    return sorted(range(len(lengths)), key=lambda index: (index // size, lengths[index], index))


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
        batch_size: rows at a time.
        seed: of the draws.
        done: rows whose answers are known: they are not run, and none of them is yielded.
        calibrated: file of calibrate.py that the decode must agree with, or None.

    Raises:
        ValueError: for settings that do not fit the model, and where the rows need more memory than there is.
    """
    from decoding import generate_many

    order = [index for index in decode_order([len(ids) for ids in prompts], batch_size) if index not in done]
    waiting: dict[int, Answer] = {}
    following = iter(sorted(order))
    awaited = next(following, None)
    with told_in_one_sentence(batch_size, max(map(len, prompts), default=0) + request.gen_length):
        for found in generate_many(
            denoiser,
            [list(prompts[index]) for index in order],
            request.policy,
            gen_length=request.gen_length,
            block_length=request.block_length,
            batch_size=batch_size,
            ordered=False,
            numbers=order,
            seed=seed,
            calibrated=calibrated,
            **request.options,
            **request.settings,
        ):
            waiting[found.number] = Answer(found.number, found.row, found.seconds, seed)
            while awaited is not None and awaited in waiting:
                yield waiting.pop(awaited)
                awaited = next(following, None)
