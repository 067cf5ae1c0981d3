"""The REST API's requests a minute: builds come first, look-ups get a quarter at the most (docs/protocol.md 7)."""

from __future__ import annotations

import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import Final

from lasersell_sync.runtime.locks import signal_safe_lock

__all__ = ["LOOK_UPS", "REQUESTS", "WINDOW_S", "RequestShares", "shares_of"]

#: The service's limit for one API key.
REQUESTS: Final = 60
#: Of them, what ``history`` and ``account`` may take.
LOOK_UPS: Final = REQUESTS // 4
WINDOW_S: Final = 60.0


class RequestShares:
    """Counts what one API key has asked within the last minute.

    Args:
        clock: monotonic seconds.

    Threads: every method from any.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # Guards the moments, in monotonic seconds, oldest first.
        self._lock = signal_safe_lock()
        self._all: deque[float] = deque()
        self._look_ups: deque[float] = deque()

    def count(self) -> None:
        """A request is about to be sent. Only look-ups are ever refused."""
        with self._lock:
            self._all.append(self._forget())

    def wait_for_look_up_s(self) -> float:
        """Seconds until a look-up may be sent; 0.0: it may be sent now, and is counted."""
        with self._lock:
            now = self._forget()
            shares = ((self._all, REQUESTS), (self._look_ups, LOOK_UPS))
            full = [sent[-most] for sent, most in shares if len(sent) >= most]
            if full:
                return max(full) + WINDOW_S - now
            self._all.append(now)
            self._look_ups.append(now)
            return 0.0

    def _forget(self) -> float:
        """Drop what is older than a minute; the time."""
        now = self._clock()
        for sent in (self._all, self._look_ups):
            while sent and sent[0] <= now - WINDOW_S:
                sent.popleft()
        return now


_by_key: weakref.WeakValueDictionary[tuple[str, str | None], RequestShares] = weakref.WeakValueDictionary()
# Guards the table.
_table = signal_safe_lock()


def shares_of(server: str, api_key: str | None) -> RequestShares:
    """Those of all clients of this process that use one key at one server."""
    with _table:
        found = _by_key.get((server, api_key))
        if found is None:
            found = _by_key[(server, api_key)] = RequestShares()
        return found
