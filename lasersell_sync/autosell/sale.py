"""One exit under way: what is known of it between two events, and how old its signal is. No rules, no I/O."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Final

from lasersell_sync.autosell.exit_key import Departure, ExitKey
from lasersell_sync.autosell.journal import TO_BE, ExitRecord
from lasersell_sync.autosell.reports import SellReport
from lasersell_sync.autosell.services import TokenWitness
from lasersell_sync.messages import ExitSignalWithTx, MarketContext
from lasersell_sync.trading.rest.tx_requests import SellOutput
from lasersell_sync.trading.sending.outcome import SellOutcome, TxResult

__all__ = ["Age", "Sale", "SaleState", "age_of", "report_of"]


# ── One exit under way: what is known of it between two events. No rules, no I/O ────────────────────────────────────


class SaleState(Enum):
    """Where an exit stands."""

    #: It waits: for its turn, for ``resume``, or for the journal.
    WAITING = "waiting"
    #: Nodes are asked about its transaction; nothing is signed before they have answered.
    JUDGING = "judging"
    #: A transaction was signed and may land.
    LIVE = "live"
    #: None can land; a fresh one was asked for.
    ASKING = "asking"
    #: The whole position was sold; nodes are asked whether parts that it overtook have left tokens.
    EMPTYING = "emptying"
    FINISHED = "finished"


class Sale:
    """One exit's memory. Touched only in the tasks of its position's line."""

    def __init__(
        self,
        record: ExitRecord,
        *,
        slippage_bps: int | None = None,
        pays: SellOutput | None = None,
        on_end: Callable[[SellReport], None] | None = None,
        before: Sale | None = None,
    ) -> None:
        self.record = record
        self.key: ExitKey = record.key
        self.state = SaleState.WAITING
        #: What a fresh transaction may give away, in basis points; None: as the policy says.
        self.slippage_bps = slippage_bps
        #: What its market pays in; None: not known.
        self.pays = pays
        #: Told the end, in the position's line.
        self.on_end = on_end
        #: Signatures of transactions that may land.
        self.live: set[str] = set()
        #: Of all that were signed.
        self.signatures = {attempt.signature for attempt in record.attempts}
        #: Signatures of those that are proven dead, since the exit was begun or begun anew.
        self.dead = {
            attempt.signature
            for attempt in record.attempts
            if attempt.outcome is not None and attempt.outcome.is_dead and attempt.signed_ms >= record.began_ms
        }
        #: By signature, of parts that were signed by this process: what the stream says about the tokens since.
        self.witnesses: dict[str, TokenWitness] = {}
        #: The slippage that the newest fresh transaction was asked for with; None: none was asked for.
        self.asked_bps: int | None = None
        #: Transactions in a row that the guard refused for their price, or because they would have failed.
        self.low_prices = 0
        #: Those of them that would have failed: each has the next one asked for with more slippage.
        self.failed_simulations = 0
        #: Times in a row that no node could simulate its transaction.
        self.unsimulated = 0
        #: When the newest transaction of the REST API came, by the monotonic clock.
        self.built_ns = 0
        #: What became of the latest dead one.
        self.last: TxResult | None = None
        #: Questions for a fresh transaction that went without an answer in a row.
        self.unanswered = 0
        #: An earlier process left it: nothing is asked for before it is proven whose tokens these are.
        self.is_unproven = False
        #: It gets no further transaction; those that may land are followed to their end.
        self.is_retired = False
        #: Tokens of the parts whose transactions might still land when this exit of the whole position was sold.
        self.overtook: dict[ExitKey, int] = {}
        #: The sale of the whole position, while what is left is sold.
        self.landed: TxResult | None = None
        #: Rises with every change of state: a timer that was set before knows that it is out of date.
        self.turn = 0
        #: Where the token trades, if a signal said so.
        self.market_context: MarketContext | None = None
        #: Profit of the whole position by the newest signal, and the tokens of that position; None: no signal came.
        self.valued: tuple[int, int] | None = None
        #: Of the newest signal; None: none came.
        self.triggered_at_ms: int | None = None
        #: Of the newest transaction.
        self.departure: Departure | None = None
        self._signal: ExitSignalWithTx | None = None
        self._received_ns = 0
        #: The signal of the newest transaction, until it is known to have left.
        self._leaving: ExitSignalWithTx | None = None
        if before is not None:
            self._take_over(before)

    def _take_over(self, before: Sale) -> None:
        """What no record holds: who waits for it, and how it is to be sold."""
        self.slippage_bps, self.pays, self.on_end = before.slippage_bps, before.pays, before.on_end
        self.market_context, self.last, self.valued = before.market_context, before.last, before.valued
        self.witnesses, self.overtook, self.landed = before.witnesses, before.overtook, before.landed
        self.is_unproven, self.is_retired = before.is_unproven, before.is_retired
        self._signal, self._received_ns = before._signal, before._received_ns

    @property
    def is_finished(self) -> bool:
        """Nothing more is done for it."""
        return self.state is SaleState.FINISHED

    def enter(self, state: SaleState) -> int:
        """Change state; the number of this turn."""
        self.state = state
        self.turn += 1
        return self.turn

    @property
    def is_recorded(self) -> bool:
        """Whether the journal has it."""
        return self.record.id != TO_BE

    def departs(self, departure: Departure) -> None:
        """A transaction is signed: it may land as soon as its record is on the disk."""
        self.enter(SaleState.LIVE)
        self._leaving, self._signal = self._signal, None
        self.low_prices = self.unsimulated = 0
        self.departure = departure
        self.live.add(departure.signature)
        self.signatures.add(departure.signature)

    def stays(self, departure: Departure) -> None:
        """The transaction was held back, and its signature is forgotten."""
        self.departure = None
        self.live.discard(departure.signature)
        self.signatures.discard(departure.signature)
        self.witnesses.pop(departure.signature, None)
        self._signal = self._signal or self._leaving
        self.enter(SaleState.LIVE if self.live else SaleState.WAITING)

    def is_for(self, signal: ExitSignalWithTx) -> bool:
        """Whether a signal's transaction sells what this exit is to sell: of a part so many tokens, and no others."""
        return self.key.is_whole or signal.sell_tokens is None or signal.sell_tokens == self.record.tokens

    def offer(self, signal: ExitSignalWithTx, received_ns: int) -> None:
        """A transaction to use when none can land any more; the newest is the best."""
        self._signal = signal
        self._received_ns = received_ns
        self.triggered_at_ms = signal.triggered_at_ms
        self.valued = signal.profit_units, signal.position_tokens
        if signal.market_context is not None:
            self.market_context = signal.market_context

    @property
    def signal(self) -> ExitSignalWithTx | None:
        """The newest that was not used."""
        return self._signal

    def use_up_signal(self) -> None:
        """Its transaction was sent, or is of no use."""
        self._signal = None

    @property
    def came_ns(self) -> int:
        """When the newest signal came, by ``time.monotonic_ns()``."""
        return self._received_ns

    def share_of(self, units: int) -> int:
        """The part of a whole position's amount that this exit sells."""
        position_tokens = 0 if self.valued is None else self.valued[1]
        if self.key.is_whole or not position_tokens or self.record.tokens >= position_tokens:
            return units
        return units * self.record.tokens // position_tokens

    def outcome_if_given_up(self) -> SellOutcome:
        """What to call it when nothing more is tried: what became of the last transaction, if there was one."""
        return SellOutcome.EXPIRED if self.last is None else self.last.outcome


def report_of(record: ExitRecord) -> SellReport:
    """What to tell of an exit that is finished, by its record alone."""
    assert record.outcome is not None  # it is finished
    decided = [attempt for attempt in record.attempts if attempt.outcome is record.outcome]
    last = decided[-1] if decided else None
    return SellReport(
        key=record.key, outcome=record.outcome, reason=record.reason, tokens=record.tokens,
        signature=None if last is None else last.signature, slot=None if last is None else last.slot,
        transactions=len(record.attempts), detail=record.detail,
    )  # fmt: skip


# ── How old an exit signal is, by clocks that may differ ────────────────────────────────────────────────────────────


#: A trigger that is older than this, in a signal that was received just now, is a clock that differs, or a repetition.
_BEYOND_REASON_S: Final = 600.0


class Age(Enum):
    """What to do with a signal's transaction."""

    #: Its price is today's.
    YOUNG = "young"
    #: Its price is not: a fresh transaction is asked for.
    OLD = "old"
    #: Its trigger is old, and it may be young all the same: a node knows whether its blockhash is.
    DOUBTFUL = "doubtful"


def age_of(
    *,
    received_s: float,
    by_server_s: float | None,
    by_us_s: float,
    limit_s: float,
    is_answer: bool,
) -> Age:
    """Judge a signal's age.

    Args:
        received_s: seconds since the signal was received, by the monotonic clock.
        by_server_s: seconds from ``triggered_at_ms`` to now by the clock of ``hello_ok``; None: there was none.
        by_us_s: the same by this machine's clock.
        limit_s: seconds that a price lives.
        is_answer: the signal answers a question of ours; such a one may repeat the trigger of the first.
    """
    if received_s > limit_s:
        return Age.OLD
    # A trigger in the future is no age: the clock of hello_ok and that of the triggers differ.
    if by_server_s is None or by_server_s < -limit_s:
        return Age.YOUNG
    # Nor is one that only one of two clocks shows.
    told_s = min(by_server_s, by_us_s) if by_us_s >= -limit_s else by_server_s
    if told_s <= limit_s:
        return Age.YOUNG
    return Age.DOUBTFUL if is_answer or told_s > _BEYOND_REASON_S else Age.OLD
