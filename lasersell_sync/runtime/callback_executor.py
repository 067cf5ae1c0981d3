"""One thread that calls user code in order, so that nothing else waits for it."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from lasersell_sync.runtime.locks import signal_safe_lock

__all__ = ["Call", "CallbackExecutor"]

#: A function of the user's with its argument, ready to be called, and what it is for the log.
Call = tuple[Callable[[], object], str]

#: One callback that runs for longer than this is named in the log when others wait behind it.
_SLOW_AFTER_S: Final = 5.0


class CallbackExecutor:
    """Calls callbacks one after the other on one thread, which starts with the first call.

    Whatever a callback raises is logged and ends nothing. A callback that takes long delays the callbacks behind it and
    nothing else.

    Args:
        thread_name: of its thread.
        log: where errors and slow callbacks are reported.

    Threads: every method from any.
    """

    def __init__(self, thread_name: str, log: logging.Logger) -> None:
        self._thread_name = thread_name
        self._log = log
        # Guards everything below.
        self._state = threading.Condition(signal_safe_lock())
        self._waiting: deque[Call] = deque()
        #: What runs now, and since when; monotonic seconds.
        self._running: tuple[str, float] | None = None
        self._warned_at = 0.0
        #: Callbacks that raised, so far, and the latest of them.
        self.errors = 0
        self.last_error = ""
        self._is_closed = False
        self._thread: threading.Thread | None = None

    @property
    def thread(self) -> threading.Thread | None:
        """To be joined; None before the first call."""
        return self._thread

    @property
    def waiting(self) -> int:
        """Calls that have not begun."""
        return len(self._waiting)

    def slow(self) -> tuple[str, float] | None:
        """The callback that has run for too long while others wait, and for how many seconds; None: none has."""
        running = self._running
        if running is None or not self._waiting:
            return None
        running_s = time.monotonic() - running[1]
        return (running[0], running_s) if running_s >= _SLOW_AFTER_S else None

    def is_current(self) -> bool:
        """True on its own thread, in a callback."""
        return threading.current_thread() is self._thread

    def run(self, calls: Iterable[Call]) -> None:
        """Have them called, in order; nothing happens after ``close``."""
        with self._state:
            if self._is_closed:
                return
            self._waiting.extend(calls)
            if self._waiting:
                self._start()
                self._state.notify_all()
            self._warn_of_slow_callback()

    def close(self) -> None:
        """What waits is still called; what comes later is not. Idempotent, and returns at once."""
        with self._state:
            self._is_closed = True
            self._state.notify_all()

    def wait_closed(self, timeout_s: float | None) -> str | None:
        """Wait for the end of its thread; what still runs when the time is over, or None."""
        if self._thread is not None and not self.is_current():
            self._thread.join(timeout_s)
            with self._state:
                return None if self._running is None else self._running[0]
        return None

    def _start(self) -> None:
        """Where no thread can be started, the calls wait for the next attempt. The lock is held."""
        if self._thread is not None:
            return
        thread = threading.Thread(target=self._run, name=self._thread_name, daemon=True)
        try:
            thread.start()
        except (RuntimeError, MemoryError) as error:
            self._log.warning(
                "%s cannot be started now (%s): %d callbacks wait for it", self._thread_name, error, len(self._waiting)
            )
        else:
            self._thread = thread

    def _warn_of_slow_callback(self) -> None:
        now = time.monotonic()
        if self._running is None or now - max(self._running[1], self._warned_at) < _SLOW_AFTER_S:
            return
        self._warned_at = now
        self._log.warning(
            "%s has run for %.0f s, and %d callbacks wait behind it: let callbacks return fast",
            self._running[0], now - self._running[1], len(self._waiting),
        )  # fmt: skip

    def _run(self) -> None:
        while (call := self._next()) is not None:
            function, what = call
            try:
                function()
            except BaseException as error:  # noqa: BLE001 - it is logged
                # On a thread of ours nothing that user code raises is meant for anybody else.
                self.errors += 1
                self.last_error = f"{what}: {type(error).__name__}"
                self._log.exception("%s failed", what)

    def _next(self) -> Call | None:
        with self._state:
            self._running = None
            while not self._waiting:
                if self._is_closed:
                    return None
                self._state.wait()
            call = self._waiting.popleft()
            self._running = (call[1], time.monotonic())
            return call
