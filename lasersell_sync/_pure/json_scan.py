"""JSON text as UTF-8 bytes, read one token at a time: the rules of RFC 8259 and nothing of our messages.

The text is scanned from left to right and the first byte that breaks a rule is the error, so that the compiled
scanner (``csrc/json_scan.c``) can be held to the same reason and the same offset. Every function takes the text and
the offset of a token's first byte, and returns the token's value (if it has one) and the offset behind it.

Threads: functions of their arguments, any.
"""

from __future__ import annotations

import math
import re
from typing import Final

__all__ = ["MAX_DEPTH", "ScanError", "expect", "find_kind", "literal", "number", "skip_space", "skip_value", "string"]

#: Objects and arrays inside one another, the message itself included; as the reference implementation counts.
MAX_DEPTH: Final = 127

_SPACE: Final = re.compile(rb"[ \t\n\r]*")
_PLAIN_RUN: Final = re.compile(rb'[^"\\\x00-\x1f]*')
_HEX4: Final = re.compile(rb"[0-9a-fA-F]{4}")
_NUMBER: Final = re.compile(rb"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
#: What could go on with a number must not follow one, so that "01" and "1." are not read as 0 and 1.
_IN_NUMBER: Final = frozenset(b"-+.0123456789eE")

_ESCAPES: Final = {
    ord('"'): '"',
    ord("\\"): "\\",
    ord("/"): "/",
    ord("b"): "\b",
    ord("f"): "\f",
    ord("n"): "\n",
    ord("r"): "\r",
    ord("t"): "\t",
}
_KINDS: Final = {
    **dict.fromkeys(b"-0123456789", "a number"),
    ord('"'): "a string",
    ord("{"): "an object",
    ord("["): "an array",
    ord("t"): "a boolean",
    ord("f"): "a boolean",
    ord("n"): "null",
}
_LITERALS: Final[dict[int, tuple[bytes, bool | None]]] = {
    ord("t"): (b"true", True),
    ord("f"): (b"false", False),
    ord("n"): (b"null", None),
}


class ScanError(Exception):
    """The text breaks a rule; caught in ``decoder``, which knows the path.

    Attributes:
        reason: which rule.
        offset: of the byte that breaks it.
        steps: the path from the message to there, innermost first; filled on the way out.
    """

    def __init__(self, reason: str, offset: int) -> None:
        self.reason = reason
        self.offset = offset
        self.steps: list[str] = []


def skip_space(text: bytes, at: int) -> int:
    """The offset of the first byte that is not white space."""
    if at < len(text) and text[at] > 0x20:  # the server writes none
        return at
    match = _SPACE.match(text, at)
    assert match is not None  # an empty match is a match
    return match.end()


def expect(text: bytes, at: int, byte: bytes, reason: str) -> int:
    """The offset behind ``byte``, which must come next."""
    if text[at : at + 1] != byte:
        raise ScanError(reason if at < len(text) else "text ends too early", at)
    return at + 1


def find_kind(text: bytes, at: int) -> str:
    """What value begins here, in words; told by its first byte."""
    if at >= len(text):
        raise ScanError("text ends too early", at)
    kind = _KINDS.get(text[at])
    if kind is None:
        raise ScanError("expected a value", at)
    return kind


def literal(text: bytes, at: int) -> tuple[bool | None, int]:
    """``true``, ``false`` or ``null``; the first byte says which it must be."""
    word, value = _LITERALS[text[at]]
    if not text.startswith(word, at):
        raise ScanError("invalid literal", at)
    return value, at + len(word)


def number(text: bytes, at: int) -> tuple[bytes, int]:
    """A number's text. Whether it is in range is asked by whoever knows the kind."""
    match = _NUMBER.match(text, at)
    if match is None or (match.end() < len(text) and text[match.end()] in _IN_NUMBER):
        raise ScanError("invalid number", at)
    return match.group(), match.end()


def string(text: bytes, at: int) -> tuple[str, int]:
    """A string, without its quotes and escapes."""
    part, at = _plain_run(text, at + 1)
    if text[at : at + 1] == b'"':  # nearly always: one run is all
        return part, at + 1
    parts = [part]
    while True:
        if at >= len(text):
            raise ScanError("text ends too early", at)
        if text[at] == ord('"'):
            return "".join(parts), at + 1
        if text[at] != ord("\\"):
            raise ScanError("control character in a string", at)
        part, at = _escape(text, at)
        parts.append(part)
        part, at = _plain_run(text, at)
        parts.append(part)


def _plain_run(text: bytes, at: int) -> tuple[str, int]:
    run = _PLAIN_RUN.match(text, at)
    assert run is not None  # an empty match is a match
    try:
        return run.group().decode("utf-8"), run.end()
    except UnicodeDecodeError as error:
        raise ScanError("invalid UTF-8", at + error.start) from None


def _escape(text: bytes, at: int) -> tuple[str, int]:
    if at + 1 >= len(text):
        raise ScanError("text ends too early", at + 1)
    if text[at + 1] != ord("u"):
        character = _ESCAPES.get(text[at + 1])
        if character is None:
            raise ScanError("invalid escape", at)
        return character, at + 2
    unit = _code_unit(text, at)
    if unit is None:
        raise ScanError("invalid escape", at)
    if not 0xD800 <= unit <= 0xDFFF:
        return chr(unit), at + 6
    low = _code_unit(text, at + 6)
    if unit >= 0xDC00 or low is None or not 0xDC00 <= low <= 0xDFFF:
        raise ScanError("lone surrogate", at)
    return chr(0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00)), at + 12


def _code_unit(text: bytes, at: int) -> int | None:
    """The UTF-16 unit that an escape spells with four hex digits, or None if there is none here."""
    if text[at : at + 2] != b"\\u":
        return None
    digits = _HEX4.match(text, at + 2)
    return None if digits is None else int(digits.group(), 16)


def skip_value(text: bytes, at: int, depth: int) -> int:
    """Check one whole value inside ``depth`` levels and forget it.

    Ignored fields are read as strictly as others: the reference reads the whole message before it looks inside.
    """
    kind = find_kind(text, at)
    if kind == "a string":
        return string(text, at)[1]
    if kind == "a number":
        token, behind = number(text, at)
        if math.isinf(float(token)):
            raise ScanError("number out of range", at)
        return behind
    if kind in ("an object", "an array"):
        # Recursion is bounded by MAX_DEPTH, so hostile nesting cannot exhaust the stack.
        if depth >= MAX_DEPTH:
            raise ScanError(f"nested deeper than {MAX_DEPTH} levels", at)
        return (_skip_object if kind == "an object" else _skip_array)(text, at, depth + 1)
    return literal(text, at)[1]


def _skip_object(text: bytes, at: int, depth: int) -> int:
    at = skip_space(text, at + 1)
    if text[at : at + 1] == b"}":
        return at + 1
    while True:
        expect(text, at, b'"', "expected a field name")
        _, at = string(text, at)
        at = expect(text, skip_space(text, at), b":", "expected ':'")
        at = skip_space(text, skip_value(text, skip_space(text, at), depth))
        if text[at : at + 1] == b"}":
            return at + 1
        at = skip_space(text, expect(text, at, b",", "expected ',' or '}'"))


def _skip_array(text: bytes, at: int, depth: int) -> int:
    at = skip_space(text, at + 1)
    if text[at : at + 1] == b"]":
        return at + 1
    while True:
        at = skip_space(text, skip_value(text, at, depth))
        if text[at : at + 1] == b"]":
            return at + 1
        at = skip_space(text, expect(text, at, b",", "expected ',' or ']'"))
