"""Kills every command at every rename, at other events and at random moments, and sees that it ends as if it had not been.

``python -m tests.kills [NAME ...] [--jobs 2] [--kills 240] [--seed 0]``. A killed run is started again with the same command until
it ends; what it leaves must be what an undisturbed run leaves: nothing lost, doubled, mixed or left over.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.kills.scenarios import Scenario, differences, facts, scenarios
from tests.mutation.__main__ import copy_tree

SECONDS = 900  # of one run at most
KILLED = -9


@dataclass(frozen=True)
class Kill:
    """One kill.

    Attributes:
        scenario: what is killed.
        how: rename, event or moment.
        at: number of the event, or None.
        after: behind the rename in place of before it.
        share: of the time of an undisturbed run after which the process is killed, or None.
        again: number of an event at which the second run is killed too, or None.
    """

    scenario: str
    how: str
    at: int | None = None
    after: bool = False
    share: float | None = None
    again: int | None = None


@dataclass(frozen=True)
class Whole:
    """An undisturbed run: what it left, its events, and how long it took."""

    facts: dict[str, Any]
    events: list[str]
    seconds: float


def make_parts(folder: Path) -> tuple[Path, Path]:
    """A small base with random weights, and a head for it."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    import models
    from decoding.features import NAMES
    from models.heads.config import HeadConfig
    from models.heads.scoring_head import ScoringHead, save_head
    from train.base.export import export
    from train.commands.command_line import shipped

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=768, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=256, tie_word_embeddings=False,
        rope_parameters={"rope_type": "default", "rope_theta": 1e4},
    )  # fmt: skip
    export(LlamaForCausalLM(config), folder / "base", tokenizer=shipped("checkpoints/reason-7m"), mask_id=1, eos_id=0)
    denoiser = models.load(folder / "base", device="cpu")
    save_head(ScoringHead(HeadConfig("linear", NAMES, width=8), denoiser), folder / "head")
    return folder / "base", folder / "head"


def start(folder: Path, scenario: Scenario, plan: dict[str, Any]) -> subprocess.Popen[bytes]:
    """A run of the scenario in a folder, watched by the plan."""
    for name, text in scenario.files.items():
        (folder / name).write_text(text, encoding="utf-8")
    (folder.parent / f"{folder.name}.plan").write_text(json.dumps(plan))
    said = (folder.parent / f"{folder.name}.said").open("ab")
    command = [
        sys.executable,
        str(folder.parents[1] / "tree/tests/kills/child.py"),
        str(folder.parent / f"{folder.name}.plan"),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1", "HF_HUB_OFFLINE": "1"}
    environment["PYTHONHASHSEED"] = "0"  # PEFT writes a set of names into adapter_config.json
    return subprocess.Popen(
        [*command, *scenario.arguments(folder)], cwd=folder, env=environment, stdout=said, stderr=said,
        start_new_session=True,
    )  # fmt: skip


def run(
    folder: Path, scenario: Scenario, *, at: int | None = None, after: bool = False, seconds: float | None = None
) -> int:
    """Run once, killed at an event or after so many seconds; the exit code, KILLED where it was."""
    events = folder.parent / f"{folder.name}.events"
    process = start(folder, scenario, {"at": at, "after": after, "events": str(events)})
    try:
        return process.wait(timeout=SECONDS if seconds is None else seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def said_of(folder: Path) -> str:
    """The last lines of what a run said."""
    text = (folder.parent / f"{folder.name}.said").read_text(encoding="utf-8", errors="replace")
    return " | ".join(text.strip().splitlines()[-2:])[-400:]


def undisturbed(folder: Path, scenario: Scenario) -> Whole:
    """Run to the end.

    Raises:
        RuntimeError: if it does not get there.
    """
    folder.mkdir(parents=True)
    began = time.monotonic()
    code = run(folder, scenario)
    if code:
        raise RuntimeError(f"{scenario.name} ends with {code}: {said_of(folder)}")
    events = json.loads((folder.parent / f"{folder.name}.events").read_text())
    return Whole(facts(folder), events, time.monotonic() - began)


def planned(whole: dict[str, Whole], count: int, seed: int) -> list[Kill]:
    """Both sides of every rename of every scenario, then other events and moments in turn, up to `count` where that is more."""
    draw = random.Random(seed)
    renames = [
        Kill(name, "rename", at=number, after=after)
        for name, one in whole.items()
        for number, event in enumerate(one.events, 1)
        if event.startswith("rename ")
        for after in (False, True)
    ]
    others: list[Kill] = []
    while len(renames) + len(others) < count or len(others) < 8 * len(whole):
        for name, one in whole.items():
            again = draw.randint(1, len(one.events)) if draw.random() < 0.3 else None
            others.append(Kill(name, "event", at=draw.randint(1, len(one.events)), again=again))
            others.append(Kill(name, "moment", share=draw.uniform(0.4, 1.05), again=again))
    return renames + others


def outcome(folder: Path, scenario: Scenario, whole: Whole, kill: Kill) -> tuple[int, list[str]]:
    """How often the run was killed, and what is wrong in the end.

    Args:
        folder: a new one.
        scenario: what runs.
        whole: the undisturbed run.
        kill: when it is killed.
    """
    folder.mkdir(parents=True)
    seconds = None if kill.share is None else kill.share * whole.seconds
    code = run(folder, scenario, at=kill.at, after=kill.after, seconds=seconds)
    kills = int(code == KILLED)
    if kill.again is not None and code == KILLED:
        code = run(folder, scenario, at=kill.again)
        kills += int(code == KILLED)
    if code == KILLED:
        code = run(folder, scenario)
    over = code == 2 and bool(scenario.over) and scenario.over in said_of(folder)
    wrong = [] if code == 0 or over else [f"ends with {code}: {said_of(folder)}"]
    wrong = wrong or differences(whole.facts, facts(folder))
    if not wrong:
        shutil.rmtree(folder)
    return kills, wrong


def table(done: Sequence[tuple[Kill, int, list[str]]]) -> str:
    """Kills and failures by scenario and kind."""
    rows = Counter[tuple[str, str]]()
    bad = Counter[tuple[str, str]]()
    for kill, kills, wrong in done:
        rows[kill.scenario, kill.how] += kills
        bad[kill.scenario, kill.how] += bool(wrong)
    lines = [f"| {name} | {how} | {rows[name, how]} | {bad[name, how]} |" for name, how in sorted(rows)]
    return "\n".join(["| command | killed at | kills | lost, doubled or mixed |", "|---|---|---|---|", *lines])


def main() -> int:
    """Run all kills, a line for each that is wrong and a table last; the exit code says whether none is."""
    parser = argparse.ArgumentParser(prog="python -m tests.kills", description=__doc__.partition("\n")[0])
    parser.add_argument(
        "names", nargs="*", help="scenarios: train, cascade, pretrain, compare, calibrate, generate; default all"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--kills", type=int, default=240, help="at least; every rename is killed on both sides in any case"
    )
    parser.add_argument("--only", type=int, help="run only so many of them, drawn")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for the runs; those that are wrong stay there")
    given = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as made, ThreadPoolExecutor(given.jobs) as pool:
        root = (given.keep or Path(made)).resolve()
        root.mkdir(parents=True, exist_ok=True)
        copy_tree(root / "tree")  # what is edited meanwhile does not count: a ledger names the code that wrote it
        known = scenarios(*make_parts(root / "parts"))
        mine = {name: one for name, one in known.items() if not given.names or name in given.names}
        wholes = list(pool.map(lambda name: undisturbed(root / "whole" / name, mine[name]), mine))
        whole = dict(zip(mine, wholes, strict=True))
        twice = pool.map(lambda name: undisturbed(root / "twice" / name, mine[name]).facts, mine)
        unsteady = {name: differences(whole[name].facts, found) for name, found in zip(mine, twice, strict=True)}
        if any(unsteady.values()):
            sys.stdout.write(f"two undisturbed runs differ, so that nothing can be said: {unsteady}\n")
            return 2
        kills = planned(whole, given.kills, given.seed)
        kills = kills if given.only is None else random.Random(given.seed).sample(kills, min(given.only, len(kills)))

        def one(number: int) -> tuple[Kill, int, list[str]]:
            kill = kills[number]
            count, wrong = outcome(root / "killed" / str(number), mine[kill.scenario], whole[kill.scenario], kill)
            if wrong:
                where = "" if kill.at is None else f" ({whole[kill.scenario].events[kill.at - 1]})"
                sys.stdout.write(f"WRONG {kill}{where}: {'; '.join(wrong)}\n")
                sys.stdout.flush()
            return kill, count, wrong

        done = list(pool.map(one, range(len(kills))))
    total, bad = sum(count for _, count, _ in done), sum(bool(wrong) for _, _, wrong in done)
    sys.stdout.write(f"{table(done)}\n\n{total} kills, {bad} wrong, {(time.monotonic() - began) / 60:.1f} minutes\n")
    return int(bad > 0)


if __name__ == "__main__":
    raise SystemExit(main())
