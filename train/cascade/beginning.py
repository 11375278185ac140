"""Where the fit of a cascade begins: what a committed token changes of the hidden states of its position, by least squares."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import cycle, islice

import torch

from decoding.policy import Policy
from models.denoiser import Denoiser
from models.heads.cascade import Cascade
from train.cascade.examples import CascadeExample, TaskPrompts, examples
from train.cascade.leading import Part

RIDGE = 0.01  # of the mean eigenvalue
TOGETHER = 8  # prompts of a decode
ROUNDS = 6  # of a decode that are looked at
EVERY = 3  # so many drivers apart


@torch.no_grad()
def begin(cascade: Cascade, found: Iterable[CascadeExample]) -> int:
    """Let W, what the embedding e of a committed token is put in by, be the one nearest to the base; returns the commits seen.

    W = argmin sum_i |W e_i - (h'_i - h_i)|^2 + r |W|^2 over commits i, h and h' the input of the first block that runs again in the
    forward before the commit and in the next one; r = RIDGE sum_i |e_i|^2 / width, the mean eigenvalue of sum_i e_i e_i^T.

    Args:
        cascade: that is to be fitted.
        found: examples with what entered.
    """
    width, first = cascade.inject.weight.shape[0], -cascade.config.blocks
    square, both = torch.zeros(2, width, width, dtype=torch.float64)
    count = 0
    for one in found:
        if one.entered is None or not one.committed.any():
            continue
        token = cascade.base.token_embedding(one.reading.token[one.committed]).double().cpu()
        before = one.reading.taps[first].hidden[one.committed]
        change = (one.entered[first] - before).double().cpu()
        square, both, count = square + token.T @ token, both + token.T @ change, count + len(token)
    if count:
        ridge = RIDGE * square.diagonal().mean() * torch.eye(width, dtype=torch.float64)
        cascade.inject.weight.copy_(torch.linalg.solve(square + ridge, both).T.to(cascade.inject.weight))
    return count


def first_examples(
    denoiser: Denoiser, tasks: Sequence[TaskPrompts], drivers: Sequence[Policy], parts: Sequence[float]
) -> Iterator[CascadeExample]:
    """A few rounds of every task, led by some of the drivers.

    Args:
        denoiser: the base with its head.
        tasks: prompts to fit on.
        drivers: lead.
        parts: shares of their commits, taken in turn.
    """
    for task in tasks:
        for policy, part in zip(drivers[::EVERY], cycle(parts)):
            texts, leader = task.texts[:TOGETHER], Part(policy, part)
            led = examples(denoiser, task, texts, leader, denoiser.head.taps_ahead, entered=True)
            yield from islice(led, ROUNDS)
