"""What servers and the boxes before them put on an HTTP connection beside the answer: none of it reaches a caller."""

from __future__ import annotations

import contextlib
import gzip
import json
import re
import socket
import threading
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from lasersell_sync import (
    BuildSellTxRequest,
    ConfigurationError,
    ExitApiClient,
    ExitApiClientOptions,
    ExitApiError,
    RetryPolicy,
    SendTargetRpc,
    TxSubmitError,
)
from lasersell_sync.network.http_endpoint import parse_endpoint
from lasersell_sync.network.http_pool import HttpFailure, HttpPool
from lasersell_sync.runtime.timeouts import TimeBudget
from lasersell_sync.trading.solana.json_rpc import RpcClient, close_rpc_connections
from tests.support.stream_server import MINT, WALLET, RawServer

#: (request head, its body) to what is written back; a list is written piece by piece.
Answering = Callable[[bytes, bytes], bytes]


class Wire:
    """A raw HTTP server: what ``answering`` returns is all that is written."""

    def __init__(self, answering: Answering) -> None:
        self._answering = answering
        self._server = RawServer(self._serve)
        self.heads: list[bytes] = []

    def _serve(self, sock: socket.socket) -> None:
        received = b""
        while True:
            while b"\r\n\r\n" not in received:
                chunk = sock.recv(65536)
                if not chunk:
                    return
                received += chunk
            head, _, received = received.partition(b"\r\n\r\n")
            length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
            while len(received) < int(length[1] if length else 0):
                received += sock.recv(65536)
            body, received = received[: int(length[1] if length else 0)], received[int(length[1] if length else 0) :]
            self.heads.append(head)
            sock.sendall(self._answering(head, body))

    @property
    def connections(self) -> int:
        return self._server.accepted

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.port}"

    def __enter__(self) -> Wire:
        self._server.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.__exit__(*error)


def answer(body: bytes, status: str = "200 OK", **headers: str) -> bytes:
    fields = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{fields}\r\n".encode() + body


def chunked(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


@contextlib.contextmanager
def pool_to(wire: Wire) -> Iterator[HttpPool]:
    pool = HttpPool(parse_endpoint("url", wire.url), connect_timeout_s=2.0, attempt_timeout_s=10.0)
    try:
        yield pool
    finally:
        pool.close()


def echo(before: bytes = b"", after: bytes = b"", make: Callable[[bytes], bytes] = answer) -> Answering:
    """Each answer is its request's body, with something before and behind it."""
    return lambda _, body: before + make(body) + after


EARLY = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n"
PROCESSING = b"HTTP/1.1 102 Processing\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@pytest.mark.parametrize(
    "interim",
    [
        pytest.param(EARLY, id="103"),
        pytest.param(PROCESSING, id="102"),
        pytest.param(CONTINUE + PROCESSING + EARLY + EARLY, id="several"),
        pytest.param(b"HTTP/1.1 199 Later\r\nContent-Length: 5\r\n\r\n", id="an unknown one"),
        pytest.param(PROCESSING * 40, id="many"),
    ],
)
def test_interim_answers_before_the_answer_are_read_past(interim: bytes) -> None:
    """Whoever took a 103 for the answer left the real one to the next caller, and so on for ever."""
    with Wire(echo(before=interim)) as wire, pool_to(wire) as pool:
        for text in (b"first", b"second", b"third"):
            got = pool.request("POST", "/", body=text)
            assert (got.status, got.body) == (200, text)
        assert wire.connections == 1


def test_interim_answers_and_many_threads_each_caller_gets_its_own_answer() -> None:
    """Eight threads over the kept connections, an interim answer before every second answer."""
    count = iter(range(10_000))
    lock = threading.Lock()

    def answering(_: bytes, body: bytes) -> bytes:
        with lock:
            number = next(count)
        return (EARLY if number % 2 else b"") + answer(body)

    with Wire(answering) as wire, pool_to(wire) as pool, ThreadPoolExecutor(8) as threads:
        texts = [f"request {number}".encode() for number in range(200)]
        assert [got.body for got in threads.map(lambda text: pool.request("POST", "/", body=text), texts)] == texts


@pytest.mark.parametrize(
    "before",
    [pytest.param(PROCESSING * 2000, id="without end"), pytest.param(b"HTTP/1.1 101 Switching\r\n\r\n", id="101")],
)
def test_interim_answers_without_end_and_101_are_no_answer(before: bytes) -> None:
    """A failure that says so, at once, and the connection is not used again."""
    with Wire(echo(before=before)) as wire, pool_to(wire) as pool:
        for _ in range(2):
            with pytest.raises(HttpFailure, match="not HTTP"):
                pool.request("POST", "/", body=b"x")
        assert wire.connections == 2


@pytest.mark.parametrize(
    "answering",
    [
        pytest.param(echo(after=b"garbage"), id="garbage behind the length"),
        pytest.param(echo(after=answer(b"another's")), id="a second answer"),
        pytest.param(echo(after=b"\r\n"), id="a line end"),
        pytest.param(echo(make=chunked, after=b"garbage"), id="garbage behind the last chunk"),
        pytest.param(echo(make=chunked, after=answer(b"another's")), id="a second answer behind the last chunk"),
        pytest.param(
            echo(make=lambda body: chunked(body).replace(b"\r\n", b"\r\nContent-Length: 3\r\n", 1)), id="two lengths"
        ),
    ],
)
def test_connection_with_anything_behind_the_answer_is_not_used_again(answering: Answering) -> None:
    """The answer itself is good; the next request must not begin with what was left over."""
    with Wire(answering) as wire, pool_to(wire) as pool:
        for number in range(5):
            assert pool.request("POST", "/", body=b"%d" % number).body == b"%d" % number
        assert wire.connections == 5


def test_connection_with_a_body_behind_204_is_not_used_again() -> None:
    """204 has no body, whatever its headers say; the bytes may come later than the head."""
    with Wire(lambda *_: answer(b"", "204 No Content").replace(b": 0", b": 5")) as wire, pool_to(wire) as pool:
        for _ in range(3):
            assert (got := pool.request("DELETE", "/")).status == 204
            assert got.body == b""
        assert wire.connections == 3


def test_connection_without_anything_left_over_is_kept() -> None:
    """The other side of the rule: plain and chunked answers, and errors, keep their connection."""
    answers = iter([answer(b"a"), chunked(b"b"), answer(b"c", "500 Oops"), answer(b"", "204 No Content"), answer(b"e")])
    with Wire(lambda *_: next(answers)) as wire, pool_to(wire) as pool:
        assert [pool.request("POST", "/", body=b"x").body for _ in range(5)] == [b"a", b"b", b"c", b"", b"e"]
        assert wire.connections == 1


# ── encodings ──


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


def packed(data: bytes) -> bytes:
    """As gzip, the same at every run: parameters of tests must not change."""
    return gzip.compress(data, mtime=0)


TEXT = json.dumps({"status": "ok", "words": "žluťoučký " * 50}).encode()


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("gzip", packed(TEXT)),
        ("GZIP", packed(TEXT)),
        ("x-gzip", packed(TEXT)),
        ("identity, gzip", packed(TEXT)),
        ("gzip, gzip", packed(packed(TEXT))),
        ("gzip", packed(TEXT[:20]) + packed(TEXT[20:])),
        ("deflate", zlib.compress(TEXT)),
        ("deflate", raw_deflate(TEXT)),
        ("identity", TEXT),
    ],
    ids=["gzip", "upper case", "x-gzip", "with identity", "twice", "two members", "zlib", "raw deflate", "identity"],
)
@pytest.mark.parametrize("make", [answer, chunked])
def test_compressed_body_in_spite_of_identity_is_read(name: str, body: bytes, make: Callable[[bytes], bytes]) -> None:
    """We ask for identity; a CDN that compresses anyway is understood."""
    encoded = make(body).replace(b"\r\n", f"\r\nContent-Encoding: {name}\r\n".encode(), 1)
    with Wire(lambda *_: encoded) as wire, pool_to(wire) as pool:
        assert [pool.request("POST", "/", body=b"x").body for _ in range(2)] == [TEXT, TEXT]
        assert wire.connections == 1


@pytest.mark.parametrize(
    ("name", "body", "problem"),
    [
        ("gzip", b"this is not gzip", "damaged"),
        ("gzip", packed(TEXT)[:-9], "ended early"),
        ("gzip", packed(bytes(40_000_000)), "more than 8388608 bytes"),
        ("br", b"\x0b\x02\x80", "not gzip or deflate"),
        ("gzip, gzip, gzip", b"", "too many layers"),
    ],
    ids=["damaged", "cut", "a bomb", "brotli", "three layers"],
)
def test_body_that_cannot_be_decoded_is_an_error_in_our_words(name: str, body: bytes, problem: str) -> None:
    """Damaged, cut, too big once it is unpacked, or of another kind."""
    with Wire(lambda *_: answer(body, content_encoding=name)) as wire, pool_to(wire) as pool:
        with pytest.raises(HttpFailure, match=problem) as caught:
            pool.request("POST", "/", body=b"x")
        assert caught.value.stage == "read"


def api_to(wire: Wire, key: str = "key") -> ExitApiClient:
    options = ExitApiClientOptions(attempt_timeout_s=10.0, retry_policy=RetryPolicy(max_attempts=1))
    return ExitApiClient(key, options).with_base_url(wire.url)


def test_api_answer_with_bom_and_gzip_is_read() -> None:
    """REST as a whole: a byte order mark before the JSON, compressed."""
    body = packed(b"\xef\xbb\xbf" + json.dumps({"status": "ok", "tx": "AAAA"}).encode())
    with Wire(lambda *_: answer(body, content_encoding="gzip")) as wire, api_to(wire) as api:
        request = BuildSellTxRequest(MINT, WALLET, 10, slippage_bps=100, output="SOL")
        assert api.build_sell_tx(request).tx == "AAAA"


def test_api_errors_words_with_bom_are_read() -> None:
    """The server's own words, not the mark."""
    body = b"\xef\xbb\xbf" + json.dumps({"error": "no such wallet"}).encode()
    with Wire(lambda *_: answer(body, "404 Not Found")) as wire, api_to(wire) as api:
        with pytest.raises(ExitApiError) as caught:
            api.account()
        assert caught.value.detail == "no such wallet"


def test_api_success_that_is_no_json_object_ends_its_connection() -> None:
    """A page of somebody else's came: what follows it on that connection may be anybody's."""
    answers = iter([answer(b"<html>"), answer(b'{"status":"ok","tier":0,"limits":{}}')])
    with Wire(lambda *_: next(answers)) as wire, api_to(wire) as api:
        with pytest.raises(ExitApiError, match="not a JSON object"):
            api.account()
        with contextlib.suppress(ExitApiError):
            api.account()
        assert wire.connections == 2


# ── JSON-RPC ids ──


@pytest.fixture(autouse=True)
def fresh_rpc_connections() -> Iterator[None]:
    close_rpc_connections()
    yield
    close_rpc_connections()


def rpc_to(wire: Wire) -> RpcClient:
    return RpcClient(parse_endpoint("url", wire.url), "rpc")


def call(client: RpcClient) -> Any:
    return client.call("getHealth", [], budget=TimeBudget(10.0))


def with_id(change: Callable[[int], object]) -> Answering:
    def answering(_: bytes, body: bytes) -> bytes:
        request = json.loads(body)
        return answer(json.dumps({"jsonrpc": "2.0", "result": request["method"], "id": change(request["id"])}).encode())

    return answering


@pytest.mark.parametrize("change", [str, lambda number: number, float], ids=["text", "number", "with a point"])
def test_rpc_answer_with_our_id_in_another_form_is_ours(change: Callable[[int], object]) -> None:
    """Some nodes, and most proxies before them, make a text of the id."""
    with Wire(with_id(change)) as wire:
        client = rpc_to(wire)
        assert [call(client) for _ in range(3)] == ["getHealth"] * 3
        assert wire.connections == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda number: number + 1,
        lambda number: number - 1,
        lambda number: f"0{number}",
        lambda _: None,
        lambda _: True,
        lambda number: [number],
        lambda number: {"id": number},
    ],
)
def test_rpc_answer_with_another_id_ends_its_connection(change: Callable[[int], object]) -> None:
    """It belongs to another request: so may everything that follows on this connection."""
    with Wire(with_id(change)) as wire:
        client = rpc_to(wire)
        for _ in range(3):
            with pytest.raises(TxSubmitError, match="another request") as caught:
                call(client)
            assert caught.value.kind == "decode_response"
        assert wire.connections == 3


def test_rpc_answer_with_id_true_is_not_the_answer_to_request_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """To Python ``True == 1``; the first request of a process has the id 1."""
    import itertools

    monkeypatch.setattr("lasersell_sync.trading.solana.json_rpc._ids", itertools.count(1))
    with Wire(with_id(lambda _: True)) as wire, pytest.raises(TxSubmitError, match="another request"):
        call(rpc_to(wire))


def test_rpc_answers_that_trail_by_one_reach_nobody() -> None:
    """A node, or a box before it, whose answers lag one behind: every caller is told, none gets another's answer."""
    last = [answer(json.dumps({"jsonrpc": "2.0", "result": "stale", "id": 0}).encode())]

    def answering(_: bytes, body: bytes) -> bytes:
        request = json.loads(body)
        last.append(answer(json.dumps({"jsonrpc": "2.0", "result": "fresh", "id": request["id"]}).encode()))
        return last[-2]

    with Wire(answering) as wire:
        client = rpc_to(wire)
        for _ in range(5):
            with pytest.raises(TxSubmitError, match="another request"):
                call(client)


def test_rpc_answer_with_bom_and_gzip_is_read() -> None:
    """The same for nodes."""

    def answering(_: bytes, body: bytes) -> bytes:
        text = b"\xef\xbb\xbf" + json.dumps({"result": "ok", "id": json.loads(body)["id"]}).encode()
        return answer(packed(text), content_encoding="gzip")

    with Wire(answering) as wire:
        assert call(rpc_to(wire)) == "ok"


# ── cookies ──


def test_cookies_of_a_server_are_never_sent_back() -> None:
    """Neither with the same key nor with another one: a cookie would tie the keys together."""
    body = b'{"status":"ok","tx":"AAAA"}'
    with Wire(lambda *_: answer(body, set_cookie="session=canary; Path=/; Max-Age=9999")) as wire:
        for key in ("first", "second"):
            with api_to(wire, key) as api:
                for _ in range(2):
                    api.build_sell_tx(BuildSellTxRequest(MINT, WALLET, 10, slippage_bps=100, output="SOL"))
        assert len(wire.heads) == 4
        assert not any(b"cookie" in head.lower() for head in wire.heads)


# ── names ──

LONG = "a" * 64


@pytest.mark.parametrize("host", [f"{LONG}.example", "a..example", ".example", "example..", f"{'abc.' * 64}example"])
def test_host_that_no_resolver_takes_is_refused_before_anything_is_opened(host: str) -> None:
    """Python's resolver raises UnicodeError for these, which no caller expects."""
    from lasersell_sync import StreamClient, StreamOptions

    makers: dict[str, Callable[[], object]] = {
        "endpoint": lambda: StreamClient("key").with_endpoint(f"wss://{host}/v1/ws"),
        "url": lambda: SendTargetRpc(f"https://{host}/key-of-mine"),
        "base_url": lambda: ExitApiClient("key").with_base_url(f"https://{host}"),
        "proxy": lambda: StreamOptions(proxy=f"http://user:secret@{host}:3128"),
    }
    for field, make in makers.items():
        with pytest.raises(ConfigurationError, match="host") as caught:
            make()
        assert caught.value.field == field
        assert "key-of-mine" not in str(caught.value)
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize("host", ["a" * 63 + ".example", "example.", "[::1]", "127.0.0.1", "xn--bcher-kva.example"])
def test_host_at_the_limit_is_accepted(host: str) -> None:
    """63 characters, a dot at the end, addresses, IDNA."""
    parse_endpoint("url", f"https://{host}/")


def test_socket_of_a_missing_address_family_goes_on_to_the_next_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without IPv6 whose resolver names IPv6 addresses first."""
    real_socket, real_look_up = socket.socket, socket.getaddrinfo

    def make(family: int = socket.AF_INET, *args: Any, **options: Any) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(97, "Address family not supported by protocol")
        return real_socket(family, *args, **options)

    def look_up(host: str, port: Any, *args: Any, **options: Any) -> Any:
        v6 = (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", port, 0, 0))
        return [v6, *real_look_up(host, port, *args, **options)]

    with Wire(echo()) as wire, pool_to(wire) as pool:
        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        monkeypatch.setattr(socket, "socket", make)
        assert pool.request("POST", "/", body=b"through IPv4").body == b"through IPv4"
        monkeypatch.undo()


# ── a target that asks to wait ──


def test_rpc_target_that_answers_429_with_retry_after_is_left_alone_for_that_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Per client, that is per node and target; what is not asked says for how long."""
    now = [1000.0]
    monkeypatch.setattr("lasersell_sync.trading.solana.json_rpc.time.monotonic", lambda: now[0])
    answers: list[bytes] = [answer(b"slow down", "429 Too Many", retry_after="2.5")]

    def answering(_: bytes, body: bytes) -> bytes:
        good = answer(json.dumps({"result": "ok", "id": json.loads(body)["id"]}).encode())
        return answers.pop() if answers else good

    with Wire(answering) as wire:
        limited, other = rpc_to(wire), rpc_to(wire)
        with pytest.raises(TxSubmitError) as caught:
            call(limited)
        assert (caught.value.status, caught.value.retry_after_s) == (429, 2.5)
        now[0] += 2.4
        with pytest.raises(TxSubmitError, match="not asked") as held:
            call(limited)
        assert held.value.status == 429
        assert held.value.retry_after_s == pytest.approx(0.1)
        assert len(wire.heads) == 1
        assert call(other) == "ok"  # another client of the same node has its own limit
        now[0] += 0.2
        assert call(limited) == "ok"


@pytest.mark.parametrize(
    ("offset_s", "words"),
    [(-3600, "clock is 3600 s ahead of the server's"), (3600, "3600 s behind the server's"), (0, "agrees with")],
)
def test_expired_proof_names_the_clocks_offset(offset_s: int, words: str) -> None:
    """The proof holds this machine's time, and the server's clock decides."""
    import time
    from email.utils import formatdate

    from solders.keypair import Keypair

    from lasersell_sync import prove_ownership

    body = b'{"error":"proof expired"}'

    def answering(*_: bytes) -> bytes:
        return answer(body, "400 Bad Request", date=formatdate(time.time() + offset_s, usegmt=True))

    with Wire(answering) as wire, api_to(wire) as api:
        with pytest.raises(ExitApiError) as caught:
            api.register_wallet(prove_ownership(Keypair()))
        text = re.sub(r"(35|36)\d\d s", "3600 s", caught.value.detail)
        assert words in text
        assert caught.value.clock_offset_s == pytest.approx(-offset_s, abs=60)


def test_expired_proof_without_a_date_says_whose_clock_decides() -> None:
    """And with another error nothing is said of clocks."""
    from solders.keypair import Keypair

    from lasersell_sync import prove_ownership

    for body, expected in ((b'{"error":"proof expired"}', True), (b'{"error":"bad pubkey"}', False)):
        with Wire(lambda *_, body=body: answer(body, "400 Bad Request")) as wire, api_to(wire) as api:
            with pytest.raises(ExitApiError) as caught:
                api.register_wallet(prove_ownership(Keypair()))
            assert ("clock" in caught.value.detail) is expected
