"""One connection: its reader, its commands, and the registry that keeps one open connection for each key."""

from __future__ import annotations

import atexit
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from lasersell_sync._backend import EventRouter, warn_of_fallback
from lasersell_sync.codec import SERVER_DECODER
from lasersell_sync.exceptions import ConcurrencyError, ConfigurationError, StreamClosed, TransportError
from lasersell_sync.messages import (
    ClientMessage,
    ClosePosition,
    Limits,
    MirrorBuyResult,
    Ping,
    PositionClosed,
    RequestExitSignal,
    ServerMessage,
    StrategyConfig,
    UpdatePositionStrategy,
    UpdateStrategy,
    UpdateWallets,
    UpdateWatchWallets,
    WatchWallet,
)
from lasersell_sync.positions import PositionHandle
from lasersell_sync.pubkeys import pubkey_text
from lasersell_sync.runtime.fork_guard import NO_THREAD, ProcessGuard, after_fork, notice_fork, refuse_late_patching
from lasersell_sync.runtime.locks import signal_safe_lock
from lasersell_sync.runtime.log import logger
from lasersell_sync.runtime.timeouts import boot_time_s
from lasersell_sync.runtime.user_code import passes_through
from lasersell_sync.strategy import validate_strategy
from lasersell_sync.stream.connection_events import ConnectionEvent, DecodeFailure
from lasersell_sync.stream.desired_state import DesiredState
from lasersell_sync.stream.event_queue import LOW_LANE_CLASSES, EventQueue, position_in_low_lane
from lasersell_sync.stream.lifecycle import ConnectionState
from lasersell_sync.stream.options import StreamConfigure, StreamOptions, require_wallets, require_watch_wallets
from lasersell_sync.stream.reader import Reader
from lasersell_sync.stream.sink import LaneSink, Sink, Tap
from lasersell_sync.stream.stats import Counters, StreamStats
from lasersell_sync.stream.transport import WakeUp
from lasersell_sync.stream.writer import FrameWriter

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = [
    "PositionSelector",
    "StreamConnection",
    "StreamReceiver",
    "StreamSender",
    "register",
    "select_position",
    "unregister",
]

log = logger("stream")


# ── The open connections of this process ────────────────────────────────────────────────────────────────────────────
# Every public tier allows one session for a key (docs/protocol.md §8). Whoever connects again in the same process, a
# notebook cell that is run twice above all, wants the new one: the old one is closed first, or the server would refuse
# the new.


#: For all connections together, when the interpreter ends without having closed them.
EXIT_PATIENCE_S: Final = 1.5


class _Closable(Protocol):
    def close(self, timeout: float | None = ...) -> None: ...

    def stop_soon(self) -> None: ...

    def let_go(self) -> None: ...


_Identity = tuple[str, str]

# Guards the table. Not held while a connection is closed, which may take a second.
_lock = signal_safe_lock()
_open: weakref.WeakValueDictionary[_Identity, _Closable] = weakref.WeakValueDictionary()
_exit_hooked = False


def register(url: str, api_key: str, connection: _Closable) -> None:
    """Make this the process's connection for a key and endpoint; an older one is closed."""
    global _exit_hooked  # noqa: PLW0603 - one hook for the process
    notice_fork()
    with _lock:
        older = _open.get((url, api_key))
        _open[url, api_key] = connection
        if not _exit_hooked:
            _exit_hooked = True
            atexit.register(_close_all)
    if older is not None:
        log.warning("an older connection of this process with the same key is closed: a key has one session")
        older.close()


def unregister(url: str, api_key: str, connection: _Closable) -> None:
    """Forget a connection that has ended; a newer one of the same key stays."""
    with _lock:
        if _open.get((url, api_key)) is connection:
            _open.pop((url, api_key), None)


def _close_all() -> None:
    """At exit: say goodbye to the server while sockets and threads still work."""
    notice_fork()
    with _lock:
        connections = list(_open.values())
        _open.clear()
    ends_at = time.monotonic() + EXIT_PATIENCE_S
    for connection in connections:
        connection.stop_soon()
    for connection in connections:
        connection.close(max(0.0, ends_at - time.monotonic()))


def _in_child() -> None:
    """A forked child has none of its parent's connections, and must not say goodbye in the parent's name.

    It closes its copies of their descriptors: with them it would keep a link open that its parent has lost.
    """
    global _lock, _open
    inherited, _lock, _open = list(_open.values()), signal_safe_lock(), weakref.WeakValueDictionary()
    for connection in inherited:
        connection.let_go()


after_fork(_in_child)


# ── Commands to the server, from any thread ─────────────────────────────────────────────────────────────────────────


#: A position is named by its token account, its id, or a handle.
PositionSelector: TypeAlias = str | int | PositionHandle


class CommandPort(Protocol):
    """What a sender needs of a connection."""

    def command(self, message: ClientMessage) -> None:
        """Send or hold."""

    def position_id_of(self, token_account: str) -> int | None:
        """The position's current id."""

    @property
    def deadline_timeout_sec(self) -> float:
        """Of the current strategy; a deadline counts as an exit condition."""


class StreamSender:
    """Sends commands; returning means written to the socket or queued for it, not received by the server.

    While there is no link, what describes the desired state (strategies, wallets) is remembered and sent on the next
    connect; ``close_position`` and ``request_exit_signal`` wait for it, the last of each position only, and so does
    each ``mirror_buy_result``; ``ping`` raises, and so does a command with an id that was never announced.

    Every method raises:
        ConfigurationError, StrategyError: an argument out of range, named; nothing was sent.
        SendBufferFull: the link takes nothing and 1 MiB waits.
        TransportError: there is no link and this command cannot wait.
        StreamClosed: the connection was closed; its cause, when it failed.

    Threads: any, at once; copies are free.
    """

    def __init__(self, port: CommandPort) -> None:
        self._port = port

    def send(self, message: ClientMessage) -> None:
        """Send a message as it is; its kinds and ranges are checked, its meaning is not."""
        self._port.command(message)

    def ping(self, client_time_ms: int) -> None:
        """Ask for a ``pong``; ``client_time_ms`` in Unix milliseconds."""
        self.send(Ping(client_time_ms=client_time_ms))

    def update_strategy(self, strategy: StrategyConfig) -> None:
        """Replace the strategy of all positions; overrides of single positions end with it."""
        self.send(UpdateStrategy(strategy=validate_strategy(strategy, self._port.deadline_timeout_sec)))

    def update_position_strategy(self, position: PositionSelector, strategy: StrategyConfig) -> None:
        """Replace the strategy of one position, also after reconnects.

        The wire wants its id here: a token account is looked up among the announced positions.
        """
        checked = validate_strategy(strategy, self._port.deadline_timeout_sec)
        account, position_id = select_position(position)
        if account is not None:
            # A handle's own id may name another position by now.
            position_id = self._port.position_id_of(account)
        if position_id is None:
            raise ConfigurationError("position", f"no position of token account {account} is announced (yet)")
        self.send(UpdatePositionStrategy(position_id=position_id, strategy=checked))

    def close_position(self, position: PositionSelector) -> None:
        """Stop tracking a position; nothing is sold."""
        account, position_id = select_position(position)
        self.send(ClosePosition(position_id=None if account else position_id, token_account=account))

    def close_by_id(self, position_id: int) -> None:
        """As ``close_position`` with an id."""
        self.close_position(position_id)

    def request_exit_signal(self, position: PositionSelector, slippage_bps: int | None = None) -> None:
        """Ask for an exit now; ``slippage_bps`` in basis points, 0 to 65 535, None for the server's choice."""
        account, position_id = select_position(position)
        self.send(
            RequestExitSignal(
                position_id=None if account else position_id, token_account=account, slippage_bps=slippage_bps
            )
        )

    def request_exit_signal_by_id(self, position_id: int, slippage_bps: int | None = None) -> None:
        """As ``request_exit_signal`` with an id."""
        self.request_exit_signal(position_id, slippage_bps)

    def update_wallets(self, wallet_pubkeys: Sequence[str]) -> None:
        """The full new list of wallets; positions of removed ones stay until they are closed."""
        self.send(UpdateWallets(wallet_pubkeys=require_wallets(wallet_pubkeys)))

    def update_watch_wallets(self, watch_wallets: Sequence[WatchWallet]) -> None:
        """The full new list of watched wallets."""
        self.send(UpdateWatchWallets(watch_wallets=require_watch_wallets(watch_wallets)))

    def mirror_buy_result(self, mint: str, success: bool) -> None:  # noqa: FBT001 - official signature
        """Tell whether a ``mirror_buy_signal`` was signed and submitted."""
        self.send(MirrorBuyResult(mint=mint, success=success))


def select_position(position: PositionSelector) -> tuple[str | None, int | None]:
    """(token account, id) of what the caller named; an account outlives reconnects, so it is preferred."""
    position = pubkey_text(position)
    if isinstance(position, PositionHandle):
        return position.token_account, position.position_id
    if isinstance(position, str) and position:
        return position, None
    if isinstance(position, int) and not isinstance(position, bool):
        return None, position
    raise ConfigurationError(
        "position", f"{type(position).__name__} names no position: pass a token account, an id, or a PositionHandle"
    )


# ── A connection that keeps itself up: messages out of it, commands into it, until ``close()`` ──────────────────────


#: What close() grants the reader beyond its close frame before it takes the socket down itself.
FORCE_DOWN_AFTER_S = 0.3


class _MessageLanes(LaneSink[tuple[ServerMessage, int]]):
    """The sink of a bare connection: wire messages into the lanes, connection events to ``on_event``."""

    def __init__(self, options: StreamOptions, counters: Counters, wake_reader: Callable[[], None]) -> None:
        super().__init__(
            EventQueue(
                low_lane=options.low_lane,
                low_capacity=options.low_capacity,
                high_capacity=options.high_capacity,
                on_room=wake_reader,
                chosen=False,
            )
        )
        # What ``message`` does with a low-lane message.
        self.router = EventRouter(
            SERVER_DECODER, {cls: (cls.type, None) for cls in LOW_LANE_CLASSES}, "position_id", self.lanes
        )
        self._counters = counters
        self._on_event = options.on_event

    @property
    def followed(self) -> bool:
        """A recorder's tap hears frames, and says nothing about whether the messages should be taken."""
        return False

    def unreadable(self, payload: bytes) -> None:
        """Nothing to do: an event tells it."""

    def message(self, message: ServerMessage, received_ns: int) -> None:
        """Into its lane, with the time it came: a session that takes over wants to know."""
        low_type, position_id = position_in_low_lane(message)
        if low_type is not None:
            self.lanes.put_low((message, received_ns), low_type, position_id)
            return
        if isinstance(message, PositionClosed):
            self._counters.late += self.lanes.forget_position(message.position_id)
        self.lanes.put_high((message, received_ns))

    def event(self, event: ConnectionEvent) -> None:
        """To the user's ``on_event``; what it raises is logged and changes nothing."""
        if self._on_event is None:
            return
        try:
            self._on_event(event)
        except BaseException as error:
            if passes_through(error):
                raise
            log.exception("on_event raised for %s", event.type)


class StreamConnection:
    """A stream session that reconnects by itself and re-sends what the user wants by then.

    Made by ``StreamClient.connect``. Wire messages come out of ``recv`` or iteration; connection events (connected,
    disconnected, …) go to ``StreamOptions.on_event``. For positions, deadlines and typed events use ``StreamSession``.

    Threads: every method from any thread. Several threads may ``recv`` at once; each message goes to one of them.
    """

    def __init__(self, *, url: str, api_key: str, configure: StreamConfigure, options: StreamOptions) -> None:
        refuse_late_patching()
        self._options = options
        self._identity = (url, api_key)
        self._desired = DesiredState(configure, stable_after_s=options.stable_after_s)
        #: Seconds after opening at which a session asks for an exit; the session's part, and here to check strategies.
        self._deadline_timeout_s: Callable[[], float] = lambda: configure.deadline_timeout_sec
        wake_up = WakeUp()
        self._writer = FrameWriter(
            self._desired,
            limit_bytes=options.send_buffer_bytes,
            wake_reader=wake_up.set,
            announcements_s=options.resync_grace_s,
        )
        counters = Counters()
        self._lanes = _MessageLanes(options, counters, wake_up.set)
        self._reader = Reader(
            url=url,
            api_key=api_key,
            options=options,
            writer=self._writer,
            counters=counters,
            wake_up=wake_up,
            sink=self._lanes,
        )
        self._attached = False
        #: ``recv`` was called: from now on no high-lane message is dropped.
        self._is_consumed = False
        self._guard = ProcessGuard("connection")
        #: Threads that are in ``close``.
        self._closing: set[int] = set()

    # ── life ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def open(self, sink: Sink | None = None) -> None:
        """Start the reader and wait for the first session; ``StreamClient`` calls this once.

        Args:
            sink: takes everything instead of ``recv`` (a session).

        Raises:
            TransportError, HandshakeError, StrategyError: the first attempt failed; nothing is left running.
        """
        self._guard.check()
        refuse_late_patching()
        warn_of_fallback()
        if sink is not None:
            self._attached = True
            self._reader.sink = sink
        register(*self._identity, self)
        try:
            self._reader.start()
        except (RuntimeError, MemoryError) as error:
            unregister(*self._identity, self)
            self._reader.let_go()
            raise ConcurrencyError(f"{NO_THREAD}: {error or 'out of memory'}") from error
        try:
            self._reader.ready.wait()
        except BaseException:
            # Ctrl-C while connecting: take everything down before it goes on.
            self.close()
            raise
        if self._reader.error is not None:
            unregister(*self._identity, self)
            raise self._reader.error

    def stop_soon(self) -> None:
        """Begin to end, without waiting; ``close`` does the rest."""
        if not self._guard.is_child:
            self._reader.stop()

    @property
    def is_interrupted(self) -> bool:
        """True in a signal handler that interrupted a call of this connection on the same thread."""
        return (
            threading.get_ident() in self._closing or self._writer.is_interrupted or self._reader.wake_up.is_held_here
        )

    def let_go(self) -> None:
        """In a forked child: close its copies of the descriptors. The connection is the parent's and goes on there."""
        self._reader.let_go()

    def attach(self, make_sink: Callable[[], Sink]) -> None:
        """Hand everything, what waits in the lanes included, to a sink (``StreamSession.from_connection``).

        Raises:
            ConcurrencyError: a session has this connection already.
        """
        if self._attached:
            raise ConcurrencyError("this connection belongs to a session already")
        self._attached = True
        sink = make_sink()

        def hand_over() -> None:
            # On the reader: nothing can arrive between the old lanes' last message and the new sink's first.
            lagged = self._lanes.lanes.lagged_at_first()
            if lagged is not None:
                sink.event(lagged)
            for message, received_ns in self._lanes.lanes.take_all():
                sink.message(message, received_ns)
            # What a message brings into the lanes is woken for once a batch, and this is none.
            sink.lanes.wake()
            self._reader.sink = sink
            if self._reader.lifecycle.ended:
                sink.finish(self._reader.error)

        self._reader.run_soon(hand_over)

    def close(self, timeout: float | None = 5.0) -> None:
        """End the session for good; idempotent, from any thread, also from a handler.

        The socket is down in under a second, whatever the server does. What had arrived can still be read. In a forked
        child it closes the child's copies of the descriptors, and nothing else. In a signal handler that interrupted a
        call of this connection it waits for nothing: the connection ends when that call returns.

        Args:
            timeout: seconds to wait for the reader thread to end.
        """
        if self._guard.is_child:
            self.let_go()
            return
        reader = self._reader
        reader.stop()
        if self.is_interrupted:
            # What the interrupted call holds is what the reader waits for. It ends when that call returns.
            return
        thread = threading.get_ident()
        self._closing.add(thread)
        try:
            self._wait_for_the_end(timeout)
        finally:
            self._closing.discard(thread)

    def _wait_for_the_end(self, timeout: float | None) -> None:
        reader = self._reader
        unregister(*self._identity, self)
        if reader.is_current_thread():
            # An inline handler closes: the reader cannot say goodbye before that handler returns.
            reader.force_down()
            return
        if not reader.started:
            return
        patience_s = self._options.close_timeout_s + FORCE_DOWN_AFTER_S
        if reader.join(patience_s if timeout is None else min(patience_s, timeout)):
            return
        reader.force_down()
        left_s = None if timeout is None else max(0.0, timeout - patience_s)
        if not reader.join(left_s):
            log.warning("the reader has not ended in %s s; a handler on it (inline dispatch) still runs", timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ── messages ─────────────────────────────────────────────────────────────────────────────────────────────────

    def recv(self, timeout: float | None = None) -> ServerMessage | None:
        """The next wire message; None once the connection was closed and everything was read.

        Args:
            timeout: seconds to wait; None for ever.

        Raises:
            queue.Empty: nothing within that time.
            LaserSellError: the cause, when the connection failed for good.
            ConcurrencyError: a session consumes this connection.
        """
        self._guard.check()
        if self._attached:
            raise ConcurrencyError("a StreamSession consumes this connection; use the session's events")
        if not self._is_consumed:
            self._begin_to_consume()
        try:
            return self._lanes.lanes.take(timeout_s=timeout)[0]
        except StreamClosed:
            return None

    def _begin_to_consume(self) -> None:
        self._is_consumed = True
        lagged = self._lanes.lanes.choose()
        if lagged is not None:
            self._reader.run_soon(lambda: self._lanes.event(lagged))

    def __iter__(self) -> Iterator[ServerMessage]:
        while (message := self.recv()) is not None:
            yield message

    def split(self) -> tuple[StreamSender, StreamReceiver]:
        """A sender and a receiver, to be handed to different threads."""
        return self.sender(), StreamReceiver(self)

    @property
    def send_mode(self) -> str | None:
        """How exits are meant to be sent (``StreamConfigure.send_mode``); the server builds them for it."""
        return self._desired.send_mode

    @property
    def tip_lamports(self) -> int | None:
        """What exits pay to that sender (``StreamConfigure.tip_lamports``)."""
        return self._desired.tip_lamports

    def server_time_ms(self) -> float | None:
        """Unix milliseconds now by the server's clock, which ``hello_ok`` told; None before the first one."""
        hello = self._reader.hello
        return None if hello is None else hello.server_time_ms + (boot_time_s() - self._reader.hello_at) * 1000

    def tap(self, tap: Tap) -> Callable[[], None]:
        """Let ``tap(payload, received_ns)`` hear every text message, readable or not, before it is decoded.

        Args:
            tap: called on the reader thread with the message's bytes and the ``time.monotonic_ns()`` at which they were
                read; it must be quick. One that raises is logged and taken off.

        Returns:
            What takes it off again.

        Threads: any.
        """
        return self._reader.taps.add(tap)

    # ── commands ─────────────────────────────────────────────────────────────────────────────────────────────────

    def sender(self) -> StreamSender:
        """Sends commands on this connection."""
        return StreamSender(self)

    def command(self, message: ClientMessage, *, when_announced: bool = False) -> None:
        """Send or hold one command; StreamSender's methods are the comfortable way in.

        Args:
            message: the command.
            when_announced: True: after a reconnect it waits until its position is announced again, for
                ``resync_grace_s`` at most, and is dropped if the position was closed or opened again.
        """
        self._guard.check()
        if self._reader.stopping or self._reader.lifecycle.ended:
            raise self._reader.cause or StreamClosed()
        try:
            self._writer.command(message, when_announced=when_announced)
        except TransportError:
            if self._reader.stopping:  # meanwhile: by another thread, or in a signal handler that came in between
                raise self._reader.cause or StreamClosed() from None
            raise

    def position_id_of(self, token_account: str) -> int | None:
        """The id under which the server knows this account's position now; None when it announced none."""
        return self._writer.position_id_of(token_account)

    @property
    def deadline_timeout_sec(self) -> float:
        """Seconds after opening at which a session asks for an exit; 0 for never. A session changes it."""
        return self._deadline_timeout_s()

    def follow_deadline(self, timeout_s: Callable[[], float]) -> None:
        """Take the deadline from the session, which keeps it."""
        self._deadline_timeout_s = timeout_s

    # ── facts ────────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def options(self) -> StreamOptions:
        """What this connection was made with."""
        return self._options

    @property
    def reader(self) -> Reader:
        """The reader; for the session above."""
        return self._reader

    @property
    def status(self) -> ConnectionState:
        """Where the connection stands now."""
        return self._reader.lifecycle.state

    @property
    def limits(self) -> Limits | None:
        """What the tier allows, from the latest ``hello_ok``."""
        return self._reader.hello.limits if self._reader.hello is not None else None

    @property
    def session_id(self) -> int | None:
        """The latest session's id; a reconnect brings a new one."""
        return self._reader.hello.session_id if self._reader.hello is not None else None

    def stats(self) -> StreamStats:
        """Counters and times; see StreamStats."""
        self._guard.check()
        counters = self._reader.counters
        lag, waiting = self._reader.sink.lane_counts()
        last_received = counters.last_received
        return StreamStats(
            sessions=self._reader.lifecycle.sessions,
            frames_received=counters.frames,
            bytes_received=counters.bytes,
            messages_received=counters.messages,
            unknown_messages=counters.unknown,
            decode_errors=counters.decode_errors,
            commands_sent=self._writer.commands_sent,
            send_buffer_bytes=self._writer.waiting_bytes,
            dropped=lag.dropped,
            conflated=lag.conflated,
            high_dropped=self._reader.sink.lanes.high_dropped,
            late=counters.late,
            duplicates=counters.duplicates,
            contradictions=counters.contradictions,
            waiting=waiting,
            idle_seconds=None if last_received is None else time.monotonic() - last_received,
            round_trip_seconds=counters.round_trip_s,
            app_round_trip_seconds=counters.app_round_trip_s,
            clock_offset_ms=counters.clock_offset_ms,
        )

    def unparsed(self) -> list[DecodeFailure]:
        """The latest messages that could not be read (64 and 4 MiB at the most), oldest first, with their raw bytes."""
        return self._reader.decode_failures.kept()

    def __repr__(self) -> str:
        return f"<StreamConnection {self.status.value} session={self.session_id}>"


class StreamReceiver:
    """The reading half of a connection.

    Threads: as ``StreamConnection.recv``.
    """

    def __init__(self, connection: StreamConnection) -> None:
        self._connection = connection

    def recv(self, timeout: float | None = None) -> ServerMessage | None:
        """As ``StreamConnection.recv``."""
        return self._connection.recv(timeout)

    def __iter__(self) -> Iterator[ServerMessage]:
        return iter(self._connection)
