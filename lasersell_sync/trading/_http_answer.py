"""What comes back of an HTTP request: a whole answer, or why there is none.

Apart from ``_http``, so that those who ask need not load urllib3 before they do.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Literal, TypeAlias

import attrs

from lasersell_sync.network.http_body import text_of
from lasersell_sync.retry import parse_http_date_s, parse_retry_after_s

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
