"""pass@k without bias, the entropy cap, and what a sample of answers says."""

import json
import math
from itertools import combinations

import pytest
import torch

from decoding.studies.exploration import Answer, draw, entropy_cap, entropy_caps, entropy_of, figures, measure, pass_at
from decoding.studies.inputs import StudyInputs
from train.commands import study as study_command


@pytest.mark.parametrize(("n", "right"), [(5, 0), (5, 2), (5, 5), (6, 1)])
def test_pass_at_k_is_the_share_of_subsets_with_a_right_answer(n, right):
    for k in range(1, n + 1):
        subsets = list(combinations(range(n), k))
        hits = sum(any(one < right for one in subset) for subset in subsets)
        assert pass_at(n, right, k) == pytest.approx(hits / len(subsets))


@pytest.mark.parametrize(
    ("delta", "vocabulary", "cap"),
    [(0.1, 126464, 1.499853), (0.01, 126464, 0.173479), (0.1, 4, 0.434944), (0.0, 4, 0.0)],
)
def test_a_confident_draw_has_little_entropy(delta, vocabulary, cap):
    assert entropy_cap(delta, vocabulary) == pytest.approx(cap, rel=5e-6)


def test_no_distribution_beats_its_cap():
    p = torch.softmax(3 * torch.randn(500, 7, generator=torch.Generator().manual_seed(0)), -1).double()
    entropy = torch.special.entr(p).sum(-1)
    cap = entropy_caps((1 - p.amax(-1)).unsqueeze(0), 7)[0]
    assert (entropy <= cap * (1 + 1e-12)).all()
    assert (cap < entropy + 0.7).any()


def test_a_sample_is_described_by_its_answers():
    assert entropy_of({"a": 2, "b": 2}) == pytest.approx(math.log(2))
    texts = [("a", True), ("a", True), ("b", False), ("c", True)]
    drawn = [Answer(0, text, right, -0.5, 3.0, 4, 6) for text, right in texts]
    drawn += [Answer(1, "z", False, -1.5, 1.0, 2, 2)] * 4
    found = figures(drawn, 4, seed=0)
    assert found["pass_at"][1]["estimate"] == pytest.approx(0.375)
    assert found["pass_at"][4]["estimate"] == pytest.approx(0.5)
    assert found["pass_at"].keys() == {1, 2, 4}
    assert found["log_c"]["estimate"] == pytest.approx(-1.0)
    assert found["different"]["estimate"] == pytest.approx((0.75 + 0.25) / 2)
    assert found["right_different"]["estimate"] == pytest.approx(1.0)
    assert found["sequence_forwards"]["estimate"] == pytest.approx(4.0)


def test_the_study_runs_and_draws(tiny, tmp_path):
    from functools import partial

    inputs = StudyInputs(
        str(tiny),
        None,
        "cpu",
        0,
        make_problems=partial(study_command.study_problems, 0),
        fit=study_command.fit_features,
    )
    result = measure(inputs, prompts={"countdown3": 2}, samples=3, proposals=2, toy_rows=4000, batch_size=4)
    assert len(result["rules"]) == 5
    by_rule = {row["rule"]: row for row in result["rules"]}
    assert (
        by_rule["IMH, 2 proposals"]["sequence_forwards"]["estimate"] > by_rule["random remasking"]["rounds"]["estimate"]
    )
    assert all(row["log_c"]["estimate"] < 0 for row in result["rules"])
    for row in result["toy"]:
        assert row["exact_chain_to_target"] < 0.05
        assert row["mean_field_chain_to_own_law"] < 0.05
    nearer = [row["mean_field_to_target"] < row["local_to_target"] for row in result["toy"]]
    assert sum(nearer) > len(nearer) / 2  # look-ahead by the mean field helps in most models, not in all
    assert inputs.cost.sequence_forwards > 0
    result |= {"models": inputs.cost.models, "settings": {"samples": 3}}
    study_command.write("exploration", json.loads(json.dumps(result)), draw, tmp_path)
    assert (tmp_path / "exploration.png").stat().st_size > 10_000
