"""Which settings a head decodes with by default: those that save rounds without losing answers, else the rule without the head.

A few dev prompts screen every setting at several bounds. The best are put to further prompts one after the other, each to more and
more of them, until it has lost too many answers or it is sure that it loses none (non-inferiority with a margin of `MARGIN`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from decoding.comparison.curves import Array
from models.heads.defaults import ALONE, CAREFUL, Defaults
from train.defaults.choice import DECIDING, Choice, Choices, Confirmed, Decode, Tables
from train.defaults.evidence import ENOUGH

POINT = 0.004  # accuracy whose loss makes the rule alone more careful: more than one prompt of 300
ATTEMPTS = 4  # settings that are put to the further prompts one after the other
WORTH_RISK = 0.9  # of the rounds of exactly checked drafts, under which what may lose answers is tried
FIRST = 0.01  # the bound a search begins at


def choose(decode: Decode, forms: Sequence[Defaults], bounds: Sequence[float], n: Mapping[str, int]) -> Choice:
    """Try the forms of the head at several bounds, put the best to further prompts, and take what wins with fewest rounds.

    Drafts checked exactly at the rule's bound give the rule's texts: they are taken where nothing else wins and they save rounds,
    and what may lose answers is tried only where it would save more than they (WORTH_RISK).

    Args:
        decode: figures of the prompts of every task under a setting.
        forms: what the head may do; their bounds are those of `bounds`.
        bounds: the dial.
        n: task -> prompts that decide; where one has fewer than ENOUGH nothing is tried and the rule alone is taken.
    """
    ordered, count = sorted(bounds), min(n.values())
    if count < ENOUGH:
        nearest = min(ordered, key=lambda bound: abs(np.log(bound / CAREFUL)))
        rule = Defaults(ALONE, nearest, 0)
        return Choice(rule, rule, (), n)
    rule = settled(decode, recommended(decode, ordered), ordered, count)
    screened = decode(rule, "screen", None)
    exact, least = [replace(form, risk_bound=rule.risk_bound) for form in forms if form.checked == "exact"], 1.0
    for setting in exact:
        least = min(1.0, WORTH_RISK * mean_ratio(decode(setting, "screen", None), screened))
    free = [form for form in forms if form.checked != "exact"] if count >= DECIDING else []
    confirmed = tried(decode, free, rule, ordered, looks_at(count), least)
    if not any(one.wins for one in confirmed):
        confirmed += [confirm(decode, setting, rule, (ENOUGH,)) for setting in exact if least < WORTH_RISK]
    confirmed += [
        confirm(decode, replace(form, risk_bound=rule.risk_bound), rule, (ENOUGH,))
        for form in free
        if untold(form, confirmed)
    ]
    won = min((one for one in confirmed if one.wins), key=lambda one: one.ratio, default=None)
    return Choice(rule if won is None else won.setting, rule, tuple(confirmed), n)


def untold(form: Defaults, confirmed: Sequence[Confirmed]) -> bool:
    """Whether a form is the head without looks, of which nothing has been told."""
    plain = form.rule is None and not form.looks
    return plain and not any(one.setting.rule is None and not one.setting.looks for one in confirmed)


def tried(
    decode: Decode,
    forms: Sequence[Defaults],
    rule: Defaults,
    ordered: Sequence[float],
    looked: Sequence[int],
    most: float,
) -> list[Confirmed]:
    """What may lose answers, put to the further prompts: drafts checked one by one first, then settings with fewer rounds still.

    Args:
        decode: figures of the prompts of every task under a setting.
        forms: whose bounds move.
        rule: the rule alone.
        ordered: bounds, from careful to bold.
        looked: after how many further prompts a setting is judged.
        most: ratio of rounds that it must stay under.
    """
    screened, found = decode(rule, "screen", None), list[Confirmed]()
    for form in forms:
        setting = replace(form, risk_bound=rule.risk_bound)
        if form.checked and mean_ratio(decode(setting, "screen", None), screened) < most:
            found.append(confirm(decode, setting, rule, looked))
    most = min([most, *(WORTH_RISK * one.ratio for one in found if one.wins)])
    checked = len(found)
    for setting in candidates(decode, forms, ordered, screened, most):
        if any(one.setting == setting for one in found):
            continue
        found.append(confirm(decode, setting, rule, looked))
        if found[-1].wins or len(found) - checked == ATTEMPTS:
            break
    return found


def looks_at(count: int) -> tuple[int, ...]:
    """After how many further prompts a setting is judged: from ENOUGH, where it may have lost already, to all of them."""
    return tuple(sorted({ENOUGH, min(count, DECIDING), count}))


def confirm(decode: Decode, setting: Defaults, rule: Defaults, looked: Sequence[int]) -> Confirmed:
    """The setting beside the rule on more and more further prompts, until it loses; only all of them let it win.

    Args:
        decode: figures of the prompts of every task under a setting.
        setting: how.
        rule: the rule alone.
        looked: after how many prompts it is judged.
    """
    for count in looked:
        found = Confirmed.of(setting, decode(setting, "confirm", count), decode(rule, "confirm", count))
        if found.loses:
            break
    return found


def candidates(
    decode: Decode, forms: Sequence[Defaults], ordered: Sequence[float], rule: Tables, most: float
) -> Iterator[Defaults]:
    """Settings that may win, that with fewest rounds on the screened prompts first; a form is tried more carefully once it failed.

    Args:
        decode: figures of the prompts of every task under a setting.
        forms: whose bounds move.
        ordered: bounds, from careful to bold.
        rule: what the rule alone does on the screened prompts.
        most: of its rounds, above which a setting cannot win.
    """
    left = {form: descent(decode, form, ordered, rule) for form in forms}
    heads: dict[Defaults, tuple[float, Defaults]] = {}

    def advance(form: Defaults) -> None:
        setting = next(left[form], None)
        ratio = None if setting is None else mean_ratio(decode(setting, "screen", None), rule)
        if setting is None or ratio is None or ratio >= most:
            heads.pop(form, None)
        else:
            heads[form] = ratio, setting

    for form in forms:
        advance(form)
    while heads:
        form = min(heads, key=lambda one: heads[one][0])
        yield heads[form][1]
        advance(form)


def descent(decode: Decode, form: Defaults, ordered: Sequence[float], rule: Tables) -> Iterator[Defaults]:
    """The form from its boldest bound on that is not behind the rule on the screened prompts, more and more careful.

    Args:
        decode: figures of the prompts of every task under a setting.
        form: the setting whose bound moves.
        ordered: bounds, from careful to bold.
        rule: what the rule alone does there.
    """

    def loses(i: int) -> bool:
        ours = decode(replace(form, risk_bound=ordered[i]), "screen", None)
        return any(behind(ours[task], rule[task]) for task in ours)

    start = min(range(len(ordered)), key=lambda i: abs(np.log(ordered[i] / FIRST)))
    if loses(start):
        boldest = next((i for i in range(start - 1, -1, -1) if not loses(i)), -1)
    else:
        boldest = next((i - 1 for i in range(start + 1, len(ordered)) if loses(i)), len(ordered) - 1)
    for i in range(boldest, -1, -1):
        if i >= start or i == boldest or not loses(i):
            yield replace(form, risk_bound=ordered[i])


def recommended(decode: Decode, ordered: Sequence[float]) -> Defaults:
    """The rule alone at the boldest bound up to which none is behind the most careful one on the screened prompts."""
    careful = decode(Defaults(ALONE, ordered[0], 0), "screen", None)
    kept = ordered[0]
    for bound in ordered[1:]:
        tables = decode(Defaults(ALONE, bound, 0), "screen", None)
        if any(behind(tables[task], careful[task]) for task in careful):
            break
        kept = bound
    return Defaults(ALONE, kept, 0)


def settled(decode: Decode, rule: Defaults, ordered: Sequence[float], count: int) -> Defaults:
    """The rule alone at the first bound from there on that loses no POINT to the most careful one on the further prompts.

    Args:
        decode: figures of the prompts of every task under a setting.
        rule: at the bound to begin with.
        ordered: bounds, from careful to bold.
        count: of the prompts.
    """
    for bound in [bound for bound in reversed(ordered) if ordered[0] < bound <= rule.risk_bound]:
        careful = decode(replace(rule, risk_bound=ordered[0]), "confirm", count)
        bolder = decode(replace(rule, risk_bound=bound), "confirm", count)
        if all(careful[t]["right"].mean() - bolder[t]["right"].mean() < POINT for t in bolder):
            return replace(rule, risk_bound=bound)
    return replace(rule, risk_bound=ordered[0])


def behind(ours: Mapping[str, Array], theirs: Mapping[str, Array]) -> bool:
    """Whether more prompts are lost than won, by more than one and more than chance: lost - won > max(1, sqrt(lost + won))."""
    lost, won = ((a["right"] > b["right"]).sum() for a, b in ((theirs, ours), (ours, theirs)))
    return bool(lost - won > max(1.0, np.sqrt(lost + won)))


def mean_ratio(ours: Tables, rule: Tables) -> float:
    """Geometric mean over the tasks of the ratio of rounds."""
    return float(np.exp(np.mean([np.log(ours[t]["rounds"].mean() / rule[t]["rounds"].mean()) for t in ours])))


def general(decode: Decode, each: Mapping[str, Choice], *, checked: bool) -> Choices:
    """Prompts of no task get what all tasks agree on, else the rule alone at the most careful of their bounds.

    Args:
        decode: figures of the screened prompts of every task under a setting.
        each: task -> its choice.
        checked: whether the rule alone may have its drafts checked, where that saves rounds.
    """
    alone = min((one.rule for one in each.values()), key=lambda rule: rule.risk_bound)
    agreed = {one.defaults for one in each.values()}
    others = agreed.pop() if len(agreed) == 1 else alone
    if others == alone and len(each) > 1 and checked and all(one.enough for one in each.values()):
        setting = replace(alone, checked="exact")
        tried = Confirmed.of(setting, decode(setting, "screen", None), decode(alone, "screen", None))
        others = setting if tried.wins else others
    own = tuple((task, one.defaults) for task, one in each.items() if one.defaults != others)
    return Choices(each, replace(others, tasks=own))
