"""What every task keeps: format, splits, seeds, files."""

import gzip
import hashlib
import json
import re
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest

from train.tasks import TASKS, Example, Task, get

FAST = [name for name in TASKS if not name.startswith("sudoku")]
BAD_PROMPTS = {
    "sudoku": ["", "0" * 80, "0" * 82, "0" * 80 + "x", "0" * 80 + "."],
    "sudoku-hard": ["1" * 80],
    "countdown3": ["", "1,2,3", "1,2,3,4,5", "1,2,,4", "1,2,3,x", "1,2,3,-4", "01,2,3,4", "1, 2,3,4"],
    "countdown4": ["1,2,3,4"],
    "multiplication": ["", "1 2", "12 * 3 4", "1 2 * 3 4 ", "1 2*3 4", "1 x * 3 4"],
    "lists": ["", "sort:4 7", "sort: ", "sort any: 4 7", "insert any: 4 7", "remove any by 3: 4", "remove at 2: 4 7"],
    "words": ["", " \n"],
}


def sample(name: str, count: int, *, split: str = "train", seed: int = 0) -> list[Example]:
    return list(islice(TASKS[name].generate(split, seed=seed), count))


def by_hand(canonical: str) -> str:
    value = int.from_bytes(hashlib.blake2b(canonical.encode(), digest_size=8).digest(), "big") % 64
    return {0: "test", 1: "dev"}.get(value, "train")


@pytest.mark.parametrize("name", TASKS)
def test_generated_references_pass_their_checker_and_a_changed_one_does_not(name: str) -> None:
    task = TASKS[name]
    for example in sample(name, 100 if name in FAST else 2):
        assert task.check(example, example.response)
        assert not task.check(example, "")
        assert not task.check(example, example.response[:-1])
        assert not task.check(example, example.response + " #### 1 1")


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_streams_keep_to_their_split(name: str, split: str) -> None:
    task = TASKS[name]
    for example in sample(name, 5 if name in FAST else 1, split=split):
        assert task.split_of(example.prompt) == split == by_hand(task.canonical(example.prompt))
        assert task.check(example, example.response)


@pytest.mark.parametrize("name", FAST)
def test_equal_seeds_give_equal_streams_and_others_differ(name: str) -> None:
    assert sample(name, 20, seed=3) == sample(name, 20, seed=3)
    assert sample(name, 20, seed=3) != sample(name, 20, seed=4)


def test_about_one_prompt_in_64_is_test_and_one_dev() -> None:
    task = TASKS["countdown3"]
    found = Counter(task.split_of(f"{a},{b},7,50") for a in range(1, 100) for b in range(a, 100))
    assert found["test"] == pytest.approx(4950 / 64, rel=0.35)
    assert found["dev"] == pytest.approx(4950 / 64, rel=0.35)


@pytest.mark.parametrize(
    ("name", "one", "other", "same"),
    [
        ("countdown3", "15,44,79,50", "79,15,44,50", True),
        ("countdown3", "15,44,79,50", "50,15,44,79", False),
        ("multiplication", "1 2 * 3 4", "3 4 * 1 2", False),
        ("lists", "sort: 1 2", "sort: 2 1", False),
        ("sudoku", "12" + "0" * 79, "95" + "0" * 79, True),
        ("sudoku", "12" + "0" * 79, "0" * 79 + "12", False),
        ("sudoku", "121" + "0" * 78, "122" + "0" * 78, False),
    ],
)
def test_canonical_instances(name: str, one: str, other: str, same: bool) -> None:
    assert (TASKS[name].canonical(one) == TASKS[name].canonical(other)) is same


@pytest.mark.parametrize(("name", "prompt"), [(name, prompt) for name, bad in BAD_PROMPTS.items() for prompt in bad])
def test_bad_prompts_are_refused_with_what_was_got(name: str, prompt: str) -> None:
    for function in (TASKS[name].canonical, TASKS[name].split_of):
        with pytest.raises(ValueError, match=r"prompt must .*, got ") as caught:
            function(prompt)
        assert repr(prompt) in str(caught.value)


KEYS = [("input", "output"), ("quiz", "solution"), ("prompt", "response"), ("question", "answer"), ("text", "answer")]


@pytest.mark.parametrize("keys", KEYS)
@pytest.mark.parametrize("name", ["data.jsonl", "data.jsonl.gz"])
def test_json_lines_are_read_as_they_stand(tmp_path: Path, name: str, keys: tuple[str, str]) -> None:
    records = [dict(zip(keys, pair, strict=True)) for pair in (("4,4,4,12", "4+4=8,8+4=12"), ("9,9,9,9", ""))]
    text = "\n".join([json.dumps(records[0]), "", json.dumps(records[1]), json.dumps({keys[0]: "1,1,1,3"})])
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
    read = list(get("countdown3").read(path))
    assert read == [Example("4,4,4,12", "4+4=8,8+4=12"), Example("9,9,9,9", ""), Example("1,1,1,3", "")]


def test_a_text_beside_a_question_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text('{"input": "4,4,4,12", "text": "4,4,4,12 4+4=8,8+4=12"}')
    assert list(get("countdown3").read(path)) == [Example("4,4,4,12", "")]


def test_text_lines_are_read_as_they_stand(tmp_path: Path) -> None:
    path = tmp_path / "data.txt.gz"
    path.write_bytes(gzip.compress(b"1 2 * 3 4||9 9\n5 * 6||\n"))
    assert list(get("multiplication").read(path)) == [Example("1 2 * 3 4", "9 9"), Example("5 * 6", "")]


@pytest.mark.parametrize(
    ("name", "line", "reason"),
    [
        ("bad.jsonl", '{"input": "1,2,3,4"', "must be JSON"),
        ("bad.jsonl", '["1,2,3,4"]', "must be an object"),
        ("bad.jsonl", '{"problem": "1,2,3,4"}', "with prompt or input or question or text or quiz, got"),
        ("bad.jsonl", '{"prompt": ""}', "prompt must be text, got ''"),
        ("bad.jsonl", '{"question": [], "quiz": null}', "question must be text, got []"),
        (
            "bad.jsonl",
            '{"question": "1,2,3,4", "quiz": "1,2,3,4"}',
            "line must hold one question, got question and quiz",
        ),
        ("bad.jsonl", '{"input": 5, "output": "x"}', "must be strings"),
        ("bad.jsonl", '{"input": "1,2,3"}', "countdown3 prompt must be 4"),
        ("bad.txt", "1,2,3,4|1", "prompt||response"),
        ("bad.txt", "1,2,3||1", "countdown3 prompt must be 4"),
    ],
)
def test_bad_lines_are_named_by_file_and_line(tmp_path: Path, name: str, line: str, reason: str) -> None:
    good = '{"input": "1,2,3,6", "output": "1+2=3,3+3=6"}' if name.endswith("jsonl") else "1,2,3,6||1+2=3,3+3=6"
    (tmp_path / name).write_text(f"{good}\n{line}\n{good}\n")
    with pytest.raises(ValueError, match="line 2") as caught:
        list(get("countdown3").read(tmp_path / name))
    assert name in str(caught.value)
    assert reason in str(caught.value)


def test_a_file_that_was_cut_off_is_told_in_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "data.jsonl.gz"
    whole = gzip.compress(b"".join(b'{"input": "2,3,4,%d"}\n' % number for number in range(1, 999)))
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=f"{re.escape(str(file))} must be a whole gzip file, got a damaged one"):
        list(TASKS["countdown3"].read(file))


def test_unknown_names_and_suffixes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"task must be one of sudoku, .*words, .*gsm8k, .*, got 'chess'"):
        get("chess")
    with pytest.raises((ValueError, TypeError), match="valid"):  # the type check of the tests may come first
        next(get("lists").generate("valid", seed=0))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"file name must end in .*, got 'a.csv'"):
        list(get("lists").read("a.csv"))


def test_blocks_must_divide_the_generation_length() -> None:
    lists = TASKS["lists"]
    with pytest.raises(ValueError, match="block_length must divide gen_length 32 of task odd, got 5"):
        Task("odd", 1, 32, 5, False, lists.make, lists.canonical, lists.check)


def test_multiplication_writes_the_published_chain() -> None:
    task = TASKS["multiplication"]
    published = {
        "5 6 3 2 * 7 4 3 4": "5 5 5 6 1 + 0 0 6 4 9 0 ( 5 5 1 1 1 1 ) + 0 0 5 9 0 7 0 ( 5 5 6 0 2 8 0 ) + "
        "0 0 0 0 6 4 9 0 #### 5 5 6 0 8 2 0 1",
        "6 9 1 5 * 6 4 4 7": "6 7 1 1 3 + 0 4 8 7 0 2 ( 6 1 0 9 3 2 ) + 0 0 4 8 7 0 2 ( 6 1 4 7 1 3 2 ) + "
        "0 0 0 2 7 3 6 3 #### 6 1 4 9 8 6 8 3",
    }
    for prompt, response in published.items():
        assert task.check(Example(prompt, ""), response)
        assert not task.check(Example(prompt, ""), response.replace("6", "5"))
    for example in sample("multiplication", 50):
        first, second = (int(factor.replace(" ", "")[::-1]) for factor in example.prompt.split(" * "))
        assert min(first, second) >= 1000
        assert int(example.response.rpartition("#### ")[2].replace(" ", "")[::-1]) == first * second


def test_multiplication_of_a_file_is_judged_by_its_own_reference() -> None:
    assert TASKS["multiplication"].check(Example("2 * 3", "6"), "6")
    assert not TASKS["multiplication"].check(Example("2 * 3", "6"), "6 0")


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("#### 12", True),
        ("so 5 + 7 = 12. #### 12", True),
        ("#### 3 #### 12", True),
        ("#### 12 #### 3", False),
        ("12", False),
        ("#### 12 apples", False),
        ("#### -12", False),
        ("####", False),
    ],
)
def test_word_problems_are_judged_by_the_last_number(text: str, right: bool) -> None:
    assert TASKS["words"].check(Example("How many?", "5 + 7 = 12. #### 12"), text) is right


def test_every_equation_of_a_word_problem_holds() -> None:
    for example in sample("words", 200):
        equations = [part.split(" = ") for part in _equations(example.response)]
        assert equations
        assert all(eval(left) == int(right) for left, right in equations)


def _equations(text: str) -> list[str]:
    return re.findall(r"\d+ [-+*/] \d+ = \d+", text)
