"""What the puzzles share: a generator draws them, and the whole answer is one block."""

from __future__ import annotations

import random
from collections.abc import Callable

from train.tasks.task import Example, Task


def puzzle(
    name: str,
    prompt_length: int,
    gen_length: int,
    *,
    unique_answer: bool,
    make: Callable[[random.Random], Example],
    canonical: Callable[[str], str],
    check: Callable[[Example, str], bool],
    block_length: int | None = None,
    needs_response: bool = False,
) -> Task:
    """A generated task; its canvas is one block, for the shipped bases learn without blocks and lose by them.

    Args:
        name: what users type.
        prompt_length: the longest generated prompt, in tokens.
        gen_length: length of the canvas in tokens, EOS included.
        unique_answer: True where one token sequence alone is right.
        make: draws one instance.
        canonical: the instance behind a prompt; ValueError if the prompt breaks the format.
        check: whether a text solves the example.
        block_length: to decode with; default the whole canvas.
        needs_response: the checker compares with `Example.response`.
    """
    return Task(
        name,
        prompt_length,
        gen_length,
        block_length=gen_length if block_length is None else block_length,
        unique_answer=unique_answer,
        make=make,
        canonical=canonical,
        check=check,
        needs_response=needs_response,
    )
