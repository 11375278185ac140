"""Where each number of a word problem comes from: the question, an earlier result, or a constant."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from models.complaints import shown

NUMBER = r"(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|(?<!\d)\.\d+)"
ATTACHED = re.compile(
    rf"{NUMBER}(?:/\d+| \d+/\d+)|{NUMBER}(?::\d+| ?[ap]\.?m\b| o'clock|st\b|nd\b|rd\b|th\b|[a-wyz]\b)|(?:19|20)\d\d\b"
)
UNITS = {
    Fraction(n)
    for n in (*range(1, 11), 12, 14, 16, 24, 28, 30, 31, 36, 48, 50, 52, 60, 90, 100, 120, 144, 180, 360, 365)
}
UNITS |= {Fraction(n) for n in (1000, 3600, "1/2", "1/4", "3/4", "1/10", "3/2", "1/5", "1/100")}
# a number that may as well stand for one of these words stays what it is
WORDS = {
    2: "two|twice|half|halves|double|doubled|doubles|both|couple|pair|pairs|second|halved|twin|twins",
    3: "three|triple|tripled|triples|thrice|third|thirds|trio",
    4: "four|quarter|quarters|quadruple|fourth|fourths|weeks|month",
    5: "five|fifth|fifths|weekdays|weekday|nickel|nickels",
    6: "six|sixth|half-dozen",
    7: "seven|seventh|week|weeks|weekly|daily",
    8: "eight|eighth|eighths",
    9: "nine|ninth",
    10: "ten|tenth|tenths|dime|dimes|decade|decades",
    11: "eleven",
    12: "twelve|dozen|dozens|year|years|yearly|annual|annually|foot|feet|month|months|inches",
    15: "fifteen|quarter",
    20: "twenty|score",
    24: "day|days|daily|hours",
    25: "quarter|quarters|twenty-five",
    30: "thirty|month|months|monthly",
    31: "january|march|may|july|august|october|december",
    36: "yard|yards",
    50: "fifty",
    52: "year|years|yearly|annual|annually|weeks",
    60: "hour|hours|minute|minutes|sixty|hourly",
    100: "percent|hundred|cents|meter|meters|century",
    365: "year|years",
    1000: "thousand|kilogram|kilograms|kilometer|kilometers|liter|liters",
}
FORMS = {"": "{}", "p": "({}/100)", "c": "(1-{}/100)", "a": "(1+{}/100)", "d": "(100-{})", "e": "(100+{})"}


@lru_cache(65536)
def number_of(text: str) -> Fraction:
    """The value of a numeral."""
    return Fraction(text.replace(",", ""))


@dataclass(frozen=True)
class Traced:
    """A number in a text: its source and how it is spelt.

    Args:
        name: `q1` the question's, `r2` a result, with a form behind it (`q1p` a hundredth of it); "" a constant.
        text: how it stood in the row.
    """

    name: str
    text: str

    def spell(self, value: Fraction | None) -> str | None:
        """Spell a value as the row spelt its own; None where the kind differs."""
        if value is None or value == number_of(self.text):
            return self.text
        if value.denominator == 1 and self.text.isdigit():
            return str(value.numerator) if value > 0 else None
        places = len(self.text.partition(".")[2])
        if value <= 0 or (not places and value.denominator != 1) or (value * 10 ** max(places, 2)).denominator != 1:
            return None
        comma = "," if "," in self.text else ""
        fixed = places == 2
        text = f"{float(value):{comma}.{places if fixed else max(places, 2)}f}"
        if places and not fixed:
            text = text.rstrip("0").rstrip(".")
        elif not places:
            text = f"{int(value):{comma}}"
        return text[1:] if self.text.startswith(".") and text.startswith("0.") else text


class Sources:
    """What is known while a row is read: numbers of the question, results so far, and which of them were used."""

    def __init__(self, question: str, answer: str = "") -> None:
        """Read the question: equal numbers are one number."""
        self.question = question
        self.text = f"{question} {answer}".replace("percent", "%")
        self.values = list(dict.fromkeys(number_of(text) for text in re.findall(NUMBER, question)))
        self.lefts: list[str] = []
        self.results: list[Fraction] = []
        self.used: set[str] = set()
        words = set(re.findall(r"[a-z]+", question.lower()))
        self.fixed = {Fraction(n) for n, names in WORDS.items() if words & set(names.split("|"))} | {
            Fraction(0),
            Fraction(1),
        }
        for match in ATTACHED.finditer(question):
            self.fixed |= {number_of(text) for text in re.findall(NUMBER, match[0])}
        self.forms = self._percent_forms()
        self.unnamed = {Fraction(n) for n, names in WORDS.items() if words & set(names.split("|"))} | UNITS

    def _percent_forms(self) -> dict[Fraction, str]:
        names: dict[Fraction, str] = {}
        for text in re.findall(rf"({NUMBER})(?:%| ?percent)", self.question):
            value = number_of(text)
            name = f"q{self.values.index(value)}"
            forms = {"p": value / 100, "c": 1 - value / 100, "a": 1 + value / 100, "d": 100 - value, "e": 100 + value}
            for form, number in forms.items():
                names.setdefault(number, name + form)
        return names

    def find(self, value: Fraction) -> str:
        """The source of a number: a result not used yet, the question, any result, a percentage in another form, a constant.

        Raises:
            ValueError: if there is none.
        """
        results = [f"r{i}" for i, result in enumerate(self.results) if result == value][::-1]
        in_question = [f"q{self.values.index(value)}"] if value in self.values else []
        fresh = [name for name in results if name not in self.used]
        for name in (*fresh, *in_question, *results):
            return name
        if value in self.forms:
            return self.forms[value]
        if value in self.unnamed:
            return ""
        raise ValueError(f"number must have a source, got {value}")

    def step(self, left: str, right: str) -> dict[Fraction, list[str]]:
        """Take an annotation in: trace its operands and add its result.

        Returns:
            The sources of each operand, in their order.

        Raises:
            ValueError: if an operand has no source.
        """
        operands: dict[Fraction, list[str]] = {}

        def put(match: re.Match[str]) -> str:
            value = number_of(match[0])
            if value == 100 and "%" in self.text and value in (*self.results, *self.values):
                raise ValueError("100 must be either a count or the whole of a percentage, got both")
            name = self.find(value)
            operands.setdefault(value, []).append(name)
            self.used.add(name)
            return code(name) if name else str(float(value)).removesuffix(".0")

        source = re.sub(NUMBER, put, left)
        if not re.search(r"[qr]\d", source):
            raise ValueError(f"annotation must hold a number with a source, got {shown(left)}")
        self.lefts.append(source.strip().replace(" ", "").lstrip("+"))
        self.results.append(number_of(right))
        return operands

    def trace(
        self, text: str, operands: dict[Fraction, list[str]], *, first: str = "", ahead: Fraction | None = None
    ) -> list[str | Traced]:
        """Split a stretch of the answer into text and traced numbers.

        Args:
            text: the stretch.
            operands: sources of the annotation that follows.
            first: source of a number that the stretch begins with, the result of the annotation before.
            ahead: the result of the annotation that follows, which the text may name before it ("5 because 35 / 7 =").
        """
        waiting = {value: list(names) for value, names in operands.items()}
        parts: list[str | Traced] = []
        start = 0
        reason = re.search(r"\b(because|since|as)\b", text)
        for match in re.finditer(NUMBER, text):
            value = number_of(match[0])
            if first and match.start() == 0 and value == self.results[int(first[1:])]:
                name = first
            elif value == ahead and reason is not None and match.start() < reason.start():
                name = f"r{len(self.results)}"
            elif waiting.get(value):
                names = waiting[value]
                name = names.pop(0) if len(names) > 1 else names[0]
            else:
                name = self.find(value)
            parts += [text[start : match.start()], Traced(name, match[0])]
            start = match.end()
        return [*parts, text[start:]]

    def trace_question(self) -> list[str | Traced]:
        """The question as text and its numbers."""
        parts: list[str | Traced] = []
        start = 0
        for match in re.finditer(NUMBER, self.question):
            name = f"q{self.values.index(number_of(match[0]))}"
            parts += [self.question[start : match.start()], Traced(name, match[0])]
            start = match.end()
        return [*parts, self.question[start:]]

    def choices(self) -> list[list[Fraction]]:
        """What each number of the question may become: itself alone where it is fixed or in no annotation."""
        moving = {int(i) for left in self.lefts for i in re.findall(r"q(\d+)", left)}
        percent = {number_of(text) for text in re.findall(rf"({NUMBER})(?:%| ?percent)", self.question)}
        return [
            [value] if i not in moving or value in self.fixed else _around(value, percent=value in percent)
            for i, value in enumerate(self.values)
        ]


def code(name: str) -> str:
    """The formula of a source."""
    return FORMS[name.lstrip("qr0123456789")].format(name.rstrip("pcade"))


def _around(value: Fraction, *, percent: bool) -> list[Fraction]:
    """Numbers of the size and roundness of one: as many digits, between a third and three times it; percentages below 100."""
    if value.denominator != 1:
        places = 10 if (value * 10).denominator == 1 else 100
        if (value * places).denominator != 1:
            return [value]
        step = 5 if places == 100 and (value * 20).denominator == 1 else 1
        low, high = int(value * places) // 2, int(value * places) * 2
        return [Fraction(n, places) for n in range(-(-low // step) * step, high + 1, step) if n and n % places]
    number = int(value)
    size = 10 ** (len(str(number)) - 1)
    low, high = max(size, number // 3, 2), min(10 * size - 1, 3 * number)
    if percent and number < 100:
        low, high = max(2, number // 3), min(95, 3 * number)
    step = next(
        (s for s in (100_000, 10_000, 1000, 100, 10, 5) if number % s == 0 and (number >= 10 * s or s <= 10)), 1
    )
    if number < 10:
        step = 1
    return [Fraction(n) for n in range(-(-low // step) * step, high + 1, step)]
