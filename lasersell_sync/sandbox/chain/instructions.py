"""Instructions of Solana's own programs, as the exchange API writes them into its transactions."""

from __future__ import annotations

import struct

from solders.instruction import AccountMeta, Instruction
from solders.pubkey import Pubkey
from solders.system_program import TransferParams
from solders.system_program import transfer as system_transfer

from lasersell_sync.sandbox.chain.addresses import ASSOCIATED_TOKEN_PROGRAM, SYSTEM_PROGRAM, TOKEN_PROGRAM
from lasersell_sync.sandbox.chain.ledger import token_address

SYSTEM_CREATE_ACCOUNT = 0
SYSTEM_TRANSFER = 2
TOKEN_TRANSFER = 3
TOKEN_APPROVE = 4
TOKEN_REVOKE = 5
TOKEN_SET_AUTHORITY = 6
TOKEN_CLOSE_ACCOUNT = 9
TOKEN_TRANSFER_CHECKED = 12
TOKEN_SYNC_NATIVE = 17
TOKEN_INITIALIZE_ACCOUNT_3 = 18
TOKEN_GET_ACCOUNT_DATA_SIZE = 21
TOKEN_INITIALIZE_IMMUTABLE_OWNER = 22
#: What ``set_authority`` may change of a token account.
AUTHORITY_OWNER, AUTHORITY_CLOSE = 2, 3

#: A ceiling that all our swaps stay below, and a modest priority price: 10 000 lamports together.
COMPUTE_UNIT_LIMIT = 200_000
COMPUTE_UNIT_PRICE_MICROLAMPORTS = 50_000


def transfer(source: Pubkey, target: Pubkey, amount_lamports: int) -> Instruction:
    """System transfer."""
    return system_transfer(TransferParams(from_pubkey=source, to_pubkey=target, lamports=amount_lamports))


def transferred_lamports(program: Pubkey, data: bytes) -> int | None:
    """What an instruction transfers, if it is a System transfer."""
    if program != SYSTEM_PROGRAM or len(data) < 12 or data[:4] != struct.pack("<I", SYSTEM_TRANSFER):
        return None
    return int.from_bytes(data[4:12], "little")


def create_account(payer: Pubkey, address: Pubkey, lamports: int, *, space: int, owner: Pubkey) -> Instruction:
    """Create an account of a program's; the address signs, or the program that it is derived from signs for it."""
    data = struct.pack("<IQQ32s", SYSTEM_CREATE_ACCOUNT, lamports, space, bytes(owner))
    return Instruction(SYSTEM_PROGRAM, data, [signer(payer), signer(address)])


def create_token_account(owner: Pubkey, mint: Pubkey) -> Instruction:
    """Create the owner's associated token account unless it exists; the owner pays its rent."""
    accounts = [
        signer(owner),
        writable(token_address(owner, mint)),
        readonly(owner),
        readonly(mint),
        readonly(SYSTEM_PROGRAM),
        readonly(TOKEN_PROGRAM),
    ]
    return Instruction(ASSOCIATED_TOKEN_PROGRAM, b"\x01", accounts)


def sync_native(token_account: Pubkey) -> Instruction:
    """Count the lamports of a wrapped-SOL account as tokens."""
    return Instruction(TOKEN_PROGRAM, bytes([TOKEN_SYNC_NATIVE]), [writable(token_account)])


def close_token_account(token_account: Pubkey, owner: Pubkey) -> Instruction:
    """Close a token account; its lamports go to its owner."""
    accounts = [writable(token_account), writable(owner), signer(owner)]
    return Instruction(TOKEN_PROGRAM, bytes([TOKEN_CLOSE_ACCOUNT]), accounts)


def transfer_checked(
    source: Pubkey, mint: Pubkey, target: Pubkey, *, owner: Pubkey, amount: int, decimals: int
) -> Instruction:
    """Move tokens; the program compares mint and decimals."""
    authority = AccountMeta(owner, is_signer=True, is_writable=False)
    data = struct.pack("<BQB", TOKEN_TRANSFER_CHECKED, amount, decimals)
    return Instruction(TOKEN_PROGRAM, data, [writable(source), readonly(mint), writable(target), authority])


def signer(address: Pubkey) -> AccountMeta:
    """An account that signs and pays."""
    return AccountMeta(address, is_signer=True, is_writable=True)


def writable(address: Pubkey) -> AccountMeta:
    """An account the instruction changes."""
    return AccountMeta(address, is_signer=False, is_writable=True)


def readonly(address: Pubkey) -> AccountMeta:
    """An account the instruction reads or calls."""
    return AccountMeta(address, is_signer=False, is_writable=False)
