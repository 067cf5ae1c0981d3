"""Same seed, same scenario, same messages from clients: the same messages to them, byte for byte, apart from keys."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from solders.keypair import Keypair

from lasersell_sync.sandbox import Sandbox, load_scenario, shipped_scenarios
from lasersell_sync.sandbox.markets.currencies import SOL
from lasersell_sync.sandbox.markets.listings import Listing
from tests.sandbox.players import NOBODY, ListOutbox, Rig, Trader, signed, strategy

PRICE_PATHS = [name for name in shipped_scenarios() if name not in ("default", "flood")]
TERMS = {
    **strategy(stop=25, trailing=10),
    "breakeven_trail_pct": 15,
    "sell_on_graduation": True,
    "take_profit_levels": [{"profit_pct": 12, "sell_pct": 50}, {"profit_pct": 30, "sell_pct": 100}],
}


def play(name: str, seed: int, *, wallet_seed: int = 1, reaction_s: float = 0.0, **settings: Any) -> list[str]:
    """A copier that buys every token and follows every signal, for a minute; every frame it was sent.

    The machine plays at every tenth of a second and a bit, the client reacts ``reaction_s`` later.
    """
    rig = Rig(scenario=load_scenario(name), seed=seed, **settings)
    wallet = rig.wallet(wallet_seed)
    outbox = ListOutbox()
    session = rig.exchange.connect("key-1", outbox)
    auto_buy = {"wallet_pubkey": str(wallet.pubkey()), "amount_quote_units": 10**8, "amount_usd1_units": 10**7}
    watches = [
        {"pubkey": str(keypair.pubkey()), "auto_buy": auto_buy, "mirror_sell": True}
        for keypair in rig.exchange.player.wallets.values()
    ]
    configure = {"wallet_pubkeys": [str(wallet.pubkey())], "strategy": TERMS, "watch_wallets": watches}
    rig.say(session, {"type": "configure", **configure})
    start_s, read = rig.now_s + 0.01, 0
    for tenth in range(600):
        rig.now_s = start_s + tenth / 10
        rig.exchange.run_due()
        rig.now_s += reaction_s
        orders = [json.loads(frame)["unsigned_tx_b64"] for frame in outbox.frames[read:] if "unsigned_tx_b64" in frame]
        read = len(outbox.frames)
        if tenth == 5:
            orders += [purchase(rig, wallet, listing) for listing in rig.listings]
        for order in orders:
            rig.exchange.send_transaction(signed(order, wallet), skip_preflight=True)
    return [frame for frame in outbox.frames if isinstance(frame, str)]


def purchase(rig: Rig, wallet: Keypair, listing: Listing) -> str:
    return rig.build_buy(
        listing,
        wallet.pubkey(),
        budget_lamports=10**8 if listing.quote == SOL else 10**7,
        slippage_bps=5_000,
        delivery=NOBODY,
        partner_fee=None,
    ).tx_b64


@pytest.mark.parametrize("name", PRICE_PATHS)
def test_a_story_is_told_alike_every_time(name: str) -> None:
    """Two runs of a scenario with a client that buys, sells and copies are equal to the last byte; seeds differ."""
    first = play(name, 3)
    assert len(first) > 200
    assert play(name, 3) == first
    assert play(name, 4) != first


@pytest.mark.parametrize("name", PRICE_PATHS)
@pytest.mark.parametrize("shape", [None, 5])
def test_story_through_the_router_is_told_alike_every_time(name: str, shape: int | None) -> None:
    """So it is through the Router, in today's instructions, and on another tier it is another story."""
    settings = {"router": True, "router_shape": shape, "today": True}
    first = play(name, 3, tiers=(2,), **settings)
    assert len(first) > 200
    assert play(name, 3, tiers=(2,), **settings) == first
    assert play(name, 3, tiers=(3,), **settings) != first
    assert play(name, 3) != first
    signalled, closed = (
        any(kind in frame for frame in first) for kind in ('"exit_signal_with_tx"', '"position_closed"')
    )
    assert signalled == closed, "what was signalled has been sold"


@pytest.mark.parametrize("settings", ["", ", router=True, today=True", ", today=True, direct_version=None"])
def test_no_hash_seed_changes_the_story(settings: str) -> None:
    """Two interpreters with other hash seeds tell the same."""
    program = (
        "import hashlib; from tests.sandbox.test_determinism import play;"
        f"print(hashlib.sha256('\\n'.join(play('mirror', 3{settings})).encode()).hexdigest())"
    )
    digests = set()
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        run = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True, timeout=100
        )
        digests.add(run.stdout)
    assert len(digests) == 1


def test_how_quick_the_client_is_does_not_change_the_story() -> None:
    """Whether a client answers at once or 60 ms later, within one market tick it is the same answer."""
    assert play("mirror", 3, reaction_s=0.06) == play("mirror", 3, reaction_s=0.001)


def test_who_listens_does_not_change_the_story() -> None:
    """Another wallet sees the same: only its own keys, and what is signed for them, differ."""
    stories = []
    for wallet_seed in (1, 2):
        wallet = str(Rig().wallet(wallet_seed).pubkey())
        messages = [json.loads(frame) for frame in play("pump", 3, wallet_seed=wallet_seed)]
        for message in messages:
            for field in ("unsigned_tx_b64", "token_account", "tx_signature", "market_context"):
                message.pop(field, None)
        text = json.dumps(messages)
        assert wallet in text
        stories.append(text.replace(wallet, "WALLET"))
    assert stories[0] == stories[1]


def test_the_machines_pace_does_not_change_the_story() -> None:
    """A client that only listens is told the same whether the machine looks every tick or once a second."""

    def listen(jumps_s: list[float]) -> list[Any]:
        rig = Rig(scenario=load_scenario("mirror"), seed=9)
        watches = [{"pubkey": str(keypair.pubkey())} for keypair in rig.exchange.player.wallets.values()]
        _, outbox = rig.session(watch_wallets=watches)
        for jump_s in jumps_s:
            rig.now_s += jump_s
            rig.exchange.run_due()
        return outbox.frames

    even, uneven = listen([0.1] * 250), listen([0.97, 0.01, 0.6, 0.3] * 15)
    common = min(len(even), len(uneven))
    assert common > 500
    assert even[:common] == uneven[:common]


def story_over_sockets(sandbox: Sandbox, trader: Trader) -> list[str]:
    """A whole trade with foreign clients, time moved by hand; the raw frames."""
    ws = trader.connect()
    ws.send(json.dumps({"type": "configure", "wallet_pubkeys": [trader.pubkey], "strategy": strategy(target=10)}))
    trader.buy(sandbox.mints[0])
    assert sandbox.advance(60, until=lambda: any(item.exit_reason for item in sandbox.positions()))
    frames: list[str] = []
    while '"exit_signal_with_tx"' not in (frames[-1] if frames else ""):
        frames.append(str(ws.recv(timeout=20)))
    trader.send(signed(json.loads(frames[-1])["unsigned_tx_b64"], trader.wallet))
    sandbox.advance(5)
    while '"position_closed"' not in frames[-1]:
        frames.append(str(ws.recv(timeout=20)))
    return frames


def test_a_trade_over_sockets_is_the_same_to_the_byte(
    make_sandbox: Callable[..., Sandbox], make_trader: Callable[..., Trader]
) -> None:
    """With a manual clock, clients may be as slow as they like: the frames on the wire are identical."""
    stories = []
    for _ in range(2):
        sandbox = make_sandbox(scenario="pump", seed=5, clock="manual", landing_delay_ms=400)
        stories.append(story_over_sockets(sandbox, make_trader(sandbox).register()))
        sandbox.stop()
    assert stories[0] == stories[1]
    assert json.loads(stories[0][0])["server_time_ms"] == 1_767_225_600_000
    assert len(stories[0]) > 100


def test_a_flowing_story_is_the_same_to_the_byte(
    make_sandbox: Callable[..., Sandbox], make_trader: Callable[..., Trader]
) -> None:
    """At fifty times the speed of time, on whatever machine, a listener hears the same frames."""
    stories = []
    for _ in range(2):
        sandbox = make_sandbox(scenario="mirror", seed=5, speed=50)
        trader = make_trader(sandbox).register()
        ws = trader.connect()
        watches = [{"pubkey": str(keypair.pubkey())} for keypair in sandbox.wallets.values()]
        ws.send(
            json.dumps({"type": "configure", "wallet_pubkeys": [], "strategy": strategy(), "watch_wallets": watches})
        )
        stories.append([str(ws.recv(timeout=20)) for _ in range(600)])
        sandbox.stop()
    assert stories[0] == stories[1]
