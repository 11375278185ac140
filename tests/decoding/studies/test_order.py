"""Orders at one token a round: the reference dictated, its error in every order, and the weighted-entropy bound."""

import inspect
import itertools
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from decoding.comparison.problems import CheckedProblems, Problems
from decoding.comparison.runs import Encoded
from decoding.policies.quota import Sequential
from decoding.policy import Policy
from decoding.studies import order as study
from decoding.studies.inputs import StudyInputs
from decoding.studies.order import ORDERS, Followed, Witness, compare, follow
from decoding.studies.schedules import Forced
from decoding.studies.weighted_entropy import ranks, smallest_alpha, weighted_entropy
from models.denoiser import Denoiser, Prediction

ROOT = Path(__file__).parents[3]
LAW = torch.tensor([0.3, 0.02, 0.05, 0.13, 0.01, 0.09, 0.15, 0.25])
BENCH = StudyInputs("", None, "cpu", 0, make_problems=lambda *_: None, fit=lambda *_: None)
CELLS = torch.tensor(list(itertools.product((0, 1), repeat=3)))


class ExactJoint(Denoiser):
    """Conditionals of one joint law over three bits; token 2 is the mask."""

    mask_id, eos_id, vocab_size, max_length = 2, None, 3, 99
    tokenizer = SimpleNamespace(decode=lambda ids, **_: "".join(map(str, ids)))

    def forward(self, tokens, *, rows, **_):
        canvas = tokens[:, -3:].unsqueeze(1)
        weight = LAW * ((canvas == CELLS) | (canvas == 2)).all(-1)
        ones = (weight.unsqueeze(-1) * CELLS).sum(1) / weight.sum(-1, keepdim=True)
        p = torch.nn.functional.pad(ones, (tokens.shape[1] - 3, 0), value=0.5)
        logits = torch.stack([1 - p, p, torch.zeros_like(p)], -1).log().clamp(min=-60)
        return Prediction(logits[rows], rows, torch.full((len(tokens),), tokens.shape[1]))


def test_eq_11_weighs_early_entropy_more():
    rising, falling = np.array([1.0, 2.0, 3.0]), np.array([3.0, 2.0, 1.0])
    assert weighted_entropy(rising, alpha=1.0, growth=0.1) == pytest.approx(6.41)
    assert weighted_entropy(falling, alpha=1.0, growth=0.1) == pytest.approx(6.83)
    assert weighted_entropy(rising, alpha=1.0, growth=0.0) == weighted_entropy(falling, alpha=1.0, growth=0.0) == 6
    assert weighted_entropy(rising, alpha=2.0, growth=0.1, slack=0.5) == pytest.approx(12.82 + 0.5 * (1.1**3 - 1) / 0.1)
    assert weighted_entropy(rising, alpha=0.0, growth=0.0, slack=0.5) == pytest.approx(1.5)


def test_alpha_is_the_smallest_that_the_assumption_allows_and_the_bound_then_holds():
    draw = np.random.default_rng(0)
    error, entropy = draw.random((4, 5)), draw.random((4, 5))
    alpha = smallest_alpha(error, entropy, growth=0.2, slack=0.05)
    before = np.cumsum(error, axis=1) - error
    gap = alpha * entropy + 0.2 * before + 0.05 - error
    assert gap.min() == pytest.approx(0)
    for own_error, own_entropy in zip(error, entropy, strict=True):
        assert own_error.sum() <= (1 + 1e-12) * weighted_entropy(own_entropy, alpha=alpha, growth=0.2, slack=0.05)
    assert smallest_alpha(np.array([[0.2]]), np.array([[0.0]]), growth=0.0, slack=0.1) == np.inf
    assert smallest_alpha(np.array([[0.1]]), np.array([[0.0]]), growth=0.0, slack=0.1) == 0
    assert ranks(np.array([3.0, 1.0, 2.0])).tolist() == [2, 0, 1]


@pytest.mark.parametrize("name", ["left_to_right", "right_to_left", "random", "confidence", "margin", "entropy"])
def test_the_reference_is_committed_whatever_the_model_prefers(run, name):
    reference = torch.cat([torch.zeros(8, 1, dtype=torch.long), CELLS], 1)
    policy = Forced(Sequential(order=name), reference)
    assert isinstance(policy, Policy)
    state, counts = run(ExactJoint(), policy, reference[:, :1], gen_length=3, block_length=3)
    assert torch.equal(state.tokens, reference)
    assert counts.rounds.tolist() == [3] * 8


def test_a_witness_keeps_what_the_reference_would_have_cost():
    reference = torch.tensor([[0, 1, 1, 1], [0, 0, 0, 0]])
    witness = Witness(ExactJoint(), reference)
    rows = torch.tensor([[False, True, False, True], [False, False, True, False]])
    witness(torch.full((2, 4), 2), rows=rows)
    ones = [0.5, 0.58, 0.49]
    expected = [[0, ones[0], 0, ones[2]], [0, 0, 1 - ones[1], 0]]
    torch.testing.assert_close(witness.nats.masked_fill(rows, 0), torch.zeros(2, 4))
    torch.testing.assert_close((-witness.nats).exp()[rows], torch.tensor(expected)[rows], rtol=1e-4, atol=1e-5)


def test_on_a_joint_law_every_order_has_the_same_error_and_the_checker_has_its_say(monkeypatch):
    checked = CheckedProblems(Problems("bits", ("c",), ("a", "b"), 3, 3), lambda prompt, text: text == "111")
    encoded = Encoded(torch.zeros(2, 1, dtype=torch.long), None, CELLS[[0, 5]])
    monkeypatch.setattr(study, "Encoded", SimpleNamespace(of=lambda *_: encoded))
    found = {name: follow(ExactJoint(), checked, order, BENCH) for name, order in ORDERS.items()}
    for one in found.values():
        assert one.nats.sum(1) == pytest.approx(-np.log([LAW[0], LAW[5]]), rel=1e-5)
    left, right = found["left to right"], found["right to left"]
    assert left.nats[0] == pytest.approx(-np.log([0.5, 0.32 / 0.5, 0.3 / 0.32]), rel=1e-5)
    assert right.nats[0] == pytest.approx(-np.log([0.51, 0.31 / 0.51, 0.3 / 0.31]), rel=1e-5)
    assert left.entropy[0, 0] == pytest.approx(np.log(2), rel=1e-5)
    assert found["entropy"].entropy[0, 0] < left.entropy[0, 0]  # 0.58 is the surest
    assert {name: one.right.tolist() for name, one in found.items()} == {
        name: [0.0, 0.0] if name in ("left to right", "right to left", "random") else [1.0, 1.0] for name in ORDERS
    }


def test_the_advantage_is_paired_and_against_the_best_fixed_order():
    def followed(right, nats):
        return Followed(np.array(right, float), np.full((4, 2), nats), np.full((4, 2), 0.5))

    found = {name: followed([0, 0, 0, 1], 0.4) for name in ORDERS}
    found |= {"entropy": followed([1, 1, 0, 1], 0.3), "right to left": followed([0, 0, 1, 1], 0.4)}
    lines, summary = compare(found, growth=0.0, slack=0.0, seed=0)
    assert summary["advantage_over_random"]["estimate"] == 0.5
    assert (summary["best_fixed"], summary["advantage_over_best_fixed"]["estimate"]) == ("right to left", 0.25)
    assert summary["model_error"]["estimate"] == pytest.approx(0.8)
    assert summary["error_saved"]["estimate"] == pytest.approx(0.2)
    assert summary["alpha"] == pytest.approx(0.8)
    assert [line["bound"] for line in lines] == pytest.approx([0.8] * 6)


def test_missing_bases_are_answered_with_the_recipe(tmp_path):
    with pytest.raises(
        ValueError, match=r"point-2, point-3, .* `python -m train.pretrain --config configs/train/order.yaml`"
    ):
        study.measure(BENCH, bases=str(tmp_path), points=(2, 3))


def test_the_points_that_the_study_takes_by_default_ship():
    default = {name: parameter.default for name, parameter in inspect.signature(study.measure).parameters.items()}
    shipped = sorted(folder.name for folder in (ROOT / default["bases"]).glob("point-*"))
    assert shipped == [f"point-{point}" for point in default["points"]]
