"""The replay server alone, with a client someone else wrote."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from lasersell_sync.sandbox.servers import replay_server
from lasersell_sync.sandbox.servers.replay_server import LINK_LOST, ReplayServer, TimedFrame
from tests.sandbox.players import PATIENCE_S, receive

CONFIGURE = json.dumps({"type": "configure", "wallet_pubkeys": ["1" * 32], "strategy": {}})


def hello(number: int, server_time_ms: int = 5_000_000) -> str:
    return json.dumps({"type": "hello_ok", "session_id": number, "server_time_ms": server_time_ms, "limits": {}})


def tick(number: int) -> str:
    return json.dumps({"type": "trade_tick", "position_id": number})


ONE_LINK = [(0, hello(1)), (1_000, tick(1)), (2_000, '{"type":"pong","server_time_ms":1}'), (3_000, tick(2))]
TWO_LINKS = [*ONE_LINK, (4_000, hello(2)), (9_000_000, tick(3))]


def join(server: ReplayServer, key: str = "key") -> ClientConnection:
    """A client that has sent ``configure``."""
    client = connect(server.stream_url, additional_headers={"x-api-key": key}, proxy=None, close_timeout=1)
    client.send(CONFIGURE)
    return client


def texts(client: ClientConnection, count: int) -> list[str]:
    return [str(client.recv(timeout=PATIENCE_S)) for _ in range(count)]


def lost(client: ClientConnection) -> int | None:
    """The close code with which the server ends the connection."""
    with pytest.raises(ConnectionClosed) as caught:
        client.recv(timeout=PATIENCE_S)
    assert caught.value.rcvd is not None
    return caught.value.rcvd.code


def finished(server: ReplayServer) -> bool:
    """Wait for the end of the recording."""
    event = threading.Event()
    server.when_finished(event.set)
    return event.wait(PATIENCE_S)


@pytest.fixture
def fast() -> Iterator[ReplayServer]:
    with ReplayServer(lambda: ONE_LINK, port=0, speed=None) as server:
        yield server


def test_frames_come_as_they_were_recorded(fast: ReplayServer) -> None:
    """Byte for byte and in order, but for the answers to pings that nobody sends now."""
    with join(fast) as client:
        assert texts(client, 3) == [hello(1), tick(1), tick(2)]
        # Reading goes on, or the server's last question would stay unanswered.
        assert finished(fast)


def test_nothing_comes_before_configure() -> None:
    """As on the live server; what is said afterwards changes nothing."""
    with (
        # It stays open: the client may still be speaking when the last frame has come.
        ReplayServer(lambda: ONE_LINK, port=0, speed=None, close_at_end=False) as server,
        connect(server.stream_url, proxy=None, close_timeout=1) as client,
    ):
        with pytest.raises(TimeoutError):
            client.recv(timeout=0.05)
        client.send(CONFIGURE)
        client.send('{"type":"sell_now","position_id":1}')
        client.send("not json")
        assert texts(client, 3) == [hello(1), tick(1), tick(2)]


def test_two_clients_get_it_each_from_the_beginning(fast: ReplayServer) -> None:
    with join(fast, "one") as one, join(fast, "two") as two:
        assert texts(one, 3) == texts(two, 3)


def test_a_lost_link_is_lost_again_and_goes_on_for_the_same_key() -> None:
    """The second ``hello_ok`` is another connection's first frame; another key begins at the beginning."""
    with ReplayServer(lambda: TWO_LINKS, port=0, speed=None) as server:
        with join(server) as client:
            assert texts(client, 3) == [hello(1), tick(1), tick(2)]
            assert lost(client) == LINK_LOST
        with join(server, "another") as client:
            assert texts(client, 1) == [hello(1)]
        with join(server) as client:
            assert texts(client, 2) == [hello(2), tick(3)]
            assert finished(server)
        with join(server, "third") as client:
            assert texts(client, 1) == [hello(1)]


def test_replay_server_end_closes_the_connection_and_says_why() -> None:
    """A client that comes back by itself is closed again; after a while away, or with another key, it plays anew."""
    ends: list[int] = []
    with ReplayServer(lambda: ONE_LINK, port=0, speed=None, on_end=lambda: ends.append(1)) as server:
        for key in ("one", "two"):
            with join(server, key) as client:
                assert texts(client, 3) == [hello(1), tick(1), tick(2)]
                with pytest.raises(ConnectionClosed) as caught:
                    client.recv(timeout=PATIENCE_S)
                assert caught.value.rcvd is not None
                assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (1000, "the recording is over")
        assert ends == [1, 1]
        for _ in range(3):
            with join(server, "one") as client:
                assert lost(client) == 1000
        assert ends == [1, 1]


def test_replay_server_key_that_stayed_away_is_played_to_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay_server, "AGAIN_AFTER_S", 0.0)
    with ReplayServer(lambda: ONE_LINK, port=0, speed=None) as server:
        for _ in range(2):
            with join(server) as client:
                assert texts(client, 3) == [hello(1), tick(1), tick(2)]
                assert lost(client) == 1000


def test_replay_server_in_step_sends_nothing_before_the_last_frame_was_read() -> None:
    """The client reads when it answers pings; this one answers none until it is told to."""
    with (
        ReplayServer(lambda: ONE_LINK, port=0, speed=None, in_step=True) as server,
        socket.create_connection(("127.0.0.1", int(server.stream_url.split(":")[2].split("/")[0]))) as sock,
    ):
        key = b"GET /v1/ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        sock.sendall(key + b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n")
        with sock.makefile("rb") as reader:
            while reader.readline() != b"\r\n":
                pass
            payload = CONFIGURE.encode()
            sock.sendall(bytes([0x81, 0x80 | len(payload)]) + bytes(4) + payload)
            opcodes = []
            sock.settimeout(PATIENCE_S)
            for _ in range(3):
                for expected in (0x81, 0x89):
                    head = reader.read(2)
                    assert head[0] == expected
                    size = head[1] if head[1] < 126 else int.from_bytes(reader.read(2), "big")
                    body = reader.read(size)
                    opcodes.append(head[0])
                # Nothing follows the ping.
                sock.settimeout(0.05)
                with pytest.raises(TimeoutError):
                    sock.recv(1, socket.MSG_PEEK)
                sock.settimeout(PATIENCE_S)
                sock.sendall(bytes([0x8A, 0x80 | len(body)]) + bytes(4) + body)
            assert opcodes == [0x81, 0x89] * 3


def test_the_pace_is_that_of_the_recording_times_speed() -> None:
    """Half a recorded second at double speed: a slow machine may take longer, none may be faster."""
    frames = [(7_000_000, hello(1)), (7_250_000, tick(1)), (7_500_000, tick(2))]
    begun_s = time.monotonic()
    with ReplayServer(lambda: frames, port=0, speed=2.0) as server, join(server) as client:
        texts(client, 3)
        assert 0.25 <= time.monotonic() - begun_s < PATIENCE_S


def test_an_hour_passes_in_an_instant() -> None:
    frames = [(0, hello(1)), (3_600_000_000, tick(1))]
    with ReplayServer(lambda: frames, port=0, speed=1e6) as server, join(server) as client:
        assert texts(client, 2) == [hello(1), tick(1)]


def test_pings_are_answered_in_the_recordings_time_while_it_waits() -> None:
    """A quiet hour in a recording is not a dead server."""
    frames = [(0, hello(1, server_time_ms=1_000)), (3_600_000_000, tick(1))]
    with ReplayServer(lambda: frames, port=0, speed=1.0) as server, join(server) as client:
        texts(client, 1)
        client.send('{"type":"ping","client_time_ms":1}')
        pong: dict[str, Any] = receive(client, "pong")
        assert 1_000 <= pong["server_time_ms"] < 1_000 + PATIENCE_S * 1000


def test_it_stops_in_the_middle_of_a_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hour that a client waits for its next frame is no hour for whoever stops the server."""
    monkeypatch.setattr(replay_server, "_STOP_TIMEOUT_S", PATIENCE_S)
    begun_s = time.monotonic()
    with ReplayServer(lambda: [(0, hello(1)), (3_600_000_000, tick(1))], port=0) as server:
        client = join(server)
        texts(client, 1)
        server.stop()
        lost(client)
    assert time.monotonic() - begun_s < PATIENCE_S
    server.stop()


def test_a_key_is_asked_for_when_there_is_one() -> None:
    with ReplayServer(lambda: ONE_LINK, api_key="right", port=0, speed=None) as server:
        with pytest.raises(InvalidStatus, match="401"):
            join(server, "wrong")
        with join(server, "right") as client:
            assert texts(client, 1) == [hello(1)]


def test_another_path_is_not_found(fast: ReplayServer) -> None:
    with pytest.raises(InvalidStatus, match="404"):
        connect(fast.stream_url + "/other", proxy=None)


def test_frames_that_cannot_be_read_end_it_with_their_error() -> None:
    """Whoever waits for the end hears of it, and the error says why."""

    def broken() -> Iterator[TimedFrame]:
        yield 0, hello(1)
        raise ValueError("line 2 is damaged")

    with ReplayServer(broken, port=0, speed=None) as server, join(server) as client:
        assert texts(client, 1) == [hello(1)]
        assert finished(server)
        assert str(server.error) == "line 2 is damaged"


def test_who_asks_after_the_end_is_told_at_once(fast: ReplayServer) -> None:
    with join(fast) as client:
        texts(client, 3)
        assert finished(fast)
        assert finished(fast)


@pytest.mark.parametrize("speed", [0, -1.0, float("nan"), float("inf"), True, "2"])
def test_a_speed_that_makes_no_sense_is_named(speed: Any) -> None:
    with pytest.raises(ValueError, match=r"speed must be a number above 0.*not"):
        ReplayServer(lambda: ONE_LINK, port=0, speed=speed)


def test_the_url_is_known_once_it_runs() -> None:
    server = ReplayServer(lambda: ONE_LINK, port=0)
    with pytest.raises(RuntimeError, match="started"):
        _ = server.stream_url
    server.stop()
