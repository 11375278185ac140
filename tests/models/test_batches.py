"""Every policy: four prompts of different length decode together as each does alone."""

from __future__ import annotations

import pytest
import torch

import models
from decoding import generate
from decoding.features import NAMES
from decoding.names import POLICIES
from decoding.policy_by_name import make_policy
from models.heads.cascade import Cascade, CascadeConfig
from models.heads.config import HeadConfig
from models.heads.scoring_head import ScoringHead
from tests.decoding.policy_settings import ROWS, row_of

CORE = ("threshold", "ete", "quota", "learned", "verified")  # behind every cache; the others behind the richest
CASES = [(name, cache) for name in POLICIES for cache in (("none", "prefix", "dual") if name in CORE else ("dual",))]


@pytest.fixture(params=["llada", "dream"], scope="module")
def denoiser(goldens, request):
    """A golden model with a LoRA head and a cascade whose trainable tensors are random."""
    made = models.load(goldens[request.param].folder, device="cpu")
    torch.manual_seed(0)
    head = ScoringHead(HeadConfig("lora", NAMES, rank=4, width=16, base=made.fingerprint()), made).eval()
    head.cascade = Cascade(CascadeConfig(rank=4, base=made.fingerprint()), made).eval()
    for parameter in (p for p in head.parameters() if p.requires_grad):
        torch.nn.init.normal_(parameter, std=0.05)
    made.put_on(head)
    return made


@pytest.mark.parametrize(("policy", "cache"), CASES)
def test_a_batch_of_four_is_its_rows_one_by_one(denoiser, policy, cache):
    settings = row_of(policy).golden
    rule = make_policy(policy, settings, denoiser)
    if rule.needs.noise or rule.needs.draws:
        pytest.skip("draws from one generator for all rows: equal in law, not in tokens")
    if rule.needs.shadows and denoiser.shifted:
        pytest.skip("shadow rows predict in place, and Dream does not")
    block = 8 if policy == "dream-quota" else 4  # its canvas is one block
    canvas = {"gen_length": 8, "block_length": block, "use_cache": cache}
    prompts = [list(range(3, 3 + length)) for length in (9, 4, 7, 12)]
    together = generate(denoiser, prompts, policy, **canvas, **settings)
    for row, prompt in enumerate(prompts):
        alone = generate(denoiser, [prompt], policy, **canvas, **settings)
        assert torch.equal(together.sequences[row, -8:], alone.sequences[0, -8:])
        for name in ("rounds", "sequence_forwards", "token_positions"):
            assert getattr(together, name)[row] == getattr(alone, name)[0], name
    if policy in ROWS and policy not in ("sequential", "dream-quota", "quota", "frechet", "freedave"):
        assert together.rounds.max() < 8  # the settings let several positions pass
