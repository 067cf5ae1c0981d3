"""Nobody takes the events: those who follow get all of them, and whoever should know is told."""

from __future__ import annotations

import queue
import threading
from typing import Any

import pytest

from lasersell_sync import ConnectionState, StreamEvent, StreamSession
from tests.faults.rigs import WebsocketsRig
from tests.support.stream_server import exit_signal, opened, pnl, text_frame
from tests.support.waiting import PATIENCE_S, until

CAPACITY = 50
FLOOD = 10 * CAPACITY


def flood(count: int = FLOOD) -> bytes:
    """Announcements, an exit behind them, and an update that means that all is read."""
    parts = [text_frame(opened(n, account=f"account-{n}")) for n in range(1, count + 1)]
    return b"".join((*parts, text_frame(exit_signal(1, account="account-1")), text_frame(pnl(1, 77))))


def all_read(session: StreamSession) -> bool:
    return any(
        (update := session.pnl(handle)) is not None and update.profit_units == 77 for handle in session.positions()
    )


@pytest.mark.parametrize("low_lane", ["conflate", "lossless"])
def test_nobody_consumes_tap_and_wait_for_get_everything(plain_rig: WebsocketsRig, low_lane: str) -> None:
    """An AutoSeller beside ``wait_for("closed")`` sells, however much came before."""
    heard: list[str] = []
    with plain_rig.session(high_capacity=CAPACITY, low_capacity=CAPACITY, low_lane=low_lane) as session:
        session.tap(lambda event: heard.append(event.type))
        waiter = threading.Thread(target=lambda: session.wait_for("closed"), daemon=True)
        waiter.start()
        for first in range(0, FLOOD, CAPACITY):
            # Piece by piece, so that lanes that stop the reader do so.
            plain_rig.send(
                b"".join(text_frame(opened(first + n, account=f"account-{first + n}")) for n in range(1, CAPACITY + 1))
            )
            until(lambda first=first: heard.count("position_opened") == first + CAPACITY)
        plain_rig.send(text_frame(exit_signal(1, account="account-1")) + text_frame(pnl(1, 77)))
        until(lambda: "exit_signal_with_tx" in heard)
        assert session.wait_for("exit_signal_with_tx", PATIENCE_S).handle is not None
        until(lambda: all_read(session))
        assert session.health().ok, session.health()
        if low_lane == "conflate":
            # Lossless lanes wait for a consumer first, and overrun by one read of the socket.
            assert session.health().high_dropped == session.stats().high_dropped >= FLOOD - CAPACITY
        assert session.status is ConnectionState.LIVE
    waiter.join(PATIENCE_S)


@pytest.mark.parametrize("style", ["recv", "queue", "thread", "inline"])
def test_nobody_consumes_first_consumer_gets_lagged_and_the_newest(
    plain_rig: WebsocketsRig, style: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Its first event says how many it missed; after that none is missing."""
    events: queue.Queue[StreamEvent[Any]] = queue.Queue()
    with plain_rig.session(high_capacity=CAPACITY, dispatch="inline" if style == "inline" else "thread") as session:
        plain_rig.send(flood())
        until(lambda: all_read(session))
        until(lambda: "nobody takes the events" in caplog.text)
        dropped = session.stats().high_dropped
        assert dropped >= FLOOD - CAPACITY
        if style in ("thread", "inline"):
            session.on("*", events.put)
            session.start()
            take = lambda: events.get(timeout=PATIENCE_S)  # noqa: E731
        else:
            take = (
                (lambda: session.recv(PATIENCE_S))
                if style == "recv"
                else lambda: session.events.get(timeout=PATIENCE_S)
            )
        first = take()
        assert (first.type, first.message.high_dropped) == ("lagged", dropped)
        rest = [take() for _ in range(CAPACITY)]
        assert rest[-1].type == "exit_signal_with_tx"
        opened_ids = [event.message.position_id for event in rest if event.type == "position_opened"]
        assert opened_ids == list(range(FLOOD - len(opened_ids) + 1, FLOOD + 1))
        # From now on the high lane drops nothing.
        plain_rig.send(b"".join(text_frame({"type": "error", "code": "n", "message": str(n)}) for n in range(FLOOD)))
        numbers: list[str] = []
        while len(numbers) < FLOOD:
            event = take()
            if event.type == "error":
                numbers.append(event.message.message)
        assert numbers == [str(n) for n in range(FLOOD)]
        assert session.stats().high_dropped == dropped


def test_bare_connection_nobody_receives_keeps_the_newest(plain_rig: WebsocketsRig) -> None:
    """As for a session; ``lagged`` goes to ``on_event``."""
    told: list[Any] = []
    client = plain_rig.client(high_capacity=CAPACITY, on_event=told.append)
    with client.connect(plain_rig.configure()) as connection:
        plain_rig.send(flood())
        until(lambda: connection.stats().messages_received >= FLOOD + 3)
        dropped = connection.stats().high_dropped
        assert dropped >= FLOOD - CAPACITY
        received = [connection.recv(PATIENCE_S) for _ in range(CAPACITY)]
        assert received[-1] is not None
        assert received[-1].type == "exit_signal_with_tx"
        until(lambda: any(event.type == "lagged" and event.high_dropped == dropped for event in told))


def test_reading_that_stops_for_a_consumer_is_warned_and_in_health(
    plain_rig: WebsocketsRig, caplog: pytest.LogCaptureFixture
) -> None:
    """The consumer was chosen and takes nothing more: with numbers, until it goes on; nothing is lost."""
    with plain_rig.session(high_capacity=CAPACITY) as session:
        assert session.recv(PATIENCE_S) is not None
        plain_rig.send(flood())
        for _ in range(4):
            # More than one read.
            plain_rig.send(flood(1))
            until(lambda: session.stats().waiting >= CAPACITY)
        until(lambda: "reading stopped" in caplog.text)
        health = session.health()
        assert not health.ok
        assert health.reading_stopped_seconds is not None
        assert f"{health.waiting} events wait for the consumer" in health.problem
        events = []
        while not events or events[-1].type != "exit_signal_with_tx":
            event = session.recv(PATIENCE_S)
            assert event is not None
            events.append(event)
        until(lambda: session.health().reading_stopped_seconds is None)
        assert [e.message.position_id for e in events if e.type == "position_opened"][:FLOOD] == list(
            range(1, FLOOD + 1)
        )
        assert session.stats().sessions == 1


@pytest.mark.parametrize("end", ["fin", "reset"])
def test_dead_link_that_waits_for_its_consumer_is_stale_and_made_anew(plain_rig: WebsocketsRig, end: str) -> None:
    """Nothing is read, so no answer can be seen; what has arrived is delivered before the next link."""
    options: dict[str, Any] = {"ping_interval_s": 0.2, "pong_timeout_s": 0.2}
    with plain_rig.session(high_capacity=CAPACITY, **options) as session:
        assert session.recv(PATIENCE_S) is not None
        for number in range(1, 2_000):
            plain_rig.send({"type": "error", "code": "n", "message": f"{number} " + "x" * 1000})
        until(lambda: session.health().reading_stopped_seconds is not None)
        assert session.status is ConnectionState.LIVE
        getattr(plain_rig.proxy, end)()
        until(lambda: session.status is ConnectionState.STALE)
        assert not session.health().ok
        numbers = []
        while session.stats().sessions < 2:
            event = session.recv(PATIENCE_S)
            if event is not None and event.type == "error":
                numbers.append(int(event.message.message.split()[0]))
        assert numbers == list(range(1, len(numbers) + 1))
        assert session.status is ConnectionState.LIVE


def test_handlers_that_nobody_calls_are_warned_and_in_health(
    plain_rig: WebsocketsRig, caplog: pytest.LogCaptureFixture
) -> None:
    """Until ``start``; a handler that was taken away again is none."""
    with plain_rig.session() as session:
        session.on("pnl_update", print)
        session.off("pnl_update", print)
        session.on("exit_signal_with_tx", print)
        until(lambda: "call session.start() or session.run()" in caplog.text)
        assert "nobody calls them" in session.health().problem
        session.off("exit_signal_with_tx")
        assert session.health().ok
        session.on("exit_signal_with_tx", print)
        session.start()
        assert session.health().ok
        assert caplog.text.count("nobody calls them") == 1
