"""What a captured graph holds is right for every later decode with its key: here on a CPU, with graphs that are closures.

A captured graph repeats what the host told it when it was captured. `Graphs.run` is replaced by one that keeps the functions of
that call, with the driver and session as they were, and calls these in place of later ones; and that computes twice before.
"""

from __future__ import annotations

from contextlib import closing
from copy import copy
from pathlib import Path
from types import CellType, FunctionType, MethodType

import pytest
import torch

import models
from decoding import generate, generate_many
from decoding.loop import rounds
from decoding.policies.learned import Learned
from decoding.policies.rules import AcceptancePolicy
from decoding.policies.threshold import Threshold
from decoding.policies.verified import Verified
from decoding.policy import first_state, identity_of
from decoding.rounds.engine import EngineDriver
from decoding.sampling import Sampling
from decoding.state import Proposal
from models.engine.graphs import Graphs
from models.engine.session import Session
from models.engine.versions import Versions
from tests.decoding.policy_settings import linear_head
from tests.decoding.rounds.test_engine import both, same

FOLDER = Path(__file__).parents[2] / "golden" / "llada"
CANVAS = {"gen_length": 16, "block_length": 8}


def frozen(function):
    """A function with its driver and session as they are now."""
    if function is None:
        return None
    if isinstance(function, MethodType):
        return MethodType(function.__func__, copy(function.__self__))
    held = [cell.cell_contents for cell in function.__closure__]
    cells = tuple(CellType(copy(one) if isinstance(one, EngineDriver | Session) else one) for one in held)
    return FunctionType(function.__code__, function.__globals__, function.__name__, function.__defaults__, cells)


@pytest.fixture
def replays(monkeypatch):
    """Names of the steps that were replayed."""
    seen = []

    def run(graphs, key, compute, store=None, *, first=0):
        steps = graphs._kept.get(key)
        graphs._asked[key] += 1
        if steps is None and graphs._asked[key] > first:
            compute(), compute()
            steps = graphs._kept[key] = frozen(compute), frozen(store)
        elif steps is not None:
            seen.append(key[1])
        compute, store = steps or (compute, store)
        made = compute()
        if store is not None:
            store(made)

    monkeypatch.setattr(Graphs, "run", run)
    return seen


@pytest.fixture
def pair():
    return [models.load(FOLDER, device="cpu", dtype="float64", engine=kind) for kind in ("plain", "graphs")]


class Idle(AcceptancePolicy):
    """Commits nothing."""

    def accept(self, reading):
        return reading.rows

    def propose(self, state, reading):
        return Proposal.single(state, reading, torch.zeros_like(state.reason))


class Sure(AcceptancePolicy):
    """A user's rule whose setting is no field."""

    def __init__(self, least):
        object.__setattr__(self, "least", least)

    def accept(self, reading):
        return reading.confidence >= self.least


@pytest.mark.parametrize("cache", ["none", "dual"])
def test_decodes_that_follow_each_other(pair, replays, cache):
    ids, mask = torch.tensor([[0, 0, 5, 9], [7, 8, 6, 3]]), [[0, 0, 1, 1], [1, 1, 1, 1]]
    calls = [
        ([[5, 9, 77], [3]], "threshold", {"threshold": 0.02}),
        ([[5], [4, 4, 4, 4, 31]], "threshold", {"threshold": 0.02}),
        (ids, "threshold", {"threshold": 0.02, "attention_mask": mask}),
        (ids, "threshold", {"threshold": 0.02, "attention_mask": torch.tensor(mask)}),
        (ids + 1, "threshold", {"threshold": 0.02}),
        ([8, 9], "threshold", {"threshold": 0.02, "num_return_sequences": 2, "temperature": 0.7}),
        (ids + 1, "threshold", {"threshold": 0.9, "early_stop": False}),
        (ids + 1, "threshold", {"threshold": 0.02, "temperature": 0.7}),
        ([[5, 9, 77], [3]], "threshold", {"threshold": 0.02, "history": True}),
        ([[5, 9, 77], [3]], "ete", {"gamma": 1.0, "step_budget": 2, "threshold": 0.02}),
        ([[6] * 40, [3]], "ete", {"gamma": 1.0, "step_budget": 2, "threshold": 0.02}),
        ([[9, 77], [3]], "ete", {"gamma": 1.0, "initial_blocks": 2, "threshold": 0.02}),
        ([[5, 9, 77], [3]], "factor", {"factor": 4.0}),
    ]
    for prompts, policy, settings in calls * 2:
        same(*both(pair, prompts, policy, use_cache=cache, **CANVAS, **settings))
    assert {"begin", "turn", "end"} <= set(replays)


def test_prompts_that_join_in_wider_buffers(pair, replays):
    prompts = [[5, 9], [3], [7] * 5, [8] * 60, [9], [4] * 58]
    eager = {"gamma": 1.0, "threshold": 0.02, "step_budget": 2}
    calls = [("threshold", {"threshold": t}) for t in (0.02, 0.9)]
    calls += [("ete", {**eager, "initial_blocks": blocks}) for blocks in (1, 2)]
    for policy, given in calls * 2:
        settings = {"batch_size": 2, "use_cache": "dual", **CANVAS, **given}
        rows = [[a.row for a in generate_many(one, iter(prompts), policy, **settings)] for one in pair]
        assert rows[0] == rows[1], given
    assert {"begin", "join", "turn", "end"} <= set(replays)


def test_a_decode_after_one_that_was_left(pair, replays):
    fast = pair[1]
    for turn in range(3):
        with pytest.raises(RuntimeError, match="must commit"):
            generate(fast, [[5, turn]], Idle(), **CANVAS)
        answers = generate_many(fast, [[5, turn], [3], [4]], Threshold(0.02), batch_size=1, **CANVAS)
        next(answers)
        answers.close()
        same(*both(pair, [[5, 9, turn]], Threshold(0.02), **CANVAS))
    tokens = torch.nn.functional.pad(torch.tensor([[5, 9, 3]]), (0, 16))
    state = first_state(fast, tokens, Threshold(0.9), gen_length=16, block_length=8, end_ids=None)
    with torch.inference_mode(), closing(rounds(fast, state, Threshold(0.9), sampling=Sampling())) as steps:
        next(steps)
    same(*both(pair, [[5, 9, 77]], Threshold(0.02), **CANVAS))
    assert not fast.engine.in_use.locked()


def test_a_setting_that_is_no_field_tells_rules_apart(pair, replays):
    for least in (0.02, 0.9, 0.02):
        same(*both(pair, [[5, 9, 77], [3]], Sure(least), **CANVAS))


def test_a_rule_that_holds_a_list_is_served_plainly(pair):
    before = pair[1].engine.refused
    rule = Sure(0.02)
    object.__setattr__(rule, "notes", [])
    same(*both(pair, [[5, 9, 77]], rule, **CANVAS))
    assert pair[1].engine.refused == before + 1


def test_a_head_that_changes_changes_the_rules_that_hold_it():
    head, versions = linear_head(seed=0), Versions()
    rules = [Learned(head), Verified(Learned(head, looks=0), source="reading")]
    before = [identity_of(rule, versions.of) for rule in rules]
    assert before == [identity_of(rule, versions.of) for rule in rules]
    head.readout.weight.data = head.readout.weight.data.clone()
    assert all(one != identity_of(rule, versions.of) for one, rule in zip(before, rules, strict=True))


def test_what_a_hook_keeps_stays_as_it_was(pair):
    kept, copies = [], []

    def step(state, reading):
        kept.append((state, reading))
        copies.append((state.map(torch.clone), reading.map(torch.clone)))

    generate(pair[1], [[5, 9, 77]], "threshold", threshold=0.02, on_step=step, **CANVAS)
    for (state, reading), (was, read) in zip(kept, copies, strict=True):
        assert torch.equal(state.tokens, was.tokens)
        for name in ("rows", "token", "confidence", "top_tokens"):
            assert torch.equal(getattr(reading, name), getattr(read, name)), name
