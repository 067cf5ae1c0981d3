"""TLS: verification is on, each refusal has its cause, and nothing of the key leaves before it."""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
import threading
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from lasersell_sync import (
    ConfigurationError,
    HelloOk,
    PnlUpdate,
    StrategyConfig,
    StreamClient,
    StreamConfigure,
    StreamConnection,
    StreamOptions,
    TransportError,
)
from tests.support.stream_server import WALLET, Peer, RawServer, ScriptedServer, pnl
from tests.support.waiting import PATIENCE_S

CONFIGURE = StreamConfigure([WALLET], StrategyConfig(target_profit_pct=5.0, stop_loss_pct=0.0))
NOW = dt.datetime.now(dt.timezone.utc)
DAY = dt.timedelta(days=1)


def certificate(folder: Path, *, address: str = "127.0.0.1", ends: dt.datetime = NOW + DAY) -> ssl.SSLContext:
    """A server context with a fresh self-signed certificate for ``address``; its PEM is ``folder/cert.pem``."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "lasersell test")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - 2 * DAY)
        .not_valid_after(ends)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context


def trusting(folder: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(folder / "cert.pem"))


def connect(url: str, **options: Any) -> StreamConnection:
    return StreamClient("canary-key", options=StreamOptions(**options)).with_endpoint(url).connect(CONFIGURE)


def test_a_session_over_tls(tmp_path: Path) -> None:
    """Thousands of messages in one record or many, commands from this side at the same time, and a clean close."""
    total = 5000

    def script(peer: Peer) -> None:
        peer.greet()
        for n in range(total):
            peer.send(pnl(7, n))
        peer.serve()

    with (
        ScriptedServer(script, ssl_context=certificate(tmp_path)) as server,
        connect(server.url, ssl_context=trusting(tmp_path), low_lane="lossless", low_capacity=100_000) as connection,
    ):
        peer = server.peer()
        assert isinstance(connection.recv(PATIENCE_S), HelloOk)
        sender = connection.sender()
        pinger = threading.Thread(target=lambda: [sender.ping(n) for n in range(500)])
        pinger.start()
        for n in range(total):
            message = connection.recv(PATIENCE_S)
            assert isinstance(message, PnlUpdate)
            assert message.profit_units == n
        pinger.join(PATIENCE_S)
        sender.ping(999)
        while peer.received[-1] != {"type": "ping", "client_time_ms": 999}:
            threading.Event().wait(0.001)
        assert len(peer.received) == 502


@pytest.mark.parametrize(
    ("make", "trust", "words"),
    [
        ({}, False, "self.signed"),
        ({"ends": NOW - DAY}, True, "expired"),
        ({"address": "127.0.0.2"}, True, "mismatch|not valid for"),
    ],
)
def test_a_bad_certificate_is_refused_with_its_cause(tmp_path: Path, make: Any, trust: bool, words: str) -> None:
    """Unknown issuer, expired, wrong host: each named, before the key is sent."""
    asked = []
    with ScriptedServer(ssl_context=certificate(tmp_path, **make), refuse=asked.append) as server:
        with pytest.raises(TransportError, match=words) as caught:
            connect(server.url, ssl_context=trusting(tmp_path) if trust else None)
        assert caught.value.stage == "tls"
        assert "the key was not sent" in str(caught.value)
    assert asked == []


def test_a_plain_server_behind_wss_is_a_tls_error() -> None:
    """Something answers, but not TLS."""

    def script(sock: Any) -> None:
        sock.recv(4096)
        sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with RawServer(script) as server:
        with pytest.raises(TransportError) as caught:
            connect(server.url.replace("ws://", "wss://"))
        assert caught.value.stage == "tls"


def test_a_silent_tls_server_is_given_up_in_time() -> None:
    """A handshake that never ends does not hold ``connect`` beyond its limit."""
    done = threading.Event()
    with RawServer(lambda sock: done.wait(PATIENCE_S) or None) as server:
        with pytest.raises(TransportError, match="time") as caught:
            connect(server.url.replace("ws://", "wss://"), connect_timeout_s=0.3)
        assert caught.value.stage == "tls"
        done.set()


def test_verification_cannot_be_switched_off() -> None:
    """A context that trusts anyone is refused: whoever sits on the road would get the key."""
    context = ssl.create_default_context()
    context.check_hostname = False
    with pytest.raises(ConfigurationError, match="ssl_context"):
        StreamOptions(ssl_context=context)
    context.verify_mode = ssl.CERT_NONE
    with pytest.raises(ConfigurationError, match="ssl_context"):
        StreamOptions(ssl_context=context)
