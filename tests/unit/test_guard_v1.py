"""The signing guard on version 1 transactions: they pass and are refused as those of version 0 are."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import attrs
import pytest
from solders.compute_budget import set_compute_unit_limit, set_compute_unit_price
from solders.hash import Hash
from solders.instruction import Instruction
from solders.message import MessageV1, TransactionConfig
from solders.pubkey import Pubkey

from lasersell_sync.exceptions import UnsafeTransactionError
from lasersell_sync.trading.guard import SigningGuard, TradeContext
from lasersell_sync.trading.guard.rules import RULES
from lasersell_sync.trading.keys.signer import Signer
from lasersell_sync.trading.rest.tx_requests import BuildBuyTxRequest, BuildSellTxRequest
from tests.support.market_transactions import BLOCKHASH, MARKETS, SEND_MODES, V1_LIMITS, Desk, blank, desk, draft
from tests.unit.test_guard import (
    CAPPED,
    NEED_A_NODE,
    NEED_A_PARTNER,
    NEED_A_POSITION,
    NEED_TWO_CURRENCIES,
    bases,
    buying,
    mutations,
    other_requests,
    selling,
)

#: A version 1 transaction has no look-up tables, and does not obey Compute Budget instructions.
NOT_IN_V1 = {"lookup_table", "priority_fee", "compute_budget", "encoding"}
Request = BuildSellTxRequest | BuildBuyTxRequest


def limits(**changes: int | None) -> TransactionConfig:
    values: dict[str, int | None] = {
        name: getattr(V1_LIMITS, name)
        for name in ("priority_fee", "compute_unit_limit", "loaded_accounts_data_size_limit", "heap_size")
    }
    return TransactionConfig(**{**values, **changes})  # type: ignore[arg-type]


def refusal(
    tx_b64: str, trader: Desk, request: Request | None, guard: SigningGuard | None = None
) -> UnsafeTransactionError:
    with pytest.raises(UnsafeTransactionError) as caught:
        (guard or SigningGuard()).check(tx_b64, wallet=trader.address, request=request)
    return caught.value


@pytest.mark.parametrize(("market", "quote"), MARKETS, ids=lambda value: value)
@pytest.mark.parametrize("send_mode", SEND_MODES)
def test_v1_trade_of_every_market_passes(market: str, quote: str, send_mode: str):
    trader = desk(market, quote)
    for tx_b64, request in ((trader.buy(send_mode), buying(trader)), (trader.sell(send_mode), selling(trader))):
        v1 = draft(tx_b64).v1_b64()
        checked = SigningGuard().check(v1, wallet=trader.address, request=request)
        assert checked.raw == base64.b64decode(v1)
        SigningGuard(**CAPPED).check(v1, wallet=trader.address)
        assert "version 1: 10000 lamports of priority fee" in str(SigningGuard().explain(v1, request=request))


def test_v1_trade_is_signed_by_the_signer():
    trader = desk("pump_fun")
    signed = Signer.from_keypair(trader.wallet).sign(draft(trader.sell()).v1_b64(), request=selling(trader))
    raw = base64.b64decode(signed)
    assert raw[0] == 0x81
    assert any(raw[-64:])


def test_v1_every_mutant_is_refused_by_its_rule():
    """The same changes as in test_guard.py, in version 1."""
    counted: dict[str, int] = {}
    for name, trader, base, request in bases():
        market, _, side = name.partition("-")
        mutants = [
            (rule, what, parts.v1_b64(), request)
            for rule, what, parts, _ in mutations(trader, base, market, buys=side == "buy")
        ]
        more = other_requests(trader, base.v1_b64(), buys=side == "buy")
        mutants += [(case.rule, case.name, case.tx_b64, case.request) for case in more]  # type: ignore[misc]
        mutants.append(("blockhash", "zeros", base.v1_b64(blockhash=Hash.default()), request))
        for rule, what, tx_b64, asked in mutants:
            if rule in NOT_IN_V1:
                continue
            counted[rule] = counted.get(rule, 0) + 1
            report = SigningGuard().explain(tx_b64, wallet=trader.address, request=asked)
            assert rule in report.broken, f"{name}: {what}: {report}"
            refusal(tx_b64, trader, asked)
    elsewhere = NOT_IN_V1 | NEED_A_POSITION | NEED_A_NODE | NEED_TWO_CURRENCIES | NEED_A_PARTNER
    assert set(counted) == {rule.name for rule in RULES} - elsewhere
    assert min(counted.values()) >= 12, counted


def bad_limits() -> Iterator[tuple[str, str, TransactionConfig]]:
    for fee in (5_000_001, 10**9, 2**63, 2**64 - 1):
        yield "priority_fee", f"fee {fee}", limits(priority_fee=fee)
    for units in (None, 0, 1, 9_999):
        yield "compute_budget", f"units {units}", limits(compute_unit_limit=units)
    for size in (0, 1, 65_535):
        yield "compute_budget", f"accounts {size}", limits(loaded_accounts_data_size_limit=size)
    for size in (31 * 1024, 33_000, 257 * 1024):
        yield "compute_budget", f"heap {size}", limits(heap_size=size)


@pytest.mark.parametrize("market", [market for market, quote in MARKETS if quote == "SOL"])
def test_v1_limits_that_cost_too_much_or_make_it_fail_are_refused(market: str):
    """Four and ten for each of six markets."""
    trader = desk(market)
    parts = draft(trader.sell())
    for rule, what, config in bad_limits():
        report = SigningGuard().explain(parts.v1_b64(config), wallet=trader.address, request=selling(trader))
        # A heap that is no multiple of 1,024 is not even a transaction.
        assert report.broken in {(rule,), ("encoding",)}, f"{what}: {report}"
        assert (report.broken == ("encoding",)) == (config.heap_size in (33_000, 31 * 1024, 257 * 1024)), what
        refusal(parts.v1_b64(config), trader, selling(trader))


def test_v1_priority_fee_is_a_total_and_no_price():
    """5,000,000 is the cap in lamports, whatever the unit limit; set to nothing, it is nothing."""
    trader = desk("pump_fun")
    parts = draft(trader.sell())
    for config in (limits(priority_fee=5_000_000, compute_unit_limit=1_400_000), limits(priority_fee=None)):
        SigningGuard().check(parts.v1_b64(config), wallet=trader.address, request=selling(trader))


def test_v1_compute_budget_instructions_decide_nothing():
    """The network ignores them: a dear one costs nothing, and two of them do not contradict each other."""
    trader = desk("pump_fun")
    parts = draft(trader.sell())
    instructions = [set_compute_unit_price(2**63), set_compute_unit_limit(1), set_compute_unit_limit(1)]
    kept = [
        item for item in parts.instructions if str(item.program_id) != "ComputeBudget111111111111111111111111111111"
    ]
    message = MessageV1.try_compile(parts.payer, [*instructions, *kept], BLOCKHASH, V1_LIMITS)
    SigningGuard().check(blank(message), wallet=trader.address, request=selling(trader))


def test_v1_size_limit_is_4096_bytes():
    """A transaction that would not fit into a packet passes, and one beyond the limit does not."""
    trader = desk("pump_fun")
    parts = draft(trader.sell())
    memo = "MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr"
    guard = SigningGuard(allow={memo: ["*"]})

    def padded(size: int) -> str:
        return parts.with_more(Instruction(Pubkey.from_string(memo), bytes(size), [])).v1_b64()

    room = 4_096 - len(base64.b64decode(padded(1))) + 1
    guard.check(padded(room), wallet=trader.address, request=selling(trader))
    error = refusal(padded(room + 1), trader, selling(trader), guard)
    assert (error.rule, "4096 at most" in error.problem) == ("encoding", True)


def test_v1_text_alone_without_a_blockhash_can_be_judged_and_not_signed():
    trader = desk("pump_fun")
    text = draft(trader.sell()).v1_b64(blockhash=Hash.default())
    SigningGuard().check(text, wallet=trader.address)
    with pytest.raises(UnsafeTransactionError) as caught:
        Signer.from_keypair(trader.wallet).sign(text)
    assert caught.value.rule == "blockhash"


# ── the fee of an exit ──


@pytest.mark.parametrize("version", [0, 1])
def test_priority_fee_of_an_exit_may_reach_one_percent_of_its_price(version: int):
    """Above the cap where the price allows it: 1 % of 1 SOL is 10,000,000 lamports; of half the position, half of that."""
    trader = Desk("raydium_cpmm")
    signal, _ = trader.signals("rpc")
    parts = draft(signal.unsigned_tx_b64)
    tokens = signal.position_tokens

    def with_fee(lamports: int) -> str:
        if version:
            return parts.v1_b64(limits(priority_fee=lamports))
        program = "ComputeBudget111111111111111111111111111111"
        units = 200_000
        priced = parts.with_data(parts.index(program, b"\x02"), bytes(set_compute_unit_limit(units).data))
        price = lamports * 1_000_000 // units
        return priced.with_data(parts.index(program, b"\x03"), bytes(set_compute_unit_price(price).data)).b64()

    def broken(lamports: int, proceeds: int | None, said: int = tokens) -> bool:
        context = TradeContext(proceeds_units=proceeds, position_tokens=said)
        fitting = attrs.evolve(signal, unsigned_tx_b64=with_fee(lamports), position_tokens=said)
        report = SigningGuard().explain(fitting, wallet=trader.address, context=context)
        return "priority_fee" in report.broken

    assert not broken(5_000_000, None)
    assert broken(5_000_010, None)
    assert not broken(10_000_000, 10**9)
    assert broken(10_000_010, 10**9)
    assert broken(5_000_010, 10**7)
    assert broken(10_000_000, 10**9, tokens * 2)
    buy = draft(trader.buy())
    report = SigningGuard(**CAPPED).explain(
        buy.v1_b64(limits(priority_fee=5_000_001)), request=buying(trader), context=TradeContext(proceeds_units=10**12)
    )
    assert "priority_fee" in report.broken


def test_blockhash_of_zeros_is_refused_for_signals_and_requests():
    trader = Desk("pump_fun")
    signal, _ = trader.signals("rpc")
    parts = draft(signal.unsigned_tx_b64)
    spoiled = blank(parts.message(blockhash=Hash.default()))
    report = SigningGuard().explain(attrs.evolve(signal, unsigned_tx_b64=spoiled))
    assert report.broken == ("blockhash",)
    with pytest.raises(UnsafeTransactionError):
        Signer.from_keypair(trader.wallet).sign(attrs.evolve(signal, unsigned_tx_b64=spoiled))
    with pytest.raises(UnsafeTransactionError):
        Signer.from_keypair(trader.wallet).sign(spoiled)
