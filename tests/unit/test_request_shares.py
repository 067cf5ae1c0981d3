"""Builds come first: look-ups get a quarter of an API key's requests a minute."""

from __future__ import annotations

import logging

import pytest

from lasersell_sync.exceptions import ExitApiError
from lasersell_sync.retry import RetryPolicy
from lasersell_sync.trading import BuildSellTxRequest, ExitApiClient, ExitApiClientOptions, SellOutput
from lasersell_sync.trading.rest.request_shares import LOOK_UPS, REQUESTS, WINDOW_S, RequestShares, shares_of
from tests.support.http_server import GENEROUS_S, Answer, HttpServer, Seen, json_answer

KEY = "canary-key-0123456789"
HURRIED = ExitApiClientOptions(
    connect_timeout_s=GENEROUS_S, attempt_timeout_s=GENEROUS_S, retry_policy=RetryPolicy(max_retry_after_s=0.0)
)
ORDER = BuildSellTxRequest(
    "6EF8rrecthR5Dkzon8Nwu78hRvfCKubJ14M5uBEwF6P",
    "7Np41oeYqPefeNQEHSv1UDhYrehxin3NStELsSKCT4K2",
    7,
    SellOutput.SOL,
    500,
)


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def test_look_ups_beyond_a_quarter_wait_until_the_oldest_is_a_minute_old() -> None:
    clock = Clock()
    shares = RequestShares(clock)
    for _ in range(LOOK_UPS):
        assert shares.wait_for_look_up_s() == 0.0
        clock.now += 1.0
    assert shares.wait_for_look_up_s() == WINDOW_S - LOOK_UPS
    clock.now += WINDOW_S - LOOK_UPS
    assert shares.wait_for_look_up_s() == 0.0
    assert shares.wait_for_look_up_s() == 1.0


def test_builds_are_never_refused_and_leave_less_for_look_ups() -> None:
    clock = Clock()
    shares = RequestShares(clock)
    for _ in range(2 * REQUESTS):
        shares.count()
    clock.now += 10.0
    assert shares.wait_for_look_up_s() == WINDOW_S - 10.0
    clock.now += WINDOW_S
    assert shares.wait_for_look_up_s() == 0.0


def test_clients_of_one_key_and_server_share_and_others_do_not() -> None:
    mine = shares_of("https://a", KEY)
    assert shares_of("https://a", KEY) is mine
    assert shares_of("https://b", KEY) is not mine
    assert shares_of("https://a", "another-key") is not mine


def test_account_beyond_its_share_is_refused_with_the_remedy_and_builds_go_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def answer(seen: Seen) -> Answer:
        return json_answer({"tx": "AQ=="}) if seen.path == "/v1/sell" else json_answer({}, status=500)

    with HttpServer(respond=answer) as server:
        clients = [ExitApiClient(KEY, HURRIED).with_base_url(server.url) for _ in range(2)]
        sent = []
        for number in range(2 * LOOK_UPS):
            with pytest.raises(ExitApiError) as caught:
                clients[number % 2].account()
            sent.append("not sent" not in str(caught.value))
        with caplog.at_level(logging.WARNING), pytest.raises(ExitApiError) as caught:
            next(clients[0].history())
        assert caught.value.status == 429
        assert caught.value.retry_after_s is not None
        assert 0 < caught.value.retry_after_s <= WINDOW_S
        assert "Ask again in" in str(caught.value)
        assert "so that sales can be built" in caplog.text
        assert KEY not in caplog.text + str(caught.value)
        for client in clients:
            assert client.build_sell_tx(ORDER).tx == "AQ=="
            client.close()
        assert sum(seen.path == "/v1/account" for seen in server.requests) == LOOK_UPS
    assert sent.count(True) < LOOK_UPS
