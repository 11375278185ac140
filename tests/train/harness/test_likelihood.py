"""The Monte-Carlo bound against the sum over all subsets of a short target."""

from itertools import combinations

import pytest
import torch

from models.denoiser import Prediction
from models.toys.toy import TableDenoiser
from train.harness.likelihood import log_likelihood_bound

CONTEXT, TARGET = [0, 1], [2, 0, 3]


class Neighbours(TableDenoiser):
    """Every position leans to the token on its left, where that is revealed: what is masked matters."""

    def forward(self, tokens, *, attention_mask=None, rows=None, taps=(), owner=None, refresh=None):
        rows = torch.ones_like(tokens, dtype=torch.bool) if rows is None else rows
        voice = torch.randn(6, 6, generator=torch.Generator().manual_seed(1)) * 2
        logits = voice[tokens.roll(1, 1)] + torch.arange(tokens.shape[1]).view(1, -1, 1) * 0.1
        return Prediction(logits[rows], rows, torch.full((len(tokens),), tokens.shape[1]))


@pytest.fixture(scope="module")
def model() -> Neighbours:
    return Neighbours(torch.zeros(9, 6), mask_id=5, eos_id=4)


def exact(model) -> float:
    """E over l and S of (L / l) sum over S, every subset visited."""
    total, length = 0.0, len(TARGET)
    for size in range(1, length + 1):
        subsets = list(combinations(range(length), size))
        for subset in subsets:
            tokens = torch.tensor([CONTEXT + [5 if i in subset else token for i, token in enumerate(TARGET)]])
            log_probs = model.logits(tokens)[0].log_softmax(-1)
            picked = sum(float(log_probs[len(CONTEXT) + i, TARGET[i]]) for i in subset)
            total += length / size * picked / len(subsets) / length
    return total


def test_the_estimate_is_the_exact_bound_within_its_error(model):
    found = log_likelihood_bound(model, CONTEXT, TARGET, samples=6000, batch_size=1000, seed=0)
    assert 0 < found.error < 0.05
    assert abs(found.value - exact(model)) < 4 * found.error
    other = log_likelihood_bound(model, CONTEXT, [2, 2, 2], samples=6000, batch_size=1000, seed=0)
    assert abs(other.value - exact(model)) > 4 * other.error


def test_the_batch_size_changes_nothing_and_the_seed_does(model):
    draws = [log_likelihood_bound(model, CONTEXT, TARGET, samples=32, batch_size=n, seed=3) for n in (1, 7, 32)]
    assert max(d.value for d in draws) - min(d.value for d in draws) < 1e-5 * abs(draws[0].value)
    assert log_likelihood_bound(model, CONTEXT, TARGET, samples=32, batch_size=7, seed=4).value != draws[0].value


def test_one_token_has_one_value(model):
    found = log_likelihood_bound(model, CONTEXT, [3], samples=5, batch_size=2, seed=0)
    log_probs = model.logits(torch.tensor([[*CONTEXT, 5]]))[0, 2].log_softmax(-1)
    assert found.value == pytest.approx(float(log_probs[3]), rel=1e-5)
    assert found.error == pytest.approx(0.0, abs=1e-6)
