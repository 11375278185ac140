"""A cycle worked by hand: two slow rounds settle its end, the fast ones fill it and see no further."""

from dataclasses import replace

import pytest
import torch

from decoding.commit import commit_first
from decoding.policies.field.slow_fast import SlowFast, offset
from decoding.state import Reason

EXPLOIT, FORCED = int(Reason.EXPLOIT), int(Reason.FORCED)
POLICY = SlowFast(slow_rounds=2)


def begun(canvas, length, block_length=None):
    state = canvas(length, block_length)
    return replace(state, memory=torch.zeros(1, 5, length))


def step(policy, state, reading):
    proposal = policy.propose(state, reading)
    return proposal.reason[0, 0].tolist(), commit_first(state, reading, proposal)


def test_a_cycle(canvas, reading_of):
    state = begun(canvas, 6)
    reason, state = step(POLICY, state, reading_of([0.95, 0.4, 0.2, 0.35, 0.1, 0.1]))  # the end is estimated as 4
    assert reason == [EXPLOIT, 0, 0, 0, 0, 0]
    reason, state = step(POLICY, state, reading_of([0.0, 0.5, 0.2, 0.4, 0.1, 0.1]))  # as 4 again: settled
    assert reason == [0, FORCED, 0, 0, 0, 0]
    assert POLICY.visible(state).all()
    reason, state = step(POLICY, state, reading_of([0.0, 0.0, 0.2, 0.4, 0.99, 0.1]))  # 4 is behind the end
    assert reason == [0, 0, 0, FORCED, 0, 0]
    assert POLICY.visible(state)[0].tolist() == [True] * 4 + [False] * 2
    reason, state = step(POLICY, state, reading_of([0.0, 0.0, 0.2, 0.0, 0.99, 0.1]))
    assert reason == [0, 0, FORCED, 0, 0, 0]
    assert POLICY.visible(state).all()  # the next cycle starts at 4, slowly
    reason, state = step(POLICY, state, reading_of([0.0, 0.0, 0.0, 0.0, 0.99, 0.2]))
    assert reason == [0, 0, 0, 0, EXPLOIT, 0]


@pytest.mark.parametrize(
    ("estimates", "end"),
    [
        ((5, 5), 5),
        ((5, 6), 6),  # a standard deviation of .5
        ((3, 6), 4),  # 1.5: the mean, rounded down
    ],
)
def test_estimates_that_differ_by_one_at_most_settle_the_end(canvas, reading_of, estimates, end):
    state = begun(canvas, 8)
    for i, estimate in enumerate(estimates):
        confidence = [0.2] * 8
        confidence[estimate - 1] = 0.3
        confidence[i] = 0.5  # is committed
        reading = reading_of(confidence)
        reading = replace(reading, rows=state.masked, confidence=reading.confidence * state.masked)
        policy = SlowFast(slow_rounds=2, cycle_threshold=0.3)
        _, state = step(policy, state, reading)
    _, state = step(policy, state, replace(reading_of([0.1] * 8), rows=state.masked))
    assert policy.visible(state)[0].sum() == end


def test_rows_without_any_sure_position_have_a_stretch_of_one(canvas, reading_of):
    _, state = step(SlowFast(slow_rounds=1), begun(canvas, 4), reading_of([0.1, 0.2, 0.1, 0.1]))
    reason, _ = step(SlowFast(slow_rounds=1), state, reading_of([0.1, 0.0, 0.9, 0.9]))
    assert reason == [FORCED, 0, 0, 0]


def test_places_count_from_the_newest_block(canvas):
    assert offset(canvas(6, 3, initial_blocks=2)).tolist() == [[-3, -2, -1, 0, 1, 2]]


def test_the_forward_gets_what_is_visible(run, denoisers, counting, prompts):
    masks = []

    class Watching(counting):
        def forward(self, tokens, **kwargs):
            masks.append(kwargs["attention_mask"])
            return super().forward(tokens, **kwargs)

    run(Watching(denoisers["sharp"]), SlowFast(0.999999, slow_rounds=1), prompts, early_stop=False)
    assert masks[0].all()
    assert any(not mask.all() for mask in masks)


@pytest.mark.parametrize("settings", [{"threshold": 0.0}, {"cycle_threshold": 2.0}, {"slow_rounds": 0}])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ValueError, match=f"^{next(iter(settings))} must "):
        SlowFast(**settings)
