"""Rows and files as other tools write them: the question whole or the row refused; encodings, nulls and false names told apart."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from train.tasks import get
from train.tasks.task import Example

WHOLE = [
    ({"instruction": "Translate it.", "input": "Good morning", "output": "Bonjour"}, "Translate it.\nGood morning"),
    ({"instruction": "Name a prime.", "input": "", "output": "2"}, "Name a prime."),
    ({"instruction": "Name a prime.", "input": None, "output": "2"}, "Name a prime."),
    ({"instruction": "Say hi.", "input": "x", "text": "Below is an instruction ... Say hi. ### Response: hi"}, "Say hi.\nx"),
    ({"instruction": "Who won?", "context": "Ann beat Bob.", "response": "Ann"}, "Ann beat Bob.\n\nWho won?"),
    ({"question": "Who won?", "context": "Ann beat Bob.", "title": "t", "answers": {"text": ["Ann"]}}, "Ann beat Bob.\n\nWho won?"),
    ({"passage": "Ann beat Bob.", "question": "Did Ann win?", "answer": "yes"}, "Ann beat Bob.\n\nDid Ann win?"),
    ({"article": "A.", "question": "Q?", "options": ["yes", "no"], "answer": "A"}, "A.\n\nQ?\nA. yes\nB. no"),
    ({"question": "Q?", "choices": ["yes", "no"]}, "Q?\nA. yes\nB. no"),
    ({"question": "Q?", "choices": {"text": ["yes", "no"], "label": ["1", "2"]}, "answerKey": "1"}, "Q?\n1. yes\n2. no"),
    ({"prompt": None, "question": "Q?"}, "Q?"),
    ({"prompt": "", "question": "Q?"}, "Q?"),
    ({"prompt": "Q?", "question": "Q?"}, "Q?"),
    ({"prompt": "Given: Ann beat Bob. Who won?", "context": "Ann beat Bob."}, "Given: Ann beat Bob. Who won?"),
    ({"question": "Q?", "context": None, "choices": [], "system": "", "history": []}, "Q?"),
    ({"body": "Ann has 3 pens.", "question": "How many pens?", "answer": "3"}, "Ann has 3 pens.\n\nHow many pens?"),
    ({"question": "Q?", "Context": None, "A": "", "B": None, "answer1": "x", "answer2": "y"}, "Q?"),
]  # fmt: skip
REFUSED = [
    ({"prompt": "One?", "question": "Another?"}, "row must have one question, got prompt and question"),
    ({"question": "Q?", "system": "Answer in verse."}, "system must be part of the question's own text"),
    ({"question": "Q?", "system_prompt": "Answer in verse."}, "system_prompt must be part of"),
    ({"prompt": "And then?", "history": [["Hi", "Hello"]]}, "history must be part of"),
    ({"prompt": "Q?", "messages": [{"role": "user", "content": "Q?"}]}, "messages must be part of"),
    ({"question": "What is shown?", "image": "cat.png"}, "image must be part of"),
    ({"question": "Q?", "hint": "a prime"}, "hint must be part of"),
    ({"Instruction": "Translate it.", "input": "Good morning"}, "instruction must be spelled so, got Instruction"),
    ({"instruction": "Translate it.", "Input": "Good morning"}, "input must be spelled so, got Input"),
    ({"instruction": "Translate it.", "inputs": "Good morning"}, "inputs must be part of"),
    (
        {"question": "Q?", "A": "yes", "B": "no", "answer": "A"},
        "options must be one list, choices or options, got them as A, B",
    ),
    ({"question": "Q?", "opa": "yes", "opb": "no", "cop": 0}, "got them as opa, opb"),
    ({"context": "C.", "question": "Q?", "answerA": "yes", "answerB": "no"}, "got them as answerA, answerB"),
    ({"prompt": "def f(", "suffix": "return x"}, "suffix must be part of"),
    ({"question": "Q?", "choices": [1, 2]}, "choices must be a list of texts"),
    ({"question": "Q?", "context": ["a", "b"]}, "context must be text"),
    (
        {"messages": [{"role": "user", "content": "Q?"}]},
        "row must have prompt or input or question or text, got messages",
    ),
]


def written(tmp_path: Path, *rows: Any, name: str = "rows.jsonl") -> Path:
    (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return tmp_path / name


@pytest.mark.parametrize(("row", "prompt"), WHOLE)
def test_a_question_in_several_fields_is_joined(tmp_path, row, prompt):
    assert [example.prompt for example in get("text").read(written(tmp_path, row))] == [prompt]


@pytest.mark.parametrize(("row", "sentence"), REFUSED)
def test_a_question_that_cannot_be_joined_is_refused_by_name_and_line(tmp_path, row, sentence):
    with pytest.raises(ValueError, match=r"rows\.jsonl, line 2: ") as refused:
        list(get("text").read(written(tmp_path, {"prompt": "Q?"}, row)))
    assert sentence in str(refused.value)


def test_benchmarks_join_and_refuse_alike(tmp_path):
    row = {"instruction": "Solve it.", "input": "What is 2 + 3?", "output": "5"}
    asked = [example.prompt for example in get("gsm8k").read(written(tmp_path, row))]
    assert asked == ["Q: Solve it.\nWhat is 2 + 3?\nA: Let's think step by step."]
    for name in ("gsm8k", "math500", "aime24", "mbpp"):
        with pytest.raises(ValueError, match="system must be part of"):
            list(get(name).read(written(tmp_path, {"prompt": "Q?", "text": "Q?", "system": "In verse."})))


@pytest.mark.parametrize(
    "extra", [{"instruction": "Use all."}, {"prompt": "1,1,1,3"}, {"context": "x"}, {"messages": ["x"]}]
)
def test_puzzles_refuse_what_their_format_does_not_hold(tmp_path, extra):
    row = {"input": "4,4,4,12", "output": "4+4=8,8+4=12"}
    assert list(get("countdown3").read(written(tmp_path, {**row, **dict.fromkeys(extra)}))) == [Example(*row.values())]
    with pytest.raises(ValueError, match=r"must hold one question|must be part of the question"):
        list(get("countdown3").read(written(tmp_path, {**row, **extra})))


@pytest.mark.parametrize(
    ("more", "answer"),
    [
        ({"options": ["5", "6"], "answer": "B"}, "B"),
        ({"choices": ["5", "6"], "answer": 1}, "B"),
        ({"options": ["5", "6"], "answer_index": 1}, "B"),
        ({"choices": {"text": ["5", "6"], "label": ["1", "2"]}, "answerKey": "2"}, "B"),
        ({"options": ["5", "6"], "answer": None}, ""),
    ],
)
def test_multiple_choice_of_several_formats(tmp_path, more, answer):
    (example,) = get("mmlu-pro").read(written(tmp_path, {"question": "2 * 3?", **more}))
    assert example.answer == answer
    assert "Question:\n2 * 3?\nOptions:\nA. 5\nB. 6\n" in example.prompt


GOOD = '{"input": "4,4,4,12", "output": "4+4=8,8+4=12"}\n'


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.txt"])
def test_a_byte_order_mark_is_no_text(tmp_path, name):
    text = "\ufeff" + (GOOD if "jsonl" in name else "4,4,4,12||4+4=8,8+4=12\n")
    data = text.encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    assert list(get("countdown3").read(tmp_path / name)) == [Example("4,4,4,12", "4+4=8,8+4=12")]


FILES = [
    ("a.jsonl", (GOOD * 2).encode("utf-16"), "line 1: text must be in UTF-8, got UTF-16"),
    ("a.jsonl", (GOOD * 2).encode("utf-16-be"), "line 1: text must be in UTF-8, got UTF-16"),
    ("a.jsonl", (GOOD * 2).encode("utf-16-le"), "line 1: text must be in UTF-8, got UTF-16"),
    ("a.jsonl", GOOD.encode() + '{"input": "é"}'.encode("latin-1"), "line 2: text must be in UTF-8, got byte 0xe9 at 11"),
    ("a.jsonl.gz", gzip.compress(GOOD.encode() + '{"input": "é"}'.encode("latin-1")), "line 2: text must be in UTF-8"),
    ("a.txt", b"4,4,4,12||x\n\xff\xfe\x80", "line 2: text must be in UTF-8, got byte 0xff at 0, as in Latin-1"),
    ("a.txt", b"4,4,4,12||x\n4,\0", "line 2: text must be in UTF-8, got byte 0x00 at 2"),
    ("a.txt", b"4,4,4,12||4+4=8\xff", "line 1: text must be in UTF-8"),
    ("a.jsonl.gz", GOOD.encode(), "must be a gzip file by its name, got one that begins with b'{\"'"),
    ("a.jsonl", gzip.compress(GOOD.encode()), "must be text by its name, got a gzip file: name it a.jsonl.gz"),
    ("a.jsonl.gz", gzip.compress(GOOD.encode())[:-6], "must be a whole gzip file"),
    ("a.jsonl.gz", gzip.compress(GOOD.encode()) + b"trailing", "must be a whole gzip file"),
    ("a.jsonl", GOOD.encode() + b'{"input": "\\ud83d"}', "line 2: countdown3 prompt must"),
    ("a.jsonl", GOOD.encode() + b'{"input": "1,2,3,6", "output": "\\ud83d"}', "line 2: response must be whole letters"),
    ("a.jsonl", GOOD.encode() + b'{"input": "1,2,3,6", "input": "1,1,1,3"}', "line 2: input must be there once"),
    ("a.jsonl", GOOD.encode() + b'{"input": "1,2,3,6", "level": NaN}', "line 2: numbers must be finite, got NaN"),
    ("a.jsonl", GOOD.encode() + b"[" * 100_000, "line 2: it must be nested less deeply"),
    ("a.jsonl", GOOD.encode() + b'{"input": ' + b'{"a": ' * 100_000, "line 2: it must be nested less deeply"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "data", "sentence"), FILES, ids=[str(number) for number in range(len(FILES))])
def test_a_file_that_is_not_what_its_name_says_is_told_with_its_line(tmp_path, name, data, sentence):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=name) as refused:
        list(get("countdown3").read(tmp_path / name))
    assert sentence in str(refused.value)


def test_an_empty_packed_file_holds_nothing(tmp_path):
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b""))
    assert list(get("countdown3").read(tmp_path / "a.jsonl.gz")) == []


def test_surrogate_pairs_are_one_letter(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"prompt": "\\ud83d\\ude00 caf\\u00e9"}\n')
    assert [example.prompt for example in get("text").read(tmp_path / "a.jsonl")] == ["😀 café"]
