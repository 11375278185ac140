"""What is clocked on what, as far as that can be judged without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from decoding.comparison.arms import REFERENCE, Arm, check_arms, require_different, select
from models.complaints import shown
from train.commands.command_line import shipped
from train.commands.folders import MODEL, check_model, find_head, named_head
from train.outcomes.workload import require_positive
from train.tasks import RENUMBERED, Task, get

BASES: Mapping[str, str] = dict.fromkeys(RENUMBERED, "checkpoints/gsm-12m")
"""Task -> the shipped base that speaks it, where that is not the default one."""


@dataclass(frozen=True)
class Base:
    """A model and its scoring head.

    Attributes:
        model: checkpoint folder or hub id.
        head: folder of the head, or None.
    """

    model: str
    head: str | None


@dataclass(frozen=True)
class How:
    """What all calls that share a folder have in common.

    Attributes:
        num_dev: prompts that choose the dials.
        num_prompts: prompts that are clocked in batches.
        alone: of these, the first that are clocked one by one.
        batch_size: prompts of a batch.
        repeats: runs of every arm, of which the best counts.
        slack: accuracy that an arm may lose on the dev prompts against one token a round.
        seed: of the prompts and the resamples.
        dtype: of the weights.
        engine: auto, plain or graphs.
    """

    num_dev: int
    num_prompts: int
    alone: int
    batch_size: int
    repeats: int
    slack: float
    seed: int
    dtype: str
    engine: str

    def __post_init__(self) -> None:
        names = ("num_dev", "num_prompts", "alone", "batch_size", "repeats")
        require_positive({name: getattr(self, name) for name in names})
        if not 0 <= self.slack < 1:
            raise ValueError(f"slack must lie in [0, 1), got {self.slack}")

    @property
    def drawn(self) -> dict[str, int]:
        """How many prompts are drawn, and by which seed."""
        return {"num_prompts": self.num_prompts, "num_dev": self.num_dev, "seed": self.seed}

    @property
    def sizes(self) -> tuple[int, ...]:
        """Prompts decoded together, in the order they are clocked."""
        return tuple(dict.fromkeys((self.batch_size, 1)))

    def prompts_at(self, size: int) -> int:
        """How many test prompts are clocked at a batch size."""
        return min(self.alone, self.num_prompts) if size == 1 else self.num_prompts


@dataclass(frozen=True)
class ClockCall:
    """What is clocked.

    Attributes:
        passes: the arms that come first on all tasks, and then the others.
        tasks: with generators.
        bases: task -> its model.
        how: all sizes.
        left_out: names of arms for which some task has no scoring head.
        all_dials: decode the dev prompts at every setting of a dial, in place of bisection.
    """

    passes: tuple[tuple[Arm, ...], ...]
    tasks: tuple[Task, ...]
    bases: Mapping[str, Base]
    how: How
    left_out: tuple[str, ...] = ()
    all_dials: bool = False

    @property
    def arms(self) -> tuple[Arm, ...]:
        """All arms but the reference."""
        return tuple(arm for some in self.passes for arm in some)


def check_clock(
    catalogue: Sequence[Arm],
    task: str,
    how: How,
    *,
    arms: str | None = None,
    first: str | None = None,
    model: str | None = None,
    head: str | None = None,
    all_dials: bool = False,
) -> ClockCall:
    """Refuse what cannot be clocked, and fill in what was left out.

    Args:
        catalogue: the arms declared, `sequential` among them.
        task: names with commas between them.
        how: all sizes.
        arms: names of those that run; None takes all that can.
        first: names of those that run on all tasks before any other.
        model: checkpoint folder or hub id; by default the shipped one that speaks the task.
        head: folder of a scoring head; by default the one that ships for the model.
        all_dials: as in `ClockCall`.

    Raises:
        ValueError: in one sentence with name, rule and value.
    """
    tasks = [find_task(name.strip()) for name in task.split(",")]
    require_different("task", [one.name for one in tasks])
    bases = {one.name: base_of(one.name, model, head) for one in tasks}
    check_arms(catalogue)
    running, left_out = select(catalogue, arms, has_head=all(base.head is not None for base in bases.values()))
    running = [arm for arm in running if arm.name != REFERENCE]
    for arm in running:
        check_arm(arm)
    return ClockCall(
        in_passes(running, catalogue, first), tuple(tasks), bases, how, left_out=tuple(left_out), all_dials=all_dials
    )


def find_task(name: str) -> Task:
    """A task with a generator.

    Raises:
        ValueError: for any other name.
    """
    task = get(name)
    if task.make is None:
        raise ValueError(f"task must have a generator to draw prompts from, got {name}")
    return task


def base_of(task: str, model: str | None, head: str | None) -> Base:
    """The model of a task and its head: those named, else those that ship for the task.

    Raises:
        ValueError: for a folder that holds none.
    """
    if model is not None:
        check_model(model, "")
        return Base(model, find_head(model, head))
    name = BASES.get(task, MODEL)
    check_model(str(shipped(name)), "")
    own = shipped(f"{name}-head")
    return Base(str(shipped(name)), str(own) if head is None and own.is_dir() else head and named_head(head))


def check_arm(arm: Arm) -> None:
    """Refuse an arm whose kind is not what it reads, or that leaves a setting open.

    Raises:
        ValueError: in one sentence.
    """
    if arm.tune or arm.tune_for:
        raise ValueError(
            f"tune of arm {arm.name} must be empty, for a variant is an arm of its own, got {shown(arm.tune)}"
        )
    if arm.head is not None:
        raise ValueError(f"head of arm {arm.name} must be left to the command, got {shown(arm.head)}")
    if arm.kind == "learned" and not arm.needs_head:
        raise ValueError(f"kind of arm {arm.name} must be headless, for it reads neither head nor cascade, got learned")
    if arm.kind == "headless" and arm.needs_head:
        raise ValueError(f"kind of arm {arm.name} must be learned, for it reads a head, got headless")


def in_passes(running: Sequence[Arm], catalogue: Sequence[Arm], first: str | None) -> tuple[tuple[Arm, ...], ...]:
    """The arms that run, those named in `first` before the others and in the order named.

    Raises:
        ValueError: for a name that is not declared.
    """
    named = [name.strip() for name in (first or "").split(",") if name.strip()]
    require_different("first", named)
    known = [arm.name for arm in catalogue]
    for name in named:
        if name not in known:
            raise ValueError(f"first must be among {', '.join(known)}, got {shown(name)}")
    early = tuple(arm for name in named for arm in running if arm.name == name)
    return tuple(some for some in (early, tuple(arm for arm in running if arm not in early)) if some)
