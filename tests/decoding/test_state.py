"""Commit, early stop and the block clock."""

from dataclasses import replace

import pytest
import torch

from decoding.commit import advance_clock, commit, commit_first
from decoding.policies.ete import BeamETE
from decoding.policies.threshold import Threshold
from decoding.reading import Reading
from decoding.state import TENSORS, Proposal, Reason, start
from models.toys.toy import TableDenoiser

EOS, MASK = 4, 5


def spoken(tokens, confidence):
    """A denoiser that says these tokens with these confidences, the rest of the mass spread evenly."""
    p = torch.full((8, 6), 0.2)  # room for a prompt
    line = (1 - torch.tensor(confidence))[:, None].expand(-1, 6) / 4
    line = line.scatter(1, torch.tensor(tokens)[:, None], torch.tensor(confidence)[:, None])
    return TableDenoiser(torch.cat([p, line]).index_fill(1, torch.tensor(MASK), 0).log(), mask_id=MASK, eos_id=EOS)


@pytest.fixture
def said(run):
    """Decode one block of what a denoiser says after a prompt of one token."""

    def said_(tokens, confidence, policy, **settings):
        canvas = {"gen_length": len(tokens), "block_length": len(tokens)} | settings
        state, counts = run(spoken(tokens, confidence), policy, torch.zeros(1, 1, dtype=torch.long), **canvas)
        return state.tokens[0, 1:].tolist(), state.reason[0, 1:].tolist(), counts

    return said_


def test_start_masks_the_canvas_and_numbers_its_blocks():
    tokens = torch.tensor([[7, 8, 1, 1, 1, 1]])
    state = start(tokens, gen_length=4, block_length=2, mask_id=5, eos_id=None, initial_blocks=9)
    assert state.tokens.tolist() == [[7, 8, 5, 5, 5, 5]]
    assert state.block[0].tolist() == [-1, -1, 0, 0, 1, 1]
    assert state.opened.tolist() == [2]
    assert state.committed_round.tolist() == [[0, 0, -1, -1, -1, -1]]


def test_nothing_after_a_committed_eos_is_predicted(said):
    tokens, reason, counts = said([1, EOS, 2, 3], [0.95, 0.95, 0.5, 0.5], Threshold())
    assert tokens == [1, EOS, EOS, EOS]
    assert reason == [Reason.EXPLOIT, Reason.EXPLOIT, Reason.END, Reason.END]
    assert counts.nfe == counts.rounds.item() == 1


def test_a_mask_before_the_eos_keeps_the_row_going(said):
    tokens, reason, counts = said([1, EOS, 2, 3], [0.6, 0.95, 0.5, 0.7], Threshold())
    assert counts.rounds.item() == 3  # EOS, then .7 behind it, then .6 before it
    assert tokens == [1, EOS, EOS, EOS]  # 3 was committed behind the EOS before the row could end
    assert reason == [Reason.FORCED, Reason.EXPLOIT, Reason.END, Reason.FORCED]


def test_without_the_early_stop_everything_is_predicted(said):
    tokens, _, counts = said([1, EOS, 2, 3], [0.95, 0.95, 0.5, 0.6], Threshold(), early_stop=False)
    assert tokens == [1, EOS, 2, 3]
    assert counts.rounds.item() == 3


def test_an_eos_in_the_prompt_stops_nothing(run):
    prompt = torch.full((1, 3), EOS)
    state, counts = run(spoken([1, 2], [0.5, 0.6]), Threshold(), prompt, gen_length=2, block_length=2)
    assert state.tokens.tolist() == [[EOS, EOS, EOS, 1, 2]]
    assert counts.rounds.item() == 2


def test_rows_end_apart_and_finished_rows_cost_nothing(run, counting, denoisers, prompts):
    denoiser = counting(denoisers["context"])
    _, counts = run(denoiser, Threshold(0.6), prompts)
    assert len(set(counts.rounds.tolist())) > 1
    assert denoiser.canvases == counts.rounds.sum()


def test_when_every_branch_ends_the_row_no_forward_follows(said):
    policy = BeamETE(gamma=0.9, min_masks=0, implicit=False, branches=2)
    tokens, reason, counts = said([EOS, 1, 2, 3], [0.95, 0.3, 0.4, 0.35], policy)
    assert (counts.nfe, counts.rounds.item(), counts.explored.item()) == (1, 1, 0)
    assert reason == [Reason.EXPLOIT, Reason.END, Reason.END, Reason.EXPLORE]  # .35 beats .3
    assert tokens == [EOS, EOS, EOS, EOS]


@pytest.mark.parametrize(("eos_confidence", "kept"), [(0.35, True), (0.25, False)])
def test_a_round_counts_even_where_a_branch_that_ended_the_row_is_kept(said, eos_confidence, kept):
    policy = BeamETE(gamma=0.9, min_masks=0, implicit=False, branches=2)
    _, reason, counts = said([EOS, 1, 2, 3], [eos_confidence, 0.3, 0.85, 0.6], policy)
    assert counts.rounds.item() == counts.nfe
    assert (reason[1] == Reason.END) == kept


def test_commit_writes_only_the_reasons_and_remembers_the_round(canvas, reading_of):
    state = replace(canvas(3), round=torch.tensor([7]))
    reading = reading_of([0.9, 0.5, 0.4])
    after = commit(state, reading, Threshold().propose(state, reading))
    assert after.masked.tolist() == [[[False, True, True]]]
    assert after.committed_round.tolist() == [[[7, -1, -1]]]
    torch.testing.assert_close(after.committed_confidence, torch.tensor([[[0.9, 0.0, 0.0]]]))


@pytest.mark.parametrize(
    ("budget", "masked", "opened", "spent"),
    [
        (None, [True, False, True, True], 1, 5),
        (None, [False, False, True, True], 2, 0),
        (5, [True, False, True, True], 2, 0),
        (6, [True, False, True, True], 1, 5),
    ],
)
def test_the_clock_opens_a_block_when_the_budget_is_spent_or_nothing_is_left(canvas, budget, masked, opened, spent):
    state = replace(canvas(4, 2, step_budget=budget), masked=torch.tensor([masked]), spent=torch.tensor([4]))
    after = advance_clock(state)
    assert (after.opened.item(), after.spent.item()) == (opened, spent)


def test_the_last_block_stays_open(canvas):
    state = replace(canvas(4, 2, step_budget=1, initial_blocks=2), spent=torch.tensor([9]))
    assert advance_clock(state).opened.item() == 2


def test_the_frontier_is_the_earliest_block_with_masks(canvas):
    state = replace(canvas(6, 2), masked=torch.tensor([[False, False, False, True, True, True]]))
    assert state.frontier.tolist() == [[False, False, False, True, False, False]]
    assert not state.feasible.any()


def test_accepted_is_what_a_bound_stands_behind(canvas):
    reasons = [r for r in Reason if r < 6 or r == Reason.CASCADE]
    state = replace(canvas(len(reasons)), reason=torch.tensor([[int(r) for r in reasons]]))
    assert [r for r, yes in zip(reasons, state.accepted[0].tolist(), strict=True) if yes] == [
        Reason.EXPLOIT,
        Reason.CASCADE,
    ]


def test_accepted_is_true_of_two_reasons_alone(canvas):
    state = replace(canvas(len(Reason)), reason=torch.tensor([[int(r) for r in Reason]]))
    assert state.accepted[0].tolist() == [r in (Reason.EXPLOIT, Reason.CASCADE) for r in Reason]


def test_the_first_canvas_alone_is_written_as_among_others():
    draws = torch.Generator().manual_seed(0)
    rows, length = 32, 10

    def some(*shape):
        return torch.rand(*shape, generator=draws)

    state = start(
        torch.zeros(rows, length).long(), gen_length=8, block_length=4, mask_id=MASK, eos_id=EOS, step_budget=2
    )
    known = state.masked & (some(rows, length) < 0.3)
    state = replace(state, masked=state.masked & ~known, tokens=state.tokens.masked_fill(known, 1))
    token = torch.randint(0, MASK, (rows, length), generator=draws)
    reading = replace(
        Reading.empty((rows, length), token.device), rows=state.masked, token=token, confidence=some(rows, length)
    )
    chosen = some(rows, 3, length) < 0.6
    reason = torch.where(chosen & state.masked[:, None], int(Reason.EXPLOIT), 0)
    reason = torch.where(chosen & known[:, None], int(Reason.REVOKED), reason)
    tokens = torch.where(reason == int(Reason.EXPLOIT), token[:, None], state.tokens[:, None])
    proposal = Proposal(
        tokens=tokens.masked_fill(reason == int(Reason.REVOKED), MASK),
        reason=reason,
        live=torch.ones(rows, 3, dtype=torch.bool),
        log_confidence=some(rows, 3),
        confidence=some(rows, 3, length),
        looks=torch.arange(rows),
        memory=some(rows, 2, length),
    )
    for one in (
        proposal,
        replace(proposal, confidence=None),
        replace(proposal, states=commit(state, reading, proposal)),
    ):
        first, among = commit_first(state, reading, one), commit(state, reading, one)
        assert {name for name in TENSORS if not torch.equal(getattr(first, name), getattr(among, name)[:, 0])} == set()
    assert (among.reason == int(Reason.END)).any()
