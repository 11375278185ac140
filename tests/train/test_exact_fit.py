"""A head fitted without text: states of the open block, labels from the sequence they were taken from."""

import pytest
import torch

from decoding.branches import predict
from models.block_hmm import BlockHMM, BlockHMMConfig
from train.exact_fit import fit_features, label, reveal_some

pytestmark = pytest.mark.filterwarnings(  # inside Lightning
    "ignore:.*(LeafSpec|num_workers|enable_nested_tensor|number of training batches)"
)
MODEL = BlockHMM(BlockHMMConfig(blocks=2, size=4, eta=1e-3))


def states(count=200):
    drawn = MODEL.sample(count, torch.Generator().manual_seed(0))
    return drawn, reveal_some(MODEL, drawn, 4, torch.Generator().manual_seed(1))


def test_states_show_whole_blocks_before_the_open_one_and_never_all_of_it():
    drawn, state = states()
    assert state.feasible.any(-1).all()
    first, second = state.masked[:, :4], state.masked[:, 4:]
    assert ((state.opened == 2) <= ~first.any(-1)).all()
    assert ((state.opened == 1) <= second.all(-1)).all()
    assert torch.equal(state.tokens[~state.masked], drawn[~state.masked])
    assert (state.tokens[state.masked] == MODEL.mask_id).all()


def test_gain_counts_right_minus_wrong_new_crossings():
    """With all but two bits of a block known, committing one decides the other, for better or worse."""
    drawn, state = states(400)
    two = state.map(lambda v: v[state.feasible.sum(-1) == 2])
    reference = drawn[state.feasible.sum(-1) == 2]
    batch = label(MODEL, two, reference, 0.99)
    reading = predict(MODEL, two.tokens, two.feasible, None)
    unsure = ((reading.confidence < 0.99) | ~two.feasible).all(-1)
    assert unsure.any()
    first = reading.token.gather(1, batch.position[:, :1]) == reference.gather(1, batch.position[:, :1])
    gain = batch.gain[unsure, 0]
    assert torch.equal(gain[first[unsure, 0]].unique(), torch.tensor([1.0]))
    assert torch.equal(gain[~first[unsure, 0]].unique(), torch.tensor([-1.0]))
    assert batch.valid[unsure].sum(-1).unique().tolist() == [2]


def test_a_fitted_head_scores_every_mask():
    head = fit_features(MODEL, states(96)[0], block_length=4, epochs=1)
    assert head.config.variant == "features"
    assert not head.training
