"""What was set up beside a session and then not started: it does nothing, and somebody has to say so."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Final

import attrs

from lasersell_sync._log import logger
from lasersell_sync.locks import signal_safe_lock

__all__ = ["StartWatch"]

log = logger("session")

#: Long enough for a program that sets up several things before it starts them.
OVERDUE_AFTER_S: Final = 3.0


@attrs.define
class _Waiting:
    problem: str
    due_at: float
    is_reported: bool = False


class StartWatch:
    """Warns of what should have been started by now.

    Threads: any; ``tick`` on the reader.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # Guards the dict.
        self._lock = signal_safe_lock()
        self._waiting: dict[int, _Waiting] = {}
        self._numbers = itertools.count()

    def expect(self, problem: str) -> Callable[[], None]:
        """Warn with ``problem``, once, unless the returned function is called within ``OVERDUE_AFTER_S`` seconds.

        Args:
            problem: what was not started, what does not happen therefore, and the call that is missing.

        Returns:
            To be called when it was started, or will never be.
        """
        number = next(self._numbers)
        with self._lock:
            self._waiting[number] = _Waiting(problem, self._clock() + OVERDUE_AFTER_S)

        def settle() -> None:
            with self._lock:
                self._waiting.pop(number, None)

        return settle

    def tick(self) -> float | None:
        """Log what is overdue; seconds until something else is (None: nothing)."""
        if not self._waiting:
            return None
        now = self._clock()
        with self._lock:
            due = [one for one in self._waiting.values() if one.due_at <= now and not one.is_reported]
            dues = [one.due_at - now for one in self._waiting.values() if one.due_at > now]
        for one in due:
            # Before health() says it: whoever reads it there finds it in the log.
            log.warning("%s", one.problem)
            one.is_reported = True
        return min(dues, default=None)

    def problems(self) -> tuple[str, ...]:
        """What is overdue now."""
        with self._lock:
            return tuple(one.problem for one in self._waiting.values() if one.is_reported)
