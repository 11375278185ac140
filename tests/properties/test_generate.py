"""`generate` under settings drawn at random, sound and unsound: a finished canvas, or one sentence."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import fields
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import models
from decoding.api import generate
from decoding.calls.request import resolve
from decoding.calls.spellings import ALIASES, REMASKING
from decoding.generation import Generation
from decoding.names import POLICIES, find_policy
from tests.decoding.conftest import DENOISERS
from tests.decoding.policy_settings import FORETELLING, HEAD, PAIRS
from tests.properties.contract import JSON, NUMBERS, SCALARS, cases, value_or_sentence

GOLDEN = Path(__file__).parents[1] / "golden"

LENGTHS = st.sampled_from([1, 2, 3, 4, 6, 8, 12, 12, 12, 24])
PROBABILITY = st.floats(0, 1) | st.sampled_from([0.1, 0.5, 0.9, 0.999, 1e-9, 1 - 1e-9])
COUNT = st.integers(0, 40)
SOUND: dict[str, st.SearchStrategy[Any]] = {
    "threshold": PROBABILITY, "factor": st.floats(0, 4), "margin": PROBABILITY, "entropy_bound": st.floats(0, 4),
    "entropy_threshold": st.floats(0, 4), "risk_bound": PROBABILITY, "steps": COUNT, "steps_per_block": COUNT,
    "order": st.sampled_from(["confidence", "margin", "entropy", "random", "left_to_right", "right_to_left"]),
    "remasking": st.sampled_from([*REMASKING]), "rule": st.sampled_from(["each", "sum", "pairs", "confidence", "threshold"]),
    "temperature": st.just(0.0) | st.floats(0, 2), "top_p": st.just(1.0) | PROBABILITY, "looks": st.integers(0, 3),
    "gamma": PROBABILITY, "min_masks": COUNT, "branches": st.integers(1, 6), "step_budget": st.none() | COUNT,
    "candidate_rule": st.sampled_from(["band", "information", "lowest"]), "frontier": st.sampled_from(["feasible", "block"]),
    "alpha": st.floats(0.1, 8), "proposals": st.integers(1, 5), "chain": st.integers(1, 4), "share": PROBABILITY,
    "draft": PROBABILITY, "verify": PROBABILITY, "groups": st.integers(1, 4), "count": COUNT, "keep": PROBABILITY,
    "initial_blocks": st.integers(1, 9), "canvases": st.integers(1, 5), "mode": st.sampled_from(["exact", "subset"]),
    "use_cache": st.sampled_from(["none", "prefix", "dual", True, False, None]), "early_stop": st.booleans(),
    "num_return_sequences": st.integers(1, 3), "logits_eos_inf": st.booleans(), "confidence_eos_eot_inf": st.booleans(),
    "history": st.booleans(), "eos_id": st.none() | st.integers(0, 5) | st.lists(st.integers(0, 4), max_size=2),
}  # fmt: skip
OPTIONS = (
    *("temperature", "top_p", "use_cache", "early_stop", "num_return_sequences", "logits_eos_inf", "history"),
    *("confidence_eos_eot_inf", "eos_id", "mask_id", "steps", "threshold", "remasking", "block_size", "max_new_tokens"),
)
LARGE = st.sampled_from([10**6, 2**31, 2**40, 2**63, 10**30, 1e308, float("inf"), float("nan"), -1, -(2**63)])
HEADS = {"none": None, "plain": HEAD, "pairs": PAIRS, "foretells": FORETELLING}


@cache
def denoiser_of(name: str, head: str) -> Any:
    """A toy with a head of the grid, or without one."""
    denoiser = deepcopy(DENOISERS[name])
    if HEADS[head] is not None:
        denoiser.__dict__["head"] = HEADS[head]  # no part of its weights
    return denoiser


@cache
def settings_of(policy: str) -> tuple[str, ...]:
    """Settings of a policy, and of the call."""
    module, _, kind = find_policy(policy).home.partition(":")
    names = {field.name for field in fields(getattr(import_module(module), kind))} - {"head", "future"}
    return (*sorted(names), *OPTIONS)


@st.composite
def calls(draw: Any, policy: str) -> dict[str, Any]:
    """Keywords of a call: most of them sound, some of any kind."""
    gen_length = draw(LENGTHS)
    divisors = [one for one in range(1, gen_length + 1) if gen_length % one == 0]
    given: dict[str, Any] = {"gen_length": gen_length}
    if draw(st.booleans()):
        given["block_length"] = draw(st.sampled_from(divisors))
    for name in draw(st.lists(st.sampled_from(settings_of(policy)), max_size=4, unique=True)):
        odd = draw(st.integers(0, 24))
        sound = SOUND.get(name, SCALARS)
        given[name] = draw(LARGE if odd == 9 else SCALARS if odd == 8 else JSON if odd == 7 else sound)
    if draw(st.integers(0, 14)) == 0:
        given[draw(st.sampled_from(["gen_length", "block_length", "nosuch", *ALIASES]))] = draw(SCALARS | LARGE)
    return given


def require_finished(made: Generation, denoiser: Any, prompt: torch.Tensor) -> None:
    """A canvas without masks behind the prompt as it was, and counts that are none below one."""
    copies = len(made.sequences) // len(prompt)
    assert torch.equal(made.sequences[:, : prompt.shape[1]], prompt.repeat_interleave(copies, 0))
    canvas = made.sequences[:, prompt.shape[1] :]
    assert bool(((canvas >= 0) & (canvas < denoiser.vocab_size) & (canvas != denoiser.mask_id)).all())
    for name in ("rounds", "sequence_forwards", "token_positions"):
        assert bool((getattr(made, name) >= 1).all()), name
    assert bool(made.state.committed_confidence.isfinite().all())
    assert made.nfe >= int(made.rounds.max())


@pytest.mark.parametrize("policy", POLICIES)
@cases(12)
@given(data=st.data())
def test_a_call_finishes_its_canvas_or_is_refused(policy, data):
    name = data.draw(st.sampled_from(["flat", "sharp", "context"]))
    denoiser = denoiser_of(name, data.draw(st.sampled_from([*HEADS] if POLICIES[policy].head else ["none"])))
    prompt = torch.tensor(
        data.draw(st.lists(st.lists(st.integers(0, 3), min_size=3, max_size=3), min_size=1, max_size=2))
    )
    given = data.draw(calls(policy))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 9)))
    made = value_or_sentence(lambda: generate(denoiser, prompt, policy, generator=generator, **given))
    if made is not None:
        require_finished(made, denoiser, prompt)


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    return {name: models.load(GOLDEN / name, device="cpu") for name in ("llada", "dream")}


@cases(30)
@given(data=st.data())
def test_a_call_on_a_transformer_behind_any_cache_finishes_or_is_refused(golden, data):
    policy = data.draw(st.sampled_from([name for name, one in POLICIES.items() if not one.head]))
    denoiser = golden[data.draw(st.sampled_from(["llada", "dream"]))]
    prompt = torch.tensor([data.draw(st.lists(st.integers(0, 200), min_size=1, max_size=6))])
    given = {"use_cache": data.draw(st.sampled_from(["none", "prefix", "dual"])), **data.draw(calls(policy))}
    made = value_or_sentence(lambda: generate(denoiser, prompt, policy, **given))
    if made is not None:
        require_finished(made, denoiser, prompt)


@cases(60)
@given(
    prompts=JSON
    | st.lists(st.integers(-1, 6), max_size=4)
    | st.lists(st.lists(st.integers(-1, 5), max_size=3), max_size=3),
    mask=st.none() | JSON | st.lists(st.integers(0, 1), max_size=4),
    how=st.sampled_from(["as it is", "tensor", "array"]),
)
def test_prompts_of_any_kind_are_read_or_refused(prompts, mask, how):
    denoiser = DENOISERS["flat"]

    def call() -> Generation:
        given = prompts
        if how != "as it is":
            array = torch.as_tensor(prompts)
            given = array if how == "tensor" else array.numpy()
        return generate(denoiser, given, "threshold", gen_length=4, attention_mask=mask)

    try:
        torch.as_tensor(prompts)
    except (ValueError, TypeError, RuntimeError, OverflowError):
        how = "as it is"
    made = value_or_sentence(call)
    if made is not None:
        assert not bool((made.sequences[:, -4:] == denoiser.mask_id).any())


@cases(60)
@given(
    policy=st.none() | st.sampled_from([*POLICIES]) | SCALARS,
    given=st.dictionaries(
        st.sampled_from([*SOUND, *ALIASES, "gen_length", "block_length", "cfg_scale", "top_k"]), JSON, max_size=5
    ),
    length=LENGTHS | NUMBERS,
)
def test_every_spelling_is_resolved_or_refused(policy, given, length):
    found = value_or_sentence(lambda: resolve(policy, {"gen_length": length} | given))
    if found is not None:
        assert found.gen_length % found.block_length == 0
        assert found.gen_length >= 1
