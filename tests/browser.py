"""Headless Chromium, driven through its debugging pipe with nothing but the standard library."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def program() -> str | None:
    """The browser's path: the variable CHROMIUM, else the first that is installed."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


def tab() -> Iterator[Browser]:
    """For a fixture: a tab for the tests of a module. They are skipped where no Chromium is installed."""
    path = program()
    if path is None:
        pytest.skip("no Chromium here (apt-get install chromium), or set CHROMIUM to its path")
    with Browser(path) as found:
        yield found


class Browser:
    """One tab. ``complaints`` collects what a page wrote to the console as an error, ``requests`` what it asked for."""

    def __init__(self, path: str, timeout: float = 120) -> None:
        self.timeout, self.number, self.rest = timeout, 0, b""
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.events: list[str] = []
        self.folder = tempfile.mkdtemp(prefix="browser")
        inbox, self._to = os.pipe()
        self._from, outbox = os.pipe()
        options = "--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --hide-scrollbars --no-first-run"
        command = [
            path,
            *options.split(),
            "--remote-debugging-pipe",
            f"--user-data-dir={self.folder}",
            "about:blank",
        ]
        # The browser reads from descriptor 3 and writes to 4; the shell puts the two pipes there.
        shell = ["bash", "-c", f'exec "$@" 3<&{inbox} 4>&{outbox}', "bash", *command]
        quiet: dict[str, Any] = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.DEVNULL,
            "stderr": subprocess.DEVNULL,
        }
        self.process = subprocess.Popen(shell, pass_fds=(inbox, outbox), **quiet)
        os.close(inbox), os.close(outbox)
        os.set_blocking(self._from, False)
        self.session = ""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._to), os.close(self._from)
        shutil.rmtree(self.folder, ignore_errors=True)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The result of one command of the Chrome DevTools Protocol; RuntimeError with its words if it is refused."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        message |= {"sessionId": self.session} if self.session else {}
        os.write(self._to, json.dumps(message).encode() + b"\0")
        return self._wait(lambda found: found.get("id") == self.number, method)

    def _wait(self, wanted: Any, what: str) -> dict[str, Any]:
        end = time.monotonic() + self.timeout
        while time.monotonic() < end:
            raw, found, self.rest = self.rest.partition(b"\0")
            if found:
                message = json.loads(raw)
                self._note(message)
                if wanted(message):
                    if "error" in message:
                        raise RuntimeError(f"{what}: {message['error']}")
                    return message.get("result", message.get("params", {}))
                continue
            self.rest = raw
            try:
                more = os.read(self._from, 1 << 20)
            except BlockingIOError:
                time.sleep(0.01)
                continue
            if not more:
                raise RuntimeError(f"{what}: the browser ended with {self.process.wait()}")
            self.rest += more
        raise TimeoutError(f"{what}: no answer in {self.timeout} s")

    def _note(self, message: dict[str, Any]) -> None:
        told, method = message.get("params", {}), message.get("method", "")
        if method == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(told["exceptionDetails"])[:500])
        elif method == "Runtime.consoleAPICalled" and told["type"] == "error":
            self.complaints.append(
                " ".join(str(part.get("value", part.get("description"))) for part in told["args"])
            )
        elif method == "Log.entryAdded" and told["entry"]["level"] == "error":
            self.complaints.append(f"{told['entry']['text']} {told['entry'].get('url', '')}")
        elif method == "Network.requestWillBeSent":
            self.requests.append(told["request"]["url"])

    def open(self, url: str, width: int = 1280, dark: bool = False) -> None:
        """Load a page in a window of this width, and wait until it and its mathematics stand."""
        mobile = width < 600
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=mobile
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=url)
        ready = f"document.readyState === 'complete' && location.href === {json.dumps(url)}"
        end = time.monotonic() + self.timeout
        while time.monotonic() < end and not self._truth(ready):
            time.sleep(0.05)
        self.evaluate("window.MathJax && MathJax.startup ? MathJax.startup.promise.then(() => 1) : 1")

    def _truth(self, expression: str) -> bool:
        try:
            return bool(self.evaluate(expression))
        except RuntimeError:  # the page went away while it was asked
            return False

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression on the page; a promise is awaited."""
        found = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in found:
            raise RuntimeError(json.dumps(found["exceptionDetails"])[:800])
        return found["result"].get("value")

    def until(self, expression: str, seconds: float = 20) -> None:
        """Wait until a JavaScript expression is true; TimeoutError that names it if it does not become so."""
        end = time.monotonic() + seconds
        while not self._truth(expression):
            if time.monotonic() > end:
                raise TimeoutError(f"not true after {seconds} s: {expression}")
            time.sleep(0.05)

    def click(self, selector: str) -> None:
        """A press of the left button in the middle of the first element of this CSS selector, scrolled into view."""
        place = self.evaluate(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); if (!e) return null;"
            " e.scrollIntoView({ block: 'center', behavior: 'instant' }); const r = e.getBoundingClientRect();"
            " return r.width ? [r.x + r.width / 2, r.y + r.height / 2] : null; })()"
        )
        if place is None:
            raise RuntimeError(f"nothing to click at {selector}")
        for kind in ("mousePressed", "mouseReleased"):
            x, y = place
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def type(self, text: str) -> None:
        """Write into the element that has the focus, as an input method does."""
        self.call("Input.insertText", text=text)

    def press(self, key: str, shift: bool = False) -> None:
        """One of Tab, Enter, Space, Escape."""
        code, said = {"Tab": (9, ""), "Enter": (13, "\r"), "Space": (32, " "), "Escape": (27, "")}[key]
        told = {
            "key": " " if key == "Space" else key,
            "code": key,
            "windowsVirtualKeyCode": code,
            "modifiers": 8 * shift,
        }
        self.call("Input.dispatchKeyEvent", type="keyDown", text=said, **told)
        self.call("Input.dispatchKeyEvent", type="keyUp", **told)

    def picture(self, path: Path, whole: bool = False) -> None:
        """The window, or the whole page, as a PNG file."""
        found = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))
