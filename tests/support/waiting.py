"""Waiting for what has no event of its own, with limits that tell hanging from working."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from lasersell_sync.runtime.timeouts import TimeBudget

#: Long enough for a loaded machine, short enough to tell hanging from working.
PATIENCE_S = 20.0


def until(condition: Callable[[], object], patience_s: float = PATIENCE_S) -> None:
    """Return when ``condition()`` is true; fail when it is not in time."""
    deadline = time.monotonic() + patience_s
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        pause.wait(0.002)


class JumpingClock:
    """The clock of every ``TimeBudget`` that is made from now on: real time, moved forward by a test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._ahead_s = 0.0
        monkeypatch.setitem(TimeBudget.__init__.__kwdefaults__, "clock", self)

    def __call__(self) -> float:
        return time.monotonic() + self._ahead_s

    def jump(self, seconds: float) -> None:
        self._ahead_s += seconds
