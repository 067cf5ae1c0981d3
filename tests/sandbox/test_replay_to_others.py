"""A trade on the sandbox, recorded by our session and replayed to a client that someone else wrote."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import lasersell_sdk.stream.client as official_client
import lasersell_sdk.stream.session as official_session
import pytest

from lasersell_sync import StrategyConfig, StreamClient, StreamConfigure, StreamSession
from lasersell_sync.recording import Recorder, Recording, timed_frames
from lasersell_sync.sandbox.servers.replay_server import ReplayServer
from tests.sandbox.players import PATIENCE_S, Trader, signed
from tests.support.waiting import until

HIGH_LANE = ["position_opened", "exit_signal_with_tx", "position_closed"]


def record_a_trade(path: Path, trader: Trader) -> None:
    """Buy, be told to sell, sell, be told that it is over."""
    sandbox = trader.sandbox
    configure = StreamConfigure([trader.pubkey], StrategyConfig(target_profit_pct=10**6, stop_loss_pct=0))
    with Recorder(path) as recorder:
        client = recorder.wrap(StreamClient(sandbox.api_key).with_endpoint(sandbox.stream_url))
        with StreamSession.connect(client, configure) as session:
            trader.landed(trader.buy(sandbox.mints[0]))
            opened: Any = session.wait_for("position_opened", timeout=PATIENCE_S).message
            sandbox.force_exit(opened.position_id, "manual")
            signal: Any = session.wait_for("exit_signal_with_tx", timeout=PATIENCE_S).message
            trader.send(signed(signal.unsigned_tx_b64, trader.wallet))
            session.wait_for("position_closed", timeout=PATIENCE_S)
            # Not the frames: answers to pings are among them.
            received = session.stats().messages_received
            until(lambda: recorder.frames_written >= received)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_official_client_sees_the_recorded_trade(tmp_path: Path, trader: Trader) -> None:
    """The same wire, the same story, without an exchange behind it."""
    path = tmp_path / "trade.jsonl.gz"
    record_a_trade(path, trader)
    trader.sandbox.stop()
    recording = Recording(path)
    with ReplayServer(lambda: timed_frames(recording), port=0, speed=None) as server:
        events = asyncio.run(asyncio.wait_for(_watch(server.stream_url, trader.pubkey), PATIENCE_S))
    assert [event.type for event in events if event.type in HIGH_LANE] == HIGH_LANE
    recorded = [frame.message() for frame in recording.frames()]
    (signal,) = [message for message in recorded if message.type == "exit_signal_with_tx"]
    (seen,) = [event.message for event in events if event.type == "exit_signal_with_tx"]
    assert seen["unsigned_tx_b64"] == signal.unsigned_tx_b64


async def _watch(url: str, wallet: str) -> list[Any]:
    client = official_client.StreamClient("any key").with_endpoint(url)
    strategy = official_client.strategy_config_from_optional(target_profit_pct=10.0)
    session = await official_session.StreamSession.connect(
        client, official_client.single_wallet_stream_configure(wallet, strategy)
    )
    try:
        events: list[Any] = []
        while not events or events[-1].type != "position_closed":
            event = await session.recv()
            assert event is not None
            events.append(event)
        return events
    finally:
        session.close()
