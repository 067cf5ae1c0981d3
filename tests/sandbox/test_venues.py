"""The six markets: what their programs are told, what they do, and what they refuse."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any

import pytest
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.transaction import VersionedTransaction

from lasersell_sync.sandbox.chain.anchor import Call, discriminator
from lasersell_sync.sandbox.chain.ledger import Ledger, token_address
from lasersell_sync.sandbox.markets.currencies import SOL, USD1
from lasersell_sync.sandbox.markets.listings import SUPPLY, Listing
from lasersell_sync.sandbox.markets.market import Market
from lasersell_sync.sandbox.markets.pools import buy_fill, max_sell_tokens, sell_fill
from lasersell_sync.sandbox.markets.scenario import Action, Scenario, parse_scenario
from lasersell_sync.sandbox.markets.venues import CURVES, POOLS, VENUES
from tests.sandbox.players import Rig, signed

#: docs/protocol.md 10
PROGRAMS = {
    "pump_fun": "6EF8rrecthR5Dkzon8Nwu78hRvfCKubJ14M5uBEwF6P",
    "pump_swap": "pAMMBay6oceH9fJKBRHGP5D4bD4sWpmSwMn52FMfXEA",
    "raydium_cpmm": "CPMMoo8L3F4NbTegBCKVNunggL7H1ZpdTHKxQB5qKP1C",
    "raydium_launchpad": "LanMV9sAd7wArD4vJFi2qDdfnVhFxYSUg6eADduJ3uj",
    "meteora_dbc": "dbcij3LWUppWqq96dh6gJWwBifmcGfLSB5D4DuSMaqN",
    "meteora_damm_v2": "cpamdpZCGKUy5JxQXB4dcpGPiikHawvSWAd6mEn1sGG",
}
#: docs/protocol.md 3: the context's object and its members, in order
CONTEXTS = {
    "pump_fun": ("pumpfun", ""),
    "pump_swap": ("pumpswap", "pool global_config"),
    "meteora_dbc": ("meteora_dbc", "pool config quote_mint"),
    "meteora_damm_v2": ("meteora_damm_v2", "pool"),
    "raydium_launchpad": ("raydium_launchpad", "pool config platform quote_mint user_quote_account"),
    "raydium_cpmm": ("raydium_cpmm", "pool config quote_mint user_quote_account"),
}
#: Both kinds of instruction, by the names in the programs' IDLs.
CALLS = {
    "pump_fun": ("buy", "sell"),
    "pump_swap": ("buy", "sell"),
    "raydium_cpmm": ("swap_base_output", "swap_base_input"),
    "raydium_launchpad": ("buy_exact_out", "sell_exact_in"),
    "meteora_dbc": ("swap2", "swap"),
    "meteora_damm_v2": ("swap2", "swap"),
}
MARKETS = [
    (market, quote) for market in VENUES for quote in ("SOL", "USD1") if not (quote == "USD1" and "pump" in market)
]


def one_token(market: str, quote: str = "SOL", **more: object) -> Scenario:
    lines = [f'symbol = "COIN"\nmarket = "{market}"\nquote = "{quote}"\nrest_noise_pct = 0']
    lines += [f"{key} = {value}" for key, value in more.items()]
    return parse_scenario('about = "One token."\n[[token]]\n' + "\n".join(lines), "one")


def budget(listing: Listing) -> int:
    """One SOL, or 150 USD1."""
    return 10**9 if listing.quote == SOL else 150 * 10**6


def swap_of(rig: Rig, transaction: VersionedTransaction, listing: Listing) -> tuple[int, Any]:
    """The swap's index and the instruction itself."""
    program = rig.exchange.market.venue(listing).program
    keys = transaction.message.account_keys
    instructions = list(transaction.message.instructions)
    return next((n, item) for n, item in enumerate(instructions) if keys[item.program_id_index] == program)


@pytest.mark.parametrize(("market", "quote"), MARKETS)
def test_a_round_trip(market: str, quote: str) -> None:
    """Buying and selling back moves what the formula says, to the unit, and every unit is somewhere."""
    rig = Rig(scenario=one_token(market, quote))
    wallet, listing = rig.wallet(), rig.token("COIN")
    venue, ledger = rig.exchange.market.venue(listing), rig.exchange.ledger
    total = rig.exchange.ledger.total_lamports()
    before = rig.exchange.market.reserves(listing)
    funds = rig.exchange.market.funds(wallet.pubkey(), listing.quote)
    record = rig.buy(wallet, listing, lamports=budget(listing))
    assert record.err is None
    tokens = rig.exchange.ledger.token_balance(wallet.pubkey(), listing.mint)
    cost = buy_fill(before, venue.fees, tokens)
    assert cost.total_lamports <= budget(listing) < buy_fill(before, venue.fees, tokens + 1).total_lamports
    after = rig.exchange.market.reserves(listing)
    assert after.tokens == before.tokens - tokens
    assert after.lamports == before.lamports + cost.raw_lamports + cost.lp_fee_lamports
    record = rig.sell(wallet, listing)
    assert record.err is None
    gain = sell_fill(after, venue.fees, tokens).total_lamports
    assert rig.exchange.ledger.token_balance(wallet.pubkey(), listing.mint) == 0
    if quote == "USD1":
        assert rig.exchange.market.funds(wallet.pubkey(), USD1) == funds - cost.total_lamports + gain
    fees = sum(item.fee_lamports for item in rig.exchange.chain.records())
    assert rig.exchange.ledger.total_lamports() == total - fees
    held = sum(account.amount for _, account in _accounts(ledger) if account.mint == listing.mint)
    assert held == SUPPLY


def _accounts(ledger: Ledger) -> list[Any]:
    return list(ledger._tokens.items())


@pytest.mark.parametrize(("market", "quote"), MARKETS)
def test_a_transaction_is_one_of_the_real_program(market: str, quote: str) -> None:
    """The program's id, its instruction's name, the amounts in its order, and a summary that names the market."""
    rig = Rig(scenario=one_token(market, quote))
    wallet, listing = rig.wallet(), rig.token("COIN")
    assert str(rig.exchange.market.venue(listing).program) == PROGRAMS[market]
    buy = rig.buy_order(wallet, listing, budget(listing))
    _, instruction = swap_of(rig, buy, listing)
    assert bytes(instruction.data)[:8] == discriminator(CALLS[market][0])
    assert len(set(buy.message.account_keys)) == len(buy.message.account_keys)
    record = rig.send(buy)
    assert any(line.startswith(f"{market}.buy tokens=") for line in record.instructions)
    sale = signed(rig.sell_order(wallet, listing), wallet)
    assert bytes(swap_of(rig, sale, listing)[1].data)[:8] == discriminator(CALLS[market][1])
    assert any(line.startswith(f"{market}.sell tokens=") for line in rig.send(sale).instructions)
    assert len(bytes(buy)) <= 1_232 >= len(bytes(sale))


@pytest.mark.parametrize(("market", "quote"), MARKETS)
def test_the_context_is_the_protocols(market: str, quote: str) -> None:
    """market_context has the object of its market with its members in order, for the user's own quote account."""
    rig = Rig(scenario=one_token(market, quote))
    wallet, listing = rig.wallet(), rig.token("COIN")
    _, outbox = rig.session(wallet)
    rig.buy(wallet, listing, budget(listing))
    context = outbox.messages("position_opened")[0]["market_context"]
    name, members = CONTEXTS[market]
    assert list(context) == ["market_type", name]
    assert context["market_type"] == market
    assert list(context[name]) == members.split()
    if "user_quote_account" in context[name]:
        assert context[name]["user_quote_account"] == str(token_address(wallet.pubkey(), listing.quote.mint))
        assert context[name]["quote_mint"] == str(listing.quote.mint)


@pytest.mark.parametrize(("market", "quote"), MARKETS)
def test_slippage_limits_hold_on_the_chain(market: str, quote: str) -> None:
    """A price that moved against the trader between order and landing fails the transaction, and costs only its fee."""
    rig = Rig(scenario=one_token(market, quote))
    wallet, listing = rig.wallet(), rig.token("COIN")
    venue = rig.exchange.market.venue(listing)
    late = rig.buy_order(wallet, listing, budget(listing), slippage_bps=100)
    rig.price("COIN", 1.5)
    record = rig.send(late, skip_preflight=True)
    assert record.err["InstructionError"][1] == {"Custom": venue.slippage_code}
    assert rig.buy(wallet, listing, budget(listing)).err is None
    sale = signed(rig.sell_order(wallet, listing, slippage_bps=100), wallet)
    rig.price("COIN", 0.6)
    record = rig.send(sale, skip_preflight=True)
    code = getattr(venue, "sell_slippage_code", venue.slippage_code)
    assert record.err["InstructionError"][1] == {"Custom": code}
    assert rig.sell(wallet, listing).err is None


@pytest.mark.parametrize("market", VENUES)
def test_wrong_accounts_and_data_are_refused(market: str) -> None:
    """Every account must be the program's own, and the data one of its instructions."""
    rig = Rig(scenario=one_token(market))
    wallet, listing = rig.wallet(), rig.token("COIN")
    rig.buy(wallet, listing)
    venue, user = rig.exchange.market.venue(listing), wallet.pubkey()
    prepared = venue.sell_instructions(listing, user, 1_000, 0)
    index = next(n for n, item in enumerate(prepared) if item.program_id == venue.program)
    honest = prepared[index]

    def attempt(data: bytes, accounts: list[AccountMeta]) -> Any:
        instructions = [*prepared[:index], Instruction(honest.program_id, data, accounts)]
        return rig.send(rig.transaction(wallet, *instructions), skip_preflight=True).err["InstructionError"]

    for position, account in enumerate(honest.accounts):
        if account.pubkey == user:
            continue
        accounts = list(honest.accounts)
        accounts[position] = AccountMeta(Keypair().pubkey(), account.is_signer, account.is_writable)
        rig.advance(0.5)
        assert attempt(bytes(honest.data), accounts)[0] == index
    assert attempt(bytes(honest.data), list(honest.accounts)[:-1]) == [index, {"Custom": 3005}]
    assert attempt(bytes(honest.data)[:12], list(honest.accounts)) == [index, {"Custom": 102}]
    assert attempt(b"\x01" * 24, list(honest.accounts)) == [index, {"Custom": 101}]


@pytest.mark.parametrize("market", ["meteora_dbc", "meteora_damm_v2"])
def test_swap2_is_taken_in_its_exact_out_mode_alone(market: str) -> None:
    """The two numbers mean something else in the other modes, which the sandbox does not have."""
    call = VENUES[market].buy_call
    data = call.pack(5, 7)
    assert call.unpack(data) == (5, 7)
    assert call.unpack(data[:-1] + b"\x00") is None


def test_amounts_stand_in_the_programs_order() -> None:
    """CPMM names the limit first when it sells tokens out, LaunchLab has a share-fee rate behind the amounts."""
    assert VENUES["raydium_cpmm"].buy_call.pack(5, 7)[8:] == (7).to_bytes(8, "little") + (5).to_bytes(8, "little")
    assert VENUES["raydium_cpmm"].sell_call.pack(5, 7)[8:] == (5).to_bytes(8, "little") + (7).to_bytes(8, "little")
    assert len(VENUES["raydium_launchpad"].sell_call.pack(5, 7)) == 32
    assert Call("x", limit_first=True).unpack(Call("x", limit_first=True).pack(5, 7)) == (5, 7)


@pytest.mark.parametrize("market", VENUES)
def test_a_halted_market_refuses_everybody(market: str) -> None:
    """During a halt transactions fail with the program's own code and the crowd rests; after it trade goes on."""
    rig = Rig(scenario=one_token(market))
    wallet, listing = rig.wallet(), rig.token("COIN")
    rig.buy(wallet, listing)
    rig.exchange.act(Action(0.0, "halt", "COIN"))
    before = rig.exchange.market.reserves(listing)
    rig.price("COIN", 2.0)
    assert rig.exchange.market.reserves(listing) == before
    record = rig.send(signed(rig.sell_order(wallet, listing), wallet), skip_preflight=True)
    assert record.err["InstructionError"][1] == {"Custom": rig.exchange.market.venue(listing).halted_code}
    rig.exchange.act(Action(0.0, "resume", "COIN"))
    rig.advance(0.5)
    assert rig.sell(wallet, listing).err is None


@pytest.mark.parametrize(("market", "quote"), MARKETS)
def test_bands_are_what_the_pool_takes(market: str, quote: str) -> None:
    """Selling a band's max_tokens moves the average price by at most its slippage, and one token more by more."""
    rig = Rig(scenario=one_token(market, quote))
    wallet, listing = rig.wallet(), rig.token("COIN")
    _, outbox = rig.session(wallet)
    rig.buy(wallet, listing, budget(listing))
    rig.advance(2)
    reserves = rig.exchange.market.reserves(listing)
    snapshot = outbox.messages("liquidity_snapshot")[-1]
    tokens = rig.exchange.ledger.token_balance(wallet.pubkey(), listing.mint)
    for band in snapshot["bands"]:
        bps, most = band["slippage_bps"], band["max_tokens"]
        assert most == max_sell_tokens(reserves, bps)
        spot_worth = most * reserves.lamports / reserves.tokens
        raw = reserves.lamports * most // (reserves.tokens + most)
        assert raw >= spot_worth * (1 - bps / 10_000) - 1
        assert band["coverage_pct"] == min(100.0, most * 100 / tokens)


@pytest.mark.parametrize("market", POOLS)
def test_pulled_liquidity_leaves_the_price_and_thins_the_bands(market: str) -> None:
    """A rug takes the same share of both sides: spot price and cap stay, depth goes, the trend says draining."""
    rig = Rig(scenario=one_token(market))
    wallet, listing = rig.wallet(), rig.token("COIN")
    _, outbox = rig.session(wallet)
    rig.buy(wallet, listing)
    rig.advance(2)
    rig.exchange.act(Action(0.0, "pull", "COIN", keep_pct=5))
    rig.advance(1)
    before, after = (outbox.messages("liquidity_snapshot")[n] for n in (-2, -1))
    assert after["liquidity_trend"] == "draining"
    assert after["bands"][0]["max_tokens"] == pytest.approx(before["bands"][0]["max_tokens"] * 0.05, rel=1e-6)
    prices = [update["token_price_quote"] for update in outbox.messages("pnl_update")]
    assert prices[-1] == pytest.approx(prices[0], rel=1e-6)
    profits = [update["profit_units"] for update in outbox.messages("pnl_update")]
    assert profits[-1] < profits[0], "selling the position into what is left brings less"
    rig.sell(wallet, listing)


@pytest.mark.parametrize("market", CURVES)
def test_a_curve_has_no_liquidity_to_pull(market: str) -> None:
    """Bonding curves have no providers, and the script is told so."""
    rig = Rig(scenario=one_token(market))
    with pytest.raises(ValueError, match="bonding curve"):
        rig.exchange.act(Action(0.0, "pull", "COIN"))


@pytest.mark.parametrize("market", CURVES)
def test_graduation_moves_everything_and_the_price_hardly(market: str) -> None:
    """What was on the curve is in the pool, at nearly the price of the last token; the curve keeps nothing."""
    rig = Rig(scenario=one_token(market, may_graduate="true"))
    wallet, listing = rig.wallet(), rig.token("COIN")
    rig.buy(wallet, listing)
    total, curve = rig.exchange.ledger.total_lamports(), rig.exchange.market.venue(listing)
    rig.exchange.act(Action(0.0, "price", "COIN", multiplier=1.3))
    virtual = rig.exchange.market.reserves(listing)
    rig.exchange.act(Action(0.0, "graduate", "COIN"))
    graduate = rig.token("COIN")
    assert graduate.graduated
    assert graduate.market_type == curve.graduates_to
    pool = rig.exchange.market.reserves(graduate)
    assert pool.lamports / pool.tokens == pytest.approx(115e9 / 279.9e12, rel=1e-3)
    assert pool.lamports / pool.tokens > virtual.lamports / virtual.tokens
    assert pool.tokens == pytest.approx(206_900_000 * 10**6, rel=1e-9)
    assert rig.exchange.ledger.total_lamports() == total
    assert rig.exchange.ledger.token_account(curve.pool_token_account(listing)).amount == 0
    assert rig.exchange.ledger.mint(listing.mint).supply == SUPPLY


def test_a_user_may_buy_a_curve_out(rig: Rig) -> None:
    """The purchase that takes the last token graduates the token, whoever makes it."""
    listing = next(item for item in rig.listings if item.market_type == "pump_fun")
    wallet = rig.wallet()
    rig.fund(wallet.pubkey(), lamports=200 * 10**9, usd1_units=0)
    assert rig.buy(wallet, listing, lamports=150 * 10**9).err is None
    assert rig.token(listing.symbol).market_type == "pump_swap"
    rig.advance(0.5)
    assert rig.sell(wallet, rig.token(listing.symbol)).err is None


def test_without_leave_the_crowd_never_buys_a_curve_out() -> None:
    """However large the multiplier, a token that may not graduate keeps its last token for sale."""
    rig = Rig(scenario=one_token("meteora_dbc"))
    for _ in range(3):
        rig.price("COIN", 1_000)
    assert rig.token("COIN").market_type == "meteora_dbc"


def test_a_usd1_market_wants_usd1(rig: Rig) -> None:
    """A wallet without USD1 cannot buy there, however many lamports it has."""
    rig = Rig(initial_usd1_units=0)
    wallet = rig.wallet()
    listing = next(item for item in rig.listings if item.quote == USD1)
    order = rig.buy_order(wallet, listing, 10**6)
    assert rig.send(order, skip_preflight=True).err is not None
    rig.fund(wallet.pubkey(), lamports=0, usd1_units=10**7)
    rig.advance(0.5)
    assert rig.buy(wallet, listing, 10**6).err is None


def test_two_markets_cannot_be_confused() -> None:
    """A swap for a token of another market is refused, whatever its accounts."""
    ledger = Ledger()
    market = Market(ledger, seed=1, scenario=one_token("raydium_cpmm"))
    listing = next(iter(market.listings.values()))
    assert VENUES["pump_swap"].moved(listing).detail == {"Custom": 3012}
    assert VENUES["pump_fun"].moved(listing).detail == {"Custom": 3012}
    graduate = replace(listing, launched_on="pump_fun", market_type="pump_swap")
    assert VENUES["pump_fun"].moved(graduate).detail == {"Custom": 6005}


def test_a_signed_order_is_what_the_api_encodes(rig: Rig) -> None:
    """Orders are base64 of unsigned transactions with one empty signature."""
    wallet = rig.wallet()
    rig.buy(wallet, rig.listing("raydium_cpmm", "peak"), 10**7)
    raw = base64.b64decode(rig.sell_order(wallet, rig.listing("raydium_cpmm", "peak")))
    assert raw[0] == 1
    assert raw[1:65] == bytes(64)
