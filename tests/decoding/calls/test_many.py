"""Rows that join and leave one batch are decoded as each is alone: by every policy, under every cache, by both drivers."""

from inspect import unwrap
from itertools import count, cycle, islice

import pytest
import torch

from decoding import generate, generate_many
from decoding.calls import many
from decoding.loop import rounds
from decoding.policies.threshold import Threshold
from decoding.policy_by_name import make_policy
from models.toys.toy import TableDenoiser
from tests.decoding.policy_settings import row_of
from tests.decoding.rounds.test_engine import CACHES, HEADLESS, LEARNED

PROMPTS = [[5, 9, 77, 3, 8], [1, 2], [4, 4, 9, 11, 3, 7, 60, 61, 62, 63, 5], [31], [8, 9, 10]]
LENGTHS = [8, 16, 8, 16, 8]
RULES = {name: row_of(name).golden for name in HEADLESS}
RULES |= {"verified": {"rule": "threshold", "source": "reading", "threshold": 0.02}}
CORE = (
    "threshold",
    "ete",
    "quota",
    "verified",
)  # on both families, behind every cache; the others on one, behind the richest
CASES = [(name, cache) for name in RULES for cache in (CACHES if name in CORE else CACHES[-1:])]


@pytest.fixture
def toy():
    table = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    return TableDenoiser(table, mask_id=5, eos_id=4)


def rows(answers):
    return [answer.row for answer in answers]


def one_by_one(denoiser, prompts, policy, lengths, **settings):
    found = []
    for number, (prompt, length) in enumerate(zip(prompts, lengths, strict=True)):
        how = {"gen_length": length, "batch_size": 1, "numbers": [number], **settings}
        found += rows(generate_many(denoiser, [prompt], policy, **how))
    return found


@pytest.mark.parametrize(("policy", "cache"), CASES)
def test_rules_without_a_head(goldens, policy, cache):
    if policy not in CORE and goldens[0].shifted:
        pytest.skip("rows join alike in both families")
    lengths = [length // 2 for length in LENGTHS]
    settings = {**RULES[policy], "use_cache": cache, "early_stop": False}
    settings |= {} if policy == "dream-quota" else {"block_length": 4}
    plain, fast = goldens
    before = fast.engine.fallbacks
    needs = make_policy(policy, RULES[policy], plain).needs
    if needs.noise or needs.draws:
        alone = one_by_one(plain, PROMPTS, policy, lengths, **settings)
    else:
        plainly = [generate(plain, p, policy, gen_length=n, **settings) for p, n in zip(PROMPTS, lengths, strict=True)]
        alone = [made.row(0) for made in plainly]
    together = [rows(generate_many(m, PROMPTS, policy, gen_length=lengths, batch_size=2, **settings)) for m in goldens]
    assert together == [alone, alone]
    assert fast.engine.fallbacks == before + needs.plain


@pytest.mark.parametrize(("policy", "settings", "cache"), [case for case in LEARNED if case[2] == CACHES[-1]])
def test_rules_with_a_head_and_its_cascade(reasons, policy, settings, cache):
    prompts, lengths = ["15,44,79,50", "2,3,4,24", "10,20,3,60,7"], [8, 16, 8]
    settings = {**settings, "use_cache": cache, "block_length": 8}
    alone = [
        generate(reasons[0], [p], policy, gen_length=n, **settings).row(0)
        for p, n in zip(prompts, lengths, strict=True)
    ]
    for denoiser in reasons:
        assert rows(generate_many(denoiser, prompts, policy, gen_length=lengths, batch_size=2, **settings)) == alone


@pytest.mark.parametrize("temperature", [0.7, 1.5])
def test_draws_are_a_rows_own(goldens, temperature):
    settings = {"temperature": temperature, "block_length": 8, "use_cache": "dual", "threshold": 0.05, "seed": 3}
    alone = one_by_one(goldens[0], PROMPTS, "threshold", LENGTHS, **settings)
    for denoiser in goldens:
        found = rows(generate_many(denoiser, PROMPTS, "threshold", gen_length=LENGTHS, batch_size=3, **settings))
        assert found == alone
    other = one_by_one(goldens[0], PROMPTS, "threshold", LENGTHS, **{**settings, "seed": 4})
    assert other != alone


def test_equal_prompts_draw_by_their_numbers(toy):
    settings = {"gen_length": 8, "block_length": 4, "temperature": 1.0, "early_stop": False}
    found = rows(generate_many(toy, [[1, 2]] * 30, "sequential", **settings))
    assert len(set(found)) > 5
    assert rows(generate_many(toy, [[1, 2]] * 2, "sequential", numbers=[7, 7], **settings)) == [found[7]] * 2


@pytest.mark.parametrize("kind", [0, 1])
def test_a_long_prompt_among_short_ones_from_an_iterator(goldens, kind):
    """The engine's buffers are too narrow for it: it waits until they are empty, and others behind it wait too."""
    prompts = [[5, 9, 77], [6], [7] * 70, [8, 9], [10] * 3]
    settings = {"gen_length": 16, "block_length": 8, "threshold": 0.02, "use_cache": "dual"}
    alone = one_by_one(goldens[0], prompts, "threshold", [16] * 5, **{**settings})
    found = generate_many(goldens[kind], iter(prompts), "threshold", batch_size=2, **settings)
    assert rows(found) == alone


def test_answers_come_in_order_or_as_they_end(goldens):
    settings = {"gen_length": [24, 8, 8, 16, 8], "block_length": 8, "batch_size": 2, "early_stop": False}
    ordered = list(generate_many(goldens[0], PROMPTS, "sequential", **settings))
    assert [answer.number for answer in ordered] == [0, 1, 2, 3, 4]
    ended = list(generate_many(goldens[0], PROMPTS, "sequential", ordered=False, **settings))
    assert [answer.number for answer in ended] == [1, 2, 0, 4, 3]
    assert {answer.number: answer.row for answer in ended} == {answer.number: answer.row for answer in ordered}
    assert all(answer.seconds > 0 for answer in ended)


def test_no_more_prompts_are_read_than_there_are_places(toy):
    read = []
    prompts = (read.append(n) or [n % 4] for n in count())
    answers = generate_many(toy, prompts, "sequential", gen_length=4, block_length=4, batch_size=3, ordered=False)
    assert [answer.number for answer in islice(answers, 4)] == [0, 1, 2, 3]
    assert len(read) <= 9


def test_steps_that_follow_from_the_canvas_part_the_prompts(toy):
    settings = {"gen_length": [8, 4, 4, 8], "block_length": 4, "early_stop": False}
    found = list(generate_many(toy, [[1], [2], [3], [0]], "quota", batch_size=4, **settings))
    assert [answer.row.rounds for answer in found] == [8, 4, 4, 8]


def test_every_forward_is_full_while_prompts_wait(toy, monkeypatch):
    sizes = []
    forward = TableDenoiser.forward
    monkeypatch.setattr(
        TableDenoiser, "forward", lambda self, *a, **k: (sizes.append(len(a[0])), forward(self, *a, **k))[1]
    )
    lengths = list(islice(cycle([2, 8, 4]), 12))
    list(
        generate_many(toy, [[1]] * 12, "sequential", gen_length=lengths, block_length=2, batch_size=3, early_stop=False)
    )
    assert sum(sizes) == sum(lengths)
    assert all(size == 3 for size in sizes[:-8])


def test_a_long_list_of_generate_is_decoded_in_turns(toy, monkeypatch):
    prompts = [[n % 4] * (1 + n % 3) for n in range(9)]
    settings = {"gen_length": 8, "block_length": 4, "threshold": 0.3}
    whole = generate(toy, prompts, "threshold", **settings)
    monkeypatch.setattr("decoding.api.AT_ONCE", 2)
    turns = generate(toy, prompts, "threshold", **settings)
    for name in ("sequences", "rounds", "sequence_forwards", "token_positions", "explored"):
        assert torch.equal(getattr(whole, name), getattr(turns, name)), name
    for name in ("committed_round", "reason", "committed_confidence", "block", "opened"):
        assert torch.equal(getattr(whole.state, name), getattr(turns.state, name)), name
    assert turns.nfe > whole.nfe


def test_an_engine_is_free_again_once_its_answers_are_left(goldens):
    answers = generate_many(goldens[1], PROMPTS, "threshold", gen_length=8, batch_size=2, ordered=False)
    next(answers)
    assert goldens[1].engine.in_use.locked()
    answers.close()
    assert not goldens[1].engine.in_use.locked()


@pytest.mark.parametrize("ordered", [True, False])
def test_an_engine_is_free_again_whoever_still_knows_its_rounds(goldens, monkeypatch, ordered):
    known = []
    monkeypatch.setattr(many, "rounds", lambda *given, **how: known.append(rounds(*given, **how)) or known[-1])
    answers = generate_many(goldens[1], PROMPTS, "threshold", gen_length=8, batch_size=2, ordered=ordered)
    next(answers)
    assert goldens[1].engine.in_use.locked()
    answers.close()
    assert not goldens[1].engine.in_use.locked()
    assert len(known) == 1


def test_an_engine_is_free_again_after_a_hook_has_failed(goldens):
    def fail(state, reading):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine") as failed:  # its traceback knows the rounds
        generate(goldens[1], PROMPTS[:1], "threshold", gen_length=8, on_step=fail)
    assert failed.traceback
    assert not goldens[1].engine.in_use.locked()


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1, got 0"),
        ({"prompts": "text"}, "prompts must be an iterable of prompts, got a str"),
        ({"seed": True}, "seed must be a whole number, got True"),
        ({"history": True}, "history must be left out of generate_many, which keeps no states"),
        ({"output_history": True}, "history must be left out of generate_many, which keeps no states"),
        ({"gen_length": [8]}, "gen_length must hold a number for every prompt, got 1 of them"),
        ({"numbers": [8]}, "numbers must hold a number for every prompt, got 1 of them"),
        ({"numbers": ["a", "b"]}, "numbers must be whole numbers of at most 63 bits, got 'a'"),
        ({"numbers": [0, 2**70]}, f"numbers must be whole numbers of at most 63 bits, got {2**70}"),
        ({"numbers": 5}, "numbers must be an iterable of whole numbers, got 5"),
        ({"prompts": [[1], []]}, r"prompt 1: prompts must be ids, a string or a list of either, got \[\]"),
        ({"prompts": [[1], [[1], [2]]]}, "prompt 1: a prompt must be a string, a chat or a list of ids, got 2 of them"),
        ({"prompts": [[1], [5]]}, "prompt 1: prompts must not hold the mask token"),
        ({"policy": "quota", "steps": 3}, r"steps must be a multiple of the number of blocks \(2\), got 3"),
        ({"policy": Threshold(0.5), "threshold": 0.6}, "settings must be left out with a policy object"),
    ],
)
def test_what_does_not_fit_is_refused_at_the_call(toy, given, sentence):
    call = {"prompts": [[1], [2]], "policy": "threshold", "gen_length": 8, "block_length": 4, **given}
    with pytest.raises(ValueError, match=f"^{sentence}"):
        unwrap(generate_many)(toy, **call)
