"""GSM8K: grade-school word problems, zero-shot chain of thought, judged by the final number (lm-eval `gsm8k_cot_zeroshot`)."""

import re
from decimal import Decimal

from train.tasks.benchmarks.benchmark import benchmark, field, optional, until
from train.tasks.benchmarks.latex import last_boxed
from train.tasks.hub import Hub
from train.tasks.task import Example, Row

# a minus counts as a sign where no term stands before it and no space after it, or after a dollar
NUMBER = re.compile(r"((?<![\w)\]}])-)?(?:\\?\$(-)?)?(\d{1,3}(?:,\d{3})+(?!\d)|\d+|(?=\.\d))(\.\d+)?")
SUBJECT = r"\banswer\b(?:\s+(?:to|for|of)\b[^.\n:=]{0,80}?)?[*_\s]*"
DENIED = re.compile(rf"{SUBJECT}(?:is|was)(?:[*_\s]+not\b|n['’]t\b)[*_\s]*{NUMBER.pattern}", re.IGNORECASE)
ANSWER = re.compile(
    rf"{SUBJECT}(?:(?:is|was|would be|should be)\b(?![*_\s]+not\b)|:|=)(?=([^\n]*(?:\n\s*[^\n]+)?))", re.IGNORECASE
)
UNIT_POWER = re.compile(r"(?<=[a-zA-Z}])\s*\^\s*(?:\d|\{\s*\d\s*\})")
SENTENCE = re.compile(r"[.!?](?=[\s*]|$)|\n")
NEXT_QUESTION = ("\nQ:", "\nQuestion:", "\n\nProblem:")


def ask(question: str) -> str:
    """The user message for a question."""
    return f"Q: {question}\nA: Let's think step by step."


def read(row: Row) -> Example:
    """Read a record with `question` and `answer` (a chain of thought that ends in `#### number`, or the number alone)."""
    question, answer = (
        field(row, "question", "problem", "prompt", "input"),
        optional(row, "answer", "output", "response"),
    )
    number = final_number(answer)
    if answer and number is None:
        raise ValueError(f"answer must end in a number, got {answer[-60:]!r}")
    return Example(ask(question), answer, "" if number is None else str(number))


def check(example: Example, text: str) -> bool:
    """Compare the final number with the reference's."""
    number = final_number(text)
    return number is not None and number == Decimal(example.answer)


def final_number(text: str) -> Decimal | None:
    """The number that a text gives as its answer, None if it holds none.

    In this order: after the last `####`; the first in the last box; after the last "the answer is"; in bold in the last line
    that holds a number; the last of the last sentence that holds one, or there the first after the last `=`.
    """
    text = plain(until(text, *NEXT_QUESTION))
    if "####" in text:
        found = numbers(text.rpartition("####")[2].partition("\n")[0])
        if found:
            return found[0]
    box = last_boxed(text)
    if box is not None and numbers(box):
        return _of_clause(box, first=True)
    for rest in reversed(ANSWER.findall(text)):
        clause = next((clause for clause in SENTENCE.split(rest) if numbers(clause)), None)
        if clause is not None:
            return _of_clause(clause, first=True)
    sentences = [sentence for sentence in SENTENCE.split(text) if numbers(sentence)]
    return _of_clause(sentences[-1], first=False) if sentences else None


def _of_clause(clause: str, *, first: bool) -> Decimal:
    bold = [number for part in re.findall(r"\*\*(.+?)\*\*", clause) for number in numbers(part.rpartition("=")[2])]
    if bold:
        return bold[-1]
    after = numbers(clause.rpartition("=")[2]) if "=" in clause else []
    if after:
        return after[0]
    return numbers(clause)[0 if first else -1]


def numbers(text: str) -> list[Decimal]:
    """All numbers of a text in their order."""
    return [
        Decimal("-" * bool(match[1] or match[2]) + match[3].replace(",", "") + (match[4] or ""))
        for match in NUMBER.finditer(text)
    ]


def plain(text: str) -> str:
    """The text with one way to write a minus, a thousand and a space, and without denied answers and powers of units."""
    text = re.sub("[\u2212\u2013](?=\\s?[$\\d])", "-", text).replace("{,}", ",").replace(",\\!", ",").replace("\\!", "")
    text = re.sub("(?<=\\d)[\u00a0\u202f](?=\\d{3})", ",", text)
    return DENIED.sub("", UNIT_POWER.sub("", text))


GSM8K = benchmark("gsm8k", read, check, ask=ask, hub=Hub("openai/gsm8k", config="main"))
