"""Base58 public keys and signatures: checked without loading solders, which costs more than the rest of the library."""

from __future__ import annotations

from typing import Any

from lasersell_sync.exceptions import ConfigurationError

_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_DIGIT = {character: value for value, character in enumerate(_ALPHABET)}
_PUBKEY_BYTES = 32
# 32 bytes are 32 characters (all zero) to 44 characters (docs/protocol.md 3).
_MAX_CHARACTERS = 44
_SIGNATURE_BYTES = 64
_MAX_SIGNATURE_CHARACTERS = 88


def pubkey_text(value: Any) -> Any:
    """A ``solders.pubkey.Pubkey`` as its base58 text; any other value unchanged, for a check to name.

    Recognised by its type's name, so that solders need not be loaded. No other class is turned into text: the text of
    a ``Keypair`` is the secret key.
    """
    cls = type(value)
    is_foreign_pubkey = cls.__name__ == "Pubkey" and cls.__module__.partition(".")[0] == "solders"
    return str(value) if is_foreign_pubkey else value


def pubkey_texts(values: Any) -> Any:
    """The same for each item of a list or tuple; any other value unchanged."""
    return type(values)(map(pubkey_text, values)) if type(values) in (list, tuple) else values


def is_pubkey(text: object) -> bool:
    """True when ``text`` is the base58 form of exactly 32 bytes."""
    return _is_base58_of(_PUBKEY_BYTES, text, _MAX_CHARACTERS)


def is_signature(text: object) -> bool:
    """True when ``text`` is the base58 form of exactly 64 bytes."""
    return _is_base58_of(_SIGNATURE_BYTES, text, _MAX_SIGNATURE_CHARACTERS)


def decode_base58(text: object, max_characters: int) -> bytes | None:
    """The bytes of a base58 text of at most ``max_characters``; None when it is none."""
    if not isinstance(text, str) or len(text) > max_characters:
        return None
    number = 0
    for character in text:
        digit = _DIGIT.get(character)
        if digit is None:
            return None
        number = number * 58 + digit
    leading_zero_bytes = len(text) - len(text.lstrip("1"))
    return bytes(leading_zero_bytes) + number.to_bytes((number.bit_length() + 7) // 8, "big")


def _is_base58_of(byte_count: int, text: object, max_characters: int) -> bool:
    decoded = decode_base58(text, max_characters)
    return decoded is not None and len(decoded) == byte_count


def require_pubkey(field: str, text: object) -> str:
    """``text`` as it is, a solders ``Pubkey`` as text, or an error that names ``field``.

    Raises:
        ConfigurationError: not the base58 form of 32 bytes. The value is not repeated: people paste secret keys here.
    """
    text = pubkey_text(text)
    if is_pubkey(text):
        return str(text)
    kind = f"a text of {len(text)} characters" if isinstance(text, str) else type(text).__name__
    raise ConfigurationError(
        field, f"{kind} is not a Solana public key: expected the base58 form of 32 bytes (32 to 44 characters)"
    )
