"""Fuzzes the glue between the plain C and Python: ``python -m tests.fuzz.fuzz_glue INPUTS [SEED]``.

Each input is a message text, or a changed or cut copy of one. It goes through ``Decoder.decode`` of both cores, which must
agree, and through the compiled ``MessagePipeline`` in blocks that end with the text: a block of the heap of exactly that size (under
AddressSanitizer a read behind it is reported), a page that an unreadable one follows (elsewhere the read ends the process),
and the frame parser's own buffer, filled to its last byte.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import random
import sys
from collections.abc import Callable, Iterator
from typing import Any

from tests.fuzz.make_seeds import message_texts
from tests.parity.cores import PURE, compiled, decoder, outcome
from tests.parity.streams import frame

_core = compiled()
PAGE = mmap.PAGESIZE
#: The parser's first buffer; a text of this size that comes in two pieces fills it.
PARSER_BUFFER = 4096
#: What number readers look at in one step ends here.
NUMBERS = (
    b"-1234567890123456",
    b"1234567890123456",
    b"-123456789012345",
    b"12345678901234567",
    b"-0",
    b"1.23456789012345",
)
TAILS = (b"", b",", b"}", b'"', b" ", b"0")


class GuardedPage:
    """One readable page right before one that is not."""

    def __init__(self) -> None:
        self._pages = mmap.mmap(-1, 2 * PAGE)
        self._first = ctypes.c_char.from_buffer(self._pages)
        libc = ctypes.CDLL(None, use_errno=True)
        behind = ctypes.c_void_p(ctypes.addressof(self._first) + PAGE)
        if libc.mprotect(behind, ctypes.c_size_t(PAGE), mmap.PROT_NONE if hasattr(mmap, "PROT_NONE") else 0):
            raise OSError(ctypes.get_errno(), "mprotect")

    def ending_with(self, data: bytes) -> memoryview:
        """A view of the data, whose last byte is the page's."""
        self._pages[PAGE - len(data) : PAGE] = data
        return memoryview(self._pages)[PAGE - len(data) : PAGE]


def heap_block(data: bytes) -> memoryview:
    """The data in a heap block of exactly its size (of 17 bytes at least: smaller ones lie within their object)."""
    return memoryview((ctypes.c_ubyte * len(data)).from_buffer_copy(data)).cast("B")


class Glue:
    """Takes one text in every way, and compares."""

    def __init__(self) -> None:
        self.page = GuardedPage()
        self.decode = decoder(_core, "server")
        self.decode_pure = decoder(PURE, "server").decode
        self.told: list[object] = []

    def take(self, text: bytes) -> None:
        """Raises AssertionError when the two cores differ, or one way of coming changes what comes of the text."""
        expected = outcome(self.decode_pure, text)
        assert outcome(self.decode.decode, text) == expected, text
        if len(text) > PAGE - 8 or not valid_utf8(text):
            return
        message = frame(1, text)
        for place in (heap_block, self.page.ending_with):
            assert self.pumped([place(message)]) == expected, text
        if len(text) <= PARSER_BUFFER:
            # Spaces in front change nothing but the offsets.
            padded = text.rjust(PARSER_BUFFER)
            message = frame(1, padded)
            assert self.pumped([message[:-1], message[-1:]]) == outcome(self.decode_pure, padded), text

    def pumped(self, pieces: list[Any]) -> object:
        """What a pipeline makes of these bytes, which hold one text."""
        told: list[object] = []
        pipeline = _core.MessagePipeline(
            _core.FrameParser(),
            self.decode,
            on_message=lambda message, _: told.append(outcome(lambda same: same, message)),
            on_frame=lambda *what: told.append(what),
            on_unreadable=lambda error, _: told.append(("error", error.reason, error.path, error.offset)),
        )
        for piece in pieces:
            pipeline.feed(piece, 1)
        assert len(told) == 1, told
        return told[0]


def valid_utf8(text: bytes) -> bool:
    """False for what the frame parser refuses before anybody decodes it."""
    with contextlib.suppress(UnicodeDecodeError):
        return bool(text.decode() or True)
    return False


def cut_texts(texts: list[bytes]) -> Iterator[bytes]:
    """Every text cut at every byte, and behind numbers of critical lengths in the place of each number."""
    for text in texts:
        for end in range(len(text)):
            yield text[:end]
            if text[end : end + 1] == b":" and text[end + 1 : end + 2] in b"-0123456789":
                for number in NUMBERS:
                    for tail in TAILS:
                        yield text[: end + 1] + number + tail


def changed(text: bytes, texts: list[bytes], rand: random.Random) -> bytes:
    """A copy with a few mistakes."""
    out = bytearray(text)
    changes: tuple[Callable[[int], None], ...] = (
        lambda at: out.__setitem__(at, rand.randrange(256)),
        lambda at: out.__delitem__(slice(at, at + rand.randrange(1, 9))),
        lambda at: out.__delitem__(slice(at, None)),
        lambda at: out.__setitem__(slice(at, at), rand.choice(NUMBERS)),
        lambda at: out.__setitem__(slice(at, at), rand.choice((b'"', b"{", b"}", b"[", b"]", b",", b":", b"\\", b" "))),
        lambda at: out.__setitem__(slice(at, None), rand.choice(texts)[at:]),
    )
    for _ in range(rand.randrange(1, 4)):
        if out:
            rand.choice(changes)(rand.randrange(len(out)))
    return bytes(out)


def run(inputs: int, seed: int) -> int:
    """So many inputs; how many there were."""
    rand = random.Random(seed)
    texts = message_texts()
    glue = Glue()
    done = 0
    for text in cut_texts(sorted(texts, key=lambda _: rand.random())):
        if done >= inputs // 2:
            break
        glue.take(text)
        done += 1
    while done < inputs:
        glue.take(changed(rand.choice(texts), texts, rand))
        done += 1
    return done


def main() -> None:
    inputs = int(sys.argv[1])
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else int.from_bytes(os.urandom(4), "big")
    print(f"seed {seed}", flush=True)
    print(f"{run(inputs, seed)} inputs, no complaint")


if __name__ == "__main__":
    main()
