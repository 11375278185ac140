"""What `generate` refuses, in one sentence, and the spellings of the field that it takes."""

from inspect import unwrap

import pytest
import torch

from decoding import generate
from decoding.calls.request import resolve
from decoding.calls.spellings import ALIASES, REMASKING
from decoding.names import POLICIES
from decoding.policies.quota import Quota, Sequential
from decoding.policies.threshold import Threshold
from models.toys.toy import TableDenoiser
from tests.decoding.letters import CANVAS


@pytest.mark.parametrize(
    ("given", "policy"),
    [
        ({}, "learned"),
        ({"gamma": 0.4, "threshold": 0.8}, "learned"),
        ({"threshold": 0.8}, "threshold"),
        ({"confidence_threshold": 0.8, "steps": 12}, "threshold"),
        ({"threshold": 0.8, "factor": 1.0}, "factor"),
        ({"threshold": None, "factor": None, "steps": 6}, "quota"),
        ({"eb_threshold": 0.1}, "entropy-bound"),
        ({"remasking": "random"}, "quota"),
        ({"remasking": "random", "steps": 6, "temperature": 1.0}, "quota"),
        ({"alg": "entropy", "steps": 6, "block_length": 12}, "dream-quota"),
        ({"alg": "entropy_threshold", "entropy_threshold": 0.4}, "entropy"),
        ({"remasking_strategy": "low_confidence_dynamic", "denoising_steps": 4}, "threshold"),
        ({"remasking_strategy": "entropy_bounded"}, "entropy-bound"),
    ],
)
def test_settings_of_the_field_name_the_rule(given, policy):
    assert resolve(None, {**CANVAS, **given}).policy == policy


@pytest.mark.parametrize(("value", "meaning"), REMASKING.items())
def test_every_remasking_makes_a_policy(model, value, meaning):
    policy = generate(model, "ab", remasking=value, gen_length=12).policy
    assert type(policy).__name__ == POLICIES[meaning[0]].home.partition(":")[2]
    assert getattr(policy, "order", None) == meaning[1]


def test_steps_are_the_total_and_denoising_steps_are_per_block(model):
    assert generate(model, "ab", steps=6, **CANVAS).policy == Quota(steps=6)
    assert generate(model, "ab", denoising_steps=2, **CANVAS).policy == Quota(steps=6)
    assert generate(model, "ab", "quota", **CANVAS).policy == Quota(steps=12)
    assert generate(model, "ab", "sequential", remasking="topk_margin", **CANVAS).policy == Sequential("margin")
    assert generate(model, "ab", steps=6, early_stop=False, **CANVAS).nfe == 6


def test_the_call_of_fast_dllm_runs_as_it_stands(model):
    prompt = torch.tensor([[0, 1]])
    x, nfe = generate(
        model, prompt, steps=12, gen_length=12, block_length=4, temperature=0.0, remasking="low_confidence", mask_id=6,
        threshold=0.5, factor=None, cfg_scale=0.0, use_cache="none",
    )  # fmt: skip
    ours = generate(model, prompt, Threshold(0.5), **CANVAS)
    assert torch.equal(x, ours.sequences)
    assert nfe == ours.nfe


@pytest.mark.parametrize("spelling", [s for s, ours in ALIASES.items() if ours in ("gen_length", "block_length")])
def test_lengths_go_by_all_their_names(spelling):
    ours = ALIASES[spelling]
    rest = {name: value for name, value in CANVAS.items() if name != ours}
    assert resolve("threshold", {**rest, spelling: CANVAS[ours]}).gen_length == 12
    with pytest.raises(ValueError, match=f"{ours} and {spelling} must agree, got {CANVAS[ours]} and 6"):
        resolve("threshold", {**CANVAS, spelling: 6})


def test_dream_opens_the_whole_canvas():
    assert resolve(None, {"max_new_tokens": 64, "alg": "maskgit_plus"}).block_length == 64


@pytest.mark.parametrize(("gen_length", "block_length"), [(64, 32), (32, 32), (48, 48), (81, 81), (7, 7)])
def test_default_block(gen_length, block_length):
    assert resolve("threshold", {"gen_length": gen_length}).block_length == block_length


@pytest.mark.parametrize(
    ("policy", "given", "message"),
    [
        ("thresold", {}, "policy must be one of sequential, .*, got 'thresold'"),
        (None, {"gen_length": None}, "gen_length must be a whole number of at least 1, got None"),
        (None, {"gen_length": 0}, "gen_length must be a whole number of at least 1, got 0"),
        (None, {"gen_length": True}, "gen_length must be a whole number of at least 1, got True"),
        (None, {"block_length": 5}, r"gen_length must be a multiple of block_length \(5\), got 12"),
        ("threshold", {"threshold": 0}, r"threshold must lie in \(0, 1\], got 0"),
        ("threshold", {"threshold": 1.01}, r"threshold must lie in \(0, 1\], got 1.01"),
        ("threshold", {"threshold": "0.9"}, r"threshold must lie in \(0, 1\], got '0.9'"),
        ("factor", {"factor": 0}, "factor must be above 0, got 0"),
        ("threshold", {"temperature": -0.1}, "temperature must be at least 0, got -0.1"),
        ("threshold", {"top_p": 0.9}, "top_p must be 1 at temperature 0, where no candidate is drawn, got 0.9"),
        ("threshold", {"top_p": 0.0}, r"top_p must lie in \(0, 1\], got 0.0"),
        ("quota", {"steps": 7}, r"steps must be a multiple of the number of blocks \(3\), got 7"),
        ("quota", {"steps": 6, "denoising_steps": 3}, r"steps must be steps_per_block times .* \(9\), got 6"),
        ("dream-quota", {"steps": 6}, r"block_length must be gen_length \(12\) with policy dream-quota, got 4"),
        ("factor", {"factor": float("nan")}, "factor must be above 0, got nan"),
        ("ete", {"steps": 6}, "steps must be left out with policy ete, got 6"),
        ("threshold", {"entropy_bound": 0.1}, "entropy_bound must be left out with policy threshold, got 0.1"),
        ("threshold", {"remasking": "random"}, "remasking random must go with policy quota, got policy threshold"),
        ("factor", {"remasking": "low_confidence_dynamic"}, "must go with policy threshold, got policy factor"),
        ("quota", {"remasking": "random", "order": "margin"}, "order must be random with remasking random, got 'margin'"),
        ("quota", {"remasking": "best"}, "remasking must be one of low_confidence, .*, got 'best'"),
        (None, {"threshold": 0.5, "alg": "entropy_threshold"}, "entropy_threshold must go with policy entropy, got policy"),
        (None, {"cfg_scale": 1.5}, "cfg_scale must be 0 because .* guidance .*, got 1.5"),
        (None, {"editing_threshold": 0.9}, "editing_threshold must be None because committed tokens .*, got 0.9"),
        (None, {"use_cache": "paged"}, "use_cache must be none, prefix or dual, got 'paged'"),
        (None, {"use_cache": "prefix", "dual_cache": True}, "use_cache must be 'dual' with dual_cache, got 'prefix'"),
        (None, {"dual_cache": "false"}, "dual_cache must be true or false, got 'false'"),
        (None, {"dual_cache": 1}, "dual_cache must be true or false, got 1"),
        (Threshold(), {"threshold": 0.5}, "settings must be left out with a policy object, got threshold"),
    ],
)  # fmt: skip
def test_contradictions_are_refused_with_name_rule_and_value(policy, given, message):
    with pytest.raises(ValueError, match=message):
        resolve(policy, {**CANVAS, **given})


@pytest.mark.parametrize(
    ("policy", "settings", "message"),
    [
        ("threshold", {"factor": 1.0}, "settings of policy threshold must be among threshold, got factor"),
        ("threshold", {"colour": 1}, "settings of policy threshold must be among threshold, got colour"),
        ("random", {"order": "margin"}, "settings of policy random must be left out, got order"),
        ("learned", {"head": 1}, "settings of policy learned must be among .*, got head"),
        (
            "imh",
            {"temperature": 0.7},
            "temperature must be left out with policy .*, which draws from p.alpha itself, got 0.7",
        ),
        ("threshold", {"use_cache": "prefix"}, "use_cache must be none with a Letters, got 'prefix'"),
        ("threshold", {"tokenizer": 1}, "tokenizer must come with a loaded LLaDA or Dream model, got a Letters"),
        ("threshold", {"mask_id": 5}, "mask_id must be the model's 6, got 5"),
        ("threshold", {"eos_id": 7}, r"eos_id must lie in \[0, 7\), got 7"),
        (
            "threshold",
            {"gen_length": 28, "block_length": 28},
            r"gen_length must be at most the model's 30, got 3 \+ 28",
        ),
        ("threshold", {"attention_mask": torch.tensor([1, 1, 0])}, "attention_mask must pad on the left"),
        ("threshold", {"attention_mask": torch.tensor([0, 1, 7])}, "attention_mask must hold 0 and 1 alone, got 7"),
        ("threshold", {"attention_mask": [1.0, 1.0, float("nan")]}, "attention_mask must hold 0 and 1 alone, got nan"),
        ("threshold", {"attention_mask": [0.0, 1e-9, 1.0]}, "attention_mask must hold 0 and 1 alone, got 9.99"),
        (
            "threshold",
            {"attention_mask": [-float("inf"), 0.0, 0.0]},
            "attention_mask must hold 0 and 1 alone, got -inf",
        ),
        ("threshold", {"attention_mask": torch.tensor([1, 1])}, r"must have the shape of the prompts, got \(2,\)"),
        ("threshold", {"attention_mask": torch.tensor([0, 0, 0])}, "every prompt must hold at least one token"),
    ],
)
def test_calls_that_do_not_fit_the_model_are_refused(model, policy, settings, message):
    with pytest.raises(ValueError, match=message):
        generate(model, torch.tensor([0, 1, 2]), policy, **{**CANVAS, **settings})


def test_the_longest_prompt_that_fits_is_taken(model):
    assert generate(model, "abc", "threshold", gen_length=27).sequences.shape == (1, 30)


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ([[0], []], "every prompt must hold at least one token"),
        (torch.zeros(0, dtype=torch.long), "every prompt must hold at least one token"),
        (torch.zeros(0, 3, dtype=torch.long), "every prompt must hold at least one token"),
        ([[0, 1], [2, 6]], "prompts must not hold the mask token, got id 6 at column 1 of prompt 1"),
        ([[0, 7]], "prompts must hold ids from 0 to 6, got id 7 at column 1 of prompt 0"),
        ([[0, -1]], "prompts must hold ids from 0 to 6, got id -1"),
        (torch.zeros(2), "prompts must be whole-number ids"),
        (torch.zeros(1, 1, 1, dtype=torch.long), "prompts must be whole-number ids"),
        ([], r"prompts must be ids, a string or a list of either, got \[\]"),
        ([0, "a"], "prompts must be ids, a string or a list of either, got a list with 0"),
        (None, "prompts must be ids, a string or a list of either, got None"),
    ],
)
def test_prompts_that_cannot_be_read_are_refused(model, prompts, message):
    with pytest.raises(ValueError, match=message):
        generate(model, prompts, "threshold", **CANVAS)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"generator": 0}, "generator must be a torch.Generator, got 0"),
        ({"on_step": "x"}, "on_step must be a function of state and reading, got 'x'"),
    ],
)
def test_what_is_no_generator_and_no_hook_is_refused(model, given, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        unwrap(generate)(model, "ab", "threshold", **CANVAS, **given)


def test_what_is_no_model_is_refused():
    with pytest.raises(ValueError, match="model must be a Denoiser, a folder or hub id, or a loaded model, got int"):
        generate(3, "ab", "threshold", **CANVAS)


def test_strings_need_a_model_with_a_tokenizer(model):
    bare = TableDenoiser(torch.zeros(40, 7), mask_id=6)
    with pytest.raises(ValueError, match="prompts must be token ids for a model without a tokenizer, got 'ab'"):
        generate(bare, "ab", "threshold", **CANVAS)
    with pytest.raises(ValueError, match="text needs a model with a tokenizer"):
        _ = generate(bare, [0, 1], "threshold", **CANVAS).text


def test_the_old_name_of_a_setting_is_read(model):
    assert resolve("learned", {**CANVAS, "turns": 1}).settings == {"looks": 1}
