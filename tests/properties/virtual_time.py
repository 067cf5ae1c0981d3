"""A clock that a test turns, in every module of the library at once."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from types import ModuleType
from unittest import mock


class VirtualTime(ModuleType):
    """Stands in for the module ``time``; it moves by ``advance`` only."""

    def __init__(self) -> None:
        super().__init__("time")
        self.now_s = 1_000.0

    def __getattr__(self, name: str) -> object:
        return getattr(time, name)

    def monotonic(self) -> float:
        return self.now_s

    def monotonic_ns(self) -> int:
        return int(self.now_s * 1e9)

    def time(self) -> float:
        return 1_700_000_000.0 + self.now_s

    def time_ns(self) -> int:
        return int(self.time() * 1e9)

    def clock_gettime(self, _clock: int) -> float:
        return self.now_s

    def advance(self, seconds: float) -> None:
        self.now_s += seconds


@contextlib.contextmanager
def in_place_of_time(clock: VirtualTime) -> Iterator[None]:
    """Every module of the library that imported ``time`` reads this clock meanwhile."""
    with contextlib.ExitStack() as stack:
        for name, module in list(sys.modules.items()):
            if name.partition(".")[0] == "lasersell_sync" and getattr(module, "time", None) is time:
                stack.enter_context(mock.patch.object(module, "time", clock))
        yield
