"""The official Python SDK, unmodified, in its local mode against the sandbox: a client someone else wrote."""

from __future__ import annotations

import asyncio
from typing import Any

import lasersell_sdk.exit_api as official_api
import lasersell_sdk.stream.client as official_client
import lasersell_sdk.stream.session as official_session
import lasersell_sdk.tx as official_tx
import pytest
from solders.keypair import Keypair

from lasersell_sync.sandbox import Sandbox
from lasersell_sync.sandbox.router.shapes import SHAPES
from tests.sandbox.default_ports import sandbox_on_default_ports

PATIENCE_S = 30.0


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("way", ["legacy", "0", "1", *range(len(SHAPES))])
def test_a_whole_trade_on_the_default_ports(way: str | int) -> None:
    """Register, connect, buy, watch, take the exit signal, sign, send, see the position closed.

    Directly on the market in every format, and through every shape of the Router.
    """
    direct: dict[str, Any] = {"router": False, "transaction_format": way}
    router = direct if isinstance(way, str) else {"router": True, "router_shape": way}
    with sandbox_on_default_ports(speed=10, landing_delay_ms=20, **router) as sandbox:
        seen = asyncio.run(asyncio.wait_for(_trade(sandbox), PATIENCE_S))
        assert [kind for kind in seen if kind not in ("pnl_update", "trade_tick", "liquidity_snapshot", "message")] == [
            "position_opened",
            "exit_signal_with_tx",
            "position_closed",
        ]
        assert "pnl_update" in seen
        assert [record.close_reason for record in sandbox.positions()] == ["target_profit"]


async def _trade(sandbox: Sandbox) -> list[str]:
    wallet = Keypair()
    proof = official_api.prove_ownership(wallet)
    # Its defaults (200 ms to connect, 900 ms an attempt) are a trader's; this machine may be busier than a trader's.
    options = official_api.ExitApiClientOptions(connect_timeout_s=10.0, attempt_timeout_s=10.0)
    api = official_api.ExitApiClient.with_options(sandbox.api_key, options).with_local_mode(True)
    await api.register_wallet(proof)
    client = official_client.StreamClient(sandbox.api_key).with_local_mode(True)
    strategy = official_client.strategy_config_from_optional(target_profit_pct=10.0)
    session = await official_session.StreamSession.connect(
        client, official_client.single_wallet_stream_configure(proof.wallet_pubkey, strategy)
    )
    try:
        await _sign_and_send(sandbox, wallet, await _buy(api, sandbox.mints[0], proof.wallet_pubkey))
        seen: list[str] = []
        while not seen or seen[-1] != "position_closed":
            event = await session.recv()
            assert event is not None
            seen.append(event.type)
            if event.type == "exit_signal_with_tx":
                message: Any = event.message
                await _sign_and_send(sandbox, wallet, message["unsigned_tx_b64"])
        return seen
    finally:
        session.close()


async def _buy(api: Any, mint: str, wallet: str) -> str:
    answer = await api.build_buy_tx(
        official_api.BuildBuyTxRequest(mint=mint, user_pubkey=wallet, slippage_bps=1000, amount_in_total=10**8)
    )
    return str(answer.tx)


async def _sign_and_send(sandbox: Sandbox, wallet: Keypair, unsigned: str) -> None:
    signed = official_tx.sign_unsigned_tx(unsigned, wallet)
    await official_tx.send_transaction(official_tx.SendTargetRpc(url=sandbox.rpc_url), signed)
