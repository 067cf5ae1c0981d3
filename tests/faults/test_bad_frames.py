"""Frames that no good server sends: each is told by name, and the link is usable right after."""

from __future__ import annotations

import contextlib
import json
import time
from typing import Any

import pytest

from lasersell_sync import StreamSession
from tests.faults.rigs import Rig, at_s, drain, frame
from tests.support.stream_server import ACCOUNT, exit_signal, opened, pnl
from tests.support.waiting import PATIENCE_S, until

#: The promise; asserted twice as wide.
USABLE_AGAIN_S = 2.0
TEXT, BINARY, CLOSE, PING = 0x1, 0x2, 0x8, 0x9


def broken(message: dict[str, Any], **changes: Any) -> str:
    """The message's text with fields replaced, or left out (None)."""
    changed = {**message, **changes}
    return json.dumps({name: value for name, value in changed.items() if value is not None}, separators=(",", ":"))


#: Skipped and told; the link lives on.
SKIPPED: dict[str, str | bytes] = {
    "no JSON": "{",
    "nothing": "",
    "words": "hello there",
    "a list": "[]",
    "null": "null",
    "no type": '{"position_id":1}',
    "a number for a type": '{"type":7}',
    "wrong type": broken(pnl(), position_id="seven"),
    "a float for an integer": broken(pnl(), profit_units=1.5),
    "negative id": broken(pnl(), position_id=-1),
    "too big an id": broken(pnl(), position_id=2**64),
    "an endless number": '{"type":"pong","server_time_ms":' + "9" * 100_000 + "}",
    "missing field": broken(pnl(), proceeds_units=None),
    "deep nesting": "[" * 100_000,
    "deep nesting in a message": '{"type":"pong","server_time_ms":' + "[" * 100_000,
    "trailing bytes": broken(pnl()) + "x",
    "NaN": '{"type":"pong","server_time_ms":NaN}',
    "binary": frame(BINARY, broken(pnl()).encode()),
    "empty binary": frame(BINARY, b""),
}
#: Known by no version; delivered as they are.
UNKNOWN: dict[str, str | bytes] = {
    "unknown type": '{"type":"weather","sunny":true}',
    "empty type": '{"type":""}',
    "long type": '{"type":"' + "x" * 10_000 + '"}',
}
#: Breaks of RFC 6455 or of our limits: the link cannot be trusted, and a new one is made.
FATAL: dict[str, bytes] = {
    "20 MiB frame": frame(TEXT, b"x" * 20 * 2**20),
    "20 MiB announced": frame(TEXT, b"x" * 20 * 2**20)[:10],
    "2**63 bytes announced": b"\x81\x7f" + b"\xff" * 8,
    "20 MiB in pieces": frame(TEXT, b"x" * 2**20, final=False) + frame(0, b"x" * 2**20, final=False) * 19,
    "reserved bits": b"\xf1\x01x",
    "reserved opcode": frame(0x3, b"x"),
    "masked": b"\x81\x81abcd\x00",
    "long ping": frame(PING, b"x" * 126),
    "continuation of nothing": frame(0, b"x"),
    "close with one byte": frame(CLOSE, b"\x03"),
    "close code 1005": frame(CLOSE, (1005).to_bytes(2, "big")),
    "close reason that is no text": frame(CLOSE, b"\x03\xe8\xff\xfe"),
}
#: Both answers are right (RFC 6455 wants 1007; skipping loses less): it must be told.
EITHER: dict[str, bytes] = {
    "invalid UTF-8": frame(TEXT, b'{"type":"\xff\xfe"}'),
    "overlong UTF-8": frame(TEXT, b'{"type":"\xc0\xaf"}'),
    "surrogate in UTF-8": frame(TEXT, b'{"type":"\xed\xa0\x80"}'),
}
CASES = {**SKIPPED, **UNKNOWN, **FATAL, **EITHER}


def inflict(rig: Rig, bad: str | bytes) -> None:
    """The client may end the link before all of it is sent."""
    with contextlib.suppress(OSError, Exception):
        rig.send(bad)


def usable(rig: Rig, session: StreamSession, told_at: float) -> None:
    """A message of now arrives on whatever link there is, in time."""
    until(lambda: session.status.value == "live" and rig.sessions == session.stats().sessions)
    rig.send(opened(99, account="after"))
    after = session.wait_for(
        lambda event: event.type == "position_opened" and event.handle.position_id == 99, PATIENCE_S
    )
    assert at_s(after) - told_at <= 2 * USABLE_AGAIN_S


@pytest.mark.parametrize("case", CASES)
def test_a_bad_frame_is_told_and_the_link_usable_soon(rig: Rig, case: str) -> None:
    """Each bad frame leads to its own event, no exception anywhere, and a working link within 2 s."""
    with rig.session() as session:
        inflict(rig, CASES[case])
        if case in UNKNOWN:
            # Low lane: wait_for would see it only from its call on, which may be too late.
            until(lambda: session.stats().unknown_messages == 1)
            usable(rig, session, time.monotonic())
            return
        told = session.wait_for(lambda e: e.type in ("decode_error", "disconnected"), PATIENCE_S)
        if case in SKIPPED:
            assert told.type == "decode_error"
            assert told.message.reason
            assert session.stats().decode_errors == 1
        elif case in FATAL:
            assert told.type == "disconnected"
            assert told.message.reason
        else:
            assert told.type in ("decode_error", "disconnected")
        usable(rig, session, at_s(told))
        assert session.stats().sessions == (2 if told.type == "disconnected" else 1)


def test_a_thousand_bad_frames_are_all_counted(rig: Rig) -> None:
    """None is skipped silently, memory for them is bounded, and good messages between them arrive."""
    with rig.session() as session:
        for n in range(1000):
            rig.send("{" + "x" * 1000)
            if n % 100 == 0:
                rig.send(opened(n + 1, account=f"account-{n}"))
        rig.send({"type": "error", "code": "fence", "message": "."})
        session.wait_for(lambda event: event.type == "error" and event.message.code == "fence", PATIENCE_S)
        assert session.stats().decode_errors == 1000
        assert len(session.positions()) == 10
        kinds = [event.type for event in drain(session)]
        assert kinds.count("decode_error") == 1000


@pytest.mark.parametrize("damage", [{"unsigned_tx_b64": None}, {"profit_units": "much"}, {"position_tokens": -5}])
def test_an_unreadable_exit_signal_is_asked_for_again(rig: Rig, damage: dict[str, Any]) -> None:
    """When type and position can still be read, the session asks for that position's exit instead of losing it."""
    with rig.session() as session:
        rig.send(opened(7))
        session.wait_for("position_opened", PATIENCE_S)
        rig.send(broken(exit_signal(7), **damage))
        assert session.wait_for("decode_error", PATIENCE_S).message.raw
        until(lambda: [c for c in rig.commands() if c["type"] == "request_exit_signal"])
        asked = rig.commands()[-1]
        assert asked.get("token_account") == ACCOUNT or asked.get("position_id") == 7
