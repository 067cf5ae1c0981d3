"""The rules: what must be true of a transaction before it is signed. Each has one function, and this order.

A rule gets the decoded transaction, what it is expected to be, and the limits, and returns the first ``Offence`` that
it finds, or None. A rule that only holds when something else does leaves that to the rule above it: all must pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

import attrs

from lasersell_sync.trading.guard.addresses import to_text
from lasersell_sync.trading.guard.decoded import (
    Decoded,
    Instruction,
    Swap,
    is_own_token_account,
    shown,
    transferred_lamports,
)
from lasersell_sync.trading.guard.expected import BUY, SELL, Expected
from lasersell_sync.trading.guard.programs import KnownPrograms, Program

__all__ = ["ENCODING", "RULES", "TOKEN_ACCOUNT_RENT_LAMPORTS", "Limits", "Offence", "Rule"]

#: A classic token account, exempt from rent; comes back when it is closed.
TOKEN_ACCOUNT_RENT_LAMPORTS: Final = 2_039_280
_DEFAULT_UNITS = 200_000
_MAX_UNITS = 1_400_000
_MICROLAMPORTS = 1_000_000


@attrs.frozen
class Limits:
    """What a ``SigningGuard`` was told, in the form that the rules use; its constructor explains the fields.

    ``max_buy`` is by currency, ``max_lamports`` by kind of destination (``tip``, ``partner``, ``own``).
    """

    known: KnownPrograms
    programs: Mapping[bytes, Program]
    tip_accounts: frozenset[bytes]
    own_accounts: frozenset[bytes]
    partner: bytes | None
    max_buy: Mapping[str, int | None]
    max_lamports: Mapping[str, int]
    max_priority_fee_lamports: int


class Offence(NamedTuple):
    """Why a rule is broken: in words, by which account, and what the user can do if it is meant to be so."""

    problem: str
    account: bytes | None = None
    remedy: str = "do not sign it: ask for a new one, and tell the service if that is no better"


@attrs.frozen
class Rule:
    """A rule's name, what it demands in words, and its function."""

    name: str
    demand: str
    broken_by: Callable[[Decoded, Expected, Limits], Offence | None]


#: Found by ``wire_tx.parse``, before there is anything that a rule could look at.
ENCODING: Final = ("encoding", "the bytes are exactly one transaction, in its one spelling, and fit into a packet")
RULES: list[Rule] = []

_Check = Callable[[Decoded, Expected, Limits], Offence | None]


def _rule(name: str, demand: str) -> Callable[[_Check], _Check]:
    def register(function: _Check) -> _Check:
        RULES.append(Rule(name, demand, function))
        return function

    return register


# ── who signs ────────────────────────────────────────────────────────────────────────────────────────────────────


@_rule("wallet", "the trade is for the wallet that signs")
def _wallet(_: Decoded, trade: Expected, __: Limits) -> Offence | None:
    if trade.wallet is None or trade.wallet == trade.signer:
        return None
    return Offence(
        f"the trade is for {shown(trade.wallet)}, and {shown(trade.signer)} is to sign it", trade.wallet,
        "sign with the wallet that the trade is for",
    )  # fmt: skip


@_rule("fee_payer", "our wallet pays the fee")
def _fee_payer(tx: Decoded, trade: Expected, _: Limits) -> Offence | None:
    if tx.fee_payer == trade.signer:
        return None
    return Offence(
        f"the fee payer is {shown(tx.fee_payer)}", tx.fee_payer, "sign with the wallet that it was built for"
    )


@_rule("only_signer", "nobody else has to sign")
def _only_signer(tx: Decoded, _: Expected, __: Limits) -> Offence | None:
    return None if tx.signers == 1 else Offence(f"{tx.signers} signatures are required", tx.keys[1])


# ── what is called ───────────────────────────────────────────────────────────────────────────────────────────────


@_rule("lookup_table", "no account hides in a look-up table that is not known")
def _lookup_table(tx: Decoded, _: Expected, __: Limits) -> Offence | None:
    if tx.unknown_tables:
        table = tx.unknown_tables[0]
        return Offence(
            f"accounts stand in the look-up table {shown(table)}, which is not known", table,
            f"fetch the table and give it to the guard: guard.add_lookup_table('{shown(table)}', addresses)",
        )  # fmt: skip
    if tx.has_gaps:
        return Offence(
            "an account stands behind the end of a look-up table as it is known", None,
            "fetch the table again and give it to the guard: guard.add_lookup_table(table, addresses)",
        )  # fmt: skip
    return None


@_rule("program", "every program is on the list")
def _program(tx: Decoded, _: Expected, __: Limits) -> Offence | None:
    for item in tx.unlisted:
        if item.program is None:
            key = shown(item.program_key)
            return Offence(
                f"instruction {item.number} calls {key}, which is not on the list", item.program_key,
                f"if you trust it with your wallet: SigningGuard(allow={{'{key}': ['{_first_bytes(item, 8)}']}}) "
                "for this instruction, ['*'] for all",
            )  # fmt: skip
    return None


@_rule("instruction", "every instruction is one of those that its program is listed with")
def _instruction(tx: Decoded, _: Expected, __: Limits) -> Offence | None:
    for item in tx.unlisted:
        if item.program is not None and not item.is_trusted:
            address, prefix = to_text(item.program.address), _first_bytes(item, item.program.prefix_bytes)
            return Offence(
                f"instruction {item.number} is {item.name}, which is not on the list", item.program_key,
                f"if it must be: SigningGuard(allow={{'{address}': ['{prefix}']}})",
            )  # fmt: skip
    return None


def _first_bytes(item: Instruction, count: int) -> str:
    """As ``allow`` takes them."""
    return f"0x{item.data[:count].hex()}" if item.data else "*"


# ── what is traded ───────────────────────────────────────────────────────────────────────────────────────────────


@_rule("mint", "it trades the expected token, against SOL or USD1")
def _mint(tx: Decoded, trade: Expected, limits: Limits) -> Offence | None:
    if not tx.swaps and not any(item.is_trusted for item in tx.unlisted):
        return Offence("no instruction of a market is in it: nothing is traded", trade.mint)
    if trade.mint is not None and trade.mint not in tx.keys:
        return Offence(f"{shown(trade.mint)} is not among its accounts", trade.mint, "pass the signal it came with")
    for swap in tx.swaps:
        token = swap.got_mint if swap.is_purchase else swap.paid_mint
        if trade.mint is not None and token != trade.mint:
            return Offence(
                f"instruction {swap.instruction.number} trades {shown(token)}, not {shown(trade.mint)}", token
            )
        if not swap.is_purchase and swap.got_mint not in limits.known.currencies:
            return Offence(f"instruction {swap.instruction.number} pays in {shown(swap.got_mint)}", swap.got_mint)
    return None


@_rule("side", "a sale sells and a purchase buys")
def _side(tx: Decoded, trade: Expected, _: Limits) -> Offence | None:
    if trade.side is None:
        return None
    for swap in tx.swaps:
        side = BUY if swap.is_purchase else SELL
        if side != trade.side:
            return Offence(f"instruction {swap.instruction.number} is a {side}, not a {trade.side}", swap.got_mint)
    if trade.side == BUY and not tx.swaps:
        return Offence("no instruction says what the purchase may cost", trade.mint)
    return None


@_rule("amount", "a sale sells no more than was asked for")
def _amount(tx: Decoded, trade: Expected, _: Limits) -> Offence | None:
    if trade.max_tokens is None:
        return None
    sold = 0
    for swap in tx.swaps:
        if not swap.is_purchase:
            sold += swap.most_in
    if sold > trade.max_tokens:
        return Offence(f"it sells {sold} tokens, {trade.max_tokens} at most", trade.mint)
    return None


@_rule("spend", "what a purchase can cost is capped")
def _spend(tx: Decoded, trade: Expected, limits: Limits) -> Offence | None:
    for currency, most in tx.spending.items():
        unit, own_cap = _UNITS[currency], limits.max_buy[currency]
        remedy = f"set what a purchase may cost: SigningGuard(max_buy_{unit}=...)"
        if trade.currency is not None and currency != trade.currency:
            return Offence(f"it spends {currency}, where {trade.currency} was to be spent", trade.mint)
        if own_cap is None and not trade.asked_by_user:
            return Offence(f"it may spend {most} {unit}, and the guard was given no cap", trade.mint, remedy)
        for cap, whose in ((own_cap, "the guard's cap"), (trade.max_spend, "the order with its slippage")):
            if cap is not None and most > cap:
                return Offence(f"it may spend {most} {unit}, {whose} is {cap}", trade.mint, remedy)
    return None


_UNITS = {"SOL": "lamports", "USD1": "usd1_units"}


@_rule("own_account", "the market takes from and pays to our own accounts")
def _own_account(tx: Decoded, trade: Expected, limits: Limits) -> Offence | None:
    for swap in tx.swaps:
        number = swap.instruction.number
        if swap.user != trade.signer:
            return Offence(f"instruction {number} trades for {shown(swap.user)}", swap.user)
        if not swap.gets_lamports and not _is_own(tx, trade, limits, swap.got_mint, swap.target):
            return Offence(f"instruction {number} pays to {shown(swap.target)}, which is not ours", swap.target, _OURS)
        if not (
            swap.pays_lamports
            or _is_signalled_source(swap, trade)  # before the next: it spares the derivation of an account
            or _is_own(tx, trade, limits, swap.paid_mint, swap.source)
        ):
            return Offence(f"instruction {number} takes from {shown(swap.source)}", swap.source, _OURS)
        if swap.third_party_fee:
            return Offence(
                f"instruction {number} gives a share of the trade to a third party", swap.instruction.accounts[-1]
            )
    return None


_OURS = "if the account is yours: SigningGuard(own_accounts=[...])"


def _is_signalled_source(swap: Swap, trade: Expected) -> bool:
    """Tokens may come from the account that the signal names, wherever it is: only our signature moves them."""
    return swap.paid_mint == trade.mint and swap.source is not None and swap.source == trade.token_account


def _is_own(tx: Decoded, trade: Expected, limits: Limits, mint: bytes | None, account: bytes | None) -> bool:
    """Whether a token account of this mint is the wallet's."""
    if is_own_token_account(trade.signer, mint, account, limits.known.token_programs):
        return True
    if account in limits.own_accounts:
        return True
    return mint == limits.known.wrapped_sol and account in _fresh_accounts(tx, trade, limits)


# ── where lamports go ────────────────────────────────────────────────────────────────────────────────────────────


@_rule("account_creation", "accounts are created for our wallet only, and wrapped SOL is all that is created by hand")
def _account_creation(tx: Decoded, trade: Expected, limits: Limits) -> Offence | None:
    for item in tx.by_kind.get("associated_token.create", ()):
        for account in (item.account(0), item.account(2)):
            if account != trade.signer:
                return Offence(f"instruction {item.number} creates an account for {shown(account)}", account)
    for item in tx.by_kind.get("token.initialize_account", ()):
        if _owner_of_initialized(item) != trade.signer:
            return Offence(
                f"instruction {item.number} makes {shown(_owner_of_initialized(item))} an owner", item.account(0)
            )
    for created in tx.seeded:
        if created.address not in _fresh_accounts(tx, trade, limits):
            return Offence(
                f"instruction {created.instruction.number} creates an account that does not become our wrapped SOL",
                created.address,
            )
    return None


def _owner_of_initialized(item: Instruction) -> bytes | None:
    return item.account(2) if item.data[0] == 1 else item.data[1:33]


def _fresh_accounts(tx: Decoded, trade: Expected, limits: Limits) -> set[bytes]:
    """Accounts created by our seed and made our wrapped SOL in this transaction.

    Both, because an account that is created and not yet initialised can be made anybody's by anybody.
    """
    if not tx.seeded:
        return set()
    known = limits.known
    initialized = {
        item.account(0)
        for item in tx.by_kind.get("token.initialize_account", ())
        if item.account(1) == known.wrapped_sol and _owner_of_initialized(item) == trade.signer
    }
    return {
        account.derived
        for account in tx.seeded
        if account.address == account.derived
        and account.base == trade.signer
        and account.owner in known.token_programs
        and account.derived in initialized
    }


@_rule("destination", "lamports go to own accounts, senders' tip accounts and the partner only")
def _destination(tx: Decoded, trade: Expected, limits: Limits) -> Offence | None:
    for item in tx.by_kind.get("system.transfer", ()):
        target = item.account(1)
        if _bucket(tx, trade, limits, target) is None:
            return Offence(
                f"instruction {item.number} sends {transferred_lamports(item)} lamports to {shown(target)}", target,
                "if that is right: SigningGuard(tip_accounts=[...]), (partner=...) or (own_accounts=[...])",
            )  # fmt: skip
    return None


@_rule("lamports", "what leaves the wallet is capped: tips, partner fee, and what own accounts get")
def _lamports(tx: Decoded, trade: Expected, limits: Limits) -> Offence | None:
    sums: dict[str, int] = {"tip": 0, "partner": 0, "own": 0}
    last: dict[str, bytes | None] = {}
    for item in tx.by_kind.get("system.transfer", ()):
        target = item.account(1)
        bucket = _bucket(tx, trade, limits, target)
        if bucket is not None:
            sums[bucket] += transferred_lamports(item)
            last[bucket] = target
    for created in tx.seeded:
        sums["own"] += created.lamports
        last["own"] = created.address
    creations = len(tx.by_kind.get("associated_token.create", ()))
    sums["own"] += TOKEN_ACCOUNT_RENT_LAMPORTS * creations - tx.spending.get("SOL", 0)
    for bucket, cap in limits.max_lamports.items():
        if sums[bucket] > cap:
            return Offence(
                f"{sums[bucket]} lamports go to {_BUCKETS[bucket]}, {cap} at most", last.get(bucket),
                f"if that is right: SigningGuard({_CAPS[bucket]}=...)",
            )  # fmt: skip
    return None


_CAPS = {"tip": "max_tip_lamports", "partner": "max_partner_fee_lamports", "own": "max_rent_lamports"}
_BUCKETS = {"tip": "tip accounts", "partner": "the partner", "own": "own accounts (beyond what the market spends)"}


def _bucket(tx: Decoded, trade: Expected, limits: Limits, target: bytes | None) -> str | None:
    """Which of the permitted kinds of destination it is."""
    if target in limits.tip_accounts:
        return "tip"
    if target is not None and target in (limits.partner, trade.partner):
        return "partner"
    if target == trade.signer or _is_own(tx, trade, limits, limits.known.wrapped_sol, target):
        return "own"
    return None


@_rule("priority_fee", "the priority fee is capped")
def _priority_fee(tx: Decoded, _: Expected, limits: Limits) -> Offence | None:
    prices = tx.by_kind.get("compute_budget.set_compute_unit_price", ())
    unit_limits = tx.by_kind.get("compute_budget.set_compute_unit_limit", ())
    if not prices:
        return None
    key = prices[0].program_key
    if len(prices) > 1 or len(unit_limits) > 1:
        return Offence("it sets a compute budget twice", key)
    units = unit_limits[0].u32(1) if unit_limits else _DEFAULT_UNITS * len(tx.instructions)
    fee = -(-prices[0].u64(1) * min(units, _MAX_UNITS) // _MICROLAMPORTS)
    if fee <= limits.max_priority_fee_lamports:
        return None
    return Offence(
        f"the priority fee is {fee} lamports, {limits.max_priority_fee_lamports} at most", key,
        "if that is right: SigningGuard(max_priority_fee_lamports=...)",
    )  # fmt: skip


# ── where tokens go ──────────────────────────────────────────────────────────────────────────────────────────────


@_rule("token_transfer", "tokens are transferred between own accounts only")
def _token_transfer(tx: Decoded, trade: Expected, limits: Limits) -> Offence | None:
    for kind, mint_at, target_at in (("token.transfer", None, 1), ("token.transfer_checked", 1, 2)):
        for item in tx.by_kind.get(kind, ()):
            target = item.account(target_at)
            mints: Sequence[bytes | None] = _mints(tx, limits) if mint_at is None else (item.account(mint_at),)
            if not any(_is_own(tx, trade, limits, mint, target) for mint in mints):
                return Offence(f"instruction {item.number} transfers tokens to {shown(target)}", target, _OURS)
    return None


def _mints(tx: Decoded, limits: Limits) -> list[bytes | None]:
    """What an unchecked transfer may be of: it does not name its mint."""
    return [*(mint for swap in tx.swaps for mint in (swap.paid_mint, swap.got_mint)), *limits.known.currencies]


@_rule("token_close", "closed token accounts leave their lamports to our wallet")
def _token_close(tx: Decoded, trade: Expected, _: Limits) -> Offence | None:
    for item in tx.by_kind.get("token.close_account", ()):
        target = item.account(1)
        if target != trade.signer:
            return Offence(f"instruction {item.number} closes an account in favour of {shown(target)}", target)
    return None
