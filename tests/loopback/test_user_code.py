"""Whatever user code raises stays where it was raised: it is reported, and nothing of the library ends with it."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

import pytest

from lasersell_sync import (
    ConnectionState,
    HandlerError,
    StrategyConfig,
    StreamClient,
    StreamConfigure,
    StreamEvent,
    StreamOptions,
    StreamSession,
)
from lasersell_sync.autosell.keyed_executor import KeyedExecutor
from lasersell_sync.runtime.callback_executor import CallbackExecutor
from lasersell_sync.runtime.user_code import passes_through
from tests.support.stream_server import PATIENCE_S, WALLET, Peer, ScriptedServer, opened, pnl
from tests.support.waiting import until

CONFIGURE = StreamConfigure([WALLET], StrategyConfig(target_profit_pct=5.0, stop_loss_pct=10.0))


class PanicException(BaseException):
    """What solders raises when its Rust code panics; the real class cannot be raised by hand."""


class GreenletExit(BaseException):
    """greenlet's, without greenlet."""


class Timeout(BaseException):
    """gevent's and eventlet's, without them: they say how long they run."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


def raising(kind: Callable[..., BaseException], *args: object) -> Callable[..., NoReturn]:
    def callback(*_: object) -> NoReturn:
        raise kind(*args)

    return callback


ERRORS: dict[str, Callable[..., Any]] = {
    "SystemExit": lambda *_: sys.exit(3),
    "KeyboardInterrupt": raising(KeyboardInterrupt),
    "CancelledError": raising(asyncio.CancelledError),
    "pytest.fail": lambda *_: pytest.fail("a test's helper in a handler"),
    "GeneratorExit": raising(GeneratorExit),
    "a Rust panic": raising(PanicException, "called `Option::unwrap()` on a `None` value"),
    "GreenletExit": raising(GreenletExit),
    "gevent.Timeout": raising(Timeout, 1.0),
    "MemoryError": raising(MemoryError),
    "an exception": raising(ZeroDivisionError, "boom"),
}
every_error = pytest.mark.parametrize("kind", ERRORS)


def connect(url: str, dispatch: Any = "thread", **options: Any) -> StreamSession:
    client = StreamClient("key", options=StreamOptions(initial_backoff_s=0.01, **options)).with_endpoint(url)
    return StreamSession.connect(client, CONFIGURE, dispatch=dispatch)


def one_position(peer: Peer) -> None:
    peer.greet()
    peer.send(opened(), pnl(profit_units=1))
    peer.serve()


@every_error
@pytest.mark.parametrize("dispatch", ["thread", "per_lane", "inline"])
def test_handler_that_raises_anything_is_reported_and_the_next_event_handled(kind: str, dispatch: Any) -> None:
    """On both lanes and every way to dispatch: ``handler_error`` names it, and the session lives on."""
    errors: list[StreamEvent] = []
    seen: list[str] = []
    with ScriptedServer(one_position) as server, connect(server.url, dispatch) as session:
        session.on("position_opened", ERRORS[kind])
        session.on("pnl_update", ERRORS[kind])
        session.on("*", lambda event: seen.append(event.type))
        session.on("handler_error", errors.append)
        session.start()
        until(lambda: len(errors) == 2)
        assert {error.message.event_type for error in errors} == {"position_opened", "pnl_update"}
        assert all(isinstance(error.message, HandlerError) for error in errors)
        server.peer().send(pnl(profit_units=2), {"type": "pong", "server_time_ms": 1})
        until(lambda: "pong" in seen)
        assert session.status is ConnectionState.LIVE
        assert {"position_opened", "pnl_update"} <= set(seen)


@every_error
def test_on_event_that_raises_anything_changes_nothing(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """On the reader: connect works, the link is repaired, the log has the error."""
    caplog.set_level(logging.ERROR, "lasersell_sync")

    def script(peer: Peer) -> None:
        peer.greet()
        if peer.number == 1:
            peer.abort()
        peer.serve()

    client = StreamClient("key", options=StreamOptions(initial_backoff_s=0.01, on_event=ERRORS[kind]))
    with ScriptedServer(script) as server, client.with_endpoint(server.url).connect(CONFIGURE) as connection:
        until(lambda: connection.stats().sessions == 2)
        assert connection.status is ConnectionState.LIVE
        assert any("on_event raised" in record.getMessage() for record in caplog.records)


@every_error
def test_taps_that_raise_anything_are_taken_off_and_change_nothing(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """A connection's, which hears bytes, and a session's, which hears events; another tap still hears everything."""
    caplog.set_level(logging.ERROR, "lasersell_sync")
    others: list[str] = []
    with ScriptedServer(one_position) as server, connect(server.url) as session:
        session.wait_for("position_opened", PATIENCE_S)
        session.connection.tap(ERRORS[kind])
        session.tap(ERRORS[kind])
        session.tap(lambda event: others.append(event.type))
        until(lambda: "position_opened" in others)
        server.peer().send({"type": "pong", "server_time_ms": 1})
        until(lambda: "pong" in others)
        assert session.status is ConnectionState.LIVE
        assert sum("a tap raised" in record.getMessage() for record in caplog.records) == 2


@every_error
def test_predicate_that_raises_anything_ends_its_own_wait_only(kind: str) -> None:
    """It runs on the caller's thread, and its caller gets what it raised; others who wait go on."""
    found: list[StreamEvent] = []
    waits = threading.Event()

    def is_pong(event: StreamEvent) -> bool:
        waits.set()  # low-lane events count from the call on
        return event.type == "pong"

    with ScriptedServer(one_position) as server, connect(server.url) as session:
        other = threading.Thread(target=lambda: found.append(session.wait_for(is_pong, PATIENCE_S)))
        other.start()
        assert waits.wait(PATIENCE_S)
        with pytest.raises(BaseException) as caught:  # noqa: PT011 - any
            session.wait_for(ERRORS[kind], PATIENCE_S)
        assert not isinstance(caught.value, AssertionError)
        assert session.status is ConnectionState.LIVE
        peer = server.peer()
        peer.send({"type": "pong", "server_time_ms": 1})
        other.join(PATIENCE_S)
        assert [event.type for event in found] == ["pong"]
        peer.send(opened())  # a wait goes on behind the pong
        assert session.wait_for("position_opened", PATIENCE_S).type == "position_opened"


@every_error
def test_on_settled_that_raises_anything_leaves_the_next_ones_their_turn(kind: str) -> None:
    """They share one thread."""

    told = threading.Event()
    calls = CallbackExecutor("lasersell-test-calls", logging.getLogger("lasersell_sync.test"))
    calls.run([(partial(ERRORS[kind], None), "the first"), (told.set, "the second")])
    assert told.wait(PATIENCE_S)
    calls.close()


@every_error
def test_task_that_raises_anything_leaves_its_worker_alive(kind: str) -> None:
    """One worker serves every line; what is reported is an Exception with the words of what was raised."""
    troubles: list[Exception] = []
    lines = KeyedExecutor(1, lambda _, error: troubles.append(error))
    lines.start()
    done = threading.Event()
    lines.put("a", ERRORS[kind])
    lines.put("b", done.set)
    assert done.wait(PATIENCE_S)
    lines.close(PATIENCE_S)
    assert isinstance(troubles[0], Exception)


# ── the user's own thread ──


def running(url: str, handler: Callable[[StreamEvent], object], **options: Any) -> StreamSession:
    session = connect(url, **options)
    session.on("position_opened", handler)
    return session


@pytest.mark.parametrize("kind", ["KeyboardInterrupt", "GreenletExit"])
def test_run_raises_what_is_meant_for_its_thread(kind: str) -> None:
    """Ctrl-C while a handler runs, and the end of the greenlet that runs it."""
    with ScriptedServer(one_position) as server, running(server.url, ERRORS[kind]) as session:
        with pytest.raises(BaseException) as caught:  # noqa: PT011 - one of two
            session.run()
        assert type(caught.value).__name__ == kind


@pytest.mark.parametrize("kind", sorted(ERRORS.keys() - {"KeyboardInterrupt", "GreenletExit", "gevent.Timeout"}))
def test_run_goes_on_after_anything_else(kind: str) -> None:
    """It is the handler's own doing."""
    with ScriptedServer(one_position) as server, running(server.url, ERRORS[kind]) as session:
        session.on("handler_error", lambda _: session.close())
        session.run()
        assert session.status is ConnectionState.CLOSED


def test_timeout_that_was_set_outside_the_handler_passes_and_one_set_inside_does_not() -> None:
    """gevent's says for how long it runs: one that is longer than the handler has run began before it."""
    now = time.monotonic()
    assert passes_through(Timeout(5.0), began_at=now - 1.0)
    assert not passes_through(Timeout(5.0), began_at=now - 5.1)
    assert not passes_through(Timeout(5.0), began_at=None)


def test_gevents_own_timeouts_are_told_apart() -> None:
    """A real gevent in a process of its own: the one around ``run()`` ends it, the handler's own does not."""
    from tests.workers.programs import run

    program = """
    import gevent
    def own(event):
        with gevent.Timeout(0.05): time.sleep(5)
    def slow(event): time.sleep(5)
    told = []
    with connect() as session:
        session.on("connected", own)
        session.on("hello_ok", slow)
        session.on("handler_error", lambda event: told.append(type(event.message.error).__name__))
        try:
            with gevent.Timeout(1.0): session.run()
        except gevent.Timeout as error: told.append(error.seconds)
    print(told, flush=True)
    """
    with ScriptedServer() as server:
        done = run(program, server.url, before="from gevent import monkey; monkey.patch_all()\n")
        # The outer one came while "hello_ok" was handled, and ended run() before handler_error had its turn.
        assert done.stdout in ("[1.0]\n", "['Timeout', 1.0]\n"), done.stdout + done.stderr
        assert "own raised" in done.stderr
        assert "slow raised" not in done.stderr


@pytest.mark.parametrize("dispatch", ["thread", "per_lane", "inline"])
def test_handler_errors_that_were_held_back_are_told_when_the_session_ends(
    dispatch: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """All come within the second in which only some are told; the rest is in an event, and in the log, by the end."""
    told: list[HandlerError] = []
    handled: list[int] = []
    count = 300

    def script(peer: Peer) -> None:
        peer.greet()
        balance = {"type": "balance_update", "wallet_pubkey": WALLET, "mint": "m", "token_account": "x", "slot": 1}
        peer.send(*({**balance, "tokens": number} for number in range(count)))
        peer.serve()

    def raising_handler(event: StreamEvent) -> None:
        handled.append(event.message.tokens)
        raise ZeroDivisionError

    with ScriptedServer(script) as server:
        session = connect(server.url, dispatch)
        session.on("balance_update", raising_handler)
        session.on("handler_error", lambda event: told.append(event.message))
        session.start()
        until(lambda: len(handled) == count)
        session.close()
    assert sum(error.since_last for error in told) == told[-1].count == count
    assert len(told) < 30
    logged = [record.getMessage() for record in caplog.records]
    assert sum("raised for balance_update" in line for line in logged) == 20
    assert any(line.startswith("280 more lines") for line in logged)


def test_handler_errors_of_events_that_wait_when_the_session_ends_are_told(caplog: pytest.LogCaptureFixture) -> None:
    """The reader, which tells what is due, is gone before the handlers are called for what had arrived."""
    told: list[HandlerError] = []
    first, go_on = threading.Event(), threading.Event()

    def script(peer: Peer) -> None:
        peer.greet()
        balance = {"type": "balance_update", "wallet_pubkey": WALLET, "mint": "m", "token_account": "x", "slot": 1}
        peer.send(*({**balance, "tokens": number} for number in range(100)))
        peer.serve()

    def raising_handler(event: StreamEvent) -> None:
        first.set()
        go_on.wait(PATIENCE_S)
        raise ZeroDivisionError

    with ScriptedServer(script) as server:
        session = connect(server.url)
        session.on("balance_update", raising_handler)
        session.on("handler_error", lambda event: told.append(event.message))
        session.start()
        assert first.wait(PATIENCE_S)
        until(lambda: session.stats().messages_received > 100)
        closer = threading.Thread(target=session.close)
        closer.start()
        until(lambda: session.status is ConnectionState.CLOSED)
        go_on.set()
        closer.join(PATIENCE_S)
    assert sum(error.since_last for error in told) == 100
    assert any("raised 100 times" in record.getMessage() for record in caplog.records)
