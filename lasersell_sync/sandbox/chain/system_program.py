"""The System program, as far as trading needs it: transfers, and accounts for other programs."""

from __future__ import annotations

import struct

from solders.pubkey import Pubkey

from lasersell_sync.sandbox.chain.instructions import SYSTEM_CREATE_ACCOUNT, SYSTEM_TRANSFER
from lasersell_sync.sandbox.chain.ledger import InsufficientFunds
from lasersell_sync.sandbox.chain.runtime import Invocation, ProgramError, custom

_ACCOUNT_ALREADY_IN_USE = 0
_NEGATIVE_LAMPORTS = 1


def execute(invocation: Invocation) -> None:
    """Run one instruction. Raises ``ProgramError``."""
    if len(invocation.data) < 4:
        raise ProgramError("InvalidInstructionData")
    (tag,) = struct.unpack_from("<I", invocation.data)
    if tag == SYSTEM_TRANSFER and len(invocation.data) >= 12:
        _transfer(invocation)
    elif tag == SYSTEM_CREATE_ACCOUNT and len(invocation.data) >= 52:
        _create_account(invocation)
    else:
        raise ProgramError("InvalidInstructionData")  # the sandbox has no other System instruction


def _transfer(invocation: Invocation) -> None:
    (amount_lamports,) = struct.unpack_from("<Q", invocation.data, 4)
    source = invocation.address(0, signer=True, writable=True)
    target = invocation.address(1, writable=True)
    if invocation.ledger.token_account(source) is not None:
        raise ProgramError("InvalidArgument")  # `from` must not carry data
    _move(invocation, source, target, amount_lamports)


def _create_account(invocation: Invocation) -> None:
    lamports, space, owner = struct.unpack_from("<QQ32s", invocation.data, 4)
    payer = invocation.address(0, signer=True, writable=True)
    address = invocation.address(1, signer=True, writable=True)
    ledger = invocation.ledger
    if ledger.lamports(address) or ledger.token_account(address) is not None or ledger.allocated(address) is not None:
        raise custom(_ACCOUNT_ALREADY_IN_USE)
    _move(invocation, payer, address, lamports)
    ledger.allocate(address, space=space, owner=Pubkey.from_bytes(owner))


def _move(invocation: Invocation, source: Pubkey, target: Pubkey, lamports: int) -> None:
    try:
        invocation.ledger.move_lamports(source, target, lamports)
    except InsufficientFunds as error:
        raise custom(_NEGATIVE_LAMPORTS) from error
