"""Committing the cascade: what the round's other commits make sure, within a bound on the summed risk."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from decoding.commit import commit, commit_first
from decoding.features import NAMES
from decoding.policies.bounds import RiskSum
from decoding.policies.cascade import follow, foretell
from decoding.policies.learned import Learned
from decoding.policies.learned_ete import LearnedETE, LearnedParity
from decoding.state import Proposal, Reason
from models.heads.config import HeadConfig
from models.heads.scoring_head import Scores, ScoringHead
from tests.decoding.policies.oracle import Oracle

EXPLOIT, FORCED, CASCADE = (int(r) for r in (Reason.EXPLOIT, Reason.FORCED, Reason.CASCADE))
pytestmark = pytest.mark.filterwarnings("ignore:.*(LeafSpec|enable_nested_tensor)")


@pytest.fixture
def reading(reading_of):
    """Six positions, the last not predicted; candidates 0 and 3."""
    found = reading_of([0.9, 0.5, 0.4, 0.3, 0.2, 0.0])
    return replace(found, top_tokens=torch.tensor([0, 3, 4, 4, 4]).expand(1, 6, 5))


def taken(proposal: Proposal) -> dict[int, int]:
    return {i: r for i, r in enumerate(proposal.reason[0, 0].tolist()) if r}


FIRST = torch.tensor([[EXPLOIT, 0, 0, 0, 0, 0]])
RISKS = [0.9, 0.125, 0.0625, 0.5, 0.25, 0.0]  # exact in binary


@pytest.mark.parametrize(
    ("bound", "expected"),
    [
        (0.06, set()),
        (0.0625, {2}),  # up to the bound
        (0.18, {2}),
        (0.1875, {1, 2}),
        (0.4375, {1, 2, 4}),
        (0.9, {1, 2, 4}),
        (0.9375, {1, 2, 3, 4}),
    ],
)
def test_the_safest_are_committed_while_their_risks_add_up_to_the_bound(canvas, reading, bound, expected):
    proposal = follow(Oracle(RISKS), canvas(6), reading, FIRST, bound=bound + 1e-7, looks=1)
    assert taken(proposal) == {0: EXPLOIT, **dict.fromkeys(sorted(expected), CASCADE)}
    assert proposal.tokens[0, 0].tolist() == [0] + [3 if i in expected else 5 for i in range(1, 6)]
    expected_confidence = [1 - RISKS[i] if i in expected else float(reading.confidence[0, i]) for i in range(1, 6)]
    assert proposal.confidence[0, 0].tolist() == pytest.approx([0.9, *expected_confidence])


def test_a_second_look_sees_what_the_first_committed(canvas, reading):
    oracle = Oracle(RISKS, [0.9, 0.9, 0.9, 0.01, 0.9, 0.0])
    proposal = follow(oracle, canvas(6), reading, FIRST, bound=0.1, looks=2)
    assert taken(proposal) == {0: EXPLOIT, 2: CASCADE, 3: CASCADE}
    assert [one[0].tolist() for one in oracle.asked] == [
        [True, False, False, False, False, False],
        [True, False, True, False, False, False],
    ]
    assert oracle.told[1][0, 2] == 3
    assert proposal.confidence[0, 0, 2:4].tolist() == pytest.approx([1 - 0.0625, 0.99])


def test_a_second_look_is_at_the_canvases_where_the_first_committed(canvas, reading_of):
    """The second of two rows finds nothing; the first goes on as it would alone."""
    reading = reading_of([0.9, 0.5, 0.4, 0.3], batch=2)
    reading = replace(reading, top_tokens=torch.tensor([0, 3, 4, 4, 4]).expand(2, 4, 5))
    rows = []

    class Uneven(Oracle):
        def forward(self, taps, asked, committed, *figures, believed=False):
            rows.append(asked.any(-1).tolist())
            self.risks[0] = torch.tensor([[0.0, 0.01, 0.3, 0.3], [0.0, 0.3, 0.3, 0.3]])
            return super().forward(taps, asked, committed, *figures)

    told = Uneven([], [0.0, 0.0, 0.01, 0.3])
    proposal = follow(told, canvas(4, batch=2), reading, torch.tensor([[EXPLOIT, 0, 0, 0]] * 2), bound=0.1, looks=3)
    assert rows == [[True, True], [True, False], [True, False]]
    assert [one[1].any().item() for one in told.asked] == [True, False, False]
    assert proposal.reason[:, 0].tolist() == [[EXPLOIT, CASCADE, CASCADE, 0], [EXPLOIT, 0, 0, 0]]


def test_without_a_turn_nothing_is_asked(canvas, reading):
    oracle = Oracle(RISKS)
    proposal, single = (
        follow(oracle, canvas(6), reading, FIRST, bound=1.0, looks=0),
        Proposal.single(canvas(6), reading, FIRST),
    )
    assert not oracle.asked
    assert torch.equal(proposal.tokens, single.tokens)
    assert torch.equal(proposal.reason, single.reason)


def test_foretold_figures_are_of_the_positions_left(reading):
    token, risk = foretell(Oracle(RISKS), reading, FIRST, reading.token)
    assert token[0].tolist() == [-1, 3, 3, 3, 3, -1]
    assert risk[0].tolist() == pytest.approx([0.0, *RISKS[1:5], 0.0])


def test_parity_by_the_cascade_takes_the_branch_whose_foretold_cascade_scores_most(canvas, reading, monkeypatch):
    """Of four candidates only the third makes two others sure."""
    state = canvas(6)
    reading = replace(reading, rows=torch.ones(1, 6, dtype=torch.bool), confidence=torch.full((1, 6), 0.3))

    def told(cascade, each, reason, token):
        sets_off = torch.where(
            reason[:, 3:4] > 0, torch.tensor([[1, 1, 0, 0, 0, 0]]), torch.tensor([[1, 0, 0, 0, 0, 0]])
        )
        return token, torch.where(sets_off > 0, 0.05, 0.7)

    monkeypatch.setattr("decoding.policies.learned_ete.foretell", told)
    head = ScoringHead(HeadConfig("linear", NAMES))
    head.cascade = Oracle(RISKS)
    policy = LearnedParity(head=head, by="cascade", branches=4, gamma=1.0, min_masks=0, implicit=False, threshold=0.9)
    plan = policy.plan(state, reading)
    assert plan.candidates[0].tolist() == [1, 2, 3, 4]
    assert policy.foreseen(plan, state, reading).argmax().item() == 2
    proposal = policy.propose(state, reading)
    assert proposal.tokens.shape[1] == 1
    assert taken(proposal) == {0: FORCED, 3: int(Reason.EXPLORE)}


def told_exactly(monkeypatch, *risks):
    """The rule's arithmetic alone: these risks, bit by bit, whatever is committed; token 3 everywhere."""
    turns = iter(risks)
    monkeypatch.setattr(
        "decoding.policies.cascade.foretell",
        lambda cascade, reading, reason, token: (torch.full_like(token, 3), next(turns)),
    )


@pytest.mark.parametrize(
    ("bound", "expected"),
    [(0.0625, {2}), (0.1874, {2}), (0.1875, {1, 2}), (0.4375, {1, 2, 4}), (0.9374, {1, 2, 4}), (0.9375, {1, 2, 3, 4})],
)
def test_a_sum_that_is_the_bound_itself_is_within_it(canvas, reading, monkeypatch, bound, expected):
    told_exactly(monkeypatch, torch.tensor([RISKS]))
    proposal = follow(Oracle(), canvas(6), reading, FIRST, bound=bound, looks=1)
    assert taken(proposal) == {0: EXPLOIT, **dict.fromkeys(sorted(expected), CASCADE)}


def test_every_turn_has_the_whole_bound_and_the_last_word_stays_with_the_first_turn(canvas, reading, monkeypatch):
    told_exactly(monkeypatch, torch.tensor([RISKS]), torch.tensor([[0.0, 0.0625, 0.03125, 0.5, 0.5, 0.0]]))
    proposal = follow(Oracle(), canvas(6), reading, FIRST, bound=0.0625, looks=2)
    assert taken(proposal) == {0: EXPLOIT, 1: CASCADE, 2: CASCADE}
    assert proposal.confidence is not None
    assert proposal.confidence[0, 0].tolist() == pytest.approx([0.9, 0.9375, 0.9375, 0.3, 0.2, 0.0])
    assert proposal.tokens[0, 0].tolist() == [0, 3, 3, 5, 5, 5]


def test_rows_have_bounds_and_commits_of_their_own(canvas, reading_of):
    """The second row has committed and decoded other positions; what is packed comes back to its place."""
    one = reading_of([0.9, 0.5, 0.4, 0.3], batch=2)
    rows = torch.tensor([[True, True, True, True], [False, True, True, False]])
    tokens = torch.tensor([0, 3, 4, 4, 4]).expand(2, 4, 5)
    reading = replace(one, rows=rows, token=one.token.masked_fill(~rows, -1), top_tokens=tokens)
    state = canvas(4, batch=2)
    state = replace(
        state,
        tokens=torch.where(rows, state.tokens, 1),
        masked=rows,
        reason=torch.where(rows, 0, EXPLOIT),
    )
    first = torch.tensor([[EXPLOIT, 0, 0, 0], [0, 0, FORCED, 0]])
    oracle = Oracle([0.0, 0.01, 0.02, 0.3])
    proposal = follow(oracle, state, reading, first, bound=0.031, looks=1)
    assert proposal.reason[:, 0].tolist() == [[EXPLOIT, CASCADE, CASCADE, 0], [0, CASCADE, FORCED, 0]]
    assert proposal.tokens[:, 0].tolist() == [[0, 3, 3, 5], [1, 3, 0, 1]]
    after = commit_first(state, reading, proposal)
    assert after.committed_confidence[1].tolist() == pytest.approx([0.0, 0.99, 0.4, 0.0])
    assert after.reason[1].tolist() == [EXPLOIT, CASCADE, FORCED, EXPLOIT]
    assert after.masked.tolist() == [[False, False, False, True], [False] * 4]


def test_the_rest_of_the_vocabulary_is_risk_and_never_a_token(reading):
    """Where all other tokens together are likeliest, the best single candidate is still the one told."""

    class Unsure(Oracle):
        def forward(self, taps, rows, committed, *figures, believed=False):
            said = torch.tensor([0.1, 0.2, 0.04, 0.03, 0.03, 0.6]).log()
            return said.expand(int((rows & ~committed).sum()), 6)

    token, risk = foretell(Unsure(), reading, FIRST, reading.token)
    assert token[0].tolist() == [-1, 3, 3, 3, 3, -1]
    assert risk[0].tolist() == pytest.approx([0.0, 0.8, 0.8, 0.8, 0.8, 0.0])


def test_risks_far_below_rounding_are_told_apart(reading):
    class Sure(Oracle):
        def forward(self, taps, rows, committed, *figures, believed=False):
            said = torch.tensor([-30.0, -0.0, -100.0, -100.0, -100.0, -40.0])
            return said.expand(int((rows & ~committed).sum()), 6)

    _, risk = foretell(Sure(), reading, FIRST, reading.token)
    assert risk[0, 1].item() == pytest.approx(math.exp(-30) + math.exp(-40), rel=1e-4, abs=0)


def test_without_a_turn_the_state_after_is_that_of_the_plain_proposal(canvas, reading):
    state = canvas(6)
    followed = commit(state, reading, follow(Oracle(RISKS), state, reading, FIRST, bound=1.0, looks=0))
    single = commit(state, reading, Proposal.single(state, reading, FIRST))
    for name in ("tokens", "masked", "reason", "committed_confidence", "committed_round"):
        assert torch.equal(getattr(followed, name), getattr(single, name))


class Opinion(ScoringHead):
    """Holds the last position safe and the others not, whatever it reads; its cascade is an oracle."""

    def __init__(self, cascade=None) -> None:
        super().__init__(HeadConfig("linear", NAMES))
        self.cascade = cascade

    def forward(self, features, rows, token, taps=()) -> Scores:
        risk = torch.full(rows.shape, 0.75).index_fill(1, torch.tensor(rows.shape[1] - 1), 0.01)
        return Scores(risk.logit(), torch.zeros(rows.shape))


def test_confidence_takes_no_look_at_the_head(committed):
    confidence = [0.9, 0.8, 0.95, 0.3]
    assert committed(Learned(Opinion(), rule="sum", risk_bound=0.2), confidence) == {3: Reason.EXPLOIT}
    told = {
        bound: committed(Learned(Opinion(), rule="confidence", risk_bound=bound), confidence) for bound in (0.16, 0.14)
    }
    assert told == {0.16: {0: Reason.EXPLOIT, 2: Reason.EXPLOIT}, 0.14: {2: Reason.EXPLOIT}}
    assert committed(Learned(Opinion(), rule="confidence", risk_bound=0.04), confidence) == {2: Reason.FORCED}


def test_confidence_decodes_as_the_summed_risk_on_every_toy(run, any_denoiser, prompts):
    for bound in (0.2, 0.55):
        mine, cost = run(any_denoiser, Learned(Opinion(), rule="confidence", risk_bound=bound), prompts)
        other, reference = run(any_denoiser, RiskSum(bound), prompts)
        assert torch.equal(mine.tokens, other.tokens)
        assert torch.equal(mine.committed_round, other.committed_round)
        assert torch.equal(cost.rounds, reference.rounds)


@pytest.mark.parametrize(
    ("settings", "expected", "looks"),
    [
        ({"share": 0.1}, {0}, 1),  # bound .05
        ({"share": 0.2}, {0, 2}, 2),  # bound .1; it found one and looks again
        ({"share": 0.4, "looks": 1}, {0, 1, 2}, 1),  # bound .2
        ({"share": 0.4, "looks": 0}, {0}, 0),
        ({"share": 0.4, "looks": 3}, {0, 1, 2}, 2),  # the second finds nothing: a third would say the same
        ({"looks": 1}, {0, 1, 2, 4}, 1),  # the whole bound
        ({}, {0, 1, 2, 3, 4}, 2),
    ],
)
def test_a_turn_has_its_share_of_the_bound(canvas, reading, settings, expected, looks):
    oracle = Oracle(RISKS)
    policy = Learned(Opinion(oracle), rule="confidence", risk_bound=0.5, **settings)
    proposal = policy.propose(canvas(6), reading)
    assert taken(proposal) == {0: EXPLOIT, **dict.fromkeys(sorted(expected - {0}), CASCADE)}
    assert len(oracle.asked) == looks


def test_the_branch_kept_is_the_one_foretold_to_set_off_most_and_what_it_sets_off_is_committed(
    canvas, reading, monkeypatch
):
    """Of four candidates only the third makes two others sure, of tokens that the forward did not hold for likeliest."""
    asked = []

    def told(cascade, each, reason, token):
        asked.append(len(reason))
        sets_off = (reason[:, 3:4] > 0) & torch.tensor([[True, True, False, False, False, False]])
        left = each.rows & (reason == 0)
        return torch.where(left, 3, -1), torch.where(left, torch.where(sets_off, 0.05, 0.7), 0.0)

    for module in ("learned_ete", "cascade"):
        monkeypatch.setattr(f"decoding.policies.{module}.foretell", told)
    head = ScoringHead(HeadConfig("linear", NAMES))
    head.cascade = Oracle(RISKS)
    state = canvas(6)
    reading = replace(reading, rows=torch.ones(1, 6, dtype=torch.bool), confidence=torch.full((1, 6), 0.3))
    settings = {"branches": 4, "gamma": 1.0, "min_masks": 0, "threshold": 0.9, "risk_bound": 0.1}
    proposal = LearnedETE(head=head, **settings, looks=1).propose(state, reading)
    assert taken(proposal) == {0: FORCED, 3: int(Reason.EXPLORE), 1: CASCADE}
    assert proposal.tokens[0, 0, 1] == 3
    assert asked == [4]
    assert taken(LearnedETE(head=head, **settings, looks=2).propose(state, reading)).keys() == {0, 1, 3}
    assert asked == [4, 4, 1]
