"""The control for scoring: an exploration that draws its candidate."""

from dataclasses import replace

import torch

from decoding.policies.ete import RandomParity
from decoding.state import Reason


def test_random_parity_draws_uniformly_among_the_beams_candidates(canvas, reading_of):
    policy = RandomParity(implicit=False, min_masks=0, gamma=0.99, branches=3)
    noise = torch.rand(4000, 6, generator=torch.Generator().manual_seed(0))
    reading = replace(reading_of([0.95, 0.6, 0.25, 0.18, 0.4, 0.05], batch=4000), noise=noise)
    proposal = policy.propose(canvas(6, batch=4000), reading)
    share = (proposal.reason == Reason.EXPLORE).float().mean((0, 1))
    assert proposal.live.shape == (4000, 1)
    deviation = (1 / 3 * 2 / 3 / 4000) ** 0.5
    torch.testing.assert_close(share[[2, 3, 5]], torch.full((3,), 1 / 3), rtol=0, atol=3 * deviation)
    assert not share[[0, 1, 4]].any()


def test_random_parity_never_draws_a_candidate_that_does_not_exist(canvas, reading_of):
    policy = RandomParity(implicit=False, min_masks=0, gamma=0.99, branches=3)
    reading = reading_of([0.95, 0.3, 0.2], noise=[0.9, 0.1, 0.3])
    assert policy.propose(canvas(3), reading).reason.tolist() == [[[int(Reason.EXPLOIT), 0, int(Reason.EXPLORE)]]]
