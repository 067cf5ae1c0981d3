"""Locks that a signal handler may meet: Python runs it in the middle of whatever the main thread does."""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, Protocol, TypeAlias, TypeVar

__all__ = ["CallsUnderWay", "Flag", "SignalSafeLock", "is_held_here", "signal_safe_lock", "under_way"]

P = ParamSpec("P")
T = TypeVar("T")

#: Taken again by the thread that holds it: a signal handler that interrupted the holder may call ``health()``.
#: For state that is whole between any two lines of what the main thread does under the lock.
SignalSafeLock: TypeAlias = Any


def signal_safe_lock() -> SignalSafeLock:
    """A new one."""
    return threading.RLock()


def is_held_here(lock: SignalSafeLock) -> bool:
    """True when the calling thread holds the lock: it is in a signal handler that interrupted the holder."""
    return bool(lock._is_owned())


class Flag:
    """Set once, and read. A ``threading.Event`` has a lock, for which a signal handler's ``close()`` would wait."""

    def __init__(self) -> None:
        self._is_set = False

    def set(self) -> None:
        """For ever."""
        self._is_set = True

    def is_set(self) -> bool:
        """True once ``set`` was called."""
        return self._is_set


class CallsUnderWay:
    """The threads that are in a call of an object: a ``close()`` in a signal handler must not wait for that call.

    Where locks are the library's own, ``signal_safe_lock`` is enough. Executors and events of the standard library have
    others, which their holder cannot take again.

    Threads: any; takes no lock.
    """

    def __init__(self) -> None:
        #: One entry for each call.
        self._threads: list[int] = []

    def __enter__(self) -> None:
        self._threads.append(threading.get_ident())

    def __exit__(self, *_: object) -> None:
        self._threads.remove(threading.get_ident())

    @property
    def is_interrupted(self) -> bool:
        """True in a signal handler, or a callback, that a call of the object on this thread is waiting for."""
        return threading.get_ident() in self._threads

    def close(self, close: Callable[[], None], log: logging.Logger) -> None:
        """Call ``close``; where it interrupted a call, on a thread of its own, which ends when that call returns."""
        if not self.is_interrupted:
            with self:
                close()
            return
        try:
            # Not a daemon: a program that ends now waits for it.
            threading.Thread(target=close, name="lasersell-close").start()
        except (RuntimeError, MemoryError) as error:
            log.warning(
                "close() came in the middle of another call, and no thread could be started for it (%s): call it again",
                error or "out of memory",
            )


class _Counted(Protocol):
    @property
    def _calls_under_way(self) -> CallsUnderWay: ...


S = TypeVar("S", bound=_Counted)


def under_way(method: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[S, P], T]:
    """A method that ``self._calls_under_way`` knows of while it runs."""

    @functools.wraps(method)
    def call(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        with self._calls_under_way:
            return method(self, *args, **kwargs)

    return call
