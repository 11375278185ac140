"""What a task is: its lengths, its format, where its examples come from, its checker and its split rule, all as data."""

import hashlib
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from models.complaints import shown
from train.tasks.hub import HUB, Hub
from train.tasks.question import is_there, refuse_parts, require_string
from train.tasks.text_files import lines_of, parse_json, placed, require_text, shorten

Split = Literal["train", "dev", "test"]
Row = Mapping[str, object]

ANSWER_KEYS = {"prompt": "response", "input": "output", "question": "answer", "text": "answer", "quiz": "solution"}
SPLIT_CLASSES = 64


@dataclass(frozen=True)
class Example:
    """A prompt and its reference answer; an empty reference means that the file gave none.

    Attributes:
        prompt: what the model is asked.
        response: a text that answers it.
        answer: what the checker of a benchmark compares with (a number, a letter, tests); "" where nothing is known.
    """

    prompt: str
    response: str
    answer: str = ""


def keep_all(record: Row) -> bool:
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
        make: draws one instance; None where there is no generator and all examples come from a file or from the hub.
        canonical: the instance behind a prompt, for the split rule; ValueError if the prompt breaks the format.
        check: whether a text (the decoded response up to the first EOS) solves the example.
        keeps: whether a record of a user's file belongs to this task.
        vary: another instance by a symmetry that keeps the difficulty; makes the small splits cheap to fill.
        row: reads a record of a file in the benchmark's own format; ValueError if it cannot. None: the generated tasks' formats.
        ask: what the model is asked where a user types a bare question.
        hub: where the examples are on the hub.
        needs_answer: the checker compares with `Example.answer`, so that an example without one cannot be judged.
        needs_response: the same of `Example.response`.
        runs_code: the checker runs what the model wrote.
        split_classes: one in so many instances is a test instance, and one a dev instance.
    """

    name: str
    prompt_length: int
    gen_length: int
    block_length: int
    unique_answer: bool
    make: Callable[[random.Random], Example] | None
    canonical: Callable[[str], str]
    check: Callable[[Example, str], bool]
    keeps: Callable[[Row], bool] = keep_all
    vary: Callable[[random.Random, Example], Example] | None = None
    row: Callable[[Row], Example] | None = None
    ask: Callable[[str], str] = str
    hub: Hub | None = None
    needs_answer: bool = False
    needs_response: bool = False
    runs_code: bool = False
    split_classes: int = SPLIT_CLASSES

    def __post_init__(self) -> None:
        if self.gen_length < 1:
            raise ValueError(f"gen_length of task {self.name} must be at least 1, got {self.gen_length}")
        if self.block_length < 1 or self.gen_length % self.block_length:
            raise ValueError(
                f"block_length must divide gen_length {self.gen_length} of task {self.name}, got {self.block_length}"
            )

    def split_of(self, prompt: str) -> Split:
        """Say which split a prompt belongs to: blake2b(canonical instance) mod `split_classes`, 0 test, 1 dev, else train.

        Raises:
            ValueError: if the prompt breaks the task's format.
        """
        digest = hashlib.blake2b(self.canonical(prompt).encode(), digest_size=8).digest()
        remainder = int.from_bytes(digest, "big") % self.split_classes
        return "test" if remainder == 0 else "dev" if remainder == 1 else "train"

    def judges(self, example: Example) -> bool:
        """Say whether the checker has what it needs to judge an answer to this example."""
        return bool((example.answer or not self.needs_answer) and (example.response or not self.needs_response))

    def generate(self, split: Split, *, seed: int) -> Iterator[Example]:
        """Yield instances of one split without end; streams of different splits or seeds share no randomness.

        Raises:
            ValueError: for another split, or if the task has no generator.
        """
        if split not in ("train", "dev", "test"):
            raise ValueError(f"split must be train, dev or test, got {shown(split)}")
        if self.make is None:
            raise ValueError(f"task {self.name} must be given a file of prompts, for it has no generator, got none")
        rng = random.Random(f"{split}/{seed}")
        while True:
            example = self.make(rng)
            while self.vary is not None and self.split_of(example.prompt) != split:
                example = self.vary(rng, example)
            if self.vary is not None or self.split_of(example.prompt) == split:
                yield example

    def read(self, path: str | Path) -> Iterator[Example]:
        """Yield the examples of a file, its own strings unchanged, or those of a benchmark on the hub.

        Args:
            path: `.jsonl` with prompt/response, input/output, question/answer, text/answer, quiz/solution or the benchmark's own
                fields, or, for tasks with a generator, `.txt` with `prompt||response` lines; either may end in `.gz`. The answer
                may be left out. The word `hub` takes the benchmark's test split from the hub.

        Raises:
            ValueError: for an unknown suffix, or a line that cannot be read, naming file and line; if the hub gives nothing.
        """
        if path == HUB:
            yield from self._read_hub()
            return
        path = Path(path)
        suffix = path.name.removesuffix(".gz").rpartition(".")[2]
        allowed = ("jsonl", "txt") if self.row is None else ("jsonl",)
        if suffix not in allowed:
            endings = (
                ", ".join(f".{name}" for name in allowed) + " or " + " or ".join(f".{name}.gz" for name in allowed)
            )
            raise ValueError(f"file name must end in {endings}, got {shown(path.name)}")
        parse = self.parse_record if suffix == "jsonl" else self._parse_text
        for number, line in enumerate(lines_of(path), 1):
            try:
                example = _whole(parse(line.rstrip("\r\n"))) if line.strip() else None
            except ValueError as error:
                raise placed(f"{path}, line {number}", error) from error
            if example is not None:
                yield example

    def _read_hub(self) -> Iterator[Example]:
        if self.hub is None or self.row is None:
            raise ValueError(f"task {self.name} must be given a file of prompts, for it is not on the hub, got {HUB}")
        for number, record in enumerate(self.hub.rows(), 1):
            try:
                yield self.row(record)
            except ValueError as error:
                raise placed(f"{self.hub.dataset}, row {number}", error) from error

    def parse_record(self, line: str) -> Example | None:
        """Read one line of a JSONL file; None for a record that is another task's.

        Raises:
            ValueError: if it cannot be read.
        """
        record = parse_json(line)
        if self.row is not None:
            if not isinstance(record, dict):
                raise ValueError(f"line must be a JSON object, got {shorten(line)}")
            return self.row(record)
        keys = [key for key in ANSWER_KEYS if isinstance(record, dict) and is_there(record, key)]
        keys = [key for key in keys if key != "text"] or keys  # beside a question `text` is often its answer
        if not keys:
            for key in ANSWER_KEYS if isinstance(record, dict) else ():
                if record.get(key) is not None:
                    require_string(record, key)
            raise ValueError(f"line must be an object with {' or '.join(ANSWER_KEYS)}, got {shorten(line)}")
        if len(keys) > 1:
            raise ValueError(f"line must hold one question, got {' and '.join(keys)}")
        refuse_parts(record, ())
        key = keys[0]
        prompt, response = record[key], record.get(ANSWER_KEYS[key])
        response = "" if response is None else response
        if not (isinstance(prompt, str) and isinstance(response, str)):
            raise ValueError(f"{key} and {ANSWER_KEYS[key]} must be strings, got {shorten(line)}")
        self.canonical(prompt)
        return Example(prompt, response) if self.keeps(record) else None

    def _parse_text(self, line: str) -> Example:
        prompt, bar, response = line.partition("||")
        if not bar:
            raise ValueError(f"line must read prompt||response, got {shorten(line)}")
        self.canonical(prompt)
        return Example(prompt, response)


def _whole(example: Example | None) -> Example | None:
    """The example itself, its texts made of whole letters."""
    if example is not None:
        for name in ("prompt", "response", "answer"):
            require_text(name, getattr(example, name))
    return example
