"""Transactions out of their text: base64, and the instructions of a legacy or version 0 message."""

from __future__ import annotations

import base64
import binascii

__all__ = ["decode_base64", "read_instructions"]

#: Of a compact-u16, which has seven bits a byte.
_MOST_LENGTH_BYTES = 3


def decode_base64(text: str, /) -> bytes | None:
    """The bytes of standard base64 with padding, in the one spelling that encoding gives back.

    Args:
        text: a str.

    Returns:
        The bytes, or None: the text is not that.

    Raises:
        TypeError: ``text`` is not a str.

    Threads: any.
    """
    if not isinstance(text, str):
        raise TypeError(f"text is a {type(text).__name__}; it must be a str")
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return raw if binascii.b2a_base64(raw, newline=False).decode("ascii") == text else None


def read_instructions(raw: bytes, at: int, /) -> tuple[list[tuple[int, bytes, bytes]], int]:
    """The instructions of a legacy or version 0 transaction.

    Args:
        raw: the transaction, bytes.
        at: where their number stands, behind the blockhash.

    Returns:
        (program's index, accounts' indices, data) each, and where what follows them begins.

    Raises:
        IndexError: the bytes end before, or a length takes more than three bytes.
        TypeError: ``raw`` is not bytes.

    Threads: any.
    """
    if type(raw) is not bytes:
        raise TypeError(f"raw is a {type(raw).__name__}; it must be bytes")
    if not 0 <= at <= len(raw):
        raise IndexError("no instructions begin there")
    count, at = _length(raw, at)
    found = []
    for _ in range(count):
        program_at = at
        accounts, at = _counted(raw, at + 1)
        data, at = _counted(raw, at)
        found.append((raw[program_at], accounts, data))
    return found, at


def _counted(raw: bytes, at: int) -> tuple[bytes, int]:
    """So many bytes as their length says, and where they end."""
    size, at = _length(raw, at)
    end = at + size
    if end > len(raw):
        raise IndexError("the transaction ends before its instructions")
    return raw[at:end], end


def _length(raw: bytes, at: int) -> tuple[int, int]:
    """A compact-u16, and where what it counts begins."""
    length = 0
    for place, byte in enumerate(raw[at : at + _MOST_LENGTH_BYTES]):
        length |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return length, at + place + 1
    raise IndexError("the transaction ends before its instructions")
