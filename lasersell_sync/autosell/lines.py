"""Tasks in lines: those of one key one after the other and in order, those of different keys side by side."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable
from typing import TypeAlias

from lasersell_sync._log import logger

__all__ = ["Lines", "Task"]

log = logger("autosell")

Task: TypeAlias = Callable[[], None]


class _Line:
    """What waits for one key."""

    __slots__ = ("is_taken", "tasks")

    def __init__(self) -> None:
        self.tasks: deque[Task] = deque()
        #: A worker is at it, or it stands in ``_ready``.
        self.is_taken = False


class Lines:
    """A few worker threads that serve any number of lines.

    Whoever keeps state by key needs no lock for it, as long as it touches that state in tasks of that key only. Tasks
    should be short: what has to wait comes back with ``put_later``.

    Args:
        workers: threads, named ``lasersell-autosell-N``.

    Threads: every method from any thread; tasks run on the workers. A task's exception is logged and ends nothing.
    """

    def __init__(self, workers: int) -> None:
        # Guards everything below; never held while a task runs.
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._lines: dict[Hashable, _Line] = {}
        self._ready: deque[tuple[Hashable, _Line]] = deque()
        #: (monotonic time, order of arrival, key, task)
        self._later: list[tuple[float, int, Hashable, Task]] = []
        self._numbers = itertools.count()
        self._ended = False
        self._threads = [
            threading.Thread(target=self._work, name=f"lasersell-autosell-{number}", daemon=True)
            for number in range(workers)
        ]

    def start(self) -> None:
        """Start the workers; tasks that were put before wait until then."""
        for thread in self._threads:
            thread.start()

    def put(self, key: Hashable, task: Task) -> None:
        """Run ``task`` behind what waits for this key; nothing happens after ``close``."""
        with self._lock:
            self._append(key, task)

    def put_later(self, key: Hashable, delay_s: float, task: Task) -> None:
        """As ``put``, in so many seconds."""
        with self._lock:
            heapq.heappush(self._later, (time.monotonic() + delay_s, next(self._numbers), key, task))
            # Whoever waits may have to wait for less long now.
            self._changed.notify()

    def close(self, timeout_s: float | None) -> list[str]:
        """No further task begins. Waits for those that run; names of the workers that are still at one then."""
        ends_at = None if timeout_s is None else time.monotonic() + timeout_s
        with self._lock:
            self._ended = True
            self._changed.notify_all()
        others = [t for t in self._threads if t.ident is not None and t is not threading.current_thread()]
        for thread in others:
            thread.join(None if ends_at is None else max(0.0, ends_at - time.monotonic()))
        return [thread.name for thread in others if thread.is_alive()]

    # ── the workers ──────────────────────────────────────────────────────────────────────────────────────────────

    def _append(self, key: Hashable, task: Task) -> None:
        if self._ended:
            return
        line = self._lines.get(key)
        if line is None:
            line = self._lines[key] = _Line()
        line.tasks.append(task)
        if not line.is_taken:
            line.is_taken = True
            self._ready.append((key, line))
            self._changed.notify()

    def _work(self) -> None:
        while True:
            with self._lock:
                taken = self._take()
            if taken is None:
                return
            key, line = taken
            self._run(line.tasks.popleft())
            with self._lock:
                if line.tasks:
                    # Behind the others: one busy position must not keep a worker for itself.
                    self._ready.append((key, line))
                    self._changed.notify()
                else:
                    line.is_taken = False
                    del self._lines[key]

    def _take(self) -> tuple[Hashable, _Line] | None:
        """The next line that has something to do; None at the end. The lock is held."""
        assert self._lock.locked()
        while not self._ended:
            now = time.monotonic()
            while self._later and self._later[0][0] <= now:
                _, _, key, task = heapq.heappop(self._later)
                self._append(key, task)
            if self._ready:
                return self._ready.popleft()
            self._changed.wait(self._later[0][0] - now if self._later else None)
        return None

    @staticmethod
    def _run(task: Task) -> None:
        try:
            task()
        except Exception:
            log.exception("a task of the automatic seller failed; others go on")
