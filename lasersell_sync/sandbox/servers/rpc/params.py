"""Parameters of JSON-RPC calls: positional, and bad ones are error -32602."""

from __future__ import annotations

import base64
import binascii

import base58
from solders.message import from_bytes_versioned
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.transaction import VersionedTransaction

from lasersell_sync.sandbox.chain.ledger import U64_MAX
from lasersell_sync.sandbox.chain.transactions import (
    MAX_PACKET_BYTES,
    MAX_V1_BYTES,
    Transaction,
    of_solders,
    read_transaction,
)

_MAX_BASE58_CHARACTERS = 5_600

Params = list[object]


class RpcError(Exception):
    """A JSON-RPC error answer."""

    def __init__(self, code: int, message: str, data: object = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data


def invalid_params(message: str) -> RpcError:
    """The error for parameters that make no sense."""
    return RpcError(-32602, f"Invalid params: {message}")


def required(params: Params, index: int) -> object:
    """The parameter at an index. This and all below raise ``RpcError``."""
    if index >= len(params):
        raise invalid_params(f"expected at least {index + 1} parameters")
    return params[index]


def config_of(params: Params, index: int) -> dict[str, object]:
    """The configuration object at an index; empty if there is none."""
    config = params[index] if index < len(params) else None
    if config is None:
        return {}
    if not isinstance(config, dict):
        raise invalid_params("the configuration must be an object")
    return config


def flag(config: dict[str, object], key: str) -> bool:
    """A boolean setting; absent means false."""
    value = config.get(key)
    if value is not None and not isinstance(value, bool):
        raise invalid_params(f"{key} must be a boolean")
    return bool(value)


def optional_integer(config: dict[str, object], key: str) -> int | None:
    """A u64 setting, or None."""
    value = config.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= U64_MAX:
        raise invalid_params(f"{key} must be an integer from 0 to {U64_MAX}")
    return value


def sliced(data: bytes, wanted: object) -> bytes:
    """The part of an account's data that ``dataSlice`` asks for."""
    if wanted is None:
        return data
    if not isinstance(wanted, dict):
        raise invalid_params("dataSlice must be an object")
    offset, length = optional_integer(wanted, "offset"), optional_integer(wanted, "length")
    if offset is None or length is None:
        raise invalid_params("dataSlice needs offset and length")
    return data[offset : offset + length]


def pubkey_of(params: Params, index: int) -> Pubkey:
    """The base58 public key at an index."""
    text = required(params, index)
    try:
        if isinstance(text, str):
            return Pubkey.from_string(text)
    except ValueError:
        pass
    raise invalid_params("not a public key")


def signature_of(text: object) -> Signature:
    """A base58 signature."""
    try:
        if isinstance(text, str):
            return Signature.from_string(text)
    except ValueError:
        pass
    raise invalid_params("not a signature")


def transaction_of(params: Params, config: dict[str, object], *, default_encoding: str) -> Transaction:
    """The first parameter as a transaction of any version."""
    text = required(params, 0)
    if not isinstance(text, str):
        raise invalid_params("the transaction must be a string")
    raw = decoded(text, config.get("encoding", default_encoding))
    most = MAX_V1_BYTES if raw[:1] == b"\x81" else MAX_PACKET_BYTES
    if len(raw) > most:
        raise invalid_params(f"decoded transaction too large: {len(raw)} bytes (max: {most} bytes)")
    try:
        return read_transaction(raw)
    except ValueError as error:
        message = f"failed to deserialize solana_transaction::versioned::VersionedTransaction: {error}"
        raise RpcError(-32602, message) from error


def unsigned(raw: bytes) -> Transaction:
    """A transaction of a message's bytes, with room for its signatures."""
    try:
        if raw[:1] == b"\x81":
            return read_transaction(raw + bytes(64 * raw[1]))
        message = from_bytes_versioned(raw)
        signatures = [Signature.default()] * message.header.num_required_signatures
        return of_solders(VersionedTransaction.populate(message, signatures))
    except (ValueError, IndexError) as error:
        raise RpcError(-32602, f"failed to deserialize solana_message: {error}") from error


def decoded(text: str, encoding: object) -> bytes:
    """Bytes in base58 or base64."""
    try:
        if encoding == "base64":
            return base64.b64decode(text, validate=True)
        if encoding == "base58":
            if len(text) > _MAX_BASE58_CHARACTERS:
                raise invalid_params(f"base58 encoded transaction too large: {len(text)} characters")
            if text != text.strip():
                raise ValueError("white space")  # which the package would take
            return base58.b58decode(text)
    except (ValueError, binascii.Error) as error:
        raise invalid_params(f"invalid {encoding} encoding: {error}") from error
    raise invalid_params("unsupported encoding; supported: base58, base64")
