"""Consumers that stall, raise, exit, hang or deadlock: the session does not."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from lasersell_sync import ConnectionState, StreamEvent
from tests.faults import stalled
from tests.faults.rigs import WebsocketsRig
from tests.support.processes import Program
from tests.support.stream_server import closed, opened, pnl
from tests.support.waiting import PATIENCE_S, until

MAX_GROWTH_BYTES = 32 * 2**20


@pytest.mark.parametrize(
    "count",
    [100_000, pytest.param(30 * 60 * 1000, marks=[pytest.mark.slow, pytest.mark.timeout(600)])],
)
def test_a_stalled_consumer_loses_no_high_lane_message_and_no_memory(plain_rig: WebsocketsRig, count: int) -> None:
    """Nobody takes anything: memory grows by less than 32 MiB, ``lagged`` is told, the high lane is whole.

    30 minutes at 1,000 messages a second, but for the waiting, is the slow one; what matters is that nothing grows with
    the number, which a tenth of it shows as well.
    """
    with Program(stalled.__file__, plain_rig.proxy.url, str(count)) as client:
        until(lambda: plain_rig.sessions, 6 * PATIENCE_S)
        for message in stalled.FIRST:
            plain_rig.send(message)
        client.line_with("ready")
        for piece in stalled.flood(count):
            plain_rig.send(piece)
        report = json.loads(client.line_with("report {").partition(" ")[2])
        code, _, _ = client.end()
    print(report)
    assert report["growth_bytes"] <= MAX_GROWTH_BYTES
    assert report["high_lane_whole"], report
    assert report["low_lane_accounted_for"] == count
    assert report["newest_of_each_position"], report
    assert report["lagged_total"] > 0
    assert (report["status"], report["sessions"], code) == ("live", 1, 0)


class Trap:
    """A handler that misbehaves until it is released."""

    def __init__(self, behaviour: str) -> None:
        self.behaviour = behaviour
        self.entered = threading.Event()
        self.release = threading.Event()
        self._lock = threading.Lock()

    def __call__(self, _: StreamEvent) -> None:
        self.entered.set()
        if self.behaviour == "raises":
            raise ValueError("the user's bug")
        if self.behaviour == "exits":
            raise SystemExit(3)
        if self.behaviour == "sleeps":
            self.release.wait(60)
        if self.behaviour == "deadlocks":
            # A lock that somebody else holds and will never release (but for the end of the test).
            while not self._lock.acquire(timeout=0.05) or True:
                if self.release.wait(0.05):
                    return


@pytest.mark.parametrize("behaviour", ["sleeps", "deadlocks"])
@pytest.mark.parametrize("dispatch", ["thread", "per_lane"])
def test_a_hanging_handler_holds_up_neither_reader_nor_state(
    plain_rig: WebsocketsRig, dispatch: str, behaviour: str
) -> None:
    """Positions, pings and pnl go on; the handler is named in ``health()``; with per_lane the other lane works on."""
    trap = Trap(behaviour)
    told: list[StreamEvent] = []
    with plain_rig.session(
        dispatch=dispatch, ping_interval_s=0.1, pong_timeout_s=5.0, handler_stuck_after_s=0.2
    ) as session:
        session.on("pnl_update", trap)
        high = threading.Event()
        session.on("position_closed", lambda _: high.set())
        session.on("handler_stuck", told.append)
        session.start()
        plain_rig.send(opened(7))
        plain_rig.send(pnl(7))
        assert trap.entered.wait(PATIENCE_S)
        try:
            plain_rig.send(opened(8, account="another"))
            plain_rig.send(closed(7))
            until(lambda: [handle.position_id for handle in session.positions()] == [8])
            frames = session.stats().frames_received
            until(lambda: session.stats().frames_received >= frames + 5)  # pongs: nobody gave the link up
            assert session.stats().sessions == 1
            until(lambda: session.health().stuck_handlers)
            assert not session.health().ok
            assert "Trap" in session.health().stuck_handlers[0]
            assert high.is_set() == (dispatch == "per_lane") or high.wait(PATIENCE_S) == (dispatch == "per_lane")
            if dispatch == "per_lane":
                until(lambda: told)
                assert "Trap" in told[0].message.handler
                assert "__call__" in told[0].message.stack
        finally:
            trap.release.set()
        assert high.wait(PATIENCE_S)
        until(lambda: session.health().ok)


@pytest.mark.parametrize("behaviour", ["raises", "exits"])
@pytest.mark.parametrize("dispatch", ["thread", "per_lane", "inline"])
def test_a_raising_handler_is_told_and_stops_nothing(
    plain_rig: WebsocketsRig, dispatch: str, behaviour: str, caplog: pytest.LogCaptureFixture
) -> None:
    """An exception, SystemExit too, becomes ``handler_error``; the next handlers and events are reached."""
    trap = Trap(behaviour)
    seen: list[Any] = []
    with plain_rig.session(dispatch=dispatch) as session:
        session.on("position_opened", trap)
        session.on("position_opened", lambda event: seen.append(event.handle.position_id))
        session.on("handler_error", lambda event: seen.append(type(event.message.error)))
        session.start()
        for n in (1, 2, 3):
            plain_rig.send(opened(n, account=f"account-{n}"))
        until(lambda: len(seen) == 6)
        assert sorted(x for x in seen if isinstance(x, int)) == [1, 2, 3]
        assert session.status is ConnectionState.LIVE
        assert len([r for r in caplog.records if "raised" in r.getMessage()]) == 3


def test_an_inline_handler_that_sleeps_blocks_reading_and_only_that(plain_rig: WebsocketsRig) -> None:
    """As documented: nothing is read meanwhile; afterwards nothing is missing, and it is no dead link."""
    trap = Trap("sleeps")
    with plain_rig.session(dispatch="inline", ping_interval_s=0.1, pong_timeout_s=1.0, stall_after_s=60) as session:
        session.on("position_opened", trap)
        session.start()
        plain_rig.send(opened(1))
        assert trap.entered.wait(PATIENCE_S)
        plain_rig.send(opened(2, account="another"))
        # Commands go out on the caller's thread whatever the reader does.
        session.request_exit_signal(session.positions()[0])
        until(plain_rig.commands)
        assert [handle.position_id for handle in session.positions()] == [1]
        threading.Event().wait(1.3)  # longer than ping and pong together: this is the fault itself
        trap.release.set()
        until(lambda: len(session.positions()) == 2)
        frames = session.stats().frames_received
        until(lambda: session.stats().frames_received > frames)
        assert session.stats().sessions == 1


def test_close_from_a_session_with_a_hanging_handler_is_bounded(plain_rig: WebsocketsRig) -> None:
    """``close(timeout)`` names the handler and leaves it behind."""
    trap = Trap("sleeps")
    session = plain_rig.session()
    session.on("position_opened", trap)
    session.start()
    plain_rig.send(opened(1))
    assert trap.entered.wait(PATIENCE_S)
    done = threading.Event()
    closer = threading.Thread(target=lambda: (session.close(timeout=0.5), done.set()), daemon=True)
    closer.start()
    assert done.wait(2 * 1.5)
    trap.release.set()
    closer.join(PATIENCE_S)
