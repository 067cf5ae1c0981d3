"""Accounts as a node shows them: lamports, owner, data, whether they are programs.

The data of wallets, mints, token accounts and address look-up tables is what the real programs keep there, byte for
byte. Pools and bonding curves are shown without data.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from solders.pubkey import Pubkey

from lasersell_sync.sandbox.chain.addresses import SYSTEM_PROGRAM, TOKEN_PROGRAM, WRAPPED_SOL_MINT
from lasersell_sync.sandbox.chain.compute_budget import BUILTIN_PROGRAMS
from lasersell_sync.sandbox.chain.ledger import (
    LOOKUP_TABLE_PROGRAM,
    TOKEN_ACCOUNT_BYTES,
    Ledger,
    LedgerAt,
    Mint,
    TokenAccount,
)

_NATIVE_LOADER = Pubkey.from_string("NativeLoader1111111111111111111111111111111")
_PROGRAM_LOADER = Pubkey.from_string("BPFLoaderUpgradeab1e11111111111111111111111")
_MINT_BYTES = 82
_PROGRAM_LAMPORTS = 1_141_440


@dataclass(frozen=True, slots=True)
class AccountInfo:
    """One account. ``token`` or ``mint`` is what the data says, where it says one of these."""

    lamports: int
    owner: Pubkey
    data: bytes
    executable: bool = False
    token: TokenAccount | None = None
    mint: Mint | None = None


def account_info(ledger: Ledger | LedgerAt, address: Pubkey, *, program: bool) -> AccountInfo | None:
    """The account at an address; None where there is nothing. ``program``: a program lives there."""
    lamports = ledger.lamports(address)
    if program:
        loader = _NATIVE_LOADER if address in BUILTIN_PROGRAMS else _PROGRAM_LOADER
        return AccountInfo(max(lamports, _PROGRAM_LAMPORTS), loader, b"", executable=True)
    token, mint = ledger.token_account(address), ledger.mint(address)
    if token is not None:
        return AccountInfo(
            lamports,
            TOKEN_PROGRAM,
            token_account_bytes(token, reserve_lamports=ledger.rent_lamports(TOKEN_ACCOUNT_BYTES)),
            token=token,
        )
    if mint is not None:
        return AccountInfo(
            max(lamports, ledger.rent_lamports(_MINT_BYTES)), TOKEN_PROGRAM, _mint_bytes(mint), mint=mint
        )
    table = ledger.lookup_table(address)
    if table is not None:
        return AccountInfo(lamports, LOOKUP_TABLE_PROGRAM, table.data)
    allocated = ledger.allocated(address)
    if allocated is not None:
        space, owner = allocated
        return AccountInfo(lamports, owner, bytes(space))
    return AccountInfo(lamports, SYSTEM_PROGRAM, b"") if lamports else None


def token_account_bytes(account: TokenAccount, *, reserve_lamports: int) -> bytes:
    """The 165 bytes of an initialized account; one of wrapped SOL names the lamports that are no tokens."""
    native = account.mint == WRAPPED_SOL_MINT
    return struct.pack(
        "<32s32sQ36sB4sQQ36s",
        bytes(account.mint),
        bytes(account.owner),
        account.amount,
        _optional_key(account.delegate),
        1,
        struct.pack("<I", 1 if native else 0),
        reserve_lamports if native else 0,
        account.delegated_amount,
        _optional_key(account.close_authority),
    )


def _optional_key(key: Pubkey | None) -> bytes:
    return bytes(36) if key is None else struct.pack("<I", 1) + bytes(key)


def _mint_bytes(mint: Mint) -> bytes:
    """The 82 bytes of an initialized mint that nobody can mint from or freeze any more."""
    return struct.pack("<4x32xQBB4x32x", mint.supply, mint.decimals, 1)
