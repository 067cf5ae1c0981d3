"""What is known of one position: its announcement, its tokens, and what an earlier process left unfinished."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable
from typing import Final

from lasersell_sync.autosell.exit_key import ExitKey
from lasersell_sync.autosell.journal import ExitRecord
from lasersell_sync.autosell.keyed_executor import growing_pause_s
from lasersell_sync.autosell.questions import Opened, PastTrades, proof_of_sale
from lasersell_sync.autosell.services import Services
from lasersell_sync.exceptions import TxSubmitError
from lasersell_sync.messages import ExitSignalWithTx, PositionOpened
from lasersell_sync.positions import Opening, PositionHandle
from lasersell_sync.runtime.log import logger
from lasersell_sync.session.stream_session import StreamSession
from lasersell_sync.stream.lifecycle import ConnectionState
from lasersell_sync.trading.guard import TradeContext
from lasersell_sync.trading.sending.outcome import SellOutcome
from lasersell_sync.trading.solana.account_history import AccountHistory, Finding, Recorded, Verdict

__all__ = ["Announced", "HeldTokens", "TakeUp", "overtaken_by", "recorded_of"]

log = logger("autosell")


# ── What an earlier process left unfinished: whose exit is it, and may it go on? ────────────────────────────────────
# A whole exit goes on when it is proven that it belongs to what the token account holds now. A part never does: the
# transaction that was signed for it is followed to its end, and nothing is built in its place. The service's list of
# past trades may end a whole exit; it never begins one.


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
        services: Services,
        whole: ExitRecord,
        *,
        opening: Opening | None,
        slot: int | None,
        may_ask: Callable[[], bool],
        put_later: Callable[[float, Callable[[], None]], None],
        decided: Callable[[Verdict], None],
    ) -> None:
        self._services = services
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
        self._put_later(self._services.terms.announcement_grace_s, self.announced)
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
        self._services.questions.history(self._whole.key.token_account, self._history, self._answered)

    def _ask_for_trades(self) -> None:
        """The REST API may prove that all is sold."""
        questions, key = self._services.questions, self._whole.key
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
        key, journal = self._whole.key, self._services.journal
        whole = journal.find(key) or self._whole
        opening = journal.of_opening(key.wallet, key.token_account, key.generation)
        return recorded_of(whole, opening, journal.signatures(key.wallet, key.token_account), self._slot)

    def _begin_history(self, recorded: Recorded) -> AccountHistory:
        key, stream = self._whole.key, self._services.stream
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
        self._services.report_problem(TxSubmitError("confirm_timeout", self.waits_for))


# ── What the stream says about one position's tokens since one of its transactions was signed ───────────────────────


class HeldTokens:
    """A witness beside the nodes: it remembers the balance, and on which link of the session it was seen.

    Args:
        session: the stream.
        wallet: base58.
        token_account: base58.

    Threads: any.
    """

    def __init__(self, session: StreamSession, wallet: str, token_account: str) -> None:
        self._session = session
        self._key = (wallet, token_account)
        self._links = session.connection.stats().sessions
        handle = self._handle()
        self._tokens = None if handle is None else handle.tokens

    def still_held(self) -> bool:
        """True when the link never broke since, and the last balance holds no less than the first."""
        handle = self._handle()
        return (
            self._tokens is not None
            and handle is not None
            and not handle.stale
            and handle.tokens >= self._tokens
            and self._session.status is ConnectionState.LIVE
            and self._session.connection.stats().sessions == self._links
        )

    def have_fallen_by(self, tokens: int) -> bool:
        """True when the last balance is lower by so many atomic units, or more."""
        handle = self._handle()
        return self._tokens is not None and handle is not None and self._tokens - handle.tokens >= tokens

    def _handle(self) -> PositionHandle | None:
        return next((each for each in self._session.positions() if each.key == self._key), None)


# ── One position's announcement, what the guard compares with it, and the signals that wait for it ──────────────────


class Announced:
    """What is known of one position beyond its signals.

    Threads: in tasks of the position's line.
    """

    def __init__(self, wallet: str, token_account: str, services: Services) -> None:
        self._id = (wallet, token_account)
        self._services = services
        #: The newest of any link; a server need not repeat it after a reconnect.
        self._announcement: PositionOpened | None = None
        self._waiting: list[tuple[ExitSignalWithTx, int]] = []

    def opened(self, announcement: PositionOpened | None) -> list[tuple[ExitSignalWithTx, int]]:
        """The position was announced; signals that waited for it, with the time when each came."""
        if announcement is not None:
            self._announcement = announcement
        waiting, self._waiting = self._waiting, []
        return waiting

    def closed(self) -> None:
        """Signals that wait are of a position that is gone."""
        self._waiting.clear()

    def is_known(self, mint: str) -> bool:
        """Whether a link of this session announced the position, or the journal has it."""
        if self._known_announcement() is not None:
            return True
        return self._services.journal.is_announced(*self._id, mint)

    def _known_announcement(self) -> PositionOpened | None:
        """Of a seller that was started late, what the session still knows of it."""
        if self._announcement is None:
            self._announcement = self._services.stream.announcement(*self._id)
        return self._announcement

    def must_wait(self, signal: ExitSignalWithTx) -> bool:
        """Whether the announcement may still come."""
        return not self._services.terms.sell_unannounced and not self.is_known(signal.mint)

    def hold(self, signal: ExitSignalWithTx, received_ns: int) -> None:
        """Wait with a signal."""
        self._waiting.append((signal, received_ns))

    def let_go(self, signal: ExitSignalWithTx) -> bool:
        """Its time is over; False when it does not wait any more."""
        left = [held for held in self._waiting if held[0] is not signal]
        was_waiting = len(left) < len(self._waiting)
        self._waiting = left
        return was_waiting

    def context(self, mint: str, *, slippage_bps: int | None) -> TradeContext:
        """What the guard is given beside a transaction.

        Args:
            mint: of the exit.
            slippage_bps: what the transaction was asked for with; None: nobody asked for it.
        """
        terms, facts = self._services.terms, self._services.stream.position_facts(*self._id)
        return TradeContext(
            announcement=self._known_announcement(),
            is_announced=None if terms.sell_unannounced else self.is_known(mint),
            position_tokens=facts.tokens, proceeds_units=facts.proceeds_units, slippage_bps=slippage_bps,
            never_sell=terms.never_sell, tip_lamports=self._services.stream.tip_lamports,
            minimum_tip_lamports=terms.minimum_tip_lamports,
            own_token_accounts=self._services.token_accounts,
        )  # fmt: skip
