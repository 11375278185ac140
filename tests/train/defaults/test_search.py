"""A head decodes by default as dev prompts bear it out: the shipped one looks ahead, what knows nothing is left out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import models
from decoding import generate
from decoding.api import make_policy
from decoding.comparison.problems import Problems
from decoding.comparison.records.ledger import Ledger
from decoding.comparison.runner import Runner, make_runner
from decoding.features import NAMES
from models.heads.cascade import Cascade, CascadeConfig
from models.heads.config import HeadConfig
from models.heads.defaults import Defaults, read_defaults
from models.heads.scoring_head import ScoringHead, load_head, save_head
from train.cascade.fit import fit_cascade
from train.commands.command_line import shipped
from train.defaults import search as module
from train.defaults.careful_texts import kept_texts
from train.defaults.controls import put_random_cascade
from train.defaults.running import figures, first_of
from train.defaults.search import Panel, choose_defaults, dev_prompts
from train.defaults.settings import Trials
from train.head.settings import CascadeFitting, TaskRun
from train.tasks import get

BASE, HEAD = str(shipped("checkpoints/reason-7m")), str(shipped("checkpoints/reason-7m-head"))
FEW = Trials(screen=8, confirm=24, bounds=(0.03, 0.003))
SUMS = {"multiplication": TaskRun()}

pytestmark = pytest.mark.filterwarnings("ignore:.*(LeafSpec|num_workers|IterableDataset)")


@pytest.fixture(scope="module")
def base():
    return models.load(BASE, device="cpu")


@pytest.fixture
def plain(base):
    """The base with a head that adds nothing to the confidence."""
    head = ScoringHead(HeadConfig("linear", NAMES, trust=0.0), base).eval()
    base.put_on(head)
    return base


@pytest.fixture
def few_will_do(monkeypatch):
    """24 prompts decide, and a loss of a tenth."""
    for part in ("choice", "choosing", "running", "search"):
        monkeypatch.setattr(f"train.defaults.{part}.ENOUGH", 20)
    for part in ("choice", "choosing"):
        monkeypatch.setattr(f"train.defaults.{part}.DECIDING", 22)
    monkeypatch.setattr("train.defaults.choice.MARGIN", 0.1)


def chosen(denoiser, out: Path, **changes):
    return choose_defaults(denoiser, SUMS, FEW, out, **{"batch_size": 24, "seed": 0, **changes})


def decodes_as_the_rule(denoiser, out: Path) -> bool:
    """Token for token and round for round, with nothing given but the name."""
    defaults = read_defaults(out)
    task = get("multiplication")
    prompts = [e.prompt for e in dev_prompts(task, TaskRun(), 12, seed=9)]
    how = {"gen_length": task.gen_length, "block_length": task.block_length}
    mine = generate(denoiser, prompts, "learned", **how)
    rule = generate(denoiser, prompts, "risk-sum", risk_bound=defaults.risk_bound, **how)
    return defaults.alone and torch.equal(mine.state.committed_round, rule.state.committed_round) and torch.equal(
        mine.sequences, rule.sequences
    )  # fmt: skip


def test_the_shipped_head_looks_ahead(base, tmp_path, few_will_do):
    base.put_on(load_head(Path(HEAD), base))
    found = chosen(base, tmp_path)
    assert found.defaults.looks > 0
    assert found.each["multiplication"].won.tasks["multiplication"].ratio.high < 0.9
    assert read_defaults(tmp_path) == base.head.defaults == found.defaults
    assert json.loads((tmp_path / "trials" / "choice.json").read_text())["tasks"]["multiplication"]["n"] == {
        "multiplication": 24
    }
    again = chosen(base, tmp_path)  # from what is kept
    assert again == found


def test_a_cascade_of_random_weights_is_left_out(plain, tmp_path, few_will_do):
    put_random_cascade(plain, seed=0)
    assert plain.head.cascade.config.blocks == 4
    found = chosen(plain, tmp_path)
    assert found.defaults == found.each["multiplication"].rule
    assert decodes_as_the_rule(plain, tmp_path)


def test_a_cascade_of_another_task_is_left_out(plain, tmp_path, few_will_do):
    drivers = ({"policy": "threshold", "threshold": 0.9},)
    fitting = CascadeFitting(steps=6, prompts=16, batch_size=8, blocks=1, rank=4, learning_rate=0.01, drivers=drivers)
    fit_cascade(plain, {"lists": TaskRun(prompts=16, dev_prompts=2)}, fitting, tmp_path / "lists", seed=0)
    found = chosen(plain, tmp_path)
    assert found.defaults == found.each["multiplication"].rule
    assert decodes_as_the_rule(plain, tmp_path)


def test_a_head_that_adds_nothing_is_the_rule(plain, tmp_path, few_will_do):
    found = chosen(plain, tmp_path)
    (choice,) = found.each.values()
    assert (choice.confirmed, choice.defaults, found.defaults) == ((), choice.rule, choice.rule)
    assert decodes_as_the_rule(plain, tmp_path)


def test_few_prompts_decide_nothing_and_are_not_decoded(base, tmp_path, monkeypatch):
    base.put_on(load_head(Path(HEAD), base))
    monkeypatch.setattr(module, "make_runner", lambda *_, **__: 1 / 0)
    found = chosen(base, tmp_path)
    assert found.defaults == Defaults("confidence", 0.003, 0) or found.defaults == Defaults("confidence", 0.03, 0)
    assert not found.each["multiplication"].enough


def test_defaults_are_settings_of_learned_where_none_are_given(base, tmp_path):
    base.put_on(load_head(Path(HEAD), base))
    before = make_policy("learned", {}, base)
    base.head.defaults = Defaults("sum", 0.07, 1)
    policy = make_policy("learned", {}, base)
    assert (policy.rule, policy.risk_bound, policy.looks) == ("sum", 0.07, 1)
    assert make_policy("learned", {"risk_bound": 0.2}, base).risk_bound == 0.2
    assert make_policy("learned", {"risk_bound": 0.2}, base).rule == "sum"
    save_head(base.head, tmp_path)
    assert load_head(tmp_path, base).defaults == Defaults("sum", 0.07, 1)
    base.head.defaults = None
    save_head(base.head, tmp_path / "without")
    base.put_on(load_head(tmp_path / "without", base))
    assert make_policy("learned", {}, base).risk_bound == before.risk_bound


def test_learned_by_name_keeps_its_own_settings_beside_checked_drafts(base):
    base.put_on(load_head(Path(HEAD), base))
    base.head.defaults = None
    own = make_policy("learned", {}, base)
    alone = Defaults("confidence", 0.07, 0)
    base.head.defaults = Defaults("confidence", 0.002, 0, checked="exact", tasks=(("lists", alone),))
    assert make_policy("learned", {}, base) == make_policy("learned", {}, base, "sudoku") == own
    told = make_policy("learned", {}, base, "lists")
    assert (told.rule, told.risk_bound, told.looks) == ("confidence", 0.07, 0)


def test_a_call_without_a_policy_is_decoded_as_the_head_says(base):
    base.put_on(load_head(Path(HEAD), base))
    task = get("multiplication")
    prompts = [e.prompt for e in dev_prompts(task, TaskRun(), 4, seed=9)]
    how = {"gen_length": task.gen_length, "block_length": task.block_length}
    base.head.defaults = Defaults("confidence", 0.01, 0, checked="exact")
    made = generate(base, prompts, **how)
    rule = generate(base, prompts, "risk-sum", risk_bound=0.01, **how)
    assert type(made.policy).__name__ == "Verified"
    assert torch.equal(made.sequences, rule.sequences)
    assert type(generate(base, prompts, threshold=0.9, **how).policy).__name__ == "Threshold"
    base.head.defaults = Defaults("confidence", 0.01, 0, tasks=(("multiplication", Defaults("sum", 0.07, 1)),))
    assert make_policy("learned", {}, base, "multiplication").risk_bound == 0.07
    assert generate(base, prompts, **how).policy.risk_bound == 0.01


def test_prompts_of_a_file_are_shared_out_and_judged_by_their_checker(base, tmp_path):
    file = tmp_path / "mine.jsonl"
    prompts = [e.prompt for e in dev_prompts(get("countdown4"), TaskRun(), 8, seed=1)]
    train = get("countdown4").generate("train", seed=3)
    prompts += [next(train).prompt for _ in range(56)]
    file.write_text("".join(json.dumps({"prompt": one}) + "\n" for one in prompts))
    run = TaskRun(prompts_file=str(file), at_most=True)
    panel = Panel.of(base, "countdown4", run, Trials(), seed=0, run_code=False)
    assert panel.judged  # the numbers are in the prompt
    assert len(panel.screen) + len(panel.confirm) == len({e.prompt for e in (*panel.screen, *panel.confirm)}) == 16
    assert len(panel.confirm) == 12


def test_without_answers_a_text_is_right_that_the_careful_rule_writes(plain, tmp_path, few_will_do, monkeypatch):
    monkeypatch.setattr(Panel, "judged", property(lambda self: False))
    found = chosen(plain, tmp_path)
    assert found.each["multiplication"].agreed == ("multiplication",)
    (file,) = (tmp_path / "trials").glob("multiplication-careful-*.json")
    kept = json.loads(file.read_text())
    assert len(kept) == 32
    assert all(text for text in kept.values())


def test_no_batch_is_decoded_in_part_while_there_is_more_of_it(base, monkeypatch):
    asked = []
    monkeypatch.setattr(Runner, "run", lambda self, arms, split: asked.append(len(self.problems.split(split))))
    monkeypatch.setattr(Ledger, "table", lambda *_: dict.fromkeys(("right", "rounds"), np.ones(250)))
    problems = Problems("multiplication", ("1*1",), tuple(f"{i}*" for i in range(250)), 4, 4)
    how = {"out": None, "heads": None, "batch_size": 16, "seed": 0, "progress": False}
    runner, rule = make_runner(base, problems, lambda prompt, text: True, **how), Defaults("confidence", 0.01, 0)
    tables = [figures(runner, rule, "confirm", count) for count in (100, 200, 240, 250, None)]
    assert asked == [112, 208, 240, 250, 250]
    assert [len(table["right"]) for table in tables] == [100, 200, 240, 250, 250]
    figures(first_of(runner, 201), rule, "confirm", 200)
    assert asked[-1] == 201  # no further than there is time for


def test_a_random_cascade_has_the_shape_of_the_heads_own(plain):
    plain.head.cascade = Cascade(CascadeConfig(blocks=2, rank=3, alpha=5, foretold=(0.5,), seen=(0.6,)), plain)
    put_random_cascade(plain, seed=0)
    assert plain.head.cascade.config == CascadeConfig(blocks=2, rank=3, alpha=5, base=plain.fingerprint())


def test_old_files_have_no_defaults_and_are_trusted_whole():
    assert HeadConfig("linear", NAMES).trust == 1
    assert CascadeConfig().foretold == ()
    for value in (-0.1, 1.1):
        with pytest.raises(ValueError, match=rf"^trust must lie in \[0, 1\], got {value}$"):
            HeadConfig("linear", NAMES, trust=value)


def test_minutes_bound_what_is_decoded_without_answers(base, tmp_path, few_will_do, monkeypatch):
    """The careful rule judges there: its texts are made as far as the prompts that there is time for, by whole batches."""
    base.put_on(load_head(Path(HEAD), base))
    monkeypatch.setattr(Panel, "judged", property(lambda self: False))
    trials = Trials(screen=8, confirm=64, bounds=(0.03, 0.003), minutes=1e-4)
    found = choose_defaults(base, SUMS, trials, tmp_path, batch_size=8, seed=0)
    assert found.each["multiplication"].n == {"multiplication": 20}
    (file,) = (tmp_path / "trials").glob("multiplication-careful-*.json")
    assert len(json.loads(file.read_text())) == 32  # 8 + 20, to the end of a batch
    assert choose_defaults(base, SUMS, trials, tmp_path, batch_size=8, seed=0) == found


def test_texts_of_the_careful_rule_are_kept_for_the_same_prompts_only(tmp_path):
    file = tmp_path / "texts.json"
    assert kept_texts(file, ["a", "b"]) == []
    file.write_text('{"a": "1"}')
    assert kept_texts(file, ["a", "b"]) == ["1"]
    assert kept_texts(file, ["b", "a"]) == []
    file.write_text('{"a": 1}')
    assert kept_texts(file, ["a", "b"]) == []
