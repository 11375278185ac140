"""Confident and at rest, and the distributions that rest is judged by."""

from dataclasses import replace
from math import inf, log

import pytest
import torch

from decoding.policies.field.klass import KLASS
from decoding.state import Reason
from models.denoiser import Prediction
from models.earlier import Earlier, kullback_leibler

EXPLOIT, FORCED = int(Reason.EXPLOIT), int(Reason.FORCED)
CONFIDENCE = [0.95, 0.95, 0.95, 0.85]


def proposed(canvas, reading_of, policy, drift, memory, *, spent):
    state = canvas(4)
    planes = torch.tensor(memory).view(1, -1, 4)
    state = replace(state, memory=planes, spent=torch.tensor([spent]))
    return policy.propose(state, replace(reading_of(CONFIDENCE), drift=torch.tensor([drift])))


def test_what_is_confident_and_moved_little_twice_is_committed(canvas, reading_of):
    proposal = proposed(canvas, reading_of, KLASS(), [0.009, 0.011, 0.009, 0.0], [0.009, 0.0, 0.011, 0.0], spent=1)
    assert proposal.reason[0, 0].tolist() == [EXPLOIT, 0, 0, 0]
    assert proposal.memory[0].tolist() == [pytest.approx([0.009, 0.011, 0.009, 0.0])]


def test_where_nothing_is_ready_the_most_confident_position_is_committed(canvas, reading_of):
    proposal = proposed(canvas, reading_of, KLASS(), [0.02] * 4, [0.0] * 4, spent=1)
    assert proposal.reason[0, 0].tolist() == [FORCED, 0, 0, 0]


@pytest.mark.parametrize(("history_length", "spent", "ready"), [(1, 0, 3), (2, 0, 0), (2, 1, 3), (3, 1, 0), (3, 2, 3)])
def test_a_block_needs_as_many_rounds_as_the_history_is_long(canvas, reading_of, history_length, spent, ready):
    policy = KLASS(history_length=history_length)
    memory = [[0.0] * 4] * (history_length - 1)
    proposal = proposed(canvas, reading_of, policy, [0.0] * 4, memory, spent=spent)
    assert (proposal.reason == EXPLOIT).sum() == ready


def test_divergence_of_two_coins():
    log_p, log_q = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.9, 0.1]]).log()
    assert kullback_leibler(log_p, log_q).item() == pytest.approx(0.5 * log(0.5 / 0.9) + 0.5 * log(0.5 / 0.1))
    assert kullback_leibler(torch.tensor([[0.0, -inf]]), torch.tensor([[0.0, -inf]])).item() == 0


def test_a_position_that_was_not_asked_before_has_moved_infinitely():
    earlier = Earlier(1, 3, torch.device("cpu"))
    fair, biased = torch.tensor([0.5, 0.5]).log(), torch.tensor([0.9, 0.1]).log()

    def drift(*rows):
        asked = torch.tensor([[i in dict(rows) for i in range(3)]])
        logits = torch.stack([line for _, line in rows])
        return earlier.drift(Prediction(logits, asked, torch.tensor([3])), torch.tensor([0]))[0].tolist()

    assert drift((0, fair), (1, biased)) == [inf, inf, 0.0]
    moved = 0.9 * log(0.9 / 0.5) + 0.1 * log(0.1 / 0.5)
    assert drift((0, biased), (1, biased), (2, fair)) == [pytest.approx(moved), pytest.approx(0.0, abs=1e-7), inf]


def test_positions_of_later_blocks_are_known_before_their_block_opens(run, denoisers, prompts):
    """Nothing ever moves on a table: each block but the first is full after two rounds, one of them for the history."""
    _, counts = run(denoisers["flat"], KLASS(threshold=0.0), prompts, early_stop=False)
    assert counts.rounds.tolist() == [3 + 2 + 2] * 3


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"threshold": 1.0}, "threshold"),
        ({"kl_threshold": 0.0}, "kl_threshold"),
        ({"history_length": 0}, "history_length"),
    ],
)
def test_settings_out_of_range_are_refused(settings, name):
    with pytest.raises(ValueError, match=f"^{name} must "):
        KLASS(**settings)
