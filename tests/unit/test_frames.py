"""RFC 6455 for a client, rule by rule, on both parsers."""

from __future__ import annotations

import time
import tracemalloc
from types import ModuleType

import pytest

from tests.parity.cores import core, cores


@pytest.fixture(params=cores())
def frames(request: pytest.FixtureRequest) -> ModuleType:
    return core(request.param)


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True) -> bytes:
    size = len(payload)
    if size < 126:
        length = bytes([size])
    elif size <= 0xFFFF:
        length = b"\x7e" + size.to_bytes(2, "big")
    else:
        length = b"\x7f" + size.to_bytes(8, "big")
    return bytes([(0x80 if fin else 0) | opcode]) + length + payload


def test_messages_and_control_frames_in_order(frames: ModuleType) -> None:
    """Fragments become one message with the first one's opcode; control frames come where they arrived."""
    parser = frames.FrameParser()
    data = frame(2, b"ab", fin=False) + frame(9, b"ping") + frame(0, b"cd") + frame(1, b"text") + frame(10)
    assert parser.feed(data) == [(9, b"ping"), (2, b"abcd"), (1, b"text"), (10, b"")]
    assert parser.failure is None
    assert parser.buffered_bytes == 0


@pytest.mark.parametrize(
    ("data", "close_code", "words"),
    [
        (b"\xc1\x00", 1002, "reserved bits"),
        (b"\x83\x00", 1002, "reserved opcode 3"),
        (b"\x8b\x00", 1002, "reserved opcode 11"),
        (b"\x81\x80", 1002, "masked"),
        (b"\x09\x00", 1002, "fragmented control"),
        (b"\x89\x7e", 1002, "more than 125"),
        (b"\x80\x00", 1002, "continuation"),
        (frame(1, b"a", fin=False) + b"\x81", 1002, "inside a fragmented"),
        (b"\x81\x7e\x00\x7d", 1002, "shortest form"),
        (b"\x81\x7f" + (65535).to_bytes(8, "big"), 1002, "shortest form"),
        (b"\x81\x7f" + (2**63).to_bytes(8, "big"), 1002, "top bit"),
        (frame(8, b"\x03"), 1002, "one byte"),
        (frame(8, b"\x03\xed"), 1002, "1005"),
        (frame(8, b"\x03\xe8\xff"), 1007, "reason"),
        (frame(1, b"\xff"), 1007, "not UTF-8"),
        (frame(1, b"\xe2\x82", fin=False) + frame(0, b"\x28"), 1007, "not UTF-8"),
        (b"\x82\x7e\x03\xe9", 1009, "more than 1000 bytes"),
        (frame(2, b"x" * 600, fin=False) + b"\x80\x7e\x01\x91", 1009, "more than 1000 bytes"),
    ],
)
def test_violations(frames: ModuleType, data: bytes, close_code: int, words: str) -> None:
    """What came before is delivered, the failure has the close code and names the rule, and nothing comes after."""
    parser = frames.FrameParser(max_message_bytes=1000)
    assert parser.feed(frame(9, b"before") + data + frame(9, b"after")) == [(9, b"before")]
    assert parser.failure is not None
    assert parser.failure[0] == close_code
    assert words in parser.failure[1]
    assert parser.feed(frame(9, b"later")) == []
    assert parser.buffered_bytes == 0


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1011, 1012, 1014, 3000, 4999])
def test_close_codes_that_may_be_sent(frames: ModuleType, code: int) -> None:
    payload = code.to_bytes(2, "big") + "grüß".encode()
    parser = frames.FrameParser()
    assert parser.feed(frame(8, payload)) == [(8, payload)]
    assert parser.failure is None


def test_after_a_close_everything_is_ignored(frames: ModuleType) -> None:
    """Bytes behind a close frame are neither read nor held, however wrong they are."""
    parser = frames.FrameParser()
    assert parser.feed(frame(1, b"half", fin=False) + frame(8) + b"\xff" * 100) == [(8, b"")]
    assert parser.feed(b"\xff" * 100) == []
    assert parser.failure is None
    assert parser.buffered_bytes == 0


def test_a_character_may_be_split_between_fragments(frames: ModuleType) -> None:
    """UTF-8 is a property of the message, not of its frames."""
    parser = frames.FrameParser()
    rocket = "🚀".encode()
    assert parser.feed(frame(1, rocket[:1], fin=False) + frame(9) + frame(0, rocket[1:])) == [(9, b""), (1, rocket)]


def test_the_bound_is_for_whole_messages(frames: ModuleType) -> None:
    """Exactly the bound is fine, in one frame or several, and control frames do not count."""
    parser = frames.FrameParser(max_message_bytes=1000)
    fragments = frame(2, b"a" * 400, fin=False) + frame(9, b"p" * 125) + frame(0, b"b" * 600)
    assert [len(payload) for _, payload in parser.feed(frame(2, b"c" * 1000) + fragments)] == [1000, 125, 1000]


def test_a_bound_must_be_positive(frames: ModuleType) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        frames.FrameParser(0)


def test_a_claim_allocates_nothing(frames: ModuleType) -> None:
    """A header may claim the whole bound; memory follows what was received."""
    parser = frames.FrameParser(max_message_bytes=2**40)
    tracemalloc.start()
    parser.feed(b"\x82\x7f" + (2**39).to_bytes(8, "big") + b"few bytes")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20
    assert parser.buffered_bytes == len(b"few bytes")


def test_single_bytes_of_a_large_message(frames: ModuleType) -> None:
    """The cost grows with the bytes, not with their square: 8 times the bytes, far from 64 times the time."""
    times = []
    for size in (2**16 + 1, 2**19):
        parser = frames.FrameParser()
        data = frame(2, b"x" * size)
        start = time.process_time()
        out = [item for at in range(len(data)) for item in parser.feed(data[at : at + 1])]
        times.append(time.process_time() - start)
        assert [len(payload) for _, payload in out] == [size]
    assert times[1] < 30 * times[0]


def test_held_bytes_are_told(frames: ModuleType) -> None:
    parser = frames.FrameParser()
    parser.feed(b"\x82")
    assert parser.buffered_bytes == 1
    parser.feed(b"\x05ab")
    assert parser.buffered_bytes == 2
    assert parser.feed(b"cde") == [(2, b"abcde")]
    assert parser.buffered_bytes == 0


def test_input_is_anything_bytes_like(frames: ModuleType) -> None:
    """bytes, bytearray, memoryview of any item size; not str, and nothing that is not in one piece."""
    data = frame(1, b"hello!")
    for form in (bytearray(data), memoryview(data), memoryview(data).cast("H")):
        assert frames.FrameParser().feed(form) == [(1, b"hello!")]
    with pytest.raises(TypeError):
        frames.FrameParser().feed("text")
    with pytest.raises(BufferError):
        frames.FrameParser().feed(memoryview(data)[::2])


def test_payloads_are_copies(frames: ModuleType) -> None:
    """A caller may reuse its buffer at once."""
    buffer = bytearray(frame(1, b"hello"))
    (message,) = frames.FrameParser().feed(buffer)
    buffer[:] = bytes(len(buffer))
    assert message == (1, b"hello")


def test_a_client_frame_is_final_and_masked(frames: ModuleType) -> None:
    """RFC 6455 5.7's own example."""
    assert frames.encode_frame(1, b"Hello", b"\x37\xfa\x21\x3d") == bytes.fromhex("818537fa213d7f9f4d5158")


@pytest.mark.parametrize(
    ("opcode", "mask", "words"), [(16, b"abcd", "0 to 15"), (-1, b"abcd", "0 to 15"), (1, b"abc", "must be 4")]
)
def test_frames_that_cannot_be(frames: ModuleType, opcode: int, mask: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        frames.encode_frame(opcode, b"", mask)
