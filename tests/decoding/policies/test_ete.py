"""Explore-Then-Exploit: exploit set, trigger, implicit exploration, candidates, Eq. 7, the paper's toy."""

from dataclasses import replace

import pytest
import torch

from decoding.comparison.statistics import bits_to_rounds, per_round_invariant
from decoding.features import NAMES
from decoding.policies.bounds import Factor
from decoding.policies.ete import BeamETE, RandomParity
from decoding.policies.learned_ete import LearnedParity
from decoding.policies.threshold import Threshold
from decoding.state import Proposal, Reason
from models.heads.config import HeadConfig
from models.heads.scoring_head import ScoringHead
from models.toys.toy import GroupDenoiser

EXPLOIT, FORCED, IMPLICIT, EXPLORE = Reason.EXPLOIT, Reason.FORCED, Reason.IMPLICIT, Reason.EXPLORE
BARE = BeamETE(implicit=False, min_masks=0, gamma=0.99, branches=3)  # triggers unless everything is accepted
CONFIDENCE = [0.95, 0.6, 0.25, 0.18, 0.4, 0.05]


@pytest.fixture
def planned(canvas, reading_of):
    """The plan for one reading; reasons and candidates as lists."""

    def planned_(policy, confidence, block_length=None, **settings):
        state, reading = canvas(len(confidence), block_length, **settings), reading_of(confidence)
        plan = policy.plan(state, replace(reading, rows=state.feasible))
        return plan.reason[0].tolist(), bool(plan.triggered[0]), plan.candidates[plan.valid].tolist()

    return planned_


def test_exploitation_takes_the_threshold_or_the_factor_rule(planned):
    quiet = replace(BARE, gamma=0.0)
    assert planned(quiet, [0.95, 0.9, 0.85, 0.7, 0.4])[0] == [1, 1, 0, 0, 0]
    assert planned(replace(quiet, factor=1.0), [0.95, 0.9, 0.85, 0.7, 0.4])[0] == [1, 1, 1, 0, 0]
    for rule in (quiet, replace(quiet, factor=1.0)):
        assert planned(rule, [0.95, 0.95, 0.95, 0.95], 2)[0] == [1, 1, 0, 0]  # the second block is closed


def test_it_explores_below_gamma_with_more_than_min_masks_left(planned):
    mean = 0.375  # of what the threshold leaves
    row = [0.95, 0.5, 0.25]
    assert planned(replace(BARE, gamma=mean + 1e-6), row)[1]
    assert not planned(replace(BARE, gamma=mean), row)[1]
    assert planned(replace(BARE, min_masks=1), row)[1]
    assert not planned(replace(BARE, min_masks=2), row)[1]
    assert not planned(BARE, [0.95, 0.95])[1]


def test_the_frontier_is_the_earliest_block_with_masks_after_exploitation(planned):
    row = [0.95, 0.95, 0.75, 0.75, 0.25, 0.25]  # means .75 and .5
    asked = replace(BARE, gamma=0.6)
    assert not planned(asked, row, 2, initial_blocks=3)[1]
    assert planned(replace(asked, frontier="feasible"), row, 2, initial_blocks=3)[1]
    assert not planned(replace(asked, frontier="feasible"), row, 2, initial_blocks=2)[1]


def test_implicit_exploration_commits_the_best_of_every_active_block(planned):
    row = [0.5, 0.6, 0.3, 0.3, 0.8, 0.2]
    implicit = BeamETE(gamma=0.0)
    assert planned(implicit, row, 2, initial_blocks=3)[0] == [0, 3, 3, 0, 3, 0]
    assert planned(implicit, row, 2, initial_blocks=2)[0] == [0, 3, 3, 0, 0, 0]
    assert planned(replace(implicit, implicit_scope="global"), row, 2, initial_blocks=3)[0] == [0, 0, 0, 0, 3, 0]


def test_implicit_exploration_runs_when_nothing_passes_or_the_row_explores(planned):
    row = [0.95, 0.6, 0.3, 0.2]
    assert planned(BeamETE(gamma=0.0), row)[0] == [1, 0, 0, 0]
    assert planned(BeamETE(gamma=0.5, min_masks=0), row)[0] == [1, 3, 0, 0]


def test_without_implicit_exploration_the_best_is_forced_when_nothing_passes(planned):
    assert planned(BARE, [0.2, 0.5, 0.4])[0] == [0, int(FORCED), 0]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [("nearest", [3, 2, 5, 4, 1]), ("band", [1, 4, 2]), ("information", [3, 2, 4, 5, 1])],
)
def test_candidates_follow_the_rule_of_equation_6(planned, rule, expected):
    for branches in (1, 3, 6):
        policy = replace(BARE, candidate_rule=rule, branches=branches, gamma=0.5)
        assert planned(policy, CONFIDENCE)[2] == expected[:branches]


def test_the_band_is_closed_below_and_open_above(planned):
    policy = replace(BARE, candidate_rule="band", c_info=0.25, threshold=0.75, factor=1e-9, gamma=0.9)
    assert planned(policy, [0.75, 0.75, 0.7, 0.25, 0.2, 0.1])[2] == [2, 3]  # the first of .75 is forced


def test_implicit_picks_and_closed_blocks_are_no_candidates(planned):
    policy = replace(BARE, implicit=True, branches=6)
    assert planned(policy, CONFIDENCE)[2] == [3, 2, 5, 4]
    assert planned(policy, CONFIDENCE, 3)[2] == [2]


def test_without_targeted_exploration_or_trigger_there_are_no_candidates(planned):
    assert planned(replace(BARE, targeted=False), CONFIDENCE)[1:] == (True, [])
    assert planned(replace(BARE, gamma=0.0), CONFIDENCE)[1:] == (False, [])


def test_each_branch_commits_the_plan_and_its_candidate(canvas, reading_of):
    proposal = BARE.propose(canvas(6), reading_of(CONFIDENCE))
    assert proposal.reason[0].tolist() == [[1, 0, 0, 4, 0, 0], [1, 0, 4, 0, 0, 0], [1, 0, 0, 0, 0, 4]]
    assert torch.equal(proposal.tokens == 0, proposal.reason > 0)
    assert proposal.live.tolist() == [[True] * 3]
    torch.testing.assert_close(proposal.log_confidence.exp(), torch.tensor([[0.18, 0.25, 0.05]]))


def test_a_row_without_enough_candidates_runs_fewer_canvases(canvas, reading_of):
    assert BARE.propose(canvas(3), reading_of([0.95, 0.3, 0.2])).live.tolist() == [[True, True, False]]
    none_left = BARE.propose(canvas(1), reading_of([0.3]))
    assert none_left.live.tolist() == [[True]]
    assert none_left.reason.tolist() == [[[int(FORCED)]]]
    only = replace(BARE, branches=1).propose(canvas(2), reading_of([0.95, 0.3]))
    assert only.reason.tolist() == [[[int(EXPLOIT), int(EXPLORE)]]]


def branching(confidence, live=None):
    """A proposal whose branches have these c_j."""
    c = torch.tensor([confidence])
    blank = torch.zeros(*c.shape, 1, dtype=torch.long)
    return Proposal(blank, blank, torch.ones_like(c).bool() if live is None else torch.tensor([live]), c.log())


@pytest.fixture
def kept(canvas, reading_of):
    """The branch that Eq. 7 keeps, from the c_j and what each branch reads."""

    def kept_(policy, confidence, after, live=None):
        canvases = canvas(len(after[0])).repeat(len(after))
        return policy.choose(canvases, branching(confidence, live), reading_of(after)).item()

    return kept_


@pytest.mark.parametrize(("alpha", "scores"), [(1.0, [-0.558616, -0.787458]), (0.5, [0.246103, -0.440884])])
def test_equation_7_prefers_the_cascade(kept, reading_of, alpha, scores):
    after = [[0.95, 0.92, 0.99, 0.3], [0.91, 0.89, 0.5, 0.2]]
    score = BeamETE(alpha=alpha).score(branching([0.2, 0.5]), reading_of(after))
    torch.testing.assert_close(score, torch.tensor([scores]), rtol=1e-5, atol=0)
    assert kept(BeamETE(alpha=alpha), [0.2, 0.5], after) == 0


def test_equation_7_without_a_cascade_is_minus_infinity(kept, reading_of):
    after = [[0.89, 0.5], [0.9, 0.1], [0.2, 0.2]]
    score = BeamETE().score(branching([0.9, 0.1, 0.8]), reading_of(after))
    assert score.isinf().tolist() == [[True, False, True]]
    assert kept(BeamETE(), [0.9, 0.1, 0.8], after) == 1
    assert kept(BeamETE(eq7_threshold=0.95), [0.1, 0.8, 0.9], after) == 2


def test_where_nothing_crosses_the_beam_keeps_the_most_confident_and_a_gated_tie_the_first(kept):
    """The head's own order is that of a gated tie; the paper's beam has no other than the confidence."""
    hopeless, gated = [[0.2, 0.2], [0.3, 0.1]], LearnedParity(head=ScoringHead(HeadConfig("linear", NAMES)), gate=1.0)
    assert kept(gated, [0.1, 0.8], hopeless) == 0
    assert kept(BeamETE(), [0.1, 0.8], hopeless) == 1
    assert kept(gated, [0.9, 0.1], [[0.2, 0.2], [0.95, 0.1]]) == 1  # Eq. 7 first
    assert kept(gated, [0.9, 0.1], hopeless, [False, True]) == 1


def test_equation_7_over_all_masks_counts_the_unsure_ones(kept):
    after = [[0.95, 0.1, 0.1], [0.9, 0.8, 0.8]]
    assert kept(BeamETE(), [0.5, 0.5], after) == 0
    assert kept(BeamETE(eq7_over="masks"), [0.5, 0.5], after) == 1


def test_branches_that_did_not_run_are_never_kept_and_ties_go_leftmost(kept):
    middle_is_off = [True, False, True]
    assert kept(BeamETE(), [0.5, 0.9, 0.5], [[0.91, 0.0], [0.99, 0.99], [0.91, 0.0]], middle_is_off) == 0
    all_finished = [[0.0], [0.0], [0.0]]
    assert kept(BeamETE(), [0.4, 0.9, 0.5], all_finished, middle_is_off) == 2
    assert kept(BeamETE(), [0.4, 0.5, 0.5], all_finished) == 1


@pytest.mark.parametrize(
    ("policy", "rounds"),
    [
        (Threshold(0.9), 8),
        (BeamETE(threshold=0.9, initial_blocks=4, targeted=False), 2),
        (BeamETE(step_budget=1, gamma=0.6, min_masks=0, targeted=False), 5),
        (BeamETE(step_budget=1, gamma=0.6, min_masks=8, targeted=False), 6),
    ],
)
def test_rounds_on_the_toy_of_four_groups(run, prompts, policy, rounds):
    _, counts = run(GroupDenoiser(4, 8), policy, prompts[:1], gen_length=32, block_length=8)
    assert counts.rounds.tolist() == [rounds]


def test_one_group_falls_back_once_and_needs_two_rounds(run, prompts):
    state, counts = run(GroupDenoiser(1, 8), Threshold(0.9), prompts[:1], gen_length=8, block_length=8)
    assert counts.rounds.tolist() == [2]
    assert (state.reason == FORCED).sum() == 1
    assert (state.reason == EXPLOIT).sum() == 7


def test_exploration_escapes_the_bound_that_exploitation_obeys(run, prompts):
    policy = BeamETE(factor=0.99, initial_blocks=4, targeted=False)
    state, counts = run(GroupDenoiser(4, 8), policy, prompts[:1], gen_length=32, block_length=8)
    bound = bits_to_rounds(2.772589, n=32, factor=1.0)
    assert counts.rounds.item() == 2 < bound.rounds == 3
    assert (state.reason == IMPLICIT).sum() == 4
    assert per_round_invariant(state, 0.99).all()


@pytest.mark.parametrize("factor", [0.5, 1.0])
def test_no_exploit_round_reveals_more_than_the_factor(run, any_denoiser, prompts, factor):
    policy = BeamETE(factor=factor, gamma=0.8, min_masks=1, branches=2, step_budget=2)
    state, _ = run(any_denoiser, policy, prompts, early_stop=False)
    assert per_round_invariant(state, factor).all()


def same_decode(one, two):
    (state, counts), (other, cost) = one, two
    names = ("tokens", "committed_round", "reason")
    same = all(torch.equal(getattr(state, n), getattr(other, n)) for n in names)
    return same and torch.equal(counts.sequence_forwards, cost.sequence_forwards) and counts.nfe == cost.nfe


@pytest.mark.parametrize(
    ("explore", "rule"),
    [
        (BeamETE(threshold=0.7, gamma=0.0, implicit=False, step_budget=None), Threshold(0.7)),
        (BeamETE(factor=1.0, gamma=0.0, implicit=False, step_budget=None), Factor(1.0)),
        (RandomParity(threshold=0.7, gamma=0.0, implicit=False, step_budget=None), Threshold(0.7)),
    ],
)
def test_exploration_that_never_triggers_is_the_plain_rule(run, any_denoiser, prompts, explore, rule):
    assert same_decode(run(any_denoiser, explore, prompts), run(any_denoiser, rule, prompts))


def test_with_one_branch_the_look_ahead_has_no_say(run, any_denoiser, prompts):
    settings = {"gamma": 0.8, "min_masks": 1, "branches": 1, "step_budget": 2}
    beam = run(any_denoiser, BeamETE(**settings), prompts)
    assert same_decode(beam, run(any_denoiser, RandomParity(**settings), prompts))
    assert torch.equal(beam[1].sequence_forwards, beam[1].rounds)


def test_without_targeted_exploration_there_are_no_branches(run, any_denoiser, prompts):
    state, counts = run(any_denoiser, BeamETE(gamma=0.8, min_masks=1, step_budget=2, targeted=False), prompts)
    assert not counts.explored.any()
    assert not (state.reason == EXPLORE).any()


def test_the_grid_explores(run, denoisers, prompts):
    state, counts = run(denoisers["context"], BeamETE(gamma=0.8, min_masks=1, branches=3, step_budget=2), prompts)
    assert (counts.explored > 0).all()
    assert (state.reason == EXPLORE).sum() >= counts.explored.sum()


def test_branches_read_the_block_that_their_own_commit_opened(run, counting, prompts):
    asked = []

    class Watching(counting):
        def forward(self, tokens, **kwargs):
            asked.append(kwargs["rows"][:, 4:].view(len(tokens), 2, 4).any(-1).tolist())
            return super().forward(tokens, **kwargs)

    policy = BeamETE(step_budget=1, gamma=0.9, min_masks=0, branches=2)
    run(Watching(GroupDenoiser(2, 4)), policy, prompts[:1], gen_length=8, block_length=4)
    assert asked[0] == [[True, False]]
    assert asked[1] == [[True, True], [True, True]]


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("threshold", 0.0),
        ("factor", 0.0),
        ("gamma", 1.5),
        ("min_masks", -1),
        ("step_budget", 0),
        ("initial_blocks", 0),
        ("branches", 0),
        ("c_info", 1.0),
        ("alpha", -0.5),
        ("eq7_threshold", 0.0),
    ],
)
def test_settings_out_of_range_are_refused_by_name_rule_and_value(setting, value):
    with pytest.raises(ValueError, match=rf"^{setting} must .*, got {value}$"):
        BeamETE(**{setting: value})
