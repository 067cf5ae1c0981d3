"""Whom TLS trusts, which keys are pinned, and what a failure is called; for stream, REST and RPC alike.

Verification cannot be switched off anywhere. A pin comes on top of it: it narrows the authorities that could vouch for
the server down to the ones that were named.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
import ssl
from collections.abc import Iterable
from typing import Any, Final

from lasersell_sync.exceptions import ConfigurationError
from lasersell_sync.runtime.optional_deps import require_extra

__all__ = [
    "PinMismatch",
    "check_pins",
    "client_context",
    "describe",
    "require_ca_file",
    "require_pins",
    "require_verifying",
]

_PIN_PREFIX: Final = "sha256/"


# ── whom to trust ────────────────────────────────────────────────────────────────────────────────────────────────


def client_context(ca_file: str | None = None, *, field: str = "ca_file") -> ssl.SSLContext:
    """A context that verifies certificate and host name.

    Args:
        ca_file: PEM file of the only authorities to trust; None for the system's, or certifi's where there are none.
        field: the option's name for the error.

    Raises:
        ConfigurationError: the file cannot be read, or holds no certificate.
    """
    if ca_file is None:
        context = ssl.create_default_context()
        if _trusts_nobody(context):
            _trust_certifi(context)
        return context
    try:
        return ssl.create_default_context(cafile=os.fspath(ca_file))
    except ssl.SSLError:
        raise ConfigurationError(field, "no certificate in it that can be read: a PEM file is expected") from None
    except (OSError, TypeError, ValueError) as error:
        raise ConfigurationError(field, f"cannot be read: {getattr(error, 'strerror', None) or 'not a path'}") from None


def _trusts_nobody(context: ssl.SSLContext) -> bool:
    if context.cert_store_stats()["x509_ca"]:
        return False
    # A folder of authorities is read as they are needed, so the count above is no evidence against one.
    folder = ssl.get_default_verify_paths().capath
    try:
        return folder is None or not any(re.fullmatch(r"[0-9a-f]{8}\.\d+", name) for name in os.listdir(folder))  # noqa: PTH208
    except OSError:
        return True


def _trust_certifi(context: ssl.SSLContext) -> None:
    """Some builds of Python come without authorities; many of their users have certifi through another package."""
    try:
        import certifi
    except ImportError:
        return
    context.load_verify_locations(cafile=certifi.where())


def require_verifying(field: str, context: ssl.SSLContext | None) -> None:
    """Refuse a context that would give the API key to anyone on the road.

    Raises:
        ConfigurationError: certificate or host name is not verified.
    """
    if context is None:
        return
    if not isinstance(context, ssl.SSLContext):
        raise ConfigurationError(field, f"expected an ssl.SSLContext, got {type(context).__name__}")
    if not (context.check_hostname and context.verify_mode is ssl.CERT_REQUIRED):
        raise ConfigurationError(
            field,
            "certificate and host name must be verified, or anyone on the road gets the API key: "
            "for a private authority use ca_file, or ssl.create_default_context(cafile=...)",
        )


def require_ca_file(field: str, ca_file: object, *, beside: ssl.SSLContext | None) -> None:
    """Refuse a file that cannot be used, before anything is opened.

    Raises:
        ConfigurationError: unreadable, or a context is given as well.
    """
    if ca_file is None:
        return
    if beside is not None:
        raise ConfigurationError(field, "give either ca_file or ssl_context: a context brings its own authorities")
    from pathlib import Path  # the only use, and no small import

    if not isinstance(ca_file, str | Path):
        raise ConfigurationError(field, f"expected a path, got {type(ca_file).__name__}")
    client_context(str(ca_file), field=field)


# ── pins ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class PinMismatch(Exception):
    """No certificate of the chain has a pinned key. Internal; its text is ours and ready to be shown."""


def require_pins(field: str, pins: object) -> tuple[str, ...]:
    """The pins as a tuple, each checked.

    Raises:
        ConfigurationError: an item that is not ``sha256/`` and the base64 of 32 bytes.
        ImportError: without the extra ``pins``.
    """
    if isinstance(pins, str | bytes) or not isinstance(pins, Iterable):
        raise ConfigurationError(field, 'a tuple is expected: ("sha256/…",)')
    found = tuple(pins)
    for index, pin in enumerate(found):
        if not _is_pin(pin):
            raise ConfigurationError(
                f"{field}[{index}]", "expected sha256/ and the base64 form (44 characters) of a key's SHA-256"
            )
    if found:
        require_extra("cryptography", extra="pins", purpose="pinning")
    return found


def _is_pin(pin: object) -> bool:
    if not isinstance(pin, str) or not pin.startswith(_PIN_PREFIX):
        return False
    try:
        return len(base64.b64decode(pin.removeprefix(_PIN_PREFIX), validate=True)) == hashlib.sha256().digest_size
    except (binascii.Error, ValueError):
        return False


def check_pins(tls: ssl.SSLObject, pins: Iterable[str]) -> None:
    """Demand that a certificate of the verified chain, from the server's own to the root, has one of these keys.

    Only after the handshake: what the server sent beside the verified chain proves nothing.

    Raises:
        PinMismatch: none has.
    """
    seen = [_pin_of(certificate) for certificate in _verified_chain(tls)]
    if not set(seen) & set(pins):
        raise PinMismatch(f"no certificate of its chain has a pinned key; its keys are {', '.join(seen) or 'unknown'}")


def _verified_chain(tls: ssl.SSLObject) -> list[bytes]:
    """DER, the server's own first."""
    public: Any = getattr(tls, "get_verified_chain", None)
    if public is not None:
        return list(public())
    # Until Python 3.13 the method is there but not public; _ssl.ENCODING_DER is 2 in all of these.
    private: Any = tls
    return [certificate.public_bytes(2) for certificate in private._sslobj.get_verified_chain() or ()]


def _pin_of(certificate: bytes) -> str:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    key = x509.load_der_x509_certificate(certificate).public_key()
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return _PIN_PREFIX + base64.b64encode(hashlib.sha256(spki).digest()).decode("ascii")


# ── what a failure is called ─────────────────────────────────────────────────────────────────────────────────────

_REMEDY = "for an authority of your own set ca_file; on a system without authorities install certifi"
_SELF_SIGNED = f"a self-signed certificate, which nobody trusted vouches for: {_REMEDY}"
_UNKNOWN_ISSUER = f"the certificate's issuer is unknown: {_REMEDY}"
#: By OpenSSL's verification code (X509_V_ERR_…).
_REFUSALS: Final = {
    2: _UNKNOWN_ISSUER,
    9: "the certificate is not yet valid: is this machine's clock right?",
    10: "the certificate has expired, or this machine's clock is wrong",
    18: _SELF_SIGNED,
    19: _SELF_SIGNED,
    20: _UNKNOWN_ISSUER,
    21: _UNKNOWN_ISSUER,
    23: "the certificate was revoked",
    62: "the certificate is for another host (name mismatch)",
    64: "the certificate is for another host (address mismatch)",
}
_NOT_TLS = "what answers is not TLS: a plain server behind wss:// or https://, or a wrong port?"
_NO_COMMON_VERSION = "no TLS version that both sides accept; 1.2 is the least here"
#: By OpenSSL's reason; which one a plain server causes depends on OpenSSL's version.
_REASONS: Final = {
    "WRONG_VERSION_NUMBER": _NOT_TLS,
    "HTTP_REQUEST": _NOT_TLS,
    "PACKET_LENGTH_TOO_LONG": _NOT_TLS,
    "RECORD_LAYER_FAILURE": _NOT_TLS,
    "UNSUPPORTED_PROTOCOL": _NO_COMMON_VERSION,
    "NO_PROTOCOLS_AVAILABLE": _NO_COMMON_VERSION,
    "TLSV1_ALERT_PROTOCOL_VERSION": _NO_COMMON_VERSION,
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "the server accepts no cipher, or no certificate, of ours",
    "TLSV1_UNRECOGNIZED_NAME": "the server knows no such host",
    "UNEXPECTED_EOF_WHILE_READING": "the server ended the connection during the handshake",
}


def describe(error: OSError) -> str:
    """A TLS failure in words of ours; what has none is shown in OpenSSL's or the system's."""
    if isinstance(error, ssl.SSLCertVerificationError):
        known = _REFUSALS.get(error.verify_code)
        return known or f"the certificate was refused: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return _REASONS.get(error.reason or "") or (error.reason or "TLS failed").replace("_", " ").lower()
    if isinstance(error, ConnectionResetError | BrokenPipeError):
        return "the server ended the connection during the handshake"
    return error.strerror or str(error)
