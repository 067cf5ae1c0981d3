"""``close`` that a signal handler calls while the same thread is inside ``close``, at each line of it."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import pytest

import lasersell_sync as ls
from lasersell_sync.autosell.journal import Journal
from tests.support.waiting import until

PACKAGE = str(Path(ls.__file__).parent)
#: Far above what a close takes, below the five seconds that Recorder.close() waits for its thread.
LIMIT_S = 4.0


class Closable(Protocol):
    def close(self) -> None: ...


MAKERS: dict[str, Callable[[Path], Closable]] = {
    "Recorder": lambda folder: ls.Recorder(folder / "recording"),
    "Journal": lambda folder: Journal(folder / "journal"),
    "TxSender": lambda _: ls.TxSender(ls.SendTargetRpc("http://127.0.0.1:9")),
    "ExitApiClient": lambda _: ls.ExitApiClient(),
}


def close_interrupted_at(target: Closable, nth_line: int) -> bool:
    """Call ``close``, and call it again before its ``nth_line`` is run, as a handler would; False: it has fewer."""
    lines = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal lines
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        if event == "line":
            lines += 1
            if lines == nth_line:
                target.close()
        return trace

    sys.settrace(trace)
    try:
        target.close()
    finally:
        sys.settrace(None)
    return lines >= nth_line


@pytest.mark.parametrize("name", MAKERS)
def test_close_interrupted_at_any_line_by_close_ends_in_time(name: str, tmp_path: Path) -> None:
    before = set(threading.enumerate())
    nth_line, was_interrupted = 0, True
    while was_interrupted:
        nth_line += 1
        folder = tmp_path / str(nth_line)
        folder.mkdir()
        target = MAKERS[name](folder)
        started = time.monotonic()
        was_interrupted = close_interrupted_at(target, nth_line)
        assert time.monotonic() - started < LIMIT_S, f"interrupted before line {nth_line} that close() runs"
    assert nth_line > 3
    until(lambda: set(threading.enumerate()) <= before)
