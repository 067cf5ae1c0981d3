"""Judges a link that is not read, because the consumer is slow: answers cannot be seen, but the kernel knows enough."""

from __future__ import annotations

import socket
import struct
import sys
import time
from collections.abc import Callable
from typing import Protocol

__all__ = ["UnreadLink", "kernel_verdict"]

#: The beginning of TCP_INFO (linux/tcp.h): tcpi_state, and tcpi_unacked in segments.
_INFO = struct.Struct("=B23xI")
#: States in which an error, or the peer, has ended the connection.
_TCP_CLOSE, _TCP_CLOSE_WAIT = 7, 8


class _Verdict(Protocol):
    def __call__(self, *, unacknowledged_is_dead: bool) -> str | None: ...


class UnreadLink:
    """Writes a WebSocket ping now and then, and looks whether the peer's machine acknowledges it.

    Args:
        verdict: as ``kernel_verdict``, of the link.
        ping: writes one.
        interval_s: between two pings.
        answer_s: how long the acknowledgement may take.

    Threads: the reader.
    """

    def __init__(
        self,
        *,
        verdict: _Verdict,
        ping: Callable[[], None],
        interval_s: float,
        answer_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._verdict = verdict
        self._ping = ping
        self._interval_s = interval_s
        self._answer_s = answer_s
        self._clock = clock
        self._asked_at: float | None = None
        self._next_at = clock() + interval_s
        #: Why the link is dead; None while nothing says so.
        self.problem: str | None = None

    def begin(self) -> None:
        """Reading has stopped."""
        self._asked_at = None
        self._next_at = self._clock() + self._interval_s

    def look(self) -> float | None:
        """Ask or judge what is due; seconds until something else is (None: the link is known to be dead)."""
        now = self._clock()
        if self.problem is not None:
            return None
        if now < self._next_at:
            return self._next_at - now
        if self._asked_at is None:
            self.problem = self._verdict(unacknowledged_is_dead=False)
            if self.problem is None:
                self._ping()
            self._asked_at, self._next_at = now, now + self._answer_s
        else:
            self.problem = self._verdict(unacknowledged_is_dead=True)
            self._asked_at, self._next_at = None, now + self._interval_s
        return None if self.problem is not None else max(0.0, self._next_at - now)


def kernel_verdict(sock: socket.socket, *, unacknowledged_is_dead: bool) -> str | None:
    """Why a TCP connection is dead, as far as the kernel knows; None when nothing says so, or on another system.

    Changes nothing: what has arrived stays to be read.
    """
    if not sys.platform.startswith("linux"):
        return None
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size)
    except OSError as error:
        return error.strerror or str(error)
    state, unacknowledged = _INFO.unpack(info)
    if state == _TCP_CLOSE:
        return "the connection was reset"
    if state == _TCP_CLOSE_WAIT:
        return "the server ended the connection"
    if unacknowledged_is_dead and unacknowledged > 0:
        return "the server's machine no longer acknowledges what is sent"
    return None
