"""Ten-digit addition: what is in each class, and what the checker takes."""

import random
from collections import Counter
from itertools import islice

import pytest

from train.tasks import ADDITIONS, Example, get
from train.tasks.puzzles.addition import CHAINS, KINDS, SHARES, carry_chain, parse


def draws(name: str, count: int = 100, split: str = "train") -> list[Example]:
    return list(islice(get(name).generate(split, seed=0), count))


@pytest.mark.parametrize("name", ADDITIONS)
@pytest.mark.parametrize("split", ["train", "test"])
def test_sums_are_right_and_keep_to_their_split(name: str, split: str) -> None:
    task = get(name)
    for example in draws(name, 30, split):
        first, second = map(int, example.prompt.split("+"))
        assert (len(example.prompt), len(example.response)) == (21, 11)
        assert int(example.response) == first + second
        assert task.split_of(example.prompt) == split
        assert task.check(example, example.response)
        assert not task.check(example, example.response[:-1])
        assert not task.check(example, str(first + second + 1).zfill(11))


@pytest.mark.parametrize(
    ("first", "second", "longest"),
    [(0, 0, 0), (5, 4, 0), (5, 5, 1), (95, 5, 2), (9999999999, 1, 10), (190, 20, 1), (55, 55, 1), (9990905, 5, 1)],
)
def test_a_chain_starts_where_digits_carry_and_goes_on_over_nines(first: int, second: int, longest: int) -> None:
    assert carry_chain(first, second) == longest


def test_easy_sums_never_carry() -> None:
    for example in draws("addition-easy"):
        pairs = zip(*example.prompt.split("+"), strict=True)
        assert max(int(a) + int(b) for a, b in pairs) <= 9


@pytest.mark.parametrize("kind", CHAINS)
def test_chains_have_the_lengths_of_their_class(kind: str) -> None:
    rng = random.Random(0)
    found = {carry_chain(*KINDS[kind](rng)) for _ in range(200)}
    assert found == set(range(CHAINS[kind][0], CHAINS[kind][1] + 1))


def test_edge_cases_are_cascades_zeros_and_the_largest_numbers() -> None:
    top = 10**10 - 1
    found = Counter()
    for example in draws("addition-edge", 300):
        first, second = parse(example.prompt)
        near = min(first, second) > top - 10_000
        found["near" if near else "zero" if min(first, second) == 0 else "cascade"] += 1
        assert near or min(first, second) == 0 or max(first, second) == top
    assert min(found.values()) > 60


def test_the_mixture_has_its_shares() -> None:
    assert sum(SHARES.values()) == 100
    chains = [carry_chain(*parse(example.prompt)) for example in draws("addition", 1000)]
    assert sum(chain >= 7 for chain in chains) / 1000 > 0.15
    assert 0.1 < sum(chain == 0 for chain in chains) / 1000 < 0.25


@pytest.mark.parametrize(
    "prompt", ["", "1+2", "0000000001+000000002", "0000000001 + 0000000002", "000000000x+0000000002"]
)
def test_bad_prompts_are_refused(prompt: str) -> None:
    with pytest.raises(ValueError, match="addition prompt must be two numbers of 10 digits"):
        get("addition").canonical(prompt)
