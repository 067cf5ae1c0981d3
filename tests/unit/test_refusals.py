"""Refused exits: listed, decided once, journalled; prices below the floor; report mode; budgets; the unannounced."""

from __future__ import annotations

import struct
import time
from typing import Any

import attrs
import pytest
from solders.compute_budget import set_compute_unit_price
from solders.instruction import AccountMeta, Instruction
from solders.pubkey import Pubkey
from solders.system_program import TransferParams, transfer

from lasersell_sync.autosell.exit_key import ExitKey
from lasersell_sync.autosell.journal import Journal, Spending
from lasersell_sync.autosell.reports import Permission
from lasersell_sync.autosell.services import PositionFacts, SellPolicy, SellTerms
from lasersell_sync.autosell.signing_gate import HourlyBudgets, HourlyLimits
from lasersell_sync.exceptions import BrokenRule, ConfigurationError, UnsafeTransactionError
from lasersell_sync.messages import ExitSignalWithTx, PositionOpened
from lasersell_sync.sandbox.chain.addresses import TOKEN_PROGRAM
from lasersell_sync.trading.guard import SigningGuard
from lasersell_sync.trading.guard.money import Costs
from lasersell_sync.trading.sending.outcome import SellOutcome
from tests.support.market_transactions import draft, stranger
from tests.support.selling import Rig, on_another_block

CONFIRMED, REJECTED, EXPIRED = SellOutcome.CONFIRMED, SellOutcome.REJECTED, SellOutcome.EXPIRED
MEMO = Pubkey.from_string("MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr")


def paying(tx_b64: str, *payments: tuple[Pubkey, int]) -> str:
    """The sale, and lamports to these."""
    taken = draft(tx_b64)
    more = [transfer(TransferParams(from_pubkey=taken.payer, to_pubkey=to, lamports=much)) for to, much in payments]
    return on_another_block(taken.with_more(*more).b64())


def calling(tx_b64: str, *more: Instruction) -> str:
    return on_another_block(draft(tx_b64).with_more(*more).b64())


def approve(tx_b64: str) -> str:
    """A delegate for our tokens: what no sale needs."""
    payer = draft(tx_b64).payer
    metas = [AccountMeta(payer, True, True), AccountMeta(stranger(), False, True), AccountMeta(payer, True, False)]
    return calling(tx_b64, Instruction(TOKEN_PROGRAM, b"\x04" + bytes(8), metas))


def announced(rig: Rig, entry: int = 100, **more: Any) -> PositionOpened:
    signal = rig.signal
    assert signal.token_account is not None
    fields = {
        "position_id": signal.position_id, "wallet_pubkey": signal.wallet_pubkey, "mint": signal.mint,
        "token_account": signal.token_account, "tokens": signal.position_tokens, "entry_quote_units": entry, "slot": 5,
    }  # fmt: skip
    return PositionOpened(**{**fields, **more})  # type: ignore[arg-type]


def opened_rig(entry: int = 100, **options: Any) -> Rig:
    rig = Rig(**options)
    rig.opened(entry, announcement=announced(rig, entry))
    return rig


def signal(rig: Rig, tx_b64: str, **more: Any) -> ExitSignalWithTx:
    return rig.exit(attrs.evolve(rig.signal, unsigned_tx_b64=tx_b64, **more))


def refused_keys(rig: Rig) -> list[ExitKey]:
    return [refusal.key for refusal in rig.gate.refusals.all() if refusal.key is not None]


def allow(rig: Rig, key: ExitKey) -> None:
    rig.gate.refusals.allow_once(key)
    rig.do(lambda: rig.position.allowed(key))


def steps(rig: Rig, part: str = "whole") -> list[str]:
    record = rig.journal.find(rig.key(part))
    assert record is not None
    return [step.step for step in rig.journal.steps(record.id)]


# ── listed, and decided once ──


def test_refused_exit_is_listed_reported_and_sold_once_it_is_allowed():
    rig = opened_rig()
    signal(rig, paying(rig.signal.unsigned_tx_b64, (stranger(), 777)))
    (refusal,) = rig.gate.refusals.all()
    assert rig.refusals == [refusal]
    assert (refusal.key, refusal.can_be_allowed, refusal.was_signed) == (rig.key(), True, False)
    assert [(each.rule, each.account, each.amount) for each in refusal.error.offences] == [
        ("destination", str(stranger()), 777)
    ]
    assert rig.outcomes == [("whole", REJECTED)]
    allow(rig, rig.key())
    assert len(rig.sender.sent) == 1
    assert rig.stream.asked == []  # the refused transaction was young enough
    rig.settle(CONFIRMED)
    assert rig.outcomes == [("whole", REJECTED), ("whole", CONFIRMED)]
    assert rig.gate.refusals.all() == []
    assert [step for step in steps(rig) if step in ("refused", "allowed", "signed")] == ["refused", "allowed", "signed"]


def test_allowed_exit_whose_transaction_is_too_old_asks_for_a_fresh_one():
    rig = opened_rig()
    rig.stream.clock_ms = rig.signal.triggered_at_ms + 1_000.0
    signal(rig, paying(rig.signal.unsigned_tx_b64, (stranger(), 777)))
    rig.stream.clock_ms = rig.signal.triggered_at_ms + 11_000.0
    allow(rig, rig.key())
    assert (rig.sender.sent, len(rig.stream.asked)) == ([], 1)
    signal(rig, paying(rig.signal.unsigned_tx_b64, (stranger(), 776)))
    assert len(rig.sender.sent) == 1


@pytest.mark.parametrize(
    "payments",
    [[(stranger(), 778)], [(stranger(1), 1)], [(stranger(), 777), (stranger(1), 1)], [(stranger(), 1), (stranger(), 778)]],
    ids=["more lamports", "another account", "a second account", "a second payment"],
)  # fmt: skip
def test_allowed_exit_with_a_worse_transaction_is_refused_again_and_the_permission_is_gone(payments: Any):
    rig = opened_rig()
    tx = rig.signal.unsigned_tx_b64
    signal(rig, paying(tx, (stranger(), 777)))
    rig.stream.clock_ms = rig.signal.triggered_at_ms + 11_000.0
    allow(rig, rig.key())
    signal(rig, paying(tx, *payments))
    assert rig.sender.sent == []
    rig.stream.clock_ms = None
    signal(rig, paying(tx, (stranger(), 777)))
    assert rig.sender.sent == []
    assert [report.outcome for report in rig.reports] == [REJECTED] * 3


def test_permission_does_not_outlive_one_transaction():
    """It is used up by the next one, though that one needs no permission."""
    rig = opened_rig()
    tx = rig.signal.unsigned_tx_b64
    signal(rig, paying(tx, (stranger(), 777)))
    rig.stream.clock_ms = rig.signal.triggered_at_ms + 11_000.0
    allow(rig, rig.key())
    rig.exit()
    assert len(rig.sender.sent) == 1
    rig.settle(SellOutcome.FAILED_ONCHAIN)
    signal(rig, paying(tx, (stranger(), 777)))
    assert len(rig.sender.sent) == 1
    assert rig.outcomes == [("whole", REJECTED), ("whole", REJECTED)]


def test_permission_of_one_exit_is_of_no_use_to_another():
    rig = opened_rig(with_api=True)
    tx = rig.signal.unsigned_tx_b64
    signal(rig, paying(tx, (stranger(), 777)))
    rig.gate.refusals.allow_once(rig.key())
    signal(rig, paying(rig.signal.unsigned_tx_b64, (stranger(), 777)), level_index=1, sell_tokens=10**9)
    assert rig.sender.sent == []


def test_permission_beside_a_live_transaction_is_not_used():
    """An overlapping second transaction is judged by the guard alone."""
    rig = opened_rig(policy=SellPolicy(overlap_full_exit=True, overlap_after_s=1.0))
    tx = rig.signal.unsigned_tx_b64
    signal(rig, paying(tx, (stranger(), 777)))
    rig.exit()
    assert len(rig.sender.sent) == 1
    rig.gate.refusals.add(rig.refusals[0])
    rig.gate.refusals.allow_once(rig.key())
    rig.lines.advance(2.0)
    signal(rig, paying(tx, (stranger(), 777)))
    assert len(rig.sender.sent) == 1


def test_what_no_sale_needs_is_never_allowed():
    rig = opened_rig()
    signal(rig, approve(rig.signal.unsigned_tx_b64))
    (refusal,) = rig.gate.refusals.all()
    assert not refusal.can_be_allowed
    with pytest.raises(ConfigurationError, match="no sale needs"):
        rig.gate.refusals.allow_once(rig.key())
    # Nor does a permission for something else carry it along.
    rig.gate.refusals.drop(rig.key())
    signal(rig, paying(rig.signal.unsigned_tx_b64, (stranger(), 777)))
    rig.stream.clock_ms = rig.signal.triggered_at_ms + 11_000.0
    allow(rig, rig.key())
    signal(rig, approve(paying(rig.signal.unsigned_tx_b64, (stranger(), 777))))
    assert rig.sender.sent == []


def test_garbage_and_unknown_keys_are_not_allowed():
    rig = opened_rig()
    signal(rig, "bm90IGEgdHJhbnNhY3Rpb24=")
    with pytest.raises(ConfigurationError):
        rig.gate.refusals.allow_once(rig.key())
    with pytest.raises(ConfigurationError, match="is not refused"):
        rig.gate.refusals.allow_once(rig.key("level 3"))


def test_permission_for_a_program_is_for_the_accounts_that_it_was_given():
    """An unknown program, with the same first bytes: other accounts are another matter."""
    metas = [AccountMeta(stranger(number), False, True) for number in range(2)]
    known, fewer, other = (
        Instruction(MEMO, b"\x01" * 8, accounts)
        for accounts in (metas, metas[:1], [*metas, AccountMeta(stranger(9), False, True)])
    )
    for call, is_signed in ((fewer, True), (other, False), (Instruction(MEMO, b"\x02" * 8, metas), False)):
        rig = opened_rig()
        signal(rig, calling(rig.signal.unsigned_tx_b64, known))
        rig.stream.clock_ms = rig.signal.triggered_at_ms + 11_000.0
        allow(rig, rig.key())
        signal(rig, calling(rig.signal.unsigned_tx_b64, call))
        assert len(rig.sender.sent) == is_signed


def test_refused_exit_is_no_longer_listed_when_it_is_over():
    """Closed, opened anew, or sold by a better transaction."""
    for end in ("closed", "opened", "sold"):
        rig = opened_rig()
        signal(rig, paying(rig.signal.unsigned_tx_b64, (stranger(), 777)))
        assert refused_keys(rig) == [rig.key()]
        if end == "closed":
            rig.closed()
        elif end == "opened":
            rig.closed()
            rig.opened(200)
        else:
            rig.exit()
        assert refused_keys(rig) == [], end


def test_permission_covers_no_worse_amount_and_no_other_account():
    known = BrokenRule("destination", "", "A", amount=5)
    permission = Permission((known,))
    assert permission.covers(known._replace(amount=4))
    for worse in (
        known._replace(amount=6), known._replace(amount=None), known._replace(account="B"),
        known._replace(rule="lamports"), known._replace(is_final=True), known._replace(accounts=("B",)),
    ):  # fmt: skip
        assert not permission.covers(worse)


# ── prices below the floor ──


def low(rig: Rig, least_out: int) -> str:
    """The rig's sale, for at least so much."""
    taken = draft(rig.signal.unsigned_tx_b64)
    market = Pubkey.from_string("CPMMoo8L3F4NbTegBCKVNunggL7H1ZpdTHKxQB5qKP1C")
    at = taken.index(str(market))
    data = taken.instructions[at].data
    return on_another_block(taken.with_data(at, data[:16] + struct.pack("<Q", least_out)).b64())


def test_price_below_the_floor_asks_for_a_fresh_transaction_and_is_refused_in_the_end():
    rig = opened_rig(10**6, policy=SellPolicy(max_refreshes=3))
    for _ in range(4):
        signal(rig, low(rig, 1), profit_units=0)
    assert len(rig.stream.asked) == 3
    (report,) = rig.reports
    assert report.outcome is REJECTED
    assert isinstance(report.error, UnsafeTransactionError)
    assert report.error.rule == "price"
    assert refused_keys(rig) == [rig.key()]
    allow(rig, rig.key())
    assert len(rig.sender.sent) == 1


def test_price_is_right_again_after_a_refresh_and_the_exit_is_sold():
    rig = opened_rig(10**6)
    signal(rig, low(rig, 499_999), profit_units=0)
    signal(rig, low(rig, 800_000), profit_units=0)
    rig.settle(CONFIRMED)
    assert rig.outcomes == [("whole", CONFIRMED)]
    assert rig.refusals == []


def test_price_of_an_answer_is_compared_with_the_slippage_that_was_asked_for():
    """Unasked, a half is enough; asked for at 2 000 bps, four fifths are."""
    rig = opened_rig(10**6)
    signal(rig, low(rig, 1), profit_units=0)
    assert [bps for _, bps in rig.stream.asked] == [2_000]
    signal(rig, low(rig, 799_999), profit_units=0)
    assert (rig.sender.sent, len(rig.stream.asked)) == ([], 2)
    signal(rig, low(rig, 800_000), profit_units=0)
    assert len(rig.sender.sent) == 1


def test_price_reference_follows_the_newest_proceeds():
    rig = opened_rig(10**6)
    rig.stream.facts = PositionFacts(rig.signal.position_tokens, 600_000)
    signal(rig, low(rig, 300_000), profit_units=0)
    assert len(rig.sender.sent) == 1


def test_price_of_a_part_without_an_api_is_refused_rather_than_asked_for():
    rig = opened_rig(10**6)
    half = rig.signal.position_tokens // 2
    signal(rig, low(rig, 1), profit_units=0, level_index=0, sell_tokens=half)
    assert rig.stream.asked == []
    assert "amount" in [offence.rule for offence in rig.refusals[0].error.offences]


def test_price_of_a_part_below_the_floor_is_asked_for_once_and_then_at_intervals():
    """The market does not change in the milliseconds of a REST call, and 60 calls a minute serve all exits."""
    rig = opened_rig(10**12, with_api=True, policy=SellPolicy(refresh_wait_s=1.5, max_refreshes=4))
    rig.stream.facts = PositionFacts(rig.signal.position_tokens, 10**12)
    rig.level(0)
    assert rig.api is not None
    moments = [rig.lines.now] * len(rig.api.requests)
    while not rig.reports:
        rig.lines.advance(0.5)
        moments += [rig.lines.now] * (len(rig.api.requests) - len(moments))
        assert rig.lines.now < 100
    assert moments == [0.0, 1.5, 3.0, 4.5]
    assert refused_keys(rig) == [rig.key("level 0")]


# ── the unannounced ──


def test_signal_of_an_unannounced_position_waits_and_is_sold_when_the_announcement_comes():
    rig = Rig()
    rig.exit()
    rig.lines.advance(2.0)
    assert (rig.sender.sent, rig.reports) == ([], [])
    rig.opened(announcement=announced(rig))
    assert len(rig.sender.sent) == 1
    rig.lines.advance(10.0)
    assert len(rig.sender.sent) == 1


def test_signal_of_a_position_that_nobody_announces_is_refused_after_the_grace():
    rig = Rig()
    rig.exit()
    rig.lines.advance(3.1)
    assert rig.outcomes == [("whole", REJECTED)]
    (refusal,) = rig.gate.refusals.all()
    assert [each.rule for each in refusal.error.offences] == ["announced"]
    allow(rig, rig.key())
    assert len(rig.sender.sent) == 1


@pytest.mark.parametrize("known", ["journal", "sell_unannounced", "another token's journal"])
def test_signal_of_a_position_in_the_journal_or_of_any_position_is_not_held_back(known: str):
    rig = Rig(terms=SellTerms(sell_unannounced=known == "sell_unannounced"))
    assert rig.signal.token_account is not None
    mint = str(stranger(5)) if known.startswith("another") else rig.signal.mint
    if "journal" in known:
        rig.journal.opened(rig.signal.wallet_pubkey, rig.signal.token_account, mint, 100)
    rig.exit()
    assert len(rig.sender.sent) == (0 if known.startswith("another") else 1)


def test_signal_of_a_position_that_the_session_still_knows_is_sold_at_its_price():
    """The seller was started late: the announcement itself is forgotten, its token, entry and market are not."""
    rig = Rig(policy=SellPolicy(max_refreshes=0))
    rig.stream.known = announced(rig, 10**6)
    signal(rig, low(rig, 499_999), profit_units=0)
    assert [each.rule for each in rig.refusals[0].error.offences] == ["price"]
    signal(rig, low(rig, 500_000), profit_units=0)
    assert len(rig.sender.sent) == 1


def test_signal_that_waits_is_forgotten_when_the_position_closes():
    rig = Rig()
    rig.exit()
    rig.closed()
    rig.lines.advance(10.0)
    assert (rig.sender.sent, rig.reports, rig.refusals) == ([], [], [])


def test_never_sell_of_the_seller_replaces_the_guards():
    rig = Rig(terms=SellTerms(never_sell=frozenset({bytes(Pubkey.from_string(Rig().signal.mint))})))
    rig.opened()
    rig.exit()
    assert [each.rule for each in rig.refusals[0].error.offences] == ["never_sell"]


# ── report mode, another guard, budgets ──


def test_report_mode_signs_and_reports_what_enforcing_refuses():
    rig = opened_rig(guard_mode="report")
    signal(rig, paying(rig.signal.unsigned_tx_b64, (stranger(), 777)))
    assert len(rig.sender.sent) == 1
    (refusal,) = rig.refusals
    assert refusal.was_signed
    assert [each.rule for each in refusal.error.offences] == ["destination"]
    assert rig.gate.refusals.all() == []


def test_report_mode_refuses_what_no_sale_needs_caps_and_foreign_signers():
    payer = draft(Rig().signal.unsigned_tx_b64).payer
    foreign = [AccountMeta(stranger(3), True, False), AccountMeta(payer, True, True)]
    spoiled = {
        "instruction": approve,
        "instruction behind a harmless one": lambda tx: approve(calling(tx, Instruction(MEMO, b"hello", []))),
        "priority_fee": lambda tx: calling(tx, set_compute_unit_price(10**9)),
        "only_signer": lambda tx: calling(tx, Instruction(MEMO, b"hello", foreign)),
    }
    for name, spoil in spoiled.items():
        rig = opened_rig(guard_mode="report")
        signal(rig, spoil(rig.signal.unsigned_tx_b64))
        assert rig.sender.sent == [], name
        assert not rig.refusals[0].was_signed
        assert name.split(" ")[0] in [each.rule for each in rig.refusals[0].error.offences]


def test_guard_that_is_replaced_judges_the_next_transaction():
    rig = opened_rig()
    tx = rig.signal.unsigned_tx_b64
    signal(rig, paying(tx, (stranger(), 777)))
    rig.gate.guard = SigningGuard(tip_accounts=[str(stranger())])
    signal(rig, paying(tx, (stranger(), 777)))
    assert len(rig.sender.sent) == 1


def fees_of_an_exit() -> int:
    rig, guard = Rig(), SigningGuard()
    return guard.costs(guard.judge(rig.signal, wallet=rig.signal.wallet_pubkey)).fee_lamports


def test_fees_of_an_exit_are_signature_priority_tip_and_partner():
    rig = Rig()
    partner, tip = stranger(1), Pubkey.from_string("4ACfpUFoaSD9bfPdeu6DBt89gB6ENTeHBXCAi87NhDEE")
    guard = SigningGuard(partner=str(partner))
    base = fees_of_an_exit()
    assert base >= 5_000
    more = paying(rig.signal.unsigned_tx_b64, (tip, 7), (partner, 11))
    costs = guard.costs(guard.judge(more, wallet=rig.signal.wallet_pubkey))
    assert (costs.fee_lamports, dict(costs.purchases)) == (base + 18, {})


def test_fee_budget_stops_exits_only_when_the_user_set_it():
    """What an earlier process signed counts, too."""
    limits = {"max_fees_lamports_per_hour": 2 * fees_of_an_exit() - 1}
    rig = opened_rig(limits=limits)
    rig.exit()
    assert len(rig.sender.sent) == 1
    rig.settle(EXPIRED)
    rig.exit()
    assert [each.rule for each in rig.refusals[0].error.offences] == ["fee_budget"]
    rig.restart()
    rig.exit()
    assert len(rig.sender.sent) == 1
    unlimited = opened_rig()
    unlimited.exit()
    for _ in range(8):
        unlimited.settle(EXPIRED)
        unlimited.exit()
    assert len(unlimited.sender.sent) == 9


def test_budget_of_a_refused_transaction_is_not_used_up():
    rig = opened_rig(limits={"max_fees_lamports_per_hour": 2 * fees_of_an_exit() - 1})
    for _ in range(3):
        signal(rig, paying(rig.signal.unsigned_tx_b64, (stranger(), 777)))
    rig.exit()
    assert len(rig.sender.sent) == 1


def test_budget_of_an_hour_ago_is_forgotten():
    journal = Journal(":memory:")
    now_ms = time.time_ns() // 1_000_000
    journal.spent(Spending(at_ms=now_ms - 3_600_001, buys_lamports=100, buys_usd1_units=0, fees_lamports=0))
    journal.spent(Spending(at_ms=now_ms - 3_000_000, buys_lamports=2**64 - 1, buys_usd1_units=7, fees_lamports=0))
    budgets = HourlyBudgets(HourlyLimits(max_buys_lamports_per_hour=2**64 - 1, max_buys_usd1_units_per_hour=9), journal)
    for purchases, rules in (({"USD1": 2}, []), ({"USD1": 1, "SOL": 1}, ["max_buys_lamports", "max_buys_usd1"])):
        spending, found = budgets.claim(Costs(purchases, 5_000))
        assert [rule for rule in rules if not any(rule in each.remedy for each in found)] == []
        assert len(found) == len(rules)
        budgets.record(spending)
    journal.close()


@pytest.mark.parametrize("step_ms", [7_200_000, -7_200_000])
def test_budget_after_a_step_of_the_wall_clock_is_the_same(monkeypatch: pytest.MonkeyPatch, step_ms: int):
    journal = Journal(":memory:")
    offset_s, stepped_ms = [0.0], [0]
    real_s, real_ns = time.monotonic, time.time_ns
    monkeypatch.setattr(time, "monotonic", lambda: real_s() + offset_s[0])
    monkeypatch.setattr(time, "time_ns", lambda: real_ns() + stepped_ms[0] * 1_000_000)
    budgets = HourlyBudgets(HourlyLimits(max_fees_lamports_per_hour=9_000), journal)
    spending, found = budgets.claim(Costs({}, 5_000))
    budgets.record(spending)
    assert found == []
    stepped_ms[0] = step_ms
    for passed_s, rules in ((0.0, ["fee_budget"]), (3_500.0, ["fee_budget"]), (3_700.0, [])):
        offset_s[0] = passed_s
        spending, found = budgets.claim(Costs({}, 5_000))
        budgets.release(spending)
        assert [each.rule for each in found] == rules
    journal.close()


def test_budget_of_a_moment_to_come_counts_for_an_hour(monkeypatch: pytest.MonkeyPatch):
    """The clock was set back between two processes."""
    journal = Journal(":memory:")
    tomorrow_ms = time.time_ns() // 1_000_000 + 86_400_000
    journal.spent(Spending(at_ms=tomorrow_ms, buys_lamports=0, buys_usd1_units=0, fees_lamports=5_000))
    budgets = HourlyBudgets(HourlyLimits(max_fees_lamports_per_hour=9_000), journal)
    offset_s, real_s = [0.0], time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: real_s() + offset_s[0])
    for passed_s, rules in ((3_500.0, ["fee_budget"]), (3_700.0, [])):
        offset_s[0] = passed_s
        spending, found = budgets.claim(Costs({}, 5_000))
        budgets.release(spending)
        assert [each.rule for each in found] == rules
    journal.close()
