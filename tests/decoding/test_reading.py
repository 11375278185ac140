"""What is read off a prediction."""

import math

import pytest
import torch

import decoding.reading as reading_module
from decoding.reading import LOGITS, Reading, read
from decoding.sampling import Sampling
from models.denoiser import Prediction


def read_lines(probabilities, sampling=None, seed=0) -> Reading:
    """Read one canvas whose positions have these distributions."""
    logits = torch.tensor(probabilities, dtype=torch.float64).log().float()
    rows = torch.ones(1, len(logits), dtype=torch.bool)
    prediction = Prediction(logits, rows, torch.tensor([len(logits)]))
    return read(prediction, sampling or Sampling(), torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("risk", [1e-9, 1e-12, 1e-3, 0.5, 0.75])
def test_log_risk_is_exact_where_confidence_rounds_to_one(risk):
    reading = read_lines([[1 - risk, risk / 3, risk / 3, risk / 3]])
    assert reading.confidence.dtype == torch.float32
    assert reading.log_risk.item() == pytest.approx(math.log(risk), rel=1e-6)
    assert reading.confidence.item() == pytest.approx(1 - risk, rel=1e-6)


def test_a_certain_token_has_finite_figures():
    reading = read_lines([[1.0, 0.0, 0.0]])
    assert reading.confidence.item() == 1.0
    assert reading.entropy.item() == 0.0
    assert reading.log_risk.item() == -100.0
    assert reading.top_log_probs.tolist() == [[[0.0, -100.0, -100.0, -100.0, -100.0]]]


def test_entropy_and_margin():
    reading = read_lines([[0.5, 0.25, 0.25], [0.7, 0.2, 0.1]])
    assert reading.entropy[0, 0].item() == pytest.approx(1.5 * math.log(2), rel=1e-6)
    torch.testing.assert_close(reading.margin, torch.tensor([[0.25, 0.5]]))


def test_confidence_belongs_to_the_drawn_token_at_temperature_one():
    reading = read_lines([[0.6, 0.3, 0.1]] * 200, Sampling(temperature=3.0))
    assert set(reading.token.unique().tolist()) == {0, 1, 2}
    torch.testing.assert_close(reading.confidence, torch.tensor([0.6, 0.3, 0.1])[reading.token])
    torch.testing.assert_close(reading.log_risk.exp(), 1 - reading.confidence)


def test_temperature_sharpens_or_flattens_the_draws():
    shares = {t: draws(Sampling(temperature=t)) for t in (0.5, 1.0, 2.0)}
    for t, share in shares.items():
        expected = torch.tensor([0.5, 0.3, 0.15, 0.05]) ** (1 / t)
        assert_drawn_from(share, expected / expected.sum())


DRAWS = 6000


def draws(sampling) -> torch.Tensor:
    token = read_lines([[0.5, 0.3, 0.15, 0.05]] * DRAWS, sampling).token
    return torch.bincount(token.flatten(), minlength=4) / DRAWS


def assert_drawn_from(share, probability):
    """Within three standard deviations; what has no probability is never drawn."""
    assert ((share - probability).abs() <= 3 * (probability * (1 - probability) / DRAWS).sqrt()).all()


@pytest.mark.parametrize(("top_p", "kept"), [(0.79, 2), (0.81, 3), (0.5001, 2), (0.4, 1)])
def test_top_p_keeps_the_smallest_set_that_reaches_it(top_p, kept):
    expected = torch.tensor([0.5, 0.3, 0.15, 0.05])
    expected[kept:] = 0
    assert_drawn_from(draws(Sampling(1.0, top_p)), expected / expected.sum())


def test_top_p_stops_where_it_is_reached():
    assert len(read_lines([[0.5, 0.5]] * 100, Sampling(1.0, 0.5)).token.unique()) == 1


def test_forbidden_tokens_are_no_candidates_and_keep_their_share_of_the_probability():
    greedy = read_lines([[0.6, 0.3, 0.1]], Sampling(forbidden=(0,)))
    assert greedy.token.tolist() == [[1]]
    assert greedy.confidence.item() == pytest.approx(0.3)
    assert greedy.top_log_probs[0, 0, :2].exp().tolist() == pytest.approx([0.3, 0.1])
    drawn = read_lines([[0.6, 0.3, 0.1]] * 300, Sampling(temperature=1.0, forbidden=(0, 2)))
    assert (drawn.token == 1).all()


def test_an_unconfident_token_is_a_candidate_without_confidence():
    reading = read_lines([[0.6, 0.4], [0.4, 0.6]], Sampling(unconfident=(0,)))
    assert reading.token.tolist() == [[0, 1]]
    torch.testing.assert_close(reading.confidence, torch.tensor([[0.0, 0.6]]))
    torch.testing.assert_close(reading.log_risk.exp(), torch.tensor([[1.0, 0.4]]))


def test_noise_is_drawn_only_on_demand_and_from_the_generator():
    lines = [[0.5, 0.5]] * 50
    assert not read_lines(lines).noise.any()
    noise = [read_lines(lines, Sampling(noise=True), seed).noise for seed in (1, 1, 2)]
    assert torch.equal(noise[0], noise[1])
    assert not torch.equal(noise[0], noise[2])
    assert ((noise[0] >= 0) & (noise[0] < 1)).all()


def test_positions_nobody_asked_for_read_as_empty():
    rows = torch.tensor([[False, True, False], [True, False, True]])
    logits = torch.tensor([[0.0, 2.0], [3.0, 0.0], [0.0, 1.0]])
    reading = read(Prediction(logits, rows, torch.tensor([3, 3])), Sampling())
    assert reading.token.tolist() == [[-1, 1, -1], [0, -1, 1]]
    assert torch.equal(reading.confidence > 0, rows)
    assert not reading.confidence[~rows].any()
    torch.testing.assert_close(reading.confidence[rows], logits.softmax(-1).amax(-1))


def test_reading_in_chunks_changes_nothing():
    logits = torch.randn(2 * (LOGITS["cpu"] // 9) + 7, 9, generator=torch.Generator().manual_seed(3))
    rows = torch.ones(1, len(logits), dtype=torch.bool)
    reading = read(Prediction(logits, rows, torch.tensor([len(logits)])), Sampling())
    torch.testing.assert_close(reading.confidence[0], logits.softmax(-1).amax(-1))
    assert torch.equal(reading.token[0], logits.argmax(-1))


@pytest.mark.parametrize(("held", "lines"), [(20, [2, 2, 1]), (8, [1] * 5)])  # a line has nine numbers
def test_chunks_hold_so_many_logits_or_one_line(monkeypatch, held, lines):
    seen = []

    def noted(z, *rest):
        seen.append(len(z))
        return whole(z, *rest)

    whole = reading_module._read_chunk
    monkeypatch.setattr(reading_module, "_read_chunk", noted)
    monkeypatch.setitem(LOGITS, "cpu", held)
    rows = torch.ones(1, 5, dtype=torch.bool)
    read(Prediction(torch.randn(5, 9), rows, torch.tensor([5])), Sampling())
    assert seen == lines


def test_no_positions_at_all_is_a_reading_too():
    rows = torch.zeros(2, 3, dtype=torch.bool)
    reading = read(Prediction(torch.zeros(0, 7), rows, torch.tensor([0, 0])), Sampling())
    assert reading.token.tolist() == [[-1] * 3] * 2


def test_branches_spread_over_a_grid_and_come_back():
    reading = read_lines([[0.6, 0.4]])
    grid = reading.scatter(torch.tensor([[1, 2]]), (2, 3))
    assert grid.rows.nonzero().tolist() == [[1, 2, 0]]
    back = grid.at(torch.tensor([0, 2]))
    assert back.token.tolist() == [[-1], [0]]
    assert back.confidence[1].item() == reading.confidence.item()


def test_one_canvas_a_prompt_comes_back_as_it_stands_and_a_missing_one_reads_as_empty():
    logits = torch.tensor([[2.0, 0.0], [0.0, 3.0]])
    rows = torch.ones(2, 1, dtype=torch.bool)
    reading = read(Prediction(logits, rows, torch.tensor([1, 1])), Sampling())
    whole = reading.scatter(torch.tensor([[0, 0], [1, 0]]), (2, 1))
    assert whole.token.tolist() == [[[0]], [[1]]]
    back = whole.at(torch.tensor([0, 0]))
    assert back.token.tolist() == [[0], [1]]
    assert back.confidence.data_ptr() == reading.confidence.data_ptr()
    late = reading.scatter(torch.tensor([[0, 0], [2, 0]]), (3, 1)).at(torch.tensor([0, 0, 0]))
    assert late.token.tolist() == [[0], [-1], [1]]


@pytest.mark.parametrize(
    "make", [lambda: Sampling(temperature=-1.0), lambda: Sampling(top_p=0.0), lambda: Sampling(top_p=2.0)]
)
def test_settings_out_of_range_are_refused_by_name_rule_and_value(make):
    with pytest.raises(ValueError, match=r"^(temperature|top_p) must .*, got -?[0-9.]+$"):
        make()


def test_the_five_largest_are_kept_with_their_tokens_in_order():
    reading = read_lines([[0.05, 0.3, 0.02, 0.25, 0.1, 0.2, 0.08]])
    assert reading.top_tokens.tolist() == [[[1, 3, 5, 4, 6]]]
    assert reading.top_log_probs[0, 0].exp().tolist() == pytest.approx([0.3, 0.25, 0.2, 0.1, 0.08])
    logits = torch.randn(50, 40, generator=torch.Generator().manual_seed(4))
    rows = torch.ones(1, 50, dtype=torch.bool)
    found = read(Prediction(logits, rows, torch.tensor([50])), Sampling())
    torch.testing.assert_close(logits.log_softmax(-1).gather(-1, found.top_tokens[0]), found.top_log_probs[0])
    assert torch.equal(found.top_tokens[..., 0], found.token)


def test_the_normaliser_is_that_of_the_logits_as_they_came():
    logits = torch.tensor([[2.0, -1.0, 0.5], [7.0, 7.0, 1.0]])
    rows = torch.tensor([[True, False, True]])
    for sampling in (Sampling(), Sampling(forbidden=(0,)), Sampling(temperature=2.0)):
        reading = read(Prediction(logits, rows, torch.tensor([3])), sampling, torch.Generator().manual_seed(0))
        expected = [math.log(sum(map(math.exp, line))) for line in logits.tolist()]
        assert reading.log_normaliser[0].tolist() == pytest.approx([expected[0], 0.0, expected[1]], rel=1e-6)


def test_forbidden_tokens_are_not_among_the_five():
    reading = read_lines([[0.4, 0.2, 0.15, 0.1, 0.08, 0.07]], Sampling(forbidden=(0,)))
    assert reading.top_tokens.tolist() == [[[1, 2, 3, 4, 5]]]
    assert reading.top_log_probs[0, 0].exp().tolist() == pytest.approx([0.2, 0.15, 0.1, 0.08, 0.07])


def test_a_small_vocabulary_is_padded_with_candidates_that_are_none():
    reading = read_lines([[0.2, 0.5, 0.3]])
    assert reading.top_tokens.tolist() == [[[1, 2, 0, 0, 0]]]
    assert reading.top_log_probs[0, 0, 3:].tolist() == [-100.0, -100.0]


def test_candidates_and_normaliser_stay_with_their_position_on_a_grid():
    rows = torch.tensor([[False, True], [True, False]])
    logits = torch.tensor([[0.0, 2.0, 1.0], [3.0, 0.0, 1.0]])
    reading = read(Prediction(logits, rows, torch.tensor([2, 2])), Sampling())
    assert reading.top_tokens[..., :3].tolist() == [[[0, 0, 0], [1, 2, 0]], [[0, 2, 1], [0, 0, 0]]]
    grid = reading.scatter(torch.tensor([[0, 1], [1, 0]]), (2, 2))
    back = grid.at(torch.tensor([1, 0]))
    assert torch.equal(back.top_tokens, reading.top_tokens)
    assert torch.equal(back.log_normaliser, reading.log_normaliser)
    assert torch.equal(grid.first().log_normaliser, reading.log_normaliser)
    assert not grid.log_normaliser[0, 0].any()
