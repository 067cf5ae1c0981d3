"""The guard against the whole request: partner fee, tip, and what is created and funded beside a trade."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import attrs
import pytest
from solders.instruction import AccountMeta, Instruction
from solders.pubkey import Pubkey
from solders.system_program import TransferParams, transfer

from lasersell_sync.exceptions import UnsafeTransactionError
from lasersell_sync.sandbox.chain.addresses import TIP_ACCOUNTS, TOKEN_PROGRAM, USD1_MINT, WRAPPED_SOL_MINT
from lasersell_sync.sandbox.chain.ledger import token_address
from lasersell_sync.sandbox.exchange.orders import PartnerFee
from lasersell_sync.trading.guard import SigningGuard, TradeContext
from lasersell_sync.trading.guard.addresses import token_account
from lasersell_sync.trading.rest.tx_requests import BuildBuyTxRequest, BuildSellTxRequest
from tests.support.market_transactions import MARKETS, Desk, Draft, desk, draft, stranger
from tests.unit.test_guard import CAPPED, MARKET_CASES, buying, pay, selling

PARTNER, THIEF = stranger(7), stranger(8)
SYSTEM = Pubkey.from_string("11111111111111111111111111111111")
TOKEN_2022 = Pubkey.from_string("TokenzQdBNbLqP5VEhdkAS6EPFLC1PHnBqCXEpPxuEb")
ASSOCIATED = Pubkey.from_string("ATokenGPvbdGVxr1b2hvZbsiqW5xWH25efTNsLJA8knL")
CURRENCIES = {"SOL": WRAPPED_SOL_MINT, "USD1": USD1_MINT}
TOKENS = 10**12
Request = BuildSellTxRequest | BuildBuyTxRequest


def broken(tx_b64: str, trader: Desk, request: Request | None, **options: object) -> tuple[str, ...]:
    context = options.pop("context", None)
    guard = SigningGuard(**options)  # type: ignore[arg-type]
    report = guard.explain(tx_b64, wallet=trader.address, request=request, context=context)  # type: ignore[arg-type]
    if report.accepted:
        guard.check(tx_b64, wallet=trader.address, request=request, context=context)  # type: ignore[arg-type]
    else:
        with pytest.raises(UnsafeTransactionError):
            guard.check(tx_b64, wallet=trader.address, request=request, context=context)  # type: ignore[arg-type]
    return report.broken


def associated(owner: Pubkey, mint: Pubkey, program: Pubkey = TOKEN_PROGRAM) -> Pubkey:
    return Pubkey.from_bytes(token_account(bytes(owner), bytes(mint), bytes(program)))


def create(payer: Pubkey, owner: Pubkey, mint: Pubkey, **changes: Pubkey) -> Instruction:
    """As ``associated_token.create_idempotent``; ``changes`` puts other accounts in."""
    program = changes.get("token_program", TOKEN_PROGRAM)
    keys = {"payer": payer, "account": associated(owner, mint), "owner": owner, "mint": mint, "system": SYSTEM,
            "token_program": program, **changes}  # fmt: skip
    metas = [AccountMeta(key, key == payer, number < 2) for number, key in enumerate(keys.values())]
    return Instruction(ASSOCIATED, b"\1", metas)


def send_tokens(owner: Pubkey, mint: Pubkey, to: Pubkey, amount: int, *, checked: bool = True) -> Instruction:
    source = AccountMeta(token_address(owner, mint), False, True)
    authority = AccountMeta(owner, True, False)
    target = AccountMeta(to, False, True)
    if checked:
        metas = [source, AccountMeta(mint, False, False), target, authority]
        return Instruction(TOKEN_PROGRAM, b"\x0c" + struct.pack("<Q", amount) + b"\6", metas)
    return Instruction(TOKEN_PROGRAM, b"\3" + struct.pack("<Q", amount), [source, target, authority])


def asking(request: Request, **changes: object) -> Request:
    return attrs.evolve(request, **changes)  # type: ignore[arg-type]


def trades(trader: Desk, fee: PartnerFee | None = None) -> Iterator[tuple[str, Request]]:
    yield trader.buy(partner_fee=fee), buying(trader)
    yield trader.sell(partner_fee=fee, tokens=TOKENS), selling(trader, TOKENS)


# ── partner fee ──


@MARKET_CASES
@pytest.mark.parametrize("fee", [{"bps": 50}, {"bps": 1}, {"lamports": 1_000}, {"lamports": 50_000_000}])
def test_partner_fee_as_asked_for_passes(market: str, quote: str, fee: dict[str, int]):
    trader = desk(market, quote)
    names = {f"partner_fee_{name}": value for name, value in fee.items()}
    for tx_b64, request in trades(trader, PartnerFee(PARTNER, **fee)):
        asked = asking(request, partner_fee_recipient=str(PARTNER), **names)
        assert broken(tx_b64, trader, asked) == ()


@MARKET_CASES
def test_partner_fee_of_another_amount_than_asked_is_refused(market: str, quote: str):
    """More, less, another's share, nothing, and twice."""
    trader = desk(market, quote)
    recipient = {"partner_fee_recipient": str(PARTNER)}
    for paid, asked in (
        ({"lamports": 1_001}, {"partner_fee_lamports": 1_000}),
        ({"lamports": 999}, {"partner_fee_lamports": 1_000}),
        ({"lamports": 50_000_000}, {"partner_fee_lamports": 1_000}),
        ({"lamports": 1_000}, {"partner_fee_lamports": 0}),
        ({"bps": 50}, {"partner_fee_bps": 40}),
        ({"bps": 2}, {"partner_fee_bps": 1}),
        ({"bps": 50}, {"partner_fee_bps": 0}),
    ):
        for tx_b64, request in trades(trader, PartnerFee(PARTNER, **paid)):
            assert broken(tx_b64, trader, asking(request, **recipient, **asked)) == ("partner_fee",)
    for tx_b64, request in trades(trader):
        asked_1000 = asking(request, **recipient, partner_fee_lamports=1_000)
        assert broken(tx_b64, trader, asked_1000) == ("partner_fee",)
        once = draft(tx_b64).with_more(pay(trader.wallet.pubkey(), PARTNER, 1_000))
        assert broken(once.b64(), trader, asked_1000) == ()
        twice = once.with_more(pay(trader.wallet.pubkey(), PARTNER, 1_000))
        assert broken(twice.b64(), trader, asked_1000) == ("partner_fee",)
        assert broken(twice.b64(), trader, asking(request, **recipient)) == ("partner_fee",)
    (_, _), (sale, request) = trades(trader)
    assert broken(sale, trader, asking(request, **recipient, partner_fee_bps=50)) == ("partner_fee",)


def test_partner_fee_to_another_than_asked_is_refused():
    """Not even the guard's own partner gets what was asked for another one."""
    trader = desk("pump_swap")
    for tx_b64, request in trades(trader, PartnerFee(THIEF, lamports=1_000)):
        asked = asking(request, partner_fee_recipient=str(PARTNER), partner_fee_lamports=1_000)
        assert "destination" in broken(tx_b64, trader, asked)
        assert broken(tx_b64, trader, asked, partner=str(THIEF)) == ("partner_fee",)
        assert broken(tx_b64, trader, None, partner=str(THIEF), **CAPPED) == ()


@pytest.mark.parametrize("market", [market for market, quote in MARKETS if quote == "USD1"])
@pytest.mark.parametrize("checked", [True, False])
def test_partner_fee_as_a_token_transfer_passes_with_the_account_made_for_it(market: str, checked: bool):
    trader = desk(market, "USD1")
    us, theirs = trader.wallet.pubkey(), associated(PARTNER, USD1_MINT)
    tx_b64, request = trader.buy(), buying(trader)
    asked = asking(request, partner_fee_recipient=str(PARTNER), partner_fee_bps=50)
    most = 150 * 10**6 * 105 // 100 * 50 // 10_000 + 1

    def with_fee(amount: int, *more: Instruction, to: Pubkey = theirs, mint: Pubkey = USD1_MINT) -> str:
        return draft(tx_b64).with_more(*more, send_tokens(us, mint, to, amount, checked=checked)).b64()

    made = create(us, PARTNER, USD1_MINT)
    assert broken(with_fee(750_000), trader, asked) == ()
    assert broken(with_fee(750_000, made), trader, asked) == ()
    assert broken(with_fee(750_000, made), trader, None, partner=str(PARTNER), **CAPPED) == ()
    assert broken(with_fee(most + 1), trader, asked) == ("partner_fee",)
    assert broken(with_fee(2**63), trader, asked) == ("partner_fee",)
    assert broken(with_fee(2**63), trader, None, partner=str(PARTNER), **CAPPED) == ("partner_fee",)
    assert broken(with_fee(5, pay(us, PARTNER, 5)), trader, asked) == ("partner_fee",)
    assert broken(with_fee(5, send_tokens(us, USD1_MINT, theirs, 5)), trader, asked) == ("partner_fee",)
    lamports = asking(request, partner_fee_recipient=str(PARTNER), partner_fee_lamports=750_000)
    assert broken(with_fee(750_000), trader, lamports) == ("partner_fee",)
    for to in (associated(THIEF, USD1_MINT), THIEF, PARTNER, associated(PARTNER, trader.listing.mint)):
        assert "token_transfer" in broken(with_fee(5, to=to), trader, asked)
    assert "token_transfer" in broken(with_fee(5), trader, request)
    coin = trader.listing.mint
    assert "token_transfer" in broken(
        draft(tx_b64).with_more(send_tokens(us, coin, associated(PARTNER, coin), 5, checked=checked)).b64(),
        trader,
        asked,
    )
    for wrong in (create(us, PARTNER, coin), create(us, THIEF, USD1_MINT)):
        assert "account_creation" in broken(with_fee(5, wrong), trader, asked)
    assert "account_creation" in broken(with_fee(5, made), trader, request)


def test_partner_fee_in_wrapped_sol_is_compared_like_lamports():
    trader = desk("raydium_cpmm")
    us, theirs = trader.wallet.pubkey(), associated(PARTNER, WRAPPED_SOL_MINT)
    base = draft(trader.sell(tokens=TOKENS))
    # Before the wrapped SOL account is closed.
    close = base.index(str(TOKEN_PROGRAM), b"\x09")

    def with_fee(amount: int, *more: Instruction) -> str:
        fee = [*more, send_tokens(us, WRAPPED_SOL_MINT, theirs, amount)]
        parts = Draft(us, [*base.instructions[:close], *fee, *base.instructions[close:]])
        return parts.b64()

    asked = asking(selling(trader, TOKENS), partner_fee_recipient=str(PARTNER), partner_fee_lamports=1_000)
    assert broken(with_fee(1_000, create(us, PARTNER, WRAPPED_SOL_MINT)), trader, asked) == ()
    assert broken(with_fee(1_001), trader, asked) == ("partner_fee",)
    assert broken(with_fee(1_000, pay(us, PARTNER, 1_000)), trader, asked) == ("partner_fee",)
    assert broken(with_fee(10**9), trader, None, partner=str(PARTNER)) == ("partner_fee",)
    assert broken(with_fee(1_000), trader, None, partner=str(PARTNER)) == ()


# ── tip ──

HELIUS = TIP_ACCOUNTS["helius_sender"][0]


def tipped(trader: Desk, *tips: int) -> str:
    us = trader.wallet.pubkey()
    return draft(trader.sell()).with_more(*(pay(us, HELIUS, tip) for tip in tips)).b64()


@pytest.mark.parametrize(
    ("asked", "send_mode", "tips", "is_fine"),
    [
        (1_000, "rpc", [1_000], True),
        (1_000, None, [1_000], True),
        (1_000, "rpc", [1_001], False),
        (1_000, None, [10_000_000], False),
        (1_000, "helius_sender", [1_000_000], True),
        (1_000, "helius_sender", [1_000_001], False),
        (1_000, "helius_sender", [10_000_000], False),
        (1_000, "helius_sender", [600_000, 600_000], False),
        (1_000, "astralane", [10_000], True),
        (1_000, "astralane", [10_001], False),
        (2_000_000, "helius_sender", [2_000_000], True),
        (2_000_000, "helius_sender", [2_000_001], False),
        (20_000_000, "helius_sender", [20_000_000], True),
        (0, "rpc", [1], False),
        (0, "rpc", [], True),
        (None, "helius_sender", [10_000_000], True),
        (None, "helius_sender", [10_000_001], False),
        (None, None, [5_000_000, 5_000_001], False),
    ],
)
def test_tip_is_at_most_what_was_asked_for_or_the_senders_minimum(
    asked: int | None, send_mode: str | None, tips: list[int], is_fine: bool
):
    trader = desk("raydium_cpmm")
    request = asking(selling(trader), tip_lamports=asked, send_mode=send_mode)
    assert broken(tipped(trader, *tips), trader, request) == (() if is_fine else ("lamports",))


def test_tip_of_the_stream_is_compared_for_signals():
    """What ``configure`` asked for, and the minimum of the sender's own targets."""
    trader = Desk("raydium_cpmm")
    signal, _ = trader.signals("rpc")

    def is_refused(tip: int, **known: int) -> bool:
        us = trader.wallet.pubkey()
        text = draft(signal.unsigned_tx_b64).with_more(pay(us, HELIUS, tip)).b64()
        report = SigningGuard().explain(attrs.evolve(signal, unsigned_tx_b64=text), context=TradeContext(**known))
        assert set(report.broken) <= {"lamports"}
        return not report.accepted

    assert not is_refused(10_000_000)
    assert is_refused(10_000_000, tip_lamports=1_000)
    assert not is_refused(1_000, tip_lamports=1_000)
    assert is_refused(1_001, tip_lamports=1_000)
    assert not is_refused(1_000_000, tip_lamports=1_000, minimum_tip_lamports=1_000_000)
    assert is_refused(1_000_001, tip_lamports=1_000, minimum_tip_lamports=1_000_000)
    assert not is_refused(10_000_000, minimum_tip_lamports=5)


# ── accounts that are created, and lamports beside the trade ──


@MARKET_CASES
def test_associated_account_by_foreign_programs_or_at_a_foreign_address_is_refused(market: str, quote: str):
    trader = desk(market, quote)
    us, coin = trader.wallet.pubkey(), trader.listing.mint
    for tx_b64, request in trades(trader):
        base = draft(tx_b64)
        for fine in (create(us, us, coin), create(us, us, USD1_MINT), create(us, us, WRAPPED_SOL_MINT),
                     create(us, us, coin, token_program=TOKEN_2022, account=associated(us, coin, TOKEN_2022))):  # fmt: skip
            assert broken(base.with_more(fine).b64(), trader, request) == ()
        for wrong in (
            create(us, us, coin, token_program=THIEF, account=associated(us, coin, THIEF)),
            create(us, us, coin, token_program=THIEF),
            create(us, us, coin, token_program=us),
            create(us, us, coin, system=THIEF),
            create(us, us, coin, system=TOKEN_PROGRAM),
            create(us, us, coin, account=THIEF),
            create(us, us, coin, account=associated(THIEF, coin)),
            create(us, us, coin, account=associated(us, USD1_MINT)),
            create(us, us, coin, token_program=TOKEN_2022),
            create(us, us, WRAPPED_SOL_MINT, token_program=TOKEN_2022,
                   account=associated(us, WRAPPED_SOL_MINT, TOKEN_2022)),
            create(us, THIEF, coin),
            create(us, THIEF, coin, account=associated(us, coin)),
        ):  # fmt: skip
            assert "account_creation" in broken(base.with_more(wrong).b64(), trader, request)


@MARKET_CASES
def test_lamports_to_an_account_that_no_program_can_create_are_refused(market: str, quote: str):
    """Wrapped SOL under Token-2022: an address of ours by derivation, and dead."""
    trader = desk(market, quote)
    us = trader.wallet.pubkey()
    dead = associated(us, WRAPPED_SOL_MINT, TOKEN_2022)
    for tx_b64, request in trades(trader):
        for lamports in (1, 10**6, 10**9):
            report = SigningGuard().explain(
                draft(tx_b64).with_more(pay(us, dead, lamports)).b64(), wallet=trader.address, request=request
            )
            assert report.broken == ("destination",)
            assert str(dead) in str(report)


def test_a_purchase_that_takes_lamports_leaves_no_room_for_wrapping_as_much_again():
    """Pump.fun takes them from the wallet itself; elsewhere they are wrapped first."""
    trader = desk("pump_fun")
    us = trader.wallet.pubkey()
    wsol = token_address(us, WRAPPED_SOL_MINT)
    wraps = draft(trader.buy()).with_more(transfer(TransferParams(from_pubkey=us, to_pubkey=wsol, lamports=10**9)))
    assert broken(wraps.b64(), trader, buying(trader)) == ("lamports",)
