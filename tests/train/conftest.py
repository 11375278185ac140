"""Toys that train/ collects traces of: bits in groups, and an order of commits that matters."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from decoding.policies.ete import BeamETE
from decoding.policies.quota import Sequential
from decoding.policies.threshold import Threshold
from decoding.traces.labelling import Labelling
from models.denoiser import Denoiser, Prediction
from models.toys.toy import GroupDenoiser
from train.tasks.task import Example, Task
from train.traces.collection import Collector

LABELLING = Labelling(states_per_prompt=3, labelled=1, branches=8, strata=2)


class Bits:
    """A tokenizer of the bits themselves."""

    def __call__(self, text: str, **_: Any) -> SimpleNamespace:
        return SimpleNamespace(input_ids=[int(bit) for bit in text])

    def decode(self, ids: list[int], **_: Any) -> str:
        return "".join(map(str, ids))


class Trap(Denoiser):
    """The first position says 1 (.8); the second 0 (.6) alone, and 1 (.99) once the first is 1; the third 1 (.55)."""

    def __init__(self) -> None:
        super().__init__()
        self.mask_id, self.eos_id, self.vocab_size, self.max_length = 2, None, 3, 99

    def forward(self, tokens, *, attention_mask=None, rows=None, taps=(), owner=None, refresh=None):
        rows = torch.ones_like(tokens, dtype=torch.bool) if rows is None else rows
        p1 = torch.full(tokens.shape, 0.5)
        p1[:, -3], p1[:, -2], p1[:, -1] = 0.8, torch.where(tokens[:, -3] == 1, 0.99, 0.4), 0.55
        logits = torch.stack([1 - p1, p1, torch.zeros_like(p1)], -1).log()
        return Prediction(logits[rows], rows, torch.full((len(tokens),), tokens.shape[1]))


def with_bits(denoiser: Denoiser) -> Denoiser:
    denoiser.tokenizer = Bits()
    denoiser.__dict__["encode"] = lambda prompts, chat=None: [Bits()(prompt).input_ids for prompt in prompts]
    return denoiser


def bits_task(gen_length: int, block_length: int, *, unique: bool = True) -> Task:
    return Task(
        name="bits", prompt_length=4, gen_length=gen_length, block_length=block_length, unique_answer=unique,
        make=lambda rng: Example("0", "0" * gen_length), canonical=lambda prompt: prompt,
        check=lambda example, text: text == example.response,
    )  # fmt: skip


@pytest.fixture
def groups() -> Denoiser:
    """Two groups of eight bits; whatever is committed first is 0."""
    return with_bits(GroupDenoiser(2, 8))


@pytest.fixture
def trap() -> Denoiser:
    return with_bits(Trap())


@pytest.fixture
def speaks_bits():
    """Gives a denoiser the tokenizer of bits."""
    return with_bits


@pytest.fixture
def collector_of():
    """A collector of bits with two drivers that take turns."""

    def collector(denoiser: Denoiser, task: Task | None = None, **changes: Any) -> Collector:
        settings = {
            "denoiser": denoiser,
            "task": task or bits_task(16, 8),
            "beam": BeamETE(branches=2),
            "drivers": {"slow": Sequential(), "fast": Threshold(0.4)},
            "labelling": LABELLING,
            "block_length": 8,
            "batch_size": 2,
            "seed": 0,
            "chunk": 4,
        }
        return Collector(**{**settings, **changes})

    return collector


@pytest.fixture
def tasks():
    return bits_task


@pytest.fixture
def examples() -> list[Example]:
    """Prompts of one to four bits; the first group of the answer is 0, the second 1."""
    return [Example(prompt, "0" * 8 + "1" * 8) for prompt in ("0", "11", "010", "1", "1100", "00", "01", "1")]


@pytest.fixture
def example():
    return Example
