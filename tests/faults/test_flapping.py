"""Links that come and go, and servers that are away for a while: nothing piles up, the latest wish always wins."""

from __future__ import annotations

import gc
import time
from collections import Counter

import pytest

from lasersell_sync import ConnectionState, StrategyConfig
from tests.faults.rigs import Rig, WebsocketsRig, at_s, library_threads, open_fds, rss_bytes
from tests.support.stream_server import exit_signal
from tests.support.waiting import PATIENCE_S, until

CYCLES = 60


def flap(rig: Rig, *, cycles: int, up_s: float, down_s: float) -> None:
    """``cycles`` times up and down, each with a new strategy and one numbered exit signal."""
    delivered: Counter[int] = Counter()
    with rig.session(max_backoff_s=0.05, initial_backoff_s=0.01, stable_after_s=0.001) as session:
        session.on("exit_signal_with_tx", lambda event: delivered.update([event.message.position_id]))
        session.start()
        connects = rig.sessions
        baseline: tuple[list[str], int] | None = None
        sent = []
        for cycle in range(1, cycles + 1):
            until(lambda: session.status is ConnectionState.LIVE and rig.sessions == session.stats().sessions)
            assert rig.configures()[-1]["strategy"]["target_profit_pct"] == (5.0 if cycle == 1 else cycle - 1)
            rig.send(exit_signal(cycle, account=f"account-{cycle}", triggered_at_ms=cycle))
            sent.append(cycle)
            until(lambda cycle=cycle: delivered[cycle])
            until(lambda: rig.proxy.open_connections == 1)
            if cycle == 3:  # imports and pools are warm
                baseline = library_threads(), open_fds()
            if up_s:
                time.sleep(up_s)  # the pace of the fault
            rig.proxy.refuse()
            rig.proxy.reset()
            until(lambda: session.status is not ConnectionState.LIVE)
            # While the link is down: it must be in the next configure.
            session.update_strategy(StrategyConfig(target_profit_pct=float(cycle), stop_loss_pct=0.0))
            if down_s:
                time.sleep(down_s)
            rig.proxy.accept()
        until(lambda: session.status is ConnectionState.LIVE and rig.sessions == session.stats().sessions)
        assert rig.sessions == connects + cycles
        assert [delivered[n] for n in sent] == [1] * cycles
        assert baseline is not None
        until(lambda: library_threads() == baseline[0])
        until(lambda: open_fds() <= baseline[1])


def test_a_flapping_link_piles_nothing_up(rig: Rig) -> None:
    """60 cycles: as many threads and descriptors as at first, every event once, the latest strategy on every connect."""
    flap(rig, cycles=CYCLES, up_s=0, down_s=0)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_flapping_link_at_the_promised_pace(plain_rig: WebsocketsRig) -> None:
    """One second up, one second down, 60 times."""
    flap(plain_rig, cycles=CYCLES, up_s=1.0, down_s=1.0)


@pytest.mark.parametrize("dead", ["refused", "accepted and dropped", "black hole"])
def test_a_dead_port_costs_no_memory_and_recovery_is_met_within_a_step(rig: Rig, dead: str) -> None:
    """Hundreds of attempts in vain: memory flat, threads and descriptors as before; back within one backoff step."""
    step_s = 0.01
    # Only the black hole uses it up; the first connect must not.
    connect_timeout_s = 1.0 if dead == "black hole" else 5.0
    with rig.session(
        initial_backoff_s=step_s / 2, max_backoff_s=step_s, connect_timeout_s=connect_timeout_s, stable_after_s=0.001
    ) as session:
        if dead == "refused":
            rig.proxy.refuse()
        elif dead == "black hole":
            rig.proxy.black_hole()
        else:
            rig.proxy.accept_and_drop()
        rig.proxy.reset()
        tries = Counter[str]()

        def waited_for(count: int) -> None:
            for _ in range(count):
                session.wait_for("reconnecting", PATIENCE_S)
                tries["reconnecting"] += 1
                session.events.get_batch(1000, timeout=PATIENCE_S)

        count = 6 if dead == "black hole" else 150
        waited_for(count // 2)
        gc.collect()
        before = rss_bytes(), library_threads()
        waited_for(count // 2)
        gc.collect()
        assert rss_bytes() - before[0] < 4 * 2**20
        assert library_threads() == before[1]
        recovered_at = time.monotonic()
        rig.proxy.heal()
        rig.proxy.accept()
        connected = session.wait_for(lambda e: e.type == "connected" and at_s(e) > recovered_at, PATIENCE_S)
        # One attempt under way may have to fail first; then a step, and a second for the connect itself.
        under_way_s = connect_timeout_s if dead == "black hole" else 0.0
        assert at_s(connected) - recovered_at <= 2 * (under_way_s + step_s) + 1.0
        assert connected.message.reconnected


def test_a_name_that_stops_resolving_and_comes_back(plain_rig: WebsocketsRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A resolver that fails, for a while, is one more reason to try again; look-up threads do not pile up."""
    import socket
    import threading

    real = socket.getaddrinfo
    down = threading.Event()
    asked = Counter[str]()

    def lookup(host, *more, **named):
        if down.is_set():
            asked["in vain"] += 1
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return real(host, *more, **named)

    client = plain_rig.client(initial_backoff_s=0.005, max_backoff_s=0.01)
    client.with_endpoint(f"ws://localhost:{plain_rig.proxy.port}/v1/ws")
    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    from lasersell_sync import StreamSession

    with StreamSession.connect(client, plain_rig.configure()) as session:
        session.wait_for("hello_ok", PATIENCE_S)
        down.set()
        plain_rig.proxy.reset()
        until(lambda: asked["in vain"] >= 50)
        assert [e for e in (session.wait_for("reconnecting"), session.wait_for("reconnecting")) if e.message.last_error]
        assert len([t for t in threading.enumerate() if t.name == "lasersell-dns"]) <= 2
        down.clear()
        until(lambda: session.status is ConnectionState.LIVE)
