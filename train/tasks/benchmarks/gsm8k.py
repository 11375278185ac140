"""GSM8K: grade-school word problems, zero-shot chain of thought, judged by the final number (lm-eval `gsm8k_cot_zeroshot`)."""

import re
from decimal import Decimal

from models.complaints import shown
from train.tasks.benchmarks.benchmark import benchmark, optional, squeezed, until
from train.tasks.benchmarks.latex import last_boxed
from train.tasks.hub import Hub
from train.tasks.question import question
from train.tasks.task import Example, Row

# a minus counts as a sign where no term stands before it and no space after it, or after a dollar
NUMBER = re.compile(
    r"((?<![\w)\]}])-)?(?:\\?\$(-)?)?(\d{1,3}(?:,\d{3})+(?!\d)|\d+|(?=\.\d))(\.\d+(?:[eE][+-]?\d{1,2}(?!\w))?)?"
)
PLACE = r"(?:step|part|stage|case|phase|section|method|approach|solution|question|task|note|check|example)\b[\s*_#]*\d+"
COUNTED = re.compile(  # what a section may be named after; with nothing behind it, it is an answer
    r"[\s*_#]*(?:day|week|month|year|hour|round|trip|person|group|option|scenario)\b[\s*_#]*\d+[\s*_]*(?:[:.)]|$)",
    re.IGNORECASE,
)
HEADING = re.compile(  # of a section, where `####` is Markdown's: "Step 2: money", "2. Money", "3) Then"
    rf"[\s*_#]*(?:{PLACE}|\d+\s*[.)]\s*[*_]*[A-Za-z])", re.IGNORECASE
)
SECTION = re.compile(rf"^[ \t*_#]*{PLACE}[\s*_]*(?:[:.)]|\n|$)", re.IGNORECASE | re.MULTILINE)
ITEM = re.compile(r"^\s*\d{1,2}[.)](?=\s+\S)", re.MULTILINE)
WORKED = re.compile(  # a sum in words, and what it comes to
    rf"^[^\d\n]*{NUMBER.pattern}\s*(?:times|plus|minus|multiplied by|divided by|added to|less|[*x×+/÷-])\s[^\n]*?"
    rf"\b(?:which (?:is|equals|makes|gives)|equals|equal to|gives?|makes|totals|comes to|is)\b(?=(.*))",
    re.IGNORECASE,
)
FRACTION = re.compile(  # "3/4", "1 1/2"; no date
    r"(?P<sign>(?<![\w)\]}])-)?(?:\\?\$)?(?<![\d.,/])(?P<whole>\d+\s+)?(?P<top>\d+)\s?/\s?(?P<bottom>0*[1-9]\d*)(?![\d/]|[.,]\d)"
)
LATEX_FRACTION = re.compile(r"\\[dtc]?frac\s*(?:(\d)(\d)|\{\s*(-?)(\d+)\s*\}\s*\{\s*(\d+)\s*\})")
ASIDE = re.compile(r"\s[(\[][^()\[\]=\n]{1,120}[)\]]")
SAME = re.compile(  # an aside that says the answer again: "(36)", "(or 36 eggs)", "(a total of 36)"
    r"\s.(?:so|or|about|that is|which is|i\.e\.|(?:a |in )?total(?: of)?)?[\s,:$]*-?\.?\d", re.IGNORECASE
)
REMARK = re.compile(
    r"\b(?:in|per|every|each) 1 (?:minute|hour|day|week|month|year)\b|\bout of [\d,]*\d"
    r"|^[ *_#]*note[ *_]*:[^\n]*"
    r"|^[ *_#]*(?:check|verification)[ *_]*:[^\n]*(?:\n(?!\s*\n)[^\n]*)*",  # the paragraph
    re.IGNORECASE | re.MULTILINE,
)
SUBJECT = r"\banswer\b(?:\s+(?:to|for|of)\b[^.\n:=]{0,80}?)?[*_\s]*"
DENIED = re.compile(rf"{SUBJECT}(?:is|was)(?:[*_\s]+not\b|n['’]t\b)[*_\s]*{NUMBER.pattern}", re.IGNORECASE)
ANSWER = re.compile(  # with what follows it, cut where a model repeats itself
    rf"{SUBJECT}(?:(?:is|was|would be|should be)\b(?![*_\s]+not\b)|:|=)(?=([^\n]{{0,500}}(?:\n\s*[^\n]{{1,500}})?))",
    re.IGNORECASE,
)
THOUSANDS = re.compile(  # spaces of LaTeX and of a typesetter between groups of three digits
    r"(?<=\d)(?:\{?\\[,;: ]\}?|~|[\u00a0\u2009\u202f])(?=\d{3}(?!\d))"
)
SPACED = re.compile(r"(?<![\d.,/])(?:0|[1-9]\d{0,2})(?: \d{3})+(?![\d.,/])")  # in a box, which holds one number
UNIT_POWER = re.compile(r"(?<=[a-zA-Z}])\s*\^\s*(?:\d|\{\s*\d\s*\})")
SENTENCE = re.compile(r"[.!?](?=[\s*]|$)|\n")
NEXT_QUESTION = ("\nQ:", "\nQuestion:", "\n\nProblem:")


def ask(question: str) -> str:
    """The user message for a question."""
    return f"Q: {question}\nA: Let's think step by step."


def read(row: Row) -> Example:
    """Read a record with `question` and `answer` (a chain of thought that ends in `#### number`, or the number alone)."""
    asked, answer = (
        question(row, "question", "problem", "prompt", "input"),
        optional(row, "answer", "output", "response"),
    )
    number = final_number(answer)
    if answer and number is None:
        raise ValueError(f"answer must end in a number, got {shown(answer[-60:])}")
    return Example(ask(asked), answer, "" if number is None else str(number))


def check(example: Example, text: str) -> bool:
    """Compare the final number with the reference's."""
    number = final_number(text)
    return number is not None and number == Decimal(example.answer)


def final_number(text: str) -> Decimal | None:
    """The number that a text gives as its answer, None if it holds none.

    In this order: after the last `####` that heads no section; the first in the last box; after the last "the answer is"; in
    bold in the last line that holds a number; the last of the last sentence that holds one, or there the first after the
    last `=`.
    """
    text = plain(squeezed(until(text, *NEXT_QUESTION)))
    for mark in reversed(text.split("####")[1:]):
        line, _, behind = mark.partition("\n")
        heads = HEADING.match(line) or (COUNTED.match(line) and behind.strip())
        if numbers(line) and not heads:
            return _of_mark(line)
    box = last_boxed(text)
    if box is not None and numbers(box):
        return _of_clause(SPACED.sub(lambda found: found[0].replace(" ", ","), box), first=True)
    for rest in reversed(ANSWER.findall(text)):
        clause = next((clause for clause in SENTENCE.split(rest) if numbers(clause)), None)
        if clause is not None:
            return _of_clause(clause, first=True)
    text = _without_places(text)
    bare = _without_remarks(text)
    sentences = [one for one in SENTENCE.split(bare if numbers(bare) else text) if numbers(one)]
    return _of_clause(sentences[-1], first=False) if sentences else None


def _without_places(text: str) -> str:
    """The text without the numbers of its sections and of its list."""
    text = SECTION.sub("", text)
    return ITEM.sub("", text) if re.search(r"^\s*1[.)]\s+\S", text, re.MULTILINE) else text


def _without_remarks(text: str) -> str:
    """The text without notes, checks, rates and asides in brackets, but for those that say one number again or a sum's end."""
    said = ASIDE.sub(lambda found: found[0] if SAME.match(found[0]) and len(numbers(found[0])) == 1 else "", text)
    return REMARK.sub("", said)


def _of_mark(line: str) -> Decimal:
    """The number of a `####` line: its first, or what a sum written there comes to."""
    before, equals, after = line.rpartition("=")
    return numbers(after)[0] if equals and len(numbers(before)) > 1 and numbers(after) else numbers(line)[0]


def _of_clause(clause: str, *, first: bool) -> Decimal:
    bold = [number for part in re.findall(r"\*\*(.+?)\*\*", clause) for number in numbers(part.rpartition("=")[2])]
    if bold:
        return bold[-1]
    after = numbers(clause.rpartition("=")[2]) if "=" in clause else []
    if after:
        return after[0]
    worked = WORKED.match(clause) if first else None
    if worked is not None and numbers(worked.groups()[-1]):
        return numbers(worked.groups()[-1])[0]
    return numbers(clause)[0 if first else -1]


def numbers(text: str) -> list[Decimal]:
    """All numbers of a text in their order; a fraction is one."""
    found, end = list[Decimal](), 0
    for fraction in FRACTION.finditer(text):
        found += [*_plain_numbers(text, end, fraction.start()), _fraction(fraction)]
        end = fraction.end()
    return [*found, *_plain_numbers(text, end, len(text))]


def _plain_numbers(text: str, start: int, end: int) -> list[Decimal]:
    return [
        Decimal("-" * bool(match[1] or match[2]) + match[3].replace(",", "") + (match[4] or ""))
        for match in NUMBER.finditer(text, start, end)
    ]


def _fraction(match: re.Match[str]) -> Decimal:
    size = Decimal(match["whole"] or 0) + Decimal(match["top"]) / Decimal(match["bottom"])
    return -size if match["sign"] else size


def plain(text: str) -> str:
    """The text with one way to write a minus, a thousand and a space, and without denied answers and powers of units."""
    text = re.sub("[\u2212\u2013](?=\\s?[$\\d])", "-", text).replace("{,}", ",").replace(",\\!", ",").replace("\\!", "")
    text = LATEX_FRACTION.sub(_in_line, text)
    return DENIED.sub("", UNIT_POWER.sub("", THOUSANDS.sub(",", text)))


def _in_line(fraction: re.Match[str]) -> str:
    """A fraction of LaTeX with a stroke."""
    apart = " " if fraction.string[fraction.start() - 1 : fraction.start()].isdigit() else ""
    return f"{apart}{fraction[3] or ''}{fraction[1] or fraction[4]}/{fraction[2] or fraction[5]}"


GSM8K = benchmark("gsm8k", read, check, ask=ask, hub=Hub("openai/gsm8k", config="main"))
