"""A fingerprint tells apart what differs: values, names and shapes, but no order in which tensors were stored."""

from __future__ import annotations

import torch

from models.checkpoints.files import SAMPLE, combine, digest

WEIGHTS = {"a": torch.arange(12.0).view(3, 4), "b": torch.ones(4)}


def of(weights: dict[str, torch.Tensor]) -> str:
    return combine({name: digest(name, tensor) for name, tensor in weights.items()})


def test_names_and_shapes_count_as_values_do():
    others = [
        {**WEIGHTS, "a": WEIGHTS["a"].view(4, 3)},
        {**WEIGHTS, "a": WEIGHTS["a"].view(12)},
        {"a": WEIGHTS["b"], "b": WEIGHTS["a"]},
        {"b": WEIGHTS["a"], "c": WEIGHTS["b"]},  # other names in the same order
        {**WEIGHTS, "a": WEIGHTS["a"] + 1},
        {"a": WEIGHTS["a"]},
    ]
    assert len({of(WEIGHTS), *map(of, others)}) == 1 + len(others)


def test_the_order_of_storage_does_not_count():
    assert of(dict(reversed(WEIGHTS.items()))) == of(WEIGHTS)


def test_a_large_tensor_is_read_to_its_end():
    large = torch.zeros(4 * SAMPLE)
    changed = large.clone()
    changed[-4] = 1.0
    assert digest("a", large) != digest("a", changed)
