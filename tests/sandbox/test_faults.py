"""Faults on demand, from Python and over the control API, seen from the client's side of real sockets."""

from __future__ import annotations

import base64
import json
import socket
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from solders.hash import Hash
from solders.keypair import Keypair
from solders.message import MessageV0
from solders.pubkey import Pubkey
from solders.system_program import TransferParams, transfer
from solders.transaction import VersionedTransaction
from websockets.exceptions import ConnectionClosed, ConnectionClosedError
from websockets.sync.client import ClientConnection

from lasersell_sync.sandbox import Sandbox
from lasersell_sync.sandbox.servers.faults import CORRUPT_FRAMES
from tests.sandbox.players import PATIENCE_S, Trader, receive, strategy

#: A close code, or the text of the frame, that a correct client meets.
MET: dict[str, int | str | bytes] = {
    "json": '{"type":"pnl_update","position_id":1,',
    "empty": "",
    "not_an_object": "[1,2,3]",
    "wrong_types": CORRUPT_FRAMES["wrong_types"],
    "unknown_type": CORRUPT_FRAMES["unknown_type"],
    "binary": b"\x00\x01\x02\x03",
    "utf8": 1007,
    "reserved_bits": 1002,
    "unknown_opcode": 1002,
    "masked": 1002,
    "stray_continuation": 1002,
    "endless_length": 1009,
}


def closed(ws: ClientConnection) -> int:
    """Wait for the end of a connection; its code."""
    with pytest.raises(ConnectionClosed):
        while True:
            ws.recv(timeout=PATIENCE_S)
    assert ws.close_code is not None
    return ws.close_code


def alive(ws: ClientConnection) -> bool:
    ws.send('{"type":"ping","client_time_ms":1}')
    return receive(ws, "pong")["type"] == "pong"


def gift(trader: Trader, taker: Pubkey, lamports: int = 1_000) -> VersionedTransaction:
    told = trader.rpc("getLatestBlockhash", {"commitment": "processed"})["result"]["value"]["blockhash"]
    instruction = transfer(TransferParams(from_pubkey=trader.wallet.pubkey(), to_pubkey=taker, lamports=lamports))
    message = MessageV0.try_compile(trader.wallet.pubkey(), [instruction], [], Hash.from_string(told))
    return VersionedTransaction(message, [trader.wallet])


def send(trader: Trader, transaction: VersionedTransaction) -> requests.Response:
    """sendTransaction as it is, without a look at the answer."""
    params = [base64.b64encode(bytes(transaction)).decode(), {"encoding": "base64", "skipPreflight": True}]
    body = {"jsonrpc": "2.0", "id": 1, "method": "sendTransaction", "params": params}
    return trader.http.post(trader.sandbox.rpc_url, json=body, timeout=PATIENCE_S)


# -- the stream


def test_one_session_or_all(make_sandbox: Callable[..., Sandbox], make_trader: Callable[..., Trader]) -> None:
    """With a session id only that session's connection is hit; without one, every one."""
    sandbox = make_sandbox(api_keys=["other"])
    first, second = make_trader(sandbox).register(), make_trader(sandbox, seed=2, api_key="other").register()
    one, two = first.stream(), second.stream()
    ids = [session.session_id for session in sandbox.sessions()]
    assert sandbox.faults.error("rate_limited", "slow down", session_id=ids[1]) == 1
    assert receive(two) == {"type": "error", "code": "rate_limited", "message": "slow down"}
    assert sandbox.faults.close(4_000, "enough", session_id=ids[0]) == 1
    assert closed(one) == 4_000
    assert one.close_reason == "enough"
    assert alive(two)
    assert sandbox.faults.drop(session_id=999) == 0
    assert sandbox.faults.drop() == 1
    assert closed(two) == 1006


def test_a_half_open_connection(trader: Trader) -> None:
    """The session is over for the server and its key is free, while the client's socket stays open and silent."""
    sandbox, ws = trader.sandbox, trader.stream()
    assert sandbox.faults.half_open() == 1
    assert sandbox.sessions() == []
    pong = ws.ping()
    ws.send('{"type":"ping","client_time_ms":1}')
    assert alive(trader.stream())  # a newcomer is served meanwhile
    with pytest.raises(TimeoutError):
        ws.recv(timeout=0.1)
    assert not pong.is_set()
    assert ws.close_code is None
    sandbox.stop()
    assert closed(ws) == 1006


@pytest.mark.parametrize("kind", MET)
def test_every_corrupt_frame(trader: Trader, kind: str) -> None:
    """A correct client takes it for what it is; what breaks RFC 6455 costs the connection and nothing else."""
    ws, met = trader.stream(), MET[kind]
    assert trader.sandbox.faults.corrupt(kind) == 1
    if isinstance(met, int):
        assert closed(ws) in (met, 1006)
        assert ws.protocol.close_sent is not None
        assert ws.protocol.close_sent.code == met
        assert trader.sandbox.wait_for(lambda: not trader.sandbox.sessions(), PATIENCE_S)
        ws = trader.stream()
    else:
        assert ws.recv(timeout=PATIENCE_S) == met
    assert alive(ws)


def test_a_frame_cut_short_swallows_what_follows(trader: Trader) -> None:
    """The client takes the next frame's bytes for the rest of this one."""
    ws = trader.stream()
    trader.sandbox.faults.corrupt("cut_short")
    ws.send('{"type":"ping","client_time_ms":1}')
    with pytest.raises((ConnectionClosed, ValueError, TimeoutError)):
        json.loads(ws.recv(timeout=0.3))
    assert set(MET) | {"cut_short"} == set(CORRUPT_FRAMES)


def test_a_slow_link(trader: Trader) -> None:
    """Bytes come at the rate that was ordered, frames in pieces; without the order they come at once again."""
    ws = trader.stream()
    trader.sandbox.faults.slow_link(100_000)
    started_s = time.monotonic()
    trader.sandbox.faults.raw("x" * 50_000)
    assert ws.recv(timeout=PATIENCE_S) == "x" * 50_000
    assert time.monotonic() - started_s > 0.4
    trader.sandbox.faults.slow_link(None)
    assert alive(ws)


def test_a_long_link(trader: Trader) -> None:
    """Everything the server says comes later, pongs of both kinds too, and in order; many at once are not added up."""
    ws = trader.stream()
    trader.sandbox.faults.latency(300)
    started_s = time.monotonic()
    pong = ws.ping()
    for number in range(50):
        trader.sandbox.faults.raw(str(number))
    assert [ws.recv(timeout=PATIENCE_S) for _ in range(50)] == [str(number) for number in range(50)]
    assert pong.wait(PATIENCE_S)
    assert 0.3 <= time.monotonic() - started_s < 5  # one after the other they would take 15
    trader.sandbox.faults.clear()
    assert alive(ws)
    assert trader.sandbox.faults.pending["latency_ms"] == 0


def test_a_close_passes_a_slow_link_in_order(trader: Trader) -> None:
    """What was said before the closing handshake arrives before it."""
    ws = trader.stream()
    trader.sandbox.faults.latency(100)
    trader.sandbox.faults.raw("last words")
    trader.sandbox.faults.close(1001)
    assert ws.recv(timeout=PATIENCE_S) == "last words"
    assert closed(ws) == 1001


@pytest.mark.parametrize("keep", [True, False])
def test_a_restart_keeps_or_loses_sessions(trader: Trader, keep: bool) -> None:
    """Clients are told 1001; who comes back meets the same position, or the same holding under a new id."""
    sandbox, ws = trader.sandbox, trader.stream()
    trader.buy(sandbox.mints[1])
    before = receive(ws, "position_opened")
    url = sandbox.stream_url
    sandbox.faults.restart(keep_sessions=keep)
    assert closed(ws) == 1001
    assert sandbox.stream_url == url
    ws = trader.stream(strategy(target=500))
    after = receive(ws, "position_opened")
    assert after["token_account"] == before["token_account"]
    assert (after["position_id"] == before["position_id"]) == keep
    ws.send(json.dumps({"type": "request_exit_signal", "position_id": after["position_id"]}))
    assert receive(ws, "exit_signal_with_tx")["reason"] == "manual_sell"


def test_a_service_that_is_down_refuses(trader: Trader) -> None:
    """While it restarts nobody is let in, everything else goes on, and stopping the sandbox does not wait for it."""
    sandbox = trader.sandbox
    address = urlsplit(sandbox.stream_url)
    ws = trader.stream()
    restart = threading.Thread(target=lambda: sandbox.faults.restart(down_ms=60_000))
    restart.start()
    assert closed(ws) == 1001
    give_up_s = time.monotonic() + PATIENCE_S
    with pytest.raises(ConnectionRefusedError):
        while time.monotonic() < give_up_s:  # the port closes a moment after the connections
            socket.create_connection((address.hostname or "", address.port or 0), timeout=5).close()
    assert trader.rpc("getHealth")["result"] == "ok"
    assert sandbox.faults.corrupt() == 0
    started_s = time.monotonic()
    sandbox.stop()
    restart.join(PATIENCE_S)
    assert time.monotonic() - started_s < 10
    assert not restart.is_alive()


# -- answers


def test_an_accepted_transaction_whose_answer_is_lost(make_sandbox: Any, make_trader: Any) -> None:
    """Accepted, answered with HTTP 500, and on the chain 29 s later: in that order, every time."""
    sandbox = make_sandbox(clock="manual")
    trader = make_trader(sandbox).register()
    friend = Keypair().pubkey()
    sandbox.faults.transactions("late", landing_delay_ms=29_000)
    sandbox.faults.rpc("sendTransaction", status=500)
    transaction = gift(trader, friend)
    assert send(trader, transaction).status_code == 500
    again = send(trader, transaction)  # and the client may ask again
    assert (again.status_code, again.json()["result"]) == (200, str(transaction.signatures[0]))
    sandbox.advance(28.9)
    assert sandbox.balance_lamports(friend) == 0
    sandbox.advance(0.2)
    assert sandbox.balance_lamports(friend) == 1_000
    assert len(sandbox.transactions()) == 1


def test_a_transaction_that_never_arrived(trader: Trader) -> None:
    """With handled=False the node has not even looked: an answer is missing and nothing lands."""
    friend = Keypair().pubkey()
    trader.sandbox.faults.rpc("sendTransaction", hang_up=True, handled=False)
    transaction = gift(trader, friend)
    with pytest.raises(requests.ConnectionError):
        send(trader, transaction)
    assert trader.landed(trader.send(gift(trader, friend, 7))).err is None
    assert trader.sandbox.balance_lamports(friend) == 7


def test_a_hang_up_after_acceptance(trader: Trader) -> None:
    """The connection is cut, the transaction lands."""
    friend = Keypair().pubkey()
    trader.sandbox.faults.rpc("sendTransaction", hang_up=True)
    with pytest.raises(requests.ConnectionError):
        send(trader, gift(trader, friend))
    assert trader.sandbox.wait_for(lambda: trader.sandbox.balance_lamports(friend) == 1_000, PATIENCE_S)


@pytest.mark.parametrize("fate", ["lost", "never"])
def test_transactions_get_lost(trader: Trader, fate: Any) -> None:
    """Accepted like any other, on the chain never; only the lost one lands when it is sent again."""
    friend = Keypair().pubkey()
    trader.sandbox.faults.transactions(fate, times=1)
    assert trader.sandbox.faults.pending["transactions"] == [fate]
    transaction = gift(trader, friend)
    assert trader.send(transaction, skipPreflight=True) == str(transaction.signatures[0])
    trader.landed(trader.send(gift(trader, friend, 5)))
    assert trader.sandbox.balance_lamports(friend) == 5
    trader.send(transaction, skipPreflight=True)
    trader.landed(trader.send(gift(trader, friend, 6)))
    # They land in order of arrival: what was sent before this one has landed, or never will.
    assert trader.sandbox.balance_lamports(friend) == (1_011 if fate == "lost" else 11)


def test_rpc_errors_meet_the_calls_they_wait_for(trader: Trader) -> None:
    """A JSON-RPC error comes as often as ordered, for its method alone, in a batch too."""
    faults = trader.sandbox.faults
    data = {"numSlotsBehind": 42}
    faults.rpc("getSlot", times=2, error_code=-32005, error_message="Node is behind by 42 slots", error_data=data)
    batch = [{"jsonrpc": "2.0", "id": number, "method": name} for number, name in enumerate(["getHealth", "getSlot"])]
    health, slot = trader.http.post(trader.sandbox.rpc_url, json=batch, timeout=PATIENCE_S).json()
    assert health["result"] == "ok"
    assert slot["error"] == {"code": -32005, "message": "Node is behind by 42 slots", "data": data}
    assert faults.pending["answers"] == [{"service": "rpc", "call": "getSlot", "times": 1}]
    assert trader.rpc("getSlot")["error"]["code"] == -32005
    assert trader.rpc("getSlot")["result"] > 0
    assert faults.pending["answers"] == []


def test_standing_faults_and_limited_ones(trader: Trader) -> None:
    """One that is ordered for the next call goes before one that stands; clear ends both."""
    faults, url = trader.sandbox.faults, trader.sandbox.rpc_url
    body = {"jsonrpc": "2.0", "id": 1, "method": "getSlot"}
    faults.rpc(times=None, status=429, retry_after_s=2)
    faults.rpc("getSlot", status=502, body="<html>bad gateway</html>")
    first = trader.http.post(url, json=body, timeout=PATIENCE_S)
    assert (first.status_code, first.text) == (502, "<html>bad gateway</html>")
    for _ in range(2):
        answer = trader.http.post(url, json=body, timeout=PATIENCE_S)
        assert (answer.status_code, answer.headers["Retry-After"]) == (429, "2")
    faults.clear()
    assert trader.rpc("getSlot")["result"] > 0


def test_answers_can_be_late(trader: Trader) -> None:
    """A delayed answer is the true one, and delays nobody else."""
    trader.sandbox.faults.rpc("getSlot", delay_ms=400)
    answers: list[Any] = []
    started_s = time.monotonic()
    late = threading.Thread(target=lambda: answers.append(requests.post(
        trader.sandbox.rpc_url, json={"jsonrpc": "2.0", "id": 1, "method": "getSlot"}, timeout=PATIENCE_S).json()))  # fmt: skip
    late.start()
    assert trader.rpc("getHealth")["result"] == "ok"
    late.join(PATIENCE_S)
    assert time.monotonic() - started_s >= 0.4
    assert answers[0]["result"] > 0


def test_the_rest_service_fails_on_demand(trader: Trader) -> None:
    """Status, body and Retry-After of one path; the others are served."""
    sandbox = trader.sandbox
    body = '{"error":"rate limit exceeded"}'
    sandbox.faults.api("/v1/buy", status=429, body=body, retry_after_s=1, handled=False)
    answer = trader.post("/v1/buy", trader.buy_body(sandbox.mints[0]))
    assert (answer.status_code, answer.json(), answer.headers["Retry-After"]) == (429, json.loads(body), "1")
    assert trader.post("/v1/buy", trader.buy_body(sandbox.mints[0])).status_code == 200
    sandbox.faults.api("/v1/buy", hang_up=True)
    with pytest.raises(requests.ConnectionError):
        trader.post("/v1/buy", trader.buy_body(sandbox.mints[0]))


def test_chain_conditions_can_be_changed(make_sandbox: Any, make_trader: Any) -> None:
    """Landing delay and loss take effect for the transactions that come."""
    sandbox = make_sandbox(clock="manual", loss_probability=1.0)
    trader = make_trader(sandbox).register()
    friend = Keypair().pubkey()
    trader.send(gift(trader, friend), skipPreflight=True, maxRetries=0)
    sandbox.advance(10)
    assert sandbox.transactions() == []
    sandbox.faults.chain(landing_delay_ms=5_000, loss_probability=0)
    trader.send(gift(trader, friend, 7), skipPreflight=True)
    sandbox.advance(4.9)
    assert sandbox.transactions() == []
    sandbox.advance(0.2)
    assert sandbox.balance_lamports(friend) == 7


@pytest.mark.parametrize(
    ("order", "named"),
    [
        (lambda faults: faults.close(1005), "1005"),
        (lambda faults: faults.close(1000, "é" * 62), "reason"),
        (lambda faults: faults.corrupt("nicely"), "kind"),
        (lambda faults: faults.slow_link(0), "bytes_per_s"),
        (lambda faults: faults.latency(-1), "milliseconds"),
        (lambda faults: faults.latency(float("nan")), "milliseconds"),
        (lambda faults: faults.restart(down_ms="x"), "down_ms"),
        (lambda faults: faults.rpc(status=99), "status"),
        (lambda faults: faults.rpc(times=0), "times"),
        (lambda faults: faults.rpc(error_code=1, status=500), "error_code"),
        (lambda faults: faults.api(delay_ms=-1), "delay_ms"),
        (lambda faults: faults.transactions("gone"), "fate"),
        (lambda faults: faults.transactions("lost", times=0), "times"),
        (lambda faults: faults.chain(loss_probability=1.5), "loss_probability"),
        (lambda faults: faults.rpc_lag(-1), "slots"),
        (lambda faults: faults.rpc_lag(True), "slots"),
        (lambda faults: faults.rpc_lag(2.0), "slots"),
    ],
)
def test_senseless_orders_are_named(sandbox: Sandbox, order: Callable[[Any], object], named: str) -> None:
    """A ValueError names the argument, and nothing is ordered."""
    before = sandbox.faults.pending
    with pytest.raises(ValueError, match=named):
        order(sandbox.faults)
    assert sandbox.faults.pending == before


def test_a_node_that_lags_tells_the_past(make_sandbox: Any, make_trader: Any) -> None:
    """Slots, heights, blockhashes and statuses are as old as ordered, and fit each other; the chain goes on."""
    sandbox = make_sandbox(clock="manual", landing_delay_ms=0)
    trader = make_trader(sandbox).register()
    newest = {"commitment": "processed"}
    sandbox.skip_slots(500)
    slot, info = trader.rpc("getSlot", newest)["result"], trader.rpc("getEpochInfo", newest)["result"]
    assert (info["absoluteSlot"], info["epoch"] * info["slotsInEpoch"] + info["slotIndex"]) == (slot, slot)
    blockhash = trader.rpc("getLatestBlockhash", newest)["result"]["value"]["blockhash"]
    transaction = gift(trader, Keypair().pubkey())

    sandbox.faults.rpc_lag(200)
    assert sandbox.faults.pending["rpc_lag_slots"] == 200
    assert trader.rpc("getSlot", newest)["result"] == slot - 200
    old = trader.rpc("getEpochInfo", newest)["result"]
    assert (old["absoluteSlot"], old["blockHeight"]) == (slot - 200, info["blockHeight"] - 200)
    assert trader.rpc("getBlockHeight", newest)["result"] == old["blockHeight"]
    told = trader.rpc("getLatestBlockhash", newest)["result"]
    assert (told["context"]["slot"], told["value"]["lastValidBlockHeight"]) == (slot - 200, old["blockHeight"] + 150)
    assert told["value"]["blockhash"] != blockhash

    def valid(text: str) -> Any:
        return trader.rpc("isBlockhashValid", text, newest)["result"]

    assert valid(told["value"]["blockhash"])["value"] is True
    assert valid(blockhash) == {"context": valid(blockhash)["context"], "value": False}
    signature = trader.send(transaction, skipPreflight=True)  # it still goes to the chain
    sandbox.advance(0)
    assert [record.signature for record in sandbox.transactions()] == [signature]

    def status() -> Any:
        return trader.rpc("getSignatureStatuses", [signature])["result"]

    assert status() == {"context": {"apiVersion": "4.3.0", "slot": slot - 200}, "value": [None]}
    sandbox.skip_slots(199)
    assert status()["value"] == [None]
    assert valid(blockhash)["value"] is False
    sandbox.skip_slots(1)
    assert status()["value"][0]["confirmationStatus"] == "processed"
    assert valid(blockhash) == {"context": {"apiVersion": "4.3.0", "slot": slot}, "value": True}
    sandbox.faults.clear()
    assert status()["value"][0]["confirmationStatus"] == "finalized"
    assert valid(blockhash)["value"] is False


# -- the control API


class Control:
    """A bot author's HTTP client."""

    def __init__(self, trader: Trader) -> None:
        self._trader = trader

    def __call__(self, action: str, **body: object) -> Any:
        answer = self._trader.post(f"/sandbox/{action}", body)
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest.fixture
def control(trader: Trader) -> Control:
    return Control(trader)


def test_the_stream_is_disturbed_over_http(trader: Trader, control: Control) -> None:
    """Every fault of the stream has its call; the answer tells how many connections it met."""
    ws = trader.stream()
    (session,) = trader.sandbox.sessions()
    told = control("error", code="limit_exceeded", message="too much", session_id=session.session_id)
    assert told == {"ok": True, "connections": 1}
    assert receive(ws)["code"] == "limit_exceeded"
    control("corrupt", kind="json")
    assert ws.recv(timeout=PATIENCE_S) == CORRUPT_FRAMES["json"]
    control("corrupt")
    assert ws.recv(timeout=PATIENCE_S) == CORRUPT_FRAMES["json"]
    control("raw", text="hello")
    assert ws.recv(timeout=PATIENCE_S) == "hello"
    control("raw", hex="8202 6869")
    assert ws.recv(timeout=PATIENCE_S) == b"hi"
    control("latency", ms=50)
    control("slow-link", bytes_per_s=10_000)
    faults = trader.http.get(trader.sandbox.api_url + "/sandbox/faults", headers=trader.headers, timeout=PATIENCE_S)
    assert faults.json() == {
        "answers": [],
        "transactions": [],
        "latency_ms": 50,
        "bytes_per_s": 10_000,
        "rpc_lag_slots": 0,
        "nodes": {},
        "router_theft": None,
    }
    control("slow-link", bytes_per_s=None)
    control("latency", ms=0)
    control("mute")
    with pytest.raises(TimeoutError):
        alive_within(ws, 0.1)
    control("unmute")
    assert alive(ws)
    control("close", code=4_321, reason="as ordered")
    assert closed(ws) == 4_321
    ws = trader.stream()
    control("restart", keep_sessions=False, down_ms=1)
    assert closed(ws) == 1001
    ws = trader.stream()
    assert control("half-open") == {"ok": True, "connections": 1}
    assert control("half-open") == {"ok": True, "connections": 0}
    ws = trader.stream()
    control("drop")
    with pytest.raises(ConnectionClosedError):
        ws.recv(timeout=PATIENCE_S)


def alive_within(ws: ClientConnection, timeout_s: float) -> None:
    ws.send('{"type":"ping","client_time_ms":1}')
    ws.recv(timeout=timeout_s)


def test_answers_and_chain_are_disturbed_over_http(trader: Trader, control: Control) -> None:
    """The next sendTransaction is accepted, answered with HTTP 500, and never lands: three calls."""
    friend = Keypair().pubkey()
    control("transactions", fate="never")
    control("rpc", method="sendTransaction", status=500)
    assert send(trader, gift(trader, friend)).status_code == 500
    control("rpc", method="getSlot", error_code=-32005, error_message="behind", times=0)
    for _ in range(3):
        assert trader.rpc("getSlot")["error"]["message"] == "behind"
    control("api", path="/v1/account", status=503)
    url = trader.sandbox.api_url + "/v1/account"
    codes = [trader.http.get(url, headers=trader.headers, timeout=PATIENCE_S).status_code for _ in range(2)]
    assert codes == [503, 200]
    control("chain", landing_delay_ms=0, loss_probability=0)
    control("rpc-lag", slots=7)
    assert trader.sandbox.faults.pending["rpc_lag_slots"] == 7
    control("rpc-lag", slots=0)
    control("clear")
    assert trader.rpc("getSlot")["result"] > 0
    assert trader.landed(trader.send(gift(trader, friend, 5))).err is None
    assert trader.sandbox.balance_lamports(friend) == 5


def test_the_market_is_moved_over_http(trader: Trader, control: Control) -> None:
    """Prices, exits and slots can be moved by any language's tests."""
    ws = trader.stream(strategy(stop=30))
    trader.buy(trader.sandbox.mints[0])
    opened = receive(ws, "position_opened")
    control("exit", position_id=opened["position_id"], reason="take_profit")
    assert receive(ws, "exit_signal_with_tx")["reason"] == "take_profit"
    control("price", mint=trader.sandbox.mints[0], multiplier=0.5)
    assert receive(ws, "exit_signal_with_tx")["reason"] == "stop_loss"
    before = trader.rpc("getSlot")["result"]
    control("skip-slots", slots=100)
    assert trader.rpc("getSlot")["result"] >= before + 100


@pytest.mark.parametrize(
    ("action", "body", "status"),
    [
        ("nothing", {}, 404),
        ("", {}, 404),
        ("close", {"code": 1005}, 400),
        ("close", {"code": "x"}, 400),
        ("raw", {}, 400),
        ("raw", {"hex": "zz"}, 400),
        ("raw", {"hex": "00", "text": "x"}, 400),
        ("latency", {}, 400),
        ("latency", {"ms": -1}, 400),
        ("corrupt", {"kind": 5}, 400),
        ("rpc", {"error_code": 1.5}, 400),
        ("rpc", {"times": -1}, 400),
        ("transactions", {"fate": "gone"}, 400),
        ("transactions", {}, 400),
        ("price", {"mint": "x", "multiplier": 2}, 400),
        ("price", {"multiplier": 2}, 400),
        ("exit", {"position_id": 99, "reason": "x"}, 400),
        ("skip-slots", {"slots": -1}, 400),
        ("restart", {"down_ms": -1}, 400),
        ("restart", {"keep_sessions": "no"}, 400),
        ("drop", [], 400),
    ],
)
def test_senseless_calls_are_told(trader: Trader, action: str, body: object, status: int) -> None:
    """Unknown actions and bad bodies are answered with a text, and change nothing."""
    answer = trader.post(f"/sandbox/{action}", body)
    assert answer.status_code == status
    assert isinstance(answer.json()["error"], str)


def test_control_needs_the_key_and_post(trader: Trader) -> None:
    """Without the key nothing is disturbed: a page of another site cannot send it. GET changes nothing either."""
    ws, url = trader.stream(), trader.sandbox.api_url + "/sandbox/drop"
    for headers in ({}, {"x-api-key": "wrong"}):
        assert requests.post(url, headers=headers, timeout=PATIENCE_S).status_code == 401
    assert trader.http.get(url, headers=trader.headers, timeout=PATIENCE_S).status_code == 405
    assert alive(ws)
    assert trader.http.post(url, headers=trader.headers, timeout=PATIENCE_S).json() == {"ok": True, "connections": 1}
