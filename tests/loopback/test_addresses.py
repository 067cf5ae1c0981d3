"""Names with several addresses, and what the kernel is told about dead peers."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from lasersell_sync.network.http_endpoint import Route, parse_endpoint
from lasersell_sync.network.http_pool import HttpAnswer, HttpFailure, HttpPool
from lasersell_sync.network.proxy import to_proxy
from lasersell_sync.network.tcp import SOCKET_OPTIONS
from lasersell_sync.stream.transport import Link
from tests.support.http_server import HttpServer, json_answer
from tests.support.links import Dialer, failure_of, open_and_close
from tests.support.proxies import ConnectProxy
from tests.support.stream_server import ScriptedServer

Address = tuple[Any, ...]
Dig = Callable[..., int]


BLACK_HOLE = "127.0.0.3"


@pytest.fixture
def dig_black_hole() -> Iterator[Dig]:
    """Makes a port of ``BLACK_HOLE`` answer nothing: its listener's queue is full, so the kernel drops what comes."""
    with ExitStack() as stack:

        def dig(port: int = 0) -> int:
            listener = stack.enter_context(socket.socket())
            listener.bind((BLACK_HOLE, port))
            listener.listen(0)
            for _ in range(4):
                filler = stack.enter_context(socket.socket())
                filler.setblocking(False)
                filler.connect_ex(listener.getsockname())
            return int(listener.getsockname()[1])

        yield dig


def name_stands_for(monkeypatch: pytest.MonkeyPatch, name: str, *addresses: str) -> None:
    """The resolver knows a name; as a real one, it answers with the port that it is asked for."""
    real = socket.getaddrinfo

    def look_up(host: str, port: Any, *args: Any, **kwargs: Any) -> list[Address]:
        if host != name:
            return real(host, port, *args, **kwargs)
        if kwargs.get("flags"):
            raise socket.gaierror(socket.EAI_NONAME, "not numeric")
        return [found for address in addresses for found in real(address, port, *args, **kwargs)]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


@pytest.mark.parametrize("dead", ["127.0.0.2", "::1"])
def test_a_refusing_first_address_costs_nothing(monkeypatch: pytest.MonkeyPatch, dead: str) -> None:
    """IPv6 that is announced and does not work is the usual case; the next address is tried at once."""
    with ScriptedServer() as server:
        name_stands_for(monkeypatch, "stream.test", dead, "127.0.0.1")
        began = time.monotonic()
        open_and_close(f"ws://stream.test:{server.port}/v1/ws", timeout_s=30.0)
        assert time.monotonic() - began < 10.0  # its share of the budget would be 15


def test_a_silent_first_address_costs_its_share(monkeypatch: pytest.MonkeyPatch, dig_black_hole: Dig) -> None:
    """A black hole takes half of the budget, not all of it."""
    with ScriptedServer() as server:
        dig_black_hole(server.port)
        name_stands_for(monkeypatch, "stream.test", BLACK_HOLE, "127.0.0.1")
        began = time.monotonic()
        open_and_close(f"ws://stream.test:{server.port}/v1/ws", timeout_s=2.0)
        assert time.monotonic() - began > 0.9


def test_only_silent_addresses_end_with_the_budget(monkeypatch: pytest.MonkeyPatch, dig_black_hole: Dig) -> None:
    """Many dead addresses share one budget."""
    name_stands_for(monkeypatch, "stream.test", *[BLACK_HOLE] * 60)
    port = dig_black_hole()
    began = time.monotonic()
    error = failure_of(f"ws://stream.test:{port}/v1/ws", timeout_s=0.5)
    assert 0.4 < time.monotonic() - began < 15  # one budget for each would be 30
    assert error.stage == "tcp"


def rest_to(url: str, **limits: float) -> HttpAnswer:
    pool = HttpPool(parse_endpoint("url", url, allow_insecure=True), **{"connect_timeout_s": 5.0, **limits})
    try:
        return pool.request("GET", "/")
    finally:
        pool.close()


@pytest.mark.parametrize("dead", ["refusing", "silent"])
def test_rest_tries_the_next_address_too(monkeypatch: pytest.MonkeyPatch, dig_black_hole: Dig, dead: str) -> None:
    """A silent one costs its share of the attempt, a refusing one nothing."""
    with HttpServer(json_answer({})) as server:
        if dead == "silent":
            dig_black_hole(server.port)
        name_stands_for(monkeypatch, "api.test", BLACK_HOLE if dead == "silent" else "127.0.0.2", "127.0.0.1")
        assert rest_to(f"http://api.test:{server.port}", attempt_timeout_s=1.0).status == 200


def test_rests_dead_addresses_share_one_budget(monkeypatch: pytest.MonkeyPatch, dig_black_hole: Dig) -> None:
    """attempt_timeout_s is the limit, not one time-out for each."""
    name_stands_for(monkeypatch, "api.test", *[BLACK_HOLE] * 60)
    port = dig_black_hole()
    began = time.monotonic()
    with pytest.raises(HttpFailure, match="no connection in time") as caught:
        rest_to(f"http://api.test:{port}", attempt_timeout_s=0.5)
    assert time.monotonic() - began < 15  # one budget for each would be 30
    assert not caught.value.sent


def test_a_proxy_may_have_a_dead_address_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same fallback on the way to the proxy."""
    with ConnectProxy() as proxy, ScriptedServer() as server:
        name_stands_for(monkeypatch, "proxy.test", "127.0.0.2", "127.0.0.1")
        open_and_close(server.url, proxy=f"http://proxy.test:{proxy.port}")


def options_of(sock: socket.socket) -> list[tuple[int, int, int]]:
    return [
        (level, name, int(sock.getsockopt(level, name) != 0 if value == 1 else sock.getsockopt(level, name)))
        for level, name, value in SOCKET_OPTIONS
    ]


@pytest.mark.parametrize("proxied", [False, True])
def test_the_kernel_gives_a_dead_peer_up_in_15_seconds(proxied: bool) -> None:
    """No delay for small commands; keepalive and the limit on unacknowledged data are set, through a proxy as well."""
    with ConnectProxy() as proxy, ScriptedServer() as server, Dialer() as dialer:
        link: Link = dialer.open(server.url, proxy=proxy.url() if proxied else None)
        assert options_of(link._sock) == SOCKET_OPTIONS
        link.close()


@pytest.mark.parametrize("proxied", [False, True])
def test_rest_connections_are_tuned_alike(proxied: bool) -> None:
    """An idle connection that a router forgot is noticed before the next request needs it."""

    with ConnectProxy() as proxy, HttpServer(json_answer({})) as server:
        route = Route(to_proxy(proxy.url())) if proxied else Route()
        pool = HttpPool(parse_endpoint("url", server.url), connect_timeout_s=2.0, attempt_timeout_s=5.0, route=route)
        pool.request("GET", "/")
        connection: Any = pool._pool._get_conn()
        assert options_of(connection.sock) == SOCKET_OPTIONS
        connection.close()
        pool.close()


def test_the_options_bound_a_dead_peer() -> None:
    """What this platform offers is used, and adds up to about 15 s."""
    values = {name: value for _, name, value in SOCKET_OPTIONS}
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        assert values[socket.TCP_USER_TIMEOUT] == 15_000
    if hasattr(socket, "TCP_KEEPIDLE"):
        total = values[socket.TCP_KEEPIDLE] + values[socket.TCP_KEEPINTVL] * values[socket.TCP_KEEPCNT]
        assert total <= 15
