"""Trade instructions beyond those that the sandbox builds: real ones, and those of the markets' public interfaces."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from solders.instruction import AccountMeta, Instruction
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from lasersell_sync.exceptions import ConfigurationError, UnsafeTransactionError
from lasersell_sync.sandbox.chain.addresses import TOKEN_PROGRAM, USD1_MINT, WRAPPED_SOL_MINT
from lasersell_sync.sandbox.chain.anchor import discriminator
from lasersell_sync.trading.guard import SigningGuard
from lasersell_sync.trading.guard.addresses import token_account
from lasersell_sync.trading.guard.programs import known_programs
from lasersell_sync.trading.rest.tx_requests import BuildBuyTxRequest, BuildSellTxRequest
from tests.support.market_transactions import COMPUTE_BUDGET, Draft, draft, stranger

REAL = json.loads((Path(__file__).parents[1] / "data" / "guard" / "real_trades.json").read_text())["trades"]
USDC = Pubkey.from_string("EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v")
TOKEN_2022 = Pubkey.from_string("TokenzQdBNbLqP5VEhdkAS6EPFLC1PHnBqCXEpPxuEb")
US = stranger(77)
COIN = stranger(78)
THIEF = stranger(66)
QUOTES = {"SOL": WRAPPED_SOL_MINT, "USD1": USD1_MINT, "USDC": USDC}
PUMP_FUN = "6EF8rrecthR5Dkzon8Nwu78hRvfCKubJ14M5uBEwF6P"
PUMP_SWAP = "pAMMBay6oceH9fJKBRHGP5D4bD4sWpmSwMn52FMfXEA"
CPMM = "CPMMoo8L3F4NbTegBCKVNunggL7H1ZpdTHKxQB5qKP1C"
LAUNCHPAD = "LanMV9sAd7wArD4vJFi2qDdfnVhFxYSUg6eADduJ3uj"
DBC = "dbcij3LWUppWqq96dh6gJWwBifmcGfLSB5D4DuSMaqN"
DAMM = "cpamdpZCGKUy5JxQXB4dcpGPiikHawvSWAd6mEn1sGG"
CAPS = {"max_buy_lamports": 1_000, "max_buy_usd1_units": 1_000}
MOST, LEAST = 1_000, 900


def account(owner: Pubkey, mint: Pubkey, program: Pubkey = TOKEN_PROGRAM) -> Pubkey:
    return Pubkey.from_bytes(token_account(bytes(owner), bytes(mint), bytes(program)))


class Trade(NamedTuple):
    """A trade instruction as a public interface describes it, written here by position and not from the guard's list.

    Attributes:
        accounts: how many, trailing optional ones left out.
        paid: where the account that pays stands; None: lamports.
        got: where the account that is paid stands; None: lamports.
        data: the amounts (most paid, least got) in their order.
        optional: trailing accounts that have been seen.
    """

    program: str
    name: str
    prefix: str
    side: str
    accounts: int
    user: int
    coin: int
    quote: int | None
    paid: int | None
    got: int | None
    data: Callable[[int, int], bytes]
    optional: tuple[int, ...] = ()


def in_out(most: int, least: int) -> bytes:
    return struct.pack("<QQ", most, least)


def out_in(most: int, least: int) -> bytes:
    return struct.pack("<QQ", least, most)


def in_out_fee(most: int, least: int, fee: int = 0) -> bytes:
    """LaunchLab's: behind the amounts stands the rate of a fee for whoever sent the user."""
    return struct.pack("<QQQ", most, least, fee)


def out_in_fee(most: int, least: int, fee: int = 0) -> bytes:
    return struct.pack("<QQQ", least, most, fee)


TRADES = [
    Trade(PUMP_FUN, "buy", "66063d1201daebea", "buy", 16, 6, 2, None, None, 5, out_in, (1, 2)),
    Trade(PUMP_FUN, "buy_exact_sol_in", "38fc74089edfcd5f", "buy", 16, 6, 2, None, None, 5, in_out, (1, 2)),
    Trade(PUMP_FUN, "sell", "33e685a4017f83ad", "sell", 12, 6, 2, None, 5, None, in_out, (2, 4, 5)),
    Trade(PUMP_FUN, "buy_v2", "b817ee6167c5d33d", "buy", 27, 13, 1, 2, 15, 14, out_in),
    Trade(PUMP_FUN, "buy_exact_quote_in_v2", "c2ab1c46684d5b2f", "buy", 27, 13, 1, 2, 15, 14, in_out),
    Trade(PUMP_FUN, "sell_v2", "5df6823ce7e940b2", "sell", 26, 13, 1, 2, 14, 15, in_out),
    Trade(PUMP_FUN, "buy_v3", "07051dc4f5176550", "buy", 17, 8, 1, 2, 10, 9, out_in),
    Trade(PUMP_FUN, "buy_exact_quote_in_v3", "e1f7501ed5b38488", "buy", 17, 8, 1, 2, 10, 9, in_out),
    Trade(PUMP_FUN, "sell_v3", "1c92de7726c469d5", "sell", 17, 8, 1, 2, 9, 10, in_out),
    Trade(PUMP_SWAP, "buy", "66063d1201daebea", "buy", 23, 1, 3, 4, 6, 5, out_in, (3, 4)),
    Trade(PUMP_SWAP, "buy_exact_quote_in", "c62e1552b4d9e870", "buy", 23, 1, 3, 4, 6, 5, in_out, (3, 4)),
    Trade(PUMP_SWAP, "sell", "33e685a4017f83ad", "sell", 21, 1, 3, 4, 5, 6, in_out, (3, 5)),
    Trade(PUMP_SWAP, "buy_v2", "b817ee6167c5d33d", "buy", 17, 1, 3, 4, 6, 5, out_in),
    Trade(PUMP_SWAP, "buy_exact_quote_in_v2", "c2ab1c46684d5b2f", "buy", 17, 1, 3, 4, 6, 5, in_out),
    Trade(PUMP_SWAP, "sell_v2", "5df6823ce7e940b2", "sell", 17, 1, 3, 4, 5, 6, in_out),
    Trade(CPMM, "swap_base_input", "8fbe5adac41e33de", "sell", 13, 0, 10, 11, 4, 5, in_out),
    Trade(CPMM, "swap_base_output", "37d96256a34ab4ad", "sell", 13, 0, 10, 11, 4, 5, in_out),
    Trade(LAUNCHPAD, "buy_exact_in", "faea0d7bd59c13ec", "buy", 15, 0, 9, 10, 6, 5, in_out_fee, (3,)),
    Trade(LAUNCHPAD, "buy_exact_out", "18d3742869039938", "buy", 15, 0, 9, 10, 6, 5, out_in_fee, (3,)),
    Trade(LAUNCHPAD, "sell_exact_in", "9527de9bd37c981a", "sell", 15, 0, 9, 10, 5, 6, in_out_fee, (3,)),
    Trade(LAUNCHPAD, "sell_exact_out", "5fc8472208090ba6", "sell", 15, 0, 9, 10, 5, 6, out_in_fee, (3,)),
    Trade(DBC, "swap", "f8c69e91e17587c8", "sell", 15, 9, 7, 8, 3, 4, in_out, (1,)),
    Trade(DBC, "swap2", "414b3f4ceb5b5b88", "sell", 15, 9, 7, 8, 3, 4, lambda a, b: out_in(a, b) + b"\2", (1,)),
    Trade(DAMM, "swap", "f8c69e91e17587c8", "sell", 14, 8, 6, 7, 2, 3, in_out, (1,)),
    Trade(DAMM, "swap2", "414b3f4ceb5b5b88", "sell", 14, 8, 6, 7, 2, 3, lambda a, b: in_out(a, b) + b"\1", (1,)),
]  # fmt: skip
EACH = pytest.mark.parametrize("trade", TRADES, ids=lambda trade: f"{trade.program[:5]}-{trade.name}")


def instruction(
    trade: Trade, *, against: str = "SOL", most: int = MOST, least: int = LEAST, more: int = 0,
    coin_program: Pubkey = TOKEN_2022, **changes: Pubkey,
) -> Instruction:  # fmt: skip
    """The instruction for ``US``; ``changes`` puts something else at ``user``, ``coin``, ``paid``, …"""
    keys = [stranger(100 + number) for number in range(trade.accounts + more)]
    coins, money = account(US, COIN, coin_program), account(US, QUOTES[against])
    places = {"user": (trade.user, US), "coin": (trade.coin, COIN), "quote": (trade.quote, QUOTES[against])}
    buys = trade.side == "buy"
    places["paid"] = (trade.paid, money if buys else coins)
    places["got"] = (trade.got, coins if buys else money)
    for name, (place, key) in places.items():
        if place is not None:
            keys[place] = changes.get(name, key)
    metas = [AccountMeta(key, key == US, True) for key in keys]
    return Instruction(Pubkey.from_string(trade.program), bytes.fromhex(trade.prefix) + trade.data(most, least), metas)


def transaction(*instructions: Instruction) -> str:
    return Draft(US, list(instructions)).v1_b64()


def request(trade: Trade, quote: str = "SOL", **changes: object) -> BuildSellTxRequest | BuildBuyTxRequest:
    if trade.side == "sell":
        fields: dict[str, object] = {"amount_tokens": MOST, "output": quote, "slippage_bps": 500, **changes}
        return BuildSellTxRequest(str(COIN), str(US), **fields)  # type: ignore[arg-type]
    return BuildBuyTxRequest(str(COIN), str(US), 0, amount_in_total=MOST, input=quote, **changes)  # type: ignore[arg-type]


def broken(tx_b64: str, asked: object = None, **options: object) -> tuple[str, ...]:
    guard = SigningGuard(**options)  # type: ignore[arg-type]
    report = guard.explain(tx_b64, wallet=str(US), request=asked)  # type: ignore[arg-type]
    if report.accepted:
        guard.check(tx_b64, wallet=str(US), request=asked)  # type: ignore[arg-type]
    else:
        with pytest.raises(UnsafeTransactionError):
            guard.check(tx_b64, wallet=str(US), request=asked)  # type: ignore[arg-type]
    return report.broken


# ── real ones ──


@pytest.mark.parametrize("name", REAL)
def test_real_trade_of_the_main_net_passes(name: str):
    trade = REAL[name]
    caps = {"max_buy_lamports": 10**12, "max_buy_usd1_units": 10**12} if trade["side"] == "buy" else {}
    guard = SigningGuard(**caps)  # type: ignore[arg-type]
    guard.check(trade["base64"], wallet=trade["wallet"])
    report = guard.explain(trade["base64"], wallet=trade["wallet"])
    assert report.accepted, report
    line = next(line for line in report.lines if "pump" in line)
    assert trade["mint"] in line
    assert ("lamports, gets at least" in line) == (trade["side"] == "buy")


@pytest.mark.parametrize("name", REAL)
def test_real_trade_signed_by_another_wallet_or_over_its_cap_is_refused(name: str):
    trade = REAL[name]
    with pytest.raises(UnsafeTransactionError):
        SigningGuard(max_buy_lamports=10**12).check(trade["base64"], wallet=str(US))
    if trade["side"] == "buy":
        with pytest.raises(UnsafeTransactionError):
            SigningGuard(max_buy_lamports=1_000).check(trade["base64"], wallet=trade["wallet"])


@pytest.mark.parametrize("name", REAL)
def test_real_trade_with_any_account_of_the_wallet_exchanged_is_refused(name: str):
    """Wherever the wallet or its token account stands in the market's instruction, a thief's is refused."""
    trade = REAL[name]
    parts = draft(trade["base64"])
    swap = parts.index(PUMP_SWAP if "PumpSwap" in name else PUMP_FUN)
    mint = Pubkey.from_string(trade["mint"])
    ours = {parts.payer, *(account(parts.payer, mint, program) for program in (TOKEN_PROGRAM, TOKEN_2022)),
            account(parts.payer, WRAPPED_SOL_MINT)}  # fmt: skip
    guard = SigningGuard(max_buy_lamports=10**12)
    places = [n for n, meta in enumerate(parts.instructions[swap].accounts) if meta.pubkey in ours]
    assert len(places) >= 2
    for place in places:
        with pytest.raises(UnsafeTransactionError) as caught:
            guard.check(parts.with_account(swap, place, THIEF).b64(), wallet=trade["wallet"])
        assert "own_account" in {offence.rule for offence in caught.value.offences}


# ── every plain trade of the public interfaces ──


@EACH
def test_trade_instruction_of_a_public_interface_passes(trade: Trade):
    """With as many optional accounts behind it as have been seen, for coins of both token programs."""
    for more in (0, *trade.optional):
        for program in (TOKEN_PROGRAM, TOKEN_2022):
            text = transaction(instruction(trade, more=more, coin_program=program))
            assert broken(text, request(trade)) == ()
            assert broken(text, None, **CAPS) == ()


def test_trade_instructions_are_all_that_the_list_has():
    """No layout is packaged that is not tested here."""
    known = {
        (str(Pubkey.from_bytes(address)), layout.name.partition(".")[2])
        for address, program in known_programs().programs.items()
        for layout in program.allowed.values()
        if layout.swap is not None
    }
    here = {(trade.program, trade.name) for trade in TRADES}
    assert known == here
    for trade in TRADES:
        assert discriminator(trade.name).hex() == trade.prefix


@pytest.mark.parametrize(
    "trade", [trade for trade in TRADES if trade.program == LAUNCHPAD], ids=lambda trade: trade.name
)
def test_launchlab_trade_with_a_fee_for_a_third_party_is_refused(trade: Trade):
    good = instruction(trade)
    paying = bytes.fromhex(trade.prefix) + (in_out_fee if trade.data is in_out_fee else out_in_fee)(MOST, LEAST, 1)
    assert broken(transaction(Instruction(good.program_id, paying, good.accounts)), request(trade)) != ()
    assert broken(transaction(good), request(trade)) == ()


def mutants(trade: Trade) -> Iterator[tuple[str, str, Instruction]]:
    """(rule, what, instruction): at least twelve for each trade."""
    buys = trade.side == "buy"
    for thief in (THIEF, account(THIEF, COIN), account(US, stranger(5)), COIN):
        yield "own_account", "trades for another", instruction(trade, user=thief)
        if trade.got is not None:
            yield "own_account", "pays another", instruction(trade, got=thief)
        if trade.paid is not None:
            yield "own_account", "takes from another", instruction(trade, paid=thief)
    for mint in (stranger(6), USDC, USD1_MINT):
        yield "mint", "another token", instruction(trade, coin=mint)
    for more in (1, 2**32, 2**63):
        yield "spend" if buys else "amount", f"{more} more", instruction(trade, most=MOST + more)
    yield "price", "for nothing", instruction(trade, least=0)
    if trade.quote is not None:
        for mint in (USDC, stranger(9)):
            yield "mint", "another quote", instruction(trade, quote=mint)
    good = instruction(trade)
    yield "instruction", "cut short", Instruction(good.program_id, bytes(good.data)[:20], good.accounts)
    few = max(place for place in (trade.user, trade.coin, trade.quote, trade.paid, trade.got) if place is not None)
    yield "instruction", "too few accounts", Instruction(good.program_id, good.data, good.accounts[:few])
    yield "instruction", "unknown", Instruction(good.program_id, b"\1" + bytes(good.data)[1:], good.accounts)


@EACH
def test_every_mutant_of_a_trade_instruction_is_refused_by_its_rule(trade: Trade):
    found = list(mutants(trade))
    assert len(found) >= 12
    for rule, what, item in found:
        got = broken(transaction(item), request(trade))
        # Where a program goes either way, an exchanged account or mint may turn the trade round.
        allowed = {rule, "side", "spend", "mint"} if trade.program in (DBC, DAMM) else {rule}
        allowed |= {"spend", "side"} if rule == "mint" else set()
        assert allowed & set(got), f"{what}: {got}"


@EACH
def test_trade_of_two_instructions_adds_up(trade: Trade):
    both = transaction(instruction(trade), instruction(trade, most=1))
    assert broken(both, request(trade)) == ("spend" if trade.side == "buy" else "amount",)


# ── USDC ──


@EACH
def test_usdc_quote_needs_the_option_and_a_cap(trade: Trade):
    if trade.quote is None:
        return
    text = transaction(instruction(trade, against="USDC"))
    assert broken(text, None, **CAPS)
    options: dict[str, object] = {"usdc_quotes": True}
    if trade.side == "sell":
        assert broken(text, None, **options) == ()
        assert broken(text, request(trade, "SOL"), **options) == ("output",)
    else:
        assert broken(text, None, **options) == ("spend",)
        assert broken(text, None, **options, max_buy_usdc_units=MOST - 1) == ("spend",)
        assert broken(text, None, **options, max_buy_usdc_units=MOST) == ()
        assert "spend" in broken(text, request(trade, "SOL"), **options, max_buy_usdc_units=MOST)
    assert "own_account" in broken(
        transaction(instruction(trade, against="USDC", paid=THIEF, got=THIEF)), None, **options, max_buy_usdc_units=MOST
    )


def test_usdc_refusal_names_the_option():
    trade = next(trade for trade in TRADES if trade.name == "sell_v2")
    with pytest.raises(UnsafeTransactionError, match="usdc_quotes=True"):
        SigningGuard().check(transaction(instruction(trade, against="USDC")), wallet=str(US))


# ── two hops ──

SALE = next(trade for trade in TRADES if trade.name == "swap_base_input")


def hop(most: int = LEAST, least: int = 90, **changes: Pubkey) -> Instruction:
    """SOL into USD1 on the same market: at 100 USD1 a SOL, 900 lamports are 90 units."""
    keys = {"user": US, "coin": WRAPPED_SOL_MINT, "quote": USD1_MINT, "paid": account(US, WRAPPED_SOL_MINT),
            "got": account(US, USD1_MINT), **changes}  # fmt: skip
    return instruction(SALE, most=most, least=least, **keys)


def test_second_hop_needs_a_rate_and_keeps_it():
    both = transaction(instruction(SALE), hop())
    asked = request(SALE, "USD1")
    assert broken(both, asked) == ("exchange",)
    for rate in (0.1, 99.9, 100.0, 100):
        assert broken(both, asked, min_usd1_per_sol=rate) == ()
    assert broken(both, asked, min_usd1_per_sol=100.1) == ("exchange",)
    assert broken(both, request(SALE, "SOL"), min_usd1_per_sol=100.0) == ("output",)
    assert broken(transaction(instruction(SALE)), asked, min_usd1_per_sol=100.0) == ("output",)
    with pytest.raises(UnsafeTransactionError, match="min_usd1_per_sol"):
        SigningGuard().check(both, wallet=str(US), request=asked)


@pytest.mark.parametrize(
    ("rule", "instructions"),
    [
        ("mint", [hop()]),
        ("spend", [hop(), instruction(SALE)]),
        ("spend", [instruction(SALE), hop(most=LEAST + 1, least=91)]),
        ("spend", [instruction(SALE), hop(), hop()]),
        ("spend", [instruction(SALE), hop(most=2**63, least=2**63)]),
        ("exchange", [instruction(SALE), hop(least=89)]),
        ("exchange", [instruction(SALE), hop(least=1)]),
        ("price", [instruction(SALE), hop(least=0)]),
        ("own_account", [instruction(SALE), hop(got=THIEF)]),
        ("own_account", [instruction(SALE), hop(got=account(THIEF, USD1_MINT))]),
        ("own_account", [instruction(SALE), hop(paid=THIEF)]),
        ("own_account", [instruction(SALE), hop(user=THIEF)]),
        ("exchange", [instruction(SALE), hop(coin=USD1_MINT, quote=WRAPPED_SOL_MINT)]),
        ("mint", [instruction(SALE), hop(quote=USDC, got=account(US, USDC))]),
    ],
)
def test_second_hop_that_is_not_plain_is_refused(rule: str, instructions: list[Instruction]):
    got = broken(transaction(*instructions), request(SALE, "USD1"), min_usd1_per_sol=100.0)
    assert rule in got, got


def test_purchase_through_a_hop_is_refused():
    """Nobody said how many USD1 a SOL must bring there."""
    buy = next(trade for trade in TRADES if trade.name == "buy_exact_in")
    both = transaction(hop(most=MOST, least=100), instruction(buy, against="USD1", most=100))
    assert "exchange" in broken(both, request(buy, "SOL"), min_usd1_per_sol=100.0, max_buy_usd1_units=10**6)


# ── the currency that was asked for ──


@EACH
def test_sale_that_pays_another_currency_than_asked_is_refused(trade: Trade):
    if trade.side == "buy":
        return
    assert broken(transaction(instruction(trade)), request(trade, "USD1")) == ("output",)
    if trade.quote is not None:
        assert broken(transaction(instruction(trade, against="USD1")), request(trade, "SOL")) == ("output",)
        assert broken(transaction(instruction(trade, against="USD1")), request(trade, "USD1")) == ()


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"usdc_quotes": 1}, "usdc_quotes"),
        ({"max_buy_usdc_units": 5}, "max_buy_usdc_units"),
        ({"usdc_quotes": True, "max_buy_usdc_units": -1}, "max_buy_usdc_units"),
        ({"min_usd1_per_sol": 0}, "min_usd1_per_sol"),
        ({"min_usd1_per_sol": -1.0}, "min_usd1_per_sol"),
        ({"min_usd1_per_sol": float("nan")}, "min_usd1_per_sol"),
        ({"min_usd1_per_sol": float("inf")}, "min_usd1_per_sol"),
        ({"min_usd1_per_sol": True}, "min_usd1_per_sol"),
        ({"min_usd1_per_sol": "100"}, "min_usd1_per_sol"),
    ],
)
def test_wrong_currency_options_are_named(options: dict[str, object], field: str):
    with pytest.raises(ConfigurationError) as caught:
        SigningGuard(**options)  # type: ignore[arg-type]
    assert caught.value.field == field


def test_the_transactions_here_are_sound():
    raw = base64.b64decode(transaction(instruction(TRADES[0])))
    assert VersionedTransaction.from_bytes(raw).message.account_keys[0] == US
    assert COMPUTE_BUDGET not in VersionedTransaction.from_bytes(raw).message.account_keys
