"""The ledger assertions: true ones pass as soon as they are true, false ones tell the whole story."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from solders.keypair import Keypair

from lasersell_sync.sandbox import Sandbox
from lasersell_sync.sandbox.assertions import LedgerAssertions
from tests.sandbox.players import PATIENCE_S, Trader, signed

#: For assertions that must fail.
MOMENT_S = 0.05


@pytest.fixture
def ledger(sandbox: Sandbox) -> LedgerAssertions:
    return LedgerAssertions(sandbox, timeout_s=PATIENCE_S)


@pytest.fixture
def hasty(sandbox: Sandbox) -> LedgerAssertions:
    return LedgerAssertions(sandbox, timeout_s=MOMENT_S)


def buy(trader: Trader, mint: str) -> None:
    assert trader.landed(trader.buy(mint)).err is None


def sell(trader: Trader, mint: str, tokens: int = 0) -> str:
    answer = trader.post("/v1/sell", trader.sell_body(mint, amount_tokens=tokens, slippage_bps=5_000)).json()
    return trader.send(signed(answer["tx"], trader.wallet))


def test_one_purchase_and_one_sale(trader: Trader, ledger: LedgerAssertions) -> None:
    """The assertions wait for the landing by themselves, and give the trade they were about."""
    mint = trader.sandbox.mints[0]
    trader.stream()
    bought = trader.buy(mint)
    assert ledger.assert_bought(trader.wallet, mint).signature == bought
    ledger.assert_never_sold(trader.wallet, mint)
    sold = sell(trader, mint)
    sale = ledger.assert_sold_exactly_once(trader.wallet, mint)
    assert (sale.side, sale.signature, sale.wallet) == ("sell", sold, trader.pubkey)
    assert sale.tokens == ledger.trades(trader.wallet, mint)[0].tokens
    ledger.assert_no_position_open(trader.wallet)
    ledger.assert_no_position_open()
    ledger.assert_nothing_failed()


def test_a_wallet_is_named_by_keypair_pubkey_or_text(trader: Trader, ledger: LedgerAssertions) -> None:
    mint = trader.sandbox.mints[0]
    buy(trader, mint)
    for wallet in (trader.wallet, trader.wallet.pubkey(), trader.pubkey):
        assert ledger.assert_bought(wallet, mint).wallet == trader.pubkey


def test_sold_in_two_parts_is_not_once(trader: Trader, ledger: LedgerAssertions) -> None:
    mint = trader.sandbox.mints[0]
    buy(trader, mint)
    half = trader.sandbox.token_balance(trader.pubkey, mint) // 2
    trader.landed(sell(trader, mint, half))
    trader.landed(sell(trader, mint))
    with pytest.raises(AssertionError, match="2 times, not once") as caught:
        ledger.assert_sold_exactly_once(trader.wallet, mint)
    # The story: one purchase, two sales.
    assert str(caught.value).count(" sell ") == 2
    assert str(caught.value).count(" buy ") == 1


def test_sold_in_part_is_not_sold(trader: Trader, hasty: LedgerAssertions) -> None:
    mint = trader.sandbox.mints[0]
    buy(trader, mint)
    trader.landed(sell(trader, mint, trader.sandbox.token_balance(trader.pubkey, mint) // 2))
    with pytest.raises(AssertionError, match="has not sold all it holds"):
        hasty.assert_sold_exactly_once(trader.wallet, mint)


def test_nothing_sold_is_not_sold_once(trader: Trader, hasty: LedgerAssertions) -> None:
    with pytest.raises(AssertionError, match=r"has not sold all.*\n  nothing has happened"):
        hasty.assert_sold_exactly_once(trader.wallet, trader.sandbox.mints[0])
    with pytest.raises(AssertionError, match="never bought"):
        hasty.assert_bought(trader.wallet, trader.sandbox.mints[0])


def test_an_open_position_is_found(trader: Trader, ledger: LedgerAssertions, hasty: LedgerAssertions) -> None:
    trader.stream()
    buy(trader, trader.sandbox.mints[0])
    assert trader.sandbox.wait_for(ledger.open_positions, PATIENCE_S)
    with pytest.raises(AssertionError, match=r"still open[\s\S]*position \d+: .* open"):
        hasty.assert_no_position_open()
    # Another wallet's are not this one's.
    hasty.assert_no_position_open(Keypair().pubkey())


def test_a_sale_is_found_where_none_should_be(trader: Trader, ledger: LedgerAssertions) -> None:
    mint, other = trader.sandbox.mints[:2]
    buy(trader, mint)
    trader.landed(sell(trader, mint))
    ledger.assert_never_sold(trader.wallet, other)
    with pytest.raises(AssertionError, match="sold"):
        ledger.assert_never_sold(trader.wallet, mint)


def test_a_failed_transaction_is_found_and_is_no_sale(
    trader: Trader, ledger: LedgerAssertions, hasty: LedgerAssertions
) -> None:
    """The second of two sales of the same tokens lands and fails: the wallet sold once, and paid twice."""
    mint = trader.sandbox.mints[0]
    buy(trader, mint)
    answers = [trader.post("/v1/sell", trader.sell_body(mint, slippage_bps=bps)).json() for bps in (5_000, 4_999)]
    for answer in answers:
        trader.landed(trader.send(signed(answer["tx"], trader.wallet), skipPreflight=True))
    ledger.assert_sold_exactly_once(trader.wallet, mint)
    hasty.assert_nothing_failed(Keypair().pubkey())
    for wallet in (None, trader.wallet):
        with pytest.raises(AssertionError, match=r"landed and failed[\s\S]*failed, "):
            hasty.assert_nothing_failed(wallet)


def test_two_wallets_are_told_apart(
    trader: Trader, ledger: LedgerAssertions, make_trader: Callable[..., Trader]
) -> None:
    mint, other = trader.sandbox.mints[0], make_trader(trader.sandbox, seed=2).register()
    buy(trader, mint)
    buy(other, mint)
    trader.landed(sell(trader, mint))
    ledger.assert_sold_exactly_once(trader.wallet, mint)
    ledger.assert_never_sold(other.wallet, mint)
    assert len(ledger.trades()) == 3
