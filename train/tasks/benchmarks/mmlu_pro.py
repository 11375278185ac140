"""MMLU-Pro: multiple choice with up to ten options, zero-shot chain of thought, judged by the letter (lm-eval `mmlu_pro`)."""

import re
from collections.abc import Sequence

from train.tasks.benchmarks.benchmark import benchmark, field, optional, texts, until
from train.tasks.benchmarks.latex import last_boxed
from train.tasks.hub import Hub
from train.tasks.task import Example, Row

LETTERS = "ABCDEFGHIJ"
LETTER = r"[*_$\s(\[{\\]*(?:(?:text(?:bf)?|mathbf|mathrm|boxed)\{\(?)?([A-J])(?![A-Za-z'])"
ANSWER = re.compile(
    r"\b(?:[Aa]nswer|ANSWER|[Cc]hoice|[Oo]ption)\b[^.\n:]{0,60}?(?:\bis\b|:|=|(?:would|should|must) be)"
    rf"(?:\s*[*_:]+)*\s*(?:[Oo]ption|[Cc]hoice|[Ll]etter)?{LETTER}"
)
REVERSED = re.compile(r"(?:[Oo]ption|[Cc]hoice)?\s*\(?\b([A-J])\b\)?\s+is (?:the )?(?:correct|right|best)(?! about)")
BRACKETED = re.compile(r"\(([A-J])\)")
ALONE = re.compile(
    r"(?:^|\n)\W*(?:[Oo]ption |[Cc]hoice )?([A-J])(?:[.):*]|\s*(?:\n|$))|(?<![\w'])([B-HJ])(?=[\s.,)*]|$)(?!')"
)
BOTH = re.compile(r"\s*\)?\s*(?:or|and|/)\s*\(?([A-J])\b\)?")
OPTION = re.compile(r"^([A-J])\. (.*)$", re.MULTILINE)
STATED = re.compile(r"\banswer\b[^.\n:]{0,40}?(?:\bis\b|:)[*\s:$]*(.+?)[*$]*\.?\s*$", re.IGNORECASE | re.MULTILINE)


def ask(question: str, category: str = "") -> str:
    """The user message for a question that holds its options, one a line as `A. text`."""
    about = f" about {category}" if category else ""
    return (
        f"The following are multiple choice questions (with answers){about}. Think step by step and then finish your answer "
        f'with "the answer is (X)" where X is the correct letter choice.\n\nQuestion:\n{question}\n'
        "Answer: Let's think step by step."
    )


def read(row: Row) -> Example:
    """Read a record with `question`, `options` and `answer` (a letter) or `answer_index`; `category` is told the model."""
    question, options = (
        field(row, "question", "prompt", "input"),
        [one for one in texts(row, "options") if one != "N/A"],
    )
    if len(options) > len(LETTERS):
        raise ValueError(f"options must be at most {len(LETTERS)}, got {len(options)}")
    answer, index = optional(row, "answer", "output", "response"), row.get("answer_index")
    if not answer and isinstance(index, int):
        answer = LETTERS[index : index + 1]
    if answer and (len(answer) > 1 or answer not in LETTERS[: len(options) or None]):
        raise ValueError(f"answer must be one of the letters of the options, got {answer!r}")
    listed = "".join(f"\n{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False))
    asked = f"{question}\nOptions:{listed}" if options else question
    return Example(ask(asked, optional(row, "category")), f"The answer is ({answer})." if answer else "", answer)


def check(example: Example, text: str) -> bool:
    """Compare the letter with the reference."""
    return final_letter(text, OPTION.findall(example.prompt)) == example.answer


def final_letter(text: str, options: Sequence[tuple[str, str]] = ()) -> str | None:
    """The letter that a text chooses, None if it chooses none or two.

    In this order: the last "the answer is (X)" or "Answer: X"; a boxed letter; "X is correct"; the text of an option after
    "the answer is"; the last letter in brackets; the last letter that stands alone.

    Args:
        text: the model's.
        options: letters with their texts.
    """
    text = until(text, "\nQuestion:", "\n\nQ:")
    stated = list(ANSWER.finditer(text))
    if stated:
        letter = stated[-1][1]
        both = BOTH.match(text, stated[-1].end())
        return None if both and both[1] != letter else letter
    box = re.fullmatch(r"\W*(?:\\?text(?:bf)?\{)?\W*([A-J])\b.*", last_boxed(text) or "", re.DOTALL)
    if box:
        return box[1]
    if found := REVERSED.findall(text):
        return str(found[-1])
    said = STATED.findall(text)
    letters = {letter for letter, option in options if said and _bare(option) == _bare(said[-1])}
    if len(letters) == 1:
        return letters.pop()
    if found := BRACKETED.findall(text):
        return str(found[-1])
    alone = ALONE.findall(text)
    return (alone[-1][0] or alone[-1][1]) if alone else None


def _bare(text: str) -> str:
    return re.sub(r"[^\w.+-]+", "", text).rstrip(".").casefold()


MMLU_PRO = benchmark("mmlu-pro", read, check, ask=ask, hub=Hub("TIGER-Lab/MMLU-Pro"))
