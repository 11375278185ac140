"""Which positions are tried, what a canvas is worth, and when the look ahead is left out."""

from dataclasses import replace

import pytest
import torch

from decoding.commit import commit
from decoding.policies.field.info_gain import InfoGain
from decoding.reading import Reading
from decoding.sampling import Draws


def noisy(reading, chances):
    """The reading with one list of uniform draws for each candidate."""
    table = torch.tensor(chances).T.unsqueeze(0)
    return replace(
        reading, draws=replace(Draws.empty(tuple(reading.rows.shape), len(chances), torch.device("cpu")), chances=table)
    )


def places(proposal):
    return [row.nonzero().squeeze(-1).tolist() for row in proposal.reason[0]]


def test_the_most_confident_position_and_those_that_the_noise_prefers_are_tried(canvas, reading_of):
    reading = noisy(reading_of([0.6, 0.5, 0.4]), [[0.5] * 3, [0.01, 0.5, 0.99], [0.5, 0.5, 0.5]])
    proposal = InfoGain(candidate_number=3).propose(canvas(3), reading)
    assert places(proposal) == [[0], [2], [0]]  # Gumbel -1.53, .37, 4.6 against 3, 2.5, 2
    assert proposal.live.tolist() == [[True, True, False]]  # the same canvas runs once


def test_a_sure_block_is_committed_at_once_and_only_the_first_that_is_open(canvas, reading_of):
    state = canvas(4, 2, initial_blocks=9)
    proposal = InfoGain(0.8, candidate_number=2).propose(
        state, noisy(reading_of([0.8, 0.9, 0.1, 0.1]), [[0.5] * 4] * 2)
    )
    assert places(proposal) == [[0, 1], [0, 1]]
    assert proposal.live.tolist() == [[True, False]]
    proposal = InfoGain(0.8, candidate_number=2).propose(
        state, noisy(reading_of([0.79, 0.9, 0.95, 0.1]), [[0.5] * 4] * 2)
    )
    assert places(proposal)[0] == [1]


@pytest.mark.parametrize(("variant", "kept"), [("info_gain", 0), ("lookum", 1)])
def test_the_canvas_that_leaves_least_uncertainty_is_kept_less_what_it_costs(canvas, reading_of, variant, kept):
    """H = .3 and .9 at the two candidates; mean H of the two masks left .8 and .6, so J = -1.1 and -1.5, or -.8 and -.6."""
    policy = InfoGain(candidate_number=2, variant=variant)
    reading = noisy(reading_of([0.6, 0.5, 0.4], entropy=[0.3, 0.5, 0.9]), [[0.5] * 3, [0.5, 0.5, 0.999]])
    state = canvas(3)
    proposal = policy.propose(state, reading)
    assert places(proposal) == [[0], [2]]
    after = Reading.empty((1, 2, 3), torch.device("cpu"))
    rows = torch.tensor([[[False, True, True], [True, True, False]]])
    after = replace(after, rows=rows, entropy=torch.tensor([[[0.0, 0.7, 0.9], [0.5, 0.7, 0.0]]]))
    assert policy.choose(commit(state, reading, proposal), proposal, after).tolist() == [kept]


def test_one_candidate_is_the_most_confident_position_a_round(run, denoisers, prompts):
    final, counts = run(denoisers["context"], InfoGain(1.0, candidate_number=1), prompts, early_stop=False)
    assert counts.rounds.tolist() == counts.sequence_forwards.tolist() == [12] * 3
    assert (final.committed_round[:, 4:8].amax(-1) < final.committed_round[:, 8:12].amin(-1)).all()  # block by block


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: InfoGain(0.0), r"threshold must lie in \(0, 1\], got 0.0"),
        (lambda: InfoGain(candidate_number=0), "candidate_number must be at least 1, got 0"),
        (lambda: InfoGain(position_temperature=0.0), "position_temperature must be above 0, got 0.0"),
    ],
)
def test_settings_out_of_range_are_refused(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()
