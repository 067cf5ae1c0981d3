"""Addresses: text and bytes, those that a wallet owns by derivation, and the pool of a graduated coin."""

from __future__ import annotations

import functools
import hashlib
from typing import TYPE_CHECKING, Final

import attrs

from lasersell_sync.exceptions import ConfigurationError
from lasersell_sync.messages import MarketContext
from lasersell_sync.pubkeys import pubkey_text, require_pubkey

if TYPE_CHECKING:
    from solders.pubkey import Pubkey

__all__ = [
    "PUBKEY_BYTES",
    "AnnouncedMarket",
    "announced_market",
    "derived_address",
    "from_text",
    "graduated_pool",
    "require_address",
    "seeded_address",
    "to_text",
    "token_account",
]


# ── Addresses: between text and bytes, and those that belong to a wallet by derivation ──────────────────────────────
# Both are remembered: a wallet's account for a mint takes nine microseconds to find, and is asked for again and again.


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


# ── Where a position trades, by its announcement: program, pool, quote currency ─────────────────────────────────────


#: The members of ``MarketContext``, by ``market_type`` without underscores: both spellings occur.
_MEMBERS = {
    "pumpfun": ("pump_fun", "pumpfun"),
    "pumpswap": ("pump_swap", "pumpswap"),
    "meteoradbc": ("meteora_dbc", "meteora_dbc"),
    "meteoradammv2": ("meteora_damm_v2", "meteora_damm_v2"),
    "raydiumlaunchpad": ("raydium_launchpad", "raydium_launchpad"),
    "raydiumcpmm": ("raydium_cpmm", "raydium_cpmm"),
}


@attrs.define(eq=False)
class AnnouncedMarket:
    """Where a position trades.

    Attributes:
        program: the market's name, as in ``programs.json``.
        pool: the market's account of this token; None: the announcement does not say.
        quote_mint: what it is traded against; None: the announcement does not say.
    """

    program: str
    pool: bytes | None
    quote_mint: bytes | None


def announced_market(context: MarketContext | None) -> AnnouncedMarket | None:
    """What the wire's ``market_context`` says; None for a market that nobody knows.

    Raises:
        ValueError: a pool or mint that is not an address.
    """
    names = None if context is None else _MEMBERS.get(context.market_type.replace("_", ""))
    if names is None:
        return None
    program, member = names
    facts = getattr(context, member)
    pool, quote = getattr(facts, "pool", None), getattr(facts, "quote_mint", None)
    return AnnouncedMarket(
        program, None if pool is None else from_text(pool), None if quote is None else from_text(quote)
    )


def graduated_pool(pump_fun: bytes, pump_swap: bytes, mint: bytes, quote_mint: bytes) -> bytes:
    """The PumpSwap pool to which Pump.fun itself moves a coin: nobody else can open one at this address.

    Args:
        pump_fun: the program's address.
        pump_swap: the program's address.
        mint: the coin.
        quote_mint: what it is traded against.
    """
    opener = derived_address(pump_fun, b"pool-authority", mint)
    return derived_address(pump_swap, b"pool", b"\0\0", opener, mint, quote_mint)
