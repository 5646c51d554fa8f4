"""A headless Chromium, driven over its DevTools protocol: the few commands that the tests of the page need.

Example:
    >>> with Browser(find_chromium(), tmp_path) as browser:
    ...     page = browser.open("http://127.0.0.1:8000/")
    ...     page.wait("document.title === 'rvos-edge'")
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from websockets.sync.client import ClientConnection, connect

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--mute-audio",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--remote-debugging-port=0",
    "--remote-allow-origins=*",
    "--no-proxy-server",
)


def find_chromium() -> str | None:
    """The path of a Chromium, None where there is none."""
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


def poll(condition: Callable[[], Any], *, within: float = 15.0, what: str = "it") -> Any:
    """Value of ``condition`` as soon as it is true."""
    deadline = time.monotonic() + within
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what} did not come about within {within:g} s"
        time.sleep(0.02)
    return value


class Browser:
    """Chromium with a profile of its own in ``folder``; it runs between entering and leaving."""

    def __init__(self, program: str, folder: Path) -> None:
        self._profile = folder / "profile"
        self._stack = ExitStack()
        # A browser that spins must not starve the server that it talks to.
        self._command = ["nice", "-n", "10", program, *_FLAGS, f"--user-data-dir={self._profile}", "about:blank"]

    def __enter__(self) -> Browser:
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(self._command, stdout=quiet, stderr=quiet, start_new_session=True)
        told = self._profile / "DevToolsActivePort"
        poll(lambda: told.is_file() and told.read_text().count("\n"), within=30, what="Chromium's start")
        self._address = f"http://127.0.0.1:{told.read_text().split()[0]}"
        return self

    def __exit__(self, *_: object) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(timeout=30)
        self._stack.close()

    def open(self, url: str, *, width: int = 1280, height: int = 860, phone: bool = False, dark: bool = False) -> Page:
        """Open a page in a new tab."""
        request = urllib.request.Request(f"{self._address}/json/new?about:blank", method="PUT")
        with urllib.request.urlopen(request, timeout=30) as answer:
            tab = json.load(answer)["webSocketDebuggerUrl"]
        page = Page(self._stack.enter_context(connect(tab, max_size=None, compression=None, ping_interval=None)))
        for domain in ("Page", "Runtime", "Log"):
            page.do(f"{domain}.enable")
        metrics = {"width": width, "height": height, "deviceScaleFactor": 2 if phone else 1, "mobile": phone}
        page.do("Emulation.setDeviceMetricsOverride", **metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        page.do("Emulation.setEmulatedMedia", features=[scheme])
        failed = page.do("Page.navigate", url=url).get("errorText")
        assert failed is None, f"{url}: {failed}"
        page.wait(f"document.readyState === 'complete' && location.host === {json.dumps(urlsplit(url).netloc)}")
        return page


class Page:
    """Tab of the browser.

    Attributes:
        troubles: Errors in the console, and uncaught exceptions.
    """

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self.troubles: list[str] = []

    def do(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Run a command of the protocol."""
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        deadline = time.monotonic() + 30
        while True:
            message = json.loads(self._socket.recv(timeout=deadline - time.monotonic()))
            self._note(message)
            if message.get("id") == number:
                assert "error" not in message, message
                result: dict[str, Any] = message["result"]
                return result

    def run(self, script: str) -> Any:
        """Value of a JavaScript expression; promises are awaited."""
        told = self.do("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    def wait(self, script: str, *, within: float = 15.0) -> Any:
        """Value of an expression as soon as it is true; not an object."""

        def attempt() -> Any:
            try:
                return self.run(script)
            except AssertionError:  # between two documents there is neither
                return None

        return poll(attempt, within=within, what=script)

    def type(self, selector: str, text: str) -> None:
        """Replace the text of an element by typing, and press Enter."""
        self.run(f"document.querySelector({json.dumps(selector)}).select()")
        self.run(f"document.querySelector({json.dumps(selector)}).focus()")
        self.do("Input.insertText", text=text)
        self.press("Enter", "\r", 13)

    def press(self, key: str, text: str = "", code: int = 0) -> None:
        """Press a key and let it go."""
        for kind in ("keyDown", "keyUp"):
            typed = {"text": text} if kind == "keyDown" and text else {}
            self.do("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **typed)

    def click(self, selector: str) -> None:
        """Click in the middle of an element, as a mouse would."""
        box = self.run(
            f"(e => {{ e.scrollIntoView({{block: 'center'}}); const b = e.getBoundingClientRect();"
            f"return [b.x + b.width / 2, b.y + b.height / 2]; }})(document.querySelector({json.dumps(selector)}))"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.do("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        """Write the visible part or the whole page as a PNG."""
        told = self.do("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(told["data"]))

    def close(self) -> None:
        """Close the tab."""
        self.do("Page.close")

    def _note(self, message: dict[str, Any]) -> None:
        parameters = message.get("params", {})
        if message.get("method") == "Runtime.exceptionThrown":
            self.troubles.append(str(parameters["exceptionDetails"]))
        elif message.get("method") == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            self.troubles.append(str(parameters["entry"]["text"]))
