"""The whole sandbox: its life cycle, its arguments, and stories told end to end over real sockets."""

from __future__ import annotations

import json
import logging
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest

from lasersell_sync.sandbox import Sandbox
from tests.sandbox.players import PATIENCE_S, Trader, receive, signed, strategy

FREE = {"stream_port": 0, "api_port": 0, "rpc_port": 0}


def mint_of(sandbox: Sandbox, market_type: str, price_path: str) -> str:
    found = [
        info.mint
        for info in sandbox.mint_info.values()
        if (info.market_type, info.price_path) == (market_type, price_path)
    ]
    return found[0]


@pytest.mark.parametrize(
    ("market_type", "price_path", "terms", "reason"),
    [
        ("pump_fun", "climb", strategy(target=20), "target_profit"),
        ("pump_swap", "climb", strategy(target=20, stop=50), "target_profit"),
        ("pump_fun", "fall", strategy(target=20, stop=15), "stop_loss"),
        ("pump_swap", "peak", strategy(trailing=12), "trailing_stop"),
    ],
)
def test_the_full_story(
    make_sandbox: Callable[..., Sandbox],
    make_trader: Callable[..., Trader],
    market_type: str,
    price_path: str,
    terms: dict[str, object],
    reason: str,
) -> None:
    """Buy, position, profit updates, exit signal, sign, send, landed, closed: with nothing but foreign clients."""
    sandbox = make_sandbox(speed=10)
    trader = make_trader(sandbox).register()
    ws = trader.stream(terms)
    mint = mint_of(sandbox, market_type, price_path)
    trader.buy(mint)
    opened = receive(ws, "position_opened")
    assert opened["mint"] == mint
    assert receive(ws, "pnl_update")["position_id"] == opened["position_id"]
    assert receive(ws, "trade_tick", "liquidity_snapshot")["position_id"] == opened["position_id"]
    signal = receive(ws, "exit_signal_with_tx")
    assert signal["reason"] == reason
    signature = trader.send(signed(signal["unsigned_tx_b64"], trader.wallet), skipPreflight=True, maxRetries=0)
    assert trader.landed(signature).err is None
    closed = receive(ws, "position_closed")
    assert (closed["position_id"], closed["reason"]) == (opened["position_id"], reason)
    assert sandbox.token_balance(trader.pubkey, mint) == 0
    won = sandbox.balance_lamports(trader.pubkey) > 10 * 10**9 - 10**7
    assert won == (reason != "stop_loss")


def test_same_seed_same_story(make_sandbox: Callable[..., Sandbox], make_trader: Callable[..., Trader]) -> None:
    """Two runs with one seed and the same actions see the same prices tick by tick and the same exit."""
    stories = []
    for seed in (3, 3, 4):
        sandbox = make_sandbox(seed=seed, speed=10)
        trader = make_trader(sandbox).register()
        ws = trader.stream(strategy(target=15))
        trader.buy(sandbox.mints[0])
        ticks: list[Any] = []
        while (message := receive(ws, "trade_tick", "exit_signal_with_tx"))["type"] == "trade_tick":
            ticks.append((message["side"], message["token_amount"], message["quote_amount"], message["price_quote"]))
        stories.append((message["reason"], message["profit_units"], ticks))
        sandbox.stop()
    assert stories[0] == stories[1]
    assert stories[0] != stories[2]


def test_a_position_survives_a_lost_connection(trader: Trader) -> None:
    """After an abrupt drop the next session is told of the same position, and can sell it."""
    ws = trader.stream()
    trader.buy(trader.sandbox.mints[1])
    opened = receive(ws, "position_opened")
    trader.sandbox.drop_connections()
    assert trader.sandbox.wait_for(lambda: not trader.sandbox.sessions(), PATIENCE_S)
    ws = trader.stream()
    assert receive(ws)["type"] == "balance_update"
    again = receive(ws)
    assert (again["type"], again["position_id"]) == ("position_opened", opened["position_id"])
    ws.send(json.dumps({"type": "request_exit_signal", "token_account": again["token_account"]}))
    signal = receive(ws, "exit_signal_with_tx")
    trader.send(signed(signal["unsigned_tx_b64"], trader.wallet))
    assert receive(ws, "position_closed")["reason"] == "manual_sell"


def test_hooks_show_and_move_the_market(trader: Trader) -> None:
    """force_exit and set_price_multiplier act on the market; positions, balances and transactions show it."""
    sandbox = trader.sandbox
    ws = trader.stream(strategy(stop=30))
    mint = mint_of(sandbox, "pump_swap", "climb")
    trader.landed(trader.buy(mint))
    (position,) = sandbox.positions()
    assert position.tokens == sandbox.token_balance(trader.pubkey, mint)
    sandbox.force_exit(position.position_id, "graduation")
    assert receive(ws, "exit_signal_with_tx")["reason"] == "graduation"
    sandbox.set_price_multiplier(mint, 0.6)
    assert receive(ws, "exit_signal_with_tx")["reason"] == "stop_loss"
    assert sandbox.transactions()[0].instructions[-2].startswith("pump_swap.buy tokens=")
    for wrong in (0, -1, float("nan"), "2"):
        with pytest.raises(ValueError, match="multiplier"):
            sandbox.set_price_multiplier(mint, wrong)  # type: ignore[arg-type]


def test_every_key_may_have_a_tier(make_sandbox: Callable[..., Sandbox], make_trader: Callable[..., Trader]) -> None:
    """A mapping of keys gives each its tier; the first key has the sandbox's."""
    sandbox = make_sandbox(tier=1, api_keys={"personal": 0, "advanced": 2})
    tiers = []
    for key in (sandbox.api_key, "personal", "advanced"):
        ws = make_trader(sandbox, api_key=key).register().stream()
        ws.send('{"type":"ping","client_time_ms":1}')
        assert receive(ws)["type"] == "pong"
        tiers.append(sandbox.sessions()[-1].tier)
    assert tiers == [1, 0, 2]
    with pytest.raises(ValueError, match="tier"):
        Sandbox(api_keys={"x": 5})


def test_default_ports_are_those_of_local_mode() -> None:
    """Without arguments the sandbox sits where the official SDKs' local mode looks."""
    sandbox = Sandbox()
    assert sandbox._ports == {"stream_port": 8082, "api_port": 8080, "rpc_port": 8899}
    sandbox.stop()


def test_ready_line_is_all_a_script_needs(sandbox: Sandbox) -> None:
    """The ready line has the three URLs, the key and the mints, ready for JSON."""
    line = json.loads(json.dumps(sandbox.ready_line()))
    assert list(line) == ["stream_url", "api_url", "rpc_url", "rpc_urls", "api_key", "mints"]
    assert line["api_key"] == "sandbox-key"
    assert line["mints"] == sandbox.mints
    assert urlsplit(line["stream_url"]).path == "/v1/ws"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[(name, value) for name in FREE for value in (-1, 65_536, "1", True)],
        ("seed", "x"),
        ("api_key", ""),
        ("api_key", 5),
        ("api_key", "tab\t"),
        ("api_keys", "one-string"),
        ("api_keys", [""]),
        ("host", "somewhere"),
        ("pnl_flush_ms", 0),
        ("pnl_flush_ms", 1.5),
        ("landing_delay_ms", -1),
        ("speed", 0),
        ("speed", float("nan")),
        ("speed", "fast"),
        ("session_policy", "share"),
        ("initial_lamports", -1),
        ("initial_usd1_units", -1),
        ("tier", 4),
        ("tier", "2"),
        ("scenario", "no-such-story"),
        ("clock", "sundial"),
        ("start_time_ms", -1),
        ("policies", "live"),
        ("requests_per_min", 0),
        ("api_keys", ["sandbox-key"]),
    ],
)
def test_bad_arguments_are_named(name: str, value: object) -> None:
    """A senseless argument is a ValueError that names it, and keys are not repeated in it."""
    with pytest.raises(ValueError, match=name) as caught:
        Sandbox(**{**FREE, name: value})  # type: ignore[arg-type]
    assert "tab\t" not in str(caught.value)
    assert "one-string" not in str(caught.value)


@pytest.mark.parametrize("service", ["stream", "api", "rpc"])
def test_a_taken_port_is_named_and_nothing_stays_open(service: str) -> None:
    """A port in use is an OSError with its number and service; the other ports are free again."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        sandbox = Sandbox(**{**FREE, f"{service}_port": port})  # type: ignore[arg-type]
        with pytest.raises(OSError, match=f"{service}.*{port}"):
            sandbox.start()
        sandbox.stop()
    assert not [thread for thread in threading.enumerate() if "lasersell-sandbox" in thread.name]


def test_the_life_cycle_is_simple() -> None:
    """Start once, stop as often as you like; URLs exist after start; a stopped sandbox stays stopped."""
    sandbox = Sandbox(**FREE)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError):
        _ = sandbox.stream_url
    with pytest.raises(RuntimeError):
        sandbox.mute()
    with sandbox:
        with pytest.raises(RuntimeError):
            sandbox.start()
        assert sandbox.api_key not in repr(sandbox)
    sandbox.stop()
    with pytest.raises(RuntimeError):
        sandbox.start()


def test_stopping_is_quick_and_complete(
    make_sandbox: Callable[..., Sandbox], make_trader: Callable[..., Trader]
) -> None:
    """With clients connected everywhere, stop waits for nobody and frees ports and threads."""
    sandbox = make_sandbox()
    trader = make_trader(sandbox).register()
    trader.stream()
    trader.rpc("getSlot")
    urls = [sandbox.stream_url, sandbox.api_url, sandbox.rpc_url]
    started_s = time.monotonic()
    sandbox.stop()
    assert time.monotonic() - started_s < 10
    assert not [thread for thread in threading.enumerate() if "lasersell-sandbox" in thread.name]
    for url in urls:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", urlsplit(url).port or 0), timeout=5)


def test_ports_can_be_taken_over_at_once(make_sandbox: Callable[..., Sandbox]) -> None:
    """After stop the same ports serve the next sandbox without a pause."""
    first = make_sandbox()
    ports = {f"{name}_port": urlsplit(getattr(first, f"{name}_url")).port for name in ("stream", "api", "rpc")}
    first.stop()
    assert urlsplit(make_sandbox(**ports).api_url).port == ports["api_port"]


def test_keys_are_never_logged(
    make_sandbox: Callable[..., Sandbox], make_trader: Callable[..., Trader], caplog: pytest.LogCaptureFixture
) -> None:
    """With every logger at DEBUG, right and wrong keys appear nowhere in the log."""
    caplog.set_level(logging.DEBUG, logger="lasersell_sync")
    sandbox = make_sandbox(api_key="right-secret", api_keys=["second-secret"])
    trader = make_trader(sandbox, api_key="second-secret").register()
    trader.stream()
    trader.post("/v1/buy", {}, headers={"x-api-key": "wrong-secret"})
    sandbox.drop_connections()
    assert sandbox.wait_for(lambda: not sandbox.sessions(), PATIENCE_S)
    sandbox.stop()
    assert "secret" not in caplog.text


def test_an_idle_sandbox_does_nothing(make_sandbox: Callable[..., Sandbox]) -> None:
    """Without sessions and tapes the process uses no CPU time to speak of."""
    make_sandbox()
    waiting = threading.Event()
    started_s = time.process_time()
    waiting.wait(0.5)
    assert time.process_time() - started_s < 0.05


def test_importing_starts_nothing() -> None:
    """Importing the sandbox starts no thread, and imports nothing of the client beside it."""
    code = (
        "import sys, threading, warnings; warnings.simplefilter('ignore');"
        "import lasersell_sync; before = set(sys.modules);"
        "import lasersell_sync.sandbox;"
        "new = {name for name in sys.modules if name.startswith('lasersell_sync.') and name not in before};"
        "assert all(name.startswith('lasersell_sync.sandbox') for name in new), new;"
        "assert threading.active_count() == 1"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
