"""-log p(x) along the decoded order, and what a round reveals, on models whose joint law is known."""

import itertools
import math
from dataclasses import replace

import pytest
import torch

from decoding.comparison.statistics import bits_to_rounds, exploit_bound
from decoding.policies.bounds import Factor
from decoding.policies.ete import BeamETE
from decoding.state import Reason
from decoding.studies.chain_rule import by_round, decoded_order, joint_bound, token_nats
from models.denoiser import Denoiser, Prediction
from models.toys.toy import GroupDenoiser
from tests.decoding.factor_bounds import BOUNDS

CELLS = torch.tensor(list(itertools.product((0, 1), repeat=3)))
LAW = torch.tensor([0.3, 0.02, 0.05, 0.13, 0.01, 0.09, 0.15, 0.25])


class ExactJoint(Denoiser):
    """Conditionals of one joint law over three bits; token 2 is the mask."""

    mask_id, eos_id, vocab_size, max_length = 2, None, 3, 99

    def forward(self, tokens, *, rows=None, **_):
        canvas = tokens[:, -3:].unsqueeze(1)
        weight = LAW * ((canvas == CELLS) | (canvas == 2)).all(-1)
        ones = (weight.unsqueeze(-1) * CELLS).sum(1) / weight.sum(-1, keepdim=True)
        p = torch.nn.functional.pad(ones, (tokens.shape[1] - 3, 0), value=0.5)
        logits = torch.stack([1 - p, p, torch.zeros_like(p)], -1).log().clamp(min=-60)
        rows = torch.ones_like(tokens, dtype=torch.bool) if rows is None else rows
        return Prediction(logits[rows], rows, torch.full((len(tokens),), tokens.shape[1]))


class Turncoat(ExactJoint):
    """Token 0 has probability .9 at both last positions, but .1 as soon as the other one is revealed."""

    def forward(self, tokens, *, rows=None, **_):
        p = torch.where((tokens[:, -2:] != 2).any(-1), 0.1, 0.9).unsqueeze(-1).expand(tokens.shape)
        logits = torch.stack([p, 1 - p, torch.zeros_like(p)], -1).log().clamp(min=-60)
        return Prediction(logits[rows], rows, torch.full((len(tokens),), tokens.shape[1]))


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_the_chain_of_a_joint_law_is_its_log_probability_in_every_order(order):
    tokens = torch.cat([torch.zeros(8, 1, dtype=torch.long), CELLS], 1)
    turns = torch.tensor([[-1, *order]]).expand(8, -1)
    nats = token_nats(ExactJoint(), tokens, turns, batch_size=5)
    torch.testing.assert_close(nats.sum(-1), -LAW.log())
    assert (nats[:, 0] == 0).all()


def test_the_chain_conditions_on_what_came_before_alone():
    tokens, order = torch.tensor([[0, 1, 1]]), torch.tensor([[1, 0, 2]])
    nats = token_nats(ExactJoint(), tokens, order)[0]
    second, first_given, third_given = 0.05 + 0.13 + 0.15 + 0.25, 0.05 + 0.13, 0.13
    expected = torch.tensor([first_given / second, second, third_given / first_given])
    torch.testing.assert_close(nats, -expected.log())


def test_the_decoded_order_goes_by_round_and_left_to_right_within_one(canvas):
    state = canvas(6)
    reason = torch.tensor([[0, 1, 2, 1, 1, int(Reason.END)]])
    rounds = torch.tensor([[0, 2, 1, 2, 1, 2]])
    state = replace(state, masked=reason < 0, reason=reason, committed_round=rounds)
    assert decoded_order(state).tolist() == [[-1, 2, 0, 3, 1, -1]]


@pytest.mark.parametrize("factor", [0.3, 0.6, 1.0])
def test_no_confidence_only_round_of_a_joint_law_breaks_a_bound(run, factor):
    model = ExactJoint()
    state, counts = run(
        model, Factor(factor), torch.zeros(64, 1, dtype=torch.long), gen_length=3, block_length=3, temperature=1.0
    )
    rounds = by_round(state, token_nats(model, state.tokens, decoded_order(state)))
    assert rounds.exploit.any()
    assert (rounds.path <= exploit_bound(rounds.size, factor) * (1 + 1e-5))[rounds.exploit].all()
    assert (rounds.joint <= joint_bound(rounds.size, factor) * (1 + 1e-5))[rounds.exploit].all()
    assert (rounds.size.sum(-1) == 3).all()
    assert torch.equal((rounds.size > 0).sum(-1), counts.rounds)
    torch.testing.assert_close(
        rounds.joint.sum(-1), -(LAW[(state.tokens[:, 1:] * torch.tensor([4, 2, 1])).sum(-1)]).log()
    )


def test_inconsistent_conditionals_break_the_joint_bound_and_not_the_path_bound(run):
    state, _ = run(Turncoat(), Factor(1.0), torch.zeros(1, 1, dtype=torch.long), gen_length=2, block_length=2)
    rounds = by_round(state, token_nats(Turncoat(), state.tokens, decoded_order(state)))
    assert rounds.size.tolist() == [[2.0]]
    assert rounds.path.item() == pytest.approx(-2 * math.log(0.9))
    assert rounds.joint.item() == pytest.approx(-math.log(0.9 * 0.1))
    assert (rounds.joint - rounds.path).item() == pytest.approx(math.log(0.9) - math.log(0.1))
    assert rounds.path.item() <= exploit_bound(rounds.size, 1.0).item()
    assert rounds.joint.item() > joint_bound(rounds.size, 1.0).item()


def test_forced_rounds_are_told_apart(run, prompts):
    state, _ = run(GroupDenoiser(4, 8), Factor(0.9), prompts, gen_length=32, block_length=8)  # c = .5 passes at 1
    rounds = by_round(state, token_nats(GroupDenoiser(4, 8), state.tokens, decoded_order(state)))
    assert rounds.exploit.long().tolist() == [[0, 1] * 4] * 3
    torch.testing.assert_close(rounds.joint.sum(-1), torch.full((3,), 4 * math.log(2)), atol=0, rtol=2e-5)
    assert (rounds.total(rounds.joint) < 2e-5 * rounds.joint.sum(-1)).all()


def test_exploration_commits_jointly_what_no_exploit_round_could(run, prompts):
    model, policy = GroupDenoiser(4, 8), BeamETE(gamma=0.0, initial_blocks=4)
    state, counts = run(model, policy, prompts[:1], gen_length=32, block_length=8)
    rounds = by_round(state, token_nats(model, state.tokens, decoded_order(state)))
    bound = bits_to_rounds(float(rounds.joint.sum()), n=32, factor=1.0)
    assert counts.rounds.item() == 2 < bound.rounds == 3
    assert not rounds.exploit[0, 0]
    assert rounds.joint[0, 0] > joint_bound(rounds.size, 1.0)[0, 0] > 0


@pytest.mark.parametrize(("m", "f", "nats"), [(m, f, nats) for m, f, _, _, nats in BOUNDS])
def test_joint_information_of_a_round(m, f, nats):
    assert joint_bound(torch.tensor(float(m)), f).item() == pytest.approx(nats, rel=1e-5)
