"""A client that takes nothing while messages pour in, in a process of its own: only its memory is to be measured.

    python tests/faults/stalled.py URL COUNT

Prints ``ready`` when the positions of ``FIRST`` are known, and a report in JSON when the whole of ``flood(COUNT)`` has
arrived and been looked at.
"""

from __future__ import annotations

import gc
import json
import sys
import threading
from collections.abc import Iterator
from typing import Any

from lasersell_sync import StrategyConfig, StreamClient, StreamConfigure, StreamEvent, StreamSession
from tests.faults.rigs import frame, rss_bytes
from tests.support.stream_server import WALLET, opened, pnl
from tests.support.waiting import PATIENCE_S, until

POSITIONS = 200
FIRST = [opened(n, account=f"account-{n}") for n in range(1, POSITIONS + 1)]
#: A high-lane message after so many of the low lane, of which every tenth is of a type that nobody knows.
HIGH_EVERY = 100
UNKNOWN_EVERY = 10
PIECE_BYTES = 2**18


def flood(count: int) -> Iterator[bytes]:
    """``count`` low-lane messages, and the high-lane ones between them, as frames in large pieces."""
    piece = bytearray()
    for n in range(count):
        if n % UNKNOWN_EVERY == 0:
            piece += frame(1, b'{"type":"rumour","n":%d}' % n)
        else:
            piece += frame(1, json.dumps(pnl(n % POSITIONS + 1, n), separators=(",", ":")).encode())
        if n % HIGH_EVERY == HIGH_EVERY - 1:
            piece += frame(1, b'{"type":"error","code":"high","message":"%d"}' % (n // HIGH_EVERY))
        if len(piece) > PIECE_BYTES:
            yield bytes(piece)
            piece.clear()
    yield bytes(piece)


def newest_of_flood(count: int) -> dict[int, int]:
    """The last profit that ``flood(count)`` tells of each position."""
    last = range(max(0, count - UNKNOWN_EVERY * POSITIONS), count)
    return {n % POSITIONS + 1: n for n in last if n % UNKNOWN_EVERY}


def stall(session: StreamSession, total: int) -> int:
    """Wait until so many messages have arrived; by how many bytes the process had grown at the most."""
    gc.collect()
    before = peak = rss_bytes()
    nap = threading.Event()
    while session.stats().messages_received < total:
        nap.wait(0.02)
        peak = max(peak, rss_bytes())
    return peak - before


def look(session: StreamSession, count: int) -> dict[str, Any]:
    """What waits for the consumer when it comes back."""
    lagged = session.wait_for("lagged", PATIENCE_S)
    events: list[StreamEvent] = []
    while session.events.qsize():
        events.extend(session.events.get_batch(10_000))
    high = [int(event.message.message) for event in events if event.type == "error"]
    low = [event for event in events if event.type in ("pnl_update", "unknown")]
    newest = {event.message.position_id: event.message.profit_units for event in low if event.type == "pnl_update"}
    stats = session.stats()
    return {
        "high_lane_whole": high == list(range(count // HIGH_EVERY)),
        "high_lane": len(high),
        "low_lane_accounted_for": len(low) + stats.dropped + stats.conflated,
        "newest_of_each_position": newest == newest_of_flood(count),
        "lagged_total": lagged.message.total_dropped + lagged.message.total_conflated,
        "status": session.status.value,
        "sessions": stats.sessions,
    }


def main() -> None:
    """Connect, stall, look, report."""
    url, count = sys.argv[1], int(sys.argv[2])
    configure = StreamConfigure([WALLET], StrategyConfig(target_profit_pct=5.0, stop_loss_pct=0.0))
    with StreamSession.connect(StreamClient("key").with_endpoint(url), configure) as session:
        session.wait_for("hello_ok", PATIENCE_S)
        until(lambda: len(session.positions()) == POSITIONS, 6 * PATIENCE_S)
        print("ready", flush=True)
        growth = stall(session, total=1 + POSITIONS + count + count // HIGH_EVERY)
        print("report", json.dumps({"growth_bytes": growth, **look(session, count)}), flush=True)


if __name__ == "__main__":
    main()
