"""What a rule is: its function, what it returns, and the limits that it is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import attrs

from lasersell_sync.trading.guard.decoded import Decoded
from lasersell_sync.trading.guard.expected import Expected
from lasersell_sync.trading.guard.programs import KnownPrograms, Program

__all__ = ["Limits", "Offence", "Rule", "rule"]


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


_Check = Callable[[Decoded, Expected, Limits], Offence | None]


def rule(name: str, demand: str) -> Callable[[_Check], Rule]:
    """Makes a rule of a function. ``rules/__init__.py`` lists the rules in their order."""
    return lambda function: Rule(name, demand, function)
