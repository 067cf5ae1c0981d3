"""Streams of frames as servers send them, and as they must not."""

from __future__ import annotations

import random
from collections.abc import Iterable


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
