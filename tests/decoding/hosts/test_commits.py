"""A host that asks a policy once a forward writes what the decode loop writes, and is told what it cannot serve."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from decoding.hosts.commits import commits, require_hostable
from decoding.hosts.dinfer import PolicyDecoder
from decoding.policies.threshold import Threshold
from decoding.policy import Needs, Policy
from decoding.state import Proposal


def served(policy) -> bool:
    try:
        require_hostable(policy)
    except ValueError:
        return False
    return True


def host(denoiser, policy, state, generator):
    """Rounds of a host that runs the base itself; the final canvas and its rounds."""
    while state.unfinished.any():
        logits = denoiser.logits(state.tokens)
        state = commits(policy, logits, None, state.masked, state, generator=generator).state
    return state.tokens, state.round


def test_a_host_writes_what_the_loop_writes(any_policy, any_denoiser, prompts, begin, run):
    if not served(any_policy):
        with pytest.raises(
            ValueError, match=f"^policy must need no more than a host's forward, got {type(any_policy).__name__}: "
        ):
            require_hostable(any_policy)
        return
    first = begin(any_denoiser, any_policy, prompts[:1], early_stop=False)
    tokens, rounds = host(any_denoiser, any_policy, first, torch.Generator().manual_seed(0))
    final, counts = run(any_denoiser, any_policy, prompts[:1], early_stop=False)
    assert torch.equal(tokens, final.tokens)
    assert torch.equal(rounds, counts.rounds)


def test_nothing_of_the_hosts_is_written(prompts, begin, denoisers):
    denoiser, policy = denoisers["sharp"], Threshold(0.9)
    state = begin(denoiser, policy, prompts, early_stop=False)
    logits = denoiser.logits(state.tokens)
    before = [value.clone() for value in (state.tokens, state.masked, logits)]
    done = commits(policy, logits, None, state.masked, state)
    assert all(torch.equal(a, b) for a, b in zip(before, (state.tokens, state.masked, logits), strict=True))
    assert torch.equal(done.where, state.masked & ~done.state.masked)
    assert torch.equal(done.tokens[~done.where], state.tokens[~done.where])


def test_logits_of_a_block_alone_serve_that_block(prompts, begin, denoisers):
    denoiser, policy = denoisers["context"], Threshold(0.5)
    state = begin(denoiser, policy, prompts, early_stop=False)
    logits = denoiser.logits(state.tokens)
    first, last = prompts.shape[1], prompts.shape[1] + 4
    whole, part = (
        commits(policy, logits, None, state.masked, state),
        commits(policy, logits[:, first:last], None, state.masked, state, first=first),
    )
    assert torch.equal(whole.tokens, part.tokens)
    assert torch.equal(whole.where, part.where)


def test_what_the_host_filled_itself_is_committed_no_more(prompts, begin, denoisers):
    denoiser, policy = denoisers["sharp"], Threshold(0.1)
    state = begin(denoiser, policy, prompts, early_stop=False)
    filled = state.masked.clone()
    filled[:, prompts.shape[1] + 1] = False
    done = commits(policy, denoiser.logits(state.tokens), None, filled, state)
    assert not done.where[:, prompts.shape[1] + 1].any()
    assert done.where.any(-1).all()


@dataclass(frozen=True)
class Reads(Policy):
    """Says that its head reads a block."""

    @property
    def needs(self):
        return Needs(taps=(0,))

    def propose(self, state, reading):
        return Proposal.single(state, reading, reading.rows.long())


def test_a_head_that_reads_hidden_states_needs_taps(prompts, begin, denoisers):
    state = begin(denoisers["sharp"], Reads(), prompts, early_stop=False)
    with pytest.raises(ValueError, match="taps must be given to Reads, whose head reads them, got none"):
        commits(Reads(), denoisers["sharp"].logits(state.tokens), None, state.masked, state)
    with pytest.raises(ValueError, match="policy must read no hidden states in dInfer, which gives none"):
        PolicyDecoder(Reads(), mask_id=5, eos_id=4)
