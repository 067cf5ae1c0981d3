"""What the partner gets: the fee that was asked for, once, in lamports or in the currency of the trade."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from lasersell_sync.trading.guard.addresses import token_account
from lasersell_sync.trading.guard.decoded import Decoded, Instruction, shown, transferred_lamports
from lasersell_sync.trading.guard.expected import BUY, SELL, Expected
from lasersell_sync.trading.guard.rules.rule import Limits, Offence, rule

__all__ = ["PARTNER_RULES", "is_partner", "is_partner_account"]

_BPS = 10_000
#: The service's own limit (docs/protocol.md §7); for a partner of whom the guard knows the address alone.
_MOST_BPS = 50
_AMOUNT_AT = 1


class _Payment(NamedTuple):
    """One transfer to the partner; ``currency`` is SOL for lamports and for wrapped SOL."""

    item: Instruction
    amount: int
    currency: str


def is_partner(account: bytes | None, trade: Expected, limits: Limits) -> bool:
    """Whether it is the partner's own address, by the guard's options or by the user's request."""
    return account is not None and account in (limits.partner, trade.partner)


def is_partner_account(mint: bytes | None, account: bytes | None, trade: Expected, limits: Limits) -> bool:
    """Whether it is the partner's token account of a currency."""
    if account is None or mint is None or mint not in limits.known.currencies:
        return False
    partners = (partner for partner in (limits.partner, trade.partner) if partner is not None)
    return any(
        token_account(partner, mint, program) == account
        for partner in partners
        for program in limits.known.token_programs_of(mint)
    )


def _payments(tx: Decoded, trade: Expected, limits: Limits) -> Iterator[_Payment]:
    for item in tx.by_kind.get("system.transfer", ()):
        if is_partner(item.account(1), trade, limits):
            yield _Payment(item, transferred_lamports(item), "SOL")
    for item in tx.by_kind.get("token.transfer_checked", ()):
        mint = item.account(1)
        if mint is not None and is_partner_account(mint, item.account(2), trade, limits):
            yield _Payment(item, item.u64(_AMOUNT_AT), limits.known.currencies[mint])
    for item in tx.by_kind.get("token.transfer", ()):
        for mint, currency in limits.known.currencies.items():
            if is_partner_account(mint, item.account(1), trade, limits):
                yield _Payment(item, item.u64(_AMOUNT_AT), currency)


@rule("partner_fee", "the partner gets what was asked for, once", is_kept_in_report_mode=True)
def _partner_fee(tx: Decoded, trade: Expected, limits: Limits) -> Iterable[Offence]:
    return () if limits.partner is None and trade.partner is None else _wrong_payments(tx, trade, limits)


def _wrong_payments(tx: Decoded, trade: Expected, limits: Limits) -> Iterator[Offence]:
    payments = list(_payments(tx, trade, limits))
    for payment in payments[1:]:
        yield Offence(
            f"instruction {payment.item.number} pays the partner again", payment.item.accounts[1], amount=payment.amount
        )
    for payment in payments[:1]:
        yield from _compared(payment, tx, trade, limits)
    if not payments and _least(tx, trade) and not tx.opaque:
        yield Offence(f"the partner {shown(trade.partner)} gets nothing, and a fee for it was asked for", trade.partner)


def _compared(payment: _Payment, tx: Decoded, trade: Expected, limits: Limits) -> Iterator[Offence]:
    what = f"instruction {payment.item.number} pays the partner {payment.amount} {_unit(payment.currency)}"
    account = payment.item.accounts[1]
    if not _is_to_whom_was_asked(payment, trade, limits):
        yield Offence(f"{what}, and it was asked for {shown(trade.partner)}", account, amount=payment.amount)
    asked = trade.partner_fee_lamports
    if asked is not None:
        if payment.amount != asked or payment.currency != "SOL":
            yield Offence(f"{what}, and {asked} lamports were asked for", account, amount=payment.amount)
        return
    if payment.currency != "SOL" and payment.currency not in _currencies(tx, limits):
        yield Offence(f"{what}, which is not what is traded against", account, amount=payment.amount)
        return
    most = _share(tx, trade, limits)
    if trade.partner_fee_bps is None and payment.currency == "SOL":
        most = limits.max_lamports["partner"]
    if payment.amount > most:
        yield Offence(f"{what}, and {most} at most are its share", account, amount=payment.amount)


def _is_to_whom_was_asked(payment: _Payment, trade: Expected, limits: Limits) -> bool:
    """A guard's own partner does not get what was asked for another one."""
    partner, accounts = trade.partner, payment.item.accounts
    if partner is None or partner in accounts:
        return True
    known = limits.known
    return any(
        token_account(partner, mint, program) in accounts
        for mint in known.currencies
        for program in known.token_programs_of(mint)
    )


def _unit(currency: str) -> str:
    return "lamports" if currency == "SOL" else f"{currency} base units"


def _currencies(tx: Decoded, limits: Limits) -> set[str]:
    mints = {mint for swap in tx.swaps for mint in (swap.paid_mint, swap.got_mint) if mint is not None}
    return {name for mint, name in limits.known.currencies.items() if mint in mints}


def _share(tx: Decoded, trade: Expected, limits: Limits) -> int:
    """The most that the partner's share can be, in the smallest units of the trade's currency.

    Of a trade whose layout nobody knows, the caps of the guard stand in for its value.
    """
    bps = _MOST_BPS if trade.partner_fee_bps is None else trade.partner_fee_bps
    if not tx.swaps:
        if trade.side == BUY and trade.max_spend is not None:
            return -(-trade.max_spend * bps // _BPS)
        return limits.max_lamports["partner"]
    value = sum(swap.most_in for swap in tx.swaps if swap.is_purchase and not swap.is_exchange)
    for swap in tx.swaps:
        if not swap.is_purchase:
            slippage_bps = limits.max_slippage_bps if trade.slippage_bps is None else trade.slippage_bps
            # What is accepted at least is the expected minus slippage, rounded down.
            value += (swap.least_out + 1) * _BPS // max(1, _BPS - slippage_bps)
    return -(-value * bps // _BPS)


def _least(tx: Decoded, trade: Expected) -> int:
    """What the partner must get at least, where it was asked for and the trade says how much it is worth."""
    if trade.partner is None:
        return 0
    if trade.partner_fee_lamports is not None:
        return trade.partner_fee_lamports
    if trade.side != SELL:
        return 0
    least_out = sum(swap.least_out for swap in tx.swaps if not swap.is_purchase)
    return least_out * (trade.partner_fee_bps or 0) // _BPS


PARTNER_RULES = (_partner_fee,)
