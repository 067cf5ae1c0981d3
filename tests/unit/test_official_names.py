"""What programs of the official SDK bring along: dicts, and a few names."""

from __future__ import annotations

import pytest

import lasersell_sync as ls

KEY = "1" * 32
LEVEL = {"profit_pct": 10.0, "sell_pct": 50.0, "trailing_stop_pct": 0.0}
AUTO_BUY = {"wallet_pubkey": KEY, "amount_quote_units": 5}


def test_strategy_levels_as_dicts_become_levels() -> None:
    levels = ls.StrategyConfig(target_profit_pct=0.0, stop_loss_pct=5.0, take_profit_levels=[LEVEL]).take_profit_levels
    assert list(levels) == [ls.TakeProfitLevel(**LEVEL)]


def test_configure_dicts_become_objects_that_validate() -> None:
    configure = ls.StreamConfigure(
        [KEY],
        {"target_profit_pct": 5.0, "stop_loss_pct": 3.0},
        watch_wallets=[{"pubkey": KEY, "auto_buy": AUTO_BUY}],
        mirror_config={"cooldown_sec": 3},
    )
    configure.validate()
    assert configure.strategy == ls.StrategyConfig(target_profit_pct=5.0, stop_loss_pct=3.0)
    assert list(configure.watch_wallets) == [ls.WatchWallet(pubkey=KEY, auto_buy=ls.AutoBuyConfig(**AUTO_BUY))]
    assert configure.mirror_config == ls.MirrorConfig(cooldown_sec=3)


def test_market_context_as_dict_becomes_an_object() -> None:
    pool = {"market_type": "pump_swap", "pumpswap": {"pool": KEY}}
    request = ls.BuildSellTxRequest(KEY, KEY, 5, "SOL", 100, market_context=pool)
    assert request.market_context == ls.MarketContext(market_type="pump_swap", pumpswap=ls.PumpSwapContext(pool=KEY))
    assert request.to_payload()["market_context"] == pool


def test_dict_with_an_unknown_field_names_it() -> None:
    with pytest.raises(TypeError, match="no field profit; did you mean profit_pct"):
        ls.StrategyConfig(target_profit_pct=0.0, stop_loss_pct=0.0, take_profit_levels=[{"profit": 10}])
    with pytest.raises(
        ls.StrategyError, match=r"strategy: .*no field stop\. Its fields: target_profit_pct, stop_loss_pct"
    ):
        ls.StreamConfigure([KEY], {"target_profit_pct": 1.0, "stop": 1.0})
    with pytest.raises(ls.ConfigurationError, match=r"mirror_config: .*no field cooldown"):
        ls.StreamConfigure([KEY], {"stop_loss_pct": 3.0, "target_profit_pct": 0.0}, mirror_config={"cooldown": 1})


def test_message_from_obj_reads_what_json_loads_returns() -> None:
    assert ls.server_message_from_obj({"type": "pong", "server_time_ms": 4}) == ls.Pong(server_time_ms=4)
    assert ls.client_message_from_obj({"type": "ping", "client_time_ms": 4}) == ls.Ping(client_time_ms=4)
    with pytest.raises(ls.DecodeError, match="server_time_ms"):
        ls.server_message_from_obj({"type": "pong"})


def test_delay_for_attempt_doubles_up_to_the_bound() -> None:
    policy = ls.RetryPolicy(max_attempts=9, initial_backoff_ms=25, max_backoff_ms=90, jitter_ms=0)
    assert [ls.delay_for_attempt(policy, attempt) for attempt in (0, 1, 2, 3, 50)] == [25, 25, 50, 90, 90]


@pytest.mark.parametrize(
    ("body", "kind"),
    [('{"status":"refused","reason":"no pool"}', "envelope_status"), ("{}", "parse"), ("[]", "parse"), ("", "parse")],
)
def test_parse_build_tx_response_without_a_transaction_raises(body: str, kind: str) -> None:
    assert ls.parse_build_tx_response('{"status":"ok","tx":"AA=="}').tx == "AA=="
    with pytest.raises(ls.ExitApiError) as raised:
        ls.parse_build_tx_response(body)
    assert raised.value.kind == kind


def test_summarize_error_body_prefers_the_words_in_it() -> None:
    assert ls.summarize_error_body('{"error":"mint not found"}') == "mint not found"
    assert ls.summarize_error_body("<html>") == "<html>"
