"""Direct trades in each transaction format: legacy, version 0 and version 1, chosen or drawn by the seed."""

from __future__ import annotations

import base64
import random
from typing import Any

import pytest
from solders.address_lookup_table_account import AddressLookupTableAccount
from solders.pubkey import Pubkey

from lasersell_sync.sandbox import Sandbox
from lasersell_sync.sandbox.chain.instructions import transfer
from lasersell_sync.sandbox.chain.transactions import MAX_PACKET_BYTES, BudgetHeader, read_transaction, write_unsigned
from lasersell_sync.sandbox.exchange.exchange import Exchange, ExchangeSettings
from lasersell_sync.sandbox.exchange.orders import drawn_version
from tests.sandbox.players import Trader, signed

FORMATS: list[tuple[str, Any]] = [("legacy", "legacy"), ("0", 0), ("1", 1)]


@pytest.mark.parametrize("instructions", ["today", "classic"])
@pytest.mark.parametrize(("name", "version"), FORMATS)
def test_direct_trade_in_each_format_lands_on_every_market(
    make_sandbox: Any, make_trader: Any, name: str, version: object, instructions: str
) -> None:
    """A purchase and a sale of each of the six markets, built by REST, are of the format and land."""
    sandbox = make_sandbox(transaction_format=name, instructions=instructions, clock="manual", landing_delay_ms=0)
    trader = make_trader(sandbox).register()
    wanted = {info.market_type: info for info in sandbox.mint_info.values()}
    assert len(wanted) == 6
    for info in wanted.values():
        amount = 10**9 if info.quote == "SOL" else 10**8
        orders = [
            ("/v1/buy", trader.buy_body(info.mint, input=info.quote, amount_in_total=amount, send_mode="astralane")),
            ("/v1/sell", trader.sell_body(info.mint, output=info.quote, send_mode="helius_sender", tip_lamports=5_000)),
        ]
        for path, body in orders:
            text = trader.post(path, body).json()["tx"]
            transaction = read_transaction(base64.b64decode(text))
            assert transaction.version == version
            if version == 1:
                assert transaction.budget == BudgetHeader(10_000, 200_000)
            signature = trader.send(signed(text, trader.wallet))
            sandbox.advance(0.5)
            record = trader.landed(signature)
            assert (record.err, record.fee_lamports, bool(record.tip_lamports)) == (None, 15_000, True)
        assert sandbox.token_balance(trader.pubkey, info.mint) == 0


def test_drawn_formats_are_the_seeds() -> None:
    """The seed draws each of the three for some tokens, and the same ones every time."""

    def drawn(seed: int) -> list[object]:
        return [drawn_version(listing) for listing in Exchange(ExchangeSettings(seed=seed)).market.listings.values()]

    assert set(drawn(1)) == {"legacy", 0, 1}
    assert drawn(1) == drawn(1) != drawn(2)


def test_drawn_format_is_what_rest_writes(sandbox: Sandbox, trader: Trader) -> None:
    """By default each token's trades have the format that was drawn for it."""
    drawn = {
        str(listing.mint): drawn_version(listing) for listing in Exchange(ExchangeSettings()).market.listings.values()
    }
    for mint, info in sandbox.mint_info.items():
        amount = 10**8 if info.quote == "SOL" else 10**7
        answer = trader.post("/v1/buy", trader.buy_body(mint, input=info.quote, amount_in_total=amount)).json()
        assert read_transaction(base64.b64decode(answer["tx"])).version == drawn[mint]


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        ({"transaction_format": "2"}, "legacy, 0, 1"),
        ({"transaction_format": 0}, "legacy, 0, 1"),
        ({"transaction_format": "1", "router": True}, "router=False"),
    ],
)
def test_transaction_format_that_makes_no_sense_is_refused(options: dict[str, Any], remedy: str) -> None:
    """The error names the argument, its value and what to do."""
    with pytest.raises(ValueError, match=f"transaction_format.*{remedy}"):
        Sandbox(**{"router": False, **options})


def test_legacy_transaction_that_is_too_long_is_written_in_version_0() -> None:
    """Only with a look-up table does it fit into its packet."""
    rand = random.Random(5)
    user, *others = (Pubkey.from_bytes(rand.randbytes(32)) for _ in range(31))
    blockhash = Exchange(ExchangeSettings()).slots.latest_blockhash()[0]
    table = AddressLookupTableAccount(Pubkey.from_bytes(rand.randbytes(32)), others)
    for count, version in ((20, "legacy"), (30, 0)):
        pays = [transfer(user, other, 1) for other in others[:count]]
        raw = write_unsigned("legacy", user, pays, blockhash, unit_limit=200_000, table=lambda: table)
        assert read_transaction(raw).version == version
        assert len(raw) <= MAX_PACKET_BYTES
