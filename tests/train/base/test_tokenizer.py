"""The tokenizer: one token a symbol, exact round trips, special ids, and the shipped files."""

import json
import random
import runpy
import sys
from itertools import islice
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from train.base import tokenizer as recipe
from train.commands.command_line import run
from train.tasks import TASKS


@pytest.fixture(scope="module")
def shipped() -> Tokenizer:
    return recipe.load()


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fresh")
    recipe.save(folder)
    return folder


def pieces(tokenizer: Tokenizer, text: str) -> list[str]:
    return [text[start:stop] for start, stop in tokenizer.encode(text).offsets]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5 6 3 * 7", ["5", " 6", " 3", " *", " 7"]),
        ("1234", ["1", "2", "3", "4"]),
        ("a12b 34", ["a", "1", "2", "b", " 3", "4"]),
        ("12+3=15,", ["1", "2", "+", "3", "=", "1", "5", ","]),
        ("( 5 )", ["(", " 5", " )"]),
        ("0 #### 5", ["0", " ####", " 5"]),
        ("####5", ["####", "5"]),
        ("# ## ###", ["#", " #", "#", " #", "#", "#"]),
        ("#####", ["####", "#"]),
        ("5  5", ["5", " ", " 5"]),
        ("5\n6", ["5", "\n", "6"]),
        ("5 \n\n6", ["5", " ", "\n", "\n", "6"]),
        ("sort: x q", ["sort", ":", " x", " q"]),
        ("...", [".", ".", "."]),
    ],
)
def test_text_splits_into_one_token_a_symbol(shipped: Tokenizer, text: str, expected: list[str]) -> None:
    assert pieces(shipped, text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "  leading",
        "trailing  ",
        "tabs\tand\r\nlines\n",
        "Straße, naïve — 東京 ½ ٣ 🙂",
        "\x00\x7f",
        "a 's",
        "½ ²",
    ],
)
def test_any_text_comes_back_exactly(shipped: Tokenizer, text: str) -> None:
    assert shipped.decode(shipped.encode(text).ids, skip_special_tokens=False) == text


def test_random_text_comes_back_exactly(shipped: Tokenizer) -> None:
    rng = random.Random(0)
    for _ in range(200):
        text = "".join(chr(rng.choice((rng.randrange(128), rng.randrange(0x800), 0x1F600))) for _ in range(30))
        assert shipped.decode(shipped.encode(text).ids, skip_special_tokens=False) == text


def test_vocabulary_is_small_and_starts_with_the_special_tokens(shipped: Tokenizer) -> None:
    assert shipped.get_vocab_size() <= 768
    assert [shipped.id_to_token(i) for i in range(6)] == list(recipe.SPECIALS)


def test_transformers_loads_the_folder_with_its_roles() -> None:
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    for kind in (AutoTokenizer, PreTrainedTokenizerFast):
        loaded = kind.from_pretrained(recipe.SHIPPED)
        assert (loaded.eos_token, loaded.pad_token, loaded.mask_token) == (recipe.EOS, recipe.EOS, recipe.MASK)
        assert loaded("5 6 * 7").input_ids == recipe.load().encode("5 6 * 7").ids
        assert loaded.decode(loaded(" a . 5 ,").input_ids) == " a . 5 ,"


def test_the_recipe_gives_the_shipped_files(fresh: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        assert json.loads((fresh / name).read_text()) == json.loads((recipe.SHIPPED / name).read_text()), name


def test_symbols_are_single_tokens_whatever_the_texts() -> None:
    tokenizer = recipe.build(["only these words"])
    for text in ("5 6 * 7 #### x", "a #b"):
        assert all(len(piece.lstrip()) in (1, 4) for piece in pieces(tokenizer, text))
    assert len(tokenizer.encode(" ####").ids) == 1


@pytest.mark.parametrize("name", [name for name in TASKS if not name.startswith("sudoku")])
def test_generated_rows_fit_their_task(shipped: Tokenizer, name: str) -> None:
    task = TASKS[name]
    examples = list(islice(task.generate("train", seed=9), 2000 if name == "words" else 500))
    prompts, responses = (
        max(len(encoding.ids) for encoding in shipped.encode_batch([getattr(e, part) for e in examples]))
        for part in ("prompt", "response")
    )
    assert prompts <= task.prompt_length
    assert responses < task.gen_length  # at least one EOS
    if name == "words":
        assert prompts <= 110
        assert responses <= 95


def test_sudoku_takes_a_token_a_cell(shipped: Tokenizer) -> None:
    assert len(shipped.encode("012345678" * 9).ids) == 81


@pytest.mark.filterwarnings("ignore:.*found in sys.modules")
def test_the_command_complains_by_the_name_of_its_file(capsys, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["tokenizer.py"])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # runpy would keep code with shape checks
    with pytest.raises(SystemExit):
        runpy.run_module("train.base.tokenizer", run_name="__main__", alter_sys=True)
    assert capsys.readouterr().err.startswith("tokenizer.py: ")


def test_the_recipe_writes_nowhere_unless_it_is_told_where() -> None:
    before = {file.name: file.stat().st_mtime_ns for file in recipe.SHIPPED.iterdir()}
    with pytest.raises(SystemExit) as ended:
        run(recipe.save, [])
    assert ended.value.code == 2
    assert {file.name: file.stat().st_mtime_ns for file in recipe.SHIPPED.iterdir()} == before
