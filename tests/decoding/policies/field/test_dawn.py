"""Which positions the attention ties together, and what is committed beside what."""

from dataclasses import replace

import pytest
import torch

from decoding.commit import commit_first
from decoding.policies.field.dawn import DAWN, independent_set
from decoding.state import Proposal, Reason

FORCED, NOW = int(Reason.FORCED), int(Reason.EXPLOIT)


def reasons(policy, state, reading, attention):
    """Reasons of the canvas where position j gives `attention[j, i]` to i, and the rest to a sink that no one reads."""
    size = reading.rows.shape[1]
    table = torch.full((1, size, size), 1e-4)
    for (j, i), value in attention.items():
        table[0, j, i] = value
    return policy.propose(state, replace(reading, attention=table)).reason[0, 0].tolist()


LAX = DAWN(tau_low=0.6, tau_sink=0.5)


def test_the_confident_go_at_once_and_the_best_where_nothing_does(canvas, reading_of):
    assert reasons(LAX, canvas(3), reading_of([0.95, 0.9, 0.5]), {}) == [NOW, NOW, 0]
    assert reasons(LAX, canvas(3), reading_of([0.2, 0.5, 0.3]), {}) == [0, FORCED, 0]


def test_of_the_rest_an_independent_set_goes_the_most_confident_first(canvas, reading_of):
    reading = reading_of([0.7, 0.8, 0.75, 0.65, 0.5])
    assert reasons(LAX, canvas(5), reading, {(0, 1): 0.1, (2, 3): 0.1}) == [0, NOW, NOW, 0, 0]
    assert reasons(LAX, canvas(5), reading, {(1, 0): 0.1, (3, 2): 0.1}) == [0, NOW, NOW, 0, 0]  # in either direction
    assert reasons(LAX, canvas(5), reading, {(0, 1): 0.06, (2, 3): 0.06}) == [
        NOW,
        NOW,
        NOW,
        NOW,
        0,
    ]  # weaker than an edge


def test_a_position_that_reads_a_sure_anchor_needs_less(canvas, reading_of):
    state, first = canvas(4), reading_of([0.95, 0.1, 0.1, 0.1])
    plan = Proposal.single(state, first, torch.tensor([[NOW, 0, 0, 0]]))
    state = commit_first(state, first, plan)
    policy = DAWN(tau_low=0.8, tau_induce=0.7, tau_sink=0.5)
    assert reasons(policy, state, reading_of([0.95, 0.72, 0.72, 0.1]), {(1, 0): 0.2}) == [0, NOW, 0, 0]
    assert reasons(policy, state, reading_of([0.5, 0.72, 0.73, 0.1]), {(1, 0): 0.2}) == [
        0,
        0,
        FORCED,
        0,
    ]  # unsure itself


def test_a_position_tied_to_one_both_confident_and_induced_waits(canvas, reading_of):
    state, first = canvas(4), reading_of([0.95, 0.1, 0.1, 0.1])
    plan = Proposal.single(state, first, torch.tensor([[NOW, 0, 0, 0]]))
    state = commit_first(state, first, plan)
    reading = reading_of([0.95, 0.92, 0.8, 0.8])
    assert reasons(LAX, state, reading, {(1, 0): 0.2, (2, 1): 0.2}) == [0, NOW, 0, NOW]
    assert reasons(LAX, state, reading, {(2, 1): 0.2}) == [0, NOW, NOW, NOW]  # confident, but not induced


def test_what_everyone_reads_ties_no_one(canvas, reading_of):
    reading, everyone = reading_of([0.7, 0.8, 0.75]), {(j, 1): 0.4 for j in range(3)}
    assert reasons(DAWN(tau_low=0.6, tau_sink=0.5), canvas(3), reading, everyone) == [0, NOW, 0]
    assert reasons(DAWN(tau_low=0.6, tau_sink=0.3), canvas(3), reading, everyone) == [NOW, NOW, NOW]


def test_an_independent_set_is_that_of_a_walk_from_the_best_on():
    generator = torch.Generator().manual_seed(0)
    score, edges = torch.rand(20, 12, generator=generator), torch.rand(20, 12, 12, generator=generator) < 0.2
    edges = edges | edges.transpose(-1, -2)
    nodes = torch.rand(20, 12, generator=generator) < 0.8
    found = independent_set(nodes, edges, score)
    for row in range(20):
        walk: list[int] = []
        for i in score[row].argsort(descending=True).tolist():
            if nodes[row, i] and not edges[row, i, walk].any():
                walk.append(i)
        assert found[row].nonzero().squeeze(-1).tolist() == sorted(walk)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: DAWN(tau_low=0.0), r"tau_low must lie in \(0, 1\], got 0.0"),
        (lambda: DAWN(tau_edge=2.0), r"tau_edge must lie in \(0, 1\], got 2.0"),
        (lambda: DAWN(maps=0), "maps must be at least 1, got 0"),
    ],
)
def test_settings_out_of_range_are_refused(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()
