"""Texts and rounds as the page carries them: short rows, packed, cut to what the file may weigh."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from train.report.folder import Results, Row

LEAST_REPLAYS = 4  # prompts of a task kept before texts are cut


@dataclass(frozen=True)
class Payload:
    """What the page carries.

    Attributes:
        packed: JSON packed by gzip, in base64.
        texts: most prompts of a task whose texts are there.
        replays: most prompts of a task whose rounds are there.
        cut: whether there were more of either.
    """

    packed: str
    texts: int
    replays: int
    cut: bool


def pack(results: Results, limit: int) -> Payload:
    """Pack all texts and rounds, or as many prompts of every task as fit, rounds cut first.

    Args:
        results: what the folder holds.
        limit: characters that the packed text may have.
    """
    most = [_most_prompts(results.texts), _most_prompts(results.traces)]
    texts, replays = most
    while True:
        body = {
            task: {"texts": _texts_of(results, task, texts), "replays": _replays_of(results, task, replays)}
            for task in results.tasks
        }
        data = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
        packed = base64.b64encode(gzip.compress(data, mtime=0)).decode()
        if len(packed) <= limit or texts + replays == 0:
            return Payload(packed, texts, replays, [texts, replays] != most)
        if replays > LEAST_REPLAYS or texts == 0:
            replays //= 2
        else:
            texts //= 2


def _most_prompts(rows: Sequence[Row]) -> int:
    places: dict[str, set[int]] = {}
    for row in rows:
        places.setdefault(row["task"], set()).add(row["prompt_id"])
    return max(map(len, places.values()), default=0)


def _by_prompt(rows: Sequence[Row], task: str, count: int) -> dict[int, dict[str, Row]]:
    """Prompt -> arm -> row, of the first prompts of a task."""
    found: dict[int, dict[str, Row]] = {}
    for row in rows:
        if row["task"] == task:
            found.setdefault(row["prompt_id"], {})[row["arm"]] = row
    return {prompt: found[prompt] for prompt in sorted(found)[:count]}


def _texts_of(results: Results, task: str, count: int) -> Row:
    """Prompts, references, and of every arm [text, right, rounds, sequence forwards] or null for each prompt."""
    prompts = _by_prompt(results.texts, task, count)
    firsts = [next(iter(arms.values())) for arms in prompts.values()]
    names = dict.fromkeys(row["arm"] for row in results.texts if row["task"] == task)
    return {
        "ids": list(prompts),
        "prompts": [row["prompt"] for row in firsts],
        "references": [row.get("reference") for row in firsts],
        "arms": {name: [_text(arms.get(name)) for arms in prompts.values()] for name in names},
    }


def _text(row: Mapping[str, Any] | None) -> list[Any] | None:
    return None if row is None else [row["text"], row.get("right"), row["rounds"], row["sequence_forwards"]]


def _replays_of(results: Results, task: str, count: int) -> Row:
    """Prompt -> arm -> canvas and rounds."""
    prompts = _by_prompt(results.traces, task, count)
    return {str(p): {name: _replay(row) for name, row in arms.items()} for p, arms in prompts.items()}


def _replay(row: Row) -> Row:
    canvas = {"length": row["gen_length"], "block": row.get("block_length") or row["gen_length"]}
    return canvas | {"ends": row.get("end_tokens") or [], "rounds": [_round(one) for one in row["rounds"]]}


def _round(row: Row) -> list[Any]:
    """[commits, taken back, ended from, drafts, branches], each a list of lists."""
    commits = [
        [*_token(c), c.get("confidence"), c.get("risk"), c.get("reason", "none"), int(c.get("draft", False))]
        for c in row["commits"]
    ]
    drafts = [[*_token(d), d.get("depth", 1), int(d.get("came_true", False))] for d in row.get("drafts") or ()]
    branches = [[int(b.get("kept", False)), [_token(c) for c in b["commits"]]] for b in row.get("branches") or ()]
    return [commits, row.get("taken_back") or [], row.get("ended_from"), drafts, branches]


def _token(row: Row) -> list[Any]:
    return [row["position"], row["token"]]
