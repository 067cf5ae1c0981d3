"""Clients that mean harm, or are broken: whatever they send, or do not read, the others are served.

Random inputs are drawn from a fixed seed, which every failure prints.
"""

from __future__ import annotations

import base64
import ipaddress
import json
import logging
import random
import resource
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from lasersell_sync.sandbox import Sandbox
from lasersell_sync.sandbox import sandbox as sandbox_module
from lasersell_sync.sandbox.exchange import sessions
from lasersell_sync.sandbox.servers import http_server, stream_server
from lasersell_sync.sandbox.servers.rpc.server import RpcServer
from lasersell_sync.sandbox.servers.sockets import is_loopback
from tests.sandbox.players import PATIENCE_S, Rig, Trader, receive, strategy

SEED = 20261124
#: What is put where something else is expected.
ODD_VALUES = [
    None, True, False, 0, -1, 1, 2**63, 2**64, -(2**70), 1.5, 1e308, -0.0, "", "x", "1", "💥", "\x00", "a" * 5_000, [],
    [[]], [None], {}, {"type": "ping"}, {"": None}, [1] * 500, "11111111111111111111111111111111",
]  # fmt: skip


def alive(ws: ClientConnection) -> bool:
    ws.send('{"type":"ping","client_time_ms":1}')
    return receive(ws, "pong")["type"] == "pong"


def address_of(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or 0


def serves(trader: Trader) -> None:
    """A newcomer can register, buy, land and be told, right now."""
    mint = trader.sandbox.mints[0]
    trader.register()
    signature = trader.buy(mint)
    sent = {"searchTransactionHistory": True}
    for _ in range(200):
        if trader.rpc("getSignatureStatuses", [signature], sent)["result"]["value"][0] is not None:
            return
        threading.Event().wait(0.05)
    pytest.fail("the transaction never landed")


# -- senseless messages


def odd_messages(rng: random.Random) -> Iterator[str]:
    """Client messages with one field after the other replaced by something odd, and texts that are no message."""
    good: list[dict[str, object]] = [
        {"type": "ping", "client_time_ms": 1},
        {"type": "update_strategy", "strategy": strategy(target=5)},
        {"type": "update_position_strategy", "position_id": 1, "strategy": strategy(stop=5)},
        {"type": "close_position", "position_id": 1},
        {"type": "request_exit_signal", "token_account": "x", "slippage_bps": 5},
        {"type": "update_wallets", "wallet_pubkeys": []},
        {"type": "update_watch_wallets", "watch_wallets": [{"pubkey": "x", "auto_buy": {}, "mirror_sell": True}]},
        {"type": "mirror_buy_result", "mint": "x", "success": True},
        {"type": "configure", "wallet_pubkeys": [], "strategy": strategy(target=1)},
    ]
    for message in good:
        for key in [*message, "surplus"]:
            for value in rng.sample(ODD_VALUES, 8):
                yield json.dumps({**message, key: value})
    yield from (
        "",
        " ",
        "null",
        "[]",
        "[" * 100_000,
        '{"type":',
        '{"a":' * 5_000,
        "NaN",
        '{"type":"ping","client_time_ms":1e999}',
    )
    yield '{"type":"ping","client_time_ms":' + "9" * 5_000 + "}"
    yield json.dumps({"type": "\ud800"})
    for _ in range(200):
        text = list(json.dumps(rng.choice(good)))
        for _ in range(rng.randint(1, 5)):
            text[rng.randrange(len(text))] = rng.choice('{}[]",:0é\x00\\')
        yield "".join(text)


def test_senseless_messages_are_answered_and_forgotten(trader: Trader) -> None:
    """Each is complained about or obeyed; the session goes on, and so does everybody else's."""
    ws, told = trader.stream(), 0
    for message in odd_messages(random.Random(SEED)):
        ws.send(message)
        told += 1
    ws.send('{"type":"close_position","position_id":987654321}')
    codes: list[str] = []
    while "987654321" not in (answer := receive(ws, "error"))["message"]:
        codes.append(answer["code"])
    assert set(codes) <= {"bad_message", "invalid_strategy", "unknown_position", "wallet_not_registered"}
    assert len(codes) > told * 0.8  # the others were harmless
    assert alive(ws)


def rest_bodies(trader: Trader) -> dict[str, dict[str, object]]:
    mint = trader.sandbox.mints[0]
    fees = {"partner_fee_recipient": trader.pubkey, "partner_fee_bps": 5, "send_mode": "rpc", "tip_lamports": 1}
    return {
        "/v1/buy": {**trader.buy_body(mint), **fees},
        "/v1/sell": {**trader.sell_body(mint), **fees, "market_context": {"market_type": "pump_fun"}},
        "/v1/wallets/register": {"wallet_pubkey": trader.pubkey, "signature": "x", "message": "y", "label": "z"},
    }


def test_senseless_requests_are_refused(trader: Trader) -> None:
    """Whatever stands in a field, the REST service answers JSON, and never with a failure of its own."""
    rng = random.Random(SEED)
    for path, body in rest_bodies(trader).items():
        for key in body:
            for value in rng.sample(ODD_VALUES, 6):
                answer = trader.post(path, {**body, key: value})
                assert answer.status_code < 500, (SEED, path, key, value, answer.text)
                assert isinstance(answer.json(), dict)
    serves(trader)


RPC_METHODS = [
    "sendTransaction", "simulateTransaction", "requestAirdrop", "getSignatureStatuses", "getLatestBlockhash",
    "isBlockhashValid", "getBlockHeight", "getSlot", "getBalance", "getTokenAccountBalance", "getTokenAccountsByOwner",
    "getAccountInfo", "getMultipleAccounts", "getMinimumBalanceForRentExemption", "getFeeForMessage", "getHealth",
    "getVersion",
]  # fmt: skip


def test_senseless_calls_have_json_rpc_errors(trader: Trader) -> None:
    """Every method, with every kind of thing in every place: a result or an error, for each of them."""
    rng = random.Random(SEED)
    keys = ["commitment", "encoding", "minContextSlot", "dataSlice", "accounts", "maxRetries", "skipPreflight", "mint"]
    wallet = trader.pubkey
    for method in RPC_METHODS:
        batch: list[dict[str, object]] = []
        for _ in range(60):
            params: list[object] = [rng.choice([*ODD_VALUES, wallet]) for _ in range(rng.randint(0, 3))]
            if rng.random() < 0.5:
                params.append({rng.choice(keys): rng.choice(ODD_VALUES)})
            batch.append({"jsonrpc": "2.0", "id": len(batch), "method": method, "params": params})
        answer = trader.http.post(trader.sandbox.rpc_url, json=batch, timeout=PATIENCE_S)
        assert answer.status_code == 200, (SEED, method, answer.text[:500])
        answers = answer.json()
        assert [item["id"] for item in answers] == list(range(60))
        assert all(("result" in item) != ("error" in item) for item in answers)
    serves(trader)


def test_damaged_transactions_never_break_the_node(trader: Trader) -> None:
    """Random bytes, and good transactions with bytes changed, by both encodings and both methods."""
    rng = random.Random(SEED)
    order = base64.b64decode(trader.post("/v1/buy", trader.buy_body(trader.sandbox.mints[0])).json()["tx"])
    batch: list[dict[str, object]] = []
    for number in range(400):
        raw = bytearray(order) if number % 4 else bytearray(rng.randbytes(rng.randint(0, 300)))
        for _ in range(rng.randint(0, 3)):
            if raw:
                raw[rng.randrange(len(raw))] = rng.randrange(256)
        method = rng.choice(["sendTransaction", "simulateTransaction"])
        params = [base64.b64encode(raw).decode(), {"encoding": "base64", "skipPreflight": True}]
        batch.append({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
    for path in ("", "/fast", "/iris"):
        answer = trader.http.post(trader.sandbox.rpc_url + path, json=batch, timeout=PATIENCE_S)
        assert answer.status_code == 200, (SEED, path, answer.text[:500])
        assert len(answer.json()) == 400
    serves(trader)


# -- senseless bytes


@pytest.mark.parametrize("service", ["stream_url", "api_url", "rpc_url"])
def test_random_bytes_cost_their_connection_alone(trader: Trader, service: str) -> None:
    """Requests with random damage, on every port, and hang-ups in the middle."""
    rng = random.Random(SEED)
    host, port = address_of(getattr(trader.sandbox, service))
    good = (
        b"POST /v1/ws HTTP/1.1\r\nHost: x\r\nx-api-key: sandbox-key\r\nContent-Length: 4\r\n"
        b"Transfer-Encoding: chunked\r\nUpgrade: websocket\r\nSec-WebSocket-Key: AAAA\r\n\r\n{}\r\n"
    )
    for _ in range(150):
        data = bytearray(good if rng.random() < 0.7 else rng.randbytes(200))
        for _ in range(rng.randint(0, 6)):
            data[rng.randrange(len(data))] = rng.choice([0, 10, 13, 32, 58, 255, rng.randrange(256)])
        with socket.create_connection((host, port), timeout=PATIENCE_S) as wire:
            wire.sendall(bytes(data[: rng.randint(1, len(data))]))
            if rng.random() < 0.3:
                wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    serves(trader)


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"POST /v1/buy HTTP/1.1\r\nHost: x\r\nContent-Length: 2000000\r\n\r\n", 413),
        (b"POST /v1/buy HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFF\r\n" + b"x" * 2_000_000, 413),
        (b"POST /v1/buy HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n", 400),
        (b"POST /v1/buy HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"POST /v1/buy HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 200_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 20_000 + b"\r\n", 431),
        (b"GET / HTTP/2.0\r\nHost: x\r\n\r\n", 400),
        (b"GET http://elsewhere/ HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n", 400),
    ],
)
def test_huge_and_malformed_requests_are_told(trader: Trader, request_bytes: bytes, status: int) -> None:
    """The answer arrives even though the rest of the request is not read."""
    with socket.create_connection(address_of(trader.sandbox.api_url), timeout=PATIENCE_S) as wire:
        wire.sendall(request_bytes)
        answer = b""
        while data := wire.recv(65_536):
            answer += data
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert b"Connection: close" in answer
    serves(trader)


def test_huge_messages_end_their_session(trader: Trader) -> None:
    """More than 1 MiB in one message is 1009, in one frame or in many."""
    fragments = ['{"type":"ping","client_time_ms":1,"padding":"', *["x" * 65_536] * 20, '"}']
    ws = trader.stream()
    with pytest.raises(ConnectionClosed):
        ws.send(iter(fragments))
        ws.recv(timeout=PATIENCE_S)
        ws.recv(timeout=PATIENCE_S)
    assert ws.close_code == 1009
    assert trader.sandbox.wait_for(lambda: not trader.sandbox.sessions(), PATIENCE_S)
    assert alive(trader.stream())


def test_what_clients_say_is_not_remembered_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest messages of all sessions are kept, up to a size; the oldest go first."""
    monkeypatch.setattr(sessions, "MAX_KEPT_BYTES", 100_000)
    rig = Rig()
    session, _ = rig.session()
    for number in range(500):
        rig.say(session, {"type": "ping", "client_time_ms": number, "padding": "x" * 1_000})
    kept = session.received
    assert 50 <= len(kept) <= 100
    assert kept[-1]["client_time_ms"] == 499


# -- clients that do not read


def test_who_never_reads_is_cut_off(trader: Trader, monkeypatch: pytest.MonkeyPatch) -> None:
    """When too much is waiting for one client its connection ends; the low lane's share is dropped long before."""
    monkeypatch.setattr(stream_server, "MAX_BACKLOG_BYTES", 2**22)
    ws = trader.stream()
    for _ in range(1_000):
        if trader.sandbox.faults.raw("x" * 100_000) == 0:
            break
    assert trader.sandbox.wait_for(lambda: not trader.sandbox.sessions(), PATIENCE_S)
    with pytest.raises(ConnectionClosed):
        while True:
            ws.recv(timeout=PATIENCE_S)
    assert alive(trader.stream())


def test_who_reads_no_answers_gets_no_more(trader: Trader, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests are not read on while their answers are not: the server's memory is not the client's buffer."""
    answer_call, answered, everything = RpcServer.__call__, [0], threading.Event()

    def counted(server: RpcServer, request: Any) -> Any:
        answered[0] += 1
        if answered[0] == 60:
            everything.set()
        return answer_call(server, request)

    monkeypatch.setattr(RpcServer, "__call__", counted)
    # The complaint repeats the text: 30 MB of answers, several times what the system's buffers hold.
    body = json.dumps({"id": 1, "method": "getSlot", "params": [{"commitment": "x" * 500_000}]}).encode()
    call = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)

    def talk(wire: socket.socket) -> None:
        with suppress(OSError):  # closed while it waits for room
            wire.sendall(call * 60)

    with socket.create_connection(address_of(trader.sandbox.rpc_url)) as wire:
        talker = threading.Thread(target=talk, args=(wire,))
        talker.start()
        assert not everything.wait(2.0)
        serves(trader)
        wire.shutdown(socket.SHUT_RDWR)
    talker.join(PATIENCE_S)
    assert not talker.is_alive()


def test_half_requests_hold_nobody_up(many_files: int, trader: Trader) -> None:
    """Two hundred connections that have said half a word each, on every port."""
    with ExitStack() as wires:
        for url in (trader.sandbox.stream_url, trader.sandbox.api_url, trader.sandbox.rpc_url):
            for _ in range(200):
                wire = wires.enter_context(socket.create_connection(address_of(url), timeout=PATIENCE_S))
                wire.sendall(b"POST /v1/ws HTTP/1.1\r\nHo")
        serves(trader)
        assert alive(trader.stream())


# -- ten thousand connections


SERVER = """
import json, sys
from lasersell_sync.sandbox import Sandbox
with Sandbox(stream_port=0, api_port=0, rpc_port=0, landing_delay_ms=10) as sandbox:
    print(json.dumps(sandbox.ready_line()), flush=True)
    sys.stdin.read()
"""


@contextmanager
def sandbox_process() -> Iterator[Any]:
    """A sandbox in a process of its own: both ends of ten thousand connections are too many files for one."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).resolve().parents[2],
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield SimpleNamespace(**json.loads(process.stdout.readline()))
        assert process.poll() is None, "the sandbox is down"
    finally:
        process.stdin.close()
        assert process.wait(PATIENCE_S) == 0
        process.stdout.close()


@pytest.fixture
def many_files() -> Iterator[int]:
    """As many open files as this machine allows, for this test."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("service", ["stream_url", "rpc_url"])
def test_ten_thousand_connections(many_files: int, service: str) -> None:
    """They are held, or make room for each other; who trades goes on trading, and a newcomer is served."""
    count = min(10_000, many_files - 500)
    with sandbox_process() as sandbox, ExitStack() as opened:
        trader = Trader(sandbox)
        opened.callback(trader.close)
        ws = trader.register().stream()
        for _ in range(count):
            wire = opened.enter_context(socket.socket())
            wire.setblocking(False)
            wire.connect_ex(address_of(getattr(sandbox, service)))
        assert alive(ws)
        newcomer = Trader(sandbox, seed=2)
        opened.callback(newcomer.close)
        serves(newcomer)
        assert alive(ws)


def test_strangers_make_room(
    make_sandbox: Callable[..., Sandbox], make_trader: Callable[..., Trader], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Above its limit a service cuts the connection that has been silent longest, never a session."""
    monkeypatch.setattr(stream_server, "connection_limit", lambda: 20)
    monkeypatch.setattr(http_server, "connection_limit", lambda: 20)
    sandbox = make_sandbox()
    trader = make_trader(sandbox).register()
    ws = trader.stream()
    for url in (sandbox.stream_url, sandbox.api_url):
        with ExitStack() as wires:
            # Less patience than the WebSocket library has with those who do not say anything.
            silent = [wires.enter_context(socket.create_connection(address_of(url), timeout=5)) for _ in range(40)]
            assert silent[0].recv(1) == b""  # cut, in order of age
            assert silent[5].recv(1) == b""
            silent[-1].setblocking(False)
            with pytest.raises(BlockingIOError):
                silent[-1].recv(1)
            assert alive(ws)
            serves(trader)


# -- who can connect


def test_nothing_but_loopback_is_bound(
    sandbox: Sandbox, caplog: pytest.LogCaptureFixture, make_sandbox: Callable[..., Sandbox]
) -> None:
    """Without a host only this machine can connect, and the sandbox says so."""
    caplog.set_level(logging.INFO, logger="lasersell_sync.sandbox")
    for service in [sandbox._stream, *sandbox._services]:
        assert service is not None
        for listener in service._listeners:
            assert ipaddress.ip_address(listener.getsockname()[0]).is_loopback
    assert sandbox.loopback_only
    assert make_sandbox(host="127.0.0.1").loopback_only
    assert "listening on loopback: nothing outside this machine can connect" in caplog.text
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_listening_elsewhere_is_a_warning(
    caplog: pytest.LogCaptureFixture, make_sandbox: Callable[..., Sandbox], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It names the address and what it means. (Tests do not open ports to the world: the answer is borrowed.)"""
    monkeypatch.setattr(sandbox_module, "is_loopback", lambda _sockets: False)
    assert not make_sandbox(host="127.0.0.1").loopback_only
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert warnings == ["listening on 127.0.0.1: whoever can reach this machine can connect, trade and order faults"]


@pytest.mark.parametrize(
    ("addresses", "loopback"),
    [
        (["127.0.0.1", "::1"], True),
        (["127.8.9.1"], True),
        (["0.0.0.0"], False),
        (["::"], False),
        (["127.0.0.1", "192.168.1.5"], False),
        (["fe80::1%eth0"], False),
    ],
)
def test_addresses_are_told_apart(addresses: list[str], loopback: bool) -> None:
    """Loopback in both families; anything else is not, and one that is not is enough."""
    sockets: Any = [SimpleNamespace(getsockname=lambda address=address: (address, 1)) for address in addresses]
    assert is_loopback(sockets) == loopback


def test_the_command_says_who_can_connect() -> None:
    """Its first words for people are where it listens."""
    command = [sys.executable, "-m", "lasersell_sync", "sandbox", "--host", "127.0.0.1"]
    ports = ["--stream-port", "0", "--api-port", "0", "--rpc-port", "0"]
    with subprocess.Popen([*command, *ports], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["stream_url"].startswith("ws://127.0.0.1:")
        process.terminate()
        _, said = process.communicate(timeout=PATIENCE_S)
    assert "on loopback only" in said
