"""`generate`: one call from prompts to text, for every model, policy and spelling."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from decoding.calls.fitting import as_denoiser, check_fit, check_hooks, make_sampling, with_cache
from decoding.calls.many import Fitted, decode_in_turns
from decoding.calls.request import refuse_equal
from decoding.calls.streaming import Stream
from decoding.comparison.calibration import require_calibrated, resolve_calibrated
from decoding.comparison.shift.watch import watch_for_shift
from decoding.generation import Generation
from decoding.loop import decode
from decoding.policy import Policy, first_state
from decoding.policy_by_name import by_default
from decoding.policy_by_name import make_policy as make_policy
from decoding.prompts import Prompts, read_prompts
from decoding.reading import Reading
from decoding.rounds.round import OnStep
from decoding.state import DecodeState
from models.denoiser import Denoiser
from models.devices import now

AT_ONCE = 256  # rows of a longer list are decoded as places become free


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
        top_p: nucleus of the draw, in (0, 1]; 1 at temperature 0.
        early_stop: fill a row with EOS once everything before a committed EOS is committed; not counted as work.
        history: keep the state of every round.
        num_return_sequences: answers to each prompt, at least 1, and 1 where nothing is drawn; those of one are neighbouring rows.
        streamer: for one row, an object of transformers' interface: `put` gets the prompt, then the tokens before which
            everything is committed; `put_draft`, where it has one, the rest of the canvas as it would be filled now.
        calibrated: file of `calibrate.py`, which sets what is left out and refuses a decoder that it was not made for; says once
            where the prompts of all calls with it do not look like those calibrated on.
        settings: of the policy, `use_cache` (none, prefix or dual), `mask_id`, `eos_id` (one or several), `tokenizer` (of a loaded
            model), `chat`, `logits_eos_inf`, `confidence_eos_eot_inf`, and the field's other spellings
            (`decoding.calls.spellings.ALIASES`).

    Returns:
        Sequences, text, counts per row, and the final state. Of more than 256 prompts that many are decoded at a
        time, others taking the places of those that end, unless something is drawn or watched.

    Raises:
        ValueError: for contradictions and values out of range, in one sentence with name, rule and value.
    """
    check_hooks(generator, on_step)
    given: dict[str, Any] = {"gen_length": gen_length, "block_length": block_length, "temperature": temperature}
    given |= {"top_p": top_p} | ({} if early_stop is True else {"early_stop": early_stop})
    given |= {"history": history} if history is not False else {}
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
    fitted = Fitted(request, rule, make_sampling(request, denoiser, end_ids, rule), end_ids)
    refuse_equal("num_return_sequences", num_return_sequences, drawn=fitted.sampling.at_random)
    batch = prompt.with_canvas(request.gen_length)
    made = _decode(denoiser, batch, fitted, generator, streamer=streamer, on_step=on_step)
    watch_for_shift(calibrated, made, batch.attention_mask)
    return made


def _decode(
    denoiser: Denoiser,
    batch: Prompts,
    call: Fitted,
    generator: torch.Generator | None,
    *,
    streamer: Any,
    on_step: OnStep | None,
) -> Generation:
    rule, end_ids, lengths = call.rule, call.end_ids, (call.request.gen_length, call.request.block_length)
    state = first_state(
        denoiser, batch.tokens, rule, gen_length=lengths[0], block_length=lengths[1], end_ids=call.stops_at
    )
    seen: list[DecodeState] = []
    keep = bool(call.request.options.get("history", False))
    stream = None if streamer is None else Stream.open(streamer, state, end_ids=end_ids, whole=rule.takes_back)
    hooks = (seen_by(seen) if keep else None, None if stream is None else stream.step, on_step)
    began = now(denoiser.device)
    on_step = together([hook for hook in hooks if hook is not None])
    if len(state.tokens) > AT_ONCE and on_step is None and not call.sampling.at_random:
        final, counts = decode_in_turns(denoiser, batch.to(denoiser.device), call, batch_size=AT_ONCE)
    else:
        draws: dict[str, Any] = {"sampling": call.sampling, "generator": generator, "on_step": on_step}
        final, counts = decode(denoiser, state, rule, attention_mask=batch.attention_mask, **draws)
    seconds = now(denoiser.device) - began
    if stream is not None:
        stream.close(final)
    return Generation(
        sequences=final.tokens,
        **vars(counts),
        seconds=seconds,
        state=final,
        policy=rule,
        history=(*seen, final) if keep else (),
        tokenizer=denoiser.tokenizer,
        eos_id=end_ids[0] if end_ids else None,
        end_ids=end_ids,
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
