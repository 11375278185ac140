"""Fitting a cascade: every forward is the label of the one before it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import models
from decoding.features import NAMES
from decoding.policies.threshold import Threshold
from decoding.traces.labelling import Labelling
from models.heads.cascade import CASCADE, Cascade, CascadeConfig
from models.heads.config import HeadConfig
from models.heads.scoring_head import ScoringHead, load_head, save_head
from tests.saved_cascade import save_cascade
from train.cascade.__main__ import cascade as command
from train.cascade.examples import CascadeExample, TaskPrompts, divergence, examples
from train.cascade.fit import driver_of, evaluate, fit_cascade
from train.cascade.losses import losses_of
from train.commands.command_line import run
from train.head.head_run import HeadRun
from train.head.settings import CascadeFitting, Fitting, TaskRun
from train.head.stages import cascade_done

SHORT = CascadeFitting(
    steps=6, prompts=24, batch_size=8, rank=4, positions=1, drivers=({"policy": "threshold", "threshold": 0.7},)
)
pytestmark = pytest.mark.filterwarnings("ignore:.*(LeafSpec|num_workers|enable_nested_tensor|IterableDataset)")


def test_the_losses_of_an_unfitted_cascade_are_what_it_does_not_see(base, countdown):
    led = examples(base, countdown, countdown.texts, Threshold(0.7), base.head.taps_ahead, whole=True)
    one = next(iter(led))
    change = one.target.clamp(min=-12) - one.unmoved().clamp(min=-12)
    cascade = Cascade(CascadeConfig(rank=4, base=base.fingerprint()), base).train()
    losses = {target: losses_of(one, cascade, target).mean() for target in ("candidates", "residual", "whole")}
    assert losses["candidates"].item() == pytest.approx(divergence(one.target, one.unmoved()).mean().item(), rel=1e-3)
    assert losses["residual"].item() == pytest.approx(0.5 * change.square().sum(-1).mean().item(), rel=1e-3)
    assert losses["whole"].item() > 2 * losses["candidates"].item() * (1 - 1e-3)  # finer classes, and the rest beside
    for loss in losses.values():
        cascade.zero_grad()
        loss.backward()
        assert cascade.inject.weight.grad.abs().sum() > 0
        assert cascade.rest.weight.grad.abs().sum() > 0
    with pytest.raises(ValueError, match="example must hold the logits"):
        losses_of(replace(one, logits=None), cascade, "whole")


def test_an_unfitted_cascade_explains_nothing(base, countdown, taught):
    for example in taught:
        torch.testing.assert_close(example.foretold(base.head.cascade), example.unmoved(), atol=1e-3, rtol=1e-3)
    found = evaluate(base, countdown, [Threshold(0.7), Threshold(0.9)], batch_size=2)
    assert abs(found["skill"]) < 1e-3
    assert found["kl_without"] > 0.01
    assert found["positions"] > 10


def test_a_few_steps_explain_more_of_the_examples_they_saw(base, taught):
    torch.manual_seed(0)
    cascade = Cascade(CascadeConfig(rank=4), base)
    optimizer = torch.optim.AdamW([p for p in cascade.parameters() if p.requires_grad], lr=3e-3)
    losses = []
    for _ in range(12):
        loss = torch.stack([divergence(one.target, one.foretold(cascade)).mean() for one in taught[:3]]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_a_run_leaves_a_head_that_loads_and_goes_on(base, tmp_path):
    tasks = {"countdown3": TaskRun(prompts=4, dev_prompts=2)}
    assert fit_cascade(base, tasks, SHORT, tmp_path, seed=0, asked="this").startswith("countdown3")
    metrics = json.loads((tmp_path / CASCADE / "metrics.json").read_text())
    assert metrics["tasks"]["countdown3"]["positions"] > 0
    assert metrics["steps"] > 0
    assert metrics["fitting"]["rank"] == 4
    back = load_head(tmp_path, base).cascade
    assert back is not None
    assert any(p.any() for name, p in back.named_parameters() if "inject" in name)
    base.put_on(load_head(tmp_path, base))
    goes_on = base.head.cascade
    fit_cascade(base, tasks, SHORT, tmp_path / "more", seed=1)
    assert base.head.cascade is goes_on
    wider = CascadeFitting(minutes=0.01, prompts=8, batch_size=8, rank=2, positions=1, drivers=SHORT.drivers)
    fit_cascade(base, tasks, wider, tmp_path / "other", seed=1)
    assert base.head.cascade is not goes_on
    assert cascade_done(tmp_path, SHORT, "this")
    assert not cascade_done(tmp_path, SHORT, "that")
    save_head(base.head, tmp_path)  # what a later fit saves on its way is not what was finished
    assert not cascade_done(tmp_path, SHORT, "this")


def test_prompts_are_those_of_the_split_and_as_many_as_asked():
    few = TaskRun(prompts=3, dev_prompts=2)
    train, more, dev = (
        TaskPrompts.of("lists", few, split, count, seed=0)
        for split, count in (("train", None), ("train", 9), ("dev", 9))
    )
    assert [len(p.texts) for p in (train, more, dev)] == [3, 9, 2]
    assert more.texts[:3] == train.texts
    assert not set(more.texts) & set(dev.texts)
    assert (train.gen_length, train.block_length) == (32, 32)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"minutes": 0.0}, "minutes must be above 0, got 0.0"),
        ({"learning_rate": -1.0}, "learning_rate must be above 0, got -1.0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"blocks": 0}, "blocks must be at least 1, got 0"),
        ({"prompts": 0}, "prompts must be at least 1, got 0"),
        ({"drivers": ()}, "drivers must name at least one policy, got none"),
        ({"drivers": ({"threshold": 0.5},)}, "a driver must name its policy, got {'threshold': 0.5}"),
        ({"drivers": ({"policy": "tea"},)}, "policy of a driver must be one of .*, got 'tea'"),
    ],
)
def test_settings_are_refused_in_a_sentence(changes, complaint):
    with pytest.raises(ValueError, match=f"^{complaint}$"):
        CascadeFitting(**changes)


@pytest.mark.parametrize(
    "entry",
    [{"policy": "learned-parity", "gate": 0.5}, {"policy": "lopa"}, {"policy": "random"}, {"policy": "imh"}],
    ids=lambda entry: entry["policy"],
)
def test_a_driver_runs_one_canvas_a_round_and_draws_nothing(base, entry):
    with pytest.raises(ValueError, match=r"^a driver must commit on one canvas a round without draws, got "):
        driver_of(entry, base)
    assert driver_of({"policy": "learned-parity"}, base).needs.canvases == 1


def test_a_universal_head_has_none(tmp_path):
    settings = {
        "drivers": {"t": {"policy": "threshold"}},
        "beam": {},
        "relabel": {},
        "catalogue": (),
        "labelling": Labelling(),
    }
    counts = {"num_prompts": 1, "num_dev": 1, "batch_size": 1, "seed": 0, "device": None}
    universal = Fitting(variants=("features",), universal=True)
    head_run = HeadRun(model=None, out=tmp_path, tasks={"lists": TaskRun()}, fitting=universal, **settings, **counts)
    with pytest.raises(
        ValueError, match=r"^cascade must be left out for a universal head, which is bound to no base, got one$"
    ):
        replace(head_run, cascade=CascadeFitting())


def test_half_a_head_is_not_left_behind(base, tmp_path):
    save_head(base.head, tmp_path)
    assert sorted(p.name for p in (tmp_path / CASCADE).iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "cascade.safetensors",
    ]
    assert all(file.stat().st_mode & 0o044 == 0o044 for file in tmp_path.rglob("*.safetensors"))


def test_a_save_that_fails_leaves_what_was_there(base, tmp_path, monkeypatch):
    """Adapter and own tensors belong together: not one of them is of the later save."""
    save_head(base.head, tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    cascade = Cascade(CascadeConfig(rank=4, base=base.fingerprint()), base)  # another adapter
    monkeypatch.setattr("models.heads.saved_part.save_file", lambda *_, **__: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        save_cascade(cascade, tmp_path / CASCADE)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def of_each(base, countdown, drivers):
    """The examples of two drivers that take the prompts in turn."""
    return [
        one
        for number, policy in enumerate(drivers)
        for one in examples(base, countdown, countdown.texts[number::2], policy, base.head.taps_ahead)
    ]


def test_skill_is_the_share_of_the_divergence_that_is_gone(base, countdown, monkeypatch):
    drivers = [Threshold(0.7), Threshold(0.9)]
    expected = of_each(base, countdown, drivers)
    count = sum(len(one.target) for one in expected)
    without = sum(float(divergence(one.target, one.unmoved()).sum()) for one in expected) / count
    for foretold, kl, skill in (
        (lambda self, cascade: self.target, 0.0, 1.0),
        (lambda self, cascade: self.unmoved(), without, 0.0),
    ):
        monkeypatch.setattr(CascadeExample, "foretold", foretold)
        found = evaluate(base, countdown, drivers, batch_size=8)
        assert found["positions"] == count
        assert found["kl"] == pytest.approx(kl, rel=1e-4)
        assert found["kl_without"] == pytest.approx(without, rel=1e-4)
        assert found["skill"] == pytest.approx(skill, rel=1e-4, abs=1e-4)


def test_what_changes_is_judged_on_the_other_half_of_the_prompts(base, countdown, monkeypatch):
    """A cascade that knows the next forward tells which candidates it takes back; one that knows nothing is 1 - c as it is."""
    drivers = [Threshold(0.4), Threshold(0.6)]
    each = of_each(base, countdown, drivers)
    odd = [(one.prompt.unsqueeze(-1).expand(one.left.shape)[one.left] % 2 == 1) for one in each]
    changed = [one.target[half].argmax(-1) > 0 for one, half in zip(each, odd, strict=True)]
    monkeypatch.setattr(CascadeExample, "foretold", lambda self, cascade: self.target)
    knows = evaluate(base, countdown, drivers, batch_size=8)["changed"]
    assert knows["positions"] == sum(len(one) for one in changed)
    assert knows["share_wrong"] == pytest.approx(float(torch.cat(changed).float().mean()))
    assert 0 < knows["share_wrong"] < 1
    assert knows["auroc"] > 0.99
    assert knows["log_loss_skill"]["low"] > 0
    monkeypatch.setattr(CascadeExample, "foretold", lambda self, cascade: self.unmoved())
    assert evaluate(base, countdown, drivers, batch_size=8)["changed"]["log_loss_skill"]["estimate"] < 0.2


def test_decodes_of_one_round_teach_nothing(base, countdown):
    assert evaluate(base, countdown, [Threshold(1e-6)], batch_size=8) == {"positions": 0}


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--head", "nowhere"], "head must be a folder with head.safetensors, got nowhere"),
        (["--model", "tests/nowhere"], "model must be a checkpoint folder or a hub id, got 'tests/nowhere'"),
        (["--fitting.minutes", "0"], "minutes must be above 0, got 0"),
        (["--fitting.drivers", '[{"threshold": 0.5}]'], "a driver must name its policy, got "),
        (["--fitting.drivers", '[{"policy": "tea"}]'], "policy of a driver must be one of "),
        (["--fitting.drivers", "[]"], "drivers must name at least one policy, got none"),
        (["--fitting.duration", "3"], "fitting.duration"),
        (["--colour", "red"], "colour"),
        (["--tasks", "{}"], "tasks must name at least one task, got none"),
        (
            ["--tasks", '{"gsm8k": {}}'],
            "prompts_file of task gsm8k must be a file or hub, for it has no generator, got none",
        ),
        (
            ["--tasks", '{"lists": {"prompts_file": "no.jsonl"}}'],
            "prompts_file of task lists must be a file, got 'no.jsonl'",
        ),
    ],
)
def test_the_command_refuses_bad_input_in_a_sentence(capsys, tmp_path, arguments, complaint):
    with pytest.raises(SystemExit) as ended:
        run(command, [*arguments, "--out", str(tmp_path / "out")], default_config="configs/train/cascade.yaml")
    printed = capsys.readouterr()
    assert ended.value.code == 2
    assert printed.out == ""
    assert printed.err.startswith("cascade.py: ")
    assert printed.err.count("\n") == 1
    assert complaint in printed.err


@pytest.mark.parametrize(
    ("held", "arguments", "complaint"),
    [
        ("trials/countdown3.jsonl", ["head"], "model must be 'another' to go on with "),
        ("cascade.yaml", ["head", "--fitting.blocks", "99"], "blocks must be at most the base's 1, got 99"),
        ("cascade.yaml", ["head", "--fitting.drivers", '[{"policy": "lopa"}]'], "a driver must commit on one canvas a round "),
        ("head.safetensors", ["out"], "out must not be the folder of the head that gets the cascade, got 'out'"),
    ],
)  # fmt: skip
def test_what_cannot_be_fitted_is_refused_before_anything_is_done(
    capsys, tiny, tmp_path, monkeypatch, held, arguments, complaint
):
    save_head(ScoringHead(HeadConfig("linear", NAMES), models.load(tiny, device="cpu")), tmp_path / "head")
    monkeypatch.chdir(tmp_path)
    file = Path("out") / held
    file.parent.mkdir(parents=True)
    file.write_text(other := '{"task": "countdown3", "model": "another"}\n')
    few = "--trials.screen 1 --trials.confirm 3 --fitting.rank 2 --device cpu --out out --head".split()
    given = ["--tasks", '{"countdown3": {"prompts": 4, "dev_prompts": 2}}', "--model", str(tiny), *few]
    with pytest.raises(SystemExit) as ended:
        run(command, [*given, *arguments])
    assert (ended.value.code, complaint in capsys.readouterr().err) == (2, True)
    assert {one: one.read_text() for one in Path("out").rglob("*") if one.is_file()} == {file: other}


def test_bad_input_is_judged_before_torch_is_imported(tmp_path):
    code = (
        "import sys\n"
        "from train.cascade.__main__ import cascade\n"
        "from train.commands.command_line import run\n"
        'bad = [["--head", "nowhere"], ["--fitting.minutes", "0"], ["--tasks", \'{"gsm8k": {}}\'], ["--colour", "red"]]\n'
        "for more in bad:\n"
        f"    try: run(cascade, [*more, '--out', {str(tmp_path)!r}], default_config='configs/train/cascade.yaml')\n"
        "    except SystemExit as ended: print(ended.code, 'torch' in sys.modules, 'transformers' in sys.modules)\n"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == ["2 False False"] * 4, done.stderr
