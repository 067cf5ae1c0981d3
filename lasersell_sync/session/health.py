"""A session's health, for those who watch a service from outside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import attrs

from lasersell_sync.session.concerns import Concern
from lasersell_sync.stream.consumer_watch import ConsumerWatch
from lasersell_sync.stream.lifecycle import ConnectionState
from lasersell_sync.stream.stats import StreamStats

__all__ = ["Health"]

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
