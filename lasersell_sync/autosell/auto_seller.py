"""The automatic seller: from a session's exit signals to landed sales."""

from __future__ import annotations

import logging
import os
import time
import traceback
from collections import Counter
from collections.abc import Callable, Container, Hashable, Iterable
from concurrent.futures import Future
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from lasersell_sync.autosell.exit_key import ExitKey, part_of
from lasersell_sync.autosell.journal import ExitRecord, Journal
from lasersell_sync.autosell.keyed_executor import KeyedExecutor
from lasersell_sync.autosell.legs import LegPlan, LegsReport, sell_in_legs
from lasersell_sync.autosell.mirror_buys import MirrorBuyer
from lasersell_sync.autosell.position_seller import PositionId, PositionSeller
from lasersell_sync.autosell.position_state import HeldTokens
from lasersell_sync.autosell.questions import ExitApi, Questions
from lasersell_sync.autosell.reports import BuyReport, Refusal, Refusals, SellReport
from lasersell_sync.autosell.sale import report_of
from lasersell_sync.autosell.seller_health import seller_concerns, warm_up
from lasersell_sync.autosell.services import PositionFacts, SellPolicy, SellTerms, Services
from lasersell_sync.autosell.signing_gate import (
    ENFORCE,
    GUARD_MODES,
    HourlyBudgets,
    HourlyLimits,
    PauseBarrier,
    SigningGate,
)
from lasersell_sync.exceptions import ConcurrencyError, ConfigurationError, JournalError
from lasersell_sync.messages import (
    BalanceUpdate,
    ExitSignalWithTx,
    MarketContext,
    MirrorBuySignal,
    PositionClosed,
    PositionOpened,
)
from lasersell_sync.positions import PositionHandle
from lasersell_sync.quotes import quote_currency_of
from lasersell_sync.runtime.callback_executor import Call, CallbackExecutor
from lasersell_sync.runtime.fork_guard import ProcessGuard, refuse_late_patching
from lasersell_sync.runtime.locks import CallsUnderWay, signal_safe_lock, under_way
from lasersell_sync.runtime.log import logger, shorten, without_secrets
from lasersell_sync.runtime.timeouts import TimeBudget
from lasersell_sync.session.events import StreamEvent
from lasersell_sync.session.health import Concern
from lasersell_sync.session.stream_session import StreamSession
from lasersell_sync.stream.lifecycle import ConnectionState
from lasersell_sync.trading.guard import SigningGuard
from lasersell_sync.trading.guard.addresses import require_address, to_text, token_account
from lasersell_sync.trading.keys.signer import DEFAULT_GUARD, Signer
from lasersell_sync.trading.rest.tx_requests import SellOutput
from lasersell_sync.trading.sending.outcome import SellOutcome
from lasersell_sync.trading.sending.tips import minimum_tip_lamports, send_mode_warnings
from lasersell_sync.trading.sending.tx_sender import TxSender

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["AutoSeller"]

log = logger("autosell")

#: Of one word of the server that ends in an error that nobody thought of.
_TRIES: Final = 2
_NOT_STARTED: Final = (
    "an AutoSeller was made and not started: it sells nothing. Call seller.start(), or use it in a with statement"
)
#: Older proceeds are no price.
_NEWEST_PROCEEDS_MS: Final = 10_000
#: What the wallets hold is asked again after so long.
_FUNDS_S: Final = 30.0
_FUNDS_LINE: Final = ("funds",)
#: An ``ExitApi`` of the user's may take any time; those of ours end long before.
_PAUSE_S: Final = 30.0
_IN_SESSION: Final = (ConnectionState.LIVE, ConnectionState.STALE)


class AutoSeller:
    """Sells what a session signals: journal, guard, sign, send, confirm, report.

    At most one transaction of an exit is live. The session is heard beside its consumer. Exits of one position are sold
    one after the other, those of different positions side by side. An exit is finished when its transaction is
    confirmed, or when it is given up; a killed process takes unfinished ones up at its next start, by the journal and
    the chain, before it sells anything else of those positions. See docs/selling.md.

    Args:
        session: whose signals are followed. Signals that came before ``start`` are followed too, as far as the session
            remembers them (its latest 1 024 events).
        signers: one for each wallet that is sold for; a signal for another wallet is reported ``REJECTED``.
        sender: sends and confirms. It stays the caller's, who closes it after the seller.
        journal: the record, or its path. One that is given stays the caller's.
        guard: as for ``Signer.sign``. None: everything is signed, and each time a warning is logged. Assigning
            ``seller.guard`` replaces it while the seller runs.
        guard_mode: ``enforce``, or ``report``: what the guard refuses is signed and reported (``on_refused``). What no
            sale needs, caps, budgets, and what this wallet cannot sign alone are refused in both.
        policy: how an exit is pursued.
        exit_api: builds sales of a part of a position (ladder levels, legs) anew when their transaction is dead;
            without it such exits are given up then, because what the stream builds anew is always a sale of everything.
        mirror_buys: follow ``mirror_buy_signal`` too. The guard then needs ``max_buy_lamports``,
            ``max_buy_usd1_units`` or ``max_buy_usdc_units``.
        sell_unannounced: sell positions, too, that no link of the session announced and the journal does not have.
            False: their exit waits ``resync_grace_s`` for the announcement, and is refused then.
        never_sell: mints that are never sold, base58, in place of the guard's list (SOL, USDC, USDT, USD1).
        max_buys_lamports_per_hour: what all purchases with SOL may cost within an hour; None: no limit.
        max_buys_usd1_units_per_hour: the same for purchases with USD1, in its base units (6 decimals).
        max_fees_lamports_per_hour: what network fees, priority fees, tips and partner fees may cost within an hour. It
            stops exits, too: no more is signed until an hour has passed. None: no limit.
        dry_run: nothing is signed for the chain, sent or recorded; each signal is reported with what the guard says.
        workers: threads. They compute and wait for no peer: more than two contend for the interpreter lock.

    Threads: every method from any thread. Owns ``lasersell-autosell-N`` and ``lasersell-autosell-calls``;
        callbacks run on the latter, one after the other.

    Raises:
        ConcurrencyError: gevent or eventlet came too late.
        ConfigurationError: no signer, two for one wallet, not a number of workers, purchases without a cap, or an
            argument of another kind.
        JournalError: the journal cannot be opened.
    """

    def __init__(
        self,
        session: StreamSession,
        signers: Signer | Iterable[Signer],
        *,
        sender: TxSender,
        journal: Journal | str | os.PathLike[str],
        guard: SigningGuard | None = DEFAULT_GUARD,
        policy: SellPolicy | None = None,
        exit_api: ExitApi | None = None,
        guard_mode: str = ENFORCE,
        mirror_buys: bool = False,
        sell_unannounced: bool = False,
        never_sell: Iterable[str] | None = None,
        max_buys_lamports_per_hour: int | None = None,
        max_buys_usd1_units_per_hour: int | None = None,
        max_fees_lamports_per_hour: int | None = None,
        dry_run: bool = False,
        workers: int = 2,
    ) -> None:
        refuse_late_patching()
        if isinstance(workers, bool) or not isinstance(workers, int) or not 1 <= workers <= 256:
            raise ConfigurationError("workers", "a whole number from 1 to 256 is needed")
        _require_parts(session, sender, guard, policy, exit_api)
        self._session = session
        self._sender = sender
        self._guard = ProcessGuard("automatic seller")
        self._follows_buys = mirror_buys
        self._require_cap(guard)
        if guard is not None:
            guard.load()  # a wrong layout file is reported now, and not at the first exit
        terms = SellTerms(
            sell_unannounced=sell_unannounced,
            never_sell=None if never_sell is None else _addresses("never_sell", never_sell),
            announcement_grace_s=session.connection.options.resync_grace_s,
            minimum_tip_lamports=max(
                (minimum_tip_lamports(target) or 0 for target in getattr(sender, "targets", ())), default=0
            ),
        )
        limits = HourlyLimits(
            max_buys_lamports_per_hour=max_buys_lamports_per_hour,
            max_buys_usd1_units_per_hour=max_buys_usd1_units_per_hour,
            max_fees_lamports_per_hour=max_fees_lamports_per_hour,
        )
        _require("guard_mode", guard_mode, guard_mode in GUARD_MODES, "'enforce' or guard_mode='report'")
        by_wallet = _by_wallet(signers)
        if isinstance(journal, Journal) and not dry_run:
            self._journal, self._own_journal = journal, None
        else:
            path = ":memory:" if dry_run or isinstance(journal, Journal) else journal
            self._journal = self._own_journal = Journal(path)
        # Guards the callbacks, the life, and the table of positions.
        self._lock = signal_safe_lock()
        self._calls_under_way = CallsUnderWay()
        self._is_started = False
        self._is_closed = False
        #: What the session remembered when the seller was started was heard.
        self._is_caught_up = False
        self._started_ns = 0
        self._positions: dict[PositionId, PositionSeller] = {}
        #: Of legs that are being sold; cancelled when nobody will set them any more.
        self._leg_ends: set[Future[SellReport]] = set()
        self._on_outcome: tuple[Callable[[SellReport], object], ...] = ()
        self._on_buy: tuple[Callable[[BuyReport], object], ...] = ()
        self._on_refused: tuple[Callable[[Refusal], object], ...] = ()
        self._on_problem: tuple[Callable[[Exception], object], ...] = ()
        self._barrier = PauseBarrier()
        self._questions = Questions(sender, exit_api, self._barrier)
        self._stop_hearing: Callable[[], None] = _nothing
        self._stop_reporting: Callable[[], None] = _nothing
        self._executor = KeyedExecutor(workers, self._troubled)
        self._callbacks = CallbackExecutor("lasersell-autosell-calls", log)
        budgets = HourlyBudgets(limits, self._journal)
        #: Of positions of our wallets, base58; only ever grows, so that a transaction cannot name one of them unseen.
        self._token_accounts: set[str] = set()
        self._given_guard = guard
        #: Wallets of which it was said that they hold much.
        self._warned_of: set[str] = set()
        self._gate = SigningGate(self._with_nodes(guard), guard_mode, Refusals(), budgets, self._report_refusal)
        self._stream = _Stream(session)
        self._services = Services(
            stream=self._stream,
            sender=sender,
            journal=self._journal,
            signers=by_wallet,
            gate=self._gate,
            policy=policy or SellPolicy(),
            can_build=exit_api is not None,
            questions=self._questions,
            executor=self._executor,
            barrier=self._barrier,
            is_dry_run=dry_run,
            report_sale=self._report_sale,
            report_buy=self._report_buy,
            report_problem=self._report_problem,
            report_refusal=self._report_refusal,
            terms=terms,
            token_accounts=self._token_accounts,
        )
        self._mirror = MirrorBuyer(self._services)
        self._not_waited_for: Callable[[], None] = session.expect_start(_NOT_STARTED)
        self._hears: dict[type, Callable[[Any, StreamEvent], None]] = {
            ExitSignalWithTx: self._hear_exit,
            PositionOpened: self._hear_opened,
            PositionClosed: self._hear_closed,
            BalanceUpdate: self._hear_balance,
            MirrorBuySignal: self._hear_buy,
        }

    # ── life ─────────────────────────────────────────────────────────────────────────────────────────────────────

    @under_way
    def start(self) -> Self:
        """Take up what an earlier process left unfinished, then follow the session; returns at once.

        A thread in the background opens connections and rehearses a sale up to the send, so that the first sale takes
        no longer than later ones. A dry run does without it.

        Raises:
            ConcurrencyError: it was started before, or closed.
            ForkedProcessError: in a forked child.
            JournalError: the journal cannot be read.
        """
        self._guard.check()
        with self._lock:
            if self._is_started or self._is_closed:
                raise ConcurrencyError("an AutoSeller is started once: make a new one")
            self._is_started = True
        self._not_waited_for()
        self._warn_of_the_send_mode()
        self._token_accounts.update(handle.token_account for handle in self._session.positions())
        self._warn_without_nodes()
        self._ask_for_funds_again()
        try:
            self._executor.start()
        except ConcurrencyError:
            with self._lock:
                self._is_started = False
            raise
        self._stop_reporting = self._session.report_health(self._concerns)
        self._started_ns = time.monotonic_ns()
        self._take_up()
        self._stop_hearing = self._session.tap(self._hear, caught_up=self._caught_up)
        if isinstance(self._sender, TxSender) and not self._services.is_dry_run:
            warm_up(self._sender, self._services.signers.values(), self._gate.guard, self._journal)
        return self

    def _concerns(self) -> list[Concern]:
        """For ``session.health()``."""
        with self._lock:
            positions = list(self._positions.values())
        return seller_concerns(
            is_paused=self.is_paused,
            take_ups=[take_up for position in positions if (take_up := position.take_up) is not None],
            undecided=self._sender.undecided() if isinstance(self._sender, TxSender) else (),
            held_back_purchases=self._services.under_way.waiting(),
            callbacks=self._callbacks,
        )

    def _caught_up(self) -> None:
        """On the reader: exits of before may go on, for whatever ended them since was heard."""
        with self._lock:
            self._is_caught_up = True
            positions = list(self._positions.items())
        for line, position in positions:
            self._executor.put(line, partial(position.do, position.caught_up))

    def _warn_of_the_send_mode(self) -> None:
        if isinstance(self._sender, TxSender):
            connection = self._session.connection
            for warning in send_mode_warnings(self._sender.targets, connection.send_mode, connection.tip_lamports):
                log.warning("%s", warning)

    def _take_up(self) -> None:
        """Put what is unfinished first into the lines of its positions."""
        for record in self._journal.unreported():
            self._executor.put(_line_of(record.key), partial(self._report_again, record))
        unfinished = Counter(_line_of(record.key) for record in self._journal.unfinished())
        for line, count in unfinished.items():
            log.info("token account %s: %d unfinished exits are taken up", line[1], count)
            position = self._at(line)
            position.expect_restore()
            self._executor.put(line, position.restore)
        for buy in self._journal.buys(to_do=True):
            self._executor.put(self._mirror.line_of(buy.wallet, buy.mint), partial(self._mirror.restore, buy))

    def close(self, timeout: float | None = 5.0) -> None:
        """Follow nothing more. What may still land is reported ``UNKNOWN``; the journal knows how to go on.

        Idempotent, from any thread, also from a callback. In a signal handler that interrupted a call of this seller it
        waits for nothing: the seller ends when that call returns. A forked child does nothing here: the sales are the
        parent's.

        Args:
            timeout: seconds to wait for callbacks that run; one that still does is named in a warning and left behind.
        """
        if self._guard.is_child:
            if self._own_journal is not None:
                self._own_journal.close()  # of a child: its copies of the descriptors
            return
        self._calls_under_way.close(partial(self._close, timeout), log)

    def _close(self, timeout: float | None) -> None:
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
        self._not_waited_for()
        self._stop_hearing()
        self._stop_reporting()
        budget = TimeBudget(timeout)
        stuck = self._executor.close(budget.remaining_s())
        # What is signed is written down and sent; after that, nothing is sent for the first time.
        self._journal.wait_written(budget.remaining_s())
        self._barrier.pause(budget.remaining_s())
        self._questions.close()
        if self._gate.guard is not None:
            self._gate.guard.close()
        if stuck:
            log.warning("still busy %s s after close(), and left behind: %s", timeout, ", ".join(stuck))
        for position in list(self._positions.values()):
            for sale in position.live_sales:
                report = position.unknown(sale)
                log.warning("%s: %s %s", report.key, report.outcome.value, report.detail)
                self._tell_user(self._on_outcome, report)
        for end in list(self._leg_ends):
            end.cancel()
        self._callbacks.close()
        if running := self._callbacks.wait_closed(budget.remaining_s()):
            log.warning("still running %s s after close(), and left behind: %s", timeout, running)
        if self._own_journal is not None and not stuck:
            self._own_journal.close()

    def __enter__(self) -> Self:
        return self if self._is_started else self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @under_way
    def pause(self) -> None:
        """Sign nothing, send nothing for the first time, and ask nothing of the REST API until ``resume()``.

        What was sent is still followed and sent again, and what is signalled waits. It returns when what was begun
        before has ended: a commit of the journal, or an answer of the REST API. Threads: any.
        """
        if not self._barrier.pause(_PAUSE_S):
            log.warning("a request to the REST API that began before pause() is still under way after %g s", _PAUSE_S)

    @under_way
    def resume(self) -> None:
        """Go on; signals that waited too long get a fresh transaction first."""
        self._barrier.resume()
        for line, position in list(self._positions.items()):
            self._executor.put(line, partial(position.do, position.unpaused))

    @property
    def is_paused(self) -> bool:
        """Whether ``pause`` was called last."""
        return self._barrier.is_paused

    # ── what the guard refuses ───────────────────────────────────────────────────────────────────────────────────

    @property
    def guard(self) -> SigningGuard | None:
        """Who decides. Assign another one at any time, on any thread: the next transaction is judged by it.

        Raises:
            ConfigurationError: not a guard; or one without a cap, and purchases are copied.
        """
        return self._given_guard

    @guard.setter
    @under_way
    def guard(self, guard: SigningGuard | None) -> None:
        _require("guard", guard, guard is None or isinstance(guard, SigningGuard), "SigningGuard(...)")
        self._require_cap(guard)
        if guard is not None:
            guard.load()  # a wrong layout file is reported now, and not at the first exit
        before, self._given_guard = self._gate.guard, guard
        self._gate.guard = self._with_nodes(guard)
        if before is not None and before is not self._gate.guard:
            before.close()
        if self._is_started:
            self._warn_without_nodes()
            self._ask_for_funds()

    def _with_nodes(self, guard: SigningGuard | None) -> SigningGuard | None:
        """With the nodes of the sender, where the guard has none of its own."""
        rpcs = self._sender.rpcs if isinstance(self._sender, TxSender) else ()
        return guard.with_rpc(rpcs) if guard is not None and not guard.rpc and rpcs else guard

    def _ask_for_funds(self) -> None:
        """What the wallets hold decides on sales that no node can simulate; asked again while the seller runs."""
        guard = self._gate.guard
        if guard is None:
            return
        for wallet in self._services.signers:
            guard.learn_funds(wallet, partial(self._warn_of_funds, guard, wallet))

    def _warn_without_nodes(self) -> None:
        guard = self._gate.guard
        if guard is not None and guard.wants_nodes:
            log.warning(
                "nothing that goes through a program of unknown layout, such as the LaserSell Router, is sold: no node "
                "can simulate it. Write guard=SigningGuard(rpc='https://...')"
            )

    def _ask_for_funds_again(self) -> None:
        self._ask_for_funds()
        self._executor.put_later(_FUNDS_LINE, _FUNDS_S, self._ask_for_funds_again)

    def _warn_of_funds(self, guard: SigningGuard, wallet: str) -> None:
        """On a thread of the guard's."""
        known, limit = guard.known_lamports(wallet), guard.max_unsimulated_lamports
        if known is None or known <= limit or wallet in self._warned_of:
            return
        self._warned_of.add(wallet)
        log.warning(
            "%s holds %d lamports, more than max_unsimulated_lamports=%d: while no node can simulate them, its exits "
            "through the service's Router wait in seller.refused()",
            wallet, known, limit,
        )  # fmt: skip

    def _require_cap(self, guard: SigningGuard | None) -> None:
        if self._follows_buys and (guard is None or not guard.caps_purchases):
            raise ConfigurationError(
                "mirror_buys", "purchases are to be copied, and nothing caps what one may cost. "
                "Write guard=SigningGuard(max_buy_lamports=...), max_buy_usd1_units=... for USD1, or "
                "usdc_quotes=True with max_buy_usdc_units=... for USDC",
            )  # fmt: skip

    def refused(self) -> list[Refusal]:
        """Exits that the guard refuses and that could still be sold, oldest first.

        A new signal for one of them has its own chance; ``allow_once`` decides now; ``seller.guard = …`` for all.
        """
        return self._gate.refusals.all()

    @under_way
    def allow_once(self, key: ExitKey) -> None:
        """Let the next transaction of a refused exit break the rules that its refusal reported.

        Only those rules, for the same accounts and programs, with at most those amounts; once, in this process. It is
        written to the journal. A transaction of the refused exit that is young enough is signed; otherwise a fresh one
        is asked for.

        Args:
            key: ``refusal.key`` of one that ``refused()`` lists.

        Raises:
            ConfigurationError: no exit of this key is refused, or it is refused for what no sale needs.
            ConcurrencyError: a transaction of this exit may still land.
        """
        self._guard.check()
        position = self._positions.get((key.wallet, key.token_account))
        if position is not None and any(sale.key == key and sale.live for sale in position.live_sales):
            raise ConcurrencyError(f"a transaction of {key} may still land: wait for its outcome")
        refusal = self._gate.refusals.allow_once(key)
        log.warning("%s: the user allows once: %s", key, refusal.error)
        self._in_line(_line_of(key), lambda position: position.allowed(key))

    def on_refused(self, callback: Callable[[Refusal], object]) -> Callable[[Refusal], object]:
        """Call ``callback(refusal)`` when the guard refuses an exit, or would have done so in report mode.

        Also a decorator. Called before ``on_outcome``; ``allow_once`` may be called in it.

        Args:
            callback: runs on ``lasersell-autosell-calls``, behind earlier ones and with no lock held. What it raises is
                logged.
        """
        with self._lock:
            self._on_refused = (*self._on_refused, callback)
        return callback

    def _report_refusal(self, refusal: Refusal) -> None:
        self._tell_user(self._on_refused, refusal)

    @under_way
    def sell_in_legs(
        self, handle: PositionHandle, plan: LegPlan, *, output: SellOutput | str | None = None
    ) -> LegsReport:
        """Sell a position piece by piece: what the slippage bands absorb, wait for the balance, and again.

        Each leg is an exit of its own, recorded and guarded as all are; a signal for the position (a stop loss) has its
        turn between two legs. A leg that is proven dead is not repeated: the next one is smaller. Nothing is sold
        before the first liquidity snapshot came; tier 0 gets none (docs/protocol.md 8).

        Args:
            handle: the position.
            plan: how.
            output: what its market pays in, ``SOL`` or ``USD1``; None finds out.

        Returns:
            What came of it; all legs that were sent are settled by then, unless the seller was closed.

        Raises:
            ConfigurationError: there is no ``exit_api``, or no signer for the wallet.
            ConcurrencyError: called on one of the seller's own threads (in a callback), which it would block; or the
                seller does not run.

        Threads: any but the seller's own; blocks for as long as it takes.
        """
        self._guard.check()
        if not self._services.can_build:
            raise ConfigurationError("exit_api", "legs are built by AutoSeller(exit_api=ExitApiClient(...))")
        if handle.wallet_pubkey not in self._services.signers:
            raise ConfigurationError("handle", f"there is no signer for its wallet {handle.wallet_pubkey}")
        if self._executor.is_worker() or self._callbacks.is_current():
            raise ConcurrencyError("selling in legs waits for results: not in a callback, start a thread for it")
        if not self._is_started or self._is_closed:
            raise ConcurrencyError("the seller does not run: start() comes first, and nothing after close()")
        pays = None if output is None else SellOutput(output)

        def sell(name: str, tokens: int) -> Future[SellReport]:
            end: Future[SellReport] = Future()
            with self._lock:
                if self._is_closed:
                    end.cancel()
                self._leg_ends.add(end)
            self._in_line(
                (handle.wallet_pubkey, handle.token_account),
                lambda position: position.sell_leg(
                    name,
                    handle.mint,
                    position_id=handle.position_id,
                    tokens=tokens,
                    slippage_bps=plan.slippage_bps,
                    pays=pays,
                    on_end=end.set_result,
                ),
            )
            end.add_done_callback(self._leg_ends.discard)
            return end

        return sell_in_legs(self._session, handle, plan, sell)

    # ── what the user hears ──────────────────────────────────────────────────────────────────────────────────────

    def on_outcome(self, callback: Callable[[SellReport], object]) -> Callable[[SellReport], object]:
        """Call ``callback(report)`` when an exit ends; also a decorator.

        After the death of a process, an outcome that may not have been told is told again by the next one: at least
        once, never not at all. An exit that was given up and is signalled again ends, and is told, again.

        Args:
            callback: runs on ``lasersell-autosell-calls``, behind earlier ones and with no lock held. What it raises is
                logged, and selling does not wait for it.
        """
        with self._lock:
            self._on_outcome = (*self._on_outcome, callback)
        return callback

    def on_mirror_buy(self, callback: Callable[[BuyReport], object]) -> Callable[[BuyReport], object]:
        """As ``on_outcome``, for copied purchases."""
        with self._lock:
            self._on_buy = (*self._on_buy, callback)
        return callback

    def on_problem(self, callback: Callable[[Exception], object]) -> Callable[[Exception], object]:
        """Call ``callback(error)`` when something keeps exits waiting that should not.

        A ``JournalError``, once a second for as long as the journal refuses to be written: without a record nothing is
        sold. A ``TxSubmitError`` of kind ``confirm_timeout``, each minute in which no node proves what became of a
        transaction: ``detail`` names what is missing. One of kind ``late_landing`` when a transaction landed after the
        nodes had called it dead: a node was wrong, and its replacement may have sold twice. Anything else is an error
        in this library or in what it was given; the exits are taken up again by the journal and the chain, as after a
        restart, a second later, and then at growing intervals up to half a minute.
        """
        with self._lock:
            self._on_problem = (*self._on_problem, callback)
        return callback

    def _report_sale(self, report: SellReport, exit_id: int) -> None:
        log.log(_level_of(report), "%s: %s %s", report.key, report.outcome.value, report.detail)
        self._tell_user(self._on_outcome, report, then=partial(self._reported, report, exit_id))

    def _reported(self, report: SellReport, exit_id: int) -> None:
        """Behind the callbacks: what was not called before a process died is called by the next one."""
        try:
            self._journal.reported(exit_id)
        except JournalError as error:
            log.warning("%s was reported, which the journal does not know; it is reported again: %s", report.key, error)

    def _report_buy(self, report: BuyReport) -> None:
        log.log(_level_of(report), "purchase of %s: %s %s", report.mint, report.outcome.value, report.detail)
        self._tell_user(self._on_buy, report)

    def _report_problem(self, error: Exception) -> None:
        log.warning("%s", error)
        self._tell_user(self._on_problem, error)

    def _report_again(self, record: ExitRecord) -> None:
        self._report_sale(report_of(record), record.id)

    def _troubled(self, line: Hashable, error: Exception) -> None:
        if isinstance(error, JournalError):
            log.error("exits wait for the journal: %s", error)
        else:
            # Whoever raised it may quote a transaction: such words are left out here. The user is handed all of it.
            where = "".join(traceback.format_tb(error.__traceback__))
            words = shorten(without_secrets(f"{type(error).__name__}: {error}"))
            log.error("%s: %s. It is taken up again. Where it was raised:\n%s", self._name(line), words, where)
        self._tell_user(self._on_problem, error)

    def _name(self, line: Hashable) -> str:
        """What a line is about, in words."""
        position = self._positions.get(line)  # type: ignore[call-overload]
        exits = [] if position is None else [str(sale.key) for sale in position.live_sales]
        return ", ".join(exits) or f"line {line}"

    def _tell_user(
        self, callbacks: tuple[Callable[[Any], object], ...], told: object, *, then: Callable[[], None] | None = None
    ) -> None:
        """Have the callbacks called on a thread of their own, in order: selling waits for none of them."""
        calls: list[Call] = [(partial(callback, told), f"the callback {callback!r}") for callback in callbacks]
        self._callbacks.run(calls if then is None else [*calls, (then, "noting what was reported")])

    # ── what the session says: on the reader ─────────────────────────────────────────────────────────────────────

    def _hear(self, event: StreamEvent) -> None:
        hears = self._hears.get(type(event.message))
        if hears is not None:
            hears(event.message, event)

    def _hear_exit(self, signal: ExitSignalWithTx, event: StreamEvent) -> None:
        if signal.watched:
            return  # somebody else's position
        account = _account_of(signal, event.handle)
        if account is None:
            self._executor.put((signal.wallet_pubkey, ""), partial(self._refuse_nameless, signal))
            return
        received_ns = event.received_ns
        is_remembered = received_ns < self._started_ns
        self._in_line(
            (signal.wallet_pubkey, account),
            lambda position: position.signalled(signal, received_ns, is_remembered=is_remembered),
            is_urgent=True,
        )

    def _hear_balance(self, message: BalanceUpdate, event: StreamEvent) -> None:
        account = message.token_account or (None if event.handle is None else event.handle.token_account)
        if account is not None and message.wallet_pubkey in self._services.signers:
            self._stream.saw((message.wallet_pubkey, account), message.slot)

    def _hear_opened(self, message: PositionOpened, _event: StreamEvent) -> None:
        if not message.watched and message.wallet_pubkey in self._services.signers:
            self._token_accounts.add(message.token_account)
            self._stream.saw((message.wallet_pubkey, message.token_account), message.slot)
            self._in_line(
                (message.wallet_pubkey, message.token_account),
                lambda position: position.opened(
                    message.mint,
                    message.entry_quote_units,
                    message.opened_at_ms,
                    message.slot,
                    quote_currency=quote_currency_of(message.market_context),
                    announcement=message,
                ),
            )

    def _hear_closed(self, message: PositionClosed, event: StreamEvent) -> None:
        account = message.token_account or (None if event.handle is None else event.handle.token_account)
        if account is not None and not message.watched and message.wallet_pubkey in self._services.signers:
            self._in_line((message.wallet_pubkey, account), lambda position: position.closed())

    def _hear_buy(self, signal: MirrorBuySignal, event: StreamEvent) -> None:
        if self._follows_buys:
            line = self._mirror.line_of(signal.user_wallet, signal.mint)
            self._executor.put(line, partial(self._mirror.signalled, signal, event.received_ns))

    # ── lines ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _in_line(self, line: PositionId, task: Callable[[PositionSeller], None], *, is_urgent: bool = False) -> None:
        left = _TRIES

        def run() -> None:
            nonlocal left
            position = self._at(line)
            position.clear_up()
            if left:
                try:
                    position.do(partial(task, position))
                except JournalError:
                    raise
                except BaseException:
                    left -= 1
                    raise
            else:
                # It seems to be this task's fault, and others wait behind it.
                log.error("token account %s: what was told is not followed, after %d tries", line[1], _TRIES)
            if position.is_idle:
                with self._lock:
                    self._positions.pop(line, None)

        self._executor.put(line, run, is_urgent=is_urgent)

    def _at(self, line: PositionId) -> PositionSeller:
        with self._lock:
            position = self._positions.get(line)
            if position is None:
                position = PositionSeller(*line, self._services, is_catching_up=not self._is_caught_up)
                self._positions[line] = position
            return position

    def _refuse_nameless(self, signal: ExitSignalWithTx) -> None:
        key = ExitKey(signal.wallet_pubkey, "", signal.mint, part_of(signal), 0)
        detail = "the signal names no token account, no position does, and no token program to derive it from"
        report = SellReport(
            key=key, outcome=SellOutcome.REJECTED, reason=signal.reason, tokens=signal.position_tokens, detail=detail
        )
        log.error("an exit signal of %s is not followed: %s", signal.wallet_pubkey, detail)
        self._tell_user(self._on_outcome, report)


class _Stream:
    """The session, as the rules of selling see it."""

    def __init__(self, session: StreamSession) -> None:
        self._session = session
        self._connection = session.connection
        #: The newest slot at which the server has seen each account. Written by the reader.
        self._seen: dict[PositionId, int] = {}

    def saw(self, account: PositionId, slot: int) -> None:
        """The server has seen a token account at this slot."""
        self._seen[account] = max(slot, self._seen.get(account, 0))

    def seen_slot(self, wallet: str, token_account: str) -> int | None:
        return self._seen.get((wallet, token_account))

    def holds(self, wallet: str, token_account: str, amounts: Container[int]) -> bool:
        handle = self._session.position(wallet, token_account)
        is_new = handle is not None and not handle.stale and self._session.status is ConnectionState.LIVE
        return handle is not None and is_new and handle.tokens in amounts

    def announcement(self, wallet: str, token_account: str) -> PositionOpened | None:
        handle = self._session.position(wallet, token_account)
        if handle is None or handle.watched:
            return None
        market = None if handle.market_type is None else MarketContext(market_type=handle.market_type)
        return PositionOpened(
            position_id=handle.position_id, wallet_pubkey=wallet, mint=handle.mint, token_account=token_account,
            tokens=handle.tokens, entry_quote_units=handle.entry_quote_units, market_context=market, slot=handle.slot,
        )  # fmt: skip

    def position_facts(self, wallet: str, token_account: str) -> PositionFacts:
        handle = self._session.position(wallet, token_account)
        if handle is None:
            return PositionFacts(None, None)
        update, now_ms = self._session.pnl(handle), self._connection.server_time_ms()
        is_new = update is not None and now_ms is not None and now_ms - update.server_time_ms <= _NEWEST_PROCEEDS_MS
        return PositionFacts(handle.tokens, update.proceeds_units if update is not None and is_new else None)

    def watch_tokens(self, wallet: str, token_account: str) -> HeldTokens:
        return HeldTokens(self._session, wallet, token_account)

    def ask_for_exit(self, token_account: str, slippage_bps: int) -> None:
        self._session.sender().request_exit_signal(token_account, slippage_bps)

    def tell_bought(self, mint: str, *, success: bool) -> None:
        self._session.sender().mirror_buy_result(mint, success)

    def server_time_ms(self) -> float | None:
        return self._connection.server_time_ms()

    @property
    def is_linked(self) -> bool:
        return self._session.status in _IN_SESSION

    @property
    def send_mode(self) -> str | None:
        return self._connection.send_mode

    @property
    def tip_lamports(self) -> int | None:
        return self._connection.tip_lamports


def _addresses(field: str, values: Iterable[str]) -> frozenset[bytes]:
    _require(field, values, not isinstance(values, str), "['mint', ...]")
    return frozenset(require_address(field, value) for value in values)


def _require_parts(session: object, sender: object, guard: object, policy: object, exit_api: object) -> None:
    """Each argument is what it should be: a mistake must not wait for the first exit signal."""
    _require("session", session, isinstance(session, StreamSession), "StreamSession.connect(client, configure)")
    _require(
        "sender",
        sender,
        _has(sender, "submit_for", "track_for", "proven_amounts", "account_history", "ask_blockhash"),
        "TxSender(SendTargetRpc(url))",
    )
    _require("guard", guard, guard is None or isinstance(guard, SigningGuard), "SigningGuard(...)")
    _require("policy", policy, policy is None or isinstance(policy, SellPolicy), "SellPolicy(...)")
    _require("exit_api", exit_api, exit_api is None or _has(exit_api, "build_sell_tx"), "ExitApiClient(api_key)")


def _has(value: object, *methods: str) -> bool:
    return not isinstance(value, type) and all(callable(getattr(value, name, None)) for name in methods)


def _require(field: str, value: object, is_right: bool, remedy: str) -> None:  # noqa: FBT001 - a condition
    if not is_right:
        shown = f"the class {value.__name__}" if isinstance(value, type) else f"a {type(value).__name__}"
        raise ConfigurationError(field, f"{shown} cannot do this work. Write {field}={remedy}")


def _by_wallet(signers: Signer | Iterable[Signer]) -> dict[str, Signer]:
    listed = [signers] if isinstance(signers, Signer) else list(signers)
    by_wallet: dict[str, Signer] = {}
    for index, signer in enumerate(listed):
        if not isinstance(signer, Signer):
            raise ConfigurationError(f"signers[{index}]", f"a Signer is needed, not a {type(signer).__name__}")
        if signer.wallet in by_wallet:
            raise ConfigurationError(f"signers[{index}]", f"a second one for the wallet {signer.wallet}")
        by_wallet[signer.wallet] = signer
    if not by_wallet:
        raise ConfigurationError("signers", "at least one is needed")
    return by_wallet


def _account_of(signal: ExitSignalWithTx, handle: PositionHandle | None) -> str | None:
    """The token account: the signal's, else the position's, else the wallet's own for this mint; None: unknown."""
    if signal.token_account is not None:
        return signal.token_account
    if handle is not None:
        return handle.token_account
    if signal.token_program is None:
        return None
    try:
        wallet, mint, program = (
            require_address(name, getattr(signal, name)) for name in ("wallet_pubkey", "mint", "token_program")
        )
    except ConfigurationError:
        return None
    return to_text(token_account(wallet, mint, program))


def _level_of(report: SellReport | BuyReport) -> int:
    """Whatever was not sold or bought is a warning: a program without callbacks must see it, too."""
    return logging.INFO if report.outcome is SellOutcome.CONFIRMED or report.is_dry_run else logging.WARNING


def _line_of(key: ExitKey) -> PositionId:
    return (key.wallet, key.token_account)


def _nothing() -> None:
    """No tap to take off."""
