"""An Advanced session at its limits: 20,000 positions, each told about every 100 ms, whole and in order.

How fast it goes is ``python -m benchmarks.bench_sandbox``'s business; here it must be right.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from websockets.sync.client import ClientConnection

from lasersell_sync.sandbox import Sandbox
from lasersell_sync.sandbox.servers.stream_server import framed
from tests.sandbox.players import PATIENCE_S, Rig, Trader, strategy

POSITIONS = 20_000
PNL = re.compile(r'\{"type":"pnl_update","position_id":(\d+),.*"server_time_ms":(\d+),')


def until(ws: ClientConnection, kind: str, count: int) -> list[str]:
    """The next so many frames of a kind."""
    start, found = f'{{"type":"{kind}"', []
    while len(found) < count:
        frame = ws.recv(timeout=PATIENCE_S)
        assert isinstance(frame, str)
        if frame.startswith(start):
            found.append(frame)
    return found


def test_every_position_is_told_in_every_flush(
    make_sandbox: Callable[..., Sandbox], make_trader: Callable[..., Trader]
) -> None:
    """Three flushes in a row have every position once, in one order, 100 ms of virtual time apart."""
    sandbox = make_sandbox(scenario="flood", clock="manual")
    trader = make_trader(sandbox)
    ws = trader.connect()
    wallets = [str(wallet.pubkey()) for wallet in sandbox.wallets.values()]
    ws.send(json.dumps({"type": "configure", "wallet_pubkeys": wallets, "strategy": strategy(target=500)}))
    opened = {json.loads(frame)["position_id"] for frame in until(ws, "position_opened", POSITIONS)}
    assert len(opened) == POSITIONS
    flushes = []
    for _ in range(3):
        sandbox.advance(0.1)
        matches = [PNL.match(frame) for frame in until(ws, "pnl_update", POSITIONS)]
        assert all(matches)
        flushes.append([(int(match[1]), int(match[2])) for match in matches if match])
    for flush in flushes:
        assert {position_id for position_id, _ in flush} == opened
        assert len({time_ms for _, time_ms in flush}) == 1
    assert [[position_id for position_id, _ in flush] for flush in flushes] == 3 * [[item for item, _ in flushes[0]]]
    times = [flush[0][1] for flush in flushes]
    assert [times[1] - times[0], times[2] - times[1]] == [100, 100]


def numbers(outbox: Any, kind: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = outbox.messages(kind)
    outbox.frames.clear()
    return found


def test_a_line_is_written_anew_when_anything_in_it_has_changed() -> None:
    """Price, size and entry are told as they are at every flush, though most of a line is kept from the last."""
    rig = Rig()
    wallet, listing = rig.wallet(), rig.listing("pump_swap", "climb")
    _, outbox = rig.session(wallet)
    rig.buy(wallet, listing, lamports=10**9)
    rig.advance(0.5)
    seen = []
    for step in (
        lambda: None,
        lambda: rig.buy(wallet, listing, lamports=10**9),
        lambda: rig.sell(wallet, listing, 1_000),
    ):
        step()
        rig.advance(0.3)
        numbers(outbox, "pnl_update")
        rig.advance(0.1)
        (update,) = numbers(outbox, "pnl_update")
        (position,) = [item for item in rig.exchange.positions.book.records() if item.close_reason is None]
        assert update["proceeds_units"] == rig.exchange.positions.exits.proceeds(listing, position.tokens)
        assert update["profit_units"] == update["proceeds_units"] - position.entry_lamports
        seen.append(update)
    assert len({update["proceeds_units"] for update in seen}) == 3
    assert len({update["token_price_quote"] for update in seen}) == 3


def test_frames_of_every_size_are_framed() -> None:
    """Headers have the three lengths of RFC 6455 5.2, at their boundaries."""
    for size, header in (
        (0, b"\x81\x00"),
        (125, b"\x81\x7d"),
        (126, b"\x81\x7e\x00\x7e"),
        (1_023, b"\x81\x7e\x03\xff"),
        (1_024, b"\x81\x7e\x04\x00"),
        (65_535, b"\x81\x7e\xff\xff"),
        (65_536, b"\x81\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
    ):
        assert framed(["x" * size]) == [header + b"x" * size]
    assert framed([]) == []
    assert framed(["é", b"\xff", "\ud800"]) == [b"\x81\x02\xc3\xa9\xff\x81\x03\xed\xa0\x80"]
    assert b"".join(framed(["y" * 500] * 1_000)) == framed(["y" * 500])[0] * 1_000
    assert len(framed(["y" * 500] * 1_000)) > 1
