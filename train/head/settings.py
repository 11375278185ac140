"""What a user may say of fitting a head; imports nothing heavy, so that a command judges it first."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from decoding.names import find_policy
from decoding.traces.labelling import Labelling
from models.complaints import shown
from models.heads.config import HeadConfig, Variant
from train.tasks import Task, get
from train.tasks.hub import HUB

TARGETS = ("gain", "eq7", "worth")
Cache = Literal["none", "prefix", "dual"]


@dataclass(frozen=True)
class Objective:
    """What the head learns and how fast.

    Args:
        gain: weight of the listwise loss on the gain, at least 0.
        risk: weight of the risk loss, at least 0.
        huber: weight of the Huber loss on the gain's unit, at least 0.
        conflict: weight of the loss on pairs, at least 0; above 0 every variant has a conflict output.
        target: `gain` (correct net cascade), `eq7` (faithful distillation of the beam's score over its own k) or `worth`
            (that score less harm_weight * harm, over all branches whose harm is known).
        harm_weight: nats of Eq. 7 that a certain error outweighs in `worth`, at least 0.
        temperature: of the listwise targets, in positions (or nats for eq7 and worth).
        focus: extra weight of wrong tokens rated safe.
        learning_rate, weight_decay, warm_up: of AdamW; warm-up steps, then cosine to 0.
    """

    gain: float = 1.0
    risk: float = 1.0
    huber: float = 0.1
    conflict: float = 0.0
    target: str = "gain"
    harm_weight: float = 10.0
    temperature: float = 1.0
    focus: float = 0.0
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warm_up: int = 20

    def __post_init__(self) -> None:
        if self.target not in TARGETS:
            raise ValueError(f"target must be gain, eq7 or worth, got {shown(self.target)}")
        for name in ("gain", "risk", "huber", "conflict", "harm_weight", "focus", "weight_decay"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        for name in ("temperature", "learning_rate"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")


SHUFFLED = "shuffled"


@dataclass(frozen=True)
class TaskRun:
    """How much of a task a head is fitted on.

    Args:
        prompts: prompts of the train split whose traces are collected.
        dev_prompts: prompts of the dev split, for the metrics.
        gen_length: positions to fill; None takes the task's own.
        block_length: of decoding and labelling; None takes the task's own.
        use_cache: none, prefix or dual: of keys and values, in the decodes that choose a head's defaults and compare it.
        prompts_file: a JSONL(.gz) file of prompts instead of the generator; rows of other splits are left out.
        labelling: how much is kept and tried of each prompt; None takes the run's.
        beam: settings of the reference policy that differ on this task; not its threshold, which a head has one of.
        at_most: take what the file holds where that is less, and dev prompts out of it where it has too few of their own.
    """

    prompts: int = 64
    dev_prompts: int = 16
    gen_length: int | None = None
    block_length: int | None = None
    use_cache: Cache = "none"
    prompts_file: str | None = None
    labelling: Labelling | None = None
    beam: dict[str, Any] = field(default_factory=dict)
    at_most: bool = field(default=False, compare=False)

    def __post_init__(self) -> None:
        if "threshold" in self.beam:
            raise ValueError(f"beam of a task must leave out threshold, the run's own, got {self.beam['threshold']}")
        if self.use_cache not in get_args(Cache):
            raise ValueError(f"use_cache must be one of {', '.join(get_args(Cache))}, got {shown(self.use_cache)}")
        for name in ("prompts", "dev_prompts", "gen_length", "block_length"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")

    def task(self, name: str, *, run_code: bool = False) -> Task:
        """The task of that name with the lengths of this run.

        Raises:
            ValueError: if its blocks do not divide its canvas.
        """
        lengths: dict[str, Any] = {"gen_length": self.gen_length, "block_length": self.block_length}
        found = replace(
            get(name, run_code=run_code), **{n: length for n, length in lengths.items() if length is not None}
        )
        if found.gen_length % found.block_length:
            raise ValueError(f"block_length must divide gen_length {found.gen_length}, got {found.block_length}")
        return found


def require_prompts(task: Task, run: TaskRun) -> None:
    """Refuse a task whose prompts come from nowhere.

    Raises:
        ValueError: in one sentence.
    """
    if task.make is None and run.prompts_file is None:
        raise ValueError(f"prompts_file of task {task.name} must be a file or hub, for it has no generator, got none")
    if run.prompts_file not in (None, HUB) and not Path(run.prompts_file).is_file():
        raise ValueError(f"prompts_file of task {task.name} must be a file, got {shown(run.prompts_file)}")


@dataclass(frozen=True)
class Recipe:
    """A head variant and what it is fitted to; `VARIANTS` names those that every table shows, and the ceiling.

    Attributes:
        variant: shape of the head.
        target: see Objective; None takes that of the fit's objective.
        shuffled: fit on labels dealt to other positions, the control.
        blocks: K of this variant; None takes that of the fit.
        conflict: weight of its loss on pairs where the objective has none.
    """

    variant: Variant
    target: str | None = None
    shuffled: bool = False
    blocks: int | None = None
    conflict: float = 0.0


VARIANTS: Mapping[str, Recipe] = {
    "linear": Recipe("linear"),
    "features": Recipe("features"),
    "hidden": Recipe("hidden"),
    "lora": Recipe("lora"),
    "head-eq7": Recipe("lora", target="eq7"),
    "head-worth": Recipe("lora", target="worth"),
    "conflict": Recipe("lora", conflict=1.0),
    SHUFFLED: Recipe("lora", shuffled=True),
    "ceiling": Recipe("fork", blocks=4),
}


@dataclass(frozen=True)
class Fitting:
    """How heads are fitted.

    Args:
        variants: names of VARIANTS; the first is the one that is saved as the run's head.
        seeds: fitting seeds of every variant.
        epochs: passes over the traces.
        batch_size: states in one step.
        blocks, rank, alpha, dropout, width: shape of the heads (see HeadConfig).
        pairs, reach: width of the conflict output of those that have one, and how far apart it still tells places (see HeadConfig).
        gigabytes: memory for trunk outputs that are kept between epochs.
        universal: fit only heads that read logits, which go on any base.
        objective: losses and optimiser.
    """

    variants: tuple[str, ...] = ("lora", "linear", "features", "hidden", "head-eq7", SHUFFLED)
    seeds: int = 1
    epochs: int = 6
    batch_size: int = 16
    blocks: int = 1
    rank: int = 16
    alpha: int = 32
    dropout: float = 0.05
    width: int = 128
    pairs: int = 16
    reach: int = 96
    gigabytes: float = 4.0
    universal: bool = False
    objective: Objective = field(default_factory=Objective)

    def __post_init__(self) -> None:
        for name in self.variants:
            if name not in VARIANTS:
                raise ValueError(f"variants must be among {', '.join(VARIANTS)}, got {shown(name)}")
        if not self.variants or self.variants[0] == SHUFFLED:
            first = self.variants[0] if self.variants else "none"
            raise ValueError(f"variants must begin with the head that is saved, got {first}")
        for name in ("seeds", "epochs", "batch_size", "pairs", "reach"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not self.gigabytes >= 0:  # NaN is not either
            raise ValueError(f"gigabytes must be at least 0, got {self.gigabytes}")
        for name in self.variants:
            if self.config(VARIANTS[name], ()).reads_hidden and self.universal:
                raise ValueError(
                    f"variants of a universal head must read no hidden states (linear, features), got {name}"
                )

    def conflict(self, recipe: Recipe) -> float:
        """Weight of the loss on pairs."""
        return self.objective.conflict or recipe.conflict

    def config(self, recipe: Recipe, feature_names: tuple[str, ...], **more: Any) -> HeadConfig:
        """The shape of a head; refuses what no head can have."""
        return HeadConfig(
            variant=recipe.variant,
            feature_names=feature_names,
            blocks=recipe.blocks or self.blocks,
            rank=self.rank,
            alpha=self.alpha,
            dropout=self.dropout,
            width=self.width,
            pairs=self.pairs if self.conflict(recipe) else 0,
            reach=self.reach if self.conflict(recipe) else 0,
            **more,
        )


CascadeTarget = Literal["candidates", "residual", "whole"]

CASCADE_DRIVERS: tuple[dict[str, Any], ...] = (
    *({"policy": "threshold", "threshold": c} for c in (0.6, 0.8, 0.95, 0.99)),
    *({"policy": "risk-sum", "risk_bound": b} for b in (0.003, 0.03, 0.2)),
)
"""Policies that lead through the states a cascade learns from, from bold to careful."""


@dataclass(frozen=True)
class CascadeFitting:
    """How a cascade is fitted.

    Args:
        minutes: of fitting; what is reached is saved four times on the way.
        prompts: train prompts of a task with a generator, in place of the task's own; None for these.
        dev_prompts: the same of dev prompts, which the figures are of.
        batch_size: prompts led together.
        blocks: K, how many of the base's last blocks run again.
        rank: of the LoRA.
        learning_rate: of AdamW; up over the first twentieth of the minutes, then down to 0.
        drivers: policies, {policy: NAME, setting: value}, of one canvas a round and no draws; one leads each batch of prompts.
        parts: shares of what a driver would commit, the surest first, one drawn for each batch: what is left has still to be
            foretold where a round would be the last.
        positions: of every task in which something is still to be learned, before the fit may end; it takes twice the
            minutes for them at most.
        steps: of the fit at most; None leaves its end to the minutes.
        ahead: rounds that a reading is to foretell at most: every forward is then the label of so many readings before it, from
            all that was committed since.
        depth: d: drivers that can be checked lead with d - 1 drafts of the cascade's own on top of each other, and what follows
            these is foretold too; 1 fits on the states that a round commits.
        target: what the next forward is to be met in: the `candidates` of the state and all other tokens together (KL), the
            `residual` (squared change of these log-probabilities), or the `whole` distribution (KL over the vocabulary).
        anew: begin with a new cascade, whatever the head has.
    """

    minutes: float = 10.0
    prompts: int | None = None
    dev_prompts: int | None = None
    batch_size: int = 16
    blocks: int = 1
    rank: int = 32
    learning_rate: float = 4e-4
    drivers: tuple[dict[str, Any], ...] = CASCADE_DRIVERS
    parts: tuple[float, ...] = (1.0, 0.6, 0.3)
    positions: int = 2000
    steps: int | None = None
    ahead: int = 3
    depth: int = 1
    target: CascadeTarget = "candidates"
    anew: bool = False

    def __post_init__(self) -> None:
        if self.target not in get_args(CascadeTarget):
            raise ValueError(f"target must be one of {', '.join(get_args(CascadeTarget))}, got {shown(self.target)}")
        if not self.parts or not all(0 < part <= 1 for part in self.parts):
            raise ValueError(f"parts must lie in (0, 1], at least one, got {self.parts}")
        for name in ("minutes", "learning_rate"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        for name in ("prompts", "dev_prompts", "batch_size", "blocks", "rank", "positions", "steps", "ahead", "depth"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not self.drivers:
            raise ValueError("drivers must name at least one policy, got none")
        for driver in self.drivers:
            if not isinstance(driver.get("policy"), str):
                raise ValueError(f"a driver must name its policy, got {driver}")
            find_policy(driver["policy"], "policy of a driver")
