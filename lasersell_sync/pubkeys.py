"""Base58 public keys: checked without loading solders, which costs more than the rest of the library."""

from __future__ import annotations

from lasersell_sync.exceptions import ConfigurationError

_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_DIGIT = {character: value for value, character in enumerate(_ALPHABET)}
_PUBKEY_BYTES = 32
# 32 bytes are 32 characters (all zero) to 44 characters (PROTOCOL.md §3).
_MAX_CHARACTERS = 44


def is_pubkey(text: object) -> bool:
    """True when ``text`` is the base58 form of exactly 32 bytes."""
    if not isinstance(text, str) or not 0 < len(text) <= _MAX_CHARACTERS:
        return False
    number = 0
    for character in text:
        digit = _DIGIT.get(character)
        if digit is None:
            return False
        number = number * 58 + digit
    leading_zero_bytes = len(text) - len(text.lstrip("1"))
    return leading_zero_bytes + (number.bit_length() + 7) // 8 == _PUBKEY_BYTES


def require_pubkey(field: str, text: object) -> str:
    """``text`` as it is, or an error that names ``field``.

    Raises:
        ConfigurationError: not the base58 form of 32 bytes. The value is not repeated: people paste secret keys here.
    """
    if is_pubkey(text):
        return str(text)
    kind = f"a text of {len(text)} characters" if isinstance(text, str) else type(text).__name__
    raise ConfigurationError(
        field, f"{kind} is not a Solana public key: expected the base58 form of 32 bytes (32 to 44 characters)"
    )
