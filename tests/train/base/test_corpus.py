"""Rows: layout, independence of the number of workers, files and splits."""

from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from train.base import corpus
from train.base.tokenizer import load
from train.tasks import TASKS, Example, get

WORDS = load()


def decode(ids: np.ndarray) -> str:  # type: ignore[type-arg]
    return WORDS.decode([int(i) for i in ids], skip_special_tokens=False)


def test_a_row_is_pads_then_prompt_then_response_then_eos() -> None:
    task = get("countdown3")
    rows = corpus.rows(task, WORDS, [Example("4,4,4,12", "4+4=8,8+4=12"), Example("15,44,79,50", "79-29=50")])
    assert rows.tokens.shape == (2, 12 + 24)
    assert rows.tokens.dtype == np.uint16
    assert rows.prompt_length.tolist() == [8, 11]
    for row, length, prompt, response in zip(
        rows.tokens, rows.prompt_length, ("4,4,4,12", "15,44,79,50"), ("4+4=8,8+4=12", "79-29=50"), strict=True
    ):
        assert (row[: 12 - length] == 0).all()
        assert decode(row[12 - length : 12]) == prompt
        assert decode(row[12 : 12 + len(response)]) == response
        assert (row[12 + len(response) :] == 0).all()


def test_prompts_wider_than_the_task_widen_the_rows() -> None:
    assert corpus.rows(get("countdown3"), WORDS, [Example("100000,4,4,1000000", "4")]).tokens.shape == (1, 18 + 24)


@pytest.mark.parametrize("length", [0, 25])
def test_empty_and_too_long_responses_are_refused(length: int) -> None:
    task = get("countdown3")
    assert len(corpus.rows(task, WORDS, [Example("4,4,4,12", "1" * 24)])) == 1
    with pytest.raises(ValueError, match=f"must have 1 to 24 tokens, got {length} for prompt '4,4,4,12'"):
        corpus.rows(task, WORDS, [Example("4,4,4,12", "1" * length)])


def test_tokenizers_of_transformers_serve_as_well() -> None:
    from transformers import PreTrainedTokenizerFast

    example = [Example("sort: 4 1", "1 4")]
    fast = PreTrainedTokenizerFast.from_pretrained(Path(corpus.recipe.SHIPPED))
    assert (corpus.rows(get("lists"), fast, example).tokens == corpus.rows(get("lists"), WORDS, example).tokens).all()


def test_the_number_of_workers_does_not_matter() -> None:
    alone = corpus.build("multiplication", 1100, seed=7)
    together = corpus.build("multiplication", 1100, seed=7, workers=2)
    assert (alone.tokens == together.tokens).all()
    assert (alone.prompt_length == together.prompt_length).all()
    assert not (alone.tokens[:512] == alone.tokens[512:1024]).all(axis=1).any()  # chunks differ


def test_seeds_and_splits_give_other_rows() -> None:
    one, other, dev = (
        corpus.build("countdown3", 20, seed=s, split=split)
        for s, split in ((1, "train"), (2, "train"), (1, "dev"))  # type: ignore[arg-type]
    )
    assert not (one.tokens == other.tokens).all()
    for row, length in zip(dev.tokens, dev.prompt_length, strict=True):
        assert get("countdown3").split_of(decode(row[12 - length : 12])) == "dev"


@pytest.mark.parametrize("settings", [{"n": 0}, {"n": 5, "workers": 0}])
def test_counts_below_one_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="n and workers must be at least 1"):
        corpus.build("lists", seed=0, **settings)


def test_files_give_the_rows_of_one_split(tmp_path: Path) -> None:
    task = TASKS["multiplication"]
    examples = [e for split in ("train", "test") for e in islice(task.generate(split, seed=2), 6)]  # type: ignore[arg-type]
    path = tmp_path / "a.txt"
    path.write_text("".join(f"{e.prompt}||{e.response}\n" for e in examples))
    assert len(corpus.from_file(task, path)) == 6
    assert len(corpus.from_file(task, path, 4)) == 4
    assert len(corpus.from_file(task, path, split=None)) == 12
    test = corpus.from_file(task, path, split="test")
    assert (test.tokens == corpus.rows(task, WORDS, examples[6:]).tokens).all()
    with pytest.raises(ValueError, match=r"got none in .*a\.txt"):
        corpus.from_file(task, path, split="dev")
