"""What is surer than the average commit, and what is masked again."""

from dataclasses import replace

import pytest
import torch

from decoding.commit import commit_first
from decoding.policies.field.saber import Saber
from decoding.state import Reason

NOW, GONE = int(Reason.EXPLOIT), int(Reason.REVOKED)


def begun(canvas, length, block_length=None):
    state = canvas(length, block_length)
    return replace(state, memory=torch.zeros(1, 2, length))


def after(state, reading, policy):
    return commit_first(state, reading, policy.propose(state, reading))


def test_the_first_round_commits_the_best_and_takes_the_least_sure_of_them_back(canvas, reading_of):
    proposal = Saber().propose(begun(canvas, 4), reading_of([0.9, 0.8, 0.6, 0.5]))
    assert proposal.reason[0, 0].tolist() == [NOW, 0, 0, 0]  # the second was committed and taken back at once
    assert proposal.tokens[0, 0].tolist() == [0, 5, 5, 5]


def test_later_rounds_commit_what_beats_the_mean_commit_and_take_back_what_gained_least(canvas, reading_of):
    state = after(begun(canvas, 4), reading_of([0.9, 0.8, 0.6, 0.5]), Saber())  # committed at .9 and .8: mean .85
    proposal = Saber().propose(state, reading_of([0.95, 0.88, 0.86, 0.5]))  # gains .05, .08, .26
    assert proposal.reason[0, 0].tolist() == [GONE, NOW, NOW, 0]


def test_where_too_few_beat_the_mean_the_best_are_committed(canvas, reading_of):
    state = after(begun(canvas, 4), reading_of([0.9, 0.8, 0.6, 0.5]), Saber())
    proposal = Saber().propose(state, reading_of([0.9, 0.86, 0.7, 0.6]))  # one beats .85; gains 0, .06, .1
    assert proposal.reason[0, 0].tolist() == [GONE, NOW, NOW, 0]


@pytest.mark.parametrize(("least", "length", "gone"), [(2, 3, 1), (4, 6, 2), (9, 12, 4), (17, 20, 8), (1, 3, 0)])
def test_how_many_are_taken_back(canvas, reading_of, least, length, gone):
    proposal = Saber(least).propose(begun(canvas, length), reading_of([0.9 - 0.01 * i for i in range(length)]))
    assert (proposal.reason == NOW).sum() == least - gone  # all of them are new


def test_an_eighth_of_many_sure_commits_is_taken_back(canvas, reading_of):
    state = after(begun(canvas, 24), reading_of([0.5, 0.4] + [0.3] * 22), Saber())
    proposal = Saber().propose(state, reading_of([0.9] + [0.8] * 20 + [0.1] * 3))  # 20 beat the mean of .45
    assert proposal.reason[0, 0].tolist() == [GONE, 0, 0] + [NOW] * 18 + [0] * 3


def test_the_round_that_fills_the_opened_blocks_takes_nothing_back(canvas, reading_of):
    assert Saber().propose(begun(canvas, 2), reading_of([0.9, 0.8])).reason.tolist() == [[[NOW, NOW]]]
    two = Saber().propose(begun(canvas, 4, 2), reading_of([0.9, 0.8, 0.0, 0.0]))
    assert two.reason.tolist() == [[[NOW, NOW, 0, 0]]]


def test_what_has_just_been_opened_is_not_taken_back_and_what_came_before_may_be(canvas, reading_of):
    state = after(begun(canvas, 5, 5), reading_of([0.9, 0.8, 0.7, 0.6, 0.5]), Saber())
    assert state.opened.tolist() == [1]
    state = after(begun(canvas, 6, 2), reading_of([0.9, 0.8, 0.0, 0.0, 0.0, 0.0]), Saber(1))
    state = after(state, reading_of([0.9, 0.8, 0.0, 0.0, 0.0, 0.0]), Saber(1))
    assert state.opened.tolist() == [2]
    wide = replace(state, block=torch.tensor([[0, 0, 1, 1, 1, 1]]), num_blocks=torch.tensor([2]))
    proposal = Saber().propose(wide, reading_of([0.95, 0.7, 0.6, 0.55, 0.5, 0.4]))
    assert proposal.reason[0, 0].tolist() == [0, GONE, NOW, NOW, 0, 0]


def test_committed_positions_are_read_in_the_opened_blocks(run, denoisers, prompts):
    seen = []
    run(denoisers["context"], Saber(), prompts, early_stop=False, on_step=lambda s, r: seen.append((s, r)))
    for state, reading in seen:
        canvas = (state.block >= 0) & (state.block < state.opened.unsqueeze(-1))
        assert torch.equal(reading.rows, canvas & state.unfinished.unsqueeze(-1))


def test_no_commits_are_refused():
    with pytest.raises(ValueError, match=r"^least must be at least 1, got 0$"):
        Saber(0)
