"""Version 1 transactions: solders' own (an independent reader), and bytes that are almost one."""

from __future__ import annotations

import base64
import random
import struct

import pytest
from hypothesis import given
from solders.hash import Hash
from solders.keypair import Keypair
from solders.message import MessageV1, TransactionConfig, to_bytes_versioned
from solders.transaction import VersionedTransaction

from lasersell_sync.exceptions import TxSubmitError
from lasersell_sync.trading.keys.signer import Signer
from lasersell_sync.trading.solana.signing import (
    encode_signed_tx,
    read_signed_tx,
    sign_unsigned_tx,
    sign_unsigned_tx_b64,
    signature_of,
)
from lasersell_sync.trading.solana.tx_codec import (
    SIGNED,
    UNSIGNED,
    TxConfig,
    instructions_of,
    max_transaction_bytes,
    parse,
    signed_bytes,
    v1_config,
)
from tests.support.transactions import MANY, PAYER, b64, unsigned_bytes, v1_messages

KEYS = [bytes(PAYER.pubkey()), *(bytes([number]) * 32 for number in (2, 3, 4))]
BLOCKHASH = bytes([9]) * 32
Item = tuple[int, bytes, bytes]


def v1_bytes(
    *,
    prefix: int = 0x81,
    header: tuple[int, int, int] = (1, 0, 1),
    mask: int = 0,
    values: bytes = b"",
    keys: list[bytes] = KEYS,
    instructions: tuple[Item, ...] = ((3, b"\0\1", b"hi"),),
    signatures: int = 1,
    behind: bytes = b"",
) -> bytes:
    """Written by hand from SIMD-0385, so that what solders cannot write can be written, too."""
    fixed = bytes([prefix, *header]) + struct.pack("<I", mask) + BLOCKHASH + bytes([len(instructions), len(keys)])
    headers = b"".join(
        struct.pack("<BBH", program, len(accounts), len(data)) for program, accounts, data in instructions
    )
    payloads = b"".join(accounts + data for _, accounts, data in instructions)
    return fixed + b"".join(keys) + values + headers + payloads + bytes(64 * signatures) + behind


def refused(raw: bytes) -> TxSubmitError:
    with pytest.raises(TxSubmitError) as caught:
        parse(raw, UNSIGNED)
    assert caught.value.kind == "deserialize_unsigned_tx"
    return caught.value


def test_v1_bytes_written_by_hand_are_what_solders_reads():
    raw = v1_bytes(mask=0b11111, values=struct.pack("<QIII", 7, 8, 9, 64 * 1024))
    parsed, layout = parse(raw, UNSIGNED)
    assert bytes(VersionedTransaction.from_bytes(raw)) == raw
    assert isinstance(parsed.message, MessageV1)
    assert instructions_of(raw, layout) == ([(3, b"\0\1", b"hi")], layout.message_end)
    assert v1_config(raw) == TxConfig(7, 8, 9, 64 * 1024)
    assert layout.blockhash(raw) == BLOCKHASH


@MANY
@given(v1_messages())
def test_v1_config_is_what_solders_reads(message: MessageV1):
    config, theirs = v1_config(unsigned_bytes(message)), message.config
    assert config == TxConfig(
        theirs.priority_fee, theirs.compute_unit_limit, theirs.loaded_accounts_data_size_limit, theirs.heap_size
    )


@MANY
@given(v1_messages())
def test_v1_signing_writes_the_signature_solders_writes(message: MessageV1):
    """By every signing function, with a blank at the end and without."""
    expected = bytes(VersionedTransaction(message, [PAYER]))
    for empty in (False, True):
        text = b64(unsigned_bytes(message, empty_list=empty))
        assert base64.b64decode(sign_unsigned_tx_b64(text, PAYER)) == expected
        assert bytes(sign_unsigned_tx(text, PAYER)) == expected
        assert encode_signed_tx(sign_unsigned_tx(text, PAYER)) == b64(expected)
        assert base64.b64decode(Signer.from_keypair(PAYER).sign(text, guard=None)) == expected


@MANY
@given(v1_messages())
def test_v1_signed_transaction_is_read_for_sending(message: MessageV1):
    """Its name and its blockhash: what it is followed by."""
    signed = VersionedTransaction(message, [PAYER])
    text = b64(bytes(signed))
    read = read_signed_tx(text)
    assert (read.signature, read.blockhash) == (str(signed.signatures[0]), str(message.recent_blockhash))
    assert signature_of(text) == read.signature


def test_v1_unsigned_transaction_is_not_sent():
    for signatures in (0, 1):
        with pytest.raises(TxSubmitError, match="not signed by"):
            read_signed_tx(b64(v1_bytes(signatures=signatures)))


def test_v1_second_signer_is_completed_when_the_other_has_signed():
    """The n-th signature at the end belongs to the n-th account."""
    other = Keypair.from_seed(bytes([5]) * 32)
    keys = [KEYS[0], bytes(other.pubkey()), *KEYS[2:]]
    raw = v1_bytes(header=(2, 0, 1), keys=keys, signatures=2)
    _, layout = parse(raw, UNSIGNED)
    theirs = other.sign_message(layout.message(raw))
    half = raw[:-64] + bytes(theirs)
    signed = sign_unsigned_tx(b64(half), PAYER)
    assert signed.verify_with_results() == [True, True]
    assert parse(bytes(signed), SIGNED)[1].signature(bytes(signed), 1) == bytes(theirs)
    with pytest.raises(TxSubmitError, match=str(other.pubkey())):
        sign_unsigned_tx(b64(raw), PAYER)
    with pytest.raises(TxSubmitError, match="2 signatures are required"):
        sign_unsigned_tx_b64(b64(half), PAYER)
    with pytest.raises(TxSubmitError):
        Signer.from_keypair(PAYER).sign(b64(raw), guard=None)


def test_v1_foreign_keypair_signs_nothing():
    with pytest.raises(TxSubmitError, match="fee payer"):
        sign_unsigned_tx_b64(b64(v1_bytes()), Keypair())
    with pytest.raises(TxSubmitError):
        Signer.from_keypair(Keypair()).sign(b64(v1_bytes()), guard=None)


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(v1_bytes(behind=b"\0"), id="a byte behind"),
        pytest.param(v1_bytes(signatures=2), id="a signature behind"),
        pytest.param(v1_bytes()[:-1], id="cut by one"),
        pytest.param(v1_bytes(signatures=0)[:-1], id="cut payload"),
        pytest.param(v1_bytes()[:42], id="cut behind the counts"),
        pytest.param(v1_bytes()[:41], id="cut between the counts"),
        pytest.param(v1_bytes()[:5], id="cut in the mask"),
        pytest.param(v1_bytes()[:1], id="prefix alone"),
        pytest.param(v1_bytes()[: 42 + 4 * 32 + 2], id="cut in an instruction's header"),
        pytest.param(v1_bytes(mask=1, values=bytes(4)), id="half a priority fee"),
        pytest.param(v1_bytes(mask=2, values=bytes(4)), id="the other half"),
        pytest.param(v1_bytes(mask=1 << 5, values=bytes(4)), id="unknown bit"),
        pytest.param(v1_bytes(mask=1 << 31, values=bytes(4)), id="highest bit"),
        pytest.param(v1_bytes(mask=4), id="value missing"),
        pytest.param(v1_bytes(mask=1 << 4, values=struct.pack("<I", 33_000)), id="odd heap"),
        pytest.param(v1_bytes(keys=[KEYS[0], KEYS[1], KEYS[1], KEYS[3]]), id="account twice"),
        pytest.param(v1_bytes(instructions=((3, b"\0\4", b""),)), id="account out of range"),
        pytest.param(v1_bytes(instructions=((4, b"\0", b""),)), id="program out of range"),
        pytest.param(v1_bytes(instructions=((0, b"\0", b""),)), id="payer is a program"),
        pytest.param(v1_bytes(header=(0, 0, 1), signatures=0), id="no signer"),
        pytest.param(v1_bytes(header=(1, 1, 1)), id="payer is read-only"),
        pytest.param(v1_bytes(header=(3, 0, 2), signatures=3), id="more signers than accounts"),
        pytest.param(v1_bytes(instructions=((3, b"", b""),) * 65), id="65 instructions"),
        pytest.param(v1_bytes(prefix=0x82), id="version 2"),
        pytest.param(v1_bytes(prefix=0xFF), id="version 127"),
        pytest.param(b"\x01" + bytes(64) + v1_bytes(signatures=0), id="signatures first"),
    ],
)
def test_v1_almost_a_transaction_is_refused(raw: bytes):
    refused(raw)


def test_v1_sixty_five_accounts_and_thirteen_signers_are_refused():
    keys = [KEYS[0], *(number.to_bytes(32, "big") for number in range(1, 65))]
    assert parse(v1_bytes(keys=keys[:64]), UNSIGNED)[1].account_count == 64
    refused(v1_bytes(keys=keys))
    assert parse(v1_bytes(header=(12, 0, 1), keys=keys[:20], signatures=12), UNSIGNED)[1].required_signatures == 12
    refused(v1_bytes(header=(13, 0, 1), keys=keys[:20], signatures=13))


def test_v1_version_behind_signatures_says_where_they_belong():
    assert "belong behind it" in refused(b"\x01" + bytes(64) + v1_bytes(signatures=0)).detail


def test_v1_size_counts_missing_signatures():
    with_blank, without = v1_bytes(), v1_bytes(signatures=0)
    for raw in (with_blank, without):
        _, layout = parse(raw, UNSIGNED)
        assert (signed_bytes(raw, layout), max_transaction_bytes(layout)) == (len(with_blank), 4_096)


def test_v1_changed_bytes_never_break_the_parser():
    """Refused as malformed, or exactly what the bytes say."""
    seed = random.SystemRandom().randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)
    message = MessageV1.try_compile(PAYER.pubkey(), [], Hash.new_unique(), TransactionConfig(5, 6, 7, 32768))
    whole = [v1_bytes(mask=0b111, values=bytes(12)), unsigned_bytes(message)]
    taken = 0
    for _ in range(4_000):
        raw = bytearray(chance.choice(whole))
        for _ in range(chance.randint(1, 3)):
            raw[chance.choice([chance.randrange(len(raw)), chance.randrange(42)])] = chance.randrange(256)
        data = bytes(raw)
        try:
            parsed, layout = parse(data, UNSIGNED)
        except TxSubmitError:
            refused(data)
            continue
        taken += 1
        assert layout.message(data) == to_bytes_versioned(parsed.message)
        assert layout.signer(data, 0) == bytes(parsed.message.account_keys[0])
        theirs = [(i.program_id_index, bytes(i.accounts), bytes(i.data)) for i in parsed.message.instructions]
        assert instructions_of(data, layout)[0] == theirs
    assert taken
