"""Checked drafts: in exact mode the rule's own decode in fewer rounds, in subset mode nothing that the rule has not accepted."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from decoding import generate
from decoding.features import NAMES
from decoding.policies import verified
from decoding.policies.bounds import EntropyBound, Factor, RiskSum
from decoding.policies.ete import BeamETE
from decoding.policies.foretold import doubt, foretell_reading
from decoding.policies.quota import Quota, Sequential
from decoding.policies.remask import RemaskLowest
from decoding.policies.rules import at_least_one, confident
from decoding.policies.threshold import EntropyThreshold, MarginThreshold, Threshold
from decoding.policies.verified import Verified
from decoding.reading import Reading, read
from decoding.sampling import Sampling
from decoding.state import TENSORS
from models.denoiser import Denoiser
from models.heads.cascade import Cascade
from models.heads.config import HeadConfig
from models.heads.scoring_head import ScoringHead
from models.toys.toy import TableDenoiser
from tests.decoding.policies.same_states import same_but_for_rounds


class Spy(Denoiser):
    """Passes every forward on and keeps what it was asked."""

    def __init__(self, inner: Denoiser) -> None:
        super().__init__()
        self.inner, self.asked = inner, []
        self.mask_id, self.eos_id, self.vocab_size, self.max_length = inner.mask_id, inner.eos_id, inner.vocab_size, 99

    def forward(self, tokens, **how):
        prediction = self.inner(tokens, **how)
        self.asked.append({"tokens": tokens, "prediction": prediction, **how})
        return prediction


@pytest.mark.parametrize("block_length", [12, 4])
def test_every_commit_of_subset_mode_is_one_that_the_rule_accepts_from_a_real_forward_of_a_real_state(
    denoisers, run, prompts, block_length
):
    """In the round that a token is noted for, a canvas that agrees with the final text was read and the rule took the token."""
    rule, spy = RiskSum(0.6), Spy(denoisers["context"])
    policy, canvas = Verified(rule, mode="subset"), {"block_length": block_length, "early_stop": False}
    final, counts = run(spy, policy, prompts, **canvas)
    exact, _ = run(denoisers["context"], replace(policy, mode="exact"), prompts, **canvas)
    _, plain = run(denoisers["context"], rule, prompts, **canvas)
    accepted = torch.zeros_like(final.masked)
    for round_, asked in enumerate(spy.asked, 1):
        reading = read(asked["prediction"], Sampling(forbidden=(spy.mask_id,)))
        took = at_least_one(rule.accept(reading) & reading.rows, reading.confidence, reading) > 0
        for canvas_, row, token, yes in zip(asked["tokens"], asked["owner"], reading.token, took, strict=True):
            known = canvas_ != spy.mask_id
            if torch.equal(canvas_[known], final.tokens[row][known]):  # else a draft that failed
                accepted[row] |= yes & (token == final.tokens[row]) & (final.committed_round[row] == round_)
    assert accepted[:, 4:].all()
    assert counts.rounds.sum() < plain.rounds.sum()
    assert block_length == 4 or not torch.equal(final.committed_round, exact.committed_round)


@pytest.mark.parametrize("mode", ["exact", "subset"])
def test_a_row_that_has_ended_keeps_its_certain_canvas(denoisers, run, prompts, monkeypatch, mode):
    """As a walk down the drafts would, of which it has none."""
    own, seen = Verified.last, []

    def last(policy, canvases, proposal):
        nothing = Reading.empty(tuple(canvases.tokens.shape), canvases.tokens.device)
        kept, walked = own(policy, canvases, proposal), policy.settle(canvases, proposal, nothing)[0]
        seen.append([name for name in TENSORS if not torch.equal(getattr(kept, name), getattr(walked, name))])
        return kept

    monkeypatch.setattr(Verified, "last", last)
    run(denoisers["context"], Verified(RiskSum(0.6), mode=mode), prompts)
    assert seen == [[]]


def test_the_whole_share_of_a_bound_is_all_of_it(denoisers, run, prompts):
    whole, one = (Verified(RiskSum(0.6), mode="subset", draft_share=share) for share in (None, 1.0))
    (some, _), (others, _) = (run(denoisers["context"], policy, prompts) for policy in (whole, one))
    assert torch.equal(some.tokens, others.tokens)
    assert torch.equal(some.drafts, others.drafts)


def test_drafts_that_all_come_true_fill_k_positions_a_round(run, prompts):
    """A table knows no context: its present reading foretells every later one."""
    table = TableDenoiser(torch.randn(40, 6, generator=torch.Generator().manual_seed(1)), mask_id=5, eos_id=None)
    for k in (1, 2, 5, 20):
        policy = Verified(Sequential(), canvases=k)
        final, counts = run(table, policy, prompts, block_length=12)
        assert counts.rounds.tolist() == [1 + math.ceil(11 / k)] * 3
        assert final.drafts.tolist() == final.drafts_true.tolist() == [12 - counts.rounds[0]] * 3
        expected, _ = run(table, Sequential(), prompts, block_length=12)
        same_but_for_rounds(final, expected)


@pytest.mark.parametrize("early_stop", [True, False])
def test_what_would_fill_a_row_is_no_draft(run, early_stop):
    """An EOS behind which nothing is left, or the last token: the row ends with the round that would check it."""
    lines = torch.zeros(12, 6)
    lines[torch.arange(12), torch.tensor([0, 0, 0, 4, *[1] * 8])] = 5.0
    table = Spy(TableDenoiser(lines, mask_id=5, eos_id=4))
    policy = Verified(Sequential("left_to_right"), canvases=2)
    canvas = {"gen_length": 10, "block_length": 10, "early_stop": early_stop}
    final, counts = run(table, policy, torch.tensor([[0, 1]]), **canvas)
    assert not final.masked.any()
    assert counts.rounds.tolist() == final.round.tolist() == [2 if early_stop else 6]
    assert counts.sequence_forwards.tolist() == [sum(len(asked["tokens"]) for asked in table.asked)]
    assert final.drafts.tolist() == final.drafts_true.tolist() == [0 if early_stop else 4]


def test_drafts_are_judged_as_what_follows_from_the_readings_of_real_forwards(denoisers, run, prompts, monkeypatch):
    """The readings before them that they were made with were foretold."""
    own, seen = verified._judged, []

    def judged(rule, before, reading, wanted):
        seen.append((before, reading))
        return own(rule, before, reading, wanted)

    monkeypatch.setattr(verified, "_judged", judged)
    run(denoisers["context"], Verified(RiskSum(0.6)), prompts)
    for before, reading in seen:
        for recent, figure in (
            (before.recent_confidence, reading.confidence),
            (before.recent_token, reading.token),
        ):
            assert torch.equal(recent[:, 1:, 0], figure[:, :2])  # of canvases 1 and 2 the one below
            assert torch.equal(recent[:, 1:, 1], recent[:, :-1, 0])  # and what that one's was
    assert len(seen) > 2


class Liar(Cascade):
    """Sure of the second candidate everywhere."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.taps, self.calls = (), 0

    def forward(self, taps, rows, committed, token, top_tokens, top_log_probs, log_normaliser, *, believed=False):
        self.calls += 1
        said = torch.full(((rows & ~committed).sum(), 6), -20.0)
        said[:, 1] = 0.0
        return said.log_softmax(-1)


@pytest.fixture
def liar() -> ScoringHead:
    head = ScoringHead(HeadConfig("linear", NAMES)).requires_grad_(False)
    head.cascade = Liar()
    return head


@pytest.mark.parametrize("k", [2, 4])
def test_a_useless_cascade_costs_a_stated_number_of_forwards(run, prompts, liar, k):
    table = TableDenoiser(torch.randn(40, 6, generator=torch.Generator().manual_seed(1)), mask_id=5, eos_id=None)
    rule, canvas = Sequential("left_to_right"), {"gen_length": 16, "block_length": 16}
    expected, plain = run(table, rule, prompts, **canvas)
    final, counts = run(table, Verified(rule, liar, canvases=k, worth=1.0), prompts, **canvas)
    same_but_for_rounds(final, expected)
    assert torch.equal(counts.rounds, plain.rounds)
    assert (final.drafts_true == 0).all()
    extra = counts.sequence_forwards - plain.sequence_forwards
    assert (extra <= 1 + math.floor(math.log2(16))).all()
    assert (extra >= 1).all()
    _, most = run(table, Verified(rule, liar, canvases=k), prompts, **canvas)
    assert (most.sequence_forwards > counts.sequence_forwards).all()


def test_a_row_whose_drafts_come_true_again_makes_all_of_them_again(canvas):
    policy = Verified(Sequential(), canvases=4, worth=2.0)
    state = canvas(4, batch=6)
    made = torch.tensor([0, 1, 2, 2, 6, 7])
    true = torch.tensor([0, 0, 0, 1, 2, 0])
    rounds = torch.tensor([0, 1, 2, 4, 4, 64])
    known = replace(state, drafts=made, drafts_true=true, round=rounds)
    assert policy.allowance(known).tolist() == [1, 0, 0, 3, 3, 0]
    assert replace(policy, worth=None).allowance(known).tolist() == [3] * 6
    assert policy.allowance(replace(known, round=rounds * 4)).tolist() == [1, 2, 2, 3, 3, 2]


def test_what_is_foretold_reads_like_a_forward(reading_of):
    reading = replace(reading_of([0.9, 0.5, 0.4, 0.3, 0.0]), top_tokens=torch.tensor([0, 3, 4, 2, 1]).expand(1, 5, 5))
    said = torch.tensor(
        [[0.1, 0.6, 0.05, 0.05, 0.1, 0.1], [0.5, 0.1, 0.1, 0.1, 0.1, 0.1], [0.04, 0.02, 0.02, 0.9, 0.01, 0.01]]
    )

    class Says(Liar):
        def forward(self, taps, rows, committed, token, *figures, believed):
            assert believed
            assert committed.tolist() == [[True, False, False, False, False]]
            return said.log()

    committed = torch.tensor([[True, False, False, False, True]])
    found = foretell_reading(Says(), reading, committed, torch.zeros_like(reading.token))
    assert found.rows.tolist() == [[False, True, True, True, False]]
    assert found.token.tolist() == [[-1, 3, 0, 2, -1]]
    assert found.confidence[0].tolist() == pytest.approx([0, 0.6, 0.5, 0.9, 0])
    assert found.log_risk[0, 1:4].exp().tolist() == pytest.approx([0.4, 0.5, 0.1])
    assert found.margin[0, 1:4].tolist() == pytest.approx([0.5, 0.4, 0.86])
    assert found.top_tokens[0, 3, 0] == 2
    assert found.entropy[0, 1:4].tolist() == pytest.approx((-(said * said.log()).sum(-1)).tolist())


def test_a_share_of_a_bound_is_that_bound_on_more_doubt(reading_of):
    confidence = [0.999, 0.99, 0.97, 0.96, 0.9, 0.6]
    reading = reading_of(
        confidence, entropy=[0.01, 0.05, 0.1, 0.2, 0.4, 0.9], second=[0.0005, 0.002, 0.03, 0.01, 0.05, 0.3]
    )
    less = doubt(reading, 0.5)
    for rule, careful in (
        (Threshold(0.95), Threshold(0.975)),
        (MarginThreshold(0.9), MarginThreshold(0.95)),
        (EntropyThreshold(0.3), EntropyThreshold(0.15)),
        (Factor(0.4), Factor(0.2)),
        (RiskSum(0.1), RiskSum(0.05)),
        (EntropyBound(0.2), EntropyBound(0.1)),
    ):
        assert torch.equal(rule.accept(less), careful.accept(reading)), rule
        assert rule.accept(less).any()
        assert not torch.equal(rule.accept(less), rule.accept(reading)), rule
    assert less.confidence.argsort(descending=True).tolist() == [[0, 1, 2, 3, 4, 5]]
    assert confident(less, 1e-9).all()


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"rule": "ete"}, "rule of policy verified must be one of sequential, left-to-right, .*, got 'ete'"),
        (
            {"rule": "margin", "canvas": 3},
            "settings of policy verified with rule margin must be among .*margin, mode.*, got canvas",
        ),
        ({"threshold": 0.9, "canvases": 0}, "canvases must be at least 1, got 0"),
        ({"threshold": 1.5}, r"threshold must lie in \(0, 1\], got 1.5"),
        ({"source": "cascade"}, "source must be reading without a head that has a cascade, got 'cascade'"),
        ({"draft_share": 0.0}, r"draft_share must lie in \(0, 1\], got 0.0"),
        ({"worth": -1.0}, "worth must be at least 0, got -1.0"),
        ({"temperature": 0.5}, "temperature must be 0 with policy verified, got 0.5"),
        ({"rule": "learned"}, "policy learned must have a model loaded with head=FOLDER, got one without a head"),
        ({"rule": "learned", "looks": 2}, "looks must be 0 with policy verified, .*, got 2"),
        (
            {"rule": Threshold(0.9), "threshold": 0.9},
            "settings of the rule must be left out with a policy object, got threshold",
        ),
        ({"rule": Sequential("random")}, "rule must draw nothing, .*, got Sequential"),
        ({"rule": BeamETE()}, "rule must draw nothing, branch nowhere, .*, got BeamETE"),
        ({"rule": RemaskLowest()}, "rule must draw nothing, .* take nothing back, got RemaskLowest"),
    ],
)
def test_what_cannot_be_checked_is_refused_in_one_sentence(denoisers, given, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}"):
        generate(denoisers["flat"], [[0, 1]], "verified", gen_length=12, block_length=4, **given)


def test_the_settings_of_the_rule_go_beside_those_of_the_policy(denoisers):
    def made(**settings):
        return generate(denoisers["flat"], [[0, 1]], "verified", gen_length=12, block_length=4, **settings).policy

    assert made() == Verified(Threshold())
    assert made(threshold=0.7, canvases=2) == Verified(Threshold(0.7), canvases=2)
    assert made(factor=0.5) == Verified(Factor(0.5))
    assert made(rule="risk_sum", risk_bound=0.3, mode="subset") == Verified(RiskSum(0.3), mode="subset")
    assert made(rule="quota", steps=6) == Verified(Quota(steps=6))
    assert made(rule="left-to-right") == Verified(Sequential("left_to_right"))
    assert made(rule=Sequential("margin")) == Verified(Sequential("margin"))
