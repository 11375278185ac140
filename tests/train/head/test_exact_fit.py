"""A head fitted without text: states of the open block, labels from the sequence they were taken from."""

import pytest
import torch

from decoding.traces.branches import predict
from models.toys.block_hmm import BlockHMM, BlockHMMConfig
from train.head.exact_fit import fit_features, label, label_pairs, reveal_some, with_history

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


def test_pairs_are_labelled_by_what_a_drawn_token_does_to_the_others():
    """Where the parity and one other bit are left, the likelier parity turns with that bit and with nothing else."""
    drawn, state = states(400)
    batch = label_pairs(MODEL, label(MODEL, state, drawn, 0.9), torch.Generator().manual_seed(2))
    reading = predict(MODEL, state.tokens, state.feasible, None)
    assert torch.equal(batch.alone, reading.token)
    assert torch.equal(batch.bare.sum(-1), state.feasible.sum(-1))
    assert not batch.gain.any()
    known = batch.changed >= 0
    there = state.feasible.sum(-1)
    assert torch.equal(known.sum((1, 2)), there * (there - 1))  # every ordered pair of masks, none with itself
    assert not known.gather(2, batch.position.clamp(min=0).unsqueeze(-1)).any()
    lone = there == 1
    assert lone.any()
    assert not known[lone].any()
    pair = (there == 2) & (reading.confidence.amax(-1) < 0.95)
    sure = pair & ((reading.confidence > 0.6) | ~state.feasible).all(-1)
    share = batch.changed[sure].gt(0).sum((1, 2)).float()
    assert 0 < share.mean() < 1  # it turns as often as the bit is the less likely one


def test_states_have_the_readings_of_a_decode_that_had_shown_less():
    _, state = states(300)
    found = with_history(MODEL, state, torch.Generator().manual_seed(3))
    assert torch.equal(found.tokens, state.tokens)
    shown = (~state.masked & (state.block == state.opened.unsqueeze(1) - 1)).any(-1)
    assert (found.recent_confidence[:, 0] > 0).any(-1).equal(shown)
    assert ((found.recent_token >= 0) <= state.feasible.unsqueeze(1)).all()
    older, newer = ((found.recent_token[:, age] >= 0).any(-1) for age in (1, 0))
    assert (older <= newer).all()
    assert older.sum() < newer.sum()


def test_a_head_with_pairs_is_fitted():
    head = fit_features(MODEL, states(96)[0], block_length=4, epochs=1, pairs=True)
    assert head.config.pairs == 16
    assert head.pairs.outward.weight[16:].any()
