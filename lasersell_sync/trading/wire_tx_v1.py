"""Version 1 transactions (SIMD-0385): where their parts lie, their instructions, and the limits that they set.

The first byte is 0x81. The message has fixed places up to its addresses; behind them stand the values of the config
mask, a header of four bytes for every instruction, then accounts and data of each. The signatures follow the message.
There are no look-up tables, and Compute Budget instructions are ignored by the network.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

__all__ = ["V1", "V1_MAX_BYTES", "V1_PREFIX", "TxConfig", "V1Places", "v1_config", "v1_instructions", "v1_places"]

V1: Final = 1
V1_PREFIX: Final = 0x81
V1_MAX_BYTES: Final = 4_096
_HEADER_AT: Final = 1
_MASK_AT: Final = 4
_BLOCKHASH_AT: Final = 8
_INSTRUCTION_COUNT_AT: Final = 40
_ACCOUNT_COUNT_AT: Final = 41
_ACCOUNTS_AT: Final = 42
_PUBKEY_BYTES: Final = 32
#: Of the config mask: two bits for eight bytes, then one bit for four bytes each.
_PRIORITY_FEE: Final = 0b11
_UNIT_LIMIT: Final = 1 << 2
_LOADED_BYTES: Final = 1 << 3
_HEAP_BYTES: Final = 1 << 4

_U32: Final = struct.Struct("<I")
_U64: Final = struct.Struct("<Q")
#: Program, number of accounts, bytes of data.
_HEADER: Final = struct.Struct("<BBH")


class V1Places(NamedTuple):
    """Where the parts of a message lie, in bytes from its start."""

    required_signatures: int
    blockhash_at: int
    accounts_at: int
    account_count: int
    message_end: int


class TxConfig(NamedTuple):
    """What a version 1 transaction sets for itself; None: not set, and the network takes its least.

    Attributes:
        priority_fee_lamports: in total, not a price; not set: 0.
        unit_limit: compute units; not set: 0.
        loaded_accounts_bytes: the most account data that may be loaded; not set: 0.
        heap_bytes: not set: 32,768.
    """

    priority_fee_lamports: int | None
    unit_limit: int | None
    loaded_accounts_bytes: int | None
    heap_bytes: int | None


def v1_config(raw: bytes) -> TxConfig:
    """Of a sound transaction."""
    mask = _U32.unpack_from(raw, _MASK_AT)[0]
    at = _ACCOUNTS_AT + raw[_ACCOUNT_COUNT_AT] * _PUBKEY_BYTES
    fee = None
    if mask & _PRIORITY_FEE:
        fee = _U64.unpack_from(raw, at)[0]
        at += _U64.size
    values: list[int | None] = []
    for bit in (_UNIT_LIMIT, _LOADED_BYTES, _HEAP_BYTES):
        values.append(_U32.unpack_from(raw, at)[0] if mask & bit else None)
        at += _U32.size if mask & bit else 0
    return TxConfig(fee, *values)


def v1_places(raw: bytes) -> V1Places:
    """Where things must lie, if this is a version 1 transaction.

    Raises:
        IndexError: it is none: the bytes end before.
    """
    headers_at, payloads_at = _headers(raw)
    if payloads_at > len(raw):
        raise IndexError
    payloads = sum(accounts + data for _, accounts, data in _HEADER.iter_unpack(raw[headers_at:payloads_at]))
    return V1Places(raw[_HEADER_AT], _BLOCKHASH_AT, _ACCOUNTS_AT, raw[_ACCOUNT_COUNT_AT], payloads_at + payloads)


def v1_instructions(raw: bytes) -> list[tuple[int, bytes, bytes]]:
    """Of a sound transaction: (program's index, accounts' indices, data) each."""
    headers_at, at = _headers(raw)
    found = []
    for program, accounts, size in _HEADER.iter_unpack(raw[headers_at:at]):
        data_at = at + accounts
        end = data_at + size
        found.append((program, raw[at:data_at], raw[data_at:end]))
        at = end
    return found


def _headers(raw: bytes) -> tuple[int, int]:
    """Where the headers of the instructions begin, and where they end. Raises IndexError: cut short."""
    accounts = raw[_ACCOUNT_COUNT_AT]
    values = int(_U32.unpack_from(raw, _MASK_AT)[0]).bit_count()
    headers_at = _ACCOUNTS_AT + accounts * _PUBKEY_BYTES + values * _U32.size
    return headers_at, headers_at + raw[_INSTRUCTION_COUNT_AT] * _HEADER.size
