"""A real browser for tests of pages: Chromium without a window, driven through its debugging pipe.

``BIDS_INPAINT_CHROMIUM`` names the program if it is not on the path.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

#: Seconds to wait for an answer, on a machine that may have much else to do.
_PATIENCE = 300
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
#: Keys that aren't letters or digits, by name.
_CODES = {"ArrowRight": 39, "ArrowLeft": 37, "Escape": 27}


def find() -> str:
    """The program, or skip the test."""
    asked = os.environ.get("BIDS_INPAINT_CHROMIUM")
    found = asked or next(filter(None, map(shutil.which, _NAMES)), None)
    if not found:
        pytest.skip("no Chromium is installed")
    return found


def _start(command: list[str]) -> tuple[int, int, int]:
    """Start a browser that reads from its descriptor 3 and writes to 4: our ends of both, and its process."""
    pipes = [os.pipe(), os.pipe()]
    # below ten they might be in each other's way
    reads, writes = (fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in (pipes[0][0], pipes[1][1]))
    to_nothing = [(os.POSIX_SPAWN_OPEN, out, os.devnull, os.O_WRONLY, 0) for out in (1, 2)]
    actions = [*to_nothing, (os.POSIX_SPAWN_DUP2, reads, 3), (os.POSIX_SPAWN_DUP2, writes, 4)]
    process = os.posix_spawnp(command[0], command, os.environ, file_actions=actions)
    for end in (pipes[0][0], pipes[1][1], reads, writes):
        os.close(end)
    return pipes[1][0], pipes[0][1], process


class Browser:
    """One page in a browser.

    Attributes
    ----------
    requests : list of str
        Everything that pages asked for.
    complaints : list of str
        Errors and warnings of the console, and requests that failed.
    """

    def __init__(self, folder: Path):
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.downloads = folder / "downloads"
        self.downloads.mkdir(parents=True, exist_ok=True)
        options = [
            "--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu",
            "--disable-dev-shm-usage", "--no-first-run", "--hide-scrollbars",
            f"--user-data-dir={folder / 'profile'}", "--window-size=1400,1000",
        ]  # fmt: skip
        self._read, self._write, self._process = _start([find(), *options])
        self._buffer, self._number, self._session = b"", 0, None
        self._loaded = False
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call(
            "Browser.setDownloadBehavior", behavior="allow", downloadPath=str(self.downloads), whole=True
        )

    def call(self, method: str, *, whole: bool = False, **params: Any) -> dict[str, Any]:
        """Send a command of the DevTools protocol, to the browser as a whole or to the page."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session and not whole:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next(_PATIENCE)
            if answer is None:
                raise TimeoutError(method)
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer.get("result", {})

    def _next(self, timeout: float) -> dict[str, Any] | None:
        """The next message; None if none comes in time."""
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], timeout)
            if not ready:
                return None
            if not (found := os.read(self._read, 1 << 16)):
                raise OSError("the browser has ended")
            self._buffer += found
        line, self._buffer = self._buffer.split(b"\0", 1)
        message = json.loads(line)
        self._note(message.get("method", ""), message.get("params", {}))
        return message

    def _note(self, event: str, params: dict[str, Any]) -> None:
        if event == "Page.loadEventFired":
            self._loaded = True
        elif event == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif event == "Network.loadingFailed" and not params.get("canceled"):
            self.complaints.append(params["errorText"])
        elif event == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.complaints.append(params["entry"]["text"])
        elif event == "Runtime.exceptionThrown":
            self.complaints.append(str(params["exceptionDetails"]))
        elif event == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"):
            self.complaints.append(str(params["args"]))

    def open(self, path: Path, fragment: str = "") -> float:
        """Open a file; return the seconds until all of it is loaded."""
        self._loaded = False
        start = time.monotonic()
        self.call("Page.navigate", url=path.absolute().as_uri() + fragment)
        while not self._loaded:
            if self._next(_PATIENCE) is None:
                raise TimeoutError(str(path))
        return time.monotonic() - start

    def press(self, *keys: str) -> None:
        """Press keys one after the other, by their names or characters."""
        for key in keys:
            more = {"text": key} if len(key) == 1 else {"windowsVirtualKeyCode": _CODES[key]}
            self.call("Input.dispatchKeyEvent", type="keyDown", key=key, **more)
            self.call("Input.dispatchKeyEvent", type="keyUp", key=key)

    def evaluate(self, expression: str) -> Any:
        """The value of an expression on the page."""
        result = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True, userGesture=True
        )
        if "exceptionDetails" in result:
            raise RuntimeError(str(result["exceptionDetails"]))
        return result["result"].get("value")

    def wait(self, expression: str, seconds: float = 120) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + seconds
        while not self.evaluate(expression):
            if time.monotonic() > end:
                raise TimeoutError(expression)
            self._next(0.1)

    def downloaded(self, name: str, seconds: float = 120) -> Path:
        """The file of a download, once it is whole."""
        path, end = self.downloads / name, time.monotonic() + seconds
        while not path.exists():
            if time.monotonic() > end:
                raise TimeoutError(f"{name}; there are {[p.name for p in self.downloads.iterdir()]}")
            self._next(0.1)
        return path

    def screenshot(self, path: Path) -> None:
        """Save what is seen as PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def close(self) -> None:
        """End the browser."""
        try:
            self.call("Browser.close", whole=True)
        except (OSError, TimeoutError):
            os.kill(self._process, signal.SIGKILL)
        os.waitpid(self._process, 0)
        os.close(self._write)
        os.close(self._read)
