"""``lasersell-sync sandbox`` as a process: the ready line, what it serves, how it ends."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from websockets.sync.client import connect

from tests.support.processes import Program, command, in_this_process

FREE_PORTS = ("--stream-port", "0", "--api-port", "0", "--rpc-port", "0")


@pytest.fixture
def running() -> Iterator[tuple[Program, dict[str, object]]]:
    with command("sandbox", *FREE_PORTS, "--api-key", "a-key-of-mine", "--seed", "7") as program:
        yield program, json.loads(program.process.stdout.readline())


def test_the_ready_line_says_where_everything_is(running: tuple[Program, dict[str, object]]):
    """A script reads one line and can begin: every port answers by then."""
    _, ready = running
    assert list(ready) == ["stream_url", "api_url", "rpc_url", "rpc_urls", "api_key", "mints"]
    assert ready["api_key"] == "a-key-of-mine"
    assert ready["mints"]
    for name in ("stream_url", "api_url", "rpc_url"):
        host = urlsplit(str(ready[name]))
        socket.create_connection((host.hostname, host.port), timeout=10).close()
    connection = http.client.HTTPConnection(urlsplit(str(ready["api_url"])).netloc, timeout=10)
    connection.request("GET", "/healthz")
    assert json.loads(connection.getresponse().read()) == {"status": "ok"}
    connection.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_in_good_order(running: tuple[Program, dict[str, object]], number: signal.Signals):
    """Ctrl-C and a service manager's stop are normal ends: status 0, no traceback, nothing more on stdout."""
    program, ready = running
    code, stdout, stderr = program.stop(number)
    assert code == 0
    assert stdout == ""
    assert "Traceback" not in stderr
    # The help for people, with settings to paste.
    assert f"LASERSELL_STREAM_URL={ready['stream_url']}" in stderr


def test_the_same_seed_has_the_same_tokens(running: tuple[Program, dict[str, object]]):
    _, ready = running
    with command("sandbox", *FREE_PORTS, "--seed", "7") as other:
        assert json.loads(other.process.stdout.readline())["mints"] == ready["mints"]


def test_a_scenario_and_a_tier_are_taken():
    """The scenario's tokens trade, and the key has its tier's limits."""
    arguments = ("--scenario", "rug", "--tier", "0", "--speed", "50")
    with command("sandbox", *FREE_PORTS, *arguments) as program:
        ready = json.loads(program.process.stdout.readline())
        connection = http.client.HTTPConnection(urlsplit(str(ready["api_url"])).netloc, timeout=10)
        connection.request("GET", "/v1/account", headers={"x-api-key": "sandbox-key"})
        account = json.loads(connection.getresponse().read())
        connection.close()
        _, _, stderr = program.stop(signal.SIGINT)
    assert len(ready["mints"]) == 2
    assert (account["tier"], account["limits"]["max_positions_per_session"]) == (0, 2)
    assert "CARPET" in stderr


@pytest.mark.parametrize(("policy", "survivor"), [("refuse", "first"), ("replace", "second")])
def test_sandbox_session_policy_decides_which_session_keeps_the_key(policy: str, survivor: str):
    """``--session-policy refuse`` answers the second session with session_limit, ``replace`` ends the first one."""
    configure = {"type": "configure", "wallet_pubkeys": [], "strategy": {"target_profit_pct": 5, "stop_loss_pct": 5}}
    with command("sandbox", *FREE_PORTS, "--session-policy", policy) as program:
        url = str(json.loads(program.process.stdout.readline())["stream_url"])
        headers = {"x-api-key": "sandbox-key"}
        with connect(url, additional_headers=headers) as first, connect(url, additional_headers=headers) as second:
            first.send(json.dumps(configure))
            assert json.loads(first.recv(timeout=10))["type"] == "hello_ok"
            second.send(json.dumps(configure))
            loser = second if survivor == "first" else first
            refusal = json.loads(loser.recv(timeout=10))
            assert refusal["type"] == "error"
            assert refusal["code"] == {"refuse": "session_limit", "replace": "session_replaced"}[policy]


def test_a_scenarios_wallets_are_told():
    """Whoever wants to copy the whale must know its key; a long list is cut."""
    with command("sandbox", *FREE_PORTS, "--scenario", "mirror") as program:
        json.loads(program.process.stdout.readline())
        _, _, stderr = program.stop(signal.SIGINT)
    assert re.search(r"^  whale +[1-9A-HJ-NP-Za-km-z]{32,44}$", stderr, re.MULTILINE)
    with command("sandbox", *FREE_PORTS, "--scenario", "flood") as program:
        json.loads(program.process.stdout.readline())
        _, _, stderr = program.stop(signal.SIGINT)
    assert "... and 80 more" in stderr
    assert "... and 180 more" in stderr


@pytest.mark.parametrize(
    ("option", "service"), [("--stream-port", "stream"), ("--api-port", "api"), ("--rpc-port", "rpc")]
)
def test_a_port_in_use_is_told_in_one_line(option: str, service: str):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with command("sandbox", *FREE_PORTS, option, port) as program:
            code, stdout, stderr = program.end()
    assert code == 1
    assert stdout == ""
    (line,) = stderr.splitlines()
    assert service in line
    assert port in line


@pytest.mark.parametrize(
    "arguments",
    [
        ("--stream-port", "65536"),
        ("--speed", "0"),
        ("--speed", "nan"),
        ("--tier", "4"),
        ("--scenario", "no-such-story"),
        ("--session-policy", "share"),
        ("--seed", "x"),
        ("--api-key", "a\nb"),
        ("--port", "1"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments: tuple[str, str]):
    done = in_this_process("sandbox", *FREE_PORTS, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Error: " in done.stderr
