"""What a session delivers: one event class around the wire's messages and the connection's news."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeAlias

import attrs

from lasersell_sync.messages import SERVER_MESSAGES, ServerMessage, UnknownMessage, WireValue
from lasersell_sync.positions import PositionHandle
from lasersell_sync.stream.connection_events import CONNECTION_EVENTS, ConnectionEvent
from lasersell_sync.stream.event_queue import UNKNOWN

if TYPE_CHECKING:
    # Its default (PEP 696) is for type checkers: a bare ``StreamEvent`` is one of any message.
    from typing_extensions import TypeVar

    M_co = TypeVar("M_co", default=Any, covariant=True)
else:
    from typing import TypeVar

    M_co = TypeVar("M_co", covariant=True)

__all__ = [
    "EVENT_TYPES",
    "Contradiction",
    "EventMessage",
    "FeedSilent",
    "HandlerError",
    "HandlerStuck",
    "Resynced",
    "SessionEvent",
    "StreamEvent",
    "event_type",
]


@attrs.frozen(kw_only=True)
class HandlerError:
    """A handler raised; it was logged with its traceback, and the events after it still arrive.

    Of a handler that raises again and again, one a second comes after the first 16, about its latest error.

    Attributes:
        handler: its qualified name.
        event_type: the type of the event it was called with.
        error: what it raised.
        count: how often this handler has raised so far.
        since_last: how often since its ``handler_error`` event before this one, this time included.
    """

    type: ClassVar[str] = "handler_error"
    handler: str
    event_type: str
    error: BaseException
    count: int = 1
    since_last: int = 1


@attrs.frozen(kw_only=True)
class HandlerStuck:
    """A handler has been running for very long; it was logged, and ``health()`` tells it too.

    With ``dispatch="per_lane"`` the other lane delivers this; with one dispatcher there is no lane left to do so.

    Attributes:
        handler: its qualified name.
        event_type: the type of the event it was called with.
        seconds: how long it has been running.
        stack: where it is now, as a traceback prints it.
    """

    type: ClassVar[str] = "handler_stuck"
    handler: str
    event_type: str
    seconds: float
    stack: str


@attrs.frozen(kw_only=True)
class Resynced:
    """Some time after a reconnect: what the server announced again, and what it did not.

    Attributes:
        kept: positions announced again; they keep handle identity and deadline.
        opened: positions that were not known before.
        missing: positions not announced again. They stay in ``positions()`` as ``stale`` until there is evidence:
            absence of data is not a close.
        gap_seconds: how long there was no session; what was sent in that time is lost to every client.
    """

    type: ClassVar[str] = "resynced"
    kept: tuple[PositionHandle, ...]
    opened: tuple[PositionHandle, ...]
    missing: tuple[PositionHandle, ...]
    gap_seconds: float


@attrs.frozen(kw_only=True)
class Contradiction:
    """A message contradicts an earlier one of the same connection; at most one of these in ten seconds.

    The message's own token account decides what it is about; without one, the id does. Nothing is lost.

    Attributes:
        problem: what contradicts what, in words.
        position_id: the id in the message.
        token_account: the token account in the message; None when it has none.
        count: contradictions so far on this connection (``stats().contradictions``).
    """

    type: ClassVar[str] = "contradiction"
    problem: str
    position_id: int
    token_account: str | None
    count: int


@attrs.frozen(kw_only=True)
class FeedSilent:
    """Positions are open and the link lives, but no low-lane message (price, liquidity, trade) has come for long.

    It comes once for each silence; ``health()`` says so until the next such message. With
    ``StreamOptions.reconnect_on_feed_silent`` the link is made anew.

    Attributes:
        silent_seconds: since the latest low-lane message, or since there is a position.
        positions: how many are open.
    """

    type: ClassVar[str] = "feed_silent"
    silent_seconds: float
    positions: int


#: What a session adds to the connection's own events.
SessionEvent: TypeAlias = HandlerError | HandlerStuck | Resynced | Contradiction | FeedSilent
SESSION_EVENTS: tuple[type[SessionEvent], ...] = (*(HandlerError, HandlerStuck, Resynced, Contradiction, FeedSilent),)
EventMessage: TypeAlias = ServerMessage | ConnectionEvent | SessionEvent


@attrs.frozen(weakref_slot=False)
class StreamEvent(Generic[M_co]):
    """One thing that happened.

    For type checkers it is generic in its message: a handler of exits may say ``StreamEvent[ExitSignalWithTx]``; a bare
    ``StreamEvent`` has a message of any type.

    Attributes:
        type: the wire's type name, ``"unknown"``, or a connection event's name.
        message: the wire message or connection event, an immutable object.
        handle: the position it is about, as it was right after this event; None when it is about none, or about one
            that was never announced.
        received_ns: when its bytes were read from the socket, by ``time.monotonic_ns()``.

    Threads: immutable, any.
    """

    type: str
    message: M_co
    handle: PositionHandle | None = None
    received_ns: int = 0


EVERY = "*"
#: Every name that a handler can be registered for.
EVENT_TYPES: frozenset[str] = frozenset(
    {*SERVER_MESSAGES, UNKNOWN, *(cls.type for cls in (*CONNECTION_EVENTS, *SESSION_EVENTS))}
)


def event_type(name: object) -> str:
    """The event type that ``name`` (a string, ``"*"``, or a message or event class) means.

    Raises:
        ValueError: there is no such event; the nearest name is given.
    """
    if name is UnknownMessage:
        return UNKNOWN
    if isinstance(name, type) and (issubclass(name, WireValue) or name in (*CONNECTION_EVENTS, *SESSION_EVENTS)):
        name = getattr(name, "type", name.__name__)
    if isinstance(name, str) and (name == EVERY or name in EVENT_TYPES):
        return name
    near = difflib.get_close_matches(str(name), EVENT_TYPES, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"there is no event {name!r}{hint} Known: {', '.join(sorted(EVENT_TYPES))}")
