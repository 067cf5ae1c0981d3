"""A program whose layout nobody knows: what can be demanded of its instruction without reading it.

What it does with what it is given, the simulation shows (``simulation_rules``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from lasersell_sync.trading.guard.addresses import to_text, token_account
from lasersell_sync.trading.guard.decoded import OPAQUE, Decoded, shown
from lasersell_sync.trading.guard.expected import SELL, Expected, OpaqueMode
from lasersell_sync.trading.guard.rules.accounts import fresh_accounts
from lasersell_sync.trading.guard.rules.rule import Limits, Offence, rule

__all__ = ["OPAQUE_RULES"]


@rule(
    "opaque", "one instruction at most is of a program whose layout is not known, and it gets the traded accounts only",
    kinds=[OPAQUE],
)  # fmt: skip
def _opaque(tx: Decoded, trade: Expected, limits: Limits) -> Iterator[Offence]:
    if not tx.opaque:
        return
    first = tx.opaque[0]
    if limits.opaque is OpaqueMode.REFUSE:
        yield Offence(
            f"instruction {first.number} calls {first.name}, whose layout is not known, and opaque is 'refuse'",
            first.program_key, "to judge it by a simulation: SigningGuard(opaque='simulate')",
        )  # fmt: skip
    for item in tx.opaque[1:]:
        yield Offence(f"instruction {item.number} is a second one whose layout is not known", item.program_key)
    if trade.mint is None or trade.side is None:
        yield Offence(
            f"instruction {first.number} does not say what it trades, and nothing else does", first.program_key,
            "pass the signal, or the request that the transaction was built for",
        )  # fmt: skip
        return
    yield from _accounts(tx, trade, limits)


def _accounts(tx: Decoded, trade: Expected, limits: Limits) -> Iterator[Offence]:
    first = tx.opaque[0]
    given, written = set(first.accounts), set(tx.writable_keys)
    if trade.signer not in given:
        yield Offence(f"instruction {first.number} is not given our wallet", trade.signer)
    traded = _traded_accounts(trade, limits)
    if not traded & given & written:
        yield Offence(
            f"instruction {first.number} cannot write to our account of the traded token", trade.token_account,
            "pass the signal it came with",
        )  # fmt: skip
    permitted = traded | _of_mints(trade, limits.known.currencies, limits) | fresh_accounts(tx, trade, limits)
    for key in _other_accounts(tx, trade, limits) - permitted:
        yield Offence(f"it names {shown(key)}, a token account of ours that this trade does not concern", key)


def _traded_accounts(trade: Expected, limits: Limits) -> set[bytes]:
    """Where the traded tokens lie, or will."""
    if trade.side == SELL and trade.token_account is not None:
        return {trade.token_account}
    assert trade.mint is not None  # the rule ends before
    return _of_mints(trade, (trade.mint,), limits)


def _other_accounts(tx: Decoded, trade: Expected, limits: Limits) -> set[bytes]:
    """Token accounts of ours among the transaction's accounts.

    They are those that the session or the user knows, and our associated account for any other account that the
    transaction names: one of those may be a mint.
    """
    keys = {key for key in tx.keys if key is not None}
    known = trade.context.own_token_accounts
    derived = keys & _of_mints(trade, keys, limits)
    in_session = {key for key in keys if key != trade.signer and to_text(key) in known}
    return derived | (keys & limits.own_accounts) | in_session


def _of_mints(trade: Expected, mints: Iterable[bytes], limits: Limits) -> set[bytes]:
    """Our associated accounts for these mints, of both token programs."""
    return {token_account(trade.signer, mint, program) for mint in mints for program in limits.known.token_programs}


OPAQUE_RULES = (_opaque,)
