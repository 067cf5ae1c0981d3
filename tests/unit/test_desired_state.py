"""What the server should hold: merged, whole, and never an older wish."""

from __future__ import annotations

from lasersell_sync import (
    ClientMessage,
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
from lasersell_sync.stream.desired_state import MAX_PENDING, UNANSWERED_FOR_S, DesiredState

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


def take_pending(desired: DesiredState) -> list[ClientMessage]:
    """What waits, in the order in which it would be sent; nothing waits afterwards."""
    waiting = []
    while desired.has_pending():
        waiting.append(desired.first_pending())
        desired.pending_sent()
    return waiting


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
    assert not desired.has_pending()
    assert desired.hold(UpdateStrategy(strategy=THIRD))
    assert desired.hold(UpdateStrategy(strategy=FIRST))
    assert take_pending(desired) == [UpdateStrategy(strategy=FIRST)]


def test_position_commands_merge_by_kind_and_position() -> None:
    """The last of each kind and position waits, whether it names the account or the id, and goes out by account."""
    desired = state()
    desired.observe(opened(7))
    assert desired.hold(RequestExitSignal(position_id=7, slippage_bps=1))
    assert desired.hold(RequestExitSignal(token_account="acc", slippage_bps=2))
    assert desired.hold(RequestExitSignal(position_id=7, slippage_bps=3))
    assert desired.hold(ClosePosition(position_id=7))
    assert desired.hold(ClosePosition(position_id=99))
    assert take_pending(desired) == [
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
    desired.observe(opened(7))
    assert not desired.has_pending()
    desired.apply(UpdatePositionStrategy(position_id=7, strategy=SECOND))
    desired.observe(opened(69))
    desired.observe(opened(70))
    assert take_pending(desired) == [UpdatePositionStrategy(position_id=70, strategy=SECOND)]
    assert desired.position_id_of("acc") == 70
    desired.observe(opened(70))
    desired.observe(position_closed(70))
    desired.observe(opened(71))
    assert not desired.has_pending()
    desired.apply(UpdatePositionStrategy(position_id=71, strategy=SECOND))
    desired.observe(opened(72))
    desired.apply(UpdateStrategy(strategy=THIRD))
    desired.observe(opened(73))
    assert not desired.has_pending()


def test_an_override_held_for_an_unknown_position_ends_with_a_new_strategy() -> None:
    """Given offline and then replaced for all positions, it must not follow the configure that has the newer wish."""
    desired = state()
    assert desired.hold(UpdatePositionStrategy(position_id=99, strategy=SECOND))
    desired.apply(UpdateStrategy(strategy=THIRD))
    assert not desired.has_pending()


def test_a_position_announced_again_teaches_nothing_unless_something_waits() -> None:
    """What the reader may pass over without the lock: only what would leave everything as it is."""
    desired = state()
    assert desired.learns_from(opened(1))
    desired.observe(opened(1))
    assert not desired.learns_from(opened(1))
    assert desired.learns_from(opened(2))  # a new id
    assert desired.learns_from(opened(1, "other"))  # another account under that id
    desired.observe(opened(1, "other"))
    assert desired.learns_from(opened(1))
    desired.observe(opened(1))
    desired.apply(UpdatePositionStrategy(position_id=1, strategy=SECOND))
    assert desired.learns_from(opened(1))  # has an override
    desired.apply(UpdateStrategy(strategy=THIRD))
    assert not desired.learns_from(opened(1))
    desired.hold(UpdateStrategy(strategy=THIRD))
    assert desired.learns_from(opened(1))  # a command waits


def test_an_exit_request_is_asked_once_more_while_it_is_young() -> None:
    """Once for each request, not for each link; an answer or 30 s end it; a new request is a new wish."""
    now = [0.0]
    desired = DesiredState(StreamConfigure([WALLET], FIRST), clock=lambda: now[0])
    request = RequestExitSignal(token_account="acc")

    def ask() -> list[ClientMessage]:
        desired.sent(request)
        desired.link_lost()
        return take_pending(desired)

    assert ask() == [request]
    assert ask() == []  # the repeat, cut off as well
    assert ask() == [request]  # asked anew
    desired.sent(request)
    desired.observe(position_closed(7))
    desired.link_lost()
    assert take_pending(desired) == []
    desired.sent(request)
    now[0] += UNANSWERED_FOR_S + 1
    desired.link_lost()
    assert take_pending(desired) == []


def test_requests_that_are_never_answered_are_forgotten() -> None:
    """A session lasts for months, and a server owes no answer to a request for a position that it does not know."""
    now = [0.0]
    desired = DesiredState(StreamConfigure([WALLET], FIRST), clock=lambda: now[0])
    for n in range(10_000):
        desired.sent(RequestExitSignal(token_account=f"account-{n}"))
        now[0] += 1.0
        if n % 7 == 0:
            desired.link_lost()
            for repeat in take_pending(desired):
                desired.sent(repeat)
    assert len(desired.unanswered) + len(desired.asked_twice) <= 4 * UNANSWERED_FOR_S


def test_a_close_by_account_alone_forgets_the_position() -> None:
    """The id of the close may be one we never saw."""
    desired = state()
    desired.observe(opened(7))
    desired.observe(position_closed(1234))
    assert desired.position_id_of("acc") is None
