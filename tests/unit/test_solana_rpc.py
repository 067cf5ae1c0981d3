"""Sending and confirming against a real JSON-RPC server on loopback."""

from __future__ import annotations

import base64
import itertools
import json
import logging
import os
import pickle
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from solders.hash import Hash
from solders.keypair import Keypair
from solders.message import MessageV0
from solders.signature import Signature
from solders.system_program import TransferParams, transfer
from solders.transaction import VersionedTransaction

from lasersell_sync.exceptions import ConfigurationError, TxSubmitError
from lasersell_sync.network.http_endpoint import parse_endpoint
from lasersell_sync.runtime.timeouts import TimeBudget
from lasersell_sync.trading import (
    ASTRALANE_DEFAULT_REGION,
    HELIUS_SENDER_FAST_URL,
    MAINNET_BETA_RPC_URL,
    ConfirmedSignature,
    SendTarget,
    SendTargetAstralane,
    SendTargetHeliusSender,
    SendTargetRpc,
    astralane_iris_url,
    close_rpc_connections,
    confirm_signature,
    send_transaction,
    send_transaction_b64_to,
    warm_send_target,
)
from lasersell_sync.trading.solana import json_rpc as _json_rpc
from tests.support.http_server import (
    GENEROUS_S,
    TEST_CERTIFICATE,
    Answer,
    HttpServer,
    Responder,
    Seen,
    closed_port,
    json_answer,
)
from tests.support.waiting import JumpingClock

CANARY = "canary-key-0123456789"
URL_CANARY = "canary-in-the-url-0123456789"
PAYER = Keypair.from_seed(bytes(range(32)))
OTHER = Keypair.from_seed(bytes(range(1, 33)))


def transaction(lamports: int = 1) -> VersionedTransaction:
    pay = transfer(TransferParams(from_pubkey=PAYER.pubkey(), to_pubkey=OTHER.pubkey(), lamports=lamports))
    message = MessageV0.try_compile(PAYER.pubkey(), [pay], [], Hash.default())
    return VersionedTransaction(message, [PAYER])


TX = transaction()
TX_B64 = base64.b64encode(bytes(TX)).decode()
SIGNATURE = str(TX.signatures[0])


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> JumpingClock:
    return JumpingClock(monkeypatch)


@pytest.fixture(autouse=True)
def _no_connection_outlives_a_test() -> Iterator[None]:
    yield
    close_rpc_connections()


def result(value: object) -> Responder:
    """Answers every call with this result, under the call's own id."""
    return lambda seen: json_answer({"jsonrpc": "2.0", "id": seen.json["id"], "result": value})


def error(code: int, message: str, status: int = 200, **more: object) -> Responder:
    body = {"code": code, "message": message, **more}
    return lambda seen: json_answer({"jsonrpc": "2.0", "id": seen.json["id"], "error": body}, status)


def in_turn(*responders: Responder) -> Responder:
    """The n-th request gets the n-th responder, later ones the last."""
    left = list(responders)

    def respond(seen: Seen) -> Answer:
        responder = left.pop(0) if len(left) > 1 else left[0]
        return responder(seen)

    return respond


def fixed(answer: Answer) -> Responder:
    return lambda _: answer


def refused(kind: str, call: Callable[[], object]) -> TxSubmitError:
    with pytest.raises(TxSubmitError) as caught:
        call()
    assert caught.value.kind == kind
    return caught.value


def sending_fails(kind: str, respond: Responder, *, requests: int = 1) -> TxSubmitError:
    with HttpServer(respond=respond) as server:
        failure = refused(kind, lambda: send_transaction(SendTargetRpc(server.url), TX))
        assert len(server.requests) == requests
    assert failure.signature == SIGNATURE
    assert failure.target == "rpc"
    return failure


# ── sending ──


def test_rpc_gets_the_documented_call():
    """sendTransaction with skipPreflight, three retries of the node's own, and the preflight commitment."""
    with HttpServer(respond=result(SIGNATURE)) as server:
        assert send_transaction(SendTargetRpc(f"{server.url}/v2/x?api-key=y"), TX) == SIGNATURE
    (seen,) = server.requests
    assert (seen.method, seen.path) == ("POST", "/v2/x?api-key=y")
    assert seen.headers["content-type"] == "application/json"
    assert "x-api-key" not in seen.headers
    call = seen.json
    assert isinstance(call.pop("id"), int)
    options = {"encoding": "base64", "skipPreflight": True, "maxRetries": 3, "preflightCommitment": "processed"}
    assert call == {"jsonrpc": "2.0", "method": "sendTransaction", "params": [TX_B64, options]}


@pytest.mark.parametrize(
    ("make", "key"),
    [(SendTargetHeliusSender, None), (lambda url: SendTargetAstralane(CANARY, url=url), CANARY)],
    ids=["helius", "astralane"],
)
def test_senders_get_the_documented_call(make: Callable[[str], SendTarget], key: str | None):
    """No retries of their own and no preflight commitment; Astralane gets its key in a header."""
    with HttpServer(respond=result(SIGNATURE)) as server:
        assert send_transaction_b64_to(make(server.url), TX_B64) == SIGNATURE
    (seen,) = server.requests
    assert seen.json["params"] == [TX_B64, {"encoding": "base64", "skipPreflight": True, "maxRetries": 0}]
    assert seen.headers.get("x-api-key") == key


@pytest.mark.parametrize("form", [TX, bytes(TX), bytearray(bytes(TX))])
def test_a_transaction_may_come_as_object_or_bytes(form: object):
    """send_transaction takes what sign_unsigned_tx returns, or its bytes."""
    with HttpServer(respond=result(SIGNATURE)) as server:
        assert send_transaction(SendTargetRpc(server.url), form) == SIGNATURE


def test_repeated_sends_reuse_one_connection():
    """A sale does not begin with a handshake, though send_transaction is a plain function."""
    with HttpServer(respond=result(SIGNATURE)) as server:
        for number in range(5):
            send_transaction(SendTargetRpc(f"{server.url}/key{number}"), TX)
    assert server.connections == 1
    ids = [seen.json["id"] for seen in server.requests]
    assert len(set(ids)) == 5
    assert ids == sorted(ids)


def test_closed_connections_are_opened_anew():
    """close_rpc_connections frees the sockets, and is no end."""
    with HttpServer(respond=result(SIGNATURE)) as server:
        send_transaction(SendTargetRpc(server.url), TX)
        close_rpc_connections()
        close_rpc_connections()
        send_transaction(SendTargetRpc(server.url), TX)
    assert server.connections == 2


def test_threads_send_at_once():
    """Eight threads share the connections; each gets its own signature."""
    transactions = [transaction(number) for number in range(1, 9)]
    got: dict[int, str] = {}

    def respond(seen: Seen) -> Answer:
        sent = VersionedTransaction.from_bytes(base64.b64decode(seen.json["params"][0]))
        return result(str(sent.signatures[0]))(seen)

    with HttpServer(respond=respond) as server:

        def work(number: int) -> None:
            got[number] = send_transaction(SendTargetRpc(server.url), transactions[number])

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(GENEROUS_S)
    assert got == {number: str(tx.signatures[0]) for number, tx in enumerate(transactions)}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_has_connections_of_its_own():
    """Parent and child never write into one connection, nor wait for each other's locks."""
    with HttpServer(respond=result(SIGNATURE)) as server:
        send_transaction(SendTargetRpc(server.url), TX)
        lock = _json_rpc._connections()._lock
        lock.acquire()  # as another thread of the parent may hold it at that moment
        child = os.fork()
        if child == 0:
            signal.alarm(int(GENEROUS_S))
            status = 1
            try:
                status = 0 if send_transaction(SendTargetRpc(server.url), TX) == SIGNATURE else 2
            finally:
                os._exit(status)
        lock.release()
        assert os.waitpid(child, 0)[1] == 0
        send_transaction(SendTargetRpc(server.url), TX)
    assert server.connections == 2


def test_the_same_bytes_are_sent_again_after_a_broken_connection():
    """The signature deduplicates, so one more attempt is harmless and saves the sale."""
    with HttpServer(respond=in_turn(fixed(Answer(raw=b"")), result(SIGNATURE))) as server:
        assert send_transaction(SendTargetRpc(server.url), TX) == SIGNATURE
    assert server.requests[0].json["params"] == server.requests[1].json["params"]


def test_the_same_bytes_are_sent_again_after_a_kept_connection_broke():
    """A connection that took earlier sales and dies under this one does not lose it."""
    with HttpServer(respond=in_turn(result(SIGNATURE), fixed(Answer(raw=b"")), result(SIGNATURE))) as server:
        target = SendTargetRpc(server.url)
        assert [send_transaction(target, TX) for _ in range(2)] == [SIGNATURE] * 2
    assert server.connections == 2
    assert [seen.json["params"][0] for seen in server.requests] == [TX_B64] * 3


def test_a_sale_is_sent_as_any_other_call_would_be():
    """Its shortcut past the JSON encoder writes what the encoder writes."""
    options = {"encoding": "base64", "skipPreflight": True}
    with HttpServer(respond=result(SIGNATURE)) as server:
        client = _json_rpc.RpcClient(parse_endpoint("url", server.url), "rpc")
        client.call("sendTransaction", [TX_B64, options], budget=TimeBudget(GENEROUS_S))
        short = json.dumps(options, separators=(",", ":"))
        assert client.send_transaction(TX_B64, short, budget=TimeBudget(GENEROUS_S)) == SIGNATURE
    first, second = (seen.json for seen in server.requests)
    assert first.pop("id") + 1 == second.pop("id")
    assert first == second


def test_a_connection_that_stays_broken_says_that_it_may_have_arrived():
    """The caller must not build a fresh transaction lightly."""
    failure = sending_fails("request_send", fixed(Answer(raw=b"")), requests=2)
    assert "may have been received" in failure.detail


def test_half_an_answer_is_a_read_error():
    """The node began to answer: it certainly had the request."""
    half = Answer(raw=b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{")
    failure = sending_fails("response_read", fixed(half), requests=2)
    assert "may have been received" in failure.detail
    assert failure.status == 200


def test_an_unreachable_node_says_that_nothing_was_sent():
    """No connection: the words do not claim that it may have arrived."""
    url = f"http://127.0.0.1:{closed_port()}"
    failure = refused("request_send", lambda: send_transaction(SendTargetRpc(url), TX))
    assert "may have been received" not in failure.detail
    assert "Connection refused" in failure.detail


def test_the_time_limit_covers_both_attempts():
    """A silent node frees the caller in time."""
    gate = threading.Event()

    def silent(_: Seen) -> Answer:
        gate.wait(GENEROUS_S)
        return Answer()

    with HttpServer(respond=silent) as server:
        started = time.monotonic()
        refused("request_send", lambda: send_transaction(SendTargetRpc(server.url), TX, timeout_s=0.2))
        took_s = time.monotonic() - started
        gate.set()
    assert 0.15 < took_s < GENEROUS_S / 2


def test_the_time_limit_covers_the_way_to_the_first_connection(monkeypatch: pytest.MonkeyPatch):
    """What a process loads for its first sale is taken off the sale's time, not added to it."""
    make, clock = _json_rpc._new_pool, JumpingClock(monkeypatch)

    def slowly(*args: Any) -> Any:
        clock.jump(59.8)
        return make(*args)

    monkeypatch.setattr(_json_rpc, "_new_pool", slowly)
    gate = threading.Event()
    with HttpServer(Answer(hold=gate)) as server:
        started = time.monotonic()
        refused("request_send", lambda: send_transaction(SendTargetRpc(server.url), TX, timeout_s=60))
        took_s = time.monotonic() - started
        gate.set()
    assert took_s < GENEROUS_S / 2


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500, 503])
def test_a_refusing_node_is_told_with_its_words(status: int):
    """An answer, even a bad one, is the caller's to judge: it is not sent again on its own."""
    failure = sending_fails("http_status", fixed(Answer(status, b"go away")))
    assert (failure.status, failure.body) == (status, "go away")
    assert f"HTTP {status}: go away" in str(failure)


def test_a_json_rpc_error_under_a_bad_status_is_read():
    """Nodes put the reason into the body of a 4xx."""
    assert "rate limited" in sending_fails("http_status", error(-32005, "rate limited", 429)).detail


def test_a_json_rpc_error_carries_code_and_cause():
    """The node's words, its code, and what it says about the transaction."""
    data = {"err": "BlockhashNotFound", "logs": ["x" * 5000]}
    failure = sending_fails("rpc_error", error(-32002, "simulation failed", data=data))
    assert (failure.code, failure.detail) == (-32002, 'simulation failed ("BlockhashNotFound")')


@pytest.mark.parametrize("strange", ["text", {"no": "message"}, [1], 0, True])
def test_a_strange_json_rpc_error_is_still_an_error(strange: object):
    """Whatever stands under "error" is not a success."""
    failure = sending_fails("rpc_error", lambda seen: json_answer({"id": seen.json["id"], "error": strange}))
    assert failure.code is None


def test_an_error_with_a_null_id_is_accepted():
    """A node that could not read the request does not know its id (JSON-RPC 2.0 5)."""
    answer = json_answer({"jsonrpc": "2.0", "id": None, "error": {"code": -32700, "message": "parse"}})
    assert sending_fails("rpc_error", fixed(answer)).code == -32700


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"null", b"5", b"\xff", b"[" * 100_000])
def test_an_answer_that_is_not_an_object_is_a_decode_error(body: bytes):
    """A proxy's page is not an acceptance."""
    sending_fails("decode_response", fixed(Answer(200, body)))


@pytest.mark.parametrize("wrong_id", [None, 0, "1", -1])
def test_an_answer_to_another_request_is_a_decode_error(wrong_id: object):
    """Ids are checked: an answer that got mixed up proves nothing."""
    failure = sending_fails("decode_response", fixed(json_answer({"id": wrong_id, "result": SIGNATURE})))
    assert "another request" in failure.detail


def test_another_signature_is_a_decode_error():
    """The node accepted something else than what was sent, or is confused."""
    failure = sending_fails("decode_response", result(str(Signature.default())))
    assert "another signature" in failure.detail


@pytest.mark.parametrize("value", [None, "", 5, {}, [SIGNATURE]])
def test_an_answer_without_a_signature_is_a_missing_result(value: object):
    """The official kind for it; the transaction may have been received all the same."""
    assert "may have been received" in sending_fails("missing_result", result(value)).detail


def test_a_redirect_is_never_followed():
    """A signed transaction goes to the node that was named, and nowhere else."""
    with HttpServer() as other:
        failure = sending_fails("http_status", fixed(Answer(307, headers={"location": other.url})))
    assert failure.status == 307
    assert other.connections == 0


@pytest.mark.parametrize(
    "text",
    ["", "nonsense", str(PAYER), base64.b64encode(bytes(PAYER)).decode(), base64.b64encode(bytes(TX) + b"\0").decode()],
)
def test_only_a_signed_transaction_is_sent(text: str):
    """A keypair in the wrong argument does not leave this machine."""
    with HttpServer() as server:
        failure = refused("serialize_tx", lambda: send_transaction_b64_to(SendTargetRpc(server.url), text))
    assert server.connections == 0
    assert not text or text not in str(failure)


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), "1", True])
def test_a_time_limit_is_a_positive_number(value: Any):
    """Refused by name before anything is sent."""
    with pytest.raises(ConfigurationError) as caught:
        send_transaction(SendTargetRpc(), TX, timeout_s=value)
    assert caught.value.field == "timeout_s"


def test_what_is_not_a_target_is_refused():
    """A URL alone does not say how to send."""
    with pytest.raises(ConfigurationError):
        send_transaction("https://example.com", TX)  # type: ignore[arg-type]


# ── confirming ──


def status(level: str | None = "confirmed", err: object = None, slot: int = 7, **more: object) -> Responder:
    entry = {"slot": slot, "confirmations": 3, "err": err, "confirmationStatus": level, **more}
    return result({"context": {"slot": 9}, "value": [entry]})


unknown = result({"context": {"slot": 9}, "value": [None]})


def until_time_is_over(respond: Responder, clock: JumpingClock, *, questions: int = 3) -> Responder:
    """Answers so many questions, and with the last one the minute of ``confirm`` is over."""
    numbers = itertools.count(1)

    def answer(seen: Seen) -> Answer:
        if next(numbers) == questions:
            clock.jump(60)
        return respond(seen)

    return answer


def confirm(server: HttpServer, **options: Any) -> ConfirmedSignature:
    options = {"timeout_s": GENEROUS_S, "poll_interval_s": 0.01, **options}
    return confirm_signature(SendTargetRpc(server.url), SIGNATURE, **options)


def test_a_landed_transaction_is_confirmed():
    """One question with the history included; the answer tells slot and level."""
    with HttpServer(respond=status()) as server:
        assert confirm(server) == ConfirmedSignature(SIGNATURE, 7, "confirmed")
    (seen,) = server.requests
    assert seen.json["method"] == "getSignatureStatuses"
    assert seen.json["params"] == [[SIGNATURE], {"searchTransactionHistory": True}]


def test_the_wait_goes_on_until_the_network_is_sure_enough():
    """Unknown and processed are not yet confirmed; all questions use one connection."""
    with HttpServer(respond=in_turn(unknown, unknown, status("processed"), status("finalized"))) as server:
        assert confirm(server).confirmation_status == "finalized"
    assert len(server.requests) == 4
    assert server.connections == 1


def test_finalized_waits_for_finalized():
    """commitment="finalized" is not satisfied with confirmed."""
    with HttpServer(respond=in_turn(status("confirmed"), status("finalized"))) as server:
        assert confirm(server, commitment="finalized").confirmation_status == "finalized"
    assert len(server.requests) == 2


def test_an_old_nodes_answer_without_a_level_is_understood():
    """No confirmationStatus: null confirmations mean finalized, a number means not yet."""
    old = [status(None, confirmations=3), status(None, confirmations=None)]
    with HttpServer(respond=in_turn(*old)) as server:
        assert confirm(server).confirmation_status == "finalized"
    assert len(server.requests) == 2


def test_a_url_will_do():
    """No target is needed to ask."""
    with HttpServer(respond=status()) as server:
        assert confirm_signature(server.url, SIGNATURE).slot == 7


def test_a_failed_transaction_is_told_at_once_with_its_error():
    """It landed and did nothing: waiting longer would not help."""
    with HttpServer(respond=status(err={"InstructionError": [2, {"Custom": 6001}]}, slot=11)) as server:
        failure = refused("tx_failed", lambda: confirm(server))
    assert failure.signature == SIGNATURE
    assert failure.detail == 'failed in slot 11: {"InstructionError": [2, {"Custom": 6001}]}'
    assert len(server.requests) == 1


def test_a_timeout_says_that_it_may_still_land(clock: JumpingClock):
    """Not known to have landed is not the same as failed."""
    with HttpServer(respond=until_time_is_over(unknown, clock)) as server:
        failure = refused("confirm_timeout", lambda: confirm(server, timeout_s=60))
    assert "may still land" in failure.detail
    assert "does not know it" in failure.detail
    assert failure.signature == SIGNATURE
    assert len(server.requests) == 3


def test_a_timeout_tells_how_far_it_came(clock: JumpingClock):
    """A transaction that is processed but not confirmed is told so."""
    with HttpServer(respond=until_time_is_over(status("processed"), clock)) as server:
        failure = refused("confirm_timeout", lambda: confirm(server, timeout_s=60))
    assert "it is processed in slot 7" in failure.detail


@pytest.mark.parametrize(
    "hiccup",
    [
        pytest.param(fixed(Answer(raw=b"")), id="broken connection"),
        pytest.param(fixed(Answer(429)), id="429"),
        pytest.param(fixed(Answer(408)), id="408"),
        pytest.param(fixed(Answer(502, b"<html>")), id="502"),
        pytest.param(fixed(Answer(200, b"<html>")), id="garbage"),
        pytest.param(error(-32005, "node is behind"), id="rpc error"),
        pytest.param(result(None), id="null"),
        pytest.param(result({"value": []}), id="empty"),
        pytest.param(result({"value": [5]}), id="number"),
        pytest.param(result({"value": [{}]}), id="no slot"),
    ],
)
def test_a_failed_question_does_not_end_the_wait(hiccup: Responder):
    """Nodes stumble; the next question may be answered."""
    with HttpServer(respond=in_turn(hiccup, hiccup, status())) as server:
        assert confirm(server).slot == 7
    assert len(server.requests) == 3


def test_a_question_that_the_limit_cut_off_hides_no_earlier_answer(clock: JumpingClock):
    """What is told is the newest thing that is known, and neither an interrupted question nor an outdated failure."""
    half = fixed(Answer(pieces=[b"{"], headers={"content-length": "9"}))
    cut_off = until_time_is_over(half, clock, questions=1)
    with HttpServer(respond=in_turn(fixed(Answer(503)), status("processed"), unknown, cut_off)) as server:
        failure = refused("confirm_timeout", lambda: confirm(server, timeout_s=60))
        assert len(server.requests) == 4
    assert "does not know it" in failure.detail
    assert failure.__cause__ is None


def test_a_timeout_after_failures_tells_and_chains_the_last_one(clock: JumpingClock):
    """The reader sees that the node was the problem."""
    with HttpServer(respond=until_time_is_over(fixed(Answer(503, b"maintenance")), clock)) as server:
        failure = refused("confirm_timeout", lambda: confirm(server, timeout_s=60))
    assert "maintenance" in failure.detail
    assert isinstance(failure.__cause__, TxSubmitError)


def test_a_silent_node_does_not_stretch_the_wait():
    """The last question is cut off with the time limit."""
    gate = threading.Event()

    def silent(_: Seen) -> Answer:
        gate.wait(GENEROUS_S)
        return Answer()

    with HttpServer(respond=silent) as server:
        started = time.monotonic()
        refused("confirm_timeout", lambda: confirm(server, timeout_s=0.2))
        took_s = time.monotonic() - started
        gate.set()
    assert 0.15 < took_s < GENEROUS_S / 2


@pytest.mark.parametrize(
    ("hopeless", "kind"),
    [
        (fixed(Answer(401, b"bad key")), "http_status"),
        (fixed(Answer(404)), "http_status"),
        (fixed(Answer(302, headers={"location": "/x"})), "http_status"),
        (error(-32601, "Method not found"), "rpc_error"),
    ],
)
def test_a_question_that_can_never_be_answered_ends_the_wait(hopeless: Responder, kind: str):
    """A wrong URL or key is told at once, not after thirty seconds."""
    with HttpServer(respond=hopeless) as server:
        failure = refused(kind, lambda: confirm(server))
    assert failure.signature == SIGNATURE
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("target_or_url", {"target_or_url": SendTargetHeliusSender()}),
        ("target_or_url", {"target_or_url": SendTargetAstralane("k")}),
        ("target_or_url", {"target_or_url": "http://example.com"}),
        ("target", {"target_or_url": None}),
        ("signature", {"signature": "short"}),
        ("signature", {"signature": "0" * 88}),
        ("signature", {"signature": None}),
        ("timeout_s", {"timeout_s": 0}),
        ("poll_interval_s", {"poll_interval_s": 0}),
        ("commitment", {"commitment": "processed"}),
    ],
)
def test_arguments_that_cannot_work_are_refused_by_name(field: str, change: dict[str, Any]):
    """Senders answer no questions; numbers and names are checked before anything is sent."""
    arguments = {"target_or_url": SendTargetRpc(), "signature": SIGNATURE, **change}
    with pytest.raises(ConfigurationError) as caught:
        confirm_signature(**arguments)
    assert caught.value.field == field


# ── warming ──


def test_warming_a_node_takes_the_handshake_out_of_the_send():
    """It is asked for its health, on the connection that the transaction will take; nothing is sent yet."""
    with HttpServer(respond=in_turn(result("ok"), result(SIGNATURE))) as server:
        target = SendTargetRpc(f"{server.url}/v2/x?api-key=y")
        warm_send_target(target)
        (seen,) = server.requests
        assert (seen.method, seen.path, seen.json["method"]) == ("POST", "/v2/x?api-key=y", "getHealth")
        assert send_transaction(target, TX) == SIGNATURE
    assert server.connections == 1


def test_warming_takes_tls_out_of_the_send(tmp_path: Path):
    """The certificate was checked before there was anything to sell."""
    ca_file = tmp_path / "ca.pem"
    ca_file.write_text(TEST_CERTIFICATE)
    with HttpServer(respond=in_turn(result("ok"), result(SIGNATURE)), tls=True) as server:
        target = SendTargetRpc(server.url, ca_file=str(ca_file))
        warm_send_target(target)
        assert server.connections == 1
        send_transaction(target, TX)
    assert server.connections == 1


def test_warming_helius_sender_is_its_ping():
    """GET /ping on the same host (docs/protocol.md 1), without what stands in the URL."""
    with HttpServer(respond=in_turn(fixed(Answer(200, b"ok")), result(SIGNATURE))) as server:
        target = SendTargetHeliusSender(f"{server.url}/fast?api-key=y")
        warm_send_target(target)
        send_transaction(target, TX)
    assert [(seen.method, seen.path) for seen in server.requests] == [("GET", "/ping"), ("POST", "/fast?api-key=y")]
    assert server.requests[0].body == b""
    assert server.connections == 1


def test_warming_astralane_carries_its_key():
    """It answers nobody else."""
    with HttpServer(respond=in_turn(result("ok"), result(SIGNATURE))) as server:
        target = SendTargetAstralane(CANARY, url=server.url)
        warm_send_target(target)
        send_transaction(target, TX)
    assert [seen.headers["x-api-key"] for seen in server.requests] == [CANARY, CANARY]
    assert server.connections == 1


@pytest.mark.parametrize(
    "answer",
    [
        error(-32005, "Node is behind by 42 slots"),
        error(-32601, "no"),
        fixed(Answer(404)),
        fixed(Answer(200, b"<html>")),
    ],
)
def test_whatever_a_target_answers_the_connection_is_open(answer: Responder):
    """A node that lags, or knows no getHealth, still takes a transaction."""
    with HttpServer(respond=in_turn(answer, result(SIGNATURE))) as server:
        warm_send_target(SendTargetRpc(server.url))
        send_transaction(SendTargetRpc(server.url), TX)
    assert server.connections == 1


def test_a_target_that_cannot_be_reached_is_told_while_there_is_time():
    """Nobody there, a redirect, silence: known before the sale."""
    failure = refused("request_send", lambda: warm_send_target(SendTargetRpc(f"http://127.0.0.1:{closed_port()}")))
    assert failure.target == "rpc"
    with HttpServer(respond=fixed(Answer(302, headers={"location": "/x"}))) as server:
        refused("http_status", lambda: warm_send_target(SendTargetHeliusSender(server.url)))
    with HttpServer(Answer(hold=threading.Event())) as server:
        refused("request_send", lambda: warm_send_target(SendTargetRpc(server.url), timeout_s=0.1))


@pytest.mark.parametrize(
    ("target", "timeout_s", "field"), [("http://127.0.0.1:1", 1, "target"), (SendTargetRpc(), 0, "timeout_s")]
)
def test_warming_takes_a_target_and_a_time(target: Any, timeout_s: float, field: str):
    """A URL is not enough: it does not say whose it is."""
    with pytest.raises(ConfigurationError) as caught:
        warm_send_target(target, timeout_s=timeout_s)
    assert caught.value.field == field


# ── targets ──


def test_targets_are_values():
    """Equal by what was given; they travel to another process, and a changed copy goes elsewhere."""
    targets = [SendTargetRpc("https://a.example/x"), SendTargetHeliusSender(), SendTargetAstralane("k", "ny")]
    for target in targets:
        copy = pickle.loads(pickle.dumps(target))
        assert copy == target
        assert hash(copy) == hash(target)
        assert copy.endpoint == target.endpoint
    assert attrs.evolve(targets[0], url="https://b.example").endpoint.origin == "https://b.example:443"
    assert targets[2].endpoint.origin == "https://ny.gateway.astralane.io:443"
    assert len({*targets, SendTargetAstralane("k", "ny")}) == 3


def test_the_targets_are_the_official_ones():
    """Same names, same defaults, same URLs."""
    assert SendTargetRpc().url == MAINNET_BETA_RPC_URL == "https://solana-rpc.publicnode.com"
    assert SendTargetHeliusSender().url == HELIUS_SENDER_FAST_URL == "https://sender.helius-rpc.com/fast"
    assert ASTRALANE_DEFAULT_REGION == "fr"
    assert astralane_iris_url("ams2") == "https://ams2.gateway.astralane.io/iris"
    assert SendTargetAstralane("k", "ny") == SendTargetAstralane(api_key="k", region="ny")


@pytest.mark.parametrize("region", ["", "FR", "evil.example/", "a b", "x" * 21, None, 5])
def test_a_region_is_a_short_name(region: Any):
    """It becomes a part of the host's name, so nothing else may get in."""
    with pytest.raises(ConfigurationError):
        astralane_iris_url(region)


@pytest.mark.parametrize(
    "make",
    [
        lambda: SendTargetRpc("http://10.0.0.5:8899"),
        lambda: SendTargetRpc("not a url"),
        lambda: SendTargetHeliusSender("ftp://x"),
        lambda: SendTargetAstralane(""),
        lambda: SendTargetAstralane("two words"),
        lambda: SendTargetAstralane("k", "../x"),
        lambda: SendTargetAstralane("k", url="http://10.0.0.5"),
    ],
)
def test_a_target_that_cannot_work_is_refused_when_it_is_made(make: Callable[[], object]):
    """Not at the moment of the sale."""
    with pytest.raises(ConfigurationError):
        make()


def test_a_node_in_the_own_network_needs_a_word():
    """allow_insecure is the user's explicit choice."""
    target = SendTargetRpc("http://10.0.0.5:8899", allow_insecure=True)
    assert repr(target) == "SendTargetRpc(allow_insecure=True, url='http://10.0.0.5:8899')"


# ── secrets ──


def test_targets_show_neither_keys_nor_paths():
    """Providers put keys into the path and the query."""
    targets = [
        SendTargetRpc(f"https://rpc.example/v2/{CANARY}?api-key={CANARY}"),
        SendTargetHeliusSender(f"https://rpc.example/fast?api-key={CANARY}"),
        SendTargetAstralane(CANARY, url=f"https://rpc.example/{CANARY}"),
        SendTargetAstralane(CANARY),
    ]
    assert all(CANARY not in f"{target} {target!r}" for target in targets)
    assert "rpc.example" in repr(targets[0])


def _echo(seen: Seen) -> str:
    return f"{seen.path} {seen.headers.get('x-api-key')} {seen.body.decode()}"


_BAD_ANSWERS: dict[str, Responder] = {
    "status": lambda seen: Answer(400, _echo(seen).encode()),
    "status json": lambda seen: json_answer({"error": {"message": _echo(seen)}}, 500),
    "error": lambda seen: json_answer({"id": seen.json["id"], "error": {"code": 1, "message": _echo(seen)}}),
    "error data": lambda seen: json_answer({"id": seen.json["id"], "error": {"message": "", "data": _echo(seen)}}),
    "odd error": lambda seen: json_answer({"id": seen.json["id"], "error": {"odd": _echo(seen)}}),
    "transaction": lambda seen: Answer(400, seen.body[-len(TX_B64) - 90 :]),
    "transaction in words": lambda seen: json_answer({"id": seen.json["id"], "error": {"message": f"bad {TX_B64}"}}),
    "wrong id": lambda seen: json_answer({"id": _echo(seen), "result": SIGNATURE}),
    "garbage": lambda seen: Answer(200, _echo(seen).encode()),
    "not http": lambda seen: Answer(raw=_echo(seen).encode()),
    "url": lambda seen: Answer(404, f"nothing at {seen.path.split('?')[0]} or {seen.path.split('=')[1]}".encode()),
    "redirect": lambda seen: Answer(302, headers={"location": f"https://{CANARY}.example{seen.path}"}),
    "bad header": lambda seen: Answer(raw=b"HTTP/1.1 200 OK\r\nodd\r\n\r\n"),
    "other signature": lambda seen: json_answer({"id": seen.json["id"], "result": _echo(seen)}),
    "silent": lambda seen: Answer(),  # after the caller has given up
}


@pytest.mark.parametrize("name", _BAD_ANSWERS)
def test_key_url_and_transaction_are_in_no_text_of_any_failure(name: str, caplog: pytest.LogCaptureFixture):
    """Not in the error, its fields or its traceback, and in no log, ours or urllib3's, even if the node repeats it."""
    caplog.set_level(logging.DEBUG)
    gate = threading.Event()

    def respond(seen: Seen) -> Answer:
        if name == "silent":
            gate.wait(GENEROUS_S)
        return _BAD_ANSWERS[name](seen)

    with HttpServer(respond=respond) as server:
        target = SendTargetAstralane(CANARY, url=f"{server.url}/v2/{URL_CANARY}?api-key=query-{URL_CANARY}")
        with pytest.raises(TxSubmitError) as caught:
            send_transaction(target, TX, timeout_s=0.3 if name == "silent" else 60.0)
        gate.set()
    assert URL_CANARY in server.requests[0].path
    assert server.requests[0].headers["x-api-key"] == CANARY
    text = "".join(traceback.format_exception(caught.value)) + repr(vars(caught.value)) + repr(caught.value)
    for secret in (CANARY, URL_CANARY, TX_B64[:40], str(PAYER)):
        assert secret not in text
        assert secret not in caplog.text
    assert "urllib3" in caplog.text


def test_errors_survive_pickling():
    """A worker process can hand them back."""
    failure = sending_fails("rpc_error", error(-32002, "no"))
    copy = pickle.loads(pickle.dumps(failure))
    assert vars(copy) == vars(failure)
