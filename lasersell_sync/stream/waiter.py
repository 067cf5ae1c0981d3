"""How a thread that waits for a descriptor is woken: by the descriptor, by another thread, or when its time is over."""

from __future__ import annotations

import contextlib
import os
import select
import selectors
from collections.abc import Callable
from types import BuiltinFunctionType
from typing import Any

from lasersell_sync.locks import is_held_here, signal_safe_lock
from lasersell_sync.timeouts import TimeBudget

__all__ = ["Aborted", "Waiter", "WakeUp", "new_selector"]


def new_selector() -> selectors.BaseSelector:
    """A selector that needs no descriptor of its own: a process that has none to spare can still wait.

    Under gevent or eventlet the one that they put in the place of the system's.
    """
    if isinstance(getattr(select, "poll", None), BuiltinFunctionType):
        return selectors.PollSelector()
    return selectors.DefaultSelector()


class Aborted(Exception):
    """``close()`` was called while a wait was under way; never reaches a user."""


class WakeUp:
    """A descriptor that becomes readable when ``set`` is called: how another thread ends a ``select``.

    Threads: ``set`` from any, also after ``close``; the rest belongs to the thread that waits.
    """

    def __init__(self) -> None:
        self._read_fd, self._write_fd = os.pipe()
        os.set_blocking(self._read_fd, False)
        os.set_blocking(self._write_fd, False)
        # Guards the descriptors: a late ``set`` must not write into a number that someone else owns by now.
        self._lock = signal_safe_lock()
        self._closed = False

    def fileno(self) -> int:
        """For selectors."""
        return self._read_fd

    def set(self) -> None:
        """Wake the waiter; cheap, and harmless when it is awake."""
        with self._lock:
            if not self._closed:
                # A full pipe wakes as well as a fuller one.
                with contextlib.suppress(BlockingIOError):
                    os.write(self._write_fd, b"\0")

    @property
    def is_held_here(self) -> bool:
        """True in a signal handler that interrupted ``set`` or ``close`` on this thread."""
        return is_held_here(self._lock)

    def drain(self) -> None:
        """Forget the wake-ups so far."""
        with contextlib.suppress(BlockingIOError):
            while len(os.read(self._read_fd, 4096)) == 4096:
                pass

    def close(self) -> None:
        """Give the descriptors back."""
        with self._lock:
            self.let_go()

    def let_go(self) -> None:
        """As ``close``, without the lock: in a forked child a thread of the parent's may hold it."""
        if not self._closed:
            self._closed = True
            os.close(self._read_fd)
            os.close(self._write_fd)


class Waiter:
    """Waits for one descriptor within a budget, and no longer than until ``stopped()`` says so.

    Threads: one, the reader.
    """

    def __init__(self, wake_up: WakeUp, stopped: Callable[[], bool]) -> None:
        self._wake_up = wake_up
        self._stopped = stopped

    def wait(self, target: Any, events: int, budget: TimeBudget) -> None:
        """Return when ``target`` is ready.

        Raises:
            Aborted: ``close()`` was called.
            TimeoutError: the budget is used up.
        """
        with new_selector() as selector:
            selector.register(self._wake_up, selectors.EVENT_READ)
            selector.register(target, events)
            while True:
                if self._stopped():
                    raise Aborted
                ready = [key.fileobj for key, _ in selector.select(budget.remaining_s())]
                if target in ready:
                    return
                if self._wake_up in ready:
                    self._wake_up.drain()
                elif budget.expired():
                    raise TimeoutError
