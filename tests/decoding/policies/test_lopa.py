"""LoPA: an anchor and k branches in every round."""

import pytest
import torch

from decoding.policies.lopa import LoPA
from decoding.policies.threshold import Threshold
from decoding.state import Proposal, Reason


def reasons(canvas, reading_of, policy, confidence):
    proposal = policy.propose(canvas(len(confidence)), reading_of(confidence))
    return proposal.reason[0][proposal.live[0]].tolist()


def test_branches_add_one_of_the_most_confident_positions_to_the_anchor(canvas, reading_of):
    accepted = reasons(canvas, reading_of, LoPA(0.9, branches=2), [0.95, 0.3, 0.5, 0.4])
    assert accepted == [[1, 0, 0, 0], [1, 0, 4, 0], [1, 0, 0, 4]]


def test_the_anchor_takes_what_exceeds_the_threshold_or_the_best(canvas, reading_of):
    assert reasons(canvas, reading_of, LoPA(0.75, branches=1), [0.75, 0.8])[0] == [0, 1]
    assert reasons(canvas, reading_of, LoPA(0.75, branches=1), [0.75, 0.7])[0] == [int(Reason.FORCED), 0]


def test_only_remaining_positions_make_branches(canvas, reading_of):
    assert reasons(canvas, reading_of, LoPA(0.9, branches=3), [0.95, 0.95]) == [[1, 1]]
    assert reasons(canvas, reading_of, LoPA(0.9, branches=3), [0.95, 0.3]) == [[1, 0], [1, 4]]


@pytest.mark.parametrize(
    ("after", "live", "kept"),
    [
        ([[0.5, 0.7], [0.61, 0.0], [0.0, 0.9]], [True, True, True], 2),
        ([[0.5, 0.7], [0.61, 0.0], [0.0, 0.9]], [True, True, False], 1),
        ([[0.75, 0.75], [0.75, 0.0], [0.0, 0.5]], [True, True, True], 0),
        ([[0.9, 0.0], [0.0, 0.0], [0.0, 0.0]], [True, True, False], 1),
    ],
)
def test_the_greatest_mean_confidence_is_kept_and_a_finished_canvas_counts_as_sure(
    canvas, reading_of, after, live, kept
):
    blank = torch.zeros(1, 3, 2, dtype=torch.long)
    proposal = Proposal(blank, blank, torch.tensor([live]), torch.zeros(1, 3))
    assert LoPA().choose(canvas(2).repeat(3), proposal, reading_of(after)).tolist() == [kept]


def test_where_nothing_remains_uncertain_it_is_the_threshold_rule(run, denoisers, prompts):
    lopa, counts = run(denoisers["flat"], LoPA(1e-6), prompts)
    plain, cost = run(denoisers["flat"], Threshold(1e-6), prompts)
    assert torch.equal(lopa.tokens, plain.tokens)
    assert torch.equal(counts.sequence_forwards, cost.sequence_forwards)


@pytest.mark.parametrize("make", [lambda: LoPA(1.0), lambda: LoPA(0.0), lambda: LoPA(branches=0)])
def test_settings_out_of_range_are_refused_by_name_rule_and_value(make):
    with pytest.raises(ValueError, match=r"^(threshold|branches) must .*, got [0-9.]+$"):
        make()
