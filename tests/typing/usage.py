"""What a user's program looks like to a strict type checker. Never executed."""

from __future__ import annotations

from typing_extensions import assert_type

from lasersell_sync import (
    AutoSeller,
    Disconnected,
    ExitSignalWithTx,
    Journal,
    LegPlan,
    MirrorBuyFailed,
    PnlUpdate,
    PositionClosed,
    PositionHandle,
    PositionOpened,
    Resynced,
    SellOutcome,
    SellPolicy,
    SellReport,
    SendTargetRpc,
    ServerMessage,
    Signer,
    SlippageBand,
    StrategyConfig,
    StreamClient,
    StreamConfigure,
    StreamConnection,
    StreamEvent,
    StreamOptions,
    StreamSession,
    TakeProfitLevel,
    TxResult,
    TxSender,
    server_message_from_text,
)

strategy = StrategyConfig(
    target_profit_pct=5.0, stop_loss_pct=1.0, take_profit_levels=(TakeProfitLevel(profit_pct=1.0, sell_pct=50.0),)
)
StrategyConfig(target_profit_pct=5.0)  # type: ignore[call-arg]  # stop_loss_pct is required
StrategyConfig(5.0, 1.0)  # type: ignore[call-arg]  # keyword-only
strategy.stop_loss_pct = 2.0  # type: ignore[misc]  # frozen

client = StreamClient("key", options=StreamOptions(low_lane="lossless"))
StreamOptions(low_lane="lossy")  # type: ignore[arg-type]
configure = StreamConfigure(["wallet"], strategy, deadline_timeout_sec=30)

with StreamSession.connect(client, configure, dispatch="per_lane") as session:
    assert_type(session, StreamSession)

    @session.on("exit_signal_with_tx")
    def on_exit(event: StreamEvent) -> None:  # a bare one holds any message
        if isinstance(event.message, ExitSignalWithTx):
            assert_type(event.message.unsigned_tx_b64, str)
            assert_type(event.message.sell_tokens, int | None)

    @session.on(PnlUpdate)
    def on_pnl(event: StreamEvent[PnlUpdate]) -> None:
        assert_type(event.message.profit_units, int)

    @session.on("disconnected")
    def on_disconnected(event: StreamEvent[Disconnected]) -> None:
        assert_type(event.message, Disconnected)

    # The message of a lambda is known, and a typo in it is found.
    session.on("position_closed", lambda event: print(event.message.reason))
    session.on("position_closed", lambda event: print(event.message.raeson))  # type: ignore[call-overload]
    session.on(PositionClosed, lambda event: print(event.message.raeson))  # type: ignore[attr-defined]
    session.on("pnl_updates", print)  # type: ignore[call-overload]
    session.on(int, print)  # type: ignore[type-var]
    session.on("position_closed", on_pnl)  # type: ignore[call-overload]  # another event's handler
    session.off("pnl_updates")  # type: ignore[arg-type]
    session.on("*", lambda event: print(event.handle))

    assert_type(session.wait_for(PositionClosed), StreamEvent[PositionClosed])
    assert_type(session.wait_for("position_opened", 5.0).message, PositionOpened)
    assert_type(session.wait_for("resynced", timeout=5.0, only_new=True).message, Resynced)
    assert_type(session.wait_for(lambda event: event.type == "closed"), StreamEvent)
    session.wait_for("position_closes")  # type: ignore[call-overload]
    session.close(None)  # type: ignore[arg-type]

    assert_type(session.events.get(timeout=1.0).handle, PositionHandle | None)
    received = session.recv()
    if received is not None and isinstance(received.message, PnlUpdate):
        assert_type(received.message.profit_units, int)
    for event in session:
        assert_type(event.handle, PositionHandle | None)
        print(event.message.profit_units)  # type: ignore[union-attr]  # not every message has it
        match event.message:
            case PnlUpdate(profit_units=profit):
                assert_type(profit, int)
                print(event.message.profit_unit)  # type: ignore[attr-defined]
            case ExitSignalWithTx() as exit_signal:
                assert_type(exit_signal, ExitSignalWithTx)
            case PositionClosed(reason=reason) | MirrorBuyFailed(reason=reason):
                assert_type(reason, str)
            case Disconnected() as lost:
                assert_type(lost, Disconnected)
    for handle in session.positions():
        assert_type(session.pnl(handle), PnlUpdate | None)
    assert_type(session.get_slippage_bands(1), tuple[SlippageBand, ...] | None)

connection: StreamConnection = client.connect(configure)
assert_type(connection.recv(), ServerMessage | None)
connection.sender().request_exit_signal("account", 200)
connection.sender().request_exit_signal(1.5)  # type: ignore[arg-type]
assert_type(server_message_from_text(b"{}"), ServerMessage)

signer = Signer.from_json_file("id.json")
with (
    TxSender(SendTargetRpc("https://rpc.example"), rpcs=["https://other.example"]) as sender,
    AutoSeller(session, [signer], sender=sender, journal="sales.journal", policy=SellPolicy(max_refreshes=3)) as seller,
):

    @seller.on_outcome
    def on_outcome(report: SellReport) -> None:
        assert_type(report.outcome, SellOutcome)
        assert_type(report.key.part, str)

    result: TxResult = sender.send("AAAA")
    assert_type(result.slot, int | None)
    assert_type(result.outcome is SellOutcome.CONFIRMED, bool)
    legs = seller.sell_in_legs(session.positions()[0], LegPlan(slippage_bps=500))
    assert_type(legs.legs, tuple[SellReport, ...])

with Journal("sales.journal", read_only=True) as journal:
    for record in journal.unfinished():
        assert_type(record.outcome, SellOutcome | None)
