"""`generate`: one call from prompts to text, for every model, policy and spelling."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import torch

from decoding.comparison.calibration import require_calibrated, resolve_calibrated
from decoding.generation import Generation
from decoding.loop import OnStep, decode
from decoding.names import Request
from decoding.policy import Policy
from decoding.policy_by_name import by_default
from decoding.policy_by_name import make_policy as make_policy
from decoding.prompts import read_prompts
from decoding.reading import Reading, Sampling
from decoding.state import DecodeState, start
from decoding.streaming import Stream
from models.denoiser import Denoiser


def generate(
    model: Any,
    prompts: Any,
    policy: Policy | str | None = None,
    *,
    gen_length: int | None = None,
    block_length: int | None = None,
    attention_mask: Any = None,
    generator: torch.Generator | None = None,
    on_step: OnStep | None = None,
    temperature: float = 0.0,
    top_p: float = 1.0,
    early_stop: bool = True,
    history: bool = False,
    num_return_sequences: int = 1,
    streamer: Any = None,
    calibrated: str | Path | None = None,
    **settings: Any,
) -> Generation:
    """Fill a canvas after every prompt: `x, nfe = generate(model, "2,3,4,24", "ete", gen_length=24, block_length=8)`.

    Args:
        model: a Denoiser, a folder or hub id (loaded once and kept), or a loaded LLaDA or Dream model.
        prompts: token ids [P] or [B, P] (tensor or NumPy array), a list of id lists, a string, a list of strings, a chat (a list of
            messages `{"role": ..., "content": ...}`), or a list of chats.
        policy: a policy, a name of `decoding.names.POLICIES` or `package.module:Class`, whose settings may follow as keywords.
            By default the rule that the settings mean in the field (`factor`, `threshold`, `steps`, `remasking`, ... in this
            order), else as the head decodes by default (`learned` where it does not say).
        gen_length: positions to generate, EOS included.
        block_length: must divide gen_length; by default 32 where it does, else gen_length.
        attention_mask: 0 on the left padding of token ids; a tensor, an array or lists.
        generator: source of randomness, on the model's device.
        on_step: called with state and reading before every commit; only reads.
        temperature: 0 takes the most likely token.
        top_p: nucleus of the draw, in (0, 1].
        early_stop: fill a row with EOS once everything before a committed EOS is committed; not counted as work.
        history: keep the state of every round.
        num_return_sequences: answers to each prompt, at least 1; those of one prompt are neighbouring rows.
        streamer: for one row, an object of transformers' interface: `put` gets the prompt, then the tokens before which
            everything is committed; `put_draft`, where it has one, the rest of the canvas as it would be filled now.
        calibrated: file of `calibrate.py`, which sets what is left out and refuses a decoder that it was not made for.
        settings: of the policy, `use_cache` (none, prefix or dual), `mask_id`, `eos_id` (one or several), `tokenizer` (of a loaded
            model), `chat`, `logits_eos_inf`, `confidence_eos_eot_inf`, and the field's other spellings (`decoding.names.ALIASES`).

    Returns:
        Sequences, text, counts per row, and the final state.

    Raises:
        ValueError: for contradictions and values out of range, in one sentence with name, rule and value.
    """
    given: dict[str, Any] = {"gen_length": gen_length, "block_length": block_length, "temperature": temperature}
    given |= {"top_p": top_p} | ({} if early_stop else {"early_stop": False}) | ({"history": True} if history else {})
    request = resolve_calibrated(calibrated, policy, given | settings)
    denoiser = with_cache(as_denoiser(model, request.options), request.options.get("use_cache", "none"))
    if policy is None and calibrated is None:
        request = by_default(request, denoiser)
    rule = make_policy(request.policy, request.settings, denoiser)
    prompt = read_prompts(
        prompts, attention_mask, denoiser, chat=request.options.get("chat"), copies=num_return_sequences
    )
    end_ids = check_fit(request, denoiser, prompt_length=prompt.tokens.shape[1], generator=generator)
    require_calibrated(calibrated, denoiser, rule, request, end_ids)
    batch = prompt.with_canvas(request.gen_length)
    state = start(
        batch.tokens,
        gen_length=request.gen_length,
        block_length=request.block_length,
        mask_id=denoiser.mask_id,
        eos_id=end_ids if request.options.get("early_stop", True) else None,
        step_budget=rule.step_budget,
        initial_blocks=rule.initial_blocks,
        cached=getattr(denoiser, "cache", None) is not None,
    )
    seen: list[DecodeState] = []
    keep = bool(request.options.get("history", False))
    stream = None if streamer is None else Stream.open(streamer, state, end_ids=end_ids, whole=rule.takes_back)
    hooks = (seen_by(seen) if keep else None, None if stream is None else stream.step, on_step)
    began = _now(denoiser.device)
    final, counts = decode(
        denoiser,
        state,
        rule,
        attention_mask=batch.attention_mask,
        sampling=make_sampling(request, denoiser, end_ids, rule),
        generator=generator,
        on_step=together([hook for hook in hooks if hook is not None]),
    )
    seconds = _now(denoiser.device) - began
    if stream is not None:
        stream.close(final)
    return Generation(
        sequences=final.tokens,
        rounds=counts.rounds,
        sequence_forwards=counts.sequence_forwards,
        token_positions=counts.token_positions,
        explored=counts.explored,
        nfe=counts.nfe,
        seconds=seconds,
        state=final,
        policy=rule,
        history=(*seen, final) if keep else (),
        tokenizer=denoiser.tokenizer,
        eos_id=end_ids[0] if end_ids else None,
        end_ids=end_ids,
    )


def as_denoiser(model: Any, options: Mapping[str, Any]) -> Denoiser:
    """A Denoiser as it is, a folder or hub id loaded (once), a loaded model wrapped with the tokenizer and ids that are given."""
    of_model = {name: options[name] for name in ("tokenizer", "mask_id", "eos_id") if name in options}
    loaded = isinstance(model, Denoiser | str | Path)
    if "tokenizer" in of_model and loaded:
        raise ValueError(f"tokenizer must come with a loaded LLaDA or Dream model, got a {type(model).__name__}")
    if isinstance(model, Denoiser):
        return model
    if isinstance(model, str | Path):
        return _load(str(model))
    if not hasattr(model, "config"):
        raise ValueError(f"model must be a Denoiser, a folder or hub id, or a loaded model, got {type(model).__name__}")
    return cast(Denoiser, import_module("models").wrap(model, **of_model))


@lru_cache(maxsize=2)
def _load(path_or_hub_id: str) -> Denoiser:
    return cast(Denoiser, import_module("models").load(path_or_hub_id))


def with_cache(denoiser: Denoiser, mode: str) -> Denoiser:
    """The denoiser behind an empty block cache: `none`, `prefix` or `dual`."""
    if mode == "none":
        return denoiser
    if not hasattr(denoiser, "with_cache"):
        raise ValueError(f"use_cache must be none with a {type(denoiser).__name__}, got {mode!r}")
    return cast(Denoiser, cast(Any, denoiser).with_cache(mode))


def check_fit(
    request: Request, denoiser: Denoiser, *, prompt_length: int, generator: torch.Generator | None
) -> tuple[int, ...]:
    """Refuse lengths, ids and a generator that do not fit the model; the ids that end an answer, given or the model's.

    Args:
        request: lengths and options of the call.
        denoiser: the model.
        prompt_length: longest prompt of the batch, in tokens.
        generator: of the draws, on the model's device; None without draws.

    Raises:
        ValueError: in one sentence, for what does not fit.
    """
    if prompt_length + request.gen_length > denoiser.max_length:
        longest = f"{prompt_length} + {request.gen_length}"
        raise ValueError(f"prompt + gen_length must be at most the model's {denoiser.max_length}, got {longest}")
    if generator is not None and generator.device.type != denoiser.device.type:
        raise ValueError(f"generator must live on the model's device {denoiser.device}, got {generator.device}")
    mask_id = request.options.get("mask_id", denoiser.mask_id)
    if mask_id != denoiser.mask_id:
        raise ValueError(f"mask_id must be the model's {denoiser.mask_id}, got {mask_id!r}")
    given = request.options.get("eos_id")
    if given is None:
        return denoiser.end_ids
    ids = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given]
    for one in ids:
        if not isinstance(one, int) or isinstance(one, bool) or not 0 <= one < denoiser.vocab_size:
            raise ValueError(f"eos_id must lie in [0, {denoiser.vocab_size}), got {one!r}")
    turn = [one for one in [denoiser.end_of_turn_id] if one is not None]
    return tuple(dict.fromkeys([*ids, *turn])) if ids else denoiser.end_ids


def make_sampling(request: Request, denoiser: Denoiser, end_ids: tuple[int, ...], rule: Policy) -> Sampling:
    """Temperature and nucleus, the ids that are never a candidate or never confident, and what the policy wants drawn.

    Args:
        request: of the call.
        denoiser: the model.
        end_ids: the ids that end an answer, EOS first.
        rule: the policy, which says what it wants drawn.

    Raises:
        ValueError: for options that contradict the policy.
    """
    options = request.options
    # what changes nothing beside draws from p^power
    for name, harmless in (("temperature", (0.0, 1 / rule.needs.power)), ("top_p", (1.0,))):
        if rule.needs.draws and options.get(name, harmless[0]) not in harmless:
            raise ValueError(
                f"{name} must be left out with policy {request.policy}, which draws from p^alpha itself, got {options[name]}"
            )
    if options.get("confidence_eos_eot_inf") and rule.needs.looks:
        raise ValueError(
            f"confidence_eos_eot_inf must be left out where a cascade is looked at, got it with {rule.needs.looks} looks a round"
        )
    if options.get("temperature") and rule.needs.greedy:
        raise ValueError(f"temperature must be 0 with policy {request.policy}, got {options['temperature']}")
    eos = tuple(
        one for one in end_ids if one != denoiser.end_of_turn_id
    )  # LLaDA forbids EOS alone, not the end of a turn
    forbidden = eos if options.get("logits_eos_inf") else ()
    return Sampling(
        temperature=options.get("temperature", 0.0),
        top_p=options.get("top_p", 1.0),
        forbidden=(denoiser.mask_id, *forbidden),
        unconfident=end_ids if options.get("confidence_eos_eot_inf") else (),
        noise=rule.needs.noise,
        draws=rule.needs.draws,
        power=rule.needs.power,
    )


def together(hooks: Sequence[OnStep]) -> OnStep | None:
    """Hooks one after the other as one hook; None where there is none."""

    def step(state: DecodeState, reading: Reading) -> None:
        for hook in hooks:
            hook(state, reading)

    return step if hooks else None


def seen_by(seen: list[DecodeState]) -> OnStep:
    """A hook that keeps every state."""
    return lambda state, reading: seen.append(state)


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
