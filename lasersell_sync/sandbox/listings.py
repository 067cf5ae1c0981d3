"""What is traded: a listing is one token on one market; a venue is the market's rules.

A venue knows its program's accounts, instruction layouts and arithmetic. It builds instructions for the REST side and
executes them for the ledger side, from the same account list, as the real program's IDL does for everyone.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from solders.instruction import AccountMeta, Instruction
from solders.pubkey import Pubkey

from lasersell_sync.sandbox.ledger import Ledger
from lasersell_sync.sandbox.pools import FeeSchedule, Reserves
from lasersell_sync.sandbox.runtime import Invocation, Swap


@dataclass(frozen=True, slots=True)
class Listing:
    """A token of the sandbox: identity, market and the story its price follows."""

    mint: Pubkey
    symbol: str
    name: str
    decimals: int
    creator: Pubkey
    market_type: str
    tape: str


class Venue(Protocol):
    """The rules of one market type."""

    market_type: str
    #: the spelling of REST answers, without underscore
    route_name: str
    program: Pubkey
    fees: FeeSchedule

    def open(self, ledger: Ledger, listing: Listing, crowd: Pubkey) -> None:
        """Genesis: create the pool, and give the crowd the tokens the pool has not."""

    def pool(self, listing: Listing) -> Pubkey:
        """The account that identifies the pool."""

    def market_context(self, listing: Listing) -> dict[str, object]:
        """The wire's ``market_context`` of this listing."""

    def pool_token_account(self, listing: Listing) -> Pubkey:
        """Where the pool keeps its tokens."""

    def reserves(self, ledger: Ledger, listing: Listing) -> Reserves:
        """What the price is computed from."""

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


def discriminator(name: str) -> bytes:
    """The first 8 bytes of an Anchor instruction."""
    return hashlib.sha256(f"global:{name}".encode()).digest()[:8]


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
