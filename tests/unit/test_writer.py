"""The write side against a link that takes as much as a test lets it: what is refused, what waits, what is never lost."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest

from lasersell_sync import (
    ClosePosition,
    MirrorBuyResult,
    Ping,
    PositionOpened,
    RequestExitSignal,
    SendBufferFull,
    StrategyConfig,
    StreamConfigure,
    TransportError,
    UpdatePositionStrategy,
    UpdateStrategy,
)
from lasersell_sync.stream import desired_state, writer
from lasersell_sync.stream.desired_state import DesiredState
from lasersell_sync.stream.writer import PING, FrameWriter

WALLET = "7Np41oeYqPefeNQEHSv1UDhYrehxin3NStELsSKCT4K2"
FIRST = StrategyConfig(target_profit_pct=1.0, stop_loss_pct=0.0)
SECOND = StrategyConfig(target_profit_pct=2.0, stop_loss_pct=0.0)
LIMIT = 1000


class FakeLink:
    """A link that takes ``room`` bytes (None: all), then none; or is broken."""

    def __init__(self, room: int | None = None) -> None:
        self.room = room
        self.broken = False
        self.taken = bytearray()
        self.unsent_bytes = 0

    def flush(self) -> None:
        """Nothing waits in here."""

    def send(self, data: memoryview) -> int:
        if self.broken:
            raise ConnectionResetError
        count = len(data) if self.room is None else min(self.room, len(data))
        if self.room is not None:
            self.room -= count
        self.taken += data[:count]
        return count

    def close(self) -> None:
        self.broken = True

    def messages(self) -> list[dict[str, Any]]:
        """What a server would have read by now; an unfinished frame is not there."""
        data, at, found = self.taken, 0, []
        while len(data) - at >= 6:
            size, start = data[at + 1] & 0x7F, at + 2
            if size == 126:
                size, start = struct.unpack_from(">H", data, start)[0], start + 2
            mask, payload = bytes(data[start : start + 4]), data[start + 4 : start + 4 + size]
            if len(payload) < size:
                break
            if data[at] & 0x0F == 1:
                masks = (mask * (size // 4 + 1))[:size]
                text = int.from_bytes(payload, "big") ^ int.from_bytes(masks, "big")
                found.append(json.loads(text.to_bytes(size, "big")))
            at = start + 4 + size
        return found

    def commands(self) -> list[dict[str, Any]]:
        return [message for message in self.messages() if message["type"] != "configure"]


class Rig:
    """A writer, its desired state, and how often it woke the reader."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.woken = 0
        self.desired = DesiredState(StreamConfigure([WALLET], FIRST), clock=lambda: self.now)
        self.writer = FrameWriter(self.desired, limit_bytes=LIMIT, wake_reader=self._wake)

    def _wake(self) -> None:
        self.woken += 1

    def connect(self, *, room: int | None = None) -> FakeLink:
        """A link past its ``hello_ok``, which then takes ``room`` bytes more."""
        link = FakeLink()
        self.writer.begin(link)  # type: ignore[arg-type]
        link.room = room
        self.writer.go_live()
        return link

    def drain(self, link: FakeLink) -> None:
        """The link takes everything; what the reader's select loop does as long as bytes wait."""
        link.room = None
        while self.writer.waiting_bytes:
            self.writer.flush()


def exit_of(n: int) -> RequestExitSignal:
    return RequestExitSignal(token_account=f"account-{n}")


def accounts(commands: list[dict[str, Any]]) -> list[str]:
    return [command["token_account"] for command in commands]


def opened(position_id: int, account: str) -> PositionOpened:
    return PositionOpened(
        position_id=position_id,
        wallet_pubkey=WALLET,
        mint="m",
        token_account=account,
        tokens=1,
        entry_quote_units=1,
        slot=1,
    )


# ── the bound ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_new_command_is_refused_whole_when_the_buffer_is_full() -> None:
    """Nothing of it is written; the ones before it arrive when the link takes bytes again, and then so do new ones."""
    rig = Rig()
    link = rig.connect(room=0)
    given = 0
    with pytest.raises(SendBufferFull) as caught:
        while True:
            rig.writer.command(exit_of(given))
            given += 1
    assert 0 < caught.value.waiting_bytes <= LIMIT == caught.value.limit_bytes
    assert rig.writer.commands_sent == given + 1  # configure
    with pytest.raises(SendBufferFull):
        rig.writer.control(PING, b"x" * 100)
    assert rig.woken
    rig.drain(link)
    rig.writer.command(exit_of(given))
    assert accounts(link.commands()) == [f"account-{n}" for n in range(given + 1)]


def test_what_was_accepted_offline_is_sent_whole_however_full_the_buffer() -> None:
    """Far more commands than the buffer holds: none refused or lost, in order, and the buffer's bound is kept."""
    rig, count = Rig(), 5_000
    for n in range(count):
        rig.writer.command(exit_of(n))
    link = rig.connect(room=50)
    assert 0 < rig.writer.waiting_bytes <= LIMIT
    with pytest.raises(SendBufferFull):
        rig.writer.command(ClosePosition(token_account="new"))
    most = 0
    while rig.writer.waiting_bytes:
        link.room = 5000
        rig.writer.flush()
        most = max(most, rig.writer.waiting_bytes)
    assert 0 < most <= LIMIT
    rig.writer.command(ClosePosition(token_account="new"))
    assert accounts(link.commands()) == [*(f"account-{n}" for n in range(count)), "new"]


def test_a_new_command_does_not_overtake_those_that_wait() -> None:
    """Also when it is short enough for the room that is left."""
    rig = Rig()
    rig.writer.command(exit_of(0))
    rig.writer.command(RequestExitSignal(token_account="x" * (LIMIT - 250)))
    rig.writer.command(ClosePosition(token_account="y" * 200))
    link = rig.connect(room=0)
    assert rig.writer.waiting_bytes < LIMIT - 60
    with pytest.raises(SendBufferFull):
        rig.writer.command(Ping(client_time_ms=1))
    rig.drain(link)
    assert [command["type"] for command in link.commands()] == ["request_exit_signal"] * 2 + ["close_position"]


def test_overrides_are_sent_again_however_full_the_buffer() -> None:
    """``observe`` never raises, so no announcement is lost; each override follows, once, under its latest id."""
    rig = Rig()
    first = rig.connect()
    count = 100
    for n in range(1, count + 1):
        rig.writer.observe(opened(n, f"account-{n}"))
        rig.writer.command(UpdatePositionStrategy(position_id=n, strategy=SECOND))
    assert len(first.commands()) == count
    rig.writer.end()
    link = rig.connect(room=0)
    for round_ in (1, 2, 3):
        for n in range(1, count + 1):
            rig.writer.observe(opened(1000 * round_ + n, f"account-{n}"))
    assert rig.writer.waiting_bytes <= LIMIT
    rig.drain(link)
    sent = [command["position_id"] for command in link.commands()]
    assert sorted(position_id for position_id in sent if position_id > 3000) == [*range(3001, 3001 + count)]
    # The few that had a place in the buffer went out under the ids of then as well; nothing piles up.
    assert len(sent) < count + LIMIT // 50
    assert all(command["strategy"]["target_profit_pct"] == 2.0 for command in link.commands())


def test_an_answer_that_comes_while_its_request_is_being_written_is_not_missed() -> None:
    """The reader asks without the lock whether an exit is awaited; it may ask before ``send`` has returned."""
    rig = Rig()
    link = rig.connect()
    assert not rig.writer.awaits_exits
    asked = []
    send = link.send
    link.send = lambda data: (asked.append(rig.writer.awaits_exits), send(data))[1]  # type: ignore[method-assign]
    rig.writer.command(exit_of(1))
    assert asked == [True]
    assert rig.writer.awaits_exits


def test_an_announcement_while_a_command_is_being_written_is_not_passed_over() -> None:
    """The command may be what the announcement has to bring to the server again."""
    rig = Rig()
    link = rig.connect()
    position = opened(1, "acc")
    rig.writer.observe(position)
    observed: list[PositionOpened] = []
    rig.writer.observe = observed.append  # type: ignore[method-assign,assignment]
    rig.writer.observe_opened(position)
    assert observed == []
    send = link.send
    link.send = lambda data: (rig.writer.observe_opened(position), send(data))[1]  # type: ignore[method-assign]
    rig.writer.command(exit_of(1))
    assert observed == [position]


def test_a_wish_from_before_the_link_waits_for_its_position_and_new_commands_do_not_wait_for_it() -> None:
    """At the latest until the time for announcements is over, which begins again after a pause in reading."""
    now = [0.0]
    rig = Rig()
    rig.writer._clock = lambda: now[0]
    rig.connect()
    rig.writer.observe(opened(1, "a"))
    rig.writer.observe(opened(2, "b"))
    rig.writer.end()
    for account in "ab":
        rig.writer.command(RequestExitSignal(token_account=account))
    link = rig.connect()
    rig.writer.command(ClosePosition(token_account="new"))
    rig.writer.observe(opened(7, "b"))
    assert [command["token_account"] for command in link.commands()] == ["new", "b"]
    now[0] = 2.0
    rig.writer.restart_announcements()
    assert rig.writer.announcements_due_in_s() == 3.0
    now[0] = 5.0
    assert rig.writer.announcements_due_in_s() == 0.0
    rig.writer.end_announcements()
    assert rig.writer.announcements_due_in_s() is None
    assert accounts(link.commands()) == ["new", "b", "a"]
    rig.writer.restart_announcements()
    assert rig.writer.announcements_due_in_s() is None


# ── the link's end ───────────────────────────────────────────────────────────────────────────────────────────────


def test_what_the_old_link_had_no_room_for_goes_to_the_next_one() -> None:
    """A link that dies under a backlog: requests that were written are asked once more, the others for the first time."""
    rig = Rig()
    for n in range(100):
        rig.writer.command(exit_of(n))
        rig.writer.command(ClosePosition(token_account=f"close-{n}"))
    link = rig.connect(room=0)
    assert not link.commands()
    rig.writer.end()
    assert rig.writer.waiting_bytes == 0
    again = rig.connect()
    asked = [command for command in again.commands() if command["type"] == "request_exit_signal"]
    assert sorted(accounts(asked)) == sorted(f"account-{n}" for n in range(100))
    closes = [command for command in again.commands() if command["type"] == "close_position"]
    # The few that were in the buffer are "sent": nothing acknowledges them, and closing twice is not ours to decide.
    assert 100 - LIMIT // 50 <= len(closes) < 100
    assert accounts(closes)[-1] == "close-99"


def test_a_command_that_meets_a_broken_link_waits_for_the_next() -> None:
    """The reader has not noticed yet: nothing is said to be sent that was not, and what cannot wait is refused."""
    rig = Rig()
    link = rig.connect()
    link.broken = True
    sent = rig.writer.commands_sent
    rig.writer.command(exit_of(1))
    assert rig.woken
    rig.writer.command(ClosePosition(token_account="a"))
    rig.writer.command(UpdateStrategy(strategy=SECOND))
    for message in (Ping(client_time_ms=1), ClosePosition(position_id=99)):
        with pytest.raises(TransportError, match="no session"):
            rig.writer.command(message)
    for success in (True, False, True):
        rig.writer.command(MirrorBuyResult(mint="m", success=success))
    rig.writer.app_ping()
    rig.writer.control(PING)
    assert rig.writer.commands_sent == sent
    assert rig.writer.pong_came() == (False, None)
    rig.writer.end()
    again = rig.connect()
    assert again.messages()[0]["strategy"]["target_profit_pct"] == 2.0
    assert [command["type"] for command in again.commands()] == [
        "request_exit_signal", "close_position", *["mirror_buy_result"] * 3,
    ]  # fmt: skip
    assert [command["success"] for command in again.commands()[2:]] == [True, False, True]


def test_the_newer_of_two_requests_survives_a_broken_link() -> None:
    """One was on the wire, its correction came when nothing could be written any more."""
    rig = Rig()
    link = rig.connect()
    rig.writer.command(RequestExitSignal(token_account="a", slippage_bps=1))
    link.broken = True
    rig.writer.command(RequestExitSignal(token_account="a", slippage_bps=2))
    rig.writer.end()
    assert [command["slippage_bps"] for command in rig.connect().commands()] == [2]


def test_an_override_that_waits_does_not_outlive_its_link_or_a_newer_strategy() -> None:
    """Under the next link its position has another id; after ``update_strategy`` it has no override."""
    rig = Rig()
    rig.connect()
    rig.writer.observe(opened(7, "a"))
    rig.writer.command(UpdatePositionStrategy(position_id=7, strategy=SECOND))
    rig.writer.command(ClosePosition(token_account="x" * LIMIT))
    rig.writer.end()
    link = rig.connect(room=0)
    rig.writer.command(ClosePosition(token_account="x" * LIMIT))
    rig.writer.observe(opened(70, "a"))
    rig.writer.end()
    assert not [command for command in rig.connect().commands() if command["type"] == "update_position_strategy"]
    rig.writer.end()
    link = rig.connect(room=0)
    rig.writer.command(ClosePosition(token_account="x" * LIMIT))
    rig.writer.observe(opened(700, "a"))
    link.broken = True
    rig.writer.flush()
    rig.writer.command(UpdateStrategy(strategy=FIRST))
    rig.writer.end()
    link = rig.connect()
    rig.writer.observe(opened(7000, "a"))
    assert not [command for command in link.commands() if command["type"] == "update_position_strategy"]


def test_a_command_too_many_is_refused_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """Offline, ``MAX_PENDING`` commands wait; the next one is not lost silently."""
    most = 2_000
    for module in (desired_state, writer):
        monkeypatch.setattr(module, "MAX_PENDING", most)
    rig = Rig()
    for n in range(most):
        rig.writer.command(exit_of(n))
    with pytest.raises(TransportError, match=r"2,000 commands wait already"):
        rig.writer.command(exit_of(most))
    # Those on the wire when a link breaks were accepted, too.
    link = rig.connect()
    assert len(link.commands()) == most
    rig.writer.command(exit_of(most))
    rig.writer.end()
    assert len(rig.connect().commands()) == most + 1
