"""`generate` with one prompt: its answer and what it cost, for people or as one JSON object."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.checkpoints.json_files import read_object
from train.commands.answering.bulk import Long, fit_prompts
from train.commands.answering.call import GenerateCall, counts_of

if TYPE_CHECKING:
    from decoding import Row


def answer_one(
    call: GenerateCall,
    *,
    seed: int = 0,
    device: str | None = None,
    dtype: str | None = None,
    watch: bool = False,
    long: Long = "refuse",
    as_json: bool = False,
) -> str:
    """Decode one prompt and report: the text and what it cost, for people or as one JSON object.

    Args:
        call: what `check_generate` let through.
        seed: of every draw.
        device: where to run; by default the GPU if there is one.
        dtype: of the weights; by default float32 on the CPU and the checkpoint's own elsewhere.
        watch: write the canvas to stdout after every round.
        long: whether a prompt too long for the model is refused or cut.
        as_json: report as JSON.
    """
    import torch

    import models
    from decoding import generate
    from train.commands.screen import Screen

    where: dict[str, Any] = {"device": device, "dtype": dtype}
    denoiser = models.load(call.model, **where, adapter=call.adapter, head=call.head)
    screen = Screen(sys.stdout, denoiser)
    request = call.request
    result = generate(
        denoiser,
        fit_prompts(denoiser, call, long=long),
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
    facts = facts_of(call, result.row(0), seconds=result.seconds - screen.paused)
    facts["settings"] = call.settings(result.policy, denoiser, seed)
    return json.dumps(facts) if as_json else report(facts, call)


def facts_of(call: GenerateCall, row: Row, *, seconds: float) -> dict[str, Any]:
    """The text, whether it is right where that can be told, and what it cost."""
    task = call.task
    judged = task is not None and task.judges(call.example)
    return {
        "text": row.text,
        **({"accepted": task.check(call.example, str(row.text))} if task is not None and judged else {}),
        **counts_of(row),
        "seconds": round(seconds, 4),
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
    tasks = read_object(known).get("tasks", {})
    if not isinstance(tasks, dict) or any(name.startswith(call.task.name) for name in tasks):
        return said
    return f"{said}; {call.model} was not fitted on {call.task.name}, but on {', '.join(tasks)}"
