"""How many rows fit: a batch size by the memory there is, and one sentence where that runs out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from models.denoiser import Denoiser

MOST_ROWS = {"cpu": 16}  # more only make a round longer there
MOST_ROWS_ELSEWHERE = 256
SHARE = 0.6  # of the free memory that a batch may take
COPIES_OF_LOGITS = 4  # float32: logits, log-softmax, their ranking and one more
COPIES_OF_HIDDEN = (
    24  # in the weights' dtype: a block's activations, and keys and values of all blocks where there are few heads
)


def batch_size_for(denoiser: Denoiser, *, length: int, gen_length: int, canvases: int = 1) -> int:
    """Rows of a batch that the free memory holds, a power of two.

    Args:
        denoiser: where the rows run.
        length: positions of the longest row, prompt and canvas.
        gen_length: positions of the canvas, whose logits are kept.
        canvases: of a row in one forward at most.

    Returns:
        At least 1; at most 16 on a CPU and 256 elsewhere.
    """
    import torch

    device = denoiser.device
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
    else:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    weight = next(iter(denoiser.parameters()), None)
    itemsize = 4 if weight is None else weight.element_size()
    hidden = getattr(denoiser, "hidden_size", 1)
    row = COPIES_OF_LOGITS * 4 * gen_length * denoiser.vocab_size + COPIES_OF_HIDDEN * itemsize * length * hidden
    rows = int(free * SHARE / (row * canvases))
    most = MOST_ROWS.get(device.type, MOST_ROWS_ELSEWHERE)
    return 1 << (max(1, min(rows, most)).bit_length() - 1)


def is_want_of_memory(error: Exception) -> bool:
    """Whether an error says that the memory is too small, in Python's own way or in torch's, which is a RuntimeError."""
    return isinstance(error, MemoryError) or any(
        words in str(error) for words in ("out of memory", "can't allocate memory")
    )


@contextmanager
def told_in_one_sentence(batch_size: int, length: int) -> Iterator[None]:
    """Turn an error for want of memory into a sentence that says what to lower.

    Raises:
        ValueError: in its place.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_want_of_memory(error):
            raise
        raise ValueError(
            f"batch_size must be lower for the memory there is (or gen_length, the policy's branches, or dtype bfloat16), "
            f"got {batch_size} rows of {length} positions"
        ) from error
