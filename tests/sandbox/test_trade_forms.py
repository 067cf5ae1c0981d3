"""Today's instructions of the pump markets: layouts against docs/protocol.md 10, money against the ledger."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any

import pytest
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.token.associated import get_associated_token_address

from lasersell_sync.sandbox.chain.transactions import Transaction, read_transaction
from lasersell_sync.sandbox.exchange.orders import Delivery
from lasersell_sync.sandbox.markets.listings import Listing
from lasersell_sync.sandbox.markets.scenario import Action, load_scenario
from tests.sandbox.players import Rig

#: market, side, lot: discriminator (docs/protocol.md 10, and Anchor's of buy and sell), accounts, place of mint and user
FORMS: dict[tuple[str, str, int], tuple[str, int, int, int]] = {
    ("pump_fun", "buy", 0): ("66063d1201daebea", 18, 2, 6),
    ("pump_fun", "buy", 1): ("38fc74089edfcd5f", 18, 2, 6),
    ("pump_fun", "buy", 2): ("b817ee6167c5d33d", 27, 1, 13),
    ("pump_fun", "buy", 3): ("c2ab1c46684d5b2f", 27, 1, 13),
    ("pump_fun", "buy", 4): ("07051dc4f5176550", 17, 1, 8),
    ("pump_fun", "buy", 5): ("e1f7501ed5b38488", 17, 1, 8),
    ("pump_fun", "sell", 0): ("33e685a4017f83ad", 16, 2, 6),
    ("pump_fun", "sell", 1): ("5df6823ce7e940b2", 26, 1, 13),
    ("pump_fun", "sell", 2): ("1c92de7726c469d5", 17, 1, 8),
    ("pump_swap", "buy", 0): ("66063d1201daebea", 26, 3, 1),
    ("pump_swap", "buy", 1): ("c62e1552b4d9e870", 26, 3, 1),
    ("pump_swap", "buy", 2): ("b817ee6167c5d33d", 17, 3, 1),
    ("pump_swap", "buy", 3): ("c2ab1c46684d5b2f", 17, 3, 1),
    ("pump_swap", "sell", 0): ("33e685a4017f83ad", 24, 3, 1),
    ("pump_swap", "sell", 1): ("5df6823ce7e940b2", 17, 3, 1),
    ("raydium_launchpad", "buy", 0): ("18d3742869039938", 18, 9, 0),
    ("raydium_launchpad", "buy", 1): ("faea0d7bd59c13ec", 18, 9, 0),
    ("raydium_launchpad", "sell", 0): ("9527de9bd37c981a", 18, 9, 0),
}
PUMP_SWAP = "pAMMBay6oceH9fJKBRHGP5D4bD4sWpmSwMn52FMfXEA"
#: what is behind the accounts of a cashback coin's trade: count, place of the account that takes the cashback
CASHBACK_FORMS: dict[tuple[str, str, int], tuple[int, int]] = {
    ("pump_fun", "buy", 0): (18, 13),
    ("pump_fun", "buy", 1): (18, 13),
    ("pump_fun", "buy", 2): (27, 20),
    ("pump_fun", "buy", 3): (27, 20),
    ("pump_fun", "sell", 0): (17, 14),
    ("pump_fun", "sell", 1): (26, 19),
    ("pump_swap", "buy", 0): (27, 23),
    ("pump_swap", "buy", 1): (27, 23),
    ("pump_swap", "sell", 0): (26, 21),
}
SLIPPAGE = {("pump_fun", 0): 6002, ("pump_fun", 1): 6042, ("pump_fun", 2): 6002, ("pump_fun", 3): 6042}
SLIPPAGE |= {("pump_fun", 4): 6002, ("pump_fun", 5): 6042}
SLIPPAGE |= {("pump_swap", 0): 6004, ("pump_swap", 1): 6040, ("pump_swap", 2): 6004, ("pump_swap", 3): 6040}
SLIPPAGE |= {("raydium_launchpad", 0): 6006, ("raydium_launchpad", 1): 6006}
TIPPED = Delivery("helius_sender", 1_000_000)


def listing_of(rig: Rig, market_type: str, lot: int, *, cashback: bool = False) -> Listing:
    """A token of a market, whose trades are written in the forms of a lot."""
    found = next(item for item in rig.listings if item.market_type == market_type)
    rig.exchange.market.listings[found.mint] = replace(found, today=True, lot=lot, cashback=cashback)
    return rig.exchange.market.listings[found.mint]


def order(rig: Rig, wallet: Keypair, listing: Listing, budget: int | None, slippage_bps: int = 500) -> Transaction:
    common: Any = {"slippage_bps": slippage_bps, "delivery": TIPPED, "partner_fee": None}
    if budget is None:
        built = rig.build_sell(listing, wallet.pubkey(), tokens=0, **common)
    else:
        built = rig.build_buy(listing, wallet.pubkey(), budget_lamports=budget, **common)
    unsigned = read_transaction(base64.b64decode(built.tx_b64))
    signature = bytes(wallet.sign_message(unsigned.message_bytes))
    message = unsigned.message_bytes
    return read_transaction(message + signature if unsigned.version == 1 else b"\x01" + signature + message)


def trade_of(rig: Rig, wallet: Keypair, listing: Listing, side: str) -> tuple[bytes, list[Pubkey]]:
    """Data and accounts of the market's instruction, in a purchase or in a sale of what was bought before."""
    if side == "sell":
        assert rig.send(order(rig, wallet, listing, 10**9)).err is None
    transaction = order(rig, wallet, listing, 10**9 if side == "buy" else None)
    program = rig.exchange.market.venue(listing).program
    (swap,) = [item for item in transaction.instructions if transaction.keys[item.program_index] == program]
    return swap.data, [transaction.keys[place] for place in swap.accounts]


def cashback_account(wallet: Keypair, listing: Listing) -> Pubkey:
    """Where a wallet's cashback waits: on its volume account, or on that one's account of wrapped SOL."""
    seeds, quote = [b"user_volume_accumulator", bytes(wallet.pubkey())], listing.quote.mint
    program = "6EF8rrecthR5Dkzon8Nwu78hRvfCKubJ14M5uBEwF6P" if listing.market_type == "pump_fun" else PUMP_SWAP
    volume = Pubkey.find_program_address(seeds, Pubkey.from_string(program))[0]
    return volume if listing.market_type == "pump_fun" else get_associated_token_address(volume, quote)


@pytest.mark.parametrize(("market_type", "side", "lot"), FORMS)
def test_todays_form_has_the_idls_layout(market_type: str, side: str, lot: int) -> None:
    """Discriminator, number of accounts, and where mint and user stand."""
    rig = Rig()
    wallet, listing = rig.wallet(), listing_of(rig, market_type, lot)
    data, accounts = trade_of(rig, wallet, listing, side)
    discriminator, count, mint_place, user_place = FORMS[market_type, side, lot]
    assert (data[:8].hex(), len(accounts)) == (discriminator, count)
    assert (accounts[mint_place], accounts[user_place]) == (listing.mint, wallet.pubkey())


@pytest.mark.parametrize("lot", range(6))
@pytest.mark.parametrize("market_type", ["pump_fun", "pump_swap"])
@pytest.mark.parametrize("shape", [None, *range(8)])
def test_todays_trades_land_and_pay_what_they_say(market_type: str, lot: int, shape: int | None) -> None:
    """A round trip by each form, directly and through each shape of the Router, accounts for every lamport."""
    rig = Rig(router=shape is not None, router_shape=shape, tiers=(2,))
    wallet, listing = rig.wallet(), listing_of(rig, market_type, lot)
    before = rig.exchange.ledger.lamports(wallet.pubkey())
    records = []
    for budget in (10**9, None):
        records.append(rig.send(order(rig, wallet, listing, budget)))
        assert records[-1].err is None, records[-1]
    bought, sold = (record.swaps[0] for record in records)
    assert bought.net_lamports <= 10**9
    assert bought.net_lamports > 10**9 * 0.99
    assert sold.tokens == bought.tokens
    # The wallet's account of the token, and on Pump.fun the one that counts its volume.
    rent = 1_488_440 + (1_346_200 if market_type == "pump_fun" else 0)
    costs = sum(record.fee_lamports + record.tip_lamports for record in records)
    spent = before - rig.exchange.ledger.lamports(wallet.pubkey())
    assert spent == bought.net_lamports - sold.net_lamports + rent + costs


@pytest.mark.parametrize(("market_type", "lot"), SLIPPAGE)
def test_todays_purchase_beyond_its_slippage_fails(market_type: str, lot: int) -> None:
    """Too dear, or too few tokens for the exact price: the program's own number; cheaper brings more tokens."""
    rig = Rig()
    wallet, listing = rig.wallet(), listing_of(rig, market_type, lot)
    late = order(rig, wallet, listing, 10**9, slippage_bps=100)
    rig.price(str(listing.mint), 1.05)
    record = rig.send(late, skip_preflight=True)
    assert record.err["InstructionError"][1] == {"Custom": SLIPPAGE[market_type, lot]}
    cheap = order(rig, wallet, listing, 10**9, slippage_bps=100)
    rig.price(str(listing.mint), 0.8)
    record = rig.send(cheap, skip_preflight=True)
    assert record.err is None
    spends = record.swaps[0].lamports / 10**9
    assert spends > 0.99 if lot % 2 else spends < 0.9


@pytest.mark.parametrize(("market_type", "side", "lot"), CASHBACK_FORMS)
def test_cashback_coin_trade_names_the_account_that_takes_it(market_type: str, side: str, lot: int) -> None:
    """Behind the accounts of the interface, where the public documentation wants it; never in the smallest forms."""
    rig = Rig()
    wallet, listing = rig.wallet(), listing_of(rig, market_type, lot, cashback=True)
    data, accounts = trade_of(rig, wallet, listing, side)
    count, place = CASHBACK_FORMS[market_type, side, lot]
    assert len(accounts) == count
    assert accounts[place] == cashback_account(wallet, listing)
    assert data[:8].hex() == FORMS[market_type, side, lot][0]


@pytest.mark.parametrize("shape", [None, 0, 5, 7])
@pytest.mark.parametrize(
    ("market_type", "lot"), [(market, lot) for market, side, lot in CASHBACK_FORMS if side == "buy"]
)
def test_cashback_coin_pays_its_creator_fee_to_the_trader(market_type: str, lot: int, shape: int | None) -> None:
    """Purchase and sale add 5 of 10 000 to the wallet's cashback, and nothing to the creator; the trade costs the same."""
    found = {}
    for cashback in (True, False):
        rig = Rig(router=shape is not None, router_shape=shape, tiers=(2,))
        wallet, listing = rig.wallet(), listing_of(rig, market_type, lot % 4, cashback=cashback)
        account, waiting = cashback_account(wallet, listing), []
        swaps = []
        for budget in (10**9, None):
            record = rig.send(order(rig, wallet, listing, budget))
            assert record.err is None
            swaps.append(record.swaps[0])
            held = rig.exchange.ledger.token_account(account)
            opened = 1_346_200 if market_type == "pump_fun" else 0
            lamports = rig.exchange.ledger.lamports(account) - opened
            waiting.append(lamports if market_type == "pump_fun" else held.amount if held is not None else 0)
        found[cashback] = (waiting, [(swap.tokens, swap.lamports) for swap in swaps])
    assert found[True][1] == found[False][1]
    assert found[False][0] == [0, 0]
    bought, both = found[True][0]
    assert [bought, both - bought] == pytest.approx([10**9 * 5 / 10_000] * 2, rel=0.03)


@pytest.mark.parametrize(("market_type", "lot", "code"), [("pump_fun", 4, 6094), ("pump_swap", 2, 6079)])
def test_smallest_form_refuses_a_cashback_coin(market_type: str, lot: int, code: int) -> None:
    """A purchase in it fails with the program's own number."""
    rig = Rig()
    wallet, listing = rig.wallet(), listing_of(rig, market_type, lot)
    bought = order(rig, wallet, listing, 10**9)
    listing_of(rig, market_type, lot, cashback=True)
    record = rig.send(bought, skip_preflight=True)
    assert record.err["InstructionError"][1] == {"Custom": code}


def test_classic_sale_of_a_cashback_coin_leaves_it_to_the_creator() -> None:
    """Without the account behind the others, the creator gets the fee as ever."""
    rig = Rig()
    wallet, listing = rig.wallet(), listing_of(rig, "pump_fun", 0, cashback=True)
    rig.exchange.market.listings[listing.mint] = classic = replace(listing, today=False)
    assert rig.send(order(rig, wallet, listing, 10**9)).err is None
    before = rig.exchange.ledger.lamports(cashback_account(wallet, listing))
    _, accounts = trade_of(rig, wallet, classic, "sell")
    assert cashback_account(wallet, listing) not in accounts
    assert rig.send(order(rig, wallet, classic, None)).err is None
    assert rig.exchange.ledger.lamports(cashback_account(wallet, listing)) <= before + 500_000


def test_cashback_coins_are_drawn_by_the_seed() -> None:
    """Some pump coins of today's, the same ones for the same seed; no other market's, and none among the classic."""

    def drawn(seed: int, *, today: bool = True) -> set[str]:
        listings = Rig(seed=seed, today=today).listings
        return {f"{item.market_type} {item.mint}" for item in listings if item.cashback}

    every = [drawn(seed) for seed in range(10)]
    assert every == [drawn(seed) for seed in range(10)]
    assert {name.split()[0] for names in every for name in names} == {"pump_fun", "pump_swap"}
    assert not any(drawn(seed, today=False) for seed in range(10))


def test_todays_instructions_are_chosen_by_the_seed() -> None:
    """Over some seeds every form of Pump.fun is used; a graduated coin uses PumpSwap's."""
    seen = set()
    for seed in range(30):
        rig = Rig(seed=seed, today=True)
        wallet = rig.wallet()
        listing = next(item for item in rig.listings if item.market_type == "pump_fun")
        bought = order(rig, wallet, listing, 10**8)
        program = rig.exchange.market.venue(listing).program
        seen |= {item.data[:8].hex() for item in bought.instructions if bought.keys[item.program_index] == program}
    assert seen == {form[0] for (market, side, _), form in FORMS.items() if (market, side) == ("pump_fun", "buy")}
    rig = Rig(seed=1, today=True, scenario=load_scenario("graduation"))
    listing = next(item for item in rig.listings if item.market_type == "pump_fun")
    rig.exchange.act(Action(0.0, "graduate", listing.symbol))
    assert rig.token(listing.symbol).market_type == "pump_swap"
    wallet = rig.wallet()
    for budget in (10**9, None):
        assert rig.send(order(rig, wallet, rig.token(listing.symbol), budget)).err is None
