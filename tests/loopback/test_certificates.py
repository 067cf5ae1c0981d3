"""Certificates and pins against real TLS servers: each refusal has its cause, and comes before the API key leaves."""

from __future__ import annotations

import ssl
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from lasersell_sync import (
    ExitApiClient,
    ExitApiClientOptions,
    ExitApiError,
    HelloOk,
    RetryPolicy,
    StrategyConfig,
    StreamClient,
    StreamConfigure,
    StreamOptions,
    TransportError,
)
from tests.support.certificates import DAY, NOW, Authority
from tests.support.http_server import TEST_CERTIFICATE, HttpServer, json_answer
from tests.support.links import API_KEY, whole_text
from tests.support.stream_server import WALLET, RawServer, ScriptedServer
from tests.support.waiting import PATIENCE_S

CONFIGURE = StreamConfigure([WALLET], StrategyConfig(target_profit_pct=5.0, stop_loss_pct=0.0))
FOREIGN_PIN = "sha256/" + "A" * 43 + "="


def connect(url: str, **options: Any) -> None:
    client = StreamClient(API_KEY, options=StreamOptions(**options)).with_endpoint(url)
    with client.connect(CONFIGURE) as connection:
        assert isinstance(connection.recv(PATIENCE_S), HelloOk)


def refusal(server_context: ssl.SSLContext, **options: Any) -> TransportError:
    """The error; the server got no request, so no key."""
    asked: list[object] = []
    with ScriptedServer(ssl_context=server_context, refuse=asked.append) as server:
        with pytest.raises(TransportError) as caught:
            connect(server.url, **options)
        assert asked == []
    assert caught.value.stage == "tls"
    assert "the key was not sent" in str(caught.value)
    assert "canary" not in whole_text(caught.value)
    return caught.value


# ── certificates ──


def test_an_authority_of_ones_own(tmp_path: Path) -> None:
    """ca_file is all that a private server needs."""
    authority = Authority(tmp_path)
    with ScriptedServer(ssl_context=authority.server()) as server:
        connect(server.url, ca_file=str(authority.pem))


@pytest.mark.parametrize(
    ("made", "words"),
    [
        ({"ends": NOW - DAY / 2}, "expired"),
        ({"begins": NOW + DAY / 2}, "not yet valid"),
        ({"names": ("127.0.0.2", "other.test")}, "another host"),
        ({"names": ("localhost",)}, "another host"),
    ],
)
def test_a_bad_certificate_is_named(tmp_path: Path, made: Any, words: str) -> None:
    """Expired, early, or somebody else's, although the authority is trusted."""
    authority = Authority(tmp_path)
    assert words in refusal(authority.server(**made), ca_file=str(authority.pem)).problem


def test_an_unknown_authority_is_named(tmp_path: Path) -> None:
    """By the system's authorities, and by another one of the user's: ca_file does not add to a trust, it is the trust."""
    authority, other = Authority(tmp_path), Authority(tmp_path, "other")
    assert "issuer is unknown" in refusal(authority.server()).problem
    assert "issuer is unknown" in refusal(authority.server(), ca_file=str(other.pem)).problem
    # Sent along with its root, as many servers do.
    assert "self-signed" in refusal(authority.server(sent_along=(authority.certificate,))).problem


def test_an_old_tls_version_is_named(tmp_path: Path) -> None:
    """A server that has nothing newer than what was broken long ago."""
    authority = Authority(tmp_path)
    client = ssl.create_default_context(cafile=str(authority.pem))
    client.minimum_version = ssl.TLSVersion.TLSv1_3
    server = authority.server()
    server.maximum_version = ssl.TLSVersion.TLSv1_2
    assert "no TLS version" in refusal(server, ssl_context=client).problem


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-OpenSSH_9.6\r\n", b"\0" * 64])
def test_a_plain_server_behind_wss_is_named(answer: bytes) -> None:
    """Something answers, but not TLS."""

    def script(sock: Any) -> None:
        sock.recv(4096)
        sock.sendall(answer)
        sock.recv(4096)

    with RawServer(script) as server:
        with pytest.raises(TransportError) as caught:
            connect(server.url.replace("ws://", "wss://"))
        assert caught.value.stage == "tls"
        assert "not TLS" in caught.value.problem


def test_a_server_that_hangs_up_during_the_handshake_is_named() -> None:
    """An end is an end, whether OpenSSL calls it EOF or the system a reset."""
    with RawServer(lambda sock: sock.recv(1) and sock.close()) as server:
        with pytest.raises(TransportError, match="ended the connection during the handshake") as caught:
            connect(server.url.replace("ws://", "wss://"))
        assert caught.value.stage == "tls"


def test_a_dripping_handshake_is_given_up_in_time() -> None:
    """One budget, however often a byte arrives."""
    ended = threading.Event()

    def script(sock: Any) -> None:
        sock.sendall(b"\x16\x03\x03\x40\x00")
        while not ended.wait(0.02):
            sock.sendall(b"\x02")

    with RawServer(script) as server:
        began = time.monotonic()
        with pytest.raises(TransportError) as caught:
            connect(server.url.replace("ws://", "wss://"), connect_timeout_s=0.4)
        assert time.monotonic() - began < PATIENCE_S
        assert caught.value.stage == "tls"
        ended.set()


def test_rest_speaks_of_tls_in_the_same_words(tmp_path: Path) -> None:
    """And trusts a ca_file in the same way."""
    (tmp_path / "ca.pem").write_text(TEST_CERTIFICATE)
    once = RetryPolicy(max_attempts=1)
    with HttpServer(respond=lambda _: json_answer({}), tls=True) as server:
        with ExitApiClient(API_KEY, ExitApiClientOptions(ca_file=str(tmp_path / "ca.pem"))) as client:
            client.with_base_url(server.url).warm()
        with (
            ExitApiClient(API_KEY, ExitApiClientOptions(retry_policy=once)) as client,
            pytest.raises(ExitApiError, match="self-signed certificate, which nobody trusted vouches for"),
        ):
            client.with_base_url(server.url).warm()


# ── pins ──


def test_a_pin_may_name_any_certificate_of_the_chain(tmp_path: Path) -> None:
    """The server's own key or its authority's, alone or beside others."""
    authority = Authority(tmp_path)
    with ScriptedServer(ssl_context=authority.server()) as server:
        for pins in ([authority.leaf_pin], [authority.pin], (FOREIGN_PIN, authority.pin)):
            connect(server.url, ca_file=str(authority.pem), pins=pins)


def test_a_pin_mismatch_tells_what_was_seen(tmp_path: Path) -> None:
    """Before the key is sent; the seen pins are what a user compares with the announcement of a new certificate."""
    authority = Authority(tmp_path)
    error = refusal(authority.server(), ca_file=str(authority.pem), pins=[FOREIGN_PIN])
    assert authority.leaf_pin in error.problem
    assert authority.pin in error.problem


def test_a_certificate_that_is_merely_sent_along_satisfies_no_pin(tmp_path: Path) -> None:
    """Anyone can send a copy of the pinned certificate; only the verified chain counts."""
    authority, pinned = Authority(tmp_path), Authority(tmp_path, "pinned")
    context = authority.server(sent_along=(pinned.certificate,))
    error = refusal(context, ca_file=str(authority.pem), pins=[pinned.pin])
    assert "pinned key" in error.problem
    assert pinned.pin not in error.problem


def test_a_pin_does_not_replace_verification(tmp_path: Path) -> None:
    """The right key in an expired certificate, or from an unknown authority, is refused as without pins."""
    authority = Authority(tmp_path)
    expired = authority.server(ends=NOW - DAY / 2)
    error = refusal(expired, ca_file=str(authority.pem), pins=[authority.leaf_pin, authority.pin])
    assert "expired" in error.problem
    unknown = authority.server()
    assert "issuer is unknown" in refusal(unknown, pins=[authority.leaf_pin, authority.pin]).problem
