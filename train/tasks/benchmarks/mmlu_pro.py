"""MMLU-Pro: multiple choice with up to ten options, zero-shot chain of thought, judged by the letter (lm-eval `mmlu_pro`)."""

import re
from collections.abc import Sequence

from models.complaints import shown
from train.tasks.benchmarks.benchmark import benchmark, optional, squeezed, until
from train.tasks.benchmarks.latex import last_boxed
from train.tasks.hub import Hub
from train.tasks.question import OPTIONS, is_there, options_of, question
from train.tasks.task import Example, Row

LETTERS = "ABCDEFGHIJ"
AFTER_A = r"(?:is|are|was|because|since|as|and|or|but|not|which|with|for|by|in|from|on|due|given|only|indeed|here)\b"
AFTER_I = r"(?:is|because|since|as|and|or|but|not|which|with|for|by|only|indeed|here)\b"
DENIED = r"[)\]*_.]*\s+(?:is|are|was|looks?|seems?)\s+(?:\w+ly )?(?:wrong|incorrect|false|not|too|impossible|out)\b"
NO_WORD = (  # neither "I think" nor "A good choice", nor the E of E = mc^2
    rf"(?![A-Za-z]|['’][A-Za-z]|\s*[=^]|{DENIED}|(?<=A)\s+(?!{AFTER_A})[a-z]|(?<=I)\s+(?!{AFTER_I})[a-z])"
)
LETTER = rf"[*_$\s(\[{{\\\"'`“‘]*(?:(?:text(?:bf)?|mathbf|mathrm|boxed)\{{\(?)?([A-J]){NO_WORD}"
LOWER = r"\s*(?:[*_:]+\s*)*(?:[Oo]ption\s+|[Cc]hoice\s+)?(?:\(([a-j])\)(?!\s+[a-z])|([a-j])[).*]*\s*(?:\n|$))"
SUBJECT = (  # "the answer is", "Answer:", "<answer>", "answer -> "; not "option A has V_A > V_B"
    r"(?<!/)\b(?:[Aa]nswer|ANSWER|[Cc]hoice|[Oo]ption)\b"
    r"(?:\s*[-=]*>|[^.\n:]{0,60}?(?:\bis\b|:|=|(?:would|should|must) be))(?:\s*[*_:]+)*\s*"
)
ANSWER = re.compile(rf"{SUBJECT}(?:[Oo]ption|[Cc]hoice|[Ll]etter)?{LETTER}")
ANSWER_LOWER = re.compile(SUBJECT + LOWER)
SEVERAL = re.compile(rf"{SUBJECT}(?:[Bb]oth|[Ee]ither|[Nn]one|[Nn]either)\b")
REVERSED = re.compile(
    r"(?:[Oo]ption|[Cc]hoice)?\s*\(?\b([A-J])\b\)?\s+is (?:the )?(?:correct|right|best|answer)(?! about)"
)
CHOSEN = re.compile(
    r"\b(?:[Ii]t(?:['’]s| is| must be| should be)|choose|chose|pick|select|go(?:ing)? with|say|believe|guess|think)\s+"
    rf"(?:it(?:['’]s| is)\s+)?(?:option |choice |answer )?\(?([A-J])\b{NO_WORD}(?!\)?\s+(?:is|was|seems|looks|could|might|may)\b)"
)
CORRECTED = re.compile(r"\b(?:[Ww]ait|[Aa]ctually|[Cc]orrection|[Ss]orry|I mean|No)\b(?=[,:.!]| )")
FIRST = re.compile(r"^\W*([A-J])\s*(?:,|[.)*:]*\s*\n|\bbecause\b|\bsince\b|\bas\b)")
BRACKETED = re.compile(r"\(([A-J])\)")
ALONE = re.compile(
    r"(?:^|\n)\W{0,20}(?:[Oo]ption |[Cc]hoice )?([A-J])(?:[.):*]|\s*(?:\n|$))|(?<![\w'])([B-HJ])(?=[\s.,:)*]|$)(?!')"
)
BOTH = re.compile(r"\s*\)?\s*(?:or|and|/)\s*\(?([A-J])\b\)?")
NOT = re.compile(r"(?:n['’]t|\b(?:not|never|cannot|neither|if|whether|unless))\b[^.?!\n]*\Z", re.IGNORECASE)
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
    """Read a record with `question`, `options` (or `choices`) and `answer` (a letter), `answerKey` or `answer_index`."""
    asked = question(row, "question", "prompt", "input", own=OPTIONS)
    name = next((name for name in OPTIONS if is_there(row, name)), None)
    options = [] if name is None else [one for one in options_of(row, name) if one[1] != "N/A"]
    if len(options) > len(LETTERS):
        raise ValueError(f"options must be at most {len(LETTERS)}, got {len(options)}")
    answer = letter_of(row, [label for label, _ in options])
    if answer and (len(answer) > 1 or answer not in LETTERS[: len(options) or None]):
        raise ValueError(f"answer must be one of the letters of the options, got {shown(answer)}")
    listed = "".join(f"\n{letter}. {option}" for letter, (_, option) in zip(LETTERS, options, strict=False))
    asked = f"{asked}\nOptions:{listed}" if options else asked
    return Example(ask(asked, optional(row, "category")), f"The answer is ({answer})." if answer else "", answer)


def letter_of(row: Row, labels: Sequence[str]) -> str:
    """The letter of the right option: itself, by its label, or by its place (`answer_index`, or a number beside `choices`)."""
    answer, place = optional(row, "answer", "answerKey", "output", "response"), row.get("answer_index")
    if isinstance(row.get("answer"), int) and is_there(row, "choices"):
        answer, place = "", row["answer"]
    if not answer and isinstance(place, int) and not isinstance(place, bool):
        return LETTERS[place : place + 1] if place >= 0 else ""
    return LETTERS[labels.index(answer)] if answer in labels else answer


def check(example: Example, text: str) -> bool:
    """Compare the letter with the reference."""
    return final_letter(text, OPTION.findall(example.prompt)) == example.answer


def final_letter(text: str, options: Sequence[tuple[str, str]] = ()) -> str | None:
    """The letter that a text chooses, None if it chooses none or two.

    In this order: the last "the answer is (X)" or "Answer: X", unless it is taken back behind it; a boxed letter; "X is correct";
    the text of an option after "the answer is"; "it is X" or "I choose X"; the last letter in brackets; the letter that the text
    begins with; the last letter that stands alone. "I" and "A" are no letters where they are words.

    Args:
        text: the model's.
        options: letters with their texts.
    """
    text = squeezed(until(text, "\nQuestion:", "\n\nQ:"))
    if stated := [*ANSWER.finditer(text)]:
        return _taken_back(text[stated[-1].end() :]) or _only(stated[-1], text)
    if SEVERAL.search(text):
        return None
    if stated := [*ANSWER_LOWER.finditer(text)]:
        return str(stated[-1][1] or stated[-1][2]).upper()
    box = re.fullmatch(
        r"\W*(?:\\?(?:text|math)(?:bf|rm|tt)?\{)?\W*([A-J]|[a-j](?=\W*$))\b.*", last_boxed(text) or "", re.DOTALL
    )
    if box:
        return box[1].upper()
    if letter_first := REVERSED.findall(text):
        return str(letter_first[-1])
    option_stated = _bare((STATED.findall(text) or [last_boxed(text) or text])[-1])
    letters = {letter for letter, option in options if option_stated and _bare(option) == option_stated}
    if len(letters) == 1:
        return letters.pop()
    for rule in (CHOSEN, BRACKETED, FIRST):
        if named := rule.findall(text):
            return str(named[-1])
    alone = ALONE.findall(text)
    return (alone[-1][0] or alone[-1][1]) if alone else None


def _only(stated: re.Match[str], text: str) -> str | None:
    """The letter stated; where another one is named beside it the one that is chosen then, None where none or several are."""
    both = BOTH.match(text, stated.end())
    if both is None or both[1] == stated[1]:
        return stated[1]
    chosen = {found[1] for rule in (CHOSEN, REVERSED) for found in rule.finditer(text, both.end())
              if not NOT.search(text, both.end(), found.start())}  # fmt: skip
    return chosen.pop() if len(chosen) == 1 else None


def _taken_back(rest: str) -> str | None:
    """The letter that is named plainly behind "wait", "actually", "no" after an answer; None where none is."""
    corrections = list(CORRECTED.finditer(rest))
    tail = rest[corrections[-1].end() :] if corrections else ""
    found = CHOSEN.findall(tail) or BRACKETED.findall(tail)
    return str(found[-1]) if found else None


def _bare(text: str) -> str:
    return re.sub(r"[^\w.+-]+", "", text).rstrip(".").casefold()


MMLU_PRO = benchmark("mmlu-pro", read, check, ask=ask, hub=Hub("TIGER-Lab/MMLU-Pro"))
