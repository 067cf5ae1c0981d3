"""What ``pause`` waits for: after it returns, nothing that was begun before still signs, sends or asks."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator

from lasersell_sync.locks import signal_safe_lock

__all__ = ["PauseBarrier"]


class PauseBarrier:
    """Lets acts happen one beside the other, or none.

    An act is what a pause must not fall into: signing with the record and the first copy behind it, or a question to
    the REST API.

    Threads: every method from any. A thread that pauses in an act of its own does not wait for that one.
    """

    def __init__(self) -> None:
        # Guards everything below.
        self._state = threading.Condition(signal_safe_lock())
        self._is_paused = False
        #: How many acts each thread is in.
        self._acting: Counter[int] = Counter()

    @property
    def is_paused(self) -> bool:
        """Whether nothing may begin."""
        return self._is_paused

    @contextlib.contextmanager
    def act(self) -> Iterator[bool]:
        """An act, for as long as the block runs; False: it may not begin, for all is paused."""
        thread = threading.get_ident()
        with self._state:
            may_begin = not self._is_paused
            if may_begin:
                self._acting[thread] += 1
        try:
            yield may_begin
        finally:
            if may_begin:
                with self._state:
                    self._acting[thread] -= 1
                    if not self._acting[thread]:
                        del self._acting[thread]
                    self._state.notify_all()

    def pause(self, timeout_s: float | None = None) -> bool:
        """Let no act begin, and wait for those under way; False when some still are after ``timeout_s``."""
        own = threading.get_ident()
        with self._state:
            self._is_paused = True
            return self._state.wait_for(lambda: not (self._acting.keys() - {own}), timeout_s)

    def resume(self) -> None:
        """Let acts begin again."""
        with self._state:
            self._is_paused = False
