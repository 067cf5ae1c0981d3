"""Questions to nodes and to the REST API, asked on threads of their own; what past trades prove."""

from __future__ import annotations

import concurrent.futures
import contextlib
import itertools
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Final, NamedTuple, Protocol

from lasersell_sync.autosell.signing_gate import PauseBarrier
from lasersell_sync.exceptions import ConcurrencyError, ExitApiError, TxSubmitError
from lasersell_sync.runtime.fork_guard import NO_THREAD
from lasersell_sync.runtime.log import logger
from lasersell_sync.runtime.user_code import as_exception
from lasersell_sync.trading.rest.account import HistoryTrade
from lasersell_sync.trading.rest.tx_requests import BuildSellTxRequest, BuildTxResponse
from lasersell_sync.trading.solana.account_history import AccountHistory, Verdict
from lasersell_sync.trading.solana.rpc_node import MAX_ACCOUNTS
from lasersell_sync.trading.solana.token_accounts import AmountProof

__all__ = ["BuildAnswer", "ExitApi", "Nodes", "Opened", "PastTrades", "Questions", "TradesAnswer", "proof_of_sale"]

log = logger("autosell")


# ── What the service's list of past trades proves about an exit that an earlier process left ────────────────────────
# The list names no token account and no signature. So it may end an exit, and it never begins one.


#: The list may name a moment in whole seconds.
_ROUNDED_MS: Final = 1_000
#: The server's clock and this machine's may differ by so much.
_CLOCKS_DIFFER_MS: Final = 60_000


class PastTrades(NamedTuple):
    """Trades of one wallet and token, the newest first.

    Attributes:
        trades: what the service lists.
        is_complete: it lists no older ones.
    """

    trades: Sequence[HistoryTrade]
    is_complete: bool


class Opened(NamedTuple):
    """The opening that an exit is to sell.

    Attributes:
        entry_quote_units: what it cost, as the server announced it.
        opened_at_ms: Unix milliseconds by the server's clock; None: the announcement named no moment.
        began_ms: Unix milliseconds of this machine's clock when the exit was signalled; the position was open then.
    """

    entry_quote_units: int
    opened_at_ms: int | None
    began_ms: int

    def may_be(self, trade: HistoryTrade) -> bool:
        """Whether a trade may be this opening."""
        opened_ms = _unix_ms(trade.opened_at)
        if self.opened_at_ms is not None:
            return abs(opened_ms - self.opened_at_ms) < _ROUNDED_MS
        if opened_ms > self.began_ms + _CLOCKS_DIFFER_MS:
            return False
        return trade.closed_at is None or _unix_ms(trade.closed_at) > self.began_ms - _CLOCKS_DIFFER_MS

    def must_be_among(self, trades: Sequence[HistoryTrade]) -> bool:
        """Whether one of the trades that may be this opening is known to be it."""
        if self.opened_at_ms is not None:
            return bool(trades)
        return any(trade.entry_quote_units == self.entry_quote_units for trade in trades)


def proof_of_sale(opened: Opened, past: PastTrades) -> str | None:
    """Words that say how an opening ended; None: it is not proven that it did.

    Several trades may be the opening: two token accounts hold the same token, or it was bought again within a minute.
    Then all of them must have been sold.

    Args:
        opened: the opening.
        past: of the same wallet and token. Without a moment, an incomplete list proves nothing.
    """
    if opened.opened_at_ms is None and not past.is_complete:
        return None
    candidates = [trade for trade in past.trades if opened.may_be(trade)]
    if not opened.must_be_among(candidates) or not all(map(_is_sold, candidates)):
        return None
    last = max(candidates, key=lambda trade: trade.closed_at or trade.opened_at)
    assert last.closed_at is not None  # it is sold
    reason = f" ({last.exit_reason})" if last.exit_reason else ""
    moment = last.closed_at.isoformat(timespec="seconds")
    return f"the trade history lists its position as sold at {moment}{reason} for {last.exit_quote_units} units"


def _is_sold(trade: HistoryTrade) -> bool:
    """Not only closed: that has proceeds."""
    return trade.is_closed and bool(trade.exit_quote_units)


def _unix_ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1_000)


# ── Questions to nodes and to the REST API ──────────────────────────────────────────────────────────────────────────


#: Sales that are built at once; the service takes 60 requests a minute (docs/protocol.md 7).
_BUILDERS: Final = 4
#: Accounts whose history is asked for at once; a node that hangs delays others that were left unfinished.
_HISTORIANS: Final = 4

#: Trades of one page, the largest that the service sends.
_PAGE_SIZE: Final = 200

#: Called with the trades; with None where the API cannot say, or the seller is paused.
TradesAnswer = Callable[[PastTrades | None], None]
#: Called with what was built; with an error; or with neither: the seller is paused, and nothing was asked.
BuildAnswer = Callable[[BuildTxResponse | None, Exception | None], None]


class Nodes(Protocol):
    """What is needed of a ``TxSender``."""

    def proven_amounts(self, proofs: Mapping[str, AmountProof]) -> dict[str, int]:
        """Of the token accounts whose balance is proven, in atomic units."""

    def account_history(self, token_account: str, history: AccountHistory) -> Verdict | None:
        """Whether a token account is as it was recorded; None while that is not proven."""

    def ask_blockhash(self, blockhash: str, then: Callable[[bool | None], None]) -> None:
        """Whether any node calls a blockhash valid; None: none answers."""


class ExitApi(Protocol):
    """What is needed of an ``ExitApiClient``."""

    def build_sell_tx(self, request: BuildSellTxRequest) -> BuildTxResponse:
        """An unsigned sale."""


class Questions:
    """Asks for balances, many accounts with one question, for histories and blockhashes, and has sales built.

    Past trades are asked for where the ``exit_api`` has a ``history`` method, as ``ExitApiClient`` has.

    Args:
        nodes: asks them.
        exit_api: None: nothing is ever built.
        barrier: the REST API is asked for nothing while the seller is paused.

    Threads: every method from any. Its own are ``lasersell-autosell-balances_0``, ``lasersell-autosell-history_N``,
        ``lasersell-autosell-rest_N`` and ``lasersell-autosell-trades_0``; answers come on them, so they should only be
        put somewhere.
    """

    def __init__(self, nodes: Nodes, exit_api: ExitApi | None, barrier: PauseBarrier) -> None:
        self._nodes = nodes
        self._exit_api = exit_api
        self._history: Any = getattr(exit_api, "history", None)
        self._barrier = barrier
        # Guards the questions that wait, for balances and for trades.
        self._lock = threading.Lock()
        self._waiting: dict[str, tuple[AmountProof, Callable[[int | None], None]]] = {}
        #: By wallet: tokens, and who waits for their trades.
        self._trades_waiting: dict[str, list[tuple[str, TradesAnswer]]] = {}
        self._is_closed = False
        self._asker = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="lasersell-autosell-balances")
        self._historians = concurrent.futures.ThreadPoolExecutor(
            _HISTORIANS, thread_name_prefix="lasersell-autosell-history"
        )
        self._builders = concurrent.futures.ThreadPoolExecutor(_BUILDERS, thread_name_prefix="lasersell-autosell-rest")
        self._trades_asker = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="lasersell-autosell-trades")

    def balance(self, token_account: str, proof: AmountProof, then: Callable[[int | None], None]) -> None:
        """Ask what a token account holds; ``then`` gets None while that is not proven.

        A question for an account that waits already replaces the older one.
        """
        with self._lock:
            is_first = not self._waiting
            self._waiting[token_account] = (proof, then)
        if is_first:
            self._begin(self._asker, self._ask_for_balances, self._ask_nobody)

    def history(self, token_account: str, history: AccountHistory, then: Callable[[Verdict | None], None]) -> None:
        """Ask whether a token account is as it was recorded; ``then`` gets None while that is not proven."""
        self._begin(self._historians, lambda: self._ask_for_history(token_account, history, then), lambda _: then(None))

    @property
    def lists_trades(self) -> bool:
        """Whether past trades can be asked for."""
        return callable(self._history)

    def trades(self, wallet: str, mint: str, then: TradesAnswer) -> None:
        """Ask the REST API for past trades of a wallet and token; what waits for one wallet is one request."""
        with self._lock:
            is_first = wallet not in self._trades_waiting
            self._trades_waiting.setdefault(wallet, []).append((mint, then))
        if is_first:
            work = partial(self._ask_for_trades, wallet)
            self._begin(self._trades_asker, work, lambda _: self._answer_trades(wallet, None))

    def blockhash(self, blockhash: str, then: Callable[[bool | None], None]) -> None:
        """Ask whether any node calls a blockhash valid; ``then`` gets None when none answers, or is never called."""
        with contextlib.suppress(ConcurrencyError):  # closed
            self._nodes.ask_blockhash(blockhash, then)

    def build(self, request: BuildSellTxRequest, then: BuildAnswer) -> None:
        """Have a sale built."""
        turns = itertools.count()  # one of the two answers; counting is one step

        def answer(built: BuildTxResponse | None, problem: Exception | None) -> None:
            if next(turns) == 0:
                then(built, problem)

        self._begin(self._builders, lambda: self._build(request, answer), partial(answer, None))

    def close(self) -> None:
        """Ask nothing more; what is under way ends by itself. Idempotent."""
        self._is_closed = True
        for pool in (self._asker, self._historians, self._builders, self._trades_asker):
            pool.shutdown(wait=False, cancel_futures=True)

    def _begin(
        self,
        pool: concurrent.futures.ThreadPoolExecutor,
        work: Callable[[], None],
        refuse: Callable[[Exception], None],
    ) -> None:
        """Hand over ``work``; where no thread can be started, ``refuse`` is called, and maybe ``work`` later."""
        try:
            pool.submit(work)
        except (RuntimeError, MemoryError) as error:
            # Closed: nobody waits for the answer any more.
            if not self._is_closed:
                refuse(ConcurrencyError(f"{NO_THREAD}: {error or 'out of memory'}"))

    def _take_waiting(self) -> dict[str, tuple[AmountProof, Callable[[int | None], None]]]:
        with self._lock:
            accounts = list(self._waiting)[:MAX_ACCOUNTS]
            return {account: self._waiting.pop(account) for account in accounts}

    def _ask_nobody(self, problem: Exception) -> None:
        """Nothing is proven now; whoever wants to know asks again."""
        log.warning("balances cannot be asked for now: %s", problem)
        while taken := self._take_waiting():
            for _, then in taken.values():
                then(None)

    def _ask_for_balances(self) -> None:
        """One question for all that wait, up to ``MAX_ACCOUNTS`` of them."""
        asked = self._take_waiting()
        if not asked:
            return
        amounts: dict[str, int] = {}
        try:
            amounts = self._nodes.proven_amounts({account: proof for account, (proof, _) in asked.items()})
        except (TxSubmitError, ConcurrencyError) as error:
            log.warning("the balances of %d token accounts cannot be asked for: %s", len(asked), error)
        except BaseException:
            log.exception("asking for the balances of %d token accounts failed", len(asked))
        for account, (_, then) in asked.items():
            then(amounts.get(account))
        if self._waiting:
            self._begin(self._asker, self._ask_for_balances, self._ask_nobody)

    def _ask_for_history(
        self, token_account: str, history: AccountHistory, then: Callable[[Verdict | None], None]
    ) -> None:
        verdict: Verdict | None = None
        try:
            verdict = self._nodes.account_history(token_account, history)
        except (TxSubmitError, ConcurrencyError) as error:
            log.warning("the history of %s cannot be asked for: %s", token_account, error)
        except Exception:
            log.exception("asking for the history of %s failed", token_account)
        then(verdict)

    def _ask_for_trades(self, wallet: str) -> None:
        with self._lock:
            mints = {mint for mint, _ in self._trades_waiting[wallet]}
        question = {"mint": mints.pop()} if len(mints) == 1 else {}
        past: PastTrades | None = None
        with self._barrier.act() as may_ask:
            if may_ask:
                try:
                    page = next(self._history(wallet=wallet, page_size=_PAGE_SIZE, **question))
                    past = PastTrades(page.trades, len(page.trades) < _PAGE_SIZE)
                except (ExitApiError, ConcurrencyError) as error:
                    log.warning("the past trades of %s cannot be asked for: %s", wallet, error)
                except Exception:
                    log.exception("asking for the past trades of %s failed", wallet)
        self._answer_trades(wallet, past, question.get("mint"))

    def _answer_trades(self, wallet: str, past: PastTrades | None, only: str | None = None) -> None:
        """Answer whoever waits; what came since and is about another token than ``only`` is asked for again."""
        with self._lock:
            waiting = self._trades_waiting.pop(wallet, [])
        for mint, then in waiting:
            if past is not None and only not in {None, mint}:
                self.trades(wallet, mint, then)
            elif past is None:
                then(None)
            else:
                then(past._replace(trades=[trade for trade in past.trades if trade.mint == mint]))

    def _build(self, request: BuildSellTxRequest, then: BuildAnswer) -> None:
        assert self._exit_api is not None
        built: BuildTxResponse | None = None
        problem: Exception | None = None
        with self._barrier.act() as may_ask:
            if may_ask:
                try:
                    built = self._exit_api.build_sell_tx(request)
                except BaseException as error:  # noqa: BLE001 - it is handed over, whatever a REST client of the user's raises
                    problem = as_exception(error)
        then(built, problem)
