"""What the server should hold: merged, whole, and never an older wish."""

from __future__ import annotations

import pytest

from lasersell_sync import (
    ClientMessage,
    ClosePosition,
    ExitSignalWithTx,
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


def opened(position_id: int, account: str = "acc", entry: int = 1, opened_at_ms: int | None = None) -> PositionOpened:
    return PositionOpened(
        position_id=position_id,
        wallet_pubkey=WALLET,
        mint="m",
        token_account=account,
        tokens=1,
        entry_quote_units=entry,
        opened_at_ms=opened_at_ms,
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


def exit_signal(position_id: int = 7, account: str = "acc", sell_tokens: int | None = None) -> ExitSignalWithTx:
    return ExitSignalWithTx(
        session_id=1, position_id=position_id, wallet_pubkey=WALLET, mint="m", token_account=account,
        position_tokens=10, sell_tokens=sell_tokens, profit_units=1, reason="r", triggered_at_ms=1,
        unsigned_tx_b64="AAAA",
    )  # fmt: skip


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
    assert not desired.hold(ClosePosition(position_id=99))  # an id means nothing on another connection
    assert take_pending(desired) == [
        RequestExitSignal(token_account="acc", slippage_bps=3),
        ClosePosition(token_account="acc"),
    ]


def test_pings_do_not_wait_mirror_results_do_and_waiting_is_bounded() -> None:
    """A ping would mean nothing to a later session; each result answers a signal of its own."""
    desired = state()
    assert not desired.hold(Ping(client_time_ms=1))
    for _ in range(2):
        assert desired.hold(MirrorBuyResult(mint="m", success=True))
    for n in range(MAX_PENDING - 2):
        assert desired.hold(ClosePosition(token_account=f"account-{n}"))
    assert not desired.hold(ClosePosition(token_account="one more"))
    assert not desired.hold(MirrorBuyResult(mint="m", success=True))
    assert desired.hold(ClosePosition(token_account="account-0"))


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


def test_an_override_of_an_unknown_id_does_not_wait() -> None:
    """On the next connection that id may be any position's."""
    desired = state()
    override = UpdatePositionStrategy(position_id=99, strategy=SECOND)
    assert not desired.hold(override)
    assert not desired.holds_override(override)


@pytest.mark.parametrize("moment", [None, 7])
def test_another_opening_takes_no_override_and_no_command_of_the_one_before(moment: int | None) -> None:
    desired = state()
    desired.observe(opened(7, opened_at_ms=moment))
    desired.apply(UpdatePositionStrategy(position_id=7, strategy=SECOND))
    desired.hold(RequestExitSignal(position_id=7))
    desired.hold(ClosePosition(token_account="acc"))
    desired.link_began()
    assert not desired.has_pending()
    dropped = desired.observe(opened(8, entry=2, opened_at_ms=8))
    assert [(type(message), "opened again" in reason) for message, reason in dropped] == [
        (ClosePosition, True), (RequestExitSignal, True),
    ]  # fmt: skip
    desired.announcements_over()
    assert take_pending(desired) == []


def test_an_override_given_before_its_announcement_waits_for_the_id_of_this_connection() -> None:
    """Ids are permuted over the reconnect: the old one would reach the other position."""
    desired = state()
    desired.observe(opened(1, "a"))
    desired.observe(opened(2, "b"))
    desired.link_began()
    override = UpdatePositionStrategy(position_id=1, strategy=SECOND)
    assert not desired.may_write(override)
    assert desired.holds_override(override)
    desired.apply(override, written=False)
    desired.observe(opened(1, "b"))
    assert take_pending(desired) == []
    assert desired.position_id_of("a") is None
    desired.observe(opened(2, "a"))
    assert take_pending(desired) == [UpdatePositionStrategy(position_id=2, strategy=SECOND)]


def test_an_override_given_before_the_announcements_are_over_is_sent_then() -> None:
    """A server that announces nothing again goes on under the old ids."""
    desired = state()
    desired.observe(opened(1, "a"))
    desired.observe(opened(2, "b"))
    desired.apply(UpdatePositionStrategy(position_id=2, strategy=THIRD))
    desired.link_began()
    desired.apply(UpdatePositionStrategy(position_id=1, strategy=SECOND), written=False)
    desired.announcements_over()
    assert take_pending(desired) == [UpdatePositionStrategy(position_id=1, strategy=SECOND)]
    assert desired.may_write(UpdatePositionStrategy(position_id=2, strategy=THIRD))


def test_a_command_by_an_old_id_names_the_token_account_on_another_connection() -> None:
    desired = state()
    desired.observe(opened(7))
    assert desired.for_this_link(ClosePosition(position_id=7)) == ClosePosition(position_id=7)
    desired.link_began()
    assert desired.for_this_link(ClosePosition(position_id=7)) == ClosePosition(token_account="acc")
    desired.observe(opened(7, "other"))
    assert desired.for_this_link(ClosePosition(position_id=7)) == ClosePosition(position_id=7)


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


def test_an_exit_request_is_sent_on_every_link_until_one_lived_on() -> None:
    """Or an answer, or a close came. A part's exit signal answers no request."""
    now = [0.0]
    desired = DesiredState(StreamConfigure([WALLET], FIRST), stable_after_s=5.0, clock=lambda: now[0])
    request = RequestExitSignal(token_account="acc")

    def send_and_lose(lived_s: float | None) -> list[ClientMessage]:
        desired.sent(request)
        desired.flushed()
        desired.link_lost(None if lived_s is None else now[0] + lived_s)
        return take_pending(desired)

    for lived_s in (0.0, None, 4.9, -100.0) * 3:
        assert send_and_lose(lived_s) == [request]
        now[0] += 1000.0
    assert send_and_lose(5.0) == []
    for answer, again in [(exit_signal(sell_tokens=4), [request]), (exit_signal(), []), (position_closed(7), [])]:
        desired.sent(request)
        desired.observe(answer)
        desired.link_lost(None)
        assert take_pending(desired) == again


def test_an_exit_request_that_the_link_never_took_is_not_settled_by_its_life() -> None:
    now = [0.0]
    desired = DesiredState(StreamConfigure([WALLET], FIRST), stable_after_s=5.0, clock=lambda: now[0])
    request = RequestExitSignal(token_account="acc")
    desired.sent(request)
    desired.link_lost(1000.0)
    assert take_pending(desired) == [request]


def test_an_exit_request_by_an_unknown_id_is_dropped_with_its_link() -> None:
    desired = state()
    desired.sent(RequestExitSignal(position_id=99))
    ((message, reason),) = desired.link_lost(None)
    assert message == RequestExitSignal(position_id=99)
    assert "another connection" in reason
    assert not desired.has_pending()


def test_requests_that_are_never_answered_are_forgotten() -> None:
    """A session lasts for months, and a server owes no answer to a request for a position that it does not know."""
    now = [0.0]
    desired = DesiredState(StreamConfigure([WALLET], FIRST), stable_after_s=5.0, clock=lambda: now[0])
    for n in range(10_000):
        desired.sent(RequestExitSignal(token_account=f"account-{n}"))
        desired.flushed()
        now[0] += 1.0
        desired.settle(now[0])
    assert len(desired.unanswered) <= 5


def test_a_close_by_account_alone_forgets_the_position() -> None:
    """The id of the close may be one we never saw."""
    desired = state()
    desired.observe(opened(7))
    desired.observe(position_closed(1234))
    assert desired.position_id_of("acc") is None
