"""Every position's deadline, on one timer thread.

A deadline is the client's job (docs/protocol.md 2.9): so many seconds after a position was opened, ask for its exit.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable
from typing import Final, NamedTuple

from lasersell_sync.exceptions import ThreadDiedError
from lasersell_sync.positions import PositionHandle, PositionKey
from lasersell_sync.runtime.locks import is_held_here, signal_safe_lock
from lasersell_sync.runtime.log import logger
from lasersell_sync.runtime.timeouts import boot_time_s

__all__ = ["DeadlineClock"]

log = logger("deadlines")

#: Entries of cancelled positions that may wait in the order before it is cleaned.
SLACK: Final = 1024
#: A request that could not be sent or held is tried again after so long.
TRY_AGAIN_S: Final = 1.0
#: The thread looks at the clock this often: its waits do not count the time for which the machine is suspended.
LOOK_AGAIN_S: Final = 2.0
#: Larger numbers mean this: an int of any size cannot be added to a float.
NEVER_S: Final = 1e15


class _Start(NamedTuple):
    """The beginning of one opening's deadline; no two are equal."""

    at: float
    serial: int


class DeadlineClock:
    """Counts from when a position was opened, on the boot-time clock.

    Steps of the wall clock mean nothing, and the time for which the machine was suspended counts. A position that is
    announced again keeps its start. Each fires once; one whose request
    could neither be sent nor held fires again.

    Args:
        fire: asks for the exit; False (or an exception) when the request could neither be sent nor held. Called on the
            thread ``lasersell-deadlines``, which starts with the first deadline.
        on_death: told when that thread dies of something it cannot survive.

    Threads: every method from any.
    """

    def __init__(
        self,
        fire: Callable[[PositionKey], bool],
        *,
        on_death: Callable[[ThreadDiedError], None] | None = None,
        clock: Callable[[], float] = boot_time_s,
    ) -> None:
        self._fire = fire
        self._on_death = on_death
        self._clock = clock
        # Guards everything below; never held while ``fire`` runs. Taken directly, not through the condition: that is
        # Python code, and an exception injected into it could leave the lock held by a dead thread for ever.
        self._lock = signal_safe_lock()
        self._changed = threading.Condition(self._lock)
        self._timeout_s = 0.0
        self._started_at: dict[PositionKey, _Start] = {}
        # All deadlines are equally long, so the order of starting is the order of falling due. Entries of cancelled or
        # restarted positions stay until they come up, and are skipped then.
        self._order: list[tuple[_Start, PositionKey]] = []
        self._serial = itertools.count()
        self._fired: set[PositionKey] = set()
        #: Due, but the request could not be given away; and when the first of them is tried again.
        self._held_back: dict[PositionKey, _Start] = {}
        self._try_again_at = 0.0
        #: How often retry_due was called.
        self._retries = 0
        self._thread: threading.Thread | None = None
        self._lacks_thread = False
        self._stopped = False

    @property
    def is_held_here(self) -> bool:
        """True in a signal handler that interrupted a call of this thread."""
        return is_held_here(self._lock)

    @property
    def timeout_s(self) -> float:
        """Seconds from a position's opening to its deadline; 0 for never."""
        return self._timeout_s

    def set_timeout(self, timeout_s: float) -> None:
        """Every position's deadline is now this many seconds after its start; 0 for never. Fired ones stay fired."""
        with self._lock:
            self._timeout_s = min(timeout_s, NEVER_S)
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
                start = _Start(self._clock() - max(0.0, age_s or 0.0), next(self._serial))
                self._started_at[key] = start
                self._queue(start, key)
                self._wake()

    def counts_for(self, key: tuple[str, str]) -> bool:
        """True when the position has been started and not cancelled."""
        return key in self._started_at

    def cancel(self, key: PositionKey) -> None:
        """The position is closed, or was opened again."""
        with self._lock:
            self._started_at.pop(key, None)
            self._fired.discard(key)
            self._held_back.pop(key, None)

    def retry_due(self) -> None:
        """There is a link again, and maybe time has passed that the thread's wait did not count."""
        with self._lock:
            self._queue_held_back()
            self._retries += 1
            self._wake()

    def tick(self) -> float | None:
        """Start the thread if that failed before; seconds until the next try, None when there is none to make."""
        if not self._lacks_thread or self._stopped:
            return None
        with self._lock:
            self._wake()
        return TRY_AGAIN_S if self._lacks_thread else None

    def remaining_s(self, key: PositionKey) -> float | None:
        """Seconds until the position's deadline; None when it has none or it has fired."""
        with self._lock:
            start = self._started_at.get(key)
            if self._timeout_s <= 0 or start is None or key in self._fired:
                return None
            return max(0.0, start.at + self._timeout_s - self._clock())

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

    def _queue(self, start: _Start, key: PositionKey) -> None:
        heapq.heappush(self._order, (start, key))
        if len(self._order) > 2 * len(self._started_at) + SLACK:
            # Nothing pops entries while no deadline is set, and a bot that trades for months cancels without end.
            self._order = [entry for entry in self._order if self._started_at.get(entry[1]) == entry[0]]
            heapq.heapify(self._order)

    def _queue_held_back(self) -> None:
        for key, start in self._held_back.items():
            self._queue(start, key)
        self._held_back.clear()

    def _wake(self) -> None:
        """Tell the thread that something changed; start it when there is a first deadline to wait for."""
        if self._thread is None and self._timeout_s > 0 and self._started_at and not self._stopped:
            self._start_thread()
        if self._thread is not None:
            self._changed.notify_all()

    def _start_thread(self) -> None:
        thread = threading.Thread(target=self._run, name="lasersell-deadlines", daemon=True)
        try:
            thread.start()
        except (RuntimeError, MemoryError) as error:
            # The system has no thread to spare; it is asked again by ``tick``.
            self._lacks_thread = True
            log.warning("deadlines are not watched now: %s; trying again in %g s", error, TRY_AGAIN_S)
        else:
            self._lacks_thread = False
            self._thread = thread

    def _run(self) -> None:
        try:
            self._serve()
        except BaseException as error:  # noqa: BLE001 - deadlines that are silently not met lose money
            if self._on_death is not None:
                self._on_death(ThreadDiedError.caused_by(threading.current_thread().name, error))

    def _serve(self) -> None:
        while (due := self._next_due()) is not None:
            self._meet(*due)

    def _meet(self, start: _Start, key: PositionKey) -> None:
        retries = self._retries
        try:
            asked = self._fire(key)
        except Exception:
            log.exception("the deadline of token account %s could not be met", key.token_account)
            asked = False
        with self._lock:
            if self._started_at.get(key) != start:
                return  # cancelled, and maybe started anew, while its exit was asked for
            if asked:
                self._fired.add(key)
            elif self._retries != retries:
                # The link came back while we found that there was none: nobody would tell us of it again.
                self._queue(start, key)
            else:
                if not self._held_back:
                    self._try_again_at = self._clock() + TRY_AGAIN_S
                self._held_back[key] = start

    def _next_due(self) -> tuple[_Start, PositionKey] | None:
        """Wait for the next deadline; None when the clock was stopped."""
        with self._lock:
            while not self._stopped:
                now = self._clock()
                if self._held_back and now >= self._try_again_at:
                    self._queue_held_back()
                due = self._due(now)
                if due is not None:
                    return due
                is_idle = self._timeout_s <= 0 or not (self._order or self._held_back)
                self._changed.wait(None if is_idle else self._patience_s(now))
            return None

    def _due(self, now: float) -> tuple[_Start, PositionKey] | None:
        """The oldest deadline, if it is due."""
        while self._order and self._timeout_s > 0:
            start, key = self._order[0]
            if self._started_at.get(key) == start and key not in self._fired and start.at + self._timeout_s > now:
                return None
            heapq.heappop(self._order)
            if self._started_at.get(key) == start and key not in self._fired:
                return start, key
        return None

    def _patience_s(self, now: float) -> float:
        """How long the thread may wait before it looks again."""
        dues = [LOOK_AGAIN_S]
        if self._order:
            dues.append(self._order[0][0].at + self._timeout_s - now)
        if self._held_back:
            dues.append(self._try_again_at - now)
        return max(0.0, min(dues))
