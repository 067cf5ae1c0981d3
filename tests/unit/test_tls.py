"""Whom TLS trusts, which pins are understood, and what failures are called; without a network."""

from __future__ import annotations

import importlib.util
import ssl
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import certifi
import pytest

from lasersell_sync import ConfigurationError, ExitApiClientOptions, SendTargetRpc, StreamOptions
from lasersell_sync.network import tls
from tests.support.certificates import Authority

PIN = "sha256/" + "A" * 43 + "="


def without_authorities(monkeypatch: pytest.MonkeyPatch, folder: str | None = None) -> None:
    """As on a Python that was built without a place for them."""
    monkeypatch.setattr(ssl, "create_default_context", lambda: ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: SimpleNamespace(cafile=None, capath=folder))


def test_a_system_without_authorities_gets_certifis(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Otherwise every certificate would be refused on such a machine."""
    (tmp_path / "README").touch()
    for folder in (None, str(tmp_path), str(tmp_path / "absent")):
        without_authorities(monkeypatch, folder)
        assert tls.client_context().cert_store_stats()["x509_ca"] > 50


def test_a_folder_of_authorities_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """OpenSSL reads it when needed, so nothing is loaded yet: that is no reason to trust others than the system does."""
    (tmp_path / "0a1b2c3d.0").touch()
    without_authorities(monkeypatch, str(tmp_path))
    assert tls.client_context().cert_store_stats()["x509_ca"] == 0


def test_without_certifi_nothing_breaks(monkeypatch: pytest.MonkeyPatch):
    """The refusal comes with the certificate, and says what to install."""
    without_authorities(monkeypatch)
    monkeypatch.setitem(sys.modules, "certifi", None)
    context = tls.client_context()
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED


def test_a_ca_file_replaces_the_systems_authorities(tmp_path: Path):
    """A private authority is trusted alone."""
    authority = Authority(tmp_path)
    context = tls.client_context(str(authority.pem))
    assert [dict(entry[0] for entry in found["subject"]) for found in context.get_ca_certs()] == [
        {"commonName": "authority"}
    ]
    assert len(tls.client_context(certifi.where()).get_ca_certs()) > 50


@pytest.mark.parametrize("make", [StreamOptions, ExitApiClientOptions, SendTargetRpc])
def test_a_ca_file_that_cannot_work_is_told_at_once(tmp_path: Path, make: Any):
    """Absent, not PEM, not a path: before anything is opened."""
    (tmp_path / "text.pem").write_text("hello")
    for path, words in ((tmp_path / "absent.pem", "No such file"), (tmp_path / "text.pem", "PEM"), (7, "path")):
        with pytest.raises(ConfigurationError, match=words) as caught:
            make(ca_file=path if path == 7 else str(path))
        assert caught.value.field == "ca_file"


@pytest.mark.parametrize("make", [StreamOptions, ExitApiClientOptions])
def test_a_context_brings_its_own_authorities_and_verifies(make: Any):
    """Two sources of trust would leave open which one counts; a context that trusts anyone is refused."""
    with pytest.raises(ConfigurationError, match="either"):
        make(ca_file=certifi.where(), ssl_context=ssl.create_default_context())
    context = ssl.create_default_context()
    context.check_hostname = False
    for bad in (context, "context"):
        with pytest.raises(ConfigurationError, match="ssl_context"):
            make(ssl_context=bad)


@pytest.mark.parametrize(
    "pins",
    [
        "",
        PIN,
        7,
        None,
        [""],
        [7],
        ["A" * 44],
        ["sha1/" + "A" * 27 + "="],
        [PIN[:-1]],
        [PIN, PIN[:-5] + "===="],
        [PIN + "\n"],
    ],
)
def test_a_pin_that_cannot_match_is_refused(pins: Any):
    """A misspelt pin would lock the user out at the worst time."""
    with pytest.raises(ConfigurationError, match=r"^pins"):
        StreamOptions(pins=pins)


def test_pins_need_their_extra_only_when_there_are_some(monkeypatch: pytest.MonkeyPatch):
    """The command is named; who pins nothing needs nothing."""
    assert StreamOptions(pins=[PIN]).pins == (PIN,)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ImportError, match=r"pip install 'lasersell-sync\[pins\]'"):
        StreamOptions(pins=(PIN,))
    assert StreamOptions().pins == ()


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (9, "not yet valid"),
        (10, "expired"),
        (18, "self-signed"),
        (20, "issuer is unknown"),
        (62, "another host"),
        (64, "another host"),
        (79, "refused: because"),
    ],
)
def test_each_refused_certificate_has_its_words(code: int, words: str):
    """By OpenSSL's code, not by its text, which changes with its version."""
    error = ssl.SSLCertVerificationError(1, "[SSL] certificate verify failed")
    error.verify_code, error.verify_message = code, "because"
    assert words in tls.describe(error)


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("WRONG_VERSION_NUMBER", "not TLS"),
        ("PACKET_LENGTH_TOO_LONG", "not TLS"),
        ("TLSV1_ALERT_PROTOCOL_VERSION", "no TLS version"),
        ("SOMETHING_NEW", "something new"),
        (None, "TLS failed|tls failed"),
    ],
)
def test_each_failed_handshake_has_its_words(reason: str | None, words: str):
    """By OpenSSL's reason."""
    error = ssl.SSLError(1, "text")
    error.reason = reason  # type: ignore[assignment]
    assert any(word in tls.describe(error) for word in words.split("|"))
