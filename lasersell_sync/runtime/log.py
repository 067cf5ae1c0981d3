"""Logger names, how a secret is written in a log or an error (not at all), and how often one kind of line is logged."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from typing import Final

ROOT = "lasersell_sync"

#: Lines of one kind that are logged in one window; warnings and errors, and all others.
WARNINGS_AT_ONCE: Final = 20
OTHERS_AT_ONCE: Final = 200
WINDOW_S: Final = 10.0
_MAX_KINDS: Final = 512


class RepeatLimit(logging.Filter):
    """Passes the first lines of each kind and sums up the rest, once a window: a flood of errors must not fill a disk.

    A kind is one logger, level and format. Without a lock, for a signal handler may log too; under races a sum may be
    off by a few.

    Threads: any.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._kinds: dict[tuple[str, int, str], _Window] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """False for a line that is only counted."""
        kind = (record.name, record.levelno, str(record.msg))
        if kind[2] == _SUM:
            return True
        now = self._clock()
        window = self._kinds.get(kind)
        if window is None or now - window.began_at >= WINDOW_S:
            if window is not None:
                self._log_sum(kind, window)
            if len(self._kinds) >= _MAX_KINDS:
                self.log_sums(all_kinds=True)
                self._kinds.clear()
            window = self._kinds[kind] = _Window(now)
        window.lines += 1
        return window.lines <= (WARNINGS_AT_ONCE if record.levelno >= logging.WARNING else OTHERS_AT_ONCE)

    def log_sums(self, *, all_kinds: bool = False) -> float | None:
        """Log the sums that are due, or all; seconds until the next one is (None: nothing was held back)."""
        now = self._clock()
        dues = []
        for kind, window in list(self._kinds.items()):
            if window.held_back(kind) <= 0:
                continue
            due_s = window.began_at + WINDOW_S - now
            if all_kinds or due_s <= 0:
                self._kinds.pop(kind, None)
                self._log_sum(kind, window)
            else:
                dues.append(due_s)
        return min(dues, default=None)

    def forget(self) -> None:
        """Begin every window anew."""
        self._kinds.clear()

    def _log_sum(self, kind: tuple[str, int, str], window: _Window) -> None:
        count = window.held_back(kind)
        if count > 0:
            seconds = max(self._clock() - window.began_at, 0.0)
            logging.getLogger(kind[0]).log(kind[1], _SUM, count, seconds, kind[2])


_SUM = "%d more lines in %.0f s of the kind: %s"


class _Window:
    """What was logged of one kind since a moment."""

    __slots__ = ("began_at", "lines")

    def __init__(self, began_at: float) -> None:
        self.began_at = began_at
        self.lines = 0

    def held_back(self, kind: tuple[str, int, str]) -> int:
        return self.lines - (WARNINGS_AT_ONCE if kind[1] >= logging.WARNING else OTHERS_AT_ONCE)


repeat_limit = RepeatLimit()


def logger(area: str) -> logging.Logger:
    """The logger ``lasersell_sync.<area>``, which limits lines of one kind.

    No handler is attached to any of them: a program that configures no logging gets warnings and errors on stderr,
    as Python does it (``logging.lastResort``).
    """
    found = logging.getLogger(f"{ROOT}.{area}")
    if repeat_limit not in found.filters:
        found.addFilter(repeat_limit)
    return found


def scrub(text: str, *secrets: str | None) -> str:
    """``text`` without the given secrets, for words that came from a server or a dependency.

    Foreign texts may quote the request that failed; whoever shows such a text passes it through here first.
    """
    for secret in secrets:
        if secret:
            text = text.replace(secret, "[redacted]")
    return text


#: As long as the base58 form of a secret key, and shorter than any transaction. (Signatures are as long, and go, too.)
_SECRET_LIKE = re.compile(r"[A-Za-z0-9+/=_-]{80,}")


def without_secrets(text: str) -> str:
    """``text`` without anything that may be a transaction or a key, for the words of somebody else's exception."""
    return _SECRET_LIKE.sub("[redacted]", text)


def shorten(text: str, limit: int = 220) -> str:
    """At most ``limit`` characters of ``text``, control characters replaced, so that a log line stays one line."""
    clean = "".join(c if c.isprintable() else " " for c in text[: limit + 1])
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"
