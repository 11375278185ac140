"""Kills every command at every rename, at other events and at random moments, and sees that it ends as if it had not been.

``python -m tests.kills [NAME ...] [--jobs 2] [--kills 240] [--event WORD] [--minutes 8]``. A killed run is started again with the
same command until it ends; what it leaves must be what an undisturbed run leaves: nothing lost, doubled, mixed or left over. What
was found is kept, and a later call of the same code goes on from there. SIGTERM and Ctrl-C end with the table so far.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType

from tests.kills.runs import Kill, Servers, Stopped, Whole, outcome, undisturbed
from tests.kills.scenarios import Scenario, differences, scenarios
from tests.mutation.__main__ import ROOT, Found, copy_tree, name_of_code

DONE = ROOT / ".cache" / "kills.json"
WRONG = "WRONG"


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


def planned(whole: Mapping[str, Whole], count: int, seed: int) -> list[Kill]:
    """Both sides of every rename of every scenario, then other events and moments in turn, up to `count` where that is more.

    They come in a random order, so that kills that end early are of all kinds.
    """
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
            others.append(Kill(name, "moment", share=draw.uniform(0.1, 1.05), again=again))
    every = list(dict.fromkeys(renames + others))
    return draw.sample(every, len(every))


def chosen(kills: Sequence[Kill], whole: Mapping[str, Whole], word: str | None) -> list[Kill]:
    """Those at an event whose name holds a word; all where there is none."""
    return [one for one in kills if word is None or (one.at and word in whole[one.scenario].events[one.at - 1])]


def table(kills: Sequence[Kill], known: Mapping[str, str]) -> str:
    """Kills and failures by scenario and kind, of those that were tried."""
    rows = Counter[tuple[str, str]]()
    bad = Counter[tuple[str, str]]()
    for kill in kills:
        found = known.get(kill.name)
        if found is not None:
            rows[kill.scenario, kill.how] += int(found.split()[-2])
            bad[kill.scenario, kill.how] += found.startswith(WRONG)
    lines = [f"| {name} | {how} | {rows[name, how]} | {bad[name, how]} |" for name, how in sorted(rows)]
    lines += [f"| all | | {rows.total()} | {bad.total()} |"]
    return "\n".join(["| command | killed at | kills | lost, doubled or mixed |", "|---|---|---|---|", *lines])


def say(line: str) -> None:
    """Write a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def steady(servers: Servers, root: Path, mine: Mapping[str, Scenario], pool: ThreadPoolExecutor) -> dict[str, Whole]:
    """An undisturbed run of every scenario, twice.

    Raises:
        RuntimeError: if the two differ, so that nothing can be said.
    """
    pairs = {
        name: [pool.submit(undisturbed, servers, root / which / name, one) for which in ("whole", "twice")]
        for name, one in mine.items()
    }
    whole = {}
    for name, (first, second) in pairs.items():
        whole[name] = one = first.result()
        renames = sum(event.startswith("rename ") for event in one.events)
        say(f"undisturbed {name}: {one.seconds:.1f} s, {len(one.events)} events, {renames} renames")
        if unlike := differences(one.facts, second.result().facts):
            raise RuntimeError(f"two undisturbed runs of {name} differ, so that nothing can be said: {unlike}")
    return whole


def kill_all(servers: Servers, root: Path, mine: Mapping[str, Scenario], kills: Sequence[Kill], *,
             whole: Mapping[str, Whole], found: Found, pool: ThreadPoolExecutor) -> None:  # fmt: skip
    """Try all kills, a line for each, until the servers are stopped."""

    def one(number: int) -> None:
        kill, began = kills[number], time.monotonic()
        of = whole[kill.scenario]
        try:
            count, wrong = outcome(servers, root / "killed" / str(number), mine[kill.scenario], of, kill)
        except Stopped:
            return
        where = "" if kill.at is None else f" ({of.events[kill.at - 1]})"
        what = f"{WRONG} {'; '.join(wrong)}, {count} kills" if wrong else f"held, {count} kills"
        found.add(kill.name, what)
        say(f"{what}: {kill.name}{where} ({time.monotonic() - began:.1f} s)")

    list(pool.map(one, range(len(kills))))


def options() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tests.kills", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", help="train, cascade, pretrain, compare, calibrate, generate; default all")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--kills", type=int, default=240, help="at least; every rename is killed on both sides in any case"
    )
    parser.add_argument("--only", type=int, help="run only so many of them")
    parser.add_argument("--event", help="run only those at an event whose name holds this, such as yaml or .aside")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, help="end after so many, with what was found")
    parser.add_argument("--done", type=Path, default=DONE, help="file that keeps what was found")
    parser.add_argument("--keep", type=Path, help="folder that gets one for the runs; those that are wrong stay there")
    return parser.parse_args()


def main() -> int:
    """Run all kills, a line for each and a table last; the exit code says whether all were tried and none is wrong."""
    given, began = options(), time.monotonic()
    found = Found(given.done, name_of_code())
    with tempfile.TemporaryDirectory() as made, ThreadPoolExecutor(given.jobs) as pool:
        if given.keep is not None:
            given.keep.mkdir(parents=True, exist_ok=True)
        root = Path(tempfile.mkdtemp(prefix="kills-", dir=given.keep) if given.keep else made).resolve()
        servers = Servers(copy_tree(root / "tree"), given.jobs)  # edits meanwhile do not count: a ledger names its code

        def stop(number: int, frame: FrameType | None) -> None:
            servers.stop()

        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
            signal.signal(number, stop)
        if given.minutes is not None:
            signal.setitimer(signal.ITIMER_REAL, 60 * given.minutes)
        try:
            known = scenarios(*make_parts(root / "parts"))
            mine = {name: one for name, one in known.items() if not given.names or name in given.names}
            whole = steady(servers, root, mine, pool)
            kills = chosen(planned(whole, given.kills, given.seed), whole, given.event)[: given.only]
            left = [kill for kill in kills if not found.known.get(kill.name, WRONG).startswith("held")]
            kill_all(servers, root, mine, left, whole=whole, found=found, pool=pool)
        except Stopped:
            say("stopped before the first kill")
            return 1
        finally:
            servers.stop()
    tried = [found.known[kill.name] for kill in kills if kill.name in found.known]
    bad = sum(one.startswith(WRONG) for one in tried)
    say(f"{table(kills, found.known)}\n")
    say(f"{len(tried)} of {len(kills)} runs tried, {bad} wrong, {(time.monotonic() - began) / 60:.1f} minutes")
    return int(bad > 0 or len(tried) < len(kills))


if __name__ == "__main__":
    raise SystemExit(main())
