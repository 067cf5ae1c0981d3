"""TLS record by record: how much is asked for, where it goes, and how it ends; alike in both makes."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.parity.cores import core, cores


class Records:
    """``ssl.SSLObject.read`` over prepared records; then whatever ``end`` is."""

    def __init__(self, records: list[bytes], end: BaseException | int) -> None:
        self.records = list(records)
        self.end = end
        self.asked: list[int] = []

    def read(self, size: int, buffer: memoryview) -> int:
        self.asked.append(size)
        if not self.records:
            if isinstance(self.end, BaseException):
                raise self.end
            return self.end
        count = min(size, len(self.records[0]))
        buffer[:count] = self.records[0][:count]
        rest = self.records[0][count:]
        self.records[:1] = [rest] if rest else []
        return count


@pytest.fixture(params=cores())
def read_records(request: pytest.FixtureRequest) -> Callable[..., Any]:
    return core(request.param).read_records  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", cores())
@given(
    records=st.lists(st.binary(min_size=1, max_size=8), max_size=12),
    size=st.integers(0, 40),
    filled=st.integers(0, 40),
    ends=st.booleans(),
)
def test_as_much_as_there_is_and_fits(name: str, records: list[bytes], size: int, filled: int, ends: bool) -> None:
    """Behind what is there already, never beyond the buffer's end, and the rest of the buffer is left alone."""
    wants = ssl.SSLWantReadError()
    source = Records(records, 0 if ends else wants)
    plain = b"".join(records)
    buffer = bytearray(b"." * size)
    now, problem = core(name).read_records(source.read, memoryview(bytearray(8)), memoryview(buffer), filled)
    room = max(0, size - filled)
    taken = min(room, len(plain))
    assert now == filled + taken
    assert problem is (None if ends or len(plain) >= room else wants)
    assert bytes(buffer) == (b"." * min(filled, size) + plain[:taken]).ljust(size, b".")
    assert b"".join(source.records) == plain[taken:]
    assert all(0 < asked <= 8 for asked in source.asked)


def test_other_exceptions_are_raised(read_records: Callable[..., Any]) -> None:
    """Only what a broken link raises is an answer."""
    with pytest.raises(ValueError, match="closed"):
        read_records(Records([b"a"], ValueError("closed")).read, memoryview(bytearray(4)), memoryview(bytearray(9)), 0)
    reset = ConnectionResetError()
    assert read_records(Records([b"ab"], reset).read, memoryview(bytearray(4)), memoryview(bytearray(9)), 0) == (
        2,
        reset,
    )


def test_one_that_claims_more_than_it_was_asked_for(read_records: Callable[..., Any]) -> None:
    """Whatever it says, nothing is copied from behind its record, nor to behind the buffer."""
    buffer = bytearray(6)
    assert read_records(lambda _size, _buffer: 10**9, memoryview(bytearray(4)), memoryview(buffer), 0) == (6, None)
    assert read_records(lambda _size, _buffer: -1, memoryview(bytearray(4)), memoryview(buffer), 0) == (0, None)


@pytest.mark.parametrize("wrong", [b"constant", "text"])
def test_buffers_that_cannot_be_written(read_records: Callable[..., Any], wrong: Any) -> None:
    """Refused; and a refused call holds on to nothing."""
    kept = bytearray(10)
    for record, buffer in ((wrong, kept), (kept, wrong)):
        with pytest.raises((BufferError, TypeError, ValueError)):
            read_records(Records([b"abc"], 0).read, record, buffer, 0)
    kept.append(0)
