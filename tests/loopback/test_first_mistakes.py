"""What a newcomer gets wrong first, and the words that come back."""

from __future__ import annotations

import queue
import re
from collections.abc import Iterator
from typing import Any

import pytest
from solders.pubkey import Pubkey

import lasersell_sync as ls
from tests.support.http_server import HttpServer, json_answer
from tests.support.stream_server import ACCOUNT, Peer, ScriptedServer, exit_signal, opened, pnl, refusal
from tests.support.waiting import PATIENCE_S, until

STRATEGY = ls.StrategyConfig(target_profit_pct=15, stop_loss_pct=10)
WALLET = "11111111111111111111111111111112"
CONFIGURE = ls.StreamConfigure([WALLET], STRATEGY)


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    def script(peer: Peer) -> None:
        peer.greet()
        peer.send(opened(7), pnl(7, 5))
        peer.serve()

    with ScriptedServer(script) as one:
        yield one


@pytest.fixture
def session(server: ScriptedServer) -> Iterator[ls.StreamSession]:
    with ls.StreamSession.connect(ls.StreamClient("key").with_endpoint(server.url), CONFIGURE) as one:
        one.wait_for("position_opened", PATIENCE_S)
        yield one


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("api-key-CANARY", CONFIGURE), "a str is not a StreamClient. Write StreamSession.connect(StreamClient("),
        ((CONFIGURE, ls.StreamClient("key")), "a StreamConfigure comes second. Write StreamSession.connect(client, c"),
        ((ls.StreamClient, CONFIGURE), "the class StreamClient is not a StreamClient"),
        ((None, CONFIGURE), "a NoneType is not a StreamClient"),
        ((ls.StreamClient("key"), STRATEGY), "expected StreamConfigure, got StrategyConfig"),
    ],
)
def test_connect_with_another_kind_of_argument_names_what_belongs_there(arguments: Any, words: str) -> None:
    with pytest.raises(ls.ConfigurationError) as caught:
        ls.StreamSession.connect(*arguments)
    assert words in str(caught.value)
    assert "CANARY" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "path"), [(404, "/v2/ws"), (404, ""), (200, "/"), (405, "/ws"), (426, "/v1/ws/more")]
)
def test_endpoint_without_a_stream_is_named_with_the_path_that_has_one(status: int, path: str) -> None:
    with ScriptedServer(refuse=refusal(status, "nothing here")) as server:
        origin = server.url.removesuffix("/v1/ws")
        client = ls.StreamClient("CANARY-key").with_endpoint(origin + path + ("?token=CANARY" if path else ""))
        with pytest.raises(ls.HandshakeError) as caught:
            client.connect(CONFIGURE)
    error = caught.value
    assert error.status == status
    assert f"no stream at {origin}{path or '/'}" in str(error)
    assert f"with_endpoint('{origin}/v1/ws')" in str(error)
    assert "CANARY" not in str(error)


def test_refused_key_over_rest_is_an_authentication_error_as_on_the_stream() -> None:
    answer = json_answer({"error": "invalid api key"}, status=401)
    with HttpServer(answer, answer, answer) as server, ls.ExitApiClient("CANARY").with_base_url(server.url) as api:
        for kind in (ls.AuthenticationError, ls.ExitApiError, PermissionError):
            with pytest.raises(kind) as caught:
                api.account()
    error: Any = caught.value
    assert (error.kind, error.status, error.message, error.code) == ("http_status", 401, "invalid api key", None)
    assert not error.is_retryable()
    assert "check the API key" in str(error)
    assert len(server.requests) == 3


@pytest.mark.parametrize("status", [400, 403, 404, 500])
def test_other_refusals_over_rest_are_no_authentication_errors(status: int) -> None:
    """403 also means a partner fee without the tier for it."""
    answer = json_answer({"error": "no"}, status=status)
    options = ls.ExitApiClientOptions(retry_policy=ls.RetryPolicy(max_attempts=1))
    with (
        HttpServer(answer) as server,
        ls.ExitApiClient("key", options).with_base_url(server.url) as api,
        pytest.raises(ls.ExitApiError) as caught,
    ):
        api.account()
    assert not isinstance(caught.value, ls.AuthenticationError)


def test_close_of_none_does_not_end_the_session(session: ls.StreamSession) -> None:
    """``close(find(...))`` where nothing was found."""
    with pytest.raises(ls.ConfigurationError, match="NoneType names no position"):
        session.close(None)  # type: ignore[arg-type]
    with pytest.raises(ls.ConfigurationError, match="NoneType names no position"):
        session.stop_tracking(None)  # type: ignore[arg-type]
    assert session.status is ls.ConnectionState.LIVE


def test_stop_tracking_sends_close_position_and_goes_on(session: ls.StreamSession, server: ScriptedServer) -> None:
    (handle,) = session.positions()
    for position in (handle, 7, ACCOUNT, Pubkey.from_string(ACCOUNT)):
        session.stop_tracking(position)  # type: ignore[arg-type]
    session.close(handle)
    peer = server.peer()
    until(lambda: [one["type"] for one in peer.received].count("close_position") == 5)
    assert session.status is ls.ConnectionState.LIVE


def test_values_of_a_position_are_found_by_handle_account_and_id(session: ls.StreamSession) -> None:
    (handle,) = session.positions()
    until(lambda: session.pnl(handle) is not None)
    for position in (handle, 7, ACCOUNT, Pubkey.from_string(ACCOUNT)):
        update = session.pnl(position)  # type: ignore[arg-type]
        assert update is not None
        assert update.profit_units == 5
        assert session.get_slippage_bands(position) is None  # type: ignore[arg-type]
        assert session.get_liquidity_trend(position) is None  # type: ignore[arg-type]
        assert session.get_max_sell_at_slippage(position, 100) is None  # type: ignore[arg-type]
    for nobody in (8, WALLET):
        assert session.pnl(nobody) is None
    for wrong in (None, 1.5, True, b"7"):
        with pytest.raises(ls.ConfigurationError, match="names no position"):
            session.pnl(wrong)  # type: ignore[arg-type]


def test_positions_for_wallet_mint_takes_keys_and_refuses_others(session: ls.StreamSession) -> None:
    (handle,) = session.positions()
    wallet, mint = (Pubkey.from_string(key) for key in (handle.wallet_pubkey, handle.mint))
    assert session.positions_for_wallet_mint(wallet, mint) == [handle]  # type: ignore[arg-type]
    with pytest.raises(ls.ConfigurationError, match="mint"):
        session.positions_for_wallet_mint(handle.wallet_pubkey, "SYMBOL")


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ("position_closed", "an event 'position_closed' did not come within 0.01 s; the connection is live"),
        (ls.PositionClosed, "an event 'position_closed' did not come within 0.01 s"),
        (lambda event: False, "an event that the predicate accepts did not come"),
    ],
)
def test_wait_for_that_times_out_says_what_did_not_come(session: ls.StreamSession, wanted: Any, words: str) -> None:
    for kind in (ls.WaitTimeoutError, queue.Empty, TimeoutError):
        with pytest.raises(kind, match=re.escape(words)):
            session.wait_for(wanted, timeout=0.01)


def test_recv_that_times_out_has_words(session: ls.StreamSession) -> None:
    def take_all() -> None:
        while session.recv(timeout=0.05) is not None:
            pass

    with pytest.raises(queue.Empty, match=r"^an event did not come within 0\.05 s; the connection is live$"):
        take_all()


def test_exit_of_a_usd1_position_names_its_currency() -> None:
    """README's programs show it; an amount alone was read as lamports."""
    context = {
        "market_type": "raydium_launchpad",
        "raydium_launchpad": {
            "pool": "p", "config": "c", "platform": "f", "user_quote_account": "u",
            "quote_mint": "USD1ttGY1N17NEEHLmELoaybftRBUSErhqYiQzvEmuB",
        },
    }  # fmt: skip

    def script(peer: Peer) -> None:
        peer.greet()
        peer.send(opened(7, market_context=context, entry_quote_units=10_000_000), exit_signal(7))
        peer.serve()

    with (
        ScriptedServer(script) as server,
        ls.StreamSession.connect(ls.StreamClient("key").with_endpoint(server.url), CONFIGURE) as session,
    ):
        event = session.wait_for(ls.ExitSignalWithTx, PATIENCE_S)
    assert event.handle is not None
    assert event.handle.quote_currency == "USD1"
    assert event.handle.format_quote(event.handle.entry_quote_units) == "10.0000 USD1"
