"""The HTTP pool against real servers: reuse, limits, refusals, and what a failure says."""

from __future__ import annotations

import concurrent.futures
import datetime as dt
import email.utils
import inspect
import itertools
import logging
import os
import socket
import ssl
import threading
import time
import traceback
from collections.abc import Iterator
from typing import Any

import pytest
import urllib3
import urllib3.exceptions

from lasersell_sync.exceptions import ConcurrencyError, ConfigurationError
from lasersell_sync.network.http_endpoint import parse_endpoint
from lasersell_sync.network.http_pool import PROBLEMS, HttpAnswer, HttpFailure, HttpPool, describe
from tests.support.http_server import (
    GENEROUS_S,
    Answer,
    HttpServer,
    closed_port,
    json_answer,
    trusting_context,
)
from tests.support.waiting import JumpingClock

CANARY = "canary-key-0123456789"


def pool_to(url: str, **options: Any) -> HttpPool:
    options = {"connect_timeout_s": 2.0, "attempt_timeout_s": 5.0, **options}
    return HttpPool(parse_endpoint("url", url), **options)


def failing(pool: HttpPool, **options: Any) -> HttpFailure:
    with pytest.raises(HttpFailure) as caught:
        pool.request("POST", "/v1/thing", headers={"x-api-key": CANARY}, body=b"{}", **options)
    return caught.value


# ── what arrives ──


def test_request_and_answer_arrive_whole():
    """Method, target, headers and body go out as given; status, headers and body come back."""
    with HttpServer(json_answer({"a": 1}, 201, x_more="yes")) as server:
        pool = pool_to(server.url)
        answer = pool.request("POST", "/p?q=1", headers={"x-api-key": "k"}, body=b"\x00{}")
        pool.close()
    (seen,) = server.requests
    assert (seen.method, seen.path, seen.body) == ("POST", "/p?q=1", b"\x00{}")
    assert seen.headers["x-api-key"] == "k"
    assert seen.headers["user-agent"].startswith("lasersell-sync/")
    assert (answer.status, answer.headers["x-more"], answer.body) == (201, "yes", b'{"a": 1}')


def test_head_and_body_leave_in_one_write(monkeypatch: pytest.MonkeyPatch):
    """One system call and one TLS record for each request, on a new connection and on a kept one."""
    writes: list[bytes] = []
    plain = ssl.SSLSocket.send

    def send(self: ssl.SSLSocket, data: Any, flags: int = 0) -> int:
        if not self.server_side:
            writes.append(bytes(data))
        return plain(self, data, flags)

    monkeypatch.setattr(ssl.SSLSocket, "send", send)
    with HttpServer(respond=lambda seen: Answer(200, seen.body), tls=True) as server:
        pool = pool_to(server.url, ssl_context=trusting_context())
        for body in (b"first", b"second"):
            assert pool.request("POST", "/", body=body).body == body
        pool.close()
    assert [written.rpartition(b"\r\n\r\n")[2] for written in writes] == [b"first", b"second"]


@pytest.mark.parametrize(
    ("method", "body", "length"),
    [("GET", None, None), ("DELETE", None, None), ("POST", None, "0"), ("POST", b"", "0"), ("DELETE", b"abc", "3")],
)
def test_a_body_has_its_length_and_no_body_has_none(method: str, body: bytes | None, length: str | None):
    """A server is told where the request ends, in the way that its method asks for."""
    with HttpServer(json_answer({})) as server:
        pool = pool_to(server.url)
        pool.request(method, "/", body=body)
        pool.close()
    assert server.requests[0].headers.get("content-length") == length
    assert "transfer-encoding" not in server.requests[0].headers


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://rpc.example/v2", "rpc.example"),
        ("https://rpc.example:8443/v2", "rpc.example:8443"),
        ("http://localhost:80", "localhost"),
        ("http://[::1]:8899", "[::1]:8899"),
        ("https://rpc.example.:8443", "rpc.example:8443"),
    ],
)
def test_the_host_is_named_as_servers_know_it(url: str, host: str):
    """Without the scheme's own port, and without the dot that ends a name for the resolver."""
    pool = pool_to(url)
    assert f"\r\nHost: {host}\r\n".encode() in pool.wire("GET", "/", {}, None)
    pool.close()


@pytest.mark.parametrize(
    ("target", "headers"),
    [
        ("/a b", {}),
        ("/a\r\nx-evil: 1", {}),
        ("/ü", {}),
        ("/", {"x-api-key": f"{CANARY}\r\nx-evil: 1"}),
        ("/", {"x-api-key": f"{CANARY}\nx-evil: 1"}),
        ("/", {"x-api-key": f"{CANARY}\0"}),
        ("/", {"x-evil: 1\r\nx": "y"}),
    ],
)
def test_no_second_request_can_hide_in_the_first(target: str, headers: Any):
    """A line end in a target or header is refused before anything is opened, and not repeated."""
    with HttpServer() as server:
        pool = pool_to(server.url)
        with pytest.raises(ValueError, match="cannot stand there") as caught:
            pool.request("GET", target, headers=headers if isinstance(headers, dict) else dict.fromkeys(headers, "y"))
        assert CANARY not in str(caught.value)
        pool.close()
    assert server.connections == 0


def test_connections_are_kept_and_reused():
    """Ten requests, one connection: a trade does not begin with a handshake."""
    with HttpServer(respond=lambda _: json_answer({})) as server:
        pool = pool_to(server.url)
        for _ in range(10):
            pool.request("POST", "/", body=b"{}")
        pool.close()
    assert server.connections == 1
    assert len(server.requests) == 10


@pytest.mark.parametrize("status", [400, 404, 429, 500])
def test_a_refusal_keeps_its_connection_too(status: int):
    """An error answer is an answer: the next attempt uses the same connection."""
    with HttpServer(respond=lambda _: json_answer({"error": "x"}, status)) as server:
        pool = pool_to(server.url)
        assert [pool.request("GET", "/").status for _ in range(3)] == [status] * 3
        pool.close()
    assert server.connections == 1


def test_an_empty_answer_keeps_its_connection():
    """204 and a zero-length body do not cost a connection."""
    with HttpServer(Answer(204), Answer(200), Answer(200)) as server:
        pool = pool_to(server.url)
        assert [pool.request("GET", "/").body for _ in range(3)] == [b""] * 3
        pool.close()
    assert server.connections == 1


def test_a_chunked_answer_is_read_whole_and_keeps_its_connection():
    """Both framings of HTTP/1.1 work."""
    body = b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"
    chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + body
    with HttpServer(Answer(raw=chunked)) as server:
        pool = pool_to(server.url)
        assert pool.request("GET", "/").body == b"hello world"
        pool.close()


def test_threads_share_the_pool():
    """Sixteen threads at once, each gets its own answer."""
    with HttpServer(respond=lambda seen: Answer(200, seen.body)) as server:
        pool = pool_to(server.url)
        results: dict[int, list[bytes]] = {}

        def work(number: int) -> None:
            results[number] = [pool.request("POST", "/", body=b"%d-%d" % (number, i)).body for i in range(20)]

        threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(GENEROUS_S)
        pool.close()
    assert results == {number: [b"%d-%d" % (number, i) for i in range(20)] for number in range(16)}


def test_a_connection_that_the_server_closed_while_idle_is_replaced():
    """Idle connections die; the next request opens a new one without an error."""
    with HttpServer(respond=lambda _: json_answer({})) as server:
        pool = pool_to(server.url)
        pool.request("GET", "/")
        server.drop_connections()
        assert pool.request("GET", "/").status == 200
        pool.close()
    assert server.connections == 2


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_connection_that_the_server_ends_with_its_answer_is_replaced(version: str):
    """Whether it says so or its HTTP is too old to stay: the answer is read whole, and the next request connects."""
    head = f"HTTP/{version} 200 OK\r\ncontent-length: 4\r\n" + ("connection: close\r\n" if version == "1.1" else "")
    with HttpServer(Answer(raw=f"{head}\r\nlast".encode()), json_answer({})) as server:
        pool = pool_to(server.url)
        assert pool.request("GET", "/").body == b"last"
        assert pool.request("GET", "/").body == b"{}"
        pool.close()
    assert server.connections == 2


def test_warm_opens_the_connection_that_the_next_request_uses():
    """After warm() the first real request makes no connection; warming sends no key."""
    with HttpServer(Answer(404), json_answer({})) as server:
        pool = pool_to(server.url)
        pool.warm("/healthz")
        assert server.connections == 1
        pool.request("POST", "/v1/sell", headers={"x-api-key": CANARY}, body=b"{}")
        pool.close()
    assert server.connections == 1
    assert server.requests[0].method == "GET"
    assert "x-api-key" not in server.requests[0].headers


def test_nothing_is_opened_before_the_first_request():
    """Making a pool touches no network."""
    with HttpServer() as server:
        pool_to(server.url).close()
    assert server.connections == 0


def test_environment_proxies_are_ignored(monkeypatch: pytest.MonkeyPatch):
    """A proxy variable on a developer's machine does not get the API key."""
    with HttpServer() as proxy, HttpServer(json_answer({})) as server:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        pool = pool_to(server.url)
        assert pool.request("GET", "/").status == 200
        pool.close()
    assert proxy.connections == 0


# ── TLS ──


def test_tls_works_with_a_trusted_certificate():
    """https:// is checked against the context's authorities, over one kept connection."""
    with HttpServer(respond=lambda _: json_answer({}), tls=True) as server:
        pool = pool_to(server.url, ssl_context=trusting_context())
        assert [pool.request("GET", "/").status for _ in range(3)] == [200] * 3
        pool.close()
    assert server.connections == 1


def test_an_untrusted_certificate_is_refused_before_the_request_is_sent():
    """The API key does not travel to a server that cannot prove its name."""
    with HttpServer(tls=True) as server:
        pool = pool_to(server.url)
        failure = failing(pool)
        pool.close()
    assert (failure.stage, failure.sent) == ("send", False)
    assert "self-signed certificate" in failure.problem
    assert server.requests == []


# ── redirects ──


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_never_followed(status: int):
    """The key stays with the host it was meant for; the error names the other host and nothing more of the URL."""
    with HttpServer() as other:
        location = f"{other.url}/steal?echo={CANARY}"
        with HttpServer(Answer(status, headers={"location": location}), json_answer({})) as server:
            pool = pool_to(server.url)
            failure = failing(pool)
            assert (failure.stage, failure.sent, failure.status) == ("redirect", True, status)
            assert "the host 127.0.0.1" in failure.problem
            assert "steal" not in failure.problem
            assert CANARY not in failure.problem
            assert pool.request("GET", "/").status == 200  # the pool is usable afterwards
            pool.close()
    assert other.connections == 0


@pytest.mark.parametrize("location", [None, "/elsewhere", "http://[", "//evil.example/x"])
def test_a_strange_location_is_still_only_an_error(location: str | None):
    """No Location can make the client fail otherwise."""
    headers = {} if location is None else {"location": location}
    with HttpServer(Answer(302, headers=headers)) as server:
        pool = pool_to(server.url)
        assert failing(pool).stage == "redirect"
        pool.close()


# ── limits ──


def test_a_silent_server_ends_with_the_attempts_limit():
    """No answer: the caller is free again when the attempt's time is over, and knows that it was sent."""
    with HttpServer(Answer(hold=threading.Event())) as server:
        pool = pool_to(server.url, attempt_timeout_s=0.2)
        started = time.monotonic()
        failure = failing(pool)
        took_s = time.monotonic() - started
        pool.close()
    assert (failure.stage, failure.sent) == ("send", True)
    assert "limit is 0.2 s" in failure.problem
    assert 0.15 < took_s < GENEROUS_S


@pytest.mark.parametrize(
    ("pieces", "headers"),
    [
        pytest.param(itertools.repeat(b"x"), {"content-length": "100000"}, id="body"),
        pytest.param(itertools.repeat(b"1\r\nx\r\n"), {"transfer-encoding": "chunked"}, id="chunks"),
        pytest.param(itertools.repeat(b"x"), {"connection": "close"}, id="until-close"),
    ],
)
def test_a_trickling_body_ends_with_the_attempts_limit(
    pieces: Iterator[bytes], headers: dict[str, str], monkeypatch: pytest.MonkeyPatch
):
    """A byte now and then does not stretch the attempt: its limit covers the whole body."""
    clock = JumpingClock(monkeypatch)

    def until_the_limit() -> Iterator[bytes]:
        yield from itertools.islice(pieces, 5)
        clock.jump(60)
        yield from itertools.islice(pieces, 500)

    with HttpServer(Answer(pieces=until_the_limit(), headers=headers)) as server:
        pool = pool_to(server.url, attempt_timeout_s=60)
        failure = failing(pool)
        pool.close()
    assert (failure.stage, failure.sent, failure.status) == ("read", True, 200)
    assert "limit is 60 s" in failure.problem


def test_trickling_headers_end_with_the_attempts_limit():
    """The same holds for headers, where a plain socket timeout would start anew with every byte."""
    listener = socket.create_server(("127.0.0.1", 0))
    done = threading.Event()

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(b"HTTP/1.1 200 OK\r\nx-endless: ")
            while not done.wait(0.02):
                try:
                    connection.sendall(b"x")
                except OSError:
                    return

    thread = threading.Thread(target=serve)
    thread.start()
    pool = pool_to(f"http://127.0.0.1:{listener.getsockname()[1]}", attempt_timeout_s=0.3)
    started = time.monotonic()
    failure = failing(pool)
    took_s = time.monotonic() - started
    done.set()
    thread.join(GENEROUS_S)
    listener.close()
    pool.close()
    assert (failure.stage, failure.sent) == ("send", True)
    assert 0.25 < took_s < GENEROUS_S


def test_a_server_that_does_not_read_ends_with_the_limit_of_a_step():
    """A request that does not fit into the buffers of a kept connection waits no longer than for a new one."""
    listener = socket.create_server(("127.0.0.1", 0))
    pool = pool_to(f"http://127.0.0.1:{listener.getsockname()[1]}", connect_timeout_s=0.3, attempt_timeout_s=30)
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        first = threads.submit(pool.request, "GET", "/")
        connection, _ = listener.accept()
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
        assert first.result(GENEROUS_S).status == 204
    started = time.monotonic()
    with pytest.raises(HttpFailure) as caught:
        pool.request("POST", "/", body=bytes(64 * 1024 * 1024))
    took_s = time.monotonic() - started
    connection.close()
    listener.close()
    pool.close()
    assert (caught.value.stage, caught.value.sent) == ("send", True)
    assert 0.25 < took_s < GENEROUS_S


def test_silence_after_a_late_start_ends_with_the_attempts_limit(monkeypatch: pytest.MonkeyPatch):
    """The wait for the rest is what is left of the limit, not the limit once more."""
    clock, failed = JumpingClock(monkeypatch), threading.Event()

    def late() -> Iterator[bytes]:
        clock.jump(59.8)
        yield b"x"
        failed.wait(GENEROUS_S)

    with HttpServer(Answer(pieces=late(), headers={"content-length": "9"})) as server:
        pool = pool_to(server.url, attempt_timeout_s=60)
        started = time.monotonic()
        failure = failing(pool)
        took_s = time.monotonic() - started
        failed.set()
        pool.close()
    assert (failure.stage, failure.status) == ("read", 200)
    assert "limit is 60 s" in failure.problem
    assert took_s < GENEROUS_S


def test_a_requests_own_limit_replaces_the_pools():
    """A patient pool can serve an impatient caller."""
    with HttpServer(Answer(hold=threading.Event())) as server:
        pool = pool_to(server.url, attempt_timeout_s=60)
        assert "limit is 0.1 s" in failing(pool, attempt_timeout_s=0.1).problem
        pool.close()


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_a_huge_body_is_refused(framing: str):
    """No answer can fill the memory, however it is framed; the connection is not reused."""
    big = b"x" * 200_000
    answer = {
        "length": Answer(200, big),
        "chunked": Answer(
            headers={"transfer-encoding": "chunked"}, pieces=[b"%x\r\n" % len(big) + big + b"\r\n", b"0\r\n\r\n"]
        ),
        "close": Answer(headers={"connection": "close"}, pieces=[big]),
    }[framing]
    with HttpServer(answer, json_answer({})) as server:
        pool = pool_to(server.url, max_body_bytes=1000)
        failure = failing(pool)
        assert (failure.stage, failure.sent, failure.status) == ("oversize", True, 200)
        assert "1000 bytes" in failure.problem
        assert pool.request("GET", "/").body == b"{}"
        pool.close()
    assert server.connections == 2


def test_a_body_of_exactly_the_limit_is_read():
    """The bound is inclusive."""
    with HttpServer(Answer(200, b"x" * 1000)) as server:
        pool = pool_to(server.url, max_body_bytes=1000)
        assert len(pool.request("GET", "/").body) == 1000
        pool.close()


# ── failures ──


def test_nobody_listening_means_not_sent():
    """A refused connection: nothing left this machine."""
    pool = pool_to(f"http://127.0.0.1:{closed_port()}")
    failure = failing(pool)
    pool.close()
    assert (failure.stage, failure.sent) == ("send", False)
    assert failure.problem.endswith("no connection: Connection refused")


def test_an_unknown_host_means_not_sent():
    """A name that does not resolve: nothing left this machine, and the words say why."""
    pool = HttpPool(
        parse_endpoint("url", "https://does-not-exist.invalid"), connect_timeout_s=2.0, attempt_timeout_s=5.0
    )
    failure = failing(pool)
    pool.close()
    assert (failure.stage, failure.sent) == ("send", False)
    assert "could not be resolved" in failure.problem


@pytest.mark.parametrize(
    ("raw", "stage"),
    [
        (b"", "send"),
        (b"\x00\xff garbage\r\n\r\n", "send"),
        (b"HTTP/1.1 banana\r\n\r\n", "send"),
        (b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 200 + b"\r\n", "send"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 70_000 + b"\r\n\r\n", "send"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nshort", "read"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", "read"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhe", "read"),
    ],
)
def test_a_broken_answer_is_a_failure_that_was_sent(raw: bytes, stage: str):
    """Whatever comes back in place of HTTP, the caller gets one kind of error and knows that the request went out."""
    with HttpServer(Answer(raw=raw), json_answer({})) as server:
        pool = pool_to(server.url)
        failure = failing(pool)
        assert (failure.stage, failure.sent) == (stage, True)
        assert failure.problem.startswith(server.url)
        assert pool.request("GET", "/").status == 200
        pool.close()


def test_a_closed_pool_says_so():
    """Using a closed client is a programming error, not a network error to be retried."""
    with HttpServer(respond=lambda _: json_answer({})) as server:
        pool = pool_to(server.url)
        pool.request("GET", "/")
        pool.close()
        pool.close()
        with pytest.raises(ConcurrencyError):
            pool.request("GET", "/")
    assert len(server.requests) == 1


def test_a_closed_pool_stays_closed_in_a_forked_child(monkeypatch: pytest.MonkeyPatch):
    """A new process is no way around close()."""
    pool = pool_to("http://127.0.0.1:9")
    pool.close()
    monkeypatch.setattr(os, "getpid", lambda: -1)
    with pytest.raises(ConcurrencyError):
        pool.request("GET", "/")


def test_closing_during_a_request_lets_it_finish():
    """close() from another thread does not lose an answer that is on its way."""
    gate = threading.Event()
    with HttpServer(Answer(200, b"late", hold=gate)) as server:
        pool = pool_to(server.url)
        got: list[HttpAnswer] = []
        thread = threading.Thread(target=lambda: got.append(pool.request("GET", "/")))
        thread.start()
        server.wait_for_requests(1)
        pool.close()
        gate.set()
        thread.join(GENEROUS_S)
    assert [answer.body for answer in got] == [b"late"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_opens_connections_of_its_own():
    """Parent and child never write into one connection."""
    with HttpServer(respond=lambda seen: Answer(200, seen.path.encode())) as server:
        pool = pool_to(server.url)
        pool.request("GET", "/parent")
        child = os.fork()
        if child == 0:
            status = 1
            try:
                status = 0 if pool.request("GET", "/child").body == b"/child" else 2
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        assert pool.request("GET", "/parent").body == b"/parent"
        pool.close()
    assert server.connections == 2


# ── translation ──


def all_http_errors() -> list[type[BaseException]]:
    members = inspect.getmembers(urllib3.exceptions, inspect.isclass)
    base = urllib3.exceptions.HTTPError
    return sorted(
        {cls for _, cls in members if issubclass(cls, base) and cls is not base}, key=lambda cls: cls.__name__
    )


@pytest.mark.parametrize("cls", all_http_errors(), ids=lambda cls: cls.__name__)
def test_every_error_of_urllib3_has_words(cls: type[BaseException]):
    """A new error class in urllib3 is noticed here before a user sees its raw text."""
    assert any(base in PROBLEMS for base in cls.__mro__ if issubclass(base, urllib3.exceptions.HTTPError))


@pytest.mark.parametrize("cls", all_http_errors(), ids=lambda cls: cls.__name__)
def test_no_error_of_urllib3_leaks_or_passes_untranslated(cls: type[BaseException], monkeypatch: pytest.MonkeyPatch):
    """Whatever urllib3 raises, the caller gets HttpFailure in our words."""
    error = cls.__new__(cls)
    error.args = (f"quotes {CANARY}",)
    pool = pool_to("http://127.0.0.1:9")
    monkeypatch.setattr(pool, "_open", lambda *_: (_ for _ in ()).throw(error))
    failure = failing(pool)
    assert CANARY not in "".join(traceback.format_exception(failure))
    pool.close()


def test_the_systems_own_error_is_the_cause():
    """A log shows the ConnectionRefusedError or the certificate error below ours."""
    pool = pool_to(f"http://127.0.0.1:{closed_port()}")
    assert isinstance(failing(pool).__cause__, ConnectionRefusedError)
    pool.close()
    with HttpServer(tls=True) as server:
        pool = pool_to(server.url)
        assert isinstance(failing(pool).__cause__, ssl.SSLCertVerificationError)
        pool.close()


def test_an_unknown_error_is_named_by_its_class():
    """The fall-back words say at least what it was."""
    assert describe(urllib3.exceptions.HTTPError(CANARY)) == "failed (HTTPError)"


# ── secrets ──


@pytest.mark.parametrize("raw", [None, b"HTTP/1.1 200 OK\r\nbroken header line\r\n\r\n", b"junk\r\n\r\n"])
def test_no_log_and_no_traceback_shows_key_path_or_query(raw: bytes | None, caplog: pytest.LogCaptureFixture):
    """RPC providers put keys into the path and the query: urllib3 logs URLs, so it never learns them."""
    caplog.set_level(logging.DEBUG)
    answer = json_answer({}) if raw is None else Answer(raw=raw)
    text = ""
    with HttpServer(answer) as server:
        pool = pool_to(server.url, attempt_timeout_s=1.0)
        try:
            pool.request("POST", f"/v2/{CANARY}?api-key={CANARY}", headers={"x-api-key": CANARY}, body=b"{}")
        except HttpFailure as failure:
            text = "".join(traceback.format_exception(failure))
        pool.close()
    assert CANARY in server.requests[0].path
    assert caplog.records, "urllib3 and we do log at DEBUG"
    assert CANARY not in caplog.text
    assert CANARY not in text


# ── headers of an answer ──


def answer_with(retry_after: str) -> HttpAnswer:
    return HttpAnswer(429, {"retry-after": retry_after}, b"")


def test_retry_after_is_read_as_seconds_or_as_a_date():
    """Both forms of RFC 9110 10.2.3."""
    assert answer_with("12").retry_after_s == 12.0
    soon = dt.datetime.now(dt.timezone.utc) + dt.timedelta(seconds=30)
    assert 25 < (answer_with(email.utils.format_datetime(soon, usegmt=True)).retry_after_s or 0) <= 30
    assert answer_with("Mon, 01 Jan 2001 00:00:00 GMT").retry_after_s == 0.0
    assert HttpAnswer(429, {}, b"").retry_after_s is None


@pytest.mark.parametrize("value", ["", "soon", "-1", "1.5", "nan", "٣", "Mon, 99 Foo 2001", "9" * 5000])
def test_a_senseless_retry_after_is_none_or_a_number(value: str):
    """No header value can raise."""
    seconds = answer_with(value).retry_after_s
    assert seconds is None or seconds >= 0


def test_the_body_is_not_in_the_repr():
    """An answer may hold a transaction."""
    assert "secret" not in repr(HttpAnswer(200, {}, b"secret"))


# ── URLs ──


@pytest.mark.parametrize(
    ("url", "shown", "target"),
    [
        ("https://api.lasersell.io", "https://api.lasersell.io", "/"),
        ("https://api.lasersell.io:443/x", "https://api.lasersell.io", "/x"),
        ("https://rpc.example:8443/v2/key?api-key=1", "https://rpc.example:8443", "/v2/key?api-key=1"),
        ("http://localhost:8899/", "http://localhost:8899", "/"),
        ("http://127.8.9.1", "http://127.8.9.1", "/"),
        ("http://[::1]:80/a", "http://[::1]", "/a"),
    ],
)
def test_urls_are_taken_apart(url: str, shown: str, target: str):
    """Scheme, host and port may be shown; path and query are sent and not shown."""
    endpoint = parse_endpoint("url", url)
    assert (endpoint.shown, endpoint.target) == (shown, target)
    assert target not in repr(endpoint) or target == "/"


@pytest.mark.parametrize(
    "url",
    [
        "http://api.lasersell.io",
        "http://localhost.evil.example",
        "http://127.0.0.1.evil.example",
        "http://10.0.0.1:8899",
        "http://0.0.0.0",
        "ftp://localhost",
        "localhost:8899",
        "https://",
        "https:///path",
        "https://user:word@host/",
        "https://host:0/",
        "https://host:99999/",
        "https://host/#part",
        "https://ho st/",
        "https://host/\r\nx-evil: 1",
        "",
        None,
        b"https://host",
    ],
)
def test_urls_that_cannot_work_are_refused_by_name(url: object):
    """A key never travels in clear or to a host that nobody meant."""
    with pytest.raises(ConfigurationError) as caught:
        parse_endpoint("base_url", url)
    assert caught.value.field == "base_url"


def test_plain_http_to_another_machine_needs_a_word():
    """allow_insecure is the user's explicit choice."""
    assert parse_endpoint("url", "http://10.0.0.1:8899", allow_insecure=True).shown == "http://10.0.0.1:8899"


def test_the_secret_pieces_of_a_url_are_known():
    """What may be a key is scrubbed from foreign texts; short words are left readable."""
    endpoint = parse_endpoint("url", "https://rpc.example/v2/path-key-123456?api-key=query-key-123456&x=1")
    assert "path-key-123456" in endpoint.secrets
    assert "query-key-123456" in endpoint.secrets
    assert "v2" not in endpoint.secrets
    assert list(endpoint.secrets) == sorted(endpoint.secrets, key=len, reverse=True)
