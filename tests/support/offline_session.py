"""A session without threads, sockets or real time: a test is its server, its link, its clock and its deadline thread."""

from __future__ import annotations

import json
from typing import Any
from unittest import mock

from lasersell_sync import StrategyConfig, StreamConfigure, StreamEvent, StreamOptions
from lasersell_sync.codec import server_message_from_text
from lasersell_sync.messages import ClientMessage, ServerMessage
from lasersell_sync.positions import PositionKey
from lasersell_sync.session import message_applier as state_module
from lasersell_sync.session.deadlines import DeadlineClock
from lasersell_sync.session.message_applier import MessageApplier
from lasersell_sync.stream.connection import StreamConnection
from lasersell_sync.stream.connection_events import Connected, Disconnected
from lasersell_sync.stream.event_queue import EventQueue
from tests.support.stream_server import WALLET, hello

STRATEGY = StrategyConfig(target_profit_pct=50.0, stop_loss_pct=20.0)


class _Link:
    """Takes everything."""

    unsent_bytes = 0

    def flush(self) -> None:
        """Nothing waits in here."""

    def send(self, data: memoryview) -> int:
        return len(data)

    def close(self) -> None:
        """Nothing to close."""


class _Deadlines(DeadlineClock):
    """Fires when it is told to."""

    def _start_thread(self) -> None:
        """No thread."""

    def fire_due(self) -> None:
        while True:
            with self._lock:
                due = self._due(self._clock())
            if due is None:
                return
            self._meet(*due)

    def has_fired(self, key: PositionKey) -> bool:
        return key in self._fired


class OfflineSession:
    """The real session state, desired state and writer; everything else is the test's.

    Args:
        deadline_s: of every position.
        stable_after_s: as in StreamOptions.
    """

    def __init__(self, *, deadline_s: float, stable_after_s: float) -> None:
        self.now_s = 1000.0
        #: Commands that were written to the present link, oldest first.
        self.wire: list[dict[str, Any]] = []
        #: High-lane events since the last look.
        self.events: list[StreamEvent] = []
        options = StreamOptions(stable_after_s=stable_after_s)
        configure = StreamConfigure([WALLET], STRATEGY, deadline_timeout_sec=deadline_s)
        self.connection = StreamConnection(url="ws://localhost", api_key="key", configure=configure, options=options)
        self.writer = self.connection.reader.writer
        clock = lambda: self.now_s  # noqa: E731
        desired = self.writer._desired
        desired._clock = self.writer._clock = clock
        desired.sales._clock_ns = lambda: int(self.now_s * 1e9)
        self.writer._write_text = self._write  # type: ignore[method-assign]
        self.lanes: EventQueue[StreamEvent] = EventQueue(
            low_lane="conflate", low_capacity=10_000, high_capacity=10_000, on_room=lambda: None
        )
        with mock.patch.object(state_module, "DeadlineClock", lambda *a, **k: _Deadlines(*a, **k, clock=clock)):
            self.state = MessageApplier(self.connection, self.lanes, lambda: None, lambda: None, lambda *_: None)
        self.connection.reader.sink = self.state
        assert isinstance(self.state.deadlines, _Deadlines)
        self.deadlines = self.state.deadlines
        self._sessions = 0

    def close(self) -> None:
        self.connection.reader.wake_up.close()

    def _write(self, text: str) -> bool:
        message = json.loads(text)
        if message["type"] != "configure":
            self.wire.append(message)
        return True

    # ── the reader ───────────────────────────────────────────────────────────────────────────────────────────────

    def connect(self) -> None:
        """What ``Reader`` and ``ConnectedLoop`` do when ``hello_ok`` comes."""
        self._sessions += 1
        self.wire.clear()
        self.writer.begin(_Link())  # type: ignore[arg-type]
        self.writer.go_live()
        greeting = server_message_from_text(json.dumps(hello(self._sessions)))
        self.state.event(
            Connected(hello=greeting, attempts=1, reconnected=self._sessions > 1, gap_seconds=0.0)  # type: ignore[arg-type]
        )
        self._look()

    def lose(self, alive_s: float) -> None:
        """The link ends; its latest byte came at ``alive_s``."""
        self.state.event(Disconnected(reason="lost"))
        self.writer.end(alive_s)
        self._look()

    def end_announcements(self) -> None:
        """The time for announcements is over."""
        self.writer.end_announcements()
        if self.state._tracker.resync_due_in_s() is not None:
            self.state._tell(self.state._tracker.end_resync())
        self._look()

    def receive(self, message: ServerMessage) -> StreamEvent | None:
        """A message on a live link, the way it goes; its event, if it is of the high lane."""
        received_ns = int(self.now_s * 1e9)
        if not self.state.router.take(message, received_ns):
            if message.type == "position_closed":
                self.writer.observe(message)
            self.state.message(message, received_ns)
        before = len(self.events)
        self._look()
        mine = [event for event in self.events[before:] if event.message is message]
        return mine[0] if mine else None

    def command(self, message: ClientMessage) -> None:
        self.connection.command(message)

    def pass_time(self, seconds: float) -> None:
        self.now_s += seconds
        self.deadlines.fire_due()

    def _look(self) -> None:
        while self.lanes.has("high"):
            self.events.append(self.lanes.pop("high"))

    def take_low(self) -> list[StreamEvent]:
        """Everything that waits in the low lane."""
        taken: list[StreamEvent] = []
        while self.lanes.has("low"):
            taken.append(self.lanes.pop("low"))
        return taken
