"""StreamSession against a server written by someone else: state, events, the three ways to consume, the end."""

from __future__ import annotations

import logging
import queue
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from lasersell_sync import (
    ConcurrencyError,
    ConfigurationError,
    ConnectionState,
    HandlerError,
    PnlUpdate,
    StrategyConfig,
    StrategyError,
    StreamClient,
    StreamClosed,
    StreamConfigure,
    StreamEvent,
    StreamOptions,
    StreamSession,
    TransportError,
    UnknownMessage,
)
from tests.support.stream_server import (
    ACCOUNT,
    MINT,
    OTHER_WALLET,
    WALLET,
    Peer,
    RawServer,
    ScriptedServer,
    closed,
    exit_signal,
    hello,
    idle,
    opened,
    pnl,
    refusal,
    text_frame,
    upgrade,
)
from tests.support.waiting import PATIENCE_S, until

STRATEGY = StrategyConfig(target_profit_pct=5.0, stop_loss_pct=10.0)


@contextmanager
def session_with(
    *messages: Any,
    dispatch: Any = "thread",
    deadline: float = 0,
    then: Callable[[Peer], None] | None = None,
    **options: Any,
) -> Iterator[tuple[StreamSession, ScriptedServer]]:
    """A session whose server greets, sends ``messages``, and records."""

    def script(peer: Peer) -> None:
        peer.greet()
        peer.send(*messages)
        if then is not None:
            then(peer)
        peer.serve()

    with ScriptedServer(script) as server:
        client = StreamClient("key", options=StreamOptions(**options)).with_endpoint(server.url)
        configure = StreamConfigure([WALLET], STRATEGY, deadline_timeout_sec=deadline)
        with StreamSession.connect(client, configure, dispatch=dispatch) as session:
            yield session, server


def settled(session: StreamSession, count: int) -> None:
    until(lambda: session.stats().messages_received >= count)


def events_until(session: StreamSession, kind: str) -> list[StreamEvent]:
    """Events from the queue up to the first of a kind."""
    seen = []
    while True:
        seen.append(session.events.get(timeout=PATIENCE_S))
        if seen[-1].type == kind:
            return seen


# ── state ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_positions_follow_the_stream_and_handles_are_snapshots() -> None:
    """Opened, balance changed, closed: the table is current without anybody consuming; old handles stay as they were."""
    balance = {"type": "balance_update", "wallet_pubkey": WALLET, "mint": MINT, "tokens": 400, "slot": 3}
    with session_with(opened(7, token_symbol="PUMP"), opened(8, account=OTHER_WALLET, mint=OTHER_WALLET)) as (
        session,
        server,
    ):
        settled(session, 3)
        before = session.positions()
        assert [handle.position_id for handle in before] == [7, 8]
        assert before[0].token_symbol == "PUMP"
        assert session.positions_for_wallet_mint(WALLET, MINT) == [before[0]]
        peer = server.peer()
        peer.send({**balance, "token_account": ACCOUNT})
        settled(session, 4)
        assert session.positions()[0].tokens == 400
        assert before[0].tokens == 1000
        # No account named, but only one position of that wallet and mint.
        peer.send({**balance, "tokens": 300})
        settled(session, 5)
        assert session.positions()[0].tokens == 300
        assert session.positions()[0].key == before[0].key
        peer.send(closed(7))
        settled(session, 6)
        assert [handle.position_id for handle in session.positions()] == [8]


def test_every_event_carries_its_position_as_it_is_then() -> None:
    """``handle`` is the position right after the event; the closing event carries the last one."""
    messages = [opened(), pnl(7, 5), exit_signal(), exit_signal(999, account=OTHER_WALLET), closed()]
    with session_with(*messages) as (session, _):
        settled(session, 6)
        events = [
            event for event in events_until(session, "position_closed") if event.type not in ("connected", "hello_ok")
        ]
        assert [event.type for event in events] == [
            "position_opened", "exit_signal_with_tx", "exit_signal_with_tx", "position_closed",
        ]  # fmt: skip
        assert [event.handle and event.handle.position_id for event in events] == [7, 7, None, 7]
        assert all(event.received_ns > 0 for event in events)


def test_each_connect_is_told_and_delivers_hello_ok() -> None:
    """``connected`` first, then ``hello_ok``, then the data."""
    with session_with(opened()) as (session, _):
        assert [event.type for event in events_until(session, "position_opened")] == [
            "connected",
            "hello_ok",
            "position_opened",
        ]


def test_pnl_and_liquidity_are_cached_and_leave_with_the_position() -> None:
    """The newest values are there however far behind the consumer is; a closed position has none."""
    snapshot = {
        "type": "liquidity_snapshot",
        "position_id": 7,
        "bands": [
            {"slippage_bps": 100, "max_tokens": 10, "coverage_pct": 1.0},
            {"slippage_bps": 500, "max_tokens": 50, "coverage_pct": 5},
        ],
        "liquidity_trend": "growing",
        "server_time_ms": 1,
    }
    with session_with(opened(), pnl(7, 1), pnl(7, 2), snapshot) as (session, server):
        settled(session, 5)
        handle = session.positions()[0]
        newest = session.pnl(handle)
        assert newest is not None
        assert newest.profit_units == 2
        bands = session.get_slippage_bands(7)
        assert bands is not None
        assert [band.max_tokens for band in bands] == [10, 50]
        assert session.get_max_sell_at_slippage(7, 500) == 50
        assert session.get_max_sell_at_slippage(7, 300) is None
        assert session.get_liquidity_trend(7) == "growing"
        server.peer().send(closed())
        settled(session, 6)
        assert session.pnl(handle) is None
        assert session.get_slippage_bands(7) is None
        assert session.get_liquidity_trend(7) is None


def test_late_updates_of_a_closed_position_are_counted_not_delivered() -> None:
    """Nothing about a position follows its ``position_closed``, whatever the server sends."""
    with session_with(opened(), closed(), pnl(7, 1), {"type": "pong", "server_time_ms": 1}) as (session, _):
        settled(session, 5)
        assert [event.type for event in events_until(session, "pong")][-2:] == ["position_closed", "pong"]
        with pytest.raises(queue.Empty):
            session.events.get(timeout=0.02)
        assert (session.stats().late, session.stats().dropped) == (1, 0)


def test_a_position_announced_again_keeps_its_identity_under_a_new_id() -> None:
    """After a reconnect the same token account is the same position."""

    def script(peer: Peer) -> None:
        peer.greet()
        peer.send(opened(7 if peer.number == 1 else 70))
        peer.serve()

    with ScriptedServer(script) as server:
        client = StreamClient("key").with_endpoint(server.url)
        with StreamSession.connect(client, StreamConfigure([WALLET], STRATEGY)) as session:
            settled(session, 2)
            before = session.positions()[0]
            server.peer().abort()
            settled(session, 4)
            after = session.positions()
            assert [handle.position_id for handle in after] == [70]
            assert after[0].key == before.key


def test_who_hears_of_a_loss_finds_no_live_session() -> None:
    """The state has changed by the time the loss is told."""
    with session_with(opened(), dispatch="inline") as (session, server):
        seen: queue.Queue[ConnectionState] = queue.Queue()
        session.on("disconnected", lambda event: seen.put(session.status))
        session.start()
        server.peer().abort()
        assert seen.get(timeout=PATIENCE_S) is ConnectionState.BACKOFF


# ── deadlines ────────────────────────────────────────────────────────────────────────────────────────────────────


def exits(peer: Peer) -> list[dict[str, Any]]:
    return [message for message in peer.received if message["type"] == "request_exit_signal"]


def test_a_deadline_asks_for_the_exit_once() -> None:
    """So many seconds after opening, by the server's clock, the client asks; only for own, open positions."""
    now_ms = 1_700_000_000_000  # the server's clock in hello()
    messages = [
        opened(7, opened_at_ms=now_ms - 60_000),  # long overdue
        opened(8, account=OTHER_WALLET, mint=OTHER_WALLET, opened_at_ms=now_ms),  # not yet
        opened(9, account=MINT, watched=True, opened_at_ms=now_ms - 60_000),  # not ours to sell
    ]
    with session_with(*messages, deadline=30) as (session, server):
        peer = server.peer()
        until(lambda: exits(peer))
        session.sender().ping(1)
        until(lambda: peer.received[-1]["type"] == "ping")
        assert exits(peer) == [{"type": "request_exit_signal", "token_account": ACCOUNT}]
        # A shorter deadline reaches the young one too, and the old one is not asked for again.
        session.update_strategy(STRATEGY, deadline_timeout_sec=0.01)
        until(lambda: len(exits(peer)) == 2)
        assert exits(peer)[1]["token_account"] == OTHER_WALLET


def test_update_strategy_that_fails_leaves_another_threads_deadline() -> None:
    """The command fails while another thread has just set a deadline of its own."""
    with session_with(deadline=30) as (session, _):
        connection = session.connection
        command = connection.command

        def fail(*_: Any, **__: Any) -> None:
            connection.command = command  # type: ignore[method-assign]
            session.update_strategy(STRATEGY, deadline_timeout_sec=77)
            raise TransportError("link", "stream", "broken")

        connection.command = fail  # type: ignore[method-assign]
        with pytest.raises(TransportError):
            session.update_strategy(STRATEGY, deadline_timeout_sec=5)
        assert connection.deadline_timeout_sec == 77
        assert session._state.deadlines.timeout_s == 77


def test_a_strategy_without_conditions_is_checked_with_the_deadline_of_now() -> None:
    """A deadline counts as a condition, wherever the strategy is set."""
    nothing = StrategyConfig(target_profit_pct=0.0, stop_loss_pct=0.0)
    with session_with(deadline=0) as (session, _):
        with pytest.raises(StrategyError):
            session.update_strategy(nothing)
        session.update_strategy(nothing, deadline_timeout_sec=100)
        session.update_strategy(nothing)
        session.sender().update_strategy(nothing)
        session.connection.sender().update_strategy(nothing)


def test_a_reannounced_position_keeps_its_deadline() -> None:
    """A reconnect does not start the clock anew, also when the server gives no opening time."""

    def script(peer: Peer) -> None:
        peer.greet()
        peer.send(opened(7 + peer.number))
        peer.serve()

    with ScriptedServer(script) as server:
        client = StreamClient("key").with_endpoint(server.url)
        configure = StreamConfigure([WALLET], STRATEGY, deadline_timeout_sec=100)
        with StreamSession.connect(client, configure) as session:
            settled(session, 2)
            started_at = dict(session._state.deadlines._started_at)
            assert len(started_at) == 1
            server.peer().abort()
            settled(session, 4)
            assert session.positions()[0].position_id == 9
            assert session._state.deadlines._started_at == started_at


def test_a_deadline_due_while_disconnected_fires_on_reconnect() -> None:
    """No link, no request; it is not forgotten."""
    down = threading.Event()

    def refuse(request: Any) -> Any:
        return refusal(503)(request) if down.is_set() else None

    def script(peer: Peer) -> None:
        peer.greet()
        peer.send(opened())
        peer.serve()

    with ScriptedServer(script, refuse=refuse) as server:
        client = StreamClient("key", options=StreamOptions(max_backoff_s=0.1)).with_endpoint(server.url)
        configure = StreamConfigure([WALLET], STRATEGY, deadline_timeout_sec=0.2)
        with StreamSession.connect(client, configure) as session:
            settled(session, 2)
            down.set()
            server.peer().abort()
            session.wait_for("disconnected", PATIENCE_S)
            threading.Event().wait(0.3)
            down.clear()
            second = server.peer()
            until(lambda: exits(second))


def test_a_closed_position_has_no_deadline() -> None:
    """Closing in time cancels."""
    with session_with(opened(), closed(), deadline=100) as (session, server):
        peer = server.peer()
        settled(session, 3)
        # Short only now: between the two messages there may be any time.
        session.update_strategy(STRATEGY, deadline_timeout_sec=0.01)
        threading.Event().wait(0.1)
        session.sender().ping(1)
        until(lambda: peer.received[-1]["type"] == "ping")
        assert exits(peer) == []


# ── handlers ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("dispatch", ["thread", "per_lane", "inline"])
def test_handlers_get_what_waited_and_what_comes(dispatch: str) -> None:
    """Registered by name, by class, or for everything; events before ``start`` are not lost; order is kept."""
    with session_with(opened(), exit_signal(), dispatch=dispatch) as (session, server):
        settled(session, 3)
        seen: list[str] = []
        everything: list[str] = []
        done = threading.Event()

        @session.on("exit_signal_with_tx")
        def on_exit(event: StreamEvent) -> None:
            seen.append(event.type)

        session.on(PnlUpdate, lambda event: seen.append(f"pnl {event.message.profit_units}"))
        session.on(UnknownMessage, lambda event: done.set())
        session.on("*", lambda event: everything.append(event.type))
        session.start()
        server.peer().send(pnl(7, 3), {"type": "brand_new"})
        assert done.wait(PATIENCE_S)
        # With a thread for each lane, the other one may not be as far yet.
        until(lambda: len(everything) == 6)
        assert sorted(seen) == ["exit_signal_with_tx", "pnl 3"]
        high = ["connected", "hello_ok", "position_opened", "exit_signal_with_tx"]
        assert [kind for kind in everything if kind in high] == high
        session.off("exit_signal_with_tx", on_exit)
        session.off(PnlUpdate)
        done.clear()
        server_peer = session  # the session is still consumed
        assert server_peer.status is ConnectionState.LIVE


def test_unknown_names_are_refused_with_the_nearest() -> None:
    """A misspelt event is found when it is registered, not never."""
    with session_with() as (session, _):
        with pytest.raises(ValueError, match="exit_signal_with_tx"):
            session.on("exit_signal")
        with pytest.raises(ValueError, match="StreamOptions"):
            session.on(StreamOptions, print)
        with pytest.raises(TypeError):
            session.on("pong", 5)  # type: ignore[call-overload]


@pytest.mark.parametrize("dispatch", ["thread", "per_lane", "inline"])
@pytest.mark.parametrize("error", [RuntimeError("mine"), SystemExit(3)])
def test_a_raising_handler_is_logged_and_told_and_the_next_event_arrives(
    dispatch: str, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    """User errors, SystemExit too, end nothing; they show as ``handler_error`` with the traceback in the log."""
    with session_with(opened(), exit_signal(), dispatch=dispatch) as (session, server):
        told: queue.Queue[StreamEvent] = queue.Queue()
        later: queue.Queue[StreamEvent] = queue.Queue()

        def broken(event: StreamEvent) -> None:
            raise error

        session.on("exit_signal_with_tx", broken)
        session.on("handler_error", told.put)
        session.on("handler_error", broken)  # must not call itself for ever
        session.on("position_closed", later.put)
        session.start()
        message = told.get(timeout=PATIENCE_S).message
        assert isinstance(message, HandlerError)
        assert message.error is error
        assert "broken" in message.handler
        server.peer().send(closed())
        assert later.get(timeout=PATIENCE_S).type == "position_closed"
        assert "Traceback" in caplog.text
        assert "broken" in caplog.text


def test_a_slow_low_lane_handler_does_not_hold_up_an_exit_signal() -> None:
    """``per_lane``: the exit arrives while the pnl handler sleeps."""
    with session_with(opened(), dispatch="per_lane") as (session, server):
        in_handler, release, exited = threading.Event(), threading.Event(), threading.Event()

        @session.on("pnl_update")
        def slow(event: StreamEvent) -> None:
            in_handler.set()
            release.wait(PATIENCE_S)

        session.on("exit_signal_with_tx", lambda event: exited.set())
        session.start()
        peer = server.peer()
        peer.send(pnl(7, 1))
        assert in_handler.wait(PATIENCE_S)
        peer.send(exit_signal())
        assert exited.wait(PATIENCE_S)
        release.set()


def test_state_is_current_while_a_handler_blocks() -> None:
    """``thread``: a stuck handler stops neither the reader nor the state."""
    with session_with(opened()) as (session, server):
        in_handler, release = threading.Event(), threading.Event()

        @session.on("position_opened")
        def stuck(event: StreamEvent) -> None:
            in_handler.set()
            release.wait(PATIENCE_S)

        session.start()
        assert in_handler.wait(PATIENCE_S)
        server.peer().send(pnl(7, 42))
        handle = session.positions()[0]
        until(lambda: (newest := session.pnl(handle)) is not None and newest.profit_units == 42)
        release.set()


@pytest.mark.parametrize("dispatch", ["thread", "per_lane", "inline"])
def test_close_inside_a_handler(dispatch: str) -> None:
    """A handler may close the session: the socket is down in under a second, and no thread stays."""
    with session_with(opened(), dispatch=dispatch) as (session, server):
        took: queue.Queue[float] = queue.Queue()

        @session.on("position_opened")
        def close(event: StreamEvent) -> None:
            started = time.monotonic()
            session.close()
            took.put(time.monotonic() - started)

        peer = server.peer()
        session.start()
        assert took.get(timeout=PATIENCE_S) < 1
        until(lambda: peer.connection.state.name == "CLOSED")
        until(lambda: session.status is ConnectionState.CLOSED)


def test_close_while_the_server_is_mute_and_an_inline_handler_is_stuck() -> None:
    """The worst case: the reader itself is held up by user code, the server answers nothing; the socket still goes."""
    gone = threading.Event()

    def script(sock: Any) -> None:
        upgrade(sock, text_frame(hello()) + text_frame(opened()))
        sock.recv(65536)
        while sock.recv(65536):
            pass
        gone.set()

    release = threading.Event()
    in_handler = threading.Event()
    with RawServer(script) as server:
        client = StreamClient("key").with_endpoint(server.url)
        session = StreamSession.connect(client, StreamConfigure([WALLET], STRATEGY), dispatch="inline")

        @session.on("position_opened")
        def stuck(event: StreamEvent) -> None:
            in_handler.set()
            release.wait(PATIENCE_S)

        session.start()
        assert in_handler.wait(PATIENCE_S)
        closer = threading.Thread(target=session.close, kwargs={"timeout": PATIENCE_S})
        started = time.monotonic()
        closer.start()
        assert gone.wait(PATIENCE_S)
        assert time.monotonic() - started < PATIENCE_S / 2
        release.set()
        closer.join(PATIENCE_S)


# ── queue, loop, and keeping them apart ──────────────────────────────────────────────────────────────────────────


def test_the_queue_works_like_queue_queue() -> None:
    """get, get_nowait, get_batch, qsize, empty, task_done, join; StreamClosed after close and drain."""
    with session_with(opened(), exit_signal()) as (session, _):
        settled(session, 3)
        events = session.events
        assert events.qsize() == 4
        assert not events.empty()
        assert events.get().type == "connected"
        assert events.get_nowait().type == "hello_ok"
        assert [event.type for event in events.get_batch(10)] == ["position_opened", "exit_signal_with_tx"]
        with pytest.raises(queue.Empty):
            events.get_nowait()
        with pytest.raises(queue.Empty):
            events.get(timeout=0.01)
        with pytest.raises(ValueError, match="timeout"):
            events.get(timeout=-1)
        for _ in range(4):
            events.task_done()
        events.join()
        with pytest.raises(ValueError, match="task_done"):
            events.task_done()
        session.close()
        assert events.get().type == "closed"
        with pytest.raises(StreamClosed):
            events.get()


def test_the_loop_ends_when_the_user_closes() -> None:
    """``for event in session`` ends; ``recv`` returns None."""
    with session_with(opened()) as (session, _):
        seen = []
        for event in session:
            seen.append(event.type)
            if event.type == "position_opened":
                session.close()
        assert seen == ["connected", "hello_ok", "position_opened", "closed"]
        assert session.recv() is None


def test_a_second_way_to_consume_is_refused() -> None:
    """Two consumers would steal each other's events: the second style raises, whichever it is."""
    with session_with() as (session, _):
        session.events.get(timeout=PATIENCE_S)
        with pytest.raises(ConcurrencyError):
            session.recv()
        with pytest.raises(ConcurrencyError):
            session.start()
        session.events.get(timeout=PATIENCE_S)
    with session_with() as (session, _):
        session.start()
        with pytest.raises(ConcurrencyError):
            session.run()
        with pytest.raises(ConcurrencyError):
            session.events.get_nowait()


@pytest.mark.parametrize("consume", ["events", "recv", "run", "iterate", "wait_for"])
def test_a_session_that_failed_raises_its_cause_in_every_consumer(consume: str) -> None:
    """FAILED is not the end of iteration: whoever waits gets the reason."""
    from lasersell_sync import AuthenticationError

    revoked = threading.Event()

    def refuse(request: Any) -> Any:
        return refusal(401)(request) if revoked.is_set() else None

    with ScriptedServer(refuse=refuse) as server:
        options = StreamOptions(initial_backoff_s=0.01, max_backoff_s=0.01)
        client = StreamClient("key", options=options).with_endpoint(server.url)
        with StreamSession.connect(client, StreamConfigure([WALLET], STRATEGY)) as session:
            revoked.set()
            server.peer().abort()

            def forever(step: Callable[[], object]) -> None:
                while True:
                    step()

            with pytest.raises(AuthenticationError):
                {
                    "events": lambda: forever(lambda: session.events.get(timeout=PATIENCE_S)),
                    "recv": lambda: forever(lambda: session.recv(timeout=PATIENCE_S)),
                    "run": session.run,
                    "iterate": lambda: list(session),
                    "wait_for": lambda: session.wait_for("pong", PATIENCE_S),
                }[consume]()
            assert session.status is ConnectionState.FAILED


def test_wait_for_finds_what_happened_and_what_comes_but_nothing_twice() -> None:
    """Beside any consumer; by name, class or predicate."""
    with session_with(opened(7), opened(8, account=OTHER_WALLET)) as (session, server):
        settled(session, 3)
        first = session.wait_for("position_opened", PATIENCE_S)
        second = session.wait_for("position_opened", PATIENCE_S)
        assert [event.handle.position_id for event in (first, second) if event.handle] == [7, 8]
        with pytest.raises(queue.Empty):
            session.wait_for("position_opened", 0.01)
        peer = server.peer()
        found: queue.Queue[StreamEvent] = queue.Queue()
        waiter = threading.Thread(
            target=lambda: found.put(session.wait_for(lambda e: e.type == "pnl_update" and e.message.profit_units == 5))  # type: ignore[union-attr]
        )
        waiter.start()
        until(lambda: session._state.memory.lines)
        peer.send(pnl(7, 4), pnl(7, 5))
        assert found.get(timeout=PATIENCE_S).type == "pnl_update"
        waiter.join()
        # Nothing was consumed.
        assert [event.type for event in session.events.get_batch(3)] == ["connected", "hello_ok", "position_opened"]
        session.close()
        with pytest.raises(StreamClosed):
            session.wait_for("pong", PATIENCE_S)


def test_from_connection_takes_over_what_waits_in_order() -> None:
    """A bare connection can become a session; the messages that waited are its first events."""

    def script(peer: Peer) -> None:
        peer.greet()
        peer.send(opened(), pnl(7, 3))
        peer.serve()

    with ScriptedServer(script) as server:
        connection = StreamClient("key").with_endpoint(server.url).connect(StreamConfigure([WALLET], STRATEGY))
        until(lambda: connection.stats().messages_received == 3)
        with StreamSession.from_connection(connection) as session:
            types = [session.events.get(timeout=PATIENCE_S).type for _ in range(3)]
            assert types == ["hello_ok", "position_opened", "pnl_update"]
            assert session.positions()[0].position_id == 7
            with pytest.raises(ConcurrencyError):
                connection.recv()
            with pytest.raises(ConcurrencyError):
                StreamSession.from_connection(connection)


def test_from_connection_wakes_who_waits_already() -> None:
    """The reader hands over when it gets round to it; a consumer may have fallen asleep by then, on an idle link."""
    # Any byte ends the reader's wait and wakes consumers too; none comes.
    silent = StreamOptions(ping_interval_s=10 * PATIENCE_S, app_ping_interval_s=None)
    with ScriptedServer() as server:
        client = StreamClient("key", options=silent).with_endpoint(server.url)
        connection = client.connect(StreamConfigure([WALLET], STRATEGY))
        until(lambda: connection.stats().messages_received == 1)
        late = threading.Event()
        connection.reader.run_soon(lambda: late.wait(PATIENCE_S))
        with StreamSession.from_connection(connection) as session:
            threading.Timer(0.2, late.set).start()
            started = time.monotonic()
            assert session.events.get(timeout=PATIENCE_S).type == "hello_ok"
            # One who is never woken finds it when his time is over.
            assert time.monotonic() - started < PATIENCE_S / 2


# ── commands ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_session_commands_name_the_position_by_account() -> None:
    """Handles, strategies and closes go out as the sender's; a bad strategy changes nothing."""
    with session_with(opened()) as (session, server):
        settled(session, 2)
        peer = server.peer()
        handle = session.positions()[0]
        session.request_exit_signal(handle, 250)
        session.close(handle)
        session.update_strategy_optional(stop_loss_pct=3.0)
        with pytest.raises(StrategyError):
            session.update_strategy(StrategyConfig(target_profit_pct=0.0, stop_loss_pct=0.0))
        with pytest.raises(StrategyError):
            session.update_strategy(STRATEGY, deadline_timeout_sec=float("inf"))
        until(lambda: len(peer.received) == 4)
        assert [message["type"] for message in peer.received[1:]] == [
            "request_exit_signal",
            "close_position",
            "update_strategy",
        ]
        assert peer.received[1] == {"type": "request_exit_signal", "token_account": ACCOUNT, "slippage_bps": 250}


def test_a_bad_dispatch_is_refused_and_leaves_nothing_running() -> None:
    """The mistake is named."""
    with ScriptedServer(idle) as server:
        client = StreamClient("key").with_endpoint(server.url)
        with pytest.raises(ConfigurationError, match="dispatch"):
            StreamSession.connect(client, StreamConfigure([WALLET], STRATEGY), dispatch="async")  # type: ignore[arg-type]


def test_a_failed_connect_raises_and_leaves_nothing_running() -> None:
    """The first connection failing raises to the caller (the thread guard watches the rest)."""
    with ScriptedServer(refuse=refusal(503)) as server:
        client = StreamClient("key").with_endpoint(server.url)
        with pytest.raises(Exception, match="503"):
            StreamSession.connect(client, StreamConfigure([WALLET], STRATEGY, deadline_timeout_sec=5))


def test_offline_commands_of_a_session() -> None:
    """A ping while there is no link raises TransportError; the strategy is remembered."""
    down = threading.Event()

    def refuse(request: Any) -> Any:
        return refusal(503)(request) if down.is_set() else None

    with ScriptedServer(refuse=refuse) as server:
        client = StreamClient("key", options=StreamOptions(max_backoff_s=0.1)).with_endpoint(server.url)
        with StreamSession.connect(client, StreamConfigure([WALLET], STRATEGY)) as session:
            down.set()
            server.peer().abort()
            session.wait_for("reconnecting", PATIENCE_S)
            session.update_strategy(StrategyConfig(target_profit_pct=77.0, stop_loss_pct=0.0))
            with pytest.raises(TransportError):
                session.sender().ping(1)
            down.clear()
            second = server.peer()
            until(lambda: second.received)
            assert second.received[0]["strategy"]["target_profit_pct"] == 77.0


def test_an_exit_signal_shows_no_transaction_in_logs_or_reprs(caplog: pytest.LogCaptureFixture) -> None:
    """Reprs of events tell a transaction's length, not its bytes."""
    canary = "CANARY" * 40
    with (
        caplog.at_level(logging.DEBUG, "lasersell_sync"),
        session_with(opened(), exit_signal(unsigned_tx_b64=canary)) as (session, _),
    ):
        event = events_until(session, "exit_signal_with_tx")[-1]
        assert event.message.unsigned_tx_b64 == canary  # type: ignore[union-attr]
        assert canary not in repr(event) + repr(session) + caplog.text


# ── Ctrl-C ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "blocked",
    [
        "session.recv()",
        "session.events.get()",
        "session.run()",
        "session.wait_for('pong')",
        "list(session)",
        "connection.recv()",
    ],
)
def test_ctrl_c_reaches_the_main_thread_from_every_blocking_call(blocked: str) -> None:
    """SIGINT in a real process: KeyboardInterrupt comes out of the call at once and ``with`` closes everything."""
    program = textwrap.dedent(
        f"""
        import sys
        from lasersell_sync import *
        options = StreamOptions(ping_interval_s=60.0, pong_timeout_s=60.0)
        client = StreamClient("key", options=options).with_endpoint(sys.argv[1])
        configure = StreamConfigure([{WALLET!r}], StrategyConfig(target_profit_pct=5.0, stop_loss_pct=0.0))
        opening = client.connect(configure) if "connection" in {blocked!r} else StreamSession.connect(client, configure)
        try:
            with opening as session:
                connection = session
                if "run" not in {blocked!r} and "list" not in {blocked!r} and "connection" not in {blocked!r}:
                    session.wait_for("hello_ok")
                print("blocked", flush=True)
                while True:
                    {blocked}
        except KeyboardInterrupt:
            print("interrupted", flush=True)
        """
    )
    with ScriptedServer(idle) as server:
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", program, server.url],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "blocked\n", process.communicate()[1]
        server.peer()
        threading.Event().wait(0.2)  # let it settle into the call; too early is harmless, only less of a test
        process.send_signal(signal.SIGINT)
        started = time.monotonic()
        out, err = process.communicate(timeout=PATIENCE_S)
        assert (out, err, process.returncode) == ("interrupted\n", "", 0)
        assert time.monotonic() - started < PATIENCE_S  # not only with the next keepalive, after 60 s
