"""Decoding by risk and conflict: two candidates that are safe one by one and change each other are not committed together."""

from __future__ import annotations

import pytest
import torch

from decoding.features import NAMES
from decoding.policies.learned import PASSES, Learned, compatible_set, safe_set
from decoding.state import Reason
from models.heads.config import HeadConfig
from models.heads.conflict_output import Conflicts
from models.heads.scoring_head import Scores, ScoringHead

EXPLOIT, FORCED = Reason.EXPLOIT, Reason.FORCED
RISK = [0.02, 0.3, 0.01, 0.04, 0.6, 0.05]


class Opinion(ScoringHead):
    """A head that says the same whatever it reads; conflicts as (i, j) -> probability, 0 elsewhere."""

    def __init__(self, conflict: dict[tuple[int, int], float]) -> None:
        super().__init__(HeadConfig("linear", NAMES, pairs=6))
        wanted = torch.full((6, 6), -30.0)
        for pair, probability in conflict.items():
            wanted[pair] = torch.tensor(probability).logit()
        nothing = torch.zeros(1, 6)
        pairs = Conflicts(wanted.unsqueeze(0) * 6**0.5, torch.eye(6).unsqueeze(0), nothing, nothing)
        self.said = Scores(torch.tensor([RISK]).logit(), torch.zeros(1, 6), pairs)

    def forward(self, features, rows, token, taps=()) -> Scores:
        return self.said


@pytest.mark.parametrize(
    ("conflict", "bound", "expected"),
    [
        ({}, 0.0501, {0, 2, 3, 5}),
        ({(2, 0): 0.9}, 0.0501, {2, 3, 5}),  # 2 is the safer of the two
        ({(0, 2): 0.9}, 0.0501, {2, 3, 5}),  # whichever of the two changes the other
        ({(2, 0): 0.0299}, 0.0501, {0, 2, 3, 5}),  # .02 + .0299 < .0501
        ({(2, 0): 0.0302}, 0.0501, {2, 3, 5}),
        ({(2, 0): 0.9, (0, 3): 0.9}, 0.0501, {2, 3, 5}),  # what did not join changes nothing
        ({(2, 3): 0.005, (0, 3): 0.008}, 0.0501, {0, 2, 3, 5}),  # the largest, not the sum
        ({(2, 3): 0.005, (0, 3): 0.011}, 0.0501, {0, 2, 5}),
        ({(2, 0): 0.9, (2, 3): 0.9, (2, 5): 0.9}, 0.0501, {2}),
        ({(2, 1): 0.1}, 0.0501, {0, 2, 3, 5}),
    ],
)
def test_what_is_safe_together(committed, conflict, bound, expected):
    policy = Learned(Opinion(conflict), risk_bound=bound, rule="pairs")
    assert committed(policy, [0.5] * 6) == dict.fromkeys(expected, EXPLOIT)


@pytest.mark.parametrize(
    ("conflict", "bound", "expected"),
    [
        ({}, 0.0701, {0, 2, 3}),  # .01 + .02 + .04
        ({}, 0.0699, {0, 2}),
        ({(2, 0): 0.03}, 0.0701, {0, 2}),  # no room left for 3
        ({(2, 0): 0.9}, 0.1001, {2, 3, 5}),  # 0 does not fit, the riskier two do
        ({(3, 0): 0.02, (2, 3): 0.01}, 0.1001, {0, 2, 3}),  # .07 + .02 + .01: both conflicts of 3 count
        ({(3, 0): 0.02, (2, 3): 0.0102}, 0.1001, {0, 2, 5}),
        ({(0, 3): 0.02, (3, 0): 0.02}, 0.0901, {0, 2, 3}),  # the larger direction, once
    ],
)
def test_the_sum_of_all_risks_and_conflicts_stays_under_the_bound(committed, conflict, bound, expected):
    policy = Learned(Opinion(conflict), risk_bound=bound, rule="total")
    assert committed(policy, [0.5] * 6) == dict.fromkeys(expected, EXPLOIT)


@pytest.mark.parametrize("rule", ["pairs", "total"])
def test_the_safest_position_commits_where_none_is_safe(committed, rule):
    assert committed(Learned(Opinion({}), risk_bound=0.0099, rule=rule), [0.5] * 6) == {2: FORCED}


@pytest.mark.parametrize("rule", ["each", "sum"])
def test_other_rules_do_not_look_at_conflicts(committed, rule):
    ours = committed(Learned(Opinion({(2, 0): 0.9}), risk_bound=0.0501, rule=rule), [0.5] * 6)
    assert ours == committed(Learned(Opinion({}), risk_bound=0.0501, rule=rule), [0.5] * 6)


@pytest.mark.parametrize("total", [False, True])
def test_rows_of_a_batch_are_judged_apart_and_as_one_by_one_in_order_of_risk(total):
    draw = torch.Generator().manual_seed(0)
    risk, conflict = torch.rand(20, 7, generator=draw), torch.rand(20, 7, 7, generator=draw) * 0.6
    rows = torch.rand(20, 7, generator=draw) < 0.7
    found = compatible_set(risk, conflict, rows, 0.6, total=total)
    for b in range(20):
        taken: list[int] = []
        spent = 0.0

        def beside(j: int) -> float:
            held = [float(max(conflict[b, i, j], conflict[b, j, i])) for i in taken]  # noqa: B023
            return float(risk[b, j]) + (sum(held) if total else max(held, default=0.0))  # noqa: B023

        places = sorted(rows[b].nonzero().squeeze(-1).tolist(), key=lambda j: float(risk[b, j]))
        for j in places:
            if spent + beside(j) < 0.6:
                spent += beside(j) * total
                taken.append(j)
        assert found[b].nonzero().squeeze(-1).tolist() == sorted(taken)
    assert (found != safe_set(risk, rows, 0.6, each=True)).any()


def test_in_a_long_chain_of_conflicts_what_is_taken_is_compatible_and_right_where_the_turns_reach():
    """Each position conflicts with the next safest one: a walk takes every other one."""
    length = 40
    conflict = torch.diag(torch.full((length - 1,), 0.9), 1).unsqueeze(0)
    risk = torch.linspace(0.01, 0.1, length).unsqueeze(0)
    found = compatible_set(risk, conflict, risk > 0, 0.2)[0]
    assert found[:PASSES].tolist() == [place % 2 == 0 for place in range(PASSES)]
    assert not (found[1:] & found[:-1]).any()


def test_without_conflicts_it_is_each():
    risk = torch.rand(20, 7, generator=torch.Generator().manual_seed(1))
    rows = risk > 0.1
    for bound in (0.05, 0.3, 1.0):
        ours = compatible_set(risk, torch.zeros(20, 7, 7), rows, bound)
        assert torch.equal(ours, safe_set(risk, rows, bound, each=True))


def test_without_a_rule_a_head_with_conflicts_uses_them_and_another_sums_its_risks(committed):
    ours = committed(Learned(Opinion({(2, 0): 0.9}), risk_bound=0.0501), [0.5] * 6)
    assert ours == dict.fromkeys({2, 3}, EXPLOIT)
    alone = ScoringHead(HeadConfig("linear", NAMES))  # risk is 1 - c
    sure = [0.98, 0.5, 0.99, 0.96, 0.5, 0.5]
    assert committed(Learned(alone, risk_bound=0.0301), sure) == dict.fromkeys({0, 2}, EXPLOIT)  # .01 + .02


@pytest.mark.parametrize("rule", ["pairs", "total"])
def test_a_head_without_pairs_is_refused(rule):
    with pytest.raises(
        ValueError, match=f"^rule must be each, sum or confidence for a head without a conflict output, got '{rule}'$"
    ):
        Learned(ScoringHead(HeadConfig("linear", NAMES)), rule=rule)
