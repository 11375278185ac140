"""A headless Chromium driven over a pair of pipes, so that the tests need no driver of their own."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

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

    def open(self, page: Path) -> float:
        """Load a file; the seconds until its first texts and charts stand there."""
        self.events.clear()
        began = time.monotonic()
        self.call("Page.navigate", url=page.as_uri())
        self.wait("document.readyState === 'complete' && !!window.report")
        return time.monotonic() - began

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
