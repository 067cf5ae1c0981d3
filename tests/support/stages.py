"""Many wallets' positions on one sandbox, one automatic seller for all of them, and an overseer who sees what it does."""

from __future__ import annotations

import collections
import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from solders.keypair import Keypair

import lasersell_sync as ls
from lasersell_sync.sandbox import Sandbox
from lasersell_sync.sandbox.assertions import LedgerAssertions
from lasersell_sync.trading import close_rpc_connections
from tests.support.overseer import Overseer
from tests.support.sellers import PATIENT
from tests.support.waiting import PATIENCE_S, until

#: Four deep markets in which nobody else trades.
CALM_MARKETS = Path(__file__).resolve().parents[1] / "data" / "calm_markets.toml"
#: A transaction that is younger, from its signal to its arrival and from there to the chain, is given the time before
#: slots are skipped.
_LANDS_WITHIN_S = 0.3


class Stage:
    """Use as a context manager.

    Args:
        folder: for the journal.
        wallets: how many; each gets a position in the first market.
        sandbox: options of the sandbox.
    """

    def __init__(self, folder: Path, *, wallets: int = 1, api_key: str = "sandbox-key", **sandbox: Any) -> None:
        options = {"scenario": CALM_MARKETS, "seed": 7, "speed": 20.0, "pnl_flush_ms": 20_000, **sandbox}
        self.sandbox = Sandbox(api_key=api_key, stream_port=0, api_port=0, rpc_port=0, **options)
        self._stands_still = options.get("clock") == "manual"
        self.journal_path = folder / "sales.journal"
        self.keys = [Keypair() for _ in range(wallets)]
        self.reports: list[ls.SellReport] = []
        self.problems: list[Exception] = []
        self._told = threading.Condition()

    def __enter__(self) -> Stage:
        self.sandbox.start()
        self.overseer = Overseer(self.sandbox)
        self.mint = self.sandbox.mints[0]
        self.tokens: dict[str, int] = {}
        with self.api() as api:
            for key in self.keys:
                api.register_wallet(ls.prove_ownership(key))
        for wallet in self.wallets:
            self.grant(wallet)
        return self

    def __exit__(self, *_: object) -> None:
        self.sandbox.stop()
        close_rpc_connections()

    @property
    def wallets(self) -> list[str]:
        return [str(key.pubkey()) for key in self.keys]

    @property
    def rpc(self) -> ls.SendTargetRpc:
        return ls.SendTargetRpc(self.sandbox.rpc_url)

    def grant(self, wallet: str, amount: float = 0.5) -> None:
        self.sandbox.script.grant(wallet, self.mint, amount)
        self.tokens[wallet] = self.sandbox.token_balance(wallet, self.mint)

    @contextlib.contextmanager
    def api(self) -> Iterator[ls.ExitApiClient]:
        with ls.ExitApiClient(self.sandbox.api_key, PATIENT).with_base_url(self.sandbox.api_url) as api:
            yield api

    @contextlib.contextmanager
    def selling(
        self,
        targets: Sequence[ls.SendTarget] = (),
        *,
        strategy: dict[str, Any] | None = None,
        options: ls.StreamOptions | None = None,
        guard: ls.SigningGuard | None = None,
        **seller: Any,
    ) -> Iterator[ls.StreamSession]:
        """The seller runs, and every position has been announced to it."""
        options = options or ls.StreamOptions(initial_backoff_s=0.02, max_backoff_s=0.2)
        client = ls.StreamClient(self.sandbox.api_key, options=options).with_endpoint(self.sandbox.stream_url)
        terms = ls.StrategyConfig(**{"target_profit_pct": 0.0, "stop_loss_pct": 0.0, **(strategy or {})})
        configure = ls.StreamConfigure(self.wallets, terms, deadline_timeout_sec=86_400)
        times = {"poll_s": 0.03, "rebroadcast_s": 0.25, "send_timeout_s": 2.0, "keep_warm_s": None}
        sender = ls.TxSender(list(targets) or self.rpc, rpcs=self.rpc, **times)
        policy = ls.SellPolicy(max_refreshes=100, max_unanswered=1_000, refresh_wait_s=0.5, max_signal_age_s=600.0)
        given = {
            "journal": self.journal_path,
            "policy": policy,
            **({} if guard is None else {"guard": guard}),
            **seller,
        }
        signers = [ls.Signer.from_keypair(key) for key in self.keys]
        with (
            sender,
            self.api() as api,
            ls.StreamSession.connect(client, configure) as session,
            ls.AutoSeller(session, signers, sender=sender, exit_api=api, **given) as automatic,
        ):
            automatic.on_outcome(self._hear)
            automatic.on_problem(self._hear_problem)
            held = {wallet for wallet in self.wallets if self.sandbox.token_balance(wallet, self.mint)}
            until(lambda: {handle.wallet_pubkey for handle in session.positions()} >= held)
            yield session

    def _hear(self, report: ls.SellReport) -> None:
        with self._told:
            self.reports.append(report)
            self._told.notify_all()

    def _hear_problem(self, problem: Exception) -> None:
        with self._told:
            self.problems.append(problem)
            self._told.notify_all()

    # -- what the server does

    def want_exits(self, reason: str = "stop_loss") -> None:
        """Every open position is to be sold."""
        for position in self.sandbox.positions():
            if position.close_reason is None:
                self.sandbox.force_exit(position.position_id, reason)

    @contextlib.contextmanager
    def slots_pass(self) -> Iterator[None]:
        """Blockhashes die quickly here; a transaction that was just sent has the time to land before."""
        stop = threading.Event()

        def pass_() -> None:
            while not stop.wait(0.05):
                if self._stands_still:
                    self.sandbox.advance(1.0)  # the usual pace
                wallets = set(self.wallets)
                is_young = self.overseer.on_its_way(wallets, younger_than_s=_LANDS_WITHIN_S)
                if not is_young and not self.overseer.in_the_air(wallets, younger_than_s=_LANDS_WITHIN_S):
                    self.sandbox.skip_slots(30)

        thread = threading.Thread(target=pass_)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    # -- what is waited for

    def wait_until(self, predicate: Callable[[], object], patience_s: float = PATIENCE_S) -> None:
        """Until something is so at the sandbox."""
        assert self.sandbox.wait_for(predicate, patience_s), "it did not happen in time"

    def see_polls(self, count: int) -> None:
        """Until the seller has asked so many times more what became of its transactions, or has nothing to ask."""
        self.sandbox.faults.rpc("getSignatureStatuses", delay_ms=1, times=count)
        until(lambda: self.sandbox.faults.pending["answers"] == [] or self.reports)

    def wait_for_arrivals(self, count: int = 1) -> None:
        """Until so many distinct transactions have arrived at the node."""
        until(lambda: len(self.overseer.arrivals) >= count)

    def wait_for_reports(self, count: int = 1, patience_s: float = PATIENCE_S) -> list[ls.SellReport]:
        with self._told:
            assert self._told.wait_for(lambda: len(self.reports) >= count, patience_s), self.reports
            return list(self.reports)

    def wait_for_problem(self) -> Exception:
        with self._told:
            assert self._told.wait_for(lambda: self.problems, PATIENCE_S)
            return self.problems[0]

    # -- what must be

    def assert_each_sold_once(self) -> None:
        """By the ledger: everything of every wallet in one sale; and each told once, as it was."""
        assert self.overseer.two_alive == []
        ledger = LedgerAssertions(self.sandbox)
        told = collections.Counter((report.key.wallet, report.outcome, report.signature) for report in self.reports)
        landed: collections.Counter[Any] = collections.Counter()
        for wallet in self.wallets:
            sales = ledger.sales(wallet)
            assert [trade.tokens for trade in sales] == [self.tokens[wallet]]
            assert self.sandbox.token_balance(wallet, self.mint) == 0
            landed[wallet, ls.SellOutcome.CONFIRMED, sales[0].signature] += 1
        assert told == landed
