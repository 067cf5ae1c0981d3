"""Scenarios: what ships, what the format takes, and that each story is what its name says."""

from __future__ import annotations

import itertools
import random
import re
from pathlib import Path

import pytest

from lasersell_sync.sandbox import Sandbox, ScenarioError, load_scenario, parse_scenario, shipped_scenarios
from lasersell_sync.sandbox.markets.pools import price_lamports
from tests.sandbox.players import ListOutbox, Rig, strategy

TOKEN = '[[token]]\nsymbol = "X"\nmarket = "pump_swap"\n'


class Told:
    """A scenario with a client that has bought every token at its beginning."""

    def __init__(self, name: str, seed: int = 1, terms: dict[str, object] | None = None) -> None:
        self.rig = Rig(scenario=load_scenario(name), seed=seed)
        self.wallet = self.rig.wallet()
        self.outbox: ListOutbox
        _, self.outbox = self.rig.session(self.wallet, terms=terms)
        for listing in self.rig.listings:
            amount = 10**7 if listing.quote.name == "SOL" else 10**6
            assert self.rig.buy(self.wallet, listing, amount, slippage_bps=5_000).err is None
        self.start = {item.symbol: self.price(item.symbol) for item in self.rig.listings}

    def price(self, symbol: str) -> float:
        reserves = self.rig.exchange.market.reserves(self.rig.token(symbol))
        return price_lamports(reserves, 18) / 1e18

    def ratio(self, symbol: str) -> float:
        return self.price(symbol) / self.start[symbol]

    def path(self, symbol: str, seconds: float, step_s: float = 1.0) -> list[float]:
        ratios = []
        for _ in range(round(seconds / step_s)):
            self.rig.advance(step_s)
            ratios.append(self.ratio(symbol))
        return ratios


# -- what ships


def test_the_promised_scenarios_ship() -> None:
    """Every one loads, says what it is about, and trades."""
    promised = {"pump", "rug", "chop", "slow-bleed", "graduation", "thin-liquidity", "mirror", "flood"}
    assert promised | {"default"} == set(shipped_scenarios())
    for name in promised:
        scenario = load_scenario(name)
        assert scenario.name == name
        assert len(scenario.about) > 20
        assert scenario.tokens


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_pump_pumps(seed: int) -> None:
    """At least 80 % up within the first minute, and still well up minutes later."""
    told = Told("pump", seed)
    assert max(told.path("ROCKET", 70)) > 1.8
    assert told.path("ROCKET", 120)[-1] > 1.4


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_rug_rugs(seed: int) -> None:
    """Up by a quarter at least, then the pool is drained and the price with it; a stop loss fires, too late."""
    told = Told("rug", seed, strategy(stop=20))
    assert max(told.path("CARPET", 32)) > 1.25
    depth = told.rig.exchange.market.reserves(told.rig.token("CARPET")).lamports
    assert told.path("CARPET", 30)[-1] < 0.3
    assert told.rig.exchange.market.reserves(told.rig.token("CARPET")).lamports < depth / 15
    assert {signal["reason"] for signal in told.outbox.messages("exit_signal_with_tx")} == {"stop_loss"}
    assert "draining" in {item["liquidity_trend"] for item in told.outbox.messages("liquidity_snapshot")}


def test_chop_chops_and_halts() -> None:
    """Neither up nor down for good, but through both, with a pause of five seconds without a trade."""
    told = Told("chop")
    ratios = told.path("SAW", 58, 0.5)
    assert max(ratios) / min(ratios) > 1.07
    assert 0.88 < min(ratios) < 1 < max(ratios) < 1.14
    told.rig.advance(3)
    assert told.rig.token("SAW").halted
    told.rig.advance(5)
    assert not told.rig.token("SAW").halted
    mint = str(told.rig.token("SAW").mint)
    position_id = next(item["position_id"] for item in told.outbox.messages("position_opened") if item["mint"] == mint)
    ticks = [tick["time_ms"] for tick in told.outbox.messages("trade_tick") if tick["position_id"] == position_id]
    assert max(later - earlier for earlier, later in itertools.pairwise(ticks)) >= 5_000


def test_slow_bleed_bleeds_slowly() -> None:
    """No minute loses more than a twentieth, and the hour loses most of it."""
    told = Told("slow-bleed")
    price_path = told.rig.exchange.market._paths[told.rig.token("SIEVE").mint]
    levels = [1.0]
    for _ in range(60):
        for _ in range(600):
            step = price_path.step()
        levels.append(step.numerator / 1e6)
    assert all(later / earlier > 0.9 for earlier, later in itertools.pairwise(levels))
    assert levels[-1] < 0.31


def test_graduation_graduates() -> None:
    """All three curves are bought out within half a minute, and the tokens trade on."""
    told = Told("graduation", terms={**strategy(target=900), "sell_on_graduation": True})
    told.rig.advance(30)
    markets = {item.symbol: item.market_type for item in told.rig.listings}
    assert markets == {"SENIOR": "pump_swap", "BACHELOR": "raydium_cpmm", "MASTER": "meteora_damm_v2"}
    signals = told.outbox.messages("exit_signal_with_tx")
    assert [signal["reason"] for signal in signals] == ["graduation"] * 3
    before = told.price("SENIOR")
    told.rig.advance(5)
    assert told.price("SENIOR") != before


def test_thin_liquidity_is_thin() -> None:
    """One SOL is a large part of the pool: the widest band covers a fraction of such a position."""
    told = Told("thin-liquidity")
    assert told.rig.buy(told.wallet, told.rig.token("PUDDLE"), 10**9, slippage_bps=5_000).err is None
    told.rig.advance(2)
    mint = str(told.rig.token("PUDDLE").mint)
    position_id = next(item["position_id"] for item in told.outbox.messages("position_opened") if item["mint"] == mint)
    snapshot = [s for s in told.outbox.messages("liquidity_snapshot") if s["position_id"] == position_id][-1]
    assert snapshot["bands"][-1]["coverage_pct"] < 60


def test_mirror_has_wallets_to_copy() -> None:
    """A whale that ends with a profit, a gambler that ends with losses, told to whoever watches them."""
    rig = Rig(scenario=load_scenario("mirror"))
    watches = [{"pubkey": str(keypair.pubkey())} for keypair in rig.exchange.player.wallets.values()]
    _, outbox = rig.session(watch_wallets=watches)
    rig.advance(40)
    closed = outbox.messages("position_closed")
    assert [message["watched"] for message in closed] == [True] * 4
    worth = {
        name: rig.exchange.ledger.lamports(keypair.pubkey()) for name, keypair in rig.exchange.player.wallets.items()
    }
    assert worth["whale"] > 500 * 10**9
    assert worth["gambler"] < 100 * 10**9


def test_flood_fills_an_advanced_session() -> None:
    """20 000 positions of the scenario's own wallets, which any key may configure; one flush is 20 000 updates."""
    rig = Rig(scenario=load_scenario("flood"))
    _, outbox = rig.session(*rig.exchange.player.wallets.values())
    assert len(outbox.messages("position_opened")) == 20_000
    outbox.frames.clear()
    rig.advance(0.1)
    assert len(outbox.frames) == 20_000
    assert all('"pnl_update"' in frame for frame in outbox.frames)


def test_a_story_waits_for_its_audience() -> None:
    """Time begins with the first configured session, however late it comes."""
    rig = Rig(scenario=load_scenario("mirror"))
    rig.advance(1_000)
    assert rig.exchange.chain.records() == []
    _, outbox = rig.session()
    assert outbox.messages("hello_ok")[0]["server_time_ms"] == 1_767_225_600_000
    rig.advance(3)
    assert len(rig.exchange.chain.records()) == 1


# -- the format


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    """A scenario may be any TOML file; the sandbox lists what it says."""
    path = tmp_path / "mine.toml"
    path.write_text(
        'about = "Mine."\n'
        '[[token]]\nsymbol = "A"\nname = "Alpha"\nmarket = "raydium_cpmm"\nquote = "USD1"\nliquidity = 1000\n'
        "[[token.phase]]\nseconds = 2\nto_pct = [5, 10]\nnoise_pct = 0\n"
        "[[token.phase]]\nseconds = 1\nhalt = true\nliquidity_pct = 50\n"
        '[[token]]\nsymbol = "B"\nmarket = "pump_fun"\ncount = 3\nmay_graduate = true\n'
        '[[wallet]]\nname = "bot"\ncount = 2\n'
        '[[action]]\nat_s = 9\ndo = "halt"\ntoken = "B2"\n[[action]]\nat_s = 1\ndo = "sell"\ntoken = "A"\nwallet = "bot-2"\n'
    )
    scenario = load_scenario(path)
    assert [token.symbol for token in scenario.tokens] == ["A", "B1", "B2", "B3"]
    phases = scenario.tokens[0].draw_phases(random.Random(1))
    assert [(phase.ticks, phase.halted, phase.liquidity_ppm) for phase in phases] == [
        (20, False, None),
        (10, True, 500_000),
    ]
    assert 1_050_000 <= phases[0].end_ppm <= 1_100_000
    assert scenario.tokens[0].liquidity == 1_000 * 10**6
    assert [action.at_s for action in scenario.actions] == [1, 9]
    assert scenario.wallets[0].names() == ["bot-1", "bot-2"]
    sandbox = Sandbox(scenario=str(path))
    assert [info.quote for info in sandbox.mint_info.values()] == ["USD1", "SOL", "SOL", "SOL"]
    assert list(sandbox.wallets) == ["bot-1", "bot-2"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("about = ", "is not TOML"),
        (TOKEN, "about is missing"),
        ('about = "x"', r"token at least one \[\[token\]\]"),
        ('about = "x"\nabuot = 1\n' + TOKEN, "abuot is unknown here; known are about"),
        ('about = "x"\n[token]\nsymbol = "X"', r"token must be written as \[\[token\]\]"),
        ('about = "x"\n[[token]]\nsymbol = "X"\nmarket = "nyse"', "token 1: market must be one of pump_fun"),
        ('about = "x"\n' + TOKEN + 'quote = "EUR"', "quote must be one of SOL, USD1"),
        ('about = "x"\n' + TOKEN + 'quote = "USD1"', "pump_swap trades against SOL alone"),
        ('about = "x"\n' + TOKEN + "may_graduate = true", "pump_swap is no bonding curve"),
        ('about = "x"\n' + TOKEN + 'story = "moon"', "story must be one of climb"),
        ('about = "x"\n' + TOKEN + 'story = "fall"\n[[token.phase]]\nseconds = 1', "exclude each other"),
        ('about = "x"\n' + TOKEN + "count = 0", "count must be an integer from 1"),
        ('about = "x"\n' + TOKEN + "[[token.phase]]\nto_pct = 5", "token 1, phase 1: seconds is missing"),
        ('about = "x"\n' + TOKEN + "[[token.phase]]\nseconds = 0", "seconds must be from 0.1"),
        ('about = "x"\n' + TOKEN + '[[token.phase]]\nseconds = "1"', "seconds must be a number"),
        ('about = "x"\n' + TOKEN + "[[token.phase]]\nseconds = 1\nto_pct = [5, 1]", "smaller number first"),
        ('about = "x"\n' + TOKEN + "[[token.phase]]\nseconds = 1\nto_pct = [5]", "a number or a list of two"),
        ('about = "x"\n' + TOKEN + "[[token.phase]]\nseconds = 1\nto_pct = -100", "to_pct must be from -99.99"),
        ('about = "x"\n' + TOKEN + "[[token.phase]]\nseconds = nan", "seconds must be a number"),
        ('about = "x"\n' + TOKEN + "[[token.phase]]\nseconds = 1\nhalt = 1", "halt must be true or false"),
        ('about = "x"\n' + TOKEN + TOKEN, "there are 2 named 'X'"),
        ('about = "x"\n' + TOKEN + 'creator = "me"', "there is no wallet 'me'"),
        ('about = "x"\n' + TOKEN + "[[wallet]]\nsol = 1", "wallet 1: name is missing"),
        ('about = "x"\n' + TOKEN + '[[action]]\nat_s = 1\ndo = "pray"\ntoken = "X"', "do must be one of buy"),
        ('about = "x"\n' + TOKEN + '[[action]]\nat_s = 1\ndo = "buy"\ntoken = "X"', "wallet is needed to buy"),
        ('about = "x"\n' + TOKEN + '[[action]]\nat_s = 1\ndo = "halt"\ntoken = "Y"', "there is no token 'Y'"),
        ('about = "x"\n' + TOKEN + '[[action]]\nat_s = 1\ndo = "sell"\ntoken = "X"\nwallet = "w"', "there is no wallet 'w'"),
    ],
)  # fmt: skip
def test_mistakes_are_named(text: str, complaint: str) -> None:
    """Whatever is wrong, the error says where and what would be right."""
    with pytest.raises(ScenarioError, match=complaint):
        parse_scenario(text, "mine")


def test_docs_scenario_as_printed_loads() -> None:
    """The TOML block of docs/sandbox.md is a whole scenario."""
    page = (Path(__file__).parents[2] / "docs" / "sandbox.md").read_text()
    (block,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    scenario = parse_scenario(block, "docs/sandbox.md")
    assert [token.symbol for token in scenario.tokens] == ["COIN", "SPIKE"]
    assert {info.market_type for info in Sandbox(scenario=scenario).mint_info.values()} == {"raydium_cpmm"}


def test_a_name_that_is_nothing() -> None:
    """Neither a shipped name nor a file: the error lists what there is; the constructor raises it as ValueError."""
    with pytest.raises(ScenarioError, match="slow-bleed"):
        load_scenario("no-such-story")
    with pytest.raises(ValueError, match="no-such-story"):
        Sandbox(scenario="no-such-story")


@pytest.mark.parametrize("market", ["pump_fun", "meteora_dbc"])
def test_a_curve_cannot_start_beyond_its_end(market: str) -> None:
    """A curve whose start would sell more tokens than are for sale is refused when it is listed."""
    text = f'about = "x"\n[[token]]\nsymbol = "X"\nmarket = "{market}"\nliquidity = 500'
    with pytest.raises(ValueError, match="X: no curve reaches"):
        Sandbox(scenario=parse_scenario(text, "mine"))


def test_what_cannot_be_done_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    """A scripted sale of nothing is a warning in the log; the story goes on."""
    text = 'about = "x"\n' + TOKEN + '[[wallet]]\nname = "w"\n'
    text += '[[action]]\nat_s = 1\ndo = "sell"\ntoken = "X"\nwallet = "w"\n'
    text += '[[action]]\nat_s = 2\ndo = "buy"\ntoken = "X"\nwallet = "w"\namount = 1\n'
    rig = Rig(scenario=parse_scenario(text, "mine"))
    rig.session()
    rig.advance(3)
    assert "holds no X" in caplog.text
    assert [record.err for record in rig.exchange.chain.records()] == [None]
