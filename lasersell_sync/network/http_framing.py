"""Answers of HTTP/1.1: where one ends in a stream of bytes, and what comes of a request."""

from __future__ import annotations

import contextlib
import http.client
import io
import re
import time
from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

import attrs

from lasersell_sync.network.http_body import text_of
from lasersell_sync.retry import parse_http_date_s, parse_retry_after_s

__all__ = ["AnswerFraming", "plain_answer"]


# ── What comes back of an HTTP request: a whole answer, or why there is none ────────────────────────────────────────
# Apart from ``http_pool``, so that those who ask need not load urllib3 before they do.


Stage: TypeAlias = Literal["send", "read", "redirect", "oversize"]


@attrs.frozen
class HttpAnswer:
    """A complete answer.

    Attributes:
        status: the HTTP status; 3xx never comes here.
        headers: names in lower case.
        body: all of it, without its content encoding, at most the pool's limit.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes = attrs.field(repr=lambda body: f"<{len(body)} bytes>")

    @property
    def text(self) -> str:
        """The body as UTF-8, without a byte order mark; what is not UTF-8 shows as U+FFFD."""
        return text_of(self.body)

    @property
    def retry_after_s(self) -> float | None:
        """Seconds that ``Retry-After`` asks to wait; None without a readable one."""
        return parse_retry_after_s(self.headers.get("retry-after", ""))

    @property
    def clock_offset_s(self) -> float | None:
        """Seconds by which this machine's clock is ahead of the server's, by its ``Date``; None without one."""
        server_s = parse_http_date_s(self.headers.get("date", ""))
        return None if server_s is None else time.time() - server_s


class HttpFailure(Exception):
    """No usable answer. Internal: the callers turn it into ``ExitApiError`` or ``TxSubmitError``, with its cause.

    Attributes:
        stage: ``send`` (no answer began), ``read`` (it began and did not end), ``redirect``, ``oversize``.
        problem: in words of ours; a redirect's host is the server's.
        sent: True when the server may have received the request.
        status: the HTTP status, when there was one.
    """

    def __init__(self, stage: Stage, problem: str, *, sent: bool, status: int | None = None) -> None:
        super().__init__(problem)
        self.stage = stage
        self.problem = problem
        self.sent = sent
        self.status = status


# ── Finds where an HTTP/1.1 answer ends while its bytes arrive in pieces ────────────────────────────────────────────
# Only the length of an answer is judged here; ``http_pool`` reads what it says once it is complete. Where the two
# disagree, ``http_pool`` finds the answer cut short or followed by further bytes, and its connection is not used again.


#: 100 and 102 may be repeated while a server works; one that sends more of them answers nothing.
_MOST_INTERIM_ANSWERS: Final = 64
_MAX_HEAD_BYTES: Final = 64 * 1024
_BODILESS_STATUSES: Final = (204, 304)
#: How far a body is collected beyond the limit: ``http_pool`` reads in steps of this size before it finds it too long.
_BEYOND_LIMIT_BYTES: Final = 128 * 1024
#: The answer that nodes give nearly always: every line plain, nothing folded, no empty value.
_MOST_PLAIN_DIGITS: Final = 12
_PLAIN_HEAD: Final = re.compile(rb"HTTP/1\.1 200 [ -~]*\r\n((?:[A-Za-z0-9_-]+: [!-~][ -~]*\r\n)+)\r\n")
#: Headers that change how the rest of an answer is read.
_FRAMING_HEADERS: Final = frozenset({"transfer-encoding", "content-encoding", "trailer", "upgrade"})


def plain_answer(received: bytes, max_body_bytes: int) -> HttpAnswer | None:
    """The answer, if these bytes are exactly one of the plainest kind, which takes no library to read.

    That is a 200 in full, of one length, neither chunked nor compressed, on a connection that stays open.

    Args:
        received: what arrived so far.
        max_body_bytes: a longer body is not plain.
    """
    head = _PLAIN_HEAD.match(received)
    if head is None:
        return None
    lines = head.group(1).decode("ascii").split("\r\n")[:-1]
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    length = headers.get("content-length", "")
    is_plain = (
        len(headers) == len(lines)
        and length.isdigit()
        and len(length) <= _MOST_PLAIN_DIGITS
        and headers.get("connection", "keep-alive").lower() == "keep-alive"
        and not _FRAMING_HEADERS & headers.keys()
    )
    if not is_plain or not len(received) - head.end() == int(length) <= max_body_bytes:
        return None
    return HttpAnswer(200, headers, received[head.end() :])


class AnswerFraming:
    """One answer to a request that was not HEAD, from its first byte.

    Args:
        max_body_bytes: a longer body is called complete soon after, so that it is not collected for ever.

    Attributes:
        received: every byte so far, without the heads of interim answers that were read past.
        status: of the answer; None: its head is not complete.

    Threads: one at a time.
    """

    __slots__ = (
        "_chunked",
        "_ends_at",
        "_in_trailers",
        "_interim",
        "_line_at",
        "_max_body_bytes",
        "_searched",
        "received",
        "status",
    )

    def __init__(self, max_body_bytes: int) -> None:
        self._max_body_bytes = max_body_bytes
        self.received = bytearray()
        self.status: int | None = None
        #: Where the answer ends; None: not known yet, or where the connection does.
        self._ends_at: int | None = None
        self._chunked = False
        self._in_trailers = False
        #: The first line that is not complete: of the head, a chunk's size, or a trailer.
        self._line_at = 0
        #: No line ends before this.
        self._searched = 0
        self._interim = 0

    def feed(self, data: bytes) -> bool:
        """Take further bytes; whether the answer is complete, or so wrong that nothing more will help."""
        self.received += data
        try:
            return self._is_complete()
        except (ValueError, http.client.HTTPException):
            return True  # whatever it is: _http finds the words for it

    def _is_complete(self) -> bool:
        if self.status is None and not self._read_head():
            return False
        if self._chunked:
            self._read_chunks()
        size = len(self.received)
        return (self._ends_at is not None and size >= self._ends_at) or size > self._longest()

    def _longest(self) -> int:
        return self._max_body_bytes + _BEYOND_LIMIT_BYTES

    def _read_head(self) -> bool:
        """Whether the head of the answer itself is complete."""
        while (line := self._next_line()) is not None:
            if line.strip(b"\r\n"):
                continue
            head = bytes(self.received[: self._line_at])
            status = _status_of(head)
            if not 100 <= status < 200 or status == http.client.SWITCHING_PROTOCOLS:
                self._begin_body(status, head)
                return True
            self._interim += 1
            if self._interim >= _MOST_INTERIM_ANSWERS:
                raise ValueError("interim answers without end")
            del self.received[: self._line_at]
            self._line_at = self._searched = 0
        if len(self.received) > _MAX_HEAD_BYTES:
            raise ValueError("a head without end")
        return False

    def _begin_body(self, status: int, head: bytes) -> None:
        self.status = status
        if status in _BODILESS_STATUSES or status == http.client.SWITCHING_PROTOCOLS:
            self._ends_at = len(head)
            return
        file = io.BytesIO(head)
        file.readline()
        headers = http.client.parse_headers(file)
        self._chunked = headers.get("transfer-encoding", "").lower() == "chunked"
        if not self._chunked:
            with contextlib.suppress(ValueError):  # no length that counts: the answer ends with its connection
                length = int(headers.get("content-length", ""))
                if length >= 0:
                    self._ends_at = len(head) + length

    def _read_chunks(self) -> None:
        """As far as they are there: the line with a size, so many bytes and a line end, and again; then trailers."""
        while self._ends_at is None and self._line_at <= len(self.received):
            line = self._next_line()
            if line is None:
                return
            if self._in_trailers:
                if not line.strip(b"\r\n"):
                    self._ends_at = self._line_at
                continue
            size = int(line.split(b";", 1)[0], 16)
            if size < 0:
                raise ValueError("a chunk of less than nothing")
            if size:
                self._line_at = self._searched = self._line_at + size + len(b"\r\n")
            self._in_trailers = not size

    def _next_line(self) -> bytes | None:
        """The next whole line with its end; None: its end is not there yet."""
        end = self.received.find(b"\n", self._searched)
        if end < 0:
            self._searched = len(self.received)
            if self._searched - self._line_at > _MAX_HEAD_BYTES:
                raise ValueError("a line without end")
            return None
        line = bytes(self.received[self._line_at : end + 1])
        self._line_at = self._searched = end + 1
        return line


def _status_of(head: bytes) -> int:
    """Of a status line; ValueError: it is none."""
    words = head.split(b"\n", 1)[0].split(None, 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/"):
        raise ValueError("no status line")
    return int(words[1])
