"""One prompt from the command line: judged before torch is imported, then decoded and reported."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from decoding.checked_names import needs_head, uses_head
from decoding.comparison.calibration import Calibration
from decoding.names import DEFAULT_POLICY, Request, find_policy, resolve
from train.commands.command_line import shipped
from train.commands.folders import HEAD, MODEL, check_adapter, check_model
from train.tasks import Example, Task, get, require_permission

if TYPE_CHECKING:
    from decoding import Generation, Policy

GEN_LENGTH = 64


@dataclass(frozen=True)
class GenerateCall:
    """A prompt and how to decode it, as far as that can be judged without torch.

    Attributes:
        example: the prompt, with what its checker compares with.
        task: whose prompt it is, or None.
        request: policy, lengths and settings.
        model: checkpoint folder or hub id.
        head: folder of the scoring head, or None where the policy reads none.
        adapter: folder of a PEFT adapter that is merged into the model, or None.
        calibrated: file of calibrate.py that the decode must agree with, or None.
    """

    example: Example
    task: Task | None
    request: Request
    model: str
    head: str | None
    adapter: str | None = None
    calibrated: str | None = None


def check_generate(
    prompt: str | None,
    task: str | None,
    policy: str | None,
    options: Mapping[str, Any],
    *,
    model: str | None = None,
    head: str | None = None,
    adapter: str | None = None,
    prompts: str | None = None,
    row: int = 1,
    run_code: bool = False,
    calibrated: str | None = None,
) -> GenerateCall:
    """Refuse what cannot be decoded, and fill in what was left out.

    Args:
        prompt: the text, or None where it is a row of a file.
        task: name of a task, which sets the lengths and, for a benchmark, how the model is asked.
        policy: name; by default learned where there is a head, else ete.
        options: lengths, temperature and settings of the policy, None for those left out.
        model: checkpoint folder or hub id; by default the one that ships.
        head: folder of a scoring head; by default the one that ships, with the model that ships.
        adapter: folder of a PEFT LoRA adapter, merged into the model.
        prompts: file of the task's prompts, or `hub`.
        row: which of them, counted from 1.
        run_code: let the checker run what the model writes, where it has to.
        calibrated: file of calibrate.py, which sets what is left out.

    Raises:
        ValueError: in one sentence with name, rule and value.
    """
    kind = None if task is None else get(task, run_code=run_code)
    example = find_example(kind, prompt, prompts, row)
    if kind is not None and kind.judges(example):
        require_permission(kind, run_code)
    options = {name: value for name, value in options.items() if value is not None}
    if calibrated is not None:
        policy, options = Calibration.load(calibrated).complete(policy, options)
    if not options.keys() & {"gen_length", "max_new_tokens", "max_tokens", "gen_len"}:
        options |= {"gen_length": kind.gen_length if kind else GEN_LENGTH}
        options |= {"block_length": kind.block_length} if kind and "block_length" not in options else {}
    if head is None and model is None and adapter is None and shipped(HEAD).is_dir():
        head = str(shipped(HEAD))
    request = resolve(policy, options)
    if policy is None and request.policy == DEFAULT_POLICY and head is None:
        request = resolve("ete", options)
    which = (request.policy, request.settings, find_policy(request.policy).head)
    used = head if uses_head(*which) else None
    found = used is not None and (Path(used) / "head.safetensors").is_file()
    if not found and (used is not None or needs_head(*which)):
        raise ValueError(f"head must be a folder with head.safetensors for policy {request.policy}, got {head}")
    model = str(shipped(MODEL)) if model is None else model
    check_model(model, example.prompt)
    check_adapter(adapter)
    return GenerateCall(example, kind, request, model, used, adapter, calibrated)


def find_example(task: Task | None, prompt: str | None, prompts: str | None, row: int) -> Example:
    """What is decoded: the prompt typed, put as the task asks it, or a row of a file.

    Args:
        task: whose prompt it is, or None.
        prompt: the text, or None.
        prompts: file of the task's prompts, `hub` or None.
        row: which of them, from 1.

    Raises:
        ValueError: if there is no such prompt, or both are given.
    """
    if (prompt is None) == (prompts is None):
        raise ValueError(f"prompt or prompts must be given, got {'neither' if prompt is None else 'both'}")
    if prompt is not None:
        if not prompt:
            raise ValueError("prompt must hold at least one character, got ''")
        if task is not None:
            task.canonical(prompt)
        return Example(prompt if task is None else task.ask(prompt), "")
    if task is None:
        raise ValueError(f"prompts must come with a task, got {prompts} alone")
    example = next(islice(task.read(str(prompts)), max(0, row - 1), None), None) if row > 0 else None
    if example is None:
        raise ValueError(f"row must be one of the prompts in {prompts}, counted from 1, got {row}")
    return example


def run_generate(
    call: GenerateCall, *, seed: int = 0, device: str | None = None, watch: bool = False, as_json: bool = False
) -> str:
    """Decode and report: the text and what it cost, for people or as one JSON object.

    Args:
        call: what `check_generate` let through.
        seed: of every draw.
        device: where to run; by default the GPU if there is one.
        watch: write the canvas to stdout after every round.
        as_json: report as JSON.
    """
    import torch

    import models
    from decoding import generate
    from train.commands.screen import Screen

    denoiser = models.load(call.model, device=device, adapter=call.adapter, head=call.head)
    screen = Screen(sys.stdout, denoiser)
    request = call.request
    result = generate(
        denoiser,
        call.example.prompt,
        request.policy,
        gen_length=request.gen_length,
        block_length=request.block_length,
        generator=torch.Generator(denoiser.device).manual_seed(seed),
        on_step=screen.step if watch else None,
        calibrated=call.calibrated,
        **request.options,
        **request.settings,
    )
    if watch:
        screen.show(result.state)
    judged = call.task is not None and call.task.judges(call.example)
    accepted = call.task.check(call.example, result.text[0]) if call.task and judged else None
    facts = {
        "text": result.text[0],
        **({} if accepted is None else {"accepted": accepted}),
        "rounds": int(result.rounds[0]),
        "sequence_forwards": int(result.sequence_forwards[0]),
        "token_positions": int(result.token_positions[0]),
        "looks": int(result.looks[0]),
        "drafts": int(result.drafts[0]),
        "drafts_true": int(result.drafts_true[0]),
        "seconds": round(result.seconds - screen.paused, 4),
        "settings": settings_of(call, result, seed),
    }
    return json.dumps(facts) if as_json else report(facts, call)


def settings_of(call: GenerateCall, result: Generation, seed: int) -> dict[str, Any]:
    """Everything the answer depends on."""
    return {
        "model": call.model,
        "head": call.head,
        "adapter": call.adapter,
        "task": call.task and call.task.name,
        "policy": {"name": call.request.policy, **described(result.policy)},
        "gen_length": call.request.gen_length,
        "block_length": call.request.block_length,
        "calibrated": call.calibrated,
        **call.request.options,
        "seed": seed,
    }


def described(policy: Policy) -> dict[str, Any]:
    """The settings of a policy but its head, those of a rule that it checks inside."""
    found = {f.name: getattr(policy, f.name) for f in fields(policy) if f.name != "head"}
    return {
        n: {"name": type(v).__name__, **described(cast("Policy", v))} if is_dataclass(v) else v
        for n, v in found.items()
    }


def report(facts: Mapping[str, Any], call: GenerateCall) -> str:
    """The answer, whether it is right where that can be told, and what it cost."""
    lines = [facts["text"] if facts["text"].strip() else unanswered(call)]
    if call.task is not None and "accepted" in facts:
        lines.append(f"{'right' if facts['accepted'] else 'wrong'}, says the checker of {call.task.name}")
    cost = "{rounds} rounds, {sequence_forwards} sequence forwards, {token_positions} token positions, {seconds} s"
    came_true = ", {drafts_true} of {drafts} drafts came true" if facts["drafts"] else ""
    lines.append(f"{(cost + came_true).format(**facts)}, policy {call.request.policy}")
    return "\n".join(lines)


def unanswered(call: GenerateCall) -> str:
    """What stands in place of an empty text; of a model that ships also that the task is none of its own."""
    said = "(no text: the answer ends before its first token)"
    known = Path(call.model) / "accuracy.json"
    if call.task is None or not known.is_file():
        return said
    tasks = json.loads(known.read_text(encoding="utf-8")).get("tasks", {})
    if any(name.startswith(call.task.name) for name in tasks):
        return said
    return f"{said}; {call.model} was not fitted on {call.task.name}, but on {', '.join(tasks)}"
