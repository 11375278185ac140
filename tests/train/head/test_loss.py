"""The losses of a scoring head, with numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from train.head.loss import conflict_loss, floored, huber_gain_loss, listwise_loss, risk_loss

T, F = True, False


def listwise(score, target, valid=None, temperature=1.0) -> torch.Tensor:
    score, target = torch.tensor([score]), torch.tensor([target])
    return listwise_loss(
        score,
        target,
        torch.ones_like(score, dtype=torch.bool) if valid is None else torch.tensor([valid]),
        temperature=temperature,
    )


def test_risk_is_the_mean_cross_entropy_of_what_is_known():
    logit, wrong = torch.tensor([[0.0, math.log(3), -math.log(3), 9.0]]), torch.tensor([[1.0, 1.0, 0.0, 0.0]])
    known = torch.tensor([[T, T, T, F]])
    expected = (math.log(2) + math.log(4 / 3) + math.log(4 / 3)) / 3
    assert risk_loss(logit, wrong, known).item() == pytest.approx(expected)
    assert risk_loss(logit, wrong, ~known & known).item() == 0


def test_conflict_is_the_mean_cross_entropy_of_the_known_pairs():
    logit = torch.tensor([[[0.0, math.log(3)], [math.nan, -math.log(3)]]], requires_grad=True)
    changed, known = torch.tensor([[[1.0, 1.0], [1.0, 1.0]]]), torch.tensor([[[T, T], [F, T]]])
    loss = conflict_loss(logit, changed, known)
    assert loss.item() == pytest.approx((math.log(2) + math.log(4 / 3) + math.log(4)) / 3)
    loss.backward()
    assert logit.grad[0, 1, 0] == 0
    assert conflict_loss(logit, changed, ~known & known).item() == 0


def test_focus_weighs_wrong_tokens_rated_safe_and_nothing_else():
    logit, wrong = torch.tensor([[-1.0, -1.0, 1.0, 0.0]]), torch.tensor([[1.0, 0.0, 1.0, 1.0]])
    known = torch.ones(1, 4, dtype=torch.bool)
    plain, focused = risk_loss(logit, wrong, known), risk_loss(logit, wrong, known, focus=3.0)
    assert (focused - plain).item() == pytest.approx(3 * math.log(1 + math.e) / 4)  # the first one's, three times more


def test_listwise_is_the_divergence_from_the_softmax_of_the_targets():
    wanted, predicted = [0.75, 0.25], [0.5, 0.5]
    expected = sum(w * math.log(w / s) for w, s in zip(wanted, predicted, strict=True))
    assert listwise([0.0, 0.0], [math.log(3), 0.0]).item() == pytest.approx(expected)
    assert listwise([0.0, 0.0], [2 * math.log(3), 0.0], temperature=2.0).item() == pytest.approx(expected)
    assert listwise([5.0 + math.log(3), 5.0], [math.log(3), 0.0]).item() == pytest.approx(0, abs=1e-6)  # any constant


@pytest.mark.parametrize("temperature", [0.1, 1.0, 7.0])
def test_a_state_of_equal_targets_or_of_one_branch_teaches_nothing(temperature):
    for target, valid in (
        ([2.0, 2.0, 2.0], [T, T, T]),
        ([2.0, 2.0, 9.0], [T, T, F]),
        ([1.0, 5.0, 3.0], [F, T, F]),
        ([1.0, 2.0, 3.0], [F, F, F]),
    ):
        score = torch.tensor([[1.0, -2.0, 0.5]], requires_grad=True)
        loss = listwise_loss(score, torch.tensor([target]), torch.tensor([valid]), temperature=temperature)
        loss.backward()
        assert loss.item() == 0
        assert score.grad is not None
        assert not score.grad.any()


def test_states_are_averaged_over_those_that_teach():
    score, target = torch.zeros(3, 2), torch.tensor([[math.log(3), 0.0], [1.0, 1.0], [0.0, math.log(3)]])
    alone = listwise([0.0, 0.0], [math.log(3), 0.0]).item()
    assert listwise_loss(score, target, torch.ones(3, 2, dtype=torch.bool), temperature=1.0).item() == pytest.approx(
        alone
    )


@pytest.mark.parametrize("temperature", [0.1, 1.0])
@pytest.mark.parametrize("beyond", [1e6, -1e6, -math.inf])
def test_invalid_branches_have_no_influence(temperature, beyond):
    valid = torch.tensor([[T, T, F], [F, F, F]])
    few = torch.tensor([[0.3, -0.2]], requires_grad=True)
    expected = listwise_loss(few, torch.tensor([[2.0, 1.0]]), torch.tensor([[T, T]]), temperature=temperature)
    score = torch.tensor([[0.3, -0.2, 55.0], [1.0, 2.0, 3.0]], requires_grad=True)
    target = torch.tensor([[2.0, 1.0, beyond], [beyond] * 3])
    loss = listwise_loss(score, target, valid, temperature=temperature)
    assert loss.item() == pytest.approx(expected.item())
    loss.backward()
    expected.backward()
    assert torch.allclose(score.grad[0, :2], few.grad[0])
    assert not score.grad[0, 2].any()
    assert not score.grad[1].any()


def test_listwise_pulls_towards_the_better_branch():
    score = torch.zeros(1, 3, requires_grad=True)
    listwise_loss(
        score, torch.tensor([[0.0, 3.0, 1.0]]), torch.ones(1, 3, dtype=torch.bool), temperature=1.0
    ).backward()
    assert score.grad[0].argmin() == 1
    assert score.grad[0].argmax() == 0


def test_what_sets_off_nothing_ranks_last_in_its_own_state():
    lost = -math.inf
    eq7 = torch.tensor([[2.0, lost, -1.5, lost], [lost, lost, lost, 4.0], [lost, 3.0, lost, lost]])
    valid = torch.tensor([[T, T, T, F], [T, T, F, F], [T, T, F, F]])
    found = floored(eq7, valid)
    assert found[0, :3].tolist() == [2.0, -2.5, -1.5]
    assert found[1, :2].tolist() == [0, 0]  # nothing crossed: equal, whatever is not valid says
    assert found[2, :2].tolist() == [2.0, 3.0]
    assert torch.isfinite(found).all()


def test_a_branch_that_sets_off_nothing_is_pushed_down():
    score, valid = torch.zeros(2, 2, requires_grad=True), torch.ones(2, 2, dtype=torch.bool)
    target = floored(torch.tensor([[0.3, -math.inf], [-math.inf, -math.inf]]), valid)
    listwise_loss(score, target, valid, temperature=1.0).backward()
    assert score.grad[0, 1] > 0 > score.grad[0, 0]
    assert not score.grad[1].any()


def test_huber_keeps_the_unit_of_the_gain():
    score, gain = torch.tensor([[0.0, 1.0, 9.0]]), torch.tensor([[0.5, 4.0, 0.0]])
    valid = torch.tensor([[T, T, F]])
    assert huber_gain_loss(score, gain, valid).item() == pytest.approx((0.5 * 0.25 + (3 - 0.5)) / 2)
    assert huber_gain_loss(score, gain, valid & ~valid).item() == 0
