"""The study of the Block-HMM: estimates agree with the exact figures, verification costs what it must, remasking leaves a rest."""

import math

import pytest
import torch

from decoding.studies.block_hmm.divergence import divergence, kl
from decoding.studies.block_hmm.remasking import Block, remasking
from decoding.studies.block_hmm.study import measure, monte_carlo, verified
from decoding.studies.inputs import StudyInputs
from models.toys.block_hmm import BlockHMM, BlockHMMConfig
from models.toys.perturbed import Perturbed
from train.commands import study as study_command

pytestmark = pytest.mark.filterwarnings(  # inside Lightning
    "ignore:.*(LeafSpec|num_workers|enable_nested_tensor|number of training batches)"
)
BENCH = StudyInputs("", None, "cpu", 0, make_problems=study_command.study_problems, fit=study_command.fit_features)
STRICT = BlockHMMConfig()


@pytest.fixture(scope="module")
def result():
    small = {"samples": 16, "accepted": 50, "fitted": 40, "policy_samples": 4, "swept_samples": 4}
    return measure(BENCH, etas=(1e-8, 1e-4), widths=(1, 4), strengths=(0.0, 1.0), **small)


@pytest.mark.parametrize("eta", [1e-8, 1e-5])
def test_the_library_s_own_decoder_loses_what_enumeration_says(eta):
    config = BlockHMMConfig(eta=eta)
    found, exact = monte_carlo(BENCH, config, 128, torch.Generator().manual_seed(1)), divergence(config)
    for name in ("forward_kl", "reverse_kl", "incoherence"):
        one = found[name]
        assert abs(one["estimate"] - getattr(exact, name)) <= 3 * one["standard_error"], name
        assert one["standard_error"] > 0


def test_accept_reject_costs_at_least_exp_tc_and_draws_from_the_joint():
    generator = torch.Generator().manual_seed(0)
    found = verified(STRICT, BlockHMM().sample(64, generator), 2000, generator)
    one = found["accept_reject"]["proposals"]
    assert abs(one["estimate"] - 61.2220) <= 3 * one["standard_error"]
    assert (
        one["estimate"] + 3 * one["standard_error"]
        >= found["accept_reject"]["exp_tc"]
        == pytest.approx(13.2781, rel=5e-6)
    )
    assert found["accept_reject"]["distance_to_joint"] < 0.12
    assert all(block["proposals"]["estimate"] >= block["exp_tc"]["estimate"] for block in found["blocks"])
    assert found["enumeration"]["incoherence"]["estimate"] == 0


def test_the_result_holds_what_the_page_says(result):
    assert [row["eta"] for row in result["exact"]] == [1e-8, 1e-4]
    assert result["exact"][0]["reverse_kl"] == pytest.approx(72.075181, rel=1e-8)
    assert result["first_block"]["total_correlation"] == pytest.approx(2.586112, rel=2e-7)
    assert result["first_block"]["proposals"] == pytest.approx(61.2220, rel=1e-6)
    by_name = {row["policy"]: row for row in result["policies"]}
    assert {"learned", "draft-verify", "remask-lowest", "imh", "ete", "factor 1"} <= by_name.keys()
    assert by_name["block (mean field)"]["rounds"]["estimate"] == 8
    assert by_name["block (mean field)"]["broken"]["estimate"] > 0.2
    assert by_name["one a round, from the left"]["broken"]["estimate"] == 0
    right = [r for r in result["perturbed"] if r["strength"] == 0 and r["tokens_a_round"] == 1]
    assert all(abs(r["reverse_kl"]["estimate"]) < 1e-5 for r in right)  # consistent conditionals: any order is exact
    assert all(r["reverse_kl"]["estimate"] > 1 for r in result["perturbed"] if r["tokens_a_round"] == 4)


def test_the_picture_is_drawn_from_the_result_alone(result, tmp_path):
    import json

    from decoding.studies.block_hmm.study import draw

    study_command.write("block-hmm", json.loads(json.dumps(result)), draw, tmp_path)
    assert (tmp_path / "block-hmm.png").stat().st_size > 10_000


def test_a_round_of_remasking_is_a_law_and_one_position_at_a_time_keeps_the_joint():
    block = Block.first(BlockHMMConfig(blocks=1, size=5, eta=0.01))
    for kernel in (block.random_round(1), block.random_round(3), block.lowest_round(2)):
        torch.testing.assert_close(kernel.sum(-1), torch.ones(32, dtype=torch.double))
    torch.testing.assert_close(block.joint @ block.random_round(1), block.joint)
    assert kl(block.joint @ block.random_round(3), block.joint) > 0.1
    assert kl(block.joint, block.joint) == pytest.approx(0)


def test_redrawing_everything_is_mean_field_again():
    block = Block.first(BlockHMMConfig(blocks=1, size=4, eta=0.1))
    torch.testing.assert_close(block.redraw(range(4))[3], block.mean_field)
    assert block.lowest_round(1)[0].count_nonzero() == 2


def test_no_number_of_rounds_makes_the_reverse_kl_vanish():
    rows = remasking(STRICT, (1, 5, 10, 50), (1, 2, 4))
    assert {row["rounds"] for row in rows} == {0, 1, 5, 10, 50}
    start = [row["reverse_kl"] for row in rows if row["rounds"] == 0]
    assert start == pytest.approx([10.324835] * 6, rel=5e-8)
    assert min(row["reverse_kl"] for row in rows if row["rounds"] == 50) > 1
    assert all(row["broken"] > 0.1 for row in rows if row["masked"] > 1)


def test_a_perturbed_model_is_wrong_in_the_same_way_each_time_and_differently_elsewhere():
    inner = BlockHMM(BlockHMMConfig(blocks=2, size=4, eta=0.1))
    wrong = Perturbed(inner, length=8, strength=0.5, seed=3)
    drawn = torch.nn.functional.pad(inner.sample(400, torch.Generator().manual_seed(0)), (1, 0))
    drawn[:, 4:] = 2
    error = (wrong.logits(drawn) - inner.logits(drawn))[:, 4:, :2]
    torch.testing.assert_close(wrong.logits(drawn), wrong.logits(drawn))
    assert error.mean().abs() < 0.2
    assert error.std().item() == pytest.approx(0.5, rel=0.2)
    assert wrong.error(drawn)[:, 0].abs().max() == 0
    assert not torch.equal(wrong.error(drawn), Perturbed(inner, length=8, strength=0.5, seed=4).error(drawn))
    assert torch.equal(Perturbed(inner, length=8, strength=0.0).logits(drawn), inner.logits(drawn))
    with pytest.raises(ValueError, match="strength must be at least 0, got -1"):
        Perturbed(inner, length=8, strength=-1.0)
    assert math.isfinite(float(wrong.logits(drawn)[..., :2].sum()))
