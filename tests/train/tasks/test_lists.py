"""List edits: what is valid, and the closed-form limits of one round against enumeration."""

import random
from collections import Counter
from itertools import islice, permutations, product
from math import prod

import pytest

from train.tasks import TASKS, Example
from train.tasks.puzzles.lists import answers, make, parse
from train.tasks.puzzles.lists_in_one_round import OPEN, SURE, argmax_limit, sampled_limit

LISTS = TASKS["lists"]


def valid_answers(edit: str, n: int) -> list[tuple[str, ...]]:
    items = " ".join("abcdef"[:n])
    if edit == "shuffle":
        return list(permutations(items.split()))
    place = {"at": "remove at 1", "insert": "insert any by x", "replace": "replace any by x", "remove": "remove any"}
    return answers(parse(f"{place.get(edit, edit)}: {items}"))


def marginals(valid: list[tuple[str, ...]]) -> list[Counter[str]]:
    return [Counter(column) for column in zip(*valid, strict=True)]


@pytest.mark.parametrize("n", [3, 4, 5])
@pytest.mark.parametrize("edit", SURE + OPEN)
def test_sampled_limits_match_enumeration(edit: str, n: int) -> None:
    valid = valid_answers(edit, n)
    columns = marginals(valid)
    exact = sum(
        prod(column[token] / len(valid) for column, token in zip(columns, draw, strict=True))
        for draw in product(*columns)
        if draw in valid
    )
    assert sampled_limit(edit, n) == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize("n", [3, 4, 5, 6])
@pytest.mark.parametrize("edit", SURE + OPEN)
def test_argmax_limits_match_enumeration(edit: str, n: int) -> None:
    valid = valid_answers(edit, n)
    best = tuple(min(column, key=lambda token: (-column[token], token)) for column in marginals(valid))
    assert argmax_limit(edit, n) == float(best in valid)


def test_limits_refuse_what_they_do_not_cover() -> None:
    for limit in (sampled_limit, argmax_limit):
        with pytest.raises(ValueError, match=r"edit must be one of .*, got 'swap'"):
            limit("swap", 4)
        with pytest.raises(ValueError, match="n must be at least 3, got 2"):
            limit("shuffle", 2)


@pytest.mark.parametrize(
    ("prompt", "right", "wrong"),
    [
        ("copy: 4 7 4", ["4 7 4"], ["4 4 7", "4 7", "4 7 4 "]),
        ("reverse: 4 7 1", ["1 7 4"], ["4 7 1"]),
        ("sort: 4 7 1 4", ["1 4 4 7"], ["1 4 7", "7 4 4 1"]),
        ("sort: d a c", ["a c d"], ["d c a"]),
        ("shuffle: a b c", ["a b c", "c a b"], ["a b", "a b b", "a b c c", "c  a b"]),
        ("insert any by x: a b", ["x a b", "a x b", "a b x"], ["a b", "b x a", "x a b x"]),
        ("insert at 0 by x: a b", ["x a b"], ["a x b"]),
        ("insert at 2 by x: a b", ["a b x"], ["a x b"]),
        ("remove any: a b c", ["b c", "a c", "a b"], ["a b c", "c b", "a"]),
        ("remove at 2: a b c", ["a b"], ["b c", "a c"]),
        ("replace any by x: a b", ["x b", "a x"], ["a b", "x x", "x a"]),
        ("replace at 1 by x: a b", ["a x"], ["x b"]),
        ("replace at 0 by 7: 7 b", ["7 b"], ["b 7"]),
    ],
)
def test_every_allowed_list_is_right_and_no_other(prompt: str, right: list[str], wrong: list[str]) -> None:
    example = Example(prompt, right[0])
    assert all(LISTS.check(example, text) for text in right)
    assert not any(LISTS.check(example, text) for text in wrong)


@pytest.mark.parametrize("prompt", ["remove at 2: a b", "replace at 2 by x: a b", "insert at 3 by x: a b"])
def test_places_outside_the_list_are_refused(prompt: str) -> None:
    with pytest.raises(ValueError, match="lists prompt must"):
        parse(prompt)


def test_generated_edits_cover_every_kind_and_length_with_distinct_items_where_many_answers_are_valid() -> None:
    seen, lengths = set(), set()
    for example in islice(LISTS.generate("train", seed=1), 1500):
        edit = parse(example.prompt)
        is_open = edit.name == "shuffle" or (edit.name not in SURE and edit.index is None)
        seen.add((edit.name, edit.index is None))
        lengths.add(len(edit.items))
        if is_open:
            assert len({*edit.items, edit.item}) == len(edit.items) + 1
    assert len(seen) == 10
    assert lengths == set(range(4, 13))


def test_references_are_spread_over_the_valid_answers() -> None:
    rng = random.Random(0)
    places = []
    for example in [make(rng) for _ in range(2500)]:
        edit = parse(example.prompt)
        if edit.name == "insert" and edit.index is None:
            places.append(example.response.split().index(str(edit.item)) / len(edit.items))
    assert {0.0, 1.0} < set(places)
    assert sum(places) / len(places) == pytest.approx(0.5, abs=0.07)
