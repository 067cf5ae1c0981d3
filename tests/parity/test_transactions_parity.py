"""Transactions out of their text: both cores return the same bytes and instructions, and refuse the same texts."""

from __future__ import annotations

import base64
import binascii
import random
from types import ModuleType
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.parity.cores import PURE, compiled, core, cores

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
#: What stands near base64 in texts: other alphabets, padding, spaces, what is no ASCII.
STRANGE = "=-_ \n\t\0\x7f\x80éĀ\U0001f680"


@pytest.fixture(params=cores())
def made(request: pytest.FixtureRequest) -> ModuleType:
    return core(request.param)


def compact(length: int, more: int = 0) -> bytes:
    """A compact-u16, spelt in ``more`` bytes than it needs."""
    out = bytearray()
    while length > 0x7F:
        out.append(length & 0x7F | 0x80)
        length >>= 7
    out.append(length)
    for _ in range(more):
        out[-1] |= 0x80
        out.append(0)
    return bytes(out)


def written(instructions: list[tuple[int, bytes, bytes]]) -> bytes:
    return compact(len(instructions)) + b"".join(
        bytes([program]) + compact(len(accounts)) + accounts + compact(len(data)) + data
        for program, accounts, data in instructions
    )


def outcome(read: Any, *arguments: object) -> object:
    try:
        return read(*arguments)
    except (IndexError, TypeError) as error:
        return type(error), str(error)


# ── base64 ───────────────────────────────────────────────────────────────────────────────────────────────────────


@given(raw=st.binary(max_size=200))
def test_decode_base64_of_what_encoding_wrote_returns_the_bytes(raw: bytes) -> None:
    text = base64.b64encode(raw).decode()
    assert compiled().decode_base64(text) == PURE.decode_base64(text) == raw


@given(text=st.text(ALPHABET + STRANGE, max_size=40) | st.text(ALPHABET + "=", max_size=9))
@example("AB==")  # stray bits
@example("AAB=")
@example("AA=A")
@example("====")
@example("AAAA====")
@example("AA==AAAA")
@example("A")
def test_decode_base64_of_any_text_returns_none_unless_encoding_gives_it_back(text: str) -> None:
    found = compiled().decode_base64(text)
    assert found == PURE.decode_base64(text)
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raw = None
    assert found == (raw if raw is not None and base64.b64encode(raw).decode() == text else None)


def test_decode_base64_knows_every_pair_of_last_characters(made: ModuleType) -> None:
    for one in ALPHABET + "=":
        for other in ALPHABET + "=":
            text = f"QU{one}{other}"
            raw = made.decode_base64(text)
            assert raw is None or base64.b64encode(raw).decode() == text
            assert (raw is None) == (one == "=" != other or (other == "=" and one != "=" and ALPHABET.index(one) % 4 > 0)
                                     or text == "QU==")  # fmt: skip


def test_decode_base64_of_a_long_text_with_one_wrong_character_returns_none(
    made: ModuleType, rand: random.Random
) -> None:
    text = base64.b64encode(rand.randbytes(1_200)).decode()
    for at in range(len(text)):
        assert made.decode_base64(text[:at] + rand.choice(STRANGE) + text[at + 1 :]) is None


def test_decode_base64_takes_subclasses_of_str_and_nothing_else(made: ModuleType) -> None:
    class Text(str):
        __slots__ = ()

    assert made.decode_base64(Text("QUJD")) == b"ABC"
    assert made.decode_base64(Text("QUJé")) is None
    for other in (b"QUJD", None, 7):
        with pytest.raises(TypeError, match="it must be a str"):
            made.decode_base64(other)


# ── instructions ─────────────────────────────────────────────────────────────────────────────────────────────────

INSTRUCTIONS = st.lists(
    st.tuples(st.integers(0, 255), st.binary(max_size=300), st.binary(max_size=300)) | st.tuples(
        st.integers(0, 255), st.just(b"x" * 128), st.just(b"y" * 16_400)
    ),
    max_size=6,
)  # fmt: skip


@given(instructions=INSTRUCTIONS, before=st.binary(max_size=5), behind=st.binary(max_size=5))
def test_read_instructions_returns_what_was_written(
    instructions: list[tuple[int, bytes, bytes]], before: bytes, behind: bytes
) -> None:
    raw = before + written(instructions) + behind
    expected = instructions, len(raw) - len(behind)
    assert compiled().read_instructions(raw, len(before)) == expected
    assert PURE.read_instructions(raw, len(before)) == expected


@given(raw=st.binary(max_size=60), at=st.integers(-2, 62))
@example(compact(1, more=1) + b"\0\0\0", 0)  # spelt longer than it needs: solders refuses that, not this
@example(compact(1, more=2) + b"\0\0\0", 0)
@example(compact(1, more=3) + b"\0\0\0", 0)
@example(b"\x01\0\xff\xff\xff", 0)
@example(b"\xff\xff\x7f", 0)
def test_read_instructions_of_any_bytes_is_alike(raw: bytes, at: int) -> None:
    assert outcome(compiled().read_instructions, raw, at) == outcome(PURE.read_instructions, raw, at)


def test_read_instructions_of_every_cut_raises_index_error(made: ModuleType) -> None:
    raw = written([(3, b"\0\1", b"data"), (4, b"x" * 130, b"y" * 200)])
    for end in range(len(raw)):
        with pytest.raises(IndexError, match="ends before its instructions"):
            made.read_instructions(raw[:end], 0)


def test_read_instructions_takes_bytes_and_nothing_else(made: ModuleType) -> None:
    for other in (bytearray(b"\0"), memoryview(b"\0"), "", None):
        with pytest.raises(TypeError, match="it must be bytes"):
            made.read_instructions(other, 0)
