"""Committing the cascade: what the round's other commits make sure, within a bound on the summed risk."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from torch import nn

import models
from decoding import generate
from decoding.commit import commit
from decoding.features import NAMES
from decoding.policies.bounds import RiskSum
from decoding.policies.cascade import follow, foretell
from decoding.policies.learned import Learned
from decoding.policies.learned_ete import LearnedETE, LearnedParity, foretell_branches
from decoding.state import Proposal, Reason
from models.heads.cascade import Cascade, CascadeConfig
from models.heads.config import HeadConfig
from models.heads.scoring_head import Scores, ScoringHead

GOLDEN = Path(__file__).parents[2] / "golden"
EXPLOIT, FORCED, CASCADE = (int(r) for r in (Reason.EXPLOIT, Reason.FORCED, Reason.CASCADE))

pytestmark = pytest.mark.filterwarnings("ignore:.*(LeafSpec|enable_nested_tensor)")


class Oracle(Cascade):
    """Says the second candidate at every position left, with these risks; a turn later with the next ones."""

    def __init__(self, *risks: list[float]) -> None:
        nn.Module.__init__(self)
        self.risks = [torch.tensor(one) for one in risks]
        self.asked: list[torch.Tensor] = []
        self.told: list[torch.Tensor] = []

    def forward(self, taps, rows, committed, token, top_tokens, top_log_probs, log_normaliser, *, believed=False):
        risk = self.risks[min(len(self.asked), len(self.risks) - 1)].expand(rows.shape)[rows & ~committed]
        self.asked.append(committed.clone())
        self.told.append(token.clone())
        return torch.stack([risk / 2, 1 - risk, *[risk / 8] * 4], -1).log()


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


def test_accepted_is_what_a_bound_stands_behind(canvas):
    reasons = [r for r in Reason if r < 6 or r == Reason.CASCADE]
    state = replace(canvas(len(reasons)), reason=torch.tensor([[int(r) for r in reasons]]))
    assert [r for r, yes in zip(reasons, state.accepted[0].tolist(), strict=True) if yes] == [
        Reason.EXPLOIT,
        Reason.CASCADE,
    ]


@pytest.fixture(scope="module", params=["llada", "dream"])
def base(request):
    return models.load(GOLDEN / request.param, device="cpu")


def head_of(base, *, cascade: bool, seed: int | None = None) -> ScoringHead:
    torch.manual_seed(0)
    head = ScoringHead(HeadConfig("linear", NAMES), base).requires_grad_(False)
    if cascade:
        head.cascade = Cascade(CascadeConfig(rank=2), base).eval().requires_grad_(False)
        if seed is not None:
            torch.manual_seed(seed)
            for parameter in (head.cascade.inject.weight, head.cascade.rest.weight):
                nn.init.normal_(parameter, std=0.3)
    return head


def decode(base, policy, **more):
    return generate(base, [[5, 6, 7], [8, 9]], policy, gen_length=16, block_length=8, early_stop=False, **more)


def test_the_rule_confidence_is_the_summed_risk_without_a_head(base):
    for bound in (0.3, 0.9):
        mine = decode(base, Learned(head_of(base, cascade=True), rule="confidence", risk_bound=bound, looks=0))
        other = decode(base, "risk-sum", risk_bound=bound)
        assert torch.equal(mine.sequences, other.sequences)
        assert torch.equal(mine.rounds, other.rounds)


@pytest.mark.parametrize("cache", ["none", "prefix", "dual"])
@pytest.mark.parametrize("rule", ["confidence", "sum"])
def test_a_decode_with_cascades_fills_the_canvas(base, cache, rule):
    policy = Learned(head_of(base, cascade=True, seed=1), rule=rule, risk_bound=0.9, looks=2, share=5.0)
    made = decode(base, policy, use_cache=cache)
    assert not made.state.masked.any()
    assert (made.sequence_forwards == made.rounds).all()
    canvas = made.state.reason[:, -16:]
    assert set(canvas.unique().tolist()) <= {EXPLOIT, FORCED, CASCADE}
    assert (canvas == CASCADE).any()
    for row in range(2):  # a cascade never stands alone in its round
        rounds = made.state.committed_round[row, -16:]
        assert set(rounds[canvas[row] == CASCADE].tolist()) <= set(rounds[canvas[row] != CASCADE].tolist())


def test_a_head_with_a_cascade_follows_it_twice_by_default(base):
    head = head_of(base, cascade=True, seed=1)
    twice, once, never = (
        decode(base, Learned(head, rule="sum", risk_bound=0.9, looks=t, share=5.0)) for t in (2, 1, 0)
    )
    default = decode(base, Learned(head, rule="sum", risk_bound=0.9, share=5.0))
    assert torch.equal(default.state.committed_round, twice.state.committed_round)
    assert not torch.equal(default.state.committed_round, once.state.committed_round)
    assert torch.equal(default.sequences, twice.sequences)
    assert not (never.state.reason == CASCADE).any()


@pytest.mark.parametrize("cascade", [True, False])
def test_parity_by_the_cascade_keeps_one_canvas_a_round(base, cascade):
    settings = {"gamma": 1.0, "min_masks": 0, "branches": 3, "threshold": 0.6}
    head = head_of(base, cascade=cascade, seed=1)
    if not cascade:
        with pytest.raises(
            ValueError, match=r"^by must be gain for a head without a cascade, or among all masks, got 'cascade'$"
        ):
            LearnedParity(**settings, head=head, by="cascade")
        return
    made = decode(base, LearnedParity(**settings, head=head, by="cascade"))
    assert (made.sequence_forwards == made.rounds).all()
    assert not made.state.masked.any()
    with pytest.raises(ValueError, match=r"^by must be gain"):
        LearnedParity(**settings, head=head, by="cascade", among="all")


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


def test_settings_are_refused_in_a_sentence(base):
    plain, foresees = head_of(base, cascade=False), head_of(base, cascade=True)
    with pytest.raises(ValueError, match=r"^looks must be 0 for a head without cascade, got 1$"):
        Learned(plain, looks=1)
    with pytest.raises(ValueError, match=r"^looks must be at least 0, got -1$"):
        Learned(foresees, looks=-1)
    with pytest.raises(ValueError, match=r"^share must be above 0, got 0.0$"):
        Learned(foresees, share=0.0)
    with pytest.raises(ValueError, match=r"^confidence_eos_eot_inf must be left out .* got it with 2 looks"):
        decode(base, Learned(foresees, looks=2), confidence_eos_eot_inf=True)
    decode(base, Learned(foresees, looks=0), confidence_eos_eot_inf=True)
    last = len(base.blocks) - 1
    assert (Learned(plain).needs.taps, Learned(foresees, looks=0).needs.taps, Learned(foresees).needs.taps) == (
        (),
        (),
        (last,),
    )
    assert (Learned(plain).needs.looks, Learned(foresees, looks=0).needs.looks, Learned(foresees).needs.looks) == (
        0,
        0,
        2,
    )
    assert (LearnedParity(head=foresees).needs.taps, LearnedParity(head=foresees, by="cascade").needs.taps) == (
        (),
        (last,),
    )


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
    after = commit(state, reading, proposal).at(torch.tensor([0, 0]))
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


def test_accepted_is_true_of_two_reasons_alone(canvas):
    state = replace(canvas(len(Reason)), reason=torch.tensor([[int(r) for r in Reason]]))
    assert state.accepted[0].tolist() == [r in (Reason.EXPLOIT, Reason.CASCADE) for r in Reason]


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


def test_without_exploration_it_is_the_rule_confidence(base):
    head = head_of(base, cascade=True, seed=1)
    for bound, share in ((0.3, 1.0), (0.9, 5.0)):
        ours = decode(base, LearnedETE(head=head, risk_bound=bound, share=share, looks=2, gamma=0.0))
        theirs = decode(base, Learned(head, rule="confidence", risk_bound=bound, share=share, looks=2))
        assert torch.equal(ours.sequences, theirs.sequences)
        assert torch.equal(ours.state.committed_round, theirs.state.committed_round)
        assert torch.equal(ours.state.reason, theirs.state.reason)


def test_a_branch_is_foretold_and_followed_in_one_forward(base):
    head = head_of(base, cascade=True, seed=1)
    made = decode(base, LearnedETE(head=head, risk_bound=0.05, share=50.0, gamma=1.0, min_masks=1, branches=3))
    assert (made.sequence_forwards == made.rounds).all()
    assert not made.state.masked.any()
    found = set(made.state.reason[:, -16:].unique().tolist())
    assert {int(Reason.EXPLORE), CASCADE} <= found <= {EXPLOIT, FORCED, int(Reason.EXPLORE), CASCADE}


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


@pytest.mark.parametrize("copied", [1, 1 << 28])
def test_only_live_branches_are_looked_at_and_each_is_what_it_is_alone(base, monkeypatch, copied):
    """Two rows of three branches, one of which explores nothing; looked at one by one, or together."""
    monkeypatch.setattr("decoding.policies.learned_ete.COPIED", copied)
    head, seen = head_of(base, cascade=True, seed=2), []
    policy = LearnedETE(head=head, risk_bound=0.05, gamma=1.0, min_masks=1, branches=3)
    decode(base, policy, on_step=lambda state, reading: seen.append((state, reading)))
    state, reading = seen[0]
    proposal = policy.plan(state, reading).branches(state, reading)
    live = proposal.live & torch.tensor([[True, True, True], [True, False, False]])
    with torch.no_grad():
        token, risk = foretell_branches(head.cascade, replace(proposal, live=live), reading)
        for row, branch in live.nonzero().tolist():
            one = reading.map(lambda v: v[row : row + 1])  # noqa: B023
            alone = foretell(head.cascade, one, proposal.reason[row : row + 1, branch], one.token)
            assert torch.equal(token[row, branch], alone[0][0])
            torch.testing.assert_close(risk[row, branch], alone[1][0], atol=1e-5, rtol=1e-4)
    assert (token[~live] == -1).all()
    assert (risk[~live] == 0).all()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"risk_bound": 0.0}, r"risk_bound must lie in \(0, 1\], got 0.0"),
        ({"looks": 0}, "looks must be at least 1, got 0"),
        ({"share": 0.0}, "share must be above 0, got 0.0"),
        ({"gamma": 1.1}, r"gamma must lie in \[0, 1\], got 1.1"),
    ],
)
def test_settings_of_exploration_out_of_range_are_refused(base, settings, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        LearnedETE(head=head_of(base, cascade=True), **settings)
    with pytest.raises(ValueError, match=r"^cascade of the head must be there, got None$"):
        LearnedETE(head=head_of(base, cascade=False))
    assert "factor" not in {f.name for f in fields(LearnedETE)}  # risk_bound exploits


def test_an_unfitted_cascade_commits_what_the_forward_said_itself(base):
    """Nothing is new, so that every commit of a cascade is the round's own candidate with its own confidence."""
    policy = Learned(head_of(base, cascade=True), rule="confidence", risk_bound=0.9, share=2.0)
    rounds = []
    made = decode(base, policy, on_step=lambda state, reading: rounds.append((state, reading)))
    checked = 0
    for (before, reading), after in zip(rounds, [*[s for s, _ in rounds[1:]], made.state], strict=True):
        new = before.masked & (after.reason == CASCADE)
        checked += int(new.sum())
        assert torch.equal(after.tokens[new], reading.token[new])
        torch.testing.assert_close(after.committed_confidence[new], reading.confidence[new], atol=1e-3, rtol=1e-3)
    assert checked > 4


@pytest.mark.parametrize("share", [0.0, -0.5])
def test_a_share_is_above_nothing(base, share):
    with pytest.raises(ValueError, match=f"^share must be above 0, got {share}$"):
        Learned(head_of(base, cascade=True), share=share)
