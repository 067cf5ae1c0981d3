"""From the link's bytes to whoever takes messages: frames, decoding, the frequent messages' way to their consumer."""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Mapping
from typing import Any

from lasersell_sync._pure.decoder import Decoder, InstanceFactory
from lasersell_sync._pure.frames import FrameParser
from lasersell_sync._pure.lanes import Lanes
from lasersell_sync._pure.tables import EventRing, HandleTable, LatestByKey

__all__ = ["EventRouter", "MessagePipeline", "receive"]

TEXT = 0x1


def receive(fd: int, buffer: Any, /) -> int | None:
    """Read what a non-blocking socket has.

    Returns:
        How many bytes; 0 when the peer has ended the connection; None when there is nothing now.

    Raises:
        OSError: the link is broken.

    Threads: one at a time for one socket.
    """
    try:
        return os.readv(fd, [buffer])
    except (BlockingIOError, InterruptedError):
        return None


class EventRouter:
    """Takes frequent messages straight to their consumer, and leaves to others what needs a thought.

    Args:
        decoder: whose messages these are.
        routes: message class to (event type, LatestByKey that keeps the latest message of each key, or None).
        key: the field of those classes that tells what a message is about: a position's id.
        lanes: where events wait.
        event: makes an event from its type, message, handle and received_ns; None: (message, received_ns) tuples.
        handles: the handle that an event carries, by key. A message whose key is not in here is not taken. None: keys
            are not looked up.
        watchers: as long as this list has something in it, no frequent message is taken.
        rules: message class to who is called with (message, received_ns): rare messages that need a thought, past
            whoever takes the others.
        memory: keeps the events that ``deliver`` makes; while there are watchers, its ``add`` is called with them.
        on_error: called with (handler, event, error) when a handler raised; may raise.

    Attributes:
        handlers: event type to a tuple of handlers, called here and now; None: events go to the lanes.
        frequent: how many frequent messages it took so far.

    Threads: one at a time.
    """

    def __init__(
        self,
        decoder: Decoder,
        routes: dict[type, tuple[str, LatestByKey | None]],
        key: str,
        lanes: Lanes[Any],
        *,
        event: InstanceFactory | None = None,
        handles: HandleTable[Any] | None = None,
        watchers: list[Any] | None = None,
        rules: dict[type, Callable[[Any, int], None]] | None = None,
        memory: EventRing[Any] | None = None,
        on_error: Callable[[Any, Any, BaseException], None] | None = None,
    ) -> None:
        for cls in (*routes, *(rules or {})):
            if not decoder.knows(cls):
                raise TypeError(f"{cls.__name__} is none of the decoder's message classes")
            if cls in routes and cls in (rules or {}):
                raise TypeError(f"{cls.__name__} has both a route and a rule")
        for cls, (_, newest) in routes.items():
            if newest is not None and not isinstance(newest, LatestByKey):
                raise TypeError(
                    f"{cls.__name__}: a LatestByKey keeps the latest messages, not a {type(newest).__name__}"
                )
            if key not in [spec.name for spec in cls.wire_fields]:  # type: ignore[attr-defined]
                raise TypeError(f"{cls.__name__} has no {key} to route it by")
        self._routes = dict(routes)
        self._rules = dict(rules or {})
        self._key_of = operator.attrgetter(key)
        self._lanes = lanes
        self._event = event
        self._handles = handles
        self._watchers = watchers if watchers is not None else []
        self._memory = memory
        self._on_error = on_error
        self.frequent = 0
        self.handlers: Mapping[str, tuple[Callable[[Any], object], ...]] | None = None

    def high(self, kind: str, item: Any, /) -> None:
        """To the handlers of this event type, or into the high lane; nobody is woken."""
        if self.handlers is None:
            Lanes.put_high(self._lanes, item)
        else:
            for handler in self.handlers.get(kind, ()):
                self._call(handler, item)

    def deliver(self, kind: str, message: Any, handle: Any, received_ns: int, /) -> None:
        """Make an event of a rare message, remember it, and take it to its handlers or into the high lane."""
        event = self._event_of(kind, message, handle, received_ns)
        # Remembered before it is delivered: an inline handler may never return.
        if self._memory is not None and self._watchers:
            self._memory.add(event)
        elif self._memory is not None:
            self._memory.keep(event)
        self.high(kind, event)

    def low(self, kind: str, item: Any, key: int | None, /) -> None:
        """To the handlers of this event type, or into the low lane; nobody is woken."""
        if self.handlers is None:
            Lanes.put_low(self._lanes, item, kind, key)
        else:
            for handler in self.handlers.get(kind, ()):
                self._call(handler, item)

    def take(self, message: Any, received_ns: int, /) -> bool:
        """True when the message went its way; False when it is for others."""
        rule = self._rules.get(type(message))
        if rule is not None:
            rule(message, received_ns)
            return True
        route = self._routes.get(type(message))
        if route is None or self._watchers:
            return False
        kind, newest = route
        key = self._key_of(message)
        handle = None
        if self._handles is not None:
            handle = self._handles.get(key)
            if handle is None:
                return False
            if newest is not None:
                newest.put(key, message)
        self.frequent += 1
        if self.handlers is None or self.handlers.get(kind):
            self.low(kind, self._event_of(kind, message, handle, received_ns), key)
        return True

    def _event_of(self, kind: str, message: Any, handle: Any, received_ns: int) -> Any:
        if self._event is None:
            return message, received_ns
        return self._event(kind, message, handle, received_ns)

    def _call(self, handler: Callable[[Any], object], event: Any) -> None:
        try:
            handler(event)
        except BaseException as error:
            if self._on_error is None:
                raise
            self._on_error(handler, event, error)


class MessagePipeline:
    """Bytes of one link in; messages and control frames out, in order.

    Args:
        parser: cuts the bytes into frames; its ``failure`` tells what the peer did wrong.
        decoder: reads text messages.
        on_message: called with (message, received_ns) for what no router took.
        on_frame: called with (opcode, payload) for every frame that is no text message.
        on_unreadable: called with (error, payload) for a text that is no message.

    Attributes:
        frames, messages: how many there were; a message counts once it is where it belongs.
        tap: called with (payload, received_ns) of each text message before it is read; None for nobody.

    Threads: one at a time. What a callback raises ends ``feed``; the pipeline is not used after that.
    """

    def __init__(
        self,
        parser: FrameParser,
        decoder: Decoder,
        *,
        on_message: Callable[[Any, int], None],
        on_frame: Callable[[int, bytes], None],
        on_unreadable: Callable[[Any, bytes], None],
    ) -> None:
        self._parser = parser
        self._decoder = decoder
        self._on_message = on_message
        self._on_frame = on_frame
        self._on_unreadable = on_unreadable
        self.tap: Callable[[bytes, int], None] | None = None
        self.frames = 0
        self.messages = 0

    def feed(self, data: Any, received_ns: int, router: EventRouter | None = None, /) -> None:
        """Take the link's next bytes, and bring what became complete where it belongs.

        Args:
            data: bytes-like; must not change while this runs.
            received_ns: when they were read.
            router: takes the frequent messages; None: all go to ``on_message``.
        """
        for opcode, payload in self._parser.feed(data):
            self.frames += 1
            if opcode == TEXT:
                self._text(payload, received_ns, router)
            else:
                self._on_frame(opcode, payload)

    def _text(self, payload: bytes, received_ns: int, router: EventRouter | None) -> None:
        if self.tap is not None:
            self.tap(payload, received_ns)
        try:
            message = self._decoder.decode(payload)
        except self._decoder.error as error:
            self._on_unreadable(error, payload)
            return
        if router is None or not router.take(message, received_ns):
            self._on_message(message, received_ns)
        # Not before: whoever sees the count finds what came of the message.
        self.messages += 1
