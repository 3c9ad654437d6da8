"""Debian's Chromium without a screen, driven by the DevTools protocol over pipes: no port, and no other package."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

WAIT_S = 60
OPTIONS = (
    "--headless",
    "--no-sandbox",  # which root has none of
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)
LOADED = """(() => {
  const entry = performance.getEntriesByType("navigation")[0];
  const paint = performance.getEntriesByName("first-contentful-paint")[0];
  return Math.max(entry.loadEventEnd, paint ? paint.startTime : 0) / 1000;
})()"""


def find_chromium() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@dataclass
class Browser:
    """One tab."""

    process: subprocess.Popen[bytes]
    commands: int
    answers: int
    session: str = ""
    sent: int = 0
    unread: bytes = b""
    events: list[dict[str, Any]] = field(default_factory=list)

    def call(self, method: str, **params: object) -> dict[str, Any]:
        """A command's result; events that come before it are kept."""
        self.sent += 1
        message = {"id": self.sent, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.commands, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self.sent:
            self.events.append(answer)
        assert "error" not in answer, f"{method}: {answer['error']}"
        found: dict[str, Any] = answer["result"]
        return found

    def open(self, url: str, width: int = 1280, height: int = 800, scheme: str = "light") -> None:
        """In a window of that width, until it is loaded."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.events.clear()
        self.call("Page.navigate", url=url)
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._next())

    def value(self, expression: str) -> Any:
        """Of JavaScript on the page."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def complaints(self) -> list[str]:
        """What the page wrote to the console or threw since it was opened."""
        methods = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        return [json.dumps(event["params"]) for event in self.events if event.get("method") in methods]

    def requests(self) -> list[str]:
        """URLs that it asked for."""
        asked = (event["params"] for event in self.events if event.get("method") == "Network.requestWillBeSent")
        return [params["request"]["url"] for params in asked]

    def screenshot(self) -> bytes:
        """PNG of the window."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])

    def _next(self) -> dict[str, Any]:
        until = time.monotonic() + WAIT_S
        while b"\0" not in self.unread:
            ready, _, _ = select.select([self.answers], [], [], max(0.0, until - time.monotonic()))
            assert ready, f"no answer from the browser in {WAIT_S} s"
            more = os.read(self.answers, 1 << 20)
            assert more, f"the browser ended with {self.process.wait(WAIT_S)}"
            self.unread += more
        one, _, self.unread = self.unread.partition(b"\0")
        found: dict[str, Any] = json.loads(one)
        return found


@contextmanager
def browsing(program: str) -> Iterator[Browser]:
    """A browser with an empty profile."""
    with TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process, commands, answers = _start(program, profile)
        try:
            browser = Browser(process, commands, answers)
            target = browser.call("Target.createTarget", url="about:blank")["targetId"]
            browser.session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Page", "Runtime", "Log", "Network"):
                browser.call(f"{domain}.enable")
            yield browser
        finally:
            os.close(commands)  # after which it ends by itself
            os.close(answers)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def load_seconds(program: str, page: Path) -> float:
    """Until a page is loaded and first painted, in a browser that has never seen it."""
    with browsing(program) as browser:
        browser.open(page.as_uri())
        browser.screenshot()  # so that it is painted
        return float(browser.value(LOADED))


def _start(program: str, profile: str) -> tuple[subprocess.Popen[bytes], int, int]:
    """It reads commands from descriptor 3 and answers to 4."""
    (reads, commands), (answers, writes) = os.pipe(), os.pipe()
    theirs = [fcntl.fcntl(each, fcntl.F_DUPFD, 20) for each in (reads, writes)]
    script = f'exec "$0" "$@" 3<&{theirs[0]} 4>&{theirs[1]}'
    arguments = ["bash", "-c", script, program, *OPTIONS, f"--user-data-dir={profile}"]
    process = subprocess.Popen(
        arguments, pass_fds=theirs, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    for each in (reads, writes, *theirs):
        os.close(each)
    return process, commands, answers
