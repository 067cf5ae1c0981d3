"""One kept connection to a target, whose reads and writes never block."""

from __future__ import annotations

import contextlib
import math
import socket
import ssl
from typing import Final, Protocol

from lasersell_sync.network.http_framing import AnswerFraming, HttpAnswer, HttpFailure, plain_answer
from lasersell_sync.runtime.locks import signal_safe_lock

__all__ = ["Ended", "Exchange", "SendConnection"]

_READ_BYTES: Final = 64 * 1024
_WOULD_BLOCK: Final = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Exchange(Protocol):
    """One request and what becomes of it.

    Attributes:
        ends_at: monotonic seconds; infinity until it is first given to a connection, which sets it.
    """

    ends_at: float

    def wire(self) -> bytes | None:
        """The whole request; None: it is of no use any more, and has ended with that."""

    def ended(self, outcome: HttpAnswer | HttpFailure) -> bool:
        """Called once with what came of it; whether the answer is this request's, so that others may follow it."""


#: An exchange that a connection is done with: its answer's bytes, or the error that ended it.
Ended = tuple[Exchange, AnswerFraming, bytes | HttpAnswer | OSError]


class SendConnection:
    """One connection with at most one request under way: the next one is written when the answer is complete.

    Args:
        sock: connected, with TLS and proxy done.
        max_body_bytes: of an answer.

    Attributes:
        ends_at: monotonic seconds at which the exchange under way is over; infinity without one.
        last_used_at: monotonic seconds.

    Threads: any, at once; nothing here blocks.
    """

    __slots__ = (
        "_exchange",
        "_framing",
        "_is_closed",
        "_lock",
        "_max_body_bytes",
        "_unsent",
        "ends_at",
        "last_used_at",
        "sock",
    )

    def __init__(self, sock: socket.socket, *, max_body_bytes: int, opened_at: float) -> None:
        sock.settimeout(0.0)
        self.sock = sock
        self._max_body_bytes = max_body_bytes
        # Guards everything below and all use of the socket: one TLS connection must not be used by two threads at once.
        self._lock = signal_safe_lock()
        self._exchange: Exchange | None = None
        self._framing = AnswerFraming(max_body_bytes)
        #: What the system did not take of the request.
        self._unsent = b""
        self._is_closed = False
        self.ends_at = math.inf
        self.last_used_at = opened_at

    @property
    def is_busy(self) -> bool:
        """Whether a request is under way."""
        return self._exchange is not None

    @property
    def has_unsent(self) -> bool:
        """Whether a part of the request waits until the socket takes it."""
        return bool(self._unsent)

    def begin(self, exchange: Exchange, wire: bytes, *, now: float) -> bool:
        """Write a request, as much of it as the socket takes now.

        Returns:
            False: the connection was broken before a byte of it was written; another one must be used.

        Raises:
            OSError: it broke while the request was written: the target may have got it.
        """
        with self._lock:
            if not self._is_quiet():
                self._close()
                return False
            self.last_used_at = now
            self._framing = AnswerFraming(self._max_body_bytes)
            try:
                self._unsent = wire
                self._flush()
            except BaseException:
                self._close()
                raise
            # Last: until here the exchange is its caller's.
            self._exchange, self.ends_at = exchange, exchange.ends_at
            return True

    def _is_quiet(self) -> bool:
        """Whether it is open and nothing came that nobody asked for, the other side's end among it."""
        if self._is_closed:
            return False
        try:
            self.sock.recv(1)
        except _WOULD_BLOCK:
            return True
        except OSError:
            return False
        return False

    def advance(self) -> Ended | None:
        """Write and read what can be now; the exchange that ended with it.

        Raises:
            OSError: the connection ended while nothing was under way, or somebody spoke unasked; it is closed.
        """
        with self._lock:
            if self._is_closed:
                return None
            if self._exchange is None:
                if self._is_quiet():
                    return None
                self._close()
                raise ConnectionError("the connection ended while it was idle")
            outcome: bytes | HttpAnswer | OSError | None
            try:
                outcome = self._advance()
            except OSError as error:
                self._close()
                outcome = error
            return None if outcome is None else self._end(outcome)

    def _advance(self) -> bytes | HttpAnswer | None:
        self._flush()
        while True:
            try:
                data = self.sock.recv(_READ_BYTES)
            except _WOULD_BLOCK:
                return None
            if not data:
                self._close()
                return bytes(self._framing.received)
            plain = None if self._framing.received else plain_answer(data, self._max_body_bytes)
            if plain is not None:
                return plain
            if self._framing.feed(data):
                return bytes(self._framing.received)

    def _flush(self) -> None:
        while self._unsent:
            try:
                sent = self.sock.send(self._unsent)
            except _WOULD_BLOCK:
                return
            self._unsent = self._unsent[sent:]

    def _end(self, outcome: bytes | HttpAnswer | OSError) -> Ended:
        assert self._exchange is not None
        ended = self._exchange, self._framing, outcome
        if self._unsent:  # answered before it was asked to the end: what follows may be about the rest
            self._close()
        self._exchange, self.ends_at = None, math.inf
        return ended

    def give_up(self, reason: OSError) -> Ended | None:
        """Close it; the exchange that ends with it, for this reason."""
        with self._lock:
            self._close()
            return None if self._exchange is None else self._end(reason)

    @property
    def is_closed(self) -> bool:
        """Whether no request may be given to it."""
        return self._is_closed

    def close(self) -> None:
        """End it; the reader, whom that wakes, gives the descriptor back. Idempotent."""
        with self._lock:
            self._close()

    def give_back(self) -> None:
        """Give the descriptor back, when no selector holds it any more; also that of a forked child. Takes no lock."""
        self.sock.close()

    def _close(self) -> None:
        # The descriptor stays until the selector has let it go: the system may give its number to another connection.
        self._is_closed = True
        self._unsent = b""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
