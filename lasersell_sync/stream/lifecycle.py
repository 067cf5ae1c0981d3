"""The connection's states and the rules between them: no socket, no thread, no clock. Facts in, decisions out.

::

    CONNECTING ──hello_ok──► LIVE ◄──a byte──┐
       ▲   │                  │ │            │
       │   │ attempt failed   │ └─ping open─►STALE
       │   ▼                  ▼ lost         │ lost
       ├─ BACKOFF ◄───────────┴──────────────┤
       └─ DEGRADED ◄── BACKOFF, when links are lost right after hello, again and again
    FAILED ◄── refused for good, or a thread of ours died      CLOSED ◄── close()

Waits, by what went wrong:

* the server is unreachable, or refuses: full jitter, 100 ms doubling to 2 s;
* sessions that end before ``stable_after_s``: the same, but from the sixth in a row on DEGRADED, with equal jitter,
  doubling to 60 s. A session counts as stable only by time, so a server that greets and drops is not hammered;
* another session holds the key, or took it over: equal jitter, 1 s doubling to 90 s (a server needs that long to notice
  a dead one). Two programs that share a key would otherwise end each other's session several times a second;
* ``Retry-After``: at least that long;
* the process or machine was stopped: at once.
"""

from __future__ import annotations

import enum
import random
from collections.abc import Callable
from typing import Final

import attrs

from lasersell_sync.exceptions import (
    AuthenticationError,
    ConfigurationError,
    HandshakeError,
    SessionLimitError,
    StrategyError,
    StreamError,
    ThreadDiedError,
    TransportError,
    WalletNotRegisteredError,
)
from lasersell_sync.retry import equal_jitter_s, full_jitter_s

__all__ = ["SESSION_REPLACED", "ConnectionState", "Lifecycle", "ReconnectRules", "Wait", "handshake_error"]

#: A key that worked before may be refused for a moment while the server restarts; a revoked one stays refused.
AUTH_ATTEMPTS: Final = 3
#: The code with which a server ends a session whose key another one has taken over (docs/protocol.md 2).
SESSION_REPLACED: Final = "session_replaced"
#: Sessions lost before they were stable, in a row, until the wait changes its kind.
QUICK_LOSSES: Final = 5


class ConnectionState(enum.Enum):
    """Where a connection stands."""

    CONNECTING = "connecting"
    """Looking up, connecting, upgrading, or waiting for ``hello_ok``."""
    LIVE = "live"
    """``hello_ok`` came and the link answers."""
    STALE = "stale"
    """The link has been silent and a ping is open for longer than half its time; a byte makes it LIVE again."""
    BACKOFF = "backoff"
    """There is no link; waiting before the next attempt."""
    DEGRADED = "degraded"
    """As BACKOFF, with long waits: the server takes every session and drops it at once."""
    FAILED = "failed"
    """Ended by an error; every consumer raises it."""
    CLOSED = "closed"
    """Ended by ``close()``."""


_S = ConnectionState
_ALLOWED = {
    _S.CONNECTING: {_S.LIVE, _S.BACKOFF, _S.DEGRADED},
    _S.LIVE: {_S.STALE, _S.BACKOFF, _S.DEGRADED},
    _S.STALE: {_S.LIVE, _S.BACKOFF, _S.DEGRADED},
    _S.BACKOFF: {_S.CONNECTING, _S.DEGRADED},
    _S.DEGRADED: {_S.CONNECTING},
    _S.FAILED: set(),
    _S.CLOSED: set(),
}
_ENDED = (_S.FAILED, _S.CLOSED)
_SESSION = (_S.LIVE, _S.STALE)


@attrs.frozen(kw_only=True)
class ReconnectRules:
    """The bounds of the waits, in seconds; StreamOptions has the same names."""

    initial_backoff_s: float = 0.1
    max_backoff_s: float = 2.0
    stable_after_s: float = 5.0
    degraded_backoff_s: float = 4.0
    max_degraded_backoff_s: float = 60.0
    session_limit_backoff_s: float = 1.0
    max_session_limit_backoff_s: float = 90.0
    max_retry_after_s: float = 300.0


@attrs.frozen
class Wait:
    """The decision after a failure: so long, in that state."""

    seconds: float
    state: ConnectionState


class Lifecycle:
    """The state, and what a failure means in it.

    Threads: the reader alone changes it; anyone may read ``state``.
    """

    def __init__(self, rules: ReconnectRules | None = None, rand: random.Random | None = None) -> None:
        self.state = ConnectionState.CONNECTING
        #: Sessions opened so far.
        self.sessions = 0
        #: Attempts that failed since there was a session.
        self.attempts_since_loss = 0
        #: Sessions in a row that ended before they were stable.
        self.quick_losses = 0
        self._rules = rules or ReconnectRules()
        self._uniform: Callable[[float, float], float] = (rand or random).uniform  # not for secrets
        self._failures = 0
        self._session_limits = 0
        self._auth_refusals = 0

    @property
    def ended(self) -> bool:
        """True when nothing more will happen."""
        return self.state in _ENDED

    @property
    def in_session(self) -> bool:
        """True while there is a session, answering or not."""
        return self.state in _SESSION

    def go(self, state: ConnectionState) -> None:
        """Change the state; an impossible change is a bug and says so. Ending is possible from every living state."""
        if self.ended or (state not in _ENDED and state not in _ALLOWED[self.state]):
            raise AssertionError(f"no way from {self.state.name} to {state.name}")
        self.state = state

    def opened(self) -> None:
        """``hello_ok`` came."""
        self.go(ConnectionState.LIVE)
        self.sessions += 1
        self._auth_refusals = 0

    def silent(self, stale: bool) -> None:  # noqa: FBT001 - a fact, not an option
        """Whether a ping has been open for longer than half its time."""
        if stale and self.state is ConnectionState.LIVE:
            self.go(ConnectionState.STALE)
        elif not stale and self.state is ConnectionState.STALE:
            self.go(ConnectionState.LIVE)

    def attempt_failed(self, error: BaseException, *, live_s: float | None) -> None:
        """An attempt failed, or its session was lost after ``live_s`` seconds (None: there was none)."""
        if live_s is None:
            self.attempts_since_loss += 1
        else:
            self.attempts_since_loss = 0
            stable = live_s >= self._rules.stable_after_s
            self.quick_losses = 0 if stable else self.quick_losses + 1
            if stable:
                self._failures = self._session_limits = 0
        self._failures += 1
        self._session_limits = self._session_limits + 1 if isinstance(error, SessionLimitError) else 0
        self._auth_refusals = self._auth_refusals + 1 if isinstance(error, AuthenticationError) else 0

    def is_final(self, error: BaseException) -> bool:
        """True when ``error`` ends the connection instead of starting the next attempt.

        Before the first session every failure goes to the caller of ``connect``. After it only a key refused
        ``AUTH_ATTEMPTS`` times in a row is final, and what is not about the link or the server at all: a bug of ours,
        or the death of one of our threads, would only be hidden by going on.
        """
        if self.sessions == 0 or isinstance(error, ThreadDiedError):
            return True
        if isinstance(error, AuthenticationError):
            return self._auth_refusals >= AUTH_ATTEMPTS
        return not isinstance(error, (OSError, StreamError, ConfigurationError, MemoryError))

    def wait_after(self, error: BaseException) -> Wait:
        """How long to wait before the next attempt, and in which state (see the module's docstring)."""
        rules = self._rules
        if isinstance(error, TransportError) and error.stage == "stop":
            return Wait(0.0, ConnectionState.BACKOFF)
        state = ConnectionState.BACKOFF
        if self._session_limits:
            seconds = equal_jitter_s(
                self._session_limits,
                rules.session_limit_backoff_s,
                rules.max_session_limit_backoff_s,
                self._uniform,
            )
        elif self.quick_losses > QUICK_LOSSES:
            state = ConnectionState.DEGRADED
            seconds = equal_jitter_s(
                self.quick_losses - QUICK_LOSSES,
                rules.degraded_backoff_s,
                rules.max_degraded_backoff_s,
                self._uniform,
            )
        else:
            seconds = full_jitter_s(self._failures, rules.initial_backoff_s, rules.max_backoff_s, self._uniform)
        asked_s = getattr(error, "retry_after_s", None) or 0.0
        return Wait(max(seconds, min(asked_s, rules.max_retry_after_s)), state)


def _strategy_refused(message: str, code: str) -> StrategyError:
    return StrategyError("strategy", message, code=code)


# What a server's code in place of hello_ok becomes.
_BY_CODE: dict[str, Callable[[str, str], Exception]] = {
    "invalid_api_key": lambda message, code: AuthenticationError(message, code=code),
    "unauthorized": lambda message, code: AuthenticationError(message, code=code),
    "wallet_not_registered": lambda message, code: WalletNotRegisteredError(message, code=code),
    "session_limit": lambda message, code: SessionLimitError(message, code=code),
    SESSION_REPLACED: lambda message, code: SessionLimitError(message, code=code),
    "invalid_strategy": _strategy_refused,
}


def handshake_error(code: str, message: str) -> Exception:
    """The exception for an ``error`` that came in place of ``hello_ok``; unknown codes become a HandshakeError."""
    make = _BY_CODE.get(code)
    return make(message, code) if make is not None else HandshakeError(message, code=code)
