"""What is traded: a listing is one token on one market; a venue is the market's rules.

A venue knows its program's accounts, instruction layouts and arithmetic. It builds instructions for the REST side and
executes them for the ledger side, from the same account list, as the real program's IDL does for everyone.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from solders.instruction import AccountMeta, Instruction
from solders.pubkey import Pubkey

from lasersell_sync.sandbox.chain.ledger import Ledger
from lasersell_sync.sandbox.chain.runtime import Invocation, Swap
from lasersell_sync.sandbox.markets.currencies import SOL, Currency
from lasersell_sync.sandbox.markets.pools import FeeSchedule, Reserves

#: What an Anchor program's call of itself begins with when it writes an event.
EVENT_TAG = bytes.fromhex("e445a52e51cb9a1d")
_ARGUMENTS = struct.Struct("<QQ")


@dataclass(frozen=True, slots=True)
class Listing:
    """A token of the sandbox: identity, market and price path."""

    mint: Pubkey
    symbol: str
    name: str
    decimals: int
    creator: Pubkey
    market_type: str
    price_path: str
    quote: Currency = SOL
    #: the bonding curve it came from, if it did; it has graduated when that is not where it trades
    launched_on: str | None = None
    #: nobody trades it while this is so
    halted: bool = False
    #: its trades are written in today's forms, which of them by ``lot``; or else in the classic ones
    today: bool = False
    lot: int = 0
    #: a pump coin whose creator fee goes to whoever trades it, once they claim it
    cashback: bool = False

    @property
    def graduated(self) -> bool:
        """Whether it has moved from a bonding curve to an AMM pool."""
        return self.launched_on not in (None, self.market_type)


@dataclass(frozen=True, slots=True)
class Call:
    """One instruction's data: 8 bytes discriminator, tokens and limit as u64, then ``tail``."""

    name: str
    limit_first: bool = False
    tail: bytes = b""

    def pack(self, tokens: int, limit: int) -> bytes:
        """The instruction's data."""
        numbers = (limit, tokens) if self.limit_first else (tokens, limit)
        return discriminator(self.name) + _ARGUMENTS.pack(*numbers) + self.tail

    def matches(self, data: bytes) -> bool:
        """Whether data is of this instruction."""
        return data[:8] == discriminator(self.name)

    def unpack(self, data: bytes) -> tuple[int, int] | None:
        """(tokens, limit), or None for data that is too short or asks for another variant."""
        body = data[8:]
        if len(body) < _ARGUMENTS.size + len(self.tail) or not body[_ARGUMENTS.size :].startswith(self.tail):
            return None
        first, second = _ARGUMENTS.unpack_from(body)
        return (second, first) if self.limit_first else (first, second)


class Venue(Protocol):
    """The rules of one market type."""

    market_type: str
    #: the spelling of REST answers, without underscore
    route_name: str
    program: Pubkey
    fees: FeeSchedule
    #: a bonding curve's AMM market
    graduates_to: str | None
    buy_call: Call
    sell_call: Call

    def open(self, ledger: Ledger, listing: Listing, crowd: Pubkey, start_quote: int | None) -> None:
        """Genesis: create the pool out of the crowd's purse; ``start_quote`` sets its depth in quote units."""

    def pool(self, listing: Listing) -> Pubkey:
        """The account that identifies the pool."""

    def vault_owner(self, listing: Listing) -> Pubkey:
        """Who owns the pool's token accounts."""

    def market_context(self, listing: Listing, user: Pubkey) -> dict[str, object]:
        """The wire's ``market_context`` of this listing, for a user's position."""

    def pool_token_account(self, listing: Listing) -> Pubkey:
        """Where the pool keeps its tokens."""

    def reserves(self, ledger: Ledger, listing: Listing) -> Reserves:
        """What the price is computed from."""

    def cashback_owner(self, listing: Listing, user: Pubkey) -> Pubkey | None:
        """Whose account of the quote currency takes a user's cashback; None: there is none to open."""

    def buys_exact_quote(self, listing: Listing) -> bool:
        """Whether a purchase names what to spend and the least tokens that it must bring."""

    def buyable_tokens(self, ledger: Ledger, listing: Listing) -> int:
        """The most tokens a buy can take out."""

    def buy_instructions(self, listing: Listing, user: Pubkey, tokens: int, max_lamports: int) -> list[Instruction]:
        """What a user signs to buy ``tokens`` for at most ``max_lamports``."""

    def sell_instructions(self, listing: Listing, user: Pubkey, tokens: int, min_lamports: int) -> list[Instruction]:
        """What a user signs to sell ``tokens`` for at least ``min_lamports``."""

    def buy(self, ledger: Ledger, listing: Listing, trader: Pubkey, tokens: int, max_lamports: int) -> Swap:
        """Execute a buy on the ledger. Raises ``ProgramError``."""

    def sell(self, ledger: Ledger, listing: Listing, trader: Pubkey, tokens: int, min_lamports: int) -> Swap:
        """Execute a sale on the ledger. Raises ``ProgramError``."""

    def execute(self, invocation: Invocation, listings: dict[Pubkey, Listing]) -> None:
        """Run one instruction of this market's program. Raises ``ProgramError``."""


@lru_cache(maxsize=64)
def discriminator(name: str) -> bytes:
    """The first 8 bytes of an Anchor instruction."""
    return hashlib.sha256(f"global:{name}".encode()).digest()[:8]


@lru_cache(maxsize=64)
def event_tag(name: str) -> bytes:
    """The 8 bytes that an Anchor event begins with."""
    return hashlib.sha256(f"event:{name}".encode()).digest()[:8]


@lru_cache(maxsize=65_536)
def derived_address(program: Pubkey, *seeds: bytes) -> Pubkey:
    """A program-derived address, remembered because finding one takes many hashes."""
    return Pubkey.find_program_address(list(seeds), program)[0]


def signer(address: Pubkey) -> AccountMeta:
    """An account that signs and pays."""
    return AccountMeta(address, is_signer=True, is_writable=True)


def writable(address: Pubkey) -> AccountMeta:
    """An account the instruction changes."""
    return AccountMeta(address, is_signer=False, is_writable=True)


def readonly(address: Pubkey) -> AccountMeta:
    """An account the instruction reads or calls."""
    return AccountMeta(address, is_signer=False, is_writable=False)
