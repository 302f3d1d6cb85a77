"""A real Chromium without a window, driven over its DevTools pipe: no driver, no library, nothing but Debian's package.

The protocol is JSON, each message ended by a NUL: commands go in at its descriptor 3, answers and events come out at 4.
"""

from __future__ import annotations

import base64
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.processes import ProgramError, require_binary

ANSWER_SECONDS = 60.0  # a browser that starts on a busy machine
STOP_SECONDS = 20.0
PACKAGE = "chromium"
_HAND_OVER = """
import fcntl, os, sys
commands, answers = (fcntl.fcntl(int(number), fcntl.F_DUPFD, 10) for number in sys.argv[1:3])
os.dup2(commands, 3)
os.dup2(answers, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Browser:
    """One page of one browser."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands = commands
        self._answers = answers
        self._unread = b""
        self._last = 0
        self._session = ""
        self.complaints: list[str] = []  # what the page, or its policy, has complained of
        self.requested: list[str] = []  # every address that was fetched

    def open_page(self) -> None:
        """Open the page that all else is about."""
        target = self._do("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._do("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._do(f"{domain}.enable")

    def show_as(self, width: int, height: int, *, is_dark: bool) -> None:
        """Be a screen of this size (a phone has 360 pixels), with this preference."""
        self._do(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}
        self._do("Emulation.setEmulatedMedia", features=[scheme])

    def allow_script(self, *, is_allowed: bool) -> None:
        """Run the pages' scripts, or do not."""
        self._do("Emulation.setScriptExecutionDisabled", value=not is_allowed)

    def go(self, address: str) -> None:
        """Load a page, and wait until it is there."""
        if error := self._do("Page.navigate", url=address).get("errorText"):
            raise ProgramError(f"{address}: {error}")
        self.wait_for("document.readyState === 'complete'")

    def ask(self, script: str) -> Any:
        """Return the value of an expression of JavaScript in the page."""
        answer = self._do("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise ProgramError(f"{script}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def wait_for(self, script: str, *, seconds: float = ANSWER_SECONDS) -> None:
        """Wait until an expression is true."""
        deadline = time.monotonic() + seconds
        while not self._is_true(script):
            if time.monotonic() > deadline:
                raise ProgramError(f"waited {seconds:.0f} s in vain: {script}")
            time.sleep(0.05)

    def _is_true(self, script: str) -> bool:
        try:
            return bool(self.ask(script))
        except ProgramError as error:
            if "context" in str(error):  # the page is being loaded anew
                return False
            raise

    def picture(self, path: Path) -> None:
        """Write a picture of the whole page, as PNG."""
        answer = self._do("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(answer["data"]))

    def close(self) -> None:
        """End the browser."""
        self._session = ""
        self._do("Browser.close")

    def _do(self, method: str, **parameters: object) -> Mapping[str, Any]:
        """Send a command and return its answer; events that come meanwhile are looked at."""
        self._last += 1
        message: dict[str, object] = {"id": self._last, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + ANSWER_SECONDS
        while True:
            answer = self._receive(deadline, method)
            if answer.get("id") == self._last:
                if "error" in answer:
                    raise ProgramError(f"{method}: {answer['error']}")
                result: Mapping[str, Any] = answer["result"]
                return result
            self._note(answer)

    def _receive(self, deadline: float, waiting_for: str) -> Mapping[str, Any]:
        while b"\0" not in self._unread:
            ready, _, _ = select.select([self._answers], [], [], max(0.0, deadline - time.monotonic()))
            octets = os.read(self._answers, 1 << 16) if ready else b""
            if not octets:
                raise ProgramError(f"the browser says nothing to {waiting_for}")
            self._unread += octets
        message, _, self._unread = self._unread.partition(b"\0")
        parsed: Mapping[str, Any] = json.loads(message)
        return parsed

    def _note(self, event: Mapping[str, Any]) -> None:
        method, parameters = event.get("method"), event.get("params", {})
        if method == "Log.entryAdded":
            self.complaints.append(str(parameters["entry"]["text"]))
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(str(parameters["exceptionDetails"]))
        elif method == "Network.requestWillBeSent":
            self.requested.append(str(parameters["request"]["url"]))


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """Start a browser with an empty profile in `folder`, and end it afterwards."""
    command = [
        require_binary("chromium", PACKAGE),
        "--headless=new",
        "--remote-debugging-pipe",
        f"--user-data-dir={folder / 'profile'}",
        "--no-sandbox",  # it is root that runs the tests
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--disable-component-update",
        "--no-first-run",
        "--force-prefers-reduced-motion",
    ]
    theirs_in, commands = os.pipe()
    answers, theirs_out = os.pipe()
    with (folder / "browser.output").open("wb") as output:
        started = subprocess.Popen(
            [sys.executable, "-c", _HAND_OVER, str(theirs_in), str(theirs_out), *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=(theirs_in, theirs_out),
            start_new_session=True,
            env={**os.environ, "HOME": str(folder)},
        )
    os.close(theirs_in)
    os.close(theirs_out)
    one = Browser(commands, answers)
    try:
        one.open_page()
        yield one
    finally:
        _end(started, one)
        os.close(commands)
        os.close(answers)


def _end(started: subprocess.Popen[bytes], one: Browser) -> None:
    try:
        one.close()
        started.wait(STOP_SECONDS)
    except (OSError, ProgramError, subprocess.TimeoutExpired):
        started.kill()
        started.wait()
