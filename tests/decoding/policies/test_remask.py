"""What is drafted, what is verified against what, and what is taken back, once."""

from dataclasses import replace

import pytest
import torch

from decoding.commit import commit_first
from decoding.policies.remask import DraftVerify, RemaskLowest
from decoding.reading import Reading
from decoding.state import Proposal, Reason
from models.toys.block_hmm import BlockHMM, BlockHMMConfig
from models.toys.toy import GroupDenoiser

NOW, FORCED, GONE, AGAIN = (int(r) for r in (Reason.EXPLOIT, Reason.FORCED, Reason.REVOKED, Reason.AGAIN))
GONE_OR_AGAIN = (GONE, AGAIN)


def committed(canvas, reading_of, confidence, where):
    """A canvas of which some positions were committed with this confidence (token 0)."""
    reading = reading_of(confidence)
    reason = torch.tensor([[NOW * (i in where) for i in range(len(confidence))]])
    state = canvas(len(confidence))
    return commit_first(state, reading, Proposal.single(state, reading, reason))


def test_drafts_below_the_second_bar_are_dealt_to_the_canvases_that_verify_them(canvas, reading_of):
    proposal = DraftVerify(0.5, 0.9, groups=2).propose(canvas(6), reading_of([0.95, 0.6, 0.7, 0.8, 0.4, 0.3]))
    assert proposal.reason[0].tolist() == [
        [NOW, NOW, NOW, NOW, 0, 0],
        [NOW, 0, NOW, 0, 0, 0],  # first and third of the unsure, the surest first
        [NOW, NOW, 0, NOW, 0, 0],
    ]
    assert (proposal.tokens[0] == 5).tolist() == (proposal.reason[0] == 0).tolist()
    assert proposal.live.tolist() == [[True, True, True]]


def test_a_round_that_fills_the_canvas_or_drafts_nothing_unsure_verifies_nothing(canvas, reading_of):
    policy = DraftVerify(0.5, 0.9, groups=2)
    assert policy.propose(canvas(3), reading_of([0.6, 0.7, 0.8])).live.tolist() == [[True, False, False]]
    assert policy.propose(canvas(3), reading_of([0.95, 0.9, 0.3])).live.tolist() == [[True, False, False]]


def test_a_row_that_an_eos_ends_verifies_nothing(canvas, reading_of):
    """The first position says EOS and is committed: whatever the others drafted is void."""
    state = canvas(4)
    state = replace(state, layout=replace(state.layout, eos_id=0))
    proposal = DraftVerify(0.5, 0.9, groups=2).propose(state, reading_of([0.95, 0.6, 0.7, 0.3]))
    assert proposal.live.tolist() == [[True, False, False]]
    state = replace(state, layout=replace(state.layout, eos_id=4))
    assert DraftVerify(0.5, 0.9, groups=2).propose(state, reading_of([0.95, 0.6, 0.7, 0.3])).live.all()


@pytest.mark.parametrize(
    ("token", "confidence", "reasons"),
    [
        (0, 0.95, [0, 0, NOW, NOW]),  # verified
        (0, 0.85, [GONE, 0, NOW, NOW]),  # the others do not bear it out
        (1, 0.95, [GONE, 0, NOW, NOW]),  # they say something else
    ],
)
def test_a_draft_is_taken_back_unless_the_others_bear_it_out(canvas, reading_of, token, confidence, reasons):
    state = committed(canvas, reading_of, [0.6, 0.6, 0.6, 0.6], {0, 1})
    reading = reading_of([confidence, 0.99, 0.95, 0.92])
    reading = replace(reading, token=torch.tensor([[token, 0, 0, 0]]))
    proposal = DraftVerify(0.5, 0.9, groups=1).propose(state, reading)
    assert proposal.reason[0, 0].tolist() == reasons
    assert (proposal.tokens[0, 0] == 5).tolist() == [reasons[0] == GONE, False, False, False]


def test_fewer_are_taken_back_than_committed_the_least_supported_first(canvas, reading_of):
    state = committed(canvas, reading_of, [0.6] * 6, {0, 1, 2})
    wine = DraftVerify(0.5, 0.9, groups=1)
    assert wine.propose(state, reading_of([0.5, 0.2, 0.3, 0.95, 0.95, 0.1])).reason[0, 0].tolist() == [
        *[0, GONE, 0],
        *[NOW, NOW, 0],
    ]
    assert wine.propose(state, reading_of([0.5, 0.2, 0.3, 0.95, 0.2, 0.1])).reason[0, 0].tolist()[:3] == [0, 0, 0]


@pytest.mark.parametrize("policy", [DraftVerify(0.5, 0.9, groups=1), RemaskLowest(0.5, 0.9, count=3)])
def test_what_was_taken_back_is_committed_for_good(canvas, reading_of, policy):
    state = committed(canvas, reading_of, [0.6] * 6, {0})
    states, reasons = [state], []
    for confidence in (
        [0.3, 0.95, 0.95, 0.1, 0.1, 0.1],
        [0.7, 0.1, 0.1, 0.95, 0.1, 0.1],
        [0.2, 0.1, 0.1, 0.1, 0.9, 0.9],
    ):
        reading = reading_of(confidence)
        reading = replace(reading, rows=reading.rows & (state.masked | (torch.arange(6) == 0)))
        proposal = policy.propose(state, reading)
        reasons.append(int(proposal.reason[0, 0, 0]))
        state = commit_first(state, reading, proposal)
        states.append(state)
    assert reasons == [GONE, AGAIN, 0]
    assert states[1].masked[0, 0]
    assert (int(states[1].committed_round[0, 0]), float(states[1].committed_confidence[0, 0])) == (-1, 0.0)
    assert (int(states[2].reason[0, 0]), float(states[2].committed_confidence[0, 0])) == (AGAIN, pytest.approx(0.7))


def test_the_least_sure_commits_are_taken_back(canvas, reading_of):
    state = committed(canvas, reading_of, [0.6, 0.95, 0.5, 0.55, 0.3, 0.3, 0.3], {0, 1, 2, 3})
    reading = reading_of([0.0, 0.0, 0.0, 0.0, 0.8, 0.7, 0.7])
    two = RemaskLowest(0.5, 0.9, count=2).propose(state, reading).reason[0, 0].tolist()
    assert two == [0, 0, GONE, GONE, NOW, NOW, NOW]
    one = RemaskLowest(0.75, 0.9, count=2).propose(state, reading).reason[0, 0].tolist()
    assert one == [0, 0, 0, 0, NOW, 0, 0]  # one committed: none back
    assert FORCED in RemaskLowest(0.9, 0.9, count=2).propose(state, reading).reason[0, 0].tolist()


def test_the_first_canvas_that_reads_a_position_speaks_for_it():
    blank = Reading.empty((1, 2, 3), torch.device("cpu"))
    rows = torch.tensor([[[True, False, False], [True, True, False]]])
    reading = replace(blank, rows=rows, confidence=torch.tensor([[[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]]]))
    first = DraftVerify().combine(reading, torch.zeros(1, dtype=torch.long))
    assert first.rows.tolist() == [[True, True, False]]
    assert first.confidence[0].tolist()[:2] == pytest.approx([0.1, 0.5])
    assert first.top_log_probs.shape == (1, 3, 5)


def test_wrong_twins_are_found_out(run, prompts):
    """Groups of equal bits, all drafted at once at c = .5 with random bits: the verifier sees the disagreement."""
    policy = DraftVerify(0.5, 0.9, groups=4)
    agree = {}
    for name, kind in (("verified", policy), ("not", replace(policy, verify=0.5))):
        final, _ = run(GroupDenoiser(4, 2), kind, prompts.repeat(64, 1), temperature=1.0, gen_length=8, block_length=8)
        pairs = final.tokens[:, -8:].unflatten(1, (4, 2))
        agree[name] = (pairs[..., 0] == pairs[..., 1]).float().mean().item()
    assert agree["verified"] >= agree["not"]


def test_remasking_mends_parity_on_the_block_hmm(run):
    model = BlockHMM(BlockHMMConfig(blocks=2, size=4, rho=(0.6, 0.4), eta=1e-3))
    kept = {}
    for name, count in (("remasked", 3), ("left", 1)):
        policy = RemaskLowest(0.3, 0.999 if name == "remasked" else 0.01, count=count)
        final, _ = run(
            model, policy, torch.zeros(256, 0, dtype=torch.long), temperature=1.0, gen_length=8, block_length=4
        )
        kept[name] = (final.tokens.unflatten(1, (2, 4)).sum(-1) % 2 == 0).float().mean().item()
    assert kept["remasked"] >= kept["left"]


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: DraftVerify(0.0), r"draft must lie in \(0, 1\], got 0.0"),
        (lambda: DraftVerify(verify=0.4), r"verify must lie in \[0.5, 1\], got 0.4"),
        (lambda: DraftVerify(groups=0), "groups must be at least 1, got 0"),
        (lambda: RemaskLowest(2.0), r"threshold must lie in \(0, 1\], got 2.0"),
        (lambda: RemaskLowest(keep=0.0), r"keep must lie in \(0, 1\], got 0.0"),
        (lambda: RemaskLowest(count=0), "count must be at least 1, got 0"),
    ],
)
def test_settings_out_of_range_are_refused(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()
