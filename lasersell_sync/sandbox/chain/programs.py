"""The programs of the chain, and Solana's own System and Associated Token Account programs."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping

from solders.instruction import Instruction
from solders.pubkey import Pubkey

from lasersell_sync.sandbox.chain import token_program
from lasersell_sync.sandbox.chain.addresses import (
    ASSOCIATED_TOKEN_PROGRAM,
    COMPUTE_BUDGET_PROGRAM,
    SYSTEM_PROGRAM,
    TOKEN_PROGRAM,
)
from lasersell_sync.sandbox.chain.instructions import (
    SYSTEM_CREATE_ACCOUNT,
    SYSTEM_TRANSFER,
    TOKEN_GET_ACCOUNT_DATA_SIZE,
    TOKEN_INITIALIZE_ACCOUNT_3,
    TOKEN_INITIALIZE_IMMUTABLE_OWNER,
    create_account,
    readonly,
    transfer,
    writable,
)
from lasersell_sync.sandbox.chain.ledger import TOKEN_ACCOUNT_BYTES, InsufficientFunds, token_address
from lasersell_sync.sandbox.chain.runtime import Invocation, ProgramError, custom

Execute = Callable[[Invocation], None]


class Programs:
    """Every program of the chain. Stateless; safe wherever the ledger is.

    Args:
        others: What executes an instruction of each program that is not Solana's own.
    """

    def __init__(self, others: Mapping[Pubkey, Execute]) -> None:
        self._table: dict[Pubkey, Execute] = {
            SYSTEM_PROGRAM: execute_system,
            COMPUTE_BUDGET_PROGRAM: _compute_budget,
            TOKEN_PROGRAM: token_program.execute,
            ASSOCIATED_TOKEN_PROGRAM: execute_associated_token,
            **others,
        }

    def knows(self, program: Pubkey) -> bool:
        """Whether the program exists here."""
        return program in self._table

    def execute(self, program: Pubkey, invocation: Invocation) -> None:
        """Run one instruction. Raises ``ProgramError``; the caller takes the ledger back."""
        self._table[program](invocation)


def _compute_budget(_invocation: Invocation) -> None:
    """Nothing is left to do: what these instructions ask for is read before anything runs (``compute_budget.py``)."""


_ACCOUNT_ALREADY_IN_USE = 0
_NEGATIVE_LAMPORTS = 1


def execute_system(invocation: Invocation) -> None:
    """Run one instruction. Raises ``ProgramError``."""
    if len(invocation.data) < 4:
        raise ProgramError("InvalidInstructionData")
    (tag,) = struct.unpack_from("<I", invocation.data)
    if tag == SYSTEM_TRANSFER and len(invocation.data) >= 12:
        _system_transfer(invocation)
    elif tag == SYSTEM_CREATE_ACCOUNT and len(invocation.data) >= 52:
        _create_account(invocation)
    else:
        raise ProgramError("InvalidInstructionData")  # the sandbox has no other System instruction


def _system_transfer(invocation: Invocation) -> None:
    (amount_lamports,) = struct.unpack_from("<Q", invocation.data, 4)
    source = invocation.address(0, signer=True, writable=True)
    target = invocation.address(1, writable=True)
    if invocation.ledger.token_account(source) is not None:
        raise ProgramError("InvalidArgument")  # `from` must not carry data
    _move_lamports(invocation, source, target, amount_lamports)


def _create_account(invocation: Invocation) -> None:
    lamports, space, owner = struct.unpack_from("<QQ32s", invocation.data, 4)
    payer = invocation.address(0, signer=True, writable=True)
    address = invocation.address(1, signer=True, writable=True)
    ledger = invocation.ledger
    if ledger.lamports(address) or ledger.token_account(address) is not None or ledger.allocated(address) is not None:
        raise custom(_ACCOUNT_ALREADY_IN_USE)
    _move_lamports(invocation, payer, address, lamports)
    ledger.allocate(address, space=space, owner=Pubkey.from_bytes(owner))


def _move_lamports(invocation: Invocation, source: Pubkey, target: Pubkey, lamports: int) -> None:
    try:
        invocation.ledger.move_lamports(source, target, lamports)
    except InsufficientFunds as error:
        raise custom(_NEGATIVE_LAMPORTS) from error


_IMMUTABLE_OWNER = struct.pack("<H", 7)


def execute_associated_token(invocation: Invocation) -> None:
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
