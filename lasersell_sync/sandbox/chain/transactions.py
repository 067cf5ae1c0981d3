"""Transactions as they travel: legacy, version 0 and version 1, read from bytes into one form, and written unsigned.

Legacy and version 0 are read by solders. Version 1 (SIMD-0385) is read and written here, so that the sandbox speaks it
whatever version of solders is installed: no look-up tables, the compute budget in a header, signatures at the end.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from solders.address_lookup_table_account import AddressLookupTableAccount
from solders.compute_budget import set_compute_unit_limit, set_compute_unit_price
from solders.hash import Hash
from solders.instruction import AccountMeta, Instruction
from solders.message import Message, MessageV0, to_bytes_versioned
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.transaction import VersionedTransaction

from lasersell_sync.sandbox.chain.instructions import COMPUTE_UNIT_PRICE_MICROLAMPORTS

#: Legacy and version 0 travel in one packet.
MAX_PACKET_BYTES = 1_232
MAX_V1_BYTES = 4_096

_V1 = 0x81
_V1_MOST = 64
_V1_FIXED = struct.Struct("<BBBBI32sBB")
_V1_HEADER = struct.Struct("<BBH")
_KEY_BYTES, _SIGNATURE_BYTES = 32, 64
#: A priority fee takes two bits and eight bytes; every other value one bit and four.
_PRIORITY_BITS, _LIMIT_BIT, _SIZE_BIT, _HEAP_BIT = 0b11, 0b100, 0b1000, 0b10000
_ALL_BITS = 0b11111


@dataclass(frozen=True, slots=True)
class CompiledInstruction:
    """One instruction: indexes into the transaction's accounts, and data."""

    program_index: int
    accounts: bytes
    data: bytes


@dataclass(frozen=True, slots=True)
class TableLookup:
    """Accounts that a version 0 transaction takes out of an address look-up table."""

    table: Pubkey
    writable: bytes
    readonly: bytes


@dataclass(frozen=True, slots=True)
class BudgetHeader:
    """The compute budget of version 1; None: not set. ``priority_fee_lamports`` is a total, not a price."""

    priority_fee_lamports: int | None = None
    unit_limit: int | None = None
    loaded_accounts_bytes: int | None = None
    heap_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Transaction:
    """A transaction of any version. ``keys`` are those written in it, without what its look-ups add."""

    version: Literal["legacy", 0, 1]
    signatures: tuple[Signature, ...]
    required_signatures: int
    readonly_signed: int
    readonly_unsigned: int
    keys: tuple[Pubkey, ...]
    blockhash: Hash
    instructions: tuple[CompiledInstruction, ...]
    lookups: tuple[TableLookup, ...]
    #: what is signed
    message_bytes: bytes
    budget: BudgetHeader | None = None

    @property
    def signature(self) -> Signature:
        """The first signature, which names the transaction."""
        return self.signatures[0]

    @property
    def payer(self) -> Pubkey:
        """Who pays the fee."""
        return self.keys[0]

    def metas(self) -> list[AccountMeta]:
        """The accounts written in it, with their flags."""
        first_readonly_signer = self.required_signatures - self.readonly_signed
        first_readonly = len(self.keys) - self.readonly_unsigned
        metas = []
        for index, key in enumerate(self.keys):
            signs = index < self.required_signatures
            writable = index < (first_readonly_signer if signs else first_readonly)
            metas.append(AccountMeta(key, is_signer=signs, is_writable=writable))
        return metas

    def verified(self) -> bool:
        """Whether every required signature is that account's over this message."""
        return all(
            signature.verify(key, self.message_bytes)
            for signature, key in zip(self.signatures, self.keys, strict=False)
        )


def read_transaction(raw: bytes) -> Transaction:
    """Read a transaction's bytes, all of them. Raises ValueError for what is not one, or contradicts itself."""
    if raw[:1] == bytes([_V1]):
        return _read_v1(raw)
    transaction = VersionedTransaction.from_bytes(raw)
    if bytes(transaction) != raw:
        raise ValueError("bytes left over")
    return of_solders(transaction)


def of_solders(transaction: VersionedTransaction) -> Transaction:
    """A transaction that solders holds. Raises ValueError for one that contradicts itself."""
    message = transaction.message
    if not isinstance(message, (Message, MessageV0)):
        return _read_v1(bytes(transaction))
    try:
        transaction.sanitize()
    except Exception as error:  # solders has its own exception type here
        raise ValueError(f"failed to sanitize accounts offsets correctly: {error}") from error
    header = message.header
    if len(transaction.signatures) != header.num_required_signatures or not transaction.signatures:
        raise ValueError(f"{len(transaction.signatures)} signatures, {header.num_required_signatures} required")
    lookups = message.address_table_lookups if isinstance(message, MessageV0) else []
    return Transaction(
        0 if isinstance(message, MessageV0) else "legacy",
        tuple(transaction.signatures),
        header.num_required_signatures,
        header.num_readonly_signed_accounts,
        header.num_readonly_unsigned_accounts,
        tuple(message.account_keys),
        message.recent_blockhash,
        tuple(
            CompiledInstruction(item.program_id_index, bytes(item.accounts), bytes(item.data))
            for item in message.instructions
        ),
        tuple(
            TableLookup(item.account_key, bytes(item.writable_indexes), bytes(item.readonly_indexes))
            for item in lookups
        ),
        to_bytes_versioned(message),
    )


def unsigned_bytes(transaction: bytes | VersionedTransaction) -> bytes:
    """A message with room for its signatures: solders' for legacy and version 0, bytes of ``compile_v1`` for 1."""
    if isinstance(transaction, VersionedTransaction):
        return bytes(transaction)
    return transaction + bytes(_SIGNATURE_BYTES * transaction[1])


# -- version 1


def compile_v1(
    payer: Pubkey, instructions: Sequence[Instruction], blockhash: Hash, budget: BudgetHeader | None = None
) -> bytes:
    """The message of a version 1 transaction. Raises ValueError if it has too many accounts or instructions."""
    metas = _merged(payer, instructions)
    keys = [meta.pubkey for meta in metas]
    if len(keys) > _V1_MOST or len(instructions) > _V1_MOST:
        raise ValueError(f"version 1 has at most {_V1_MOST} accounts and instructions")
    signed = [meta for meta in metas if meta.is_signer]
    mask, values = _packed_budget(budget or BudgetHeader())
    fixed = _V1_FIXED.pack(
        _V1,
        len(signed),
        sum(not meta.is_writable for meta in signed),
        sum(not meta.is_writable for meta in metas if not meta.is_signer),
        mask,
        bytes(blockhash),
        len(instructions),
        len(keys),
    )
    headers, payloads = [], []
    for instruction in instructions:
        accounts = bytes(keys.index(meta.pubkey) for meta in instruction.accounts)
        data = bytes(instruction.data)
        headers.append(_V1_HEADER.pack(keys.index(instruction.program_id), len(accounts), len(data)))
        payloads.append(accounts + data)
    return b"".join([fixed, *map(bytes, keys), values, *headers, *payloads])


def _merged(payer: Pubkey, instructions: Sequence[Instruction]) -> list[AccountMeta]:
    """Every account once, with the strongest flags that are asked for: signers first, writable ones first."""
    flags: dict[Pubkey, tuple[bool, bool]] = {payer: (True, True)}
    for instruction in instructions:
        for meta in instruction.accounts:
            signs, writes = flags.get(meta.pubkey, (False, False))
            flags[meta.pubkey] = (signs or meta.is_signer, writes or meta.is_writable)
        flags.setdefault(instruction.program_id, (False, False))
    ordered = sorted(flags.items(), key=lambda item: (not item[1][0], not item[1][1]))
    return [AccountMeta(key, is_signer=signs, is_writable=writes) for key, (signs, writes) in ordered]


def _packed_budget(budget: BudgetHeader) -> tuple[int, bytes]:
    mask, values = 0, b""
    if budget.priority_fee_lamports is not None:
        mask, values = _PRIORITY_BITS, struct.pack("<Q", budget.priority_fee_lamports)
    singles = (
        (_LIMIT_BIT, budget.unit_limit),
        (_SIZE_BIT, budget.loaded_accounts_bytes),
        (_HEAP_BIT, budget.heap_bytes),
    )
    for bit, value in singles:
        if value is not None:
            mask, values = mask | bit, values + struct.pack("<I", value)
    return mask, values


def _read_v1(raw: bytes) -> Transaction:
    try:
        return _parsed_v1(raw)
    except (struct.error, IndexError) as error:
        raise ValueError("a version 1 transaction that ends too early") from error


def _parsed_v1(raw: bytes) -> Transaction:
    if len(raw) > MAX_V1_BYTES:
        raise ValueError(f"a version 1 transaction has at most {MAX_V1_BYTES} bytes")
    _, required, readonly_signed, readonly_unsigned, mask, blockhash, count, key_count = _V1_FIXED.unpack_from(raw)
    at = _V1_FIXED.size
    if not 0 < required <= key_count or readonly_signed >= required or readonly_unsigned > key_count - required:
        raise ValueError("the header contradicts the number of accounts")
    if count > _V1_MOST or key_count > _V1_MOST:
        raise ValueError(f"version 1 has at most {_V1_MOST} accounts and instructions")
    keys = tuple(Pubkey.from_bytes(_cut(raw, at + n * _KEY_BYTES, _KEY_BYTES)) for n in range(key_count))
    budget, at = _read_budget(raw, mask, at + key_count * _KEY_BYTES)
    headers = [_V1_HEADER.unpack_from(raw, at + n * _V1_HEADER.size) for n in range(count)]
    at += count * _V1_HEADER.size
    instructions = []
    for program_index, account_count, data_length in headers:
        accounts = _cut(raw, at, account_count)
        data = _cut(raw, at + account_count, data_length)
        at += account_count + data_length
        if program_index == 0 or max((program_index, *accounts)) >= key_count:
            raise ValueError("an instruction names an account that is not there")
        instructions.append(CompiledInstruction(program_index, accounts, data))
    if len(raw) - at != required * _SIGNATURE_BYTES:
        raise ValueError(f"{required} signatures are required")
    signatures = (_cut(raw, at + n * _SIGNATURE_BYTES, _SIGNATURE_BYTES) for n in range(required))
    return Transaction(
        1,
        tuple(map(Signature.from_bytes, signatures)),
        required,
        readonly_signed,
        readonly_unsigned,
        keys,
        Hash.from_bytes(blockhash),
        tuple(instructions),
        (),
        raw[:at],
        budget,
    )


def _cut(raw: bytes, at: int, length: int) -> bytes:
    piece = raw[at : at + length]
    if len(piece) < length:
        raise IndexError(at)
    return piece


def _read_budget(raw: bytes, mask: int, at: int) -> tuple[BudgetHeader, int]:
    if mask & ~_ALL_BITS or mask & _PRIORITY_BITS not in (0, _PRIORITY_BITS):
        raise ValueError(f"the config mask {mask:#x} is not one of version 1")
    priority_fee_lamports = None
    if mask & _PRIORITY_BITS:
        (priority_fee_lamports,) = struct.unpack_from("<Q", raw, at)
        at += 8
    singles: list[int | None] = []
    for bit in (_LIMIT_BIT, _SIZE_BIT, _HEAP_BIT):
        singles.append(struct.unpack_from("<I", raw, at)[0] if mask & bit else None)
        at += 4 if mask & bit else 0
    return BudgetHeader(priority_fee_lamports, *singles), at


Version = Literal["legacy", 0, 1]
#: What ``Sandbox(transaction_format=…)`` takes, and what it means; None: the seed chooses for each token.
TRANSACTION_FORMATS: Final[dict[str, Version | None]] = {"drawn": None, "legacy": "legacy", "0": 0, "1": 1}


def write_unsigned(
    version: Version,
    user: Pubkey,
    instructions: Sequence[Instruction],
    blockhash: Hash,
    *,
    unit_limit: int,
    table: Callable[[], AddressLookupTableAccount] | None = None,
    uses_table: bool = False,
) -> bytes:
    """A transaction with room for its signatures.

    Args:
        version: Its format. What is too long for a legacy packet is written in version 0.
        user: Who pays and signs.
        instructions: Without those of the compute budget, which is added.
        blockhash: How long it may land.
        unit_limit: The compute units that it may use.
        table: Makes the look-up table that shortens version 0; None: there is none.
        uses_table: Version 0 uses the table even where it fits without.
    """
    if version == 1:
        fee_lamports = -(-unit_limit * COMPUTE_UNIT_PRICE_MICROLAMPORTS // 1_000_000)
        return unsigned_bytes(compile_v1(user, instructions, blockhash, BudgetHeader(fee_lamports, unit_limit)))
    price = set_compute_unit_price(COMPUTE_UNIT_PRICE_MICROLAMPORTS)
    everything = [set_compute_unit_limit(unit_limit), price, *instructions]
    if version == "legacy":
        legacy = _with_room(Message.new_with_blockhash(everything, user, blockhash))
        if len(legacy) <= MAX_PACKET_BYTES:
            return legacy
    tables = [table()] if table is not None and uses_table else []
    raw = _with_room(MessageV0.try_compile(user, everything, tables, blockhash))
    if len(raw) > MAX_PACKET_BYTES and table is not None:
        return _with_room(MessageV0.try_compile(user, everything, [table()], blockhash))
    return raw


def _with_room(message: Message | MessageV0) -> bytes:
    signatures = [Signature.default()] * message.header.num_required_signatures
    return unsigned_bytes(VersionedTransaction.populate(message, signatures))
