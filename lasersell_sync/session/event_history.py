"""What happened lately, for those who wait for something: the store behind ``StreamSession.wait_for``."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import Final

from lasersell_sync._backend import EventRing
from lasersell_sync.exceptions import StreamClosed
from lasersell_sync.runtime.locks import is_held_here, signal_safe_lock
from lasersell_sync.runtime.timeouts import TimeBudget
from lasersell_sync.session.events import EVERY, StreamEvent

__all__ = ["EventHistory"]

#: High-lane events that ``wait_for`` can still find after they happened.
REMEMBERED_EVENTS: Final = 1024

#: What waits for one waiter's predicate, at the most; the oldest go.
LINE_HIGH_EVENTS: Final = 65_536
LINE_LOW_EVENTS: Final = 1024

_Numbered = tuple[int, StreamEvent]


class _Line:
    """What one waiter has not looked at yet, in order.

    Threads: the memory's lock guards it.
    """

    def __init__(self, wanted: Callable[[StreamEvent], bool] | str) -> None:
        #: An event's type, so that nothing else must wait here; or whatever a predicate may want.
        self._kind = wanted if isinstance(wanted, str) else EVERY
        self._high: deque[_Numbered] = deque(maxlen=LINE_HIGH_EVENTS)
        self._low: deque[_Numbered] = deque(maxlen=LINE_LOW_EVENTS)

    def __bool__(self) -> bool:
        return bool(self._high or self._low)

    def add(self, numbered: _Numbered, *, low: bool = False) -> None:
        if self._kind in (EVERY, numbered[1].type):
            (self._low if low else self._high).append(numbered)

    def next(self) -> _Numbered:
        if not self._low or (self._high and self._high[0][0] < self._low[0][0]):
            return self._high.popleft()
        return self._low.popleft()


class EventHistory(EventRing[StreamEvent]):
    """The latest high-lane events, and a private line of everything for each waiter.

    The router keeps events here itself, past ``add``, as long as nobody waits.

    Threads: ``add`` and ``end`` by the reader, ``wait`` by any.
    """

    def __init__(self) -> None:
        super().__init__(REMEMBERED_EVENTS)
        # Guards the waiters' lines and wakes them; never held while a predicate runs.
        self._lock = signal_safe_lock()
        self._happened = threading.Condition(self._lock)
        #: One for each waiter. As long as there is one, every message must come here: the reader's fast way is closed.
        self.lines: list[_Line] = []
        #: Of the last event that a waiter got: the next one goes on behind it.
        self._returned_serial = 0
        self._ended = False
        self._error: BaseException | None = None

    @property
    def is_held_here(self) -> bool:
        """True in a signal handler that interrupted a call of this thread."""
        return is_held_here(self._lock)

    def add(self, event: StreamEvent, /, *, low: bool = False) -> None:
        """An event happened; low-lane ones are kept for present waiters only."""
        numbered = self.number(event) if low else self.keep(event)
        # Without the lock up to here, for it is rare that anyone waits. A waiter that begins just now may find the
        # event in both places; it knows by the number.
        if self.lines:
            with self._lock:
                for line in self.lines:
                    line.add(numbered, low=low)
                self._happened.notify_all()

    def remembered(self) -> list[StreamEvent]:
        """The latest high-lane events, oldest first."""
        return [event for _, event in self.kept()]

    def end(self, error: BaseException | None) -> None:
        """Nothing follows."""
        with self._lock:
            self._ended = True
            self._error = error
            self._happened.notify_all()

    def wait(
        self, wanted: Callable[[StreamEvent], bool] | str, timeout_s: float | None, *, only_new: bool = False
    ) -> StreamEvent:
        """The first event that is wanted, behind the last one that was returned.

        Args:
            wanted: an event's type or ``"*"``; or a predicate, called on this thread. One that is slower than the
                stream misses what waited for it longest: beyond 65,536 high-lane and 1,024 low-lane events.
            timeout_s: seconds, however many events wait to be looked at; 0 for what happened already; None for ever.
            only_new: only what happens from now on, and other waiters' place is not moved.

        Raises:
            queue.Empty: none in time.
            StreamClosed: the session was closed; its cause, when it failed.
        """
        budget = TimeBudget(timeout_s)
        line = _Line(wanted)
        accepts = (lambda _: True) if isinstance(wanted, str) else wanted
        with self._lock:
            self.lines.append(line)
            if not only_new:
                for item in self.kept():
                    if item[0] > self._returned_serial:
                        line.add(item)
        latest = 0
        try:
            while True:
                serial, event = self._next(line, budget)
                if serial <= latest:
                    continue
                latest = serial
                if accepts(event):
                    if not only_new:
                        with self._lock:
                            self._returned_serial = max(self._returned_serial, serial)
                    return event
                if timeout_s and budget.expired():
                    raise queue.Empty
        finally:
            with self._lock:
                # In place: the reader holds the list.
                self.lines.remove(line)

    def wait_end(self) -> BaseException | None:
        """Wait until nothing follows; why, or None after ``close()``."""
        with self._lock:
            while not self._ended:
                self._happened.wait()
            return self._error

    def _next(self, line: _Line, budget: TimeBudget) -> _Numbered:
        with self._lock:
            while not line:
                if self._ended:
                    raise self._error or StreamClosed()
                if budget.expired():
                    raise queue.Empty
                self._happened.wait(budget.remaining_s())
            return line.next()
