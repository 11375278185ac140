"""What is compared: an arm is a decoder with its settings, declared as data; its dial is the one setting swept."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from decoding.calls.spellings import CACHES
from decoding.checked_names import VERIFIED, uses_head
from decoding.names import DIALS, POLICIES, STEPS, WHOLE, find_policy, nearest
from models.complaints import shown

Kind = Literal["headless", "learned", "control", "ceiling"]
Promise = Literal["dial", "one minus dial"]

REFERENCE = "sequential"
BEAM, LEARNED, RANDOM = "ete", "learned-parity", "random-parity"  # a parity study's arm, and the rivals' policies
BLOCK_LENGTH, USE_CACHE = "block_length", "use_cache"
OF_THE_CANVAS = (BLOCK_LENGTH, USE_CACHE)  # settings of an arm that are no settings of its policy


@dataclass(frozen=True)
class Cell:
    """An arm at one setting of its dial: what one line of results is about."""

    arm: str
    policy: str
    dial: float | None
    settings: Mapping[str, Any]
    head: str | None = None

    @property
    def policy_settings(self) -> dict[str, Any]:
        """The settings of the policy."""
        return {name: value for name, value in self.settings.items() if name not in OF_THE_CANVAS}

    @property
    def key(self) -> str:
        """Names the decoder and every setting, whatever the arm is called."""
        identity = json.dumps([self.policy, dict(self.settings), self.head], sort_keys=True)
        return hashlib.blake2b(identity.encode(), digest_size=6).hexdigest()

    @property
    def label(self) -> str:
        """For people."""
        return self.arm if self.dial is None else f"{self.arm} {self.dial:g}"


@dataclass(frozen=True)
class Arm:
    """A decoder with its settings.

    Args:
        name: what the results call it.
        kind: headless (needs no training), learned, control, or ceiling (is told what it could not know).
        policy: a name of `decoding.names.POLICIES`, or `package.module:Class`.
        dial: the setting swept along its curve; empty for an arm that is one point.
        values: settings of the dial, at least one where there is a dial.
        values_for: task -> settings of the dial in place of `values`, as many of them, so that budgets stay equal.
        settings: the other settings, where they differ from the policy's own; `block_length` in place of the task's, `use_cache`.
        tune: settings to choose on the dev split, each with the values to draw from.
        tune_for: task -> what to choose there in place of `tune`.
        promise: what the dial promises about the share of wrong commits, for the calibration.
        head: folder of this arm's own scoring head, in place of the one given to the comparison.
        on_request: run only where the arm is named.
    """

    name: str
    kind: Kind
    policy: str
    dial: str = ""
    values: tuple[float, ...] = ()
    values_for: dict[str, tuple[float, ...]] = field(default_factory=dict, kw_only=True)
    settings: dict[str, Any] = field(default_factory=dict)
    tune: dict[str, list[Any]] = field(default_factory=dict)
    tune_for: dict[str, dict[str, list[Any]]] = field(default_factory=dict, kw_only=True)
    promise: Promise | None = None
    head: str | None = None
    on_request: bool = False

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(
                f"kind of arm {self.name} must be one of {', '.join(get_args(Kind))}, got {shown(self.kind)}"
            )
        find_policy(self.policy, f"policy of arm {self.name}")
        if bool(self.dial) != bool(self.values):
            raise ValueError(f"values of arm {self.name} must go with a dial, got {shown(self.dial)} and {self.values}")
        for values in (self.values, *self.values_for.values()):
            if len(set(values)) < len(values):
                raise ValueError(f"values of arm {self.name} must differ from each other, got {values}")
        for task, values in self.values_for.items():
            if len(values) != len(self.values):
                raise ValueError(
                    f"values_for {task} of arm {self.name} must be as many as its values, {len(self.values)}, got {len(values)}"
                )
        for name in (self.dial, *self.tune, *itertools.chain(*self.tune_for.values())):
            if name in self.settings:
                raise ValueError(f"settings of arm {self.name} must leave out {name}, which is swept, got it")
        for name, choices in itertools.chain(*(space.items() for space in (self.tune, *self.tune_for.values()))):
            if not choices:
                raise ValueError(f"tune {name} of arm {self.name} must hold at least one value, got none")

    @property
    def needs_head(self) -> bool:
        """Whether the policy reads a scoring head."""
        return uses_head(self.policy, {"rule": "threshold", **self.settings}, find_policy(self.policy).head)

    @property
    def cells(self) -> tuple[Cell, ...]:
        """One cell for each setting of the dial."""
        if not self.dial:
            return (Cell(self.name, self.policy, None, self.settings, self.head),)
        return tuple(
            Cell(self.name, self.policy, v, {**self.settings, self.dial: setting_of(self.dial, v)}, self.head)
            for v in self.values
        )

    def on(self, task: str) -> Arm:
        """The arm with the settings of the dial and the tuning space that it has on a task."""
        values, space = self.values_for.get(task, self.values), self.tune_for.get(task, self.tune)
        return replace(self, values=values, values_for={}, tune=space, tune_for={})

    def require_canvas(self, task: str, gen_length: int) -> None:
        """Refuse blocks and caches that the arm, as it is `on` a task, cannot decode with there.

        Raises:
            ValueError: in one sentence.
        """
        spaces = ({name: [value] for name, value in self.settings.items()}, self.tune, {self.dial: self.values})
        lengths, caches = (list(itertools.chain(*(space.get(of, ()) for space in spaces))) for of in OF_THE_CANVAS)
        for length in lengths:
            if length is not None and (type(length) is not int or length < 1 or gen_length % length):
                rule = f"divide gen_length {gen_length} of task {task}"
                raise ValueError(f"block_length of arm {self.name} must {rule}, got {shown(length)}")
        for cache in caches:
            if not isinstance(cache, str | bool | None) or cache not in CACHES:
                raise ValueError(f"use_cache of arm {self.name} must be none, prefix or dual, got {shown(cache)}")

    def bound(self, dial: float | None) -> float | None:
        """The share of wrong commits that a setting of the dial promises, None where it promises nothing."""
        if dial is None or self.promise is None:
            return None
        return dial if self.promise == "dial" else round(1 - dial, 9)

    def draws(self, count: int, *, seed: int) -> tuple[Arm, ...]:
        """The arm at `count` different random points of its tuning space, or at all of them where it has fewer."""
        points = list(itertools.product(*self.tune.values()))
        drawn = random.Random(f"{self.name}/{seed}").sample(points, min(count, len(points)))
        return tuple(
            replace(self, settings={**self.settings, **dict(zip(self.tune, point, strict=True))}, tune={})
            for point in drawn
        )


def check_arms(arms: Sequence[Arm], *, reference: bool = True) -> None:
    """Refuse arms that share a name or, where it is needed, leave out the reference.

    Raises:
        ValueError: in one sentence.
    """
    names = [arm.name for arm in arms]
    require_different("names of arms", names)
    if reference and REFERENCE not in names:
        raise ValueError(f"arms must include the reference {REFERENCE}, got {', '.join(names)}")


def require_different(what: str, names: Sequence[str]) -> None:
    """Refuse names of which one is there twice.

    Raises:
        ValueError: naming it.
    """
    doubled = next((name for name in names if names.count(name) > 1), None)
    if doubled is not None:
        raise ValueError(f"{what} must differ, got {doubled} twice")


def select(catalogue: Iterable[Arm], wanted: str | None, *, has_head: bool) -> tuple[list[Arm], list[str]]:
    """Choose arms by name; the reference always runs.

    Args:
        catalogue: the arms declared.
        wanted: names with commas between them; None takes every arm that can run and is not on request.
        has_head: whether there is a scoring head for arms without one of their own.

    Returns:
        The arms that run, in the order of the catalogue, and the names of those left out for want of a head.

    Raises:
        ValueError: for an unknown name, and for an arm named that has no head.
    """
    catalogue = list(catalogue)
    check_arms(catalogue, reference=False)
    known = {arm.name: arm for arm in catalogue}
    named = _named(wanted)
    require_different("arms", named or ())
    for name in named or ():
        if name not in known:
            raise ValueError(f"arms must be among {', '.join(known)}, got {shown(name)}{nearest(name, known)}")
    headless = [arm.name for arm in known.values() if arm.needs_head and arm.head is None and not has_head]
    for name in named or ():
        if name in headless:
            raise ValueError(f"arm {name} must have a scoring head: give its folder with --head, got none")
    chosen = [a for name, a in known.items() if (not a.on_request if named is None else name in (*named, REFERENCE))]
    running = [arm for arm in chosen if arm.name not in headless]
    return running, [arm.name for arm in chosen if arm.name in headless]


def _named(wanted: str | None) -> list[str] | None:
    return [name.strip() for name in wanted.split(",") if name.strip()] if wanted else None


def of_parity(arms: Sequence[Arm], wanted: str | None, *, agree: bool) -> tuple[list[Arm], list[str]]:
    """The arms of a parity study, and the names of those that it has no use for.

    Args:
        arms: those that `select` chose.
        wanted: names with commas between them, or None.
        agree: texts are judged by those of the reference, which then runs too, whether it is among the arms or not.

    Raises:
        ValueError: for an arm named that such a study has no use for, and as in `check_parity`.
    """
    entrants = [arm for arm in arms if arm.name == BEAM or arm.policy in (LEARNED, RANDOM)]
    reference = [arm for arm in arms if arm.name == REFERENCE] or [Arm(REFERENCE, "headless", REFERENCE)]
    running = [*reference, *entrants] if agree else entrants
    others = [arm.name for arm in arms if arm not in running]
    for name in _named(wanted) or ():
        if name in others:
            raise ValueError(f"arms of a parity study must be {BEAM} and arms of {LEARNED} or {RANDOM}, got {name}")
    check_parity(entrants)
    return running, others


def check_parity(arms: Sequence[Arm]) -> None:
    """Refuse a parity study without beam ETE, or with an arm that has a dial.

    Raises:
        ValueError: in one sentence.
    """
    if BEAM not in [arm.name for arm in arms]:
        names = ", ".join(arm.name for arm in arms) or "none"
        raise ValueError(f"arms of a parity study must include {BEAM}, got {names}")
    for arm in arms:
        if arm.dial:
            raise ValueError(f"arm {arm.name} must have no dial in a parity study, got {arm.dial}: tune it instead")


def with_cache(arm: Arm, use_cache: str | None) -> Arm:
    """The arm behind a block cache, unless it names or tunes one itself."""
    if use_cache is None or USE_CACHE in {*arm.settings, *arm.tune}:
        return arm
    return replace(arm, settings={**arm.settings, USE_CACHE: use_cache})


def find_dial(policy: str, settings: Mapping[str, Any]) -> str:
    """The dial of a policy by name; of one around a `rule` the dial of that rule.

    Raises:
        ValueError: for a policy without one, or one of a user's own.
    """
    rule = str(settings.get("rule", "threshold" if policy == VERIFIED else None)).replace("_", "-")
    name = next((POLICIES[one].dial for one in (rule, policy) if one in POLICIES), "")
    if not name:
        raise ValueError(f"dial must be given for policy {policy}, which has none by name, got none")
    return name


def dial_values(dial: str, *, gen_length: int, block_length: int) -> tuple[float, ...]:
    """The default values of a dial from the careful end; `steps` as whole numbers for the canvas.

    Raises:
        ValueError: for a dial that is not among DIALS.
    """
    if dial not in DIALS:
        raise ValueError(f"values must be given for dial {dial}, careful ones first, got none")
    values, blocks = DIALS[dial].values, gen_length // block_length
    if dial != STEPS:
        return values
    return tuple(dict.fromkeys(float(max(1, round(share * block_length)) * blocks) for share in values))


def setting_of(dial: str, value: float) -> float | int:
    """The value of a dial as its policy wants it."""
    if dial not in WHOLE:
        return value
    if value != int(value):
        raise ValueError(f"{dial} must be a whole number, got {value}")
    return int(value)
