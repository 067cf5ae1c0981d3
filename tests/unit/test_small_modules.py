"""timeouts, pubkeys, endpoints, _log, options: small rules, each tested at its edge."""

from __future__ import annotations

import math
from typing import Any

import pytest

from lasersell_sync import ConfigurationError, StreamClient, StreamOptions, single_wallet_stream_configure_optional
from lasersell_sync.network.endpoints import is_loopback, require_url
from lasersell_sync.pubkeys import is_pubkey, require_pubkey
from lasersell_sync.runtime.log import scrub, shorten
from lasersell_sync.runtime.timeouts import TimeBudget


def test_a_budget_runs_out_once_and_never_below_zero() -> None:
    """One limit over several steps, on a clock of its own."""
    now = [10.0]
    budget = TimeBudget(2.0, clock=lambda: now[0])
    assert budget.remaining_s() == 2.0
    now[0] = 11.5
    assert budget.remaining_s() == 0.5
    assert not budget.expired()
    now[0] = 99.0
    assert budget.remaining_s() == 0.0
    assert budget.expired()
    assert TimeBudget(-5).expired()
    assert TimeBudget(None).remaining_s() is None
    assert not TimeBudget(None).expired()
    with pytest.raises(ValueError, match="NaN"):
        TimeBudget(math.nan)


@pytest.mark.parametrize(
    "good",
    [
        "11111111111111111111111111111111",
        "So11111111111111111111111111111111111111112",
        "7Np41oeYqPefeNQEHSv1UDhYrehxin3NStELsSKCT4K2",
    ],
)
def test_pubkeys_are_recognised(good: str) -> None:
    """System program, wrapped SOL, a wallet."""
    assert is_pubkey(good)
    assert require_pubkey("x", good) == good


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "1",
        "1" * 31,
        "1" * 33,
        "0" * 32,
        "l" * 43,
        "So1111111111111111111111111111111111111111O",
        "z" * 45,
        "ю" * 40,
        None,
        5,
        b"1" * 32,
    ],
)
def test_others_are_refused_without_being_repeated(bad: Any) -> None:
    """People paste secret keys into such fields."""
    assert not is_pubkey(bad)
    with pytest.raises(ConfigurationError) as caught:
        require_pubkey("wallet", bad)
    assert caught.value.field == "wallet"
    if isinstance(bad, str) and len(bad) > 5:
        assert bad not in str(caught.value)


def test_pubkeys_agree_with_solders() -> None:
    """The foreign implementation has the last word, on random and on damaged keys."""
    from solders.keypair import Keypair
    from solders.pubkey import Pubkey

    for n in range(50):
        key = str(Keypair().pubkey())
        for text in (key, key[:-1], key + "1", key[1:], "1" + key, key[: n % 40] + "2" + key[n % 40 + 1 :]):
            try:
                Pubkey.from_string(text)
                expected = True
            except ValueError:
                expected = False
            assert is_pubkey(text) is expected, text


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "127.0.0.1", "127.9.9.9", "::1"])
def test_loopback_hosts(host: str) -> None:
    """This machine's own names."""
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["localhost.example.com", "127.0.0.1.example.com", "10.0.0.1", "::2", "", "127.evil"])
def test_other_hosts(host: str) -> None:
    """Names that only look like it."""
    assert not is_loopback(host)


def test_plain_schemes_need_loopback_or_consent() -> None:
    """The key must not travel in clear text by accident."""
    schemes = ("http", "https")
    assert require_url("u", " https://h/x ", schemes=schemes, allow_insecure=False) == "https://h/x"
    assert require_url("u", "http://[::1]:80", schemes=schemes, allow_insecure=False)
    with pytest.raises(ConfigurationError, match="plain"):
        require_url("u", "http://h/x", schemes=schemes, allow_insecure=False)
    assert require_url("u", "http://h/x", schemes=schemes, allow_insecure=True)
    for bad in (
        "ftp://h",
        "https://",
        "https://u@h",
        "https://h#f",
        "https://h:99999",
        "https://[",
        "https://h\n/x",
        None,
    ):
        with pytest.raises(ConfigurationError):
            require_url("u", bad, schemes=schemes, allow_insecure=True)
    with pytest.raises(ConfigurationError) as caught:
        require_url("u", "https://host:secretword/", schemes=schemes, allow_insecure=True)
    assert "secretword" not in str(caught.value)


def test_scrub_and_shorten() -> None:
    """Secrets go, control characters go, length is bounded."""
    assert scrub("key=abc&x=abc", "abc", None, "") == "key=[redacted]&x=[redacted]"
    assert shorten("a\nb\x00c") == "a b c"
    assert len(shorten("x" * 1000)) == 220


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("connect_timeout_s", 0),
        ("ping_interval_s", -1),
        ("pong_timeout_s", math.nan),
        ("max_backoff_s", math.inf),
        ("close_timeout_s", "1"),
        ("high_capacity", 0),
        ("low_capacity", 1.5),
        ("max_message_bytes", True),
        ("low_lane", "lossy"),
    ],
)
def test_options_out_of_range_are_named(option: str, value: Any) -> None:
    """Every bound has its field in the error."""
    with pytest.raises(ConfigurationError) as caught:
        StreamOptions(**{option: value})
    assert caught.value.field == option


def test_misspelt_options_are_refused() -> None:
    """No catch-all keyword swallows a typo."""
    with pytest.raises(TypeError):
        StreamOptions(ping_intervall_s=3)  # type: ignore[call-arg]


def test_from_env(monkeypatch: pytest.MonkeyPatch) -> None:
    """Key and endpoints from the environment; the same program runs against production by changing these only."""
    with pytest.raises(ConfigurationError, match="LASERSELL_API_KEY"):
        StreamClient.from_env()
    monkeypatch.setenv("LASERSELL_API_KEY", "k")
    assert StreamClient.from_env().endpoint == "wss://stream.lasersell.io/v1/ws"
    monkeypatch.setenv("LASERSELL_STREAM_URL", "ws://127.0.0.1:9/v1/ws")
    assert StreamClient.from_env().endpoint == "ws://127.0.0.1:9/v1/ws"
    assert StreamClient("k").with_local_mode(True).endpoint == "ws://localhost:8082/v1/ws"
    assert StreamClient("k").with_local_mode(True).with_local_mode(False).endpoint == "wss://stream.lasersell.io/v1/ws"


def test_single_wallet_configure() -> None:
    """The official shorthand."""
    configure = single_wallet_stream_configure_optional(
        "7Np41oeYqPefeNQEHSv1UDhYrehxin3NStELsSKCT4K2", stop_loss_pct=3, deadline_timeout_sec=7
    )
    configure.validate()
    assert (configure.strategy.stop_loss_pct, configure.deadline_timeout_sec) == (3, 7)
