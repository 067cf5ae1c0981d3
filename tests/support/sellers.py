"""An automatic seller on a sandbox of its own, as a program would set it up."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
from solders.keypair import Keypair

import lasersell_sync as ls
from lasersell_sync.sandbox import Sandbox
from tests.support.waiting import PATIENCE_S

#: A test's machine may be busier than a trader's.
PATIENT = ls.ExitApiClientOptions(connect_timeout_s=5.0, attempt_timeout_s=20.0)


@attrs.define
class Trader:
    """One wallet on a sandbox: buys, and sells by itself.

    Args:
        sandbox: runs.
        folder: where its journal lies.
    """

    sandbox: Sandbox
    folder: Path
    keypair: Keypair = attrs.field(factory=Keypair)
    reports: list[ls.SellReport] = attrs.field(factory=list)
    buys: list[ls.BuyReport] = attrs.field(factory=list)
    _told: threading.Condition = attrs.field(factory=threading.Condition)

    @property
    def wallet(self) -> str:
        return str(self.keypair.pubkey())

    @property
    def rpc(self) -> ls.SendTargetRpc:
        return ls.SendTargetRpc(self.sandbox.rpc_url)

    @contextlib.contextmanager
    def api(self) -> Iterator[ls.ExitApiClient]:
        with ls.ExitApiClient(self.sandbox.api_key, PATIENT).with_base_url(self.sandbox.api_url) as api:
            yield api

    def register(self) -> None:
        with self.api() as api:
            api.register_wallet(ls.prove_ownership(self.keypair))

    def buy(self, mint: str | None = None, *, sol: float = 0.1) -> None:
        """Open a position, and wait until its tokens are there."""
        mint = mint or self.sandbox.mints[0]
        before = self.sandbox.token_balance(self.wallet, mint)
        with self.api() as api:
            order = ls.BuildBuyTxRequest(mint, self.wallet, slippage_bps=2_000, amount=sol)
            signed = ls.sign_unsigned_tx_b64(api.build_buy_tx(order).tx, self.keypair)
        ls.send_transaction_b64_to(self.rpc, signed)
        assert self.sandbox.wait_for(lambda: self.sandbox.token_balance(self.wallet, mint) > before, PATIENCE_S), (
            "the purchase did not land"
        )

    def sell_by_hand(self, mint: str, tokens: int) -> None:
        """The user sells without a seller; returns when the tokens are gone."""
        with self.api() as api:
            request = ls.BuildSellTxRequest(mint, self.wallet, tokens, ls.SellOutput.SOL, 2_000)
            signed = ls.sign_unsigned_tx_b64(api.build_sell_tx(request).tx, self.keypair)
        ls.send_transaction_b64_to(self.rpc, signed)
        sold = self.sandbox.wait_for(lambda: self.sandbox.token_balance(self.wallet, mint) == 0, PATIENCE_S)
        assert sold, "what was sold by hand did not land"

    def configure(self, **terms: Any) -> ls.StreamConfigure:
        more = {
            name: terms.pop(name)
            for name in ("watch_wallets", "mirror_config", "send_mode", "tip_lamports")
            if name in terms
        }
        strategy = ls.StrategyConfig(**{"target_profit_pct": 0.0, "stop_loss_pct": 0.0, **terms})
        return ls.StreamConfigure([self.wallet], strategy, deadline_timeout_sec=86_400, **more)

    @contextlib.contextmanager
    def session(self, **terms: Any) -> Iterator[ls.StreamSession]:
        client = ls.StreamClient(self.sandbox.api_key).with_endpoint(self.sandbox.stream_url)
        with ls.StreamSession.connect(client, self.configure(**terms)) as session:
            yield session

    @contextlib.contextmanager
    def seller(self, session: ls.StreamSession, *, sender: Any = None, **options: Any) -> Iterator[ls.AutoSeller]:
        """It runs; with a sender that asks often, because sandboxes are quick."""
        own = sender is None
        sender = ls.TxSender(self.rpc, poll_s=0.05, rebroadcast_s=0.5) if own else sender
        options.setdefault("journal", self.folder / "sales.journal")
        try:
            with self.api() as api:
                options.setdefault("exit_api", api)
                seller = ls.AutoSeller(session, ls.Signer(self.keypair), sender=sender, **options)
                seller.on_outcome(self._hear)
                seller.on_mirror_buy(self._hear_buy)
                with seller:
                    yield seller
        finally:
            if own:
                sender.close()

    def _hear(self, report: ls.SellReport) -> None:
        with self._told:
            self.reports.append(report)
            self._told.notify_all()

    def _hear_buy(self, report: ls.BuyReport) -> None:
        with self._told:
            self.buys.append(report)
            self._told.notify_all()

    def wait_for_reports(self, count: int = 1) -> list[ls.SellReport]:
        with self._told:
            assert self._told.wait_for(lambda: len(self.reports) >= count, PATIENCE_S), self.reports
            return list(self.reports)

    def wait_for_buys(self, count: int = 1) -> list[ls.BuyReport]:
        with self._told:
            assert self._told.wait_for(lambda: len(self.buys) >= count, PATIENCE_S), self.buys
            return list(self.buys)

    def exit_positions(self, reason: str = "manual") -> None:
        """The server wants every open position of this wallet sold."""
        for position in self.sandbox.positions():
            if position.close_reason is None and position.wallet_pubkey == self.wallet:
                self.sandbox.force_exit(position.position_id, reason)
