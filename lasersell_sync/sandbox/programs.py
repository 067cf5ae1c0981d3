"""Executes instructions by what they say: program id, accounts, data.

System, Compute Budget, Token and Associated Token are interpreted here, as far as trading needs them; the markets'
programs are in ``pump_fun.py`` and ``pump_swap.py``. Error names and numbers are those of the real programs.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable

from solders.pubkey import Pubkey

from lasersell_sync.sandbox.addresses import (
    ASSOCIATED_TOKEN_PROGRAM,
    COMPUTE_BUDGET_PROGRAM,
    SYSTEM_PROGRAM,
    TOKEN_PROGRAM,
    WRAPPED_SOL_MINT,
)
from lasersell_sync.sandbox.instructions import (
    TOKEN_CLOSE_ACCOUNT,
    TOKEN_SYNC_NATIVE,
    TOKEN_TRANSFER,
    TOKEN_TRANSFER_CHECKED,
)
from lasersell_sync.sandbox.ledger import InsufficientFunds, Ledger, TokenAccount, token_address
from lasersell_sync.sandbox.listings import Listing, Venue
from lasersell_sync.sandbox.runtime import Invocation, ProgramError, custom

_SYSTEM_TRANSFER = 2
_SYSTEM_NEGATIVE_LAMPORTS = 1

_TOKEN_INSUFFICIENT_FUNDS = 1
_TOKEN_MINT_MISMATCH = 3
_TOKEN_OWNER_MISMATCH = 4
_TOKEN_NON_NATIVE_HAS_BALANCE = 11
_TOKEN_INVALID_INSTRUCTION = 12
_TOKEN_MINT_DECIMALS_MISMATCH = 18
_TOKEN_NON_NATIVE_NOT_SUPPORTED = 19


class Programs:
    """Every program the ledger knows. Stateless; safe wherever the ledger is."""

    def __init__(self, venues: Iterable[Venue], listings: dict[Pubkey, Listing]) -> None:
        self._listings = listings
        self._table: dict[Pubkey, Callable[[Invocation], None]] = {
            SYSTEM_PROGRAM: _system,
            COMPUTE_BUDGET_PROGRAM: _compute_budget,
            TOKEN_PROGRAM: _token,
            ASSOCIATED_TOKEN_PROGRAM: _associated_token,
        }
        for venue in venues:
            self._table[venue.program] = self._market(venue)

    def _market(self, venue: Venue) -> Callable[[Invocation], None]:
        return lambda invocation: venue.execute(invocation, self._listings)

    def knows(self, program: Pubkey) -> bool:
        """Whether the program exists here."""
        return program in self._table

    def execute(self, program: Pubkey, invocation: Invocation) -> None:
        """Run one instruction. Raises ``ProgramError``; the caller takes the ledger back."""
        self._table[program](invocation)


def _system(invocation: Invocation) -> None:
    if len(invocation.data) < 4:
        raise ProgramError("InvalidInstructionData")
    (tag,) = struct.unpack_from("<I", invocation.data)
    if tag != _SYSTEM_TRANSFER or len(invocation.data) < 12:
        raise ProgramError("InvalidInstructionData")  # the sandbox has no other System instruction
    (amount_lamports,) = struct.unpack_from("<Q", invocation.data, 4)
    source = invocation.address(0, signer=True, writable=True)
    target = invocation.address(1, writable=True)
    if invocation.ledger.token_account(source) is not None:
        raise ProgramError("InvalidArgument")  # `from` must not carry data
    try:
        invocation.ledger.move_lamports(source, target, amount_lamports)
    except InsufficientFunds as error:
        raise custom(_SYSTEM_NEGATIVE_LAMPORTS) from error


# -- compute budget


def _compute_budget(_invocation: Invocation) -> None:
    """Nothing is left to do: what these instructions ask for is read before anything runs (``budget.py``)."""


# -- token


def _token(invocation: Invocation) -> None:
    tag = invocation.data[0] if invocation.data else None
    if tag == TOKEN_TRANSFER:
        _transfer(invocation, checked=False)
    elif tag == TOKEN_TRANSFER_CHECKED:
        _transfer(invocation, checked=True)
    elif tag == TOKEN_SYNC_NATIVE:
        address = invocation.address(0, writable=True)
        if _token_account(invocation.ledger, address).mint != WRAPPED_SOL_MINT:
            raise custom(_TOKEN_NON_NATIVE_NOT_SUPPORTED)
        invocation.ledger.sync_native(address)
    elif tag == TOKEN_CLOSE_ACCOUNT:
        _close_account(invocation)
    else:
        raise custom(_TOKEN_INVALID_INSTRUCTION)


def _token_account(ledger: Ledger, address: Pubkey) -> TokenAccount:
    account = ledger.token_account(address)
    if account is None:
        raise ProgramError("InvalidAccountData")
    return account


def _transfer(invocation: Invocation, *, checked: bool) -> None:
    layout = "<QB" if checked else "<Q"
    if len(invocation.data) < 1 + struct.calcsize(layout):
        raise custom(_TOKEN_INVALID_INSTRUCTION)
    amount, *rest = struct.unpack_from(layout, invocation.data, 1)
    source = invocation.address(0, writable=True)
    target = invocation.address(2 if checked else 1, writable=True)
    giver, taker = _token_account(invocation.ledger, source), _token_account(invocation.ledger, target)
    if giver.mint != taker.mint:
        raise custom(_TOKEN_MINT_MISMATCH)
    if checked:
        mint = invocation.ledger.mint(invocation.address(1))
        if mint is None or invocation.address(1) != giver.mint:
            raise custom(_TOKEN_MINT_MISMATCH)
        if mint.decimals != rest[0]:
            raise custom(_TOKEN_MINT_DECIMALS_MISMATCH)
    _require_owner(invocation, giver, 3 if checked else 2)
    try:
        invocation.ledger.move_tokens(source, target, amount)
    except InsufficientFunds as error:
        raise custom(_TOKEN_INSUFFICIENT_FUNDS) from error


def _require_owner(invocation: Invocation, account: TokenAccount, index: int) -> None:
    if invocation.address(index) != account.owner:
        raise custom(_TOKEN_OWNER_MISMATCH)
    invocation.address(index, signer=True)


def _close_account(invocation: Invocation) -> None:
    address = invocation.address(0, writable=True)
    target = invocation.address(1, writable=True)
    account = _token_account(invocation.ledger, address)
    if address == target:
        raise ProgramError("InvalidAccountData")
    if account.amount and account.mint != WRAPPED_SOL_MINT:
        raise custom(_TOKEN_NON_NATIVE_HAS_BALANCE)
    _require_owner(invocation, account, 2)
    invocation.ledger.close_token_account(address, target)


# -- associated token account


def _associated_token(invocation: Invocation) -> None:
    if invocation.data not in (b"", b"\x00", b"\x01"):
        raise ProgramError("InvalidInstructionData")
    idempotent = invocation.data == b"\x01"
    payer = invocation.address(0, signer=True, writable=True)
    address = invocation.address(1, writable=True)
    owner, mint = invocation.address(2), invocation.address(3)
    if invocation.address(5) != TOKEN_PROGRAM:
        raise ProgramError("IncorrectProgramId")  # Token-2022 comes with a later storey
    if token_address(owner, mint) != address:
        raise ProgramError("InvalidSeeds")
    if invocation.ledger.mint(mint) is None:
        raise ProgramError("InvalidAccountData")
    if invocation.ledger.token_account(address) is not None:
        if idempotent:
            return
        raise ProgramError("IllegalOwner")
    try:
        invocation.ledger.open_token_account(address, mint=mint, owner=owner, payer=payer)
    except InsufficientFunds as error:
        raise custom(_SYSTEM_NEGATIVE_LAMPORTS) from error
