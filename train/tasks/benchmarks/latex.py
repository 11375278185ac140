"""Answers in LaTeX: taken out of their box, brought to one spelling (after minerva's) and compared by form and by value."""

from __future__ import annotations

import re

from train.tasks.benchmarks.arithmetic import agree

BOX = re.compile(r"\\f?box(?:ed)?\s*\{|\\boxed\s+(?=[^{\s])")
EMPTY = re.compile(r"\\f?box(?:ed)?\s*\{\s*\}")
SPACES = re.compile(r"(?<!\\)\\[,!;:> ]|\\q?quad\b|~|\\displaystyle|\\(?:left|right|[bB]igg?[lr]?)(?![a-zA-Z])")
WORDS = re.compile(r"\\(?:text|textbf|textit|textrm|mbox|mathrm|mathbf|operatorname|texttt|emph)\s*\{([^{}]*)\}")
UNIT = (
    r"(?:(?:sq(?:uare|\.)?|cubic)\s*)?(?:degrees?|rad(?:ian)?s?|(?:centi|kilo|milli)?met(?:er|re)s?|[ckm]?m|inch(?:es)?|in|foot|feet|ft|"
    r"yards?|yd|miles?|mph|units?|dollars?|cents?|hours?|hrs?|minutes?|mins?|seconds?|sec|days?|weeks?|months?|years?|pounds?|lbs?|"
    r"grams?|kg|liters?|gallons?|people|students?|ways|percent|points?|solutions?|values?|integers?)"
)
UNITS = re.compile(
    rf"(?<=[\d}})\]a-z])\s*(?<![a-z]){UNIT}(?:\s*(?:per|/)\s*{UNIT})?\s*(?:\^\s*\{{?\d\}}?)?\.?$", re.IGNORECASE
)
LEFT_SIDE = re.compile(r"^(?:[a-zA-Z]|\\[a-z]+|[a-zA-Z]\([a-z]\)|[a-zA-Z]_\{?\w\}?)(?:=|\\in(?![a-z]))(?=[^=]+$)")
APART = "␣"  # between two numbers that are not one, nor a product
THOUSANDS = re.compile(r"(?<=\d) (?=(?:\d{3} )*\d{3}(?!\d))(?<![\d.]\d{3} )(?<!\d{4} )")
GROUPED = re.compile(r"-?\d{1,3}(?:,\d{3})+(?:\.\d+)?")
PAIRS = {"(": ")", "[": "]"}


def last_boxed(text: str) -> str | None:
    """What stands in the last closed box that is not empty; None if there is none."""
    text = EMPTY.sub("", text)
    ends = _closings(text)
    for start in reversed(list(BOX.finditer(text))):
        if not start[0].endswith("{"):
            return re.split(r"[\s$.,]", text[start.end() :])[0]
        if start.end() in ends:
            return text[start.end() : ends[start.end()]].strip()
    return None


def _closings(text: str) -> dict[int, int]:
    """Where a group of LaTeX begins, behind its brace -> where it ends, before its brace."""
    ends, opened = dict[int, int](), list[int]()
    for brace in re.finditer(r"(?<!\\)[{}]", text):
        if brace[0] == "{":
            opened.append(brace.end())
        elif opened:
            ends[opened.pop()] = brace.start()
    return ends


def same(given: str, wanted: str) -> bool:
    """Say whether two answers are the same: in form, or in value, term by term in tuples, lists, sets, unions and matrices."""
    given, wanted = spell(given), spell(wanted)
    if _alike(given, wanted):
        return True
    if "=" not in wanted:  # what a chain of equations comes to
        given = given.rpartition("=")[2]
    return _alike(LEFT_SIDE.sub("", given), LEFT_SIDE.sub("", wanted))


def spell(text: str) -> str:
    """One spelling of an answer: no spaces, units, dollars, percents or degrees, short names for fractions and brackets."""
    text = text.strip().replace("\u2212", "-").replace("π", "\\pi ").replace("\n", " ")
    text = re.sub(r"^(?:\$\$?|\\\(|\\\[)\s*|\s*(?:\$\$?|\\\)|\\\])$", "", text.rstrip(" ."))
    text = re.sub(r"\\\$|\\%|%|\$", "", text).replace("{,}", ",")
    text = re.sub(r",\\!\s*", ",", re.sub(r"\{(\\[,;: ])\}", r"\1", text)).replace("\\!", "")
    text = re.sub(r"\^\s*(?:\{\s*)?(?:\\circ|\\degree)(?:\s*\})?|\\degree|\\circ|°", "", SPACES.sub(" ", text))
    text = re.sub(r"\\[dtc](frac|binom)", r"\\\1", text.replace("\\lbrace", "\\{").replace("\\rbrace", "\\}"))
    text = re.sub(r"\\(?:text|mbox)\s*\{\s*(or|and)\s*\}|\s(or|and)\s", ",", text)
    text = _without_units(text)
    text = re.sub(r"^(-?\d+)\s+(\d+)\s*/\s*(\d+)$", r"\1\\frac{\2}{\3}", text.strip())
    text = re.sub(r"\\le(?:q|qslant)?(?![a-zA-Z])", "≤", text)
    text = re.sub(r"\\ge(?:q|qslant)?(?![a-zA-Z])", "≥", text)
    text = THOUSANDS.sub("", re.sub(r"(\\frac)\s*(\d)\s+(?=\d)", r"\1\2", re.sub(r"\s+", " ", text)))
    text = (
        re.sub(r"(\\[a-zA-Z]+ )(?=[a-zA-Z])| ", lambda found: found[1] or "", re.sub(r"(?<=\d) (?=\d)", APART, text))
        .rstrip(".,;")
        .replace("∞", "\\infty")
        .replace("\\varnothing", "\\emptyset")
    )
    text = re.sub(r"_\{(\w)\}", r"_\1", text)
    return text.replace(",", "") if GROUPED.fullmatch(text) else text


def _without_units(text: str) -> str:
    """Drop a trailing unit; words that are the whole answer stay."""
    bare = WORDS.sub(lambda match: f" {match[1]} ", text).strip()
    if not re.search(r"\d|\\pi|\\frac|\\sqrt", bare):
        return re.sub(r"^\(([A-Za-z])\)$", r"\1", bare)
    return UNITS.sub("", bare).strip()


def _alike(given: str, wanted: str) -> bool:
    if given.casefold() == wanted.casefold():
        return True
    if re.fullmatch(r"\w+_\w+", wanted) and "_" not in given:  # the base of a number may go unsaid
        return given == wanted.partition("_")[0]
    given_parts, theirs = parts(given), parts(wanted)
    if given_parts[0] != theirs[0] or len(given_parts[1]) != len(theirs[1]):
        return False
    if given_parts[0] == "one":
        return agree(given_parts[1][0], theirs[1][0])
    if given_parts[0] not in ("list", "union"):
        return all(same(a, b) for a, b in zip(given_parts[1], theirs[1], strict=True))
    left = list(theirs[1])
    for one in given_parts[1]:
        equal = next((other for other in left if same(one, other)), None)
        if equal is None:
            return False
        left.remove(equal)
    return True


def parts(text: str) -> tuple[str, list[str]]:
    """What kind of answer it is, with its terms: `one`, `list`, `union`, `matrix`, or the brackets of a tuple or interval."""
    matrix = re.fullmatch(r"\\begin\{([pbv]?matrix|array)\}(?:\{[lcr|]*\})?(.*?)(?:\\\\)?\\end\{\1\}", text)
    if matrix:
        rows = matrix[2].split("\\\\")
        return f"matrix of {len(rows)}", [cell for row in rows for cell in row.split("&")]
    pieces = _split(text, "\\cup")
    if len(pieces) > 1:
        return "union", pieces
    if text.startswith("\\{") and text.endswith("\\}"):
        text = text[2:-2]
    pieces = [sign for piece in _split(text, ",") for sign in _signs(piece)]
    if len(pieces) > 1:
        return "list", pieces
    inner = _split(text[1:-1], ",") if text[:1] in PAIRS and text[-1:] in (")", "]") else []
    if len(inner) > 1:
        return f"{text[0]}{len(inner)}{text[-1]}", inner
    return "one", [text]


def _signs(text: str) -> list[str]:
    return [text.replace("\\pm", sign, 1) for sign in "+-"] if text.count("\\pm") == 1 else [text]


def _split(text: str, mark: str) -> list[str]:
    """Split where the mark stands outside all brackets."""
    pieces, depth, start = [], 0, 0
    for index, letter in enumerate(text):
        depth += (letter in "([{") - (letter in ")]}")
        if depth == 0 and text.startswith(mark, index):
            pieces.append(text[start:index])
            start = index + len(mark)
    return [*pieces, text[start:]]
