"""StreamClient and StreamConnection against a server written by someone else, over real sockets."""

from __future__ import annotations

import contextlib
import logging
import queue
import select
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from lasersell_sync import (
    AuthenticationError,
    ConfigurationError,
    Connected,
    ConnectionState,
    DecodeFailure,
    Disconnected,
    ErrorMessage,
    HandshakeError,
    HelloOk,
    Lagged,
    PnlUpdate,
    Pong,
    PositionClosed,
    Reconnecting,
    SessionLimitError,
    StrategyConfig,
    StrategyError,
    StreamClient,
    StreamClosed,
    StreamConfigure,
    StreamConnection,
    StreamOptions,
    TransportError,
    UnknownMessage,
    WalletNotRegisteredError,
    WatchWallet,
)
from tests.support.stream_server import (
    ACCOUNT,
    OTHER_WALLET,
    PATIENCE_S,
    WALLET,
    Peer,
    RawServer,
    ScriptedServer,
    closed,
    hello,
    idle,
    opened,
    pnl,
    refusal,
    text_frame,
    upgrade,
)
from tests.support.waiting import until

KEY = "canary-key-0123456789"
STRATEGY = StrategyConfig(target_profit_pct=5.0, stop_loss_pct=10.0)
CONFIGURE = StreamConfigure([WALLET], STRATEGY)


class Events:
    """Collects connection events; tests wait for the one they need."""

    def __init__(self) -> None:
        self.all: list[Any] = []
        self._queue: queue.Queue[Any] = queue.Queue()

    def __call__(self, event: Any) -> None:
        self.all.append(event)
        self._queue.put(event)

    def wait(self, kind: type) -> Any:
        """The next event of a kind."""
        while True:
            event = self._queue.get(timeout=PATIENCE_S)
            if isinstance(event, kind):
                return event


def connect(url: str, configure: StreamConfigure = CONFIGURE, **options: Any) -> StreamConnection:
    return StreamClient(KEY, options=StreamOptions(**options)).with_endpoint(url).connect(configure)


def recv(connection: StreamConnection) -> Any:
    return connection.recv(timeout=PATIENCE_S)


# ── the handshake ────────────────────────────────────────────────────────────────────────────────────────────────


def test_configure_goes_first_and_hello_ok_comes_out() -> None:
    """The key travels in the header, ``configure`` at once, and ``hello_ok`` is the first message."""
    with ScriptedServer() as server, connect(server.url) as connection:
        peer = server.peer()
        assert peer.headers["x-api-key"] == KEY
        assert recv(connection) == HelloOk(session_id=1, server_time_ms=1_700_000_000_000, limits=connection.limits)
        assert peer.received[0]["type"] == "configure"
        assert peer.received[0]["wallet_pubkeys"] == [WALLET]
        assert "deadline_timeout_sec" not in peer.received[0]
        assert connection.status is ConnectionState.LIVE
        assert connection.session_id == 1
        assert connection.limits is not None
        assert connection.limits.max_positions_per_session == 20000


def test_hello_before_configure_is_accepted_and_early_messages_follow_it() -> None:
    """A server that greets first, or sends data before its greeting, works too; nothing is lost or reordered."""

    def script(peer: Peer) -> None:
        peer.send({"type": "pong", "server_time_ms": 1}, hello())
        peer.recv()
        peer.send({"type": "pong", "server_time_ms": 2})
        peer.serve()

    with ScriptedServer(script) as server, connect(server.url) as connection:
        assert isinstance(recv(connection), HelloOk)
        assert [recv(connection).server_time_ms, recv(connection).server_time_ms] == [1, 2]


def test_frames_in_the_segment_of_the_101_are_not_swallowed() -> None:
    """What the server sends right behind its upgrade answer is still there for our parser (one TCP segment)."""

    def script(sock: socket.socket) -> None:
        upgrade(sock, text_frame(hello(session_id=99)) + text_frame({"type": "pong", "server_time_ms": 3}))
        while sock.recv(4096):
            pass

    with RawServer(script) as server, connect(server.url) as connection:
        assert recv(connection).session_id == 99
        assert recv(connection) == Pong(server_time_ms=3)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("invalid_api_key", AuthenticationError),
        ("unauthorized", AuthenticationError),
        ("wallet_not_registered", WalletNotRegisteredError),
        ("session_limit", SessionLimitError),
        ("invalid_strategy", StrategyError),
        ("something_new", HandshakeError),
    ],
)
def test_an_error_in_place_of_hello_raises_its_exception(code: str, error: type[Exception]) -> None:
    """The server's code and words reach the caller of ``connect``, as the exception of the table."""

    def script(peer: Peer) -> None:
        peer.recv()
        peer.send({"type": "error", "code": code, "message": "because of this"})
        peer.serve()

    with ScriptedServer(script) as server:
        with pytest.raises(error, match="because of this") as caught:
            connect(server.url)
        assert type(caught.value) is error
        assert caught.value.code == code  # type: ignore[attr-defined]


@pytest.mark.parametrize("status", [401, 403])
def test_401_and_403_are_authentication_errors_at_once(status: int) -> None:
    """A refused key raises right away, with the status, and without a second try."""
    asked = []

    def refuse(request: Any) -> Any:
        asked.append(request)
        return refusal(status, '{"error":"no such key"}')(request)

    with ScriptedServer(refuse=refuse) as server:
        with pytest.raises(AuthenticationError, match="no such key") as caught:
            connect(server.url)
        assert caught.value.status == status
        assert isinstance(caught.value, PermissionError)
        assert len(asked) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_an_error_and_the_key_reaches_no_second_host(status: int) -> None:
    """Redirects are never followed: the second host sees no connection at all."""
    with RawServer(lambda sock: None) as second:
        location = f"ws://127.0.0.1:{second.port}/v1/ws"
        with ScriptedServer(refuse=refusal(status, location=location)) as server:
            with pytest.raises(HandshakeError, match="redirect") as caught:
                connect(server.url)
            assert caught.value.status == status
        assert second.accepted == 0


def test_other_refusals_carry_status_words_and_retry_after() -> None:
    """A 429 tells how long to wait."""
    with ScriptedServer(refuse=refusal(429, "slow down", retry_after="7")) as server:
        with pytest.raises(HandshakeError, match="slow down") as caught:
            connect(server.url)
        assert (caught.value.status, caught.value.retry_after_s) == (429, 7.0)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01 this is not HTTP\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 101 OK\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: wrong\r\n\r\n",
        b"HTTP/1.1 abc def\r\nx: y\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n" + b"x" * 200_000,
        b"x" * 200_000,
    ],
)
def test_garbage_in_place_of_the_upgrade_is_a_named_error(answer: bytes) -> None:
    """Whatever answers, the caller gets one of our errors, soon, and nothing is left running."""

    def script(sock: socket.socket) -> None:
        sock.recv(65536)
        sock.sendall(answer)
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(4096):
            pass

    with RawServer(script) as server, pytest.raises((HandshakeError, TransportError)) as caught:
        connect(server.url)
    assert KEY not in str(caught.value)
    assert not isinstance(caught.value, AuthenticationError)


def test_no_hello_in_time_is_a_handshake_error() -> None:
    """A server that takes ``configure`` and stays silent is given up after connect_timeout_s."""
    with ScriptedServer(lambda peer: peer.serve()) as server, pytest.raises(HandshakeError, match="hello_ok"):
        connect(server.url, connect_timeout_s=1.0)


def test_a_mute_upgrade_is_given_up_in_time() -> None:
    """A server that accepts TCP and says nothing, or drips bytes, does not hold ``connect`` beyond its limit."""

    def drip(sock: socket.socket) -> None:
        sock.recv(65536)
        gate = threading.Event()
        for byte in b"HTTP/1.1 101 Switching Protocols\r\n" * 100:
            sock.sendall(bytes([byte]))
            gate.wait(0.05)

    with RawServer(drip) as server:
        started = time.monotonic()
        with pytest.raises(TransportError) as caught:
            connect(server.url, connect_timeout_s=0.4)
        assert caught.value.stage == "upgrade"
        assert time.monotonic() - started < PATIENCE_S


def test_connection_refused_and_unknown_host_are_transport_errors() -> None:
    """No server: the error names the stage and the endpoint."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        with pytest.raises(TransportError, match="refused") as caught:
            connect(f"ws://127.0.0.1:{port}/v1/ws")
    assert (caught.value.stage, caught.value.endpoint) == ("tcp", f"127.0.0.1:{port}")
    with pytest.raises(TransportError) as caught:
        connect("wss://no-such-host.invalid/v1/ws")
    assert caught.value.stage == "dns"


def test_close_in_place_of_hello_is_a_handshake_error() -> None:
    """The close code and reason reach the caller."""

    def script(peer: Peer) -> None:
        peer.recv()
        peer.connection.close(4001, "go away")

    with ScriptedServer(script) as server, pytest.raises(HandshakeError, match=r"go away.*4001"):
        connect(server.url)


@pytest.mark.parametrize(
    ("configure", "error", "field"),
    [
        (StreamConfigure(["nonsense"], STRATEGY), ConfigurationError, r"wallet_pubkeys\[0\]"),
        (StreamConfigure([], STRATEGY), ConfigurationError, "wallet_pubkeys"),
        (StreamConfigure(WALLET, STRATEGY), ConfigurationError, "wallet_pubkeys"),
        (StreamConfigure([WALLET], StrategyConfig(target_profit_pct=-1.0, stop_loss_pct=0.0)), StrategyError, "target"),
        (
            StreamConfigure([WALLET], StrategyConfig(target_profit_pct=float("nan"), stop_loss_pct=0.0)),
            StrategyError,
            "target",
        ),
        (StreamConfigure([WALLET], StrategyConfig(target_profit_pct=0.0, stop_loss_pct=0.0)), StrategyError, "no exit"),
        (StreamConfigure([WALLET], STRATEGY, deadline_timeout_sec=-1), StrategyError, "deadline_timeout_sec"),
        (StreamConfigure([WALLET], STRATEGY, send_mode="pigeon"), ConfigurationError, "send_mode"),
        (StreamConfigure([WALLET], STRATEGY, tip_lamports=-1), ConfigurationError, "tip_lamports"),
        (
            StreamConfigure([WALLET], STRATEGY, watch_wallets=[WatchWallet(pubkey="x")]),
            ConfigurationError,
            "watch_wallets",
        ),
    ],
)
def test_bad_input_raises_before_anything_is_opened(
    configure: StreamConfigure, error: type[Exception], field: str
) -> None:
    """Each mistake names its field, and the server sees no connection."""
    with RawServer(lambda sock: None) as server:
        with pytest.raises(error, match=field):
            connect(server.url, configure)
        assert server.accepted == 0


@pytest.mark.parametrize(
    "url",
    ["http://x/", "ws://", "wss://u:p@host/", "ws://example.com/v1/ws", "wss://host:0/", "wss://a b/", "wss://h/#f", 5],
)
def test_bad_endpoints_are_refused_with_a_reason(url: Any) -> None:
    """A URL that cannot work, or would show the key to the network, is refused when it is set."""
    with pytest.raises(ConfigurationError, match="endpoint"):
        StreamClient(KEY).with_endpoint(url)


@pytest.mark.parametrize("key", ["", None, "with space", "line\nend", "ключ"])
def test_bad_keys_are_refused_and_not_repeated(key: Any) -> None:
    """A key that cannot be a header value is refused without showing it."""
    with pytest.raises(ConfigurationError, match="api_key") as caught:
        StreamClient(key)
    assert not key or key not in str(caught.value)


# ── messages ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_bad_frame_is_skipped_counted_logged_and_told(caplog: pytest.LogCaptureFixture) -> None:
    """One unreadable message costs that message only; it is told with path and offset."""
    events = Events()

    def script(peer: Peer) -> None:
        peer.greet()
        peer.send('{"type":"pnl_update","position_id":-1}', b"\x00binary", {"type": "brand_new", "x": 1})
        peer.send({"type": "pong", "server_time_ms": 4})
        peer.serve()

    with (
        caplog.at_level(logging.WARNING, "lasersell_sync"),
        ScriptedServer(script) as server,
        connect(server.url, on_event=events) as connection,
    ):
        assert isinstance(recv(connection), HelloOk)
        # The unknown type waits in the low lane; whether the pong overtakes it depends on how soon it comes.
        others = [recv(connection), recv(connection)]
        assert Pong(server_time_ms=4) in others
        assert UnknownMessage("brand_new", b'{"type":"brand_new","x":1}') in others
        failure = events.wait(DecodeFailure)
        assert failure.path == "$.position_id"
        assert failure.raw == b'{"type":"pnl_update","position_id":-1}'
        assert events.wait(DecodeFailure).count == 2
        stats = connection.stats()
        assert (stats.decode_errors, stats.unknown_messages) == (2, 1)
    assert "$.position_id" in caplog.text


def test_an_error_message_in_mid_session_is_a_message() -> None:
    """Only in place of ``hello_ok`` is an error final."""

    def script(peer: Peer) -> None:
        peer.greet()
        peer.send({"type": "error", "code": "unknown_position", "message": "7"})
        peer.serve()

    with ScriptedServer(script) as server, connect(server.url) as connection:
        recv(connection)
        assert recv(connection) == ErrorMessage(code="unknown_position", message="7")


@pytest.mark.parametrize(
    ("code", "remedy"),
    [("capacity_exceeded", "Close positions"), ("wallet_not_registered", "register_wallet"), ("unknown_position", "7")],
)
def test_error_message_in_session_is_logged_with_its_remedy(
    code: str, remedy: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody may have a handler for it; the log says what the server refused, and what to do."""

    def script(peer: Peer) -> None:
        peer.greet()
        peer.send({"type": "error", "code": code, "message": "position 7\nof 7"})
        peer.serve()

    with ScriptedServer(script) as server, connect(server.url) as connection:
        recv(connection)
        assert recv(connection) == ErrorMessage(code=code, message="position 7\nof 7")
    (record,) = [record for record in caplog.records if code in record.getMessage()]
    assert record.levelname == "WARNING"
    assert "position 7 of 7" in record.getMessage()
    assert remedy in record.getMessage()


def test_capacity_exceeded_before_hello_leaves_the_session_open() -> None:
    """The server keeps the connection after this code, so the handshake goes on."""

    def script(peer: Peer) -> None:
        peer.recv()
        peer.send({"type": "error", "code": "capacity_exceeded", "message": "2 of 3 wallets"}, hello())
        peer.serve()

    with ScriptedServer(script) as server, connect(server.url) as connection:
        assert isinstance(recv(connection), HelloOk)
        assert recv(connection) == ErrorMessage(code="capacity_exceeded", message="2 of 3 wallets")


def test_recv_times_out_ends_with_none_and_iteration_stops() -> None:
    """``queue.Empty`` on a timeout; None and the end of iteration after ``close``, once everything was read."""
    with ScriptedServer() as server:
        connection = connect(server.url)
        server.peer()
        recv(connection)
        with pytest.raises(queue.Empty):
            connection.recv(timeout=0.01)
        connection.close()
        assert connection.recv() is None
        assert list(connection) == []


def test_what_arrived_can_be_read_after_close() -> None:
    """``close`` loses nothing that was received."""

    def script(peer: Peer) -> None:
        peer.greet()
        peer.send(*({"type": "pong", "server_time_ms": n} for n in range(5)))
        peer.serve()

    with ScriptedServer(script) as server:
        connection = connect(server.url)
        until(lambda: connection.stats().messages_received == 6)
        connection.close()
        assert [type(message).__name__ for message in connection] == ["HelloOk"] + ["Pong"] * 5


def test_server_pings_are_answered() -> None:
    """A WebSocket ping gets its pong without the user's help."""
    answered = threading.Event()

    def script(peer: Peer) -> None:
        peer.greet()
        if peer.connection.ping(b"are you there").wait(PATIENCE_S):
            answered.set()
        peer.serve()

    with ScriptedServer(script) as server, connect(server.url):
        assert answered.wait(PATIENCE_S)


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        (b"\xc1\x00", 1002),  # RSV1 without an extension
        (b"\x81\x80\0\0\0\0", 1002),  # masked by a server
        (b"\x81\x02\xff\xff", 1007),  # not UTF-8
        (b"\x81\x7f" + (1 << 40).to_bytes(8, "big"), 1009),  # a terabyte
    ],
)
def test_a_protocol_violation_closes_with_its_code_and_reconnects(frames: bytes, code: int) -> None:
    """The server is told why (RFC 6455 7.4.1), messages before the violation arrive, and the link is made anew."""
    events = Events()
    closes: queue.Queue[int] = queue.Queue()

    def script(sock: socket.socket) -> None:
        upgrade(sock, text_frame(hello()))
        if server.accepted > 1:
            while sock.recv(4096):
                pass
            return
        sock.sendall(text_frame({"type": "pong", "server_time_ms": 8}) + frames)
        data = b""
        while chunk := sock.recv(4096):
            data += chunk
        # The last client frame: masked, two bytes of code.
        masked = data[-8:]
        assert masked[0] == 0x88
        closes.put((masked[6] ^ masked[2]) << 8 | (masked[7] ^ masked[3]))

    with RawServer(script) as server, connect(server.url, on_event=events) as connection:
        assert isinstance(recv(connection), HelloOk)
        assert recv(connection) == Pong(server_time_ms=8)
        assert events.wait(Disconnected).close_code == code
        assert closes.get(timeout=PATIENCE_S) == code
        assert events.wait(Connected).reconnected


# ── commands ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_commands_from_many_threads_arrive_whole_and_at_once() -> None:
    """Every thread's command is on the wire without waiting for a poll, and none is mixed up with another."""
    arrived: queue.Queue[int] = queue.Queue()

    def script(peer: Peer) -> None:
        peer.greet()
        for _ in range(400):
            arrived.put(peer.recv()["client_time_ms"])
        peer.serve()

    options = {"ping_interval_s": 60.0, "pong_timeout_s": 60.0}
    with ScriptedServer(script) as server, connect(server.url, **options) as connection:
        sender = connection.sender()
        sender.ping(0)
        assert arrived.get(timeout=PATIENCE_S) == 0
        threads = [
            threading.Thread(target=lambda base=base: [sender.ping(base + n) for n in range(100)])  # type: ignore[misc]
            for base in (1000, 2000, 3000)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for n in range(99):
            sender.ping(4000 + n)
        seen = {arrived.get(timeout=PATIENCE_S) for _ in range(399)}
        assert seen == {base + n for base in (1000, 2000, 3000) for n in range(100)} | {4000 + n for n in range(99)}


def test_every_command_has_its_wire_form() -> None:
    """Each sender method writes its message, exactly as docs/protocol.md 5 has it."""
    with ScriptedServer() as server, connect(server.url) as connection:
        peer = server.peer()
        sender = connection.sender()
        strategy = StrategyConfig(target_profit_pct=1.0, stop_loss_pct=0.0)
        sender.ping(5)
        sender.update_strategy(strategy)
        sender.update_position_strategy(7, strategy)
        sender.close_position(ACCOUNT)
        sender.close_by_id(8)
        sender.request_exit_signal(ACCOUNT, 300)
        sender.request_exit_signal_by_id(9)
        sender.update_wallets([OTHER_WALLET])
        sender.update_watch_wallets([WatchWallet(pubkey=OTHER_WALLET)])
        sender.mirror_buy_result(OTHER_WALLET, success=True)
        until(lambda: len(peer.received) == 11)
        wire_strategy = {
            "target_profit_pct": 1.0,
            "stop_loss_pct": 0.0,
            "trailing_stop_pct": 0.0,
            "sell_on_graduation": False,
            "liquidity_guard": False,
            "breakeven_trail_pct": 0.0,
        }
        assert peer.received[1:] == [
            {"type": "ping", "client_time_ms": 5},
            {"type": "update_strategy", "strategy": wire_strategy},
            {"type": "update_position_strategy", "position_id": 7, "strategy": wire_strategy},
            {"type": "close_position", "token_account": ACCOUNT},
            {"type": "close_position", "position_id": 8},
            {"type": "request_exit_signal", "token_account": ACCOUNT, "slippage_bps": 300},
            {"type": "request_exit_signal", "position_id": 9},
            {"type": "update_wallets", "wallet_pubkeys": [OTHER_WALLET]},
            {"type": "update_watch_wallets", "watch_wallets": [{"pubkey": OTHER_WALLET, "mirror_sell": False}]},
            {"type": "mirror_buy_result", "mint": OTHER_WALLET, "success": True},
        ]


@pytest.mark.parametrize(
    "command",
    [
        lambda sender: sender.request_exit_signal(ACCOUNT, 70_000),
        lambda sender: sender.request_exit_signal(ACCOUNT, -1),
        lambda sender: sender.request_exit_signal(None),
        lambda sender: sender.close_position(True),
        lambda sender: sender.close_position(2**64),
        lambda sender: sender.ping(-1),
        lambda sender: sender.update_wallets(["x"]),
        lambda sender: sender.update_strategy(StrategyConfig(target_profit_pct=0.0, stop_loss_pct=0.0)),
        lambda sender: sender.update_position_strategy("unknown-account", STRATEGY),
    ],
)
def test_a_bad_command_raises_and_sends_nothing(command: Callable[[Any], None]) -> None:
    """Bad arguments are named before anything is written; the link goes on."""
    with ScriptedServer() as server, connect(server.url) as connection:
        peer = server.peer()
        with pytest.raises(ConfigurationError):
            command(connection.sender())
        connection.sender().ping(1)
        until(lambda: len(peer.received) == 2)
        assert peer.received[1] == {"type": "ping", "client_time_ms": 1}


def test_a_link_that_takes_nothing_fills_the_buffer_and_then_says_so() -> None:
    """``send`` never blocks: what the socket does not take waits, up to the bound, then the command is refused whole."""
    from lasersell_sync import SendBufferFull

    release = threading.Event()

    def script(sock: socket.socket) -> None:
        upgrade(sock, text_frame(hello()))
        release.wait(PATIENCE_S)
        while sock.recv(65536):
            pass

    with RawServer(script) as server, connect(server.url, send_buffer_bytes=64 * 1024) as connection:
        wallets = [WALLET] * 200
        with pytest.raises(SendBufferFull) as caught:
            for _ in range(10_000):
                connection.sender().update_wallets(wallets)
        assert caught.value.limit_bytes == 64 * 1024
        assert 0 < connection.stats().send_buffer_bytes <= 64 * 1024
        release.set()
        until(lambda: connection.stats().send_buffer_bytes == 0)
        connection.sender().ping(1)


# ── reconnecting ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_dropped_link_is_repaired_and_told_with_its_gap() -> None:
    """A later drop raises nowhere: it shows as disconnected, reconnecting, connected, and messages go on."""
    events = Events()

    def script(peer: Peer) -> None:
        peer.greet()
        if peer.number == 1:
            peer.abort()
            return
        peer.send({"type": "pong", "server_time_ms": 9})
        peer.serve()

    with ScriptedServer(script) as server, connect(server.url, on_event=events) as connection:
        assert recv(connection).session_id == 1
        assert recv(connection).session_id == 2
        assert recv(connection) == Pong(server_time_ms=9)
        assert connection.session_id == 2
    kinds = [type(event).__name__ for event in events.all]
    assert kinds == ["Connected", "Disconnected", "Reconnecting", "Connected", "Closed"]
    again = events.all[3]
    assert again.reconnected
    assert again.gap_seconds > 0


def test_each_connect_sends_the_current_wishes_not_the_first() -> None:
    """Strategy, wallets and watch wallets changed while connected, or while not, are in the next ``configure``."""
    events = Events()
    with ScriptedServer() as server, connect(server.url, on_event=events) as connection:
        sender = connection.sender()
        first = server.peer()
        sender.update_strategy(StrategyConfig(target_profit_pct=7.0, stop_loss_pct=0.0))
        sender.update_wallets([WALLET, OTHER_WALLET])
        until(lambda: len(first.received) == 3)

        gate = threading.Event()

        def slow_greeting(peer: Peer) -> None:
            peer.recv()
            gate.wait(PATIENCE_S)
            peer.send(hello(session_id=2))
            peer.serve()

        server.script = slow_greeting
        first.abort()
        second = server.peer()
        until(lambda: len(second.received) == 1)
        # Between configure and hello_ok: too late for this configure, so it must follow by itself.
        sender.update_strategy(StrategyConfig(target_profit_pct=8.0, stop_loss_pct=0.0))
        sender.update_watch_wallets([WatchWallet(pubkey=OTHER_WALLET, mirror_sell=True)])
        gate.set()
        until(lambda: len(second.received) == 3)
        assert second.received[0]["strategy"]["target_profit_pct"] == 7.0
        assert second.received[0]["wallet_pubkeys"] == [WALLET, OTHER_WALLET]
        assert [message["type"] for message in second.received[1:]] == ["update_strategy", "update_watch_wallets"]
        assert second.received[1]["strategy"]["target_profit_pct"] == 8.0

        server.script = idle
        second.abort()
        third = server.peer()
        until(lambda: len(third.received) == 1)
        assert third.received[0]["strategy"]["target_profit_pct"] == 8.0
        assert third.received[0]["watch_wallets"] == [{"pubkey": OTHER_WALLET, "mirror_sell": True}]


def test_overrides_return_with_their_position_even_under_a_new_id() -> None:
    """The server forgets per-position strategies on a reconnect; the client sends them once the position is announced."""
    override = StrategyConfig(target_profit_pct=99.0, stop_loss_pct=0.0)

    def script(peer: Peer) -> None:
        peer.greet()
        peer.send(opened(7 if peer.number == 1 else 70))
        peer.serve()

    with ScriptedServer(script) as server, connect(server.url) as connection:
        first = server.peer()
        recv(connection)
        recv(connection)
        connection.sender().update_position_strategy(ACCOUNT, override)
        until(lambda: len(first.received) == 2)
        assert first.received[1]["position_id"] == 7
        first.abort()
        second = server.peer()
        until(lambda: len(second.received) == 2)
        assert second.received[1]["type"] == "update_position_strategy"
        assert second.received[1]["position_id"] == 70
        assert second.received[1]["strategy"]["target_profit_pct"] == 99.0


def test_position_commands_wait_for_the_link_and_pings_do_not() -> None:
    """Offline, the last exit request of a position waits; a ping raises, for it would mean nothing later."""
    events = Events()
    refuse_now = threading.Event()

    def refuse(request: Any) -> Any:
        return refusal(503)(request) if refuse_now.is_set() else None

    with ScriptedServer(refuse=refuse) as server, connect(server.url, on_event=events) as connection:
        sender = connection.sender()
        first = server.peer()
        refuse_now.set()
        first.abort()
        events.wait(Disconnected)
        sender.request_exit_signal(ACCOUNT, 100)
        sender.request_exit_signal(ACCOUNT, 200)
        with pytest.raises(TransportError):
            sender.ping(1)
        refuse_now.clear()
        second = server.peer()
        until(lambda: len(second.received) == 2)
        assert second.received[1] == {"type": "request_exit_signal", "token_account": ACCOUNT, "slippage_bps": 200}


def test_reconnecting_goes_on_through_refusals_and_backs_off() -> None:
    """While the server is down the attempts go on, each announced with its wait, within the bounds."""
    events = Events()
    down = threading.Event()

    def refuse(request: Any) -> Any:
        return refusal(503)(request) if down.is_set() else None

    with (
        ScriptedServer(refuse=refuse) as server,
        connect(server.url, on_event=events, initial_backoff_s=0.01, max_backoff_s=0.05) as connection,
    ):
        peer = server.peer()
        down.set()
        peer.abort()
        waits = [events.wait(Reconnecting) for _ in range(6)]
        assert [wait.attempt for wait in waits] == [1, 2, 3, 4, 5, 6]
        assert all(0 <= wait.wait_seconds <= 0.05 for wait in waits)
        assert connection.status in (ConnectionState.BACKOFF, ConnectionState.CONNECTING)
        down.clear()
        while not (again := events.wait(Connected)).reconnected:
            pass
        assert again.attempts >= 6


def test_a_revoked_key_fails_after_three_tries_and_wakes_every_reader() -> None:
    """401 later in life is not hammered for ever: FAILED, and the cause is raised in every blocked consumer."""
    revoked = threading.Event()

    def refuse(request: Any) -> Any:
        return refusal(401, '{"error":"revoked"}')(request) if revoked.is_set() else None

    with (
        ScriptedServer(refuse=refuse) as server,
        connect(server.url, initial_backoff_s=0.01, max_backoff_s=0.02) as connection,
    ):
        peer = server.peer()
        recv(connection)
        caught: queue.Queue[BaseException] = queue.Queue()

        def consume() -> None:
            try:
                connection.recv()
            except BaseException as error:
                caught.put(error)

        threads = [threading.Thread(target=consume) for _ in range(2)]
        for thread in threads:
            thread.start()
        revoked.set()
        peer.abort()
        for thread in threads:
            thread.join(PATIENCE_S)
            assert isinstance(caught.get(timeout=PATIENCE_S), AuthenticationError)
        assert connection.status is ConnectionState.FAILED
        with pytest.raises(AuthenticationError):
            connection.sender().ping(1)


# ── keepalive ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_mute_link_is_noticed_within_ping_interval_and_pong_timeout() -> None:
    """A half-open link: no byte comes, no error either; the ping's silence ends it."""
    events = Events()

    with RawServer(_mute) as server, connect(server.url, on_event=events, ping_interval_s=0.1, pong_timeout_s=0.1):
        started = time.monotonic()
        lost = events.wait(Disconnected)
        assert "no sign of life" in lost.reason
        assert time.monotonic() - started < 5  # the default would be 15


def test_pongs_keep_an_idle_link_alive_and_measure_it() -> None:
    """An idle but healthy link stays up through many keepalives."""
    events = Events()
    with (
        ScriptedServer() as server,
        connect(server.url, on_event=events, ping_interval_s=0.02, pong_timeout_s=5.0) as connection,
    ):
        server.peer()
        until(lambda: connection.stats().frames_received >= 6)
        assert connection.stats().round_trip_seconds is not None
        assert not any(isinstance(event, Disconnected) for event in events.all)


def test_an_idle_connection_sleeps() -> None:
    """Nothing polls: over a second without traffic the whole process uses next to no CPU time."""
    with ScriptedServer() as server, connect(server.url) as connection:
        server.peer()
        recv(connection)
        threading.Event().wait(0.2)
        before = time.process_time()
        threading.Event().wait(1.0)
        # A poll every 10 ms would cost some 20 ms; this asks for "none", not for a speed.
        assert time.process_time() - before < 0.015


# ── lanes ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_low_lane_conflates_and_tells_lagged_once() -> None:
    """With nobody consuming, the newest update of each position waits; the loss is told with totals."""
    events = Events()
    done = threading.Event()

    def script(peer: Peer) -> None:
        peer.greet()
        for n in range(1000):
            peer.send(pnl(7, n), pnl(8, n))
        peer.send({"type": "pong", "server_time_ms": 1})
        done.set()
        peer.serve()

    with ScriptedServer(script) as server, connect(server.url, on_event=events) as connection:
        assert done.wait(PATIENCE_S)
        until(lambda: connection.stats().messages_received == 2002)
        assert isinstance(recv(connection), HelloOk)
        assert isinstance(recv(connection), Pong)
        assert [(m.position_id, m.profit_units) for m in (recv(connection), recv(connection))] == [(7, 999), (8, 999)]
        assert connection.stats().conflated == 1998
        lagged = events.wait(Lagged)
        while lagged.total_conflated < 1998:
            lagged = events.wait(Lagged)
        assert lagged.total_dropped == 0


def test_a_lossless_lane_pushes_back_and_loses_nothing() -> None:
    """When the lane is full the reader stops reading; every message arrives once the consumer moves."""
    total = 30_000

    def script(peer: Peer) -> None:
        peer.greet()
        for n in range(total):
            peer.send(pnl(7, n))
        peer.serve()

    with ScriptedServer(script) as server, connect(server.url, low_lane="lossless", low_capacity=100) as connection:
        recv(connection)
        until(lambda: connection.stats().waiting >= 100)
        # One receive buffer may go over; far less than everything.
        assert connection.stats().waiting < total / 2
        assert [recv(connection).profit_units for _ in range(total)] == list(range(total))
        assert connection.stats().dropped == 0


def test_a_full_lane_waits_without_a_clock_and_goes_on() -> None:
    """While nothing is read there is nothing due at all: commands still leave, and what waited on the link is read then."""

    def script(peer: Peer) -> None:
        peer.greet()
        peer.send(*(pnl(7, n) for n in range(40)))
        peer.serve()

    with ScriptedServer(script) as server, connect(server.url, low_lane="lossless", low_capacity=4) as connection:
        recv(connection)
        peer = server.peer()
        until(lambda: connection.stats().waiting >= 4)
        for number in range(1, 4):
            # Each wakes the reader, which finds the lane full and nothing due, and sleeps again.
            connection.reader.wake()
            connection.sender().ping(number)
            asked = list(range(1, number + 1))
            until(lambda asked=asked: [m["client_time_ms"] for m in peer.received if m["type"] == "ping"] == asked)
        assert connection.status is ConnectionState.LIVE
        assert [recv(connection).profit_units for _ in range(40)] == list(range(40))


def test_nothing_about_a_position_follows_its_close() -> None:
    """The close overtakes what waits in the low lane, so that is dropped and counted."""

    def script(peer: Peer) -> None:
        peer.greet()
        peer.send(opened(), pnl(7, 1), pnl(8, 1), closed())
        peer.serve()

    with ScriptedServer(script) as server, connect(server.url) as connection:
        until(lambda: connection.stats().messages_received == 5)
        kinds = []
        while True:
            try:
                kinds.append(connection.recv(timeout=0.05))
            except queue.Empty:
                break
        assert [m for m in kinds if isinstance(m, PnlUpdate)] == [kinds[-1]]
        assert kinds[-1].position_id == 8
        assert isinstance(kinds[-2], PositionClosed)
        assert (connection.stats().late, connection.stats().dropped) == (1, 0)


# ── the end ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _mute(sock: socket.socket) -> None:
    """Greets, then reads nothing, answers nothing, and keeps the socket open."""
    upgrade(sock, text_frame(hello()))
    _until_closed(sock)


def _until_closed(sock: socket.socket) -> None:
    """Wait, without reading, until the other side is gone."""
    poll = select.poll()
    with contextlib.suppress(ValueError):  # the test is over and has closed it
        poll.register(sock, select.POLLRDHUP)
        poll.poll(PATIENCE_S * 1000)


@pytest.mark.parametrize("mute", [False, True])
def test_close_is_quick_idempotent_and_from_any_thread(mute: bool) -> None:
    """The socket is down soon, also while the server answers nothing; a second close does nothing."""
    with RawServer(_mute if mute else _close_politely) as server:
        connection = connect(server.url)
        started = time.monotonic()
        threads = [threading.Thread(target=connection.close) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_S)
        assert time.monotonic() - started < PATIENCE_S / 2
        connection.close()
        assert connection.status is ConnectionState.CLOSED
        assert [type(message) for message in connection] == [HelloOk]
        with pytest.raises(StreamClosed):
            connection.sender().ping(1)


def _close_politely(sock: socket.socket) -> None:
    upgrade(sock, text_frame(hello()))
    sock.recv(4096)
    sock.sendall(b"\x88\x02\x03\xe8")


def test_close_ends_a_connect_under_way_and_a_backoff() -> None:
    """Closing works in every state: in the backoff, and while a reconnect waits for an answer."""
    events = Events()

    def script(sock: socket.socket) -> None:
        if server.accepted == 1:
            upgrade(sock, text_frame(hello()))
            return
        _until_closed(sock)

    with RawServer(script) as server:
        connection = connect(server.url, on_event=events, initial_backoff_s=0.001, max_backoff_s=0.001)
        server._open[0].shutdown(socket.SHUT_RDWR)
        events.wait(Reconnecting)
        until(lambda: server.accepted == 2)
        started = time.monotonic()
        connection.close()
        assert time.monotonic() - started < PATIENCE_S / 2
        assert connection.status is ConnectionState.CLOSED
    with ScriptedServer() as other:
        events = Events()
        connection = connect(other.url, on_event=events, initial_backoff_s=60.0, max_backoff_s=60.0)
        other.peer().abort()
        events.wait(Reconnecting)
        started = time.monotonic()
        connection.close()
        assert time.monotonic() - started < PATIENCE_S / 2


def test_on_event_that_raises_is_logged_and_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """User code on the reader cannot end it."""

    def broken(event: object) -> None:
        raise RuntimeError("mine")

    with ScriptedServer() as server, connect(server.url, on_event=broken) as connection:
        assert isinstance(recv(connection), HelloOk)
        assert connection.status is ConnectionState.LIVE
    assert "RuntimeError: mine" in caplog.text


def test_the_key_is_in_no_log_repr_or_error(caplog: pytest.LogCaptureFixture) -> None:
    """Through success, refusal, garbage and reconnection the key never shows."""
    seen = []
    with caplog.at_level(logging.DEBUG):
        with ScriptedServer() as server:
            client = StreamClient(KEY).with_endpoint(server.url)
            with client.connect(CONFIGURE) as connection:
                seen += [repr(client), repr(connection), repr(connection.stats()), repr(recv(connection))]
                server.peer().abort()
                recv(connection)
        for refuse in (
            refusal(401, f"bad key {KEY}"),
            refusal(500, KEY),
            refusal(302, location=f"ws://{KEY}/"),
            refusal(302, location=f"ws://[{KEY}"),
        ):
            with ScriptedServer(refuse=refuse) as server:
                with pytest.raises(HandshakeError) as caught:
                    connect(server.url)
                seen += [str(caught.value), repr(caught.value), repr(caught.value.__cause__)]
    # The foreign server logs what it receives; everything else in this process must keep the key to itself.
    logged = [record.getMessage() for record in caplog.records if not record.name.startswith("websockets")]
    assert any("is open after" in line for line in logged)
    assert KEY not in "\n".join([*seen, *logged])


def test_split_gives_two_halves_for_two_threads() -> None:
    """The sender sends and the receiver receives what the connection would."""

    def script(peer: Peer) -> None:
        peer.greet()
        asked = peer.recv()
        peer.send({"type": "pong", "server_time_ms": asked["client_time_ms"]})
        peer.serve()

    with ScriptedServer(script) as server, connect(server.url) as connection:
        sender, receiver = connection.split()
        sender.ping(77)
        assert isinstance(receiver.recv(PATIENCE_S), HelloOk)
        assert receiver.recv(PATIENCE_S) == Pong(server_time_ms=77)
