"""What the server should hold: merged, whole, and never an older wish."""

from __future__ import annotations

from lasersell_sync import (
    ClosePosition,
    MirrorBuyResult,
    Ping,
    PositionClosed,
    PositionOpened,
    RequestExitSignal,
    StrategyConfig,
    StreamConfigure,
    UpdatePositionStrategy,
    UpdateStrategy,
    UpdateWallets,
    UpdateWatchWallets,
)
from lasersell_sync.stream.desired_state import MAX_PENDING, DesiredState

WALLET = "7Np41oeYqPefeNQEHSv1UDhYrehxin3NStELsSKCT4K2"
FIRST = StrategyConfig(target_profit_pct=1.0, stop_loss_pct=0.0)
SECOND = StrategyConfig(target_profit_pct=2.0, stop_loss_pct=0.0)
THIRD = StrategyConfig(target_profit_pct=3.0, stop_loss_pct=0.0)


def state() -> DesiredState:
    return DesiredState(StreamConfigure([WALLET], FIRST, send_mode="rpc", tip_lamports=5))


def opened(position_id: int, account: str = "acc") -> PositionOpened:
    return PositionOpened(
        position_id=position_id,
        wallet_pubkey=WALLET,
        mint="m",
        token_account=account,
        tokens=1,
        entry_quote_units=1,
        slot=1,
    )


def position_closed(position_id: int, account: str | None = "acc") -> PositionClosed:
    return PositionClosed(
        position_id=position_id, wallet_pubkey=WALLET, mint="m", token_account=account, reason="r", slot=1
    )


def test_configure_is_the_latest_of_everything() -> None:
    """Strategy, wallets and watch wallets as changed; send mode and tip as given."""
    desired = state()
    desired.apply(UpdateStrategy(strategy=SECOND))
    desired.apply(UpdateWallets(wallet_pubkeys=("w2",)))
    desired.apply(UpdateWatchWallets(watch_wallets=()))
    message = desired.configure_message()
    assert (message.strategy, message.wallet_pubkeys, message.send_mode, message.tip_lamports) == (
        SECOND,
        ("w2",),
        "rpc",
        5,
    )


def test_global_updates_that_wait_are_in_the_next_configure_or_sent_after_it() -> None:
    """Held before configure: swallowed by it. Held after: still waiting."""
    desired = state()
    assert desired.hold(UpdateStrategy(strategy=SECOND))
    desired.apply(UpdateStrategy(strategy=SECOND))
    assert desired.configure_message().strategy == SECOND
    assert desired.take_pending() == []
    assert desired.hold(UpdateStrategy(strategy=THIRD))
    assert desired.hold(UpdateStrategy(strategy=FIRST))
    assert desired.take_pending() == [UpdateStrategy(strategy=FIRST)]


def test_position_commands_merge_by_kind_and_position() -> None:
    """The last of each kind and position waits, whether it names the account or the id, and goes out by account."""
    desired = state()
    desired.observe(opened(7))
    assert desired.hold(RequestExitSignal(position_id=7, slippage_bps=1))
    assert desired.hold(RequestExitSignal(token_account="acc", slippage_bps=2))
    assert desired.hold(RequestExitSignal(position_id=7, slippage_bps=3))
    assert desired.hold(ClosePosition(position_id=7))
    assert desired.hold(ClosePosition(position_id=99))
    assert desired.take_pending() == [
        RequestExitSignal(token_account="acc", slippage_bps=3),
        ClosePosition(token_account="acc"),
        ClosePosition(position_id=99),
    ]


def test_pings_and_mirror_results_do_not_wait_and_waiting_is_bounded() -> None:
    """They would mean nothing to a later session."""
    desired = state()
    assert not desired.hold(Ping(client_time_ms=1))
    assert not desired.hold(MirrorBuyResult(mint="m", success=True))
    for n in range(MAX_PENDING):
        assert desired.hold(ClosePosition(position_id=n))
    assert not desired.hold(ClosePosition(position_id=MAX_PENDING))
    assert desired.hold(ClosePosition(position_id=0))


def test_overrides_follow_the_account_and_end_with_the_position_or_a_new_strategy() -> None:
    """Sent again for every announcement, under the id of then; an older override never outlives a newer global strategy."""
    desired = state()
    assert desired.observe(opened(7)) is None
    desired.apply(UpdatePositionStrategy(position_id=7, strategy=SECOND))
    assert desired.observe(opened(70)) == UpdatePositionStrategy(position_id=70, strategy=SECOND)
    assert desired.position_id_of("acc") == 70
    assert desired.observe(position_closed(70)) is None
    assert desired.observe(opened(71)) is None
    desired.apply(UpdatePositionStrategy(position_id=71, strategy=SECOND))
    desired.apply(UpdateStrategy(strategy=THIRD))
    assert desired.observe(opened(72)) is None


def test_a_close_by_account_alone_forgets_the_position() -> None:
    """The id of the close may be one we never saw."""
    desired = state()
    desired.observe(opened(7))
    desired.observe(position_closed(1234))
    assert desired.position_id_of("acc") is None
