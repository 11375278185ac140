"""The field's spellings of every setting, and what of them this project takes otherwise, ignores or refuses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ALIASES: Mapping[str, str] = {
    "turns": "looks",
    "max_new_tokens": "gen_length",
    "max_tokens": "gen_length",
    "gen_len": "gen_length",
    "block_size": "block_length",
    "canvas_length": "block_length",
    "dllm_block_length": "block_length",
    "diffusion_steps": "steps",
    "denoising_steps": "steps_per_block",
    "confidence_threshold": "threshold",
    "dynamic_threshold": "threshold",
    "dllm_confidence_threshold": "threshold",
    "accept_thres": "threshold",
    "eb_threshold": "entropy_bound",
    "remasking_strategy": "remasking",
    "alg": "remasking",
    "mask_token_id": "mask_id",
    "eos_token_id": "eos_id",
    "eos_early_stop": "early_stop",
    "output_history": "history",
    "cache": "use_cache",
}
"""The field's spelling -> ours."""

REMASKING: Mapping[str, tuple[str, str | None]] = {
    "low_confidence": ("quota", "confidence"),  # LLaDA
    "random": ("quota", "random"),
    "low_confidence_static": ("quota", "confidence"),  # SDAR
    "low_confidence_dynamic": ("threshold", None),
    "entropy_bounded": ("entropy-bound", None),
    "sequential": ("quota", "left_to_right"),
    "maskgit_plus": ("dream-quota", "confidence"),  # Dream
    "topk_margin": ("dream-quota", "margin"),
    "entropy": ("dream-quota", "entropy"),
    "origin": ("dream-quota", "random"),
    "confidence_threshold": ("threshold", None),
    "entropy_threshold": ("entropy", None),
}
"""Value of `remasking` -> the policy it means, and the order of a policy that has one."""

ORDERED = ("sequential", "quota", "dream-quota")
"""Policies with an order."""

RULES: Mapping[str, str] = {
    "factor": "factor",
    "threshold": "threshold",
    "entropy_bound": "entropy-bound",
    "entropy_threshold": "entropy",
    "margin": "margin",
    "remasking": "quota",  # unless REMASKING says otherwise
    "steps": "quota",
    "steps_per_block": "quota",
}
"""The policy that a setting means where no policy is named; the first that is given decides, as in Fast-dLLM."""

IGNORED: Mapping[str, frozenset[str]] = {
    "threshold": frozenset({"steps", "steps_per_block"}),
    "factor": frozenset({"steps", "steps_per_block", "threshold"}),
    "entropy-bound": frozenset({"steps", "steps_per_block"}),
}
"""Settings that the field passes along with a rule and that the rule then ignores."""

WITHOUT_EFFECT: Mapping[str, tuple[tuple[Any, ...], str]] = {
    "cfg_scale": ((0, None), "there is no classifier-free guidance here"),
    "alg_temp": ((None, 0), "the order of positions is not sampled here, apart from remasking random"),
    "top_k": ((None, 0, -1), "candidates are limited by top_p here"),
    "editing_threshold": ((None,), "committed tokens are never edited here"),
    "edit_threshold": ((None,), "committed tokens are never edited here"),
    "max_post_steps": ((None, 0), "committed tokens are never edited here"),
    "return_dict_in_generate": ((True, None), "the result is always an object"),
    "generation_tokens_hook_func": ((None,), "a hook only reads here: pass it as on_step"),
}
"""Settings of other decoders that are accepted only at values that change nothing, and why."""

CACHES: Mapping[Any, str] = {None: "none", False: "none", "": "none", "none": "none", True: "prefix"} | {
    name: name for name in ("prefix", "dual")
}
