"""Exploration commits: which they are, what counts as their cascade, and how they are judged."""

import pytest
import torch

from decoding.api import generate
from decoding.comparison.problems import CheckedProblems, Problems
from decoding.policies.ete import BeamETE
from decoding.studies.cascades import summarise
from decoding.studies.commits import OUTCOMES, CommitEvaluator, exploration_commits, outcomes
from models.toys.toy import GroupDenoiser

POLICY = BeamETE(gamma=0.6, min_masks=0, branches=8, implicit=False, step_budget=None)
PROBLEMS = Problems("groups", ("dev",), ("one", "two"), 8, 8)


class WordlessEvaluator(CommitEvaluator):
    """All zeros are right; the toy has no tokenizer."""

    def accepted(self, tokens, row):
        return tokens[:, 1:].sum(-1) == 0


@pytest.fixture
def judged():
    """The rows of the exploration commits of two equal prompts on two groups of four equal bits."""

    def judged_(reference):
        model, steps = GroupDenoiser(2, 4), []
        prompts = torch.zeros(2, 1, dtype=torch.long)
        watch = lambda state, reading: steps.append((state, reading))  # noqa: E731
        made = generate(model, prompts, POLICY, gen_length=8, block_length=8, on_step=watch)
        commits = exploration_commits(steps, made.state)
        judge = WordlessEvaluator(
            model, CheckedProblems(PROBLEMS, lambda *_: True), made, None, reference, ("one", "two"), 3
        )
        return commits, judge.cascade(commits), list(judge.rows_of(commits, 10))

    return judged_


def test_the_cascade_is_what_the_commit_alone_lifts_over_the_threshold(judged):
    commits, cascade, rows = judged(torch.zeros(2, 8, dtype=torch.long))
    assert commits.row.tolist() == [0, 1]
    assert commits.here.nonzero()[:, 1].tolist() == [5, 5]  # the forced commit at 1 settles the first group by itself
    assert cascade.nonzero()[:, 1].tolist() == [6, 7, 8] * 2
    assert [row["prompt"] for row in rows] == [10, 11]
    assert {(row["size"], row["size_right"], row["outcome"]) for row in rows} == {(3, 3, "right cascade")}
    assert all(row["confidence"] == pytest.approx(0.5) and row["answer_right"] for row in rows)


@pytest.mark.parametrize(
    ("reference", "outcome", "right"),
    [
        ([0, 0, 0, 0, 0, 0, 1, 0], "wrong cascade", 2),
        ([0, 0, 0, 0, 1, 0, 0, 0], "wrong commit", 3),
        ([1, 0, 0, 0, 0, 0, 0, 0], "after an error", 3),
        ([0, 1, 0, 0, 0, 0, 0, 0], "right cascade", 3),  # still masked then
    ],
)
def test_a_unique_answer_judges_commit_cascade_and_what_came_before(judged, reference, outcome, right):
    _, _, rows = judged(torch.tensor([reference] * 2))
    assert {(row["outcome"], row["size_right"]) for row in rows} == {(outcome, right)}


def test_without_a_reference_the_careful_finish_judges(judged):
    _, _, rows = judged(torch.full((2, 8), -1))
    assert {(row["outcome"], row["size_right"]) for row in rows} == {("right cascade", None)}


def test_the_first_thing_wrong_names_the_outcome():
    no, yes = torch.tensor([False]), torch.tensor([True])
    three, none = torch.tensor([3]), torch.tensor([0])
    named = [
        outcomes(*case)
        for case in (
            (no, no, no, three),
            (no, no, no, none),
            (no, no, yes, three),
            (no, yes, yes, three),
            (yes, yes, yes, three),
        )
    ]
    assert [OUTCOMES[int(one)] for one in named] == list(OUTCOMES)


def test_shares_are_over_commits_and_intervals_over_prompts():
    commits = [
        {"prompt": prompt, "size": size, "size_right": 1, "outcome": outcome, "answer_right": prompt == 0}
        for prompt, size, outcome in (
            (0, 2, OUTCOMES[0]),
            (0, 1, OUTCOMES[0]),
            (1, 0, OUTCOMES[1]),
            (0, 5, OUTCOMES[3]),
        )
    ]
    weights = torch.tensor([[0.5, 0.5], [1.0, 0.0], [0.0, 1.0]]).double().numpy()
    found = summarise(commits, weights)
    assert found["commits"] == 4
    assert found["size"]["estimate"] == 2.0
    assert found["cascade_follows"]["estimate"] == 0.75
    assert found["size_right_share"]["estimate"] == 0.5
    assert found["outcomes"]["right cascade"]["estimate"] == 0.5
    assert found["answer_right"]["estimate"] == 0.75
    assert found["size"]["low"] < 1 < 2 < found["size"]["high"]
