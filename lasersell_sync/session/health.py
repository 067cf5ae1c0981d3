"""A session's health: who reports to it, and the watches for a forgotten start and a silent feed."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple

import attrs

from lasersell_sync.runtime.locks import signal_safe_lock
from lasersell_sync.runtime.log import logger
from lasersell_sync.session.events import FeedSilent
from lasersell_sync.stream.lifecycle import ConnectionState
from lasersell_sync.stream.sink import ConsumerWatch
from lasersell_sync.stream.stats import StreamStats

__all__ = ["Concern", "Concerns", "FeedWatch", "Health", "StartWatch"]

log = logger("session")


# ── What works beside a session, such as an automatic seller, has a say in its health ───────────────────────────────


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


# ── A session's health, for those who watch a service from outside ──────────────────────────────────────────────────


#: A shorter stop is how a lossless lane holds the server back.
STOPPED_AFTER_S: Final = ConsumerWatch.WARN_AFTER_S


@attrs.frozen(kw_only=True)
class Health:
    """Whether the session does its work now.

    Attributes:
        ok: LIVE, no handler hangs, what was set up beside the session was started, the link is read, and prices come.
        status: where the connection stands.
        problem: why not ok, in words; empty when ok.
        stuck_handlers: names of handlers that have run for longer than ``handler_stuck_after_s``.
        stale_positions: positions that were not announced again after the latest reconnect.
        idle_seconds: since the last byte arrived.
        waiting: events that nobody has consumed yet.
        high_dropped: high-lane events that were lost because nobody had chosen a way to consume yet.
        reading_stopped_seconds: for how long nothing has been read because the lanes are full; None: the link is read.
        feed_silent_seconds: for how long no price has come though positions are open; None: prices come.
        decode_errors: messages that could not be read, so far.
        contradictions: messages that contradict an earlier one of their connection, so far.
        sessions: sessions so far; one more than the reconnects.
        handler_errors: exceptions that handlers raised, so far. They do not make the session unhealthy.
        last_handler_error: the latest of them: handler, exception type and event type; empty when none was raised.
        notes: what works beside the session says, such as an ``AutoSeller``: exits that wait for a proof, undecided
            transactions, a pause, callbacks that are slow or fail. Each says what to do. Some make it unhealthy.

    Threads: immutable, any.
    """

    ok: bool
    status: ConnectionState
    problem: str
    stuck_handlers: tuple[str, ...]
    stale_positions: int
    idle_seconds: float | None
    waiting: int
    high_dropped: int
    reading_stopped_seconds: float | None
    feed_silent_seconds: float | None
    decode_errors: int
    contradictions: int
    sessions: int
    handler_errors: int = 0
    last_handler_error: str = ""
    notes: tuple[str, ...] = ()

    @classmethod
    def judge(
        cls,
        *,
        status: ConnectionState,
        error: BaseException | None,
        stuck_handlers: tuple[str, ...],
        stale_positions: int,
        not_started: tuple[str, ...] = (),
        handler_errors: tuple[int, str] = (0, ""),
        reading_stopped_s: float | None = None,
        feed_silent_s: float | None = None,
        concerns: Sequence[Concern] = (),
        stats: StreamStats,
    ) -> Health:
        """Put the facts together."""
        problem = ""
        if error is not None:
            problem = str(error)
        elif status is not ConnectionState.LIVE:
            problem = f"the connection is {status.value}"
        elif stuck_handlers:
            problem = f"handlers hang: {', '.join(stuck_handlers)}"
        elif not_started:
            problem = "; ".join(not_started)
        elif reading_stopped_s is not None and reading_stopped_s >= STOPPED_AFTER_S:
            problem = f"reading stopped {reading_stopped_s:.0f} s ago: {stats.waiting} events wait for the consumer"
        elif feed_silent_s is not None:
            problem = f"no price of any open position came for {feed_silent_s:.0f} s"
        else:
            problem = "; ".join(each.text for each in concerns if each.is_problem)
        return cls(
            ok=not problem,
            status=status,
            problem=problem,
            stuck_handlers=stuck_handlers,
            stale_positions=stale_positions,
            idle_seconds=stats.idle_seconds,
            waiting=stats.waiting,
            high_dropped=stats.high_dropped,
            reading_stopped_seconds=reading_stopped_s,
            feed_silent_seconds=feed_silent_s,
            decode_errors=stats.decode_errors,
            contradictions=stats.contradictions,
            sessions=stats.sessions,
            handler_errors=handler_errors[0],
            last_handler_error=handler_errors[1],
            notes=tuple(each.text for each in concerns),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**attrs.asdict(self), "status": self.status.value}


# ── What was set up beside a session and then not started: it does nothing, and somebody has to say so ──────────────


#: Long enough for a program that sets up several things before it starts them.
OVERDUE_AFTER_S: Final = 3.0


@attrs.define
class _Waiting:
    problem: str
    due_at: float
    is_reported: bool = False


class StartWatch:
    """Warns of what should have been started by now.

    Threads: any; ``tick`` on the reader.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # Guards the dict.
        self._lock = signal_safe_lock()
        self._waiting: dict[int, _Waiting] = {}
        self._numbers = itertools.count()

    def expect(self, problem: str) -> Callable[[], None]:
        """Warn with ``problem``, once, unless the returned function is called within ``OVERDUE_AFTER_S`` seconds.

        Args:
            problem: what was not started, what does not happen therefore, and the call that is missing.

        Returns:
            To be called when it was started, or will never be.
        """
        number = next(self._numbers)
        with self._lock:
            self._waiting[number] = _Waiting(problem, self._clock() + OVERDUE_AFTER_S)

        def settle() -> None:
            with self._lock:
                self._waiting.pop(number, None)

        return settle

    def tick(self) -> float | None:
        """Log what is overdue; seconds until something else is (None: nothing)."""
        if not self._waiting:
            return None
        now = self._clock()
        with self._lock:
            due = [one for one in self._waiting.values() if one.due_at <= now and not one.is_reported]
            dues = [one.due_at - now for one in self._waiting.values() if one.due_at > now]
        for one in due:
            # Before health() says it: whoever reads it there finds it in the log.
            log.warning("%s", one.problem)
            one.is_reported = True
        return min(dues, default=None)

    def problems(self) -> tuple[str, ...]:
        """What is overdue now."""
        with self._lock:
            return tuple(one.problem for one in self._waiting.values() if one.is_reported)


# ── Notices a feed that falls silent behind a link that lives ───────────────────────────────────────────────────────


class FeedWatch:
    """Compares how many low-lane messages there were with how many there should be by now.

    Args:
        silent_after_s: as ``StreamOptions.feed_silent_after_s``.

    Threads: the reader; ``silent_s`` from any.
    """

    #: Without an option: so many of the server's flush intervals, and at least so many seconds.
    FLUSHES: Final = 30
    LEAST_S: Final = 30.0

    def __init__(self, silent_after_s: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._silent_after_s = silent_after_s
        self._clock = clock
        self._count = -1
        self._positions = 0
        self._since = clock()
        self._is_told = False

    def restart(self) -> None:
        """Count the silence from now on: there is a new session, or nothing could be seen so far."""
        self._since, self._is_told = self._clock(), False

    def look(self, *, count: int, positions: int, pnl_flush_ms: int) -> tuple[FeedSilent | None, float | None]:
        """(the event, None) when it is due now; else (None, seconds until it may be, or None: nothing is awaited).

        Args:
            count: low-lane messages so far.
            positions: open positions that the server has announced.
            pnl_flush_ms: of the session's limits.
        """
        if count != self._count or not positions or not self._positions:
            self.restart()
        self._count, self._positions = count, positions
        if not positions or self._is_told:
            return None, None
        limit_s = self._silent_after_s or max(self.LEAST_S, self.FLUSHES * pnl_flush_ms / 1000)
        silent_s = self._clock() - self._since
        if silent_s < limit_s:
            return None, limit_s - silent_s
        self._is_told = True
        return FeedSilent(silent_seconds=silent_s, positions=positions), None

    def silent_s(self) -> float | None:
        """For how long the feed has been silent, once that was told; None while it is not."""
        return self._clock() - self._since if self._is_told else None
