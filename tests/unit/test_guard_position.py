"""What the signing guard compares with the position that a session knows: price, pool, identity."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

import attrs
import pytest
from solders.instruction import AccountMeta, Instruction
from solders.pubkey import Pubkey

from lasersell_sync.codec import server_message_from_text
from lasersell_sync.exceptions import ConfigurationError, UnsafeTransactionError
from lasersell_sync.messages import ExitSignalWithTx, MarketContext, PositionOpened
from lasersell_sync.sandbox.chain.addresses import PUMP_FUN_PROGRAM, PUMP_SWAP_PROGRAM, USD1_MINT, WRAPPED_SOL_MINT
from lasersell_sync.sandbox.chain.ledger import token_address
from lasersell_sync.trading.guard import SigningGuard, TradeContext
from lasersell_sync.trading.guard.programs import known_programs
from lasersell_sync.trading.rest.tx_requests import BuildBuyTxRequest, BuildSellTxRequest
from tests.support.malicious import MALICIOUS, Malicious
from tests.support.market_transactions import BUDGETS, MARKETS, Desk, Draft, desk, draft, stranger

MARKET_CASES = pytest.mark.parametrize(("market", "quote"), MARKETS, ids=lambda value: value)
TOKENS = 10**9


def refusal(tx: Any, guard: SigningGuard | None = None, **more: Any) -> UnsafeTransactionError:
    with pytest.raises(UnsafeTransactionError) as caught:
        (guard or SigningGuard()).check(tx, **more)
    return caught.value


def broken(error: UnsafeTransactionError) -> set[str]:
    return {offence.rule for offence in error.offences}


class Sale(NamedTuple):
    """A sale that one market built, and where its swap keeps what matters."""

    trader: Desk
    parts: Draft
    swap: int
    least_at: int
    pool_at: int

    @property
    def least_out(self) -> int:
        (value,) = struct.unpack_from("<Q", self.parts.instructions[self.swap].data, self.least_at)
        return int(value)

    def for_at_least(self, units: int) -> str:
        data = self.parts.instructions[self.swap].data
        return self.parts.with_data(
            self.swap, data[: self.least_at] + struct.pack("<Q", units) + data[self.least_at + 8 :]
        ).b64()

    def in_pool(self, pool: Pubkey) -> str:
        return self.parts.with_account(self.swap, self.pool_at, pool).b64()

    def signal(self, tx_b64: str, **more: Any) -> ExitSignalWithTx:
        fields = {
            "session_id": 1, "position_id": 1, "wallet_pubkey": self.trader.address, "mint": self.trader.mint,
            "token_account": self.account, "position_tokens": TOKENS, "profit_units": 0, "reason": "manual",
            "triggered_at_ms": 1, "unsigned_tx_b64": tx_b64, **more,
        }  # fmt: skip
        return ExitSignalWithTx(**fields)  # type: ignore[arg-type]

    @property
    def account(self) -> str:
        return str(token_address(self.trader.wallet.pubkey(), self.trader.listing.mint))

    def opened(self, entry: int = 0, **more: Any) -> PositionOpened:
        fields = {
            "position_id": 1, "wallet_pubkey": self.trader.address, "mint": self.trader.mint, "tokens": TOKENS,
            "token_account": self.account, "entry_quote_units": entry, "slot": 1, **more,
        }  # fmt: skip
        return PositionOpened(**fields)  # type: ignore[arg-type]


def sale(market: str, quote: str = "SOL") -> Sale:
    trader = desk(market, quote)
    parts = draft(trader.sell(tokens=TOKENS))
    for program in known_programs().programs.values():
        if program.name == market:
            swap = parts.index(str(Pubkey.from_bytes(program.address)))
            layout = program.allowed[parts.instructions[swap].data[:8]].swap
            assert layout is not None
            assert layout.pool is not None
            return Sale(trader, parts, swap, layout.least_out[0], layout.pool)
    raise AssertionError(market)


def market_context(trader: Desk) -> MarketContext:
    venue_context = trader.rig.exchange.market.venue(trader.listing).market_context(
        trader.listing, trader.wallet.pubkey()
    )
    message = {"type": "position_opened", "position_id": 1, "wallet_pubkey": "w", "mint": "m", "token_account": "t",
               "tokens": 1, "entry_quote_units": 1, "slot": 1, "market_context": venue_context}  # fmt: skip
    opened = server_message_from_text(json.dumps(message))
    assert isinstance(opened, PositionOpened)
    assert opened.market_context is not None
    return opened.market_context


# ── the list of thefts ──


@pytest.mark.parametrize("theft", MALICIOUS, ids=lambda theft: theft.name[:60])
def test_guard_with_a_theft_refuses_it_for_what_it_steals(theft: Malicious):
    """Their blockhash is all zeros, which alone is reason enough to refuse them, and no reason here."""
    with pytest.raises(UnsafeTransactionError) as caught:
        theft.check(SigningGuard(**theft.guard))
    rules = broken(caught.value) - {"blockhash"}
    assert rules
    if any(word in theft.name for word in ("for at least", "of at least", "requested sale", "stranger's pool")):
        assert rules & {"price", "pool"}


# ── price ──


@MARKET_CASES
def test_price_at_the_floor_passes_and_one_unit_below_is_refused(market: str, quote: str):
    """Every market's least accepted amount is read; the floor is exact, at the limit and at a slippage asked for."""
    sold = sale(market, quote)
    for known, floor in (
        (TradeContext(announcement=sold.opened(1_000_000)), 500_000),
        (TradeContext(announcement=sold.opened(1_000_000), proceeds_units=800_000), 400_000),
        (TradeContext(announcement=sold.opened(1_000_000), slippage_bps=1_000), 900_000),
    ):
        at, below = (sold.signal(sold.for_at_least(units)) for units in (floor, floor - 1))
        SigningGuard().check(at, wallet=sold.trader.address, context=known)
        error = refusal(below, wallet=sold.trader.address, context=known)
        assert broken(error) == {"price"}
        assert error.offences[0].amount == 1
        report = SigningGuard().explain(below, wallet=sold.trader.address, context=known)
        assert report.broken == ("price",)


@MARKET_CASES
def test_price_of_nothing_is_refused_with_and_without_a_reference(market: str, quote: str):
    """A sale for nothing and a purchase of nothing; one unit passes where nothing is known, and where all is lost."""
    sold = sale(market, quote)
    wallet = sold.trader.address
    for known in (None, TradeContext(), TradeContext(announcement=sold.opened(100))):
        dust = sold.signal(sold.for_at_least(0), profit_units=-100)
        assert "price" in broken(refusal(dust, wallet=wallet, context=known))
        SigningGuard().check(sold.signal(sold.for_at_least(1), profit_units=-100), wallet=wallet, context=known)
    bought = draft(sold.trader.buy())
    program = sold.parts.instructions[sold.swap].program_id
    at = bought.index(str(program))
    data = bought.instructions[at].data
    layout = known_programs().programs[bytes(program)].allowed[data[:8]].swap
    assert layout is not None
    place = layout.least_out[data[24] if len(layout.least_out) > 1 else 0]
    nothing = bought.with_data(at, data[:place] + bytes(8) + data[place + 8 :]).b64()
    order = BuildBuyTxRequest(sold.trader.mint, wallet, 500, amount_in_total=2 * BUDGETS[quote], input=quote)  # type: ignore[arg-type]
    assert broken(refusal(nothing, wallet=wallet, request=order)) == {"price"}
    SigningGuard().check(bought.b64(), wallet=wallet, request=order)


def every_swap() -> list[tuple[str, int]]:
    """Each trade that the list knows, in each of its modes."""
    return [
        (layout.name, mode)
        for program in known_programs().programs.values()
        for layout in program.allowed.values()
        if layout.swap is not None
        for mode in range(len(layout.swap.least_out))
    ]


@pytest.mark.parametrize(("name", "mode"), every_swap())
def test_price_is_read_from_every_layout_that_the_list_knows(name: str, mode: int):
    """The least accepted is where the layout says: zero there is refused, and one there is not for its price."""
    known = known_programs()
    program, prefix, layout = next(
        (program, prefix, layout)
        for program in known.programs.values()
        for prefix, layout in program.allowed.items()
        if layout.name == name
    )
    assert layout.swap is not None
    wallet = desk("pump_fun").wallet.pubkey()
    metas = [AccountMeta(stranger(number), False, True) for number in range(layout.least_accounts)]
    metas[layout.swap.user] = AccountMeta(wallet, True, True)

    def broken_for(least_out: int) -> set[str]:
        data = bytearray(prefix + bytes(max(64, layout.least_bytes)))
        struct.pack_into("<Q", data, layout.swap.most_in[mode], 1_000)  # type: ignore[union-attr]
        struct.pack_into("<Q", data, layout.swap.least_out[mode], least_out)  # type: ignore[union-attr]
        if len(layout.swap.least_out) > 1:  # type: ignore[union-attr]
            data[24] = mode
        swap = Instruction(Pubkey.from_bytes(program.address), bytes(data), metas)
        request = BuildSellTxRequest(str(stranger(1)), str(wallet), 1_000, "SOL", 500)
        return broken(refusal(Draft(wallet, [swap]).b64(), wallet=str(wallet), request=request))

    assert "price" in broken_for(0)
    assert "price" not in broken_for(1)


def test_price_of_a_requested_sale_is_compared_with_the_slippage_of_the_request():
    sold = sale("pump_swap")
    request = BuildSellTxRequest(sold.trader.mint, sold.trader.address, TOKENS // 2, "SOL", 500)
    known = TradeContext(position_tokens=TOKENS, proceeds_units=1_000_000)
    half = draft(sold.trader.sell(tokens=TOKENS // 2))
    part = sold._replace(parts=half)
    # One unit of the part's share may be lost to rounding.
    for units, is_right in ((474_999, True), (474_998, False)):
        tx_b64 = part.for_at_least(units)
        if is_right:
            SigningGuard().check(tx_b64, wallet=sold.trader.address, request=request, context=known)
        else:
            error = refusal(tx_b64, wallet=sold.trader.address, request=request, context=known)
            assert broken(error) == {"price"}


def test_price_limit_of_the_guard_is_the_users():
    sold = sale("pump_fun")
    known = TradeContext(announcement=sold.opened(1_000_000))
    tx = sold.signal(sold.for_at_least(980_000))
    SigningGuard(max_slippage_bps=200).check(tx, wallet=sold.trader.address, context=known)
    assert broken(refusal(tx, SigningGuard(max_slippage_bps=199), wallet=sold.trader.address, context=known)) == {
        "price"
    }
    with pytest.raises(ConfigurationError, match="max_slippage_bps: 10001 is not"):
        SigningGuard(max_slippage_bps=10_001)


# ── pool ──


@MARKET_CASES
def test_pool_that_was_announced_passes_and_every_other_is_refused(market: str, quote: str):
    """By the announcement, else by the signal's or the request's own context."""
    sold = sale(market, quote)
    wallet, context = sold.trader.address, market_context(sold.trader)
    right, wrong = sold.parts.b64(), sold.in_pool(stranger(77))
    opened = TradeContext(announcement=sold.opened(market_context=context))
    request = BuildSellTxRequest(sold.trader.mint, wallet, TOKENS, quote, 500, market_context=context)
    SigningGuard().check(sold.signal(right), wallet=wallet, context=opened)
    SigningGuard().check(sold.signal(right, market_context=context), wallet=wallet)
    SigningGuard().check(right, wallet=wallet, request=request)
    if market == "pump_fun":
        return  # its program takes no account but the one that follows from the token
    for error in (
        refusal(sold.signal(wrong), wallet=wallet, context=opened),
        refusal(sold.signal(wrong, market_context=context), wallet=wallet),
        refusal(wrong, wallet=wallet, request=request),
    ):
        assert broken(error) == {"pool"}
        assert error.account == str(stranger(77))


@MARKET_CASES
def test_pool_of_another_market_than_announced_is_refused(market: str, quote: str):
    sold = sale(market, quote)
    for other in {name for name, _ in MARKETS} - {market}:
        known = TradeContext(announcement=sold.opened(market_context=MarketContext(market_type=other)))
        assert broken(refusal(sold.signal(sold.parts.b64()), wallet=sold.trader.address, context=known)) == {"pool"}
    unknown = TradeContext(announcement=sold.opened(market_context=MarketContext(market_type="tomorrows_market")))
    SigningGuard().check(sold.signal(sold.parts.b64()), wallet=sold.trader.address, context=unknown)


def test_pool_of_a_graduated_coin_is_the_one_that_follows_from_it():
    """Announced on Pump.fun, traded on PumpSwap: in the pool that Pump.fun opens, under either spelling."""
    sold = sale("pump_swap")
    mint = bytes(sold.trader.listing.mint)

    def pool(index: bytes, opener: Pubkey, quote: Pubkey = WRAPPED_SOL_MINT) -> Pubkey:
        seeds = [b"pool", index, bytes(opener), mint, bytes(quote)]
        return Pubkey.find_program_address(seeds, PUMP_SWAP_PROGRAM)[0]

    authority, _ = Pubkey.find_program_address([b"pool-authority", mint], PUMP_FUN_PROGRAM)
    for spelling in ("pump_fun", "pumpfun"):
        known = TradeContext(announcement=sold.opened(market_context=MarketContext(market_type=spelling)))
        graduated = sold.signal(sold.in_pool(pool(b"\0\0", authority)))
        SigningGuard().check(graduated, wallet=sold.trader.address, context=known)
        for theirs in (pool(b"\1\0", authority), pool(b"\0\0", stranger(4)), pool(b"\0\0", authority, USD1_MINT)):
            error = refusal(sold.signal(sold.in_pool(theirs)), wallet=sold.trader.address, context=known)
            assert broken(error) == {"pool"}
    back = TradeContext(announcement=sold.opened(market_context=MarketContext(market_type="raydium_launchpad")))
    assert broken(refusal(graduated, wallet=sold.trader.address, context=back)) == {"pool"}


@pytest.mark.parametrize("market", ["raydium_cpmm", "raydium_launchpad", "meteora_dbc"])
def test_pool_with_another_quote_currency_than_announced_is_refused(market: str):
    sold = sale(market, "USD1")
    context = market_context(sold.trader)
    member = getattr(context, market)
    in_sol = attrs.evolve(context, **{market: attrs.evolve(member, quote_mint=str(WRAPPED_SOL_MINT))})
    known = TradeContext(announcement=sold.opened(market_context=in_sol))
    assert broken(refusal(sold.signal(sold.parts.b64()), wallet=sold.trader.address, context=known)) == {"pool"}


# ── identity ──


def mismatches(sold: Sale) -> Iterator[dict[str, str]]:
    for field in ("wallet_pubkey", "mint", "token_account"):
        yield {field: str(stranger(61))}


def test_announcement_of_another_position_is_refused():
    sold = sale("raydium_cpmm")
    for field in mismatches(sold):
        known = TradeContext(announcement=sold.opened(**field))
        assert broken(refusal(sold.signal(sold.parts.b64()), wallet=sold.trader.address, context=known)) == {
            "announced"
        }


def test_position_that_nobody_announced_is_refused_and_one_of_which_nothing_is_known_passes():
    sold = sale("raydium_cpmm")
    tx = sold.signal(sold.parts.b64())
    error = refusal(tx, wallet=sold.trader.address, context=TradeContext(is_announced=False))
    assert broken(error) == {"announced"}
    assert "sell_unannounced=True" in error.remedy
    for known in (TradeContext(is_announced=True), TradeContext(), None):
        SigningGuard().check(tx, wallet=sold.trader.address, context=known)


@pytest.mark.parametrize("mint", SigningGuard.NEVER_SELL)
def test_currency_that_is_named_as_a_position_is_never_sold(mint: str):
    """By the signal's word, and by the swap's."""
    sold = sale("pump_swap")
    coin, currency = sold.trader.listing.mint, Pubkey.from_string(mint)
    instruction = sold.parts.instructions[sold.swap]
    wallet = sold.trader.wallet.pubkey()
    swapped = {coin: currency, token_address(wallet, coin): token_address(wallet, currency)}
    parts = sold.parts
    for slot, meta in enumerate(instruction.accounts):
        if meta.pubkey in swapped:
            parts = parts.with_account(sold.swap, slot, swapped[meta.pubkey])
    said = sold.signal(parts.b64(), mint=mint, token_account=None)
    assert "never_sell" in broken(refusal(said, wallet=sold.trader.address))
    if mint not in (str(WRAPPED_SOL_MINT), str(USD1_MINT)):  # what is paid with those is a purchase
        assert "never_sell" in broken(refusal(parts.b64(), wallet=sold.trader.address))
        SigningGuard(never_sell=[]).check(parts.b64(), wallet=sold.trader.address)
        SigningGuard().check(parts.b64(), wallet=sold.trader.address, context=TradeContext(never_sell=frozenset()))


def test_never_sell_takes_any_mint_and_refuses_what_is_none():
    sold = sale("pump_fun")
    guard = SigningGuard(never_sell=[sold.trader.mint])
    assert broken(refusal(sold.parts.b64(), guard, wallet=sold.trader.address)) == {"never_sell"}
    with pytest.raises(ConfigurationError, match="never_sell"):
        SigningGuard(never_sell=["not an address"])
