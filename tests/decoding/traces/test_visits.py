"""Visits: the states of a decode that are kept, and how one is finished with a token forced."""

from __future__ import annotations

from dataclasses import replace

import torch

from decoding.policies.quota import Sequential
from decoding.policies.threshold import Threshold
from decoding.traces.branches import finish
from decoding.traces.visits import visit
from models.toys.toy import GroupDenoiser
from tests.decoding.traces.first_states import beginning


def states_of(denoiser, driver, keep, seed=0):
    state = beginning(denoiser, 12, 4, batch=3, prompt=4)
    generator = torch.Generator().manual_seed(seed)
    return visit(denoiser, state, driver, keep=keep, attention_mask=None, generator=generator)


def test_a_visit_keeps_states_that_the_decode_passed_through(denoisers):
    everything = states_of(denoisers["context"], Sequential(), 99)
    rounds = [everything.state.round[everything.row == row].tolist() for row in range(3)]
    assert all(of_row == list(range(1, len(of_row) + 1)) for of_row in rounds)
    assert everything.state.unfinished.all()
    few = states_of(denoisers["context"], Sequential(), 3)
    assert torch.bincount(few.row).tolist() == [3, 3, 3]
    for s, row in enumerate(few.row.tolist()):
        at = ((everything.row == row) & (everything.state.round == few.state.round[s])).nonzero()[0, 0]
        for name in ("tokens", "masked", "recent_confidence", "recent_token", "committed_round", "opened"):
            assert torch.equal(getattr(few.state, name)[s], getattr(everything.state, name)[at])
    for row in range(3):
        assert sorted(few.place[few.row == row].tolist()) == [0, 1, 2]


def test_a_visit_draws_its_states_anew_with_another_seed(denoisers):
    rounds = [states_of(denoisers["context"], Sequential(), 2, seed).state.round.tolist() for seed in (0, 0, 1, 2)]
    assert rounds[0] == rounds[1]
    assert len({tuple(r) for r in rounds}) == 3
    firsts = [states_of(denoisers["context"], Sequential(), 4, seed) for seed in range(6)]
    labelled = torch.cat([one.state.round[one.place == 0] for one in firsts])
    assert set(labelled.tolist()) == {1, 2, 3, 4}  # not the earliest of each prompt


def test_a_driver_that_draws_leads_elsewhere_with_another_seed(denoisers):
    tokens = [states_of(denoisers["context"], Sequential(order="random"), 99, seed).state.tokens for seed in (3, 3, 4)]
    assert torch.equal(tokens[0], tokens[1])
    assert tokens[0].shape != tokens[2].shape or not torch.equal(tokens[0], tokens[2])


def test_finishing_goes_on_from_the_state_with_one_token_forced():
    denoiser = GroupDenoiser(2, 3)
    state = beginning(denoiser, 6, 6, batch=2)
    one = replace(
        state,
        tokens=state.tokens.index_fill(1, torch.tensor(4), 1),
        masked=state.masked.index_fill(1, torch.tensor(4), False),
    )
    free = finish(denoiser, one, Threshold(0.9), attention_mask=None)
    assert free[:, 1:].tolist() == [[0, 0, 0, 1, 1, 1]] * 2
    forced = finish(denoiser, one, Threshold(0.9), attention_mask=None, forced=torch.tensor([5, -1]))
    assert torch.equal(forced, free)
    assert torch.equal(one.tokens[:, 1:4], torch.full((2, 3), 2))  # the state itself is left alone
