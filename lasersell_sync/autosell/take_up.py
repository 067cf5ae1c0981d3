"""What an earlier process left unfinished: whose exit is it, and may it go on?

A whole exit goes on when it is proven that it belongs to what the token account holds now. A part never does: the
transaction that was signed for it is followed to its end, and nothing is built in its place. The service's list of past
trades may end a whole exit; it never begins one.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable
from typing import Final

from lasersell_sync._log import logger
from lasersell_sync.autosell.exits import ExitKey
from lasersell_sync.autosell.journal import ExitRecord
from lasersell_sync.autosell.lines import growing_pause_s
from lasersell_sync.autosell.past_trades import Opened, PastTrades, proof_of_sale
from lasersell_sync.autosell.tools import Tools
from lasersell_sync.exceptions import TxSubmitError
from lasersell_sync.openings import Opening
from lasersell_sync.trading.account_history import AccountHistory, Finding, Recorded, Verdict
from lasersell_sync.trading.outcome import SellOutcome

__all__ = ["TakeUp", "overtaken_by", "recorded_of"]

log = logger("autosell")

#: What is undecided for so long is reported, and again after as long.
UNDECIDED_AFTER_S: Final = 60.0
_FIRST_PAUSE_S: Final = 0.5
_LONGEST_PAUSE_S: Final = 15.0
#: A part that was signed so shortly before the position was signalled may be counted in the signal, or not.
_MAY_BE_COUNTED_MS: Final = 300_000
#: Of parts that may be counted or not, so many are tried in any combination.
_MOST_DOUBTFUL: Final = 10

_REMEDY: Final = "look at the token account; if it is to be sold, call session.request_exit_signal()"


def recorded_of(whole: ExitRecord, opening: Iterable[ExitRecord], own: Iterable[str], slot: int | None) -> Recorded:
    """What the journal says that the token account of a whole exit holds, and who has touched it.

    Args:
        whole: the exit.
        opening: all exits of its opening, itself included.
        own: every signature that was made for the account.
        slot: the slot at which the server saw the account last, where the exit has none of its own.
    """
    others = [other for other in opening if other.id != whole.id]
    attempts = [attempt for each in (whole, *others) for attempt in each.attempts]
    return Recorded(
        began_s=whole.began_ms / 1000,
        slot=slot if whole.slot is None else whole.slot,
        amounts=_left_by_parts(whole, others) if _has_landed(whole) else _left_to_sell(whole, others),
        own=frozenset(own),
        landed={each.signature: each.slot for each in attempts if each.slot is not None},
        dead=frozenset(each.signature for each in attempts if each.outcome in _NEVER_LANDED),
    )


_NEVER_LANDED: Final = (SellOutcome.EXPIRED, SellOutcome.REJECTED)


def overtaken_by(whole: ExitRecord, opening: Iterable[ExitRecord]) -> dict[ExitKey, int]:
    """Tokens of the parts that had transactions when a whole exit began and did not land, as far as is recorded."""
    return {
        other.key: other.tokens
        for other in opening
        if not other.key.is_whole
        and other.attempts
        and not _has_landed(other)
        and not (other.is_finished and other.changed_ms < whole.began_ms)
    }


def _left_by_parts(whole: ExitRecord, others: Iterable[ExitRecord]) -> frozenset[int]:
    """What the parts that a sale of the whole position overtook may have left: each of them all or nothing."""
    left = list(overtaken_by(whole, others).values())[:_MOST_DOUBTFUL]
    return frozenset(sum(some) for some in _combinations(left) if some)


def _left_to_sell(whole: ExitRecord, others: Iterable[ExitRecord]) -> frozenset[int]:
    """What a whole exit that has not landed still has to sell."""
    sold, doubtful = 0, list[int]()
    for other in others:
        for attempt in other.attempts:
            is_later = attempt.signed_ms >= whole.began_ms
            if attempt.outcome is SellOutcome.CONFIRMED and is_later:
                sold += other.tokens
            elif attempt.outcome is SellOutcome.UNKNOWN or (
                attempt.outcome is SellOutcome.CONFIRMED and attempt.signed_ms >= whole.began_ms - _MAY_BE_COUNTED_MS
            ):
                doubtful.append(other.tokens)
    left = {whole.tokens - sold - sum(some) for some in _combinations(doubtful[:_MOST_DOUBTFUL])}
    return frozenset(amount for amount in left if amount > 0)


def _has_landed(record: ExitRecord) -> bool:
    return any(attempt.outcome is SellOutcome.CONFIRMED for attempt in record.attempts)


def _combinations(amounts: list[int]) -> Iterable[tuple[int, ...]]:
    return itertools.chain.from_iterable(itertools.combinations(amounts, count) for count in range(len(amounts) + 1))


class TakeUp:
    """The way of one token account's whole exit from a restart to a proof.

    It waits for the announcement of the position, ``announcement_grace_s`` at the most, and until every transaction of
    the account is decided. Then it has the nodes asked until something is proven, and reports each minute without a
    proof. The REST API is asked for past trades at the first question, and each minute; whoever proves something first
    decides. Past trades never prove that the exit may go on.

    Args:
        tools: asks and reports.
        whole: the exit.
        opening: what the journal says of the account's opening; None: it was not announced.
        slot: as for ``recorded_of``.
        may_ask: whether every transaction of the account is decided.
        put_later: runs a task in the position's line, in so many seconds.
        decided: called in the position's line with what is proven.

    Threads: in tasks of the position's line; ``waits_for`` from any.
    """

    def __init__(
        self,
        tools: Tools,
        whole: ExitRecord,
        *,
        opening: Opening | None,
        slot: int | None,
        may_ask: Callable[[], bool],
        put_later: Callable[[float, Callable[[], None]], None],
        decided: Callable[[Verdict], None],
    ) -> None:
        self._tools = tools
        self._whole = whole
        self._opened = None if opening is None else Opened(*opening, whole.began_ms)
        self._slot = slot
        self._may_ask = may_ask
        self._put_later = put_later
        self._decided = decided
        self._began_at = time.monotonic()
        self._has_begun = False
        self._is_announced = False
        self._is_over = False
        self._is_asking = False
        #: Past trades are asked for with the next question to the nodes.
        self._wants_trades = True
        self._rounds = 0
        self._recorded: Recorded | None = None
        self._history: AccountHistory | None = None

    @property
    def waits_for(self) -> str:
        """What is missing, in words; empty when it is over."""
        if self._is_over:
            return ""
        if self._history is None:
            return f"{self._whole.key} waits for the announcement of its position, and for its transactions"
        return (
            f"{self._whole.key} waits for a proof that its tokens are still those that were to be sold:"
            f" {self._history.explain()}. Until then nothing is sold without a new signal; {_REMEDY}"
        )

    @property
    def is_undecided(self) -> bool:
        """Whether it has waited for longer than it should."""
        return not self._is_over and time.monotonic() - self._began_at >= UNDECIDED_AFTER_S

    def begin(self) -> None:
        """All that the session remembers was heard: wait for the announcement. Idempotent."""
        if self._has_begun:
            return
        self._has_begun = True
        self._put_later(self._tools.terms.announcement_grace_s, self.announced)
        self._put_later(UNDECIDED_AFTER_S, self._report)
        self.go_on()

    def announced(self) -> None:
        """The position was announced, or its time is over."""
        self._is_announced = True
        self.go_on()

    def end(self) -> None:
        """A new signal, a close or another opening decided."""
        self._is_over = True

    def go_on(self) -> None:
        """Ask, if nothing is to be waited for."""
        may_begin = self._has_begun and self._is_announced and not self._is_over
        if not may_begin or self._is_asking or not self._may_ask():
            return
        recorded = self._recorded_now()
        if self._history is None or recorded != self._recorded:
            self._recorded, self._history = recorded, self._begin_history(recorded)
        self._is_asking = True
        self._ask_for_trades()
        self._tools.questions.history(self._whole.key.token_account, self._history, self._answered)

    def _ask_for_trades(self) -> None:
        """The REST API may prove that all is sold."""
        questions, key = self._tools.questions, self._whole.key
        if self._opened is None or not questions.lists_trades or not self._wants_trades:
            return
        self._wants_trades = False
        questions.trades(key.wallet, key.mint, self._listed)

    def _listed(self, past: PastTrades | None) -> None:
        """On a thread that asks."""
        if past is not None:
            self._put_later(0.0, lambda: self._follow_trades(past))

    def _follow_trades(self, past: PastTrades) -> None:
        if self._is_over or self._opened is None or not self._may_ask():
            return  # a transaction that was signed meanwhile decides
        if proof := proof_of_sale(self._opened, past):
            self._is_over = True
            self._decided(Verdict(Finding.EMPTY, proof))

    def _recorded_now(self) -> Recorded:
        """By the journal, with what became of this account's transactions, those of newer signals among them."""
        key, journal = self._whole.key, self._tools.journal
        whole = journal.find(key) or self._whole
        opening = journal.of_opening(key.wallet, key.token_account, key.generation)
        return recorded_of(whole, opening, journal.signatures(key.wallet, key.token_account), self._slot)

    def _begin_history(self, recorded: Recorded) -> AccountHistory:
        key, stream = self._whole.key, self._tools.stream
        return AccountHistory(
            recorded,
            announced=lambda: stream.seen_slot(key.wallet, key.token_account) or 0,
            is_witnessed=lambda amounts: stream.holds(key.wallet, key.token_account, amounts),
        )

    def _answered(self, verdict: Verdict | None) -> None:
        """On a thread that asks."""
        self._put_later(0.0, lambda: self._follow(verdict))

    def _follow(self, verdict: Verdict | None) -> None:
        self._is_asking = False
        if self._is_over:
            return
        if verdict is not None and (not self._may_ask() or self._recorded_now() != self._recorded):
            # A part was signed or has landed since the question: the answer compares with a record that is out of date.
            self.go_on()
            return
        if verdict is not None:
            self._is_over = True
            self._decided(verdict)
            return
        log.info("not taken up yet: %s", self.waits_for)
        pause_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * growing_pause_s(self._rounds))
        self._rounds += 1
        self._put_later(pause_s, self.go_on)

    def _report(self) -> None:
        """Each minute without a proof."""
        if self._is_over:
            return
        self._put_later(UNDECIDED_AFTER_S, self._report)
        self._wants_trades = True
        self._tools.report_problem(TxSubmitError("confirm_timeout", self.waits_for))
