"""Which errors of handlers are reported at once, and which are counted by a later event."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import attrs

from lasersell_sync.locks import is_held_here, signal_safe_lock
from lasersell_sync.session.events import HandlerError

__all__ = ["HandlerErrorReporter"]


@attrs.define
class _Errors:
    """Of one handler."""

    count: int = 0
    told_count: int = 0
    told_at: float = float("-inf")
    #: (event type, error) of the latest, until it is told.
    waiting: tuple[str, BaseException] | None = None


class HandlerErrorReporter:
    """Decides which errors of handlers are told at once: a few of each handler, then one a second.

    Threads: any.
    """

    AT_ONCE: Final = 16
    INTERVAL_S: Final = 1.0

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # Guards the dict and what is in it.
        self._lock = signal_safe_lock()
        self._of: dict[str, _Errors] = {}
        #: Somebody will ask what is due.
        self.is_watched = False

    def add(self, handler: str, event_type: str, error: BaseException) -> HandlerError | None:
        """What to tell now; None when it is told later."""
        with self._lock:
            errors = self._of.setdefault(handler, _Errors())
            errors.count += 1
            errors.waiting = (event_type, error)
            if errors.count > self.AT_ONCE and self._clock() - errors.told_at < self.INTERVAL_S:
                return None
            return self._take(handler, errors)

    def due(self) -> tuple[list[HandlerError], float | None]:
        """(what to tell now, seconds until something else is due or None)."""
        now = self._clock()
        with self._lock:
            waiting = [(name, errors) for name, errors in self._of.items() if errors.waiting is not None]
            due = [(name, errors) for name, errors in waiting if now - errors.told_at >= self.INTERVAL_S]
            told = [self._take(name, errors) for name, errors in due]
            later = [errors.told_at + self.INTERVAL_S - now for _, errors in waiting if errors.waiting is not None]
            self.is_watched = bool(later)
        return told, min(later, default=None)

    def rest(self) -> list[HandlerError]:
        """All that was not told yet, whether due or not."""
        with self._lock:
            return [self._take(name, errors) for name, errors in self._of.items() if errors.waiting is not None]

    @property
    def is_held_here(self) -> bool:
        """True in a signal handler that interrupted a call of this on the same thread."""
        return is_held_here(self._lock)

    def _take(self, handler: str, errors: _Errors) -> HandlerError:
        assert errors.waiting is not None
        event_type, error = errors.waiting
        since_last, errors.told_count = errors.count - errors.told_count, errors.count
        errors.told_at, errors.waiting = self._clock(), None
        return HandlerError(
            handler=handler, event_type=event_type, error=error, count=errors.count, since_last=since_last
        )
