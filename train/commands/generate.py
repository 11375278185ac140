"""One prompt from the command line: judged before torch is imported, then decoded and reported."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decoding.names import DEFAULT_POLICY, Request, find_policy, resolve
from train.commands.command_line import shipped
from train.commands.folders import HEAD, MODEL, check_adapter, check_model
from train.tasks import Example, Task, get, require_permission

if TYPE_CHECKING:
    from decoding import Generation

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
    """

    example: Example
    task: Task | None
    request: Request
    model: str
    head: str | None
    adapter: str | None = None


def judge(
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

    Raises:
        ValueError: in one sentence with name, rule and value.
    """
    kind = None if task is None else get(task, run_code=run_code)
    example = find_example(kind, prompt, prompts, row)
    if kind is not None and kind.judges(example):
        require_permission(kind, run_code)
    options = {name: value for name, value in options.items() if value is not None}
    if not options.keys() & {"gen_length", "max_new_tokens", "max_tokens", "gen_len"}:
        options |= {"gen_length": kind.gen_length if kind else GEN_LENGTH}
        options |= {"block_length": kind.block_length} if kind and "block_length" not in options else {}
    if head is None and model is None and adapter is None and shipped(HEAD).is_dir():
        head = str(shipped(HEAD))
    request = resolve(policy, options)
    if policy is None and request.policy == DEFAULT_POLICY and head is None:
        request = resolve("ete", options)
    needs_head = find_policy(request.policy).head
    if needs_head and (head is None or not (Path(head) / "head.safetensors").is_file()):
        raise ValueError(f"head must be a folder with head.safetensors for policy {request.policy}, got {head}")
    model = str(shipped(MODEL)) if model is None else model
    check_model(model, example.prompt)
    check_adapter(adapter)
    return GenerateCall(example, kind, request, model, head if needs_head else None, adapter)


def find_example(task: Task | None, prompt: str | None, prompts: str | None, row: int) -> Example:
    """What is decoded: the prompt typed, put as the task asks it, or a row of a file.

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
    found = next(islice(task.read(str(prompts)), max(0, row - 1), None), None) if row > 0 else None
    if found is None:
        raise ValueError(f"row must be one of the prompts in {prompts}, counted from 1, got {row}")
    return found


def answer(
    question: GenerateCall, *, seed: int = 0, device: str | None = None, watch: bool = False, as_json: bool = False
) -> str:
    """Decode and report: the text and what it cost, for people or as one JSON object.

    Args:
        question: what `judge` let through.
        seed: of every draw.
        device: where to run; by default the GPU if there is one.
        watch: write the canvas to stdout after every round.
        as_json: report as JSON.
    """
    import torch

    import models
    from decoding import generate
    from train.commands.screen import Screen

    denoiser = models.load(question.model, device=device, adapter=question.adapter, head=question.head)
    screen = Screen(sys.stdout, denoiser)
    request = question.request
    result = generate(
        denoiser,
        question.example.prompt,
        request.policy,
        gen_length=request.gen_length,
        block_length=request.block_length,
        generator=torch.Generator(denoiser.device).manual_seed(seed),
        on_step=screen.step if watch else None,
        **request.options,
        **request.settings,
    )
    if watch:
        screen.show(result.state)
    judged = question.task is not None and question.task.judges(question.example)
    accepted = question.task.check(question.example, result.text[0]) if question.task and judged else None
    facts = {
        "text": result.text[0],
        **({} if accepted is None else {"accepted": accepted}),
        "rounds": int(result.rounds[0]),
        "sequence_forwards": int(result.sequence_forwards[0]),
        "token_positions": int(result.token_positions[0]),
        "seconds": round(result.seconds - screen.paused, 4),
        "settings": settings_of(question, result, seed),
    }
    return json.dumps(facts) if as_json else report(facts, question)


def settings_of(question: GenerateCall, result: Generation, seed: int) -> dict[str, Any]:
    """Everything the answer depends on."""
    policy = {f.name: getattr(result.policy, f.name) for f in fields(result.policy) if f.name != "head"}
    return {
        "model": question.model,
        "head": question.head,
        "adapter": question.adapter,
        "task": question.task and question.task.name,
        "policy": {"name": question.request.policy, **policy},
        "gen_length": question.request.gen_length,
        "block_length": question.request.block_length,
        **question.request.options,
        "seed": seed,
    }


def report(facts: Mapping[str, Any], question: GenerateCall) -> str:
    """The answer, whether it is right where that can be told, and what it cost."""
    lines = [facts["text"]]
    if question.task is not None and "accepted" in facts:
        lines.append(f"{'right' if facts['accepted'] else 'wrong'}, says the checker of {question.task.name}")
    cost = "{rounds} rounds, {sequence_forwards} sequence forwards, {token_positions} token positions, {seconds} s"
    lines.append(f"{cost.format(**facts)}, policy {question.request.policy}")
    return "\n".join(lines)
