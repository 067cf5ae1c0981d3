"""What a sale should bring, by what the session knows: reference, part and slippage."""

from __future__ import annotations

import pytest

from lasersell_sync.exceptions import ConfigurationError
from lasersell_sync.messages import ExitSignalWithTx, PositionOpened
from lasersell_sync.trading.guard.expected import Expected, TradeContext, expected_trade
from lasersell_sync.trading.rest.tx_requests import BuildSellTxRequest
from tests.support.market_transactions import stranger

WALLET, MINT, ACCOUNT = str(stranger(1)), str(stranger(2)), str(stranger(3))
MOST = 5_000


def opened(entry: int = 1_000, tokens: int = 100) -> PositionOpened:
    return PositionOpened(
        position_id=1, wallet_pubkey=WALLET, mint=MINT, token_account=ACCOUNT, tokens=tokens, entry_quote_units=entry,
        slot=1,
    )  # fmt: skip


def signal(profit: int = 0, tokens: int = 100, sell: int | None = None) -> ExitSignalWithTx:
    return ExitSignalWithTx(
        session_id=1, position_id=1, wallet_pubkey=WALLET, mint=MINT, token_account=ACCOUNT, position_tokens=tokens,
        profit_units=profit, reason="manual", triggered_at_ms=1, unsigned_tx_b64="", sell_tokens=sell,
    )  # fmt: skip


def floor(trade: Expected, tokens: int = 100) -> int:
    return trade.least_proceeds(tokens, MOST)


def expected(source: ExitSignalWithTx | BuildSellTxRequest, **known: object) -> Expected:
    return expected_trade(bytes(32), source, TradeContext(**known))  # type: ignore[arg-type]


def test_price_reference_is_the_smaller_of_entry_with_profit_and_newest_proceeds():
    assert expected(signal(200), announcement=opened()).reference_units == 1_200
    assert expected(signal(200), announcement=opened(), proceeds_units=1_100).reference_units == 1_100
    assert expected(signal(200), announcement=opened(), proceeds_units=1_300).reference_units == 1_200
    assert expected(signal(200), proceeds_units=1_300).reference_units == 1_300


def test_price_floor_without_asking_is_the_guards_limit_and_with_asking_what_was_asked():
    assert floor(expected(signal(), announcement=opened())) == 500
    assert floor(expected(signal(), announcement=opened(), slippage_bps=2_000)) == 800
    request = BuildSellTxRequest(MINT, WALLET, 100, "SOL", 500)
    assert floor(expected(request, proceeds_units=1_000, slippage_bps=9_000)) == 950


def test_price_floor_of_a_part_is_in_proportion_less_the_unit_that_rounding_costs():
    part = expected(signal(200, sell=25), announcement=opened(), slippage_bps=0)
    assert (floor(part, 25), floor(part, 24), floor(part, 100)) == (299, 287, 1_200)


def test_price_reference_after_the_sale_of_a_part_takes_its_share_of_the_entry():
    """Half was sold and nothing was announced since: entry 500, and the profit is that of the rest."""
    assert expected(signal(50, tokens=50), announcement=opened()).reference_units == 550


def test_price_floor_does_not_fall_with_a_position_that_is_said_to_be_larger():
    lying = expected(signal(0, tokens=10**15, sell=100), announcement=opened(), slippage_bps=0)
    assert floor(lying) == 1_000


@pytest.mark.parametrize("profit", [-1_000, -5_000])
def test_price_floor_of_dust_or_without_a_reference_is_one_unit(profit: int):
    assert floor(expected(signal(profit), announcement=opened())) == 1
    assert floor(expected(signal())) == 1
    assert floor(expected_trade(bytes(32), signal())) == 1
    assert floor(expected(BuildSellTxRequest(MINT, WALLET, 100, "SOL", 500), announcement=opened())) == 1


def test_price_floor_of_an_empty_position_divides_by_nothing():
    assert floor(expected(signal(10, tokens=0), announcement=opened(tokens=0)), 0) == 505


@pytest.mark.parametrize(
    "wrong",
    [{"proceeds_units": -1}, {"proceeds_units": 2**64}, {"proceeds_units": 1.5}, {"slippage_bps": 10_001},
     {"position_tokens": True}, {"announcement": "soon"}],
)  # fmt: skip
def test_trade_context_with_a_value_out_of_range_is_refused_by_name(wrong: dict[str, object]):
    with pytest.raises(ConfigurationError) as caught:
        TradeContext(**wrong)  # type: ignore[arg-type]
    assert caught.value.field == next(iter(wrong))
