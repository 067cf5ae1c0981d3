"""Time limits spread over several steps, and a clock that counts while the machine is suspended."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable

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
        if timeout_s is not None and math.isnan(timeout_s):
            raise ValueError("timeout_s is NaN: give seconds, or None for no limit")
        self._clock = clock
        self._ends_at = None if timeout_s is None else clock() + max(0.0, timeout_s)

    def remaining_s(self) -> float | None:
        """Seconds left, never negative; None when there is no limit."""
        if self._ends_at is None:
            return None
        return max(0.0, self._ends_at - self._clock())

    def expired(self) -> bool:
        """True when nothing is left."""
        return self._ends_at is not None and self._clock() >= self._ends_at
