"""A results folder made up from a seed, and a headless Chromium driven over two pipes, without a driver of its own."""

from __future__ import annotations

import base64
import json
import os
import random
import select
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from decoding.comparison.records.format import TEXTS, TRACES, write_rows

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage",
         "--disable-background-networking", "--disable-component-update", "--remote-debugging-pipe", "--mute-audio")  # fmt: skip
PATIENCE = 60.0  # seconds


class Browser:
    """One tab; speaks the DevTools protocol, a JSON object and a zero byte for each message."""

    def __init__(self, program: str, profile: Path) -> None:
        theirs, self.to = os.pipe()
        self.back, ours = os.pipe()
        wire = f"exec {program} {' '.join(FLAGS)} --user-data-dir={profile} about:blank 3<&{theirs} 4>&{ours}"
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(["bash", "-c", wire], pass_fds=(theirs, ours), **quiet)
        os.close(theirs)
        os.close(ours)
        self.number, self.rest, self.events = 0, b"", []
        self.session: str | None = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        self.call("Performance.enable", timeDomain="threadTicks")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        message |= {"sessionId": self.session} if self.session else {}
        os.write(self.to, json.dumps(message).encode() + b"\0")
        while True:
            found = self.receive()
            if found.get("id") == self.number:
                assert "error" not in found, found
                return found["result"]
            self.events.append(found)

    def receive(self) -> dict[str, Any]:
        end = time.monotonic() + PATIENCE
        while b"\0" not in self.rest:
            assert select.select([self.back], [], [], max(0, end - time.monotonic()))[0], "the browser says nothing"
            data = os.read(self.back, 1 << 20)
            assert data, "the browser has ended"
            self.rest += data
        message, _, self.rest = self.rest.partition(b"\0")
        return json.loads(message)

    def window(self, width: int, height: int = 900, *, dark: bool = False) -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, page: Path, until: str = "window.report") -> float:
        """Load a file until something holds in it; the seconds of its own work, which other processes do not stretch."""
        self.events.clear()
        self.call("Page.navigate", url=page.as_uri())
        self.wait(f"document.readyState === 'complete' && ({until})")
        metrics = self.call("Performance.getMetrics")["metrics"]
        return next(one["value"] for one in metrics if one["name"] == "TaskDuration")

    def wait(self, condition: str) -> None:
        end = time.monotonic() + PATIENCE
        while not self.evaluate(f"!!({condition})"):
            assert time.monotonic() < end, f"never: {condition}"
            time.sleep(0.02)

    def evaluate(self, expression: str) -> Any:
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def press(self, key: str) -> None:
        text = {"text": key} if len(key) == 1 else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key)

    def click(self, selector: str) -> None:
        self.evaluate(f"document.querySelector({selector!r}).scrollIntoView({{block: 'center'}})")
        box = self.evaluate(f"(() => {{const r = document.querySelector({selector!r}).getBoundingClientRect();"
                            " return [r.x + r.width / 2, r.y + r.height / 2]})()")  # fmt: skip
        where = {"x": box[0], "y": box[1], "button": "left", "clickCount": 1}
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, **where)

    def complaints(self) -> list[str]:
        """What the page has said on its console as an error, and what it threw."""
        self.evaluate("1")
        thrown = [json.dumps(e["params"]) for e in self.events if e.get("method") == "Runtime.exceptionThrown"]
        logged = [e["params"]["entry"] for e in self.events if e.get("method") == "Log.entryAdded"]
        said = [e["params"] for e in self.events if e.get("method") == "Runtime.consoleAPICalled"]
        return [*thrown, *(e["text"] for e in logged), *(json.dumps(e["args"]) for e in said)]

    def requests(self) -> list[str]:
        """Every address asked for but the file itself and data within it."""
        sent = [e["params"]["request"]["url"] for e in self.events if e.get("method") == "Network.requestWillBeSent"]
        return [url for url in sent if not url.startswith(("file:", "data:"))]

    def picture(self, file: Path, *, whole: bool = False) -> None:
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        file.write_bytes(base64.b64decode(shot["data"]))

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=10)
        os.close(self.to)
        os.close(self.back)


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Debian's Chromium, found by its path."""
    program = next(
        (found for name in NAMES if (found := shutil.which(name, path=f"{os.environ['PATH']}:/usr/bin"))), None
    )
    if program is None:
        pytest.skip(f"no {NAMES[0]} on this machine (apt-get install chromium)")
    opened = Browser(program, tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


Row = dict[str, Any]
WORDS = "the sum of two and three is five so we take away one ; then four is left over".split()
ARMS = ("sequential", "threshold", "ete", "learned", "verified", "factor", "lopa", "wino")
DIALS = (0.9, 0.95, 0.98)
LENGTH, BLOCK = 24, 8


def around(middle: float, spread: float = 0.04) -> Row:
    return {"estimate": middle, "low": middle * (1 - spread), "high": middle * (1 + spread)}


def write_folder(folder: Path, *, prompts: int = 12, arms: int = 8, replays: int = 4, tasks: int = 1) -> Path:
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
            figures["calibration"].append(
                who
                | {
                    "dial": dial,
                    "bound": round(1 - dial, 9),
                    "n": prompts,
                    "wrong": wrong,
                    "unforced": around(0.8),
                    "kept": dial < 0.97,
                }
            )
    rounds = 24.0 if place == 0 else 3.3 + place * 0.7
    dial = 0.95 if place else None
    figures["curves"].append(
        who
        | {
            "dial_chosen": dial,
            "dial_shown": dial,
            "rounds_at_reference": around(rounds),
            "accuracy_difference": around(0.0),
            "holds": True,
            "aup": around(200.0),
            "aup_forwards": around(150.0),
            "gap_closed": None,
            "null_share": 0.0,
        }
    )
    if arm != "ete":
        pair = {"task": task, "a": arm, "b": "ete", "dial_a": dial, "dial_b": 0.95}
        figures["pairs"].append(
            pair
            | {
                "rounds_ratio": around(rounds / 4.7),
                "sequence_forwards_ratio": around(rounds / 9.4),
                "accuracy_difference": around(0.004 * place, 0.5),
            }
        )


def text_row(draw: random.Random, prompt: int) -> Row:
    """What an arm wrote for a prompt; one of its words is drawn, the others are the prompt's."""
    own = random.Random(prompt)
    words = [own.choice(WORDS) for _ in range(12)]
    words[draw.randrange(12)] = draw.choice(WORDS)
    costs = {"rounds": draw.randint(3, 24), "sequence_forwards": draw.randint(24, 48), "new_tokens": 12}
    return {
        "prompt_id": prompt,
        "prompt": f"What is {prompt} + 2?",
        "text": " ".join(words),
        "right": draw.random() < 0.8,
        **costs,
    }


def trace_row(draw: random.Random, prompt: int, *, drafts: bool) -> Row:
    """Rounds that fill 20 positions in a drawn order, a few a round, and end the answer there."""
    left = list(range(20))
    draw.shuffle(left)
    rounds: list[Row] = []
    while left:
        count = draw.randint(1, 6)
        now, left = sorted(left[:count]), left[count:]
        commits = [
            {
                "position": p,
                "token": "<end>" if p == 19 else f" {draw.choice(WORDS)}",
                "confidence": 0.5 + draw.random() / 2,
                "risk": draw.random() / 10,
                "reason": draw.choice(("exploit", "forced", "cascade")),
                "draft": False,
            }
            for p in now
        ]
        rounds.append({"commits": commits, "taken_back": [], "ended_from": None, "drafts": [], "branches": []})
        if drafts and left:
            rounds[-1]["drafts"] = [{"position": left[0], "token": " so", "depth": 1, "came_true": False}]
        elif left:
            rounds[-1]["branches"] = [
                {"kept": k == 1, "commits": [{"position": p, "token": " is"}]} for k, p in enumerate(left[:3])
            ]
    rounds[-1]["ended_from"] = 20
    return {"prompt_id": prompt, "gen_length": LENGTH, "block_length": BLOCK, "end_tokens": ["<end>"], "rounds": rounds}


@pytest.fixture(scope="session")
def make_folder() -> Callable[..., Path]:
    """Writes such a folder."""
    return write_folder
