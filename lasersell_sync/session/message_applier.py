"""The reader's side of a session: what each message means for positions, market view and deadlines."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from lasersell_sync._backend import EventRouter, InstanceFactory
from lasersell_sync.codec import SERVER_DECODER
from lasersell_sync.exceptions import StreamError
from lasersell_sync.messages import (
    BalanceUpdate,
    ExitSignalWithTx,
    LiquiditySnapshot,
    PnlUpdate,
    PositionClosed,
    PositionOpened,
    RequestExitSignal,
    ServerMessage,
    TradeTick,
    UnknownMessage,
)
from lasersell_sync.positions import PositionHandle, PositionKey
from lasersell_sync.runtime.log import logger
from lasersell_sync.session.deadlines import DeadlineClock
from lasersell_sync.session.event_history import EventHistory
from lasersell_sync.session.events import SessionEvent, StreamEvent
from lasersell_sync.session.exit_dedup import ExitDedup, recognise_exit
from lasersell_sync.session.health import FeedWatch, StartWatch
from lasersell_sync.session.position_tracker import PositionTracker
from lasersell_sync.stream.connection import StreamConnection
from lasersell_sync.stream.connection_events import Closed, Connected, ConnectionEvent, Disconnected, Failed
from lasersell_sync.stream.event_queue import LOW_LANE_CLASSES, UNKNOWN, EventQueue, unknown_slot
from lasersell_sync.stream.sink import LaneSink, Taps

__all__ = ["MessageApplier"]

log = logger("session")

#: For events of wire messages, which refer to nothing mutable.
_make_event = InstanceFactory(StreamEvent, ("type", "message", "handle", "received_ns"))


class MessageApplier(LaneSink[StreamEvent]):
    """The reader's side of a session: applies each message to the state, then delivers it as an event."""

    def __init__(
        self,
        connection: StreamConnection,
        lanes: EventQueue[StreamEvent],
        watch_handlers: Callable[[], float | None],
        end_handlers: Callable[[], None],
        on_handler_error: Callable[[Any, StreamEvent, BaseException], None],
    ) -> None:
        super().__init__(lanes)
        self.deadlines = DeadlineClock(self._request_exit, on_death=connection.reader.fail)
        self.deadlines.set_timeout(connection.deadline_timeout_sec)
        connection.follow_deadline(lambda: self.deadlines.timeout_s)
        writer = connection.reader.writer
        self._sales = writer.sales
        self._tracker = PositionTracker(
            lanes, self.deadlines, self._sales, connection.reader.counters, connection.server_time_ms, self._tell
        )
        self.table = self._tracker.table
        self.market = self._tracker.market
        self.memory = EventHistory()
        #: What was set up beside the session and must be started.
        self.start_watch = StartWatch()
        #: Hear every high-lane event beside the consumer.
        self.taps: Taps[StreamEvent] = Taps()
        # Does what ``_on_frequent`` would do for a known position that is not stale.
        self.router = EventRouter(
            SERVER_DECODER,
            {
                PnlUpdate: (PnlUpdate.type, self.market.updates),
                LiquiditySnapshot: (LiquiditySnapshot.type, self.market.snapshots),
                TradeTick: (TradeTick.type, None),
            },
            "position_id",
            lanes,
            event=_make_event,
            handles=self.table.live_handles,
            watchers=self.memory.lines,
            # Of a session that is open: what the connection notes, then what it means here.
            rules={
                BalanceUpdate: self._on_balance,
                PositionOpened: self._on_live_opened,
                ExitSignalWithTx: self._on_exit,
            },
            memory=self.memory,
            on_error=on_handler_error,
        )
        self._writer = writer
        self._connection = connection
        self._watch_handlers = watch_handlers
        self._end_handlers = end_handlers
        self._exits = ExitDedup()
        #: Notices that no price comes.
        self.feed = FeedWatch(connection.options.feed_silent_after_s)
        #: Low-lane messages that the router left to us.
        self._frequent = 0
        # What each type means; a type that is not here is delivered, and means nothing to the session.
        self._appliers: dict[type, Callable[[Any, int], None]] = {
            **dict.fromkeys(LOW_LANE_CLASSES, self._on_frequent),
            BalanceUpdate: self._on_balance,
            PositionOpened: self._on_opened,
            PositionClosed: self._on_closed,
            ExitSignalWithTx: self._on_exit,
            UnknownMessage: self._on_unknown,
        }

    @property
    def is_interrupted(self) -> bool:
        """True in a signal handler that interrupted a call on this thread which holds what the reader may wait for."""
        return self.table.is_held_here or self.memory.is_held_here or self.deadlines.is_held_here

    # ── the reader's sink ────────────────────────────────────────────────────────────────────────────────────────

    def message(self, message: ServerMessage, received_ns: int) -> None:
        """Apply a wire message, then deliver it with the position it is about."""
        apply = self._appliers.get(type(message))
        if apply is None:
            self._deliver(message, None, received_ns)
        else:
            apply(message, received_ns)

    def event(self, event: ConnectionEvent) -> None:
        """Deliver the connection's news, and do what it means for the session."""
        if isinstance(event, Connected) and event.reconnected:
            self._exits.new_connection()
            self._tracker.reconnected(gap_s=event.gap_seconds, grace_s=self._connection.options.resync_grace_s)
        elif isinstance(event, Disconnected):
            self._tracker.disconnected()
        elif isinstance(event, (Closed, Failed)):
            self._end_handlers()
        self._tell(event)
        if isinstance(event, Connected):
            self.feed.restart()
            self.deadlines.retry_due()

    def tick(self) -> float | None:
        """What is due: ``lagged``, the end of a resync, handlers that hang, a silent feed."""
        resync_due_s = self._tracker.resync_due_in_s()
        if resync_due_s is not None and resync_due_s <= 0:
            self._tell(self._tracker.end_resync())
            resync_due_s = None
        watched = (self._watch_handlers(), self.start_watch.tick(), self._watch_feed())
        dues = [super().tick(), *watched, resync_due_s, self.deadlines.tick()]
        return min((due for due in dues if due is not None), default=None)

    @property
    def followed(self) -> bool:
        """True while somebody follows the events without taking them: an AutoSeller, or ``wait_for``."""
        return self.taps.hearer is not None or bool(self.memory.lines)

    def _watch_feed(self) -> float | None:
        """Tell a silent feed; seconds until there may be one (None: nothing is awaited)."""
        reader = self._connection.reader
        if not reader.lifecycle.in_session or reader.hello is None or self.consumer.stopped_s() is not None:
            self.feed.restart()
            return None
        silent, due_s = self.feed.look(
            count=self.router.frequent + self._frequent,
            positions=len(self.table.live_handles),
            pnl_flush_ms=reader.hello.limits.pnl_flush_ms,
        )
        if silent is not None:
            words = f"no price of {silent.positions} open positions came for {silent.silent_seconds:.0f} s"
            log.warning("%s, though the server answers", words)
            self._tell(silent)
            if self._connection.options.reconnect_on_feed_silent:
                reader.give_up = words
        return due_s

    def _tell(self, event: ConnectionEvent | SessionEvent) -> None:
        told: StreamEvent = StreamEvent(event.type, event, None, time.monotonic_ns())
        self._remember(told)
        self.router.high(event.type, told)
        # Not everything comes as part of a batch.
        self.lanes.wake()

    def finish(self, error: BaseException | None) -> None:
        """Nothing follows: wake everyone who waits."""
        super().finish(error)
        self.deadlines.stop()
        self.memory.end(error)

    # Remembered before they are delivered: an inline handler may never return.

    def _deliver(self, message: Any, handle: PositionHandle | None, received_ns: int) -> None:
        """To the high lane, or to its handlers."""
        if self.taps.hearer is None:
            self.router.deliver(message.type, message, handle, received_ns)
            return
        event: StreamEvent = _make_event(message.type, message, handle, received_ns)
        self._remember(event)
        self.router.high(message.type, event)

    def _remember(self, event: StreamEvent) -> None:
        self.memory.add(event)
        hear = self.taps.hearer
        if hear is not None:
            hear(event)

    def _deliver_low(
        self, kind: str, message: Any, handle: PositionHandle | None, received_ns: int, *, slot: int | None
    ) -> None:
        event: StreamEvent = _make_event(kind, message, handle, received_ns)
        self.memory.add(event, low=True)
        self.router.low(kind, event, slot)

    # What the router hands over most often is delivered without a call of ``_deliver``.

    # ── what a message means ─────────────────────────────────────────────────────────────────────────────────────

    def _on_frequent(self, message: PnlUpdate | LiquiditySnapshot | TradeTick, received_ns: int) -> None:
        """One that the router left to us: of a stale, closed or unknown position, or somebody waits for events."""
        self._frequent += 1
        handle = self.table.mark_live(self.table.find(message.position_id))
        if handle is None and self.table.was_closed(message.position_id):
            # Nothing about a position follows its position_closed; the server's late ones are only counted.
            self._connection.reader.counters.late += 1
            return
        if handle is not None and isinstance(message, PnlUpdate):
            self.market.updates.put(message.position_id, message)
        elif handle is not None and isinstance(message, LiquiditySnapshot):
            self.market.snapshots.put(message.position_id, message)
        self._deliver_low(message.type, message, handle, received_ns, slot=message.position_id)

    def _on_unknown(self, message: UnknownMessage, received_ns: int) -> None:
        self._deliver_low(UNKNOWN, message, None, received_ns, slot=unknown_slot(message))

    def _on_balance(self, message: BalanceUpdate, received_ns: int) -> None:
        handle = self.table.balance(message)
        if self.taps.hearer is None:
            self.router.deliver(message.type, message, handle, received_ns)
        else:
            self._deliver(message, handle, received_ns)

    def _on_live_opened(self, message: PositionOpened, received_ns: int) -> None:
        # Once its deadline is cancelled, no request for an earlier opening comes any more: what came is dropped here.
        handle = self.table.announced_again(message)
        if handle is None:
            handle = self._tracker.opened(message)
            self._writer.observe(message)
        else:
            self._writer.observe_repeat(message)
            if self._tracker.resync is not None:
                self._tracker.repeated(handle)
        if self.taps.hearer is None:
            self.router.deliver(message.type, message, handle, received_ns)
        else:
            self._deliver(message, handle, received_ns)

    def _on_opened(self, message: PositionOpened, received_ns: int) -> None:
        handle = self.table.announced_again(message)
        if handle is None:
            handle = self._tracker.opened(message)
        else:
            self._tracker.repeated(handle)
        self._deliver(message, handle, received_ns)

    def _on_closed(self, message: PositionClosed, received_ns: int) -> None:
        self._deliver(message, self._tracker.closed(message), received_ns)

    def _on_exit(self, message: ExitSignalWithTx, received_ns: int) -> None:
        """In one piece: a sale waits for it, and on a quiet link every further function is code that has gone cold."""
        handle = self.table.live_handles.get(message.position_id)
        if (
            handle is None
            or handle.token_account != message.token_account
            or handle.wallet_pubkey != message.wallet_pubkey
        ):
            handle = self.table.exit_of(message)
        account = message.token_account if handle is None else handle.token_account
        if self._exits.is_repeat(message, account):
            self._connection.reader.counters.duplicates += 1
            log.info("an exit signal of position %d came again; it was delivered once", message.position_id)
            return
        if self._writer.awaits_exits:
            self._writer.observe(message)
        if self.taps.hearer is None:
            self.router.deliver(message.type, message, handle, received_ns)
        else:
            self._deliver(message, handle, received_ns)
        # The sale does not wait for this.
        if handle is not None and not message.watched:
            key = (handle.wallet_pubkey, handle.token_account)
            sale = self._sales.known.get(key)
            if sale is None or message.position_tokens < sale.position_tokens:
                self._sales.signalled(key, message, received_ns)
            else:
                sale.signalled(message, received_ns)

    def unreadable(self, payload: bytes) -> None:
        """An unreadable message that is recognisably an exit signal: the sale must not be lost with it."""
        lost = recognise_exit(payload)
        if lost is None or not self._exits.may_ask_again(lost.token_account or lost.position_id):
            return
        log.warning("an exit signal of position %d could not be read: asking for it again", lost.position_id)
        try:
            self._connection.sender().request_exit_signal(lost.token_account or lost.position_id)
        except StreamError as error:
            log.warning("the exit of position %d could not be asked for again: %s", lost.position_id, error)

    def _request_exit(self, key: PositionKey) -> bool:
        """A deadline fell due; on the deadline thread. True once the request is sent, or is held for the next link."""
        if self.table.by_key(key) is None:
            return True
        log.info("the deadline of token account %s is due: asking for its exit", key.token_account)
        try:
            self._connection.command(RequestExitSignal(token_account=key.token_account), when_announced=True)
        except StreamError as error:
            log.warning("the deadline of token account %s could not be met now: %s", key.token_account, error)
            return False
        return True
