"""Semantic coherence of answers decoded in parallel, by the base's own mean hidden states.

A sentence's vector is the mean over its tokens of the hidden states that enter the base's last block, in a forward over prompt
and whole answer, less the mean over all sentences decoded one token a round: raw means all point the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cosine_similarity

from decoding.api import generate
from decoding.comparison.curves import Array, resample
from decoding.comparison.results import estimate
from decoding.generation import Generation
from decoding.policies.quota import Quota
from decoding.prompts import read_prompts
from decoding.studies.inputs import StudyInputs
from models.denoiser import Denoiser

ENDS = (".", "?", "!", "\n")


def coherence(inputs: StudyInputs, task: str, count: int, tokens: Sequence[int]) -> dict[str, Any]:
    """Accuracy, likeness to the answer decoded one token a round, and likeness of neighbouring sentences.

    Args:
        inputs: of the study.
        task: whose answers are sentences.
        count: prompts.
        tokens: committed a round; must divide the block.

    Raises:
        ValueError: if a number of tokens does not divide the block.
    """
    denoiser, checked = inputs.denoiser(), inputs.problems(task, count)
    problems, rows = checked.problems, []
    weights = resample(len(problems.test), seed=inputs.seed)  # of those there are, maybe fewer than asked for
    if any(problems.block_length % some for some in tokens):
        raise ValueError(f"tokens must divide the block of {problems.block_length}, got {list(tokens)}")
    mask = (
        read_prompts(list(problems.test), None, denoiser)
        .to(denoiser.device)
        .with_canvas(problems.gen_length)
        .attention_mask
    )
    centre: Tensor | None = None
    first: list[Tensor] = []
    for some in sorted({1, *tokens}):
        made = generate(
            denoiser,
            list(problems.test),
            Quota(steps=problems.gen_length // some),
            gen_length=problems.gen_length,
            block_length=problems.block_length,
        )
        vectors = sentences(denoiser, made, mask)
        centre = torch.cat(vectors).mean(0) if centre is None else centre
        vectors = [one - centre for one in vectors]
        first = first or vectors
        right = np.array([checked.check(p, text) for p, text in zip(problems.test, made.text, strict=True)], float)
        near = np.array([neighbours(one) for one in vectors])
        alike = [float(cosine_similarity(a.mean(0), b.mean(0), dim=0)) for a, b in zip(vectors, first, strict=True)]
        rows.append(
            {
                "tokens": some,
                "n": len(right),
                "accuracy": estimate(weights @ right),
                "same": estimate(weights @ np.array(alike)),
                "neighbours": mean(near, weights),
                "neighbours_right": mean(np.where(right > 0, near, np.nan), weights),
                "neighbours_wrong": mean(np.where(right > 0, np.nan, near), weights),
            }
        )
    return {"task": task, "rows": rows}


def mean(values: Array, weights: Array) -> dict[str, Any] | None:
    """With its interval, over the values that are there; None for fewer than two."""
    there = np.isfinite(values)
    if there.sum() < 2:
        return None
    mass = weights[:, there]
    drawn = mass.sum(1) > 0
    return estimate((mass @ values[there])[drawn] / mass.sum(1)[drawn])


@torch.inference_mode()
def sentences(denoiser: Denoiser, made: Generation, mask: Tensor | None) -> list[Float[Tensor, "s D"]]:
    """One vector for each sentence of each answer, up to its EOS."""
    tokens, length = made.sequences, made.canvas.shape[1]
    last = len(denoiser.blocks) - 1
    rows = torch.zeros_like(tokens, dtype=torch.bool)
    hidden = denoiser(tokens, attention_mask=mask, rows=rows, taps=(last,)).taps[0].hidden
    vectors = []
    for states, canvas in zip(hidden[:, -length:].float().cpu(), made.canvas.tolist(), strict=True):
        whole = list(takewhile(lambda token: token not in made.end_ids, canvas))
        number, parts = 0, []
        for token in whole:
            parts.append(number)
            number += denoiser.tokenizer.decode([token]).strip(" ").endswith(ENDS)
        sentence = torch.tensor(parts, dtype=torch.long)
        groups = [states[: len(whole)][sentence == part].mean(0) for part in dict.fromkeys(parts)]
        vectors.append(torch.stack(groups or [states.mean(0)]))
    return vectors


def neighbours(vectors: Float[Tensor, "s D"]) -> float:
    """Mean cosine of sentences that follow each other; NaN where there is one alone."""
    return float(cosine_similarity(vectors[1:], vectors[:-1], dim=-1).mean())
