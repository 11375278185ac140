"""Near confidence 1 positions, margins, entropies and branches keep their order, which a float32 confidence would round away."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import models
from decoding.loop import decode
from decoding.policies.candidates import best_of_each_block
from decoding.policies.ete import BeamETE
from decoding.policies.lopa import LoPA
from decoding.policies.quota import ORDERS, Quota
from decoding.policies.rules import at_least_one
from decoding.policy import counted_places, order, rank
from decoding.reading import Reading, read
from decoding.sampling import Sampling
from decoding.state import Proposal, start
from models.denoiser import Prediction

REASON = Path(__file__).parents[2] / "checkpoints" / "reason-7m"
SUDOKU = "100020040074000905080000000000402800007309502010000409000000154009700200041003096"


def sharp(positions: int, vocabulary: int = 40) -> torch.Tensor:
    """Logits whose confidences lie within 4e-6 of 1, the surest last."""
    z = torch.randn(positions, vocabulary, generator=torch.Generator().manual_seed(0))
    others = torch.cat([z[:, :7], z[:, 8:]], 1).logsumexp(-1)
    z[:, 7] = others + torch.linspace(14.0, 14.01, positions)
    return z


def reading_of_logits(z: torch.Tensor) -> Reading:
    rows = torch.ones(1, len(z), dtype=torch.bool)
    return read(Prediction(z, rows, torch.tensor([len(z)])), Sampling())


@pytest.mark.parametrize("order", ["confidence", "margin", "entropy"])
def test_the_order_is_that_of_float64(order):
    z = sharp(64)
    p = z.double().softmax(-1)
    top = p.topk(2).values
    exact = {"confidence": top[:, 0], "margin": top[:, 0] - top[:, 1], "entropy": (p * p.log()).sum(-1)}[order]
    assert len((z - z.logsumexp(-1, keepdim=True)).max(-1).values.exp().unique()) < 10  # what used to be compared
    reading = reading_of_logits(z)
    ours = rank(ORDERS[order](reading), reading.rows)[0]
    assert torch.equal(ours, exact.argsort(descending=True).argsort())


def test_places_that_are_counted_are_those_of_a_sort():
    score = torch.randn(6, 40, generator=torch.Generator().manual_seed(0)).round(decimals=1)
    score[0, ::3], score[1, 5:9], score[2] = torch.nan, torch.inf, 0.0
    within = torch.rand(6, 40, generator=torch.Generator().manual_seed(1)) < 0.8
    counted = counted_places(score.masked_fill(~within, -torch.inf))
    assert torch.equal(counted, rank(score, within))
    assert torch.equal(counted.argsort(-1), order(score, within))


def test_confidences_and_log_odds_are_those_of_float64():
    z = torch.cat([sharp(16), torch.randn(16, 40) * 0.01, torch.randn(16, 40) * 5])
    p = z.double().softmax(-1).max(-1).values
    reading = reading_of_logits(z)
    torch.testing.assert_close(reading.confidence[0].double(), p, rtol=5e-7, atol=0)
    torch.testing.assert_close(reading.log_odds[0].double(), p.logit(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(reading.log_confidence[0].double(), p.log(), rtol=1e-5, atol=0)


def test_an_unconfident_candidate_still_comes_before_what_was_not_read():
    z = torch.zeros(2, 4)
    rows = torch.tensor([[False, True, True]])
    reading = read(Prediction(z, rows, torch.tensor([3])), Sampling(unconfident=(0,)))
    assert at_least_one(torch.zeros_like(rows), reading.log_odds, reading)[0].tolist() == [0, 2, 0]


def test_the_best_of_a_block_is_the_surest_not_the_leftmost(canvas):
    reading = reading_of_logits(sharp(8))
    chosen = best_of_each_block(canvas(8, 4, initial_blocks=2), reading, reading.rows)
    assert chosen[0].nonzero().flatten().tolist() == [3, 7]


def grid(risks: list[list[float]]) -> Reading:
    """A reading of one prompt and K branches with these risks."""
    risk = torch.tensor([risks])
    blank = Reading.empty(tuple(risk.shape), risk.device)
    return replace(blank, rows=risk > 0, confidence=1 - risk, log_risk=risk.log())


RISKS = [[3e-8, 4e-8, 5e-8], [3e-8, 4e-8, 2e-8], [3e-8, 4e-8, 3e-8]]


def proposal(log_confidence: list[float]) -> Proposal:
    count = len(log_confidence)
    nothing = torch.zeros(1, count, 3, dtype=torch.long)
    return Proposal(nothing, nothing, torch.ones(1, count, dtype=torch.bool), torch.tensor([log_confidence]))


@pytest.mark.parametrize("over", ["threshold", "masks"])
def test_eq_7_tells_branches_apart_that_are_all_but_certain(canvas, over):
    beam, canvases = BeamETE(eq7_over=over), canvas(3).repeat(3)
    assert beam.choose(canvases, proposal([0.0] * 3), grid(RISKS)).tolist() == [1]
    assert beam.choose(canvases, proposal([0.0, -1e-7, 0.0]), grid(RISKS)).tolist() == [2]


@pytest.mark.parametrize("over", ["threshold", "masks"])
def test_eq_7_is_what_the_paper_says(over):
    risks = torch.rand(1, 5, 12, generator=torch.Generator().manual_seed(1)).clamp(min=1e-3)
    reading = replace(grid(risks[0].tolist()), rows=torch.ones(1, 5, 12, dtype=torch.bool))
    c = 1 - risks.double()
    counted = c if over == "masks" else c * (c >= 0.4)
    made = BeamETE(eq7_over=over, eq7_threshold=0.4, alpha=0.7)
    log_c = [-0.1, -0.2, -0.3, -1.0, 0.0]
    expected = 0.7 * torch.tensor([log_c]).double() + counted.sum(-1).log()
    torch.testing.assert_close(made.score(proposal(log_c), reading).double(), expected, rtol=1e-5, atol=1e-6)


def test_lopa_keeps_the_surest_of_canvases_that_are_all_but_certain(canvas):
    assert LoPA().choose(canvas(3).repeat(3), proposal([0.0] * 3), grid(RISKS)).tolist() == [1]


def test_the_first_round_of_a_sudoku_in_blocks_of_27_is_that_of_lladas_own_generate():
    """Confidences 9.5e-7 to 2.7e-6 below 1; ML-GSAI/LLaDA generate.py at b7e6c35, 27 steps in all, commits these three."""
    denoiser = models.load(REASON, device="cpu")
    prompt = torch.tensor(denoiser.encode([SUDOKU]))
    seen = []

    class Enough(Exception):
        pass

    def stop(state, reading):
        seen.append(state)
        if len(seen) == 2:
            raise Enough

    state = start(
        torch.nn.functional.pad(prompt, (0, 81)), gen_length=81, block_length=27, mask_id=denoiser.mask_id, eos_id=None
    )
    with pytest.raises(Enough):
        decode(denoiser, state, Quota(steps=27), sampling=Sampling(forbidden=(denoiser.mask_id,)), on_step=stop)
    committed = (seen[1].committed_round[0, prompt.shape[1] :] == 1).nonzero().flatten().tolist()
    assert committed == [4, 11, 17]
