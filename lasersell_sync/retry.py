"""Every retry policy of the library; the only importer of tenacity, on its first use.

Two shapes are needed: a short burst of attempts for a request whose caller waits (``RetryPolicy``), and an endless
patience for a stream that has to come back (``reconnect_retrying``). What is worth another attempt is decided by the
caller, by the error's class and fields.
"""

from __future__ import annotations

import contextlib
import math
import random
import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeVar

import attrs

from lasersell_sync.exceptions import ConfigurationError
from lasersell_sync.runtime.timeouts import bounded_s

if TYPE_CHECKING:
    import tenacity

__all__ = [
    "RetryPolicy",
    "equal_jitter_s",
    "full_jitter_s",
    "parse_http_date_s",
    "parse_retry_after_s",
    "reconnect_retrying",
]

_T = TypeVar("_T")

_NUMBER = re.compile(r"[0-9]{1,300}(\.[0-9]{0,300})?", re.ASCII)
#: Of a date's seconds: some servers write it, no form has it.
_FRACTION = re.compile(r"(:[0-9]{2})\.[0-9]+")
#: What a server may ask for; each caller has a lower limit of its own.
_LONGEST_RETRY_AFTER_S = 1e9

# 2**62 of any unit is longer than anybody waits; above about 2**1023 a float overflows.
_MAX_DOUBLINGS = 62


def _at_least(least: int) -> Callable[[RetryPolicy, attrs.Attribute[int], int], None]:
    def check(_: RetryPolicy, attribute: attrs.Attribute[int], value: int) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ConfigurationError(attribute.name, f"a whole number of at least {least} is needed")

    return check


def _seconds(_: RetryPolicy, attribute: attrs.Attribute[float], value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise ConfigurationError(attribute.name, "a finite number of seconds, 0 or more, is needed")


@attrs.frozen
class RetryPolicy:
    """How often a request is tried, and how long the pauses are.

    The pause before attempt n+1 is ``initial_backoff_ms`` doubled n-1 times, at most ``max_backoff_ms``, plus a random
    part of ``jitter_ms``. An error whose ``retry_after_s`` asks for a longer pause gets it; one that asks for more than
    ``max_retry_after_s`` ends the call at once, because an attempt before that time would be refused again.

    Args:
        max_attempts: attempts in all, at least 1 (1: no retry).
        initial_backoff_ms: milliseconds before the second attempt.
        max_backoff_ms: milliseconds, bound of the doubling.
        jitter_ms: milliseconds, upper bound of the random part.
        max_retry_after_s: seconds that a server may make the caller wait.

    Raises:
        ConfigurationError: a number out of range.

    Threads: immutable, any.
    """

    max_attempts: int = attrs.field(default=2, validator=_at_least(1))
    initial_backoff_ms: int = attrs.field(default=25, validator=_at_least(0))
    max_backoff_ms: int = attrs.field(default=25, validator=_at_least(0))
    jitter_ms: int = attrs.field(default=25, validator=_at_least(0))
    max_retry_after_s: float = attrs.field(default=5.0, converter=bounded_s, validator=_seconds, kw_only=True)

    def call(
        self,
        fn: Callable[[], _T],
        is_retryable: Callable[[Exception], bool],
        *,
        sleep: Callable[[float], None] = time.sleep,
        rand: random.Random | None = None,
    ) -> _T:
        """``fn()``, again while it fails with something retryable and attempts are left; then its last error.

        Args:
            fn: one attempt.
            is_retryable: asked about each ``Exception``; KeyboardInterrupt and its kind are never retried.
            sleep: waits that many seconds.
            rand: source of the jitter.

        Threads: any; blocks the caller during attempts and pauses.
        """
        try:
            return fn()
        except Exception as error:  # noqa: BLE001 - it is raised again, by tenacity
            failed = [error]
        return self._call_again(fn, failed, is_retryable, sleep, (rand or random).uniform)

    def _call_again(
        self,
        fn: Callable[[], _T],
        failed: list[Exception],
        is_retryable: Callable[[Exception], bool],
        sleep: Callable[[float], None],
        uniform: Callable[[float, float], float],
    ) -> _T:
        """The attempts after the first one, which is in ``failed``.

        Most calls succeed at once, and some of them are sales, which should not wait for tenacity to be set up.
        """
        import tenacity

        def attempt() -> _T:
            if failed:
                raise failed.pop()
            return fn()

        def worth_it(error: BaseException) -> bool:
            return (
                isinstance(error, Exception)
                and is_retryable(error)
                and (_retry_after_s(error) or 0.0) <= self.max_retry_after_s
            )

        def pause_s(state: tenacity.RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome is not None else None
            own_s = self.backoff_ms(state.attempt_number) / 1000 + uniform(0.0, self.jitter_ms / 1000)
            return bounded_s(max(own_s, _retry_after_s(error) or 0.0))

        retrying = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(self.max_attempts),
            wait=pause_s,
            retry=tenacity.retry_if_exception(worth_it),
            sleep=sleep,
            reraise=True,
        )
        return retrying(attempt)

    def backoff_ms(self, failed_attempts: int) -> int:
        """Milliseconds to wait after so many failed attempts (at least 1), without the random part. Threads: any."""
        # Shifting an int cannot overflow, but max_attempts is the user's: keep it from becoming a huge number.
        return min(self.max_backoff_ms, self.initial_backoff_ms << min(failed_attempts - 1, _MAX_DOUBLINGS))


def full_jitter_s(failures: int, initial_s: float, max_s: float, uniform: Callable[[float, float], float]) -> float:
    """A wait between 0 and ``initial_s`` doubled for each failure after the first, at most ``max_s``.

    Clients that lost one server together do not come back together.
    """
    return uniform(0.0, _doubled(failures, initial_s, max_s))


def equal_jitter_s(failures: int, initial_s: float, max_s: float, uniform: Callable[[float, float], float]) -> float:
    """As ``full_jitter_s``, but never less than half of the bound: for waits that must not be short by chance."""
    bound_s = _doubled(failures, initial_s, max_s)
    return bound_s / 2 + uniform(0.0, bound_s / 2)


def _doubled(failures: int, initial_s: float, max_s: float) -> float:
    return min(max_s, initial_s * 2.0 ** min(max(0, failures - 1), _MAX_DOUBLINGS))


class StopSign(Protocol):
    """A ``threading.Event``, or what is asked like one."""

    def is_set(self) -> bool:
        """True when nothing should be tried any more."""


def reconnect_retrying(
    *,
    stop_event: StopSign,
    sleep: Callable[[float], None],
    should_retry: Callable[[BaseException], bool],
    wait_s: Callable[[BaseException], float],
    before_sleep: Callable[[tenacity.RetryCallState], None] | None = None,
) -> tenacity.Retrying:
    """Attempts without end until one succeeds, an error is final, or ``stop_event`` is set (docs/protocol.md 2.5).

    tenacity looks at ``stop_event`` only after a failed attempt, so an event that is set *during* a pause still lets
    one more attempt begin: the attempt function must look at the event before it touches the network, and ``sleep``
    should end early when it is set.

    Args:
        stop_event: set by ``close()``; the last failure is then raised.
        sleep: waits that many seconds, or less.
        should_retry: False ends the attempts with that error.
        wait_s: seconds to wait after this error; ``stream.lifecycle`` has the rules.
        before_sleep: told before each pause (``state.upcoming_sleep``, ``state.outcome``).

    Returns:
        A ``tenacity.Retrying`` to call with the attempt function; what it raises is the attempt's own error.

    Threads: one thread uses one of these.
    """
    import tenacity

    def pause_s(state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome is not None else None
        return 0.0 if error is None else wait_s(error)

    return tenacity.Retrying(
        stop=lambda _: stop_event.is_set(),
        wait=pause_s,
        retry=tenacity.retry_if_exception(should_retry),
        before_sleep=before_sleep,
        sleep=sleep,
        reraise=True,
    )


def parse_retry_after_s(value: str) -> float | None:
    """Seconds that a ``Retry-After`` header asks to wait, or None.

    Args:
        value: a number of seconds, also with a fraction, or a date in one of the three forms of HTTP (RFC 9110 5.6.7),
            which are GMT. A date counts from the wall clock of now; one in the past is 0.
    """
    value = value.strip()
    if _NUMBER.fullmatch(value):
        return min(float(value), _LONGEST_RETRY_AFTER_S)
    sent_s = parse_http_date_s(value)
    return None if sent_s is None else min(max(0.0, sent_s - time.time()), _LONGEST_RETRY_AFTER_S)


def parse_http_date_s(value: str) -> float | None:
    """Unix seconds of an HTTP date (RFC 9110 5.6.7), or None.

    Args:
        value: ``Sun, 06 Nov 1994 08:49:37 GMT``, ``Sunday, 06-Nov-94 08:49:37 GMT`` or ``Sun Nov  6 08:49:37 1994``.
    """
    import datetime as dt
    import email.utils  # drags in half a dozen modules, for an answer that few servers give

    with contextlib.suppress(ValueError, TypeError, OverflowError):
        date = email.utils.parsedate_to_datetime(_FRACTION.sub(r"\1", value.strip()))
        # Without a zone it is GMT, as every HTTP date: email's dates are the local time of their writer.
        return (date if date.tzinfo is not None else date.replace(tzinfo=dt.timezone.utc)).timestamp()
    return None


def _retry_after_s(error: BaseException | None) -> float | None:
    """What the server asked for, when the error carries such a number."""
    asked = getattr(error, "retry_after_s", None)
    if isinstance(asked, (int, float)) and asked >= 0:
        return float(asked)
    return None
