"""The three transaction formats: what is read from bytes, and what is refused. solders reads the same bytes."""

from __future__ import annotations

import random

import pytest
from solders.hash import Hash
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.message import Message, MessageV0, MessageV1, TransactionConfig, to_bytes_versioned
from solders.transaction import VersionedTransaction

from lasersell_sync.sandbox.chain.transactions import (
    BudgetHeader,
    Transaction,
    compile_v1,
    of_solders,
    read_transaction,
    unsigned_bytes,
)

PAYER = Keypair.from_seed(bytes([7]) * 32)
OTHER = Keypair.from_seed(bytes([8]) * 32)
BLOCKHASH = Hash(bytes(range(32)))


def instructions(rng: random.Random, count: int) -> list[Instruction]:
    keys = [Keypair.from_seed(rng.randbytes(32)).pubkey() for _ in range(6)]
    made = []
    for _ in range(count):
        accounts = [
            AccountMeta(key, is_signer=False, is_writable=rng.random() < 0.5)
            for key in rng.sample(keys, rng.randrange(1, 5))
        ]
        accounts.append(AccountMeta(OTHER.pubkey(), is_signer=True, is_writable=rng.random() < 0.5))
        made.append(Instruction(rng.choice(keys), rng.randbytes(rng.randrange(300)), accounts))
    return made


def flags(transaction: Transaction) -> dict[object, tuple[bool, bool]]:
    return {meta.pubkey: (meta.is_signer, meta.is_writable) for meta in transaction.metas()}


@pytest.mark.parametrize("seed", range(20))
def test_read_transaction_of_solders_v1_says_the_same(seed: int) -> None:
    """Bytes that solders wrote are read with its accounts, data, budget and signatures, which hold."""
    rng = random.Random(seed)
    config = TransactionConfig(
        priority_fee=rng.choice([None, 2**63]),
        compute_unit_limit=rng.choice([None, 200_000]),
        loaded_accounts_data_size_limit=rng.choice([None, 9]),
        heap_size=rng.choice([None, 65_536]),
    )
    message = MessageV1.try_compile(PAYER.pubkey(), instructions(rng, rng.randrange(1, 6)), BLOCKHASH, config)
    signed = VersionedTransaction(message, [PAYER, OTHER])
    read = read_transaction(bytes(signed))
    assert read == of_solders(signed)
    assert (read.version, read.verified(), read.message_bytes) == (1, True, to_bytes_versioned(message))
    assert read.budget == BudgetHeader(
        config.priority_fee, config.compute_unit_limit, config.loaded_accounts_data_size_limit, config.heap_size
    )
    assert list(read.keys) == message.account_keys
    assert [(item.program_index, item.accounts, item.data) for item in read.instructions] == [
        (item.program_id_index, bytes(item.accounts), bytes(item.data)) for item in message.instructions
    ]


@pytest.mark.parametrize("seed", range(20))
def test_compile_v1_is_read_by_solders_with_the_same_flags(seed: int) -> None:
    """What we write, solders reads: the same accounts with the same flags, and a message that can be signed."""
    rng = random.Random(seed)
    parts = instructions(rng, rng.randrange(1, 6))
    budget = BudgetHeader(rng.choice([None, 5]), rng.choice([None, 6]), rng.choice([None, 7]), rng.choice([None, 8]))
    raw = unsigned_bytes(compile_v1(PAYER.pubkey(), parts, BLOCKHASH, budget))
    theirs = VersionedTransaction.from_bytes(raw)
    assert isinstance(theirs.message, MessageV1)
    assert theirs.message.config.priority_fee == budget.priority_fee_lamports
    signed = VersionedTransaction(theirs.message, [PAYER, OTHER])
    legacy = of_solders(
        VersionedTransaction(Message.new_with_blockhash(parts, PAYER.pubkey(), BLOCKHASH), [PAYER, OTHER])
    )
    assert flags(read_transaction(bytes(signed))) == flags(legacy)
    assert read_transaction(bytes(signed)).verified()


def test_read_transaction_damaged_v1_raises_value_error_or_differs() -> None:
    """A byte changed, cut or added is an error, or another transaction; never the same one, and never another error."""
    rng = random.Random(5)
    message = MessageV1.try_compile(
        PAYER.pubkey(), instructions(rng, 3), BLOCKHASH, TransactionConfig(heap_size=65_536)
    )
    raw = bytes(VersionedTransaction(message, [PAYER, OTHER]))
    whole = read_transaction(raw)
    for _ in range(3_000):
        damaged = bytearray(raw)
        how = rng.randrange(3)
        if how == 0:
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        elif how == 1:
            del damaged[rng.randrange(len(damaged)) :]
        else:
            damaged += rng.randbytes(rng.randrange(1, 70))
        try:
            read = read_transaction(bytes(damaged))
        except ValueError:
            continue
        assert read != whole, f"seed 5, {damaged.hex()}"
        assert not (read.verified() and read.version == 1)


def test_read_transaction_bytes_left_over_raises_value_error() -> None:
    """Legacy and version 0 end with their message."""
    message = MessageV0.try_compile(PAYER.pubkey(), [], [], BLOCKHASH)
    raw = bytes(VersionedTransaction(message, [PAYER]))
    assert read_transaction(raw).version == 0
    for wrong in (raw + b"\x00", raw[:-1], b"", b"\x81"):
        with pytest.raises(ValueError, match=r"."):
            read_transaction(wrong)
