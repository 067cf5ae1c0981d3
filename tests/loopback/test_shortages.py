"""No thread, no descriptor, no memory: a shortage passes, and so does what it did to a session."""

from __future__ import annotations

import errno
import logging
import os
import resource
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lasersell_sync import (
    ConcurrencyError,
    ConnectionState,
    SendTargetRpc,
    StrategyConfig,
    StreamClient,
    StreamConfigure,
    StreamOptions,
    StreamSession,
    TransportError,
    TxSender,
)
from lasersell_sync.autosell.keyed_executor import KeyedExecutor
from lasersell_sync.runtime.callback_executor import CallbackExecutor
from lasersell_sync.stream import reader as reader_module
from lasersell_sync.stream import waiter as look_ups
from lasersell_sync.stream import waiter as waiters
from lasersell_sync.stream.connected_loop import ConnectedLoop
from tests.support.solana_node import SignedTransfer, SolanaNode
from tests.support.stream_server import PATIENCE_S, WALLET, Peer, ScriptedServer
from tests.support.waiting import until

CONFIGURE = StreamConfigure([WALLET], StrategyConfig(target_profit_pct=5.0, stop_loss_pct=10.0))


def client(url: str, **options: Any) -> StreamClient:
    options = {"initial_backoff_s": 0.01, "max_backoff_s": 0.02, **options}
    return StreamClient("key", options=StreamOptions(**options)).with_endpoint(url)


def connect(url: str, **options: Any) -> StreamSession:
    return StreamSession.connect(client(url, **options), CONFIGURE)


def lost_once(peer: Peer) -> None:
    """The first connection ends when the test says so."""
    peer.greet()
    peer.serve()


class NoThreads:
    """Threads whose name begins so cannot be started, as on a system that has none to spare."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.names: tuple[str, ...] = ()
        self.refused: list[str] = []
        start = threading.Thread.start

        def refuse(thread: threading.Thread) -> None:
            if thread.name.startswith(self.names or "\0"):
                self.refused.append(thread.name)
                raise RuntimeError("can't start new thread")
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", refuse)


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> NoThreads:
    return NoThreads(monkeypatch)


# ── threads ──


def test_reconnect_without_a_thread_for_the_look_up_backs_off_until_there_is_one(no_threads: NoThreads) -> None:
    """ "can't start new thread" is like a network that is down, not the end of the session."""
    with ScriptedServer(lost_once) as server, connect(server.url.replace("127.0.0.1", "localhost")) as session:
        no_threads.names = ("lasersell-dns",)
        server.peer().abort()
        until(lambda: len(no_threads.refused) >= 5)
        assert session.status in (ConnectionState.BACKOFF, ConnectionState.CONNECTING)
        assert look_ups._pending == {}
        no_threads.names = ()
        until(lambda: session.status is ConnectionState.LIVE)


def test_connect_without_a_thread_for_the_reader_raises_and_leaves_nothing(no_threads: NoThreads) -> None:
    """An error of ours, no descriptor, and the next connect works."""
    with ScriptedServer() as server:
        no_threads.names = ("lasersell-reader",)
        prepared = client(server.url).prepare(CONFIGURE)
        with pytest.raises(ConcurrencyError, match="no thread could be started"):
            prepared.open()
        assert prepared.reader.wake_up._closed
        prepared.close()
        with pytest.raises(ConcurrencyError, match="no thread could be started"):
            connect(server.url)
        no_threads.names = ()
        connect(server.url).close()


@pytest.mark.parametrize("dispatch", ["thread", "per_lane"])
def test_start_without_a_thread_may_be_called_again(dispatch: Any, no_threads: NoThreads) -> None:
    """What did not start is not noted as started; no lane gets two threads."""
    seen: list[str] = []
    with ScriptedServer() as server, StreamSession.connect(client(server.url), CONFIGURE, dispatch=dispatch) as session:
        session.on("*", lambda event: seen.append(event.type))
        no_threads.names = ("lasersell-dispatch-low" if dispatch == "per_lane" else "lasersell-dispatch",)
        with pytest.raises(ConcurrencyError, match="no thread could be started"):
            session.start()
        no_threads.names = ()
        session.start()
        until(lambda: "hello_ok" in seen)
        names = [thread.name for thread in threading.enumerate() if thread.name.startswith("lasersell-dispatch")]
        assert len(names) == len(set(names)) == (2 if dispatch == "per_lane" else 1)
        with pytest.raises(ConcurrencyError):
            session.start()


def test_sender_without_threads_follows_the_transaction_when_there_are_some(no_threads: NoThreads) -> None:
    """The copies leave; the next call starts what was missing."""
    with SolanaNode() as node:
        sender = TxSender(SendTargetRpc(node.url), poll_s=0.02, keep_warm_s=None)
        first, second = SignedTransfer(1), SignedTransfer(2)
        no_threads.names = ("lasersell-confirm",)
        pending = sender.submit(first.b64)
        until(lambda: node.sent == [first.b64])
        assert no_threads.refused
        node.land(first.signature)
        no_threads.names = ()
        node.land(second.signature)
        assert sender.submit(second.b64).result(PATIENCE_S).outcome.name == "CONFIRMED"
        assert pending.result(PATIENCE_S).outcome.name == "CONFIRMED"
        sender.close()


def test_sender_with_some_threads_starts_the_others_by_itself(no_threads: NoThreads) -> None:
    """Nobody has to call it again."""
    with SolanaNode() as node:
        sender = TxSender(SendTargetRpc(node.url), poll_s=0.02, keep_warm_s=None)
        tx = SignedTransfer(1)
        no_threads.names = ("lasersell-confirm-",)
        pending = sender.submit(tx.b64)
        node.land(tx.signature)
        assert no_threads.refused
        no_threads.names = ()
        assert pending.result(PATIENCE_S).outcome.name == "CONFIRMED"
        sender.close()


def test_callbacks_without_a_thread_are_called_once_there_is_one(no_threads: NoThreads) -> None:
    """None is lost, and they keep their order."""
    told: list[str] = []
    calls = CallbackExecutor("lasersell-test-calls", logging.getLogger("lasersell_sync.test"))
    no_threads.names = ("lasersell-test-calls",)
    calls.run([(lambda: told.append("first"), "first")])
    assert no_threads.refused
    assert calls.thread is None
    no_threads.names = ()
    calls.run([(lambda: told.append("second"), "second")])
    until(lambda: told == ["first", "second"])
    calls.close()
    assert calls.wait_closed(PATIENCE_S) is None


def test_workers_of_a_seller_that_found_no_thread_are_started_with_later_tasks(no_threads: NoThreads) -> None:
    """One is enough to begin with; none is an error, after which it may be started again."""
    lines = KeyedExecutor(3, lambda *_: None)
    no_threads.names = ("lasersell-autosell-",)
    with pytest.raises(ConcurrencyError, match="no thread could be started"):
        lines.start()
    no_threads.names = ("lasersell-autosell-1", "lasersell-autosell-2")
    lines.start()
    done = threading.Event()
    lines.put("a", done.set)
    assert done.wait(PATIENCE_S)
    no_threads.names = ()
    lines.put("a", lambda: None)
    workers = sum(thread.name.startswith("lasersell-autosell-") for thread in threading.enumerate())
    assert workers == 3
    lines.close(PATIENCE_S)


# ── descriptors ──


@pytest.fixture
def no_descriptors() -> Iterator[Callable[[bool], None]]:
    """Takes every free descriptor of this process, and gives them back."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held: list[int] = []

    def take(are_gone: bool) -> None:
        if not are_gone:
            while held:
                os.close(held.pop())
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            return
        if not held:
            most = max(int(path.name) for path in Path("/proc/self/fd").iterdir()) + 32
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, soft), hard))
        while True:
            try:
                held.append(os.open("/dev/null", os.O_RDONLY))
            except OSError:
                return

    yield take
    take(False)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_reconnect_without_a_descriptor_backs_off_until_there_is_one(
    host: str, no_descriptors: Callable[[bool], None]
) -> None:
    """A real EMFILE: neither an attempt nor the pause between two needs one to go on."""
    events: list[Any] = []
    with (
        ScriptedServer(lost_once) as server,
        client(server.url.replace("127.0.0.1", host), on_event=events.append).connect(CONFIGURE) as connection,
    ):
        peer = server.peer()
        no_descriptors(True)
        peer.abort()
        until(lambda: any(event.type == "disconnected" for event in events))

        def has_failed_often() -> bool:
            no_descriptors(True)  # also those that the lost link has given back
            return sum("too many" in getattr(event, "last_error", "").lower() for event in events) >= 5

        until(has_failed_often)
        states = {connection.status for _ in range(100)}
        no_descriptors(False)
        assert not states & {ConnectionState.FAILED, ConnectionState.CLOSED}
        until(lambda: connection.status is ConnectionState.LIVE)
        assert any("too many open files" in getattr(event, "last_error", "").lower() for event in events)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
@pytest.mark.parametrize("where", ["socket", "pipe"])
def test_reconnect_with_any_shortage_of_the_system_backs_off(
    where: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever runs out, wherever it is met."""
    short, met = threading.Event(), []
    real_socket, real_pipe = socket.socket, os.pipe

    def check() -> None:
        if short.is_set() and threading.current_thread().name == "lasersell-reader":
            met.append(number)
            raise OSError(number, os.strerror(number))

    class Socket(real_socket):  # type: ignore[misc, valid-type]
        def __init__(self, *args: Any, **options: Any) -> None:
            if where == "socket":
                check()
            super().__init__(*args, **options)

    def pipe() -> tuple[int, int]:
        if where == "pipe":
            check()
        return real_pipe()

    with ScriptedServer(lost_once) as server, connect(server.url.replace("127.0.0.1", "localhost")) as session:
        monkeypatch.setattr(socket, "socket", Socket)
        monkeypatch.setattr(os, "pipe", pipe)
        short.set()
        server.peer().abort()
        until(lambda: len(met) >= 3)
        short.clear()
        until(lambda: session.status is ConnectionState.LIVE)
        monkeypatch.undo()


def test_first_connect_without_a_descriptor_raises_transport_error_with_a_remedy(
    no_descriptors: Callable[[bool], None],
) -> None:
    """And not an OSError in the system's words."""
    with ScriptedServer() as server:
        connect(server.url).close()  # the server has every descriptor that it needs from now on
        prepared = client(server.url).prepare(CONFIGURE)  # its own descriptors are made here
        no_descriptors(True)
        try:
            with pytest.raises(TransportError) as caught:
                prepared.open()
        finally:
            no_descriptors(False)
        assert "too many open files" in str(caught.value)
        assert caught.value.stage == "tcp"


def test_memory_error_while_connecting_or_serving_is_a_lost_link(monkeypatch: pytest.MonkeyPatch) -> None:
    """It passes as well: the next attempt finds memory again."""
    short, met = threading.Event(), []
    serving_fails, served = threading.Event(), []
    real, note_pong = reader_module.open_link, ConnectedLoop._observe_pong

    def open_link(*args: Any, **options: Any) -> Any:
        if short.is_set():
            met.append(1)
            raise MemoryError
        return real(*args, **options)

    def serve(serving: ConnectedLoop, message: Any) -> bool:
        if serving_fails.is_set():
            serving_fails.clear()
            served.append(1)
            raise MemoryError
        return note_pong(serving, message)

    monkeypatch.setattr(reader_module, "open_link", open_link)
    monkeypatch.setattr(ConnectedLoop, "_observe_pong", serve)
    with ScriptedServer(lost_once) as server, connect(server.url) as session:
        short.set()
        server.peer().abort()
        until(lambda: len(met) >= 3)
        short.clear()
        until(lambda: session.status is ConnectionState.LIVE)

        serving_fails.set()
        server.peer().send({"type": "pong", "server_time_ms": 1})
        until(lambda: served)
        until(lambda: session.stats().sessions >= 3)
        until(lambda: session.status is ConnectionState.LIVE)


def test_pause_between_attempts_opens_no_descriptor() -> None:
    """``epoll`` would: the pause itself must not fail."""
    with waiters.new_selector() as selector:
        assert not hasattr(selector, "fileno")


# ── names ──


def test_hanging_resolver_is_asked_once_whatever_number_of_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread a host; its late answer serves the attempt that waits by then."""
    let_go, asked = threading.Event(), []
    real = socket.getaddrinfo

    def look_up(host: str, port: Any, *args: Any, **options: Any) -> Any:
        if threading.current_thread().name == "lasersell-dns":
            asked.append(host)
            let_go.wait(PATIENCE_S)
        return real(host, port, *args, **options)

    events: list[Any] = []
    with ScriptedServer(lost_once) as server:
        url = server.url.replace("127.0.0.1", "localhost")
        with client(url, on_event=events.append, connect_timeout_s=0.2).connect(CONFIGURE) as connection:
            monkeypatch.setattr(socket, "getaddrinfo", look_up)
            server.peer().abort()
            until(lambda: sum(event.type == "reconnecting" for event in events) >= 5)
            assert asked == ["localhost"]
            assert sum(thread.name == "lasersell-dns" for thread in threading.enumerate()) == 1
            let_go.set()
            until(lambda: connection.status is ConnectionState.LIVE)
            until(lambda: look_ups._pending == {})
        monkeypatch.undo()
