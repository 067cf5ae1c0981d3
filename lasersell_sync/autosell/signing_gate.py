"""What an AutoSeller may sign: the guard's verdict, report mode, permissions, budgets, the barrier of ``pause()``."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import ClassVar, Final, NamedTuple

import attrs

from lasersell_sync.autosell.exit_key import ExitKey
from lasersell_sync.autosell.journal import Journal, Spending
from lasersell_sync.autosell.reports import Permission, Refusal, Refusals
from lasersell_sync.exceptions import (
    BrokenRule,
    ConcurrencyError,
    ConfigurationError,
    JournalError,
    UnsafeTransactionError,
)
from lasersell_sync.messages import ExitSignalWithTx, MirrorBuySignal
from lasersell_sync.runtime.fork_guard import NO_THREAD
from lasersell_sync.runtime.locks import signal_safe_lock
from lasersell_sync.runtime.log import logger
from lasersell_sync.runtime.user_code import as_exception
from lasersell_sync.trading.guard import CheckedTransaction, SigningGuard, TradeContext
from lasersell_sync.trading.guard.money import Costs
from lasersell_sync.trading.guard.signing_guard import Judgement, broken_rule
from lasersell_sync.trading.rest.tx_requests import BuildBuyTxRequest, BuildSellTxRequest, BuildTxResponse

__all__ = ["ENFORCE", "GUARD_MODES", "REPORT", "Case", "HourlyBudgets", "HourlyLimits", "PauseBarrier", "SigningGate"]

log = logger("autosell")


# ── What an automatic seller may spend in an hour ───────────────────────────────────────────────────────────────────


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


# ── What an automatic seller signs: the guard's verdict, report mode, permissions for once, budgets ─────────────────


ENFORCE: Final = "enforce"
REPORT: Final = "report"
GUARD_MODES: Final = (ENFORCE, REPORT)

Transaction = ExitSignalWithTx | MirrorBuySignal | BuildTxResponse | str
Request = BuildSellTxRequest | BuildBuyTxRequest


class Case:
    """One transaction that is being judged, maybe by nodes.

    Attributes:
        guard: who judges; None: nobody.
        wallet, mint: base58.
        key: the exit; None for a purchase.
        allowed: what the user permits for it.

    Threads: ``finish`` and ``fail`` on a thread of the guard's or the caller's own, everything else on any.
    """

    def __init__(
        self, guard: SigningGuard | None, wallet: str, mint: str, key: ExitKey | None, allowed: Permission | None
    ) -> None:
        self.guard = guard
        self.wallet, self.mint, self.key, self.allowed = wallet, mint, key, allowed
        # Guards everything below.
        self._lock = threading.Lock()
        self._is_ready = False
        self._judgement: Judgement | None = None
        self._error: Exception | None = None
        self._then: Callable[[], None] | None = None

    @property
    def is_ready(self) -> bool:
        """Whether all that was asked is answered."""
        with self._lock:
            return self._is_ready

    def when_ready(self, then: Callable[[], None]) -> None:
        """Call ``then`` once: at once, or on a thread of the guard's."""
        with self._lock:
            if not self._is_ready:
                self._then = then
                return
        then()

    def finish(self, judgement: Judgement | None) -> None:
        """The last answer came."""
        self._end(judgement, None)

    def fail(self, error: Exception) -> None:
        """There will be no judgement."""
        self._end(None, error)

    def _end(self, judgement: Judgement | None, error: Exception | None) -> None:
        with self._lock:
            self._is_ready, self._judgement, self._error = True, judgement, error
            then = self._then
        if then is not None:
            then()

    def judgement(self) -> Judgement | None:
        """The judgement; raises what ended it."""
        if self._error is not None:
            raise self._error
        return self._judgement


class SigningGate:
    """Decides on each transaction of one ``AutoSeller``.

    Args:
        guard: None: everything is signed, budgets notwithstanding.
        mode: ``enforce``, or ``report``: what the guard refuses is reported and signed, but for what no sale needs,
            for caps and budgets, and for what this wallet cannot sign alone.
        refusals: holds the permissions.
        budgets: what may be spent in an hour.
        on_refused: called with what was refused, or would have been.

    Threads: any.
    """

    def __init__(
        self,
        guard: SigningGuard | None,
        mode: str,
        refusals: Refusals,
        budgets: HourlyBudgets,
        on_refused: Callable[[Refusal], None],
    ) -> None:
        if mode not in GUARD_MODES:
            raise ConfigurationError("guard_mode", f"{mode!r} is not 'enforce' or 'report'")
        #: Replaced as a whole; a check that runs meanwhile goes by the one or the other.
        self.guard = guard
        self.mode = mode
        self.refusals = refusals
        self._budgets = budgets
        self._on_refused = on_refused

    def open(
        self,
        transaction: Transaction,
        *,
        wallet: str,
        mint: str,
        key: ExitKey | None,
        request: Request | None,
        context: TradeContext | None,
        may_be_allowed: bool,
    ) -> Case:
        """Begin to judge a transaction; returns at once. ``decide`` ends it once the case ``is_ready``.

        Args:
            transaction: as for ``SigningGuard.check``.
            wallet: the wallet that is to sign, base58.
            mint: the token, base58.
            key: the exit; None for a purchase.
            request: as for ``SigningGuard.check``.
            context: what is known of the position.
            may_be_allowed: False beside a live transaction of the exit: a permission is then of no use.

        Raises:
            UnsafeTransactionError: it is no transaction.
            ConfigurationError: as ``SigningGuard.check``.
        """
        guard = self.guard
        permission = None if key is None else self.refusals.take_permission(key)
        case = Case(guard, wallet, mint, key, permission if may_be_allowed else None)
        if guard is None:
            case.finish(None)
            return case
        judge = partial(guard.judge, transaction, wallet=wallet, request=request, context=context)
        judgement = judge(reads_tables=False)
        if guard.lacks_tables(judgement):
            try:
                guard.run_aside(partial(self._judge_aside, case, guard, judge))
            except (RuntimeError, MemoryError) as error:
                case.fail(ConcurrencyError(f"{NO_THREAD}: {error or 'out of memory'}"))
        else:
            self._simulate(case, guard, judgement)
        return case

    def _judge_aside(self, case: Case, guard: SigningGuard, judge: Callable[[], Judgement]) -> None:
        try:
            self._simulate(case, guard, judge())
        except BaseException as error:  # noqa: BLE001 - for whoever decides; a Rust panic is none of Exception
            case.fail(as_exception(error))

    def _simulate(self, case: Case, guard: SigningGuard, judgement: Judgement) -> None:
        # What the user allows, or report mode signs, is simulated all the same.
        is_open = self.mode == REPORT or not self._broken(judgement, case.allowed)
        if is_open and guard.needs_simulation(judgement._replace(offences=[])):
            guard.simulate(judgement, case.finish)
        else:
            case.finish(judgement)

    def decide(self, case: Case, *, is_dry_run: bool) -> CheckedTransaction | None:
        """The transaction, if it may be signed; None without a guard.

        Args:
            case: one that is ready.
            is_dry_run: nothing is spent.

        Raises:
            UnsafeTransactionError: it must not be signed; shows every broken rule.
        """
        judgement, guard = case.judgement(), case.guard
        if guard is None or judgement is None:
            return None
        spending, exceeded = self._budgets.claim(guard.costs(judgement)) if self._budgets.are_set else (None, [])
        try:
            would_be_refused = self._decide(self._broken(judgement, case.allowed, exceeded), judgement)
        except UnsafeTransactionError:
            if spending is not None:
                self._budgets.release(spending)
            raise
        if spending is not None:
            (self._budgets.release if is_dry_run else self._budgets.record)(spending)
        if would_be_refused is not None:
            self._report(case.key, case.wallet, case.mint, would_be_refused, was_signed=not is_dry_run)
        return judgement.checked

    @staticmethod
    def _broken(
        judgement: Judgement, allowed: Permission | None, exceeded: Sequence[BrokenRule] = ()
    ) -> list[BrokenRule]:
        """Every broken rule that the user has not allowed."""
        broken = [*(broken_rule(*offence) for offence in judgement.offences), *exceeded]
        return broken if allowed is None else [each for each in broken if not allowed.covers(each)]

    def _decide(self, offences: list[BrokenRule], judgement: Judgement) -> UnsafeTransactionError | None:
        """What report mode only reports.

        Raises:
            UnsafeTransactionError: what is refused.
        """
        if not offences:
            return None
        error = UnsafeTransactionError.of(offences)
        if self.mode == ENFORCE or any(map(_is_kept(judgement), offences)):
            raise error
        return error

    def _report(
        self, key: ExitKey | None, wallet: str, mint: str, error: UnsafeTransactionError, *, was_signed: bool
    ) -> None:
        log.warning("%s: the guard would refuse what report mode signs: %s", key or f"purchase of {mint}", error)
        now_ms = time.time_ns() // 1_000_000
        self._on_refused(
            Refusal(key=key, wallet=wallet, mint=mint, error=error, refused_at_ms=now_ms, was_signed=was_signed)
        )


def _is_kept(judgement: Judgement) -> Callable[[BrokenRule], bool]:
    """Whether report mode refuses an offence, too."""
    kept = {rule.name for rule, _ in judgement.offences if rule.is_kept_in_report_mode}
    return lambda offence: offence.is_final or offence.rule in kept or offence.rule in HourlyBudgets.RULES


# ── What ``pause`` waits for: after it returns, nothing that was begun before still signs, sends or asks ────────────


class PauseBarrier:
    """Lets acts happen one beside the other, or none.

    An act is what a pause must not fall into: signing with the record and the first copy behind it, or a question to
    the REST API.

    Threads: every method from any. A thread that pauses in an act of its own does not wait for that one.
    """

    def __init__(self) -> None:
        # Guards everything below.
        self._state = threading.Condition(signal_safe_lock())
        self._is_paused = False
        #: How many acts each thread is in.
        self._acting: Counter[int] = Counter()

    @property
    def is_paused(self) -> bool:
        """Whether nothing may begin."""
        return self._is_paused

    @contextlib.contextmanager
    def act(self) -> Iterator[bool]:
        """An act, for as long as the block runs; False: it may not begin, for all is paused."""
        thread = threading.get_ident()
        with self._state:
            may_begin = not self._is_paused
            if may_begin:
                self._acting[thread] += 1
        try:
            yield may_begin
        finally:
            if may_begin:
                with self._state:
                    self._acting[thread] -= 1
                    if not self._acting[thread]:
                        del self._acting[thread]
                    self._state.notify_all()

    def pause(self, timeout_s: float | None = None) -> bool:
        """Let no act begin, and wait for those under way; False when some still are after ``timeout_s``."""
        own = threading.get_ident()
        with self._state:
            self._is_paused = True
            return self._state.wait_for(lambda: not (self._acting.keys() - {own}), timeout_s)

    def resume(self) -> None:
        """Let acts begin again."""
        with self._state:
            self._is_paused = False
