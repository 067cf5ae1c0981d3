"""Trades through the Router: every shape, every market, its fee, and what a compromised Router does."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from solders.keypair import Keypair

from lasersell_sync.sandbox.chain.addresses import LASERSELL_ROUTER_PROGRAM, TOKEN_PROGRAM, WRAPPED_SOL_MINT
from lasersell_sync.sandbox.chain.execution import load_accounts
from lasersell_sync.sandbox.chain.ledger import token_address
from lasersell_sync.sandbox.chain.transactions import Transaction, read_transaction
from lasersell_sync.sandbox.exchange.orders import Delivery, PartnerFee
from lasersell_sync.sandbox.markets.currencies import SOL, USD1
from lasersell_sync.sandbox.markets.listings import Listing
from lasersell_sync.sandbox.markets.pools import RoutingFee
from lasersell_sync.sandbox.markets.scenario import Scenario, parse_scenario
from lasersell_sync.sandbox.markets.venues import VENUES
from lasersell_sync.sandbox.router.program import VAULT
from lasersell_sync.sandbox.router.shapes import HEADER, SHAPES, RouterOrder, seeded_shape
from lasersell_sync.sandbox.router.thefts import ROUTER_THEFTS, RouterTheft
from tests.sandbox.players import NOBODY, Rig, strategy

NUMBERS = range(len(SHAPES))
MARKETS = [
    (market, quote) for market in VENUES for quote in ("SOL", "USD1") if not (quote == "USD1" and "pump" in market)
]
RENT = 1_488_440
NETWORK_FEE = 25_000


def every_market() -> Scenario:
    """A token of each market against each currency that it takes."""
    tokens = "".join(
        f'[[token]]\nsymbol = "{market}-{quote}"\nmarket = "{market}"\nquote = "{quote}"\nrest_noise_pct = 0\n'
        for market, quote in MARKETS
    )
    return parse_scenario(f'about = "Every market."\n{tokens}', "every")


EVERY_MARKET = every_market()


def rig_of(shape: int, **settings: Any) -> Rig:
    return Rig(router=True, router_shape=shape, scenario=EVERY_MARKET, **settings)


def market(rig: Rig, market_type: str, quote: str = "SOL") -> Listing:
    return rig.token(f"{market_type}-{quote}")


def built(
    rig: Rig, wallet: Keypair, listing: Listing, *, budget: int | None = None, delivery: Delivery = NOBODY
) -> bytes:
    """An unsigned purchase, or without a budget a sale of everything."""
    common: Any = {"slippage_bps": 500, "delivery": delivery, "partner_fee": None}
    if budget is None:
        order = rig.build_sell(listing, wallet.pubkey(), tokens=0, **common)
    else:
        order = rig.build_buy(listing, wallet.pubkey(), budget_lamports=budget, **common)
    return base64.b64decode(order.tx_b64)


def sign(raw: bytes, wallet: Keypair) -> Transaction:
    unsigned = read_transaction(raw)
    signature = bytes(wallet.sign_message(unsigned.message_bytes))
    whole = (
        unsigned.message_bytes + signature if unsigned.version == 1 else b"\x01" + signature + unsigned.message_bytes
    )
    return read_transaction(whole)


def send(rig: Rig, raw: bytes, wallet: Keypair, *, skip_preflight: bool = False) -> Any:
    return rig.send(sign(raw, wallet), skip_preflight=skip_preflight)


def vault_of(rig: Rig, quote: Any) -> int:
    """Everything that the Router has earned of a currency."""
    tokens = rig.exchange.ledger.token_account(token_address(VAULT, quote.mint))
    lamports = rig.exchange.ledger.lamports(VAULT) if quote == SOL else 0
    return lamports + (tokens.amount if tokens is not None else 0)


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize(("market_type", "quote"), MARKETS)
def test_routed_round_trip_moves_what_it_says(number: int, market_type: str, quote: str) -> None:
    """A purchase and a sale of everything land; the fees are those of the tier, and nothing else is missing."""
    rig = rig_of(number, tiers=(1,))
    wallet, listing = rig.wallet(), market(rig, market_type, quote)
    currency = listing.quote
    budget = 10**9 if quote == "SOL" else 50 * 10**6
    funds = rig.exchange.market.funds
    before, earned = funds(wallet.pubkey(), currency), vault_of(rig, currency)
    lamports = rig.exchange.ledger.lamports(wallet.pubkey())
    bought = send(rig, built(rig, wallet, listing, budget=budget), wallet)
    assert bought.err is None, (bought, SHAPES[number].name)
    (swap,) = bought.swaps
    fee = RoutingFee(90, 10_000_000)
    assert swap.routing_fee == fee.of(swap.lamports, currency)
    assert budget - 20 <= swap.net_lamports <= budget
    assert vault_of(rig, currency) - earned == swap.routing_fee
    (holding,) = rig.exchange.positions.book.holdings_of(wallet.pubkey())
    assert holding.entry_lamports == swap.net_lamports
    assert holding.tokens == swap.tokens == rig.exchange.ledger.token_balance(wallet.pubkey(), listing.mint)
    paid = swap.net_lamports + RENT + bought.fee_lamports if currency == SOL else swap.net_lamports
    assert before - funds(wallet.pubkey(), currency) == paid
    earned, middle = vault_of(rig, currency), funds(wallet.pubkey(), currency)
    sold = send(rig, built(rig, wallet, listing), wallet)
    assert sold.err is None, (sold, SHAPES[number].name)
    (swap,) = sold.swaps
    assert swap.routing_fee == fee.of(swap.lamports, currency)
    assert vault_of(rig, currency) - earned == swap.routing_fee
    gained = swap.net_lamports - (sold.fee_lamports if currency == SOL else 0)
    assert funds(wallet.pubkey(), currency) - middle == gained
    assert rig.exchange.ledger.token_balance(wallet.pubkey(), listing.mint) == 0
    assert rig.exchange.ledger.token_account(token_address(wallet.pubkey(), WRAPPED_SOL_MINT)) is None
    assert any(line.startswith(f"lasersell_router {market_type}.sell ") for line in sold.instructions)
    if currency == USD1:
        spent = lamports - rig.exchange.ledger.lamports(wallet.pubkey())
        assert spent == bought.fee_lamports + sold.fee_lamports + RENT


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize(("market_type", "quote"), MARKETS)
def test_routed_transaction_has_the_shape(number: int, market_type: str, quote: str) -> None:
    """One instruction of the Router, none of the market, one signer, its format, its table; and it fits its packet."""
    shape, rig = SHAPES[number], rig_of(number)
    wallet = rig.wallet()
    listing = market(rig, market_type, quote)
    budget = 10**9 if listing.quote == SOL else 50 * 10**6
    delivery = Delivery("helius_sender", 1_000_000)
    raws = [built(rig, wallet, listing, budget=budget, delivery=delivery)]
    rig.send(sign(raws[0], wallet))
    raws.append(built(rig, wallet, listing, delivery=delivery))
    for raw in raws:
        transaction = read_transaction(raw)
        assert len(raw) <= (4_096 if transaction.version == 1 else 1_232)
        programs = [transaction.keys[item.program_index] for item in transaction.instructions]
        assert programs.count(LASERSELL_ROUTER_PROGRAM) == 1
        assert rig.exchange.market.venue(listing).program not in programs
        assert transaction.required_signatures == 1
        if shape.version == 1:
            assert (transaction.version, transaction.budget is not None) == (1, True)
            continue
        assert transaction.version in ((0, "legacy") if shape.version == "legacy" else (0,))
        if shape.uses_table:
            assert listing.mint not in transaction.keys
            loaded = load_accounts(transaction, rig.exchange.ledger)
            assert listing.mint in (*loaded.readonly, *loaded.writable)


@pytest.mark.parametrize("number", NUMBERS)
def test_routed_dust_sale_pays_the_least_fee_out_of_the_wallet(number: int) -> None:
    """A sale that brings less than 0.01 SOL costs 0.01 SOL all the same, and its profit says so."""
    rig = rig_of(number, tiers=(0,))
    wallet, listing = rig.wallet(), market(rig, "raydium_cpmm")
    send(rig, built(rig, wallet, listing, budget=10**8), wallet)
    common: Any = {"slippage_bps": 500, "delivery": NOBODY, "partner_fee": None}
    tokens = rig.exchange.ledger.token_balance(wallet.pubkey(), listing.mint) // 100
    order = rig.build_sell(listing, wallet.pubkey(), tokens=tokens, **common)
    before = rig.exchange.ledger.lamports(wallet.pubkey())
    sold = send(rig, base64.b64decode(order.tx_b64), wallet)
    (swap,) = sold.swaps
    assert (sold.err, swap.routing_fee) == (None, 10_000_000)
    assert swap.net_lamports < 0
    assert rig.exchange.ledger.lamports(wallet.pubkey()) - before == swap.net_lamports - sold.fee_lamports


@pytest.mark.parametrize(("tier", "bps", "least"), [(0, 200, 10**7), (1, 90, 10**7), (2, 50, 0), (3, 30, 0)])
def test_routed_profit_is_net_of_the_tiers_fee(tier: int, bps: int, least: int) -> None:
    """Entry, updates and the exit signal count what the wallet really pays and gets on that tier."""
    rig = rig_of(0, tiers=(tier,))
    wallet, listing = rig.wallet(), market(rig, "raydium_cpmm")
    session, outbox = rig.session(wallet, terms=strategy(target=500))
    bought = send(rig, built(rig, wallet, listing, budget=10**9), wallet)
    (opened,) = outbox.messages("position_opened")
    entry = bought.swaps[0].lamports + max(-(-bought.swaps[0].lamports * bps // 10_000), least)
    assert opened["entry_quote_units"] == entry
    rig.advance(0.5)
    update = outbox.messages("pnl_update")[-1]
    assert update["profit_units"] == update["proceeds_units"] - entry
    rig.say(session, {"type": "request_exit_signal", "position_id": opened["position_id"]})
    signal = outbox.messages("exit_signal_with_tx")[-1]
    record = send(rig, base64.b64decode(signal["unsigned_tx_b64"]), wallet)
    assert record.err is None
    swap = record.swaps[0]
    assert swap.routing_fee == max(-(-swap.lamports * bps // 10_000), least)


@pytest.mark.parametrize("number", NUMBERS)
def test_routed_slippage_is_the_markets_error(number: int) -> None:
    """A price that has left the limit fails with the market's own number, and costs the network fee alone."""
    rig = rig_of(number)
    wallet, listing = rig.wallet(), market(rig, "raydium_cpmm")
    send(rig, built(rig, wallet, listing, budget=10**9), wallet)
    raw = built(rig, wallet, listing)
    rig.price(listing.symbol, 0.5)
    before = rig.exchange.ledger.lamports(wallet.pubkey())
    record = send(rig, raw, wallet, skip_preflight=True)
    assert record.err["InstructionError"][1] == {"Custom": 6005}
    assert before - rig.exchange.ledger.lamports(wallet.pubkey()) == record.fee_lamports


@pytest.mark.parametrize("number", [0, 3, 7])
@pytest.mark.parametrize("theft", sorted(ROUTER_THEFTS))
def test_compromised_router_steals_in_its_way(number: int, theft: str) -> None:
    """Each theft really happens on the ledger, so that a client's simulation has something to find."""
    rig = rig_of(number)
    wallet, listing = rig.wallet(), market(rig, "raydium_cpmm")
    owner, account = wallet.pubkey(), token_address(wallet.pubkey(), listing.mint)
    send(rig, built(rig, wallet, listing, budget=10**9), wallet)
    held = rig.exchange.ledger.token_balance(owner, listing.mint)
    common: Any = {"slippage_bps": 500, "delivery": NOBODY, "partner_fee": None}
    raw = base64.b64decode(rig.build_sell(listing, owner, tokens=held // 2, **common).tx_b64)
    rig.exchange.router.theft = RouterTheft(theft)
    before = rig.exchange.ledger.lamports(owner)
    record = send(rig, raw, wallet, skip_preflight=True)
    after, state = rig.exchange.ledger.lamports(owner), rig.exchange.ledger.token_account(account)
    assert state is not None
    assert (record.err is None) == (theft != "fails")
    happened = {
        "lamports": after < before / 10,
        "some_lamports": after < before,
        "proceeds": after <= before,
        "more_tokens": state.amount == 0,
        "delegate": state.delegate == VAULT,
        "owner": state.owner == VAULT,
        "close_authority": state.close_authority == VAULT,
        "fails": state.amount == held,
    }
    assert happened[theft], theft


def test_router_refuses_other_accounts_and_data() -> None:
    """Its own accounts in other places, another layout's data, a fee above a tenth: an error of the program."""
    rig = rig_of(0)
    wallet, listing = rig.wallet(), market(rig, "pump_fun")
    transaction = read_transaction(built(rig, wallet, listing, budget=10**9))
    place = next(
        n
        for n, item in enumerate(transaction.instructions)
        if transaction.keys[item.program_index] == LASERSELL_ROUTER_PROGRAM
    )
    routed = transaction.instructions[place]
    metas = [transaction.metas()[account] for account in routed.accounts]
    shape = rig.exchange.router.shape
    order = shape.unpack(routed.data)
    assert order is not None
    instruction = rig.exchange.router.route(
        listing,
        wallet.pubkey(),
        rig.exchange.market.venue(listing).buy_instructions(listing, wallet.pubkey(), 5, 5),
        order,
    )[-1]
    cases = [
        (routed.data[:-1], metas, 6000),
        (b"\x00" * len(routed.data), metas, 6000),
        (shape.pack(RouterOrder(True, 5, 5, 1_001, 0)), metas, 6002),
        (routed.data, metas[::-1], None),
        (routed.data, metas[:3], 3005),
    ]
    for data, accounts, code in cases:
        wrong = type(instruction)(LASERSELL_ROUTER_PROGRAM, data, accounts)
        record = rig.send(rig.transaction(wallet, wrong), skip_preflight=True)
        assert record.err["InstructionError"][0] == 0
        assert code is None or record.err["InstructionError"][1] == {"Custom": code}


def test_seeds_draw_every_shape_and_different_bytes() -> None:
    """A hundred seeds draw all shapes; discriminators and the order of accounts differ, and do not depend on chance."""
    shapes = [seeded_shape(seed) for seed in range(100)]
    assert {shape.name for shape in shapes} == {shape.name for shape in SHAPES}
    assert len(SHAPES) >= 6
    assert len({shape.buy_tag for shape in shapes}) > 80
    assert len({shape.header for shape in shapes}) > 90
    assert all(sorted(shape.header) == sorted(HEADER) for shape in shapes)
    assert all(shape.buy_tag[0] != shape.sell_tag[0] for shape in shapes)
    assert [seeded_shape(seed) for seed in range(100)] == shapes
    order = RouterOrder(False, 2**64 - 1, 7, 90, 10**7)
    for shape in shapes:
        assert shape.unpack(shape.pack(order)) == order


def test_partner_fee_and_tip_stand_beside_the_router() -> None:
    """What the request asked for is paid outside the Router."""
    rig = rig_of(1)
    wallet, friend, listing = rig.wallet(), Keypair().pubkey(), market(rig, "raydium_cpmm")
    order = rig.build_buy(
        listing,
        wallet.pubkey(),
        budget_lamports=10**9,
        slippage_bps=500,
        delivery=Delivery("astralane", 2_000_000),
        partner_fee=PartnerFee(friend, lamports=3_000_000),
    )
    record = send(rig, base64.b64decode(order.tx_b64), wallet)
    assert (record.err, record.tip_lamports) == (None, 2_000_000)
    assert rig.exchange.ledger.lamports(friend) == 3_000_000


def test_purchase_below_the_least_fee_is_refused() -> None:
    """A budget that the fee would eat up buys nothing."""
    rig = rig_of(0, tiers=(0,))
    wallet, listing = rig.wallet(), market(rig, "raydium_cpmm")
    with pytest.raises(ValueError, match="too small"):
        built(rig, wallet, listing, budget=10_000_000)


def test_inside_calls_show_the_wallets_part(make_sandbox: Any, make_trader: Any) -> None:
    """A simulated sale shows the Router calling the market, the market calling Token, each with its height."""
    trader = make_trader(make_sandbox(router=True, router_shape=3)).register()
    mint = next(info.mint for info in trader.sandbox.mint_info.values() if info.market_type == "raydium_cpmm")
    answer = trader.post("/v1/buy", trader.buy_body(mint, input=trader.sandbox.mint_info[mint].quote)).json()
    config = {"encoding": "base64", "replaceRecentBlockhash": True, "innerInstructions": True}
    value = trader.rpc("simulateTransaction", answer["tx"], config)["result"]["value"]
    assert value["err"] is None
    raw = read_transaction(base64.b64decode(answer["tx"]))
    entry = next(
        item
        for item in value["innerInstructions"]
        if raw.keys[raw.instructions[item["index"]].program_index] == LASERSELL_ROUTER_PROGRAM
    )
    told = [(str(raw.keys[call["programIdIndex"]])[:5], call["stackHeight"]) for call in entry["instructions"]]
    assert told[0] == ("CPMMo", 2)
    assert (str(TOKEN_PROGRAM)[:5], 3) in told
