"""Tiers: every limit of docs/protocol.md 8, at the number it names."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from solders.keypair import Keypair

from lasersell_sync.sandbox.markets.scenario import load_scenario
from lasersell_sync.sandbox.protocol.policies import Policies
from lasersell_sync.sandbox.protocol.tiers import TIERS, RateLimiter
from tests.sandbox.players import ListOutbox, Rig, strategy


def make_rig(tier: int, **more: Any) -> Rig:
    return Rig(tiers=(tier,), **more)


def watch_wallets(count: int) -> list[dict[str, object]]:
    return [{"pubkey": str(Keypair.from_seed(bytes([n, 7]) + bytes(30)).pubkey())} for n in range(count)]


@pytest.mark.parametrize(
    ("tier", "limits"),
    [
        (0, (256, 100, 2, 1, 2, 1, 2)),
        (1, (256, 100, 500, 5, 100, 1, 10)),
        (2, (256, 100, 20_000, 200, 100, 1, 25)),
    ],
)
def test_hello_names_the_limits_of_the_tier(tier: int, limits: tuple[int, ...]) -> None:
    """The `limits` of hello_ok are the tier's, in wire order."""
    _, outbox = make_rig(tier).session()
    told = outbox.messages("hello_ok")[0]["limits"]
    assert list(told) == [
        *("hi_capacity", "pnl_flush_ms", "max_positions_per_session", "max_wallets_per_session"),
        *("max_positions_per_wallet", "max_sessions_per_api_key", "max_watch_wallets_per_session"),
    ]
    assert tuple(told.values()) == limits


@pytest.mark.parametrize(("tier", "most"), [(0, 1), (1, 5), (2, 200)])
def test_wallets_per_session(tier: int, most: int) -> None:
    """One wallet more than allowed is limit_exceeded: fatal in configure, harmless in update_wallets."""
    rig = make_rig(tier)
    wallets = [rig.wallet(n + 1) for n in range(most + 1)] if most < 200 else []
    if not wallets:
        keypairs = [Keypair.from_seed(n.to_bytes(2, "little") + bytes(30)) for n in range(1, most + 2)]
        for keypair in keypairs:
            rig.exchange.keys.register("key-1", keypair.pubkey(), None)
        wallets = keypairs
    _, refused = rig.session(*wallets)
    assert [message["code"] for message in refused.messages()] == ["limit_exceeded"]
    assert str(most) in refused.messages()[0]["message"]
    assert refused.closed == (1008, "limit_exceeded")
    session, outbox = rig.session(*wallets[:most])
    assert outbox.messages()[0]["type"] == "hello_ok"
    rig.say(session, {"type": "update_wallets", "wallet_pubkeys": [str(item.pubkey()) for item in wallets]})
    assert outbox.messages("error")[0]["code"] == "limit_exceeded"
    assert outbox.closed is None
    assert len(session.wallets) == most


@pytest.mark.parametrize(("tier", "most"), [(0, 2), (1, 10), (2, 25)])
def test_watch_wallets_per_session(tier: int, most: int) -> None:
    """The same for watch wallets, in configure and in update_watch_wallets."""
    rig = make_rig(tier)
    _, refused = rig.session(watch_wallets=watch_wallets(most + 1))
    assert (refused.messages()[0]["code"], refused.closed) == ("limit_exceeded", (1008, "limit_exceeded"))
    session, outbox = rig.session(watch_wallets=watch_wallets(most))
    rig.say(session, {"type": "update_watch_wallets", "watch_wallets": watch_wallets(most + 1)})
    assert [error["code"] for error in outbox.messages("error")] == ["limit_exceeded"]
    assert len(session.watch_wallets) == most


def test_positions_per_wallet_and_session() -> None:
    """Tier 0 tracks two positions; the third is told once as capacity_exceeded, and tracked when there is room."""
    rig = make_rig(0)
    wallet = rig.wallet()
    session, outbox = rig.session(wallet)
    tokens = [item for item in rig.listings if item.quote.name == "SOL"][:3]
    for listing in tokens:
        assert rig.buy(wallet, listing, lamports=10**8).err is None
    assert len(outbox.messages("position_opened")) == 2
    (error,) = outbox.messages("error")
    assert error["code"] == "capacity_exceeded"
    assert str(tokens[2].mint) in error["message"]
    assert len(outbox.messages("balance_update")) == 3, "the balance is told all the same"
    rig.sell(wallet, tokens[0])
    rig.buy(wallet, tokens[2], lamports=10**8)
    assert [message["mint"] for message in outbox.messages("position_opened")][2] == str(tokens[2].mint)
    assert len(session.positions) == 2


@pytest.mark.parametrize(("tier", "most", "per_wallet"), [(1, 500, 100), (2, 20_000, 100)])
def test_positions_of_the_larger_tiers(tier: int, most: int, per_wallet: int) -> None:
    """With as many positions as the flood scenario has, exactly the allowed ones are tracked."""
    rig = make_rig(tier, scenario=load_scenario("flood"))
    desks = list(rig.exchange.player.wallets.values())[: TIERS[tier].max_wallets]
    session, outbox = rig.session(*desks)
    assert len(session.positions) == most == len(desks) * per_wallet
    assert outbox.messages("error") == []
    extra = rig.exchange.player.wallets["desk-1"].pubkey()
    assert session.full(extra) is not None


@pytest.mark.parametrize(("per_session", "per_wallet", "allowed"), [(3, 9, 3), (9, 2, 4)])
def test_each_limit_counts_for_itself(per_session: int, per_wallet: int, allowed: int) -> None:
    """Two wallets with three positions each: the tighter limit decides, to the position."""
    rig = Rig(scenario=load_scenario("flood"))
    session, outbox = rig.session()
    session.tier = replace(session.tier, max_positions_per_session=per_session, max_positions_per_wallet=per_wallet)
    session.wallets = {rig.exchange.player.wallets[name].pubkey() for name in ("desk-1", "desk-2")}
    for listing in list(rig.listings)[:3]:
        for wallet in sorted(session.wallets):
            rig.exchange.player.grant(wallet, listing, 10**6)
    assert len(outbox.messages("position_opened")) == allowed
    assert len(outbox.messages("error")) == 6 - allowed


def test_the_flood_is_one_session_at_its_limits() -> None:
    """Tier 1 cannot take the 200 wallets of the flood scenario, and says so."""
    rig = make_rig(1, scenario=load_scenario("flood"))
    _, outbox = rig.session(*rig.exchange.player.wallets.values())
    assert [message["code"] for message in outbox.messages()] == ["limit_exceeded"]


def test_liquidity_snapshots_are_for_the_larger_tiers() -> None:
    """Tier 0 is told profits and ticks, but no liquidity."""
    for tier, snapshots in ((0, False), (1, True), (2, True)):
        rig = make_rig(tier)
        wallet = rig.wallet()
        _, outbox = rig.session(wallet)
        rig.buy(wallet, rig.listing("pump_fun", "climb"), lamports=10**8)
        rig.advance(3)
        kinds = {message["type"] for message in outbox.messages()}
        assert {"pnl_update", "trade_tick"} <= kinds
        assert ("liquidity_snapshot" in kinds) == snapshots


@pytest.mark.parametrize("ping_is_activity", [True, False])
def test_silence_ends_a_personal_session_after_45_minutes(ping_is_activity: bool) -> None:
    """To the second of virtual time, counted from the client's last message; whether a ping counts is a policy."""
    rig = make_rig(0, policies=Policies(ping_is_activity=ping_is_activity))
    session, outbox = rig.session()
    rig.advance(100)
    rig.say(session, {"type": "update_wallets", "wallet_pubkeys": []})
    rig.advance(60)
    rig.say(session, {"type": "ping", "client_time_ms": 1})
    quiet_s = 2_700 if ping_is_activity else 2_640
    rig.advance(quiet_s - 0.5)
    assert outbox.closed is None
    rig.advance(1)
    assert outbox.closed == (1001, "inactive for 45 minutes")
    assert rig.exchange.sessions.records(include_closed=False) == []
    assert rig.exchange.run_due() is None


def test_larger_tiers_may_be_silent() -> None:
    """No inactivity limit for tiers 1 and 2."""
    rig = make_rig(1)
    _, outbox = rig.session()
    rig.advance(10_000)
    assert outbox.closed is None


def test_every_key_has_its_own_tier() -> None:
    """Keys are given tiers one by one, and the account's answer agrees with hello_ok."""
    rig = Rig(api_keys=("a", "b", "c"), tiers=(0, 2, 1))
    for key_id, tier in (("key-1", 0), ("key-2", 2), ("key-3", 1)):
        outbox = ListOutbox()
        session = rig.exchange.connect(key_id, outbox)
        rig.say(session, {"type": "configure", "wallet_pubkeys": [], "strategy": strategy()})
        account = rig.exchange.tiers[key_id].account_answer()
        assert account["tier"] == tier
        limits = outbox.messages()[0]["limits"]
        assert account["limits"] == {
            "max_wallets": limits["max_wallets_per_session"],
            "max_positions_per_wallet": limits["max_positions_per_wallet"],
            "max_positions_per_session": limits["max_positions_per_session"],
        }


def test_too_many_messages_in_a_minute_are_rate_limited() -> None:
    """The message above the limit is answered with rate_limited and not obeyed; a minute later there is room again."""
    rig = Rig(requests_per_min=3)
    session, outbox = rig.session()
    for _ in range(4):
        rig.say(session, {"type": "ping", "client_time_ms": 1})
    assert [message["type"] for message in outbox.messages()] == ["hello_ok", "pong", "pong", "error", "error"]
    assert {error["code"] for error in outbox.messages("error")} == {"rate_limited"}
    assert outbox.closed is None
    rig.advance(61)
    rig.say(session, {"type": "ping", "client_time_ms": 1})
    assert outbox.messages()[-1]["type"] == "pong"


def test_a_rate_limiter_counts_any_minute() -> None:
    """Not calendar minutes: the oldest request must be 60 s old before the next is allowed."""
    limiter = RateLimiter(2)
    assert [limiter.wait_s("a", now) for now in (0.0, 50.0)] == [0.0, 0.0]
    assert limiter.wait_s("a", 59.0) == 1.0
    assert limiter.wait_s("b", 59.0) == 0.0
    assert limiter.wait_s("a", 60.0) == 0.0
    assert limiter.wait_s("a", 60.0) == 50.0
    assert RateLimiter(None).wait_s("a", 0.0) == 0.0
