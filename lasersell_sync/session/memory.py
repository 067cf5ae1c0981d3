"""What happened lately, for those who wait for something: the store behind ``StreamSession.wait_for``."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import Final

from lasersell_sync.exceptions import StreamClosed
from lasersell_sync.session.events import StreamEvent
from lasersell_sync.timeouts import TimeBudget

__all__ = ["EventMemory"]

#: High-lane events that ``wait_for`` can still find after they happened.
REMEMBERED_EVENTS: Final = 1024

_Numbered = tuple[int, StreamEvent]


class EventMemory:
    """The latest high-lane events, and a private line of everything for each waiter.

    Threads: ``add`` and ``end`` by the reader, ``wait`` by any.
    """

    def __init__(self) -> None:
        # Guards everything below and wakes the waiters; never held while a predicate runs.
        self._lock = threading.Lock()
        self._happened = threading.Condition(self._lock)
        self._recent: deque[_Numbered] = deque(maxlen=REMEMBERED_EVENTS)
        self._lines: list[deque[_Numbered]] = []
        self._serial = 0
        #: Of the last event that a waiter got: the next one goes on behind it.
        self._returned_serial = 0
        self._ended = False
        self._error: BaseException | None = None

    def add(self, event: StreamEvent, *, low: bool) -> None:
        """An event happened; low-lane ones are kept for present waiters only."""
        if low and not self._lines:
            return
        with self._lock:
            self._serial += 1
            if not low:
                self._recent.append((self._serial, event))
            for line in self._lines:
                line.append((self._serial, event))
            self._happened.notify_all()

    def end(self, error: BaseException | None) -> None:
        """Nothing follows."""
        with self._lock:
            self._ended = True
            self._error = error
            self._happened.notify_all()

    def wait(self, wanted: Callable[[StreamEvent], bool], timeout_s: float | None) -> StreamEvent:
        """The first event that ``wanted`` accepts, behind the last one that was returned.

        Raises:
            queue.Empty: none in time.
            StreamClosed: the session was closed; its cause, when it failed.
        """
        budget = TimeBudget(timeout_s)
        with self._lock:
            line = deque(item for item in self._recent if item[0] > self._returned_serial)
            self._lines.append(line)
        try:
            while True:
                serial, event = self._next(line, budget)
                if wanted(event):
                    with self._lock:
                        self._returned_serial = max(self._returned_serial, serial)
                    return event
        finally:
            with self._lock:
                # By identity: two waiters' lines may be equal.
                self._lines = [other for other in self._lines if other is not line]

    def wait_end(self) -> BaseException | None:
        """Wait until nothing follows; why, or None after ``close()``."""
        with self._lock:
            while not self._ended:
                self._happened.wait()
            return self._error

    def _next(self, line: deque[_Numbered], budget: TimeBudget) -> _Numbered:
        with self._lock:
            while not line:
                if self._ended:
                    raise self._error or StreamClosed()
                if budget.expired():
                    raise queue.Empty
                self._happened.wait(budget.remaining_s())
            return line.popleft()
