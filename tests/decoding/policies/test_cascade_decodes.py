"""Decodes of a golden base whose head has a cascade: what is followed, what a parity keeps, and what is refused."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from torch import nn

import models
from decoding import generate
from decoding.features import NAMES
from decoding.policies.cascade import foretell
from decoding.policies.learned import Learned
from decoding.policies.learned_ete import LearnedETE, LearnedParity, foretell_branches
from decoding.state import Reason
from models.heads.cascade import Cascade, CascadeConfig
from models.heads.config import HeadConfig
from models.heads.scoring_head import ScoringHead

GOLDEN = Path(__file__).parents[2] / "golden"
EXPLOIT, FORCED, CASCADE = (int(r) for r in (Reason.EXPLOIT, Reason.FORCED, Reason.CASCADE))
pytestmark = pytest.mark.filterwarnings("ignore:.*(LeafSpec|enable_nested_tensor)")


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
