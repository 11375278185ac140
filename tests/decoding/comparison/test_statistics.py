"""Statistics of a decode and the bits-to-rounds bound."""

from dataclasses import replace

import pytest
import torch

from decoding.comparison.statistics import bits_to_rounds, exploit_bound, per_round_invariant, statistics
from decoding.policies.ete import BeamETE
from decoding.policies.threshold import Threshold
from decoding.rounds.round import Counts
from decoding.state import Reason
from models.toys.toy import GroupDenoiser
from tests.decoding.factor_bounds import BOUNDS


@pytest.fixture
def finished(canvas):
    """A finished row with these reasons, confidences, rounds and tokens."""

    def finished_(reason, confidence, rounds=None, tokens=None):
        state = canvas(len(reason))
        return replace(
            state,
            masked=torch.zeros_like(state.masked),
            tokens=state.tokens if tokens is None else torch.tensor([tokens]),
            reason=torch.tensor([[int(r) for r in reason]]),
            committed_confidence=torch.tensor([confidence]),
            committed_round=torch.ones_like(state.tokens) if rounds is None else torch.tensor([rounds]),
        )

    return finished_


def cost(rounds, forwards, explored):
    return Counts(*(torch.tensor([n]) for n in (rounds, forwards, 10 * forwards, explored)), nfe=rounds)


@pytest.mark.parametrize(("c", "bits"), [(0.2, 2.321928), (0.9, 0.1520031), (0.95, 0.07400058), (0.99, 0.01449957)])
def test_self_information_of_a_token(finished, c, bits):
    figures = statistics(finished([Reason.EXPLOIT], [c]), cost(1, 1, 0))
    torch.testing.assert_close(figures.bits, torch.tensor([bits]), rtol=1e-5, atol=0)


def test_bits_and_shares_count_predicted_tokens_only(finished):
    reason = [Reason.EXPLOIT, Reason.FORCED, Reason.IMPLICIT, Reason.EXPLORE, Reason.END, Reason.NONE]
    figures = statistics(finished(reason, [0.5, 0.25, 0.5, 0.125, 0.1, 0.1]), cost(4, 10, 2))
    assert figures.bits.tolist() == [7.0]
    assert figures.bits_per_round.tolist() == [1.75]
    assert figures.forced_share.tolist() == [0.25]
    assert figures.explored_share.tolist() == [0.5]
    assert figures.token_positions.tolist() == [100]


def test_rounds_follow_from_the_share_of_rounds_that_branch(run, prompts):
    policy = BeamETE(gamma=0.6, min_masks=1, branches=3, step_budget=None, implicit=False)
    state, counts = run(GroupDenoiser(4, 8), policy, prompts, gen_length=32, block_length=8)
    figures = statistics(state, counts)
    assert (figures.explored_share > 0).all()
    rho = figures.explored_share
    torch.testing.assert_close(figures.rounds / figures.sequence_forwards, 1 / (1 + rho * (policy.branches - 1)))


def test_new_tokens_end_with_the_first_eos(finished):
    one = [Reason.EXPLOIT] * 5
    assert statistics(finished(one, [0.9] * 5, tokens=[1, 4, 2, 4, 4]), cost(1, 1, 0), eos_id=4).new_tokens.item() == 2
    assert statistics(finished(one, [0.9] * 5, tokens=[4, 1, 2, 3, 4]), cost(1, 1, 0), eos_id=4).new_tokens.item() == 1
    assert statistics(finished(one, [0.9] * 5, tokens=[1, 4, 2, 4, 4]), cost(1, 1, 0)).new_tokens.item() == 5


def test_an_eos_in_the_prompt_is_no_end(run, denoisers, prompts):
    state, counts = run(denoisers["sharp"], Threshold(), prompts.fill_(4), early_stop=False)
    canvas = state.tokens[:, 4:].tolist()
    expected = [row.index(4) + 1 if 4 in row else 12 for row in canvas]
    assert statistics(state, counts, eos_id=4).new_tokens.tolist() == expected


@pytest.mark.parametrize(("m", "factor", "nats"), [(m, f, nats) for m, f, _, nats, _ in BOUNDS])
def test_an_exploit_round_reveals_at_most_the_table(finished, m, factor, nats):
    bound = exploit_bound(torch.tensor(float(m)), factor)
    assert bound == pytest.approx(nats, rel=1e-5)
    assert bound <= factor
    edge = 1 - factor / (1 + m)
    state = finished([Reason.EXPLOIT] * m, [edge + 1e-6] * m)
    assert per_round_invariant(state, factor).item()
    assert not per_round_invariant(
        replace(state, committed_confidence=state.committed_confidence - 1e-3), factor
    ).item()


def test_the_invariant_looks_at_each_round_and_at_exploitation_alone(finished):
    reason = [Reason.EXPLOIT, Reason.EXPLOIT, Reason.FORCED, Reason.IMPLICIT, Reason.EXPLORE]
    apart = finished(reason, [0.5, 0.5, 0.1, 0.1, 0.1], rounds=[1, 2, 1, 2, 2])
    assert per_round_invariant(apart, 1.0).item()
    assert not per_round_invariant(replace(apart, committed_round=torch.ones_like(apart.tokens)), 1.0).item()


def test_a_low_threshold_breaks_the_invariant(run, denoisers, prompts):
    state, _ = run(denoisers["flat"], Threshold(0.2), prompts)
    assert not per_round_invariant(state, 1.0).any()


@pytest.mark.parametrize(
    ("nll", "n", "factor", "epsilon", "joint", "parts", "rounds"),
    [
        (100.0, 256, 1.0, 0.0, 18.0210, 100, 100),
        (100.0, 256, 0.5, 0.0, 145.0824, 200, 200),
        (100.0, 256, 0.5, 20.0, 145.0824, 160, 160),
        (64.0, 128, 0.25, 0.0, 224.4815, 256, 256),
        (10.0, 8, 1.0, 0.0, 4.5512, 10, 10),
        (100.0, 256, 1.0, 90.0, 18.0210, 10, 19),
    ],
)
def test_theorem_3_2(nll, n, factor, epsilon, joint, parts, rounds):
    bound = bits_to_rounds(nll, n=n, factor=factor, epsilon=epsilon)
    assert bound.joint == pytest.approx(joint, rel=1e-5)
    assert bound.parts == parts
    assert bound.rounds == rounds


@pytest.mark.parametrize("factor", [0.0, 1.5])
def test_the_bound_needs_a_factor_up_to_one(factor):
    with pytest.raises(ValueError, match=rf"factor must lie in \(0, 1\], got {factor}"):
        bits_to_rounds(1.0, n=2, factor=factor)
