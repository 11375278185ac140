"""`python -m models.profile` on a CPU: which rows it measures, what is left of a run that was cut off, and what it refuses."""

from __future__ import annotations

import json

import pytest

import models
from decoding.comparison import continuous, speed
from decoding.comparison.speed import PART, SURE, profile, table
from decoding.features import NAMES
from models.heads.config import HeadConfig
from models.heads.scoring_head import ScoringHead
from tests.complaint import complaint, early_complaint
from train.commands.command_line import run
from train.commands.profile import profile as command


@pytest.fixture
def out(tmp_path, monkeypatch):
    """A folder; the machine's ceilings are given, which take half a second."""
    monkeypatch.setattr(speed, "ceilings", lambda *_: {"copy_tb_s": 1.0, "matrix_tflop_s": 0.001})
    return tmp_path


def test_every_decode_is_measured_against_its_floor(out, tiny):
    found = profile(model=tiny, out=out, device="cpu")
    rows = {(row["policy"], row["cache"]): row for row in found["rounds"]}
    assert set(rows) == {(name, mode) for name in SURE for mode in ("dual", "none")}
    for (name, _), row in rows.items():
        looks, canvases = row["looks_a_round"], row["canvases_a_round"]
        assert (looks > 0.5) == (name in ("learned", "verified, 2 canvases", "verified, 4 canvases"))
        assert (canvases > 1.2) == (name not in ("threshold", "learned"))
        assert row["times_floor"] == pytest.approx(row["ms"] / row["floor_ms"])
        opened = row["times_floor"] / row["times_floor_with_openings"]
        whole = rows[name, "none"]["floor_ms"] / row["floor_ms"]
        assert opened == pytest.approx(1 + (whole - 1) * row["openings"] / row["rounds"])
    assert rows["threshold", "none"]["floor_ms"] > rows["threshold", "dual"]["floor_ms"]
    assert json.loads((out / "speed.json").read_text()) == json.loads(json.dumps(found))
    assert not (out / PART).exists()
    assert f"published loop, batch 1{'':42}{found['published_ms']['1']:9.3f} ms" in table(found)


def test_what_was_measured_before_a_cut_is_kept(out, tiny, monkeypatch):
    (out / "speed.json").write_text("of an earlier run")
    measure, rows = speed.round_row, []

    def cut_off(*args, **options):
        if len(rows) == 4:
            raise KeyboardInterrupt
        rows.append(measure(*args, **options))
        return rows[-1]

    monkeypatch.setattr(speed, "round_row", cut_off)
    with pytest.raises(KeyboardInterrupt):
        profile(model=tiny, out=out, device="cpu")
    left = json.loads((out / PART).read_text())
    assert [row["policy"] for row in left["rounds"]] == ["threshold", "threshold"]
    assert left["rounds"][0]["ms"] == rows[2]["ms"]
    assert {"published_ms", "denoiser", "free_lunch", "plain_round", "first_round"} <= left.keys()
    assert (out / "speed.json").read_text() == "of an earlier run"


def test_what_reads_a_head_or_its_cascade_is_left_out_without_one(tiny):
    denoiser = models.load(tiny, device="cpu")
    headless = {name for name in SURE if speed.can_run(name, denoiser)}
    assert headless == SURE.keys() - {"learned", "verified, 2 canvases", "verified, 4 canvases"}
    denoiser.put_on(ScoringHead(HeadConfig("linear", NAMES), denoiser).eval())
    assert {name for name in SURE if speed.can_run(name, denoiser)} == headless | {"learned"}
    denoiser.put_on(speed.unfitted_head(denoiser))
    assert all(speed.can_run(name, denoiser) for name in SURE)


HEAD, SHAPE = "checkpoints/reason-7m-head", "checkpoints/reason-7m"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("--rows 0 --prompts -5", "prompts must come with continuous, got -5 without"),
        ("--policy nope", "policy must come with continuous, got 'nope' without"),
        ("--threshold 0.8", "settings must come with continuous, got {'threshold': 0.8} without"),
        ("--use_cache none", "use_cache must come with continuous, got 'none' without"),
        ("--model docs", "model must be a folder with config.json and tokenizer_config.json, got 'docs' without"),
        ("--model nofolder", "model must be a checkpoint folder or a hub id, got 'nofolder'"),
        ("--shape docs", "shape must be a folder with config.json, got 'docs'"),
        (f"--shape {SHAPE} --model docs", "model must be left out with shape, whose weights are random, got 'docs'"),
        (f"--shape {SHAPE} --head {HEAD}", f"head must be left out with shape, whose weights are random, got '{HEAD}'"),
        ("--head docs", "head must be a folder with head.safetensors, got docs"),
        ("--device tpu", "device must be one of cpu"),
        ("--continuous --policy nope", "policy must be one of sequential, "),
        ("--continuous --rows 0", "rows must be at least 1, got 0"),
        ("--continuous --rows 2 --prompts 0", "prompts must be at least 1, got 0"),
        ("--continuous --threshold 7", "threshold must lie in (0, 1], got 7"),
        ("--continuous --policy ete --draft 0.5", "settings of policy ete must be among "),
        ("--continuous --gen_len 8", "gen_length must be left out with continuous, which sets it, got 8"),
        ("--continuous --use_cache none --dual_cache", "use_cache must be 'dual' with dual_cache, got 'none'"),
        (f"--continuous --head {HEAD}", f"head must come with a policy that reads one, got '{HEAD}' with policy threshold"),
        (
            f"--continuous --policy learned --shape {SHAPE}",
            "head must be a folder with head.safetensors for policy learned, got none",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_measured_is_refused_in_one_sentence(capsys, tmp_path, arguments, sentence):
    said = complaint(capsys, command, *arguments.split(), "--out", str(tmp_path / "out"))
    assert said.startswith(f"profile.py: {sentence}")
    assert not (tmp_path / "out").exists()


def test_a_refusal_comes_before_anything_heavy():
    assert (
        early_complaint("models/profile.py", "--rows", "0")
        == "profile.py: rows must come with continuous, got 0 without\n"
    )


def test_a_mix_is_decoded_by_the_policy_with_its_settings_and_its_head(capsys, monkeypatch):
    seen = {}
    monkeypatch.setattr(models, "load", lambda model, **how: seen.update(how))
    monkeypatch.setattr(
        continuous, "measure", lambda denoiser, mix, **how: seen.update(how) or {"prompts": len(mix.prompts)}
    )
    monkeypatch.setattr(continuous, "table", lambda found: f"{found['prompts']} by {found['policy']}")
    learned = "--policy learned --risk_bound 0.1 --use_cache none --prompts 3 --rows 2 --device cpu".split()
    run(command, ["--continuous", *learned, "--head", HEAD])
    assert seen.pop("options") == {"policy": "learned", "risk_bound": 0.1, "use_cache": "none"}
    assert (seen["head"], seen["rows"], capsys.readouterr().out) == (HEAD, 2, "3 by learned\n")
