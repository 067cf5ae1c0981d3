"""Chaos: one session through hundreds of seeded faults, and the books balanced at the end.

    python -m tests.faults.chaos --seconds 60 [--seed N] [--pace S] [--report FILE] [--page FILE]

The world (``tests/faults/world.py``), a process of its own, numbers every high-lane message and notes at which byte of
its connection it ends. Its proxy knows how many bytes of each connection the client's kernel has acknowledged. A message
whose last byte was acknowledged *reached the socket*: it must come to the session's tap, once. (When the client itself
ended the connection, the bytes of the last quarter of a second before that do not count: they crossed with its close.
What was swallowed, cut off or never sent is the gap that no client can close.)

Faults of the link are the proxy's; the server floods it with messages that cannot be read or mean nothing, uses ids again
for other accounts, and answers upgrades with 103 first; the client's process (``tests/faults/client_faults.py``) runs out
of descriptors and threads, and forks. In the first third nobody consumes. Then a consumer takes the events, and at times
none for seconds: from its first event on it gets every one that the tap gets, in that order.

Also checked: the session is never LIVE and healthy while nothing has come for seconds; every ``configure`` carries the
latest strategy; descriptors and threads are as many as at the start, and memory does not grow. This process holds the
session and, of every message, one byte.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import os
import random
import subprocess
import sys
import threading
import time
import zlib
from collections import Counter, deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from typing_extensions import Self

from lasersell_sync import (
    ConnectionState,
    StrategyConfig,
    StreamClient,
    StreamConfigure,
    StreamEvent,
    StreamOptions,
    StreamSession,
)
from tests.faults.chaos_page import page
from tests.faults.client_faults import ClientFaults
from tests.faults.rigs import library_threads, open_fd_names, open_fds, rss_bytes
from tests.support.stream_server import WALLET
from tests.support.waiting import PATIENCE_S, until

#: Pause between two high-lane messages of one connection; each is followed by three low-lane ones.
PACE_S = 0.002
#: The memories that are bounded fill up in the first minutes (4,096 exit signals, 1,024 events), and the record grows by
#: one byte for each message; a leak of a hundred bytes a message or a kilobyte a fault would come to more in half an hour.
MAX_RSS_GROWTH = 16 * 2**20
#: Small, so that lanes overflow and reading stops often.
HIGH_CAPACITY = 256
OPTIONS: dict[str, Any] = {
    "high_capacity": HIGH_CAPACITY,
    "ping_interval_s": 0.3,
    "pong_timeout_s": 0.5,
    "app_ping_interval_s": 0.6,
    "app_pong_timeout_s": 0.6,
    "connect_timeout_s": 1.5,
    "max_backoff_s": 0.3,
    "max_degraded_backoff_s": 0.5,
    "stable_after_s": 0.3,
    "resync_grace_s": 0.3,
}


def number_of(event: StreamEvent) -> int | None:
    """The number of a numbered message; None for everything else."""
    message = event.message
    if event.type in ("position_opened", "position_closed", "balance_update"):
        return int(message.slot)
    if event.type == "exit_signal_with_tx":
        return int(message.unsigned_tx_b64)
    if event.type == "error" and message.code == "chaos":
        return int(message.message)
    return None


class Tap:
    """Counts every numbered message that the session delivers, whoever consumes."""

    def __init__(self, session: StreamSession) -> None:
        #: How often each number came, by number.
        self.delivered = bytearray(1)
        self.kinds: Counter[str] = Counter()
        self.seen = threading.Condition()
        #: Numbers that a consumer must get, in this order; before there is one, the latest.
        self.owed: deque[int] = deque(maxlen=2 * HIGH_CAPACITY)
        self.last_at = time.monotonic()
        session.tap(self._hear)

    def _hear(self, event: StreamEvent) -> None:
        number = number_of(event)
        with self.seen:
            self.kinds[event.type] += 1
            if number is None:
                return
            self.last_at = time.monotonic()
            self.delivered.extend(bytes(max(0, number + 1 - len(self.delivered))))
            self.delivered[number] += 1
            self.owed.append(number)
            self.seen.notify_all()

    def keep_owed(self) -> None:
        """From now on nothing that is owed is forgotten."""
        with self.seen:
            self.owed = deque(self.owed)

    def wait_for(self, number: int) -> bool:
        with self.seen:
            return bool(self.seen.wait_for(lambda: self.times(number), PATIENCE_S))

    def times(self, number: int) -> int:
        """How often a number came."""
        return self.delivered[number] if number < len(self.delivered) else 0


class LateConsumer:
    """Takes the session's events from some moment on, and at times none."""

    def __init__(self, session: StreamSession, tap: Tap) -> None:
        self._session = session
        self._tap = tap
        self.taken = 0
        #: High-lane events that the first one said were dropped before.
        self.missed = 0
        #: What did not come as the tap saw it.
        self.wrong: list[str] = []
        self._nap_s = 0.0
        self._thread = threading.Thread(target=self._run, name="chaos-consumer", daemon=True)

    def start(self) -> None:
        self._tap.keep_owed()
        self._thread.start()

    def nap(self, seconds: float) -> None:
        """Take nothing for a while."""
        self._nap_s = seconds

    def join(self) -> None:
        if self._thread.ident is not None:
            self._thread.join(PATIENCE_S)

    def _run(self) -> None:
        for event in self._session:
            if event.type == "lagged":
                self.missed += event.message.high_dropped
            number = number_of(event)
            if number is not None:
                self._check(number)
            if self._nap_s:
                nap_s, self._nap_s = self._nap_s, 0.0
                threading.Event().wait(nap_s)

    def _check(self, number: int) -> None:
        with self._tap.seen:
            owed = self._tap.owed
            skipped = 0
            while owed and owed.popleft() != number:
                skipped += 1
        # The first one comes behind those that were dropped before there was a consumer.
        if skipped and self.taken:
            self.wrong.append(f"{skipped} numbers before {number} did not come")
        self.taken += 1


class DeafWatch:
    """Notices a session that says it is live and healthy, and hears nothing."""

    #: Both questions of the keepalive with their answers, and what a loaded machine may need.
    PATIENCE_S = 6.0

    def __init__(self, session: StreamSession) -> None:
        self._session = session
        self.longest_s = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="chaos-deaf-watch", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(0.1):
            idle_s = self._session.stats().idle_seconds or 0.0
            if self._session.status is ConnectionState.LIVE and self._session.health().ok:
                self.longest_s = max(self.longest_s, idle_s)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(PATIENCE_S)


class World:
    """The other process; a method called here is called there (see ``world.World``)."""

    def __init__(self, seed: int, pace_s: float) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.world", str(seed), str(pace_s)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )

    def __getattr__(self, method: str) -> Any:
        def call(*arguments: object) -> Any:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.write(json.dumps([method, *arguments]) + "\n")
            self._process.stdin.flush()
            return json.loads(self._process.stdout.readline())

        return call

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # It ends with its input.
        try:
            self._process.communicate(timeout=3 * PATIENCE_S)
        finally:
            self._process.kill()


class Ordeal:
    """One session in the world, from the first connect to the verdict."""

    def __init__(self, world: World, rand: random.Random) -> None:
        self.world = world
        self.rand = rand
        url = self.world.url()
        self.fds_before, self.threads_before = open_fds(), library_threads()
        client = StreamClient("chaos-key", options=StreamOptions(**OPTIONS)).with_endpoint(url)
        #: (when update_strategy returned, target); the newest is last.
        self.wishes: list[tuple[float, float]] = [(time.monotonic(), 1.0)]
        configure = StreamConfigure([WALLET], StrategyConfig(target_profit_pct=1.0, stop_loss_pct=0.0))
        self.session = StreamSession.connect(client, configure)
        self.tap = Tap(self.session)
        self.consumer = LateConsumer(self.session, self.tap)
        self.deaf = DeafWatch(self.session)
        self.client_faults = ClientFaults(self.session, rand)
        self.threads_live = library_threads()
        self.rss: list[int] = []

    def suffer(self, seconds: float, every_s: tuple[float, float]) -> None:
        """Fault after fault, a new wish after each; in the first third nobody consumes."""
        started = time.monotonic()
        nap = threading.Event()
        is_consumed = False
        while (left_s := started + seconds - time.monotonic()) > 0:
            nap.wait(min(left_s, self.rand.uniform(*every_s)))
            if not is_consumed and time.monotonic() - started > seconds / 3:
                self.consumer.start()
                is_consumed = True
            self._strike(is_consumed=is_consumed)
            target = self.wishes[-1][1] + 1
            # Whoever waits for a descriptor, a thread or a link is told nothing here: wishes are kept.
            self.session.update_strategy(StrategyConfig(target_profit_pct=target, stop_loss_pct=0.0))
            self.wishes.append((time.monotonic(), target))
            if time.monotonic() - started > min(10.0, seconds / 3):
                self.rss.append(rss_bytes())

    def _strike(self, *, is_consumed: bool) -> None:
        """One fault: of the world three times in four, else of this process or its consumer."""
        if self.rand.random() < 0.75:
            self.world.strike()
        elif is_consumed and self.rand.random() < 0.4:
            self.client_faults.done["consumer_takes_nothing"] += 1
            self.consumer.nap(self.rand.uniform(0.5, 4.0))
        else:
            self.client_faults.strike()

    def settle(self) -> dict[str, Any]:
        """Clear the sky, send a fence, wait for it, balance the books."""
        self.world.fair()
        fenced = self._fence()
        threads_after = library_threads()
        books = self.world.books()
        due = zlib.decompress(base64.b64decode(books["due"]))
        with contextlib.suppress(AssertionError):  # a last message may have been said after the fence
            until(lambda: not self._lost(due))
        lost = self._lost(due)
        doubled = [number for number, count in enumerate(self.tap.delivered) if count > 1]
        outdated = self._outdated(books["configures"])
        stats = self.session.stats()
        health = self.session.health()
        self.deaf.stop()
        self.session.close()
        self.consumer.join()
        with contextlib.suppress(AssertionError):
            until(lambda: open_fds() <= self.fds_before and library_threads() == self.threads_before)
        growth = (max(self.rss[-3:]) - min(self.rss[:3])) if len(self.rss) >= 6 else 0
        report = {
            "cores": os.cpu_count(),
            "faults": {**books["faults"], **dict(sorted(self.client_faults.done.items()))},
            "connections": books["connections"],
            "sessions": stats.sessions,
            "high_lane_written": books["written"],
            "high_lane_reached_the_socket": sum(due),
            "high_lane_delivered": sum(map(bool, self.tap.delivered)),
            "consumer": {"taken": self.consumer.taken, "missed_before_it_came": self.consumer.missed},
            "consumer_wrong": self.consumer.wrong[:5],
            "children_wrong": self.client_faults.wrong[:5],
            "live_and_deaf_s": round(self.deaf.longest_s, 1),
            "health_at_the_end": health.problem,
            "messages_received": stats.messages_received,
            "bytes_reached": books["bytes_reached"],
            "lost": lost[:20],
            "doubled": doubled[:20],
            "exit_repeats_counted": stats.duplicates,
            "outdated_strategies": outdated,
            "decode_errors": stats.decode_errors,
            "bad_frames_written": books["bad_written"],
            "contradictions": stats.contradictions,
            "events": dict(sorted(self.tap.kinds.items())),
            "fds": [self.fds_before, open_fds()],
            "fds_at_the_end": open_fd_names(),
            "threads": [self.threads_live, threads_after, library_threads()],
            "rss_growth_bytes": growth,
            "rss_mib": [round(sample / 2**20, 1) for sample in self.rss[:: max(1, len(self.rss) // 12)]],
            "fence_came": fenced,
        }
        report["ok"] = (
            fenced
            and not lost
            and not doubled
            and not outdated
            and not self.consumer.wrong
            and not self.client_faults.wrong
            and self.consumer.missed == stats.high_dropped
            and self.deaf.longest_s <= DeafWatch.PATIENCE_S
            and stats.decode_errors <= books["bad_written"]
            and open_fds() <= self.fds_before
            and threads_after == self.threads_live
            and library_threads() == self.threads_before
            and growth <= MAX_RSS_GROWTH
        )
        return report

    def _fence(self) -> bool:
        """True when a message of fair weather arrives: everything before it on that connection has arrived then."""
        ends_at = time.monotonic() + 3 * PATIENCE_S
        while time.monotonic() < ends_at:
            with contextlib.suppress(AssertionError):
                until(lambda: self.session.status is ConnectionState.LIVE)
                number = self.world.fence()
                if number is not None and self.tap.wait_for(number):
                    return True
            self.world.talk_on()
        return False

    def _lost(self, due: bytes) -> list[int]:
        return [number for number, is_due in enumerate(due) if is_due and not self.tap.times(number)]

    def _outdated(self, configures: Sequence[tuple[float, float]]) -> list[dict[str, float]]:
        """Each ``configure`` whose strategy was older than the last wish before its connection was accepted."""
        wrong = []
        for accepted_at, said in configures:
            owed = [target for at, target in self.wishes if at <= accepted_at][-1]
            if said < owed:
                wrong.append({"owed": owed, "said": said})
        return wrong


def run(
    seconds: float, seed: int, *, every_s: tuple[float, float] = (0.2, 5.0), pace_s: float = PACE_S
) -> dict[str, Any]:
    """Chaos for so many seconds; the report. ``report["ok"]`` is the verdict."""
    rand = random.Random(seed)
    with World(rand.randrange(2**31), pace_s) as world:
        ordeal = Ordeal(world, rand)
        try:
            ordeal.suffer(seconds, every_s)
            return {"seed": seed, "seconds": seconds, **ordeal.settle()}
        finally:
            ordeal.session.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--every", type=float, nargs=2, default=(0.2, 5.0), metavar=("LEAST", "MOST"))
    parser.add_argument("--pace", type=float, default=PACE_S, metavar="S", help="seconds between high-lane messages")
    parser.add_argument("--report", type=Path, default=None, help="write the report as JSON")
    parser.add_argument("--page", type=Path, default=None, help="write the report as docs/chaos.md has it")
    options = parser.parse_args(arguments)
    seed = int.from_bytes(os.urandom(4), "big") if options.seed is None else options.seed
    print(f"chaos: seed {seed}, {options.seconds:g} s", flush=True)
    report = run(options.seconds, seed, every_s=tuple(options.every), pace_s=options.pace)
    text = json.dumps(report, indent=2)
    print(text)
    if options.report is not None:
        options.report.write_text(text + "\n")
    if options.page is not None:
        options.page.write_text(page(report, tuple(options.every)))
    return 0 if report["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
