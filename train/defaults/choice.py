"""Which settings a head decodes with by default: those that save rounds without losing answers, else the rule without the head."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np

from decoding.comparison.curves import Array, Estimate, interval, ratio_of_means, resample
from models.heads.defaults import ALONE, CAREFUL, Defaults
from train.defaults.evidence import ENOUGH, Paired

Part = Literal["screen", "confirm"]
Tables = Mapping[str, Mapping[str, Array]]  # task -> figure -> each prompt
Decode = Callable[[Defaults, Part], Tables]

POINT = 0.0075  # accuracy whose loss makes the rule alone more careful: two prompts of 240
MARGIN = 0.03  # accuracy under the rule's that the interval of a difference may reach down to
LOSS = 0.005  # and its estimate
ATTEMPTS = 3  # settings that are put to the further prompts one after the other
WORTH_CANVASES = 0.95  # of the rounds, under which checked drafts are worth their canvases
FIRST = 0.01  # the bound a search begins at


@dataclass(frozen=True)
class Against:
    """A setting beside the rule alone on the same prompts of one task.

    Attributes:
        accuracy, rounds: means of the setting.
        rule_accuracy, rule_rounds: those of the rule.
        difference: of the accuracies.
        ratio: rounds over those of the rule.
    """

    accuracy: float
    rounds: float
    rule_accuracy: float
    rule_rounds: float
    difference: Paired
    ratio: Estimate

    @staticmethod
    def of(ours: Mapping[str, Array], rule: Mapping[str, Array]) -> Against:
        """From the figures of every prompt."""
        n = len(ours["right"])
        won, lost = (int((a["right"] > b["right"]).sum()) for a, b in ((ours, rule), (rule, ours)))
        ratio = interval(ratio_of_means(resample(n), ours["rounds"], rule["rounds"]))
        assert ratio is not None
        (accuracy, rounds), (rule_accuracy, rule_rounds) = (
            (float(table["right"].mean()), float(table["rounds"].mean())) for table in (ours, rule)
        )
        return Against(accuracy, rounds, rule_accuracy, rule_rounds, Paired.of(won, lost, n), ratio)

    @property
    def keeps(self) -> bool:
        """Whether there are prompts enough, and the accuracy is not under the rule's by its interval nor its estimate."""
        found = self.difference
        return found.n >= ENOUGH and found.low >= -MARGIN and found.estimate >= -LOSS


@dataclass(frozen=True)
class Confirmed:
    """A setting on the further prompts of every task."""

    setting: Defaults
    tasks: Mapping[str, Against]

    @property
    def ratio(self) -> float:
        """Geometric mean of the ratios of rounds."""
        return float(np.exp(np.mean([np.log(one.ratio.estimate) for one in self.tasks.values()])))

    @property
    def keeps(self) -> bool:
        """Whether no task loses answers; checked drafts cannot."""
        return self.setting.checked or all(one.keeps for one in self.tasks.values())

    @property
    def wins(self) -> bool:
        """Whether no task loses answers or rounds, and one saves rounds by its interval: enough to be worth canvases, if any."""
        slower = any(one.ratio.low > 1 for one in self.tasks.values())
        least = WORTH_CANVASES if self.setting.checked else 1
        return self.keeps and not slower and any(one.ratio.high < least for one in self.tasks.values())


@dataclass(frozen=True)
class Choice:
    """The settings chosen, and what they rest on.

    Attributes:
        defaults: what is written into the head's folder.
        rule: the rule without the head, at the bound it is recommended with.
        confirmed: what was put to the further prompts, in this order.
        n: the further prompts of each task.
        agreed: tasks without answers, where right is what the rule alone writes at its most careful bound.
    """

    defaults: Defaults
    rule: Defaults
    confirmed: tuple[Confirmed, ...]
    n: Mapping[str, int]
    agreed: tuple[str, ...] = ()

    @property
    def won(self) -> Confirmed | None:
        """What the head won with."""
        return next((one for one in self.confirmed if one.setting == self.defaults), None)

    @property
    def enough(self) -> bool:
        """Whether every task had prompts enough to decide by."""
        return min(self.n.values()) >= ENOUGH

    def as_json(self) -> dict[str, Any]:
        """Everything, as data."""
        lines = [
            {**asdict(one.setting), "tasks": {task: asdict(found) for task, found in one.tasks.items()}}
            for one in self.confirmed
        ]
        chosen = {"defaults": asdict(self.defaults), "rule": asdict(self.rule), "n": dict(self.n)}
        return {**chosen, "agreed": list(self.agreed), "confirmed": lines}


@dataclass(frozen=True)
class Choices:
    """What is chosen for every task, and for prompts of none of them.

    Attributes:
        each: task -> what was chosen for it.
        defaults: what is written into the head's folder.
    """

    each: Mapping[str, Choice]
    defaults: Defaults

    @staticmethod
    def of(decode: Decode, each: Mapping[str, Choice], *, checked: bool) -> Choices:
        """Prompts of no task get what all tasks agree on, else the rule alone at the most careful of their bounds.

        Args:
            decode: figures of the screened prompts of every task under a setting.
            each: task -> its choice.
            checked: whether the rule alone may have its drafts checked, where that saves rounds.
        """
        alone = min((one.rule for one in each.values()), key=lambda rule: rule.risk_bound)
        agreed = {one.defaults for one in each.values()}
        general = agreed.pop() if len(agreed) == 1 else alone
        if general == alone and len(each) > 1 and checked and all(one.enough for one in each.values()):
            setting = replace(alone, checked=True)
            rule, ours = decode(alone, "screen"), decode(setting, "screen")
            tried = Confirmed(setting, {task: Against.of(ours[task], rule[task]) for task in rule})
            general = setting if tried.wins else general
        own = tuple((task, one.defaults) for task, one in each.items() if one.defaults != general)
        return Choices(each, replace(general, tasks=own))

    def as_json(self) -> dict[str, Any]:
        """Everything, as data."""
        general = asdict(replace(self.defaults, tasks=()))
        return {"defaults": general, "tasks": {task: one.as_json() for task, one in self.each.items()}}


def choose(decode: Decode, forms: Sequence[Defaults], bounds: Sequence[float], n: Mapping[str, int]) -> Choice:
    """Try the forms of the head at several bounds, put the best to further prompts, and take the first that wins.

    The rule alone with its drafts checked has the rule's bound and texts: it is taken where nothing else wins and it saves rounds.

    Args:
        decode: figures of the prompts of every task under a setting.
        forms: the head without looks first, then with; their bounds are those of `bounds`.
        bounds: the dial.
        n: task -> prompts that decide; where one has fewer than ENOUGH nothing is tried and the rule alone is taken.
    """
    ordered = sorted(bounds)
    nearest = min(ordered, key=lambda bound: abs(np.log(bound / CAREFUL)))
    rule = Defaults(ALONE, nearest, 0)
    if min(n.values()) < ENOUGH:
        return Choice(rule, rule, (), n)
    rule = settled(decode, recommended(decode, ordered), ordered)
    against = decode(rule, "screen")
    tried = {form: climb(decode, form, ordered, against) for form in forms if not form.checked}
    found = sorted(
        ((mean_ratio(tables, against), s) for some in tried.values() for s, tables in some.items()), key=_first
    )
    order = [setting for ratio, setting in found if ratio < 1][:ATTEMPTS]
    order += [_best(some, against) for form, some in tried.items() if some and not form.looks]  # told in any case
    confirmed: list[Confirmed] = []
    chosen = rule
    reference = decode(rule, "confirm") if order else {}
    for setting in dict.fromkeys(order):
        if chosen != rule and setting.looks:
            continue
        tables = decode(setting, "confirm")
        confirmed.append(Confirmed(setting, {t: Against.of(tables[t], reference[t]) for t in tables}))
        if chosen == rule and confirmed[-1].wins:
            chosen = setting
    for form in forms if chosen == rule else ():
        if form.checked:
            setting = replace(form, risk_bound=rule.risk_bound)
            tables = decode(setting, "screen")
            confirmed.append(Confirmed(setting, {t: Against.of(tables[t], against[t]) for t in tables}))
            chosen = setting if confirmed[-1].wins else chosen
    return Choice(chosen, rule, tuple(confirmed), n)


def recommended(decode: Decode, ordered: Sequence[float]) -> Defaults:
    """The rule alone at the boldest bound that is in no task behind the most accurate one on the screened prompts."""
    tables = {bound: decode(Defaults(ALONE, bound, 0), "screen") for bound in ordered}
    top = {task: max((one[task] for one in tables.values()), key=_right) for task in tables[ordered[0]]}
    kept = [bound for bound, one in tables.items() if not any(behind(one[task], top[task]) for task in top)]
    least = min(tables, key=lambda bound: sum(_right(top[task]) - _right(tables[bound][task]) for task in top))
    return Defaults(ALONE, max(kept, default=least), 0)


def behind(ours: Mapping[str, Array], theirs: Mapping[str, Array]) -> bool:
    """Whether more prompts are lost than won, by more than one and more than chance: lost - won > max(1, sqrt(lost + won))."""
    lost, won = ((a["right"] > b["right"]).sum() for a, b in ((theirs, ours), (ours, theirs)))
    return bool(lost - won > max(1.0, np.sqrt(lost + won)))


def settled(decode: Decode, rule: Defaults, ordered: Sequence[float]) -> Defaults:
    """The rule alone at the first bound from there on that loses no point to the next more careful one on the further prompts."""
    bolder = decode(rule, "confirm")
    for bound in [bound for bound in reversed(ordered) if bound < rule.risk_bound]:
        careful = decode(replace(rule, risk_bound=bound), "confirm")
        if all(careful[t]["right"].mean() - bolder[t]["right"].mean() < POINT for t in bolder):
            break
        rule, bolder = replace(rule, risk_bound=bound), careful
    return rule


def climb(decode: Decode, form: Defaults, ordered: Sequence[float], rule: Tables) -> dict[Defaults, Tables]:
    """The form at bounds not behind the rule on the screened prompts: from FIRST on bolder until one is, else more careful.

    Args:
        decode: decodes with a setting on a split.
        form: the setting whose bound moves.
        ordered: bounds, from careful to bold.
        rule: what the rule alone does.
    """
    start = min(range(len(ordered)), key=lambda i: abs(np.log(ordered[i] / FIRST)))
    kept: dict[Defaults, Tables] = {}
    for steps in (range(start, len(ordered)), range(start - 1, -1, -1)):
        for i in steps:
            setting = replace(form, risk_bound=ordered[i])
            tables = decode(setting, "screen")
            loses = any(behind(tables[task], rule[task]) for task in tables)
            if not loses:
                kept[setting] = tables
            if loses == (steps.step > 0):
                break
        if kept:
            break
    return kept


def mean_ratio(ours: Tables, rule: Tables) -> float:
    """Geometric mean over the tasks of the ratio of rounds."""
    return float(np.exp(np.mean([np.log(ours[t]["rounds"].mean() / rule[t]["rounds"].mean()) for t in ours])))


def _best(some: Mapping[Defaults, Tables], rule: Tables) -> Defaults:
    return min(some, key=lambda setting: mean_ratio(some[setting], rule))


def _right(table: Mapping[str, Array]) -> float:
    return float(table["right"].sum())


def _first(pair: tuple[float, Defaults]) -> float:
    return pair[0]
