"""Floods of messages that cannot be read, or mean nothing: exits go before them, memory and the log are bounded."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lasersell_sync import StreamClient, StreamConfigure, StreamEvent, StreamOptions, StreamSession
from tests.faults.rigs import KEY, STRATEGY, WebsocketsRig, frame, rss_bytes
from tests.support.stream_server import WALLET, Peer, ScriptedServer, exit_signal, opened, pnl
from tests.support.waiting import PATIENCE_S, until

FLOOD = 5_000
#: Each consumer takes this long for each event.
SLOW_S = 0.001


def text(message: dict[str, Any] | str) -> bytes:
    return frame(0x1, (message if isinstance(message, str) else json.dumps(message)).encode())


#: What a server may write that a consumer cannot use.
BAD: dict[str, Callable[[int], bytes]] = {
    "a field of another type": lambda n: text(pnl(7) | {"profit_units": "12"}),
    "an unreadable tick": lambda n: text({"type": "trade_tick", "position_id": 7}),
    "no JSON": lambda n: text("not json"),
    "no object": lambda n: text("[1,2,3]"),
    "binary": lambda n: frame(0x2, b"\x00\x01"),
    "an unreadable opening": lambda n: text({"type": "position_opened", "position_id": n}),
    "unknown types": lambda n: text({"type": f"new_{n % 7}", "n": n}),
    "updates of unknown ids": lambda n: text(pnl(10**6 + n)),
}


def consumers(style: str, session: StreamSession, handle: Callable[[StreamEvent], None]) -> None:
    """Begin to consume in one of the ways."""
    if style == "queue":
        threading.Thread(target=lambda: [handle(event) for event in session], daemon=True).start()
    else:
        session.on("*", handle)
        session.start()


@pytest.mark.parametrize("style", ["queue", "thread", "per_lane", "inline"])
@pytest.mark.parametrize("bad", BAD)
def test_flood_of_bad_messages_does_not_delay_an_exit(
    plain_rig: WebsocketsRig, bad: str, style: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The events before the exit are bounded, whatever the flood's length, and so are the lines of the log."""
    caplog.set_level(logging.INFO)
    before: list[str] = []
    arrived = threading.Event()

    def handle(event: StreamEvent) -> None:
        if event.type == "exit_signal_with_tx":
            arrived.set()
        elif not arrived.is_set():
            before.append(event.type)
            if style != "inline":
                time.sleep(SLOW_S)

    dispatch = style if style in ("per_lane", "inline") else "thread"
    with plain_rig.session(dispatch=dispatch) as session:
        consumers(style, session, handle)
        plain_rig.send(text(opened(7)) + b"".join(map(BAD[bad], range(FLOOD))) + text(exit_signal(7)))
        assert arrived.wait(PATIENCE_S)
        stats = session.stats()
        assert stats.decode_errors + stats.messages_received >= FLOOD
        told = before.count("decode_error")
        assert told <= 1024 + 64 * PATIENCE_S
        if "update" not in bad and "unknown" not in bad:
            assert told >= 1
            until(lambda: session.wait_for("decode_error", PATIENCE_S).message.count == FLOOD)
    assert len(caplog.records) < 200


@pytest.mark.parametrize("consumer", ["on_event", "queue"])
def test_flood_of_bad_messages_is_told_in_full_when_the_stream_is_closed(
    plain_rig: WebsocketsRig, consumer: str
) -> None:
    """Those that wait for the next event when ``close()`` comes are in one before ``closed``."""
    told: list[Any] = []
    stream: Any = (
        plain_rig.client(on_event=told.append).connect(plain_rig.configure())
        if consumer == "on_event"
        else plain_rig.session()
    )
    with stream:
        plain_rig.send(BAD["a field of another type"](0) * 500)
        until(lambda: stream.stats().decode_errors == 500)
    if consumer == "queue":
        told = [event.message for event in stream]
    assert [event.type for event in told][-2:] == ["decode_error", "closed"]
    assert sum(event.since_last for event in told if event.type == "decode_error") == 500


def test_flood_of_handler_errors_does_not_delay_an_exit(
    plain_rig: WebsocketsRig, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a handler that always raises some are told, with the number of all; others' events come as if it did not."""
    counts: list[tuple[int, int]] = []
    exited, done = threading.Event(), threading.Event()

    def on_error(event: StreamEvent) -> None:
        counts.append((event.message.count, event.message.since_last))
        time.sleep(SLOW_S)
        if event.message.count == 5_000:
            done.set()

    with plain_rig.session() as session:
        session.on("balance_update", lambda _: 1 / 0)
        session.on("handler_error", on_error)
        session.on("exit_signal_with_tx", lambda _: exited.set())
        session.start()
        balance = {"type": "balance_update", "wallet_pubkey": WALLET, "mint": "mint", "tokens": 1, "slot": 1}
        plain_rig.send(text(opened(7)) + text({**balance, "token_account": "x"}) * 5_000 + text(exit_signal(7)))
        assert exited.wait(PATIENCE_S)
        assert len(counts) <= 16 + PATIENCE_S
        assert done.wait(PATIENCE_S)
        assert sum(since for _, since in counts) == 5_000
    assert len(caplog.records) < 200


def test_flood_of_large_bad_frames_keeps_memory(plain_rig: WebsocketsRig) -> None:
    """Nobody takes the events; the raw bytes are in the ring of 4 MiB, and nowhere else."""
    with plain_rig.session() as session:
        before = rss_bytes()
        for _ in range(60):
            plain_rig.send(frame(0x2, bytes(3 * 2**20)))
            plain_rig.send(text({"type": "new", "x": "y" * 2**20}))
        until(lambda: session.stats().decode_errors == 60 and session.stats().unknown_messages == 60, 3 * PATIENCE_S)
        assert rss_bytes() - before < 64 * 2**20
        assert len(session.unparsed()) == 1
        events = [session.recv(0) for _ in range(session.events.qsize())]
        assert sum(len(e.message.raw) for e in events if e is not None and e.type == "decode_error") <= 4 * 2**20


@pytest.fixture
def chatty() -> Iterator[ScriptedServer]:
    """Talks before ``hello_ok``, and never says it."""

    def script(peer: Peer) -> None:
        peer.recv()
        for n in range(100):
            peer.send(json.dumps({"type": "new", "n": n, "x": "y" * 2**18}))
        peer.serve()

    with ScriptedServer(script) as server:
        yield server


def test_flood_before_hello_ok_ends_the_attempt(chatty: ScriptedServer) -> None:
    """Not after a number of messages alone, for each may be long."""
    before = rss_bytes()
    client = StreamClient(KEY, options=StreamOptions(connect_timeout_s=PATIENCE_S)).with_endpoint(chatty.url)
    with pytest.raises(Exception, match="no hello_ok among them"):
        StreamSession.connect(client, StreamConfigure([WALLET], STRATEGY))
    assert rss_bytes() - before < 32 * 2**20
