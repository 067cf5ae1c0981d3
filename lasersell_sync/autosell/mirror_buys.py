"""Copies of watched wallets' purchases: guard, sign, send, and report the outcome (docs/protocol.md 5)."""

from __future__ import annotations

import time
from functools import partial

from lasersell_sync.autosell.journal import BuyRecord
from lasersell_sync.autosell.reports import BuyReport
from lasersell_sync.autosell.services import Services
from lasersell_sync.autosell.signing_gate import Case
from lasersell_sync.exceptions import (
    ConfigurationError,
    JournalError,
    StreamError,
    TxSubmitError,
    UnsafeTransactionError,
)
from lasersell_sync.messages import MirrorBuySignal
from lasersell_sync.runtime.log import logger
from lasersell_sync.trading.guard import TradeContext
from lasersell_sync.trading.sending.outcome import SellOutcome, TxResult
from lasersell_sync.trading.sending.tracked_tx import Listener

__all__ = ["MirrorBuyer"]

log = logger("autosell")


class MirrorBuyer:
    """Follows ``mirror_buy_signal``.

    A purchase is sent once and never replaced: by the time its transaction is dead, so is its price.

    Threads: every method in a task of the line that ``line_of`` names.
    """

    def __init__(self, services: Services) -> None:
        self._services = services
        #: Signatures of purchases whose sending has not returned, by what was to be signed: after an error there nobody
        #: knows whether they were sent.
        self._unsure: dict[str, str] = {}

    @staticmethod
    def line_of(wallet: str, mint: str) -> tuple[str, str, str]:
        """The line in which one wallet's purchases of one token are dealt with."""
        return ("buy", wallet, mint)

    def signalled(self, signal: MirrorBuySignal, received_ns: int) -> None:
        """The server wants a purchase copied."""
        services = self._services
        if (unsure := self._unsure.get(signal.unsigned_tx_b64)) is not None:
            self._follow_by_the_journal(unsure)
            del self._unsure[signal.unsigned_tx_b64]
            return
        line = self.line_of(signal.user_wallet, signal.mint)
        again = partial(services.executor.put, line, partial(self.signalled, signal, received_ns))
        if services.under_way.hold_back(signal.user_wallet, signal.mint, again):
            # What is bought now could be sold by an exit that was meant for other tokens.
            log.warning("a purchase of %s waits until no exit of this token can land any more", signal.mint)
            return
        age_s = (time.monotonic_ns() - received_ns) / 1e9
        if services.barrier.is_paused:
            self._refuse(signal, "the seller is paused")
            return
        if age_s > services.policy.max_signal_age_s:
            self._refuse(signal, f"the signal is {age_s:.1f} s old: its price is not today's")
            return
        try:
            context = TradeContext(
                tip_lamports=services.stream.tip_lamports, minimum_tip_lamports=services.terms.minimum_tip_lamports,
                own_token_accounts=services.token_accounts,
            )  # fmt: skip
            case = services.judge(signal.user_wallet, signal, mint=signal.mint, context=context)
        except (UnsafeTransactionError, ConfigurationError) as error:
            self._refuse(signal, f"nothing was signed: {error}", error)
            return
        if case.is_ready:
            self._buy(signal, case)
        else:
            task = partial(self._buy_after_all, signal, case)
            case.when_ready(lambda: services.executor.put(line, task))

    def _buy_after_all(self, signal: MirrorBuySignal, case: Case) -> None:
        """Nodes have answered; meanwhile the seller may have been paused."""
        if (unsure := self._unsure.get(signal.unsigned_tx_b64)) is not None:
            self._follow_by_the_journal(unsure)
            del self._unsure[signal.unsigned_tx_b64]
        else:
            self._buy(signal, case)

    def _buy(self, signal: MirrorBuySignal, case: Case) -> None:
        with self._services.barrier.act() as may_sign:
            if may_sign:
                self._sign(signal, case)
            else:
                self._refuse(signal, "the seller is paused")

    def _sign(self, signal: MirrorBuySignal, case: Case) -> None:
        """Sign what the guard decided about, write it down, and send it."""
        services = self._services
        try:
            signed = services.sign(case, signal)
        except (UnsafeTransactionError, TxSubmitError, ConfigurationError) as error:
            self._refuse(signal, f"nothing was signed: {error}", error)
            return
        if signed is None:
            self._tell(signal, SellOutcome.UNKNOWN, "dry run: it might be signed, and was not")
            return
        is_new = services.journal.buying(
            signature=signed.signature,
            wallet=signal.user_wallet,
            mint=signal.mint,
            watched_wallet=signal.watched_wallet,
            blockhash=signed.blockhash,
        )
        if is_new:
            self._unsure[signal.unsigned_tx_b64] = signed.signature
            bought = partial(self._hear_result, signal.user_wallet, signal.mint, signal.watched_wallet)
            services.sender.submit_for(signed, Listener(on_settled=bought))
            del self._unsure[signal.unsigned_tx_b64]

    def _follow_by_the_journal(self, signature: str) -> None:
        for record in self._services.journal.buys(to_do=True):
            if record.signature == signature:
                self.restore(record)

    def restore(self, record: BuyRecord) -> None:
        """Take up a purchase that an earlier process left unreported."""
        bought = partial(self._hear_result, record.wallet, record.mint, record.watched_wallet)
        if record.outcome is None:
            self._services.sender.track_for(record.signature, record.blockhash, Listener(on_settled=bought))
        else:
            bought(TxResult(signature=record.signature, outcome=record.outcome, slot=record.slot))

    def _hear_result(self, wallet: str, mint: str, watched_wallet: str, result: TxResult) -> None:
        """On the sender's thread."""
        task = partial(self._settled, wallet, mint, watched_wallet, result)
        self._services.executor.put(self.line_of(wallet, mint), task)

    def _settled(self, wallet: str, mint: str, watched_wallet: str, result: TxResult) -> None:
        self._services.journal.bought(result.signature, result.outcome, slot=result.slot)
        self._tell_server(mint, success=result.outcome is SellOutcome.CONFIRMED)
        self._services.report_buy(
            BuyReport(
                wallet=wallet, mint=mint, watched_wallet=watched_wallet, outcome=result.outcome,
                signature=result.signature, slot=result.slot, detail=result.detail,
            )
        )  # fmt: skip
        try:
            self._services.journal.buy_reported(result.signature)
        except JournalError as error:
            # It is told once more at the next start.
            log.warning("that the purchase of %s was reported is not recorded: %s", mint, error)

    def _refuse(self, signal: MirrorBuySignal, detail: str, error: Exception | None = None) -> None:
        if not self._services.is_dry_run:
            self._tell_server(signal.mint, success=False)
        self._tell(signal, SellOutcome.REJECTED, detail, error)

    def _tell(self, signal: MirrorBuySignal, outcome: SellOutcome, detail: str, error: Exception | None = None) -> None:
        self._services.report_buy(
            BuyReport(
                wallet=signal.user_wallet, mint=signal.mint, watched_wallet=signal.watched_wallet, outcome=outcome,
                detail=detail, error=error, is_dry_run=self._services.is_dry_run,
            )
        )  # fmt: skip

    def _tell_server(self, mint: str, *, success: bool) -> None:
        try:
            self._services.stream.tell_bought(mint, success=success)
        except StreamError as error:
            log.warning("the server was not told what became of the purchase of %s: %s", mint, error)
