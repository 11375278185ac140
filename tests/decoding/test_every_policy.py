"""What holds for every decoder on every denoiser."""

import re
from dataclasses import dataclass
from typing import final

import pytest
import torch

from decoding.comparison.statistics import statistics
from decoding.names import POLICIES, NamedPolicy
from decoding.policies.field.freedave import FreeDave
from decoding.policies.learned import score
from decoding.policies.rules import at_least_one, confident
from decoding.policies.verified import Verified
from decoding.policy import Needs, Policy
from decoding.reading import Reading
from decoding.rounds.round import Counts
from decoding.state import DecodeState, Proposal, Reason
from models.heads.scoring_head import ScoringHead
from tests.decoding.conftest import GRID, members
from tests.decoding.policy_settings import HEADS, ROWS, row_of

DECODES: dict[tuple[int, int], "Decode"] = {}  # one decode serves all the tests of a pair


@dataclass(frozen=True)
class Decode:
    states: list[DecodeState]  # every state that a forward read, then the final one
    counts: Counts
    calls: int
    canvases: int
    positions: int


@pytest.fixture
def traced(run, counting, prompts, any_policy, any_denoiser) -> Decode:
    key = (id(any_policy), id(any_denoiser))
    if key not in DECODES:
        states, denoiser = [], counting(any_denoiser)
        final, counts = run(denoiser, any_policy, prompts, on_step=lambda state, reading: states.append(state))
        DECODES[key] = Decode([*states, final], counts, denoiser.calls, denoiser.canvases, denoiser.positions)
    return DECODES[key]


def test_the_canvas_is_filled_and_the_prompt_untouched(traced, prompts, any_denoiser):
    final = traced.states[-1]
    assert not final.masked.any()
    assert (final.tokens != any_denoiser.mask_id).all()
    assert torch.equal(final.tokens[:, : prompts.shape[1]], prompts)


def test_nothing_commits_twice_unless_taken_back_once_and_only_feasible_positions_commit(
    traced, any_policy, any_denoiser
):
    eos_id = -1 if any_denoiser.eos_id is None else any_denoiser.eos_id
    revoked = torch.zeros_like(traced.states[0].tokens)
    for before, after in zip(traced.states, traced.states[1:], strict=False):
        new = before.masked & ~after.masked
        taken = after.masked & ~before.masked
        assert (after.reason[taken] == Reason.REVOKED).all()
        assert (before.reason[taken] > Reason.NONE).all()  # not the prompt
        assert (after.tokens[taken] == any_denoiser.mask_id).all()
        revoked = revoked + taken.long()
        assert any_policy.repeats or (revoked <= 1).all()
        committed = new & (after.reason != Reason.END)
        ended = ~new & ~taken & (after.tokens != before.tokens)  # only what an EOS before it makes void
        assert ((after.tokens == eos_id).cumsum(-1)[ended] > 1).all()
        assert not after.unfinished[ended.any(-1)].any()
        kept = ~new & ~taken & ~(after.reason == Reason.END)  # what is taken back behind an EOS is filled at once
        assert torch.equal(after.reason[kept], before.reason[kept])
        assert (after.reason[new] > 0).all()
        drafted = committed & (after.committed_round == before.round.unsqueeze(-1) + 1)  # what the next forward checked
        assert isinstance(any_policy, Verified | FreeDave) or not drafted.any()
        assert (after.round == before.round + before.unfinished).all() or not drafted.any()
        assert (after.block < after.opened.unsqueeze(-1))[drafted].all()
        at_once = committed & ~drafted
        assert (at_once <= before.feasible).all()
        assert (after.committed_round[at_once] == before.round.unsqueeze(-1).expand_as(new)[at_once]).all()


def test_every_unfinished_row_gains_a_position_a_round_unless_its_policy_bounds_its_rounds(traced, any_policy):
    idle = torch.zeros(len(traced.states[0].tokens), dtype=torch.long)
    for before, after in zip(traced.states, traced.states[1:], strict=False):
        progress = before.masked.sum(-1) - after.masked.sum(-1)
        assert any_policy.needs.losses or (progress >= 0).all()
        idle = idle + (before.unfinished & (progress == 0)).long()
    most = 12 if any_policy.needs.losses else any_policy.needs.rounds
    assert most is None or traced.counts.nfe <= most
    assert most is not None or not idle.any()


def test_a_finished_row_proposes_nothing(traced, any_policy):
    final = traced.states[-1]
    nothing = Reading.empty(tuple(final.tokens.shape), final.tokens.device)
    proposal = any_policy.propose(final, nothing)
    assert not proposal.live.any()
    assert not proposal.reason.any()
    assert (proposal.tokens == final.tokens.unsqueeze(1)).all()


def test_counted_forwards_are_real_calls(traced):
    counts = traced.counts
    assert counts.nfe == traced.calls == counts.rounds.max()
    assert counts.sequence_forwards.sum() == traced.canvases
    assert counts.token_positions.sum() == traced.positions


def test_a_round_costs_one_canvas_or_all_the_branches(traced, any_policy):
    figures = statistics(traced.states[-1], traced.counts)
    branches = any_policy.needs.canvases
    extra = figures.sequence_forwards - figures.rounds
    assert (extra <= traced.counts.explored * (branches - 1)).all()
    assert (extra >= traced.counts.explored).all()
    assert (figures.bits >= 0).all()
    assert ((figures.new_tokens >= 1) & (figures.new_tokens <= 12)).all()


@pytest.mark.parametrize("which", ["context", "groups"])
def test_a_batch_decodes_as_its_rows_alone_whatever_the_left_padding(run, any_policy, denoisers, which, prompts):
    if any_policy.needs.noise:
        pytest.skip("rows share the draws of one generator")
    lengths = (4, 1)
    mask = torch.ones(2, prompts.shape[1] + 12, dtype=torch.bool)
    mask[1, :3] = False
    padded = prompts[:2].masked_fill(~mask[:, :4], denoisers[which].mask_id)
    together, counts = run(denoisers[which], any_policy, padded, attention_mask=mask)
    for row, length in enumerate(lengths):
        alone, cost = run(denoisers[which], any_policy, prompts[row : row + 1, 4 - length :])
        for name in ("tokens", "committed_round", "reason"):
            assert torch.equal(getattr(together, name)[row, -12:], getattr(alone, name)[0, -12:])
        for name in ("rounds", "sequence_forwards", "token_positions", "explored"):
            assert getattr(counts, name)[row] == getattr(cost, name)[0]
        assert cost.nfe == cost.rounds.item()


def test_the_same_seed_gives_the_same_tokens(run, denoisers, any_policy, prompts):
    one, cost = run(denoisers["context"], any_policy, prompts[:2], temperature=1.0, seed=7)
    two, again = run(denoisers["context"], any_policy, prompts[:2], temperature=1.0, seed=7)
    assert torch.equal(one.tokens, two.tokens)
    assert torch.equal(one.committed_round, two.committed_round)
    assert torch.equal(cost.sequence_forwards, again.sequence_forwards)


@dataclass(frozen=True)
class Idle(Policy):
    """Commits the leftmost position, but nothing of the second row from a round on; no error before the last of `rounds`."""

    since: int = 2
    rounds: int | None = None

    @property
    def needs(self):
        return Needs(rounds=self.rounds)

    def propose(self, state, reading):
        first = reading.rows & (reading.rows.long().cumsum(-1) == 1)
        first[1] &= state.round[1] < self.since
        return Proposal.single(state, reading, first.long())


@pytest.mark.parametrize("since", [1, 2, 5])
def test_a_policy_that_commits_nothing_of_a_row_is_named_in_that_round(run, counting, denoisers, prompts, since):
    denoiser = counting(denoisers["flat"])
    sentence = (
        f"a policy must commit a position of every unfinished row in a round, got none in round {since} from Idle("
    )
    with pytest.raises(RuntimeError, match=f"^{re.escape(sentence)}"):
        run(denoiser, Idle(since), prompts, early_stop=False)
    assert denoiser.calls == since


def test_a_policy_that_bounds_its_rounds_does_not_run_for_ever(run, counting, denoisers, prompts):
    denoiser = counting(denoisers["flat"])
    with pytest.raises(RuntimeError, match=r"got none in round 16 from Idle\("):
        run(denoiser, Idle(rounds=16), prompts, early_stop=False)


def test_every_policy_stands_in_the_grid():
    assert POLICIES.keys() >= ROWS.keys()
    assert all(row.toys and row.shipped for row in map(row_of, POLICIES))
    assert GRID.keys() == {f"{name}-{label}" for name in POLICIES for label in row_of(name).toys}


@final
@dataclass(frozen=True)
class HalfSure(Policy):
    """Commit what the head holds safe and the model sure, at least the safest."""

    head: ScoringHead
    threshold: float = 0.9

    def propose(self, state, reading):
        sure = confident(reading, self.threshold) & (score(self.head, state, reading).risk < 0.5)
        return Proposal.single(state, reading, at_least_one(sure, reading.log_odds, reading))


def test_a_policy_with_a_head_joins_by_its_line_in_names_alone(monkeypatch, run, denoisers, prompts):
    monkeypatch.setitem(POLICIES, "half-sure", NamedPolicy(f"{__name__}:HalfSure", dial="threshold", head=True))
    cells = members("half-sure")
    assert [label.removeprefix("half-sure-") for label in cells] == [*HEADS, "careful", "bold"]
    assert [policy.threshold for policy in cells.values()] == [0.9] * 4 + [0.9997, 0.6]
    rounds = [run(denoisers["sharp"], policy, prompts)[1].rounds.sum() for policy in cells.values()]
    assert rounds[-1] < rounds[-2]
