"""The engine decides as the plain path does: token for token, by every policy, under every cache, in float64."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import models
from decoding import generate, generate_many
from decoding.names import POLICIES
from decoding.policy_by_name import make_policy
from decoding.rounds.engine import EngineDriver, served
from decoding.rounds.round import KEPT
from tests.decoding.policy_settings import random_head, row_of

ROOT = Path(__file__).parents[3]
CACHES = ("none", "prefix", "dual")
HEADLESS = [name for name, policy in POLICIES.items() if not policy.head]
WITH_HEAD = [name for name, policy in POLICIES.items() if policy.head]
LEARNED = [  # under every cache with the first settings of a policy, under the richest with the others
    (name, given, cache)
    for name in WITH_HEAD
    for number, given in enumerate(row_of(name).shipped)
    for cache in (CACHES if number == 0 else CACHES[-1:])
]
PLAIN = ("klass", "saber", "slow-fast", "dawn")
CHECKED = [
    {"rule": "threshold", "threshold": 0.7, "canvases": 2},
    {"rule": "threshold", "threshold": 0.7, "canvases": 4, "mode": "subset"},
    {"rule": "risk-sum", "risk_bound": 0.5, "canvases": 3, "worth": 1.0},
    {"rule": "factor", "factor": 0.5, "canvases": 3, "source": "reading"},
    {"rule": "sequential", "canvases": 4},
    {"rule": "learned", "risk_bound": 0.1, "canvases": 3, "mode": "subset"},
]
FIGURES = ("sequences", "rounds", "sequence_forwards", "token_positions", "explored")


def same(one, two):
    for name in FIGURES:
        assert torch.equal(getattr(one, name), getattr(two, name)), name
    assert one.nfe == two.nfe
    for name in ("committed_round", "reason"):
        assert torch.equal(getattr(one.state, name), getattr(two.state, name)), name
    assert torch.allclose(one.state.committed_confidence, two.state.committed_confidence, rtol=1e-5, atol=1e-7)


def both(pair, prompts, policy, **settings):
    made = []
    for denoiser in pair:
        generator = torch.Generator().manual_seed(3)
        made.append(generate(denoiser, prompts, policy, generator=generator, **settings))
    return made


@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("policy", HEADLESS)
def test_rules_without_a_head(goldens, policy, cache):
    if make_policy(policy, row_of(policy).golden, goldens[0]).needs.shadows and goldens[0].shifted:
        pytest.skip("shadow rows predict in place, and Dream does not")
    prompts = [[5, 9, 77, 3, 8], [1, 2, 3, 4, 5, 6, 7], [4, 4]]
    canvas = {"gen_length": 8, "block_length": 8 if policy == "dream-quota" else 4}  # its canvas is one block
    same(*both(goldens, prompts, policy, **canvas, use_cache=cache, early_stop=False, **row_of(policy).golden))


@pytest.mark.parametrize(("policy", "settings", "cache"), LEARNED)
def test_rules_with_a_head_and_its_cascade(reasons, policy, settings, cache):
    canvas = {"gen_length": 16, "block_length": 8, "use_cache": cache}
    same(*both(reasons, ["15,44,79,50", "2,3,4,24"], policy, **canvas, **settings))


@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("policy", PLAIN)
def test_what_needs_more_than_masks_is_served_plainly(goldens, policy, cache):
    before = goldens[1].engine.refused
    prompts = [[5, 9, 77, 3, 8], [1, 2, 3, 4, 5, 6, 7]]
    same(*both(goldens, prompts, policy, gen_length=16, block_length=8, use_cache=cache, **row_of(policy).golden))
    assert goldens[1].engine.refused == before + 1


@pytest.mark.parametrize(
    ("settings", "cache"),
    [(one, cache) for number, one in enumerate(CHECKED) for cache in (CACHES if number < 2 else CACHES[-1:])],
    ids=lambda one: one if isinstance(one, str) else f"{one['rule']}-{one['canvases']}",
)
def test_checked_drafts(reasons, settings, cache):
    canvas = {"gen_length": 16, "block_length": 8, "use_cache": cache}
    plain, fast = both(reasons, ["15,44,79,50", "2,3,4,24"], "verified", **canvas, **settings)
    same(plain, fast)
    assert reasons[1].engine.fallbacks == 0
    for name in ("looks", "drafts", "drafts_true"):
        assert torch.equal(getattr(plain, name), getattr(fast, name)), name


@pytest.fixture(scope="module")
def headed(goldens):
    """The same with a head and a cascade of weights drawn at random."""
    folder = ROOT / "tests" / "golden" / ("dream" if goldens[0].shifted else "llada")
    made = [models.load(folder, device="cpu", dtype="float64", engine=kind) for kind in ("plain", "graphs")]
    for denoiser in made:
        denoiser.put_on(random_head(denoiser))
    return made


MANY = [
    ("learned", {"risk_bound": 1.0, "share": 5.0}),
    ("learned-ete", {"risk_bound": 0.9}),
    ("verified", {"rule": "threshold", "threshold": 0.012, "canvases": 3, "mode": "subset"}),
]


@pytest.mark.parametrize("cache", ["none", "dual"])
@pytest.mark.parametrize(("policy", "settings"), MANY, ids=[name for name, _ in MANY])
def test_only_rows_that_still_run_are_worked_out(headed, monkeypatch, policy, settings, cache):
    """Prompts take the places of rows that ended until none waits, and the last few run alone."""
    sizes: list[int] = []
    layouts: set[bool] = set()
    own = EngineDriver._worked_out

    def seen(driver, carry, sight):
        sizes.append(len(sight.used))
        layouts.update(one.stride() == torch.empty(one.shape).stride() for one in tensors_of(carry, sight))
        return own(driver, carry, sight)

    monkeypatch.setattr(EngineDriver, "_worked_out", seen)
    prompts = [[3 + (7 * row + place) % 90 for place in range(1 + row % 5)] for row in range(33)]
    canvas = {"block_length": 8, "use_cache": cache, **settings}
    lengths = [8] * 20 + [16] * 7 + [24] * 6
    rows = [
        [a.row.ids for a in generate_many(one, prompts, policy, gen_length=lengths, batch_size=32, **canvas)]
        for one in headed
    ]
    assert rows[0] == rows[1]
    assert set(sizes) == {32, 8}
    assert layouts == {True}  # others would be compiled anew where few rows run


def tensors_of(carry, sight):
    """What a compiled round is given."""
    given = [sight.used, sight.positions, carry.counts, *(getattr(carry.proposal, name) for name in KEPT)]

    def seen(value):
        given.append(value)
        return value

    carry.canvases.map(seen)
    replace(sight.reading, taps=()).map(seen)
    return given


def test_few_rows_are_served_in_quarters_of_the_batch():
    assert [served(64, running) for running in (64, 33, 17, 16, 9, 8, 1)] == [64, 64, 64, 16, 16, 16, 16]
    assert [served(rows, 1) for rows in (1, 8, 31, 32, 33, 200, 500)] == [1, 8, 31, 8, 8, 12, 31]


@pytest.mark.parametrize("cache", CACHES)
def test_a_batch_that_fills_its_columns_has_no_padding(goldens, cache):
    prompts = torch.arange(48).view(1, 48) + 3
    settings = {"gen_length": 16, "block_length": 8, "use_cache": cache, "early_stop": False}
    same(*both(goldens, prompts, "threshold", threshold=0.02, **settings))


def test_buffers_serve_the_next_batch_of_the_same_shape(goldens):
    for first in (5, 40):
        same(*both(goldens, [[first, 9, 77], [3]], "factor", gen_length=16, block_length=8, use_cache="dual"))
    assert len(goldens[1].engine._sessions) <= 4


def test_settings_of_one_call_are_not_those_of_the_next(goldens):
    """The canvas has one shape throughout; what changes is how it is filled."""
    calls = [
        ("ete", {"step_budget": 1, "gamma": 1.0, "block_length": 4}),
        ("ete", {"step_budget": 3, "gamma": 1.0, "block_length": 4}),
        ("ete", {"step_budget": None, "gamma": 1.0, "block_length": 4}),
        ("threshold", {"threshold": 0.02, "block_length": 16}),
        ("threshold", {"threshold": 0.02, "block_length": 4}),
        ("quota", {"steps": 8, "early_stop": False, "block_length": 16}),
        ("quota", {"steps": 8, "block_length": 16}),
        ("quota", {"steps": 8, "eos_id": list(range(3, 120)), "block_length": 16}),
        ("quota", {"steps": 8, "eos_id": 20, "block_length": 16}),
    ]
    for policy, settings in calls:
        same(*both(goldens, [[5, 9, 77], [3, 4, 8]], policy, gen_length=16, **settings))


def test_a_result_stays_when_the_next_is_made(goldens):
    first = both(goldens, [[5, 9, 77]], "threshold", threshold=0.02, gen_length=16, block_length=8)
    both(goldens, [[40, 41, 42]], "sequential", gen_length=16, block_length=8)
    same(*first)


def test_a_decode_within_another_is_served_plainly(goldens):
    plain, fast = goldens
    settings = {"threshold": 0.02, "gen_length": 16, "block_length": 8, "use_cache": "dual"}
    inner = []
    before = fast.engine.fallbacks

    def step(state, reading):
        inner.append(generate(fast, [[3]], "threshold", **settings))

    outer = generate(fast, [[5, 9, 77]], "threshold", on_step=step, **settings)
    same(outer, generate(plain, [[5, 9, 77]], "threshold", **settings))
    same(inner[0], generate(plain, [[3]], "threshold", **settings))
    assert fast.engine.fallbacks == before + len(inner)
    assert not fast.engine.in_use.locked()


def test_an_engine_is_free_again_after_a_decode_that_failed(goldens):
    def fail(state, reading):
        raise KeyError("stop")

    for _ in range(2):
        with pytest.raises(KeyError):
            generate(goldens[1], [[5]], "threshold", gen_length=16, block_length=8, on_step=fail)
    assert not goldens[1].engine.in_use.locked()


@pytest.mark.parametrize("temperature", [0.7, 1.5])
def test_draws_follow_the_same_generator(goldens, temperature):
    settings = {"gen_length": 16, "block_length": 8, "use_cache": "dual", "temperature": temperature}
    same(*both(goldens, [[5, 9, 77, 3], [8]], "threshold", threshold=0.05, **settings))


def test_who_watches_sees_the_same_states(goldens):
    one, two = both(goldens, [[5, 9, 77], [3]], "ete", gamma=1.0, gen_length=16, block_length=8, history=True)
    assert len(one.history) == len(two.history)
    assert all(torch.equal(a.tokens, b.tokens) for a, b in zip(one.history, two.history, strict=True))


def test_who_may_read_the_taps_is_served_plainly_and_counted(reasons):
    before = reasons[1].engine.fallbacks
    same(*both(reasons, ["2,3,4,24"], "learned", gen_length=24, block_length=8, history=True))
    assert reasons[1].engine.fallbacks == before + 1


def test_weights_that_moved_are_read_again():
    plain, fast = (
        models.load(ROOT / "tests" / "golden" / "llada", device="cpu", engine=kind) for kind in ("plain", "graphs")
    )
    settings = {"gen_length": 16, "block_length": 8, "threshold": 0.02}
    same(*both((plain, fast), [[5, 9, 77]], "threshold", **settings))
    same(*both((plain.double(), fast.double()), [[5, 9, 77]], "threshold", **settings))
