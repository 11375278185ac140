"""Prompts from the command line: judged before torch is imported, then decoded and reported, one alone or in bulk."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from decoding.calls.request import Request, resolve
from decoding.checked_names import needs_head, uses_head
from decoding.comparison.calibration import Calibration
from decoding.names import DEFAULT_POLICY, find_policy
from models.heads.defaults import read_defaults
from train.commands.answering.alone import answer_one
from train.commands.answering.bulk import Long, run_bulk
from train.commands.answering.call import GenerateCall
from train.commands.answering.conversation import Conversation, run_chat
from train.commands.answering.prompt_file import Asked, read_prompts, typed
from train.commands.command_line import shipped
from train.commands.folders import MODEL, check_adapter, check_model, find_head
from train.commands.options.policy_settings import check_settings
from train.tasks import Task, get, require_permission

GEN_LENGTH = 64
LENGTHS = {"gen_length", "max_new_tokens", "max_tokens", "gen_len"}
BLOCKS = {"block_length", "block_size", "canvas_length", "dllm_block_length"}


def check_generate(
    prompt: str | Sequence[str] | None,
    task: str | None,
    policy: str | None,
    options: Mapping[str, Any],
    *,
    model: str | None = None,
    head: str | None = None,
    adapter: str | None = None,
    prompts: str | None = None,
    row: int | None = None,
    run_code: bool = False,
    conversation: bool = False,
    calibrated: str | None = None,
) -> GenerateCall:
    """Refuse what cannot be decoded, and fill in what was left out.

    Args:
        prompt: the text or texts, or None where they come from a file.
        task: name of a task, which sets the lengths and, for a benchmark, how the model is asked.
        policy: name; by default learned where there is a head, else ete.
        options: lengths, temperature and settings of the policy, None for those left out.
        model: checkpoint folder or hub id; by default the one that ships.
        head: folder of a scoring head; by default the one that ships for the model.
        adapter: folder of a PEFT LoRA adapter, merged into the model.
        prompts: file of prompts, `-` for standard input, or `hub`.
        row: the only one of them, counted from 1.
        run_code: let the checker run what the model writes, where it has to.
        conversation: there are no prompts yet.
        calibrated: file of calibrate.py, which sets what is left out.

    Raises:
        ValueError: in one sentence with name, rule and value.
    """
    kind = None if task is None else get(task, run_code=run_code)
    asked = () if conversation else find_prompts(kind, prompt, prompts, row)
    if kind is not None and any(kind.judges(one.example) for one in asked):
        require_permission(kind, run_code)
    options = {name: value for name, value in options.items() if value is not None}
    if calibrated is not None:
        found = Calibration.load(calibrated)
        if kind is not None:
            found.require_task(kind.name, calibrated)
        policy, options = found.complete(policy, options)
    options = with_lengths(kind, options)
    request = resolve(policy, options)
    check_model(str(shipped(MODEL)) if model is None else model, "\n".join(map(str, (one.prompt for one in asked))))
    check_adapter(adapter)
    reads = uses_head(request.policy, request.settings, find_policy(request.policy).head)
    named = head
    if reads or policy is None or named is not None:
        head = find_head(model, head, adapter)
    if policy is None and request.policy == DEFAULT_POLICY:
        request = by_default(request, options, head, task)
    which = (request.policy, request.settings, find_policy(request.policy).head)
    used = head if named is not None or uses_head(*which) else None  # one that is named must fit the model in any case
    if used is None and needs_head(*which):
        raise ValueError(f"head must be a folder with head.safetensors for policy {request.policy}, got {head}")
    check_settings(request.policy, request.settings)
    model = str(shipped(MODEL)) if model is None else model
    return GenerateCall(asked, kind, request, model, used, adapter, calibrated)


def by_default(request: Request, options: Mapping[str, Any], head: str | None, task: str | None) -> Request:
    """The request where no policy is named: `ete` without a head, else as the head decodes by default, on the task if it says so.

    Args:
        request: with `learned`.
        options: it was made of.
        head: folder, or None.
        task: name, or None.
    """
    if head is None:
        return resolve("ete", options)
    defaults = read_defaults(Path(head))
    if request.settings or defaults is None:
        return request
    policy, settings = defaults.of(task).decoder
    return resolve(policy, {**options, **settings})


def with_lengths(task: Task | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options with the lengths of the task, or those of a prompt of one's own, where none are given."""
    if options.keys() & LENGTHS:
        return dict(options)
    found = {**options, "gen_length": task.gen_length if task else GEN_LENGTH}
    return found if task is None or options.keys() & BLOCKS else {**found, "block_length": task.block_length}


def find_prompts(
    task: Task | None, prompt: str | Sequence[str] | None, prompts: str | None, row: int | None
) -> tuple[Asked, ...]:
    """What is decoded: the prompts typed, put as the task asks them, those of a file, or one of its rows.

    Args:
        task: whose prompts these are, or None.
        prompt: the text or texts, or None.
        prompts: file of prompts, `-`, `hub` or None.
        row: the only one of them, from 1, or None.

    Raises:
        ValueError: if there is no such prompt, or prompts are given in both ways.
    """
    given = [prompt] if isinstance(prompt, str) else prompt
    if (given is None) == (prompts is None):
        raise ValueError(f"prompt or prompts must be given, got {'neither' if prompt is None else 'both'}")
    if given is not None:
        if row is not None:
            raise ValueError(f"row must come with prompts, a file of them, got {row} with a prompt")
        return typed(given, task)
    if row is None:
        found = tuple(read_prompts(str(prompts), task))
        if not found:
            raise ValueError(f"prompts must hold at least one prompt, got none in {prompts}")
        return found
    one = next(islice(read_prompts(str(prompts), task), max(0, row - 1), None), None) if row > 0 else None
    if one is None:
        raise ValueError(f"row must be one of the prompts in {prompts}, counted from 1, got {row}")
    return (one,)


def run_generate(
    call: GenerateCall,
    *,
    out: str | None = None,
    samples: int = 1,
    batch_size: int | None = None,
    long: Long = "refuse",
    seed: int = 0,
    device: str | None = None,
    dtype: str | None = None,
    watch: bool = False,
    as_json: bool = False,
) -> str:
    """Hold a conversation, answer one prompt for people, or answer many with a line of JSON each.

    Args:
        call: what `check_generate` let through.
        out: `.jsonl` file for the answers; many without it go to standard output.
        samples: answers to each prompt.
        batch_size: prompts at a time; by default what the memory holds.
        long: whether prompts too long for the model are refused or cut.
        seed: of every draw.
        device: where to run; by default the GPU if there is one.
        dtype: of the weights; by default float32 on the CPU and the checkpoint's own elsewhere.
        watch: write the canvas to stdout after every round.
        as_json: report one prompt as JSON.

    Returns:
        What is left to say on standard output.

    Raises:
        ValueError: in one sentence.
    """
    many = out is not None or samples != 1 or len(call.prompts) != 1
    where: dict[str, Any] = {"seed": seed, "device": device, "dtype": dtype}
    if not call.prompts:
        converse(call, **where, watch=watch, cut=long == "cut")
        return ""
    if not many:
        return answer_one(call, **where, watch=watch, long=long, as_json=as_json)
    if watch:
        raise ValueError(f"watch must go with one prompt and no out, got {len(call.prompts)} prompts and out {out}")
    said = run_bulk(call, out=out, samples=samples, batch_size=batch_size, long=long, **where)
    if out is not None:
        return said
    sys.stderr.write(said + "\n")
    return ""


def converse(call: GenerateCall, *, seed: int, device: str | None, dtype: str | None, watch: bool, cut: bool) -> None:
    """Talk with the model of a call over standard input and output.

    Args:
        call: what `check_generate` let through.
        seed: of every draw.
        device, dtype: as in `models.load`.
        watch: show the canvas after every round.
        cut: drop the oldest turns where the model has too few positions.
    """
    import models

    denoiser = models.load(call.model, device=device, dtype=dtype, adapter=call.adapter, head=call.head)
    run_chat(Conversation(denoiser, call.request, seed=seed, stream=sys.stdout, watch=watch, cut=cut))
