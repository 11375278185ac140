"""What is drafted, what is taken back from a verified block, how often, and that it ends."""

from dataclasses import replace

import pytest
import torch

from decoding.commit import commit_first
from decoding.policies.field.wino import WINO
from decoding.state import Proposal, Reason

NOW, FORCED, GONE, AGAIN = (int(r) for r in (Reason.EXPLOIT, Reason.FORCED, Reason.REVOKED, Reason.AGAIN))


def after(state, reading_of, confidence, where):
    """The state with some positions committed in a round of its own."""
    reading = reading_of(confidence)
    reason = torch.tensor([[NOW * (i in where) for i in range(len(confidence))]])
    state = commit_first(state.count(reading), reading, Proposal.single(state, reading, reason))
    return state.count(reading)  # and the forward of the next round


def reasons(policy, state, reading):
    return policy.propose(state, reading).reason[0, 0].tolist()


def test_drafts_are_above_the_threshold_and_the_best_where_none_is(committed):
    assert committed(WINO(0.6), [0.61, 0.6, 0.9]) == {0: Reason.EXPLOIT, 2: Reason.EXPLOIT}
    assert committed(WINO(0.6), [0.3, 0.5, 0.4]) == {1: Reason.FORCED}


@pytest.mark.parametrize(("masks", "most"), [(4, 4), (6, 5), (10, 7), (19, 13), (30, 20), (60, 20)])
def test_a_round_drafts_seven_tenths_of_the_masks_at_least_five_and_at_most_twenty(committed, masks, most):
    confidence = [0.7 + 0.004 * i for i in range(masks)]
    assert sorted(committed(WINO(0.6), confidence)) == list(range(masks - most, masks))


def test_commits_that_no_longer_hold_are_taken_back_the_least_supported_first(canvas, reading_of):
    state = after(canvas(8), reading_of, [0.7] * 8, {0, 1, 2})
    reading = reading_of([0.5, 0.2, 0.95, 0.8, 0.8, 0.1, 0.1, 0.1])
    assert reasons(WINO(), state, reading) == [GONE, GONE, 0, NOW, NOW, 0, 0, 0]  # 2 < 3 drafts of the round before
    proposal = WINO().propose(state, reading)
    assert (proposal.tokens[0, 0] == 5).tolist() == [True, True, False, False, False, True, True, True]
    worse = reading_of([0.5, 0.2, 0.3, 0.8, 0.8, 0.1, 0.1, 0.1])
    assert reasons(WINO(), state, worse) == [0, GONE, GONE, NOW, NOW, 0, 0, 0]  # three fail, two may go
    assert reasons(WINO(threshold_back=0.3), state, worse) == [0, GONE, 0, NOW, NOW, 0, 0, 0]


def test_a_round_of_one_draft_takes_nothing_back(canvas, reading_of):
    state = after(canvas(8), reading_of, [0.7] * 8, {0, 1, 2})
    assert reasons(WINO(), state, reading_of([0.1, 0.1, 0.1, 0.8, 0.2, 0.1, 0.1, 0.1])) == [0, 0, 0, NOW, 0, 0, 0, 0]


def test_the_first_round_of_a_block_counts_as_thirty_commits(canvas, reading_of):
    """Half a block is there already, and the block has just opened."""
    state = after(canvas(8), reading_of, [0.7] * 8, {0, 1, 2, 3})
    state = replace(state, spent=torch.zeros_like(state.spent), round=state.round + 1)
    assert reasons(WINO(), state, reading_of([0.1, 0.1, 0.1, 0.1, 0.8, 0.8, 0.1, 0.1])) == [GONE] * 4 + [NOW, NOW, 0, 0]


def test_a_position_may_be_taken_back_again(canvas, reading_of):
    state = after(canvas(8), reading_of, [0.7] * 8, {0, 1, 2})
    seen = []
    for confidence in (
        [0.1, 0.95, 0.95, 0.8, 0.8, 0.1, 0.1, 0.1],
        [0.8, 0.95, 0.95, 0.95, 0.95, 0.8, 0.1, 0.1],
        [0.1, 0.95, 0.95, 0.95, 0.95, 0.95, 0.8, 0.8],
    ):
        reading = reading_of(confidence)
        proposal = WINO().propose(state, reading)
        seen.append(int(proposal.reason[0, 0, 0]))
        state = commit_first(state, reading, proposal).count(reading)
    assert seen == [GONE, AGAIN, GONE]


def test_a_doubtful_block_ends_within_a_round_for_each_position(run, denoisers, counting, prompts):
    denoiser = counting(denoisers["flat"])
    final, counts = run(denoiser, WINO(0.0, 1.0), prompts, block_length=12, early_stop=False)
    assert not final.masked.any()
    assert (final.reason == AGAIN).any()
    assert counts.rounds.max() <= 12
    assert torch.equal(counts.token_positions, counts.rounds * (4 + 12 + 12))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: WINO(1.0), r"threshold must lie in \[0, 1\), got 1.0"),
        (lambda: WINO(threshold_back=1.5), r"threshold_back must lie in \[0, 1\], got 1.5"),
    ],
)
def test_settings_out_of_range_are_refused(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()
