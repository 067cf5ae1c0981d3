"""Time limits spread over several steps, and a clock that counts while the machine is suspended."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from typing import Final

#: The longest wait that is asked of the operating system, and the largest number of seconds that an option keeps: what
#: takes a number that means "no limit" (1e10, sys.maxsize) overflows in one system call or the other. 11 days.
MAX_WAIT_S: Final = 1_000_000.0

#: An int of any size cannot be added to a float.
_FOREVER_S: Final = 1e15


def bounded_s(seconds: float) -> float:
    """The number, at most ``MAX_WAIT_S``; infinity, and what is no number, stays what it is for others to refuse."""
    is_number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
    return MAX_WAIT_S if is_number and MAX_WAIT_S < seconds < math.inf else seconds


def wait_s(seconds: float | None) -> float | None:
    """What a call that blocks takes as its time limit: between 0 and ``MAX_WAIT_S``, None for ever."""
    return None if seconds is None else min(max(0.0, seconds), MAX_WAIT_S)


#: The clock that runs on while the machine is suspended; None: this system has none. macOS counts in this one.
_BOOT_CLOCK = time.CLOCK_MONOTONIC if sys.platform == "darwin" else getattr(time, "CLOCK_BOOTTIME", None)


def boot_time_s() -> float:
    """Seconds that never go back and count the time for which the machine was suspended, where the system has them."""
    return time.monotonic() if _BOOT_CLOCK is None else time.clock_gettime(_BOOT_CLOCK)


class TimeBudget:
    """What is left of a time limit.

    A blocking call that consists of several steps (look-up, connect, TLS, upgrade) makes one budget and asks each
    step to stay within what is left. The wall clock has no part in it.

    Args:
        timeout_s: seconds from now; None for no limit. Negative counts as zero.
        clock: seconds, never going back. Tests hand in their own.

    Threads: immutable, any.
    """

    __slots__ = ("_clock", "_ends_at")

    def __init__(self, timeout_s: float | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        if timeout_s is not None and not -math.inf <= timeout_s <= math.inf:
            raise ValueError("timeout_s is NaN: give seconds, or None for no limit")
        self._clock = clock
        self._ends_at = None if timeout_s is None else clock() + min(max(0.0, timeout_s), _FOREVER_S)

    def remaining_s(self) -> float | None:
        """Seconds left, never negative, at most ``MAX_WAIT_S``; None when there is no limit."""
        if self._ends_at is None:
            return None
        return min(max(0.0, self._ends_at - self._clock()), MAX_WAIT_S)

    def expired(self) -> bool:
        """True when nothing is left."""
        return self._ends_at is not None and self._clock() >= self._ends_at
