"""Drafts from one reading, checked: the text of one position a round in fewer rounds."""

import pytest
import torch

from decoding.policies.field.freedave import FreeDave
from decoding.policies.quota import Sequential


def test_each_draft_commits_one_position_more(canvas, reading_of):
    proposal = FreeDave(3).propose(canvas(5), reading_of([0.6, 0.9, 0.7, 0.8, 0.5]))
    assert [sorted((row > 0).nonzero().flatten().tolist()) for row in proposal.reason[0]] == [[1], [1, 3], [1, 2, 3]]
    assert proposal.live.tolist() == [[True, True, True]]


def test_no_draft_leaves_its_block_or_fills_the_row(canvas, reading_of):
    reading = reading_of([0.9, 0.8, 0.7, 0.0, 0.0, 0.0])
    assert FreeDave(4).propose(canvas(6, 3), reading).live.tolist() == [[True, True, False, False]]
    assert FreeDave(4).propose(canvas(3), reading_of([0.9, 0.8, 0.7])).live.tolist() == [[True, True, False, False]]


@pytest.mark.parametrize("which", ["flat", "sharp", "context", "groups"])
def test_the_text_is_that_of_one_position_a_round(run, denoisers, prompts, which):
    alone, counts = run(denoisers[which], Sequential(), prompts)
    drafted, fewer = run(denoisers[which], FreeDave(4), prompts)
    assert torch.equal(alone.tokens, drafted.tokens)
    assert (fewer.rounds <= counts.rounds).all()
    assert (fewer.rounds == counts.rounds - drafted.drafts_true).all()


def test_on_a_table_that_never_changes_every_draft_comes_true(run, denoisers, prompts):
    _, counts = run(denoisers["flat"], FreeDave(4), prompts, early_stop=False)
    assert counts.rounds.tolist() == [2 * 3] * 3  # each of three blocks: its opening round, then three drafts at once


def test_no_draft_steps_are_refused():
    with pytest.raises(ValueError, match=r"^draft_steps must be at least 1, got 0$"):
        FreeDave(0)
