"""The server, the chain, and a user's own hand around one seller after the other; what must be true of them together."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import deque
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import attrs

from lasersell_sync.autosell.journal import Journal
from lasersell_sync.autosell.reports import SellReport
from lasersell_sync.exceptions import JournalError, TxSubmitError
from lasersell_sync.messages import (
    BalanceUpdate,
    ExitSignalWithTx,
    PositionClosed,
    PositionOpened,
    ServerMessage,
)
from lasersell_sync.trading.rest.account import HistoryTrade
from lasersell_sync.trading.sending.outcome import SellOutcome
from lasersell_sync.trading.solana.signing import read_signed_tx
from tests.properties.model_chain import ModelChain, ModelNode, Mood
from tests.properties.model_seller import Killed, ModelApi, ModelTarget, Process
from tests.properties.virtual_time import VirtualTime
from tests.support.selling import exit_signal

#: Where no fsync waits for a disk, if there is such a place.
_FOLDER = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
_POSITION_ID = 7
#: Of an opening, in percent, by level.
LEVELS = (30, 30, 40)
_TICK_S, _LONG_TICK_S = 1.0, 5.0
#: For everything to come to an end once nothing disturbs it any more: forty exits one after the other, say.
_CALM_S = 20_000


@attrs.define
class Opening:
    """What is true of one opening.

    Attributes:
        tokens: bought, in all.
        entry: what the server says that it cost.
        moment: when it was opened; None: the server does not say.
        is_whole_wanted: the server signalled the whole position.
        levels: by level, what the server signalled.
        others: slices and legs that were wanted.
        same_as: an earlier opening that nobody could tell it from.
    """

    tokens: int
    entry: int
    moment: int | None
    is_whole_wanted: bool = False
    levels: dict[int, int] = attrs.Factory(dict)
    others: int = 0
    same_as: int | None = None

    @property
    def wanted(self) -> int:
        return self.tokens if self.is_whole_wanted else sum(self.levels.values()) + self.others


class World:
    """One token account in a world of faults.

    Args:
        names_moments: the server names the moment of an opening.
        reannounces: it announces what it has announced before again on a new link.
    """

    def __init__(self, *, names_moments: bool, reannounces: bool) -> None:
        signal = exit_signal()
        assert signal.token_account is not None
        self.names_moments, self.reannounces = names_moments, reannounces
        self.folder = Path(tempfile.mkdtemp(prefix="lasersell-properties-", dir=_FOLDER))
        self.clock = VirtualTime()
        self.chain = ModelChain(signal.token_account, signal.wallet_pubkey)
        self.nodes = [ModelNode(self.chain, f"node {number}", self._look) for number in (0, 1)]
        self.target = ModelTarget(self._take)
        self.api = ModelApi(self._build, self._past_trades)
        self.openings: dict[int, Opening] = {}
        self.answers_questions = True
        self.process: Process | None = None
        self.is_linked = False
        self.reports: list[SellReport] = []
        self.problems: list[Exception] = []
        self.breaches: list[str] = []
        #: What the server has said and the link has not brought yet.
        self._on_the_link: deque[ServerMessage] = deque()
        #: The newest opening that was announced to any process, and whether its end was told after that.
        self._announced, self._is_end_told = 0, False
        #: The newest opening that this life knows of, or that there was when it began.
        self._known = 0
        #: Exits that the server signalled to a process which then lived on: (opening, part).
        self.delivered: list[tuple[int, str]] = []
        self._numbers = 0

    def close(self) -> None:
        if self.process is not None:
            self.process.bury()
        shutil.rmtree(self.folder)

    @property
    def journal_path(self) -> str:
        return str(self.folder / "sales.journal")

    def _look(self) -> None:
        if self.process is not None and self.process.kills.is_dead:
            raise Killed

    # -- the process

    def start(self, *, is_linked: bool = True) -> None:
        """The seller's process begins."""
        self._known = self.chain.opening
        self._on_the_link.clear()
        self.process = Process(
            self.journal_path, self.clock, self.nodes, self.target, self.api, told=self._hear, reported=self._note
        )
        if is_linked:
            self.connect()
        self._in_process(self.process.start)

    def kill(self) -> None:
        """Between two steps."""
        if self.process is not None:
            self.process.kills.is_dead = True
            self._reap()

    def _reap(self) -> None:
        assert self.process is not None
        self.process.bury()
        self.process, self.is_linked = None, False
        # What was not written down when it died is unheard.
        written = {record.key.part for record in self.records()}
        self.delivered = [each for each in self.delivered if each[1] in written]
        self._on_the_link.clear()

    def _in_process(self, step: Any) -> bool:
        """Do it in the process, which may die of it; whether it lives."""
        if self.process is None:
            return False
        process = self.process
        try:
            step()
            process.settle_down()
        except Killed:
            pass
        if process.kills.is_dead:
            self._reap()
            return False
        self.breaches += [f"a task raised {error!r}" for error in process.lines.errors]
        process.lines.errors.clear()
        return True

    def _note(self, report: SellReport | Exception) -> None:
        if isinstance(report, Exception):
            self.problems.append(report)
        else:
            self.reports.append(report)

    def pause(self) -> None:
        assert self.process is not None
        self._in_process(self.process.seller.pause)

    def resume(self) -> None:
        assert self.process is not None
        self._in_process(self.process.seller.resume)

    def sell_a_leg(self, tokens: int) -> None:
        """The user wants so many tokens sold, as one leg of ``sell_in_legs``."""
        assert self.process is not None
        signal, seller = exit_signal(), self.process.seller
        self.openings[max(self._known, 1)].others += tokens
        self._numbers += 1
        leg: Any = partial(
            lambda name, position: position.sell_leg(
                name, signal.mint, position_id=_POSITION_ID, tokens=tokens, slippage_bps=150, pays=None,
                on_end=lambda _: None,
            ),
            str(self._numbers),
        )  # fmt: skip
        self._in_process(lambda: seller._in_line((signal.wallet_pubkey, self.chain.account), leg))

    # -- the link

    def connect(self) -> None:
        if self.process is None or self.is_linked:
            return
        self.is_linked = True
        is_news = self.reannounces or self._announced != self.chain.opening
        if self._in_process(self.process.connect) and self.chain.tokens and is_news:
            self._say_opened()

    def lose_link(self) -> None:
        if self.process is not None and self.is_linked:
            self.is_linked = False
            self._on_the_link.clear()
            self._in_process(self.process.lose)

    def deliver(self, count: int = 1_000) -> None:
        """The link brings so many messages."""
        while self._on_the_link and count and self.process is not None:
            count -= 1
            message = self._on_the_link.popleft()
            self._note_delivery(message)
            lives = self._in_process(partial(self.process.receive, message))
            if isinstance(message, ExitSignalWithTx) and lives and message.reason != "manual_sell":
                part = "whole" if message.level_index is None else f"level {message.level_index}"
                if message.sell_tokens is None or message.level_index is not None:
                    self.delivered.append((self.chain.opening, part))

    def _note_delivery(self, message: ServerMessage) -> None:
        if isinstance(message, PositionClosed):
            self._is_end_told = True
        if isinstance(message, PositionOpened):
            opening = message.position_id
            before = self._known
            is_another = 0 < before < opening
            is_seen = before != self._announced or self._is_end_told or self.names_moments
            if is_another and not is_seen and self._cannot_tell(self.openings[before], self.openings[opening]):
                self.openings[opening].same_as = before
            self._known, self._announced, self._is_end_told = opening, opening, False

    def _cannot_tell(self, known: Opening, new: Opening) -> bool:
        """By PROTOCOL and ``positions.py``: without a close and without moments, the entries decide."""
        assert self.process is not None
        return new.entry <= known.entry or bool(self.process.journal.unfinished())

    # -- the server

    def _say(self, message: ServerMessage) -> None:
        if self.is_linked:
            self._on_the_link.append(message)

    def _say_opened(self) -> None:
        signal, opening = exit_signal(), self.openings[self.chain.opening]
        self._say(
            PositionOpened(
                position_id=self.chain.opening, wallet_pubkey=signal.wallet_pubkey, mint=signal.mint,
                token_account=self.chain.account, token_program=signal.token_program, tokens=self.chain.tokens,
                entry_quote_units=opening.entry, market_context=signal.market_context, opened_at_ms=opening.moment,
                slot=self.chain.slot,
            )
        )  # fmt: skip

    def _say_balance(self) -> None:
        signal = exit_signal()
        self._say(
            BalanceUpdate(
                wallet_pubkey=signal.wallet_pubkey, mint=signal.mint, token_account=self.chain.account,
                tokens=self.chain.tokens, slot=self.chain.slot,
            )
        )  # fmt: skip
        if not self.chain.tokens:
            self._say(
                PositionClosed(
                    position_id=self.chain.opening, wallet_pubkey=signal.wallet_pubkey, mint=signal.mint,
                    token_account=self.chain.account, reason="sold", slot=self.chain.slot,
                )
            )  # fmt: skip

    def announce_again(self) -> None:
        if self.chain.tokens:
            self._say_opened()

    def want_whole(self, reason: str = "stop_loss") -> None:
        if reason != "manual_sell":
            self.openings[self.chain.opening].is_whole_wanted = True
        self._signal(None, self.chain.tokens, reason)

    def want_level(self, index: int) -> None:
        opening = self.openings[self.chain.opening]
        tokens = opening.levels.get(index, opening.tokens * LEVELS[index] // 100)
        if 0 < tokens < self.chain.tokens:
            opening.levels[index] = tokens
            self._signal(index, tokens, "take_profit")

    def want_slice(self, percent: int) -> None:
        tokens = self.chain.tokens * percent // 100
        if 0 < tokens < self.chain.tokens:
            self.openings[self.chain.opening].others += tokens
            self._signal(-1, tokens, "mirror_sell")

    def _signal(self, level: int | None, tokens: int, reason: str) -> None:
        self._numbers += 1
        market = exit_signal()
        self._say(
            attrs.evolve(
                market, position_id=self.chain.opening, position_tokens=self.chain.tokens,
                sell_tokens=None if level is None else tokens, level_index=None if level == -1 else level,
                reason=reason, triggered_at_ms=int(self.clock.time() * 1000) + self._numbers % 1000,
                unsigned_tx_b64=self.chain.build(tokens, self.chain.opening),
            )
        )  # fmt: skip

    def _hear(self, command: dict[str, Any]) -> None:
        """A command of the client."""
        if command["type"] == "request_exit_signal" and self.answers_questions and self.chain.tokens:
            self.want_whole("manual_sell")

    # -- the chain

    def _build(self, tokens: int) -> str:
        """The REST API builds a sale."""
        self._must_not_be_paused("a sale was asked of the REST API")
        return self.chain.build(tokens, self._known)

    def _past_trades(self) -> list[HistoryTrade]:
        """What the REST API lists, the newest first; nothing where the server names no moments."""
        self._must_not_be_paused("past trades were asked of the REST API")
        return [self._past_trade(*each) for each in reversed(self.openings.items()) if self.names_moments]

    def _past_trade(self, number: int, opening: Opening) -> HistoryTrade:
        assert opening.moment is not None
        signal, now = exit_signal(), datetime.fromtimestamp(self.clock.time(), tz=timezone.utc)
        is_closed = number < self.chain.opening or not self.chain.tokens
        return HistoryTrade(
            id=number, session_id=None, position_id=number, wallet_pubkey=signal.wallet_pubkey, mint=signal.mint,
            entry_quote_units=opening.entry, exit_quote_units=1 if is_closed else None,
            profit_quote_units=0 if is_closed else None, tokens=opening.tokens, exit_reason=None, market_kind=None,
            strategy_pct={}, opened_at=datetime.fromtimestamp(opening.moment / 1_000, tz=timezone.utc),
            closed_at=now if is_closed else None,
        )  # fmt: skip

    def _must_not_be_paused(self, what: str) -> None:
        assert self.process is not None
        if self.process.seller.is_paused:
            self.breaches.append(f"{what} while the seller was paused")

    def _take(self, tx_b64: str) -> None:
        """A transaction arrives at the target."""
        assert self.process is not None
        self.process.kills.look()
        if read_signed_tx(tx_b64).signature not in self.chain.arrived and self.target.has_always_taken:
            self._must_not_be_paused("a transaction was sent for the first time")
        tx = self.chain.take(tx_b64)
        if not self.process.has_recorded(tx.signature):
            self.breaches.append(f"{tx.signature} was sent, and is not in the journal")
        self.process.kills.look()

    def land(self, which: int, *, fails: bool = False) -> None:
        if flying := self.chain.may_land():
            before = self.chain.tokens
            self.chain.land(flying[which % len(flying)], fails=fails)
            if self.chain.tokens != before:
                self._say_balance()

    def sell_by_hand(self) -> None:
        self.chain.trade(-self.chain.tokens)
        self._say_balance()

    def may_buy(self) -> bool:
        """Whether what is under way cannot sell too much by itself.

        Whole exits believe one node, which may be wrong, and overtake parts, which may land later: as long as the
        account is empty that sells nothing, and nobody can call a transaction back.
        """
        flying = self.chain.may_land()
        if self.chain.tokens or any(tx.signature in self._called_dead() for tx in flying):
            return False
        return all(
            self.chain.sold_of(number) + sum(tx.tokens for tx in flying if tx.opening == number) <= opening.wanted
            for number, opening in self.openings.items()
        )

    def _called_dead(self) -> set[str]:
        return {
            attempt.signature
            for record in self.records()
            for attempt in record.attempts
            if attempt.outcome not in {None, SellOutcome.CONFIRMED}
        }

    def buy(self, tokens: int, entry: int) -> None:
        """The account is opened, or opened again."""
        self.chain.trade(tokens)
        self.chain.opening += 1
        moment = 1_000_000 * self.chain.opening if self.names_moments else None
        self.openings[self.chain.opening] = Opening(tokens, entry, moment)
        self._say_opened()
        self._say_balance()

    def top_up(self, tokens: int) -> None:
        self.chain.trade(tokens)
        opening = self.openings[self.chain.opening]
        opening.tokens += tokens
        opening.entry += 1
        self._say_opened()
        self._say_balance()

    # -- time

    def advance(self, seconds: float, *, lands: bool = False) -> None:
        until = self.clock.now_s + seconds
        while self.clock.now_s < until:
            step_s = min(until - self.clock.now_s, _TICK_S if seconds <= 20 else _LONG_TICK_S)
            self.clock.advance(step_s)
            self.chain.slot += max(1, round(step_s / 0.2))
            while lands and self.chain.may_land():
                self.land(0)
            self.deliver()
            if self.process is not None:
                self._in_process(self.process.work)

    def calm_down(self) -> None:
        """Nothing disturbs any more: everybody tells the truth, answers and lives."""
        for node in self.nodes:
            node.mood = Mood.HONEST
        self.target.mood, self.api.mood, self.answers_questions = "takes", "builds", True
        if self.process is None:
            self.start()
        if self.process is not None:
            self.process.kills.left = None
            self.process.is_disk_slow = False
        self.connect()
        self.resume()
        self.advance(20, lands=True)
        until = self.clock.now_s + _CALM_S
        while self.clock.now_s < until and (self.process is None or self.process.journal.unfinished()):
            self.advance(100, lands=True)

    # -- what must be true

    def records(self) -> list[Any]:
        if self.process is not None:
            return self.process.journal.exits()
        if not Path(self.journal_path).exists():
            return []
        with Journal(self.journal_path, read_only=True) as journal:
            return journal.exits()

    def _openings_by_first(self) -> dict[int, list[int]]:
        """Those that nobody could tell apart are one."""
        together: dict[int, list[int]] = {}
        for number in self.openings:
            first = number
            while (earlier := self.openings[first].same_as) is not None:
                first = earlier
            together.setdefault(first, []).append(number)
        return together

    def check(self) -> None:
        """After any step."""
        assert not self.breaches, self.breaches
        for number, together in self._openings_by_first().items():
            sold = sum(self.chain.sold_of(each) for each in together)
            openings = [self.openings[each] for each in together]
            wanted = sum(opening.wanted for opening in openings)
            if any(opening.is_whole_wanted for opening in openings):
                wanted = sum(opening.tokens for opening in openings)
            assert sold <= wanted, f"of opening {number}, {sold} of {wanted} were sold"
        for report in self.reports:
            tx = self.chain.arrived.get(report.signature or "")
            if report.outcome is SellOutcome.CONFIRMED:
                assert tx is not None, report
                assert tx.has_sold, report
            if report.outcome is SellOutcome.FAILED_ONCHAIN:
                assert tx is not None, report
                assert tx.failed, report

    def check_the_end(self) -> None:
        """Once it is calm: nothing is forgotten, and what was reported as dead did not sell."""
        self.check()
        assert self.process is not None
        journal = self.process.journal
        assert not journal.unreported(), journal.unreported()
        unfinished = journal.unfinished()
        assert not unfinished or self._is_waiting_reported(), unfinished
        told = {report.key for report in self.reports}
        for record in journal.exits():
            assert record.key in told or not record.is_finished, f"nothing was reported of {record}"
        parts = {record.key.part for record in journal.exits()} | {report.key.part for report in self.reports}
        for _, part in self.delivered:
            assert part in parts, f"{part} was signalled, and is forgotten"
        for report in self.reports:
            if report.outcome in {SellOutcome.EXPIRED, SellOutcome.REJECTED} and not report.key.is_whole:
                self._check_dead(report, journal)

    def _is_waiting_reported(self) -> bool:
        return any(not isinstance(problem, JournalError) for problem in self.problems)

    def _check_dead(self, report: SellReport, journal: Journal) -> None:
        record = journal.find(report.key)
        assert record is not None
        late = [problem.signature for problem in self.problems if isinstance(problem, TxSubmitError)]
        for attempt in record.attempts:
            tx = self.chain.arrived.get(attempt.signature)
            is_sold = tx is not None and tx.has_sold and record.outcome is not SellOutcome.CONFIRMED
            assert not is_sold or attempt.signature in late, f"reported as {report.outcome}, and sold: {record}"
