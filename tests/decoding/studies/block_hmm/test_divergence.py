"""The exact figures of arXiv 2602.00286 on its Block-HMM, and the closed forms behind them."""

import math

import pytest
import torch

from decoding.studies.block_hmm.divergence import divergence, laws
from models.toys.block_hmm import BlockHMM, BlockHMMConfig

TABLE = {  # eta: forward KL, reverse KL, incoherence at 1e-8
    1e-8: (12.330950, 72.075181, 0.497134),
    1e-7: (12.330938, 62.917632, 0.410910),
    1e-6: (12.330833, 53.760087, 0.214921),
    1e-5: (12.329954, 44.602575, 0.098356),
    1e-4: (12.322823, 35.445392, 0.000000),
}


def block(belief, **settings):
    return laws(BlockHMMConfig(**settings), torch.tensor([belief], dtype=torch.double))


@pytest.mark.parametrize("eta", TABLE)
def test_mean_field_block_decoding_loses_what_the_table_says(eta):
    found = divergence(BlockHMMConfig(eta=eta))
    assert (found.forward_kl, found.reverse_kl, found.incoherence) == pytest.approx(TABLE[eta], rel=1e-5)
    assert found.broken == pytest.approx(0.4971, rel=1e-4)


@pytest.mark.parametrize(
    ("belief", "figures"),
    [((0.5, 0.5), (2.586112, 10.324835, 61.2220)), ((0.9, 0.1), (1.383718, 8.746238, 18774.94))],
)
def test_one_block_loses_and_costs_what_the_paper_s_numbers_say(belief, figures):
    here = block(belief)
    tc, reverse, proposals = (float(v) for v in (here.total_correlation, here.reverse, here.proposals))
    assert (tc, reverse) == pytest.approx(figures[:2], rel=5e-7)
    assert proposals == pytest.approx(figures[2], rel=1e-6)
    assert proposals >= math.exp(tc)


@pytest.mark.parametrize(
    ("eta", "tc", "reverse", "proposals"),
    [(1e-3, 0.685240, 2.761231, 1.998), (0.01, 0.637146, 1.614463, 1.98), (0.1, 0.368064, 0.510826, 1.8), (0.5, 0, 0, 1)],
)  # fmt: skip
@pytest.mark.parametrize("size", [2, 8])
def test_uniform_bits_with_a_noisy_parity_follow_their_closed_forms(eta, tc, reverse, proposals, size):
    here = block((1.0, 0.0), rho=(0.5, 0.5), eta=eta, size=size)
    found = [float(v) for v in (here.total_correlation, here.reverse, here.proposals, here.broken)]
    assert found == pytest.approx([tc, reverse, proposals, 0.5], rel=2e-6)
    assert found[2] >= math.exp(found[0]) - 1e-9


def test_without_noise_one_bit_is_lost_and_two_proposals_suffice():
    here = block((1.0, 0.0), rho=(0.5, 0.5), eta=1e-300)
    assert float(here.total_correlation) == pytest.approx(math.log(2))
    assert float(here.proposals) == pytest.approx(2)


def test_the_laws_of_a_block_are_those_of_its_enumeration():
    config = BlockHMMConfig(blocks=2, size=4, rho=(0.8, 0.3), eta=0.02)
    model, prefix = BlockHMM(config), torch.tensor([[1, 1, 0, 1, 2, 2, 2, 2]])
    joint = model.block_joint(prefix, 1)[0]
    product = model.marginals(prefix)[0, 4:]
    bits = model.patterns.long()
    mean_field = product.gather(-1, bits.T).prod(0)
    state = torch.tensor([0.8**2 * 0.2, 0.3**2 * 0.7], dtype=torch.double)  # parity says nothing of the state
    here = laws(config, ((state / state.sum()) @ config.transition).unsqueeze(0))
    assert float(here.total_correlation) == pytest.approx(float((joint * (joint / mean_field).log()).sum()))
    assert float(here.reverse) == pytest.approx(float((mean_field * (mean_field / joint).log()).sum()))
    assert float(here.proposals) == pytest.approx(float((joint / mean_field).max()))
    assert float(here.incoherent(1e-3)) == pytest.approx(float(mean_field[joint <= 1e-3].sum()))
