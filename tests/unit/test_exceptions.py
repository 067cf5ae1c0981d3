"""Errors: their tree, their facts, their words; they pickle and keep secrets to themselves."""

from __future__ import annotations

import inspect
import pickle

import pytest

import lasersell_sync
from lasersell_sync import exceptions
from lasersell_sync.exceptions import (
    AuthenticationError,
    ConcurrencyError,
    ConfigurationError,
    DecodeError,
    ExitApiAuthenticationError,
    ExitApiError,
    ForkedProcessError,
    HandshakeError,
    JournalError,
    LaserSellError,
    ProtocolError,
    SendBufferFull,
    SessionLimitError,
    StrategyError,
    StreamClientError,
    StreamClosed,
    StreamError,
    ThreadDiedError,
    TransportError,
    TxSubmitError,
    UnsafeTransactionError,
    WaitTimeoutError,
    WalletNotRegisteredError,
)

EXAMPLES = [
    ConfigurationError("endpoint", "not a URL"),
    StrategyError("strategy.stop_loss_pct", "negative", code="invalid_strategy"),
    ConcurrencyError("two readers"),
    DecodeError("expected u64", "$.position_id", 17),
    TransportError("tls", "host:443", "expired", close_code=1006),
    HandshakeError("no", code="limit_exceeded", status=429, retry_after_s=2.0),
    AuthenticationError("no", status=401),
    WalletNotRegisteredError("no", code="wallet_not_registered"),
    SessionLimitError("busy", code="session_limit"),
    ProtocolError("masked frame", 1002),
    ThreadDiedError("lasersell-reader", "SystemExit"),
    ForkedProcessError("StreamSession", 1, 2),
    SendBufferFull(10, 20),
    StreamClosed(),
    ExitApiError("http_status", "rate limit exceeded", status=429, body="{}", retry_after_s=1.0),
    TxSubmitError("rpc_error", "Blockhash not found", target="rpc", code=-32002, signature="5x"),
    WaitTimeoutError("an event 'pong'", 0.5, "live"),
    ExitApiAuthenticationError("http_status", "invalid api key", status=401, body="{}"),
    UnsafeTransactionError("destination", "7 lamports to a stranger", account="1" * 32, remedy="do not sign it"),
    JournalError("full", "sales.journal", "no room is left on the disk"),
]


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_errors_pickle_with_their_facts(error: LaserSellError) -> None:
    """They cross process borders (workers) as they are."""
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert vars(again) == vars(error)
    assert str(again) == str(error)
    assert repr(again) == repr(error)


def test_every_error_class_has_an_example_and_a_docstring() -> None:
    """Nothing in the module escapes these tests."""
    classes = {cls for _, cls in inspect.getmembers(exceptions, inspect.isclass) if issubclass(cls, LaserSellError)} - {
        LaserSellError,
        StreamError,
    }
    assert classes == {type(error) for error in EXAMPLES}
    assert all(cls.__doc__ for cls in classes)
    assert {cls.__name__ for cls in classes} <= set(exceptions.__all__)


@pytest.mark.parametrize(
    ("cls", "builtin"),
    [
        (ConfigurationError, ValueError),
        (StrategyError, ValueError),
        (DecodeError, ValueError),
        (ConcurrencyError, RuntimeError),
        (ForkedProcessError, RuntimeError),
        (ThreadDiedError, StreamError),
        (TransportError, ConnectionError),
        (HandshakeError, ConnectionError),
        (AuthenticationError, PermissionError),
        (AuthenticationError, HandshakeError),
        (WalletNotRegisteredError, HandshakeError),
        (SessionLimitError, HandshakeError),
        (StreamClosed, StreamError),
        (ProtocolError, StreamError),
    ],
)
def test_the_tree_is_the_promised_one(cls: type, builtin: type) -> None:
    """``except ValueError`` and its kind catch what a reader of the table expects."""
    assert issubclass(cls, builtin)


def test_the_official_name_is_an_alias() -> None:
    """People who migrate catch StreamClientError."""
    assert StreamClientError is StreamError
    assert lasersell_sync.StreamClientError is StreamError


@pytest.mark.parametrize(
    ("error", "retryable"),
    [
        (ExitApiError("transport", "x"), True),
        (ExitApiError("http_status", "x", status=500), True),
        (ExitApiError("http_status", "x", status=429), True),
        (ExitApiError("http_status", "x", status=400), False),
        (ExitApiError("envelope_status", "x"), False),
        (ExitApiError("parse", "x"), False),
    ],
)
def test_what_is_worth_a_retry(error: ExitApiError, retryable: bool) -> None:
    """docs/protocol.md 7."""
    assert error.is_retryable() is retryable
