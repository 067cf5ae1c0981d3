"""The session: a connection with positions, deadlines, liquidity, and three ways to consume."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from types import TracebackType
from typing import TYPE_CHECKING

from lasersell_sync.exceptions import ConcurrencyError, ConfigurationError, StreamClosed, WaitTimeoutError
from lasersell_sync.messages import Limits, PnlUpdate, SlippageBand, StrategyConfig, UpdateStrategy
from lasersell_sync.positions import PositionHandle
from lasersell_sync.pubkeys import require_pubkey
from lasersell_sync.runtime.fork_guard import NO_THREAD, ProcessGuard
from lasersell_sync.runtime.locks import signal_safe_lock
from lasersell_sync.runtime.log import logger
from lasersell_sync.runtime.timeouts import TimeBudget
from lasersell_sync.session.dispatch import Dispatch, Dispatcher, Handler, HandlerRegistry
from lasersell_sync.session.events import EventMessage, StreamEvent, event_type
from lasersell_sync.session.health import Concern, Concerns, Health
from lasersell_sync.session.message_applier import MessageApplier
from lasersell_sync.strategy import strategy_config_from_optional, validate_strategy
from lasersell_sync.stream.client import StreamClient
from lasersell_sync.stream.connection import PositionSelector, StreamConnection, StreamSender, select_position
from lasersell_sync.stream.connection_events import DecodeFailure
from lasersell_sync.stream.event_queue import EventQueue
from lasersell_sync.stream.lifecycle import ConnectionState
from lasersell_sync.stream.options import StreamConfigure
from lasersell_sync.stream.stats import StreamStats

if TYPE_CHECKING:
    from typing_extensions import Self

    from lasersell_sync.session.typed_events import EventName, On, WaitFor

__all__ = ["StreamSession"]

log = logger("session")


class _End(Enum):
    """What ``close`` ends when it is given no position."""

    SESSION = "session"


class StreamSession:
    """Positions and typed events over one connection.

    Consume it in one of three ways: handlers (``on`` and ``start`` or ``run``), the queue (``events``), or a loop
    (``recv``, ``for event in session``). Events wait in the lanes until one is chosen; a second way raises
    ConcurrencyError. State (``positions``, ``pnl``, bands) is kept by the reader, so it is current however far behind
    the consumer is.

    Threads: every method from any thread.
    """

    def __init__(self, connection: StreamConnection, *, dispatch: Dispatch = "thread") -> None:
        if dispatch not in ("thread", "per_lane", "inline"):
            raise ConfigurationError("dispatch", f"{dispatch!r}: use 'thread', 'per_lane' or 'inline'")
        options = connection.options
        self._connection = connection
        self._dispatch: Dispatch = dispatch
        self._events: EventQueue[StreamEvent] = EventQueue(
            low_lane=options.low_lane,
            low_capacity=options.low_capacity,
            high_capacity=options.high_capacity,
            on_room=connection.reader.wake,
            on_use=lambda: self._claim("the event queue"),
            chosen=False,
        )
        self._registry = HandlerRegistry()
        self._dispatcher = Dispatcher(
            self._events, self._registry, self._report, connection.reader.fail, connection.reader.look_soon
        )
        self._state = MessageApplier(
            connection,
            self._events,
            watch_handlers=lambda: self._dispatcher.watch(options.handler_stuck_after_s),
            end_handlers=self._dispatcher.report_rest,
            on_handler_error=self._dispatcher.failed,
        )
        # Guards the choice of a way to consume.
        self._style_lock = signal_safe_lock()
        self._style: str | None = None
        self._started = False
        #: Says that the handlers are called, to who watches that; None while there are none, and once they are.
        self._handlers_called: Callable[[], None] | None = None
        #: What works beside the session and has a say in its health.
        self._concerns = Concerns()
        self._guard = ProcessGuard("session")
        #: Threads that are in ``close``.
        self._closing: set[int] = set()

    # ── life ─────────────────────────────────────────────────────────────────────────────────────────────────────

    @classmethod
    def connect(cls, client: StreamClient, configure: StreamConfigure, *, dispatch: Dispatch = "thread") -> Self:
        """Open a session.

        Args:
            client: whose key and endpoint.
            configure: wallets, strategy, deadline.
            dispatch: where handlers run: ``"thread"`` (one dispatcher), ``"per_lane"`` (a second one for the low
                lane), ``"inline"`` (on the reader: fastest, and a slow handler stops the reading).

        Raises:
            Exception: as ``StreamClient.connect``.
        """
        if not callable(getattr(client, "prepare", None)) or isinstance(client, type):
            raise ConfigurationError("client", _not_a_client(client))
        return cls.over(client.prepare(configure), dispatch=dispatch)

    @classmethod
    def over(cls, connection: StreamConnection, *, dispatch: Dispatch, waits_for_consumer: bool = False) -> Self:
        """Open a connection that was prepared, and a session over it; ``connect`` and a replay call this.

        Args:
            connection: not open yet.
            dispatch: as ``connect``.
            waits_for_consumer: lossless lanes wait for their first consumer, however long that takes.
        """
        session = cls(connection, dispatch=dispatch)
        session._state.consumer.waits_for_consumer = waits_for_consumer
        try:
            connection.open(session._state)
        except BaseException:
            session._state.deadlines.stop()
            raise
        return session

    @classmethod
    def from_connection(cls, connection: StreamConnection, *, dispatch: Dispatch = "thread") -> Self:
        """A session over a connection that is open already; it takes over what waits there, in order.

        Messages that were read with ``recv`` before are unknown to the session.

        Raises:
            ConcurrencyError: the connection belongs to a session already.
        """
        session = cls(connection, dispatch=dispatch)
        connection.attach(lambda: session._state)
        return session

    def close(self, handle: PositionHandle | _End = _End.SESSION, *, timeout: float | None = 5.0) -> None:
        """End the session; with a handle it is ``stop_tracking``, as in the official SDKs.

        Idempotent, from any thread, also from a handler. The socket is down in under a second; what had arrived can
        still be consumed. In a forked child it closes the child's copies of the descriptors, and nothing else. In a
        signal handler that interrupted a call of this session it waits for nothing: the session ends when that call
        returns.

        Args:
            handle: a position to stop tracking instead. None is refused: a look-up that found nothing must not end the
                session.
            timeout: seconds to wait for handlers; one that still runs then is named in a warning and left behind.

        Raises:
            ConfigurationError: ``handle`` is given and names no position.
        """
        if not isinstance(handle, _End):
            self.stop_tracking(handle)
            return
        if self._guard.is_child:
            self._connection.let_go()
            return
        thread = threading.get_ident()
        parts = (self._connection, self._state, self._dispatcher)
        if thread in self._closing or any(part.is_interrupted for part in parts):
            self._connection.stop_soon()
            return
        self._closing.add(thread)
        try:
            self._close(timeout)
        finally:
            self._closing.discard(thread)

    def _close(self, timeout: float | None) -> None:
        self._state.deadlines.stop()
        budget = TimeBudget(timeout)
        self._connection.close(timeout)
        stuck = self._dispatcher.join(budget.remaining_s())
        if stuck:
            log.warning("handlers still run %s s after close() and are left behind: %s", timeout, ", ".join(stuck))

    def stop_tracking(self, position: PositionSelector) -> None:
        """Ask the server to stop tracking a position. Nothing is sold; the session goes on.

        Args:
            position: its handle, token account or id.

        Raises:
            ConfigurationError: it names no position (None, for one).
            Exception: as every command of ``StreamSender``.
        """
        self.sender().close_position(position)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ── handlers ─────────────────────────────────────────────────────────────────────────────────────────────────

    if TYPE_CHECKING:
        on: On
    else:

        def on(self, event, handler=None):
            """Call ``handler(event)`` for each event of a type; also a decorator.

            Args:
                event: a type's name (``"pnl_update"``, ``"disconnected"``), its class (``PnlUpdate``), or ``"*"`` for
                    every event, connection events included, after the specific handlers. Type checkers know the
                    message of each (``EventName`` lists the names).
                handler: called with a StreamEvent, on the thread that ``dispatch`` chose; its return value is ignored.

            Raises:
                ValueError: there is no such event; the nearest name is given.
            """
            if handler is not None:
                return self._register(event, handler)
            event_type(event)
            return lambda decorated: self._register(event, decorated)

    def _register(self, event: str | type, handler: Handler) -> Handler:
        self._registry.add(event, handler)
        with self._style_lock:
            if not self._started and self._handlers_called is None:
                self._handlers_called = self.expect_start(
                    "handlers are registered and nobody calls them: call session.start() or session.run()"
                )
        self._connection.reader.look_soon()
        return handler

    def _settle_handlers(self) -> None:
        """Handlers are called, or there is none any more."""
        settle, self._handlers_called = self._handlers_called, None
        if settle is not None:
            settle()

    def off(self, event: EventName | type, handler: Handler | None = None) -> None:
        """Forget a handler, or with None all handlers of that type."""
        self._registry.remove(event, handler)
        if self._registry.is_empty():
            self._settle_handlers()

    def start(self) -> None:
        """Call handlers from now on, beginning with what waits; returns at once.

        Raises:
            ConcurrencyError: another way to consume was used, or it was started before.
        """
        self._claim_start()
        if self._dispatch == "inline":
            self._go_inline()
            return
        try:
            self._dispatcher.start(self._dispatch)
        except (RuntimeError, MemoryError) as error:
            with self._style_lock:
                self._started = False
            raise ConcurrencyError(f"{NO_THREAD}: {error or 'out of memory'}") from error

    def run(self) -> None:
        """As ``start``, on this thread, until the session is closed; Ctrl-C works.

        Raises:
            Exception: the cause, when the session failed for good.
            ConcurrencyError: as ``start``.
        """
        self._claim_start()
        if self._dispatch != "inline":
            self._dispatcher.run(self._dispatch)
            return
        self._go_inline()
        error = self._state.memory.wait_end()
        if error is not None:
            raise error

    def _go_inline(self) -> None:
        """On the reader, so that no event overtakes those that wait."""

        def hand_over() -> None:
            self._state.router.handlers = self._registry.called
            for event in self._events.take_all():
                self._dispatcher.handle(event)

        self._connection.reader.run_soon(hand_over)

    def _claim_start(self) -> None:
        self._claim("handlers")
        with self._style_lock:
            if self._started:
                raise ConcurrencyError("start() or run() was called before; one dispatcher serves a session")
            self._started = True
        self._settle_handlers()

    def _claim(self, style: str) -> None:
        """The first way to consume that is used is the session's; another one would steal events from it."""
        self._guard.check()
        with self._style_lock:
            if self._style is None:
                self._style = style
                self._keep_everything()
            elif self._style != style:
                raise ConcurrencyError(
                    f"this session is consumed through {self._style}; {style} would steal its events"
                )

    def _keep_everything(self) -> None:
        """From now on no high-lane event is dropped; the first one tells how many were."""
        lagged = self._events.choose()
        if lagged is not None:
            self._events.put_first(StreamEvent(lagged.type, lagged, None, time.monotonic_ns()))

    # ── queue and loop ───────────────────────────────────────────────────────────────────────────────────────────

    @property
    def events(self) -> EventQueue[StreamEvent[EventMessage]]:
        """The lanes as a queue: ``get``, ``get_nowait``, ``get_batch``, ``task_done``, ``join`` as queue.Queue's."""
        return self._events

    def recv(self, timeout: float | None = None) -> StreamEvent[EventMessage] | None:
        """The next event; None once the session was closed and everything was read.

        Args:
            timeout: seconds to wait; None for ever.

        Raises:
            WaitTimeoutError: none within that time; a ``queue.Empty`` and a ``TimeoutError``, too.
            Exception: the cause, when the session failed for good.
            ConcurrencyError: another way to consume was used.
        """
        self._claim("recv")
        try:
            return self._events.take(timeout_s=timeout)
        except StreamClosed:
            return None
        except queue.Empty:
            raise self._timed_out("an event", timeout) from None

    def __iter__(self) -> Iterator[StreamEvent[EventMessage]]:
        while (event := self.recv()) is not None:
            yield event

    if TYPE_CHECKING:
        wait_for: WaitFor
    else:

        def wait_for(self, wanted, timeout=None, *, only_new=False):
            """Wait until something happens, without consuming it; works beside every way to consume.

            High-lane events that happened before the call are found too (the latest 1 024), but none twice: each call
            goes on after the event that the last one returned. Low-lane events count from the call on.

            Args:
                wanted: an event's name or class, or a predicate, called on this thread. Type checkers know the message
                    of a name or class.
                timeout: seconds; None for ever.
                only_new: only events from the call on, whatever happened before; other calls' places are not moved.

            Raises:
                WaitTimeoutError: it did not happen in time; a ``queue.Empty`` and a ``TimeoutError``, too.
                StreamClosed: the session was closed; its cause, when it failed.
            """
            return self._wait(wanted, timeout, only_new=only_new)

    def _wait(
        self, wanted: str | type | Callable[[StreamEvent], bool], timeout: float | None, *, only_new: bool
    ) -> StreamEvent:
        self._guard.check()
        if callable(wanted) and not isinstance(wanted, type):
            sought: Callable[[StreamEvent], bool] | str = wanted
            words = "an event that the predicate accepts"
        else:
            sought = event_type(wanted)
            words = f"an event {sought!r}"
        try:
            return self._state.memory.wait(sought, timeout, only_new=only_new)
        except queue.Empty:
            raise self._timed_out(words, timeout) from None

    def _timed_out(self, wanted: str, timeout_s: float | None) -> WaitTimeoutError:
        return WaitTimeoutError(wanted, timeout_s or 0.0, self.status.value)

    def tap(
        self, listener: Callable[[StreamEvent], None], *, caught_up: Callable[[], None] | None = None
    ) -> Callable[[], None]:
        """Let ``listener(event)`` hear every high-lane event beside the session's consumer, whoever that is.

        It is told the events that happened before first (the latest 1 024), so one that is set right after ``connect``
        misses nothing; then each event before the consumer gets it.

        Args:
            listener: called on the reader thread: it must be quick. One that raises is logged, and hears nothing more.
            caught_up: called once on the reader thread, behind the last event that happened before.

        Returns:
            Call it to end this; a call that is under way, and those of the reader's present round, still come.
        """
        self._guard.check()
        reader, taps = self._connection.reader, self._state.taps
        removers: list[Callable[[], None]] = []

        def begin() -> None:
            removers.append(taps.add(listener))
            for event in self._state.memory.remembered():
                if not taps.tell(listener, event):
                    break
            if caught_up is not None:
                caught_up()

        def end() -> None:
            for remove in removers:
                remove()

        # On the reader: no event falls between what is remembered and what comes, and the end follows the beginning.
        reader.run_soon(begin)
        return lambda: reader.run_soon(end)

    def expect_start(self, problem: str) -> Callable[[], None]:
        """Warn, and tell ``health()``, unless the returned function is called within a few seconds.

        For what works beside a session and does nothing until it is started, such as ``AutoSeller``.

        Args:
            problem: the text of the warning: what was not started, and the call that is missing.
        """
        self._guard.check()
        return self._state.start_watch.expect(problem)

    def report_health(self, reporter: Callable[[], Iterable[Concern]]) -> Callable[[], None]:
        """Have what works beside the session asked by ``health()``, such as an ``AutoSeller``.

        Args:
            reporter: returns what whoever watches should know now; called on the thread of ``health()``, so it must be
                quick and thread-safe.

        Returns:
            Call it to end this.
        """
        return self._concerns.add(reporter)

    # ── state ────────────────────────────────────────────────────────────────────────────────────────────────────

    def positions(self) -> list[PositionHandle]:
        """All open positions now."""
        self._guard.check()
        return self._state.table.handles()

    def positions_for_wallet_mint(self, wallet: str, mint: str) -> list[PositionHandle]:
        """Open positions of one wallet in one token."""
        wanted = require_pubkey("wallet", wallet), require_pubkey("mint", mint)
        return [handle for handle in self.positions() if (handle.wallet_pubkey, handle.mint) == wanted]

    def position(self, wallet: str, token_account: str) -> PositionHandle | None:
        """The newest handle of one position; None when it is not open."""
        return self._state.table.by_key((wallet, token_account))

    def pnl(self, handle: PositionSelector) -> PnlUpdate | None:
        """The newest profit and loss of a position; None before the first, and after its close.

        Args:
            handle: the position: its handle, token account or id. The three methods below take the same.
        """
        found = self._id_of(handle)
        return None if found is None else self._state.market.pnl(found)

    def get_slippage_bands(self, position_id: PositionSelector) -> tuple[SlippageBand, ...] | None:
        """The newest slippage bands of a position; None before its first snapshot."""
        found = self._id_of(position_id)
        return None if found is None else self._state.market.bands(found)

    def get_max_sell_at_slippage(self, position_id: PositionSelector, slippage_bps: int) -> int | None:
        """Tokens (atomic units) sellable within one of the server's bands; None when it has no such band."""
        found = self._id_of(position_id)
        return None if found is None else self._state.market.max_sell_at_slippage(found, slippage_bps)

    def get_liquidity_trend(self, position_id: PositionSelector) -> str | None:
        """``growing``, ``stable`` or ``draining``; None before the first snapshot."""
        found = self._id_of(position_id)
        return None if found is None else self._state.market.trend(found)

    def _id_of(self, position: PositionSelector) -> int | None:
        """The present id of a position that the caller named; None: it is not open."""
        if isinstance(position, PositionHandle):
            table = self._state.table
            current = table.by_key(position.key)
            return None if current is None or not table.has_id(position.key) else current.position_id
        account, position_id = select_position(position)
        return position_id if account is None else self._connection.position_id_of(account)

    @property
    def connection(self) -> StreamConnection:
        """The connection below; its ``recv`` belongs to this session."""
        return self._connection

    @property
    def status(self) -> ConnectionState:
        """Where the connection stands now."""
        return self._connection.status

    @property
    def limits(self) -> Limits | None:
        """What the tier allows."""
        return self._connection.limits

    @property
    def session_id(self) -> int | None:
        """The latest session's id; a reconnect brings a new one."""
        return self._connection.session_id

    def stats(self) -> StreamStats:
        """Counters and times; see StreamStats."""
        return self._connection.stats()

    def unparsed(self) -> list[DecodeFailure]:
        """The latest messages that could not be read, oldest first, with their raw bytes."""
        return self._connection.unparsed()

    def health(self) -> Health:
        """A small value for a ``/healthz`` page: ``ok``, and if not, why."""
        stats = self.stats()
        return Health.judge(
            status=self.status,
            error=self._connection.reader.error,
            stuck_handlers=self._dispatcher.stuck(),
            stale_positions=sum(handle.stale for handle in self.positions()),
            handler_errors=self._dispatcher.errors,
            not_started=self._state.start_watch.problems(),
            reading_stopped_s=self._state.consumer.stopped_s(),
            feed_silent_s=self._state.feed.silent_s(),
            concerns=self._concerns.all(),
            stats=stats,
        )

    # ── commands ─────────────────────────────────────────────────────────────────────────────────────────────────

    def sender(self) -> StreamSender:
        """Sends every kind of command."""
        return self._connection.sender()

    def request_exit_signal(self, handle: PositionHandle, slippage_bps: int | None = None) -> None:
        """Ask for an exit now; ``slippage_bps`` in basis points, None for the server's choice."""
        self.sender().request_exit_signal(handle, slippage_bps)

    def update_strategy(self, strategy: StrategyConfig, deadline_timeout_sec: float | None = None) -> None:
        """Replace the strategy of all positions, and with a number the deadline of all positions.

        Raises:
            StrategyError: the strategy, or the deadline, cannot work; nothing was changed.
        """
        deadlines = self._state.deadlines
        deadline = deadlines.timeout_s if deadline_timeout_sec is None else deadline_timeout_sec
        # The sender would check it with the deadline of before.
        self.sender().send(UpdateStrategy(strategy=validate_strategy(strategy, deadline)))
        if deadline_timeout_sec is not None:
            # Only now: if the command fails there is nothing to take back, and no other thread's deadline is undone.
            deadlines.set_timeout(deadline)

    def update_strategy_optional(
        self,
        *,
        target_profit_pct: float | None = None,
        stop_loss_pct: float | None = None,
        trailing_stop_pct: float | None = None,
        deadline_timeout_sec: float | None = None,
    ) -> None:
        """As ``update_strategy`` from what is set; None switches a condition off (the deadline: leaves it)."""
        strategy = strategy_config_from_optional(
            target_profit_pct=target_profit_pct, stop_loss_pct=stop_loss_pct, trailing_stop_pct=trailing_stop_pct
        )
        self.update_strategy(strategy, deadline_timeout_sec)

    def _report(self, event: StreamEvent) -> None:
        """A handler_error, from whichever thread the handler ran on; with inline dispatch that is the reader."""
        if self._state.router.handlers is not None:
            self._state.router.high(event.type, event)
        else:
            self._events.put_high(event)

    def __repr__(self) -> str:
        return f"<StreamSession {self.status.value} positions={len(self.positions())}>"


def _not_a_client(value: object) -> str:
    if isinstance(value, StreamConfigure):
        return "a StreamConfigure comes second. Write StreamSession.connect(client, configure)"
    kind = f"the class {value.__name__}" if isinstance(value, type) else f"a {type(value).__name__}"
    return f"{kind} is not a StreamClient. Write StreamSession.connect(StreamClient(api_key), configure)"
