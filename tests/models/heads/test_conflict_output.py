"""The conflict output of a head: it starts from the confidence, tells positions apart, is saved, and is no part of other heads."""

from __future__ import annotations

import json
import math

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from models.heads.config import HeadConfig
from models.heads.conflict_output import ConflictOutput, Conflicts
from models.heads.scoring_head import ScoringHead, load_head, save_head

NAMES = ("log_p1", "log_risk", "entropy")
VARIANTS = ("linear", "features", "hidden", "lora")

pytestmark = pytest.mark.filterwarnings("ignore:.*(LeafSpec|enable_nested_tensor)")


def head_of(golden, variant, *, pairs=4, seed=None) -> ScoringHead:
    torch.manual_seed(0)
    config = HeadConfig(
        variant, NAMES, rank=4, width=16, base=golden.denoiser.fingerprint(), pairs=pairs, reach=3 * bool(pairs)
    )
    head = ScoringHead(config, golden.denoiser).eval()
    for parameter in (p for p in head.parameters() if p.requires_grad and seed is not None):
        nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(seed))
    return head


def scores_of(golden, head):
    tokens = golden.tensors["input_ids"]
    rows = (tokens == 250) & (torch.arange(24) >= 14)
    taps = golden.denoiser(tokens, rows=rows, taps=head.taps).taps
    log_risk = torch.linspace(-6, -0.1, 24).expand(rows.shape)
    return head(torch.stack([-log_risk, log_risk, log_risk / 2], -1), rows, tokens, taps), rows, log_risk


def test_the_logit_is_the_product_and_what_each_side_brings():
    pairs = Conflicts(
        torch.tensor([[[1.0, 2, 0, 0], [0, 0, 0, 0]]]),
        torch.tensor([[[3.0, 0, 0, 0], [2, 5, 0, 0]]]),
        torch.tensor([[0.5, -1.0]]),
        torch.tensor([[0.25, 8.0]]),
    )
    assert pairs.logit.tolist() == [[[2.25, 14.5], [-0.75, 7.0]]]  # (1, 2) . (2, 5) / 2 + .5 + 8
    assert pairs.probability[0, 1, 0].item() == pytest.approx(1 / (1 + math.exp(0.75)))


def test_rows_that_come_packed_land_at_their_places():
    torch.manual_seed(0)
    output, rows = ConflictOutput(3, 2), torch.tensor([[False, True, True], [True, False, False]])
    nn.init.normal_(output.outward.weight)
    inward, prior, token = torch.randn(2, 3, 3), torch.randn(2, 3), torch.zeros(2, 3, dtype=torch.long)
    dense, packed = output(inward, rows, prior, token), output(inward[rows], rows, prior, token)
    for name in ("query", "key", "sends", "takes"):
        torch.testing.assert_close(getattr(packed, name)[rows], getattr(dense, name)[rows])
    assert not packed.query[~rows].any()


@pytest.mark.parametrize("variant", VARIANTS)
def test_untrained_conflicts_say_the_confidence_of_the_second(golden, variant, equal_up_to_rounding):
    scores, rows, log_risk = scores_of(golden, head_of(golden, variant))
    both = rows.unsqueeze(-1) & rows.unsqueeze(-2)
    expected = log_risk.exp().unsqueeze(-2).expand_as(both)
    equal_up_to_rounding(scores.conflicts.probability[both], expected[both])


@pytest.mark.parametrize("variant", VARIANTS)
def test_conflicts_learn_and_reach_what_the_head_reads(golden, variant):
    head = head_of(golden, variant, seed=1)
    scores, rows, _ = scores_of(golden, head)
    scores.conflicts.logit[:, rows[0]][..., rows[0]].sum().backward()
    assert head.pairs.outward.weight.grad.any(-1).all()
    if variant == "lora":
        assert any(p.grad is not None and p.grad.any() for n, p in head.stream.named_parameters() if "lora" in n)


@pytest.mark.parametrize("variant", VARIANTS)
def test_saved_conflicts_say_the_same_bits(golden, variant, tmp_path):
    head = head_of(golden, variant, seed=2)
    save_head(head, tmp_path)
    loaded = load_head(tmp_path, golden.denoiser)
    scores, expected = scores_of(golden, head)[0], scores_of(golden, loaded)[0]
    assert loaded.config.pairs == 4
    assert torch.equal(scores.conflicts.logit, expected.conflicts.logit)
    assert torch.equal(scores.risk_logit, expected.risk_logit)


@pytest.mark.parametrize("variant", VARIANTS)
def test_without_conflicts_a_head_is_what_it_was(golden, variant, tmp_path):
    """Same first weights, same scores, and a file that does not know of them."""
    plain, pairs = head_of(golden, variant, pairs=0), head_of(golden, variant)
    for name, value in plain.state_dict().items():
        assert torch.equal(value, pairs.state_dict()[name])
    assert {n for n in pairs.state_dict() if n not in plain.state_dict()} == {
        "pairs.outward.weight",
        "pairs.outward.bias",
        "pairs.relation",
    }
    scores, expected = scores_of(golden, plain)[0], scores_of(golden, pairs)[0]
    assert scores.conflicts is None
    assert torch.equal(scores.risk_logit, expected.risk_logit)
    save_head(plain, tmp_path)
    with safe_open(tmp_path / "head.safetensors", framework="pt") as opened:
        assert not {"pairs", "reach"} & json.loads(opened.metadata()["config"]).keys()
    assert not any(name.startswith("pairs") for name in load_file(tmp_path / "head.safetensors"))


def test_a_negative_width_is_refused():
    with pytest.raises(ValueError, match=r"^pairs must be at least 0, got -1$"):
        HeadConfig("linear", NAMES, pairs=-1)


def test_places_and_equal_candidates_tell_conflicts_apart():
    output = ConflictOutput(1, 2, reach=2)
    nn.init.zeros_(output.outward.weight)
    with torch.no_grad():
        output.outward.bias.copy_(torch.tensor([1.0, 3.0, 0, 0, 0, 0]))  # q = (1, 3) everywhere
        output.relation[0, :, 0] = torch.tensor([-2.0, -1, 0, 1, 2])  # e_ij = j - i, at most 2 either way
        output.relation[1, 1] = torch.tensor([5.0, 10, 100])  # of the same candidate one place to the left
    rows = torch.tensor([[True, True, True, True]])
    pairs = output(torch.zeros(1, 4, 1), rows, torch.zeros(1, 4), torch.tensor([[7, 7, 8, 9]]))
    expected = [[0.0, 0, 2, 2], [315, 0, 1, 2], [-2, -1, 0, 1], [-2, -2, -1, 0]]  # 5 + 10 * 1 + 100 * 3
    assert pairs.logit.tolist() == [expected]
    untold = ConflictOutput(1, 2)
    assert untold.relation is None
    assert not [name for name in untold.state_dict() if "relation" in name]


def test_an_untrained_relation_says_nothing():
    torch.manual_seed(0)
    inward, prior, token = torch.randn(1, 5, 3), torch.randn(1, 5), torch.tensor([[1, 1, 2, 2, 3]])
    output = ConflictOutput(3, 2, reach=4)
    logit = output(inward, torch.ones(1, 5, dtype=torch.bool), prior, token).logit
    torch.testing.assert_close(logit, prior.unsqueeze(1).expand(1, 5, 5))
