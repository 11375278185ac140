"""Device rows: padding, draws and the order of tasks."""

from __future__ import annotations

import collections
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

from train.base import rows as rows_module
from train.base.corpus import Rows
from train.base.rows import Narrow, TaskData, TaskRows, draw_task, load_rows, load_task

CPU = torch.device("cpu")


def placed(pad_to: int | None, lengths: tuple[int, ...] = (2, 1)) -> TaskData:
    tokens = np.array([[9, 1, 2, 5, 6], [9, 9, 3, 7, 8]], dtype=np.uint16)
    return load_rows("t", Rows(tokens, np.array(lengths)), TaskRows(1.0, 2, pad_to=pad_to), canvas=2, device=CPU)


def test_rows_lose_common_padding_and_know_their_own() -> None:
    data = placed(None)
    assert data.tokens.tolist() == [[1, 2, 5, 6], [9, 3, 7, 8]]
    assert data.padding is not None
    assert data.padding.tolist() == [0, 1]


def test_pad_to_widens_on_the_left() -> None:
    data = placed(6)
    assert data.tokens[0].tolist() == [0, 0, 1, 2, 5, 6]
    assert data.padding is not None
    assert data.padding.tolist() == [2, 3]


def test_prompts_of_one_length_need_no_mask() -> None:
    assert placed(None, (2, 2)).padding is None


def test_too_narrow_is_refused() -> None:
    with pytest.raises(ValueError, match="pad_to of t must be at least 4, got 3"):
        placed(3)


def test_draws_repeat_with_the_seed_and_keep_row_and_padding_together() -> None:
    data = placed(None)
    one, two = (data.draw(32, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(one.tokens, two.tokens)
    assert one.padding is not None
    assert torch.equal(one.tokens[:, 0] == 9, one.padding == 1)
    assert 0 < one.padding.sum() < 32


def test_tasks_come_by_share_and_in_every_stretch() -> None:
    shares = [0.1, 0.6, 0.3]
    drawn = [draw_task(step, shares, seed=5) for step in range(1000)]
    counts = collections.Counter(drawn)
    assert all(abs(counts[i] - 1000 * share) <= 5 for i, share in enumerate(shares))
    assert all(len(set(drawn[i : i + 20])) == 3 for i in range(0, 980, 7))
    assert drawn != [draw_task(step, shares, seed=6) for step in range(1000)]


@pytest.mark.parametrize(("share", "rows"), [(0.0, 1), (1.0, 0)])
def test_wrong_specs_are_refused(share: float, rows: int) -> None:
    with pytest.raises(ValueError, match="got 0"):
        TaskRows(share, rows)


def test_rows_are_made_once_and_files_come_before_the_generator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    calls = []

    def made(kind: str) -> Callable[..., Rows]:
        def make(*args: object, **kwargs: object) -> Rows:
            calls.append(kind)
            return Rows(np.array([[9, 1] + [5] * 24, [9, 9] + [6] * 24], dtype=np.uint16), np.array([1, 2]))

        return make

    monkeypatch.setattr(rows_module, "build", made("build"))
    monkeypatch.setattr(rows_module, "from_file", made("file"))
    (tmp_path / "tokenizer.json").write_text("{}")

    def load(split: Literal["train", "dev"]) -> TaskData:
        spec = TaskRows(1.0, 2, files=(str(tmp_path / "rows.jsonl"),))
        return load_task("countdown3", spec, tmp_path, split=split, seed=0, cache=tmp_path / "cache", device=CPU)

    first, again = load("train"), load("train")
    assert torch.equal(first.tokens, again.tokens)
    assert first.padding is not None
    assert first.padding.tolist() == [1, 0]
    assert "rows are generated instead" in caplog.text
    (tmp_path / "rows.jsonl").write_text("{}")
    load("train")
    load("train")
    load("dev")
    assert calls == ["build", "file", "build"]
    (tmp_path / "rows.jsonl").write_text("[]")  # as long as before
    load("train")
    assert calls == ["build", "file", "build", "file"]


def test_narrow_keeps_the_rows_that_fit_and_cuts_padding_and_fill() -> None:
    short = [9, 9, 1, 2, 5, 9, 9, 9]
    wide = [9, 1, 1, 2, 5, 9, 9, 9]  # its prompt is too long
    long = [9, 9, 1, 2, 5, 6, 9, 9]  # its answer is too long
    rows = Rows(np.array([wide, short, long], dtype=np.uint16), np.array([3, 2, 2]))
    data = load_rows("t", rows, TaskRows(1.0, 3, pad_to=10), canvas=4, device=CPU)
    cut = data.cut(Narrow(0.5, width=4, canvas=2), eos_id=9)
    assert (cut.tokens.tolist(), cut.share, cut.canvas) == ([[1, 2, 5, 9]], 0.5, 2)
    assert cut.padding is not None
    assert cut.padding.tolist() == [0]
    padded = data.cut(Narrow(0.5, width=5, canvas=2), eos_id=9)
    assert padded.tokens.tolist() == [[1, 1, 2, 5, 9], [9, 1, 2, 5, 9]]
    assert padded.padding is not None
    assert padded.padding.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("narrow", "message"),
    [
        (Narrow(0.5, width=3, canvas=1), "must leave rows of 3 columns"),
        (Narrow(0.5, width=4, canvas=2), "must be below width 5 and canvas 2, got 4 and 2"),
        (Narrow(0.5, width=9, canvas=1), "must be below width 5"),
    ],
)
def test_narrow_that_cannot_be_cut_is_refused(narrow: Narrow, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        placed(5).cut(narrow, eos_id=4)
    with pytest.raises(ValueError, match="rows are of one width"):
        placed(None, (2, 2)).cut(narrow, eos_id=4)
