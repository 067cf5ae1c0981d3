"""Questions to nodes and to the REST API, on threads of their own: no worker of the seller waits for an answer."""

from __future__ import annotations

import concurrent.futures
import contextlib
import itertools
import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, Protocol

from lasersell_sync._log import logger
from lasersell_sync.autosell.past_trades import PastTrades
from lasersell_sync.autosell.pause_barrier import PauseBarrier
from lasersell_sync.exceptions import ConcurrencyError, ExitApiError, TxSubmitError
from lasersell_sync.processes import NO_THREAD
from lasersell_sync.trading.account_history import AccountHistory, Verdict
from lasersell_sync.trading.build_tx import BuildSellTxRequest, BuildTxResponse
from lasersell_sync.trading.rpc_node import MAX_ACCOUNTS
from lasersell_sync.trading.token_amounts import AmountProof
from lasersell_sync.user_code import as_exception

__all__ = ["BuildAnswer", "ExitApi", "Nodes", "Questions", "TradesAnswer"]

log = logger("autosell")

#: Sales that are built at once; the service takes 60 requests a minute (docs/protocol.md §7).
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
