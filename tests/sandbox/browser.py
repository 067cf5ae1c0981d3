"""Headless Chromium, driven over the DevTools protocol: just enough to open a page, ask it, and click."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

PROGRAMS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "chrome")
#: A cold browser on a busy machine; only a hang takes this long.
PATIENCE_S = 60.0

#: In the page: resolves with the expression's value once it is truthy; looks again whenever the document changes.
_UNTIL = """new Promise((resolve, reject) => {
    const look = () => { const value = (%s); if (value) { observer.disconnect(); resolve(value); } return value; };
    const observer = new MutationObserver(look);
    observer.observe(document, {subtree: true, childList: true, attributes: true, characterData: true});
    if (!look()) { setTimeout(() => reject(new Error("it never came true")), %d); }
})"""


_IDS = itertools.count(1)


class Page:
    """One tab of a browser."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._session: str | None = None
        self._target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=self._target, flatten=True)["sessionId"]
        #: errors of the page's scripts, and what the browser refused to load
        self.complaints: list[str] = []
        for domain in ("Page", "Runtime", "Log"):
            self._call(f"{domain}.enable")

    def close(self) -> None:
        """Close the tab, and with it the connections of its page."""
        self._session = None
        self._call("Target.closeTarget", targetId=self._target)

    def open(self, url: str) -> None:
        """Go there, and wait until its scripts have run."""
        answer = self._call("Page.navigate", url=url)
        assert "errorText" not in answer, f"{url}: {answer['errorText']}"
        self._event("Page.loadEventFired")

    def ask(self, expression: str) -> Any:
        """A JavaScript expression's value; a promise's once it is there."""
        answer = self._call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        problem = answer.get("exceptionDetails")
        assert problem is None, f"{expression}: {json.dumps(problem)}"
        return answer["result"].get("value")

    def until(self, expression: str) -> Any:
        """The value of an expression, once it is true."""
        return self.ask(_UNTIL % (expression, PATIENCE_S * 1000))

    def text(self, selector: str) -> str:
        """What an element shows."""
        return str(self.ask(f"document.querySelector({json.dumps(selector)}).innerText"))

    def click(self, selector: str) -> None:
        """Click an element where it is, as a mouse does."""
        spot = self.ask(
            f"(e => {{ e.scrollIntoView(); const r = e.getBoundingClientRect();"
            f" return [r.x + r.width / 2, r.y + r.height / 2]; }})(document.querySelector({json.dumps(selector)}))"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self._call("Input.dispatchMouseEvent", type=kind, x=spot[0], y=spot[1], button="left", clickCount=1)

    # -- the protocol

    def _call(self, method: str, **params: object) -> dict[str, Any]:
        request = {"id": next(_IDS), "method": method, "params": params}
        self._socket.send(json.dumps(request if self._session is None else {**request, "sessionId": self._session}))
        while True:
            message = self._receive()
            if message.get("id") == request["id"]:
                assert "error" not in message, f"{method}: {message['error']}"
                return dict(message["result"])

    def _event(self, method: str) -> None:
        while self._receive().get("method") != method:
            pass

    def _receive(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self._socket.recv(timeout=2 * PATIENCE_S))
        if message.get("sessionId") != self._session:
            return {}  # of another tab
        if message.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(message["params"]["exceptionDetails"]))
        if message.get("method") == "Log.entryAdded" and message["params"]["entry"]["level"] == "error":
            self.complaints.append(json.dumps(message["params"]["entry"]))
        return message


@contextmanager
def browser() -> Iterator[Callable[[], Page]]:
    """Opens tabs. A missing browser fails the test: a skipped promise is a broken one."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.fail("there is no Chromium; on Debian: apt install chromium-headless-shell")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile, tempfile.TemporaryFile("w+") as words:
        arguments = [
            "--headless",
            "--no-sandbox",  # its own needs rights that containers do not give
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--disable-component-update",
            "--no-first-run",
            # Nothing but this machine.
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
            "--no-proxy-server",
            "--remote-debugging-port=0",
            f"--user-data-dir={profile}",
            "about:blank",
        ]
        process = subprocess.Popen([program, *arguments], stdin=subprocess.DEVNULL, stdout=words, stderr=words)
        try:
            address = _devtools_url(f"{profile}/DevToolsActivePort", process, words)
            with connect(address, proxy=None, max_size=None, close_timeout=1) as socket:
                yield lambda: Page(socket)
        finally:
            process.kill()
            process.wait()


def _devtools_url(port_file: str, process: subprocess.Popen[bytes], words: Any) -> str:
    """Where it listens: it writes that into a file when it does."""
    deadline_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline_s and process.poll() is None:
        try:
            with open(port_file, encoding="ascii") as file:  # noqa: PTH123
                lines = file.read().split("\n")
        except FileNotFoundError:
            lines = []
        if len(lines) >= 2 and lines[1]:
            return f"ws://127.0.0.1:{lines[0]}{lines[1]}"
        time.sleep(0.02)
    words.seek(0)
    raise AssertionError(f"the browser did not come up; it said:\n{words.read()}")
