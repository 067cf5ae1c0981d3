"""A transaction's bytes: which are taken, that the places found in them are right, and what every refusal says."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from solders.hash import Hash
from solders.instruction import AccountMeta, CompiledInstruction, Instruction
from solders.keypair import Keypair
from solders.message import Message, MessageHeader, MessageV0, MessageV1, to_bytes_versioned
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.transaction import VersionedTransaction

from lasersell_sync.exceptions import TxSubmitError
from lasersell_sync.trading.solana.tx_codec import (
    SIGNED,
    UNSIGNED,
    Origin,
    decode_base64,
    encode_base64,
    instructions_of,
    parse,
)
from tests.support.transactions import MANY, PAYER, AnyMessage, b64, messages, unsigned_bytes

ORIGINS = pytest.mark.parametrize("origin", [UNSIGNED, SIGNED], ids=["unsigned", "signed"])


def refused(raw: bytes, origin: Origin = UNSIGNED) -> TxSubmitError:
    with pytest.raises(TxSubmitError) as caught:
        parse(raw, origin)
    assert caught.value.kind == origin.malformed
    assert caught.value.detail.startswith(f"{origin.field}: ")
    assert caught.value.detail.endswith(origin.remedy)
    return caught.value


def tried(read: Callable[..., Any], data: object) -> Any:
    """What was read, or the refusal."""
    try:
        return read(data, UNSIGNED)
    except TxSubmitError as error:
        return error


def message_of(signers: int, accounts: int = 3, *, legacy: bool = False) -> Message | MessageV0:
    """A message that ``signers`` must sign, ``PAYER`` first, with so many more accounts."""
    metas = [AccountMeta(Keypair().pubkey(), is_signer=True, is_writable=False) for _ in range(signers - 1)]
    metas += [AccountMeta(Keypair().pubkey(), is_signer=False, is_writable=True) for _ in range(accounts)]
    instruction = Instruction(Pubkey.new_unique(), b"\x07", metas)
    if legacy:
        return Message.new_with_blockhash([instruction], PAYER.pubkey(), Hash.new_unique())
    return MessageV0.try_compile(PAYER.pubkey(), [instruction], [], Hash.new_unique())


# ── what is taken ──


@MANY
@given(messages(), st.booleans())
def test_every_part_lies_where_the_layout_says(message: AnyMessage, empty_list: bool):
    """solders' own parts, found in the bytes: the message, the signers, the blockhash, the signatures."""
    raw = unsigned_bytes(message, empty_list=empty_list)
    parsed, layout = parse(raw, UNSIGNED)
    assert parsed.message == message
    assert layout.message(raw) == to_bytes_versioned(message)
    assert layout.blockhash(raw) == bytes(message.recent_blockhash)
    assert layout.account_count == len(message.account_keys)
    assert layout.version == {Message: None, MessageV0: 0, MessageV1: 1}[type(message)]
    assert (layout.signature_count, layout.required_signatures) == (int(not empty_list), 1)
    assert layout.signer(raw, 0) == bytes(PAYER.pubkey())
    if not empty_list:
        assert layout.signature(raw, 0) == bytes(64)


@pytest.mark.parametrize("legacy", [False, True], ids=["v0", "legacy"])
@pytest.mark.parametrize("accounts", [0, 1, 120, 126, 127, 128, 200])
def test_lengths_of_one_and_of_two_bytes_are_read(accounts: int, legacy: bool):
    """A compact-u16 takes a second byte from 128 on; what follows it moves."""
    message = message_of(2, accounts, legacy=legacy)
    raw = unsigned_bytes(message)
    _, layout = parse(raw, UNSIGNED)
    assert [layout.signer(raw, index) for index in range(2)] == [bytes(key) for key in message.account_keys[:2]]


def of_length(data: int, accounts: int) -> MessageV0:
    """One instruction with so much of both."""
    metas = [AccountMeta(PAYER.pubkey(), is_signer=True, is_writable=True)] * accounts
    instruction = Instruction(Pubkey.new_unique(), bytes(data), metas)
    return MessageV0.try_compile(PAYER.pubkey(), [instruction, instruction], [], Hash.new_unique())


@MANY
@example(of_length(127, 128))
@example(of_length(128, 127))
@example(of_length(300, 256))
@given(messages())
def test_instructions_are_those_that_solders_finds(message: AnyMessage):
    """Which program, which accounts and what data, with lengths of one and of two bytes; what follows begins behind."""
    raw = unsigned_bytes(message)
    parsed, layout = parse(raw, UNSIGNED)
    found, end = instructions_of(raw, layout)
    theirs = [(item.program_id_index, bytes(item.accounts), bytes(item.data)) for item in parsed.message.instructions]
    assert found == theirs
    if isinstance(message, MessageV1):
        assert end == layout.message_end == len(raw) - 64
        return
    lookups = getattr(parsed.message, "address_table_lookups", None)
    assert raw[end : end + 1] == (b"" if lookups is None else bytes([len(lookups)]))
    assert bool(lookups) == (raw[end:] not in (b"", b"\0"))


def test_signatures_are_found_by_signer():
    """The n-th signature belongs to the n-th account."""
    message = message_of(3)
    given_ones = [Signature(bytes([number]) * 64) for number in (1, 2, 3)]
    raw = bytes(VersionedTransaction.populate(message, given_ones))
    _, layout = parse(raw, SIGNED)
    assert [layout.signature(raw, index) for index in range(3)] == [bytes(signature) for signature in given_ones]


def test_a_list_that_is_not_full_yet_is_taken():
    """Who signs adds what is missing; it is for the signer to say whose that is."""
    message = message_of(3)
    for count in range(4):
        raw = bytes(VersionedTransaction.populate(message, [Signature.default()] * count))
        assert parse(raw, UNSIGNED)[1].signature_count == count


# ── what is refused ──


@ORIGINS
def test_a_transaction_cut_anywhere_is_refused(origin: Origin):
    """At each byte, legacy and v0: half a transaction is none."""
    for message in (message_of(1, legacy=True), message_of(1), message_of(2)):
        raw = unsigned_bytes(message)
        for length in range(len(raw)):
            refused(raw[:length], origin)


@ORIGINS
@pytest.mark.parametrize("behind", [b"\0", b"\x01", b"\xff", bytes(64), b"\x01" * 300])
def test_bytes_behind_the_transaction_are_refused(behind: bytes, origin: Origin):
    """solders ignores them; signed and sent would be more than was judged. The error tells how long it should be."""
    for legacy in (False, True):
        raw = unsigned_bytes(message_of(1, legacy=legacy))
        assert f"it takes {len(raw)}" in refused(raw + behind, origin).detail


def test_lengths_spelt_longer_than_they_need_are_refused():
    """0x81 0x00 is 1 as well: the same transaction would have two names."""
    raw = unsigned_bytes(message_of(1))
    refused(b"\x81\x00" + raw[1:])
    accounts = 1 + 64 + 1 + 3
    refused(raw[:accounts] + bytes([raw[accounts] | 0x80, 0x00]) + raw[accounts + 1 :])


def test_more_signatures_than_signers_are_refused():
    """The network has no use for the rest, so neither has an honest builder."""
    raw = bytes(VersionedTransaction.populate(message_of(1), [Signature.default()] * 2))
    assert "2 signatures for 1 signers" in refused(raw).detail


@pytest.mark.parametrize(
    "header",
    [
        pytest.param((5, 0, 0), id="more signers than accounts"),
        pytest.param((127, 0, 0), id="127 signers"),
        pytest.param((1, 1, 0), id="a payer that cannot pay"),
        pytest.param((1, 0, 4), id="more read-only accounts than accounts"),
    ],
)
@pytest.mark.parametrize("legacy", [False, True], ids=["v0", "legacy"])
def test_a_header_that_contradicts_the_accounts_is_refused(header: tuple[int, int, int], legacy: bool):
    """It parses, and means nothing."""
    raw = unsigned_bytes(message_of(1, 2, legacy=legacy))
    at = 65 if legacy else 66
    assert "contradicts itself" in refused(raw[:at] + bytes(header) + raw[at + 3 :]).detail


@pytest.mark.parametrize("empty_list", [False, True])
def test_a_transaction_that_nobody_signs_is_refused(empty_list: bool):
    """Then nobody pays for it either."""
    raw = unsigned_bytes(message_of(1), empty_list=empty_list)
    header = 2 if empty_list else 66
    refused(raw[:header] + b"\0" + raw[header + 1 :])


@pytest.mark.parametrize("legacy", [False, True], ids=["v0", "legacy"])
@pytest.mark.parametrize(
    ("program", "account"),
    [(2, 0), (255, 0), (0, 0), (1, 2), (1, 255)],
    ids=["program behind the accounts", "program 255", "the payer as a program", "account behind", "account 255"],
)
def test_an_index_that_points_nowhere_is_refused(program: int, account: int, legacy: bool):
    """The network refuses it; a judge of instructions must not have to think about it."""
    instruction = CompiledInstruction(program, b"", bytes([account]))
    keys = [PAYER.pubkey(), Pubkey.new_unique()]
    header = MessageHeader(1, 0, 1)
    message: Message | MessageV0
    if legacy:
        message = Message.new_with_compiled_instructions(1, 0, 1, keys, Hash.default(), [instruction])
    else:
        message = MessageV0(header, keys, Hash.default(), [instruction], [])
    assert "contradicts itself" in refused(unsigned_bytes(message)).detail


@pytest.mark.parametrize("version", [1, 2, 126, 127])
def test_other_versions_of_the_message_are_refused(version: int):
    """Their bytes may mean something else."""
    raw = unsigned_bytes(message_of(1))
    assert f"version {version}" in refused(raw[:65] + bytes([0x80 | version]) + raw[66:]).detail


@MANY
@given(messages(), st.integers(0, 2**32))
def test_no_bytes_break_the_parser(message: AnyMessage, seed: int):
    """A transaction with some bytes changed is refused as malformed, or is exactly what its bytes say."""
    rand = random.Random(seed)
    raw = bytearray(unsigned_bytes(message))
    for _ in range(rand.randint(1, 4)):
        raw[rand.choice([0, rand.randrange(len(raw)), rand.randrange(65, len(raw))])] = rand.randrange(256)
    data = bytes(raw)
    found = tried(parse, data)
    if isinstance(found, TxSubmitError):
        assert found.kind == "deserialize_unsigned_tx"
        return
    parsed, layout = found
    assert bytes(parsed) == data
    assert layout.message(data) == to_bytes_versioned(parsed.message)
    assert layout.signer(data, 0) == bytes(parsed.message.account_keys[0])


# ── base64 ──


@MANY
@given(st.binary(min_size=1, max_size=100))
def test_base64_comes_back_as_it_went(raw: bytes):
    """The standard library's own spelling, and no other."""
    assert encode_base64(raw) == b64(raw)
    assert decode_base64(b64(raw), UNSIGNED) == raw


@MANY
@given(st.binary(min_size=1, max_size=20), st.integers(0, 2**32))
def test_no_text_but_that_one_gives_these_bytes(raw: bytes, seed: int):
    """One character changed, added or taken away: refused, or other bytes."""
    rand = random.Random(seed)
    text = b64(raw)
    at = rand.randrange(len(text))
    character = rand.choice("ABab01+/=-_ \n\tÄ\0")
    for spoilt in (
        text[:at] + character + text[at + 1 :],
        text[:at] + character + text[at:],
        text[:at] + text[at + 1 :],
    ):
        found = tried(decode_base64, spoilt) if spoilt != text else b""
        if isinstance(found, TxSubmitError):
            assert found.kind == "decode_unsigned_tx"
            assert found.detail.endswith(UNSIGNED.remedy)
        else:
            assert found != raw


@pytest.mark.parametrize("more", ["=", "==", "===", "===="])
def test_decode_base64_with_more_padding_than_needed_raises(more: str):
    """Python's decoder ignores it behind whole groups, whatever it is asked to validate."""
    for text in ("AAAA", "AAA=", "AA=="):
        with pytest.raises(TxSubmitError, match="base64"):
            decode_base64(text + more, UNSIGNED)
