"""Locks that a signal handler may meet: Python runs it in the middle of whatever the main thread does."""

from __future__ import annotations

import threading
from typing import Any, TypeAlias

__all__ = ["Flag", "SignalSafeLock", "is_held_here", "signal_safe_lock"]

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
