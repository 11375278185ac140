"""Decoding by a scoring head: the commit set by hand, and what it reduces to where the head has nothing to say."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from decoding.features import NAMES
from decoding.policies.bounds import prefix_sum
from decoding.policies.ete import BeamETE
from decoding.policies.learned import Learned, safe_set
from decoding.policies.learned_ete import LearnedParity
from decoding.policies.threshold import Threshold
from decoding.state import Reason
from models.heads.config import HeadConfig
from models.heads.scoring_head import Scores, ScoringHead
from models.toys.toy import GroupDenoiser

EXPLOIT, FORCED, EXPLORE = Reason.EXPLOIT, Reason.FORCED, Reason.EXPLORE
CONFIDENCE = [0.5] * 6  # of every position; the head alone decides


class Opinion(ScoringHead):
    """A head that says the same whatever it reads."""

    def __init__(self, risk=CONFIDENCE, gain=(0.0,) * 6) -> None:
        super().__init__(HeadConfig("linear", NAMES))
        self.said = Scores(torch.tensor([risk]).logit(), torch.tensor([gain]))

    def forward(self, features, rows, token, taps=()) -> Scores:
        return Scores(self.said.risk_logit.expand(rows.shape), self.said.gain.expand(rows.shape))


RISK = [0.02, 0.3, 0.01, 0.04, 0.6, 0.05]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"risk_bound": 0.0499}, {0, 2, 3}),
        ({"risk_bound": 0.0501}, {0, 2, 3, 5}),
        ({"risk_bound": 0.0299, "rule": "sum"}, {2}),  # .01, then .03
        ({"risk_bound": 0.0301, "rule": "sum"}, {0, 2}),
        ({"risk_bound": 0.0699, "rule": "sum"}, {0, 2}),
        ({"risk_bound": 0.0701, "rule": "sum"}, {0, 2, 3}),
        ({"risk_bound": 0.1201, "rule": "sum"}, {0, 2, 3, 5}),
        ({"risk_bound": 1.0}, {0, 1, 2, 3, 4, 5}),
    ],
)
def test_what_is_safe(committed, settings, expected):
    assert committed(Learned(Opinion(RISK), **{"rule": "each", **settings}), CONFIDENCE) == dict.fromkeys(
        expected, EXPLOIT
    )


def test_the_safest_position_commits_where_none_is_safe(committed):
    for rule in ("each", "sum"):
        policy = Learned(Opinion(RISK), risk_bound=0.0099, rule=rule)
        assert committed(policy, CONFIDENCE) == {2: FORCED}
    even = Learned(Opinion([0.5] * 6), risk_bound=0.5)  # logit 0: exactly .5, which is not below
    assert committed(even, CONFIDENCE) == {0: FORCED}  # the leftmost of equals


def test_positions_that_are_not_open_are_neither_safe_nor_summed():
    risk, rows = torch.tensor([[0.01, 0.02, 0.04]]), torch.tensor([[False, True, True]])
    assert safe_set(risk, rows, 0.05, each=True).tolist() == [[False, True, True]]
    assert safe_set(risk, rows, 0.061).tolist() == [[False, True, True]]
    assert safe_set(risk, rows, 0.06).tolist() == [[False, True, False]]


def test_the_running_sum_follows_the_order():
    value, order = torch.tensor([[1.0, 2.0, 4.0, 8.0]]), torch.tensor([[0.1, 0.4, 0.3, 0.2]])
    within = torch.tensor([[True, True, False, True]])
    assert prefix_sum(value, order, within)[within].tolist() == [11.0, 2.0, 10.0]


@pytest.mark.parametrize("threshold", [0.3, 0.75, 0.95])
@pytest.mark.parametrize("which", ["flat", "context", "sharp"])
def test_an_untrained_head_is_the_threshold(run, denoisers, prompts, which, threshold):
    head = ScoringHead(HeadConfig("linear", NAMES))
    ours, cost = run(denoisers[which], Learned(head, risk_bound=1 - threshold, rule="each"), prompts)
    theirs, expected = run(denoisers[which], Threshold(threshold), prompts)
    for name in ("tokens", "committed_round", "reason"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name))
    assert torch.equal(cost.sequence_forwards, expected.sequence_forwards)


def test_an_untrained_head_is_the_threshold_at_a_temperature(run, denoisers, prompts):
    head = ScoringHead(HeadConfig("linear", NAMES))
    ours, _ = run(denoisers["flat"], Learned(head, risk_bound=0.5), prompts, temperature=2.0, seed=3)
    theirs, _ = run(denoisers["flat"], Threshold(0.5), prompts, temperature=2.0, seed=3)
    assert torch.equal(ours.tokens, theirs.tokens)
    assert torch.equal(ours.committed_round, theirs.committed_round)


NEVER = {"gamma": 0.0, "implicit": False, "step_budget": None}


@pytest.mark.parametrize("among", ["candidates", "all"])
def test_parity_that_never_explores_is_the_threshold(run, denoisers, prompts, among):
    policy = LearnedParity(**NEVER, head=Opinion([0.5], [1.0]), among=among)
    ours, cost = run(denoisers["context"], policy, prompts)
    theirs, expected = run(denoisers["context"], Threshold(0.9), prompts)
    for name in ("tokens", "committed_round", "reason"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name))
    assert torch.equal(cost.sequence_forwards, expected.sequence_forwards)


MIXED = [0.95, 0.6, 0.25, 0.18, 0.4, 0.05]  # candidates of Eq. 6 by |c - .2|: 3, 2, then 5
BARE = {"implicit": False, "min_masks": 0, "gamma": 0.99, "branches": 3}


@pytest.mark.parametrize(
    ("gain", "among", "expected"),
    [
        ([9, 9, 1, 2, 9, 3], "candidates", 5),
        ([9, 9, 1, 2, 9, 0], "candidates", 3),
        ([9, 9, 4, 2, 9, 3], "candidates", 2),
        ([-9, -9, -4, -2, -9, -3], "candidates", 3),
        ([9, 7, 1, 2, 8, 3], "all", 4),  # 0 is committed in any case
        ([9, 8, 1, 2, 7, 3], "all", 1),
    ],
)
def test_parity_commits_the_candidate_with_the_largest_gain(committed, gain, among, expected):
    policy = LearnedParity(**BARE, head=Opinion(gain=[float(g) for g in gain]), among=among)
    assert committed(policy, MIXED) == {0: EXPLOIT, expected: EXPLORE}


@pytest.mark.parametrize(("weight", "expected"), [(0.0, 2), (3.0, 2), (5.0, 5)])
def test_parity_weighs_gain_against_risk(committed, weight, expected):
    """Gain 4 at risk .9 against gain 2 at risk .4: they are worth the same at weight 4."""
    head = Opinion([0.5, 0.5, 0.9, 0.9, 0.5, 0.4], [0.0, 0.0, 4.0, 0.0, 0.0, 2.0])
    assert committed(LearnedParity(**BARE, head=head, risk_weight=weight), MIXED) == {0: EXPLOIT, expected: EXPLORE}


def test_what_is_committed_anyway_is_no_candidate(committed):
    """With room for more candidates than there are, however much the head likes the exploited one."""
    policy = LearnedParity(**{**BARE, "branches": 6}, head=Opinion(gain=[9.0, 1.0, 2.0, 3.0, 4.0, 0.0]))
    assert committed(policy, MIXED) == {0: EXPLOIT, 4: EXPLORE}


@pytest.mark.parametrize("among", ["candidates", "all"])
def test_parity_costs_one_forward_a_round_and_finds_the_cascades_of_the_beam(run, among):
    """On the paper's toy with a head that knows nothing every candidate is as good as any other, as Eq. 7 says too."""
    denoiser, prompt = GroupDenoiser(4, 4), torch.zeros(2, 1, dtype=torch.long)
    settings = {"gamma": 0.6, "min_masks": 0, "initial_blocks": 4, "step_budget": None, "branches": 4, "c_info": 0.5}
    canvas = {"gen_length": 16, "block_length": 4}
    beam, dear = run(denoiser, BeamETE(**settings), prompt, **canvas)
    ours, cost = run(denoiser, LearnedParity(**settings, head=Opinion([0.5], [0.0]), among=among), prompt, **canvas)
    assert torch.equal(ours.committed_round, beam.committed_round)
    assert torch.equal(cost.rounds, dear.rounds)
    assert torch.equal(cost.sequence_forwards, cost.rounds)
    assert (dear.sequence_forwards > dear.rounds).all()


GATED = {**BARE, "head": Opinion(gain=[0.0, 0.0, 1.0, 2.0, 0.0, 2.5])}  # candidates 3, 2, 5; the best 5, 3, 2


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"gate": 0.0}, [{5}]),
        ({"gate": 0.5}, [{5}]),  # less than the gate, not the same
        ({"gate": 0.51}, [{5}, {3}]),
        ({"gate": 99.0}, [{5}, {3}]),
        ({"gate": 99.0, "branches": 1}, [{3}]),
        ({"gate": 0.51, "among": "all"}, [{5}, {3}]),
    ],
)
def test_the_gate_opens_a_second_branch_where_two_are_close(canvas, reading_of, settings, expected):
    proposal = LearnedParity(**{**GATED, **settings}).propose(canvas(6), reading_of(MIXED))
    found = [set((reason == EXPLORE).nonzero().flatten().tolist()) for reason in proposal.reason[0]]
    assert [one for one, live in zip(found, proposal.live[0].tolist(), strict=True) if live] == expected


def test_a_row_that_does_not_explore_has_no_second_branch(canvas, reading_of):
    proposal = LearnedParity(**{**GATED, "gamma": 0.1}, gate=99.0).propose(canvas(6), reading_of(MIXED))
    assert proposal.live.tolist() == [[True, False]]
    assert not (proposal.reason == EXPLORE).any()


@pytest.mark.parametrize("which", ["flat", "context"])
def test_a_wide_gate_is_the_beam_over_two_and_costs_what_it_costs(run, denoisers, prompts, which):
    """Whatever the head thinks of the two candidates, Eq. 7 decides where it can; a gate of nothing is one canvas a round."""
    settings = {"gamma": 0.8, "min_masks": 1, "branches": 2, "step_budget": 2, "alpha": 2.0, "eq7_over": "masks"}
    beam, dear = run(denoisers[which], BeamETE(**settings), prompts)
    head = Opinion(gain=[0.0], risk=[0.3])
    wide, cost = run(denoisers[which], LearnedParity(**settings, head=head, gate=1e9), prompts)
    assert torch.equal(wide.tokens, beam.tokens)
    assert torch.equal(wide.committed_round, beam.committed_round)
    assert torch.equal(cost.sequence_forwards, dear.sequence_forwards)
    assert torch.equal(cost.sequence_forwards, cost.rounds + cost.explored)
    assert (cost.explored > 0).all()
    _, cheap = run(denoisers[which], LearnedParity(**settings, head=head), prompts)
    assert torch.equal(cheap.sequence_forwards, cheap.rounds)


def test_the_head_reads_its_own_exploit_set_and_the_taps_it_asked_for(canvas, reading_of):
    head = Opinion()
    head.config = replace(head.config, threshold=0.6)
    seen = []
    head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs))
    state, reading = canvas(6), reading_of(MIXED)
    for policy in (Learned(head), LearnedParity(head=head, threshold=0.95)):
        assert policy.needs.taps == head.taps == ()
        policy.propose(state, reading)
    for figures, rows, token, taps in seen:
        assert figures[0, :, NAMES.index("exploit")].tolist() == [1, 1, 0, 0, 0, 0]
        assert rows is reading.rows
        assert token is reading.token
        assert taps is reading.taps


def foreign() -> ScoringHead:
    return ScoringHead(HeadConfig("linear", NAMES[::-1]))


@pytest.mark.parametrize("policy", [Learned, LearnedParity])
def test_a_head_of_other_features_is_refused(policy):
    with pytest.raises(
        ValueError, match=r"^features of the head must be the \d+ of this version in their order, got \("
    ):
        policy(head=foreign())


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"risk_bound": 0.0}, r"risk_bound must lie in \(0, 1\], got 0.0"),
        ({"risk_bound": 1.1}, r"risk_bound must lie in \(0, 1\], got 1.1"),
        ({"step_budget": 0}, "step_budget must be at least 1, got 0"),
    ],
)
def test_settings_out_of_range_are_refused(settings, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        Learned(Opinion(), **settings)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"gate": -0.1}, "gate must be at least 0, got -0.1"),
        ({"risk_weight": -0.1}, "risk_weight must be at least 0, got -0.1"),
    ],
)
def test_settings_of_parity_out_of_range_are_refused(settings, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        LearnedParity(head=Opinion(), **settings)


def test_parity_needs_a_head():
    with pytest.raises(ValueError, match=r"^head must be a scoring head, got None$"):
        LearnedParity()


@pytest.mark.parametrize(("bias", "rounds"), [(30.0, 12), (-30.0, 3)])
def test_what_a_head_has_learnt_is_added_to_the_confidence(run, denoisers, prompts, bias, rounds):
    """All risky: one position a round; all safe: a block a round."""
    head = ScoringHead(HeadConfig("linear", NAMES)).requires_grad_(False)
    nn.init.constant_(head.readout.bias, bias)
    _, counts = run(denoisers["flat"], Learned(head), prompts, early_stop=False)
    assert counts.rounds.tolist() == [rounds] * 3
