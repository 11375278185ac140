"""Renumbered word problems: hand-made rows with hand-checked redraws, what is refused, splits, and the rows of a file."""

import gzip
import json
import random
import re
from fractions import Fraction
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import pytest

from train.base import corpus
from train.tasks import Example, get
from train.tasks.puzzles.drills import ARITHMETIC
from train.tasks.renumbered import gsm8k_renumbered
from train.tasks.renumbered.gsm8k_renumbered import RenumberedTask, plain, split_of, templates
from train.tasks.renumbered.redraw import Template, blank, draw, parse, write

HERE = Path(__file__).parents[3]
REAL = HERE.parent / "shared" / "data" / "gsm8k" / "train.jsonl.gz"

BAKER = (
    "A baker has 6 trays with 24 rolls each. Half of the rolls are sold. How many rolls are left?",
    "There are 6 x 24 = <<6*24=144>>144 rolls.\nSo 144 / 2 = <<144/2=72>>72 rolls are left.\n#### 72",
)
BIKE = (
    "A bike costs $1,200. It is now 25% off. What does it cost now?",
    "The discount is 1200 * .25 = $<<1200*.25=300>>300.\nIt costs 1,200 - 300 = $<<1200-300=900>>900.\n#### 900",
)
TEA = (
    "Ann buys 3 boxes of tea at $4.50 a box and a cup for $7. How much does she pay?",
    "The tea costs 3*4.50=$<<3*4.5=13.50>>13.50.\nShe pays $13.50 + $7 = $<<13.5+7=20.50>>20.50.\n#### 20.50",
)
REASON = (
    "Tom has 30 nails and uses 12 of them. He puts the rest into boxes of 9. How many boxes are full?",
    "He has 18 left because 30 - 12 = <<30-12=18>>18.\nHe fills 18/9=2 boxes.\n#### 2",
)
ROWS = (BAKER, BIKE, TEA, REASON)


def parsed(row: tuple[str, str]) -> Template:
    template = parse(*row)
    assert template is not None
    return template


def redrawn(row: tuple[str, str], *values: object) -> Example | None:
    return write(parsed(row), tuple(Fraction(str(value)) for value in values))


@pytest.mark.parametrize("row", ROWS)
def test_own_numbers_give_the_row_itself(row: tuple[str, str]) -> None:
    template = parsed(row)
    assert write(template, template.originals) == Example(row[0], plain(row[1]))
    assert "<<" not in plain(row[1])


def test_other_numbers_give_the_text_worked_out_by_hand() -> None:
    assert redrawn(BAKER, 5, 30) == Example(
        "A baker has 5 trays with 30 rolls each. Half of the rolls are sold. How many rolls are left?",
        "There are 5 x 30 = 150 rolls.\nSo 150 / 2 = 75 rolls are left.\n#### 75",
    )
    assert redrawn(BIKE, 3000, 40) == Example(
        "A bike costs $3,000. It is now 40% off. What does it cost now?",
        "The discount is 3000 * .4 = $1200.\nIt costs 3,000 - 1200 = $1800.\n#### 1800",
    ) or redrawn(BIKE, 3000, 40) == Example(
        "A bike costs $3,000. It is now 40% off. What does it cost now?",
        "The discount is 3000 * .40 = $1200.\nIt costs 3,000 - 1200 = $1800.\n#### 1800",
    )
    assert redrawn(TEA, 5, "3.25", 8) == Example(
        "Ann buys 5 boxes of tea at $3.25 a box and a cup for $8. How much does she pay?",
        "The tea costs 5*3.25=$16.25.\nShe pays $16.25 + $8 = $24.25.\n#### 24.25",
    )
    assert redrawn(REASON, 47, 15, 8) == Example(
        "Tom has 47 nails and uses 15 of them. He puts the rest into boxes of 8. How many boxes are full?",
        "He has 32 left because 47 - 15 = 32.\nHe fills 32/8=4 boxes.\n#### 4",
    )


@pytest.mark.parametrize(("row", "values"), [(BAKER, (5, 31)), (REASON, (30, 13, 9)), (REASON, (12, 30, 9))])
def test_results_of_another_kind_are_refused(row: tuple[str, str], values: tuple[int, ...]) -> None:
    assert redrawn(row, *values) is None  # 155/2, 17/9, a negative number


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        (BAKER[0], BAKER[1].replace("=72>>72", "=71>>71").replace("#### 72", "#### 71")),  # wrong sum
        (BAKER[0], BAKER[1].replace("#### 72", "#### 71")),  # the answer is no result
        (BAKER[0], BAKER[1].replace("72 rolls are", "72 of 143 rolls are")),  # a number from nowhere
        (BAKER[0], BAKER[1].replace("<<6*24=144>>", "<<144=144>>")),  # a step that does not say how
        (BAKER[0].replace("6 trays", "six trays").replace("24 rolls", "many rolls"), BAKER[1]),  # 24 is nowhere
        (BAKER[0], "72"),
        ("There are 2 pairs and 3 triples. How many?", "2+3=<<2+3=5>>5\n#### 5"),  # both may stand for the words
        ("A box of 100 balls is 50% red, and 20 are lost.", "100*50/100=<<100*50/100=50>>50\n50-20=<<50-20=30>>30\n#### 30"),
    ],
)  # fmt: skip
def test_rows_that_cannot_be_traced_are_left_out(question: str, answer: str) -> None:
    assert parse(question, answer) is None


def test_numbers_that_belong_to_words_dates_and_fractions_stay() -> None:
    template = parsed(
        (
            "On the 3rd day of 2015 at 8:30 Eve paints 1/4 of 40 eggs, twice as many as the 10 that Max paints. How many?",
            "Eve paints 40/4 = <<40/4=10>>10.\nIn all 10+10 = <<10+10=20>>20.\n#### 20",
        )
    )
    moving = {int(old) for old, some in zip(template.originals, template.choices, strict=True) if len(some) > 1}
    assert moving == {40, 10}
    assert not {3, 2015, 8, 1, 4} & moving


@pytest.mark.parametrize("row", ROWS)
def test_every_draw_holds(row: tuple[str, str]) -> None:
    template, rng = parsed(row), random.Random(1)
    draws = [draw(template, rng) for _ in range(60)]
    assert all(draws)
    assert len({one.prompt for one in draws if one}) > 20
    for example in draws:
        assert example is not None
        assert example.prompt != row[0]
        assert blank(example.prompt) == template.key
        assert_equations_hold(example.response)
        percents = [int(p) for p in re.findall(r"(\d+)%", example.prompt)]
        assert all(2 <= p <= 95 for p in percents)


def assert_equations_hold(text: str) -> None:
    """Judge with nothing of the project's: digits, signs and Python."""
    number = r"(?:\d+(?:,\d{3})*(?:\.\d+)?|\.\d+)"
    for left, right in re.findall(
        rf"(?<![\w.)/%*])({number}(?: ?[-+*/x] ?\$?{number})+) ?= ?\$?({number})(?!\d)", text
    ):
        value = eval(re.sub(r"(\d+\.?\d*|\.\d+)", r"Fraction('\1')", re.sub(r"[$,]", "", left).replace("x", "*")))
        assert value == Fraction(right.replace(",", "")), text


@pytest.fixture
def task(tmp_path: Path) -> RenumberedTask:
    path = tmp_path / "rows.jsonl.gz"
    rows = [{"question": q, "answer": a} for q, a in (*ROWS, (BAKER[0], "no number"))]
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    known = get("gsm8k-renumbered")
    assert isinstance(known, RenumberedTask)
    from dataclasses import replace

    return replace(known, source=path)


def test_draws_of_a_split_keep_to_it_and_to_their_seed(task: RenumberedTask) -> None:
    assert len(templates(task.source)) == len(ROWS)
    streams = {}
    for split in ("train", "dev", "test"):
        streams[split] = list(islice(task.generate(split, seed=3), 40))  # type: ignore[arg-type]
        assert {task.split_of(example.prompt) for example in streams[split]} == {split}
        assert all(task.check(example, example.response) for example in streams[split])
    assert streams["train"] == list(islice(task.generate("train", seed=3), 40))
    assert streams["train"] != list(islice(task.generate("train", seed=4), 40))


def test_heads_are_split_by_template_and_see_no_draw_of_the_base(task: RenumberedTask) -> None:
    from dataclasses import replace

    heads = get("gsm8k-renumbered-heads")
    assert isinstance(heads, RenumberedTask)
    heads = replace(heads, source=task.source)
    for split in {split_of(blank(question)) for question, _ in ROWS}:
        for example in islice(heads.generate(split, seed=0), 10):
            assert heads.split_of(example.prompt) == split
            assert task.split_of(example.prompt) == "dev"


def test_the_number_after_the_mark_decides(task: RenumberedTask) -> None:
    example = Example(*BIKE)
    for text, right in {
        "#### 900": True, "so #### 900": True, "#### $900": True, "#### 900.00": True, "#### 901": False, "900": False,
        "####": False, "": False, "#### 900 1": False, "#### 9000": False,
    }.items():  # fmt: skip
        assert task.check(example, text) is right, text


def test_rows_of_the_official_files_are_read_without_annotations(task: RenumberedTask) -> None:
    first = next(task.read(task.source or ""))
    assert first == Example(BAKER[0], plain(BAKER[1]))


def test_training_rows_come_from_the_named_file(task: RenumberedTask) -> None:
    folder = HERE / "checkpoints" / "gsm-12m"
    rows = corpus.build("gsm8k-renumbered", 30, seed=1, tokenizer=folder, source=task.source)
    assert rows.tokens.shape == (30, task.prompt_length + task.gen_length)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"answer": "#### 1"}', 'row must have question and answer, got \'{"answer": "#### 1"}\''),
        ("[1]", "row must have question and answer, got '[1]'"),
        ('{"question', "line must be JSON"),
    ],
)
def test_a_row_that_cannot_be_read_is_named_by_file_and_line(tmp_path: Path, line: str, reason: str) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"question": BAKER[0], "answer": BAKER[1]}) + "\n\n" + line + "\n")
    with pytest.raises(ValueError, match="line 3") as caught:
        templates(file)
    assert str(caught.value).startswith(f"{file}, line 3: {reason}")


def test_without_a_file_rows_come_from_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    beside = tmp_path / "shared" / "data" / "gsm8k" / "train.jsonl.gz"
    beside.parent.mkdir(parents=True)
    beside.touch()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(gsm8k_renumbered, "TRAIN", SimpleNamespace(rows=lambda: iter([{"question": "x"}])))
    assert list(gsm8k_renumbered._rows(None)) == [{"question": "x"}]


def test_drills_are_right_and_one_text_solves_them() -> None:
    for example in islice(ARITHMETIC.generate("train", seed=0), 300):
        assert ARITHMETIC.check(example, example.response)
        assert not ARITHMETIC.check(example, example.response + "0")
        lines, mark, last = example.response.rpartition("\n#### ")
        assert mark
        assert lines.endswith(f"={last}") or lines.endswith(f"= {last}")
        assert [line.partition("=")[0].strip() for line in lines.split("\n")] == example.prompt.split("\n")
        assert_equations_hold(lines)
    assert ARITHMETIC.canonical("2 x .5\n1.05+.5") == ARITHMETIC.canonical("2*0.5\n1.05 + 0.5") == "2*0.5\n1.05+0.5"
    with pytest.raises(ValueError, match="arithmetic prompt must be lines"):
        ARITHMETIC.canonical("2 +")


@pytest.mark.skipif(not REAL.is_file(), reason="needs ../shared/data/gsm8k")
def test_most_rows_of_the_real_file_can_be_redrawn() -> None:
    with gzip.open(REAL, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in islice(lines, 400)]
    found = [template for row in rows if (template := parse(row["question"], row["answer"]))]
    assert 300 <= len(found) <= 340
    rng = random.Random(0)
    draws = [draw(template, rng) for template in found]
    assert sum(one is not None for one in draws) >= 0.98 * len(found)
    for example in draws:
        if example is not None:
            assert_equations_hold(example.response)
