"""What a rule is: its function, what it returns, and the limits that it is given."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import NamedTuple

import attrs

from lasersell_sync.trading.guard.decoded import Decoded
from lasersell_sync.trading.guard.expected import Expected, OpaqueMode
from lasersell_sync.trading.guard.programs import KnownPrograms, Program

__all__ = ["Limits", "Offence", "Rule", "rule"]


@attrs.frozen
class Limits:
    """What a ``SigningGuard`` was told, in the form that the rules use; its constructor explains the fields.

    ``max_buy`` is by currency, ``max_lamports`` by kind of destination (``tip``, ``partner``, ``own``).
    ``known.currencies`` has USDC where the user allows it. ``token_account_rent`` says what a token account must hold,
    in lamports, and does not block.
    """

    known: KnownPrograms
    programs: Mapping[bytes, Program]
    tip_accounts: frozenset[bytes]
    own_accounts: frozenset[bytes]
    partner: bytes | None
    max_buy: Mapping[str, int | None]
    max_lamports: Mapping[str, int]
    max_priority_fee_lamports: int
    min_usd1_per_sol: float | None
    max_slippage_bps: int
    never_sell: frozenset[bytes]
    co_signers: frozenset[bytes]
    opaque: OpaqueMode
    token_account_rent: Callable[[], int]


class Offence(NamedTuple):
    """How a transaction breaks a rule.

    Attributes:
        problem: what is wrong, in words.
        account: the account or program that breaks the rule.
        remedy: what the user can do.
        amount: how much is at stake, in the smallest units of what the rule counts; a smaller one is less bad.
        instruction: the instruction that breaks the rule, where its program does not say what it does.
        accounts: what that instruction is given.
        is_final: nothing lifts it, because no sale needs it.
    """

    problem: str
    account: bytes | None = None
    remedy: str = "do not sign it: ask for a new one, and tell the service if that is no better"
    amount: int | None = None
    instruction: str = ""
    accounts: tuple[bytes | None, ...] = ()
    is_final: bool = False


_Check = Callable[[Decoded, Expected, Limits], Iterable[Offence]]


@attrs.frozen
class Rule:
    """A rule: a function that finds every offence against it.

    Attributes:
        name: as in errors.
        demand: what it demands, in words.
        offences: the function.
        is_kept_in_report_mode: whether ``AutoSeller(guard_mode="report")`` refuses what breaks it: caps, and what a
            signature of this wallet alone cannot make valid.
        kinds: the kinds of instructions (``Decoded.by_kind``) that it looks at: it finds nothing in a transaction that
            has none of them, and is not asked about it. None: it looks at every transaction.
    """

    name: str
    demand: str
    offences: _Check
    is_kept_in_report_mode: bool
    kinds: frozenset[str] | None = None


def rule(
    name: str, demand: str, *, is_kept_in_report_mode: bool = False, kinds: Collection[str] | None = None
) -> Callable[[_Check], Rule]:
    """Makes a rule of a function. ``rules/__init__.py`` lists the rules in their order."""
    looks_at = None if kinds is None else frozenset(kinds)
    return lambda function: Rule(name, demand, function, is_kept_in_report_mode, looks_at)
