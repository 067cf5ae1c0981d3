"""Tasks in lines: those of one key one after the other and in order, those of different keys side by side."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable
from typing import TypeAlias

from lasersell_sync.exceptions import ConcurrencyError, JournalError
from lasersell_sync.runtime.fork_guard import NO_THREAD
from lasersell_sync.runtime.locks import is_held_here, signal_safe_lock
from lasersell_sync.runtime.log import logger
from lasersell_sync.runtime.timeouts import TimeBudget
from lasersell_sync.runtime.user_code import as_exception

__all__ = ["KeyedExecutor", "Task", "growing_pause_s"]

log = logger("autosell")

Task: TypeAlias = Callable[[], None]

_AGAIN_AFTER_S = 1.0
_LONGEST_PAUSE_S = 30.0


def growing_pause_s(failures: int) -> float:
    """Seconds to wait after an error that ``failures`` others in a row came before: doubling, up to half a minute."""
    return min(_LONGEST_PAUSE_S, _AGAIN_AFTER_S * 2.0 ** min(failures, 16))


class _Line:
    """What waits for one key; its first task is run by a worker, stands in ``_ready``, or waits to be run again."""

    __slots__ = ("failures", "tasks")

    def __init__(self) -> None:
        self.tasks: deque[Task] = deque()
        #: How often its first task has failed, refusals of the journal not counted.
        self.failures = 0


class KeyedExecutor:
    """A few worker threads that serve any number of lines.

    Whoever keeps state by key needs no lock for it, as long as it touches that state in tasks of that key only. Tasks
    should be short: what has to wait comes back with ``put_later``.

    A task that raises is run again, as often as it takes; what is behind it in its line waits. So a task writes down
    first what it is about to do, and can be begun twice. While the journal refuses it that is once a second; after any
    other exception in twice the time of before, up to half a minute.

    Args:
        workers: threads, named ``lasersell-autosell-N``.
        on_trouble: told the key and what its task raised, each time.

    Threads: every method from any thread; tasks run on the workers.
    """

    def __init__(self, workers: int, on_trouble: Callable[[Hashable, Exception], None]) -> None:
        self._on_trouble = on_trouble
        # Guards everything below; never held while a task runs.
        self._lock = signal_safe_lock()
        self._changed = threading.Condition(self._lock)
        self._lines: dict[Hashable, _Line] = {}
        #: Lines with a task that is urgent come first.
        self._urgent: deque[tuple[Hashable, _Line]] = deque()
        self._ready: deque[tuple[Hashable, _Line]] = deque()
        #: (monotonic time, order of arrival, key, task, or None for the first task of that line, once more)
        self._later: list[tuple[float, int, Hashable, Task | None]] = []
        self._numbers = itertools.count()
        self._ended = False
        self._is_started = False
        self._all_started = False
        self._threads = [
            threading.Thread(target=self._work, name=f"lasersell-autosell-{number}", daemon=True)
            for number in range(workers)
        ]

    def start(self) -> None:
        """Start the workers; tasks that were put before wait until then.

        Workers that the system has no thread for are left out with a warning, and tried again with later tasks.

        Raises:
            ConcurrencyError: it has not one.
        """
        with self._lock:
            self._is_started = True
            self._start_missing()
            if all(thread.ident is None for thread in self._threads):
                self._is_started = False
                raise ConcurrencyError(NO_THREAD)

    def _start_missing(self) -> None:
        """The lock is held."""
        if not self._is_started or self._all_started or self._ended:
            return
        try:
            for thread in self._threads:
                if thread.ident is None:
                    thread.start()
        except (RuntimeError, MemoryError) as error:
            running = sum(thread.ident is not None for thread in self._threads)
            log.warning("%d of %d workers run: %s", running, len(self._threads), error or "out of memory")
        else:
            self._all_started = True

    def put(self, key: Hashable, task: Task, *, is_urgent: bool = False) -> None:
        """Run ``task`` behind what waits for this key; nothing happens after ``close``.

        Args:
            key: of its line.
            task: to run.
            is_urgent: if nothing waits for this key, it comes before the lines without an urgent task.
        """
        with self._lock:
            self._start_missing()
            self._append(key, task, self._urgent if is_urgent else self._ready)

    def put_later(self, key: Hashable, delay_s: float, task: Task) -> None:
        """As ``put``, in so many seconds."""
        with self._lock:
            heapq.heappush(self._later, (time.monotonic() + delay_s, next(self._numbers), key, task))
            # Whoever waits may have to wait for less long now.
            self._changed.notify()

    def is_worker(self) -> bool:
        """True on one of the workers."""
        return threading.current_thread() in self._threads

    def close(self, timeout_s: float | None) -> list[str]:
        """No further task begins. Waits for those that run; names of the workers that are still at one then."""
        budget = TimeBudget(timeout_s)
        with self._lock:
            self._ended = True
            self._changed.notify_all()
        others = [t for t in self._threads if t.ident is not None and t is not threading.current_thread()]
        for thread in others:
            thread.join(budget.remaining_s())
        return [thread.name for thread in others if thread.is_alive()]

    # ── the workers ──────────────────────────────────────────────────────────────────────────────────────────────

    def _append(self, key: Hashable, task: Task, ready: deque[tuple[Hashable, _Line]]) -> None:
        if self._ended:
            return
        line = self._lines.get(key)
        if line is not None:
            line.tasks.append(task)
            return
        line = self._lines[key] = _Line()
        line.tasks.append(task)
        ready.append((key, line))
        self._changed.notify()

    def _work(self) -> None:
        while True:
            with self._lock:
                taken = self._take()
            if taken is None:
                return
            key, line = taken
            pause_s = self._run(key, line)
            with self._lock:
                self._put_back(key, line, pause_s)

    def _put_back(self, key: Hashable, line: _Line, pause_s: float | None) -> None:
        """After a task; None: it is done. The lock is held."""
        assert is_held_here(self._lock)
        if pause_s is not None:
            heapq.heappush(self._later, (time.monotonic() + pause_s, next(self._numbers), key, None))
            self._changed.notify()
            return
        line.tasks.popleft()
        line.failures = 0
        if line.tasks:
            # Behind the others: one busy position must not keep a worker for itself.
            self._ready.append((key, line))
            self._changed.notify()
        else:
            del self._lines[key]

    def _take(self) -> tuple[Hashable, _Line] | None:
        """The next line that has something to do; None at the end. The lock is held."""
        assert is_held_here(self._lock)
        while not self._ended:
            now = time.monotonic()
            while self._later and self._later[0][0] <= now:
                _, _, key, task = heapq.heappop(self._later)
                if task is None:
                    self._ready.append((key, self._lines[key]))
                else:
                    self._append(key, task, self._ready)
            if self._urgent or self._ready:
                return (self._urgent or self._ready).popleft()
            self._changed.wait(self._later[0][0] - now if self._later else None)
        return None

    def _run(self, key: Hashable, line: _Line) -> float | None:
        """Seconds after which the first task is to be run again; None: never."""
        try:
            line.tasks[0]()
        except BaseException as error:  # noqa: BLE001 - it is handed over; a worker that ends sells nothing more
            if isinstance(error, JournalError):
                pause_s = _AGAIN_AFTER_S
            else:
                pause_s = growing_pause_s(line.failures)
                line.failures += 1
            self._on_trouble(key, as_exception(error))
            return pause_s
        return None
