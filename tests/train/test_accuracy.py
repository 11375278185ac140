"""The accuracy command: what it cannot judge is refused before the model is read, and each task says how many prompts it had."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

import decoding
import models
from train.accuracy import accuracy


@pytest.mark.parametrize(
    ("task", "row", "sentence"),
    [
        ("gsm8k", {"question": "Why?"}, "prompts of task gsm8k must come with answers to be judged, got 1 without"),
        ("words", {"prompt": "Why?"}, "prompts of task words must come with answers to be judged, got 1 without"),
        ("mbpp", {"text": "f", "test_list": ["assert f()"]}, "run_code must be true for task mbpp, whose checker runs"),
    ],
)
def test_what_cannot_be_judged_is_refused_before_the_model_is_read(tmp_path, monkeypatch, task, row, sentence):
    monkeypatch.setattr(models, "load", lambda *_, **__: 1 / 0)
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(row) + "\n")
    with pytest.raises(ValueError, match=sentence):
        accuracy(tasks=(task,), prompts=str(file))
    if task == "mbpp":
        with pytest.raises(ZeroDivisionError):
            accuracy(tasks=(task,), prompts=str(file), run_code=True)


def test_each_task_says_how_many_prompts_were_decoded(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(models, "load", lambda *_, **__: SimpleNamespace(device="cpu"))
    monkeypatch.setattr(
        decoding, "generate", lambda _, prompts, *a, **k: SimpleNamespace(text=["#### 1"] * len(prompts))
    )
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps({"question": f"{n}?", "answer": f"#### {n}"}) + "\n" for n in range(3)))
    accuracy(tasks=("gsm8k",), prompts=str(file), num_prompts=500, batch_size=2, out=tmp_path)
    found = json.loads((tmp_path / "accuracy.json").read_text())
    assert "n" not in found
    assert (found["tasks"]["gsm8k"]["n"], found["tasks"]["gsm8k"]["accuracy"]) == (3, pytest.approx(1 / 3))
    assert "(n = 3)" in capsys.readouterr().out
