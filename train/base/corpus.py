"""Training rows: left-padded prompts followed by the response canvas, as arrays."""

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from models.complaints import shown
from train.base import tokenizer as recipe
from train.tasks import Example, Split, Task, get
from train.tasks.renumbered.gsm8k_renumbered import RenumberedTask

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

CHUNK = 512


@dataclass(frozen=True)
class Rows:
    """N rows of W tokens; the canvas is the last `gen_length` columns.

    Args:
        tokens: uint16 [N, W], prompts left-padded with EOS, then the response and EOS up to the generation length.
        prompt_length: int64 [N], prompt tokens before the canvas; row i starts at W - gen_length - prompt_length[i].
    """

    tokens: NDArray[np.uint16]
    prompt_length: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.tokens)


def rows(task: Task, tokenizer: "Tokenizer | PreTrainedTokenizerFast", examples: Sequence[Example]) -> Rows:
    """Encode examples, prompt and response apart, without BOS or separator.

    Args:
        task: gives the widths; prompts wider than its `prompt_length` widen all rows.
        tokenizer: a `tokenizers.Tokenizer`, or a fast tokenizer of transformers.
        examples: what to encode.

    Raises:
        ValueError: for a response that is empty or longer than the generation length.
    """
    backend: Tokenizer = tokenizer if isinstance(tokenizer, Tokenizer) else tokenizer.backend_tokenizer
    end = backend.token_to_id(recipe.EOS)
    texts = [example.prompt for example in examples] + [example.response for example in examples]
    ids = [encoding.ids for encoding in backend.encode_batch_fast(texts, add_special_tokens=False)]
    prompts, responses = ids[: len(examples)], ids[len(examples) :]
    for example, response in zip(examples, responses, strict=True):
        if not 0 < len(response) <= task.gen_length:
            raise ValueError(
                f"response of task {task.name} must have 1 to {task.gen_length} tokens, "
                f"got {len(response)} for prompt {shown(example.prompt)}"
            )
    lengths = np.fromiter(map(len, prompts), np.int64, len(prompts))
    width = max([task.prompt_length, *lengths.tolist()])
    lines = [
        [end] * (width - len(prompt)) + prompt + response + [end] * (task.gen_length - len(response))
        for prompt, response in zip(prompts, responses, strict=True)
    ]
    tokens = np.array(lines, dtype=np.uint16).reshape(len(lines), width + task.gen_length)
    return Rows(tokens, lengths)


def build(
    task_name: str,
    n: int,
    *,
    seed: int,
    split: Split = "train",
    workers: int = 1,
    tokenizer: str | Path = recipe.SHIPPED,
    source: Path | None = None,
) -> Rows:
    """Generate and encode n instances; the result does not depend on the number of workers.

    Args:
        task_name: a known task.
        n: number of rows, at least 1.
        seed: seeds every chunk of 512 rows together with the chunk's number.
        split: which instances to keep.
        workers: processes; 1 works in this one.
        tokenizer: folder of the tokenizer.
        source: the file whose rows a renumbered task draws anew; None for its default.
    """
    if n < 1 or workers < 1:
        raise ValueError(f"n and workers must be at least 1, got {n} and {workers}")
    chunk = partial(_chunk, get(task_name).name, n, seed, split, Path(tokenizer), source)
    numbers = range(-(-n // CHUNK))
    if workers == 1:
        return _join([chunk(number) for number in numbers])
    with get_context("spawn").Pool(workers, initializer=_encode_in_one_thread) as pool:
        return _join(pool.map(chunk, numbers, chunksize=1))


def _encode_in_one_thread() -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


def _chunk(task_name: str, n: int, seed: int, split: Split, folder: Path, source: Path | None, number: int) -> Rows:
    task = get(task_name)
    if isinstance(task, RenumberedTask):
        task = replace(task, source=source)
    digest = hashlib.blake2b(f"{seed}/{number}".encode(), digest_size=8).digest()
    stream = task.generate(split, seed=int.from_bytes(digest, "big"))
    return rows(task, recipe.load(folder), list(islice(stream, min(CHUNK, n - number * CHUNK))))


def from_file(
    task: Task,
    path: str | Path,
    limit: int | None = None,
    split: Split | None = "train",
    *,
    tokenizer: str | Path = recipe.SHIPPED,
) -> Rows:
    """Encode the first `limit` examples of a file that belong to a split.

    Args:
        task: reads the file and says which split a prompt belongs to.
        path: see `Task.read`.
        limit: the most rows to return; None for all.
        split: which instances to keep; None for all.
        tokenizer: folder of the tokenizer.

    Raises:
        ValueError: if no example is left, or see `Task.read` and `rows`.
    """
    kept = (example for example in task.read(path) if split is None or task.split_of(example.prompt) == split)
    examples = list(islice(kept, limit))
    if not examples:
        raise ValueError(f"file must hold examples of task {task.name}, split {split}, got none in {path}")
    return rows(task, recipe.load(tokenizer), examples)


def _join(parts: Iterable[Rows]) -> Rows:
    parts = list(parts)
    return Rows(np.concatenate([part.tokens for part in parts]), np.concatenate([part.prompt_length for part in parts]))
