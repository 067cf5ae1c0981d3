"""How much of what clients have sent is remembered, so that nobody can fill the memory by talking."""

from __future__ import annotations

from collections import deque

from lasersell_sync.sandbox.exchange.sessions import Session

MAX_KEPT_BYTES = 2**24
#: A small message costs more than its text.
_OVERHEAD_BYTES = 256


class KeptMessages:
    """The messages in all sessions' ``received``, oldest first; the oldest are forgotten when there are too many.

    Threads: not thread-safe; the exchange's lock guards it.
    """

    def __init__(self) -> None:
        #: (whose, how many bytes)
        self._kept: deque[tuple[Session, int]] = deque()
        self._bytes = 0

    def add(self, session: Session, text_bytes: int) -> None:
        """The newest message of a session has been put into its ``received``."""
        size = text_bytes + _OVERHEAD_BYTES
        self._kept.append((session, size))
        self._bytes += size
        while self._bytes > MAX_KEPT_BYTES:
            oldest, size = self._kept.popleft()
            del oldest.received[0]
            self._bytes -= size
