"""Stream, REST and RPC through real proxies: that they work, what each fault is called, and that none of them hangs."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lasersell_sync import (
    ConfigurationError,
    ExitApiClient,
    ExitApiClientOptions,
    ExitApiError,
    HelloOk,
    PositionOpened,
    RetryPolicy,
    SendTargetRpc,
    StrategyConfig,
    StreamClient,
    StreamConfigure,
    StreamOptions,
    TransportError,
    TxSubmitError,
    close_rpc_connections,
    confirm_signature,
)
from lasersell_sync.stream.transport import Aborted
from tests.support.certificates import Authority
from tests.support.http_server import HttpServer, Seen, closed_port, json_answer
from tests.support.links import API_KEY, Dialer, failure_of, open_and_close, whole_text
from tests.support.proxies import (
    PASSWORD,
    PASSWORD_IN_URL,
    USER,
    ConnectProxy,
    LoopbackProxy,
    SocksProxy,
    foreign_proxy,
)
from tests.support.stream_server import WALLET, Peer, ScriptedServer, opened
from tests.support.waiting import PATIENCE_S

CONFIGURE = StreamConfigure([WALLET], StrategyConfig(target_profit_pct=5.0, stop_loss_pct=0.0))
SIGNATURE = "5" * 88
KINDS = pytest.mark.parametrize("kind", [ConnectProxy, SocksProxy])
Kind = Callable[..., LoopbackProxy]


@pytest.fixture(autouse=True)
def _no_word_of_the_password(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """The canary in no log of any test here, at the chattiest level, and no pooled connection into the next test."""
    caplog.set_level(logging.DEBUG)
    yield
    close_rpc_connections()
    for record in caplog.get_records("call"):
        if not record.name.startswith("websockets."):  # the server in these tests, which is told the key
            shown = f"{record.getMessage()} {record.args} {record.exc_info}"
            assert "canary" not in shown
            assert USER not in shown


def harmless(error: BaseException, proxy_port: int) -> None:
    """It names the proxy, and shows neither user, password nor key."""
    text = whole_text(error)
    assert f"127.0.0.1:{proxy_port}" in str(error)
    for secret in ("canary", USER):
        assert secret not in text


# ── the stream works ──


@KINDS
@pytest.mark.parametrize("password", [None, PASSWORD])
def test_a_session_through_a_proxy(kind: Kind, password: str | None) -> None:
    """Messages both ways, and a repaired link goes through the proxy again."""

    def script(peer: Peer) -> None:
        peer.greet()
        peer.send(opened(peer.number))
        peer.serve()

    with kind(password=password) as proxy, ScriptedServer(script) as server:
        options = StreamOptions(proxy=proxy.url())
        with StreamClient(API_KEY, options=options).with_endpoint(server.url).connect(CONFIGURE) as connection:
            for number in (1, 2):
                peer = server.peer()
                assert peer.headers["x-api-key"] == API_KEY
                assert isinstance(connection.recv(PATIENCE_S), HelloOk)
                message = connection.recv(PATIENCE_S)
                assert isinstance(message, PositionOpened)
                assert message.position_id == number
                connection.sender().ping(number)
                while {"type": "ping", "client_time_ms": number} not in peer.received:
                    threading.Event().wait(0.001)
                peer.abort()
        assert proxy.targets[:2] == [("127.0.0.1", server.port)] * 2


@KINDS
def test_tls_goes_through_the_proxy_to_the_named_server(kind: Kind, tmp_path: Path) -> None:
    """The proxy gets the name, which this machine cannot resolve; the certificate is the server's, and checked."""
    authority = Authority(tmp_path)
    with kind(password=PASSWORD) as proxy, ScriptedServer(ssl_context=authority.server()) as server:
        options = StreamOptions(proxy=proxy.url(), ca_file=str(authority.pem), pins=[authority.leaf_pin])
        client = StreamClient(API_KEY, options=options)
        with client.with_endpoint(f"wss://stream.test:{server.port}/v1/ws").connect(CONFIGURE) as connection:
            assert isinstance(connection.recv(PATIENCE_S), HelloOk)
        assert proxy.targets == [("stream.test", server.port)]
        with pytest.raises(TransportError, match="another host") as caught:
            client.with_endpoint(f"wss://other.test:{server.port}/v1/ws").connect(CONFIGURE)
        assert caught.value.stage == "tls"


def test_socks5_looks_names_up_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """socks5 gives the proxy an address, IPv4 for choice; socks5h gives it the name."""
    real = socket.getaddrinfo

    def look_up(host: str, *args: Any, **kwargs: Any) -> Any:
        if host != "stream.test" or kwargs.get("flags"):
            return real(host, *args, **kwargs)
        return real("::1", *args, **kwargs) + real("127.0.0.9", *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    with SocksProxy() as proxy, ScriptedServer() as server:
        for scheme in ("socks5", "socks5h"):
            open_and_close(f"ws://stream.test:{server.port}/", proxy=f"{scheme}://127.0.0.1:{proxy.port}")
        assert [host for host, _ in proxy.targets] == ["127.0.0.9", "stream.test"]


@pytest.mark.parametrize("trusted", [True, False])
def test_the_environment_counts_only_when_trusted(monkeypatch: pytest.MonkeyPatch, trusted: bool) -> None:
    """trust_env=True takes HTTP_PROXY and obeys NO_PROXY; by default a variable changes nothing."""
    with ConnectProxy(password=PASSWORD) as proxy, ScriptedServer() as server:
        monkeypatch.setenv("HTTP_PROXY", proxy.url())
        options = StreamOptions(trust_env=trusted, allow_insecure=True, connect_timeout_s=2.0)
        client = StreamClient(API_KEY, options=options).with_endpoint(f"ws://stream.test:{server.port}/")
        if trusted:
            client.connect(CONFIGURE).close()
            assert proxy.targets == [("stream.test", server.port)]
            monkeypatch.setenv("NO_PROXY", "stream.test")
        with pytest.raises(TransportError) as caught:
            client.connect(CONFIGURE)
        assert caught.value.stage == "dns"
        assert proxy.accepted == int(trusted)


@pytest.mark.parametrize(
    ("kind", "scheme"), [("proxy.py", "http"), ("pproxy", "http"), ("pproxy", "socks5"), ("pproxy", "socks5h")]
)
def test_proxies_that_others_wrote(kind: str, scheme: str, tmp_path: Path) -> None:
    """Our words are understood elsewhere too: the right password opens a session, a wrong one is called so."""
    with ScriptedServer() as server, foreign_proxy(kind, tmp_path) as port:
        # First: pproxy lets an address in for good once it has shown the password.
        error = failure_of(server.url, proxy=f"{scheme}://{USER}:wrong@127.0.0.1:{port}")
        assert error.stage == "proxy"
        harmless(error, port)
        options = StreamOptions(proxy=f"{scheme}://{USER}:{PASSWORD_IN_URL}@127.0.0.1:{port}")
        with StreamClient(API_KEY, options=options).with_endpoint(server.url).connect(CONFIGURE) as connection:
            assert isinstance(connection.recv(PATIENCE_S), HelloOk)
        with HttpServer(respond=landed) as node:
            assert confirm_signature(SendTargetRpc(node.url, proxy=options.proxy), SIGNATURE).slot == 5


# ── the stream's faults ──


@KINDS
def test_a_dead_proxy_is_named(kind: Any) -> None:
    """Nobody listens there: the proxy's fault, not the server's."""
    port = closed_port()
    error = failure_of("wss://stream.test/v1/ws", proxy=f"{kind.scheme}://{USER}:{PASSWORD_IN_URL}@127.0.0.1:{port}")
    assert (error.stage, error.endpoint) == ("proxy", f"127.0.0.1:{port}")
    assert "refused" in error.problem
    harmless(error, port)


@KINDS
@pytest.mark.parametrize("password", ["canary-wrong", "none"])
def test_a_wrong_password_is_called_so(kind: Kind, password: str) -> None:
    """407, or SOCKS's own no, even when the proxy quotes what it got; and nothing reached the target."""
    with kind(password=PASSWORD) as proxy:
        url = proxy.url(password=password) if password != "none" else f"{proxy.scheme}://127.0.0.1:{proxy.port}"
        error = failure_of("wss://stream.test/v1/ws", proxy=url)
        assert error.stage == "proxy"
        assert ("refused the user or password" if password != "none" else "asks for a user") in error.problem
        harmless(error, proxy.port)
        assert proxy.targets == []


@KINDS
def test_an_unreachable_target_is_named_beside_the_proxy(kind: Kind) -> None:
    """The proxy works; what lies behind it does not."""
    with kind(password=PASSWORD) as proxy:
        port = closed_port()
        error = failure_of(f"ws://stream.test:{port}/", proxy=proxy.url())
        assert error.stage == "proxy"
        assert f"stream.test:{port}" in error.problem
        harmless(error, proxy.port)


def silent(sock: socket.socket) -> None:
    """Takes everything, says nothing, until the client has gone."""
    while sock.recv(4096):
        pass


def dripping(sock: socket.socket) -> None:
    """A byte every 20 ms for ever: no single read ever waits long."""
    pause = threading.Event()
    sock.sendall(b"HTTP/1.1 200 OK\r\nx: ")
    while not pause.wait(0.02):
        sock.sendall(b"y")


def flooding(sock: socket.socket) -> None:
    """More than any proxy has to say, as fast as it goes."""
    sock.sendall(b"HTTP/1.1 200 OK\r\nx: ")
    while True:
        sock.sendall(b"y" * 65536)


def vanishing(sock: socket.socket) -> None:
    """Reads the greeting and resets."""
    sock.recv(1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    sock.close()


@pytest.mark.parametrize(
    ("kind", "script", "words"),
    [
        (ConnectProxy, silent, "in time"),
        (SocksProxy, silent, "in time"),
        (ConnectProxy, dripping, "in time"),
        (ConnectProxy, flooding, "longer than"),
        (SocksProxy, flooding, "not SOCKS5"),
        (ConnectProxy, vanishing, "broke the connection off"),
        (SocksProxy, vanishing, "broke the connection off"),
        (ConnectProxy, lambda sock: sock.sendall(b"\x05\xff"), "not HTTP"),
        (SocksProxy, lambda sock: sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "not SOCKS5"),
    ],
)
def test_no_proxy_holds_connect_beyond_its_limit(kind: Kind, script: Any, words: str) -> None:
    """One budget over all of it, whatever the proxy does with its bytes."""
    with kind(password=PASSWORD, script=script) as proxy:
        began = time.monotonic()
        timeout_s = 0.4 if words == "in time" else PATIENCE_S
        error = failure_of("wss://stream.test/v1/ws", proxy=proxy.url(), timeout_s=timeout_s)
        assert time.monotonic() - began < PATIENCE_S
        assert error.stage == "proxy"
        assert words in error.problem
        harmless(error, proxy.port)


@KINDS
def test_closing_while_a_proxy_is_asked_is_quick(kind: Kind) -> None:
    """close() ends the dialogue with a mute proxy at once; nothing is left open."""
    with kind(password=PASSWORD, script=silent) as proxy, Dialer() as dialer:
        ended: list[object] = []

        def dial() -> None:
            try:
                dialer.open("wss://stream.test/v1/ws", proxy=proxy.url(), timeout_s=60.0)
            except Aborted as aborted:
                ended.append(aborted)

        thread = threading.Thread(target=dial)
        thread.start()
        proxy.wait_for_connections(1)
        dialer.stop()
        thread.join(PATIENCE_S)
        assert not thread.is_alive()  # the dialogue has a minute
        assert len(ended) == 1


@KINDS
def test_a_connection_that_reconnects_through_a_mute_proxy_can_be_closed(kind: Kind) -> None:
    """The same, as a user meets it."""
    with kind(password=PASSWORD) as proxy, ScriptedServer() as server:
        options = StreamOptions(proxy=proxy.url(), connect_timeout_s=60.0)
        connection = StreamClient(API_KEY, options=options).with_endpoint(server.url).connect(CONFIGURE)
        proxy.script = silent
        server.peer().abort()
        proxy.wait_for_connections(2)
        began = time.monotonic()
        connection.close()
        assert time.monotonic() - began < PATIENCE_S  # connecting has a minute


# ── REST ──


def rest(proxy: str, **options: Any) -> ExitApiClientOptions:
    limits = {"connect_timeout_s": 2.0, "attempt_timeout_s": 5.0, "retry_policy": RetryPolicy(max_attempts=1)}
    return ExitApiClientOptions(proxy=proxy, **{**limits, **options})


@KINDS
@pytest.mark.parametrize("tls", [False, True])
def test_rest_goes_through_the_proxy(kind: Kind, tls: bool, tmp_path: Path) -> None:
    """One tunnel for many requests; over TLS the proxy sees no key, and the password goes to the proxy alone."""
    from tests.support.http_server import TEST_CERTIFICATE

    (tmp_path / "ca.pem").write_text(TEST_CERTIFICATE)
    with kind(password=PASSWORD) as proxy, HttpServer(respond=lambda _: json_answer({}), tls=tls) as server:
        options = rest(proxy.url(), ca_file=str(tmp_path / "ca.pem"))
        with ExitApiClient(API_KEY, options).with_base_url(server.url) as client:
            for _ in range(3):
                client.warm()
        assert proxy.targets == [("127.0.0.1", server.port)]
        assert len(server.requests) == 3
        assert not [name for seen in server.requests for name in seen.headers if name.startswith("proxy")]


def rest_failure(options: ExitApiClientOptions) -> ExitApiError:
    with ExitApiClient(API_KEY, options).with_base_url("https://api.test") as client:
        with pytest.raises(ExitApiError) as caught:
            client.warm()
        assert caught.value.kind == "transport"
        assert caught.value.is_retryable()
        assert "https://api.test" in str(caught.value)
        return caught.value


@KINDS
def test_rests_faults_are_the_streams(kind: Any) -> None:
    """Dead proxy, wrong password, target unreachable: transport errors that name the proxy."""
    port = closed_port()
    dead = rest_failure(rest(f"{kind.scheme}://{USER}:{PASSWORD_IN_URL}@127.0.0.1:{port}"))
    assert "not reached: connection refused" in dead.detail
    harmless(dead, port)
    with kind(password=PASSWORD) as proxy:
        wrong = rest_failure(rest(proxy.url(password="canary-wrong")))
        assert "refused the user or password" in wrong.detail
        harmless(wrong, proxy.port)
        unreachable = rest_failure(rest(proxy.url()))
        assert "api.test:443" in unreachable.detail
        harmless(unreachable, proxy.port)


@pytest.mark.parametrize(("kind", "script"), [(ConnectProxy, silent), (SocksProxy, silent), (ConnectProxy, dripping)])
def test_no_proxy_holds_rest_beyond_its_limit(kind: Kind, script: Any) -> None:
    """attempt_timeout_s covers the proxy's part, too."""
    with kind(password=PASSWORD, script=script) as proxy:
        began = time.monotonic()
        # warm() has 2 s of patience of its own.
        with (
            ExitApiClient(API_KEY, rest(proxy.url(), attempt_timeout_s=0.4)).with_base_url(
                "https://api.test"
            ) as client,
            pytest.raises(ExitApiError, match="in time") as caught,
        ):
            client._post("/v1/sell", {})
        assert time.monotonic() - began < PATIENCE_S
        harmless(caught.value, proxy.port)


def test_rest_trusts_the_environment_only_when_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same rule as for the stream."""
    with ConnectProxy(password=PASSWORD) as proxy:
        monkeypatch.setenv("https_proxy", proxy.url(password="canary-wrong"))
        trusting = rest_failure(ExitApiClientOptions(trust_env=True))
        assert "refused the user or password" in trusting.detail
        harmless(trusting, proxy.port)
        accepted = proxy.accepted
        rest_failure(ExitApiClientOptions())
        assert proxy.accepted == accepted


def test_connect_with_wallets_registers_through_the_same_proxy() -> None:
    """A machine that reaches nothing but its proxy can do all of it."""
    from solders.keypair import Keypair

    from lasersell_sync import prove_ownership

    proof = prove_ownership(Keypair())
    answer = json_answer({"registered": True, "wallet_pubkey": proof.wallet_pubkey})
    with (
        ConnectProxy(password=PASSWORD) as proxy,
        ScriptedServer() as server,
        HttpServer(respond=lambda _: answer) as api,
    ):
        options = StreamOptions(proxy=proxy.url(), api_url=api.url)
        client = StreamClient(API_KEY, options=options).with_endpoint(server.url)
        with client.connect_with_wallets([proof], CONFIGURE.strategy):
            assert proxy.targets == [("127.0.0.1", api.port), ("127.0.0.1", server.port)]


# ── RPC ──


def landed(seen: Seen) -> Any:
    value = [{"slot": 5, "err": None, "confirmationStatus": "confirmed"}]
    return json_answer({"jsonrpc": "2.0", "id": seen.json["id"], "result": {"context": {"slot": 6}, "value": value}})


@KINDS
def test_rpc_goes_through_the_proxy(kind: Kind) -> None:
    """And targets with different proxies share no connection, though they name one node."""
    with kind(password=PASSWORD) as one, kind() as other, HttpServer(respond=landed) as node:
        for proxy in (one, one, other):
            target = SendTargetRpc(node.url, proxy=proxy.url())
            assert confirm_signature(target, SIGNATURE).slot == 5
        assert confirm_signature(node.url, SIGNATURE).slot == 5
        assert (one.accepted, other.accepted, node.connections) == (1, 1, 3)


@KINDS
def test_rpcs_faults_are_the_streams(kind: Kind) -> None:
    """request_send, which tells that the node got nothing, and the proxy by name."""
    from lasersell_sync.runtime.timeouts import TimeBudget
    from lasersell_sync.trading.solana.json_rpc import client_for

    with kind(password=PASSWORD) as proxy:
        client = client_for(SendTargetRpc("https://node.test", proxy=proxy.url(password="canary-wrong")))
        with pytest.raises(TxSubmitError, match="refused the user or password") as caught:
            client.call("getHealth", [], budget=TimeBudget(5.0))
        assert caught.value.kind == "request_send"
        assert "may have been received" not in str(caught.value)
        harmless(caught.value, proxy.port)


def test_pins_without_tls_are_a_mistake() -> None:
    """There is nothing to compare them with, and nobody should believe that they protect."""
    with pytest.raises(ConfigurationError, match="pins"):
        client = StreamClient(API_KEY, options=StreamOptions(pins=["sha256/" + "A" * 43 + "="]))
        client.with_endpoint("ws://localhost:1/").connect(CONFIGURE)


def test_no_descriptor_is_left_behind() -> None:
    """Fifty failures of every kind leave as many descriptors as there were."""
    from pathlib import Path as FilePath

    with ConnectProxy(password=PASSWORD) as http, SocksProxy(password=PASSWORD) as socks:

        def fail() -> None:
            for proxy in (http, socks):
                for url in (proxy.url(password="wrong"), proxy.url()):
                    with contextlib.suppress(TransportError):
                        open_and_close(f"ws://stream.test:{dead}/", proxy=url)

        dead = closed_port()
        fail()
        before = len(list(FilePath("/proc/self/fd").iterdir())) - len(http._open) - len(socks._open)
        for _ in range(12):
            fail()
        after = len(list(FilePath("/proc/self/fd").iterdir())) - len(http._open) - len(socks._open)
        # The proxies' own sockets close on their own threads, a little later.
        assert after <= before + 4
