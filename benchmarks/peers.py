"""Clients that receive a stream from the sender: ours in its ways of consuming, and what a user would otherwise write.

Each turns every message into a typed object, except ``raw recv``, which only takes the bytes off the socket. They are
used as their documentation shows; where there is a choice, it is the faster one for them.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Final

import lasersell_sync as ls
from benchmarks import data
from benchmarks.command import missing_packages
from benchmarks.decoders import msgspec_union
from benchmarks.sender import STAMP, Prepared

__all__ = ["OURS", "PACKAGES", "RECEIVERS", "Receiver", "available"]

#: (time at which user code saw it, stamp) -> True when it was the last one.
OnExit = Callable[[int, int], bool]
OnLow = Callable[[object], object]

WALLET: Final = "So11111111111111111111111111111111111111112"
CONFIGURE: Final = (
    '{"type":"configure","wallet_pubkeys":["' + WALLET + '"],"strategy":{"target_profit_pct":5,"stop_loss_pct":5}}'
)
EXIT: Final = "exit_signal_with_tx"


class Receiver(ABC):
    """A connected client.

    It first gets ``hello_ok`` and every position; ``count`` takes those as any others.
    """

    #: Messages or events before the first position.
    greeting = 1

    @abstractmethod
    def count(self, messages: int, ready: Callable[[], None]) -> int:
        """Receive that many messages, all of them; ``ready`` is called once they may come.

        Returns:
            When the last one was in the hands of user code, in ns by the monotonic clock.
        """

    @abstractmethod
    def watch(self, on_exit: OnExit, on_low: OnLow, ready: Callable[[], None]) -> None:
        """Call ``on_exit`` for each exit signal and ``on_low`` for everything else, until ``on_exit`` returns True."""

    @abstractmethod
    def close(self) -> None:
        """Leave."""

    def update_of(self, message: Any) -> tuple[int, int] | None:
        """Position and server time (ms) of what ``on_low`` was called with; None when it is no ``pnl_update``."""
        raise NotImplementedError

    def check(self, messages: int) -> None:  # noqa: B027 - few have something to check
        """Raise unless exactly that many messages arrived, the greeting aside, and none was lost."""


class _Pulling(Receiver):
    """Of which a message is asked for."""

    #: The next message; blocks.
    take: Callable[[], Any]

    def count(self, messages: int, ready: Callable[[], None]) -> int:
        ready()
        take = self.take
        for _ in range(messages):
            take()
        return time.monotonic_ns()

    def watch(self, on_exit: OnExit, on_low: OnLow, ready: Callable[[], None]) -> None:
        ready()
        take, stamp_of = self.take, self.stamp_of
        while True:
            message = take()
            now_ns = time.monotonic_ns()
            stamp = stamp_of(message)
            if stamp is None:
                on_low(message)
            elif on_exit(now_ns, stamp):
                return

    @abstractmethod
    def stamp_of(self, message: Any) -> int | None:
        """Trigger of an exit signal; None for another message."""


class _Typed:
    """Decodes with msgspec to a tagged union."""

    def __init__(self) -> None:
        self.decode, structs = msgspec_union()
        self._exit, self._pnl = structs[EXIT], structs["pnl_update"]

    def stamp_of(self, message: Any) -> int | None:
        return message.triggered_at_ms if type(message) is self._exit else None

    def update_of(self, message: Any) -> tuple[int, int] | None:
        return (message.position_id, message.server_time_ms) if type(message) is self._pnl else None


def _tls(prepared: Prepared) -> ssl.SSLContext | None:
    return ssl.create_default_context(cafile=prepared.ca_file) if prepared.url.startswith("wss:") else None


# ── ours ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class _Session:
    """Our session; lossless for counting, with the default lanes for everything else."""

    #: Where nothing may be lost, a full lane stops the reading; a large one lets both sides go on in long strides.
    LOW_CAPACITY: Final = 16_384

    def __init__(self, prepared: Prepared, *, lossless: bool, dispatch: Any = "thread") -> None:
        lanes: dict[str, Any] = {"low_lane": "lossless", "low_capacity": self.LOW_CAPACITY} if lossless else {}
        ca_file = prepared.ca_file if prepared.url.startswith("wss:") else None
        # While the others are measured nothing comes, which is no news here.
        quiet: dict[str, Any] = {"feed_silent_after_s": 3600.0}
        client = ls.StreamClient("benchmark-key", options=ls.StreamOptions(ca_file=ca_file, **quiet, **lanes))
        configure = ls.StreamConfigure([WALLET], ls.strategy_config_from_optional(target_profit_pct=5, stop_loss_pct=5))
        self.session = ls.StreamSession.connect(client.with_endpoint(prepared.url), configure, dispatch=dispatch)

    def update_of(self, event: Any) -> tuple[int, int] | None:
        if event.type != "pnl_update":
            return None
        return event.message.position_id, event.message.server_time_ms

    def check(self, messages: int) -> None:
        stats = self.session.stats()
        lost = stats.dropped + stats.conflated + stats.late + stats.duplicates + stats.decode_errors
        waiting = self.session.events.qsize()
        # hello_ok is a message too.
        if lost or waiting or stats.messages_received != messages + 1:
            raise AssertionError(f"{messages} messages were expected: {waiting} wait still, {stats}")

    def close(self) -> None:
        self.session.close()


class Handlers(_Session, Receiver):
    """Handlers, called where ``dispatch`` says; for counting not ``per_lane``, whose two threads share one counter."""

    def __init__(self, prepared: Prepared, *, lossless: bool, dispatch: str) -> None:
        super().__init__(prepared, lossless=lossless, dispatch=dispatch)
        self._done = threading.Event()
        self._done_ns = 0
        self._handle, self._expect = _counter(self._note_done)
        self._kinds = ("hello_ok", *data.TYPES)
        for kind in self._kinds:
            self.session.on(kind, self._handle)
        self.session.start()

    def count(self, messages: int, ready: Callable[[], None]) -> int:
        self._done.clear()
        self._expect(messages)
        ready()
        self._done.wait()
        return self._done_ns

    def _note_done(self) -> None:
        # Here, on the handler's thread: the one that waits may get the interpreter lock much later.
        self._done_ns = time.monotonic_ns()
        self._done.set()

    def watch(self, on_exit: OnExit, on_low: OnLow, ready: Callable[[], None]) -> None:
        done = threading.Event()

        def handle_exit(event: ls.StreamEvent) -> None:
            if on_exit(time.monotonic_ns(), event.message.triggered_at_ms):
                done.set()

        for kind in self._kinds:
            self.session.off(kind)
        self.session.on("pnl_update", on_low)
        self.session.on(EXIT, handle_exit)
        ready()
        done.wait()


class Queue(_Session, _Pulling):
    """``session.events.get()`` on this thread, while the library's threads read."""

    #: ``connected`` and ``hello_ok``.
    greeting = 2

    def __init__(self, prepared: Prepared, *, lossless: bool) -> None:
        super().__init__(prepared, lossless=lossless)
        self.take = self.session.events.get

    def stamp_of(self, event: Any) -> int | None:
        return event.message.triggered_at_ms if event.type == EXIT else None


class Batches(Queue):
    """``session.events.get_batch()``, each event of a batch looked at."""

    def count(self, messages: int, ready: Callable[[], None]) -> int:
        ready()
        get_batch = self.session.events.get_batch
        while messages > 0:
            for _event in get_batch():
                messages -= 1
        return time.monotonic_ns()

    def watch(self, on_exit: OnExit, on_low: OnLow, ready: Callable[[], None]) -> None:
        ready()
        get_batch, stamp_of = self.session.events.get_batch, self.stamp_of
        while True:
            for event in get_batch():
                now_ns = time.monotonic_ns()
                stamp = stamp_of(event)
                if stamp is None:
                    on_low(event)
                elif on_exit(now_ns, stamp):
                    return


def _counter(on_done: Callable[[], object]) -> tuple[Callable[[object], None], Callable[[int], None]]:
    """A handler that counts what it is called with, and a way to say how many more are expected."""
    seen = wanted = 0

    def handle(_message: object) -> None:
        nonlocal seen
        seen += 1
        if seen == wanted:
            on_done()

    def expect(more: int) -> None:
        nonlocal wanted
        wanted += more
        if seen >= wanted:
            # They came before they were expected.
            on_done()

    return handle, expect


# ── peers ────────────────────────────────────────────────────────────────────────────────────────────────────────


class Picows(_Typed, Receiver):
    """picows on asyncio, its listener decoding each frame and calling a handler.

    A listener gets close frames too, so a program has to look at the type; ``checked=False`` shows what that costs.
    """

    def __init__(self, prepared: Prepared, *, checked: bool) -> None:
        import picows

        super().__init__()
        self._loop = asyncio.new_event_loop()
        count, self._expect = _counter(self._loop.stop)
        decode, handle, text = self.decode, count, picows.WSMsgType.TEXT

        # Of these small messages a copy is cheaper than a memoryview.
        class Listener(picows.WSListener):
            def on_ws_frame(self, _transport: Any, frame: Any) -> None:
                if frame.msg_type is text:
                    handle(decode(frame.get_payload_as_bytes()))

        class Unchecked(picows.WSListener):
            def on_ws_frame(self, _transport: Any, frame: Any) -> None:
                handle(decode(frame.get_payload_as_bytes()))

        def use(handler: Callable[[object], None]) -> None:
            nonlocal handle
            handle = handler

        self._use = use
        listener = Listener if checked else Unchecked
        connecting = picows.ws_connect(listener, prepared.url, ssl_context=_tls(prepared))
        self._transport, _ = self._loop.run_until_complete(connecting)
        self._transport.send(picows.WSMsgType.TEXT, CONFIGURE.encode())

    def count(self, messages: int, ready: Callable[[], None]) -> int:
        ready()
        self._expect(messages)
        self._loop.run_forever()
        return time.monotonic_ns()

    def watch(self, on_exit: OnExit, on_low: OnLow, ready: Callable[[], None]) -> None:
        stamp_of, stop = self.stamp_of, self._loop.stop

        def handle(message: object) -> None:
            now_ns = time.monotonic_ns()
            stamp = stamp_of(message)
            if stamp is None:
                on_low(message)
            elif on_exit(now_ns, stamp):
                stop()

        self._use(handle)
        ready()
        self._loop.run_forever()

    def close(self) -> None:
        self._transport.disconnect()
        self._loop.run_until_complete(self._transport.wait_disconnected())
        self._loop.close()


class Websockets(_Typed, _Pulling):
    """websockets' synchronous client."""

    def __init__(self, prepared: Prepared) -> None:
        from websockets.sync.client import connect

        super().__init__()
        self._socket = connect(prepared.url, ssl=_tls(prepared))
        self._socket.send(CONFIGURE)
        decode, recv = self.decode, self._socket.recv
        self.take = lambda: decode(recv(decode=False))

    def close(self) -> None:
        self._socket.close()


class WebsocketClient(_Typed, _Pulling):
    """websocket-client, with its check of UTF-8 or without."""

    def __init__(self, prepared: Prepared, *, checked: bool) -> None:
        import websocket

        super().__init__()
        tls = {"context": _tls(prepared)} if prepared.url.startswith("wss:") else None
        self._socket = websocket.create_connection(prepared.url, sslopt=tls, skip_utf8_validation=not checked)
        self._socket.send(CONFIGURE)
        decode, recv_data = self.decode, self._socket.recv_data
        self.take = lambda: decode(recv_data()[1])

    def close(self) -> None:
        self._socket.close()


class Official(Receiver):
    """The official SDK's session on asyncio: events with position handles, messages as checked dictionaries."""

    def __init__(self, prepared: Prepared) -> None:
        from lasersell_sdk.stream.client import StreamClient, StreamConfigure
        from lasersell_sdk.stream.session import StreamSession

        self._loop = asyncio.new_event_loop()
        client = StreamClient("benchmark-key").with_endpoint(prepared.url)
        configure = StreamConfigure([WALLET], {"target_profit_pct": 5.0, "stop_loss_pct": 5.0})
        self.session: Any = self._loop.run_until_complete(StreamSession.connect(client, configure))

    def count(self, messages: int, ready: Callable[[], None]) -> int:
        async def run() -> None:
            recv = self.session.recv
            for _ in range(messages):
                await recv()

        ready()
        self._loop.run_until_complete(run())
        return time.monotonic_ns()

    def watch(self, on_exit: OnExit, on_low: OnLow, ready: Callable[[], None]) -> None:
        async def run() -> None:
            recv = self.session.recv
            while True:
                event = await recv()
                now_ns = time.monotonic_ns()
                if event.type != EXIT:
                    on_low(event)
                elif on_exit(now_ns, event.message["triggered_at_ms"]):
                    return

        ready()
        self._loop.run_until_complete(run())

    def ignore(self, seconds: float) -> None:
        """Let it receive, and take nothing of it."""
        self._loop.run_until_complete(asyncio.sleep(seconds))

    def update_of(self, event: Any) -> tuple[int, int] | None:
        if event.type != "pnl_update":
            return None
        return event.message["position_id"], event.message["server_time_ms"]

    def close(self) -> None:
        async def run() -> None:
            self.session.close()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            await asyncio.wait(others, timeout=10)

        self._loop.run_until_complete(run())
        self._loop.close()


class Raw(Receiver):
    """Bytes off the socket, undecoded: what the sender can do, and what waking up costs."""

    _MARK: Final = b'"triggered_at_ms":'

    def __init__(self, prepared: Prepared) -> None:
        host, port = prepared.url.split("/")[2].split(":")
        self._socket = socket.create_connection((host, int(port)))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        tls = _tls(prepared)
        if tls is not None:
            self._socket = tls.wrap_socket(self._socket, server_hostname=host)
        request = (
            f"GET /v1/ws HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        text = CONFIGURE.encode()
        # A client's frame is masked; a mask of zeros leaves the text as it is.
        frame = b"\x81\xfe" + len(text).to_bytes(2, "big") + bytes(4) + text
        self._socket.sendall(request.encode() + frame)
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            answer += self._socket.recv(1)
        self._bytes = [prepared.setup_bytes, prepared.stream_bytes]

    def count(self, messages: int, ready: Callable[[], None]) -> int:  # noqa: ARG002 - it counts bytes
        left, buffer = self._bytes.pop(0), memoryview(bytearray(2**18))
        ready()
        recv_into = self._socket.recv_into
        while left > 0:
            received = recv_into(buffer)
            if not received:
                raise ConnectionError(f"the sender left {left} bytes early")
            left -= received
        return time.monotonic_ns()

    def watch(self, on_exit: OnExit, on_low: OnLow, ready: Callable[[], None]) -> None:  # noqa: ARG002
        """For a link on which only exit signals come."""
        ready()
        recv, digits = self._socket.recv, len(str(STAMP))
        received = b""
        while True:
            received += recv(65536)
            now_ns = time.monotonic_ns()
            # On a busy machine one read may bring several signals, or a part of one.
            while (found := received.find(self._MARK)) >= 0 and len(received) >= found + len(self._MARK) + digits:
                at = found + len(self._MARK)
                if on_exit(now_ns, int(received[at : at + digits])):
                    return
                received = received[at + digits :]

    def close(self) -> None:
        self._socket.close()


# ── all of them ──────────────────────────────────────────────────────────────────────────────────────────────────

#: Name, what it needs, and how it connects; ``lossless`` concerns ours alone: the peers have no lanes.
RECEIVERS: Final[dict[str, tuple[str | None, Callable[[Prepared, bool], Receiver]]]] = {
    "ours, inline handler": (None, lambda p, lossless: Handlers(p, lossless=lossless, dispatch="inline")),
    "ours, dispatcher": (None, lambda p, lossless: Handlers(p, lossless=lossless, dispatch="thread")),
    "ours, per_lane": (None, lambda p, lossless: Handlers(p, lossless=lossless, dispatch="per_lane")),
    "ours, events.get()": (None, lambda p, lossless: Queue(p, lossless=lossless)),
    "ours, get_batch()": (None, lambda p, lossless: Batches(p, lossless=lossless)),
    "picows + msgspec": ("picows", lambda p, _: Picows(p, checked=True)),
    "picows (types unchecked) + msgspec": ("picows", lambda p, _: Picows(p, checked=False)),
    "websockets sync + msgspec": ("websockets", lambda p, _: Websockets(p)),
    "websocket-client (checks off) + msgspec": ("websocket-client", lambda p, _: WebsocketClient(p, checked=False)),
    "websocket-client + msgspec": ("websocket-client", lambda p, _: WebsocketClient(p, checked=True)),
    "official SDK": ("lasersell-sdk", lambda p, _: Official(p)),
    "raw recv": (None, lambda p, _: Raw(p)),
}
OURS: Final = tuple(name for name in RECEIVERS if name.startswith("ours"))
PACKAGES: Final = ("picows", "msgspec", "websockets", "websocket-client", "lasersell-sdk")


def available(*names: str) -> list[str]:
    """Those of the names whose packages are installed."""
    chosen = []
    for name in names:
        package, _ = RECEIVERS[name]
        needed = [package, "msgspec"] if "msgspec" in name else [package]
        if not missing_packages([one for one in needed if one]):
            chosen.append(name)
    return chosen
