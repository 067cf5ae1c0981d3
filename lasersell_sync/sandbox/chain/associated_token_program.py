"""The Associated Token Account program: creates a wallet's account of a mint, by the calls that the real one makes."""

from __future__ import annotations

import struct

from solders.instruction import Instruction
from solders.pubkey import Pubkey

from lasersell_sync.sandbox.chain.addresses import TOKEN_PROGRAM
from lasersell_sync.sandbox.chain.instructions import (
    TOKEN_GET_ACCOUNT_DATA_SIZE,
    TOKEN_INITIALIZE_ACCOUNT_3,
    TOKEN_INITIALIZE_IMMUTABLE_OWNER,
    create_account,
    transfer,
)
from lasersell_sync.sandbox.chain.ledger import TOKEN_ACCOUNT_BYTES, token_address
from lasersell_sync.sandbox.chain.runtime import Invocation, ProgramError
from lasersell_sync.sandbox.markets.listings import readonly, writable

_IMMUTABLE_OWNER = struct.pack("<H", 7)


def execute(invocation: Invocation) -> None:
    """Run one instruction. Raises ``ProgramError``."""
    if invocation.data not in (b"", b"\x00", b"\x01"):
        raise ProgramError("InvalidInstructionData")
    idempotent = invocation.data == b"\x01"
    payer = invocation.address(0, signer=True, writable=True)
    address = invocation.address(1, writable=True)
    owner, mint = invocation.address(2), invocation.address(3)
    if invocation.address(5) != TOKEN_PROGRAM:
        raise ProgramError("IncorrectProgramId")  # Token-2022 is not traded here
    if token_address(owner, mint) != address:
        raise ProgramError("InvalidSeeds")
    if invocation.ledger.mint(mint) is None:
        raise ProgramError("InvalidAccountData")
    if invocation.ledger.token_account(address) is not None:
        if idempotent:
            return
        raise ProgramError("IllegalOwner")
    _create(invocation, payer, address, owner, mint)


def _create(invocation: Invocation, payer: Pubkey, address: Pubkey, owner: Pubkey, mint: Pubkey) -> None:
    size_question = bytes([TOKEN_GET_ACCOUNT_DATA_SIZE]) + _IMMUTABLE_OWNER
    invocation.call(Instruction(TOKEN_PROGRAM, size_question, [readonly(mint)]))
    _allocate(invocation, payer, address)
    immutable = bytes([TOKEN_INITIALIZE_IMMUTABLE_OWNER])
    invocation.call(Instruction(TOKEN_PROGRAM, immutable, [writable(address)]))
    initialize = bytes([TOKEN_INITIALIZE_ACCOUNT_3]) + bytes(owner)
    invocation.call(Instruction(TOKEN_PROGRAM, initialize, [writable(address), readonly(mint)]))


def _allocate(invocation: Invocation, payer: Pubkey, address: Pubkey) -> None:
    rent_lamports = invocation.ledger.rent_lamports(TOKEN_ACCOUNT_BYTES)
    present = invocation.ledger.lamports(address)
    if present:
        # Somebody has sent lamports there before: only what is missing is paid.
        if present < rent_lamports:
            invocation.call(transfer(payer, address, rent_lamports - present))
        invocation.ledger.allocate(address, space=TOKEN_ACCOUNT_BYTES, owner=TOKEN_PROGRAM)
        return
    create = create_account(payer, address, rent_lamports, space=TOKEN_ACCOUNT_BYTES, owner=TOKEN_PROGRAM)
    invocation.call(create, signed_for=[address])
