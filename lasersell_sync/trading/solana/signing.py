"""Transactions on this machine: ownership proofs, signing, encoding. Nothing here touches the network.

solders does the cryptography and is imported inside functions: it is heavy, and most users of the stream never sign.
Its ``str(Keypair)`` and ``bytes(Keypair)`` are the secret key, so nothing here formats or encodes a value before it has
checked what the value is; an error names a type, a public key or a count, never a value.
"""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING

import attrs

from lasersell_sync.exceptions import ConfigurationError, TxSubmitError
from lasersell_sync.pubkeys import pubkey_text
from lasersell_sync.trading.solana.tx_codec import (
    SIGNATURE_BYTES,
    SIGNED,
    UNSIGNED,
    Layout,
    decode_base64,
    encode_base64,
    instructions_of,
    parse,
)

if TYPE_CHECKING:
    from solders.keypair import Keypair
    from solders.pubkey import Pubkey
    from solders.signature import Signature
    from solders.transaction import VersionedTransaction

__all__ = [
    "SignedTx",
    "WalletProof",
    "encode_signed_tx",
    "prove_ownership",
    "sign_unsigned_tx",
    "sign_unsigned_tx_b64",
]

_ONE_SIGNATURE = b"\x01"
_HEAD_CHARACTERS = 88
_NO_SIGNATURE = bytes(SIGNATURE_BYTES)
_SYSTEM_PROGRAM = bytes(32)
_ADVANCE_NONCE = b"\x04\x00\x00\x00"


@attrs.frozen
class WalletProof:
    """Proof that its maker holds a wallet's key; good for five minutes, by the server's clock (docs/protocol.md 7).

    Attributes:
        wallet_pubkey: base58.
        signature: base58 Ed25519 signature over ``message``.
        message: ``lasersell-register:<wallet_pubkey>:<unix seconds>``.
    """

    wallet_pubkey: str = attrs.field(converter=pubkey_text)
    signature: str
    message: str


def prove_ownership(keypair: Keypair, *, now_s: float | None = None) -> WalletProof:
    """Signs the registration message on this machine; hand the result to ``ExitApiClient.register_wallet``.

    Args:
        keypair: a ``solders.keypair.Keypair``; it stays here.
        now_s: Unix seconds; default: this machine's clock, which may be off by at most five minutes.

    Raises:
        ConfigurationError: not a keypair.

    Threads: any.
    """
    if not _is_keypair(keypair):
        raise ConfigurationError("keypair", _not_a_keypair(keypair))
    wallet_pubkey = str(keypair.pubkey())
    message = f"lasersell-register:{wallet_pubkey}:{int(time.time() if now_s is None else now_s)}"
    return WalletProof(wallet_pubkey, str(keypair.sign_message(message.encode())), message)


def sign_unsigned_tx(unsigned_tx_b64: str, keypair: Keypair) -> VersionedTransaction:
    """The transaction, signed: of an exit signal, or as ``build_sell_tx`` and ``build_buy_tx`` return it.

    It signs whatever the transaction says; what it *does* is not judged here. The keypair must be the fee payer.
    Signatures that the server put there already are kept, when they are valid.

    Args:
        unsigned_tx_b64: standard base64 with padding; legacy, version 0 or version 1.
        keypair: a ``solders.keypair.Keypair``.

    Raises:
        TxSubmitError: ``decode_unsigned_tx`` (not base64), ``deserialize_unsigned_tx`` (not exactly one transaction),
            ``sign_tx`` (not a keypair, not this transaction's, or another signature is missing).

    Threads: any.
    """
    # Before anything else, so that a keypair in the wrong place is never looked at by a decoder.
    _require_keypair(keypair)
    raw = decode_base64(unsigned_tx_b64, UNSIGNED)
    unsigned, layout = parse(raw, UNSIGNED)
    _require_fee_payer(raw, layout, keypair)
    return _sign(unsigned, layout.message(raw), keypair)


def sign_unsigned_tx_b64(unsigned_tx_b64: str, keypair: Keypair) -> str:
    """The transaction, signed, in standard base64: the shortest way from an exit signal to ``send_transaction_b64_to``.

    The signature is written into its place; no other byte changes. The result is that of ``sign_unsigned_tx``, but for
    the keypair's signature alone: a transaction that needs others is refused, even when they have signed.

    Args:
        unsigned_tx_b64: standard base64 with padding; legacy, version 0 or version 1.
        keypair: a ``solders.keypair.Keypair``.

    Raises:
        TxSubmitError: as ``sign_unsigned_tx``; ``sign_tx`` also when more than one signature is required.

    Threads: any.
    """
    _require_keypair(keypair)
    raw = decode_base64(unsigned_tx_b64, UNSIGNED)
    _, layout = parse(raw, UNSIGNED)
    _require_fee_payer(raw, layout, keypair)
    if layout.required_signatures != 1:
        raise TxSubmitError(
            "sign_tx",
            f"unsigned_tx_b64: {layout.required_signatures} signatures are required, and one keypair was given: "
            "sign_unsigned_tx completes what the others have signed already",
        )
    message = layout.message(raw)
    signature = keypair.sign_message(message)
    if not layout.signature_count or layout.signatures_at != 1:
        return encode_base64(layout.signed(raw, bytes(signature)))
    head = _ONE_SIGNATURE + bytes(signature)
    # Three bytes are four characters, so that all behind the 66 bytes in which the signature lies may stay as it came.
    return encode_base64(head + message[:1]) + unsigned_tx_b64[_HEAD_CHARACTERS:]


def encode_signed_tx(tx: object) -> str:
    """A signed transaction as standard base64.

    Args:
        tx: a solders ``VersionedTransaction`` or ``Transaction``, or its bytes.

    Raises:
        TxSubmitError: ``serialize_tx``: something else (a keypair's bytes, for one), or a signature is missing.

    Threads: any.
    """
    from solders.transaction import Transaction, VersionedTransaction

    # bytes(x) is not tried on just anything: of a keypair, it is the secret key.
    if not isinstance(tx, (VersionedTransaction, Transaction, bytes, bytearray, memoryview)):
        raise TxSubmitError("serialize_tx", f"a {type(tx).__name__} is not a transaction")
    raw = bytes(tx)
    _require_signed(raw, parse(raw, SIGNED)[1])
    return encode_base64(raw)


def signature_of(signed_tx_b64: str) -> str:
    """The base58 signature that names a signed transaction; found before it is sent, so that nothing else is ever sent.

    Raises:
        TxSubmitError: ``serialize_tx``: not base64 of exactly one transaction, or a signature is missing.

    Threads: any.
    """
    raw, layout = _read_signed(signed_tx_b64)
    return _signature_text(layout.signature(raw, 0))


@attrs.frozen(kw_only=True)
class SignedTx:
    """A signed transaction and what must be known of it to send and follow it: one value from who signs to who sends.

    ``Signer.sign_tx`` and ``read_signed_tx`` make it. Its repr shows nothing that could be sent.

    Attributes:
        signature: base58; names it.
        blockhash: base58; how long it is good depends on it.
        tx_b64: standard base64: what is sent.
        raw: bytes in which ``layout`` finds everything but the signature of whoever signed here.
        layout: of ``raw``.

    Threads: immutable, any.
    """

    signature: str
    blockhash: str
    tx_b64: str = attrs.field(repr=False)
    raw: bytes = attrs.field(repr=False)
    layout: Layout = attrs.field(repr=False)

    @property
    def never_expires(self) -> bool:
        """Whether it stands on a durable nonce: what looks like a blockhash does not age.

        Solana takes a transaction for one on a durable nonce when its first instruction advances one.
        """
        instructions, _ = instructions_of(self.raw, self.layout)
        if not instructions or not instructions[0][2].startswith(_ADVANCE_NONCE):
            return False
        return self.layout.account(self.raw, instructions[0][0]) == _SYSTEM_PROGRAM


def signed_tx(raw: bytes, layout: Layout, signature: Signature) -> SignedTx:
    """A transaction with the signature of its fee payer put into it.

    Args:
        raw: as it was decoded, and judged.
        layout: of ``raw``.
        signature: over ``layout.message(raw)``.
    """
    return SignedTx(
        signature=str(signature),
        blockhash=_shown(layout.blockhash(raw)),
        tx_b64=encode_base64(layout.signed(raw, bytes(signature))),
        raw=raw,
        layout=layout,
    )


def read_signed_tx(signed: str | SignedTx) -> SignedTx:
    """What must be known of a signed transaction to follow it; one that is known already is returned as it is.

    Raises:
        TxSubmitError: ``serialize_tx``: not base64 of exactly one transaction, or a signature is missing.

    Threads: any.
    """
    if isinstance(signed, SignedTx):
        return signed
    raw, layout = _read_signed(signed)
    return SignedTx(
        signature=_signature_text(layout.signature(raw, 0)),
        blockhash=_shown(layout.blockhash(raw)),
        tx_b64=signed,
        raw=raw,
        layout=layout,
    )


def blockhash_of(unsigned_tx_b64: str) -> str:
    """The blockhash of a transaction that is not signed yet, base58.

    Raises:
        TxSubmitError: ``decode_unsigned_tx``, ``deserialize_unsigned_tx``: not base64 of exactly one transaction.

    Threads: any.
    """
    raw = decode_base64(unsigned_tx_b64, UNSIGNED)
    _, layout = parse(raw, UNSIGNED)
    return _shown(layout.blockhash(raw))


def _read_signed(signed_tx_b64: str) -> tuple[bytes, Layout]:
    raw = decode_base64(signed_tx_b64, SIGNED)
    _, layout = parse(raw, SIGNED)
    _require_signed(raw, layout)
    return raw, layout


# ── keypairs ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _is_keypair(value: object) -> bool:
    return isinstance(value, _keypair_class())


@functools.cache
def _keypair_class() -> type[Keypair]:
    """Kept, because an import statement costs as much as parsing a transaction does."""
    from solders.keypair import Keypair

    return Keypair


def _not_a_keypair(value: object) -> str:
    return f"a {type(value).__name__} is not a solders.keypair.Keypair (the value is not shown: it may be a secret)"


def _require_keypair(value: object) -> None:
    if not _is_keypair(value):
        raise TxSubmitError("sign_tx", f"keypair: {_not_a_keypair(value)}")


def _require_fee_payer(raw: bytes, layout: Layout, keypair: Keypair) -> None:
    fee_payer = layout.signer(raw, 0)
    # The second half is the public key; solders' pubkey() computes it anew, at half the price of a signature.
    if bytes(keypair)[32:] != fee_payer:
        raise TxSubmitError(
            "sign_tx",
            f"unsigned_tx_b64: the fee payer is {_shown(fee_payer)}, the keypair is {keypair.pubkey()}'s: "
            "sign with the wallet that the transaction was built for",
        )


# ── signatures ───────────────────────────────────────────────────────────────────────────────────────────────────


def _sign(unsigned: VersionedTransaction, message: bytes, keypair: Keypair) -> VersionedTransaction:
    from solders.transaction import VersionedTransaction

    others = unsigned.message.account_keys[1 : unsigned.message.header.num_required_signatures]
    given = dict(zip(others, unsigned.signatures[1:], strict=False))
    missing = [str(other) for other in others if not _signed_by(other, given.get(other), message)]
    if missing:
        raise TxSubmitError(
            "sign_tx", f"{len(others) + 1} signers are required and these have not signed: {', '.join(missing)}"
        )
    own = keypair.sign_message(message)
    return VersionedTransaction.populate(unsigned.message, [own, *(given[other] for other in others)])


def _signed_by(signer: Pubkey, signature: Signature | None, message: bytes) -> bool:
    return signature is not None and signature.verify(signer, message)


def _require_signed(raw: bytes, layout: Layout) -> None:
    """Every required signature is there; whether it is right is for the network to check."""
    missing = [
        _shown(layout.signer(raw, index))
        for index in range(layout.required_signatures)
        if index >= layout.signature_count or layout.signature(raw, index) == _NO_SIGNATURE
    ]
    if missing:
        raise TxSubmitError("serialize_tx", f"the transaction is not signed by {', '.join(missing)}")


def _shown(public_key: bytes) -> str:
    return str(_pubkey_class().from_bytes(public_key))


def _signature_text(signature: bytes) -> str:
    return str(_signature_class().from_bytes(signature))


@functools.cache
def _pubkey_class() -> type[Pubkey]:
    from solders.pubkey import Pubkey

    return Pubkey


@functools.cache
def _signature_class() -> type[Signature]:
    from solders.signature import Signature

    return Signature
