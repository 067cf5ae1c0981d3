"""Every position's deadline, on one timer thread.

A deadline is the client's job (PROTOCOL.md §2.9): so many seconds after a position was opened, ask for its exit.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable
from typing import Final

from lasersell_sync._log import logger
from lasersell_sync.exceptions import ThreadDiedError
from lasersell_sync.positions import PositionHandle, PositionKey

__all__ = ["DeadlineClock"]

log = logger("deadlines")

#: Entries of cancelled positions that may wait in the order before it is cleaned.
SLACK: Final = 1024


class DeadlineClock:
    """Counts from when a position was opened, on the monotonic clock: steps of the wall clock mean nothing.

    A position that is announced again keeps its start. One that is due while there is no link stays due and fires as
    soon as ``retry_due`` says that there is one. Each fires once.

    Args:
        fire: asks for the exit; False (or an exception) when it could not be asked for now. Called on the thread
            ``lasersell-deadlines``, which starts with the first deadline.
        on_death: told when that thread dies of something it cannot survive.

    Threads: every method from any.
    """

    def __init__(
        self,
        fire: Callable[[PositionKey], bool],
        *,
        on_death: Callable[[ThreadDiedError], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fire = fire
        self._on_death = on_death
        self._clock = clock
        # Guards everything below; never held while ``fire`` runs. Taken directly, not through the condition: that is
        # Python code, and an exception injected into it could leave the lock held by a dead thread for ever.
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._timeout_s = 0.0
        self._started_at: dict[PositionKey, float] = {}
        # All deadlines are equally long, so the order of starting is the order of falling due. Entries of cancelled or
        # restarted positions stay until they come up, and are skipped then.
        self._order: list[tuple[float, int, PositionKey]] = []
        self._serial = itertools.count()
        self._fired: set[PositionKey] = set()
        #: Due, but there was no link; they wait for retry_due instead of spinning.
        self._held_back: set[PositionKey] = set()
        #: How often retry_due was called.
        self._retries = 0
        self._thread: threading.Thread | None = None
        self._stopped = False

    def set_timeout(self, timeout_s: float) -> None:
        """Every position's deadline is now this many seconds after its start; 0 for never. Fired ones stay fired."""
        with self._lock:
            self._timeout_s = timeout_s
            self._wake()

    def start(self, handle: PositionHandle, *, age_s: float | None) -> None:
        """Begin to count for a position.

        Args:
            handle: watched positions are never sold, and get no deadline.
            age_s: how long it has been open by the server's clock; None: since now.
        """
        if handle.watched:
            return
        key = handle.key
        with self._lock:
            if key not in self._started_at:
                started_at = self._clock() - max(0.0, age_s or 0.0)
                self._started_at[key] = started_at
                self._queue(started_at, key)
                self._wake()

    def counts_for(self, key: tuple[str, str]) -> bool:
        """True when the position has been started and not cancelled."""
        return key in self._started_at

    def cancel(self, key: PositionKey) -> None:
        """The position is closed."""
        with self._lock:
            self._started_at.pop(key, None)
            self._fired.discard(key)
            self._held_back.discard(key)

    def retry_due(self) -> None:
        """There is a link again: what was due without one fires now."""
        with self._lock:
            for key in self._held_back:
                self._queue(self._started_at[key], key)
            self._held_back.clear()
            self._retries += 1
            self._wake()

    def remaining_s(self, key: PositionKey) -> float | None:
        """Seconds until the position's deadline; None when it has none or it has fired."""
        with self._lock:
            if self._timeout_s <= 0 or key not in self._started_at or key in self._fired:
                return None
            return max(0.0, self._started_at[key] + self._timeout_s - self._clock())

    def stop(self) -> None:
        """End the thread; idempotent."""
        self._stopped = True
        # Even if that thread died with the lock in its hands, whoever ends the session must not wait for it.
        if self._lock.acquire(timeout=0.5):
            try:
                self._changed.notify_all()
            finally:
                self._lock.release()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(1.0)

    def _queue(self, started_at: float, key: PositionKey) -> None:
        heapq.heappush(self._order, (started_at, next(self._serial), key))
        if len(self._order) > 2 * len(self._started_at) + SLACK:
            # Nothing pops entries while no deadline is set, and a bot that trades for months cancels without end.
            self._order = [entry for entry in self._order if self._started_at.get(entry[2]) == entry[0]]
            heapq.heapify(self._order)

    def _wake(self) -> None:
        """Tell the thread that something changed; start it when there is a first deadline to wait for."""
        if self._thread is None and self._timeout_s > 0 and self._started_at and not self._stopped:
            self._thread = threading.Thread(target=self._run, name="lasersell-deadlines", daemon=True)
            self._thread.start()
        self._changed.notify_all()

    def _run(self) -> None:
        try:
            self._serve()
        except BaseException as error:  # noqa: BLE001 - deadlines that are silently not met lose money
            if self._on_death is not None:
                self._on_death(ThreadDiedError.caused_by(threading.current_thread().name, error))

    def _serve(self) -> None:
        while (key := self._next_due()) is not None:
            retries = self._retries
            try:
                asked = self._fire(key)
            except Exception:
                log.exception("the deadline of token account %s could not be met", key.token_account)
                asked = False
            with self._lock:
                if key not in self._started_at:
                    continue
                if not asked and self._retries != retries:
                    # The link came back while we found that there was none: nobody would tell us of it again.
                    self._queue(self._started_at[key], key)
                else:
                    (self._fired if asked else self._held_back).add(key)

    def _next_due(self) -> PositionKey | None:
        """Wait for the next deadline; None when the clock was stopped."""
        with self._lock:
            while not self._stopped:
                if not self._order or self._timeout_s <= 0:
                    self._changed.wait()
                    continue
                started_at, _, key = self._order[0]
                wait_s = started_at + self._timeout_s - self._clock()
                if self._started_at.get(key) != started_at or key in self._fired:
                    heapq.heappop(self._order)
                elif wait_s > 0:
                    self._changed.wait(wait_s)
                else:
                    heapq.heappop(self._order)
                    return key
            return None
