"""What an automatic seller signs: the guard's verdict, report mode, permissions for once, budgets."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from lasersell_sync._log import logger
from lasersell_sync.autosell.budgets import HourlyBudgets
from lasersell_sync.autosell.exits import ExitKey
from lasersell_sync.autosell.refusals import Permission, Refusal, Refusals
from lasersell_sync.exceptions import BrokenRule, ConcurrencyError, ConfigurationError, UnsafeTransactionError
from lasersell_sync.messages import ExitSignalWithTx, MirrorBuySignal
from lasersell_sync.processes import NO_THREAD
from lasersell_sync.trading.build_tx import BuildBuyTxRequest, BuildSellTxRequest, BuildTxResponse
from lasersell_sync.trading.guard import CheckedTransaction, SigningGuard, TradeContext
from lasersell_sync.trading.guard.signing_guard import Judgement, broken_rule
from lasersell_sync.user_code import as_exception

__all__ = ["ENFORCE", "GUARD_MODES", "REPORT", "Case", "SigningGate"]

log = logger("autosell")

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
