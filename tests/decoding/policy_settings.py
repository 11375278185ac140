"""The settings under which the tests of all policies run each of them.

A policy joins by its name in `decoding.names.POLICIES`. A row here is for one that the defaults and the ends of its dial
leave unexplored, or that has a setting without a default.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from decoding.comparison.arms import dial_values, setting_of
from decoding.features import NAMES
from decoding.names import DIALS, POLICIES
from decoding.policies.bounds import RiskSum
from decoding.policies.imh import HeadFuture
from decoding.policies.learned import Learned
from decoding.policies.quota import Quota, Sequential
from decoding.policies.threshold import MarginThreshold, Threshold
from models.denoiser import Denoiser
from models.heads.cascade import Cascade, CascadeConfig
from models.heads.config import HeadConfig
from models.heads.foretelling import rest_of
from models.heads.scoring_head import ScoringHead

GEN_LENGTH, BLOCK_LENGTH = 12, 4  # of the toy denoisers


@dataclass(frozen=True)
class Row:
    """Settings of one policy.

    Attributes:
        toys: label -> settings on the toy denoisers, of GEN_LENGTH positions; a head included; each is a member of the grid.
        golden: on the golden models, whose weights are random: several positions pass in a round.
        shipped: of a policy with a head, on the model and head that ship; one test each.
    """

    toys: Mapping[str, Mapping[str, Any]]
    golden: Mapping[str, Any] = field(default_factory=dict)
    shipped: tuple[Mapping[str, Any], ...] = ({},)


class Echo(Cascade):
    """Says the reading's own candidates, the surer the more of its row is committed."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.taps = ()

    def forward(self, taps, rows, committed, token, top_tokens, top_log_probs, log_normaliser, *, believed=False):
        left = rows & ~committed
        surer = 1 + committed.sum(-1, keepdim=True).expand(rows.shape)[left]
        known = top_log_probs[left]
        return (torch.cat([known, rest_of(known)], -1) * surer.unsqueeze(-1)).log_softmax(-1)


def linear_head(seed: int | None, *, pairs: int = 0, foretells: bool = False) -> ScoringHead:
    """A head on the features alone: untrained, or with a seed one of opinions drawn at random."""
    head = ScoringHead(HeadConfig("linear", NAMES, pairs=pairs)).requires_grad_(False)
    if seed is not None:
        head.readout.weight.normal_(std=0.3, generator=torch.Generator().manual_seed(seed))
    if foretells:
        head.cascade = Echo()
    return head


def random_head(base: Denoiser) -> ScoringHead:
    """A head with conflicts and a cascade, all drawn at random."""
    torch.manual_seed(0)
    head = ScoringHead(HeadConfig("lora", NAMES, rank=4, width=16, pairs=4, base=base.fingerprint()), base)
    head.cascade = Cascade(CascadeConfig(rank=4, base=base.fingerprint()), base)
    for parameter in (p for p in head.parameters() if p.requires_grad):
        nn.init.normal_(parameter, std=0.05)
    return head.eval().requires_grad_(False)


HEAD = linear_head(seed=0)
PAIRS = linear_head(None, pairs=4)
FORETELLING = linear_head(seed=0, foretells=True)
FORETELLING_PAIRS = linear_head(None, pairs=4, foretells=True)
HEADS = {"features": HEAD, "conflicts": PAIRS, "cascade": FORETELLING, "all": FORETELLING_PAIRS}
EAGER = {"gamma": 0.8, "min_masks": 1, "branches": 3, "step_budget": 2}  # explores in most rounds
LOOSE = {"gamma": 1.0, "min_masks": 0, "branches": 3, "step_budget": 3, "threshold": 0.02}

ROWS: Mapping[str, Row] = {
    "threshold": Row({"high": {"threshold": 0.9}, "low": {"threshold": 0.4}}, golden={"threshold": 0.02}),
    "margin": Row({"low": {"margin": 0.3}}, golden={"margin": 0.01}),
    "entropy": Row({"high": {"entropy_threshold": 0.8}}, golden={"entropy_threshold": 4.9}),
    "factor": Row(
        {"one": {"factor": 1.0}, "half": {"factor": 0.5}, "last": {"factor_last": True}}, golden={"factor": 4.0}
    ),
    "entropy-bound": Row({"half": {"entropy_bound": 0.5}}, golden={"entropy_bound": 5.0}),
    "risk-sum": Row({"high": {"risk_bound": 0.6}}, golden={"risk_bound": 2.5}),
    "sequential": Row({"default": {}, "right": {"order": "right_to_left"}}),
    "quota": Row(
        {
            "even": {"steps": 6},
            "uneven": {"steps": 9, "order": "entropy"},
            "random": {"steps": 6, "order": "random"},
            "margin": {"steps": 3, "order": "margin"},
        },
        golden={"steps": 4},
    ),
    "dream-quota": Row(
        {  # its schedule is of the whole canvas
            "short": {"steps": 6},
            "long": {"steps": 40, "order": "margin"},
            "random": {"steps": 20, "order": "random"},
        },
        golden={"steps": 4},
    ),
    "ete": Row(
        {
            "default": {},
            "eager": EAGER,
            "band": {**EAGER, "candidate_rule": "band", "frontier": "feasible", "alpha": 0.5},
            "information": {**EAGER, "candidate_rule": "information", "eq7_over": "masks", "implicit_scope": "global"},
            "factor": {**EAGER, "factor": 0.5, "eq7_threshold": 0.6, "step_budget": None},
            "no-implicit": {**EAGER, "implicit": False, "initial_blocks": 2, "branches": 1},
            "no-targeted": {**EAGER, "targeted": False, "initial_blocks": 99},
        },
        golden=LOOSE,
    ),
    "random-parity": Row({"eager": EAGER}, golden=LOOSE),
    "lopa": Row(
        {"narrow": {"threshold": 0.7, "branches": 2}, "wide": {"branches": 20}},
        golden={"threshold": 0.02, "branches": 3},
    ),
    "imh": Row(
        {
            "default": {"alpha": 2.0, "proposals": 4},
            "left": {"alpha": 1.0, "proposals": 3, "chain": 5, "order": "left_to_right"},
            "head": {"proposals": 3, "future": HeadFuture(HEAD)},
            "alone": {"proposals": 1, "order": "random"},
        }
    ),
    "draft-verify": Row(
        {"two": {"draft": 0.3, "verify": 0.9, "groups": 2}, "one": {"draft": 0.5, "verify": 0.7, "groups": 1}},
        golden={"draft": 0.02, "verify": 0.5},
    ),
    "remask-lowest": Row(
        {"one": {"threshold": 0.3, "count": 1}, "all": {"threshold": 0.2, "keep": 1.0, "count": 20}},
        golden={"threshold": 0.02, "keep": 0.03},
    ),
    "learned": Row(
        {
            "each": {"head": HEAD, "risk_bound": 0.5, "rule": "each"},
            "sum": {"head": HEAD, "rule": "sum", "risk_bound": 0.9, "step_budget": 2},
            "pairs": {"head": PAIRS, "rule": "pairs", "risk_bound": 0.9},
            "cascade": {"head": FORETELLING, "risk_bound": 0.5},
            "cascade-confidence": {
                "head": FORETELLING,
                "risk_bound": 0.8,
                "rule": "confidence",
                "looks": 3,
                "share": 0.5,
            },
            "cascade-pairs": {"head": FORETELLING_PAIRS, "risk_bound": 0.9, "looks": 1, "step_budget": 2},
        },
        golden={"rule": "each", "risk_bound": 0.97, "step_budget": 3},
        shipped=({}, {"looks": 1, "rule": "sum"}, {"looks": 0, "rule": "each"}, {"rule": "confidence"}),
    ),
    "learned-ete": Row(
        {
            "eager": {**EAGER, "head": FORETELLING, "risk_bound": 0.3},
            "quiet": {"head": FORETELLING, "risk_bound": 0.6, "looks": 1, "share": 0.5, "gamma": 0.0},
            "band": {**EAGER, "head": FORETELLING, "candidate_rule": "band", "implicit": True, "initial_blocks": 2},
        },
        golden={"risk_bound": 1.0, "gamma": 1.0, "min_masks": 0, "share": 20.0},
    ),
    "learned-parity": Row(
        {
            "eager": {**EAGER, "head": HEAD},
            "all": {"gamma": 0.8, "min_masks": 1, "initial_blocks": 2, "head": HEAD, "among": "all"},
            "gate": {**EAGER, "head": HEAD, "gate": 0.5},
            "cascade": {**EAGER, "head": FORETELLING, "by": "cascade"},
        },
        golden=LOOSE,
        shipped=({"gamma": 0.9, "gate": 2.0}, {"gamma": 0.9, "by": "cascade", "among": "candidates"}),
    ),
    "verified": Row(
        {
            "threshold": {"rule": Threshold(0.6), "head": FORETELLING},
            "reading": {"rule": Sequential(), "canvases": 3, "worth": 0.5},
            "quota": {"rule": Quota(steps=6), "head": FORETELLING, "canvases": 2},
            "subset": {"rule": RiskSum(0.6), "head": FORETELLING, "mode": "subset", "draft_share": 0.5},
            "learned": {"rule": Learned(HEAD, rule="sum", risk_bound=0.9, step_budget=2), "canvases": 5},
            "alone": {"rule": MarginThreshold(0.3), "canvases": 1},
        },
        golden={"rule": "threshold", "threshold": 0.02},
    ),
    "wino": Row(
        {"wide": {"threshold": 0.2}, "narrow": {"threshold": 0.5, "threshold_back": 0.6}},
        golden={"threshold": 0.02, "threshold_back": 0.03},
    ),
    "dawn": Row(
        {
            "near": {"tau_low": 0.3, "tau_sink": 0.9},
            "induced": {"tau_low": 0.5, "tau_induce": 0.3, "threshold": 0.6, "tau_sink": 0.9},
        },
        golden={"tau_low": 0.02, "tau_induce": 0.02, "threshold": 0.03},
    ),
    "info-gain": Row(
        {
            "default": {},
            "lookum": {"candidate_number": 3, "threshold": 0.5, "position_temperature": 2.0, "variant": "lookum"},
            "one": {"candidate_number": 1},
        },
        golden={"threshold": 0.02},
    ),
    "klass": Row(
        {
            "default": {},
            "lax": {"threshold": 0.3, "kl_threshold": 1.0},
            "at-once": {"threshold": 0.3, "kl_threshold": 5.0, "history_length": 1},
        },
        golden={"threshold": 0.01, "kl_threshold": 5.0},
    ),
    "freedave": Row({"default": {}, "long": {"draft_steps": 9}, "alone": {"draft_steps": 1}}),
    "frechet": Row({"default": {}, "careful": {"frechet_margin": 0.6}}),
    "saber": Row({"default": {}, "one": {"least": 1}, "bold": {"least": 4}}),
    "slow-fast": Row(
        {"default": {}, "short": {"threshold": 0.6, "slow_rounds": 2}, "one": {"slow_rounds": 1}},
        golden={"threshold": 0.01, "cycle_threshold": 0.01, "slow_rounds": 2},
    ),
    "pc-sampler": Row(
        {"default": {}, "two": {"bias": 0.0, "per_round": 2, "background": (0.5, 0.1, 0.2, 0.1, 0.05, 0.05)}},
        golden={"per_round": 2},
    ),
}
"""Name of a policy -> its settings, where it has a row."""


def row_of(name: str) -> Row:
    """The settings of a policy: its row, or else its defaults and the ends of its dial, with every kind of head it may read."""
    if name in ROWS:
        return ROWS[name]
    dial, reads_head = POLICIES[name].dial, POLICIES[name].head
    toys: dict[str, dict[str, Any]] = (
        {label: {"head": head} for label, head in HEADS.items()} if reads_head else {"default": {}}
    )
    if dial in DIALS:
        values = dial_values(dial, gen_length=GEN_LENGTH, block_length=BLOCK_LENGTH)
        for label, value in (("careful", values[0]), ("bold", values[-1])):
            toys[label] = {dial: setting_of(dial, value)} | ({"head": FORETELLING} if reads_head else {})
    return Row(toys)
