"""One link's life on the reader thread: ``configure``, ``hello_ok``, frames in, keepalive, goodbye."""

from __future__ import annotations

import contextlib
import math
import os
import struct
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NoReturn

from lasersell_sync._backend import FrameParser, MessagePipeline
from lasersell_sync.codec import SERVER_DECODER
from lasersell_sync.exceptions import DecodeError, HandshakeError, ProtocolError, SendBufferFull, TransportError
from lasersell_sync.messages import (
    BalanceUpdate,
    ErrorMessage,
    ExitSignalWithTx,
    HelloOk,
    Pong,
    PositionClosed,
    PositionOpened,
    ServerMessage,
    UnknownMessage,
)
from lasersell_sync.runtime.log import logger, shorten
from lasersell_sync.runtime.timeouts import TimeBudget
from lasersell_sync.stream.keepalive import Keepalive, StopWatch, UnreadLink
from lasersell_sync.stream.lifecycle import SESSION_REPLACED, handshake_error
from lasersell_sync.stream.transport import BROKEN, DUE, READABLE, STRANGE, WOKEN, WRITABLE, Link, receive_loop_class
from lasersell_sync.stream.writer import CLOSE, PING, PONG

if TYPE_CHECKING:
    from lasersell_sync.stream.reader import Reader

__all__ = ["ConnectedLoop"]

log = logger("stream")

#: Reads in a row before timers, writes and jobs get their turn.
READS_IN_A_ROW: Final = 8
#: What data may have made due (``lagged``, for one) is looked for this soon after it, not after every read.
TIMERS_WITHIN_S: Final = 0.1
BINARY: Final = 0x2
NORMAL_CLOSURE: Final = 1000
#: Messages that may come before hello_ok; the server sends none, and a flood of them is not a handshake.
MAX_EARLY_MESSAGES: Final = 1024
MAX_EARLY_BYTES: Final = 4 * 2**20
#: How long one message on its way is a sign of life, in rounds of the application's keepalive: a narrow link is slow,
#: and a message of single bytes that never ends keeps everything else away.
MESSAGE_ROUNDS: Final = 3
#: The one error code that is known to leave the connection open (docs/protocol.md 4).
CAPACITY_EXCEEDED: Final = "capacity_exceeded"
#: What to do about an error that comes in an open session.
ERROR_REMEDIES: Final = {
    CAPACITY_EXCEEDED: ". Close positions or remove wallets: what is beyond the limits is not tracked",
    "limit_exceeded": ". Close positions or remove wallets: what is beyond the limits is not tracked",
    "wallet_not_registered": ". Register it: ExitApiClient.register_wallet(signer.prove_ownership())",
}


class ConnectedLoop:
    """One link's life, from ``configure`` to its end; made and used on the reader thread."""

    def __init__(self, reader: Reader, link: Link, hello_budget: TimeBudget) -> None:
        self._reader = reader
        self._link = link
        self._hello_budget = hello_budget
        self._writer = reader.writer
        self._options = reader.options
        self._counters = reader.counters
        self._parser = FrameParser(self._options.max_message_bytes)
        self._pipeline = MessagePipeline(
            self._parser,
            SERVER_DECODER,
            on_message=self._message,
            on_frame=self._frame,
            on_unreadable=self._unreadable,
        )
        self._keepalive = Keepalive(self._options)
        self._stop_watch = StopWatch(self._options.stall_after_s)
        self._stood_still_s: float | None = None
        self._receive_loop = receive_loop_class()(
            self._pipeline,
            self._parser,
            reader.taps,
            reader.buffer,
            link.plain or link,
            reader.wake_up,
            reads=link.plain is not None,
            strange_after_s=self._stop_watch.strange_after_s,
            due_within_s=TIMERS_WITHIN_S,
            patience_s=MESSAGE_ROUNDS * self._keepalive.round_s,
        )
        self._counters.follow(self._pipeline, self._receive_loop)
        #: Bytes, and time of the latest message, when the receive loop was last looked at.
        self._known = (0, 0)
        #: When something is due, by the monotonic clock.
        self._timers_due_at = 0.0
        self._was_reading = True
        self._unread = UnreadLink(
            verdict=link.kernel_verdict,
            ping=lambda: self._ask(lambda: self._writer.control(PING)),
            interval_s=self._options.ping_interval_s,
            answer_s=self._options.pong_timeout_s,
        )
        self._live = False
        #: What the connection itself learns from a message; True when it is nobody else's.
        self._observers: dict[type, Callable[[Any], bool]] = {
            HelloOk: self._observe_hello,
            PositionOpened: self._observe_opened,
            PositionClosed: self._observe_closed,
            ExitSignalWithTx: self._observe_exit,
            BalanceUpdate: self._observe_balance,
            Pong: self._observe_pong,
            UnknownMessage: self._observe_unknown,
            ErrorMessage: self._observe_error,
        }
        #: Messages that came before hello_ok; they follow it.
        self._early: list[tuple[ServerMessage, int]] = []
        self._close_sent = False
        #: Another session took the key over: what the end of this link means.
        self._replaced: Exception | None = None

    def run(self) -> None:
        """Until ``stop`` (returns) or the end of the link (raises)."""
        try:
            self._run()
        except TransportError as ending:
            if self._replaced is None:
                raise
            raise self._replaced from ending

    def _run(self) -> None:
        self._writer.begin(self._link)
        more = False
        while True:
            if self._reader.run_jobs():
                # A job may have made something due.
                self._timers_due_at = 0.0
            if self._reader.stopping:
                self._say_goodbye()
                return
            reading = not self._reader.sink.lanes.full()
            more = reading and (more or self._link.more)
            due_s = self._run_timers(reading=reading)
            ready = self._serve(reading=reading, timeout_s=0.0 if more else due_s)
            # What has come goes on its way before anything else is looked at.
            more = (more or bool(ready & READABLE)) and self._receive()
            if ready & STRANGE:
                self._stood_still_s = self._stop_watch.stood_still_s(*self._receive_loop.waited) or self._stood_still_s
            if self._stood_still_s is not None:
                words = f"this process or machine stood still for {self._stood_still_s:.1f} s"
                self._reader.give_up = f"{words}; the link cannot be trusted"
            if self._reader.give_up is not None and reading and not more and not self._reader.stopping:
                self._give_up(self._reader.give_up)

    def _serve(self, *, reading: bool, timeout_s: float | None) -> int:
        """Sleep and take in what comes, until there is something to see to."""
        sink = self._reader.sink
        ready = self._receive_loop.serve(
            # The router knows nothing of a handshake.
            sink.router if self._live else None,
            sink.lanes,
            reading=reading,
            writing=self._writer.waiting_bytes > 0,
            once=not self._live or self._keepalive.asking,
            timeout_s=timeout_s,
        )
        self._note_received()
        if ready & WOKEN:
            self._reader.wake_up.drain()
        if ready & WRITABLE:
            self._writer.flush()
        if ready & DUE and timeout_s != 0.0:
            self._timers_due_at = 0.0
        if ready & BROKEN:
            self._broken()
        return ready

    # ── time ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _run_timers(self, *, reading: bool) -> float | None:
        """Do what is due; seconds until the next thing is. Most data only puts it off: not all is asked each time."""
        now = time.monotonic()
        if now >= self._timers_due_at or reading is not self._was_reading:
            if not (reading and self._was_reading):
                # An answer could not be seen; the time starts again when reading does.
                self._keepalive.bytes_came()
                self._keepalive.message_came()
            if reading is not self._was_reading:
                self._note_reading(reading=reading)
            self._check_time()
            due_s = self._due_in_s(reading=reading)
            self._timers_due_at = math.inf if due_s is None else now + due_s
        return None if self._timers_due_at == math.inf else max(0.0, self._timers_due_at - now)

    def _note_reading(self, *, reading: bool) -> None:
        """Reading stops, for the consumer takes nothing, or goes on."""
        self._was_reading = reading
        self._reader.sink.consumer.note_reading(reading=reading)
        if reading:
            # The announcements may still wait in the socket.
            self._writer.restart_announcements()
        if not reading:
            self._unread.begin()
        elif self._unread.problem is not None:
            self._reader.give_up = self._unread.problem

    def _due_in_s(self, *, reading: bool) -> float | None:
        """Seconds until the next thing is due; None when only the socket or another thread can bring news."""
        dues = [self._reader.tick()]
        if not self._live:
            dues.append(self._hello_budget.remaining_s())
        else:
            if reading:
                dues.append(self._writer.announcements_due_in_s())
            dues.append(self._keepalive.due_in_s() if reading else self._judge_unread())
        return min((due for due in dues if due is not None), default=None)

    def _judge_unread(self) -> float | None:
        """Judge a link that is not read; it is given up once what has reached the socket was read."""
        was_dead = self._unread.problem is not None
        due_s = self._unread.look()
        problem = self._unread.problem
        self._reader.lifecycle.silent(problem is not None)
        if problem is not None and not was_dead:
            log.warning(
                "the link that waits for the consumer is dead (%s); "
                "it is made anew once the consumer has taken what had arrived",
                problem,
            )
        return due_s

    def _give_up(self, words: str) -> None:
        """Give the link up, but only once everything that had reached the socket was read."""
        if self._receive() or self._reader.sink.lanes.full() or not self._live:
            return
        operation = "link" if self._stood_still_s is None else "stop"
        raise TransportError(operation, self._link.endpoint, words)

    def _check_time(self) -> None:
        if not self._live:
            if self._hello_budget.expired():
                raise HandshakeError(
                    f"no hello_ok within {self._options.connect_timeout_s:g} s of connecting: is this a stream server?"
                )
            return
        if self._was_reading and self._writer.announcements_due_in_s() == 0.0:
            self._writer.end_announcements()
        if self._writer.awaits_exits:
            self._writer.settle(self._counters.last_received)
        verdict = self._keepalive.verdict()
        if verdict is not None:
            raise TransportError("link", self._link.endpoint, verdict)
        if self._keepalive.wants_ping():
            self._ask(lambda: self._writer.control(PING, self._keepalive.ping_payload()))
        if self._keepalive.wants_app_ping():
            self._ask(self._writer.app_ping)
            self._keepalive.app_ping_sent()
        self._reader.lifecycle.silent(self._keepalive.stale())

    @staticmethod
    def _ask(send: Callable[[], None]) -> None:
        # A link that takes no more bytes is asked by them already: what waits in the buffer wants an answer too.
        with contextlib.suppress(SendBufferFull):
            send()

    # ── bytes in ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _receive(self) -> bool:
        """Read what is there, where the receive loop does not, and after a standstill; True when more may wait."""
        buffer = self._reader.buffer
        for _ in range(READS_IN_A_ROW):
            try:
                count = self._link.recv_into(buffer)
            except OSError as error:
                raise TransportError("link", self._link.endpoint, error.strerror or str(error)) from error
            if count is None:
                return False
            if count == 0:
                self._ended()
            self._take_in(buffer[:count])
            if self._reader.stopping or self._reader.sink.lanes.full():
                return False
            if count < len(buffer) and self._reader.give_up is None:
                # That was all; to be told so by another read would only keep those waiting who have just been woken.
                return False
        return True

    def _broken(self) -> None:
        """The receive loop found the end of the link."""
        cause = self._receive_loop.cause
        if not cause:
            self._ended()
        raise TransportError("link", self._link.endpoint, os.strerror(cause)) from OSError(cause, os.strerror(cause))

    def _ended(self) -> NoReturn:
        raise TransportError("link", self._link.endpoint, "the server ended the connection without a close frame")

    def _take_in(self, data: memoryview) -> None:
        sink = self._reader.sink
        self._receive_loop.take(data, sink.router if self._live else None, sink.lanes)
        self._note_received()

    def _note_received(self) -> None:
        """What the bytes mean that came since the last time: signs of life, and maybe the end of the link."""
        before, self._known = self._known, (self._receive_loop.received_bytes, self._receive_loop.message_ns)
        if self._known[0] == before[0]:
            return
        received_at, message_at = self._receive_loop.received_ns / 1e9, self._receive_loop.message_ns / 1e9
        if self._keepalive.asking:
            # An answer: the next question may be due before this one's time would have been over.
            self._timers_due_at = received_at
        self._keepalive.bytes_came(received_at)
        if self._known[1] != before[1]:
            self._keepalive.message_came(message_at)
            self._timers_due_at = min(self._timers_due_at, message_at + TIMERS_WITHIN_S)
        if self._parser.failure is not None:
            close_code, problem = self._parser.failure
            self._close_frame(close_code)
            raise ProtocolError(problem, close_code)

    # ── what the pipeline leaves to us ───────────────────────────────────────────────────────────────────────────────

    def _message(self, message: ServerMessage, received_ns: int) -> None:
        if not self._live:
            self._handle_handshake_message(message, received_ns)
            return
        note = self._observers.get(type(message))
        if note is None or not note(message):
            self._reader.sink.message(message, received_ns)

    def _observe_hello(self, message: HelloOk) -> bool:
        self._reader.greeted(message)
        return False

    def _observe_opened(self, message: PositionOpened) -> bool:
        self._writer.observe_opened(message)
        return False

    def _observe_closed(self, message: PositionClosed) -> bool:
        self._writer.observe(message)
        return False

    def _observe_exit(self, message: ExitSignalWithTx) -> bool:
        self._writer.observe_exit(message)
        self._writer.note_sale(message, time.monotonic_ns())
        return False

    def _observe_balance(self, message: BalanceUpdate) -> bool:
        self._writer.note_balance(message)
        return False

    def _observe_unknown(self, _message: UnknownMessage) -> bool:
        self._counters.unknown += 1
        return False

    def _observe_error(self, message: ErrorMessage) -> bool:
        remedy = ERROR_REMEDIES.get(message.code, "")
        log.warning("the server reports %s: %s%s", shorten(message.code), shorten(message.message), remedy)
        if message.code == SESSION_REPLACED:
            self._replaced = handshake_error(SESSION_REPLACED, shorten(message.message))
        return False

    def _observe_pong(self, message: Pong) -> bool:
        """True for the answer to a ping of our own: it measures, and is not the user's."""
        own, took_s = self._writer.pong_came()
        if took_s is not None:
            self._counters.app_round_trip_s = took_s
            # The server read its clock about half a round trip ago.
            self._counters.clock_offset_ms = message.server_time_ms - (time.time() - took_s / 2) * 1000
        return own

    def _handle_handshake_message(self, message: ServerMessage, received_ns: int) -> None:
        """Before ``hello_ok``: it, an error in its place, or something to keep until it comes."""
        if isinstance(message, ErrorMessage) and message.code != CAPACITY_EXCEEDED:
            raise handshake_error(message.code, shorten(message.message))
        if not isinstance(message, HelloOk):
            if len(self._early) >= MAX_EARLY_MESSAGES or self._receive_loop.received_bytes > MAX_EARLY_BYTES:
                came = f"{len(self._early) + 1} messages and {self._receive_loop.received_bytes} bytes"
                raise ProtocolError(f"{came} came and no hello_ok among them")
            self._early.append((message, received_ns))
            return
        self._live = True
        for early, _ in self._early:
            # Before what waits is sent: the server's first words may be that its position is gone.
            if isinstance(early, PositionClosed):
                self._writer.drop_pending(early)
        self._reader.opened(message)
        self._message(message, received_ns)
        for early, early_ns in self._early:
            self._message(early, early_ns)
        self._early.clear()
        # Only now: who waited for the session finds its first events in place.
        self._reader.ready.set()

    def _unreadable(self, error: DecodeError, payload: bytes) -> None:
        log.warning("a message was skipped: %s", error)
        told = self._reader.decode_failures.add(error, payload)
        # Kept before it is counted: whoever sees the count finds the message.
        self._counters.decode_errors += 1
        if told is not None:
            self._reader.sink.event(told)
        elif self._timers_due_at != 0.0:
            # It is told later, maybe without another byte of the link: when that is due must be asked.
            self._timers_due_at = 0.0
            self._reader.wake()
        self._reader.sink.unreadable(payload)

    def _frame(self, opcode: int, payload: bytes) -> None:
        if opcode == PING:
            self._ask(lambda: self._writer.control(PONG, payload))
        elif opcode == PONG:
            round_trip_s = self._keepalive.round_trip_s(payload)
            if round_trip_s is not None:
                self._counters.round_trip_s = round_trip_s
        elif opcode == CLOSE:
            self._closed_by_server(payload)
        elif opcode == BINARY:
            self._unreadable(DecodeError("a binary frame; the stream's messages are text"), payload)

    def _closed_by_server(self, payload: bytes) -> None:
        close_code = int.from_bytes(payload[:2], "big") if len(payload) >= 2 else None
        reason = shorten(payload[2:].decode("utf-8", "replace"))
        self._close_frame(close_code or NORMAL_CLOSURE)
        words = f"the server closed the connection: {reason}" if reason else "the server closed the connection"
        if SESSION_REPLACED in reason and self._replaced is None:
            self._replaced = handshake_error(SESSION_REPLACED, words)
        if not self._live:
            raise HandshakeError(f"{words} (close code {close_code}), in place of hello_ok")
        raise TransportError("link", self._link.endpoint, words, close_code=close_code)

    # ── the end ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _close_frame(self, close_code: int) -> None:
        if not self._close_sent:
            self._close_sent = True
            try:
                self._writer.control(CLOSE, struct.pack(">H", close_code))
            except SendBufferFull:
                log.debug("the link takes no close frame")

    def _say_goodbye(self) -> None:
        """Send a close frame and give the server a moment to answer it; then the socket goes down in any case."""
        self._close_frame(NORMAL_CLOSURE)
        budget = TimeBudget(self._options.close_timeout_s)
        buffer = self._reader.buffer
        # Nothing more is for the consumers, but for the answer.
        self._receive_loop.reads = False
        while not budget.expired():
            try:
                while (count := self._link.recv_into(buffer)) is not None:
                    frames = self._parser.feed(buffer[:count]) if count else []
                    if not count or any(opcode == CLOSE for opcode, _ in frames):
                        return
                    if budget.expired():
                        return
            except OSError:
                return
            self._serve(reading=True, timeout_s=budget.remaining_s())
