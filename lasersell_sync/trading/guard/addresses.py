"""Addresses: between text and bytes, and those that belong to a wallet by derivation.

Both are remembered: a wallet's account for a mint takes nine microseconds to find, and is asked for again and again.
"""

from __future__ import annotations

import functools
import hashlib
from typing import TYPE_CHECKING, Final

from lasersell_sync.exceptions import ConfigurationError
from lasersell_sync.pubkeys import pubkey_text, require_pubkey

if TYPE_CHECKING:
    from solders.pubkey import Pubkey

__all__ = [
    "PUBKEY_BYTES",
    "derived_address",
    "from_text",
    "require_address",
    "seeded_address",
    "to_text",
    "token_account",
]

PUBKEY_BYTES: Final = 32
_KEPT = 65_536


@functools.cache
def _pubkey_class() -> type[Pubkey]:
    """Kept, because an import statement costs more than reading an address, and each token's first sale reads two."""
    from solders.pubkey import Pubkey

    return Pubkey


@functools.lru_cache(maxsize=_KEPT)
def from_text(text: str) -> bytes:
    """The 32 bytes of a base58 address.

    Raises:
        ValueError: it is none.
    """
    return bytes(_pubkey_class().from_string(text))


def require_address(field: str, text: object) -> bytes:
    """The bytes of an address that a user or a server named.

    Raises:
        ConfigurationError: it is none; names ``field``.
    """
    try:
        return from_text(text) if isinstance(text, str) else from_text(pubkey_text(text))
    except (TypeError, ValueError):
        require_pubkey(field, text)
        raise ConfigurationError(field, "not a Solana public key") from None


@functools.lru_cache(maxsize=_KEPT)
def to_text(address: bytes) -> str:
    """Base58."""
    return str(_pubkey_class().from_bytes(address))


@functools.lru_cache(maxsize=_KEPT)
def token_account(wallet: bytes, mint: bytes, token_program: bytes) -> bytes:
    """The wallet's associated token account: nobody else can own it."""
    from solders.token.associated import get_associated_token_address

    owner, token, program = map(_pubkey_class().from_bytes, (wallet, mint, token_program))
    return bytes(get_associated_token_address(owner, token, program))


@functools.lru_cache(maxsize=_KEPT)
def derived_address(program: bytes, *seeds: bytes) -> bytes:
    """A program's address for these seeds."""
    address, _ = _pubkey_class().find_program_address(seeds, _pubkey_class().from_bytes(program))
    return bytes(address)


def seeded_address(base: bytes, seed: bytes, owner_program: bytes) -> bytes:
    """Where the System program creates an account ``with seed``."""
    return hashlib.sha256(base + seed + owner_program).digest()
