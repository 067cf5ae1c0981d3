"""Client messages: from JSON fields to checked values (docs/protocol.md 5).

Anything malformed is a ``BadField`` (the session answers ``bad_message``); a well-formed strategy that makes no sense
is an ``InvalidStrategy``. Unknown fields are ignored.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from solders.pubkey import Pubkey

from lasersell_sync.sandbox.protocol.exit_conditions import Level, Strategy, exact_pct
from lasersell_sync.sandbox.protocol.json_fields import U16_MAX, U32_MAX, BadField, Fields


class InvalidStrategy(ValueError):
    """A strategy's numbers make no sense; ``str()`` names the field."""


#: As many levels has a ladder in the desktop app.
_MAX_LEVELS = 10


@dataclass(frozen=True, slots=True)
class Ping:
    """Asks for the server's clock."""

    client_time_ms: int


@dataclass(frozen=True, slots=True)
class AutoBuy:
    """Copy a watched wallet's purchases: who buys, and for how much. Without a USD1 amount, SOL markets only."""

    wallet: Pubkey
    amount_quote_units: int
    amount_usd1_units: int | None


@dataclass(frozen=True, slots=True)
class WatchWallet:
    """A wallet to watch, and what to copy of it."""

    pubkey: Pubkey
    auto_buy: AutoBuy | None = None
    mirror_sell: bool = False


@dataclass(frozen=True, slots=True)
class MirrorConfig:
    """When a watched wallet's purchase is not copied; 0 or None switches a rule off. See ``copy_trading.py``."""

    max_positions_per_wallet: int = 0
    cooldown_sec: int = 0
    skip_creator_tokens: bool = False
    max_active_sol: float = 0.0
    buy_slippage_bps: int = 0
    min_liquidity_sol: float | None = None
    max_entry_drift_pct: float | None = None
    max_consecutive_losses: int | None = None


@dataclass(frozen=True, slots=True)
class Configure:
    """What a session wants; the first message of every connection."""

    wallet_pubkeys: tuple[str, ...]
    strategy: Strategy
    send_mode: str | None
    tip_lamports: int | None
    watch_wallets: tuple[WatchWallet, ...]
    mirror_config: MirrorConfig


@dataclass(frozen=True, slots=True)
class UpdateStrategy:
    """A new strategy for every position."""

    strategy: Strategy


@dataclass(frozen=True, slots=True)
class UpdatePositionStrategy:
    """A new strategy for one position."""

    position_id: int
    strategy: Strategy


@dataclass(frozen=True, slots=True)
class Selector:
    """Names a position: exactly one of the two is set."""

    position_id: int | None
    token_account: str | None

    def __str__(self) -> str:
        return str(self.token_account if self.position_id is None else self.position_id)


@dataclass(frozen=True, slots=True)
class ClosePosition:
    """Stop tracking."""

    selector: Selector


@dataclass(frozen=True, slots=True)
class RequestExitSignal:
    """Sell now."""

    selector: Selector
    slippage_bps: int | None


@dataclass(frozen=True, slots=True)
class UpdateWallets:
    """The full new list of wallets."""

    wallet_pubkeys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class UpdateWatchWallets:
    """The full new list of wallets to copy."""

    watch_wallets: tuple[WatchWallet, ...]


@dataclass(frozen=True, slots=True)
class MirrorBuyResult:
    """What became of a mirror buy."""

    mint: str
    success: bool


Command = (
    Ping
    | Configure
    | UpdateStrategy
    | UpdatePositionStrategy
    | ClosePosition
    | RequestExitSignal
    | UpdateWallets
    | UpdateWatchWallets
    | MirrorBuyResult
)


def read_command(message: dict[str, object]) -> Command:
    """One client message. Raises ``BadField`` or ``InvalidStrategy``."""
    fields = Fields(message)
    kind = fields.text("type")
    reader = _READERS.get(kind)
    if reader is None:
        raise BadField(f"unknown message type {kind[:64]!r}")
    return reader(fields)


def _ping(fields: Fields) -> Ping:
    return Ping(fields.integer("client_time_ms"))


def _configure(fields: Fields) -> Configure:
    return Configure(
        wallet_pubkeys=_wallets(fields, legacy=True),
        strategy=read_strategy(fields.child("strategy")),
        send_mode=fields.optional_text("send_mode"),
        tip_lamports=fields.optional_integer("tip_lamports"),
        watch_wallets=_watch_wallets(fields, required=False),
        mirror_config=_mirror_config(fields.child("mirror_config")) if fields.has("mirror_config") else MirrorConfig(),
    )


def _wallets(fields: Fields, *, legacy: bool) -> tuple[str, ...]:
    if legacy and fields.has("wallet_pubkey"):
        if fields.has("wallet_pubkeys"):
            raise BadField("wallet_pubkeys and wallet_pubkey exclude each other")
        return tuple(fields.texts("wallet_pubkey"))
    return tuple(fields.texts("wallet_pubkeys"))


def _watch_wallets(fields: Fields, *, required: bool) -> tuple[WatchWallet, ...]:
    return tuple(_watch_wallet(item) for item in fields.children("watch_wallets", required=required))


def _watch_wallet(fields: Fields) -> WatchWallet:
    return WatchWallet(
        pubkey=fields.pubkey("pubkey"),
        auto_buy=_auto_buy(fields.child("auto_buy")) if fields.has("auto_buy") else None,
        mirror_sell=fields.flag("mirror_sell", default=False),
    )


def _auto_buy(fields: Fields) -> AutoBuy:
    return AutoBuy(
        wallet=fields.pubkey("wallet_pubkey"),
        amount_quote_units=fields.integer("amount_quote_units"),
        amount_usd1_units=fields.optional_integer("amount_usd1_units"),
    )


def _mirror_config(fields: Fields) -> MirrorConfig:
    config = MirrorConfig(
        max_positions_per_wallet=fields.optional_integer("max_positions_per_wallet", most=U32_MAX) or 0,
        cooldown_sec=fields.optional_integer("cooldown_sec") or 0,
        skip_creator_tokens=fields.flag("skip_creator_tokens", default=False),
        max_active_sol=fields.number("max_active_sol", default=0.0),
        buy_slippage_bps=fields.optional_integer("buy_slippage_bps", most=U16_MAX) or 0,
        min_liquidity_sol=fields.optional_number("min_liquidity_sol"),
        max_entry_drift_pct=fields.optional_number("max_entry_drift_pct"),
        max_consecutive_losses=fields.optional_integer("max_consecutive_losses", most=U32_MAX),
    )
    if config.buy_slippage_bps > 10_000:
        raise BadField(f"{fields.name('buy_slippage_bps')} must be at most 10000")
    for name in ("max_active_sol", "min_liquidity_sol", "max_entry_drift_pct"):
        if (getattr(config, name) or 0) < 0:
            raise BadField(f"{fields.name(name)} must not be negative")
    return config


def _selector(fields: Fields) -> Selector:
    selector = Selector(fields.optional_integer("position_id"), fields.optional_text("token_account"))
    if (selector.position_id is None) == (selector.token_account is None):
        raise BadField("exactly one of position_id and token_account is needed")
    return selector


def _request_exit_signal(fields: Fields) -> RequestExitSignal:
    slippage_bps = fields.optional_integer("slippage_bps", most=U16_MAX)
    if slippage_bps is not None and slippage_bps > 10_000:
        raise BadField("slippage_bps must be at most 10000")
    return RequestExitSignal(_selector(fields), slippage_bps)


def _update_position_strategy(fields: Fields) -> UpdatePositionStrategy:
    return UpdatePositionStrategy(fields.integer("position_id"), read_strategy(fields.child("strategy")))


_READERS: dict[str, Callable[[Fields], Command]] = {
    "ping": _ping,
    "configure": _configure,
    "update_strategy": lambda fields: UpdateStrategy(read_strategy(fields.child("strategy"))),
    "update_position_strategy": _update_position_strategy,
    "close_position": lambda fields: ClosePosition(_selector(fields)),
    "request_exit_signal": _request_exit_signal,
    "sell_now": _request_exit_signal,
    "update_wallets": lambda fields: UpdateWallets(_wallets(fields, legacy=False)),
    "update_watch_wallets": lambda fields: UpdateWatchWallets(_watch_wallets(fields, required=True)),
    "mirror_buy_result": lambda fields: MirrorBuyResult(fields.text("mint"), fields.flag("success")),
}


# -- strategies


def read_strategy(fields: Fields) -> Strategy:
    """A strategy object. All zeros are fine: the deadline is the client's own and is not on the wire."""
    numbers = {
        "target_profit_pct": fields.number("target_profit_pct"),
        "stop_loss_pct": fields.number("stop_loss_pct"),
        "trailing_stop_pct": fields.number("trailing_stop_pct", default=0.0),
        "breakeven_trail_pct": fields.number("breakeven_trail_pct", default=0.0),
    }
    sell_on_graduation = fields.flag("sell_on_graduation", default=False)
    liquidity_guard = fields.flag("liquidity_guard", default=False)
    rungs = [
        (
            level,
            level.number("profit_pct"),
            level.number("sell_pct"),
            level.number("trailing_stop_pct", default=0.0),
        )
        for level in fields.children("take_profit_levels")
    ]
    for name, value in numbers.items():
        if value < 0:
            raise InvalidStrategy(f"{fields.name(name)} must not be negative")
    return Strategy(
        target_profit_pct=exact_pct(numbers["target_profit_pct"]),
        stop_loss_pct=exact_pct(numbers["stop_loss_pct"]),
        trailing_stop_pct=exact_pct(numbers["trailing_stop_pct"]),
        sell_on_graduation=sell_on_graduation,
        take_profit_levels=_ladder(rungs),
        liquidity_guard=liquidity_guard,
        breakeven_trail_pct=exact_pct(numbers["breakeven_trail_pct"]),
    )


def _ladder(rungs: list[tuple[Fields, float, float, float]]) -> tuple[Level, ...]:
    last_profit_pct = 0.0
    if len(rungs) > _MAX_LEVELS:
        raise InvalidStrategy(f"take_profit_levels must have at most {_MAX_LEVELS} levels, not {len(rungs)}")
    levels = []
    for fields, profit_pct, sell_pct, trailing_stop_pct in rungs:
        if profit_pct <= last_profit_pct:
            raise InvalidStrategy(f"{fields.name('profit_pct')} must be positive and increasing")
        if not 0 < sell_pct <= 100:
            raise InvalidStrategy(f"{fields.name('sell_pct')} must be above 0 and at most 100")
        if trailing_stop_pct < 0:
            raise InvalidStrategy(f"{fields.name('trailing_stop_pct')} must not be negative")
        last_profit_pct = profit_pct
        levels.append(Level(exact_pct(profit_pct), exact_pct(sell_pct), exact_pct(trailing_stop_pct)))
    return tuple(levels)
