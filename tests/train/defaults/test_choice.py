"""Which settings become a head's defaults: what saves rounds and loses no answers by its interval, else the rule alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models.heads.defaults import CAREFUL, Defaults, read_defaults, write_defaults
from tests.train.defaults.world import BOUNDS, COUNTS, EXACT, LOOKS, OWN, World, bold_is_wrong
from train.defaults.choice import Against, Choices
from train.defaults.choosing import behind, choose, general, recommended
from train.defaults.evidence import ENOUGH, Paired, worded
from train.defaults.model_card import WIDTH, card, name_of, sentence, table
from train.defaults.running import EFFORT, affordable
from train.defaults.settings import Trials


def test_what_saves_rounds_and_loses_nothing_is_taken():
    chosen = choose(World({"rule": 6, "head": 6, "looks": 3}, bold_is_wrong), [OWN, LOOKS], BOUNDS, COUNTS)
    assert chosen.rule == Defaults("confidence", 0.03, 0)
    assert chosen.defaults == Defaults("confidence", 0.03, 2)
    assert chosen.won.tasks["sudoku"].ratio.high < 0.55
    assert sentence(chosen).startswith("Won: 49% fewer rounds at equal accuracy than the rule alone, risk-sum at 0.03")
    assert "n 600" in sentence(chosen)


def test_looks_that_lose_answers_are_not_taken_however_many_rounds_they_save():
    """The screened prompts hide it: they all come out right."""

    class Hidden(World):
        def __call__(self, setting, part, count=None):
            tables = super().__call__(setting, part, count)
            if part == "confirm" and setting.looks:
                tables["sums"]["right"] = np.where(np.arange(len(tables["sums"]["right"])) % 50 == 0, 0.0, 1.0)
            return tables

    chosen = choose(Hidden({"rule": 6, "head": 6, "looks": 2}, bold_is_wrong), [OWN, LOOKS], BOUNDS, COUNTS)
    assert chosen.defaults == chosen.rule
    assert chosen.defaults.alone
    assert sentence(chosen).startswith("Nothing won: by default the head decodes as the rule alone, risk-sum at 0.03; ")
    assert "(sums: rounds" in sentence(chosen)


def test_rounds_that_are_not_fewer_win_nothing():
    for rounds in ({"rule": 4, "head": 4, "looks": 4}, {"rule": 3, "head": 4, "looks": 5}):
        chosen = choose(World(rounds, bold_is_wrong), [OWN, LOOKS], BOUNDS, COUNTS)
        assert chosen.defaults == chosen.rule


def test_a_task_that_gets_slower_is_not_paid_for_by_another():
    class Uneven(World):
        def __call__(self, setting, part, count=None):
            tables = super().__call__(setting, part, count)
            if setting.looks:
                tables["sums"] = {**tables["sums"], "rounds": tables["sums"]["rounds"] * 4}
            return tables

    chosen = choose(Uneven({"rule": 6, "head": 6, "looks": 2}, bold_is_wrong), [LOOKS], BOUNDS, COUNTS)
    assert chosen.defaults == chosen.rule


def test_two_prompts_are_too_few_and_nothing_is_tried():
    world = World({"rule": 6, "head": 6, "looks": 2}, bold_is_wrong)
    chosen = choose(world, [OWN, LOOKS], BOUNDS, {"sudoku": 600, "sums": 2})
    assert world.asked == []
    assert chosen.defaults == Defaults("confidence", CAREFUL, 0)
    assert sentence(chosen) == (
        "Nothing decided: sums has 2 dev prompts to decide by and needs 200, which is too few; by default the head decodes as "
        "the rule alone, risk-sum at 0.01."
    )
    assert table(chosen) == ""


def test_two_positions_are_too_few():
    found = {"estimate": 0.9988, "low": 0.99, "high": 1.0}
    assert worded(found, 2) == "too few (2 positions)"
    assert worded(None, 5000) == "too few (5,000 positions)"
    assert worded(found, ENOUGH) == "0.999 [0.990, 1.000] (200 positions)"


def test_the_rule_alone_is_recommended_at_the_boldest_bound_that_is_not_behind():
    careful = World({"rule": 6}, lambda kind, bound: 0.06 if bound > 0.005 else 0.0)
    assert recommended(careful, sorted(BOUNDS)) == Defaults("confidence", 0.003, 0)


def test_further_prompts_make_the_rule_alone_more_careful():
    class Late(World):
        def __call__(self, setting, part, count=None):
            tables = super().__call__(setting, part, count)
            if part == "confirm" and setting.risk_bound > 0.02:
                tables["sums"]["right"] = np.where(np.arange(len(tables["sums"]["right"])) % 50 == 0, 0.0, 1.0)
            return tables

    assert choose(Late({"rule": 6}, bold_is_wrong), [], BOUNDS, COUNTS).defaults == Defaults("confidence", 0.01, 0)


def test_an_interval_of_equal_answers_is_not_empty():
    same = Paired.of(0, 0, 240)
    assert same.low == pytest.approx(-same.high)
    assert -0.01 < same.low < -0.005
    worse = Paired.of(2, 12, 240)
    assert (worse.estimate, worse.n) == (pytest.approx(-10 / 240), 240)
    assert worse.low < -0.05 < worse.estimate < worse.high < 0
    assert Paired.of(0, 0, 40).low < -0.03  # so few that a loss of three points cannot be told


def test_a_setting_is_held_against_the_rule_prompt_by_prompt():
    ours = {"right": np.tile([1.0, 0.0], 120), "rounds": np.full(240, 3.0)}
    rule = {"right": np.tile([0.0, 1.0], 120), "rounds": np.full(240, 6.0)}
    found = Against.of(ours, rule)
    assert found.ratio.estimate == pytest.approx(0.5)
    assert found.difference.estimate == 0
    assert not found.keeps  # as many right, but not the same: nobody knows which way it goes


def test_what_is_printed_fits_and_marks_the_default():
    chosen = choose(World({"rule": 6, "head": 6, "looks": 3}, bold_is_wrong), [OWN, LOOKS], BOUNDS, COUNTS)
    lines = table(chosen).splitlines()
    assert all(len(line) <= WIDTH for line in lines)
    assert sum("*" in line for line in lines) == len(COUNTS)
    assert name_of(chosen.defaults) == "rule + 2 looks"
    text = card(Choices({"sudoku": chosen}, chosen.defaults), {"base": "reason-7m"}, "python generate.py")
    assert sentence(chosen) in text
    assert "- any prompt: `learned`, rule confidence, risk_bound 0.03, looks 2" in text


def test_slow_tasks_are_judged_on_fewer_prompts():
    counts, pace = {"slow": 600, "quick": 600, "few": 50}, {"slow": 0.12, "quick": 0.02}
    assert affordable(counts, pace, None) == counts
    found = affordable(counts, pace, 4.0)
    assert found["quick"] == 600
    assert found["slow"] == int((240 - 600 * EFFORT * 0.02) / (EFFORT * 0.12))
    assert affordable(counts, pace, 0.1) == {"slow": ENOUGH, "quick": ENOUGH, "few": 50}


def test_each_task_has_its_own_defaults_and_other_prompts_the_careful_ones():
    world = World({"rule": 6, "head": 6, "looks": 3, "exact": 4}, bold_is_wrong)
    bold = choose(world, [LOOKS], BOUNDS, COUNTS)
    world = World({"rule": 6, "head": 6, "looks": 7, "exact": 4}, lambda kind, bound: 0.05 if bound > 0.005 else 0.0)
    careful = choose(world, [LOOKS], BOUNDS, COUNTS)
    each = {"sudoku": careful, "sums": bold}
    found = general(world, each, unread=world).defaults
    assert found == Defaults("confidence", 0.003, 0, tasks=(("sums", Defaults("confidence", 0.03, 2)),))
    assert found.of("sums").looks == 2
    assert found.of("sudoku") == found.of(None) == Defaults("confidence", 0.003, 0)
    assert general(world, {"a": bold, "b": bold}, unread=world).defaults == bold.defaults


def test_other_prompts_have_drafts_checked_where_a_task_was_won_by_them_and_the_cascade_saves_rounds():
    rounds = {"rule": 6, "looks": 3, "exact": 4}
    world, unread = World(rounds, bold_is_wrong), World({**rounds, "exact": 5}, bold_is_wrong)
    looking, nothing = (choose(world, forms, BOUNDS, COUNTS) for forms in ([LOOKS], []))
    drafting = choose(world, [EXACT], BOUNDS, COUNTS)
    each = {"sudoku": replace(drafting, rule=replace(drafting.rule, risk_bound=0.003)), "sums": nothing}
    found = general(world, each, unread=unread)
    assert found.defaults.of(None) == Defaults("confidence", 0.003, 0, checked="exact")
    assert found.as_json()["worth"]["ratios"]["sums"]["high"] < 1
    assert not general(world, each, unread=world).defaults.of(None).checked
    assert not general(world, {"sudoku": looking, "sums": nothing}, unread=unread).defaults.of(None).checked


def test_defaults_are_read_back_and_damage_is_told(tmp_path):
    assert read_defaults(tmp_path) is None
    write_defaults(Defaults(None, 0.02, 1), tmp_path)
    assert read_defaults(tmp_path) == Defaults(None, 0.02, 1)
    both = Defaults("confidence", 0.02, 0, checked="exact", tasks=(("lists", Defaults(None, 0.1, 2)),))
    write_defaults(both, tmp_path)
    assert read_defaults(tmp_path) == both
    (tmp_path / "defaults.json").write_text('{"rule": null}')
    with pytest.raises(ValueError, match=r"defaults\.json must hold rule, risk_bound and looks of a head, got "):
        read_defaults(tmp_path)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"screen": 0}, "screen must be at least 1, got 0"),
        ({"confirm": 0}, "confirm must be at least 1, got 0"),
        ({"minutes": 0.0}, "minutes must be above 0, got 0.0"),
        ({"bounds": ()}, r"bounds must lie in \(0, 1\], at least one, got \(\)"),
        ({"bounds": (0.0,)}, r"bounds must lie in \(0, 1\], at least one, got \(0.0,\)"),
    ],
)
def test_trials_that_cannot_be_are_refused(changes, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        Trials(**changes)


def test_behind_means_more_than_one_prompt_and_more_than_chance():
    def right(*wrong: int) -> dict[str, np.ndarray]:
        return {"right": np.array([float(i not in wrong) for i in range(40)])}

    assert not behind(right(0), right())
    assert behind(right(0, 1), right())
    assert not behind(right(0, 1, 2), right(3))  # three lost, one won
    assert behind(right(0, 1, 2, 3), right(4))
    assert not behind(right(), right(0, 1, 2))


def test_what_rule_and_looks_lose_together_is_held_against_the_most_careful_bound():
    """Bold bounds lose two answers of 600 alone, which is let pass, and a third with looks, which is not."""
    lost = lambda kind, bound: (3 if kind == "looks" else 2) / 600 if bound > 0.005 else 0.0  # noqa: E731
    chosen = choose(World({"rule": 6, "head": 6, "looks": 2}, lost), [LOOKS], BOUNDS, COUNTS)
    assert chosen.rule.risk_bound > 0.005
    assert chosen.defaults == Defaults("confidence", 0.003, 2)
    strayed = [one for one in chosen.confirmed if not one.wins]
    assert strayed
    assert all(one.saves and one.strays("sums") for one in strayed)
