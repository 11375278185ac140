"""The grid that every decoding invariant runs over: a new policy joins with its settings in SETTINGS."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from typing import Any

import pytest
import torch
from torch import nn

from decoding.features import NAMES
from decoding.loop import decode
from decoding.names import POLICIES
from decoding.policies.bounds import RiskSum
from decoding.policies.dream_quota import DreamQuota
from decoding.policies.imh import HeadFuture
from decoding.policies.learned import Learned
from decoding.policies.quota import Quota, Sequential
from decoding.policies.threshold import MarginThreshold, Threshold
from decoding.policy import Policy
from decoding.reading import Reading, Sampling
from decoding.state import Reason, start
from models.denoiser import Denoiser
from models.heads.cascade import Cascade
from models.heads.config import HeadConfig
from models.heads.foretelling import rest_of
from models.heads.scoring_head import ScoringHead
from models.toys.toy import GroupDenoiser, TableDenoiser

GEN_LENGTH, BLOCK_LENGTH = 12, 4


class Echo(Cascade):
    """Says the reading's own candidates, the surer the more of its row is committed."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.taps = ()

    def forward(self, taps, rows, committed, token, top_tokens, top_log_probs, log_normaliser):
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


HEAD = linear_head(seed=0)
PAIRS = linear_head(None, pairs=4)
FORETELLING = linear_head(seed=0, foretells=True)
FORETELLING_PAIRS = linear_head(None, pairs=4, foretells=True)
EAGER = {"gamma": 0.8, "min_masks": 1, "branches": 3, "step_budget": 2}  # explores in most rounds

SETTINGS: dict[str, dict[str, dict[str, Any]]] = {
    "threshold": {"high": {"threshold": 0.9}, "low": {"threshold": 0.4}},
    "margin": {"low": {"margin": 0.3}},
    "entropy": {"high": {"entropy_threshold": 0.8}},
    "factor": {"one": {"factor": 1.0}, "half": {"factor": 0.5}, "last": {"factor_last": True}},
    "entropy-bound": {"half": {"entropy_bound": 0.5}},
    "risk-sum": {"high": {"risk_bound": 0.6}},
    "sequential": {"default": {}, "right": {"order": "right_to_left"}},
    "random": {"default": {}},
    "left-to-right": {"default": {}},
    "quota": {
        "even": {"steps": 6},
        "uneven": {"steps": 9, "order": "entropy"},
        "random": {"steps": 6, "order": "random"},
        "margin": {"steps": 3, "order": "margin"},
    },
    "dream-quota": {  # its schedule is of the whole canvas
        "short": {"steps": 6},
        "long": {"steps": 40, "order": "margin"},
        "random": {"steps": 20, "order": "random"},
    },
    "ete": {
        "default": {},
        "eager": EAGER,
        "band": {**EAGER, "candidate_rule": "band", "frontier": "feasible", "alpha": 0.5},
        "information": {**EAGER, "candidate_rule": "information", "eq7_over": "masks", "implicit_scope": "global"},
        "factor": {**EAGER, "factor": 0.5, "eq7_threshold": 0.6, "step_budget": None},
        "no-implicit": {**EAGER, "implicit": False, "initial_blocks": 2, "branches": 1},
        "no-targeted": {**EAGER, "targeted": False, "initial_blocks": 99},
    },
    "random-parity": {"eager": EAGER},
    "lopa": {"narrow": {"threshold": 0.7, "branches": 2}, "wide": {"branches": 20}},
    "imh": {
        "default": {"alpha": 2.0, "proposals": 4},
        "left": {"alpha": 1.0, "proposals": 3, "chain": 5, "order": "left_to_right"},
        "head": {"proposals": 3, "future": HeadFuture(HEAD)},
        "alone": {"proposals": 1, "order": "random"},
    },
    "draft-verify": {
        "two": {"draft": 0.3, "verify": 0.9, "groups": 2},
        "one": {"draft": 0.5, "verify": 0.7, "groups": 1},
    },
    "wino": {"wide": {"threshold": 0.2}, "narrow": {"threshold": 0.5, "threshold_back": 0.6}},
    "dawn": {
        "near": {"tau_low": 0.3, "tau_sink": 0.9},
        "induced": {"tau_low": 0.5, "tau_induce": 0.3, "threshold": 0.6, "tau_sink": 0.9},
    },
    "info-gain": {
        "default": {},
        "lookum": {"candidate_number": 3, "threshold": 0.5, "position_temperature": 2.0, "variant": "lookum"},
        "one": {"candidate_number": 1},
    },
    "remask-lowest": {"one": {"threshold": 0.3, "count": 1}, "all": {"threshold": 0.2, "keep": 1.0, "count": 20}},
    "learned": {
        "each": {"head": HEAD, "risk_bound": 0.5, "rule": "each"},
        "sum": {"head": HEAD, "rule": "sum", "risk_bound": 0.9, "step_budget": 2},
        "pairs": {"head": PAIRS, "rule": "pairs", "risk_bound": 0.9},
        "cascade": {"head": FORETELLING, "risk_bound": 0.5},
        "cascade-confidence": {"head": FORETELLING, "risk_bound": 0.8, "rule": "confidence", "looks": 3, "share": 0.5},
        "cascade-pairs": {"head": FORETELLING_PAIRS, "risk_bound": 0.9, "looks": 1, "step_budget": 2},
    },
    "learned-ete": {
        "eager": {**EAGER, "head": FORETELLING, "risk_bound": 0.3},
        "quiet": {"head": FORETELLING, "risk_bound": 0.6, "looks": 1, "share": 0.5, "gamma": 0.0},
        "band": {**EAGER, "head": FORETELLING, "candidate_rule": "band", "implicit": True, "initial_blocks": 2},
    },
    "learned-parity": {
        "eager": {**EAGER, "head": HEAD},
        "all": {"gamma": 0.8, "min_masks": 1, "initial_blocks": 2, "head": HEAD, "among": "all"},
        "gate": {**EAGER, "head": HEAD, "gate": 0.5},
        "cascade": {**EAGER, "head": FORETELLING, "by": "cascade"},
    },
    "verified": {
        "threshold": {"rule": Threshold(0.6), "head": FORETELLING},
        "reading": {"rule": Sequential(), "canvases": 3, "worth": 0.5},
        "quota": {"rule": Quota(steps=6), "head": FORETELLING, "canvases": 2},
        "subset": {"rule": RiskSum(0.6), "head": FORETELLING, "mode": "subset", "draft_share": 0.5},
        "learned": {"rule": Learned(HEAD, rule="sum", risk_bound=0.9, step_budget=2), "canvases": 5},
        "alone": {"rule": MarginThreshold(0.3), "canvases": 1},
    },
    "klass": {
        "default": {},
        "lax": {"threshold": 0.3, "kl_threshold": 1.0},
        "at-once": {"threshold": 0.3, "kl_threshold": 5.0, "history_length": 1},
    },
    "freedave": {"default": {}, "long": {"draft_steps": 9}, "alone": {"draft_steps": 1}},
    "frechet": {"default": {}, "careful": {"frechet_margin": 0.6}},
    "saber": {"default": {}, "one": {"least": 1}, "bold": {"least": 4}},
    "slow-fast": {"default": {}, "short": {"threshold": 0.6, "slow_rounds": 2}, "one": {"slow_rounds": 1}},
    "pc-sampler": {"default": {}, "two": {"bias": 0.0, "per_round": 2, "background": (0.5, 0.1, 0.2, 0.1, 0.05, 0.05)}},
}
"""Name of a policy -> what its members of the grid are called -> their settings."""


def members(name: str) -> dict[str, Policy]:
    """The policy of that name with each of its settings; none where it has none in `SETTINGS`."""
    module, _, kind = POLICIES[name].home.partition(":")
    make = getattr(import_module(module), kind)
    return {
        f"{name}-{label}": make(**POLICIES[name].fixed, **settings)
        for label, settings in SETTINGS.get(name, {}).items()
    }


GRID = {member: policy for name in POLICIES for member, policy in members(name).items()}


class ContextDenoiser(TableDenoiser):
    """A table whose lines are changed by the tokens revealed on either side."""

    def everywhere(self, tokens):
        nothing = tokens.new_full((len(tokens), 1), self.mask_id)
        left = torch.cat([nothing, tokens[:, :-1]], 1)
        right = torch.cat([tokens[:, 1:], nothing], 1)
        voice = random_table(3, self.vocab_size, 2.5).index_fill(0, torch.tensor(self.mask_id), 0.0)
        return super().everywhere(tokens) + voice[left] + voice.flip(1)[right]

    def attended(self, tokens, blocks, *, attention_mask=None, rows=None):
        prediction = super().attended(tokens, blocks, attention_mask=attention_mask, rows=rows)
        place = torch.arange(tokens.shape[1])
        near = ((place - place.unsqueeze(-1)).abs() == 1).float()
        return replace(prediction, attention=0.5 * near * (prediction.attention > 0))


def random_table(seed: int, lines: int, spread: float, vocabulary: int = 6) -> torch.Tensor:
    return torch.randn(lines, vocabulary, generator=torch.Generator().manual_seed(seed)) * spread


DENOISERS = {
    "flat": TableDenoiser(random_table(0, 40, 1.0), mask_id=5, eos_id=4),
    "sharp": TableDenoiser(random_table(1, 40, 4.0), mask_id=5, eos_id=4),
    "context": ContextDenoiser(random_table(2, 40, 1.5), mask_id=5, eos_id=4),
    "groups": GroupDenoiser(GEN_LENGTH // BLOCK_LENGTH, BLOCK_LENGTH),
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for name, grid in (("any_policy", GRID), ("any_denoiser", DENOISERS)):
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, grid.values(), ids=grid.keys())


class Counting(Denoiser):
    """Forwards to another denoiser and counts."""

    def __init__(self, inner: Denoiser) -> None:
        super().__init__()
        self.inner, self.calls, self.canvases, self.positions = inner, 0, 0, 0
        self.mask_id, self.eos_id, self.vocab_size, self.max_length = inner.mask_id, inner.eos_id, inner.vocab_size, 99

    def forward(self, tokens, **kwargs):
        return self.count(tokens, self.inner(tokens, **kwargs))

    def count(self, tokens, prediction):
        self.calls, self.canvases = self.calls + 1, self.canvases + len(tokens)
        self.positions += int(prediction.positions.sum())
        return prediction

    def shadowed(self, tokens, shadows, **kwargs):
        return self.count(tokens, self.inner.shadowed(tokens, shadows, **kwargs))

    def attended(self, tokens, blocks, **kwargs):
        return self.count(tokens, self.inner.attended(tokens, blocks, **kwargs))


@pytest.fixture
def denoisers():
    return DENOISERS


@pytest.fixture
def settings():
    """Of every policy in the grid, by name."""
    return SETTINGS


@pytest.fixture
def counting():
    return Counting


@pytest.fixture
def prompts() -> torch.Tensor:
    """Three prompts of four tokens below the mask id of every denoiser in the grid."""
    return torch.tensor([[0, 1, 1, 0], [1, 0, 1, 1], [0, 0, 0, 1]])


@pytest.fixture
def begin():
    """The first state of a decode of `policy`."""

    def state_of(denoiser, policy, prompts, *, gen_length=GEN_LENGTH, block_length=None, early_stop=True):
        block_length = block_length or (gen_length if isinstance(policy, DreamQuota) else BLOCK_LENGTH)
        state = start(
            nn.functional.pad(prompts, (0, gen_length)),
            gen_length=gen_length,
            block_length=block_length,
            mask_id=denoiser.mask_id,
            eos_id=denoiser.eos_id if early_stop else None,
            step_budget=policy.step_budget,
            initial_blocks=policy.initial_blocks,
        )
        memory = torch.zeros(len(prompts), policy.needs.memory, state.tokens.shape[1])
        return replace(state, memory=memory)

    return state_of


@pytest.fixture
def sampling_of():
    """The sampling of a policy, the mask token forbidden."""

    def sampling(denoiser, policy, temperature=0.0):
        return Sampling(
            temperature=temperature,
            forbidden=(denoiser.mask_id,),
            noise=policy.needs.noise,
            draws=policy.needs.draws,
            power=policy.needs.power,
        )

    return sampling


@pytest.fixture
def run(begin, sampling_of):
    """Decode and return the final state and the counts."""

    def run_(denoiser, policy, prompts, *, temperature=0.0, seed=0, attention_mask=None, on_step=None, **canvas):
        return decode(
            denoiser,
            begin(denoiser, policy, prompts, **canvas),
            policy,
            attention_mask=attention_mask,
            sampling=sampling_of(denoiser, policy, temperature),
            generator=torch.Generator().manual_seed(seed),
            on_step=on_step,
        )

    return run_


@pytest.fixture
def reading_of():
    """A reading of equal rows (or, from a list of lists, of rows with K branches) with exactly these confidences."""

    def reading(confidence, *, entropy=None, second=None, noise=None, batch=1) -> Reading:
        c = torch.tensor([confidence] * batch)
        blank = Reading.empty(tuple(c.shape), c.device)
        top = torch.stack([c, torch.zeros_like(c) if second is None else torch.tensor([second])], -1).log()
        return replace(
            blank,
            rows=c > 0,
            token=torch.zeros_like(blank.token),
            confidence=c,
            log_risk=(-c).log1p(),
            entropy=blank.entropy if entropy is None else torch.tensor([entropy]),
            top_log_probs=nn.functional.pad(top, (0, 3), value=-100.0),
            noise=blank.noise if noise is None else torch.tensor([noise]),
        )

    return reading


@pytest.fixture
def canvas():
    """A state without a prompt, nothing committed."""

    def canvas_(gen_length, block_length=None, batch=1, **settings):
        tokens = torch.zeros(batch, gen_length, dtype=torch.long)
        block_length = gen_length if block_length is None else block_length
        return start(tokens, gen_length=gen_length, block_length=block_length, mask_id=5, eos_id=None, **settings)

    return canvas_


@pytest.fixture
def committed(canvas, reading_of):
    """Positions that a policy commits from one reading of one block, and their reasons."""

    def committed_(policy, confidence, **figures) -> dict[int, Reason]:
        reading = reading_of(confidence, **figures)
        proposal = policy.propose(canvas(len(confidence)), reading)
        assert torch.equal(proposal.tokens == 0, proposal.reason > 0)
        return {i: Reason(r) for i, r in enumerate(proposal.reason[0, 0].tolist()) if r}

    return committed_
