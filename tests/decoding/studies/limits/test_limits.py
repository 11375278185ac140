"""Schedules found by search lose what the loop loses with them, and nothing beats them; cheaper verification loses more."""

import json
import math
from dataclasses import dataclass
from functools import partial
from itertools import product

import numpy as np
import pytest
import torch

from decoding.policies.bounds import EntropyBound, Factor
from decoding.policies.quota import Sequential
from decoding.policies.threshold import Threshold
from decoding.policy import Policy
from decoding.state import Proposal
from decoding.studies.block_hmm.divergence import kl
from decoding.studies.block_hmm.remasking import Block
from decoding.studies.inputs import StudyInputs
from decoding.studies.limits.acceptance import capped, lenient, tempered, verification
from decoding.studies.limits.assumption import bins, least_squares
from decoding.studies.limits.picture import draw_all
from decoding.studies.limits.study import fewest, measure
from decoding.studies.schedules import (
    block_joint,
    chain_joint,
    law,
    markov_joint,
    need,
    search,
    subset_entropies,
    tree_joint,
)
from models.toys.block_hmm import BlockHMMConfig
from train.commands import study as study_command

pytestmark = pytest.mark.filterwarnings(  # inside Lightning
    "ignore:.*(LeafSpec|num_workers|enable_nested_tensor|number of training batches)"
)
ROUNDING = 16 * torch.finfo(torch.float32).eps * math.log(64)  # of a divergence over 64 outcomes
PARITY = torch.tensor([[[0.25, 0.0], [0.0, 0.25]], [[0.0, 0.25], [0.25, 0.0]]], dtype=torch.double)


def test_entropies_of_subsets():
    entropy = subset_entropies(PARITY)
    assert entropy.tolist() == pytest.approx([0, *[math.log(2) * k for k in (1, 1, 2, 1, 2, 2, 2)]])


def test_a_parity_takes_two_rounds_and_loses_one_bit_in_one():
    found = search(PARITY)
    assert found.kl == pytest.approx([math.log(2), 0, 0])
    assert sorted(found.schedules[1]) in ([1, 1, 2], [1, 2, 2])
    assert (found.fewest(0.0), found.fewest(0.7)) == (2, 1)


@pytest.mark.parametrize(("count", "rounds"), [(3, 2), (4, 3), (7, 3), (8, 4)])
def test_a_chain_is_exact_in_logarithmically_many_rounds(count, rounds):
    assert search(chain_joint(count, 0.1)).fewest(1e-9) == rounds


def test_a_binary_tree_is_exact_in_as_many_rounds_as_it_has_levels():
    found = search(tree_joint(7, 0.1))
    assert found.fewest(1e-9) == 3
    assert found.schedules[2] == [1, 2, 2, 3, 3, 3, 3]


def test_the_search_finds_the_best_of_all_schedules():
    joint = markov_joint([-1, 0, 0, 2], 0.2)
    entropy = subset_entropies(joint)
    losses = {}
    for schedule in product(range(1, 5), repeat=4):
        loss, before = 0.0, 0
        for turn in sorted({*schedule}):
            now = [i for i in range(4) if schedule[i] == turn]
            loss += sum(float(entropy[before | 1 << i] - entropy[before]) for i in now)
            before |= sum(1 << i for i in now)
        used = len({*schedule})
        losses[used] = min(losses.get(used, math.inf), loss - float(entropy[-1]))
    best = [min(losses[r] for r in range(1, used + 1)) for used in range(1, 5)]
    assert search(joint).kl == pytest.approx(best)


@dataclass(frozen=True)
class Scheduled(Policy):
    """Every position in its own round, 1-based."""

    rounds: tuple[int, ...]

    def propose(self, state, reading):
        turn = torch.tensor(self.rounds).expand_as(state.tokens)
        now = torch.where(reading.rows, turn, len(self.rounds) + 1).amin(-1, keepdim=True)
        return Proposal.single(state, reading, ((turn == now) & reading.rows).long())


@pytest.mark.parametrize("joint", [chain_joint(6, 0.1), block_joint(BlockHMMConfig(blocks=2, size=3, eta=0.01))])
def test_the_loop_loses_with_a_schedule_what_the_search_says_and_with_a_policy_no_less(joint):
    found = search(joint)
    for rounds in (1, 2, 3):
        took = need(joint, Scheduled(tuple(found.schedules[rounds - 1])))
        assert took.forward_kl == pytest.approx(found.kl[rounds - 1], rel=1e-5, abs=ROUNDING)
        assert took.rounds == len({*found.schedules[rounds - 1]})
    assert need(joint, Sequential()).forward_kl == pytest.approx(0, abs=ROUNDING)
    for policy in (Threshold(0.8), Factor(1.0), EntropyBound(0.5)):
        took = need(joint, policy)
        assert took.forward_kl >= found.kl[math.floor(took.rounds) - 1] - ROUNDING


@pytest.mark.parametrize("policy", [Sequential(), Threshold(0.8), Factor(1.0)])
def test_the_law_of_a_policy_is_one_and_its_divergences_vanish_together(policy):
    found = law(block_joint(BlockHMMConfig(blocks=2, size=3, eta=0.01)), policy, block_length=3)
    assert float(found.log_q.exp().sum()) == pytest.approx(1, rel=1e-5)
    exact = policy == Sequential()
    assert (
        (found.reverse_kl == pytest.approx(0, abs=ROUNDING))
        == exact
        == (found.forward_kl == pytest.approx(0, abs=ROUNDING))
    )
    assert found.reverse_kl > -ROUNDING
    q = (found.log_q - 0.1).exp()  # by hand: sum q log(q / p)
    assert float((found.log_q.exp() * torch.log(q / found.p)).sum()) == pytest.approx(
        found.reverse_kl - 0.1, rel=1e-5, abs=ROUNDING
    )


def test_a_factor_rule_needs_no_fewer_rounds_than_its_bound():
    row = fewest("tree", tree_joint(5, 0.1), (0.1,))
    assert row["bound"] == pytest.approx(row["entropy"] / math.log(6))
    assert all(p["rounds"] >= row["bound"] for p in row["policies"] if (p["policy"], p["dial"]) == ("factor", 1.0))
    assert row["allowed"][0]["fewest"] == 3
    assert row["allowed"][0]["policies"]["one a round"] == 5


def test_verification_is_exact_at_its_price_and_cheaper_ones_lose():
    block = Block.first(BlockHMMConfig())
    p, q = block.joint, block.mean_field
    bar = float((p / q).max())
    law, cost = lenient(p, q, bar)
    assert (cost, kl(law, p)) == (pytest.approx(61.2220, rel=1e-6), pytest.approx(0))
    assert lenient(p, q, 1e-12)[1] == pytest.approx(1)  # accepts everything
    torch.testing.assert_close(capped(p, q, 1)[0], q)
    assert capped(p, q, 1)[1] == pytest.approx(1)
    law, cost = capped(p, q, 5000)
    assert (cost, kl(law, p)) == (pytest.approx(bar), pytest.approx(0))
    law, cost = tempered(p, q, 1.0)
    torch.testing.assert_close(law, p)
    assert cost == pytest.approx(bar)
    found = verification(BlockHMMConfig(), (1.0, 2.0), (1, 16))
    assert found["exp_tc"] == pytest.approx(13.2781, rel=5e-6)
    for rule in ("lenient", "capped", "tempered"):
        series = sorted((row["proposals"], row["reverse_kl"]) for row in found["rows"] if row["rule"] == rule)
        assert [loss for _, loss in series] == sorted((loss for _, loss in series), reverse=True)
        assert all(loss > 0.01 for cost, loss in series if cost < found["exp_tc"])


def test_least_squares_recovers_its_own_line():
    rng = np.random.default_rng(0)
    entropy, earlier = rng.random(60), rng.random(60)
    wrong = 0.3 * entropy + 2.0 * earlier + 0.1
    assert least_squares(entropy, earlier, wrong, np.full(60, 0.5)).tolist() == pytest.approx([0.3, 2.0, 0.1])
    rows = bins(entropy, np.zeros(60), (entropy > 0.5).astype(float))
    assert [row["commits"] for row in rows] == [10] * 6
    assert (rows[0]["error"], rows[-1]["error"]) == (0, 1)


def test_the_study_runs_on_the_shipped_base_and_draws(tmp_path):
    from train.commands.command_line import shipped

    base = str(shipped("checkpoints/reason-7m"))
    inputs = StudyInputs(
        base, None, "cpu", 0, make_problems=partial(study_command.study_problems, 0), fit=study_command.fit_features
    )
    result = measure(
        inputs, length=4, error_task="lists", error_prompts=2, chain_prompts=1, orders=3, tries=(1, 8),
        joint_size=3, fitted=64, epochs=1, bounds=(0.1, 0.5), coherence_prompts=2, tokens=(32,),
    )  # fmt: skip
    assert len(result["together"]["rows"]) == 5 * 2
    assert [row["order"] for row in result["assumption"]] == ["confidence", "random"] * 3
    assert len(result["orders"]["nll"]) == 1
    assert len(result["orders"]["names"]) == len(result["orders"]["nll"][0]) == 3
    assert all(one > 0 for one in result["orders"]["nll"][0])
    study_command.write("limits", json.loads(json.dumps(result | {"models": inputs.cost.models})), draw_all, tmp_path)
    assert (tmp_path / "limits.png").stat().st_size > 10_000
