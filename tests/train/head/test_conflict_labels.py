"""Labels of conflicts from rows by hand, the loss that fits them, and the figures that judge them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from decoding.features import NAMES
from decoding.traces.branches import BARE, FLOOR
from models.heads.config import HeadConfig
from models.heads.scoring_head import ScoringHead
from models.toys.toy import GroupDenoiser
from train.head.conflict_metrics import ConflictEstimates, collect_conflicts, conflict_figures
from train.head.data import HeadData
from train.head.metrics import Recalibration
from train.head.module import HeadModule, PreparedBatches, conflict_labels, of_branches
from train.head.settings import VARIANTS, Fitting, Objective

MASK = 2


def branch(position: int, token: list[int]) -> dict[str, Any]:
    return {
        "position": position, "kind": 4, "propensity": 1.0, "log_confidence": -0.5, "eq7": 0.0, "token": token,
        "log_risk": [FLOOR if t < 0 else -1.0 for t in token], "harm": -1, "benefit": -1, "answer": [],
    }  # fmt: skip


def row(*branches: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A prompt of one and a canvas of five: the first says 0, the last is in a block that is not open."""
    values = {
        "task": "bits", "tokens": [1, 0, MASK, MASK, MASK, MASK], "reference": [0] * 5, "unique_answer": True,
        "committed_round": [1, -1, -1, -1, -1], "recent_confidence": [0.0] * 10, "recent_token": [-1] * 10, "opened": 1,
        "spent": 1, "round": 2, "block_length": 5, "asked": [False, True, True, True, False], "branches": [*branches],
    }  # fmt: skip
    return {**values, **changes}


ROW = row(branch(-1, [0, 0, 1]), branch(1, [-1, 1, 1]), branch(2, [0, -1, 0]))


def prepared(*rows: dict[str, Any], seed: int | None = None):
    """Behind a trunk whose candidate is 0 everywhere."""
    data = HeadData(rows, MASK, None, 0.9, 3)
    found = PreparedBatches(GroupDenoiser(1, 5), [data.batch(range(len(rows)))], taps=(), threshold=0.9)
    return (found if seed is None else found.with_shuffled_labels(seed))[0]


def test_changes_are_those_against_the_commit_in_any_case_where_both_ask():
    batch = prepared(ROW, row()).batch
    assert batch.alone.tolist() == [[-1, -1, 0, 0, 1, -1], [-1] * 6]
    assert batch.changed[0].tolist() == [[-1, -1, -1, 1, 0, -1], [-1, -1, 0, -1, 1, -1], [-1] * 6]
    assert (batch.changed[1] == -1).all()


def test_a_position_committed_without_the_branch_has_no_label():
    batch = prepared(row(branch(-1, [-1, 0, 1]), branch(2, [-1, -1, 0]), branch(3, [0, 1, -1]))).batch
    assert batch.changed[0, :2].tolist() == [[-1, -1, -1, -1, 1, -1], [-1, -1, -1, 1, -1, -1]]


def test_bare_branches_alone_have_labels_where_a_row_has_any():
    """The plan takes the first two; what the first does to the second is known, and the others' labels are of another canvas."""
    bare = [
        {**branch(*one), "kind": BARE, "eq7": -np.inf} for one in ((-1, [0, 0, 0]), (1, [-1, 1, 0]), (3, [0, 0, -1]))
    ]
    one = prepared(row(branch(-1, [-1, -1, 1]), branch(3, [-1, -1, -1]), *bare), ROW)
    assert one.batch.alone[0].tolist() == [-1, -1, 0, 0, 0, -1]
    assert one.batch.position.tolist() == [[4, 2, 4], [2, 3, -1]]
    assert one.batch.bare.tolist() == [[False, True, True], [False] * 3]
    assert one.batch.valid.tolist() == [[True, False, False], [True, True, False]]
    changed, known = conflict_labels(one.batch, one.reading)
    assert known[0].tolist() == [
        [False] * 6,
        [False] * 3 + [True] * 2 + [False],
        [False, False, True, True, False, False],
    ]
    assert changed[0][known[0]].tolist() == [1, 0, 0, 0]
    assert known[1].any()


def test_a_candidate_that_changes_anyway_has_no_label():
    """The third says 1 without a branch, and 0 in the state: what the branch does to it is not the branch's own."""
    one = prepared(ROW)
    changed, known = conflict_labels(one.batch, one.reading)
    assert known[0].tolist() == [[False] * 3 + [True] + [False] * 2, [False] * 2 + [True] + [False] * 3, [False] * 6]
    assert changed[known].tolist() == [1, 0]


def test_rows_of_pairs_are_those_of_the_branches():
    value = torch.arange(36.0).view(1, 6, 6)
    found = of_branches(value, prepared(ROW).batch)
    assert torch.equal(found[0, :2], value[0, [2, 3]])


def test_the_control_deals_the_labels_and_only_them():
    plain, dealt = prepared(*[ROW] * 8), prepared(*[ROW] * 8, seed=1)
    assert torch.equal(plain.batch.changed >= 0, dealt.batch.changed >= 0)
    assert (plain.batch.changed == 1).sum() == (dealt.batch.changed == 1).sum()
    assert not torch.equal(plain.batch.changed, dealt.batch.changed)


def head_of(pairs: int) -> ScoringHead:
    torch.manual_seed(0)
    return ScoringHead(HeadConfig("features", NAMES, width=8, pairs=pairs))


def test_the_loss_on_pairs_is_there_where_it_is_asked_for_alone():
    one = prepared(ROW)
    plain = HeadModule(head_of(0), Objective()).losses(one)
    for head, weight in ((head_of(4), 0.0), (head_of(0), 1.0)):
        same = HeadModule(head, Objective(conflict=weight)).losses(one)
        assert same.keys() == plain.keys()
        assert torch.equal(same["loss"], plain["loss"])
    found = HeadModule(head_of(4), Objective(conflict=3.0)).losses(one)
    assert found["conflict"].item() == pytest.approx(3 * -(np.log(0.000001) + np.log(0.999999)) / 2, rel=0.02)
    assert found["loss"].item() == pytest.approx(plain["loss"].item() + found["conflict"].item())
    found["conflict"].backward()


@pytest.mark.parametrize("variant", sorted(set(VARIANTS)))
def test_one_variant_has_pairs_and_all_with_an_objective_for_them(variant):
    recipe = VARIANTS[variant]
    alone = Fitting().config(recipe, NAMES).pairs
    assert alone == (16 if variant == "conflict" else 0)
    fitting = Fitting(objective=Objective(conflict=0.5), pairs=8)
    assert fitting.config(recipe, NAMES).pairs == 8
    assert fitting.conflict(recipe) == 0.5
    assert VARIANTS["conflict"].variant == "lora"


def judged(head, confidence, changed, state, prompt=None) -> ConflictEstimates:
    state = np.asarray(state)
    columns = [np.asarray(column, float) for column in (changed, head, confidence)]
    return ConflictEstimates(state if prompt is None else np.asarray(prompt), state, *columns)


def test_figures_are_against_recalibrated_confidence_and_within_a_state():
    confidence, changed = [0.1, 0.1, 0.4, 0.4, 0.1, 0.4], [0, 1, 1, 1, 0, 0]
    head = [0.2, 0.9, 0.3, 0.8, 0.95, 0.1]
    unseen = judged(head, confidence, changed, [0, 0, 0, 0, 1, 1])
    found = conflict_figures(unseen, unseen)
    base = Recalibration.fit(unseen.confidence, unseen.changed)(unseen.confidence)
    losses = [-np.log(np.where(unseen.changed > 0, p, 1 - p)).mean() for p in (unseen.head, base)]
    assert found["log_loss_skill"]["estimate"] == pytest.approx(1 - losses[0] / losses[1])
    assert (found["pairs"], found["share_changed"], found["states"]) == (6, 0.5, 1)  # one state has no change
    assert found["auroc"]["estimate"] == pytest.approx(1.0)
    assert found["auroc_confidence"]["estimate"] == pytest.approx(5 / 6)
    assert conflict_figures(unseen, judged([0.1], [0.1], [0], [0])) == {"pairs": 1}


def test_pairs_are_judged_at_their_labels_with_prompt_and_state():
    head = head_of(4)
    nn.init.constant_(head.pairs.outward.bias[8:9], 3.0)  # a(x_i) of all
    one = prepared(ROW, row(), ROW)
    found = collect_conflicts(head, [one], [7, 8, 9])
    assert (found.prompt.tolist(), found.state.tolist()) == ([7, 7, 9, 9], [0, 0, 2, 2])
    assert found.changed.tolist() == [1, 0, 1, 0]
    assert found.confidence.tolist() == pytest.approx([1e-6] * 4, rel=0.2)
    assert found.head.tolist() == pytest.approx([np.exp(3) * c for c in found.confidence], rel=0.01)
    with pytest.raises(ValueError, match="must have a conflict output, got one without"):
        collect_conflicts(head_of(0), [replace(one)], [7, 8, 9])
