"""The rules of selling one position: one exit at a time, at most one live transaction of an exit, nothing signed blind.

An exit goes this way; each arrow that leaves the process is in the journal first::

    signal ─► WAITING ─► guard ─► sign ─► LIVE ─► confirmed ─► FINISHED
                 ▲                          │
                 └── fresh transaction ◄─ ASKING ◄─ proven dead (failed, expired, refused by everyone)

Only what is proven dead is replaced. Whole positions get a fresh transaction from the stream
(``request_exit_signal``); for a part of one that would sell everything, so the REST API builds the same amount anew.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import attrs

from lasersell_sync.autosell.exit_key import LEG, WHOLE, Departure, ExitKey, part_of, tokens_of
from lasersell_sync.autosell.journal import ExitRecord
from lasersell_sync.autosell.keyed_executor import growing_pause_s
from lasersell_sync.autosell.position_state import Announced, TakeUp, overtaken_by
from lasersell_sync.autosell.reports import Refusal, SellReport
from lasersell_sync.autosell.sale import Age, Sale, SaleState, age_of, report_of
from lasersell_sync.autosell.services import Services
from lasersell_sync.autosell.signing_gate import Case
from lasersell_sync.exceptions import (
    ConfigurationError,
    ExitApiError,
    JournalError,
    StreamError,
    TxSubmitError,
    UnsafeTransactionError,
)
from lasersell_sync.messages import ExitSignalWithTx, MarketContext, PositionOpened
from lasersell_sync.quotes import quote_currency_of
from lasersell_sync.runtime.log import logger
from lasersell_sync.runtime.user_code import as_exception
from lasersell_sync.trading.guard.rules.trade import PRICE
from lasersell_sync.trading.guard.simulating import SIMULATION, SIMULATION_FAILS
from lasersell_sync.trading.rest.tx_requests import ASSETS, BuildSellTxRequest, BuildTxResponse, SellOutput
from lasersell_sync.trading.sending.outcome import SellOutcome, TxResult
from lasersell_sync.trading.sending.tracked_tx import Listener
from lasersell_sync.trading.solana.account_history import Finding, Verdict
from lasersell_sync.trading.solana.blockhash_question import BLOCKHASH_WITHIN_S
from lasersell_sync.trading.solana.signing import SignedTx, blockhash_of
from lasersell_sync.trading.solana.token_accounts import AmountProof

__all__ = ["PositionId", "PositionSeller"]

log = logger("autosell")

#: (wallet, token account)
PositionId = tuple[str, str]

#: What could not be written or asked now is tried again after so long.
_TRY_AGAIN_S = 1.0
#: What the guard was shown longer ago is shown to it again.
_EARLY_S = 2.0
#: What the server is asked for is answered within so long, or never.
_ANSWERED_WITHIN_S = 60.0
#: Reasons of exits that somebody asked for (docs/protocol.md 4).
_REQUESTED = frozenset({"manual", "manual_sell", "sell_now", "timeout", "deadline", "deadline_timeout"})
#: The balance after a sale is asked for so often.
_LOOKS_AT_THE_REST = 60
#: Transactions remembered to tell a repeated signal by.
_REMEMBERED_TRANSACTIONS = 1024


class PositionSeller:
    """Everything about the exits of one token account.

    After an exception that nobody thought of nothing is believed that is not in the journal: what was begun before it
    ends without a word, and the exits are taken up again as after a restart.

    Threads: every method in a task of this position's line, so nothing here needs a lock. Tasks that are put from
    outside go through ``do``.
    """

    def __init__(self, wallet: str, token_account: str, services: Services, *, is_catching_up: bool = False) -> None:
        self.id: PositionId = (wallet, token_account)
        self._services = services
        self._generation: int | None = None
        self._is_closed = False
        #: What it cost, by its newest announcement; None: it was not announced to this process.
        self._entry_quote_units: int | None = None
        self._quote_currency: str | None = None
        self._announced = Announced(wallet, token_account, services)
        #: A signal that is judged before its exit is written down, and the guard's case.
        self._early: _Early | None = None
        #: Of refused exits: what is signed if the user allows it soon enough.
        self._refused: dict[ExitKey, tuple[ExitSignalWithTx, int]] = {}
        #: Exits of earlier generations than this have nothing left to sell.
        self._ended_below = 0
        #: The exit that has its turn; the others wait in ``_waiting``, oldest first.
        self._current: Sale | None = None
        self._waiting: dict[ExitKey, Sale] = {}
        #: Exits that the journal has, as far as this process knows.
        self._known: set[ExitKey] = set()
        #: Exits that get no further transaction, while one of theirs may land.
        self._followed: dict[ExitKey, Sale] = {}
        #: What the session remembers is being repeated: nothing is begun before a later close or opening was heard.
        self._is_catching_up = is_catching_up
        #: An earlier process left exits unfinished, which are not loaded yet.
        self._is_restart = False
        self._take_up: TakeUp | None = None
        #: A question for a transaction whose exit has ended since.
        self._unanswered: _Unanswered | None = None
        #: Hashes of transactions that were looked at: a signal with one of them says nothing new.
        self._seen: dict[int, None] = {}
        #: When the latest sale was confirmed, by ``time.monotonic_ns()``: older transactions say a wrong amount.
        self._sold_ns: int | None = None
        #: The exits here may not be what the journal says.
        self._is_in_doubt = False
        #: Rises with each doubt: what was put into the line before is out of date.
        self._life = 0
        #: Since the last exit that was sent or ended.
        self._errors = 0

    def do(self, task: Callable[[], None]) -> None:
        """Run a task of this position, once what an earlier one left in doubt is cleared up.

        Raises:
            JournalError: it waits for the journal; to be run again.
            Exception: anything else; to be run again, unless it is the task's fault.
        """
        self.clear_up()
        try:
            task()
        except JournalError:
            raise
        except BaseException:
            self._is_in_doubt = True
            self._life += 1
            self._errors += 1
            raise

    def clear_up(self) -> None:
        """Take up again by the journal what an error left in doubt; raises as ``do``."""
        if self._is_in_doubt:
            self._reload()

    def _put(self, task: Callable[[], None], *, life: int | None = None) -> None:
        """Into the line; with ``life``, on behalf of that one."""
        self._services.executor.put(self.id, partial(self._do_in, self._life if life is None else life, task))

    def _later(self, delay_s: float, task: Callable[[], None]) -> None:
        self._services.executor.put_later(self.id, delay_s, partial(self._do_in, self._life, task))

    def _do_in(self, life: int, task: Callable[[], None]) -> None:
        # Out of date, it still is an occasion to clear up.
        self.do(task if life == self._life else _nothing)

    @property
    def is_idle(self) -> bool:
        """True when there is nothing to remember that the journal does not know."""
        return self._is_closed and not self.live_sales and not self._is_in_doubt and self._unanswered is None

    @property
    def live_sales(self) -> list[Sale]:
        """Exits that are not finished."""
        current = [] if self._current is None else [self._current]
        return [*current, *self._waiting.values(), *self._followed.values()]

    @property
    def take_up(self) -> TakeUp | None:
        """What an earlier process left, and waits for a proof; None: nothing does."""
        return self._take_up

    def unknown(self, sale: Sale) -> SellReport:
        """What to tell of an exit when the seller closes."""
        detail = "the seller was closed; the journal knows how to go on"
        return self._report(sale, SellOutcome.UNKNOWN, detail, None, None)

    # ── what the stream says ─────────────────────────────────────────────────────────────────────────────────────

    def opened(
        self,
        mint: str,
        entry_quote_units: int,
        opened_at_ms: int | None = None,
        slot: int | None = None,
        *,
        quote_currency: str | None = None,
        announcement: PositionOpened | None = None,
    ) -> None:
        """The position was announced, for the first time or again."""
        self._generation = self._services.journal.opened(*self.id, mint, entry_quote_units, opened_at_ms, slot)
        self._is_closed = False
        # Its close was missed, or came before: nothing is left to sell of an earlier opening.
        self._ended_below = self._generation
        self._finish_all("the position was closed, and opened again", below=self._generation)
        if self._take_up is not None:
            self._take_up.announced()
        self._entry_quote_units = entry_quote_units
        self._quote_currency = quote_currency
        self._services.gate.refusals.drop_position(*self.id, below=self._generation)
        for signal, received_ns in self._announced.opened(announcement):
            self._follow_signal(signal, received_ns)

    def closed(self) -> None:
        """Nothing is left to sell, or the position is not tracked any more."""
        self._services.journal.closed(*self.id)
        self._is_closed = True
        # A transaction that may have landed tells by itself; what closed the position was probably it.
        self._finish_all("the position was closed")
        self._announced.closed()
        self._refused.clear()
        self._services.gate.refusals.drop_position(*self.id)

    def _finish_all(self, detail: str, *, below: int | None = None) -> None:
        """Every exit of which no transaction can land any more; with ``below``, of earlier generations than this."""
        for sale in self.live_sales:
            if below is not None and sale.key.generation >= below:
                continue
            if sale.key.is_whole and sale.state in {SaleState.ASKING, SaleState.JUDGING} and sale.unanswered:
                until_s = time.monotonic() + _ANSWERED_WITHIN_S
                self._unanswered = _Unanswered(sale.key, sale.triggered_at_ms, sale.unanswered, until_s)
            self._take_back(sale)
            if sale.live:
                self._retire(sale)
            else:
                self._finish(sale, sale.outcome_if_given_up(), detail)

    def signalled(self, signal: ExitSignalWithTx, received_ns: int, *, is_remembered: bool = False) -> None:
        """The server wants an exit.

        Args:
            signal: its signal.
            received_ns: when it came, by ``time.monotonic_ns()``.
            is_remembered: it came before this seller was started.
        """
        if not self._announced.must_wait(signal):
            self._follow_signal(signal, received_ns, is_remembered=is_remembered)
            return
        grace_s = self._services.terms.announcement_grace_s
        log.warning("an exit of %s waits %g s for the announcement of its position", self.id[1], grace_s)
        self._announced.hold(signal, received_ns)
        end = partial(self._end_of_grace, signal, received_ns)
        self._services.executor.put_later(self.id, grace_s, partial(self.do, end))

    def _end_of_grace(self, signal: ExitSignalWithTx, received_ns: int) -> None:
        if self._announced.let_go(signal):
            self._follow_signal(signal, received_ns)

    def _follow_signal(
        self, signal: ExitSignalWithTx, received_ns: int, *, may_be_new: bool = True, is_remembered: bool = False
    ) -> None:
        """Begin the exit, or offer its signal to the one that is under way.

        Args:
            signal: the signal.
            received_ns: when it came, by ``time.monotonic_ns()``.
            may_be_new: False: the journal knows this exit.
            is_remembered: it came before this seller was started.
        """
        transaction = hash(signal.unsigned_tx_b64)
        if transaction in self._seen:
            return
        if self._answers_an_ended_question(signal):
            self._drop_answer(signal)
            self._remember(transaction)
            return
        self._judge_early(signal)
        key = ExitKey(*self.id, signal.mint, part_of(signal), self._present_generation())
        if may_be_new and self._sell_at_once(key, signal, received_ns):
            self._remember(transaction)
            return
        if not self._is_about_what_parts_left(key, signal):
            self._remember(transaction)
            return
        sale = self._sale_of(key) or self._begin(key, signal, received_ns)
        if sale is not None and not sale.is_for(signal):
            log.warning("%s is signalled again for another amount, which is not followed", key)
        elif sale is not None and is_remembered and not sale.key.is_whole and self._is_too_late(received_ns):
            # Whoever sold for this session before may have sold it, with a journal of his own.
            self._give_up(
                sale, sale.outcome_if_given_up(), "it was signalled before this seller was started: it is not sold"
            )
        elif sale is not None:
            sale.offer(signal, received_ns)
            self._is_signalled_anew(sale)
            if sale is self._current and sale.state is SaleState.ASKING:
                self._use_signal(sale, is_answer=True)
            else:
                self._next_turn()
        # Last: a task that the journal refuses is run again from its beginning.
        self._remember(transaction)

    def _is_about_what_parts_left(self, key: ExitKey, signal: ExitSignalWithTx) -> bool:
        """False: it repeats the transaction of an earlier process, whose sale has landed.

        A new one ends that exit: what it sells is found out as after every exit that is sold.
        """
        sale = self._sale_of(key)
        if sale is None or sale.landed is None or sale.live or not sale.is_unproven:
            return True
        with contextlib.suppress(TxSubmitError):  # the guard says what is wrong with it
            if blockhash_of(signal.unsigned_tx_b64) in {attempt.blockhash for attempt in sale.record.attempts}:
                log.info("%s is signalled again by the transaction that was sent: nothing is done", key)
                return False
        self._finish(sale, SellOutcome.CONFIRMED, "it is signalled again", result=sale.landed)
        return True

    def _is_too_late(self, received_ns: int) -> bool:
        return time.monotonic_ns() - received_ns > self._services.policy.max_signal_age_s * 1e9

    def _is_signalled_anew(self, sale: Sale) -> None:
        """What an earlier process left is wanted by the server now: that is its opening."""
        if sale.is_unproven:
            sale.is_unproven = False
            self._end_take_up()

    def _answers_an_ended_question(self, signal: ExitSignalWithTx) -> bool:
        """Whether a question that was asked for an opening is answered after its end."""
        asked = self._unanswered
        if asked is None or part_of(signal) != WHOLE:
            return False
        if time.monotonic() > asked.until_s:
            self._unanswered = None
            return False
        if not self._is_closed and asked.key.generation == self._present_generation():
            return False
        if self._sale_of(asked.key._replace(generation=self._present_generation())) is not None:
            return False  # this opening is to be sold, too
        return signal.reason in _REQUESTED or signal.triggered_at_ms == asked.triggered_at_ms

    def _drop_answer(self, signal: ExitSignalWithTx) -> None:
        asked = self._unanswered
        assert asked is not None
        left = asked.questions - 1
        self._unanswered = asked._replace(questions=left) if left else None
        problem = (
            f"{asked.key}: the transaction that was asked for came after the position was closed or opened again, and "
            f"is not signed (reason {signal.reason!r}). To sell the position of now, call session.request_exit_signal()"
        )
        self._services.report_problem(TxSubmitError("late_answer", problem))

    def _remember(self, transaction: int) -> None:
        self._seen[transaction] = None
        if len(self._seen) > _REMEMBERED_TRANSACTIONS:
            del self._seen[next(iter(self._seen))]

    def _present_generation(self) -> int:
        if self._generation is None:
            # A token account of which no opening was seen is in its first one.
            self._generation = self._services.journal.generation(*self.id) or 1
        return self._generation

    def _sale_of(self, key: ExitKey) -> Sale | None:
        if self._current is not None and self._current.key == key:
            return self._current
        return self._waiting.get(key) or self._followed.get(key)

    def sell_leg(
        self,
        part: str,
        mint: str,
        *,
        position_id: int,
        tokens: int,
        slippage_bps: int,
        pays: SellOutput | None,
        on_end: Callable[[SellReport], None],
    ) -> None:
        """Sell so many tokens at this slippage and no other; ``on_end`` is told what became of it."""
        key = ExitKey(*self.id, mint, LEG + part, self._present_generation())
        if self._services.journal.find(key) is not None:
            return  # an error in this task came after it was written down: it is taken up, and ends, by that
        slot = self._services.stream.seen_slot(*self.id)
        record = self._services.journal.received(key, position_id=position_id, reason="leg", tokens=tokens, slot=slot)
        self._line_up(Sale(record, slippage_bps=slippage_bps, pays=pays, on_end=on_end))
        self._next_turn()

    # ── which exit has its turn ──────────────────────────────────────────────────────────────────────────────────

    def _begin(self, key: ExitKey, signal: ExitSignalWithTx, received_ns: int) -> Sale | None:
        """Write the exit down and put it behind the others; None when it is sold already."""
        if not key.is_whole and self._is_sold(key._replace(part=WHOLE)):
            log.info("%s is signalled, and the position was sold as a whole", key)
            return None
        tokens = tokens_of(signal)
        record = self._received(key, signal, tokens)
        if record.is_finished:
            if self._services.is_dry_run:
                self._signalled_again(key, signal, received_ns, tokens)  # nothing was sold, and nobody is asked
            elif key.is_whole:
                # What the chain says after the sale; the exit stays sold as long as it says nothing.
                proof = AmountProof(since=_newest_slot([record]))
                self._ask_for_balance(proof, partial(self._signalled_again, key, signal, received_ns))
            else:
                log.info("%s is signalled again and was sold: nothing is done", key)
            return None
        return self._line_up(Sale(record))

    def _signalled_again(self, key: ExitKey, signal: ExitSignalWithTx, received_ns: int, amount: int | None) -> None:
        """All was sold; with tokens there again, it is an opening of which no announcement came."""
        if not amount or self._present_generation() != key.generation:
            log.info("%s is signalled again and was sold: nothing is done", key)
            return
        self._generation = self._services.journal.next_generation(key)
        record = self._received(key._replace(generation=self._generation), signal, tokens_of(signal))
        self._line_up(Sale(record)).offer(signal, received_ns)
        self._next_turn()

    def _received(self, key: ExitKey, signal: ExitSignalWithTx, tokens: int) -> ExitRecord:
        self._known.add(key)
        return self._services.journal.received(
            key, position_id=signal.position_id, reason=signal.reason, tokens=tokens,
            slot=self._services.stream.seen_slot(*self.id),
        )  # fmt: skip

    def _is_sold(self, key: ExitKey) -> bool:
        record = self._services.journal.find(key)
        return record is not None and record.outcome is SellOutcome.CONFIRMED

    def _ask_for_balance(self, proof: AmountProof, then: Callable[[int | None], None]) -> None:
        """What there is to sell, as a task of this line; None: not proven yet, or nobody can be asked."""
        life = self._life
        self._services.questions.balance(self.id[1], proof, lambda amount: self._put(partial(then, amount), life=life))

    def _line_up(self, sale: Sale) -> Sale:
        self._waiting[sale.key] = sale
        return sale

    def _next_turn(self) -> None:
        """The exit that waits longest has its turn, if none has it now."""
        # In a task of its own, so that what led here is not done twice if the journal refuses what comes now.
        self._put(self._take_turn)

    def _take_turn(self) -> None:
        if self._is_catching_up:
            return
        following = self._next_in_turn()
        if following is not None:
            self._let_overtake(following)
        if self._current is None and following is not None:
            self._current = self._waiting.pop(following.key)
        sale = self._current
        if sale is not None and sale.state is SaleState.WAITING and not sale.is_unproven:
            self._use_signal(sale)

    def _next_in_turn(self) -> Sale | None:
        """The exit of the whole position, else the one that waits longest."""
        ready = [sale for sale in self._waiting.values() if not sale.is_unproven]
        return next((sale for sale in ready if sale.key.is_whole), ready[0] if ready else None)

    def _let_overtake(self, following: Sale) -> None:
        """Take the turn from a part for the whole position, and from whatever belongs to an earlier opening."""
        current = self._current
        if current is not None:
            is_over = current.key.generation < following.key.generation
            if not is_over and (current.key.is_whole or not following.key.is_whole):
                return
            self._take_back(current)
            if current.live:
                log.warning("%s gets no further transaction: %s has its turn", current.key, following.key)
                self._retire(current)
            else:
                current.enter(SaleState.WAITING)
                self._current = None
                self._waiting[current.key] = current
        if following.key.is_whole:
            for part in self._followed.values():
                if part.key.generation == following.key.generation:
                    following.overtook[part.key] = part.record.tokens

    def _retire(self, sale: Sale) -> None:
        """Follow what may land to its end, and build nothing in its place."""
        sale.is_retired = True
        sale.enter(SaleState.LIVE)
        if sale is self._current:
            self._current = None
        self._waiting.pop(sale.key, None)
        self._followed[sale.key] = sale

    # ── at the start, and after an error ─────────────────────────────────────────────────────────────────────────

    def expect_restore(self) -> None:
        """The journal has exits that an earlier process left unfinished: the first task loads them.

        Called before anything is put into this position's line.
        """
        self._is_in_doubt = self._is_restart = True

    def restore(self) -> None:
        """Follow what an earlier process left unfinished, before anything else is sold."""
        self.do(_nothing)

    def caught_up(self) -> None:
        """Everything that the session remembers was heard."""
        self._is_catching_up = False
        if self._take_up is not None:
            self._take_up.begin()
        self._next_turn()

    def _reload(self) -> None:
        """Go on by the journal and the chain; of what was believed here stays what no record holds."""
        for sale in self.live_sales:
            self._take_back(sale)
        before = {sale.key: sale for sale in self.live_sales}
        if self._current is not None:
            # It may be what the error came of. Another transaction is asked for.
            self._current.use_up_signal()
        records = self._services.journal.unfinished(*self.id)
        for key in before.keys() - {record.key for record in records}:
            self._tell_end(before[key])
        self._life += 1
        self._current = None
        self._waiting = {record.key: Sale(record, before=before.get(record.key)) for record in records}
        self._followed = {}
        if self._is_restart:
            self._recall_overtaken()
        for sale in self.live_sales:
            self._follow(sale)
        for sale in self.live_sales:
            self._finish_decided(sale)
        for sale in self.live_sales:
            # Whoever sold in legs is gone, or decides what comes after this one; nobody knows at which slippage.
            if sale.key.is_leg and not sale.live and not sale.is_finished:
                self._finish(sale, sale.outcome_if_given_up(), "it was interrupted, and no leg is repeated")
        if self._is_restart:
            self._take_up_after_restart()
        pause_s = 0.0 if self._errors < 2 else growing_pause_s(self._errors - 2)
        if self._is_restart:
            pass  # a proof is waited for
        elif pause_s:
            self._later(pause_s, self._resume)
        else:
            self._resume()
        self._is_in_doubt = self._is_restart = False

    def _recall_overtaken(self) -> None:
        """Which parts an earlier process overtook with an exit of the whole position, by the journal."""
        for sale in self.live_sales:
            if sale.key.is_whole:
                opening = self._services.journal.of_opening(*self.id, sale.key.generation)
                sale.overtook = overtaken_by(sale.record, opening)

    def _take_up_after_restart(self) -> None:
        """A part is not sold any more, and the whole position only with a proof, or when it is signalled again."""
        present = self._present_generation()
        for sale in self.live_sales:
            if sale.is_finished:
                continue
            if sale.key.is_whole and sale.key.generation == present:
                self._wait_for_proof(sale)
            elif sale.live:
                self._retire(sale)
            else:
                detail = "an earlier process left it unfinished: it is not sold without a new signal"
                self._finish(sale, sale.outcome_if_given_up(), detail)

    def _wait_for_proof(self, whole: Sale) -> None:
        whole.is_unproven = True
        self._end_take_up()
        self._take_up = TakeUp(
            self._services, whole.record,
            opening=self._services.journal.opening(*self.id),
            slot=self._services.journal.announced_slot(*self.id),
            may_ask=lambda: not any(sale.live for sale in self.live_sales),
            put_later=self._put_anyway,
            decided=partial(self._is_proven, whole.key),
        )  # fmt: skip
        if not self._is_catching_up:
            self._take_up.begin()

    def _put_anyway(self, delay_s: float, task: Callable[[], None]) -> None:
        """Into the line, also beyond the next doubt."""
        if delay_s:
            self._services.executor.put_later(self.id, delay_s, partial(self.do, task))
        else:
            self._services.executor.put(self.id, partial(self.do, task))

    def _is_proven(self, key: ExitKey, verdict: Verdict) -> None:
        """What the token account holds is what was to be sold, or it is not."""
        self._end_take_up()
        whole = self._sale_of(key)
        if whole is None or not whole.is_unproven:
            return
        if verdict.finding is Finding.UNTOUCHED:
            whole.is_unproven = False
            self._next_turn()
        elif whole.landed is not None:
            self._end_emptying(whole, "" if verdict.finding is Finding.EMPTY else verdict.detail)
        else:
            detail = f"{verdict.detail}: it is not sold without a new signal"
            self._finish(whole, whole.outcome_if_given_up(), detail)

    def _end_take_up(self) -> None:
        if self._take_up is not None:
            self._take_up.end()
            self._take_up = None

    def _tell_end(self, sale: Sale) -> None:
        """The error came between the end of an exit and its being told."""
        record = self._services.journal.find(sale.key)
        if record is not None and record.is_finished and not record.is_reported:
            report = report_of(record)
            self._services.report_sale(report, record.id)
            if sale.on_end is not None:
                sale.on_end(report)

    def _follow(self, sale: Sale) -> None:
        for attempt in sale.record.attempts:
            if attempt.outcome is None:
                sale.live.add(attempt.signature)
        self._note_live(sale)
        if sale.live and sale.is_retired:
            self._retire(sale)
        elif sale.live:
            sale.enter(SaleState.LIVE)
            if self._current is None:
                self._current = self._waiting.pop(sale.key)
        for attempt in sale.record.attempts:
            if attempt.outcome is None:
                self._services.sender.track_for(
                    attempt.signature, attempt.blockhash, self._listener(sale, attempt.signature)
                )

    def _finish_decided(self, sale: Sale) -> None:
        """The process ended between what became of a transaction and the end of its exit."""
        for attempt in sale.record.attempts:
            if attempt.outcome in {SellOutcome.CONFIRMED, SellOutcome.UNKNOWN} and not sale.is_finished:
                result = TxResult(signature=attempt.signature, outcome=attempt.outcome, slot=attempt.slot)
                if attempt.outcome is SellOutcome.CONFIRMED and (sale.live or self._left_by_parts(sale)):
                    sale.landed = result  # what parts have left may be there, or is being sold
                    continue
                detail = "the nodes contradicted each other; it is not sold again"
                self._finish(
                    sale, attempt.outcome, "" if result.outcome is SellOutcome.CONFIRMED else detail, result=result
                )

    def _resume(self, proof: AmountProof | None = None) -> None:
        """Go on with what was restored: ask the chain whether there is anything to sell, then for a transaction."""
        if self._current is not None or not self._waiting:
            return
        if self._resume_emptying():
            return
        if proof is None:
            waiting = [sale.record for sale in self._waiting.values()]
            announced = self._services.journal.announced_slot(*self.id)
            proof = AmountProof(since=_newest_slot(waiting), announced=announced)
            log.debug("%s: unfinished exits wait until it is proven whether anything is left", self.id[1])
        self._ask_for_balance(proof, partial(self._go_on, proof))

    def _resume_emptying(self) -> bool:
        """Whether the whole position is sold, and what its parts have left is looked for again."""
        whole = next((one for one in self._waiting.values() if one.landed is not None and not one.is_unproven), None)
        if whole is None or whole.landed is None:
            return False
        self._current = self._waiting.pop(whole.key)
        self._look_for_the_rest(whole, whole.landed)
        return True

    def _go_on(self, proof: AmountProof, amount: int | None) -> None:
        """The nodes have answered whether there is anything to sell."""
        if self._current is not None or not self._waiting:
            return
        if amount is None:
            self._later(_TRY_AGAIN_S, partial(self._resume, proof))
            return
        if amount == 0:
            self._finish_all("nothing is left in the token account")
            return
        self._next_turn()

    # ── signing and sending ──────────────────────────────────────────────────────────────────────────────────────

    def _use_signal(self, sale: Sale, *, is_answer: bool = False) -> None:
        """Sell with the newest signal, or ask for one that can be used."""
        if self._services.barrier.is_paused:
            sale.enter(SaleState.WAITING)
            return
        signal = sale.signal
        age = Age.OLD if signal is None else self._age(sale, signal, is_answer=is_answer)
        if signal is None or age is Age.OLD:
            self._ask(sale)
        elif age is Age.DOUBTFUL:
            self._ask_about_blockhash(sale, signal, is_answer=is_answer)
        else:
            self._sign_and_send(sale, signal, asked_bps=sale.asked_bps if is_answer else None)

    def _ask_about_blockhash(self, sale: Sale, signal: ExitSignalWithTx, *, is_answer: bool) -> None:
        """Its trigger is old. Its transaction may be new all the same: a node knows."""
        try:
            blockhash = blockhash_of(signal.unsigned_tx_b64)
        except TxSubmitError:
            self._sign_and_send(sale, signal)  # the guard says what is wrong with it
            return
        turn, life = sale.enter(SaleState.JUDGING), self._life
        known = partial(self._blockhash_is_known, sale, turn, signal, is_answer)
        self._services.questions.blockhash(blockhash, lambda is_valid: self._put(partial(known, is_valid), life=life))
        self._later(BLOCKHASH_WITHIN_S, partial(known, None))

    def _blockhash_is_known(
        self,
        sale: Sale,
        turn: int,
        signal: ExitSignalWithTx,
        is_answer: bool,  # noqa: FBT001 - bound by partial
        is_valid: bool | None,  # noqa: FBT001
    ) -> None:
        """The nodes have answered, or have had the time to."""
        if sale.turn != turn:
            return
        if is_valid is not False:
            self._sign_and_send(sale, signal, asked_bps=sale.asked_bps if is_answer else None)
            return
        log.warning("%s: no node takes the blockhash of its transaction: a fresh one is asked for", sale.key)
        sale.use_up_signal()
        if is_answer and sale.asked_bps is not None:
            turn = sale.enter(SaleState.ASKING)
            self._later(self._services.policy.refresh_wait_s, partial(self._ask_again, sale, turn, sale.asked_bps))
        else:
            self._ask(sale)

    def unpaused(self) -> None:
        """``resume`` was called: what waited may go on."""
        self._take_turn()

    def _is_out_of_date(self, sale: Sale, signal: ExitSignalWithTx) -> bool:
        return self._age(sale, signal, is_answer=sale.asked_bps is not None) is Age.OLD

    def _age(self, sale: Sale, signal: ExitSignalWithTx, *, is_answer: bool = False) -> Age:
        """An old price, or an amount from before another sale of this position."""
        is_from_before_a_sale = self._sold_ns is not None and sale.came_ns < self._sold_ns
        if is_from_before_a_sale and sale.key.is_whole and not is_answer:
            return Age.OLD
        now_ms = self._services.stream.server_time_ms()
        return age_of(
            received_s=(time.monotonic_ns() - sale.came_ns) / 1e9,
            by_server_s=None if now_ms is None else (now_ms - signal.triggered_at_ms) / 1000,
            by_us_s=(_now_ms() - signal.triggered_at_ms) / 1000,
            limit_s=self._services.policy.max_signal_age_s,
            is_answer=is_answer,
        )

    def _sign_and_send(
        self,
        sale: Sale,
        transaction: ExitSignalWithTx | BuildTxResponse,
        request: BuildSellTxRequest | None = None,
        *,
        asked_bps: int | None = None,
    ) -> None:
        try:
            case = self._case(sale, transaction, request, asked_bps)
        except UnsafeTransactionError as error:
            self._refuse(sale, transaction, request, error)
            return
        except ConfigurationError as error:
            self._give_up(sale, SellOutcome.REJECTED, f"nothing was signed: {error}", error=error)
            return
        if case.is_ready:
            self._decide(sale, transaction, request, case)
        else:
            turn, life = sale.enter(SaleState.JUDGING), self._life
            task = partial(self._judged, sale, turn, transaction, request, case)
            case.when_ready(lambda: self._put(task, life=life))

    def _case(
        self,
        sale: Sale,
        transaction: ExitSignalWithTx | BuildTxResponse,
        request: BuildSellTxRequest | None,
        asked_bps: int | None,
    ) -> Case:
        """The guard's, which may have begun when the signal came."""
        early, self._early = self._early, None
        is_permitted = self._services.gate.refusals.has_permission(sale.key)
        if early is not None and early.is_of(transaction) and not is_permitted:
            return early.case
        return self._services.judge(
            sale.key.wallet, transaction, request, mint=sale.key.mint, key=sale.key,
            context=self._announced.context(sale.key.mint, slippage_bps=asked_bps), may_be_allowed=not sale.live,
        )  # fmt: skip

    def _judge_early(self, signal: ExitSignalWithTx) -> None:
        """Have nodes asked about the first signal of an exit while the journal writes it down."""
        services = self._services
        is_next = self._current is None and not self._waiting and not services.barrier.is_paused
        if not is_next or (self._early is not None and self._early.is_of(signal)):
            return
        key = ExitKey(*self.id, signal.mint, part_of(signal), self._present_generation())
        if services.gate.refusals.has_permission(key):
            return
        context = self._announced.context(signal.mint, slippage_bps=None)
        # What is wrong with it is reported when its turn comes.
        with contextlib.suppress(UnsafeTransactionError, ConfigurationError):
            case = services.judge(self.id[0], signal, mint=signal.mint, key=key, context=context)
            self._early = _Early(signal, case, time.monotonic())

    def _judged(
        self,
        sale: Sale,
        turn: int,
        transaction: ExitSignalWithTx | BuildTxResponse,
        request: BuildSellTxRequest | None,
        case: Case,
    ) -> None:
        """The nodes have answered."""
        if sale.turn != turn:
            return  # it ended meanwhile
        self._decide(sale, transaction, request, case)
        newer = sale.signal
        if sale.is_finished and newer is not None and newer is not transaction:
            # It came while the nodes were asked, and is not to be refused unseen.
            self._put(partial(self._follow_anew, newer, sale.came_ns))

    def _follow_anew(self, signal: ExitSignalWithTx, received_ns: int, *, may_be_new: bool = True) -> None:
        self._seen.pop(hash(signal.unsigned_tx_b64), None)
        self._follow_signal(signal, received_ns, may_be_new=may_be_new)

    def _decide(
        self,
        sale: Sale,
        transaction: ExitSignalWithTx | BuildTxResponse,
        request: BuildSellTxRequest | None,
        case: Case,
    ) -> None:
        with self._services.barrier.act() as may_sign:
            if may_sign:
                self._sign(sale, transaction, request, case)
            else:
                sale.enter(SaleState.WAITING)

    def _sign(
        self,
        sale: Sale,
        transaction: ExitSignalWithTx | BuildTxResponse,
        request: BuildSellTxRequest | None,
        case: Case,
    ) -> None:
        """Sign what the guard decided about, write it down, and send it."""
        services = self._services
        try:
            signed = services.sign(case, transaction, request)
        except UnsafeTransactionError as error:
            self._refuse(sale, transaction, request, error)
            return
        except (TxSubmitError, ConfigurationError) as error:
            self._give_up(sale, SellOutcome.REJECTED, f"nothing was signed: {error}", error=error)
            return
        if signed is None:
            self._finish(sale, SellOutcome.UNKNOWN, "dry run: it might be signed, and was not")
        elif signed.signature in sale.signatures:
            # One that is live, or proven dead: of no use. The server builds another one for another block.
            sale.enter(SaleState.WAITING)
            sale.use_up_signal()
            self._later(_TRY_AGAIN_S, self._take_turn)
        else:
            self._send(sale, signed)

    def _refuse(
        self,
        sale: Sale,
        transaction: ExitSignalWithTx | BuildTxResponse,
        request: BuildSellTxRequest | None,
        error: UnsafeTransactionError,
    ) -> None:
        """Nothing was signed: ask for another price, or leave the exit to the user."""
        if self._asks_for_another_price(sale, error):
            sale.use_up_signal()
            again = partial(self._use_signal_in, sale, sale.enter(SaleState.WAITING))
            if sale.key.is_whole or sale.low_prices == 1:
                self._put(again)
            else:
                # The REST API builds 60 transactions a minute, for all exits; a price does not change sooner.
                self._later(self._services.policy.refresh_wait_s, again)
            return
        if self._waits_for_a_node(sale, transaction, error):
            if sale.unsimulated == 1:
                self._list_refusal(sale, transaction, error)
            turn = sale.enter(SaleState.WAITING)
            if isinstance(transaction, BuildTxResponse):
                again = partial(self._judge_built_again, sale, turn, transaction, request, error)
            else:
                again = partial(self._judge_again, sale, turn, error)
            if sale.signal is None or sale.signal is transaction:
                self._later(growing_pause_s(sale.unsimulated - 1), again)
            else:
                # A newer one came while the nodes were asked.
                self._put(partial(self._judge_again, sale, turn, error))
            return
        self._list_refusal(sale, transaction, error)
        self._give_up(sale, SellOutcome.REJECTED, f"nothing was signed: {error}", error=error)

    def _list_refusal(
        self, sale: Sale, transaction: ExitSignalWithTx | BuildTxResponse, error: UnsafeTransactionError
    ) -> None:
        """The user may decide, unless an earlier transaction may still land."""
        self._services.journal.note(sale.record.id, "refused", str(error))
        if not sale.live:
            if isinstance(transaction, ExitSignalWithTx):
                self._refused[sale.key] = (transaction, sale.came_ns)
            refusal = Refusal(
                key=sale.key, wallet=sale.key.wallet, mint=sale.key.mint, error=error, refused_at_ms=_now_ms()
            )
            log.error("%s is refused: %s", sale.key, error)
            self._services.gate.refusals.add(refusal)
            self._services.report_refusal(refusal)

    def _waits_for_a_node(
        self, sale: Sale, transaction: ExitSignalWithTx | BuildTxResponse, error: UnsafeTransactionError
    ) -> bool:
        """No node could simulate it: the nodes are asked again while the transaction is young enough to be sent."""
        services, signal = self._services, sale.signal
        if sale.live or services.is_dry_run or services.gate.guard is None or services.gate.guard.wants_nodes:
            return False
        if {offence.rule for offence in error.offences} != {SIMULATION.name}:
            return False
        is_built = isinstance(transaction, BuildTxResponse)
        if self._was_built_long_ago(sale) if is_built else signal is None or self._is_out_of_date(sale, signal):
            return False
        sale.unsimulated += 1
        log.warning("%s waits in refused(), and its nodes are asked again: %s", sale.key, error)
        return True

    def _judge_again(self, sale: Sale, turn: int, error: UnsafeTransactionError) -> None:
        if sale.turn != turn:
            return
        if sale.signal is None or self._is_out_of_date(sale, sale.signal):
            self._give_up(sale, SellOutcome.REJECTED, f"nothing was signed: {error}", error=error)
        else:
            self._use_signal(sale, is_answer=sale.asked_bps is not None)

    def _judge_built_again(
        self,
        sale: Sale,
        turn: int,
        built: BuildTxResponse,
        request: BuildSellTxRequest | None,
        error: UnsafeTransactionError,
    ) -> None:
        if sale.turn != turn:
            return
        if self._was_built_long_ago(sale):
            self._give_up(sale, SellOutcome.REJECTED, f"nothing was signed: {error}", error=error)
        else:
            self._sign_and_send(sale, built, request)

    def _was_built_long_ago(self, sale: Sale) -> bool:
        """Whether the newest transaction of the REST API has an old price."""
        return time.monotonic_ns() - sale.built_ns > self._services.policy.max_signal_age_s * 10**9

    def _asks_for_another_price(self, sale: Sale, error: UnsafeTransactionError) -> bool:
        """A price below the floor is not final: the next transaction may have another one."""
        services = self._services
        can_ask = sale.key.is_whole or services.can_build
        if sale.live or services.is_dry_run or not can_ask or sale.low_prices >= services.policy.max_refreshes:
            return False
        rules = {offence.rule for offence in error.offences}
        if not rules <= {PRICE, SIMULATION_FAILS.name}:
            return False
        sale.low_prices += 1
        sale.failed_simulations += SIMULATION_FAILS.name in rules
        log.warning("%s: a fresh transaction is asked for: %s", sale.key, error)
        return True

    def _use_signal_in(self, sale: Sale, turn: int) -> None:
        if sale.turn == turn:
            self._use_signal(sale)

    def allowed(self, key: ExitKey) -> None:
        """The user permits what was refused, for this exit's next transaction."""
        record = self._services.journal.find(key)
        if record is None or key.generation != self._present_generation() or self._is_closed:
            log.warning("%s is over: what was allowed for it is not used", key)
            self._services.gate.refusals.drop(key)
            return
        self._services.journal.note(record.id, "allowed", "once, by the user")
        if self._sale_of(key) is None:
            record = self._services.journal.received(
                key, position_id=record.position_id, reason=record.reason, tokens=record.tokens,
                slot=self._services.stream.seen_slot(*self.id) or record.slot,
            )  # fmt: skip
            if record.is_finished:
                return
            sale = self._line_up(Sale(record))
            if key in self._refused:
                sale.offer(*self._refused.pop(key))
        self._next_turn()

    def _give_up(self, sale: Sale, outcome: SellOutcome, detail: str, *, error: Exception | None = None) -> None:
        """No further transaction; the end, unless an earlier one may still land (``overlap_full_exit``)."""
        if sale.live:
            log.warning("%s: %s; an earlier transaction may still land", sale.key, detail)
            sale.enter(SaleState.LIVE)
        else:
            self._finish(sale, outcome, detail, error=error)

    # ── from the signature to the first byte ─────────────────────────────────────────────────────────────────────

    def _sell_at_once(self, key: ExitKey, signal: ExitSignalWithTx, received_ns: int) -> bool:
        """Sign the first transaction of a new exit, and write exit and signature down as one; False: it cannot be.

        What is unclear, refused or known goes the longer way, which writes the exit down first.
        """
        early, services = self._early, self._services
        if self.live_sales or key in self._known or services.is_dry_run or self._is_catching_up:
            return False
        if early is None or not early.is_of(signal) or not early.case.is_ready:
            return False
        record = attrs.evolve(ExitRecord.to_be(key, signal), slot=services.stream.seen_slot(*self.id))
        sale = Sale(record)
        sale.offer(signal, received_ns)
        if self._age(sale, signal) is not Age.YOUNG:
            return False
        with services.barrier.act() as may_sign:
            if not may_sign:
                return False
            try:
                signed = services.sign(early.case, signal)
            except (UnsafeTransactionError, TxSubmitError, ConfigurationError):
                return False  # said when the exit is written down
            assert signed is not None  # in a dry run alone
            self._early = None
            self._known.add(key)
            self._current = sale
            self._send(sale, signed)
        return True

    def _send(self, sale: Sale, signed: SignedTx) -> None:
        """Write a signature down, and send its transaction as soon as it is on the disk."""
        departure = Departure(signed.signature)
        sale.departs(departure)
        self._services.gate.refusals.drop(sale.key)
        self._note_live(sale)
        if not sale.key.is_whole:
            sale.witnesses[signed.signature] = self._services.stream.watch_tokens(*self.id)
        send = partial(self._services.sender.submit_for, signed, self._listener(sale, signed.signature))
        then = partial(self._written_down, sale, departure, send, self._life)
        try:
            self._write_down(sale, departure, signed.blockhash, then)
        except Exception as error:  # noqa: BLE001 - whether it left is decided in the line
            then(error)
        policy = self._services.policy
        if policy.overlap_full_exit and sale.key.is_whole:
            self._later(policy.overlap_after_s, partial(self._overlap, sale, sale.turn))

    def _write_down(
        self, sale: Sale, departure: Departure, blockhash: str, then: Callable[[Exception | None], None]
    ) -> None:
        journal = self._services.journal
        if sale.is_recorded:
            signed = partial(self._attempt_written, sale, departure, then)
            journal.signed(sale.record.id, signature=departure.signature, blockhash=blockhash, then=signed)
        else:
            begun = partial(self._exit_written, sale, departure, then)
            journal.begun(sale.record, departure, blockhash=blockhash, then=begun)

    def _exit_written(
        self,
        sale: Sale,
        departure: Departure,
        then: Callable[[Exception | None], None],
        record: ExitRecord | None,
        error: Exception | None,
    ) -> None:
        """On the thread that commits. Without a record or an error it is known, or was held back meanwhile."""
        if record is not None:
            sale.record = record
        elif error is None:
            self._put(partial(self._is_known, sale, departure))
            return
        then(error)

    def _attempt_written(
        self,
        sale: Sale,
        departure: Departure,
        then: Callable[[Exception | None], None],
        is_its_own: bool | None,  # noqa: FBT001 - the journal's answer
        error: Exception | None,
    ) -> None:
        """On the thread that commits. A transaction of another exit is not sent."""
        if is_its_own is False:
            self._put(partial(self._is_repeated, sale, departure))
        else:
            then(error)

    def _written_down(
        self, sale: Sale, departure: Departure, send: Callable[[], object], life: int, error: Exception | None
    ) -> None:
        """On the thread that commits, right after the COMMIT: a last look, then the first copy."""
        problem = error
        if error is None:
            with self._services.barrier.act() as may_send:
                try:
                    if may_send:
                        departure.leave(send)
                        return
                except BaseException as raised:  # noqa: BLE001 - it belongs to the position, not to the journal
                    problem = as_exception(raised)
        # Not sent: the position's line takes it back, or finds out by the journal and the chain.
        self._put(partial(self._not_sent, sale, departure, [] if problem is None else [problem]), life=life)

    def _not_sent(self, sale: Sale, departure: Departure, problems: list[Exception]) -> None:
        """Its record failed, sending failed, or the seller is paused."""
        if problems:
            raise problems.pop()
        if sale.departure is departure:
            self._take_back(sale)
        self._take_turn()

    def _is_known(self, sale: Sale, departure: Departure) -> None:
        """The journal had the exit before: it goes the longer way."""
        if sale.departure is departure and departure.hold_back():
            sale.stays(departure)
            self._current = None
            assert sale.signal is not None  # it was signed
            self._follow_anew(sale.signal, sale.came_ns, may_be_new=False)

    def _is_repeated(self, sale: Sale, departure: Departure) -> None:
        """The transaction belongs to an earlier exit of this position."""
        if sale.departure is departure and departure.hold_back():
            sale.stays(departure)
            sale.use_up_signal()
            repeated = "its signal repeats the transaction of an earlier exit: nothing was sent"
            self._give_up(sale, sale.outcome_if_given_up(), repeated)

    def _take_back(self, sale: Sale) -> None:
        """Forget a signature whose transaction was not sent and never will be; the exit is written down after that.

        Nothing happens when it has left.
        """
        departure = sale.departure
        if departure is None or not departure.hold_back():
            return
        self._services.journal.unsent(departure.signature)
        if not sale.is_recorded:
            record = sale.record
            sale.record = self._services.journal.received(
                sale.key, position_id=record.position_id, reason=record.reason, tokens=record.tokens, slot=record.slot
            )
        sale.stays(departure)
        self._note_live(sale)

    def _listener(self, sale: Sale, signature: str) -> Listener:
        """For the sender, which calls them on threads of its own."""
        life = self._life
        still_held = None
        if not sale.key.is_whole:
            # A second transaction of a part would sell the part twice. Nobody watched what an earlier process signed.
            witness = sale.witnesses.get(signature)
            still_held = _not_known if witness is None else witness.still_held
        return Listener(
            on_settled=lambda result: self._put(partial(self._settled, sale, result), life=life),
            on_undecided=partial(self._report_undecided, sale),
            on_late_landing=partial(self._report_late_landing, sale),
            still_held=still_held,
        )

    def _report_undecided(self, sale: Sale, result: TxResult) -> None:
        problem = f"{sale.key} waits until it is proven what became of its transaction: {result.detail}"
        self._services.report_problem(TxSubmitError("confirm_timeout", problem, signature=result.signature))

    def _report_late_landing(self, sale: Sale, result: TxResult) -> None:
        problem = f"{sale.key}: its transaction landed in slot {result.slot}, and {result.detail}. Look at the balance"
        self._services.report_problem(TxSubmitError("late_landing", problem, signature=result.signature))

    # ── what became of it ────────────────────────────────────────────────────────────────────────────────────────

    def _settled(self, sale: Sale, result: TxResult) -> None:
        """It is proven what became of one transaction."""
        contradiction = self._contradiction(sale, result)
        if contradiction:
            # Written down as such: a process that dies now must not take it for dead when it is started again.
            result = attrs.evolve(result, outcome=SellOutcome.UNKNOWN, detail=f"{contradiction}; it is not sold again")
        self._services.journal.settled(
            sale.record.id, result.signature, result.outcome, slot=result.slot, detail=result.detail
        )
        sale.live.discard(result.signature)
        self._errors = 0
        self._note_live(sale)
        if self._take_up is not None:
            self._put(self._take_up.go_on)
        if sale.is_finished:
            return
        if result.outcome is SellOutcome.CONFIRMED:
            self._sold_ns = time.monotonic_ns()
            if self._left_by_parts(sale) and sale.is_unproven:
                sale.landed = result
                self._wait_for_turn(sale)
            elif self._left_by_parts(sale):
                self._look_for_the_rest(sale, result)
            else:
                self._finish(sale, SellOutcome.CONFIRMED, result=result)
            return
        if result.outcome is SellOutcome.UNKNOWN:
            self._finish(sale, SellOutcome.UNKNOWN, result.detail, result=result)
            return
        sale.dead.add(result.signature)
        sale.last = result
        # Otherwise an overlapping one may still land, or was asked for.
        if not sale.live and sale.state is SaleState.LIVE:
            self._replace(sale, result)

    def _contradiction(self, sale: Sale, result: TxResult) -> str:
        """Why the verdict of the nodes is doubted; empty: it is not."""
        if result.outcome is SellOutcome.UNKNOWN:
            return result.detail
        if sale.is_retired:
            return ""  # nothing is built in its place, and the sale of the whole position takes from the balance
        witness = sale.witnesses.get(result.signature)
        if result.outcome is SellOutcome.EXPIRED and witness is not None and witness.have_fallen_by(sale.record.tokens):
            return f"the nodes say that it did not land, and the balance has fallen by {sale.record.tokens} since"
        return ""

    def _replace(self, sale: Sale, result: TxResult) -> None:
        """Every transaction of this exit is dead: the next one, or the end."""
        if self._is_closed or sale.key.generation < self._ended_below:
            self._finish(sale, result.outcome, f"{result.detail}; the position was closed", result=result)
        elif sale.key.is_leg:
            self._finish(sale, result.outcome, result.detail, result=result)
        elif sale.is_retired:
            detail = f"{result.detail}; nothing is built in its place"
            self._finish(sale, result.outcome, detail, result=result)
        elif sale.landed is not None and not self._left_by_parts(sale):
            self._finish(sale, SellOutcome.CONFIRMED, result=sale.landed)
        elif sale.is_unproven:
            self._wait_for_turn(sale)
        elif len(sale.dead) > self._services.policy.max_refreshes:
            given_up = f"{result.detail}; given up after {len(sale.dead)} transactions"
            self._finish(sale, result.outcome, given_up, result=result)
        elif sale.signal is not None:
            self._use_signal(sale)
        else:
            self._ask(sale)

    def _wait_for_turn(self, sale: Sale) -> None:
        """Let another exit have the turn."""
        sale.enter(SaleState.WAITING)
        self._waiting[sale.key] = sale
        if sale is self._current:
            self._current = None
        self._next_turn()

    def _note_live(self, sale: Sale) -> None:
        """For purchases of the same token, which wait until nothing can land any more."""
        self._services.under_way.set_live(sale.key, is_live=bool(sale.live))

    # ── what parts have left ─────────────────────────────────────────────────────────────────────────────────────

    def _left_by_parts(self, whole: Sale) -> int:
        """Tokens of the parts that an exit of the whole position overtook, and that are not known to be sold."""
        return sum(tokens for key, tokens in whole.overtook.items() if not self._is_sold(key))

    def _look_for_the_rest(self, whole: Sale, result: TxResult) -> None:
        """Its transaction may have left what a part was to sell."""
        whole.landed = result
        self._ask_for_the_rest(whole, whole.enter(SaleState.EMPTYING), AmountProof(since=result.slot or 0), 1)

    def _ask_for_the_rest(self, whole: Sale, turn: int, proof: AmountProof, look: int) -> None:
        if whole.turn == turn:
            self._ask_for_balance(proof, partial(self._rest_is_known, whole, turn, proof, look))

    def _rest_is_known(self, whole: Sale, turn: int, proof: AmountProof, look: int, amount: int | None) -> None:
        if whole.turn != turn:
            return
        if amount is None and look < _LOOKS_AT_THE_REST:
            self._later(_TRY_AGAIN_S, partial(self._ask_for_the_rest, whole, turn, proof, look + 1))
        elif amount and amount <= self._left_by_parts(whole):
            log.warning("%s: %d tokens are left, and are sold, too", whole.key, amount)
            self._ask(whole)
        elif amount == 0:
            self._end_emptying(whole)
        else:
            left = "how many tokens are left is not known" if amount is None else f"{amount} tokens are there"
            self._end_emptying(whole, left)

    def _end_emptying(self, whole: Sale, left: str = "") -> None:
        """The position was sold; ``left`` says what is left of it, if anything may be."""
        if left:
            problem = f"{whole.key} was sold, and {left}: nothing more is sold without a new signal"
            self._services.report_problem(TxSubmitError("confirm_timeout", problem))
        self._finish(whole, SellOutcome.CONFIRMED, left, result=whole.landed)

    # ── fresh transactions ───────────────────────────────────────────────────────────────────────────────────────

    def _ask(self, sale: Sale) -> None:
        """Ask for a fresh transaction."""
        if self._services.barrier.is_paused:
            sale.enter(SaleState.WAITING)
            return
        if self._services.is_dry_run:
            self._finish(sale, SellOutcome.UNKNOWN, "dry run: too old, a fresh transaction would be asked for")
            return
        slippage_bps = self._slippage_bps(sale)
        self._services.journal.asking(sale.record.id, slippage_bps=slippage_bps)
        turn = sale.enter(SaleState.ASKING)
        sale.use_up_signal()
        sale.unanswered = 0
        sale.asked_bps = slippage_bps
        self._ask_again(sale, turn, slippage_bps)

    def _slippage_bps(self, sale: Sale) -> int:
        if sale.slippage_bps is not None:
            return sale.slippage_bps
        return self._services.policy.slippage_bps(len(sale.dead) + len(sale.live) + sale.failed_simulations)

    def _ask_again(self, sale: Sale, turn: int, slippage_bps: int) -> None:
        if sale.turn != turn:
            return
        if self._services.barrier.is_paused:
            sale.enter(SaleState.WAITING)
            return
        if sale.unanswered >= self._services.policy.max_unanswered:
            given_up = f"no fresh transaction came, asked {sale.unanswered} times"
            self._give_up(sale, sale.outcome_if_given_up(), given_up)
        elif sale.key.is_whole:
            self._ask_the_stream(sale, slippage_bps)
            self._later(self._services.policy.refresh_wait_s, partial(self._ask_again, sale, turn, slippage_bps))
        else:
            self._ask_the_api(sale, turn, slippage_bps)

    def _ask_the_stream(self, sale: Sale, slippage_bps: int) -> None:
        if self._services.stream.is_linked:
            sale.unanswered += 1
        try:
            self._services.stream.ask_for_exit(sale.key.token_account, slippage_bps)
        except StreamError as error:
            log.warning("a fresh transaction for %s cannot be asked for now: %s", sale.key, error)

    def _ask_the_api(self, sale: Sale, turn: int, slippage_bps: int) -> None:
        if not self._services.can_build:
            remedy = "a part of a position is built anew by AutoSeller(exit_api=ExitApiClient(...)) only"
            self._finish(sale, sale.outcome_if_given_up(), remedy)
            return
        request, life = self._request(sale, slippage_bps), self._life
        answered = partial(self._built, sale, turn, request)
        self._services.questions.build(
            request, lambda built, error: self._put(partial(answered, built, error), life=life)
        )

    def _built(
        self, sale: Sale, turn: int, request: BuildSellTxRequest, built: BuildTxResponse | None, error: Exception | None
    ) -> None:
        """The REST API has answered, or was not asked."""
        if sale.turn != turn:
            log.warning("a transaction that was built for %s comes too late, and is not signed", sale.key)
        elif built is not None:
            sale.built_ns = time.monotonic_ns()
            self._sign_and_send(sale, built, request)
        elif error is None:
            sale.enter(SaleState.WAITING)  # paused
        elif isinstance(error, ExitApiError):
            sale.unanswered += 1
            log.warning("a fresh transaction for %s could not be built: %s", sale.key, error)
            again = partial(self._ask_again, sale, turn, request.slippage_bps)
            self._later(self._services.policy.refresh_wait_s, again)
        else:
            raise error

    def _request(self, sale: Sale, slippage_bps: int) -> BuildSellTxRequest:
        stream = self._services.stream
        # Where nobody said what the market pays in, every other question asks for the other currency.
        guess = SellOutput.USD1 if sale.unanswered % 2 else SellOutput.SOL
        pays = sale.pays or _pays_in(sale.market_context) or guess
        return BuildSellTxRequest(
            sale.key.mint, sale.key.wallet, sale.record.tokens, pays, slippage_bps,
            market_context=sale.market_context, send_mode=stream.send_mode, tip_lamports=stream.tip_lamports,
        )  # fmt: skip

    def _overlap(self, sale: Sale, turn: int) -> None:
        """The user wants a second transaction of a whole-position exit while the first may still land."""
        if sale.turn == turn and len(sale.signatures) <= self._services.policy.max_refreshes:
            self._ask(sale)

    # ── the end ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _finish(
        self,
        sale: Sale,
        outcome: SellOutcome,
        detail: str = "",
        *,
        result: TxResult | None = None,
        error: Exception | None = None,
    ) -> None:
        """Nothing more is done for this exit: write it down, tell it, and let the next one have its turn."""
        if sale.landed is not None and outcome is not SellOutcome.CONFIRMED:
            detail = f"what parts have left may still be there: {detail}"
            outcome, result, error = SellOutcome.CONFIRMED, sale.landed, None
        if outcome is SellOutcome.CONFIRMED and sale.key.is_whole:
            for other in self._others_of_its_generation(sale):
                self._finish(other, SellOutcome.EXPIRED, "the position was sold as a whole before its turn came")
        self._services.journal.finished(sale.record.id, outcome, detail=detail)
        if outcome is not SellOutcome.REJECTED:
            self._services.gate.refusals.drop(sale.key)
        self._errors = 0
        sale.enter(SaleState.FINISHED)
        self._waiting.pop(sale.key, None)
        self._followed.pop(sale.key, None)
        if sale is self._current:
            self._current = None
        if sale.is_unproven:
            self._end_take_up()
        report = self._report(sale, outcome, detail, result, error)
        self._services.report_sale(report, sale.record.id)
        if sale.on_end is not None:
            sale.on_end(report)
        self._next_turn()

    def _others_of_its_generation(self, sale: Sale) -> list[Sale]:
        waiting = list(self._waiting.values())
        return [other for other in waiting if other is not sale and other.key.generation == sale.key.generation]

    def _report(
        self, sale: Sale, outcome: SellOutcome, detail: str, result: TxResult | None, error: Exception | None
    ) -> SellReport:
        decided = result or sale.last
        profit_units, proceeds_units = self._value_of(sale) if outcome is SellOutcome.CONFIRMED else (None, None)
        return SellReport(
            key=sale.key, outcome=outcome, reason=sale.record.reason, tokens=sale.record.tokens,
            signature=None if decided is None else decided.signature, slot=None if decided is None else decided.slot,
            transactions=len(sale.signatures), detail=detail, error=error, is_dry_run=self._services.is_dry_run,
            quote_currency=quote_currency_of(sale.market_context) or self._quote_currency,
            profit_units=profit_units, proceeds_units=proceeds_units,
        )  # fmt: skip

    def _value_of(self, sale: Sale) -> tuple[int | None, int | None]:
        """Profit and proceeds of what an exit sells, by the newest signal and announcement; None: nobody said."""
        if sale.valued is None:
            return None, None
        profit_units = sale.share_of(sale.valued[0])
        entry = self._entry_quote_units
        return profit_units, None if entry is None else sale.share_of(entry) + profit_units


class _Early(NamedTuple):
    """A signal that the guard was shown before its exit was written down.

    Attributes:
        signal: the signal.
        case: the guard's.
        at_s: when that was, by ``time.monotonic()``.
    """

    signal: ExitSignalWithTx
    case: Case
    at_s: float

    def is_of(self, transaction: object) -> bool:
        """Whether it is about this signal, and as new as a price must be."""
        return self.signal is transaction and time.monotonic() - self.at_s < _EARLY_S


class _Unanswered(NamedTuple):
    """Questions for a transaction of the whole position whose exit has ended since.

    Attributes:
        key: the exit.
        triggered_at_ms: of its newest signal; None: none came to this process.
        questions: how many went without an answer.
        until_s: by ``time.monotonic()``; no answer comes later.
    """

    key: ExitKey
    triggered_at_ms: int | None
    questions: int
    until_s: float


def _nothing() -> None:
    """To be done."""


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _not_known() -> bool:
    """Whether the tokens are still held."""
    return False


def _newest_slot(records: list[ExitRecord]) -> int:
    """That a transaction of these exits landed in, with or without an error; 0: none did."""
    return max((attempt.slot or 0 for record in records for attempt in record.attempts), default=0)


def _pays_in(context: MarketContext | None) -> SellOutput | None:
    """What the market pays in, where its context says so; None: it does not."""
    currency = quote_currency_of(context)
    return SellOutput(currency) if currency in ASSETS else None
