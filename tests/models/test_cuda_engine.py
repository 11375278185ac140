"""On a GPU: every policy that the engine serves, captured, and what happens to graphs when weights, shapes or memory change."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import models
from decoding import generate, generate_many
from decoding.names import POLICIES
from decoding.policy_by_name import make_policy
from models.engine.graphs import Graphs, compiled
from tests.decoding.policy_settings import random_head, row_of

ROOT = Path(__file__).parents[2]
DEVICE = torch.device("cuda:0")
pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.filterwarnings("default::DeprecationWarning"),  # the compiler of torch 2.11 warns of torch's own
    pytest.mark.filterwarnings("default::UserWarning"),  # and of what it leaves out
]
PROMPTS = [[5, 9, 77, 3, 8], [1, 2, 3, 4, 5, 6, 7], [4, 4]]
CANVAS = {"gen_length": 16, "block_length": 8, "early_stop": False}
HEADED = [
    ("learned", {"risk_bound": 1.0, "share": 5.0}),
    ("learned", {"risk_bound": 0.9, "rule": "confidence"}),
    ("learned", {"risk_bound": 0.9, "rule": "sum", "looks": 0}),
    ("learned-ete", {"risk_bound": 0.9}),
    ("verified", {"rule": "threshold", "threshold": 0.012, "canvases": 3, "mode": "subset"}),
    ("verified", {"rule": "quota", "steps": 4, "canvases": 3, "source": "reading"}),
    ("verified", {"rule": "learned", "canvases": 3}),
]


def loaded(name="llada", device="cuda", dtype="float32", head=False):
    """A golden model plainly and by the engine."""
    folder = ROOT / "tests" / "golden" / name
    made = [models.load(folder, engine=kind, device=device, dtype=dtype) for kind in ("plain", "graphs")]
    for denoiser in made if head else ():
        denoiser.put_on(random_head(denoiser).to(denoiser.device))
    return made


@pytest.fixture(scope="module")
def pair():
    return loaded("llada", head=True)


@pytest.fixture(scope="module")
def shifted():
    return loaded("dream", head=True)


def same(pair, policy, *, prompts=PROMPTS, times=2, **settings):
    """Twice: captured, and replayed."""
    plain, fast = pair
    before = fast.engine.fallbacks
    for _ in range(times):
        ours, theirs = (
            generate(one, prompts, policy, generator=torch.Generator(one.device).manual_seed(3), **CANVAS | settings)
            for one in (fast, plain)
        )
        assert torch.equal(ours.sequences, theirs.sequences)
        assert torch.equal(ours.rounds, theirs.rounds)
        assert torch.equal(ours.state.reason, theirs.state.reason)
    assert fast.engine.fallbacks == before


def test_what_kernels_cannot_read_is_decoded_plainly(caplog):
    narrow = models.load(ROOT / "checkpoints" / "order" / "point-3", device="cuda", engine="graphs")
    _, double = loaded(dtype="float64")
    for denoiser, said in ((narrow, "heads must be 16, 32, 64"), (double, "weights must be bfloat16")):
        caplog.clear()
        prompts = [PROMPTS[0], PROMPTS[2]]  # without id 1, the narrow base's mask
        assert not generate(denoiser, prompts, "threshold", **CANVAS).state.masked.any()
        assert denoiser.engine.fallbacks == 1
        assert any(said in one.getMessage() for one in caplog.records)


class Function:
    """Writes the number of its call into a buffer; keeps what it makes; fails in one call."""

    def __init__(self, failing=None):
        self.made, self.calls, self.failing = [], 0, failing
        self.goal = torch.zeros(1, device=DEVICE)

    def __call__(self):
        self.calls += 1
        if self.calls == self.failing:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.made.append(torch.ones(1 << 20, device=DEVICE))
        self.goal.copy_(self.made[-1][:1] * self.calls)


def test_a_new_pool_follows_one_whose_graphs_are_gone():
    made, one, two = Graphs(DEVICE, capture=True), Function(), Function()
    made.run("one", one)
    made.forget(lambda _: True)
    made.run("two", two)  # what the first made still lies in the memory of its graphs
    assert (one.goal.item(), two.goal.item(), made.captured) == (3, 3, 2)


def test_a_graph_that_the_memory_does_not_hold_is_done_without():
    made, function, other = Graphs(DEVICE, capture=True), Function(failing=3), Function()
    for calls in (4, 5):
        made.run("key", function)
        assert function.goal.item() == calls
    made.run("other", other)
    assert (made.fallbacks, made.captured, other.goal.item()) == (2, 1, 3)
    assert torch.cuda.current_stream(DEVICE) == torch.cuda.default_stream(DEVICE)


def test_what_waits_for_the_host_is_not_captured():
    made, number = Graphs(DEVICE, capture=True), torch.ones(1, device=DEVICE)
    for _ in range(2):
        made.run("key", number.item)
    assert (made.fallbacks, made.captured, torch.cuda.get_sync_debug_mode()) == (2, 0, 0)


def doubled(x, *, times):
    """What is compiled."""
    return 2 * x * times


def test_compiled_programs_take_arguments_by_name():
    assert compiled(doubled, DEVICE)(torch.ones(3, device=DEVICE), times=2).tolist() == [4.0] * 3


@pytest.mark.parametrize("policy", [name for name, one in POLICIES.items() if not one.head])
def test_rules_without_a_head(pair, policy):
    if make_policy(policy, row_of(policy).golden, pair[0]).needs.plain:
        pytest.skip("is served plainly")
    block = 16 if policy == "dream-quota" else 8
    same(pair, policy, use_cache="dual", block_length=block, **row_of(policy).golden)


@pytest.mark.parametrize(("policy", "settings"), HEADED, ids=[f"{name}-{n}" for n, (name, _) in enumerate(HEADED)])
def test_rules_with_a_head_and_its_cascade(pair, shifted, policy, settings):
    same(pair, policy, use_cache="dual", **settings)
    same(shifted, policy, use_cache="none", **settings)


def test_only_rows_that_still_run_are_worked_out(pair):
    prompts = [[3 + (7 * row + place) % 90 for place in range(1 + row % 5)] for row in range(33)]
    lengths = [8] * 20 + [16] * 7 + [24] * 6
    settings = {"risk_bound": 1.0, "share": 5.0, "block_length": 8, "use_cache": "dual", "batch_size": 32}
    rows = [
        [answer.row.ids for answer in generate_many(one, prompts, "learned", gen_length=lengths, **settings)]
        for one in pair
    ]
    assert rows[0] == rows[1]


@pytest.mark.parametrize(("policy", "settings"), [("threshold", {"threshold": 0.02}), ("learned", {"risk_bound": 0.9})])
def test_draws_follow_the_same_generator(pair, policy, settings):
    same(pair, policy, use_cache="dual", temperature=0.7, **settings)


def test_who_watches_sees_the_same_states(pair):
    one, two = (generate(each, PROMPTS, "ete", gamma=1.0, history=True, **CANVAS) for each in pair)
    assert len(one.history) == len(two.history)
    assert all(torch.equal(a.tokens, b.tokens) for a, b in zip(one.history, two.history, strict=True))


def test_many_forbidden_tokens_are_captured(pair):
    settings = {"threshold": 0.02, "early_stop": True, "logits_eos_inf": True, "eos_id": [20, 21, 22]}
    same(pair, "threshold", **settings)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("policy", ["threshold", "learned", "verified"])
def test_half_precision_is_served_to_the_end(policy, dtype):
    settings = {"rule": "threshold", "threshold": 0.012, "canvases": 3} if policy == "verified" else {}
    _, fast = loaded(dtype=dtype, head=True)
    made = [generate(fast, PROMPTS, policy, **CANVAS, **settings) for _ in range(2)]
    assert not made[0].state.masked.any()
    assert torch.equal(made[0].sequences, made[1].sequences)
    assert fast.engine.fallbacks == 0


def test_graphs_of_weights_that_changed_are_not_replayed():
    plain, fast = loaded()
    same((plain, fast), "threshold", threshold=0.02, use_cache="dual")
    for denoiser in (plain, fast):
        with torch.no_grad():
            denoiser.lm_head.weight.copy_(denoiser.lm_head.weight.roll(1, 0))
    same((plain, fast), "threshold", threshold=0.02, use_cache="dual")
    same((plain.half().float(), fast.half().float()), "threshold", threshold=0.02, use_cache="dual")
    same((plain.cpu(), fast.cpu()), "threshold", times=1, threshold=0.02, use_cache="dual")
    same((plain.cuda(), fast.cuda()), "threshold", threshold=0.02, use_cache="dual")


def test_more_shapes_than_are_kept(pair):
    for _ in range(2):
        for count in range(1, 7):
            same(pair, "threshold", prompts=PROMPTS[:1] * count, threshold=0.02, use_cache="dual", times=1)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
@pytest.mark.parametrize("temperature", [0.0, 0.7])
@pytest.mark.parametrize(("policy", "settings"), [("threshold", {"threshold": 0.02}), ("learned", {"risk_bound": 0.9})])
def test_a_device_that_is_not_the_current_one(policy, settings, temperature):
    first, second = loaded(device="cuda:0", head=True), loaded(device="cuda:1", head=True)
    for pair in (second, first, second):  # models on both in turn
        same(pair, policy, use_cache="dual", temperature=temperature, **settings)
    assert torch.cuda.current_device() == 0


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_a_generator_of_another_device_is_refused():
    _, fast = loaded(device="cuda:1")
    with pytest.raises(ValueError, match="generator must live on the model's device cuda:1, got cuda:0"):
        generate(fast, PROMPTS, "threshold", generator=torch.Generator(DEVICE), temperature=0.7, **CANVAS)
