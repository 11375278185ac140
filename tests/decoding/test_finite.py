"""Logits that are no numbers end a decode in one sentence that names the forward; a temperature near 0 is argmax."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from decoding import generate
from decoding.sampling import Sampling, draw
from models.toys.toy import TableDenoiser

LENGTH = 6


class Breaking(TableDenoiser):
    """A table that is sound until the forward in which it breaks at one position of the last row."""

    def __init__(self, value: float, forward: int) -> None:
        generator = torch.Generator().manual_seed(0)
        super().__init__(torch.randn(2 + LENGTH, 6, generator=generator) * 3, mask_id=5, eos_id=None)
        self.value, self.left = value, forward

    def forward(self, tokens, **options):
        prediction = super().forward(tokens, **options)
        self.left -= 1
        if self.left == 0:
            logits = prediction.logits.clone()
            logits[-1, 1] = self.value
            prediction = replace(prediction, logits=logits)
        return prediction


POLICIES = [
    ("threshold", {}),
    ("sequential", {}),
    ("quota", {"steps": LENGTH}),
    ("dream-quota", {"steps": LENGTH}),
    ("ete", {"gamma": 0.99, "min_masks": 0}),
    ("lopa", {}),
    ("draft-verify", {}),
    ("entropy-bound", {}),
    ("risk-sum", {}),
    ("imh", {}),
]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    ("policy", "settings", "forward"),
    [(*one, 1) for one in POLICIES] + [(*one, 3) for one in POLICIES if one[0] in ("sequential", "quota")],
)
def test_the_forward_is_named(policy, settings, forward, value):
    cold = {"temperature": 0.0} if policy == "imh" else {"temperature": 1.0}
    model = Breaking(value, forward)
    given = {"gen_length": LENGTH, "block_length": LENGTH, **settings}
    with pytest.raises(
        ValueError, match=rf"logits of the model must be finite, got NaN or infinity from forward {forward}"
    ):
        generate(model, [[0, 1], [1, 1]], policy, generator=torch.Generator().manual_seed(0), **cold, **given)


def test_impossible_tokens_are_no_such_case():
    table = torch.full((2 + LENGTH, 6), -torch.inf)
    table[:, 2] = 0.0
    made = generate(TableDenoiser(table, mask_id=5, eos_id=None), [[0, 1]], "threshold", gen_length=LENGTH)
    assert made.canvas.tolist() == [[2] * LENGTH]


@pytest.mark.parametrize("temperature", [5e-324, 1e-45, 1e-38, 1e-31, 1e-10])
def test_a_temperature_near_0_takes_the_most_likely_token(temperature):
    z = torch.randn(64, 50, generator=torch.Generator().manual_seed(1)) * 30
    drawn = draw(z, Sampling(temperature=temperature), torch.Generator().manual_seed(2))
    assert torch.equal(drawn, z.argmax(-1))
    narrow = draw(z, Sampling(temperature=temperature, top_p=0.5), torch.Generator().manual_seed(2))
    assert torch.equal(narrow, z.argmax(-1))
    narrowest = draw(z, Sampling(temperature=1.0, top_p=5e-324), torch.Generator().manual_seed(2))
    assert torch.equal(narrowest, z.argmax(-1))
