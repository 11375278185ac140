"""List edits, in which parallel commits are free, costly or impossible by construction."""

import random
import re
import string
from collections import Counter
from dataclasses import dataclass

from models.complaints import shown
from train.tasks.puzzles.puzzle import puzzle
from train.tasks.task import Example

LENGTHS = (4, 12)
DIGITS, LETTERS = string.digits, string.ascii_lowercase
_PROMPT = re.compile(
    r"(?P<edit>copy|reverse|sort|shuffle|insert|remove|replace)"
    r"(?: (?P<where>any|at (?P<index>0|[1-9][0-9]?)))?(?: by (?P<item>[0-9a-z]))?: (?P<items>[0-9a-z](?: [0-9a-z])*)"
)
_WHOLE = ("copy", "reverse", "sort", "shuffle")
_WITH_ITEM = ("insert", "replace")


@dataclass(frozen=True)
class Edit:
    """A parsed prompt: what to do to which items; `index` None means at any place, `item` is what to write."""

    name: str
    items: tuple[str, ...]
    index: int | None = None
    item: str | None = None


def parse(prompt: str) -> Edit:
    """Read a prompt such as `sort: 4 7 1 9`, `remove any: a c b`, `insert at 2 by x: a c b`; indices count from 0.

    Raises:
        ValueError: if the prompt has another form or its index lies outside the list.
    """
    match = _PROMPT.fullmatch(prompt)
    if match is not None:
        name, items = match["edit"], tuple(match["items"].split())
        whole = match["where"] is None
        fits = whole == (name in _WHOLE) and (match["item"] is not None) == (name in _WITH_ITEM)
        index = None if match["index"] is None else int(match["index"])
        if fits and (index is None or index < len(items) + (name == "insert")):
            return Edit(name, items, index, match["item"])
    raise ValueError(f"lists prompt must look like 'sort: 4 7 1' or 'insert at 2 by x: 4 7 1', got {shown(prompt)}")


def answers(edit: Edit) -> list[tuple[str, ...]]:
    """List the valid answers in order of the place edited; not for `shuffle`, which has n! of them."""
    items = edit.items
    if edit.name in _WHOLE:
        return [{"copy": items, "reverse": items[::-1], "sort": tuple(sorted(items))}[edit.name]]
    places = range(len(items) + (edit.name == "insert")) if edit.index is None else (edit.index,)
    written = () if edit.item is None else (edit.item,)
    skip = edit.name != "insert"
    return [items[:index] + written + items[index + skip :] for index in places]


def make(rng: random.Random) -> Example:
    """Draw an edit, 4 to 12 items (digits or letters) and, where several answers are valid, one of them uniformly."""
    name = rng.choice((*_WHOLE, *_WITH_ITEM, "remove"))
    where = "" if name in _WHOLE else rng.choice(("any", "at"))
    count = rng.randint(*LENGTHS)
    if name in ("copy", "reverse", "sort") or where == "at":
        items = rng.choices(rng.choice((DIGITS, LETTERS)), k=count)
        item = rng.choice(DIGITS + LETTERS)
    else:  # distinct items, so that the limits below hold
        pool = LETTERS if count >= len(DIGITS) else rng.choice((DIGITS, LETTERS))
        item, *items = rng.sample(pool, count + 1)
    place = f" at {rng.randrange(count + (name == 'insert'))}" if where == "at" else f" {where}" if where else ""
    by = f" by {item}" if name in _WITH_ITEM else ""
    prompt = f"{name}{place}{by}: {' '.join(items)}"
    answer = rng.sample(items, count) if name == "shuffle" else rng.choice(answers(parse(prompt)))
    return Example(prompt, " ".join(answer))


def canonical(prompt: str) -> str:
    """Name the instance by its prompt."""
    parse(prompt)
    return prompt


def check(example: Example, text: str) -> bool:
    """Accept every list the instruction allows, whatever the reference."""
    edit = parse(example.prompt)
    answer = tuple(text.split(" "))
    if edit.name == "shuffle":
        return Counter(answer) == Counter(edit.items)
    return answer in answers(edit)


LISTS = puzzle("lists", 19, 32, unique_answer=False, make=make, canonical=canonical, check=check)
