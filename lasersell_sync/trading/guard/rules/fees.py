"""Rules about fees: network, tip, routing and partner fees."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from lasersell_sync.trading.guard.addresses import token_account
from lasersell_sync.trading.guard.decoded import ComputeBudget, Decoded, Instruction, shown, transferred_lamports
from lasersell_sync.trading.guard.expected import BUY, SELL, Expected
from lasersell_sync.trading.guard.rules.rule import Limits, Offence, rule

__all__ = [
    "FEE_RULES",
    "NO_BLOCKHASH",
    "PARTNER_RULES",
    "ComputeBudget",
    "compute_budget",
    "is_partner",
    "is_partner_account",
    "network_fee_lamports",
]


# ── What the partner gets: the fee that was asked for, once, in lamports or in the currency of the trade ────────────


_BPS = 10_000
#: The service's own limit (docs/protocol.md 7); for a partner of whom the guard knows the address alone.
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


# ── What the network is paid, and what it lets a transaction use ────────────────────────────────────────────────────


_SIGNATURE_LAMPORTS = 5_000
_DEFAULT_UNITS = 200_000
_MAX_UNITS = 1_400_000
_MICROLAMPORTS = 1_000_000
#: No market trades with less: the cheapest swap takes twice as many.
_LEAST_UNITS = 10_000
#: Every program that a transaction calls counts, and no market's is smaller.
_LEAST_LOADED_BYTES = 65_536
#: Rule and problem.
NO_BLOCKHASH: Final = ("blockhash", "its blockhash is all zeros, so that no block takes it")
_HEAP_BYTES = range(32 * 1024, 256 * 1024 + 1, 1024)
_PERCENT = 100
_BUDGET_PROGRAM = "compute_budget."
_PRICE = f"{_BUDGET_PROGRAM}set_compute_unit_price"
_UNIT_LIMIT = f"{_BUDGET_PROGRAM}set_compute_unit_limit"
_HEAP = f"{_BUDGET_PROGRAM}request_heap_frame"
_LOADED = f"{_BUDGET_PROGRAM}set_loaded_accounts_data_size_limit"


def compute_budget(tx: Decoded) -> ComputeBudget:
    """By the header of version 1, which ignores instructions, or by the instructions of the older versions."""
    if tx.budget is None:  # several rules ask, and a sale waits
        tx.budget = _compute_budget(tx)
    return tx.budget


def _compute_budget(tx: Decoded) -> ComputeBudget:
    if tx.config is not None:
        fee, units, loaded_bytes, heap_bytes = tx.config
        return ComputeBudget(fee or 0, units or 0, heap_bytes, loaded_bytes)
    said = tx.by_kind
    units = said[_UNIT_LIMIT][0].u32(1) if _UNIT_LIMIT in said else None
    fee = 0
    if _PRICE in said:
        paid_units = min(_DEFAULT_UNITS * len(tx.instructions) if units is None else units, _MAX_UNITS)
        fee = -(-said[_PRICE][0].u64(1) * paid_units // _MICROLAMPORTS)
    heap_bytes = said[_HEAP][0].u32(1) if _HEAP in said else None
    loaded_bytes = said[_LOADED][0].u32(1) if _LOADED in said else None
    return ComputeBudget(fee, units, heap_bytes, loaded_bytes)


def _repeated(tx: Decoded) -> Instruction | None:
    """The first of two instructions that set the same limit; a version 1 transaction has none that counts."""
    if tx.config is not None or len(tx.by_kind) == len(tx.instructions):  # which are all of different kinds
        return None
    for kind, items in tx.by_kind.items():
        if len(items) > 1 and kind.startswith(_BUDGET_PROGRAM):
            return items[0]
    return None


def _program(tx: Decoded) -> bytes | None:
    """The Compute Budget program, where an instruction of it sets a limit that counts."""
    if tx.config is not None:
        return None
    said = (items[0].program_key for kind, items in tx.by_kind.items() if kind.startswith(_BUDGET_PROGRAM))
    return next(said, None)


@rule("priority_fee", "the priority fee is capped", is_kept_in_report_mode=True)
def _priority_fee(tx: Decoded, trade: Expected, limits: Limits) -> Iterable[Offence]:
    repeated = _repeated(tx)
    if repeated is not None:
        return (Offence("it sets a compute budget twice", repeated.program_key),)
    fee = compute_budget(tx).priority_fee_lamports
    if fee <= limits.max_priority_fee_lamports:
        return ()
    cap = max(limits.max_priority_fee_lamports, _share_of_proceeds(tx, trade, limits))
    if fee <= cap:
        return ()
    remedy = "if that is right: SigningGuard(max_priority_fee_lamports=...)"
    return (Offence(f"the priority fee is {fee} lamports, {cap} at most", _program(tx), remedy, amount=fee),)


def _share_of_proceeds(tx: Decoded, trade: Expected, limits: Limits) -> int:
    """One percent of what an exit should bring, in lamports; 0 where that is not known, or not SOL."""
    if trade.side != SELL or any(swap.got_mint != limits.known.wrapped_sol for swap in tx.swaps):
        return 0
    sold = sum(swap.most_in for swap in tx.swaps) or trade.max_tokens
    return 0 if sold is None else trade.reference_of(sold) // _PERCENT


@rule("compute_budget", "the limits that it sets let the trade run")
def _limits_of_budget(tx: Decoded, _: Expected, __: Limits) -> Iterable[Offence]:
    budget = compute_budget(tx)
    units, heap_bytes, loaded_bytes = budget.unit_limit, budget.heap_bytes, budget.loaded_bytes
    found = []
    if units is not None and units < _LEAST_UNITS:
        found.append(Offence(f"{units} compute units are too few for any trade", _program(tx)))
    if heap_bytes is not None and heap_bytes not in _HEAP_BYTES:
        found.append(Offence(f"a heap of {heap_bytes} bytes is not one that the network gives", _program(tx)))
    if loaded_bytes is not None and loaded_bytes < _LEAST_LOADED_BYTES:
        found.append(Offence(f"{loaded_bytes} bytes of accounts are too few for any market's program", _program(tx)))
    return found


@rule(NO_BLOCKHASH[0], "a transaction that was built for a known trade names a block")
def _blockhash(tx: Decoded, trade: Expected, _: Limits) -> Iterable[Offence]:
    # Text alone may come from an archive or a simulation, where the blockhash is often left out.
    return () if trade.wallet is None or any(tx.blockhash) else (Offence(NO_BLOCKHASH[1]),)


def network_fee_lamports(tx: Decoded) -> int:
    """What the network takes for a transaction: for each signature, and the priority fee."""
    return _SIGNATURE_LAMPORTS * tx.signers + compute_budget(tx).priority_fee_lamports


FEE_RULES = (_priority_fee, _limits_of_budget, _blockhash)
