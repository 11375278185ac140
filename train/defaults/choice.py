"""What is chosen for a head to decode with by default, and the figures that it rests on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from decoding.comparison.curves import Array, Estimate, interval, ratio_of_means, resample
from models.heads.defaults import Defaults
from train.defaults.evidence import ENOUGH, Paired

Part = Literal["screen", "confirm"]
Tables = Mapping[str, Mapping[str, Array]]  # task -> figure -> each prompt
Decode = Callable[[Defaults, Part, int | None], Tables]
"""The figures that a setting comes to on the first so many prompts of a part; None for all of them."""

MARGIN = 0.01  # accuracy under the rule's that the interval of a difference may reach down to
LOSS = 0.003  # and its estimate
POINT = 0.004  # accuracy under that of the rule's most careful bound that is too much: more than two prompts of 600
BORNE_OUT = 2  # times MARGIN, for drafts checked one by one without what is known of them beforehand
CHECKED_SPREAD = 0.005  # standard deviation beforehand of the accuracy of drafts checked one by one about the rule's
DECIDING = 300  # prompts under which a loss of MARGIN cannot be told from none
WORTH_CANVASES = 0.95  # of the rounds, under which checked drafts are worth their canvases


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
        (accuracy, rounds), (rule_accuracy, rule_rounds) = (
            (float(table["right"].mean()), float(table["rounds"].mean())) for table in (ours, rule)
        )
        difference, ratio = Paired.of(won, lost, n), ratio_of(ours, rule)
        return Against(accuracy, rounds, rule_accuracy, rule_rounds, difference, ratio)

    @property
    def keeps(self) -> bool:
        """Whether the accuracy is not under the rule's: by MARGIN with 95 % confidence, and by LOSS as it is estimated."""
        return self.difference.n >= DECIDING and not_under(self.difference)

    @property
    def holds(self) -> bool:
        """Whether `drawn` is not under none, for drafts that the rule has checked one by one; the prompts must bear it out.

        It has accepted every token of theirs from a real forward: on 1,400 to 5,600 prompts of three tasks they were from .2
        points under the rule at the same dial to 4.9 over it (24 pairs), which CHECKED_SPREAD stands for. The difference as it
        stands must be over -BORNE_OUT MARGIN with 95 % confidence; what `loses` does not hold.
        """
        found = self.difference
        return found.n >= ENOUGH and not self.loses and not_under(self.drawn) and found.least > -BORNE_OUT * MARGIN

    @property
    def drawn(self) -> Paired:
        """The difference with what is known beforehand of drafts checked one by one."""
        return self.difference.drawn_to_none(CHECKED_SPREAD)

    @property
    def loses(self) -> bool:
        """Whether the accuracy is as far under the rule's as it may be at most, or more, by three prompts at least."""
        found = self.difference
        return found.n >= ENOUGH and found.estimate <= -max(MARGIN, 3 / found.n)


def loses_point(accuracy: float, careful: float, n: int) -> bool:
    """Whether of n answers more than a POINT, and more than one, are lost to the rule at its most careful bound."""
    return round((careful - accuracy) * n) > max(1.0, POINT * n)


def not_under(difference: Paired) -> bool:
    """Whether a difference of accuracies is over -MARGIN with 95 % confidence, and over -LOSS as it is estimated."""
    return difference.least >= -MARGIN and difference.estimate >= -LOSS


@dataclass(frozen=True)
class Confirmed:
    """A setting on the further prompts of every task.

    Attributes:
        setting: how.
        tasks: task -> the setting beside the rule.
        agreed: tasks without answers; of their texts nothing is known beforehand.
        careful: task with answers -> accuracy of the rule alone at its most careful bound, where that is asked for.
    """

    setting: Defaults
    tasks: Mapping[str, Against]
    agreed: tuple[str, ...] = ()
    careful: Mapping[str, float] = field(default_factory=dict)

    @staticmethod
    def of(
        setting: Defaults, ours: Tables, rule: Tables, agreed: Sequence[str] = (), careful: Tables | None = None
    ) -> Confirmed:
        """From the figures of every prompt.

        Args:
            setting: how.
            ours, rule: figures of the setting and of the rule alone.
            agreed: tasks without answers.
            careful: figures of the rule alone at its most careful bound.
        """
        tasks = {task: Against.of(ours[task], rule[task]) for task in ours}
        most = {task: float(table["right"].mean()) for task, table in (careful or {}).items() if task not in agreed}
        return Confirmed(setting, tasks, tuple(agreed), most)

    def drawn(self, task: str) -> Paired | None:
        """The difference that decides on a task, where that is not the one of its prompts alone."""
        known = self.setting.checked == "subset" and task not in self.agreed
        return self.tasks[task].drawn if known else None

    @property
    def ratio(self) -> float:
        """Geometric mean of the ratios of rounds."""
        return float(np.exp(np.mean([np.log(one.ratio.estimate) for one in self.tasks.values()])))

    @property
    def saves(self) -> bool:
        """Whether no task loses rounds, and one saves some by its interval: enough to be worth canvases, if any."""
        slower = any(one.ratio.low > 1 for one in self.tasks.values())
        least = WORTH_CANVASES if self.setting.checked else 1
        return not slower and any(one.ratio.high < least for one in self.tasks.values())

    @property
    def keeps(self) -> bool:
        """Whether no task loses answers; drafts that are checked exactly cannot, those checked one by one hardly.

        Beside the rule at its bound, which may have lost some itself, none may lose a POINT to the most careful bound.
        """
        if self.setting.checked == "exact":
            return True
        if any(self.strays(task) for task in self.careful):
            return False
        return all(one.keeps if self.drawn(task) is None else one.holds for task, one in self.tasks.items())

    def strays(self, task: str) -> bool:
        """Whether a POINT is lost to the rule at its most careful bound."""
        one = self.tasks[task]
        return loses_point(one.accuracy, self.careful[task], one.difference.n)

    @property
    def loses(self) -> bool:
        """Whether further prompts need not be asked: a task loses answers, or no rounds are saved."""
        exact = self.setting.checked == "exact"
        return not self.saves or (not exact and any(one.loses for one in self.tasks.values()))

    @property
    def wins(self) -> bool:
        """Whether it loses no answers and saves rounds."""
        return self.keeps and self.saves

    def as_json(self) -> dict[str, Any]:
        """Everything, as data."""
        tasks = {task: asdict(found) for task, found in self.tasks.items()}
        for task, found in tasks.items():
            drawn = self.drawn(task)
            found.update({} if drawn is None else {"drawn": asdict(drawn)})
        return {**asdict(self.setting), "tasks": tasks} | ({"careful": dict(self.careful)} if self.careful else {})


@dataclass(frozen=True)
class Worth:
    """Drafts of the cascade beside drafts from the present reading, on the screened prompts; these save rounds as well.

    Attributes:
        setting: with drafts that are checked.
        ratios: task -> rounds over those without the cascade.
    """

    setting: Defaults
    ratios: Mapping[str, Estimate]

    @staticmethod
    def of(setting: Defaults, ours: Tables, without: Tables) -> Worth:
        """From the figures of every prompt."""
        return Worth(setting, {task: ratio_of(ours[task], without[task]) for task in ours})

    @property
    def saves(self) -> bool:
        """Whether the cascade saves rounds on every task, by the interval; one that knows nothing does not."""
        return all(ratio.high < 1 for ratio in self.ratios.values())

    def as_json(self) -> dict[str, Any]:
        """Everything, as data."""
        return {**asdict(self.setting), "ratios": {task: asdict(ratio) for task, ratio in self.ratios.items()}}


def ratio_of(ours: Mapping[str, Array], theirs: Mapping[str, Array]) -> Estimate:
    """Rounds of one over those of the other, with an interval over prompts."""
    found = interval(ratio_of_means(resample(len(ours["rounds"])), ours["rounds"], theirs["rounds"]))
    assert found is not None
    return found


@dataclass(frozen=True)
class Choice:
    """The settings chosen, and what they rest on.

    Attributes:
        defaults: what is written into the head's folder.
        rule: the rule without the head, at the bound it is recommended with.
        confirmed: what was put to the further prompts, in this order.
        n: the further prompts of each task.
        agreed: tasks without answers, where right is what the rule alone writes at its most careful bound.
        worth: what the cascade is worth to each form with checked drafts.
    """

    defaults: Defaults
    rule: Defaults
    confirmed: tuple[Confirmed, ...]
    n: Mapping[str, int]
    agreed: tuple[str, ...] = ()
    worth: tuple[Worth, ...] = ()

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
        chosen = {"defaults": asdict(self.defaults), "rule": asdict(self.rule), "n": dict(self.n)}
        tried = {name: [one.as_json() for one in getattr(self, name)] for name in ("worth", "confirmed")}
        return {**chosen, "agreed": list(self.agreed), **tried}


@dataclass(frozen=True)
class Choices:
    """What is chosen for every task, and for prompts of none of them.

    Attributes:
        each: task -> what was chosen for it.
        defaults: what is written into the head's folder.
        worth: what the cascade is worth on all tasks, where prompts of none of them might have drafts checked.
    """

    each: Mapping[str, Choice]
    defaults: Defaults
    worth: Worth | None = None

    def as_json(self) -> dict[str, Any]:
        """Everything, as data."""
        general = {name: value for name, value in asdict(self.defaults).items() if name != "tasks"}
        worth = {} if self.worth is None else {"worth": self.worth.as_json()}
        return {"defaults": general, **worth, "tasks": {task: one.as_json() for task, one in self.each.items()}}
