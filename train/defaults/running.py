"""Settings of a head run on dev prompts: which there are, what they come to, and how many prompts there is time for."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

from decoding.comparison.arms import Arm
from decoding.comparison.curves import Array
from decoding.comparison.problems import Split
from decoding.comparison.runner import Runner
from models.denoiser import Denoiser
from models.heads.defaults import ALONE, Defaults
from train.defaults.choice import Part
from train.defaults.evidence import ENOUGH
from train.defaults.model_card import name_of

log = logging.getLogger(__name__)

EFFORT = 6  # decodes by the most careful rule that choosing takes about as long as, of every further prompt


def affordable(counts: Mapping[str, int], pace: Mapping[str, float], minutes: float | None) -> dict[str, int]:
    """How many further prompts of each task fit the time; what quick tasks leave of their share goes to the slow ones.

    Args:
        counts: task -> prompts there are.
        pace: task -> seconds a prompt by the most careful rule.
        minutes: for all tasks; None for as long as it takes.
    """
    found, left = dict(counts), 60 * (minutes or 0)
    for number, task in enumerate(sorted(pace, key=lambda name: pace[name])):
        if minutes is not None:
            fits = int(left / (len(pace) - number) / (EFFORT * pace[task]))
            found[task] = min(counts[task], max(ENOUGH, fits))
            left = max(0.0, left - found[task] * EFFORT * pace[task])
    return found


def first_of(runner: Runner, count: int) -> Runner:
    """The same with the first further prompts alone."""
    return replace(runner, problems=runner.problems.first("test", count))


def figures(
    runner: Runner, setting: Defaults, part: Part, count: int | None = None, *, unread: bool = False
) -> dict[str, Array]:
    """The figures of every prompt under a setting; decoded to the end of a batch, so that none is decoded twice as more are asked.

    Args:
        runner: of the task.
        setting: how.
        part: which prompts.
        count: the first so many of them; None for all.
        unread: make drafts from the present reading, without the cascade.
    """
    arm, problems = (without_cascade if unread else arm_of)(setting), runner.problems
    split: Split = "dev" if part == "screen" else "test"
    wanted = len(problems.split(split)) if count is None else min(count, len(problems.split(split)))
    whole = -(-wanted // runner.batch_size) * runner.batch_size
    replace(runner, problems=problems.first(split, whole)).run([arm], split)
    kept = runner.ledger.table(split, runner.cells_of(arm)[0])
    table = {name: column[:wanted] for name, column in kept.items()}
    right, rounds = (table[name].mean() for name in ("right", "rounds"))
    name = name_of(setting) + (" without the cascade" if unread else "")
    said = f"{100 * right:.1f} % right in {rounds:.2f} rounds ({len(table['right'])} dev prompts)"
    log.info("%s, %s at %g: %s", problems.task, name, setting.risk_bound, said)
    return table


def arm_of(setting: Defaults) -> Arm:
    """The decoder that a setting is."""
    if setting.alone and not setting.checked:
        return Arm("rule alone", "headless", "risk-sum", settings={"risk_bound": setting.risk_bound})
    policy, settings = setting.decoder
    return Arm("checked" if setting.checked else "head", "learned", policy, settings=settings)


def without_cascade(setting: Defaults) -> Arm:
    """The decoder that a setting with checked drafts is where these are made from the present reading."""
    policy, settings = setting.decoder
    return Arm("checked without cascade", "headless", policy, settings={**settings, "source": "reading"})


def forms_of(denoiser: Denoiser) -> Sequence[Defaults]:
    """What a head may do: its own rule, and, with a cascade, two looks behind the rule alone and its own, and drafts checked."""
    head = denoiser.head
    own = [] if not head.config.trust and not head.config.pairs else [Defaults(None, 1.0, 0)]
    if head.cascade is None:
        return own
    return [
        *own,
        Defaults(ALONE, 1.0, 2),
        *(replace(one, looks=2) for one in own),
        Defaults(ALONE, 1.0, 0, checked="exact"),
        Defaults(ALONE, 1.0, 0, checked="subset"),
    ]
