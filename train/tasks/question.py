"""The question of a row, whole: what belongs to it is joined as the formats of the field are read, or the row is refused."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from models.complaints import shown
from train.tasks.text_files import shorten

Row = Mapping[str, object]

INSTRUCTION = "instruction"
"""Before the input, on a line of its own (Alpaca; LLaMA-Factory's docs: "instruction\\ninput")."""
CONTEXT = ("context", "passage", "story", "article", "paragraph", "background", "document", "body")
"""Before the question, a blank line between (Dolly, SQuAD, BoolQ, RACE, ASDiv)."""
OPTIONS = ("choices", "options")
"""Behind the question, one a line as `A. text` (MMLU, ARC)."""
OTHERS = (
    "system", "system_prompt", "history", "messages", "conversations", "conversation", "dialog", "dialogue", "turns", "query",
    "premise", "hypothesis", "sentence", "sentence1", "sentence2", "support", "evidence", "facts", "hint", "hints", "table",
    "image", "images", "audio", "video", "videos", "inputs", "input_text", "pre_text", "post_text", "knowledge", "suffix",
    "endings", "contexts", "ctxs", "passages", "documents", "articles", "paragraphs", "fact", "fact1", "prefix", "schema",
    "sql_context", "few_shot", "few_shots", "examples", "demonstrations", "instructions", "tools", "functions", "starter_code",
    "chat_history", "problem_description", "attachments",
)  # fmt: skip
"""Parts of a question that no field of one text can hold."""
ASKS = (INSTRUCTION, "prompt", "input", "question", "problem")
"""Where questions stand."""
SPREAD = re.compile(
    r"(?-i:[A-H]|answer[A-H]|op[a-h])|"
    r"(?:option|choice|ending|distractor|incorrect answer|sol|mc)[_ ]?(?:[A-H]|\d)(?:_targets)?",
    re.IGNORECASE,
)
"""A column that holds one option (`A`, `option_a`, `opa`, `answerA`, `ending0`: C-Eval, MedMCQA, SocialIQA, SWAG)."""
PARTS = (INSTRUCTION, *CONTEXT, *OPTIONS, *OTHERS)
KNOWN = frozenset((*ASKS, *PARTS))
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def question(row: Row, *names: str, own: Sequence[str] = ()) -> str:
    """The text of a question: the one of `names` that holds text, with what else belongs to it.

    Args:
        row: a record of a file; a field that is null, blank or empty is not there.
        names: where a question may stand.
        own: fields that the caller reads itself.

    Raises:
        ValueError: if none of the names holds text, two hold different texts, or a field cannot be joined.
    """
    asks = [name for name in (INSTRUCTION, *names) if name not in own and is_there(row, name)]
    if INSTRUCTION in asks and "text" in asks:
        asks.remove("text")  # Alpaca's rendering of the row, its answer included
    found = {name: require_string(row, name) for name in dict.fromkeys(asks)}
    if not found:
        blank = next((name for name in names if row.get(name) is not None), None)
        if blank is not None:
            require_string(row, blank)
        present = ", ".join(name for name in row if is_there(row, name)) or "an empty one"
        raise ValueError(f"row must have {' or '.join(names)}, got {present}")
    main = {name: text for name, text in found.items() if name != INSTRUCTION}
    if len(set(main.values())) > 1:
        raise ValueError(f"row must have one question, got {' and '.join(main)}")
    refuse_parts(row, (*own, *names, *CONTEXT, *OPTIONS, INSTRUCTION))
    asked = "\n".join(dict.fromkeys(found.values()))
    before = [require_string(row, name) for name in CONTEXT if name not in (*own, *names) and is_there(row, name)]
    listed = [options_of(row, name) for name in OPTIONS if name not in own and is_there(row, name)]
    whole = [text for text in before if text not in asked] + [asked]
    return "\n".join(["\n\n".join(whole), *(f"{letter}. {text}" for one in listed[:1] for letter, text in one)])


def refuse_parts(row: Row, readable: Sequence[str]) -> None:
    """Refuse a row with a part of its question that is not read.

    Args:
        row: a record of a file.
        readable: the parts that are.

    Raises:
        ValueError: naming it.
    """
    for name in PARTS:
        if name in row and name not in readable and is_there(row, name):
            raise ValueError(f"{name} must be part of the question's own text, got {shorten(str(row[name]))} beside it")
    other = next((name for name in row if name not in KNOWN and name.lower() in KNOWN and is_there(row, name)), None)
    if other is not None and other not in readable:
        raise ValueError(f"{other.lower()} must be spelled so, got {other}")
    spread = [name for name in row if SPREAD.fullmatch(name) and is_there(row, name)]
    if len(spread) > 1:
        raise ValueError(f"options must be one list, choices or options, got them as {', '.join(spread)}")


def options_of(row: Row, name: str) -> list[tuple[str, str]]:
    """Options with their letters: a list of texts, or lists `text` and `label` (ARC).

    Raises:
        ValueError: if it is neither.
    """
    value = row[name]
    texts, labels = (value.get("text"), value.get("label")) if isinstance(value, Mapping) else (value, None)
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts) or len(texts) > len(LETTERS):
        raise ValueError(f"{name} must be a list of texts, got {shorten(str(value))}")
    if not isinstance(labels, list) or len(labels) != len(texts):
        labels = list(LETTERS[: len(texts)])
    return list(zip(map(str, labels), texts, strict=True))


def is_there(row: Row, name: str) -> bool:
    """Whether a field holds anything: neither null, nor blank, nor empty."""
    value = row.get(name)
    return bool(value.strip()) if isinstance(value, str) else value not in (None, [], {})


def require_string(row: Row, name: str) -> str:
    """The text of a field.

    Raises:
        ValueError: if it holds none.
    """
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name} must be text, got {shown(value)}")
    return value
