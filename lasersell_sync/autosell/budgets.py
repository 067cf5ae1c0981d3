"""What an automatic seller may spend in an hour."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from typing import ClassVar, NamedTuple

import attrs

from lasersell_sync.autosell.journal import Journal, Spending
from lasersell_sync.exceptions import BrokenRule, ConfigurationError, JournalError
from lasersell_sync.trading.guard.costs import Costs

__all__ = ["HourlyBudgets", "HourlyLimits"]

_HOUR_S = 3_600.0
_U64_MAX = 2**64 - 1


def _amount(_: object, attribute: attrs.Attribute[int | None], value: object) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _U64_MAX:
        shown = repr(value) if isinstance(value, (int, float)) else f"a {type(value).__name__}"
        raise ConfigurationError(attribute.name, f"{shown} is not a whole number from 0 to {_U64_MAX}")


@attrs.frozen(kw_only=True)
class HourlyLimits:
    """The arguments of ``AutoSeller``; None: no limit.

    Raises:
        ConfigurationError: not an amount.
    """

    max_buys_lamports_per_hour: int | None = attrs.field(default=None, validator=_amount)
    max_buys_usd1_units_per_hour: int | None = attrs.field(default=None, validator=_amount)
    max_fees_lamports_per_hour: int | None = attrs.field(default=None, validator=_amount)


class _Budget(NamedTuple):
    """One limit: the rule and option of its name, and what is counted."""

    rule: str
    option: str
    limit: int
    what: str


class _Counted(NamedTuple):
    """What counts until a moment, in monotonic seconds."""

    until_s: float
    spending: Spending


class HourlyBudgets:
    """Counts what was signed within the last hour, also by an earlier process with the same journal.

    A step of the wall clock neither frees nor uses up a budget; the clock counts only for what an earlier process
    signed, where a moment to come counts as now.

    Args:
        limits: without any, nothing is counted.
        journal: where each signed transaction's costs are written down.

    Threads: any.
    """

    #: Of the offences.
    RULES: ClassVar = frozenset({"buy_budget", "fee_budget"})

    def __init__(self, limits: HourlyLimits, journal: Journal) -> None:
        candidates = (
            ("buy_budget", "max_buys_lamports_per_hour", "SOL"),
            ("buy_budget", "max_buys_usd1_units_per_hour", "USD1"),
            ("fee_budget", "max_fees_lamports_per_hour", "fees"),
        )
        self._budgets = [
            _Budget(rule, option, limit, what)
            for rule, option, what in candidates
            if (limit := getattr(limits, option)) is not None
        ]
        self._journal = journal
        # Guards the list.
        self._lock = threading.Lock()
        self._counted: deque[_Counted] = deque()
        if self._budgets:
            now_ms, now_s = _now_ms(), time.monotonic()
            for spending in journal.spending(since_ms=now_ms - int(_HOUR_S * 1000)):
                age_s = max(0.0, (now_ms - spending.at_ms) / 1000)
                self._counted.append(_Counted(now_s + _HOUR_S - age_s, spending))

    @property
    def are_set(self) -> bool:
        """Whether there is any limit."""
        return bool(self._budgets)

    def claim(self, costs: Costs) -> tuple[Spending, list[BrokenRule]]:
        """Count these costs at once, so that two workers do not both take what is left; and the limits they exceed.

        ``release`` what is not signed in the end, ``record`` what is.
        """
        amounts = _amounts(costs)
        spending = Spending(
            at_ms=_now_ms(), buys_lamports=amounts["SOL"], buys_usd1_units=amounts["USD1"],
            fees_lamports=amounts["fees"],
        )  # fmt: skip
        with self._lock:
            found = [*self._exceeded(amounts)]
            self._counted.append(_Counted(time.monotonic() + _HOUR_S, spending))
        return spending, found

    def release(self, spending: Spending) -> None:
        """It was not signed."""
        with self._lock:
            found = next((each for each in self._counted if each.spending is spending), None)
            if found is not None:
                self._counted.remove(found)

    def record(self, spending: Spending) -> None:
        """It is about to be signed.

        Raises:
            JournalError: it cannot be written down; it is not counted any more.
        """
        try:
            self._journal.spent(spending)
        except JournalError:
            self.release(spending)
            raise

    def _exceeded(self, amounts: Mapping[str, int]) -> Iterator[BrokenRule]:
        assert self._lock.locked()
        for budget in self._budgets:
            more, spent = amounts[budget.what], self._within_the_hour(budget.what)
            if more and spent + more > budget.limit:
                unit = "USD1 base units" if budget.what == "USD1" else "lamports"
                yield BrokenRule(
                    budget.rule, f"{more} {unit} on top of {spent} in the last hour, {budget.limit} at most",
                    remedy=f"wait, or AutoSeller({budget.option}=...)", amount=more,
                )  # fmt: skip

    def _within_the_hour(self, what: str) -> int:
        field = {"SOL": "buys_lamports", "USD1": "buys_usd1_units", "fees": "fees_lamports"}[what]
        now_s = time.monotonic()
        while self._counted and self._counted[0].until_s < now_s:
            self._counted.popleft()
        return sum(getattr(each.spending, field) for each in self._counted)


def _amounts(costs: Costs) -> dict[str, int]:
    return {"SOL": costs.purchases.get("SOL", 0), "USD1": costs.purchases.get("USD1", 0), "fees": costs.fee_lamports}


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
