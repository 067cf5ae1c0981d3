"""Scenarios: which tokens trade, what their prices do, who else trades, and when. TOML in, checked values out.

The format is documented in ``docs/sandbox.md``. Anything unknown, missing or out of range is a ``ScenarioError`` that
names the file, the place in it, and what would be right.
"""

from __future__ import annotations

import math
import random
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from lasersell_sync.sandbox.markets.currencies import CURRENCIES, Currency
from lasersell_sync.sandbox.markets.price_paths import PPM, PRICE_PATHS, REST_NOISE_PPM, TICKS_PER_S, DrawPhases, Phase
from lasersell_sync.sandbox.markets.venues import CURVES, VENUES

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # type: ignore[import-not-found,unused-ignore]

DEFAULT_SCENARIO = "default"
_FOLDER = resources.files("lasersell_sync.sandbox") / "scenarios"
_MAX_SECONDS = 7 * 24 * 3600
_MAX_WALLETS = 100_000
#: What a scripted act needs besides its moment: the fields it must have.
ACTS = {
    "buy": ("wallet", "token", "amount"),
    "sell": ("wallet", "token"),
    "price": ("token", "multiplier"),
    "pull": ("token",),
    "halt": ("token",),
    "resume": ("token",),
    "graduate": ("token",),
}


class ScenarioError(ValueError):
    """A scenario cannot be used; ``str()`` says where and why."""


@dataclass(frozen=True, slots=True)
class PhasePlan:
    """A phase before the dice are thrown: the ends of its price may be a range."""

    ticks: int
    to_ppm: tuple[int, int]
    noise_ppm: int
    liquidity_ppm: int | None
    halted: bool

    def phase(self, rng: random.Random) -> Phase:
        """One throw."""
        return Phase(self.ticks, rng.randint(*self.to_ppm), self.noise_ppm, self.liquidity_ppm, self.halted)


@dataclass(frozen=True, slots=True)
class TokenPlan:
    """A token to list."""

    symbol: str
    name: str
    market_type: str
    quote: Currency
    #: the name of its price path, for people
    price_path: str
    draw_phases: DrawPhases
    rest_noise_ppm: int
    #: quote units in its pool (virtual ones of a curve); None: the market's usual
    liquidity: int | None
    #: the wallet that created it, if it is one of the scenario's
    creator: str | None
    #: the crowd may buy its curve out
    may_graduate: bool


@dataclass(frozen=True, slots=True)
class WalletPlan:
    """Wallets that are the scenario's own; ``holds`` is what each has paid for every token at the start."""

    name: str
    count: int
    sol: float
    usd1: float
    holds: float
    #: registered under every API key, so that a client may configure it
    for_clients: bool

    def names(self) -> list[str]:
        """One name each: the plan's own for one wallet, numbered for more."""
        return [self.name] if self.count == 1 else [f"{self.name}-{number}" for number in range(1, self.count + 1)]


@dataclass(frozen=True, slots=True)
class Action:
    """Something scripted, ``at_s`` virtual seconds after the first session was configured."""

    at_s: float
    act: str
    token: str
    wallet: str | None = None
    amount: float = 0.0
    share_pct: float = 100.0
    multiplier: float = 1.0
    keep_pct: float = 5.0


@dataclass(frozen=True, slots=True)
class Scenario:
    """Tokens, wallets and scripted actions of one sandbox."""

    name: str
    about: str
    tokens: tuple[TokenPlan, ...]
    wallets: tuple[WalletPlan, ...]
    actions: tuple[Action, ...]


def shipped_scenarios() -> list[str]:
    """The names of the scenarios that come with the package."""
    names = (entry.name for entry in _FOLDER.iterdir() if entry.name.endswith(".toml"))
    return sorted(name.removesuffix(".toml") for name in names)


def load_scenario(name: str | Path) -> Scenario:
    """A shipped scenario by name, or any by the path of its TOML file. Raises ``ScenarioError``."""
    if isinstance(name, str) and name in shipped_scenarios():
        return parse_scenario((_FOLDER / f"{name}.toml").read_text("utf-8"), name)
    path = Path(name)
    if not path.is_file():
        known = ", ".join(shipped_scenarios())
        raise ScenarioError(f"scenario {str(name)!r} is neither a file nor one of: {known}")
    try:
        return parse_scenario(path.read_text("utf-8"), path.stem)
    except (OSError, UnicodeError) as error:
        raise ScenarioError(f"scenario {str(path)!r} cannot be read: {error}") from error


def parse_scenario(text: str, name: str) -> Scenario:
    """A scenario out of TOML text; ``name`` stands in errors. Raises ``ScenarioError``."""
    try:
        table = _Table(tomllib.loads(text), f"scenario {name!r}")
    except tomllib.TOMLDecodeError as error:
        raise ScenarioError(f"scenario {name!r} is not TOML: {error}") from error
    scenario = Scenario(
        name=name,
        about=table.text("about"),
        tokens=tuple(token for item in table.tables("token") for token in _tokens(item)),
        wallets=tuple(map(_wallet, table.tables("wallet"))),
        actions=tuple(sorted(map(_action, table.tables("action")), key=lambda action: action.at_s)),
    )
    table.finish()
    _check_names(scenario, table)
    return scenario


# -- the parts


def _tokens(table: _Table) -> Iterator[TokenPlan]:
    """One token, or ``count`` numbered ones."""
    count = table.integer("count", default=1, least=1, most=1_000)
    symbol, market_type = table.text("symbol"), table.choice("market", VENUES)
    quote = CURRENCIES[table.choice("quote", CURRENCIES, default="SOL")]
    if VENUES[market_type].sol_only and not quote.is_native:
        table.fail("quote", f"{market_type} trades against SOL alone")
    liquidity = table.number("liquidity", default=0.0, least=0, most=1e9)
    phases = [_phase(item) for item in table.tables("phase")]
    if phases and table.given("story"):
        table.fail("story", "and [[token.phase]] exclude each other: a token has a named story or phases of its own")
    price_path = "scripted" if phases else table.choice("story", PRICE_PATHS, default="calm")
    rest_noise_ppm = table.ppm("rest_noise_pct", default=REST_NOISE_PPM / 10_000)
    name = table.text("name", default=symbol.title())
    creator = table.text("creator", default="") or None
    may_graduate = table.flag("may_graduate", default=False)
    if may_graduate and market_type not in CURVES:
        table.fail("may_graduate", f"{market_type} is no bonding curve")
    table.finish()

    def draw_phases(rng: random.Random) -> list[Phase]:
        return [plan.phase(rng) for plan in phases] if phases else PRICE_PATHS[price_path](rng)

    for number in range(1, count + 1):
        suffix = "" if count == 1 else str(number)
        yield TokenPlan(
            symbol=symbol + suffix,
            name=f"{name} {suffix}".strip(),
            market_type=market_type,
            quote=quote,
            price_path=price_path,
            draw_phases=draw_phases,
            rest_noise_ppm=rest_noise_ppm,
            liquidity=round(liquidity * 10**quote.decimals) or None,
            creator=creator,
            may_graduate=may_graduate,
        )


def _phase(table: _Table) -> PhasePlan:
    seconds = table.number("seconds", least=1 / TICKS_PER_S, most=_MAX_SECONDS)
    low, high = table.numbers("to_pct", default=0.0, least=-99.99, most=1e6)
    keep_pct = table.number("liquidity_pct", default=100.0, least=0.01, most=100)
    plan = PhasePlan(
        ticks=max(1, round(seconds * TICKS_PER_S)),
        to_ppm=(PPM + round(low * 10_000), PPM + round(high * 10_000)),
        noise_ppm=table.ppm("noise_pct", default=0.8),
        liquidity_ppm=round(keep_pct * 10_000) if keep_pct < 100 else None,
        halted=table.flag("halt", default=False),
    )
    table.finish()
    return plan


def _wallet(table: _Table) -> WalletPlan:
    plan = WalletPlan(
        name=table.text("name"),
        count=table.integer("count", default=1, least=1, most=_MAX_WALLETS),
        sol=table.number("sol", default=10.0, least=0, most=1e6),
        usd1=table.number("usd1", default=0.0, least=0, most=1e9),
        holds=table.number("holds", default=0.0, least=0, most=1e6),
        for_clients=table.flag("for_clients", default=False),
    )
    table.finish()
    return plan


def _action(table: _Table) -> Action:
    act = table.choice("do", ACTS)
    action = Action(
        at_s=table.number("at_s", least=0, most=_MAX_SECONDS),
        act=act,
        token=table.text("token"),
        wallet=table.text("wallet", default="") or None,
        amount=table.number("amount", default=0.0, least=0, most=1e9),
        share_pct=table.number("share_pct", default=100.0, least=0.01, most=100),
        multiplier=table.number("multiplier", default=1.0, least=1e-6, most=1e6),
        keep_pct=table.number("keep_pct", default=5.0, least=0.01, most=100),
    )
    for field in ACTS[act]:
        if not table.given(field):
            table.fail(field, f"is needed to {act}")
    table.finish()
    return action


def _check_names(scenario: Scenario, table: _Table) -> None:
    """Everything that is named exists, once."""
    symbols = [token.symbol for token in scenario.tokens]
    names = [name for plan in scenario.wallets for name in plan.names()]
    if not symbols:
        table.fail("token", "at least one [[token]] is needed")
    for what, given in (("token", symbols), ("wallet", names)):
        name, times = Counter(given).most_common(1)[0] if given else ("", 0)
        if times > 1:
            table.fail(what, f"there are {times} named {name!r}")
    for action in scenario.actions:
        if action.token not in symbols:
            table.fail("action.token", f"there is no token {action.token!r}")
        if action.wallet is not None and action.wallet not in names:
            table.fail("action.wallet", f"there is no wallet {action.wallet!r}")
    for token in scenario.tokens:
        if token.creator is not None and token.creator not in names:
            table.fail("token.creator", f"there is no wallet {token.creator!r}")


class _Table:
    """Typed access to one TOML table, which complains about what nobody asked for."""

    def __init__(self, values: dict[str, Any], place: str) -> None:
        self._values = values
        self._place = place
        self._asked: set[str] = set()

    def fail(self, key: str, why: str) -> None:
        raise ScenarioError(f"{self._place}: {key} {why}")

    def given(self, key: str) -> bool:
        return key in self._values

    def finish(self) -> None:
        """Nothing is left that was not asked for."""
        for key in self._values:
            if key not in self._asked:
                known = ", ".join(sorted(self._asked))
                raise ScenarioError(f"{self._place}: {key} is unknown here; known are {known}")

    def _take(self, key: str, default: Any) -> Any:
        self._asked.add(key)
        if key not in self._values and default is None:
            raise ScenarioError(f"{self._place}: {key} is missing")
        return self._values.get(key, default)

    def text(self, key: str, default: str | None = None) -> str:
        value = self._take(key, default)
        if not isinstance(value, str):
            raise ScenarioError(f"{self._place}: {key} must be a string, not {value!r}")
        return value

    def choice(self, key: str, choices: dict[str, Any], default: str | None = None) -> str:
        value = self.text(key, default)
        if value not in choices:
            raise ScenarioError(f"{self._place}: {key} must be one of {', '.join(choices)}, not {value!r}")
        return value

    def flag(self, key: str, *, default: bool) -> bool:
        value = self._take(key, default)
        if not isinstance(value, bool):
            raise ScenarioError(f"{self._place}: {key} must be true or false, not {value!r}")
        return value

    def number(self, key: str, default: float | None = None, *, least: float, most: float) -> float:
        return self._number(key, self._take(key, default), least, most)

    def _number(self, key: str, value: Any, least: float, most: float) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise ScenarioError(f"{self._place}: {key} must be a number, not {value!r}")
        if not least <= value <= most:
            raise ScenarioError(f"{self._place}: {key} must be from {least:g} to {most:g}, not {value!r}")
        return float(value)

    def numbers(self, key: str, default: float, *, least: float, most: float) -> tuple[float, float]:
        """One number, or a list of two: a range for the seed to choose from."""
        value = self._take(key, default)
        pair = value if isinstance(value, list) else [value, value]
        if len(pair) != 2:
            raise ScenarioError(f"{self._place}: {key} must be a number or a list of two, not {value!r}")
        low, high = (self._number(key, item, least, most) for item in pair)
        if low > high:
            raise ScenarioError(f"{self._place}: {key} must have its smaller number first, not {value!r}")
        return low, high

    def integer(self, key: str, default: int, *, least: int, most: int) -> int:
        value = self._take(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise ScenarioError(f"{self._place}: {key} must be an integer from {least} to {most}, not {value!r}")
        return value

    def ppm(self, key: str, default: float) -> int:
        """A percentage as parts per million."""
        return round(self.number(key, default, least=0, most=50) * 10_000)

    def tables(self, key: str) -> list[_Table]:
        values = self._take(key, [])
        if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
            raise ScenarioError(f"{self._place}: {key} must be written as [[{key}]]")
        return [_Table(value, f"{self._place}, {key} {number}") for number, value in enumerate(values, 1)]
