"""Which settings a head decodes with by default: those that save rounds without losing answers, else the rule without the head.

A few dev prompts screen every setting at several bounds. The best are put to further prompts one after the other, each to more and
more of them, until it has lost too many answers or it is sure that it loses none (non-inferiority with a margin of `MARGIN`).
Drafts that the rule itself checks one by one come first: of them it is known beforehand that they hardly lose.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from decoding.comparison.curves import Array
from models.heads.defaults import ALONE, CAREFUL, Defaults
from train.defaults.choice import DECIDING, Choice, Choices, Confirmed, Decode, Tables, Worth, loses_point
from train.defaults.evidence import ENOUGH

FEW = 100  # further prompts after which a bolder rule may be left already
ATTEMPTS = 4  # settings that are put to the further prompts one after the other
WORTH_RISK = 0.9  # of the rounds of exactly checked drafts, under which what may lose answers is tried
FIRST = 0.01  # the bound a search begins at


def choose(
    decode: Decode,
    forms: Sequence[Defaults],
    bounds: Sequence[float],
    n: Mapping[str, int],
    *,
    unread: Decode | None = None,
    agreed: Sequence[str] = (),
) -> Choice:
    """Try the forms of the head at several bounds, put the best to further prompts, and take what wins with fewest rounds.

    Under DECIDING prompts nothing is tried but drafts that the rule itself checks.

    Args:
        decode: figures of the prompts of every task under a setting.
        forms: what the head may do; their bounds are those of `bounds`.
        bounds: the dial.
        n: task -> prompts that decide; where one has fewer than ENOUGH nothing is tried and the rule alone is taken.
        unread: the same of checked drafts made without the cascade; forms whose own save no more are left out.
        agreed: tasks without answers.
    """
    ordered, count = sorted(bounds), min(n.values())
    if count < ENOUGH:
        nearest = min(ordered, key=lambda bound: abs(np.log(bound / CAREFUL)))
        rule = Defaults(ALONE, nearest, 0)
        return Choice(rule, rule, (), n, tuple(agreed))
    rule = settled(decode, recommended(decode, ordered), ordered, count)
    drafting = [replace(form, risk_bound=rule.risk_bound) for form in forms if form.checked]
    worth = () if unread is None else tuple(worth_of(decode, unread, setting) for setting in drafting)
    checked = drafting if unread is None else [one.setting for one in worth if one.saves]
    free = [form for form in forms if not form.checked] if count >= DECIDING else []
    confirmed = tried(decode, checked, free, rule, ordered, looks_at(count), agreed=agreed)
    confirmed += [
        confirm(decode, replace(form, risk_bound=rule.risk_bound), rule, (ENOUGH,), ordered[0], agreed=agreed)
        for form in free
        if untold(form, confirmed)
    ]
    won = min((one for one in confirmed if one.wins), key=lambda one: one.ratio, default=None)
    return Choice(rule if won is None else won.setting, rule, tuple(confirmed), n, tuple(agreed), worth)


def worth_of(decode: Decode, unread: Decode, setting: Defaults) -> Worth:
    """Drafts of the cascade beside drafts made without it, on the screened prompts.

    Args:
        decode: figures of the screened prompts under a setting.
        unread: the same with drafts from the present reading.
        setting: with drafts that are checked.
    """
    return Worth.of(setting, decode(setting, "screen", None), unread(setting, "screen", None))


def untold(form: Defaults, confirmed: Sequence[Confirmed]) -> bool:
    """Whether a form is the head without looks, of which nothing has been told."""
    plain = form.rule is None and not form.looks
    return plain and not any(one.setting.rule is None and not one.setting.looks for one in confirmed)


def tried(
    decode: Decode,
    checked: Sequence[Defaults],
    free: Sequence[Defaults],
    rule: Defaults,
    ordered: Sequence[float],
    looked: Sequence[int],
    *,
    agreed: Sequence[str] = (),
) -> list[Confirmed]:
    """What is put to the further prompts: drafts checked one by one, then settings with fewer rounds still, else exact drafts.

    Drafts checked exactly give the rule's texts: what may lose answers is tried only where it would save more than they
    (WORTH_RISK).

    Args:
        decode: figures of the prompts of every task under a setting.
        checked: settings with drafts, at the bound of the rule.
        free: forms without, whose bounds move.
        rule: the rule alone.
        ordered: bounds, from careful to bold.
        looked: after how many further prompts a setting is judged.
        agreed: tasks without answers.
    """
    screened = decode(rule, "screen", None)
    ratios = {setting: mean_ratio(decode(setting, "screen", None), screened) for setting in checked}
    exact = [setting for setting in checked if setting.checked == "exact" and ratios[setting] < 1]
    most = WORTH_RISK * min((ratios[setting] for setting in exact), default=1 / WORTH_RISK)
    one_by_one = [setting for setting in checked if setting.checked == "subset" and ratios[setting] < most]
    found = [confirm(decode, setting, rule, looked, ordered[0], agreed=agreed) for setting in one_by_one]
    most = min([most, *(WORTH_RISK * one.ratio for one in found if one.wins)])
    for number, setting in enumerate(candidates(decode, free, ordered, screened, most), 1):
        found.append(confirm(decode, setting, rule, looked, ordered[0], agreed=agreed))
        if found[-1].wins or number == ATTEMPTS:
            break
    if not any(one.wins for one in found):
        found += [confirm(decode, setting, rule, (ENOUGH,), ordered[0], agreed=agreed) for setting in exact]
    return found


def looks_at(count: int) -> tuple[int, ...]:
    """After how many further prompts a setting is judged: from ENOUGH, where it may have lost already, to all of them."""
    return tuple(sorted({ENOUGH, min(count, DECIDING), count}))


def confirm(
    decode: Decode,
    setting: Defaults,
    rule: Defaults,
    looked: Sequence[int],
    least: float,
    *,
    agreed: Sequence[str] = (),
) -> Confirmed:
    """The setting beside the rule on more and more further prompts, until it loses; only all of them let it win.

    Args:
        decode: figures of the prompts of every task under a setting.
        setting: how.
        rule: the rule alone.
        looked: after how many prompts it is judged.
        least: the most careful bound.
        agreed: tasks without answers.
    """
    for count in looked:
        ours, theirs = decode(setting, "confirm", count), decode(rule, "confirm", count)
        found = Confirmed.of(setting, ours, theirs, agreed)
        if found.loses:
            return found
    if setting.checked == "exact" or not found.wins:
        return found
    return Confirmed.of(setting, ours, theirs, agreed, decode(replace(rule, risk_bound=least), "confirm", count))


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
    """The rule alone at the boldest bound up to its own that loses no POINT to the most careful one on the further prompts.

    Args:
        decode: figures of the prompts of every task under a setting.
        rule: at the bound to begin with.
        ordered: bounds, from careful to bold.
        count: of the prompts.
    """
    careful = replace(rule, risk_bound=ordered[0])
    for bound in [bound for bound in reversed(ordered) if ordered[0] < bound <= rule.risk_bound]:
        bolder = replace(rule, risk_bound=bound)
        for few in (min(FEW, count), count):
            theirs, ours = (decode(one, "confirm", few) for one in (careful, bolder))
            if any(behind(ours[t], theirs[t]) for t in ours):
                break
        if not any(
            loses_point(ours[t]["right"].mean(), theirs[t]["right"].mean(), len(ours[t]["right"])) for t in ours
        ):
            return bolder
    return careful


def behind(ours: Mapping[str, Array], theirs: Mapping[str, Array]) -> bool:
    """Whether more prompts are lost than won, by more than one and more than chance: lost - won > max(1, sqrt(lost + won))."""
    lost, won = ((a["right"] > b["right"]).sum() for a, b in ((theirs, ours), (ours, theirs)))
    return bool(lost - won > max(1.0, np.sqrt(lost + won)))


def mean_ratio(ours: Tables, rule: Tables) -> float:
    """Geometric mean over the tasks of the ratio of rounds."""
    return float(np.exp(np.mean([np.log(ours[t]["rounds"].mean() / rule[t]["rounds"].mean()) for t in ours])))


def general(decode: Decode, each: Mapping[str, Choice], *, unread: Decode) -> Choices:
    """Prompts of no task get what all tasks agree on, else the rule alone at the most careful of their bounds.

    Args:
        decode: figures of the screened prompts of every task under a setting.
        each: task -> its choice.
        unread: the same of checked drafts that are made without the cascade. The rule alone has its drafts checked exactly where
            that saves rounds, a task was won by checked drafts, and the cascade saves rounds on every task.
    """
    alone = min((one.rule for one in each.values()), key=lambda rule: rule.risk_bound)
    chosen, worth = {one.defaults for one in each.values()}, None
    others = chosen.pop() if len(chosen) == 1 else alone
    checked = any(one.won is not None and one.won.setting.checked for one in each.values())
    if others == alone and len(each) > 1 and checked and all(one.enough for one in each.values()):
        setting = replace(alone, checked="exact")
        worth = worth_of(decode, unread, setting)
        tried = Confirmed.of(setting, decode(setting, "screen", None), decode(alone, "screen", None))
        others = setting if worth.saves and tried.wins else others
    own = tuple((task, one.defaults) for task, one in each.items() if one.defaults != others)
    return Choices(each, replace(others, tasks=own), worth)
