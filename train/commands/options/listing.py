"""`--list`: the policies, tasks and settings there are, with defaults and units, without loading anything heavy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from decoding.calls.spellings import ALIASES, WITHOUT_EFFECT
from decoding.names import POLICIES
from train.commands.options.policy_settings import Setting, entry, policy_lines, policy_summary, said
from train.tasks import ADDITIONS, BENCHMARKS, RENUMBERED, TASKS, Task

Kind = Literal["policies", "tasks", "settings"]
OF_EVERY_POLICY = (
    Setting("gen_length", "int", "the task's, else 64", "positions to fill, EOS included, at least 1."),
    Setting("block_length", "int", "the task's, else 32", "positions of a block; divides gen_length."),
    Setting("temperature", "float", "0.0", "at least 0; 0 takes the most likely token."),
    Setting("top_p", "float", "1.0", "nucleus of the draw, in (0, 1]."),
    Setting("use_cache", "none | prefix | dual", "none", "which keys and values a block keeps from its first round."),
    Setting("early_stop", "bool", "true", "fill a row with EOS once everything before a committed EOS is committed."),
    Setting("logits_eos_inf", "bool", "false", "EOS is never a candidate."),
    Setting("confidence_eos_eot_inf", "bool", "false", "EOS and the end of a turn are never confident."),
    Setting("settings.chat", "bool", "true with a chat template", "put a prompt to the model as a user's message."),
    Setting("mask_id", "int", "the model's", "must be the model's mask id: a check for scripts that name it."),
    Setting("eos_id", "int", "the model's", "id that ends an answer."),
)


def listing(kind: Kind, policy: str | None = None) -> str:
    """The list that was asked for.

    Args:
        kind: policies (what each commits), tasks, or settings (of every policy and of each).
        policy: the only one that is listed.
    """
    names = list(POLICIES) if policy is None else [policy.replace("_", "-") if ":" not in policy else policy]
    if kind == "tasks":
        return "\n".join(_tasks())
    if kind == "policies":
        return "\n".join(line for name in names for line in policy_summary(name))
    return "\n".join((*_settings(), *(line for name in names for line in policy_lines(name))))


def _settings() -> Iterator[str]:
    yield "of every policy"
    for setting in OF_EVERY_POLICY:
        yield from entry(f"    --{setting.name}", said(setting))
    meant: dict[str, list[str]] = {}
    for spelling, name in ALIASES.items():
        if name == "history":  # of the Python call alone
            continue
        meant.setdefault(name, []).append(spelling)
    yield "other spellings"
    for name, spellings in meant.items():
        yield from entry(f"    --{name}", ", ".join(f"--{one}" for one in spellings))
    yield "accepted where they change nothing"
    yield from entry("", ", ".join(f"--{name}" for name in WITHOUT_EFFECT))


def _tasks() -> Iterator[str]:
    kinds = (
        ("generated, checked by rule", TASKS),
        ("generated from a file of questions", RENUMBERED),
        ("additions of the study `order`", ADDITIONS),
        ("benchmarks, from a file or from the hub", BENCHMARKS),
    )
    for title, tasks in kinds:
        yield title
        yield from (_task(task) for task in tasks.values())


def _task(task: Task) -> str:
    source = "" if task.hub is None else f", hub {task.hub.dataset}"
    code = ", runs the model's code (--run_code)" if task.runs_code else ""
    return f"    {task.name:24} {task.gen_length} tokens in blocks of {task.block_length}{source}{code}"
