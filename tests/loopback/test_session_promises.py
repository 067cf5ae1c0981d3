"""A session that cannot be lost quietly: resync, repeats, unreadable exits, stuck handlers, dying threads, health."""

from __future__ import annotations

import contextlib
import ctypes
import queue
import threading
import time
from typing import Any

import pytest

from lasersell_sync import (
    CommandDropped,
    ConnectionState,
    DecodeFailure,
    HandlerStuck,
    Resynced,
    StrategyConfig,
    StreamClient,
    StreamConfigure,
    StreamEvent,
    StreamOptions,
    StreamSession,
    ThreadDiedError,
)
from tests.support.stream_server import (
    ACCOUNT,
    MINT,
    OTHER_WALLET,
    WALLET,
    Peer,
    ScriptedServer,
    closed,
    exit_signal,
    hello,
    opened,
    pnl,
    refusal,
    text_frame,
)
from tests.support.waiting import PATIENCE_S, until

STRATEGY = StrategyConfig(target_profit_pct=5.0, stop_loss_pct=10.0)


def connect(server: ScriptedServer, *, dispatch: Any = "thread", deadline: float = 0, **options: Any) -> StreamSession:
    client = StreamClient("key", options=StreamOptions(**{"max_backoff_s": 0.1, **options})).with_endpoint(server.url)
    return StreamSession.connect(
        client, StreamConfigure([WALLET], STRATEGY, deadline_timeout_sec=deadline), dispatch=dispatch
    )


def settled(session: StreamSession, count: int) -> None:
    until(lambda: session.stats().messages_received >= count)


# ── resync ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_after_a_reconnect_positions_are_kept_opened_or_missing() -> None:
    """One event tells all; missing ones stay, marked stale, until there is evidence of life or of a close."""

    def script(peer: Peer) -> None:
        if peer.number == 1:
            peer.greet()
            peer.send(opened(1), opened(2, account=OTHER_WALLET), opened(3, account=WALLET))
        else:
            peer.recv()
            # In one piece with the greeting, for the time of grace begins with that.
            told = [hello(2), opened(10), opened(4, account=MINT), closed(3, account=WALLET)]
            peer.connection.socket.sendall(b"".join(map(text_frame, told)))
        peer.serve()

    with ScriptedServer(script) as server, connect(server, resync_grace_s=0.2) as session:
        settled(session, 4)
        server.peer().abort()
        event = session.wait_for("resynced", PATIENCE_S).message
        assert isinstance(event, Resynced)
        assert [handle.position_id for handle in event.kept] == [10]
        assert [handle.position_id for handle in event.opened] == [4]
        assert [handle.position_id for handle in event.missing] == [2]
        assert event.gap_seconds > 0
        assert {handle.position_id: handle.stale for handle in session.positions()} == {10: False, 2: True, 4: False}
        assert session.health().stale_positions == 1
        second = server.peer()
        second.send(pnl(2, 1))
        until(lambda: not any(handle.stale for handle in session.positions()))
        assert len(session.positions()) == 3


def test_a_server_that_announces_nothing_again_loses_us_nothing() -> None:
    """Both answers of the live service must work: handles and deadlines stay as they were."""

    def script(peer: Peer) -> None:
        peer.greet()
        if peer.number == 1:
            peer.send(opened(1))
        peer.serve()

    with ScriptedServer(script) as server, connect(server, resync_grace_s=0.1, deadline=0.8) as session:
        settled(session, 2)
        server.peer().abort()
        assert len(session.wait_for("resynced", PATIENCE_S).message.missing) == 1
        second = server.peer()
        second.send(exit_signal(1))
        found = session.wait_for("exit_signal_with_tx", PATIENCE_S)
        assert found.handle is not None
        assert not found.handle.stale
        until(lambda: any(message["type"] == "request_exit_signal" for message in second.received))


# ── exits ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_repeated_exit_signal_is_delivered_once_and_counted() -> None:
    """A hundred repeats are one; a refreshed transaction, another level or another position is new."""
    messages = [
        opened(),
        *[exit_signal()] * 100,
        exit_signal(unsigned_tx_b64="BBBB"),
        exit_signal(level_index=1),
        exit_signal(8, account=OTHER_WALLET),
        exit_signal(9),  # under another id
    ]

    def script(peer: Peer) -> None:
        peer.greet()
        peer.send(*messages)
        peer.serve()

    with ScriptedServer(script) as server, connect(server) as session:
        settled(session, 1 + len(messages))
        exits = [event for event in session.events.get_batch(1000) if event.type == "exit_signal_with_tx"]
        assert len(exits) == 4
        assert session.stats().duplicates == 100


def test_an_exit_signal_that_cannot_be_read_is_asked_for_again_a_few_times() -> None:
    """Its position can be told, so the sale is not lost with the frame; the bytes are kept and surfaced."""
    broken = '{"type":"exit_signal_with_tx","position_id":7,"token_account":"ACCOUNT","profit_units":"NaN"}'.replace(
        "ACCOUNT", ACCOUNT
    )
    strangers = [
        '{"type":"pnl_update","position_id":-3}',
        broken.replace('"position_id":7', '"watched":true,"position_id":8'),
    ]

    def script(peer: Peer) -> None:
        peer.greet()
        peer.send(opened(), *strangers, *[broken] * 10)
        peer.serve()

    with ScriptedServer(script) as server, connect(server) as session:
        peer = server.peer()
        until(lambda: session.stats().decode_errors == 12)
        session.sender().ping(1)
        until(lambda: peer.received[-1]["type"] == "ping")
        asked = [message for message in peer.received if message["type"] == "request_exit_signal"]
        assert asked == [{"type": "request_exit_signal", "token_account": ACCOUNT}] * 3
        kept = session.unparsed()
        assert [failure.raw.decode() for failure in kept] == [*strangers, *[broken] * 10]
        assert all(isinstance(failure, DecodeFailure) for failure in kept)


def test_exit_request_on_short_links_is_sent_on_each_until_it_is_answered() -> None:
    """Each link ends right after the request came; nothing says that the server read it."""

    def script(peer: Peer) -> None:
        peer.greet()
        peer.send(opened(), opened(8, account=OTHER_WALLET))
        peer.serve()

    def requests(peer: Peer) -> list[dict[str, Any]]:
        return [message for message in peer.received if message["type"] == "request_exit_signal"]

    with ScriptedServer(script) as server, connect(server, stable_after_s=60) as session:
        settled(session, 3)
        first = server.peer()
        session.sender().request_exit_signal(ACCOUNT, 300)
        session.sender().request_exit_signal(8)
        until(lambda: len(requests(first)) == 2)
        first.send(exit_signal(8, account=OTHER_WALLET))
        settled(session, 4)
        first.abort()
        for _ in range(4):
            peer = server.peer()
            until(lambda peer=peer: requests(peer))
            assert requests(peer) == [{"type": "request_exit_signal", "token_account": ACCOUNT, "slippage_bps": 300}]
            peer.abort()
        peer = server.peer()
        until(lambda: requests(peer))
        peer.send(exit_signal(7))
        session.wait_for(lambda e: e.type == "exit_signal_with_tx" and e.message.position_id == 7, PATIENCE_S)
        peer.abort()
        last = server.peer()
        session.wait_for(lambda e: e.type == "connected" and e.message.hello.session_id == 7, PATIENCE_S)
        session.sender().ping(1)
        until(lambda: last.received and last.received[-1]["type"] == "ping")
        assert requests(last) == []


def test_exit_request_on_a_link_that_then_lived_is_not_sent_again() -> None:
    """The link's life is what the server's bytes show, not how long its loss went unnoticed."""

    def script(peer: Peer) -> None:
        peer.greet()
        peer.send(opened())
        peer.serve()

    with ScriptedServer(script) as server, connect(server, stable_after_s=0.05, resync_grace_s=0.1) as session:
        settled(session, 2)
        first = server.peer()
        session.sender().request_exit_signal(ACCOUNT)
        until(lambda: len(first.received) == 2)
        threading.Event().wait(0.1)
        first.send(pnl())
        settled(session, 3)
        first.abort()
        second = server.peer()
        session.wait_for("resynced", PATIENCE_S)
        session.sender().ping(1)
        until(lambda: second.received and second.received[-1]["type"] == "ping")
        assert [message["type"] for message in second.received] == ["configure", "ping"]


@pytest.mark.parametrize("by", ["a deadline", "a request"])
def test_wish_for_an_opening_that_ended_unseen_is_dropped_and_reported(by: str) -> None:
    """Its position was closed and opened again while there was no link: the new one is not sold by the old wish."""
    now_ms = 1_700_000_000_000  # the server's clock in hello()

    def script(peer: Peer) -> None:
        peer.greet()
        if peer.number == 1:
            peer.send(opened(opened_at_ms=now_ms - 1000))
        else:
            # Well after the greeting.
            threading.Event().wait(0.2)
            peer.send(opened(9, opened_at_ms=now_ms))
        peer.serve()

    down = threading.Event()
    deadline = 1.2 if by == "a deadline" else 0
    refuse = lambda request: refusal(503)(request) if down.is_set() else None  # noqa: E731
    with ScriptedServer(script, refuse=refuse) as server, connect(server, deadline=deadline) as session:
        settled(session, 2)
        down.set()
        server.peer().abort()
        session.wait_for("reconnecting", PATIENCE_S)
        if by == "a request":
            session.request_exit_signal(session.positions()[0])
        else:
            until(lambda: session._state.deadlines._fired)
        down.clear()
        second = server.peer()
        dropped = session.wait_for("command_dropped", PATIENCE_S).message
        assert (dropped.command, dropped.position) == ("request_exit_signal", ACCOUNT)
        assert "opened again" in dropped.reason
        if by == "a deadline":
            # The new opening has one of its own.
            remaining_s = session._state.deadlines.remaining_s(session.positions()[0].key)
            assert remaining_s is not None
        session.sender().ping(1)
        until(lambda: second.received and second.received[-1]["type"] == "ping")
        assert [message["type"] for message in second.received] == ["configure", "ping"]


def test_wish_for_a_position_that_is_not_announced_again_is_sent_after_the_grace() -> None:
    """A server that announces nothing again is asked all the same, once its time for announcements is over."""

    def script(peer: Peer) -> None:
        peer.greet()
        if peer.number == 1:
            peer.send(opened())
        peer.serve()

    down = threading.Event()
    refuse = lambda request: refusal(503)(request) if down.is_set() else None  # noqa: E731
    with ScriptedServer(script, refuse=refuse) as server, connect(server, resync_grace_s=0.3) as session:
        settled(session, 2)
        handle = session.positions()[0]
        down.set()
        server.peer().abort()
        session.wait_for("reconnecting", PATIENCE_S)
        session.request_exit_signal(handle)
        session.sender().request_exit_signal(OTHER_WALLET)  # was never announced: nothing to wait for
        session.sender().mirror_buy_result(MINT, success=True)
        down.clear()
        second = server.peer()
        until(lambda: len(second.received) == 4)
        assert [message["type"] for message in second.received] == [
            "configure", "request_exit_signal", "mirror_buy_result", "request_exit_signal",
        ]  # fmt: skip
        assert second.received[3]["token_account"] == ACCOUNT


def test_a_command_whose_position_closed_meanwhile_is_dropped_with_a_report() -> None:
    """It waited for the link; the server's first words were that its position is gone."""
    down = threading.Event()

    def refuse(request: Any) -> Any:
        return refusal(503)(request) if down.is_set() else None

    def script(peer: Peer) -> None:
        if peer.number == 1:
            peer.greet()
            peer.send(opened())
        else:
            peer.recv()
            peer.send(closed(), {"type": "pong", "server_time_ms": 1})
            peer.send(
                {
                    "type": "hello_ok",
                    "session_id": 2,
                    "server_time_ms": 1,
                    "limits": {"hi_capacity": 1, "pnl_flush_ms": 1, "max_positions_per_session": 1},
                }
            )
        peer.serve()

    with ScriptedServer(script, refuse=refuse) as server, connect(server) as session:
        settled(session, 2)
        down.set()
        server.peer().abort()
        session.wait_for("reconnecting", PATIENCE_S)
        session.close(session.positions()[0])
        down.clear()
        second = server.peer()
        dropped = session.wait_for("command_dropped", PATIENCE_S).message
        assert isinstance(dropped, CommandDropped)
        assert (dropped.command, dropped.position) == ("close_position", ACCOUNT)
        session.sender().ping(1)
        until(lambda: second.received and second.received[-1]["type"] == "ping")
        assert [message["type"] for message in second.received] == ["configure", "ping"]


# ── handlers and threads ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("dispatch", ["thread", "per_lane"])
def test_a_handler_that_hangs_is_reported_with_its_stack(dispatch: str, caplog: pytest.LogCaptureFixture) -> None:
    """Logged, in ``health()``, and with two lanes told by the other one; once for each call."""

    def script(peer: Peer) -> None:
        peer.greet()
        peer.send(opened(), pnl(7, 1))
        peer.serve()

    release = threading.Event()
    told: queue.Queue[StreamEvent] = queue.Queue()
    with (
        ScriptedServer(script) as server,
        connect(server, dispatch=dispatch, handler_stuck_after_s=0.1, ping_interval_s=0.05) as session,
    ):

        @session.on("pnl_update")
        def hang_here(event: StreamEvent) -> None:
            release.wait(PATIENCE_S)

        session.on("handler_stuck", told.put)
        session.start()
        until(lambda: session.health().stuck_handlers)
        health = session.health()
        assert not health.ok
        assert "hang_here" in health.problem
        until(lambda: "release.wait" in caplog.text)
        if dispatch == "per_lane":
            message = told.get(timeout=PATIENCE_S).message
            assert isinstance(message, HandlerStuck)
            assert "hang_here" in message.handler
            assert "release.wait" in message.stack
        release.set()
        until(lambda: session.health().ok)
        assert caplog.text.count("has been handling") == 1


@pytest.mark.parametrize("name", ["lasersell-reader", "lasersell-dispatch", "lasersell-deadlines"])
def test_a_library_thread_that_dies_fails_the_session_by_name(name: str) -> None:
    """Killed from outside by an injected SystemExit: FAILED within a second, and everyone who waits is told which."""

    def script(peer: Peer) -> None:
        peer.greet()
        peer.send(opened())
        peer.serve()

    with ScriptedServer(script) as server, connect(server, deadline=1000, ping_interval_s=0.05) as session:
        settled(session, 2)
        session.start()
        until(lambda: any(thread.name == name and thread.ident for thread in threading.enumerate()))
        victim = next(thread for thread in threading.enumerate() if thread.name == name)
        assert victim.ident is not None
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(victim.ident), ctypes.py_object(SystemExit))
        # An injected exception arrives when the thread runs Python again: give it something to do.
        server.peer().send(pnl(7, 1))
        with contextlib.suppress(ThreadDiedError):
            session.update_strategy(STRATEGY, deadline_timeout_sec=999)
        with pytest.raises(ThreadDiedError, match=name):
            session.wait_for("pong", PATIENCE_S)
        until(lambda: session.status is ConnectionState.FAILED, 1.0)
        assert name in session.health().problem
        with pytest.raises(ThreadDiedError):
            session.sender().ping(1)


# ── liveness ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_server_whose_transport_answers_and_whose_application_does_not_is_left() -> None:
    """Transport pongs keep coming; the missing application pong ends the link."""

    def script(peer: Peer) -> None:
        peer.greet()
        peer.serve()  # answers transport pings by itself, application pings never

    with (
        ScriptedServer(script) as server,
        connect(server, ping_interval_s=0.05, app_ping_interval_s=0.1, app_pong_timeout_s=0.1) as session,
    ):
        lost = session.wait_for("disconnected", PATIENCE_S)
        assert "the transport answers" in lost.message.reason


def test_our_own_pongs_are_swallowed_and_measure_and_the_users_are_delivered() -> None:
    """Round trip and clock offset are in ``stats()``; the user sees only the pongs that he asked for."""

    def script(peer: Peer) -> None:
        peer.greet()
        while True:
            asked = peer.recv()
            if asked["type"] == "ping":
                peer.send({"type": "pong", "server_time_ms": int(time.time() * 1000) + 5000})

    with ScriptedServer(script) as server, connect(server, app_ping_interval_s=0.03, app_pong_timeout_s=5.0) as session:
        peer = server.peer()
        until(lambda: sum(message["type"] == "ping" for message in peer.received) >= 3)
        session.sender().ping(42)
        event = session.wait_for("pong", PATIENCE_S)
        assert event.type == "pong"
        until(lambda: session.stats().app_round_trip_seconds is not None)
        stats = session.stats()
        assert stats.clock_offset_ms is not None
        assert 4000 < stats.clock_offset_ms < 6000
        # Who waits for an event is told before it is in the queue.
        kinds: list[str] = []
        while "pong" not in kinds:
            kinds += [e.type for e in session.events.get_batch(100, PATIENCE_S)]
        assert kinds.count("pong") == 1


def test_a_silent_link_is_stale_before_it_is_lost() -> None:
    """``status`` says STALE while an answer is overdue, and LIVE again when a byte comes."""
    gate = threading.Event()

    def script(peer: Peer) -> None:
        peer.greet()
        gate.wait(PATIENCE_S)
        peer.send({"type": "pong", "server_time_ms": 1})
        peer.serve()

    with (
        ScriptedServer(script) as server,
        connect(server, ping_interval_s=100, app_ping_interval_s=0.05, app_pong_timeout_s=4.0) as session,
    ):
        until(lambda: session.status is ConnectionState.STALE)
        assert not session.health().ok
        gate.set()
        until(lambda: session.status is ConnectionState.LIVE)


def test_health_of_a_good_session_is_plain() -> None:
    """Everything in it can be put into JSON."""
    with ScriptedServer() as server, connect(server) as session:
        health = session.health()
        assert health.ok
        assert health.to_dict()["status"] == "live"
        assert health.problem == ""
        server.stop()
        until(lambda: not session.health().ok)
        assert "connection" in session.health().problem
