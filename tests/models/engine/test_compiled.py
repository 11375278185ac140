"""Tensor programs that a compiler fails on run as they are, and all of the engine's can be called compiled."""

from __future__ import annotations

import importlib
import logging
from pathlib import Path

import pytest
import torch
from torch._dynamo.exc import BackendCompilerFailed

import models
from decoding import generate
from models.engine import graphs
from models.engine.graphs import or_itself
from models.engine.kernels import is_short
from tests.decoding.policy_settings import random_head

pytestmark = pytest.mark.filterwarnings("default::DeprecationWarning")  # the compiler warns of torch's own


def failing(seen):
    """A compiler that fails on every program, and notes that it was asked."""

    def compiler(module, inputs):
        seen.append(len(inputs))
        raise AssertionError("sizes differ")

    return compiler


def doubled(x):
    """What is compiled."""
    return 2 * x


def test_a_program_that_the_compiler_fails_on_runs_as_it_is(caplog):
    seen = []
    fast = torch.compile(doubled, backend=failing(seen))
    with pytest.raises(BackendCompilerFailed):
        fast(torch.ones(2))
    seen.clear()
    call = or_itself(fast, doubled)
    with caplog.at_level(logging.WARNING, "models.engine.graphs"):
        for size in (2, 2, 3):
            assert call(torch.ones(size)).tolist() == [2.0] * size
    assert len(seen) == 1  # a compilation takes long: it is not tried again
    assert [one.getMessage() for one in caplog.records if one.name == "models.engine.graphs"] == [
        "engine: doubled runs uncompiled, the compiler failed: AssertionError('sizes differ')"
    ]


def test_other_types_are_compiled_all_the_same():
    asked = []

    def fast(x):
        asked.append(type(x))
        if isinstance(x, float):
            raise BackendCompilerFailed(failing, AssertionError("sizes differ"), None)
        return doubled(x)

    call = or_itself(fast, doubled)
    assert [call(x) for x in (1.5, 2, 1.5, 3)] == [3.0, 4, 3.0, 6]
    assert asked == [float, int, int]


def test_an_error_of_the_program_itself_is_raised():
    def broken(x):
        raise ValueError("x must be positive")

    with pytest.raises(ValueError, match="x must be positive"):
        or_itself(broken, doubled)(1)


def test_arguments_by_name_reach_the_compiled_function_and_the_function_itself():
    """Two programs that differ in the type of a named argument alone are told apart."""
    asked = []

    def fast(x, *, times):
        asked.append(type(times))
        if isinstance(times, float):
            raise BackendCompilerFailed(failing, AssertionError("sizes differ"), None)
        return times * x

    call = or_itself(fast, lambda x, *, times: times * x)
    assert [call(3, times=times) for times in (0.5, 2, 0.5)] == [1.5, 6, 1.5]
    assert asked == [float, int]


ROOT = Path(__file__).parents[3]
PROGRAMS = [
    ("threshold", {"threshold": 0.02, "use_cache": "dual"}),
    ("learned", {"risk_bound": 1.0, "use_cache": "dual"}),
    ("learned-ete", {"risk_bound": 0.9, "use_cache": "none"}),
    ("verified", {"rule": "threshold", "threshold": 0.012, "canvases": 3, "mode": "subset", "use_cache": "prefix"}),
]


@pytest.mark.parametrize(("policy", "settings"), PROGRAMS, ids=[name for name, _ in PROGRAMS])
def test_the_engine_calls_its_programs_as_compiled_ones_are_called(monkeypatch, policy, settings):
    """On a CPU nothing is compiled, so that a test of the engine there does not see how programs are called."""
    plain, fast = (
        models.load(ROOT / "tests" / "golden" / "llada", device="cpu", dtype="float64", engine=kind)
        for kind in ("plain", "graphs")
    )
    for denoiser in (plain, fast):
        denoiser.put_on(random_head(denoiser))
    made: list[str] = []

    def compiler(function, *, dynamic, options):
        made.append(function.__name__)
        return torch._dynamo.disable(function)

    monkeypatch.setattr(graphs, "COMPILES", ("cpu", "cuda"))
    monkeypatch.setattr(graphs, "_COMPILED", {})
    monkeypatch.setattr(torch, "compile", compiler)
    canvas = {"gen_length": 16, "block_length": 8, **settings}
    ours, theirs = (generate(one, [[5, 9, 77], [3, 4, 8]], policy, **canvas) for one in (fast, plain))
    assert torch.equal(ours.sequences, theirs.sequences)
    assert {"make_plan", "entered", "asked"} <= set(made)


COMPILED = [
    *("decoding.commit", "decoding.features", "decoding.policy", "decoding.reading", "decoding.state"),
    *("decoding.rounds.desk", "decoding.rounds.engine", "decoding.rounds.round"),
    *(f"decoding.policies.{file.stem}" for file in sorted((ROOT / "decoding" / "policies").glob("[a-z]*.py"))),
    *(f"models.engine.{name}" for name in ("figures", "plan", "rows", "stream", "window")),
    *(f"models.heads.{name}" for name in ("cascade", "conflict_output", "foretelling", "scoring_head", "side_stream")),
    *("models.heads.window_scores", "decoding.policies.field.frechet"),
]


@pytest.mark.parametrize("name", COMPILED)
def test_what_is_compiled_reads_no_float_of_its_module(name):
    """A compiler takes it for a number that may change, finds that it decides something, and traces the whole program again."""
    module = importlib.import_module(name)
    assert [one for one, value in vars(module).items() if isinstance(value, float)] == []


@pytest.mark.parametrize(
    ("dtype", "canvases", "heads", "rows", "short"),
    [
        (torch.bfloat16, 64, 8, 192, True),
        (torch.bfloat16, 4, 8, 256, True),
        (torch.bfloat16, 64, 8, 256, False),
        (torch.bfloat16, 1, 4, 320, False),
        (torch.bfloat16, 8192, 8, 64, False),
        (torch.float32, 4, 4, 128, True),
        (torch.float32, 4, 4, 192, False),
        (torch.float32, 1, 4, 320, False),
    ],
)
def test_short_canvases_are_attended_by_one_kernel(dtype, canvases, heads, rows, short):
    assert is_short(torch.empty(canvases, heads, rows, 16, dtype=dtype)) is short
