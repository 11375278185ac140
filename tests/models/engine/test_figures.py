"""What is read off the logits by the engine is what is read off them otherwise."""

import torch

from decoding.reading import read, reading_of_figures
from decoding.sampling import Sampling
from models.denoiser import Prediction
from models.engine.figures import figures


def test_the_reading_of_figures_is_the_reading_of_the_logits():
    generator = torch.Generator().manual_seed(0)
    rows = torch.tensor([[False, True, True, True], [True, False, False, True]])
    logits = 4 * torch.randn(5, 30, generator=generator)
    logits[:, 7] = 20  # forbidden, and yet part of the normaliser
    expected = read(Prediction(logits, rows, rows.sum(-1)), Sampling(forbidden=(7, 2)))
    floats, ints = figures(logits, (7, 2))
    dense = [torch.zeros(2, 4, values.shape[-1], dtype=values.dtype) for values in (floats, ints)]
    for buffer, values in zip(dense, (floats, ints), strict=True):
        buffer[rows] = values
    found = reading_of_figures(rows, *dense)
    for name in ("rows", "token", "confidence", "log_risk", "entropy", "top_log_probs", "top_tokens", "log_normaliser"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name
    assert (found.token[rows] != 7).all()


def test_fewer_tokens_than_five_leave_the_rest_empty():
    floats, ints = figures(torch.tensor([[1.0, 2.0, 3.0]]), (2,))
    assert floats.shape == (1, 9)
    assert floats[0, 7:].tolist() == [-100, -100]
    assert ints[0, :3].tolist() == [1, 1, 0]
