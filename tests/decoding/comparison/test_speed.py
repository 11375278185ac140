"""`python -m models.profile` on a CPU: which rows it measures, and what is left of a run that was cut off."""

from __future__ import annotations

import json

import pytest

import models
from decoding.comparison import speed
from decoding.comparison.speed import PART, SURE, profile, table
from decoding.features import NAMES
from models.heads.config import HeadConfig
from models.heads.scoring_head import ScoringHead


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
