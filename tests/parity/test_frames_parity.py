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

_core = compiled()
PARSERS = (PURE.FrameParser, _core.FrameParser)

OPCODES = {0, 1, 2, 8, 9, 10}


def frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, masked: bool = False, form: int = 0
) -> bytes:
    """A server's frame; ``form`` forces the 2 or 8 byte length."""
    size = len(payload)
    bit = 0x80 if masked else 0
    if form == 8 or (form == 0 and size > 0xFFFF):
        length = bytes([bit | 127]) + size.to_bytes(8, "big")
    elif form == 2 or (form == 0 and size > 125):
        length = bytes([bit | 126]) + size.to_bytes(2, "big")
    else:
        length = bytes([bit | size])
    return bytes([(0x80 if fin else 0) | rsv << 4 | opcode]) + length + (b"\0\0\0\0" if masked else b"") + payload


def run(parser_class: Any, pieces: Iterable[bytes], **options: int) -> tuple[list[tuple[int, bytes]], object, int]:
    parser = parser_class(**options)
    out = [item for piece in pieces for item in parser.feed(piece)]
    return out, parser.failure, parser.buffered_bytes


def cuts(data: bytes) -> Iterable[list[bytes]]:
    """The bytes as one piece, in single bytes, and in two pieces cut at every place."""
    yield [data]
    yield [data[at : at + 1] for at in range(len(data))]
    for at in range(len(data)):
        yield [data[:at], data[at:]]


STREAMS = {
    "text": frame(1, b"hello") + frame(1, b"") + frame(2, b"\xff\x00"),
    "lengths": frame(2, b"a" * 125) + frame(2, b"b" * 126) + frame(2, b"c" * 200),
    "fragments": frame(1, b"a", fin=False) + frame(0, b"", fin=False) + frame(0, b"b") + frame(1, b"c"),
    "control inside": frame(1, b"a", fin=False) + frame(9, b"p") + frame(10, b"q") + frame(0, b"b"),
    "control at most": frame(9, b"p" * 125) + frame(10),
    "split character": frame(1, b"\xf0\x9f", fin=False) + frame(9) + frame(0, b"\x9a\x80"),
    "bad text": frame(1, b"ok") + frame(1, b"\xff") + frame(1, b"never"),
    "bad split text": frame(1, b"\xf0\x9f", fin=False) + frame(0, b"A"),
    "half character": frame(1, b"\xf0\x9f\x9a"),
    "surrogate": frame(1, b"\xed\xa0\x80"),
    "binary may be anything": frame(2, b"\xed\xa0", fin=False) + frame(0, b"\x80"),
    "close": frame(8, b"\x03\xe8bye") + frame(1, b"ignored"),
    "close empty": frame(8) + b"\xff\xff\xff",
    "close one byte": frame(8, b"\x03"),
    "close bad reason": frame(8, b"\x03\xe8\xff"),
    "close inside": frame(1, b"a", fin=False) + frame(8, b"\x0f\xa0"),
    "masked": frame(1, b"x") + frame(1, b"x", masked=True),
    "rsv1": frame(1, b"x", rsv=4),
    "rsv2": frame(1, b"x", rsv=2),
    "rsv3": frame(9, b"x", rsv=1),
    "lone continuation": frame(0, b"x"),
    "continuation after the end": frame(1, b"a", fin=False) + frame(0, b"b") + frame(0, b"c"),
    "message inside": frame(1, b"a", fin=False) + frame(2, b"b"),
    "fragmented control": frame(9, b"x", fin=False),
    "long control": frame(9, b"x" * 126),
    "long control 8": frame(8, b"x" * 10, form=8),
    "padded 2": frame(1, b"x" * 125, form=2),
    "padded 8": frame(1, b"x" * 300, form=8),
    "padded 8 edge": b"\x81\x7f" + (0xFFFF).to_bytes(8, "big"),
    "top bit": b"\x81\x7f" + (2**63).to_bytes(8, "big"),
    "all bits": b"\x81\x7f" + b"\xff" * 8,
    "huge claim": b"\x82\x7f" + (2**62).to_bytes(8, "big") + b"x",
    "half a header": b"\x81\x7e\x01",
    "half a payload": frame(1, b"hello")[:-2],
    **{f"opcode {opcode}": frame(opcode, b"") for opcode in range(16)},
    **{f"close code {code}": frame(8, code.to_bytes(2, "big")) for code in (0, 999, 1000, 1003, 1004, 1005, 1006, 1007)},
    **{f"close code {code}": frame(8, code.to_bytes(2, "big")) for code in (1011, 1014, 1015, 1016, 2999, 3000, 4999, 5000)},
}  # fmt: skip


@pytest.mark.parametrize("name", STREAMS)
def test_cut_at_every_byte(name: str) -> None:
    """However the link cuts the bytes, both parsers give the same frames, failure and rest."""
    whole = run(PARSERS[0], [STREAMS[name]])
    for pieces in cuts(STREAMS[name]):
        for parser_class in PARSERS:
            assert run(parser_class, pieces) == whole


def random_stream(rand: random.Random, *, flip: bool = False) -> bytes:
    """Frames that are mostly right, so that the wrong one comes in the middle of things; ``flip``: at times one bit too."""
    out = bytearray()
    inside = False
    for _ in range(rand.randrange(1, 8)):
        # No close inside a message: websockets has its own opinion on that (LAXER).
        opcode = (
            rand.choice((0,) if inside else (1, 2))
            if rand.random() < 0.7
            else rand.choice((9,) if inside else (8, 9, 10))
        )
        fin = opcode >= 8 or rand.random() < 0.5
        inside = inside if opcode >= 8 else not fin
        size = (
            rand.choice((0, 1, 2, 5, 125)) if opcode >= 8 else rand.choice((0, 1, 5, 125, 126, 127, 300, 65535, 65536))
        )
        payload = rand.choice(("é🚀a".encode(), b"plain ", b"\x03\xe8")) * (size // 2 + 1)
        if opcode == 8:  # never two things wrong at once: which one is told first is anyone's choice
            payload = rand.choice((b"\x03\xe8" + b"a" * 123, b"\x03\xe8\xff" * 42, b"\x03\xed" + b"a" * 123))
        if rand.random() < 0.08:
            opcode, fin = rand.choice([code for code in range(16) if code != 8]), rand.random() < 0.5
            inside = inside if opcode >= 8 else not fin
        out += frame(
            opcode, payload[:size], fin=fin, rsv=rand.choice((0,) * 60 + (1, 2, 4)), masked=rand.random() < 0.02
        )
    if flip and rand.random() < 0.2:
        out[rand.randrange(min(len(out), 40))] ^= 1 << rand.randrange(8)
    return bytes(out)


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


#: Where we are stricter, by the letter of RFC 6455 §5.2: lengths must be minimal and have 63 bits.
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
