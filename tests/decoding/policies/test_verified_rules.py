"""Checked drafts in exact mode are the rule itself, state for state, whatever the family, the cache and the batch."""

from __future__ import annotations

from dataclasses import fields
from itertools import islice
from pathlib import Path

import pytest
import torch

import models
from decoding import Generation, generate, make_policy
from decoding.policies.bounds import EntropyBound, Factor, RiskSum
from decoding.policies.learned import Learned
from decoding.policies.quota import Quota, Sequential
from decoding.policies.threshold import EntropyThreshold, MarginThreshold, Threshold
from decoding.policies.verified import Verified
from decoding.policy import Policy
from decoding.state import DecodeState
from models.denoiser import Denoiser
from tests.decoding.policies.same_states import same_but_for_rounds
from tests.decoding.policy_settings import random_head
from train.tasks import get

ROOT = Path(__file__).parents[3]
GOLDEN = ROOT / "tests" / "golden"
PROMPTS = [[5, 6, 7], [8, 9]]
OWN = {"round", "committed_round", "looks", "drafts", "drafts_true"}  # what checked drafts change of a state
RULES = {
    "sequential": lambda head: Sequential(),
    "left-to-right": lambda head: Sequential("left_to_right"),
    "quota": lambda head: Quota(steps=4),
    "threshold": lambda head: Threshold(0.02),
    "margin": lambda head: MarginThreshold(0.004),
    "entropy": lambda head: EntropyThreshold(6.15),
    "factor": lambda head: Factor(2.9),
    "entropy-bound": lambda head: EntropyBound(6.2),
    "risk-sum": lambda head: RiskSum(1.97),
    "learned": lambda head: Learned(head, rule="sum", risk_bound=0.99, looks=0),
    "learned-total": lambda head: Learned(head, rule="total", risk_bound=1.0, looks=0, step_budget=3),
}


def load_golden(name: str) -> Denoiser:
    made = models.load(GOLDEN / name, device="cpu", dtype=torch.float64)
    made.put_on(random_head(made))
    return made


@pytest.fixture(scope="module")
def base():
    return load_golden("llada")


@pytest.fixture(scope="module")
def shifted():
    return load_golden("dream")


def states_of(made: Generation) -> dict[tuple[int, int], dict[str, torch.Tensor]]:
    """(row, masks left) -> every state that a forward has read, but for what checked drafts change of it."""
    names = [f.name for f in fields(DecodeState) if f.name not in {*OWN, "layout"}]
    return {
        (row, int(state.masked[row].sum())): {name: getattr(state, name)[row] for name in names}
        for state in made.history
        for row in range(len(state.tokens))
        if state.masked[row].any()
    }


CANVASES = [(8, "none"), (4, "prefix"), (4, "dual"), (2, "dual")]


@pytest.mark.parametrize(("block_length", "cache"), CANVASES)
@pytest.mark.parametrize("rule", RULES)
def test_exact_mode_is_the_rule_itself_state_for_state(base, rule, block_length, cache):
    check_states(base, RULES[rule](base.head), block_length, cache)


@pytest.mark.parametrize("cache", ["none", "prefix", "dual"])
@pytest.mark.parametrize("rule", ["threshold", "learned-total"])
def test_exact_mode_is_the_rule_itself_in_a_shifted_family(shifted, rule, cache):
    check_states(shifted, RULES[rule](shifted.head), 4, cache)


def check_states(base: Denoiser, alone: Policy, block_length: int, cache: str) -> None:
    canvas = {"gen_length": 8, "block_length": block_length, "use_cache": cache, "history": True}
    expected, made = (generate(base, PROMPTS, p, **canvas) for p in (alone, Verified(alone, base.head)))
    same_but_for_rounds(made.state, expected.state)
    known = states_of(expected)
    for place, state in states_of(made).items():
        for name, value in state.items():
            torch.testing.assert_close(value, known[place][name], msg=name)
    assert torch.equal(made.rounds, expected.rounds - made.drafts_true)
    assert torch.equal(made.state.round, made.rounds)


@pytest.mark.parametrize("cache", ["none", "dual"])
@pytest.mark.parametrize("rule", ["threshold", "learned-total"])
def test_exact_mode_is_the_rule_itself_row_by_row(base, rule, cache):
    canvas = {"gen_length": 8, "block_length": 4, "use_cache": cache}
    alone = RULES[rule](base.head)
    expected = generate(base, PROMPTS, alone, **canvas)
    for row, prompt in enumerate(PROMPTS):
        made = generate(base, [prompt], Verified(alone, base.head, canvases=3), **canvas)
        assert torch.equal(made.canvas[0], expected.canvas[row])
        assert made.rounds[0] == expected.rounds[row] - made.drafts_true[0]


@pytest.fixture(scope="module")
def shipped():
    folder = ROOT / "checkpoints" / "reason-7m"
    if not (folder / "model.safetensors").is_file():
        pytest.skip("the shipped model is not in this copy")
    return models.load(folder, device="cpu", dtype=torch.float64, head=f"{folder}-head")


@pytest.mark.parametrize("policy", ["sequential", "threshold", "learned"])
def test_exact_mode_is_the_rule_itself_on_the_shipped_model(shipped, policy):
    task = get("countdown3")
    prompts = [example.prompt for example in islice(task.generate("test", seed=0), 2)]
    canvas = {"gen_length": task.gen_length, "block_length": task.block_length}
    settings = {"threshold": {"threshold": 0.95}, "learned": {"risk_bound": 0.1}}.get(policy, {})
    alone = generate(shipped, prompts, policy, **canvas, **settings, **({"looks": 0} if policy == "learned" else {}))
    checked = generate(shipped, prompts, "verified", rule=policy, **canvas, **settings)
    same_but_for_rounds(checked.state, alone.state)
    assert checked.text == alone.text
    assert checked.rounds.sum() < alone.rounds.sum()
    assert (checked.drafts_true > 0).any()
    assert (checked.looks >= checked.drafts).all()


@pytest.mark.parametrize("mode", ["prefix", "dual"])
@pytest.mark.parametrize("mixed", [None, 2])
def test_under_a_cache_the_forward_that_opens_a_block_is_of_one_canvas_a_row(base, mode, mixed):
    cached = base.with_cache(mode)
    seen, forward = [], cached.forward

    def spy(tokens, **how):
        seen.append((how["owner"].clone(), how["refresh"].clone()))
        return forward(tokens, **how)

    cached.forward = spy
    rule = Learned(base.head, rule="sum", risk_bound=0.99, looks=0, step_budget=mixed)
    made = generate(cached, PROMPTS, Verified(rule, base.head), gen_length=16, block_length=4)
    for owner, refresh in seen:
        for row in owner[refresh].unique():
            assert (owner == row).sum() == 1
    assert made.drafts.sum() > 0


def test_the_risk_rule_of_a_learned_rule_has_its_own_name(base):
    made = make_policy("verified", {"rule": "learned", "risk_rule": "pairs", "risk_bound": 0.2}, base)
    assert made == Verified(Learned(base.head, risk_bound=0.2, rule="pairs", looks=0), base.head)
    assert made.needs.taps == base.head.taps_ahead
