"""``lasersell-sync replay`` and ``sandbox --web`` as processes."""

from __future__ import annotations

import gzip
import json
import signal
import socket
import urllib.request
from pathlib import Path

import pytest

from lasersell_sync import StrategyConfig, StreamClient, StreamConfigure, StreamSession
from tests.support.processes import PATIENCE_S, command, in_this_process
from tests.support.stream_server import WALLET, hello, opened

FREE_PORTS = ("--stream-port", "0", "--api-port", "0", "--rpc-port", "0")


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "session.jsonl.gz"
    lines = [{"format": "lasersell-recording", "version": 1}]
    lines += [
        {"at_us": at_us, "frame": json.dumps(frame)} for at_us, frame in [(0, hello()), (3_600_000_000, opened())]
    ]
    path.write_bytes(gzip.compress("".join(json.dumps(line) + "\n" for line in lines).encode()))
    return path


@pytest.mark.parametrize("pace", [("--fast",), ("--speed", "1000000")])
def test_a_recording_is_served_to_clients(recording: Path, pace: tuple[str, ...]) -> None:
    """One line says where; any key is taken; a signal ends it in good order."""
    with command("replay", str(recording), "--port", "0", *pace) as program:
        ready = json.loads(program.process.stdout.readline())
        client = StreamClient("any").with_endpoint(ready["stream_url"])
        configure = StreamConfigure([WALLET], StrategyConfig(target_profit_pct=5.0, stop_loss_pct=0.0))
        with StreamSession.connect(client, configure) as session:
            session.wait_for("position_opened", timeout=PATIENCE_S)
        code, stdout, stderr = program.stop(signal.SIGINT)
    assert (code, stdout) == (0, "")
    assert f"LASERSELL_STREAM_URL={ready['stream_url']}" in stderr
    assert "Traceback" not in stderr


def test_a_file_that_is_no_recording_is_told_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("hello")
    with command("replay", str(path), "--port", "0") as program:
        code, stdout, stderr = program.end()
    assert (code, stdout) == (1, "")
    (line,) = stderr.splitlines()
    assert "notes.txt" in line
    assert "gzip" in line


def test_a_port_in_use_is_told_in_one_line(recording: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with command("replay", str(recording), "--port", port) as program:
            code, _, stderr = program.end()
    assert code == 1
    (line,) = stderr.splitlines()
    assert port in line


@pytest.mark.parametrize("arguments", [("--speed", "0"), ("--speed", "nan"), ("--port", "65536"), ("--nonsense",)])
def test_arguments_that_make_no_sense_are_refused(recording: Path, arguments: tuple[str, ...]) -> None:
    done = in_this_process("replay", str(recording), "--port", "0", *arguments)
    assert done.returncode == 2
    assert "Error: " in done.stderr


def test_the_sandbox_shows_itself_in_a_browser() -> None:
    """``--web``: the ready line has the page's address, and the page answers."""
    with command("sandbox", *FREE_PORTS, "--web", "--web-port", "0") as program:
        ready = json.loads(program.process.stdout.readline())
        with urllib.request.urlopen(ready["web_url"], timeout=PATIENCE_S) as answer:
            assert b"LaserSell sandbox" in answer.read()
        code, _, stderr = program.stop(signal.SIGTERM)
    assert code == 0
    assert f"See it live: {ready['web_url']}" in stderr
    assert "Traceback" not in stderr


def test_a_page_whose_port_is_in_use_stops_the_sandbox_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with command("sandbox", *FREE_PORTS, "--web", "--web-port", port) as program:
            code, stdout, stderr = program.end()
    assert (code, stdout) == (1, "")
    (line,) = stderr.splitlines()
    assert "web" in line
    assert port in line
