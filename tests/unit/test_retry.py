"""Retry policies: how often, how long, and when not; no test here really waits."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator

import pytest
import tenacity

from lasersell_sync.exceptions import ConfigurationError, ExitApiError
from lasersell_sync.retry import (
    RetryPolicy,
    equal_jitter_s,
    full_jitter_s,
    parse_http_date_s,
    parse_retry_after_s,
    reconnect_retrying,
)


class Flaky:
    """Fails with the given errors in turn, then returns "done"."""

    def __init__(self, *errors: BaseException) -> None:
        self.errors = list(errors)
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"


def busy(retry_after_s: float | None = None) -> ExitApiError:
    return ExitApiError("http_status", "slow down", status=429, retry_after_s=retry_after_s)


def always(_: Exception) -> bool:
    return True


# ── RetryPolicy ──


def test_defaults_are_the_official_ones():
    """A migrating user gets the same two attempts and 25 ms as before."""
    policy = RetryPolicy()
    assert (policy.max_attempts, policy.initial_backoff_ms, policy.max_backoff_ms, policy.jitter_ms) == (2, 25, 25, 25)
    assert RetryPolicy(3, 10, 80, 5) == RetryPolicy(
        max_attempts=3, initial_backoff_ms=10, max_backoff_ms=80, jitter_ms=5
    )


def test_a_call_that_succeeds_at_once_does_not_set_tenacity_up(monkeypatch: pytest.MonkeyPatch):
    """A sale that goes through does not pay for what only failures need."""
    monkeypatch.setattr(tenacity, "Retrying", pytest.fail)
    assert RetryPolicy(max_attempts=3).call(Flaky(), always) == "done"


def test_success_after_failures_within_the_attempts():
    """A retryable failure is not seen by the caller while attempts are left."""
    pauses: list[float] = []
    attempt = Flaky(busy(), busy())
    assert RetryPolicy(max_attempts=3).call(attempt, always, sleep=pauses.append) == "done"
    assert attempt.calls == 3
    assert len(pauses) == 2


def test_the_last_error_itself_is_raised_when_the_attempts_are_used_up():
    """The caller catches its own error class, never a retry library's."""
    last = busy()
    attempt = Flaky(busy(), last, busy())
    with pytest.raises(ExitApiError) as caught:
        RetryPolicy(max_attempts=2).call(attempt, always, sleep=lambda _: None)
    assert caught.value is last
    assert attempt.calls == 2


def test_what_is_not_retryable_is_raised_at_once():
    """is_retryable decides, and a refused request is not repeated."""
    attempt = Flaky(ExitApiError("http_status", "bad key", status=401))
    with pytest.raises(ExitApiError):
        RetryPolicy(max_attempts=5).call(attempt, lambda error: error.is_retryable(), sleep=pytest.fail)
    assert attempt.calls == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit()])
def test_an_interrupt_is_never_retried(error: BaseException):
    """Ctrl-C ends the call even under a policy that retries everything."""
    attempt = Flaky(error)
    with pytest.raises(type(error)):
        RetryPolicy(max_attempts=5).call(attempt, always, sleep=pytest.fail)
    assert attempt.calls == 1


def test_pauses_double_up_to_the_bound():
    """The pause before attempt n+1 is the initial one doubled n-1 times, at most the bound."""
    pauses: list[float] = []
    policy = RetryPolicy(max_attempts=6, initial_backoff_ms=100, max_backoff_ms=500, jitter_ms=0)
    policy.call(Flaky(*[busy()] * 5), always, sleep=pauses.append)
    assert pauses == [0.1, 0.2, 0.4, 0.5, 0.5]


def test_jitter_is_added_within_its_bound_and_comes_from_the_given_source():
    """A test can seed the jitter; it never exceeds what was asked."""
    pauses: list[float] = []
    policy = RetryPolicy(max_attempts=200, initial_backoff_ms=10, max_backoff_ms=10, jitter_ms=40)
    policy.call(Flaky(*[busy()] * 199), always, sleep=pauses.append, rand=random.Random(7))
    assert all(0.010 <= pause <= 0.050 for pause in pauses)
    assert max(pauses) > 0.045
    assert min(pauses) < 0.015
    again: list[float] = []
    policy.call(Flaky(*[busy()] * 199), always, sleep=again.append, rand=random.Random(7))
    assert again == pauses


def test_a_very_long_series_does_not_overflow():
    """Thousands of attempts are a strange wish, but not a crash."""
    policy = RetryPolicy(max_attempts=3000, initial_backoff_ms=1, max_backoff_ms=2, jitter_ms=0)
    assert policy.call(Flaky(*[busy()] * 2999), always, sleep=lambda _: None) == "done"


def test_retry_after_is_honoured():
    """A server that asks for a longer pause gets it."""
    pauses: list[float] = []
    RetryPolicy().call(Flaky(busy(retry_after_s=3)), always, sleep=pauses.append)
    assert pauses == [3.0]


def test_a_shorter_retry_after_does_not_shorten_the_pause():
    """Retry-After: 0 is no licence to hammer."""
    pauses: list[float] = []
    RetryPolicy(jitter_ms=0).call(Flaky(busy(retry_after_s=0)), always, sleep=pauses.append)
    assert pauses == [0.025]


@pytest.mark.parametrize("asked", [5.1, 60, float("inf")])
def test_a_longer_retry_after_than_allowed_ends_the_call(asked: float):
    """Nobody waits longer than max_retry_after_s, and no attempt is made that would only be refused again."""
    error = busy(retry_after_s=asked)
    attempt = Flaky(error)
    with pytest.raises(ExitApiError) as caught:
        RetryPolicy(max_attempts=3).call(attempt, always, sleep=pytest.fail)
    assert caught.value is error
    assert caught.value.retry_after_s == asked
    assert attempt.calls == 1


def test_the_allowed_retry_after_can_be_raised():
    """A batch job may be more patient than a trader."""
    pauses: list[float] = []
    RetryPolicy(max_retry_after_s=60).call(Flaky(busy(retry_after_s=45)), always, sleep=pauses.append)
    assert pauses == [45.0]


@pytest.mark.parametrize("nonsense", [float("nan"), -1, "soon", None])
def test_a_senseless_retry_after_is_ignored(nonsense: object):
    """What is not a number of seconds has no say."""
    error = busy()
    error.retry_after_s = nonsense  # type: ignore[assignment]
    pauses: list[float] = []
    RetryPolicy(jitter_ms=0).call(Flaky(error), always, sleep=pauses.append)
    assert pauses == [0.025]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_attempts", 0),
        ("max_attempts", 1.5),
        ("max_attempts", True),
        ("initial_backoff_ms", -1),
        ("max_backoff_ms", -1),
        ("jitter_ms", -1),
        ("jitter_ms", "25"),
        ("max_retry_after_s", -0.1),
        ("max_retry_after_s", float("nan")),
        ("max_retry_after_s", float("inf")),
    ],
)
def test_numbers_that_cannot_work_are_refused_by_name(field: str, value: object):
    """A typo in a policy is told when it is made, not when the network fails."""
    with pytest.raises(ConfigurationError) as caught:
        RetryPolicy(**{field: value})
    assert caught.value.field == field


# ── reconnect_retrying ──


def test_full_jitter_uses_the_whole_doubling_window():
    """The n-th wait lies between 0 and the doubled first one, at most 2 s, and uses that window."""
    uniform = random.Random(1).uniform
    for failures, window in enumerate([0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0], start=1):
        waits = [full_jitter_s(failures, 0.1, 2.0, uniform) for _ in range(500)]
        assert min(waits) >= 0
        assert 0.9 * window < max(waits) <= window
        assert min(waits) < 0.1 * window


def test_equal_jitter_never_waits_less_than_half():
    """For waits that must not be short by chance."""
    uniform = random.Random(1).uniform
    for failures, window in enumerate([4.0, 8.0, 16.0, 32.0, 60.0, 60.0], start=1):
        waits = [equal_jitter_s(failures, 4.0, 60.0, uniform) for _ in range(500)]
        assert window / 2 <= min(waits) < 0.55 * window
        assert 0.95 * window < max(waits) <= window


def test_thousands_of_failures_do_not_overflow():
    """A server that is away for a weekend is met with the same patience at the end."""
    assert full_jitter_s(10**6, 0.1, 2.0, lambda low, high: high) == 2.0
    assert full_jitter_s(0, 0.1, 2.0, lambda low, high: high) == 0.1
    retrying = reconnecting()
    assert retrying(Flaky(*[OSError()] * 3000)) == "done"


def reconnecting(**options):
    """Reconnecting without real waits."""
    options = {
        "stop_event": threading.Event(),
        "sleep": lambda _: None,
        "should_retry": lambda _: True,
        "wait_s": lambda _: 0.5,
        **options,
    }
    return reconnect_retrying(**options)


def test_a_final_error_ends_the_reconnecting_with_itself():
    """A refused key is not asked again."""
    final = PermissionError("no")
    attempt = Flaky(OSError(), final)
    retrying = reconnecting(should_retry=lambda error: not isinstance(error, PermissionError))
    with pytest.raises(PermissionError) as caught:
        retrying(attempt)
    assert caught.value is final
    assert attempt.calls == 2


def test_a_stop_before_the_failure_ends_it_without_a_pause():
    """After close() the attempt under way is the last, and its own error is raised."""
    stop = threading.Event()
    stop.set()
    retrying = reconnecting(stop_event=stop, sleep=pytest.fail)
    attempt = Flaky(ConnectionRefusedError())
    with pytest.raises(ConnectionRefusedError):
        retrying(attempt)
    assert attempt.calls == 1


def test_a_stop_during_the_pause_still_lets_one_attempt_begin():
    """The documented edge: the attempt must look at the event itself. Pinned, so that a change is noticed."""
    stop = threading.Event()
    retrying = reconnecting(stop_event=stop, sleep=lambda _: stop.set())
    attempt = Flaky(*[ConnectionResetError()] * 10)
    with pytest.raises(ConnectionResetError):
        retrying(attempt)
    assert attempt.calls == 2


def test_before_sleep_knows_the_pause_and_the_failure():
    """A "reconnecting" event can tell when and why."""
    told: list[tuple[int, float, BaseException | None]] = []

    def note(state: tenacity.RetryCallState) -> None:
        assert state.outcome is not None
        told.append((state.attempt_number, state.upcoming_sleep, state.outcome.exception()))

    pauses: list[float] = []
    error = OSError("gone")
    retrying = reconnecting(sleep=pauses.append, before_sleep=note)
    retrying(Flaky(error))
    assert told == [(1, 0.5, error)]
    assert pauses == [0.5]


def test_each_error_decides_its_own_wait():
    """The rules of waiting are the caller's; tenacity does the repeating."""
    pauses: list[float] = []
    retrying = reconnecting(sleep=pauses.append, wait_s=lambda error: 9.0 if isinstance(error, TimeoutError) else 1.0)
    retrying(Flaky(OSError(), TimeoutError(), OSError()))
    assert pauses == [1.0, 9.0, 1.0]


# ── Retry-After ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(params=["UTC", "America/New_York", "Asia/Kolkata"])
def in_time_zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


#: 2026-11-08 08:49:37 GMT.
DATE_S = 1_794_127_777
DATES = [
    "Sun, 08 Nov 2026 08:49:37 GMT",  # IMF-fixdate
    "Sunday, 08-Nov-26 08:49:37 GMT",  # RFC 850
    "Sun Nov  8 08:49:37 2026",  # asctime
    "Sun, 08 Nov 2026 08:49:37 -0000",
    "Sun, 08 Nov 2026 08:49:37 +0000",
    "Sun, 08 Nov 2026 09:49:37 +0100",
    "Sun, 08 Nov 2026 08:49:37.25 GMT",
    " Sun, 08 Nov 2026 08:49:37 GMT ",
]


@pytest.mark.usefixtures("in_time_zone")
@pytest.mark.parametrize("value", DATES)
def test_http_date_in_every_form_is_gmt_whatever_the_machines_zone(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A date without a zone is not this machine's time of day."""
    assert parse_http_date_s(value) == DATE_S
    monkeypatch.setattr("lasersell_sync.retry.time.time", lambda: DATE_S - 30.0)
    assert parse_retry_after_s(value) == 30.0
    monkeypatch.setattr("lasersell_sync.retry.time.time", lambda: DATE_S + 30.0)
    assert parse_retry_after_s(value) == 0.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("0", 0.0), ("7", 7.0), (" 7 ", 7.0), ("1.5", 1.5), ("0.25", 0.25), ("2.", 2.0), ("9" * 300, 1e9), ("1e3", None)],
)
def test_retry_after_number_may_have_a_fraction_and_is_finite(value: str, seconds: float | None) -> None:
    """Whole seconds are the rule; some servers send fractions."""
    assert parse_retry_after_s(value) == seconds


@pytest.mark.parametrize(
    "value", ["", "soon", "-1", "٣", "nan", "inf", "1,5", "9" * 400, "Sun, 99 Nov 2026 08:49:37 GMT"]
)
def test_retry_after_that_is_no_time_is_none(value: str) -> None:
    """It asks for nothing that could be obeyed."""
    assert parse_retry_after_s(value) is None
