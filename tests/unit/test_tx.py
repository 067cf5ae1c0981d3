"""Signing on this machine: what is signed, what is refused, and that no secret gets into a text."""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import pickle
import random
import traceback
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from solders.hash import Hash
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.message import Message, MessageV0, to_bytes_versioned
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.system_program import TransferParams, transfer
from solders.transaction import Transaction, VersionedTransaction

from lasersell_sync.exceptions import ConfigurationError, TxSubmitError
from lasersell_sync.trading import Signer as Wallet
from lasersell_sync.trading.solana import signing as tx
from lasersell_sync.trading.solana.signing import (
    WalletProof,
    encode_signed_tx,
    prove_ownership,
    sign_unsigned_tx,
    sign_unsigned_tx_b64,
    signature_of,
)
from lasersell_sync.trading.solana.tx_codec import UNSIGNED, parse
from tests.support.transactions import MANY, PAYER, AnyMessage, b64, messages, unsigned_bytes

OTHER = Keypair.from_seed(bytes(range(1, 33)))
WALLET = Wallet.from_keypair(PAYER)
THIRD = Keypair.from_seed(bytes(range(2, 34)))


def message_of(*signers: Keypair, legacy: bool = False) -> Message | MessageV0:
    """A message that the first signer pays for and all must sign."""
    accounts = [AccountMeta(signer.pubkey(), is_signer=True, is_writable=False) for signer in signers]
    instruction = Instruction(Pubkey.new_unique(), b"\x01", accounts)
    pay = transfer(TransferParams(from_pubkey=signers[0].pubkey(), to_pubkey=Pubkey.new_unique(), lamports=5))
    if legacy:
        return Message([pay, instruction], signers[0].pubkey())
    return MessageV0.try_compile(signers[0].pubkey(), [pay, instruction], [], Hash.new_unique())


def unsigned(*signers: Keypair, legacy: bool = False) -> str:
    return b64(unsigned_bytes(message_of(*(signers or (PAYER,)), legacy=legacy)))


Signer = Callable[[str, Keypair], Any]
BOTH_FORMS = pytest.mark.parametrize("sign", [sign_unsigned_tx, sign_unsigned_tx_b64], ids=["object", "base64"])


def read(signed: VersionedTransaction | str) -> VersionedTransaction:
    """The transaction that either form of signing returned."""
    return VersionedTransaction.from_bytes(base64.b64decode(signed)) if isinstance(signed, str) else signed


def cosigned(valid: bool = True) -> str:
    message = message_of(PAYER, OTHER)
    theirs = OTHER.sign_message(to_bytes_versioned(message) if valid else b"something else")
    return b64(bytes(VersionedTransaction.populate(message, [Signature.default(), theirs])))


def refused(kind: str, call: Callable[..., Any], *args: Any) -> TxSubmitError:
    with pytest.raises(TxSubmitError) as caught:
        call(*args)
    assert caught.value.kind == kind
    return caught.value


# ── proofs ──


def test_a_proof_is_the_documented_message_with_a_valid_signature():
    """The server checks Ed25519 over lasersell-register:<pubkey>:<unix seconds>."""
    proof = prove_ownership(PAYER, now_s=1_700_000_000.9)
    assert proof.wallet_pubkey == str(PAYER.pubkey())
    assert proof.message == f"lasersell-register:{PAYER.pubkey()}:1700000000"
    assert Signature.from_string(proof.signature).verify(PAYER.pubkey(), proof.message.encode())


def test_a_proof_carries_this_machines_time_by_default(monkeypatch: pytest.MonkeyPatch):
    """Without now_s the clock is read, in whole seconds."""
    monkeypatch.setattr("lasersell_sync.trading.solana.signing.time.time", lambda: 1_800_000_000.7)
    assert prove_ownership(PAYER).message.endswith(":1800000000")


def test_a_proof_travels():
    """Proofs are values: equal by content, and they pickle to another process."""
    proof = prove_ownership(PAYER, now_s=1)
    assert (
        pickle.loads(pickle.dumps(proof)) == proof == WalletProof(proof.wallet_pubkey, proof.signature, proof.message)
    )


# ── signing ──


@pytest.mark.parametrize("legacy", [False, True], ids=["v0", "legacy"])
def test_the_signature_is_over_the_message_as_received(legacy: bool):
    """The message's bytes are not touched, and the network will accept the signature."""
    text = unsigned(legacy=legacy)
    signed = sign_unsigned_tx(text, PAYER)
    before = VersionedTransaction.from_bytes(base64.b64decode(text))
    assert bytes(signed.message) == bytes(before.message)
    assert signed.verify_with_results() == [True]
    assert signed.signatures == [PAYER.sign_message(to_bytes_versioned(before.message))]
    assert bytes(signed)[65:] == base64.b64decode(text)[65:]


def test_the_base64_form_is_the_same_transaction():
    """sign_unsigned_tx_b64 is sign_unsigned_tx, ready to be sent."""
    text = unsigned()
    assert base64.b64decode(sign_unsigned_tx_b64(text, PAYER)) == bytes(sign_unsigned_tx(text, PAYER))


@MANY
@given(messages(), st.booleans())
def test_both_forms_are_what_solders_makes(message: Message | MessageV0, empty_list: bool):
    """Legacy, v0, with look-up tables, of any size, with and without a blank for the signature: solders' own bytes."""
    text = b64(unsigned_bytes(message, empty_list=empty_list))
    by_solders = VersionedTransaction(message, [PAYER])
    assert sign_unsigned_tx(text, PAYER) == by_solders
    assert sign_unsigned_tx_b64(text, PAYER) == b64(bytes(by_solders))


@pytest.mark.parametrize("length", range(9))
def test_the_signature_goes_into_its_place_whatever_the_length(length: int):
    """Three bytes are four characters: no end of the message may be cut or doubled where the texts are joined."""
    instruction = Instruction(Pubkey.default(), bytes(range(length)), [])
    message = MessageV0.try_compile(PAYER.pubkey(), [instruction], [], Hash.default())
    expected = b64(bytes(VersionedTransaction(message, [PAYER])))
    for empty_list in (False, True):
        assert sign_unsigned_tx_b64(b64(unsigned_bytes(message, empty_list=empty_list)), PAYER) == expected


@BOTH_FORMS
def test_a_transaction_with_an_empty_signature_list_can_be_signed(sign: Signer):
    """Some builders leave the list empty in place of zeros."""
    text = b64(bytes(VersionedTransaction.populate(message_of(PAYER), [])))
    assert read(sign(text, PAYER)).verify_with_results() == [True]


@BOTH_FORMS
def test_signing_twice_changes_nothing(sign: Signer):
    """Ed25519 signatures are a function of key and message: what is in the signature's place does not matter."""
    signed = sign_unsigned_tx_b64(unsigned(), PAYER)
    assert read(sign(signed, PAYER)) == read(signed)


@BOTH_FORMS
def test_a_foreign_keypair_is_refused_with_both_public_keys(sign: Signer):
    """The user sees at once which wallet the transaction is for."""
    error = refused("sign_tx", sign, unsigned(), OTHER)
    assert str(PAYER.pubkey()) in error.detail
    assert str(OTHER.pubkey()) in error.detail


@BOTH_FORMS
def test_a_signer_that_does_not_pay_is_refused(sign: Signer):
    """Being one of the signers is not enough: somebody else's transaction would be signed."""
    error = refused("sign_tx", sign, unsigned(PAYER, OTHER), OTHER)
    assert "fee payer" in error.detail


def test_missing_other_signatures_are_named():
    """A transaction that needs more signers cannot be finished here; the error says whose signatures are missing."""
    error = refused("sign_tx", sign_unsigned_tx, unsigned(PAYER, OTHER, THIRD), PAYER)
    assert str(OTHER.pubkey()) in error.detail
    assert str(THIRD.pubkey()) in error.detail
    assert str(PAYER.pubkey()) not in error.detail


def test_the_servers_own_signature_is_kept():
    """A transaction that the server signed in part is completed, not damaged."""
    assert sign_unsigned_tx(cosigned(), PAYER).verify_with_results() == [True, True]


def test_a_wrong_signature_of_the_server_counts_as_missing():
    """What the network would refuse is not sent."""
    error = refused("sign_tx", sign_unsigned_tx, cosigned(valid=False), PAYER)
    assert str(OTHER.pubkey()) in error.detail


@pytest.mark.parametrize(
    "text", [unsigned(PAYER, OTHER), unsigned(PAYER, OTHER, THIRD), cosigned(), cosigned(valid=False)]
)
def test_the_short_way_signs_for_one_only(text: str):
    """One exit, one wallet, one signature; the error says what does more."""
    error = refused("sign_tx", sign_unsigned_tx_b64, text, PAYER)
    assert "signatures are required" in error.detail
    assert "sign_unsigned_tx completes" in error.detail


@BOTH_FORMS
@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda text: "", id="empty"),
        pytest.param(lambda text: text[:-1], id="cut"),
        pytest.param(lambda text: text + "=", id="more padding"),
        pytest.param(lambda text: text + "\n", id="newline"),
        pytest.param(lambda text: " " + text, id="space"),
        pytest.param(lambda text: text[:50] + "\n" + text[50:], id="wrapped"),
        pytest.param(lambda text: text[:8] + "-_" + text[10:], id="url alphabet"),
        pytest.param(lambda text: "Ä" + text[1:], id="not ascii"),
        pytest.param(lambda text: "=" + text[1:], id="padding first"),
        pytest.param(lambda text: text.encode(), id="bytes"),
        pytest.param(lambda text: None, id="none"),
    ],
)
def test_anything_but_strict_base64_is_refused(sign: Signer, spoil: Callable[[str], Any]):
    """One spelling per transaction: standard alphabet, padding, nothing else; the error names the field."""
    error = refused("decode_unsigned_tx", sign, spoil(unsigned()), PAYER)
    assert error.detail.startswith("unsigned_tx_b64: ")


@BOTH_FORMS
def test_stray_bits_in_the_last_character_are_refused(sign: Signer):
    """Two texts for the same bytes would make two transactions look different."""
    raw = base64.b64decode(unsigned())
    raw = raw + b"\0" * (-len(raw) % 3) + b"\x01"  # one byte in the last group
    text = b64(raw)
    assert text.endswith("AQ==")
    error = refused("decode_unsigned_tx", sign, text[:-3] + "R==", PAYER)
    assert "stray" in error.detail


@BOTH_FORMS
@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda raw: raw + b"\0", id="one byte more"),
        pytest.param(lambda raw: raw + raw, id="twice"),
        pytest.param(lambda raw: raw[:-1], id="one byte less"),
        pytest.param(lambda raw: raw[:70], id="half"),
        pytest.param(lambda raw: b"\0", id="a zero"),
        pytest.param(lambda raw: b"\x81\x00" + raw[1:], id="long spelling of a length"),
        pytest.param(lambda raw: raw[:65] + b"\xff" + raw[66:], id="unknown version"),
        pytest.param(lambda raw: raw[:66] + b"\x00" + raw[67:], id="no signer"),
        pytest.param(lambda raw: raw[:66] + b"\xc8" + raw[67:], id="200 signers"),
        pytest.param(lambda raw: b"\xff" * 200, id="ones"),
        pytest.param(lambda raw: bytes(200), id="zeros"),
    ],
)
def test_anything_but_exactly_one_transaction_is_refused(sign: Signer, spoil: Callable[[bytes], bytes]):
    """What is signed is what was received, with nothing before, behind, or spelt otherwise (more in test_wire_tx)."""
    text = b64(spoil(base64.b64decode(unsigned())))
    error = refused("deserialize_unsigned_tx", sign, text, PAYER)
    assert error.detail.startswith("unsigned_tx_b64: ")


@MANY
@given(messages(), st.integers(0, 2**32))
def test_what_is_signed_is_what_was_received(message: AnyMessage, seed: int):
    """Bytes changed anywhere: refused, or signed as they are and by solders in the same way; never something else."""
    rand = random.Random(seed)
    raw = bytearray(unsigned_bytes(message))
    raw[rand.choice([0, 65, 66, rand.randrange(len(raw))])] ^= 1 << rand.randrange(8)
    text = b64(bytes(raw))
    with contextlib.suppress(TxSubmitError):
        signed = base64.b64decode(sign_unsigned_tx_b64(text, PAYER))
        _, before = parse(bytes(raw), UNSIGNED)
        _, after = parse(signed, UNSIGNED)
        assert after.message(signed) == before.message(bytes(raw))
        assert VersionedTransaction.from_bytes(signed).verify_with_results() == [True]
        assert bytes(sign_unsigned_tx(text, PAYER)) == signed


# ── encoding ──


def test_signed_transactions_of_every_form_are_encoded():
    """solders' two classes, bytes, bytearray and memoryview give the same standard base64."""
    signed = sign_unsigned_tx(unsigned(), PAYER)
    raw = bytes(signed)
    for form in (signed, raw, bytearray(raw), memoryview(raw)):
        assert encode_signed_tx(form) == b64(raw)
    message = message_of(PAYER, legacy=True)
    assert isinstance(message, Message)
    legacy = Transaction([PAYER], message, Hash.default())
    assert encode_signed_tx(legacy) == b64(bytes(legacy))


def test_an_unsigned_transaction_is_not_encoded():
    """It could only be refused by the network; the error names who has not signed."""
    error = refused("serialize_tx", encode_signed_tx, base64.b64decode(unsigned(PAYER, OTHER)))
    assert str(PAYER.pubkey()) in error.detail
    assert str(OTHER.pubkey()) in error.detail


def test_a_transaction_with_too_few_signatures_is_not_encoded():
    """An empty signature list is not signed."""
    raw = bytes(VersionedTransaction.populate(message_of(PAYER), []))
    refused("serialize_tx", encode_signed_tx, raw)


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(PAYER, id="keypair"),
        pytest.param(bytes(PAYER), id="secret key bytes"),
        pytest.param(str(PAYER), id="secret key text"),
        pytest.param(7, id="int"),
        pytest.param(None, id="none"),
        pytest.param(b"", id="empty"),
        pytest.param([1, 2, 3], id="list"),
    ],
)
def test_what_is_not_a_transaction_is_not_encoded(value: object):
    """bytes(keypair) is the secret key: it must never become something that is sent."""
    refused("serialize_tx", encode_signed_tx, value)


def test_the_signature_is_known_before_sending():
    """It is the first one of the transaction, in base58."""
    signed = sign_unsigned_tx(cosigned(), PAYER)
    assert signature_of(encode_signed_tx(signed)) == str(signed.signatures[0])


def test_signed_tx_of_a_signer_is_what_reading_its_text_gives():
    text = unsigned()
    signed = WALLET.sign_tx(text, guard=None)
    again = tx.read_signed_tx(signed.tx_b64)
    names = ("signature", "blockhash", "tx_b64", "never_expires")
    assert [getattr(signed, name) for name in names] == [getattr(again, name) for name in names]
    assert signed.signature == str(read(signed.tx_b64).signatures[0])
    assert signed.tx_b64 == sign_unsigned_tx_b64(text, PAYER)


def test_signed_tx_is_not_read_again(monkeypatch: pytest.MonkeyPatch):
    """A sale does not wait for a second look at what signing itself wrote."""
    signed = WALLET.sign_tx(unsigned(), guard=None)
    monkeypatch.setattr(tx, "parse", pytest.fail)
    assert tx.read_signed_tx(signed) is signed


def test_signed_tx_repr_shows_nothing_that_could_be_sent():
    signed = WALLET.sign_tx(unsigned(), guard=None)
    shown = repr(signed)
    assert signed.signature in shown
    assert signed.tx_b64[:40] not in shown
    assert repr(signed.raw)[2:40] not in shown


@pytest.mark.parametrize("text", ["", "####", unsigned(), b64(bytes(PAYER)), str(PAYER), [], None])
def test_what_is_not_signed_has_no_signature(text: Any):
    """Nothing but a signed transaction gets as far as the network."""
    refused("serialize_tx", signature_of, text)


# ── secrets ──

_SECRETS = [str(PAYER), bytes(PAYER).hex(), b64(bytes(PAYER)), json.dumps(list(bytes(PAYER))), repr(bytes(PAYER))]


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(prove_ownership, id="prove"),
        pytest.param(lambda secret: sign_unsigned_tx(unsigned(), secret), id="sign"),
        pytest.param(lambda secret: sign_unsigned_tx_b64(unsigned(), secret), id="sign b64"),
        pytest.param(lambda secret: sign_unsigned_tx(secret, PAYER), id="as transaction"),
        pytest.param(encode_signed_tx, id="encode"),
        pytest.param(signature_of, id="signature"),
    ],
)
@pytest.mark.parametrize(
    "secret",
    [str(PAYER), bytes(PAYER), b64(bytes(PAYER)), list(bytes(PAYER)), PAYER.secret(), "PAYER"],
    ids=["base58", "bytes", "base64", "json", "seed", "keypair"],
)
def test_no_form_of_a_secret_gets_into_an_error(
    call: Callable[[Any], Any], secret: Any, caplog: pytest.LogCaptureFixture
):
    """People paste keypairs into the wrong argument; the traceback of that must be safe to send to support."""
    caplog.set_level(logging.DEBUG)
    value = PAYER if secret == "PAYER" else secret
    try:
        result = call(value)
    except (TxSubmitError, ConfigurationError) as error:
        text = "".join(traceback.format_exception(error)) + repr(error) + str(error) + repr(error.__dict__)
    else:
        # A keypair where one belongs.
        assert value is PAYER
        text = repr(result)
    for form in (*_SECRETS, b64(PAYER.secret()), PAYER.secret().hex(), repr(PAYER.secret())):
        assert form not in text
        assert form not in caplog.text


def test_errors_survive_pickling():
    """A worker process can hand them back."""
    error = refused("sign_tx", sign_unsigned_tx, unsigned(), OTHER)
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.kind, copy.detail, str(copy)) == (error.kind, error.detail, str(error))
