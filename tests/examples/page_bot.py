"""The ``bot`` that code blocks of the pages import: a bot of the reader's own, which sells through an AutoSeller."""

from __future__ import annotations

import os
from typing import Any

from solders.keypair import Keypair

import lasersell_sync as ls

_STRATEGY = ls.StrategyConfig(target_profit_pct=10, stop_loss_pct=0)
_LIMIT_S = 50.0
_running: list[Any] = []


def handle(event: ls.StreamEvent) -> None:
    """Takes an event of a replayed session."""
    print("handled", event.type)


def buy(wallet: Keypair, mint: str) -> None:
    """Start to sell what this wallet buys, then buy."""
    signer = ls.Signer.from_keypair(wallet)
    node = ls.SendTargetRpc(os.environ["LASERSELL_RPC_URL"])
    sender = ls.TxSender(node)
    guard = ls.SigningGuard(rpc=node)
    configure = ls.StreamConfigure([signer.wallet], _STRATEGY)
    session = ls.StreamSession.connect(ls.StreamClient.from_env(), configure)
    seller = ls.AutoSeller(session, signer, sender=sender, journal=":memory:", guard=guard).start()
    _running[:] = [seller, session, sender, guard]
    patient = ls.ExitApiClientOptions(connect_timeout_s=10, attempt_timeout_s=20)
    with ls.ExitApiClient.from_env(patient) as api:
        order = ls.BuildBuyTxRequest(mint, signer.wallet, slippage_bps=2_000, amount=0.1)
        sender.send(signer.sign(api.build_buy_tx(order), request=order, guard=guard))


def wait_for_exit() -> None:
    """Wait until the position is sold, and stop."""
    _running[1].wait_for("position_closed", _LIMIT_S)
    for part in _running:
        part.close()
    ls.close_rpc_connections()


def buy_and_wait(wallet: Keypair, mint: str) -> None:
    """Both."""
    buy(wallet, mint)
    wait_for_exit()
