"""Transactions on this machine: ownership proofs, decoding, signing, encoding. Nothing here touches the network.

solders does the cryptography and is imported inside functions: it is heavy, and most users of the stream never sign.
Its ``str(Keypair)`` and ``bytes(Keypair)`` are the secret key, so nothing here formats or encodes a value before it has
checked what the value is; an error names a type, a public key or a count, never a value.
"""

from __future__ import annotations

import base64
import binascii
import time
from typing import TYPE_CHECKING

import attrs

from lasersell_sync.exceptions import ConfigurationError, TxSubmitError

if TYPE_CHECKING:
    from solders.keypair import Keypair
    from solders.pubkey import Pubkey
    from solders.signature import Signature
    from solders.transaction import VersionedTransaction

__all__ = [
    "WalletProof",
    "encode_signed_tx",
    "prove_ownership",
    "sign_unsigned_tx",
    "sign_unsigned_tx_b64",
]


@attrs.frozen
class WalletProof:
    """Proof that its maker holds a wallet's key; good for five minutes, by the server's clock (PROTOCOL.md §7).

    Attributes:
        wallet_pubkey: base58.
        signature: base58 Ed25519 signature over ``message``.
        message: ``lasersell-register:<wallet_pubkey>:<unix seconds>``.
    """

    wallet_pubkey: str
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
        unsigned_tx_b64: standard base64 with padding; v0 and legacy messages.
        keypair: a ``solders.keypair.Keypair``.

    Raises:
        TxSubmitError: ``decode_unsigned_tx`` (not base64), ``deserialize_unsigned_tx`` (not exactly one transaction),
            ``sign_tx`` (not a keypair, not this transaction's, or another signature is missing).

    Threads: any.
    """
    # Before anything else, so that a keypair in the wrong place is never looked at by a decoder.
    if not _is_keypair(keypair):
        raise TxSubmitError("sign_tx", _not_a_keypair(keypair))
    raw = _decode_base64(unsigned_tx_b64, "decode_unsigned_tx")
    return _sign(_parse(raw, "deserialize_unsigned_tx"), keypair)


def sign_unsigned_tx_b64(unsigned_tx_b64: str, keypair: Keypair) -> str:
    """Like ``sign_unsigned_tx``, as standard base64, ready for ``send_transaction_b64_to``."""
    return base64.b64encode(bytes(sign_unsigned_tx(unsigned_tx_b64, keypair))).decode("ascii")


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
    _require_signed(_parse(raw, "serialize_tx"))
    return base64.b64encode(raw).decode("ascii")


def signature_of(signed_tx_b64: str) -> str:
    """The base58 signature that names a signed transaction; found before it is sent, so that nothing else is ever sent.

    Raises:
        TxSubmitError: ``serialize_tx``: not base64 of exactly one transaction, or a signature is missing.

    Threads: any.
    """
    parsed = _parse(_decode_base64(signed_tx_b64, "serialize_tx"), "serialize_tx")
    _require_signed(parsed)
    return str(parsed.signatures[0])


# ── keypairs ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _is_keypair(value: object) -> bool:
    from solders.keypair import Keypair

    return isinstance(value, Keypair)


def _not_a_keypair(value: object) -> str:
    return f"a {type(value).__name__} is not a solders.keypair.Keypair (the value is not shown: it may be a secret)"


# ── bytes ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _decode_base64(text: object, kind: str) -> bytes:
    """Standard alphabet, padding, and the one spelling that encoding gives back."""
    if not isinstance(text, str):
        raise TxSubmitError(kind, f"base64 text is a str, not {type(text).__name__}")
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        # Not chained: nothing that holds a piece of the input may travel on.
        raise TxSubmitError(kind, f"{len(text)} characters that are not standard base64 with padding") from None
    if base64.b64encode(raw).decode("ascii") != text:
        raise TxSubmitError(kind, f"{len(text)} characters of base64 with stray bits or padding")
    if not raw:
        raise TxSubmitError(kind, "the text is empty")
    return raw


def _parse(raw: bytes, kind: str) -> VersionedTransaction:
    from solders.transaction import VersionedTransaction

    try:
        parsed = VersionedTransaction.from_bytes(raw)
    except ValueError as error:
        raise TxSubmitError(kind, f"{len(raw)} bytes are not a transaction") from error
    # solders ignores what follows the transaction and takes longer spellings of its lengths; what is signed and sent
    # must be what was received.
    if bytes(parsed) != raw:
        raise TxSubmitError(kind, f"{len(raw)} bytes are not exactly one transaction (it takes {len(bytes(parsed))})")
    required, keys = parsed.message.header.num_required_signatures, len(parsed.message.account_keys)
    if not 1 <= required <= keys:
        raise TxSubmitError(kind, f"the transaction asks for {required} signatures of {keys} accounts")
    return parsed


# ── signatures ───────────────────────────────────────────────────────────────────────────────────────────────────


def _signers(tx: VersionedTransaction) -> list[Pubkey]:
    """Who must sign, the fee payer first (PROTOCOL.md §9)."""
    return tx.message.account_keys[: tx.message.header.num_required_signatures]


def _sign(unsigned: VersionedTransaction, keypair: Keypair) -> VersionedTransaction:
    from solders.message import to_bytes_versioned
    from solders.transaction import VersionedTransaction

    message_bytes = to_bytes_versioned(unsigned.message)
    fee_payer, *others = _signers(unsigned)
    if keypair.pubkey() != fee_payer:
        raise TxSubmitError("sign_tx", f"the fee payer is {fee_payer}, the keypair is {keypair.pubkey()}'s")
    given = dict(zip([fee_payer, *others], unsigned.signatures, strict=False))
    missing = [str(other) for other in others if not _signed_by(other, given.get(other), message_bytes)]
    if missing:
        raise TxSubmitError(
            "sign_tx", f"{len(others) + 1} signers are required and these have not signed: {', '.join(missing)}"
        )
    own = keypair.sign_message(message_bytes)
    return VersionedTransaction.populate(unsigned.message, [own, *(given[other] for other in others)])


def _signed_by(signer: Pubkey, signature: Signature | None, message_bytes: bytes) -> bool:
    return signature is not None and signature.verify(signer, message_bytes)


def _require_signed(tx: VersionedTransaction) -> None:
    """Every required signature is there; whether it is right is for the network to check."""
    from solders.signature import Signature

    signers, empty = _signers(tx), Signature.default()
    missing = [str(key) for key, signature in zip(signers, tx.signatures, strict=False) if signature == empty]
    missing += [str(key) for key in signers[len(tx.signatures) :]]
    if missing:
        raise TxSubmitError("serialize_tx", f"the transaction is not signed by {', '.join(missing)}")
