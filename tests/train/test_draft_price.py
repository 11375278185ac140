"""`python -m train.draft_price`: the rule alone first, then every kind of draft that was asked for."""

from __future__ import annotations

import json

import pytest

from train.commands.command_line import run
from train.draft_price import draft_price


def priced(tiny, out, *options: str):
    few = ["--num_prompts", "8", "--batches", "8", "--decodes", "1", "--repeats", "1"]
    run(draft_price, ["--model", str(tiny), "--task", "countdown3,multiplication", "--out", str(out), *few, *options])
    return json.loads((out / "draft-price.json").read_text())


@pytest.mark.parametrize("cache", ["none", "dual"])
def test_drafts_need_no_head_and_give_the_text_of_the_rule(tiny, tmp_path, capsys, cache):
    found = priced(
        tiny, tmp_path, "--canvases", "2", "--sources", "reading", "--use_cache", cache, "--block_length", "8"
    )
    alone, exact, subset, *others = found["rows"]
    kinds = [(1, "", ""), (2, "exact", "reading"), (2, "subset", "reading")]
    assert [(row["canvases"], row["mode"], row["source"]) for row in found["rows"]] == 2 * kinds
    canvases = {(row["task"], row["gen_length"], row["block_length"], row["use_cache"]) for row in found["rows"]}
    assert canvases == {("countdown3", 24, 8, cache), ("multiplication", 64, 8, cache)}
    assert exact["equal"] == exact["prompts"] == 8
    assert exact["rounds"] <= alone["rounds"] == alone["sequence_forwards"]
    assert exact["drafts"] > 0 == exact["looks"] == alone["drafts"]
    assert exact["rounds"] == pytest.approx(alone["rounds"] - exact["drafts_true"])
    assert subset["drafts_true"] > 0 == others[0]["drafts"]
    assert "k 2  exact, reading plain" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--sources", "cascade,readings", "sources must be cascade or reading, got 'readings'"),
        ("--modes", "exact,all", "modes must be exact or subset, got 'all'"),
        ("--block_length", "0", "block_length must be at least 1, got 0"),
        ("--canvases", "2,0", "canvases must be whole numbers from 1"),
        ("--sources", "cascade", "head must be a folder with head.safetensors, for none ships for"),
    ],
)
def test_what_it_cannot_price_is_said(tiny, tmp_path, capsys, option, value, said):
    with pytest.raises(SystemExit) as ended:
        priced(tiny, tmp_path, option, value)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "draft-price.json").exists()
