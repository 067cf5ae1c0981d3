"""The Token program (classic), as far as trading, and stealing, needs it. Error numbers are those of the real one."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace

from solders.pubkey import Pubkey

from lasersell_sync.sandbox.chain.addresses import TOKEN_PROGRAM, WRAPPED_SOL_MINT
from lasersell_sync.sandbox.chain.instructions import (
    AUTHORITY_CLOSE,
    AUTHORITY_OWNER,
    TOKEN_APPROVE,
    TOKEN_CLOSE_ACCOUNT,
    TOKEN_GET_ACCOUNT_DATA_SIZE,
    TOKEN_INITIALIZE_ACCOUNT_3,
    TOKEN_INITIALIZE_IMMUTABLE_OWNER,
    TOKEN_REVOKE,
    TOKEN_SET_AUTHORITY,
    TOKEN_SYNC_NATIVE,
    TOKEN_TRANSFER,
    TOKEN_TRANSFER_CHECKED,
)
from lasersell_sync.sandbox.chain.ledger import TOKEN_ACCOUNT_BYTES, InsufficientFunds, Ledger, TokenAccount
from lasersell_sync.sandbox.chain.runtime import Invocation, ProgramError, custom

_TOKEN_NOT_RENT_EXEMPT = 0
_TOKEN_INSUFFICIENT_FUNDS = 1
_TOKEN_INVALID_MINT = 2
_TOKEN_MINT_MISMATCH = 3
_TOKEN_OWNER_MISMATCH = 4
_TOKEN_ALREADY_IN_USE = 6
_TOKEN_NON_NATIVE_HAS_BALANCE = 11
_TOKEN_INVALID_INSTRUCTION = 12
_TOKEN_AUTHORITY_NOT_SUPPORTED = 15
_TOKEN_MINT_DECIMALS_MISMATCH = 18
_TOKEN_NON_NATIVE_NOT_SUPPORTED = 19


def execute(invocation: Invocation) -> None:
    """Run one instruction. Raises ``ProgramError``."""
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
    elif tag in _HANDLERS:
        _HANDLERS[tag](invocation)
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
    _require_authority(invocation, source, giver, 3 if checked else 2, amount)
    try:
        invocation.ledger.move_tokens(source, target, amount)
    except InsufficientFunds as error:
        raise custom(_TOKEN_INSUFFICIENT_FUNDS) from error


def _require_authority(invocation: Invocation, source: Pubkey, account: TokenAccount, index: int, amount: int) -> None:
    """The owner may move everything, a delegate what it was approved for."""
    if account.delegate is None or invocation.address(index) != account.delegate:
        _require_owner(invocation, account, index)
        return
    invocation.address(index, signer=True)
    left = account.delegated_amount - amount
    if left < 0:
        raise custom(_TOKEN_INSUFFICIENT_FUNDS)
    changed = replace(account, delegated_amount=left, delegate=account.delegate if left else None)
    invocation.ledger.put_token_account(source, changed)


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
    if account.close_authority is None:
        _require_owner(invocation, account, 2)
    elif invocation.address(2, signer=True) != account.close_authority:
        raise custom(_TOKEN_OWNER_MISMATCH)
    invocation.ledger.close_token_account(address, target)


# -- who may do what with an account


def _approve(invocation: Invocation) -> None:
    if len(invocation.data) < 9:
        raise custom(_TOKEN_INVALID_INSTRUCTION)
    (amount,) = struct.unpack_from("<Q", invocation.data, 1)
    address, delegate = invocation.address(0, writable=True), invocation.address(1)
    account = _token_account(invocation.ledger, address)
    _require_owner(invocation, account, 2)
    invocation.ledger.put_token_account(address, replace(account, delegate=delegate, delegated_amount=amount))


def _revoke(invocation: Invocation) -> None:
    address = invocation.address(0, writable=True)
    account = _token_account(invocation.ledger, address)
    _require_owner(invocation, account, 1)
    invocation.ledger.put_token_account(address, replace(account, delegate=None, delegated_amount=0))


def _set_authority(invocation: Invocation) -> None:
    data = invocation.data
    if len(data) < 3 or data[2] > 1 or len(data) < 3 + 32 * data[2]:
        raise custom(_TOKEN_INVALID_INSTRUCTION)
    new = Pubkey.from_bytes(data[3:35]) if data[2] else None
    address = invocation.address(0, writable=True)
    account = _token_account(invocation.ledger, address)
    if data[1] == AUTHORITY_OWNER and new is not None:
        _require_owner(invocation, account, 1)
        changed = replace(account, owner=new, delegate=None, delegated_amount=0, close_authority=None)
    elif data[1] == AUTHORITY_CLOSE:
        if invocation.address(1, signer=True) != (account.close_authority or account.owner):
            raise custom(_TOKEN_OWNER_MISMATCH)
        changed = replace(account, close_authority=new)
    else:
        raise custom(_TOKEN_AUTHORITY_NOT_SUPPORTED)
    invocation.ledger.put_token_account(address, changed)


# -- new accounts


def _get_account_data_size(invocation: Invocation) -> None:
    """The size is returned; every account here has the same."""
    if invocation.ledger.mint(invocation.address(0)) is None:
        raise custom(_TOKEN_INVALID_MINT)


def _initialize_immutable_owner(invocation: Invocation) -> None:
    """Nothing to note: the classic program keeps no such flag."""
    _uninitialized(invocation, invocation.address(0, writable=True))


def _initialize_account(invocation: Invocation) -> None:
    if len(invocation.data) < 33:
        raise custom(_TOKEN_INVALID_INSTRUCTION)
    address, mint = invocation.address(0, writable=True), invocation.address(1)
    _uninitialized(invocation, address)
    if invocation.ledger.mint(mint) is None:
        raise custom(_TOKEN_INVALID_MINT)
    if invocation.ledger.lamports(address) < invocation.ledger.rent_lamports(TOKEN_ACCOUNT_BYTES):
        raise custom(_TOKEN_NOT_RENT_EXEMPT)
    invocation.ledger.allocate(address, space=0, owner=None)
    owner = Pubkey.from_bytes(invocation.data[1:33])
    invocation.ledger.put_token_account(address, TokenAccount(mint, owner, 0))
    if mint == WRAPPED_SOL_MINT:
        invocation.ledger.sync_native(address)


def _uninitialized(invocation: Invocation, address: Pubkey) -> None:
    if invocation.ledger.token_account(address) is not None:
        raise custom(_TOKEN_ALREADY_IN_USE)
    if invocation.ledger.allocated(address) != (TOKEN_ACCOUNT_BYTES, TOKEN_PROGRAM):
        raise ProgramError("InvalidAccountData")


_HANDLERS: dict[int, Callable[[Invocation], None]] = {
    TOKEN_CLOSE_ACCOUNT: _close_account,
    TOKEN_APPROVE: _approve,
    TOKEN_REVOKE: _revoke,
    TOKEN_SET_AUTHORITY: _set_authority,
    TOKEN_GET_ACCOUNT_DATA_SIZE: _get_account_data_size,
    TOKEN_INITIALIZE_IMMUTABLE_OWNER: _initialize_immutable_owner,
    TOKEN_INITIALIZE_ACCOUNT_3: _initialize_account,
}
