"""What a task is: its lengths, its format, its generator, its checker and its split rule, all as data."""

import gzip
import hashlib
import json
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import Literal

Split = Literal["train", "dev", "test"]

ANSWER_KEYS = {"input": "output", "quiz": "solution", "prompt": "response"}
SPLIT_CLASSES = 64


@dataclass(frozen=True)
class Example:
    """A prompt and its reference answer; an empty reference means that the file gave none."""

    prompt: str
    response: str


def keep_all(record: Mapping[str, object]) -> bool:
    """Keep every record of a file."""
    return True


@dataclass(frozen=True)
class Task:
    """A kind of problem with its lengths in tokens, seeded generator and checker.

    Args:
        name: the name users type.
        prompt_length: the longest generated prompt, in tokens of the shipped tokenizer.
        gen_length: length of the response canvas in tokens, EOS included.
        block_length: block length to decode with; divides `gen_length`.
        unique_answer: True where one token sequence alone is right.
        make: draws one instance.
        canonical: the instance behind a prompt, for the split rule; ValueError if the prompt breaks the format.
        check: whether a text (the decoded response up to the first EOS) solves the example.
        keeps: whether a record of a user's file belongs to this task.
        vary: another instance by a symmetry that keeps the difficulty; makes the small splits cheap to fill.
    """

    name: str
    prompt_length: int
    gen_length: int
    block_length: int
    unique_answer: bool
    make: Callable[[random.Random], Example]
    canonical: Callable[[str], str]
    check: Callable[[Example, str], bool]
    keeps: Callable[[Mapping[str, object]], bool] = keep_all
    vary: Callable[[random.Random, Example], Example] | None = None

    def __post_init__(self) -> None:
        if self.block_length < 1 or self.gen_length % self.block_length:
            raise ValueError(
                f"block_length must divide gen_length {self.gen_length} of task {self.name}, got {self.block_length}"
            )

    def split_of(self, prompt: str) -> Split:
        """Say which split a prompt belongs to: blake2b(canonical instance) mod 64, 0 test, 1 dev, else train.

        Raises:
            ValueError: if the prompt breaks the task's format.
        """
        digest = hashlib.blake2b(self.canonical(prompt).encode(), digest_size=8).digest()
        remainder = int.from_bytes(digest, "big") % SPLIT_CLASSES
        return "test" if remainder == 0 else "dev" if remainder == 1 else "train"

    def generate(self, split: Split, *, seed: int) -> Iterator[Example]:
        """Yield instances of one split without end; streams of different splits or seeds share no randomness."""
        if split not in ("train", "dev", "test"):
            raise ValueError(f"split must be train, dev or test, got {split!r}")
        rng = random.Random(f"{split}/{seed}")
        while True:
            example = self.make(rng)
            while self.vary is not None and self.split_of(example.prompt) != split:
                example = self.vary(rng, example)
            if self.vary is not None or self.split_of(example.prompt) == split:
                yield example

    def read(self, path: str | Path) -> Iterator[Example]:
        """Yield the examples of a file, its own strings unchanged.

        Args:
            path: `.jsonl` with input/output, quiz/solution or prompt/response, or `.txt` with `prompt||response`
                lines; either may end in `.gz`. The answer may be left out.

        Raises:
            ValueError: for an unknown suffix, or a line that cannot be read, naming file and line.
        """
        path = Path(path)
        suffix = path.name.removesuffix(".gz").rpartition(".")[2]
        if suffix not in ("jsonl", "txt"):
            raise ValueError(f"file name must end in .jsonl, .txt, .jsonl.gz or .txt.gz, got {path.name!r}")
        parse = self._parse_json if suffix == "jsonl" else self._parse_text
        with _open(path) as lines:
            for number, line in enumerate(lines, 1):
                try:
                    example = parse(line.rstrip("\r\n")) if line.strip() else None
                except ValueError as error:
                    raise ValueError(f"{path}, line {number}: {error}") from error
                if example is not None:
                    yield example

    def _parse_json(self, line: str) -> Example | None:
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"line must be JSON, got {_short(line)} ({error.msg})") from error
        key = next((k for k in ANSWER_KEYS if isinstance(record, dict) and k in record), None)
        if key is None:
            raise ValueError(f"line must be an object with input, quiz or prompt, got {_short(line)}")
        prompt, response = record[key], record.get(ANSWER_KEYS[key], "")
        if not (isinstance(prompt, str) and isinstance(response, str)):
            raise ValueError(f"{key} and {ANSWER_KEYS[key]} must be strings, got {_short(line)}")
        self.canonical(prompt)
        return Example(prompt, response) if self.keeps(record) else None

    def _parse_text(self, line: str) -> Example:
        prompt, bar, response = line.partition("||")
        if not bar:
            raise ValueError(f"line must read prompt||response, got {_short(line)}")
        self.canonical(prompt)
        return Example(prompt, response)


def _open(path: Path) -> TextIOWrapper:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8")
    return path.open(encoding="utf-8")


def _short(line: str) -> str:
    return repr(line if len(line) <= 60 else line[:57] + "...")
