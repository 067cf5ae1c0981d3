"""A transaction's bytes, legacy, version 0 and 1: from base64 to where its parts lie (docs/protocol.md §9)."""

from __future__ import annotations

import base64
import binascii
import functools
import struct
from typing import TYPE_CHECKING, Final, NamedTuple

import attrs

from lasersell_sync import _backend
from lasersell_sync.exceptions import TxSubmitError

if TYPE_CHECKING:
    from solders.transaction import VersionedTransaction

__all__ = [
    "SIGNATURE_BYTES",
    "SIGNED",
    "UNSIGNED",
    "V1",
    "V1_MAX_BYTES",
    "V1_PREFIX",
    "Layout",
    "Origin",
    "TxConfig",
    "V1Places",
    "decode_base64",
    "encode_base64",
    "instructions_of",
    "max_transaction_bytes",
    "parse",
    "signed_bytes",
    "v1_config",
    "v1_instructions",
    "v1_places",
]


# ── Version 1 transactions (SIMD-0385) ──────────────────────────────────────────────────────────────────────────────
# The first byte is 0x81. The message has fixed places up to its addresses; behind them stand the values of the config
# mask, a header of four bytes for every instruction, then accounts and data of each. The signatures follow the
# message. There are no look-up tables, and Compute Budget instructions are ignored by the network.


V1: Final = 1
V1_PREFIX: Final = 0x81
V1_MAX_BYTES: Final = 4_096
_HEADER_AT: Final = 1
_MASK_AT: Final = 4
_BLOCKHASH_AT: Final = 8
_INSTRUCTION_COUNT_AT: Final = 40
_ACCOUNT_COUNT_AT: Final = 41
_ACCOUNTS_AT: Final = 42
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


# ── A transaction's bytes ───────────────────────────────────────────────────────────────────────────────────────────
# Three formats are live: legacy and version 0 begin with their signatures, version 1 ends with them.
# solders parses. What it lets pass and we do not: bytes behind the transaction, a length spelt in more bytes than it
# needs, account indices that point nowhere, and versions that the protocol does not know. What is signed, judged and
# sent is therefore the bytes that were received, and nothing else. ``signing`` says whether a signature is right.
#
# solders is imported inside functions: it is heavy, and most users of the stream never sign.


SIGNATURE_BYTES: Final = 64
_PUBKEY_BYTES = 32
_HEADER_BYTES = 3
#: Behind the length of their list.
_SIGNATURES_AT = 1
_VERSION_FLAG = 0x80
_V0 = 0x80
#: A legacy or version 0 transaction travels in one packet.
_PACKET_BYTES = 1_232


class Origin(NamedTuple):
    """Whose transaction it is: what errors about it say.

    Attributes:
        field: the argument or wire field it came in.
        not_base64: the ``TxSubmitError.kind`` of a text that is not base64.
        malformed: the kind of bytes that are not a transaction.
        remedy: what to do about either.
    """

    field: str
    not_base64: str
    malformed: str
    remedy: str

    def spelt_wrong(self, problem: str) -> TxSubmitError:
        """The error about a text."""
        return TxSubmitError(self.not_base64, f"{self.field}: {problem}: {self.remedy}")

    def built_wrong(self, problem: str) -> TxSubmitError:
        """The error about bytes."""
        return TxSubmitError(self.malformed, f"{self.field}: {problem}: {self.remedy}")


UNSIGNED: Final = Origin(
    "unsigned_tx_b64",
    "decode_unsigned_tx",
    "deserialize_unsigned_tx",
    "pass the server's text unchanged, or ask for a new transaction",
)
SIGNED: Final = Origin(
    "tx", "serialize_tx", "serialize_tx", "pass what sign_unsigned_tx or sign_unsigned_tx_b64 returned"
)


# ── base64 ───────────────────────────────────────────────────────────────────────────────────────────────────────


def decode_base64(text: object, origin: Origin) -> bytes:
    """The bytes of standard base64 with padding, in the one spelling that encoding gives back.

    Raises:
        TxSubmitError: ``origin.not_base64``. The text is not repeated: people paste secret keys here.

    Threads: any.
    """
    if not isinstance(text, str):
        raise origin.spelt_wrong(f"a {type(text).__name__}, where base64 is a str")
    raw = _backend.decode_base64(text)
    if raw is None:
        raise origin.spelt_wrong(_misspelling(text))
    if not raw:
        raise origin.spelt_wrong("no text")
    return raw


def _misspelling(text: str) -> str:
    """Why it is not the one spelling. Nothing that holds a piece of the text may travel on."""
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return f"{len(text)} characters that are not standard base64 with padding"
    # Every group of three bytes has one spelling; a shorter last one leaves bits that could be anything.
    return f"{len(text)} characters of base64 with stray bits or padding"


def encode_base64(raw: bytes) -> str:
    """Standard base64 with padding, on one line."""
    return binascii.b2a_base64(raw, newline=False).decode("ascii")


# ── structure ────────────────────────────────────────────────────────────────────────────────────────────────────


# Neither a tuple nor frozen, though nobody changes it: a sale reads and makes one that is neither the fastest.
@attrs.define
class Layout:
    """Where the parts of a parsed transaction lie, in bytes from its start.

    Attributes:
        signature_count: signatures in the list; the n-th belongs to the n-th signer.
        message_at: the message, which is what is signed.
        required_signatures: how many of the accounts must sign; the first of them pays.
        accounts_at: the first account's public key; 32 bytes each.
        account_count: how many accounts stand in the transaction itself.
        blockhash_at: the blockhash, 32 bytes.
        message_end: where the message ends.
        signatures_at: the first signature: behind its list's length, or behind a version 1 message.
        version: None for a legacy transaction, 0 or 1.
    """

    signature_count: int
    message_at: int
    required_signatures: int
    accounts_at: int
    account_count: int
    blockhash_at: int
    message_end: int
    signatures_at: int
    version: int | None

    def message(self, raw: bytes) -> bytes:
        """What is signed."""
        return raw[self.message_at : self.message_end]

    def signature(self, raw: bytes, index: int) -> bytes:
        """A signature of the list."""
        start = self.signatures_at + index * SIGNATURE_BYTES
        return raw[start : start + SIGNATURE_BYTES]

    def signer(self, raw: bytes, index: int) -> bytes:
        """The public key of a signer; 0 is the fee payer."""
        return self.account(raw, index)

    def account(self, raw: bytes, index: int) -> bytes:
        """The public key of an account that stands in the transaction itself: of the first ``account_count``."""
        start = self.accounts_at + index * _PUBKEY_BYTES
        return raw[start : start + _PUBKEY_BYTES]

    def blockhash(self, raw: bytes) -> bytes:
        """How long the transaction is good depends on it."""
        return raw[self.blockhash_at : self.blockhash_at + _PUBKEY_BYTES]

    def signed(self, raw: bytes, signature: bytes) -> bytes:
        """The transaction with the signature of its fee payer; co-signers keep theirs, and no other byte changes."""
        message, others = self.message(raw), self.required_signatures - 1
        if others:
            kept_at = self.signatures_at + SIGNATURE_BYTES
            kept = raw[kept_at : kept_at + max(0, self.signature_count - 1) * SIGNATURE_BYTES]
            signature += kept.ljust(others * SIGNATURE_BYTES, b"\0")
        # Fewer than 128 fit into a packet, so that their number is one byte.
        return message + signature if self.version == V1 else bytes((self.required_signatures,)) + signature + message


def max_transaction_bytes(layout: Layout) -> int:
    """The most that the network takes of a transaction of this format, signatures included."""
    return V1_MAX_BYTES if layout.version == V1 else _PACKET_BYTES


def signed_bytes(raw: bytes, layout: Layout) -> int:
    """How long the transaction is with the signatures of all signers."""
    return len(raw) + max(0, layout.required_signatures - layout.signature_count) * SIGNATURE_BYTES


def parse(raw: bytes, origin: Origin) -> tuple[VersionedTransaction, Layout]:
    """The transaction that these bytes are, all of them: legacy, version 0 or version 1.

    There may be fewer signatures than signers (an unsigned transaction may have none), not more.

    Raises:
        TxSubmitError: ``origin.malformed``: cut short, with bytes behind it, lengths spelt longer than they need,
            account indices that point nowhere, signers that are not accounts, or another version.

    Threads: any.
    """
    try:
        layout = _layout(raw, origin)
        whole = _with_all_signatures(raw, layout) if layout.version == V1 else raw
        parsed = _transaction_class().from_bytes(whole)
    except (IndexError, ValueError) as error:
        raise origin.built_wrong(f"{len(raw)} bytes that are not a transaction") from error
    encoded = bytes(parsed)
    if encoded != whole:
        raise origin.built_wrong(f"{len(raw)} bytes that are not exactly one transaction (it takes {len(encoded)})")
    if layout.signature_count > layout.required_signatures:
        raise origin.built_wrong(f"{layout.signature_count} signatures for {layout.required_signatures} signers")
    _require_sound(parsed, layout, origin)
    return parsed, layout


@functools.cache
def _transaction_class() -> type[VersionedTransaction]:
    """Kept, because an import statement costs as much as parsing does."""
    from solders.transaction import VersionedTransaction

    return VersionedTransaction


def _layout(raw: bytes, origin: Origin) -> Layout:
    """Where things must lie, if this is a transaction.

    Raises:
        IndexError: it is none: the bytes end before.
        TxSubmitError: another version, whose parts lie elsewhere.
    """
    count = raw[0]
    # As the length of a list it would mean 128 signatures or more, 8 KiB of them. Newer formats put their version here.
    if count & _VERSION_FLAG:
        if count == V1_PREFIX:
            return _v1_layout(raw)
        raise _unknown_version(count, origin)
    message_at = header_at = _SIGNATURES_AT + count * SIGNATURE_BYTES
    version = None
    if raw[message_at] & _VERSION_FLAG:
        if raw[message_at] != _V0:
            raise _unknown_version(raw[message_at], origin)
        header_at += 1
        version = 0
    accounts, accounts_at = _length(raw, header_at + _HEADER_BYTES)
    return Layout(
        count, message_at, raw[header_at], accounts_at, accounts, accounts_at + accounts * _PUBKEY_BYTES,
        len(raw), _SIGNATURES_AT, version,
    )  # fmt: skip


def _v1_layout(raw: bytes) -> Layout:
    """Raises IndexError: the bytes end before, or what is behind the message are not signatures."""
    places = v1_places(raw)
    signatures, rest = divmod(len(raw) - places.message_end, SIGNATURE_BYTES)
    if signatures < 0 or rest:
        raise IndexError
    return Layout(
        signatures, 0, places.required_signatures, places.accounts_at, places.account_count, places.blockhash_at,
        places.message_end, places.message_end, V1,
    )  # fmt: skip


def _with_all_signatures(raw: bytes, layout: Layout) -> bytes:
    """A version 1 transaction does not say how many signatures it has: a parser expects one for every signer."""
    return raw + bytes(signed_bytes(raw, layout) - len(raw))


def _unknown_version(prefix: int, origin: Origin) -> TxSubmitError:
    version = prefix & ~_VERSION_FLAG
    known = "where legacy and versions 0 and 1 are known"
    return origin.built_wrong(
        "a version 1 message behind signatures, which belong behind it"
        if version == V1
        else f"a version {version} transaction, {known}"
    )


def _behind_length(raw: bytes, at: int) -> int:
    """Where what a compact-u16 counts begins: it is seven bits a byte, and the last byte's high bit is not set."""
    while raw[at] & 0x80:
        at += 1
    return at + 1


def instructions_of(raw: bytes, layout: Layout) -> tuple[list[tuple[int, bytes, bytes]], int]:
    """The instructions of a sound transaction: (program's index, accounts' indices, data) each.

    Their objects in solders say the same, at several times the price: each is copied on the way out.

    Returns:
        Them, and where what follows them begins.

    Threads: any.
    """
    if layout.version == V1:
        return v1_instructions(raw), layout.message_end
    return _backend.read_instructions(raw, layout.blockhash_at + _PUBKEY_BYTES)


def _length(raw: bytes, at: int) -> tuple[int, int]:
    """A compact-u16, and where what it counts begins."""
    first = raw[at]
    if first < 0x80:
        return first, at + 1
    end = _behind_length(raw, at)
    return sum((byte & 0x7F) << 7 * place for place, byte in enumerate(raw[at:end])), end


def _require_sound(parsed: VersionedTransaction, layout: Layout, origin: Origin) -> None:
    """Signers are accounts, the payer is not a program, and every index points at an account."""
    missing = layout.required_signatures - layout.signature_count
    if missing and layout.version != V1:  # not a contradiction yet: who signs puts them there
        parsed = _with_blanks(parsed, missing)
    try:
        parsed.sanitize()
    except Exception as error:
        from solders.transaction import SanitizeError

        if not isinstance(error, SanitizeError):
            raise
        raise origin.built_wrong(
            f"a transaction that contradicts itself ({error}; it asks for {layout.required_signatures} signatures)"
        ) from error


def _with_blanks(parsed: VersionedTransaction, missing: int) -> VersionedTransaction:
    from solders.signature import Signature
    from solders.transaction import VersionedTransaction

    return VersionedTransaction.populate(parsed.message, [*parsed.signatures, *[Signature.default()] * missing])
