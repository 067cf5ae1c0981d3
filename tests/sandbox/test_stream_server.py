"""The stream over real sockets, with the websockets library as the client."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from urllib.parse import urlsplit

import pytest
import websocket
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, InvalidStatus
from websockets.sync.client import connect

from lasersell_sync.sandbox import Sandbox
from tests.sandbox.players import PATIENCE_S, Trader, receive, strategy


@pytest.mark.parametrize("headers", [{}, {"x-api-key": ""}, {"x-api-key": "wrong"}])
def test_the_upgrade_needs_the_key(sandbox: Sandbox, headers: dict[str, str]) -> None:
    """Without the right key the upgrade is refused with 401 and a JSON error."""
    with (
        pytest.raises(InvalidStatus) as caught,
        connect(sandbox.stream_url, additional_headers=headers, proxy=None),
    ):
        pass
    assert caught.value.response.status_code == 401
    assert "error" in json.loads(caught.value.response.body or b"")


def test_other_paths_are_not_found(sandbox: Sandbox, trader: Trader) -> None:
    """Only /v1/ws is a stream; a query behind it does no harm."""
    with pytest.raises(InvalidStatus) as caught:
        trader.connect(sandbox.stream_url + "x")
    assert caught.value.response.status_code == 404
    trader.connect(sandbox.stream_url + "?x=1")


def test_hello_comes_after_configure(trader: Trader) -> None:
    """The server is silent until configure, then says hello_ok with tier-2 limits in wire order."""
    ws = trader.connect()
    with pytest.raises(TimeoutError):
        ws.recv(timeout=0.05)
    ws.send(json.dumps({"type": "configure", "wallet_pubkeys": [trader.pubkey], "strategy": strategy(target=1)}))
    hello = receive(ws)
    assert list(hello) == ["type", "session_id", "server_time_ms", "limits"]
    assert hello["limits"] == {
        "hi_capacity": 256,
        "pnl_flush_ms": 100,
        "max_positions_per_session": 20_000,
        "max_wallets_per_session": 200,
        "max_positions_per_wallet": 100,
        "max_sessions_per_api_key": 1,
        "max_watch_wallets_per_session": 25,
    }


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ('{"type":"ping","client_time_ms":1}', "bad_message"),
        ("garbage", "bad_message"),
        (b"\x00\x01", "bad_message"),
        ('{"type":"configure","wallet_pubkeys":["nobody"],"strategy":{"target_profit_pct":1,"stop_loss_pct":1}}',
         "wallet_not_registered"),
        ('{"type":"configure","wallet_pubkeys":[],"strategy":{"target_profit_pct":-1,"stop_loss_pct":1}}',
         "invalid_strategy"),
    ],
)  # fmt: skip
def test_a_bad_start_is_an_error_and_a_close(trader: Trader, message: str | bytes, code: str) -> None:
    """A first message that cannot configure gets its error, then close code 1008."""
    ws = trader.connect()
    ws.send(message)
    assert receive(ws)["code"] == code
    with pytest.raises(ConnectionClosedError):
        ws.recv(timeout=PATIENCE_S)
    assert ws.close_code == 1008


def test_a_second_session_is_refused(trader: Trader) -> None:
    """By default the second session on a key gets session_limit and the first one lives; other keys are free."""
    first = trader.stream()
    second = trader.connect()
    second.send(json.dumps({"type": "configure", "wallet_pubkeys": [trader.pubkey], "strategy": strategy()}))
    assert receive(second)["code"] == "session_limit"
    first.send('{"type":"ping","client_time_ms":1}')
    assert receive(first)["type"] == "pong"


def test_a_second_session_may_replace_the_first(
    make_sandbox: Callable[..., Sandbox], make_trader: Callable[..., Trader]
) -> None:
    """With session_policy="replace" the newcomer wins."""
    trader = make_trader(make_sandbox(session_policy="replace")).register()
    first, second = trader.stream(), trader.stream()
    assert receive(first)["code"] == "session_replaced"
    with pytest.raises(ConnectionClosed):
        first.recv(timeout=PATIENCE_S)
    second.send('{"type":"ping","client_time_ms":1}')
    assert receive(second)["type"] == "pong"


def test_a_key_is_free_again_after_a_disconnect(trader: Trader) -> None:
    """Closing or losing a session lets the next one in."""
    for _ in range(3):
        trader.stream().close()
        assert trader.sandbox.wait_for(lambda: not trader.sandbox.sessions(), PATIENCE_S)
    assert len(trader.sandbox.sessions(include_closed=True)) == 3


def test_the_server_answers_pings_of_the_protocol(trader: Trader) -> None:
    """WebSocket pings are answered by the library, before and after configure."""
    ws = trader.stream()
    assert ws.ping().wait(PATIENCE_S)


def test_what_clients_sent_can_be_asserted(trader: Trader) -> None:
    """`received` has every JSON object per session, in order."""
    ws = trader.stream(strategy(target=3))
    ws.send('{"type":"ping","client_time_ms":7}')
    receive(ws, "pong")
    (session,) = trader.sandbox.sessions()
    messages = trader.sandbox.received[session.session_id]
    assert [message["type"] for message in messages] == ["configure", "ping"]
    assert messages[1] == {"type": "ping", "client_time_ms": 7}


def test_oversized_messages_close_the_connection(trader: Trader) -> None:
    """More than 1 MiB in one message is close code 1009; the server lives on."""
    ws = trader.stream()
    ws.send('{"type":"ping","client_time_ms":1,"padding":"' + "x" * 2**20 + '"}')
    with pytest.raises(ConnectionClosed):
        ws.recv(timeout=PATIENCE_S)
    assert ws.close_code == 1009
    assert trader.sandbox.wait_for(lambda: not trader.sandbox.sessions(), PATIENCE_S)
    trader.stream()


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET /v1/ws HTTP/1.1\r\n\r\n",
        b"POST /v1/ws HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x00" * 5_000,
        b"GET /v1/ws HTTP/1.1\r\nx-api-key: sandbox-key\r\nUpgrade: websocket\r\n\r\n",
        b"G",
    ],
)
def test_garbage_leaves_the_stream_alive(trader: Trader, garbage: bytes) -> None:
    """Bytes that are no upgrade cost their connection and nothing else."""
    address = urlsplit(trader.sandbox.stream_url)
    with socket.create_connection((address.hostname, address.port), timeout=5) as wire:
        wire.sendall(garbage)
        wire.shutdown(socket.SHUT_WR)
        try:
            while wire.recv(4_096):
                pass
        except ConnectionError:
            pass
    ws = trader.stream()
    ws.send('{"type":"ping","client_time_ms":1}')
    assert receive(ws)["type"] == "pong"


def test_broken_frames_end_their_own_session_only(trader: Trader) -> None:
    """A frame that breaks RFC 6455 fails its connection; the next client is served."""
    ws = trader.stream()
    ws.socket.sendall(b"\xff\xff\xff\xff")
    with pytest.raises(ConnectionClosed):
        ws.recv(timeout=PATIENCE_S)
    assert trader.sandbox.wait_for(lambda: not trader.sandbox.sessions(), PATIENCE_S)
    trader.stream()


def test_another_client_library_is_served(trader: Trader) -> None:
    """websocket-client, which has nothing in common with our server, gets along with it."""
    ws = websocket.create_connection(
        trader.sandbox.stream_url, header=[f"x-api-key: {trader.sandbox.api_key}"], timeout=PATIENCE_S
    )
    ws.send(json.dumps({"type": "configure", "wallet_pubkey": trader.pubkey, "strategy": strategy(target=1)}))
    assert json.loads(ws.recv())["type"] == "hello_ok"
    ws.close()


# -- faults


def test_dropping_aborts_or_closes(trader: Trader) -> None:
    """drop_connections() ends TCP without a close frame, drop_connections(code) closes with that code."""
    ws = trader.stream()
    trader.sandbox.drop_connections()
    with pytest.raises(ConnectionClosedError):
        ws.recv(timeout=PATIENCE_S)
    assert ws.close_code == 1006
    assert trader.sandbox.wait_for(lambda: not trader.sandbox.sessions(), PATIENCE_S)
    ws = trader.stream()
    trader.sandbox.drop_connections(4_001)
    with pytest.raises(ConnectionClosed):
        ws.recv(timeout=PATIENCE_S)
    assert ws.close_code == 4_001
    with pytest.raises(ValueError, match="1005"):
        trader.sandbox.drop_connections(1_005)


def test_a_muted_server_is_silent_but_connected(trader: Trader) -> None:
    """While muted nothing is sent, no ping answered, no upgrade finished; unmuting brings what piled up."""
    ws = trader.stream()
    trader.sandbox.mute()
    ws.send('{"type":"ping","client_time_ms":1}')
    pong = ws.ping()
    with pytest.raises(TimeoutError):
        ws.recv(timeout=0.15)
    assert not pong.is_set()
    with (
        pytest.raises(TimeoutError),
        connect(trader.sandbox.stream_url, additional_headers=trader.headers, open_timeout=0.15, proxy=None),
    ):
        pass
    assert len(trader.sandbox.sessions()) == 1
    trader.sandbox.unmute()
    assert receive(ws)["type"] == "pong"
    assert pong.wait(PATIENCE_S)


def test_a_muted_sandbox_stops_in_time(
    make_sandbox: Callable[..., Sandbox], make_trader: Callable[..., Trader]
) -> None:
    """stop() does not wait for clients that it does not listen to."""
    sandbox = make_sandbox()
    trader = make_trader(sandbox).register()
    ws = trader.stream()
    sandbox.mute()
    done = threading.Thread(target=sandbox.stop)
    done.start()
    done.join(2)
    assert not done.is_alive()
    with pytest.raises(ConnectionClosed):
        ws.recv(timeout=PATIENCE_S)


def test_anything_can_be_sent_raw(trader: Trader) -> None:
    """A text goes out as a text frame whatever it says; bytes go on the socket as they are."""
    ws = trader.stream()
    assert trader.sandbox.send_raw('{"type":') == 1
    assert ws.recv(timeout=PATIENCE_S) == '{"type":'
    trader.sandbox.send_raw(b"\x82\x02hi")
    assert ws.recv(timeout=PATIENCE_S) == b"hi"
    trader.sandbox.send_raw(b"\xc1\x00")
    with pytest.raises(ConnectionClosed):
        ws.recv(timeout=PATIENCE_S)


def test_a_client_that_does_not_read_stops_nobody(trader: Trader) -> None:
    """With a client that leaves its socket full, other services and the market go on, and stopping is quick."""
    ws = trader.stream()
    for _ in range(60):
        trader.sandbox.send_raw("x" * 100_000)
    trader.landed(trader.buy(trader.sandbox.mints[0]))
    assert trader.sandbox.wait_for(lambda: len(trader.sandbox.positions()) == 1, PATIENCE_S)
    assert ws.recv(timeout=PATIENCE_S) == "x" * 100_000
