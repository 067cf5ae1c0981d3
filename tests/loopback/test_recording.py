"""A session recorded, and the recording replayed: through a server written by someone else, and back."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lasersell_sync import (
    ConcurrencyError,
    ConfigurationError,
    HelloOk,
    StrategyConfig,
    StreamClient,
    StreamClosed,
    StreamConfigure,
    StreamEvent,
    StreamOptions,
    StreamSession,
    TransportError,
)
from lasersell_sync import recording as recording_module
from lasersell_sync.recording import Recorder, Recording, RecordingError, replay
from tests.support.processes import IMPORT_ROOT, PATIENCE_S
from tests.support.stream_server import ACCOUNT, WALLET, Peer, ScriptedServer, closed, exit_signal, hello, opened, pnl
from tests.support.waiting import until

API_KEY = "key-that-must-not-be-found"
CONFIGURE = StreamConfigure([WALLET], StrategyConfig(target_profit_pct=5.0, stop_loss_pct=10.0))

FRAMES = [
    hello(),
    opened(7),
    pnl(7, profit_units=2**53 + 1),
    {"type": "from_the_future", "note": 'quotes " and \\ and ünïcode \u2028'},
    "not json at all",
    exit_signal(7),
    closed(7),
]


def text_of(frame: dict[str, Any] | str) -> str:
    return json.dumps(frame, separators=(",", ":"), ensure_ascii=False) if isinstance(frame, dict) else frame


def say(*frames: dict[str, Any] | str) -> Any:
    """A script: take ``configure``, send these, record what comes."""

    def script(peer: Peer) -> None:
        peer.recv()
        for frame in frames:
            peer.connection.send(text_of(frame))
        peer.serve()

    return script


def client_of(server: ScriptedServer, options: StreamOptions | None = None) -> StreamClient:
    return StreamClient(API_KEY, options=options).with_endpoint(server.url)


def record(path: Path, *frames: dict[str, Any] | str) -> None:
    """A recording of a session that received these."""
    with (
        ScriptedServer(say(*frames)) as server,
        Recorder(path) as recorder,
        StreamSession.connect(recorder.wrap(client_of(server)), CONFIGURE),
    ):
        until(lambda: recorder.frames_written == len(frames))


def lines_of(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="ascii") as file:
        return [json.loads(line) for line in file]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "session.jsonl.gz"


# ── recording ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_frame_is_in_the_file_as_it_came(path: Path) -> None:
    """From the very first, readable or not, with times that grow; a text file to anyone with gzip."""
    record(path, *FRAMES)
    header, *lines = lines_of(path)
    assert (header["format"], header["version"]) == ("lasersell-recording", 1)
    assert [line["frame"] for line in lines] == [text_of(frame) for frame in FRAMES]
    times = [line["at_us"] for line in lines]
    assert times[0] == 0
    assert times == sorted(times)


def test_times_are_those_at_which_the_frames_were_read(path: Path) -> None:
    """Microseconds since the first, however late the disk gets them."""
    with Recorder(path) as recorder:
        recorder._take(b"{}", 7_000_000_000)
        recorder._take(b"{}", 7_002_500_999)
    assert [frame.at_us for frame in Recording(path).frames()] == [0, 2500]


def test_what_was_written_is_what_is_read(path: Path) -> None:
    record(path, *FRAMES)
    recording = Recording(path)
    frames = list(recording.frames())
    assert [frame.payload.decode() for frame in frames] == [text_of(frame) for frame in FRAMES]
    assert isinstance(frames[0].message(), HelloOk)
    assert recording.started_at_ms <= time.time() * 1000


def test_the_consumer_beside_it_notices_nothing(path: Path) -> None:
    """The session delivers the same with and without a recorder."""
    kinds = []
    for recorded in (False, True):
        with ScriptedServer(say(*FRAMES)) as server, contextlib.ExitStack() as stack:
            client = client_of(server)
            if recorded:
                client = stack.enter_context(Recorder(path)).wrap(client)
            with StreamSession.connect(client, CONFIGURE) as session:
                session.wait_for("position_closed", timeout=PATIENCE_S)
            kinds.append([event.type for event in session])
    assert kinds[0] == kinds[1]


def test_secrets_are_not_in_the_file(path: Path) -> None:
    """Neither the key, even when the server quotes it, nor anything the client sent; and only its owner may read it."""
    record(path, hello(), {"type": "error", "code": "bad_message", "message": f"{API_KEY} may not do that"})
    content = gzip.decompress(path.read_bytes()).decode()
    assert API_KEY not in content
    assert "[redacted] may not do that" in content
    assert "configure" not in content
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_session_that_runs_already_is_recorded_from_now_on(path: Path) -> None:
    """With its ``hello_ok``, so that the recording can be replayed."""
    more = threading.Event()

    def script(peer: Peer) -> None:
        peer.greet()
        assert more.wait(PATIENCE_S)
        peer.send(opened(7))
        peer.serve()

    with ScriptedServer(script) as server, StreamSession.connect(client_of(server), CONFIGURE) as session:
        with Recorder(path) as recorder:
            recorder.attach(session)
            more.set()
            session.wait_for("position_opened", timeout=PATIENCE_S)
            until(lambda: recorder.frames_written == 2)
        # After close nothing is added, and the session goes on.
        server.peer().send(closed(7))
        session.wait_for("position_closed", timeout=PATIENCE_S)
    assert [json.loads(frame.payload)["type"] for frame in Recording(path).frames()] == ["hello_ok", "position_opened"]
    with replay(path) as replayed:
        replayed.wait_for("position_opened", timeout=PATIENCE_S)


def test_a_recording_is_never_written_over_a_file(path: Path) -> None:
    path.write_text("precious")
    with pytest.raises(ConfigurationError, match="exists already"):
        Recorder(path)
    assert path.read_text() == "precious"
    with pytest.raises(ConfigurationError, match="No such file"):
        Recorder(path.parent / "nowhere" / "file")


def test_one_recorder_one_living_connection(path: Path) -> None:
    """A failed attempt does not count; a second living one does, and so does a closed recorder."""
    with ScriptedServer() as server, Recorder(path) as recorder:
        with pytest.raises(TransportError):
            StreamSession.connect(
                recorder.wrap(StreamClient(API_KEY).with_endpoint("ws://127.0.0.1:1/v1/ws")), CONFIGURE
            )
        with StreamSession.connect(recorder.wrap(client_of(server)), CONFIGURE):
            with (
                StreamSession.connect(StreamClient("other").with_endpoint(server.url), CONFIGURE) as other,
                pytest.raises(ConcurrencyError, match="a connection already"),
            ):
                recorder.attach(other)
            recorder.close()
            recorder.close()
        with pytest.raises(ConcurrencyError, match="is closed"):
            recorder.wrap(client_of(server)).prepare(CONFIGURE)


def test_the_wrapped_client_is_like_the_other(path: Path) -> None:
    """Key, endpoint and options; the original records nothing."""
    with ScriptedServer() as server, Recorder(path) as recorder:
        client = client_of(server, StreamOptions(low_lane="lossless"))
        wrapped = recorder.wrap(client)
        assert wrapped.endpoint == client.endpoint
        with StreamSession.connect(wrapped, CONFIGURE):
            until(lambda: recorder.frames_written == 1)
            assert server.peer().headers["x-api-key"] == API_KEY
        with StreamSession.connect(client, CONFIGURE) as plain:
            assert plain.session_id == 2
        assert recorder.frames_written == 1


def test_a_broken_disk_ends_the_recording_and_not_the_session(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told in the log, in ``error``, and by ``close``; what follows is counted as dropped."""
    with ScriptedServer(say(hello(), opened(7))) as server:
        recorder = Recorder(path)

        def full(file: object, data: bytes) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(recording_module._LineFile, "_put", full)
        # A flush after each batch, so that the disk is asked at once.
        monkeypatch.setattr(recording_module, "FLUSH_INTERVAL_S", 0.0)
        with StreamSession.connect(recorder.wrap(client_of(server)), CONFIGURE) as session:
            session.wait_for("position_opened", timeout=PATIENCE_S)
            until(lambda: recorder.error is not None)
            server.peer().send(closed(7))
            session.wait_for("position_closed", timeout=PATIENCE_S)
            until(lambda: recorder.frames_dropped > 0)
            with pytest.raises(OSError, match="No space left"):
                recorder.close()
            assert session.health().ok
        assert recorder.frames_written == 0


def test_a_disk_that_is_too_slow_costs_frames_of_the_recording_only(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits is bounded; the reader never waits for the writer."""
    monkeypatch.setattr(recording_module, "MAX_WAITING_BYTES", 200)
    go_on = threading.Event()
    real_line = Recorder._line

    def slow(recorder: Recorder, *frame: Any) -> bytes:
        assert go_on.wait(PATIENCE_S)
        return real_line(recorder, *frame)

    with ScriptedServer(say(hello(), *[pnl(7, profit_units=n) for n in range(50)], opened(7))) as server:
        recorder = Recorder(path)
        monkeypatch.setattr(Recorder, "_line", slow)
        with StreamSession.connect(recorder.wrap(client_of(server)), CONFIGURE) as session:
            session.wait_for("position_opened", timeout=PATIENCE_S)
        go_on.set()
        recorder.close()
    assert recorder.frames_dropped > 0
    assert recorder.frames_written + recorder.frames_dropped == 52
    assert len(list(Recording(path).frames())) == recorder.frames_written


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_file_that_was_cut_is_read_to_where_it_was_cut(
    path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Anywhere: whole lines, in order, and a warning, or, where not even the header is left, that error."""
    record(path, *FRAMES)
    whole, content = [frame.payload for frame in Recording(path).frames()], path.read_bytes()
    cut = tmp_path / "cut.jsonl.gz"
    for length in range(len(content) - 1, 40, -7):
        cut.write_bytes(content[:length])
        frames = readable(cut)
        assert frames == whole[: len(frames)]
    assert "was not closed" in caplog.text


def test_a_killed_program_leaves_a_readable_file(path: Path) -> None:
    """All but the last second of it: the writer flushes while frames come, and when they stop."""
    program = """
import sys, threading
from lasersell_sync import *
from lasersell_sync.recording import Recorder
recorder = Recorder(sys.argv[2])
client = recorder.wrap(StreamClient("key").with_endpoint(sys.argv[1]))
session = StreamSession.connect(client, StreamConfigure([sys.argv[3]], StrategyConfig(target_profit_pct=5, stop_loss_pct=0)))
session.wait_for("position_opened", timeout=60)
print("ready", flush=True)
threading.Event().wait()
"""
    with ScriptedServer(say(hello(), opened(7))) as server:
        environ = {**os.environ, "PYTHONPATH": str(IMPORT_ROOT)}
        child = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", program, server.url, str(path), WALLET],
            stdout=subprocess.PIPE, text=True, env=environ,
        )  # fmt: skip
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
            until(lambda: path.stat().st_size > 0 and len(readable(path)) == 2, PATIENCE_S)
        finally:
            child.kill()
            child.communicate()
    assert [json.loads(text)["type"] for text in readable(path)] == ["hello_ok", "position_opened"]


def readable(path: Path) -> list[bytes]:
    """Its frames; none as long as not even the header is there."""
    try:
        recording = Recording(path)
    except RecordingError:
        return []
    return [frame.payload for frame in recording.frames()]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "it is not a recording"),
        (b'{"format":"something else"}\n', "it is not a recording"),
        (b'{"format":"lasersell-recording","version":2}\n', "version 2"),
        (b'{"format":"lasersell-recording","version":1}\nnonsense\n', "line 2: it is not JSON"),
        (b'{"format":"lasersell-recording","version":1}\n[]\n', "line 2: it is not a JSON object"),
        (b'{"format":"lasersell-recording","version":1}\n{"at_us":"x","frame":""}\n', "line 2: it needs at_us"),
        (b'{"format":"lasersell-recording","version":1}\n{"at_us":1}\n', "line 2: it needs at_us"),
    ],
)
def test_a_damaged_file_is_told_with_its_line(path: Path, content: bytes, problem: str) -> None:
    path.write_bytes(gzip.compress(content))
    with pytest.raises(RecordingError, match=problem) as caught:
        list(Recording(path).frames())
    assert str(path) in str(caught.value)


def test_a_file_that_is_not_gzip_is_told(path: Path) -> None:
    path.write_text("hello")
    with pytest.raises(RecordingError, match="no whole gzip file"):
        Recording(path)


# ── replaying ────────────────────────────────────────────────────────────────────────────────────────────────────


def collected(session: StreamSession, done: Callable[[list[tuple[str, str]]], object]) -> list[tuple[str, str]]:
    """What handlers were told once ``done``; sorted, because what came before ``start`` comes in lanes."""
    events: list[tuple[str, str]] = []
    session.on("*", lambda event: events.append((event.type, str(event.message))))
    session.start()
    until(lambda: done(events), PATIENCE_S)
    return sorted(event for event in events if event[0] not in ("connected", "closed"))


def test_a_replayed_session_tells_what_the_live_one_told(path: Path) -> None:
    """The same events with the same messages, the unknown and the unreadable ones among them."""
    # Without the close, after which prices that nobody has taken yet are not told.
    frames = FRAMES[:-1]
    record(path, *frames)
    with ScriptedServer(say(*frames)) as server:
        client = client_of(server, StreamOptions(low_lane="lossless"))
        with StreamSession.connect(client, CONFIGURE, dispatch="inline") as session:
            live = collected(session, lambda events: len(events) == len(frames) + 1)
    with replay(path, dispatch="inline") as session:
        assert collected(session, lambda events: "closed" in [kind for kind, _ in events]) == live
    assert [kind for kind, _ in live] == [
        "decode_error",
        "exit_signal_with_tx",
        "hello_ok",
        "pnl_update",
        "position_opened",
        "unknown",
    ]


def test_a_replay_ends_by_itself(path: Path) -> None:
    """A loop over it is over after the last frame, whatever way it is consumed."""
    record(path, hello(), opened(7), exit_signal(7))
    with replay(path) as session:
        assert [event.type for event in session] == [
            "connected",
            "hello_ok",
            "position_opened",
            "exit_signal_with_tx",
            "closed",
        ]
        assert [handle.token_account for handle in session.positions()] == [ACCOUNT]
    handled: list[str] = []
    with replay(path) as session:
        session.on("exit_signal_with_tx", lambda event: handled.append(event.message.reason))
        session.run()
    assert handled == ["target_profit"]


def test_a_lost_link_is_replayed_as_one(path: Path) -> None:
    """``disconnected``, ``reconnecting``, ``connected``: the bot's own reconnection code is exercised."""

    def script(peer: Peer) -> None:
        peer.greet()
        peer.send(opened(7 if peer.number == 1 else 8))
        if peer.number == 1:
            peer.abort()
        else:
            peer.serve()

    with (
        ScriptedServer(script) as server,
        Recorder(path) as recorder,
        StreamSession.connect(recorder.wrap(client_of(server)), CONFIGURE),
    ):
        until(lambda: recorder.frames_written == 4)
    with replay(path) as session:
        kinds = [event.type for event in session]
    assert [kind for kind in kinds if kind in ("connected", "disconnected", "position_opened")] == [
        "connected",
        "position_opened",
        "disconnected",
        "connected",
        "position_opened",
    ]


def test_the_speed_is_that_of_the_recording_or_a_multiple(path: Path) -> None:
    """A quiet half second takes half a second at speed 1, and next to nothing otherwise."""
    frames = [(0, hello()), (500_000, opened(7))]
    write_recording(path, frames)
    begun_s = time.monotonic()
    with replay(path, speed=1.0) as session:
        list(session)
    assert time.monotonic() - begun_s >= 0.5
    write_recording(path, [(0, hello()), (3_600_000_000, opened(7))])
    begun_s = time.monotonic()
    with replay(path, speed=1e6) as session:
        list(session)
    with replay(path) as session:
        list(session)
    assert time.monotonic() - begun_s < PATIENCE_S


def write_recording(path: Path, frames: list[tuple[int, dict[str, Any]]]) -> None:
    lines: list[dict[str, Any]] = [{"format": "lasersell-recording", "version": 1}]
    lines += [{"at_us": at_us, "frame": text_of(frame)} for at_us, frame in frames]
    path.write_bytes(gzip.compress("".join(json.dumps(line) + "\n" for line in lines).encode()))


def test_a_replay_that_is_left_early_ends_at_once(path: Path) -> None:
    write_recording(path, [(0, hello()), (3_600_000_000, opened(7))])
    begun_s = time.monotonic()
    with replay(path, speed=1.0):
        pass
    assert time.monotonic() - begun_s < PATIENCE_S


def test_damage_further_on_is_told_at_the_end(path: Path) -> None:
    """What came before it was delivered, and the loop ends."""
    good = gzip.compress(
        b'{"format":"lasersell-recording","version":1}\n'
        + json.dumps({"at_us": 0, "frame": text_of(hello())}).encode()
        + b"\nnonsense\n"
    )
    path.write_bytes(good)
    kinds: list[str] = []
    with pytest.raises(RecordingError, match="line 3"), replay(path) as session:
        kinds += [event.type for event in session]
    assert kinds == ["connected", "hello_ok", "closed"]


def test_what_cannot_be_replayed_is_refused_before_anything_is_opened(path: Path) -> None:
    write_recording(path, [])
    with pytest.raises(RecordingError, match="holds no frame"), replay(path):
        pass
    write_recording(path, [(0, hello())])
    with pytest.raises(ConfigurationError, match="speed"), replay(path, speed=0):
        pass
    with pytest.raises(FileNotFoundError), replay(path.parent / "none"):
        pass


def trades(prices: int) -> list[tuple[int, dict[str, Any]]]:
    """Two positions, one after the other: prices, an exit in their middle, and a close."""
    frames = [hello()]
    for position in (1, 2):
        account = f"account-{position}"
        frames.append(opened(position, account=account))
        for number in range(prices):
            frames.append(pnl(position, profit_units=number))
            if number == prices // 2:
                frames.append(exit_signal(position, account=account, triggered_at_ms=number))
        frames.append(closed(position, account=account))
    return [(number * 10, message) for number, message in enumerate(frames)]


def kinds(frames: list[tuple[int, dict[str, Any]]]) -> list[str]:
    return [message["type"] for _, message in frames]


@pytest.mark.parametrize("speed", [None, 1.0, 100.0])
@pytest.mark.parametrize("style", ["recv", "queue", "batches", "thread", "per_lane", "inline", "run"])
def test_replay_keeps_the_order_of_the_recording(path: Path, style: str, speed: float | None) -> None:
    """At every speed, in every way to consume, with a consumer that is slower than the frames: all 48 prices come."""
    frames = trades(24)
    write_recording(path, frames)
    seen: list[Any] = []
    dispatch: Any = style if style in ("per_lane", "inline") else "thread"

    def take(event: StreamEvent[Any]) -> None:
        seen.append(event)
        time.sleep(0.001)

    with replay(path, speed=speed, dispatch=dispatch) as session:
        if style == "recv":
            for event in session:
                take(event)
        elif style in ("queue", "batches"):
            with contextlib.suppress(StreamClosed):
                while True:
                    for event in session.events.get_batch(8) if style == "batches" else [session.events.get()]:
                        take(event)
        else:
            session.on("*", take)
            (session.run if style == "run" else session.start)()
            session.wait_for("closed", PATIENCE_S)
        until(lambda: seen and seen[-1].type == "closed")
    wire = [event for event in seen if event.type in kinds(frames)]
    assert [event.type for event in wire] == kinds(frames)
    profits = [event.message.profit_units for event in wire if event.type == "pnl_update"]
    assert profits == [*range(24), *range(24)]
    assert session.stats().dropped == session.stats().conflated == session.stats().high_dropped == 0


def test_replay_state_is_that_of_the_event_at_hand(path: Path) -> None:
    """A loop sees no position before its announcement and no price before its update."""
    write_recording(path, trades(24))
    with replay(path) as session:
        for event in session:
            if event.type == "pnl_update":
                assert event.handle is not None
                newest = session.pnl(event.handle)
                # The next frame may have been read already, and no more than that.
                assert newest is None or newest.profit_units - event.message.profit_units in (0, 1)
                assert len(session.positions()) <= 1


def test_replay_whatever_the_options_conflates_nothing(path: Path) -> None:
    write_recording(path, trades(24))
    with replay(path, options=StreamOptions(low_lane="conflate")) as session:
        events = list(session)
    assert sum(event.type == "pnl_update" for event in events) == 48


def test_replay_waits_for_its_consumer(path: Path) -> None:
    """However long a program takes until its loop begins."""
    write_recording(path, trades(24))
    with replay(path) as session:
        until(lambda: session.health().reading_stopped_seconds is not None)
        until(lambda: (session.health().reading_stopped_seconds or 0.0) > 1.5)
        assert sum(event.type == "pnl_update" for event in session) == 48


def test_replay_beside_a_tap_alone_goes_on(path: Path) -> None:
    """Nobody consumes, as beside an AutoSeller and ``wait_for``: every high-lane event is heard."""
    frames = trades(24)
    write_recording(path, frames)
    heard: list[str] = []
    with replay(path) as session:
        session.tap(lambda event: heard.append(event.type))
        session.wait_for("closed", PATIENCE_S)
    high = [kind for kind in kinds(frames) if kind != "pnl_update"]
    assert [kind for kind in heard if kind in kinds(frames)] == high


def test_many_frames_survive_the_round_trip(path: Path) -> None:
    """Thousands, as fast as the consumer takes them: each waits for the one before it, nothing is lost."""
    write_recording(path, [(0, hello()), (1, opened(7)), *[(n, pnl(7, profit_units=n)) for n in range(3_000)]])
    with replay(path) as session:
        profits = [event.message.profit_units for event in session if event.type == "pnl_update"]
    assert profits == list(range(3_000))


@pytest.fixture(autouse=True)
def _no_leftovers() -> Iterator[None]:
    """No thread of a recorder or a replay server outlives its test."""
    yield
    names = ("lasersell-recorder", "lasersell-sandbox-replay")
    until(lambda: not [thread for thread in threading.enumerate() if thread.name in names])
