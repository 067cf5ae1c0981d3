"""What works beside a session, such as an automatic seller, has a say in its health."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from lasersell_sync._log import logger
from lasersell_sync.locks import signal_safe_lock

__all__ = ["Concern", "Concerns"]

log = logger("session")


class Concern(NamedTuple):
    """One thing that whoever watches the session should know.

    Attributes:
        text: what stopped, waits or was refused, and what to do.
        is_problem: True when the session is not healthy because of it.
    """

    text: str
    is_problem: bool


class Concerns:
    """Asks everyone who registered.

    Threads: any.
    """

    def __init__(self) -> None:
        # Guards changes; whoever asks sees one consistent tuple.
        self._lock = signal_safe_lock()
        self._reporters: tuple[Callable[[], Iterable[Concern]], ...] = ()

    def add(self, reporter: Callable[[], Iterable[Concern]]) -> Callable[[], None]:
        """Ask this one from now on; call the result to end that."""
        with self._lock:
            self._reporters = (*self._reporters, reporter)
        return lambda: self._remove(reporter)

    def _remove(self, reporter: Callable[[], Iterable[Concern]]) -> None:
        with self._lock:
            self._reporters = tuple(other for other in self._reporters if other is not reporter)

    def all(self) -> list[Concern]:
        """What they say now; one that raises is a problem of its own."""
        found: list[Concern] = []
        for reporter in self._reporters:
            try:
                found += reporter()
            except Exception:
                log.exception("asking %r for its health failed", reporter)
                found.append(Concern(f"asking {reporter!r} for its health failed: look at the log", is_problem=True))
        return found
