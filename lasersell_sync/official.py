"""Names of the official Python SDK that have no counterpart of their own here (docs/migrating.md).

Programs that were written for that SDK find them at the top of the package. Its coroutines (``retry_async``,
``with_timeout``) are not here: every call of this library blocks, retries by its ``RetryPolicy`` and has a time limit.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from typing import Any, ClassVar, Final, Literal, TypeAlias, TypedDict

from lasersell_sync.codec import client_message_from_text, server_message_from_text
from lasersell_sync.messages import ClientMessage, ServerMessage
from lasersell_sync.retry import RetryPolicy
from lasersell_sync.trading.rest.exit_api import ExitApiClientOptions, parse_built, summarize_error_body
from lasersell_sync.trading.rest.tx_requests import BuildTxResponse

__all__ = [
    "DEFAULT_RETRY_POLICY",
    "LOW_LATENCY_RETRY_POLICY",
    "ExitApiDefaults",
    "MarketTypeMsg",
    "OptionalStrategyConfig",
    "client_message_from_obj",
    "delay_for_attempt",
    "low_latency_retry_policy",
    "parse_build_tx_response",
    "server_message_from_obj",
    "summarize_error_body",
]

#: What ``MarketContext.market_type`` may be.
MarketTypeMsg: TypeAlias = Literal[
    "pump_fun", "pump_swap", "meteora_dbc", "meteora_damm_v2", "raydium_launchpad", "raydium_cpmm"
]
#: Of ``ExitApiClient``.
DEFAULT_RETRY_POLICY: Final = RetryPolicy()
#: Two attempts, 25 ms apart, at most 25 ms later by chance.
LOW_LATENCY_RETRY_POLICY: Final = RetryPolicy(max_attempts=2, initial_backoff_ms=25, max_backoff_ms=100, jitter_ms=25)


class ExitApiDefaults:
    """The defaults of ``ExitApiClientOptions``; times in seconds (``_S``) and milliseconds (``_MS``)."""

    CONNECT_TIMEOUT_S: ClassVar[float] = ExitApiClientOptions().connect_timeout_s
    ATTEMPT_TIMEOUT_S: ClassVar[float] = ExitApiClientOptions().attempt_timeout_s
    MAX_ATTEMPTS: ClassVar[int] = DEFAULT_RETRY_POLICY.max_attempts
    BACKOFF_MS: ClassVar[int] = DEFAULT_RETRY_POLICY.initial_backoff_ms
    JITTER_MS: ClassVar[int] = DEFAULT_RETRY_POLICY.jitter_ms


class OptionalStrategyConfig(TypedDict, total=False):
    """Arguments of ``strategy_config_from_optional``: percentages of the entry."""

    target_profit_pct: float
    stop_loss_pct: float
    trailing_stop_pct: float


def low_latency_retry_policy() -> RetryPolicy:
    """``LOW_LATENCY_RETRY_POLICY``. Threads: any."""
    return LOW_LATENCY_RETRY_POLICY


def delay_for_attempt(policy: RetryPolicy, attempt: int) -> int:
    """Milliseconds that ``policy`` waits after attempt number ``attempt`` (from 1) failed. Threads: any."""
    return policy.backoff_ms(max(1, attempt)) + random.randint(0, policy.jitter_ms)  # noqa: S311 - a pause, no secret


def server_message_from_obj(obj: Mapping[str, Any]) -> ServerMessage:
    """A server message from what ``json.loads`` made of its text.

    Raises:
        DecodeError: it is not a server message.

    Threads: any.
    """
    return server_message_from_text(json.dumps(obj))


def client_message_from_obj(obj: Mapping[str, Any]) -> ClientMessage:
    """A client message from what ``json.loads`` made of its text.

    Raises:
        DecodeError: it is not a client message.

    Threads: any.
    """
    return client_message_from_text(json.dumps(obj))


def parse_build_tx_response(body: str) -> BuildTxResponse:
    """The answer of ``/v1/sell`` or ``/v1/buy``, read from its text.

    Raises:
        ExitApiError: ``envelope_status``: the service refused; ``parse``: there is no transaction in it.

    Threads: any.
    """
    return parse_built(body.encode())
