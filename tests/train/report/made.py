"""A results folder made up from a seed, in the format that other tools can write too."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from decoding.comparison.records.format import TEXTS, TRACES, write_rows

Row = dict[str, Any]
WORDS = "the sum of two and three is five so we take away one ; then four is left over".split()
ARMS = ("sequential", "threshold", "ete", "learned", "verified", "factor", "lopa", "wino")
DIALS = (0.9, 0.95, 0.98)
LENGTH, BLOCK = 24, 8


def around(middle: float, spread: float = 0.04) -> Row:
    return {"estimate": middle, "low": middle * (1 - spread), "high": middle * (1 + spread)}


def make_folder(folder: Path, *, prompts: int = 12, arms: int = 8, replays: int = 4, tasks: int = 1) -> Path:
    """Write comparison.json, texts and traces of some tasks; the dial of every arm but the reference is 0.95."""
    draw, names = random.Random(0), ARMS[:arms]
    figures: dict[str, list[Row]] = {name: [] for name in ("results", "curves", "pairs", "calibration", "verdicts")}
    texts: list[Row] = []
    traces: list[Row] = []
    for task in (f"sums {number}" for number in range(tasks)):
        for place, arm in enumerate(names):
            add_figures(figures, task, arm, place, prompts)
            who = {"version": 1, "task": task, "arm": arm, "dial": None if place == 0 else 0.95}
            for prompt in range(prompts):
                texts.append(who | text_row(draw, prompt))
            traces += [
                who | trace_row(draw, prompt, drafts=arm == "verified") for prompt in range(min(replays, prompts))
            ]
        said = {"task": task, "arm": None, "finding": "few prompts", "sentence": f"{prompts} prompts: a look."}
        figures["verdicts"].append(said)
    environment = {"command": "compare.py", "commit": "0123", "seed": 0, "device": "cpu", "versions": {"torch": "2"}}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "comparison.json").write_text(json.dumps({**figures, "parity": [], "environment": environment}))
    write_rows(folder / TEXTS, texts)
    write_rows(folder / TRACES, traces)
    return folder


def add_figures(figures: dict[str, list[Row]], task: str, arm: str, place: int, prompts: int) -> None:
    """The rows of one arm in comparison.json."""
    kind = "learned" if arm in ("learned", "verified") else "headless"
    who = {"task": task, "arm": arm, "kind": kind}
    for step, dial in enumerate(DIALS if place else (None,)):
        rounds = 24.0 if place == 0 else 2.0 + place * 0.7 + step * 1.3
        row = who | {"dial": dial, "settings": {}, "split": "test", "n": prompts, "seconds": 0.001 * rounds}
        row |= {"accuracy": around(0.9 + 0.02 * step - 0.004 * place), "rounds": around(rounds)}
        row |= {"sequence_forwards": around(rounds * (2 if arm == "ete" else 1)), "new_tokens": around(11.0)}
        figures["results"].append(row)
        if place and dial:
            wrong = around(1.2 * (1 - dial), 0.5)
            figures["calibration"].append(who | {"dial": dial, "bound": round(1 - dial, 9), "n": prompts, "wrong": wrong, "unforced": around(0.8), "kept": dial < 0.97})  # fmt: skip
    rounds = 24.0 if place == 0 else 3.3 + place * 0.7
    dial = 0.95 if place else None
    figures["curves"].append(who | {"dial_chosen": dial, "dial_shown": dial, "rounds_at_reference": around(rounds), "accuracy_difference": around(0.0), "holds": True, "aup": around(200.0), "aup_forwards": around(150.0), "gap_closed": None, "null_share": 0.0})  # fmt: skip
    if arm != "ete":
        pair = {"task": task, "a": arm, "b": "ete", "dial_a": dial, "dial_b": 0.95}
        figures["pairs"].append(pair | {"rounds_ratio": around(rounds / 4.7), "sequence_forwards_ratio": around(rounds / 9.4), "accuracy_difference": around(0.004 * place, 0.5)})  # fmt: skip


def text_row(draw: random.Random, prompt: int) -> Row:
    """What an arm wrote for a prompt; one of its words is drawn, the others are the prompt's."""
    own = random.Random(prompt)
    words = [own.choice(WORDS) for _ in range(12)]
    words[draw.randrange(12)] = draw.choice(WORDS)
    costs = {"rounds": draw.randint(3, 24), "sequence_forwards": draw.randint(24, 48), "new_tokens": 12}
    return {"prompt_id": prompt, "prompt": f"What is {prompt} + 2?", "text": " ".join(words), "right": draw.random() < 0.8, **costs}  # fmt: skip


def trace_row(draw: random.Random, prompt: int, *, drafts: bool) -> Row:
    """Rounds that fill 20 positions in a drawn order, a few a round, and end the answer there."""
    left = list(range(20))
    draw.shuffle(left)
    rounds: list[Row] = []
    while left:
        count = draw.randint(1, 6)
        now, left = sorted(left[:count]), left[count:]
        commits = [{"position": p, "token": "<end>" if p == 19 else f" {draw.choice(WORDS)}", "confidence": 0.5 + draw.random() / 2, "risk": draw.random() / 10, "reason": draw.choice(("exploit", "forced", "cascade")), "draft": False} for p in now]  # fmt: skip
        rounds.append({"commits": commits, "taken_back": [], "ended_from": None, "drafts": [], "branches": []})
        if drafts and left:
            rounds[-1]["drafts"] = [{"position": left[0], "token": " so", "depth": 1, "came_true": False}]
        elif left:
            rounds[-1]["branches"] = [{"kept": k == 1, "commits": [{"position": p, "token": " is"}]} for k, p in enumerate(left[:3])]  # fmt: skip
    rounds[-1]["ended_from"] = 20
    return {"prompt_id": prompt, "gen_length": LENGTH, "block_length": BLOCK, "end_tokens": ["<end>"], "rounds": rounds}
