"""Frames: both parsers agree whatever the bytes and however they are cut, and with a parser written by others."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

import pytest
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN
from websockets.uri import parse_uri

from tests.parity.cores import PURE, compiled
from tests.parity.streams import STREAMS, cuts, frame, random_stream

_core = compiled()
PARSERS = (PURE.FrameParser, _core.FrameParser)


def run(parser_class: Any, pieces: Iterable[bytes], **options: int) -> tuple[list[tuple[int, bytes]], object, int]:
    parser = parser_class(**options)
    out = [item for piece in pieces for item in parser.feed(piece)]
    return out, parser.failure, parser.buffered_bytes


@pytest.mark.parametrize("name", STREAMS)
def test_cut_at_every_byte(name: str) -> None:
    """However the link cuts the bytes, both parsers give the same frames, failure and rest."""
    whole = run(PARSERS[0], [STREAMS[name]])
    for pieces in cuts(STREAMS[name]):
        for parser_class in PARSERS:
            assert run(parser_class, pieces) == whole


def test_random_streams_in_random_pieces(rand: random.Random) -> None:
    """Long and short frames, right and wrong, in pieces of random size; what is held in between is equal too."""
    for _ in range(300):
        data = random_stream(rand, flip=True)
        bound = rand.choice((200, 70000, 2**24))
        parsers = [parser_class(max_message_bytes=bound) for parser_class in PARSERS]
        at = 0
        while at < len(data):
            size = rand.choice((1, 2, 3, 100, 5000, 100000))
            pure, fast = (parser.feed(data[at : at + size]) for parser in parsers)
            assert fast == pure
            assert parsers[0].failure == parsers[1].failure
            assert parsers[0].buffered_bytes == parsers[1].buffered_bytes
            at += size


@pytest.mark.parametrize("wrong", [b"\xff", b"\x80", b"\xc3", "é".encode(), "€".encode()[:2], "🚀".encode()])
def test_one_character_anywhere_in_a_long_text(wrong: bytes) -> None:
    """Texts are checked in pieces of 64 and 8 bytes: a character, whole or broken, is seen wherever it stands in them."""
    for size in (0, 1, 7, 8, 9, 63, 64, 65, 130, 150):
        for at in range(size + 1):
            data = frame(1, b"a" * at + wrong + b"b" * (size - at)) + frame(1, b"next")
            whole = run(PARSERS[0], [data])
            assert run(PARSERS[1], [data]) == whole
            assert run(PARSERS[1], [data[:3], data[3:]]) == whole


# ── against the parser of the websockets package ─────────────────────────────────────────────────────────────────


def foreign(data: bytes, max_size: int = 2**24) -> tuple[list[tuple[int, bytes]], int | None]:
    """What websockets makes of the bytes: whole messages and control frames, and the close code of its complaint."""
    protocol = ClientProtocol(parse_uri("ws://localhost/"), state=OPEN, max_size=max_size)
    protocol.receive_data(data)
    out: list[tuple[int, bytes]] = []
    opcode, parts = 0, b""
    for event in protocol.events_received():
        assert not isinstance(event, Exception)
        if event.opcode not in (Opcode.CONT, Opcode.TEXT, Opcode.BINARY):  # type: ignore[union-attr]
            out.append((int(event.opcode), bytes(event.data)))  # type: ignore[union-attr]
            continue
        opcode = opcode or int(event.opcode)  # type: ignore[union-attr]
        parts += bytes(event.data)  # type: ignore[union-attr]
        if event.fin:  # type: ignore[union-attr]
            out.append((opcode, parts))
            opcode, parts = 0, b""
    failed = protocol.parser_exc is not None and protocol.close_sent is not None and protocol.close_rcvd is None
    return out, protocol.close_sent.code if failed and protocol.close_sent is not None else None


def text_ends(messages: list[tuple[int, bytes]]) -> int | None:
    """Index of the first text that is not UTF-8: websockets checks that in a later layer, we in the parser."""
    for index, (opcode, payload) in enumerate(messages):
        try:
            if opcode == 1:
                payload.decode()
        except UnicodeDecodeError:
            return index
    return None


def compare(data: bytes, max_size: int = 2**24) -> None:
    expected, code = foreign(data, max_size)
    bad_text = text_ends(expected)
    if bad_text is not None:
        expected, code = expected[:bad_text], 1007
    for parser_class in PARSERS:
        got, failure, _ = run(parser_class, [data], max_message_bytes=max_size)
        assert got == expected
        assert (failure and failure[0]) == code, failure  # type: ignore[index]


#: Where we are stricter, by the letter of RFC 6455 5.2: lengths must be minimal and have 63 bits.
STRICTER = {"padded 2", "padded 8", "padded 8 edge", "top bit", "all bits"}
#: Where websockets is: it wants a message to be complete before the close, which the RFC does not say.
LAXER = {"close inside"}


@pytest.mark.parametrize("name", sorted(STREAMS.keys() - STRICTER - LAXER))
def test_like_websockets(name: str) -> None:
    """Same messages, and the same close code for the same violation."""
    compare(STREAMS[name])


@pytest.mark.parametrize("name", sorted(STRICTER))
def test_stricter_than_websockets(name: str) -> None:
    """What the RFC forbids and websockets lets pass, or calls too big, is a protocol error here."""
    for parser_class in PARSERS:
        _, failure, _ = run(parser_class, [STREAMS[name]])
        assert failure is not None
        assert failure[0] == 1002  # type: ignore[index]


@pytest.mark.parametrize("size", [0, 1, 124, 125, 126, 127, 65534, 65535, 65536, 65537, 100_000])
@pytest.mark.parametrize("opcode", [1, 2])
def test_lengths_like_websockets(opcode: int, size: int) -> None:
    """Every form of the length, at its edges, whole and in two fragments."""
    compare(frame(opcode, b"x" * size))
    compare(frame(opcode, b"x" * size, fin=False) + frame(9, b"p") + frame(0, b"y" * size))
    compare(frame(opcode, b"x" * size), max_size=max(size, 1))
    compare(frame(opcode, b"x" * (size + 2)), max_size=size + 1)
    compare(frame(opcode, b"x" * size, fin=False) + frame(0, b"y" * 2), max_size=size + 1)


def test_random_streams_like_websockets(rand: random.Random) -> None:
    """The random streams of above, as a foreign parser sees them."""
    for _ in range(200):
        compare(random_stream(rand))


@pytest.mark.parametrize("size", [0, 1, 3, 4, 5, 125, 126, 65535, 65536, 70000])
@pytest.mark.parametrize("opcode", [1, 2, 8, 9, 10])
def test_encode_frame_is_what_websockets_writes(opcode: int, size: int, rand: random.Random, monkeypatch: Any) -> None:
    """Byte for byte, with the same mask, in both makes."""
    payload, mask = rand.randbytes(size), rand.randbytes(4)
    if opcode >= 8 and size > 125:
        for module in (PURE, _core):
            with pytest.raises(ValueError, match="at most 125 bytes"):
                module.encode_frame(opcode, payload, mask)
        return
    monkeypatch.setattr("websockets.frames.secrets.token_bytes", lambda _size: mask)
    expected = Frame(Opcode(opcode), payload).serialize(mask=True)
    for module in (PURE, _core):
        for form in (payload, bytearray(payload), memoryview(payload)):
            assert module.encode_frame(opcode, form, mask) == expected
