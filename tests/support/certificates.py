"""A certification authority for tests: servers with every kind of certificate, and the pins of its keys."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import ipaddress
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

NOW = dt.datetime.now(dt.timezone.utc)
DAY = dt.timedelta(days=1)

_Key = ec.EllipticCurvePrivateKey
_SIGNS_CERTIFICATES = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


def pin_of(key: _Key) -> str:
    """As ``openssl pkey -pubout -outform der | openssl dgst -sha256 -binary | base64`` prints it."""
    spki = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return "sha256/" + base64.b64encode(hashlib.sha256(spki).digest()).decode()


class Authority:
    """Signs certificates for 127.0.0.1 and ``stream.test``; ``pem`` is its own, for ``ca_file``."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named(name)
        made = (
            _builder(self._name, self._name, self._key, self._key, NOW - 2 * DAY, NOW + 9 * DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_SIGNS_CERTIFICATES, critical=True)
        )
        self.certificate = made.sign(self._key, hashes.SHA256())
        self.pem = folder / f"{name}.pem"
        self.pem.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))
        self.pin = pin_of(self._key)
        #: Of the server made last.
        self.leaf_pin = ""

    def server(
        self,
        *,
        names: tuple[str, ...] = ("127.0.0.1", "stream.test"),
        begins: dt.datetime = NOW - DAY,
        ends: dt.datetime = NOW + DAY,
        sent_along: tuple[x509.Certificate, ...] = (),
    ) -> ssl.SSLContext:
        """A server's context; ``sent_along`` are certificates that it sends without need."""
        key = ec.generate_private_key(ec.SECP256R1())
        self.leaf_pin = pin_of(key)
        alternatives = x509.SubjectAlternativeName([_alternative(name) for name in names])
        made = _builder(_named("server"), self._name, key, self._key, begins, ends).add_extension(
            alternatives, critical=False
        )
        chain = (made.sign(self._key, hashes.SHA256()), *sent_along)
        pem = self._folder / "server.pem"
        pem.write_bytes(
            b"".join(certificate.public_bytes(serialization.Encoding.PEM) for certificate in chain)
            + key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
        return context


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: _Key, issuer_key: _Key, begins: dt.datetime, ends: dt.datetime
) -> x509.CertificateBuilder:
    # The key identifiers are what Python 3.13 demands of every certificate, its authorities' too.
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
