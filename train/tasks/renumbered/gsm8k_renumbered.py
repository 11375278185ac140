"""GSM8K's training problems with their numbers drawn anew; the rows come from a file or the hub, never from this project.

Two tasks share templates, lengths and checker and differ in their split, by a hash mod 8 (0 test, 1 dev, else train):

- `gsm8k-renumbered` splits **by draw**: the instance is the prompt with its numbers. A base that trains on its train stream
  sees every template; its dev and test streams are fresh draws, none of which can be in the train stream.
- `gsm8k-renumbered-heads` splits **by template**: the instance is the question with its numbers left out, so a head is judged on
  problems it was never fitted on. All its draws are of the dev class by draw: no base above has trained on one of them.
"""

import hashlib
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal

from models.complaints import shown
from train.commands.command_line import shipped
from train.tasks.benchmarks.benchmark import canonical
from train.tasks.hub import Hub
from train.tasks.question import is_there, question
from train.tasks.renumbered.redraw import Template, blank, draw, parse
from train.tasks.renumbered.sources import NUMBER, number_of
from train.tasks.task import Example, Row, Split, Task
from train.tasks.text_files import lines_of, parse_json, shorten

SOURCE = Path("data/gsm8k/train.jsonl.gz")
TRAIN = Hub("openai/gsm8k", split="train", config="main")
TOKENIZER = "checkpoints/gsm-12m"
PROMPT_LENGTH, GEN_LENGTH = 128, 192
CLASSES = 8
ANSWER = re.compile(rf"\s*\$?({NUMBER})\s*")


def split_of(instance: str) -> Split:
    """Blake2b of an instance, mod 8: 0 test, 1 dev, else train."""
    remainder = int.from_bytes(hashlib.blake2b(instance.encode(), digest_size=8).digest(), "big") % CLASSES
    return "test" if remainder == 0 else "dev" if remainder == 1 else "train"


@cache
def templates(source: Path | None = None) -> tuple[Template, ...]:
    """The rows that can be redrawn and fit the canvas.

    Args:
        source: JSONL with question and answer; by default `data/gsm8k/train.jsonl.gz`, where missing the hub's training split.
    """
    parsed = (template for row in _rows(source) if (template := parse(str(row["question"]), str(row["answer"]))))
    return tuple(template for template in parsed if _fits(_original(template)))


def _rows(source: Path | None) -> Iterator[Row]:
    path = source or (SOURCE if SOURCE.is_file() else None)
    if path is None:
        yield from TRAIN.rows()
        return
    for number, line in enumerate(lines_of(path), 1):
        if not line.strip():
            continue
        try:
            row = parse_json(line)
            if not isinstance(row, dict) or not (is_there(row, "question") and is_there(row, "answer")):
                raise ValueError(f"row must have question and answer, got {shorten(line.strip())}")
            asked, answer = question(row, "question"), str(row["answer"])
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
        yield {"question": asked, "answer": answer}


def _original(template: Template) -> Example:
    sides = (
        "".join(p if isinstance(p, str) else p.text for p in side) for side in (template.question, template.answer)
    )
    return Example(*sides)


@cache
def _encoder() -> object:
    from tokenizers import Tokenizer

    file = shipped(TOKENIZER) / "tokenizer.json"
    return Tokenizer.from_file(str(file)) if file.is_file() else None


def _fits(example: Example) -> bool:
    encoder = _encoder()
    if encoder is None:
        return True
    prompt, response = encoder.encode_batch_fast([example.prompt, example.response])  # type: ignore[attr-defined]
    return len(prompt) <= PROMPT_LENGTH and len(response) < GEN_LENGTH


@dataclass(frozen=True)
class RenumberedTask(Task):
    """A task whose instances are redrawn rows of a file.

    Args:
        source: the file; None for the default, see `templates`.
        split_by: what the split rule hashes: the numbered prompt, or the question without numbers.
    """

    source: Path | None = None
    split_by: Literal["draw", "template"] = "draw"

    def split_of(self, prompt: str) -> Split:
        """Say which split a prompt belongs to, see the module."""
        return split_of(self.canonical(prompt))

    def generate(self, split: Split, *, seed: int) -> Iterator[Example]:
        """Yield redrawn rows of one split without end.

        Raises:
            ValueError: for another split, or a source without a row of the split that can be redrawn.
        """
        if split not in ("train", "dev", "test"):
            raise ValueError(f"split must be train, dev or test, got {shown(split)}")
        rng = random.Random(f"{split}/{seed}")
        known = templates(self.source)
        if self.split_by == "template":
            known = tuple(template for template in known if split_of(template.key) == split)
        if not known:
            raise ValueError(f"source must hold rows of split {split} that can be redrawn, got none in {self.source}")
        wanted = "dev" if self.split_by == "template" else split
        while True:
            template = rng.choice(known)
            for _ in range(
                4 * CLASSES
            ):  # keep to the template: short streams of a rare split show as many as long ones
                example = draw(template, rng)
                if example is None:
                    break
                if split_of(canonical(example.prompt)) == wanted and _fits(example):
                    yield example
                    break


def by_template(prompt: str) -> str:
    """Name the instance by its prompt without numbers."""
    return blank(canonical(prompt))


def read(row: Row) -> Example:
    """Read a record of GSM8K (annotations removed, so that it reads as the training rows do) or of this task's own format.

    Raises:
        ValueError: for a record without text.
    """
    question = row.get("question", row.get("prompt", row.get("input")))
    answer = row.get("answer", row.get("response", row.get("output", "")))
    if not isinstance(question, str) or not isinstance(answer, str):
        raise ValueError(f"row must have question and answer, got {', '.join(map(str, row)) or 'an empty one'}")
    canonical(question)
    return Example(question, plain(answer))


def plain(answer: str) -> str:
    """A worked answer without its annotations."""
    return re.sub(r"<<[^<>]*>>", "", answer).strip()


def check(example: Example, text: str) -> bool:
    """Compare the number after the last `####` with the reference's."""
    written, wanted = (ANSWER.fullmatch(one.rpartition("####")[2]) for one in (text, example.response))
    return bool("####" in text and written and wanted and number_of(written[1]) == number_of(wanted[1]))


def _make(rng: random.Random) -> Example:
    """Draw from any template of the default source."""
    while True:
        example = draw(rng.choice(templates()), rng)
        if example is not None:
            return example


GSM8K_RENUMBERED = RenumberedTask(
    name="gsm8k-renumbered",
    prompt_length=PROMPT_LENGTH,
    gen_length=GEN_LENGTH,
    block_length=GEN_LENGTH,
    unique_answer=False,
    make=_make,
    canonical=canonical,
    check=check,
    needs_response=True,
    row=read,
    hub=Hub("openai/gsm8k", config="main"),
)
GSM8K_RENUMBERED_HEADS = replace(
    GSM8K_RENUMBERED, name="gsm8k-renumbered-heads", canonical=by_template, split_by="template"
)
