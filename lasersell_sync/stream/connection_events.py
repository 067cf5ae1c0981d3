"""What happens to a connection, told as values: they stand beside the wire's messages in a session's events."""

from __future__ import annotations

from typing import ClassVar, TypeAlias

import attrs

from lasersell_sync.messages import HelloOk

__all__ = [
    "CONNECTION_EVENTS",
    "Closed",
    "CommandDropped",
    "Connected",
    "ConnectionEvent",
    "DecodeFailure",
    "Degraded",
    "Disconnected",
    "Failed",
    "Lagged",
    "Reconnecting",
]


@attrs.frozen(kw_only=True)
class Connected:
    """A session is open; its ``hello_ok`` follows as an event of its own.

    Attributes:
        hello: the server's greeting.
        attempts: how many tries it took.
        reconnected: False for the first session of this connection.
        gap_seconds: how long there was no session before this one; 0 for the first.
    """

    type: ClassVar[str] = "connected"
    hello: HelloOk
    attempts: int
    reconnected: bool
    gap_seconds: float


@attrs.frozen(kw_only=True)
class Disconnected:
    """The link is gone. What the server sends until ``connected`` cannot be recovered by any client.

    Attributes:
        reason: what happened, in words.
        close_code: the server's WebSocket close code, or None when it sent none.
        code: the server's error code, or None when it sent none. ``session_replaced``: another session took the API
            key over; the next attempt waits as it does for ``session_limit``.
    """

    type: ClassVar[str] = "disconnected"
    reason: str
    close_code: int | None = None
    code: str | None = None


@attrs.frozen(kw_only=True)
class Reconnecting:
    """Another attempt follows.

    Attributes:
        attempt: its number since the link was lost, from 1.
        wait_seconds: how long it is waited for.
        last_error: why the attempt before it failed, in words; empty before the first.
    """

    type: ClassVar[str] = "reconnecting"
    attempt: int
    wait_seconds: float
    last_error: str = ""


@attrs.frozen(kw_only=True)
class Degraded:
    """The server takes every session and drops it at once: attempts go on, with long waits.

    Attributes:
        losses: sessions in a row that ended before they were stable.
        wait_seconds: until the next attempt.
        last_error: why the last session ended, in words.
    """

    type: ClassVar[str] = "degraded"
    losses: int
    wait_seconds: float
    last_error: str


@attrs.frozen(kw_only=True)
class CommandDropped:
    """A command that waited for a link will not be sent.

    Attributes:
        command: its wire name.
        position: the token account or position id it named.
        reason: why, in words.
    """

    type: ClassVar[str] = "command_dropped"
    command: str
    position: str | int | None
    reason: str


@attrs.frozen(kw_only=True)
class Failed:
    """The connection ended by an error; every consumer raises ``error``."""

    type: ClassVar[str] = "failed"
    error: BaseException


def _in_a_list(raw: bytes) -> list[bytes]:
    return [raw]


@attrs.frozen(kw_only=True)
class DecodeFailure:
    """One message or more that could not be read were skipped; the session goes on.

    In a flood one event stands for many messages: ``since_last`` counts them, and the rest is about the latest.

    Attributes:
        reason, path, offset: as in DecodeError.
        size: of the message, in bytes.
        count: how many so far on this connection.
        since_last: how many since the ``decode_error`` event before this one, this message included.
    """

    type: ClassVar[str] = "decode_error"
    reason: str
    path: str
    offset: int
    size: int
    count: int
    since_last: int
    # An unreadable exit signal holds a transaction, so it is in no repr. A list of one, to be emptied.
    _raw: list[bytes] = attrs.field(converter=_in_a_list, repr=False, eq=False)

    @property
    def raw(self) -> bytes:
        """The bytes received, while they are among the latest 4 MiB (``unparsed()``); after that, empty."""
        return self._raw[0]

    def forget_raw(self) -> None:
        """Let go of the bytes; for the connection, whose memory for them is bounded."""
        self._raw[0] = b""


@attrs.frozen(kw_only=True)
class Lagged:
    """The consumer is slower than the stream, or came late; at most one of these a second.

    Attributes:
        dropped: low-lane messages lost since the last of these.
        conflated: low-lane messages replaced by a newer one of their position since the last of these.
        total_dropped, total_conflated: since the connection was made.
        waiting: events in the lanes now.
        high_dropped: high-lane events lost before a way to consume was chosen, in the first consumer's first event;
            0 in all others, for none is lost after that.
    """

    type: ClassVar[str] = "lagged"
    dropped: int
    conflated: int
    total_dropped: int
    total_conflated: int
    waiting: int
    high_dropped: int = 0


@attrs.frozen(kw_only=True)
class Closed:
    """``close()`` was called; nothing follows."""

    type: ClassVar[str] = "closed"


ConnectionEvent: TypeAlias = (
    Connected | Disconnected | Reconnecting | Degraded | Failed | DecodeFailure | Lagged | CommandDropped | Closed
)
CONNECTION_EVENTS: tuple[type[ConnectionEvent], ...] = (
    *(Connected, Disconnected, Reconnecting, Degraded, Failed, DecodeFailure, Lagged, CommandDropped, Closed),
)
