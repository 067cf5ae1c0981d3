"""Unsigned transactions of every shape, made by solders: what the signer is held against."""

from __future__ import annotations

import base64

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from solders.address_lookup_table_account import AddressLookupTableAccount
from solders.hash import Hash
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.message import Message, MessageV0, MessageV1, TransactionConfig, to_bytes_versioned
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.transaction import VersionedTransaction

from tests.support.examples import examples

PAYER = Keypair.from_seed(bytes(range(32)))

#: No time decides on a busy machine.
MANY = settings(max_examples=examples(60), deadline=None, suppress_health_check=list(HealthCheck))

AnyMessage = Message | MessageV0 | MessageV1

# Few enough that accounts and programs repeat; PAYER's is not among them, for a payer must not be a program.
_keys = st.integers(0, 300).map(lambda number: Pubkey.from_bytes(number.to_bytes(32, "big")))
_accounts = st.builds(
    AccountMeta, st.one_of(_keys, st.just(PAYER.pubkey())), is_signer=st.just(False), is_writable=st.booleans()
)
_instructions = st.builds(Instruction, _keys, st.binary(max_size=200), st.lists(_accounts, max_size=20))


_configs = st.builds(
    TransactionConfig,
    st.none() | st.integers(0, 2**64 - 1),
    st.none() | st.integers(0, 2**32 - 1),
    st.none() | st.integers(0, 2**32 - 1),
    st.none() | st.integers(32, 256).map(lambda pages: pages * 1024),
)


@st.composite
def v1_messages(draw: st.DrawFn) -> MessageV1:
    """Version 1 messages that only ``PAYER`` signs, of up to 64 accounts."""
    instructions = draw(st.lists(_instructions, max_size=3))
    blockhash = Hash.from_bytes(draw(st.binary(min_size=32, max_size=32)))
    return MessageV1.try_compile(PAYER.pubkey(), instructions, blockhash, draw(_configs))


@st.composite
def messages(draw: st.DrawFn) -> AnyMessage:
    """Messages of every version that only ``PAYER`` signs; version 0 with up to two look-up tables."""
    if draw(st.integers(0, 2)) == 2:
        return draw(v1_messages())
    instructions = draw(st.lists(_instructions, max_size=8))
    blockhash = Hash.from_bytes(draw(st.binary(min_size=32, max_size=32)))
    if draw(st.booleans()):
        return Message.new_with_blockhash(instructions, PAYER.pubkey(), blockhash)
    listed = [account.pubkey for instruction in instructions for account in instruction.accounts]
    tables = [
        AddressLookupTableAccount(draw(_keys), [*draw(st.lists(_keys, max_size=4)), *listed[start::3]])
        for start in range(draw(st.integers(0, 2)))
    ]
    return MessageV0.try_compile(PAYER.pubkey(), instructions, tables, blockhash)


def unsigned_bytes(message: AnyMessage, *, empty_list: bool = False) -> bytes:
    """The message with a blank for every signature, or with none, as some builders leave it."""
    blanks = [] if empty_list else [Signature.default()] * message.header.num_required_signatures
    return bytes(VersionedTransaction.populate(message, blanks))


def message_bytes(message: AnyMessage) -> bytes:
    """What is signed, by solders."""
    return to_bytes_versioned(message)


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
