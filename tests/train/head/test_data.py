"""Batches that heads are fitted on: labels from rows by hand, and the control whose labels are dealt anew."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from decoding.features import NAMES
from decoding.traces.branches import FLOOR
from models.heads.config import HeadConfig
from models.heads.scoring_head import ScoringHead
from models.toys.toy import GroupDenoiser
from train.head.data import HeadData, cascade_gain
from train.head.loss import listwise_loss
from train.head.module import HeadModule, PreparedBatches, risk_labels, worth
from train.head.settings import Objective

MASK, EOS = 2, 3
CROSSED, OPEN = -2.4, -2.2  # log(1 - c) on either side of .9


def branch(position: int, token: list[int], log_risk: list[float], **changes: Any) -> dict[str, Any]:
    values = {"position": position, "kind": 4, "propensity": 1.0, "log_confidence": -0.5, "eq7": 0.25}
    return {**values, "token": token, "log_risk": log_risk, "harm": -1, "benefit": -1, "answer": [], **changes}


ALONE = branch(-1, [0, 0, 1], [OPEN, OPEN, OPEN], kind=0)


def row(prompt: list[int], **changes: Any) -> dict[str, Any]:
    """A canvas of four: position 0 says 0, the others are masked and asked for."""
    values = {
        "task": "bits", "tokens": [*prompt, 0, MASK, MASK, MASK], "reference": [0, 0, 1, EOS], "unique_answer": True,
        "committed_round": [1, -1, -1, -1], "recent_confidence": [0.0] * 8, "recent_token": [-1] * 8, "opened": 1,
        "spent": 1, "round": 2, "block_length": 4, "asked": [False, True, True, True],
        "branches": [
            ALONE,
            branch(1, [-1, 0, 1], [FLOOR, CROSSED, OPEN], kind=2, eq7=0.75, harm=1),
            branch(3, [0, 0, -1], [CROSSED, OPEN, FLOOR], eq7=-float("inf"), harm=0),
        ],
    }  # fmt: skip
    return {**values, **changes}


def data(*rows: dict[str, Any], threshold: float = 0.9, branches: int = 4) -> HeadData:
    return HeadData(rows, MASK, EOS, threshold, branches)


@pytest.mark.parametrize(
    ("token", "log_risk", "reference", "gain"),
    [
        ([-1, 0, 1], [FLOOR, CROSSED, CROSSED], [0, 0, 1], 2),
        ([-1, 0, 1], [FLOOR, OPEN, CROSSED], [0, 0, 1], 1),
        ([-1, 1, 1], [FLOOR, CROSSED, CROSSED], [0, 0, 1], 0),  # one right, one wrong
        ([-1, 1, 0], [FLOOR, CROSSED, CROSSED], [0, 0, 1], -2),
        ([-1, 0, 1], [FLOOR, CROSSED, CROSSED], [0, -1, 1], 1),  # not known
        ([-1, -1, -1], [FLOOR, FLOOR, FLOOR], [0, 0, 1], 0),  # committed by the branch, not crossed
        ([-1, 0, 1], [FLOOR, OPEN, OPEN], [0, 0, 1], 0),
    ],
)
def test_gain_is_what_crosses_right_less_what_crosses_wrong(token, log_risk, reference, gain):
    assert cascade_gain(branch(1, token, log_risk), ALONE, np.array(reference), threshold=0.9) == gain


def test_what_crosses_without_the_branch_is_no_gain():
    alone = branch(-1, [0, 0, 1], [OPEN, CROSSED, OPEN])
    one = branch(1, [-1, 0, 1], [FLOOR, CROSSED, CROSSED])
    assert cascade_gain(one, alone, np.array([0, 0, 1]), threshold=0.9) == 1


def test_the_dial_decides_what_crosses():
    one = branch(1, [-1, 0, 1], [FLOOR, -1.0, -5.0])
    gains = [
        cascade_gain(one, branch(-1, [0, 0, 1], [-0.1] * 3), np.array([0, 0, 1]), threshold=t)
        for t in (0.5, 0.9, 0.999)
    ]
    assert gains == [2, 1, 0]


def test_a_batch_holds_every_label_at_its_place():
    batch = data(row([1, 0]), row([1, 0, 1], unique_answer=False, branches=[])).batch([0, 1])
    assert batch.attention_mask[:, 0].tolist() == [False, True]
    assert batch.position.tolist() == [[4, 6, -1, -1], [-1] * 4]  # of the sequence: one of padding, two of prompt
    assert batch.valid.tolist() == [[True, True, False, False], [False] * 4]
    assert batch.gain[0, :2].tolist() == [-1, 1]  # 0 crosses where 1 is right; 0 crosses and is right
    assert batch.eq7[0, :2].tolist() == [0.75, -torch.inf]
    assert batch.beam.tolist() == [[True, False, False, False], [False] * 4]
    assert batch.log_confidence[0].tolist() == [-0.5, -0.5, 0, 0]
    assert batch.reference.tolist() == [[-1, -1, -1, 0, 0, 1, EOS]] * 2
    assert batch.harm.tolist() == [[-1, -1, -1, -1, 1, -1, 0], [-1] * 7]
    assert batch.unique.tolist() == [True, False]
    assert batch.state_index.tolist() == [0, 1]
    assert batch.state.masked.tolist() == [[False] * 4 + [True] * 3] * 2


def test_an_eos_counts_neither_for_nor_against_a_branch():
    ends = branch(1, [-1, 0, EOS], [FLOOR, OPEN, CROSSED])
    assert data(row([1], branches=[ALONE, ends])).batch([0]).gain[0, 0] == 0
    without = HeadData((row([1], branches=[ALONE, ends]),), MASK, None, 0.9, 4)
    assert without.batch([0]).gain[0, 0] == 1


def test_more_branches_than_columns_are_cut():
    assert data(row([1]), branches=1).batch([0]).position.tolist() == [[2]]


def test_a_pass_serves_every_row_once_in_batches_of_one_task_and_block_length():
    rows = [row([1] * (1 + i % 3), task=("bits", "more")[i % 2], block_length=(4, 2)[i % 5 == 0]) for i in range(11)]
    for generator in (None, torch.Generator().manual_seed(0)):
        batches = list(data(*rows).batches(3, generator=generator))
        served = [int(i) for b in batches for i in b.state_index]
        assert sorted(served) == list(range(11))
        for b in batches:
            kinds = {(rows[i]["task"], rows[i]["block_length"]) for i in b.state_index.tolist()}
            assert len(kinds) == 1
            assert len(b.state_index) <= 3


def test_the_order_of_a_pass_is_drawn_from_the_generator():
    rows = [row([1])] * 12

    def order(seed: int | None) -> list[int]:
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        return [int(i) for b in data(*rows).batches(3, generator=generator) for i in b.state_index]

    assert order(None) == list(range(12))
    assert order(0) == order(0) != order(1)
    assert order(0) != list(range(12))


def prepared(*rows: dict[str, Any], seed: int | None = None) -> PreparedBatches:
    """Behind a trunk that says 0 everywhere once a 0 is revealed."""
    denoiser = GroupDenoiser(1, 4)
    found = PreparedBatches(denoiser, [data(*rows).batch(range(len(rows)))], taps=(), threshold=0.9)
    return found if seed is None else found.with_shuffled_labels(seed)


def test_risk_is_known_where_the_answer_is_unique_and_nothing_is_wrong_yet():
    lost = row([1], tokens=[1, 0, MASK, 1, MASK], reference=[0, 0, 0, EOS])  # the 1 is wrong
    one = prepared(row([1]), lost)[0]
    assert one.known.tolist() == [[False, False, True, True, True], [False] * 5]
    assert one.wrong[0, 2:].tolist() == [0, 1, 1]
    blind = prepared(row([1], reference=[-1] * 4))[0]
    assert not blind.known.any()


def test_elsewhere_risk_is_known_where_a_finish_was_judged():
    one = prepared(row([1], unique_answer=False))[0]
    assert one.known.tolist() == [[False, False, True, False, True]]
    assert one.wrong[0, [2, 4]].tolist() == [1, 0]
    _, known = risk_labels(one.batch, replace(one.reading, rows=one.reading.rows & False))
    assert not known.any()


@pytest.mark.parametrize("unique", [True, False])
def test_worth_is_the_score_less_the_weight_of_a_harmful_token(unique):
    """The trunk says 0: right at 1, wrong at 2; judged elsewhere: harmful at 1, harmless at 3, not judged at 2."""
    tried = [branch(1, [-1] * 3, [FLOOR] * 3, kind=2, harm=1), branch(2, [-1] * 3, [FLOOR] * 3, eq7=2.0)]
    tried.append(branch(3, [-1] * 3, [FLOOR] * 3, harm=0, eq7=0.5))
    one = prepared(row([1], unique_answer=unique, branches=[ALONE, *tried]))[0]
    wanted, known = worth(one, 4.0)
    assert known[0].tolist() == [True, unique, True, False]  # all have a reference where the answer is unique
    assert wanted[0, [0, 2]].tolist() == ([0.25, 0.5 - 4.0] if unique else [0.25 - 4.0, 0.5])
    assert not unique or wanted[0, 1] == 2.0 - 4.0


@pytest.mark.parametrize("weight", [0.0, 3.0])
def test_a_head_learns_worth_from_all_labelled_branches_and_one_that_sets_off_nothing_ranks_last(weight):
    tried = [
        branch(1, [-1] * 3, [FLOOR] * 3, kind=2, harm=1, eq7=1.0),
        branch(2, [-1] * 3, [FLOOR] * 3, harm=-1, eq7=9.0),
    ]
    tried.append(branch(3, [-1] * 3, [FLOOR] * 3, harm=0, eq7=0.5))
    one = prepared(row([1], unique_answer=False, branches=[ALONE, *tried]))[0]
    never = replace(one.batch, eq7=torch.tensor([[1.0, 9.0, -torch.inf, 0.0]]))
    head, aim = ScoringHead(HeadConfig("linear", NAMES)), Objective(target="worth", harm_weight=weight, risk=0.0)
    gain = one.scored_by(head).gain[0, [2, 4]][None]
    for batch, last in ((one.batch, 0.5), (never, 0.0)):
        both = torch.ones(1, 2, dtype=torch.bool)
        expected = listwise_loss(gain, torch.tensor([[1.0 - weight, last]]), both, temperature=1.0)
        assert HeadModule(head, aim).losses(replace(one, batch=batch))["loss"].item() == pytest.approx(expected.item())
        assert expected > 0


def test_shuffled_labels_are_the_same_ones_elsewhere():
    rows = [row([1], reference=[0, i % 2, i // 2 % 2, i // 4 % 2]) for i in range(8)]
    true, control = prepared(*rows)[0], prepared(*rows, seed=0)[0]
    assert not torch.equal(true.wrong, control.wrong)
    assert not torch.equal(true.batch.gain, control.batch.gain)
    for mine, theirs in (
        (true.wrong[true.known], control.wrong[true.known]),
        (true.batch.gain[true.batch.valid], control.batch.gain[true.batch.valid]),
    ):
        assert torch.equal(mine.sort().values, theirs.sort().values)
    assert torch.equal(true.batch.gain[~true.batch.valid], control.batch.gain[~true.batch.valid])
    assert torch.equal(control.wrong, prepared(*rows, seed=0)[0].wrong)  # the same in every epoch
    assert not torch.equal(control.wrong, prepared(*rows, seed=1)[0].wrong)


def test_what_the_trunk_gave_is_kept_up_to_the_budget(monkeypatch):
    denoiser, calls = GroupDenoiser(1, 4), []
    forward = GroupDenoiser.forward
    monkeypatch.setattr(GroupDenoiser, "forward", lambda self, *a, **k: calls.append(1) or forward(self, *a, **k))
    batch = data(row([1])).batch([0])
    for gigabytes, expected in ((1.0, 2), (600e-9, 4 - 1), (0.0, 4)):
        calls.clear()
        batches = PreparedBatches(denoiser, [batch, batch], taps=(), threshold=0.9, gigabytes=gigabytes)
        for _ in range(2):
            assert len(list(batches.loader(seed=0))) == 2
        assert len(calls) == expected
