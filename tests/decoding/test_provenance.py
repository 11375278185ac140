"""What is written of a result is whole: aside first, then renamed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from decoding import provenance
from decoding.provenance import write_json, write_text


@pytest.mark.parametrize("write", [lambda file: write_json(file, {"a": 2}), lambda file: write_text(file, "second")])
def test_a_kill_while_writing_leaves_what_was_there(tmp_path, monkeypatch, write) -> None:
    file = tmp_path / "result.json"
    write_json(file, {"a": 1})
    plain = Path.write_text

    def cut(self: Path, text: str, **more: str) -> int:
        plain(self, text[: len(text) // 2], **more)
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_text", cut)
    with pytest.raises(KeyboardInterrupt):
        write(file)
    monkeypatch.undo()
    assert json.loads(file.read_text()) == {"a": 1}


def test_nan_is_refused_before_anything_is_written(tmp_path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "result.json", {"a": float("nan")}, allow_nan=False)
    assert list(tmp_path.iterdir()) == []


def test_the_hash_of_the_code_covers_every_folder(tmp_path, monkeypatch) -> None:
    for name in ("decoding/a.py", "decoding/policies/b.py", "models/heads/c.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1")
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "decoding" / "provenance.py"))
    seen = set()
    for name in (None, "decoding/a.py", "decoding/policies/b.py", "models/heads/c.py"):
        if name is not None:
            (tmp_path / name).write_text("2")
        provenance.code.cache_clear()
        seen.add(provenance.code())
    provenance.code.cache_clear()
    assert len(seen) == 4
