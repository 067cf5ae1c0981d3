"""The server's side of a loopback stream, in a process of its own: it writes frames that were built before.

One connection at a time. ``prepare`` says what the next client will get and where it connects. The client is upgraded,
configured and told of all positions; ``go`` then starts what was prepared, and ``sent`` tells how it went. Once all is
sent, the connection stays up, its pings answered, until the client leaves.

Nothing but a system call happens per batch while a stream runs: frames are built, and for TLS encrypted, before ``go``.
Times are of the monotonic clock, which processes share on Linux.
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import random
import select
import socket
import ssl
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from websockets.frames import Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol

from benchmarks import data
from tests.support.certificates import Authority

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = [
    "STAMP",
    "STAMP_MS",
    "Channel",
    "Client",
    "Flood",
    "Flushes",
    "Paced",
    "Prepared",
    "Pulses",
    "Script",
    "Sender",
    "Sent",
    "Silence",
]

PATIENCE_S: Final = 60.0
TICK_NS: Final = 1_000_000
FLUSH_NS: Final = 100 * TICK_NS
#: Added to a time in ns, so that the field that carries it always has as many digits, and no other value looks like it.
STAMP: Final = 10**18
#: The same for milliseconds.
STAMP_MS: Final = 10**12
#: How many different messages a paced stream repeats.
RING: Final = 20_000
SEED: Final = 7

Records: TypeAlias = Literal["large", "message"]
#: When something is due, in ns after the start, and what makes its bytes then.
Step: TypeAlias = tuple[int, Callable[[], "bytes | bytearray"]]


@dataclass(frozen=True)
class Flood:
    """The first ``count`` of ``of`` mixed messages, as fast as the client takes them."""

    count: int
    of: int


@dataclass(frozen=True)
class Pulses:
    """``exits`` stamped exit signals on a silent link, ``gap_s`` apart (give or take a half, at random)."""

    exits: int
    gap_s: float


@dataclass(frozen=True)
class Silence:
    """One stamped exit signal after so many seconds without any message."""

    seconds: float


@dataclass(frozen=True)
class Paced:
    """``rate`` messages a second in steps of 1 ms, and between them ``exits`` stamped exit signals, ``gap_s`` apart.

    Attributes:
        kind: type of the messages, or ``"mixed"`` (without exit signals that are not stamped).
    """

    kind: str
    rate: int
    exits: int
    gap_s: float


@dataclass(frozen=True)
class Flushes:
    """A stamped ``pnl_update`` of every position every 100 ms in one go, and ``exits`` stamped exit signals after it.

    Stamped updates carry ``STAMP_MS`` plus the time in ms in ``server_time_ms``.
    """

    count: int
    exits: int


Stream: TypeAlias = Flood | Pulses | Silence | Paced | Flushes


@dataclass(frozen=True)
class Script:
    """What one connection gets.

    Attributes:
        stream: what follows ``go``.
        positions: announced before.
        tls: None for plain TCP; ``"large"`` for records of 16 KiB, ``"message"`` for one record a message (floods).
    """

    stream: Stream
    positions: int = data.POSITIONS
    tls: Records | None = None


@dataclass(frozen=True)
class Prepared:
    """Where the next client connects, and what it will get."""

    url: str
    ca_file: str
    positions: int
    #: Before TLS: what comes before ``go``, and a flood.
    setup_bytes: int
    stream_bytes: int


@dataclass(frozen=True)
class Sent:
    """How it went.

    Attributes:
        started_ns: just before the first write.
        delay_s: how much later than planned the latest step of a paced stream began.
        keepalives: pings of both kinds that were answered, before the stream, during it, and until the client left.
    """

    started_ns: int
    delay_s: float = 0.0
    keepalives: int = 0


# ── the driver's side ────────────────────────────────────────────────────────────────────────────────────────────


class Sender:
    """Starts the process and talks to it. Use as a context manager."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), name="benchmark-sender", daemon=True)
        self._process.start()
        theirs.close()

    def prepare(self, script: Script) -> Prepared:
        """Make ready for the next client."""
        self._pipe.send(script)
        return self._answer(Prepared)

    def go(self) -> None:
        """Start the stream."""
        self._pipe.send("go")

    def sent(self) -> Sent:
        """How it went; waits until the client has left."""
        return self._answer(Sent)

    def _answer(self, kind: type[Any]) -> Any:
        if not self._pipe.poll(PATIENCE_S):
            raise TimeoutError(f"the sender was silent for {PATIENCE_S:g} s")
        answer = self._pipe.recv()
        if type(answer) is kind:
            return answer
        raise RuntimeError(f"the sender failed:\n{answer}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.close()
        self._process.join(1)
        self._process.terminate()
        self._process.join()


# ── the process ──────────────────────────────────────────────────────────────────────────────────────────────────


def _serve(pipe: Connection) -> None:
    with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE_S)
        authority = Authority(Path(folder))
        context = authority.server()
        with contextlib.suppress(EOFError, ConnectionError, KeyboardInterrupt):
            while True:
                script = pipe.recv()
                try:
                    with contextlib.closing(_Session(script)) as session:
                        scheme, port = "wss" if script.tls else "ws", listener.getsockname()[1]
                        url = f"{scheme}://127.0.0.1:{port}/v1/ws"
                        pipe.send(session.prepared(url, str(authority.pem)))
                        session.accept(listener, context)
                        assert pipe.recv() == "go"
                        pipe.send(session.play())
                except EOFError:
                    raise
                except Exception:  # noqa: BLE001 - the driver reports it
                    pipe.send(traceback.format_exc())


class _Session:
    """One connection and its script."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._material = _material(script)
        self._exit = _StampedExit(script.positions)
        self._client: Client | None = None
        self._sealed = b""

    def prepared(self, url: str, ca_file: str) -> Prepared:
        """What the driver needs to know."""
        setup_bytes = sum(map(len, _greeting(self._script.positions)))
        flood = self._material if isinstance(self._script.stream, Flood) else []
        return Prepared(url, ca_file, self._script.positions, setup_bytes, sum(map(len, flood)))

    def accept(self, listener: socket.socket, context: ssl.SSLContext) -> None:
        """Take the client in, as far as its positions; make the flood ready for it."""
        sock, _ = listener.accept()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        channel: Channel = TlsChannel(sock, context) if self._script.tls else Channel(sock)
        self._client = Client(channel)
        channel.send(b"".join(_greeting(self._script.positions)))
        if isinstance(self._script.stream, Flood):
            parts = self._material if self._script.tls == "message" else [b"".join(self._material)]
            self._sealed = channel.seal(parts)

    def play(self) -> Sent:
        """Send, and stay until the client leaves."""
        client = self._client
        assert client is not None
        planned_ns = time.monotonic_ns() + TICK_NS
        started_ns = delay_ns = 0
        # A client that leaves early has its reasons; it tells them to the driver.
        with contextlib.suppress(ConnectionError):
            for due_ns, make in self._steps():
                client.answer(until_ns=planned_ns + due_ns)
                now_ns = time.monotonic_ns()
                started_ns = started_ns or now_ns
                delay_ns = max(delay_ns, now_ns - planned_ns - due_ns)
                client.channel.sock.sendall(make())
        client.answer(until_ns=None)
        return Sent(started_ns, delay_ns / 1e9, client.keepalives)

    def close(self) -> None:
        """Drop the connection."""
        if self._client is not None:
            self._client.channel.sock.close()

    def _steps(self) -> Iterator[Step]:
        stream = self._script.stream
        if isinstance(stream, Flood):
            return iter([(0, lambda: self._sealed)])
        if isinstance(stream, Silence):
            return iter([(round(stream.seconds * 1e9), self._exit.now)])
        if isinstance(stream, Pulses):
            return self._pulses(stream)
        return self._paced(stream) if isinstance(stream, Paced) else self._flushes(stream)

    def _pulses(self, stream: Pulses) -> Iterator[Step]:
        for due_ns in itertools.accumulate(_gaps_ns(stream)):
            yield due_ns, self._exit.now

    def _paced(self, stream: Paced) -> Iterator[Step]:
        ticks = zip(itertools.count(step=TICK_NS), itertools.cycle(self._material), strict=False)
        tick_ns, chunk = next(ticks)
        for exit_due_ns in itertools.accumulate(_gaps_ns(stream)):
            while tick_ns < exit_due_ns:
                yield tick_ns, lambda chunk=chunk: chunk
                tick_ns, chunk = next(ticks)
            yield exit_due_ns, self._exit.now

    def _flushes(self, stream: Flushes) -> Iterator[Step]:
        for index, flush in zip(range(stream.count), itertools.cycle(self._material), strict=False):
            due_ns = index * FLUSH_NS
            yield due_ns, flush.now
            for _ in range(stream.exits):
                yield due_ns, self._exit.now


def _gaps_ns(stream: Pulses | Paced) -> Iterator[int]:
    rand = random.Random(SEED)
    return (round(rand.uniform(0.5, 1.5) * stream.gap_s * 1e9) for _ in range(stream.exits))


# ── frames, built before ─────────────────────────────────────────────────────────────────────────────────────────

_HELLO: Final = (
    b'{"type":"hello_ok","session_id":778812345,"server_time_ms":1736000000000,"limits":{"hi_capacity":256,'
    b'"pnl_flush_ms":100,"max_positions_per_session":20000,"max_wallets_per_session":200,'
    b'"max_positions_per_wallet":100,"max_sessions_per_api_key":1,"max_watch_wallets_per_session":25}}'
)


def _material(script: Script) -> list[Any]:
    """What the stream is made of."""
    stream = script.stream
    if isinstance(stream, Flood):
        return _floods(stream.of, script.positions)[: stream.count]
    if isinstance(stream, Paced):
        return _chunks(stream.kind, stream.rate, script.positions)
    return _flush_templates(script.positions) if isinstance(stream, Flushes) else []


@lru_cache(maxsize=2)
def _greeting(positions: int) -> list[bytes]:
    session = data.Session(positions=positions)
    return [data.frame(text) for text in (_HELLO, *session.of_each("position_opened"))]


@lru_cache(maxsize=2)
def _floods(count: int, positions: int) -> list[bytes]:
    return [data.frame(text) for text in data.mixed(count, positions=positions)]


@lru_cache(maxsize=2)
def _chunks(kind: str, rate: int, positions: int) -> list[bytes]:
    """The bytes of 1 ms each."""
    texts = data.mixed(RING, positions=positions) if kind == "mixed" else data.one_type(kind, RING, positions=positions)
    frames = [data.frame(text) for text in texts if b"exit_signal_with_tx" not in text]
    size = rate // 1000
    return [b"".join(frames[at : at + size]) for at in range(0, len(frames) - size + 1, size)]


@lru_cache(maxsize=2)
def _flush_templates(positions: int) -> list[_StampedFlush]:
    session = data.Session(positions=positions)
    return [_StampedFlush(session.of_each("pnl_update")) for _ in range(4)]


@lru_cache(maxsize=2)
def _exit_signal(positions: int) -> bytes:
    return data.Session(positions=positions).message("exit_signal_with_tx")


class _StampedExit:
    """An exit signal whose trigger is the time at which it is sent."""

    def __init__(self, positions: int) -> None:
        text = _exit_signal(positions)
        before, rest = text.split(b'"triggered_at_ms":')
        stamp, after = rest.split(b",", 1)
        assert stamp.isdigit()
        head = data.frame(before + b'"triggered_at_ms":' + b"0" * 19 + b"," + after)
        self._at = head.index(b"0" * 19)
        self._frame = bytearray(head)

    def now(self) -> bytearray:
        self._frame[self._at : self._at + 19] = b"%d" % (STAMP + time.monotonic_ns())
        return self._frame


class _StampedFlush:
    """An update of every position, all with the time at which they are sent."""

    _PLACE: Final = b"0" * 13

    def __init__(self, texts: list[bytes]) -> None:
        stamp = b'"server_time_ms":'
        at = texts[0].index(stamp) + len(stamp)
        old = stamp + texts[0][at : at + len(self._PLACE)]
        self._frames = b"".join(data.frame(text.replace(old, stamp + self._PLACE)) for text in texts)

    def now(self) -> bytes:
        return self._frames.replace(self._PLACE, b"%d" % (STAMP_MS + time.monotonic_ns() // 1_000_000))


# ── one client ───────────────────────────────────────────────────────────────────────────────────────────────────


class Channel:
    """Plain TCP."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def send(self, plain: bytes) -> None:
        self.sock.sendall(self.seal([plain]))

    def seal(self, parts: list[bytes]) -> bytes:
        """The bytes for the socket; with TLS each part is a record of its own, or as many as it needs."""
        return b"".join(parts)

    def waits(self, seconds: float | None) -> bool:
        """True once there is something to receive, False after that time."""
        return bool(select.select([self.sock], [], [], seconds)[0])

    def recv(self) -> bytes:
        """What came; nothing at its end."""
        return self.sock.recv(65536)


class TlsChannel(Channel):
    """TLS over memory, so that a whole stream can be encrypted before it is sent."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        super().__init__(sock)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._run(self._tls.do_handshake)

    def seal(self, parts: list[bytes]) -> bytes:
        for part in parts:
            view = memoryview(part)
            while view:
                view = view[self._tls.write(view) :]
        return self._outgoing.read()

    def waits(self, seconds: float | None) -> bool:
        # The request may have come along with the end of the handshake.
        return self._incoming.pending > 0 or super().waits(seconds)

    def recv(self) -> bytes:
        try:
            return bytes(self._run(lambda: self._tls.read(65536)) or b"")
        except ssl.SSLError:
            return b""

    def _run(self, action: Callable[[], Any]) -> Any:
        while True:
            try:
                done = action()
            except ssl.SSLWantReadError:
                self.sock.sendall(self._outgoing.read())
                received = self.sock.recv(65536)
                if not received:
                    return None
                self._incoming.write(received)
            else:
                self.sock.sendall(self._outgoing.read())
                return done


class Client:
    """Upgrades, takes ``configure``, answers pings and the goodbye."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        #: Pings answered.
        self.keepalives = 0
        self._protocol = ServerProtocol()
        self._configured = self._left = False
        deadline_ns = time.monotonic_ns() + round(PATIENCE_S * 1e9)
        while not self._configured:
            self.answer(until_ns=deadline_ns, once=True)
            if self._left or time.monotonic_ns() > deadline_ns:
                raise ConnectionError("the client did not configure its session")

    def answer(self, *, until_ns: int | None, once: bool = False) -> None:
        """Answer what comes until a moment (None: until the client leaves); it may be over.

        Args:
            until_ns: by the monotonic clock.
            once: only what comes first.
        """
        while not self._left:
            left_s = None if until_ns is None else (until_ns - time.monotonic_ns()) / 1e9
            if left_s is not None and left_s <= 0 and not once:
                # One look at the socket a step would cost as much as the step.
                return
            if not self.channel.waits(left_s):
                return
            with contextlib.suppress(ConnectionError):
                self._take(self.channel.recv())
            if once:
                return

    def _take(self, received: bytes) -> None:
        protocol = self._protocol
        if received:
            protocol.receive_data(received)
        else:
            protocol.receive_eof()
            self._left = True
        for event in protocol.events_received():
            if isinstance(event, Request):
                protocol.send_response(protocol.accept(event))
            elif event.opcode is Opcode.PING:
                self.keepalives += 1
            elif event.opcode is Opcode.TEXT and b'"configure"' in event.data:
                self._configured = True
            elif event.opcode is Opcode.TEXT and b'"ping"' in event.data:
                self.keepalives += 1
                protocol.send_text(b'{"type":"pong","server_time_ms":1736000000000}')
        for answer in protocol.data_to_send():
            if answer:
                self.channel.send(answer)
            else:
                # The goodbye is said: as a server, we hang up.
                self._left = True
