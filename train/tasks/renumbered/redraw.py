"""Word problems with calculator annotations as templates: which number comes from where, and the same text with others."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from models.complaints import shown
from train.tasks.renumbered.sources import NUMBER, Sources, Traced, code, number_of
from train.tasks.task import Example

STEP = re.compile(r"<<([^<>=]*)=([^<>=]*)>>")
ALLOWED = re.compile(r"[\d.,+\-*/() ]+")
# an equation in plain digits that its author did not annotate
PLAIN = re.compile(
    rf"(?<![\w.,%)</*+\-])(?P<left>\$?{NUMBER}(?: ?[-+*/x] ?\$?{NUMBER})+)(?P<middle> ?= ?\$?)(?P<right>{NUMBER})"
    r"(?![\d%,.]\d|\d|%|/)"
)
PIECE = re.compile(rf"{NUMBER}|[-+*/x]")
TRIES = 400
LARGEST = 1e7

Part = str | Traced


@dataclass(frozen=True)
class Template:
    """A word problem whose numbers can be drawn anew.

    Args:
        question: text and traced numbers in turn.
        answer: the same of the worked answer, without annotations, ending in `#### number`.
        choices: for each number of the question what it may become; itself alone where it is fixed.
        originals: its values in the row.
        shown: for each result, its value in the row.
        evaluate: values of the question's numbers to all results, in floating point and in the order of the annotations.
        exact: the same in fractions.
    """

    question: tuple[Part, ...]
    answer: tuple[Part, ...]
    choices: tuple[tuple[Fraction, ...], ...]
    originals: tuple[Fraction, ...]
    shown: tuple[Fraction, ...]
    evaluate: Callable[..., Any]
    exact: Callable[..., Any]

    @property
    def key(self) -> str:
        """The question with its numbers left out: equal for all draws."""
        return blank("".join(part if isinstance(part, str) else part.text for part in self.question))


def blank(prompt: str) -> str:
    """A question with every number replaced by one sign and white space made single."""
    return " ".join(re.sub(NUMBER, "#", prompt).split())


def parse(question: str, answer: str) -> Template | None:
    """Trace every number of a row; None where one cannot be traced or the row's own numbers are not what they give.

    Args:
        question: the question.
        answer: worked answer with `<<a+b=c>>` before each result, ending in `#### number`.
    """
    body, mark, last = annotated(answer).rpartition("\n#### ")
    if not mark or not re.fullmatch(NUMBER, last.strip()):
        return None
    sources = Sources(question, answer)
    try:
        parts = _answer(sources, body)
        final = [i for i, result in enumerate(sources.results) if result == number_of(last)]
        parts += ["\n#### ", Traced(f"r{final[-1]}", last.strip())]
    except (ValueError, IndexError):
        return None
    choices = tuple(map(tuple, sources.choices()))
    if all(len(some) == 1 for some in choices):
        return None
    names = {part.name for part in (*sources.trace_question(), *parts) if isinstance(part, Traced)} - {""}
    template = Template(
        tuple(sources.trace_question()),
        tuple(parts),
        choices,
        tuple(sources.values),
        tuple(sources.results),
        _compile(len(choices), sources.lefts, sorted(names), exact=False),
        _compile(len(choices), sources.lefts, sorted(names), exact=True),
    )
    same = write(template, template.originals)
    plain = STEP.sub("", answer).strip()
    return template if same is not None and (same.prompt, same.response) == (question, plain) else None


def annotated(answer: str) -> str:
    """Add an annotation to every equation in plain digits that has none."""

    def add(match: re.Match[str]) -> str:
        left = match["left"].replace("x", "*").replace("$", "").replace(" ", "")
        return f"{match['left']}{match['middle']}<<{left}={match['right']}>>{match['right']}"

    return PLAIN.sub(add, answer.strip())


def _answer(sources: Sources, body: str) -> list[Part]:
    parts: list[Part] = []
    start, first = 0, ""
    for step in STEP.finditer(body):
        left, right = step[1], step[2].strip()
        if not ALLOWED.fullmatch(left) or "//" in left or "**" in left or not re.fullmatch(NUMBER, right):
            raise ValueError(f"annotation must be arithmetic, got {shown(step[0])}")
        stretch = body[start : step.start()]
        breaks = stretch.rfind("\n") + 1  # numbers of an earlier line belong to it, not to this annotation
        head = sources.trace(stretch[:breaks], {}, first=first)
        operands = sources.step(left, right)
        result, index = sources.results.pop(), len(sources.results)
        parts += head + sources.trace(stretch[breaks:], operands, first="" if breaks else first, ahead=result)
        sources.results.append(result)
        start, first = step.end(), f"r{index}"
    return parts + sources.trace(body[start:], {}, first=first)


def _compile(count: int, lefts: list[str], names: list[str], *, exact: bool) -> Callable[..., Any]:
    """Compile all results (floating point), or a table of every source in fractions."""
    numeral = r"(?<![\w.])(\d+(?:\.\d+)?)(?![\w.])"

    def formula(left: str) -> str:
        return re.sub(numeral, r"F('\1')", left) if exact else left

    lines = [f"r{i} = {formula(left)}" for i, left in enumerate(lefts)]
    back = (
        "{" + ", ".join(f"{name!r}: {formula(code(name))}" for name in names) + "}"
        if exact
        else "(" + "".join(f"r{i}, " for i in range(len(lefts))) + ")"
    )
    fields = ", ".join(f"q{i}" for i in range(count))
    source = f"def results({fields}):\n" + "".join(f"    {line}\n" for line in lines) + f"    return {back}\n"
    space: dict[str, Any] = {"F": Fraction}
    exec(source, space)  # names, numerals, brackets and operators alone, see ALLOWED
    compiled: Callable[..., Any] = space["results"]
    return compiled


def write(template: Template, values: tuple[Fraction, ...]) -> Example | None:
    """The row with these values; None where a result would be of another kind or an equation in the text would not hold."""
    try:
        table = template.exact(*values)
    except ZeroDivisionError:
        return None
    texts: list[str] = []
    for side in (template.question, template.answer):
        words = [part if isinstance(part, str) else part.spell(table.get(part.name)) for part in side]
        if None in words:
            return None
        texts.append("".join(word or "" for word in words))
    return Example(*texts) if holds(texts[1]) else None


def holds(text: str) -> bool:
    """Whether every equation in plain digits of a text is true."""
    return all(abs(_value(match["left"]) - float(number_of(match["right"]))) < 1e-6 for match in PLAIN.finditer(text))


def _value(left: str) -> float:
    """Sums of products, from the left."""
    total, term, sign = 0.0, 1.0, "*"
    positive = 1.0
    for piece in PIECE.findall(left):
        if piece in "+-":
            total, positive, term, sign = total + positive * term, 1.0 if piece == "+" else -1.0, 1.0, "*"
        elif piece in "*x/":
            sign = piece
        else:
            number = float(number_of(piece))
            term = term * number if sign != "/" else term / number if number else float("inf")
    return total + positive * term


def draw(template: Template, rng: random.Random) -> Example | None:
    """Draw the numbers anew: same size, results positive and of the same kind (whole where whole, else as many decimals).

    After a while some numbers stay what they were, so that rows with many exact divisions can be drawn.

    Args:
        template: from `parse`.
        rng: same state, same draw.

    Returns:
        The redrawn row, or None where none was found within 400 tries; never the row itself.
    """
    bounds = [(min(LARGEST, 20.0 * value + 50), 1 if value.denominator == 1 else 100) for value in template.shown]
    originals = template.originals
    for attempt in range(TRIES):
        keep = 0.0 if attempt < TRIES // 4 else 0.5
        values = tuple(
            old if keep and rng.random() < keep else rng.choice(choices)
            for choices, old in zip(template.choices, originals, strict=True)
        )
        if values == originals:
            continue
        try:
            results = template.evaluate(*map(float, values))
        except ZeroDivisionError:
            continue
        if _fit(results, bounds):
            example = write(template, values)
            if example is not None:
                return example
    return None


def _fit(results: tuple[float, ...], bounds: list[tuple[float, int]]) -> bool:
    """Whether every result is positive, not too large, and whole in its unit (1 or a hundredth)."""
    for value, (largest, units) in zip(results, bounds, strict=True):
        if not 0 < value <= largest or abs(value * units - round(value * units)) > 1e-6:
            return False
    return True
