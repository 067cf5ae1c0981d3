"""The wire's types: one frozen slotted class per message and object, and with that the one schema of everything.

A class states its fields in the order in which the server writes them (docs/protocol.md 3 to 5), each with its kind
and what "absent" means. Both decoders, the encoder and the checks are driven by these statements; nothing else in the
package, and no C, knows a field's name. A new message type is a new class here.

Wire classes hold what the wire said: they have no validators, so that a decoder may fill their slots directly. What is
*sent* is checked by the encoder (``codec``), and strategies by ``strategy``. To their users they are frozen attrs
classes (``attrs.fields``, ``evolve``, ``asdict``); but their methods are written once, in ``WireValue``, because attrs
would write and compile them anew for each of the 36 and with that cost a tenth of the package's import. Where a field
is an object, the constructor takes a dict as well.

Units: amounts are atomic units (lamports, USD1 base units, the token's smallest unit); ``*_bps`` are basis points;
``*_pct`` are percentages (5 = 5 %); ``*_ms`` are Unix milliseconds by the server's clock. u64 values above 2**53 occur.

Threads: instances are immutable, any.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple, TypeAlias, TypeVar

import attrs

from lasersell_sync.pubkeys import pubkey_text, pubkey_texts

if TYPE_CHECKING:
    from typing_extensions import dataclass_transform
else:

    def dataclass_transform(**_: object) -> Any:
        """Typing only: tells a checker that ``_wire`` makes constructors."""
        return lambda decorator: decorator


__all__ = [
    "CLIENT_MESSAGES",
    "SERVER_MESSAGES",
    "AutoBuyConfig",
    "BalanceUpdate",
    "ClientMessage",
    "ClosePosition",
    "Configure",
    "ErrorMessage",
    "ExitSignalWithTx",
    "HelloOk",
    "Limits",
    "LiquiditySnapshot",
    "MarketContext",
    "MeteoraDammV2Context",
    "MeteoraDbcContext",
    "MirrorBuyFailed",
    "MirrorBuyResult",
    "MirrorBuySignal",
    "MirrorConfig",
    "MirrorWalletAutoDisabled",
    "Ping",
    "PnlUpdate",
    "Pong",
    "PositionClosed",
    "PositionOpened",
    "PumpFunContext",
    "PumpSwapContext",
    "RaydiumCpmmContext",
    "RaydiumLaunchpadContext",
    "RequestExitSignal",
    "ServerMessage",
    "SlippageBand",
    "StrategyConfig",
    "TakeProfitLevel",
    "TradeTick",
    "UnknownMessage",
    "UpdatePositionStrategy",
    "UpdateStrategy",
    "UpdateWallets",
    "UpdateWatchWallets",
    "WatchWallet",
    "WireField",
    "WireValue",
    "from_mapping",
]

# ── the schema's vocabulary ──────────────────────────────────────────────────────────────────────────────────────


class WireField(NamedTuple):
    """How one field stands on the wire."""

    name: str
    #: ``u64 i64 u32 u16 u8 f64 bool str``, ``object`` (of ``cls``), ``list`` (of ``cls``), or ``str_list``.
    kind: str
    #: A missing required field is an error; any other takes ``default`` when absent.
    required: bool
    default: Any = None
    #: Left out by the writer when the value equals ``default`` (absent optionals, false ``watched``, empty lists).
    omit_default: bool = False
    cls: type[WireValue] | None = None
    #: ``str_list`` only: one bare string is read as a list of one.
    accepts_one: bool = False
    #: What a reader takes for an absent field, where the user who set nothing writes nothing; None: ``default``.
    read_default: Any = None

    @property
    def absent(self) -> Any:
        """What a reader takes when the field is not there."""
        return self.default if self.read_default is None else self.read_default


def _field(kind: str, *, required: bool = True, default: Any = None, omit_default: bool = False, **more: Any) -> Any:
    return WireField("", kind, required, default, omit_default, **more)


# Type checkers read "has a default" off a ``default=`` at the place of use (PEP 681), so those that have one spell it.
def _u64() -> Any:
    return _field("u64")


def _i64() -> Any:
    return _field("i64")


def _u32() -> Any:
    return _field("u32")


def _u16() -> Any:
    return _field("u16")


def _f64() -> Any:
    return _field("f64")


def _str() -> Any:
    return _field("str")


def _bool() -> Any:
    return _field("bool")


def _object(cls: type[WireValue]) -> Any:
    return _field("object", cls=cls)


def _list(cls: type[WireValue]) -> Any:
    return _field("list", cls=cls)


def _one_or_more_str() -> Any:
    return _field("str_list", accepts_one=True)


def _optional(kind: str, *, default: None, cls: type[WireValue] | None = None) -> Any:
    """Absent and null both mean None; None is not written."""
    return _field(kind, required=False, default=default, omit_default=True, cls=cls)


def _unset(kind: str, *, default: None, read_default: Any) -> Any:
    """Not written unless it is set; a reader takes ``read_default`` for what is absent."""
    return _field(kind, required=False, default=default, omit_default=True, read_default=read_default)


def _defaulted(kind: str, *, default: Any) -> Any:
    """Absent means ``default``; always written."""
    return _field(kind, required=False, default=default)


def _omitted(kind: str, *, default: Any, cls: type[WireValue] | None = None) -> Any:
    """Absent means ``default``; the default is not written."""
    return _field(kind, required=False, default=default, omit_default=True, cls=cls)


#: Kinds of fields in which a caller may write a solders Pubkey.
_MAY_HOLD_PUBKEYS: Final = {"str", "str_list"}
_SHOWN_CHARACTERS: Final = 64


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS or not isinstance(value, str) else f"<{len(value)} characters>"


def _restore(cls: type[WireValue], values: tuple[Any, ...]) -> WireValue:
    value = object.__new__(cls)
    for name, item in zip(cls.wire_names, values, strict=True):
        object.__setattr__(value, name, item)
    return value


class _AskAttrs:
    """A class attribute that is asked of the same class as attrs makes it, once somebody wants to know."""

    def __init__(self, question: Callable[[type], Any]) -> None:
        self._question = question

    def __set_name__(self, _: type, name: str) -> None:
        self._name = name

    def __get__(self, _: object, cls: type[WireValue]) -> Any:
        types = cls.__annotations__
        fields = {
            spec.name: attrs.field(type=types.get(spec.name), default=attrs.NOTHING if spec.required else spec.default)
            for spec in cls.wire_fields  # a base has none: the AttributeError tells attrs.has() so
        }
        answer = self._question(attrs.make_class(cls.__name__, fields, frozen=True, kw_only=True))
        setattr(cls, self._name, answer)
        return answer


class WireValue:
    """Base of all wire classes: their methods, and what they say about themselves."""

    __slots__ = ()

    if TYPE_CHECKING:
        #: attrs' own; named here so that checkers accept ``attrs.evolve(message, …)``.
        __attrs_attrs__: ClassVar[tuple[attrs.Attribute[Any], ...]]
    else:
        __attrs_attrs__ = _AskAttrs(attrs.fields)
        __signature__ = _AskAttrs(inspect.signature)
    #: The fields in wire order; filled by the class decorator.
    wire_fields: ClassVar[tuple[WireField, ...]]
    wire_names: ClassVar[tuple[str, ...]]
    #: Old spellings of a field that a reader still takes; both spellings at once are an error.
    wire_aliases: ClassVar[dict[str, str]] = {}
    #: Server values only: null for a field with a default reads as the default (a newer server may write it so).
    null_is_default: ClassVar[bool] = False

    def __init__(self, *positional: Any, **values: Any) -> None:
        self._refuse_wrong_arguments(positional, values)
        for spec in self.wire_fields:
            value = values.get(spec.name, spec.default)
            if spec.kind in _MAY_HOLD_PUBKEYS:
                value = pubkey_texts(pubkey_text(value))
            elif spec.cls is not None:
                value = _from_mappings(spec, spec.cls, value)
            object.__setattr__(self, spec.name, value)

    def _refuse_wrong_arguments(self, positional: tuple[Any, ...], values: dict[str, Any]) -> None:
        cls = type(self).__name__
        names = self.wire_names
        if positional:
            # The values are not repeated: one may be a transaction, or a secret in the wrong place.
            example = ", ".join(f"{name}=…" for name in names[: len(positional)])
            raise TypeError(f"{cls}() takes its fields by name only. Write {cls}({example})")
        missing = [spec.name for spec in self.wire_fields if spec.required and spec.name not in values]
        unknown = [name for name in values if name not in names]
        if unknown:
            near = difflib.get_close_matches(
                unknown[0], [name for name in names if name not in values], n=1, cutoff=0.5
            )
            hint = f"; did you mean {near[0]}?" if near else "."
            raise TypeError(f"{cls}() has no field {', '.join(unknown)}{hint} Its fields: {', '.join(names) or 'none'}")
        if missing:
            raise TypeError(f"{cls}() is missing {', '.join(missing)}. Its fields: {', '.join(names)}")

    if not TYPE_CHECKING:  # checkers know from ``_wire`` that instances are frozen

        def __setattr__(self, name: str, value: object) -> None:
            raise attrs.exceptions.FrozenInstanceError

        def __delattr__(self, name: str) -> None:
            raise attrs.exceptions.FrozenInstanceError

        def __replace__(self, **changes: Any) -> Any:
            return attrs.evolve(self, **changes)

    def _values(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in self.wire_names)

    def __eq__(self, other: object) -> bool:
        if other.__class__ is not self.__class__:
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.wire_names)

    def __hash__(self) -> int:
        return hash((self.__class__, self._values()))

    def __repr__(self) -> str:
        # Long texts (transactions) are told by their length: a repr ends up in logs.
        shown = ", ".join(f"{name}={_shown(getattr(self, name))}" for name in self.wire_names)
        return f"{self.__class__.__name__}({shown})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (self.__class__, self._values())


def from_mapping(cls: type[_V], value: Any, refuse: Callable[[str], Exception]) -> _V:
    """An object in place of a dict, which the official SDK takes; anything else is left for its validator.

    Args:
        cls: the object's class.
        value: what the user gave.
        refuse: makes the error for a dict that has other fields, from words that name them.
    """
    if not isinstance(value, Mapping):
        return value  # type: ignore[no-any-return]
    try:
        return cls(**value)
    except TypeError as error:
        raise refuse(str(error)) from None


def _from_mappings(spec: WireField, cls: type[WireValue], value: Any) -> Any:
    """Objects in place of dicts, which the official SDK takes; anything else is left as it is."""
    if isinstance(value, Mapping):
        return cls(**value)
    if spec.kind == "list" and isinstance(value, (list, tuple)):
        return type(value)([cls(**item) if isinstance(item, Mapping) else item for item in value])
    return value


class ServerValue(WireValue):
    """Base of what the server writes."""

    __slots__ = ()
    null_is_default = True
    #: The word on the wire; of messages only.
    type: ClassVar[str]
    #: A message that comes often, about one position (it has a ``position_id``): it waits in the low lane.
    is_frequent: ClassVar[bool] = False
    #: Of these only the newest of a position matters.
    is_conflated: ClassVar[bool] = False


class ClientValue(WireValue):
    """Base of what the client writes."""

    __slots__ = ()


_C = TypeVar("_C", bound=type[WireValue])
_V = TypeVar("_V", bound=WireValue)


@dataclass_transform(
    frozen_default=True,
    kw_only_default=True,
    eq_default=False,
    field_specifiers=(
        _u64,
        _i64,
        _u32,
        _u16,
        _f64,
        _str,
        _bool,
        _object,
        _list,
        _one_or_more_str,
        _optional,
        _unset,
        _defaulted,
        _omitted,
    ),
)
def _wire(cls: _C) -> _C:
    """``cls`` with a slot for each of its fields, which the class then describes."""
    specs = tuple(spec._replace(name=name) for name, spec in vars(cls).items() if isinstance(spec, WireField))
    names = tuple(spec.name for spec in specs)
    # A class has its slots from birth, so it is born again, without what the first one had for instance dictionaries.
    body = {name: value for name, value in vars(cls).items() if name not in (*names, "__dict__", "__weakref__")}
    body.update(__slots__=names, wire_fields=specs, wire_names=names)
    made: Any = type(cls.__name__, cls.__bases__, body)
    return made  # type: ignore[no-any-return]


# ── objects inside messages ──────────────────────────────────────────────────────────────────────────────────────


@_wire
class Limits(ServerValue):
    """What the tier of this API key allows (docs/protocol.md 8). 0 in a later field: the server did not say."""

    hi_capacity: int = _u32()
    pnl_flush_ms: int = _u64()
    max_positions_per_session: int = _u32()
    max_wallets_per_session: int = _defaulted("u32", default=0)
    max_positions_per_wallet: int = _defaulted("u32", default=0)
    max_sessions_per_api_key: int = _defaulted("u32", default=0)
    max_watch_wallets_per_session: int = _defaulted("u32", default=0)


@_wire
class TakeProfitLevel(ClientValue):
    """One rung of a ladder: at ``profit_pct`` sell ``sell_pct`` of what is left, then trail by ``trailing_stop_pct``.

    Attributes:
        profit_pct: > 0, and larger than the rung before.
        sell_pct: of the remaining tokens, 0 < x ≤ 100.
        trailing_stop_pct: of the entry, for the rest; 0 leaves the trailing stop as it was.
    """

    profit_pct: float = _f64()
    sell_pct: float = _f64()
    trailing_stop_pct: float = _defaulted("f64", default=0.0)


@_wire
class StrategyConfig(ClientValue):
    """When the server should send an exit (docs/protocol.md 6). Percentages of the entry; 0 switches a condition off.

    Attributes:
        target_profit_pct: exit when the profit reaches this.
        stop_loss_pct: exit when the loss reaches this.
        trailing_stop_pct: exit when the profit has fallen this far below its peak, once that peak was above zero.
        sell_on_graduation: exit when a bonding-curve token moves to its AMM pool.
        take_profit_levels: a ladder; a non-empty one replaces the target profit.
        liquidity_guard: scale ladder sells down to what the pool absorbs.
        breakeven_trail_pct: once the profit has reached this, stop at zero profit.
    """

    target_profit_pct: float = _f64()
    stop_loss_pct: float = _f64()
    trailing_stop_pct: float = _defaulted("f64", default=0.0)
    sell_on_graduation: bool = _defaulted("bool", default=False)
    take_profit_levels: tuple[TakeProfitLevel, ...] = _omitted("list", default=(), cls=TakeProfitLevel)
    liquidity_guard: bool = _defaulted("bool", default=False)
    breakeven_trail_pct: float = _defaulted("f64", default=0.0)


@_wire
class SlippageBand(ServerValue):
    """How many tokens can be sold before the price gives way by ``slippage_bps``.

    Attributes:
        slippage_bps: 100, 200, 500 or 1 000 so far.
        max_tokens: atomic units of the token.
        coverage_pct: share of the position that this covers.
    """

    slippage_bps: int = _u16()
    max_tokens: int = _u64()
    coverage_pct: float = _f64()


@_wire
class PumpFunContext(ServerValue):
    """Pump.fun bonding curve; it has no members."""


@_wire
class PumpSwapContext(ServerValue):
    """PumpSwap pool."""

    pool: str = _str()
    global_config: str | None = _optional("str", default=None)


@_wire
class MeteoraDbcContext(ServerValue):
    """Meteora dynamic bonding curve."""

    pool: str = _str()
    config: str = _str()
    quote_mint: str = _str()


@_wire
class MeteoraDammV2Context(ServerValue):
    """Meteora DAMM v2 pool."""

    pool: str = _str()


@_wire
class RaydiumLaunchpadContext(ServerValue):
    """Raydium LaunchLab pool."""

    pool: str = _str()
    config: str = _str()
    platform: str = _str()
    quote_mint: str = _str()
    user_quote_account: str = _str()


@_wire
class RaydiumCpmmContext(ServerValue):
    """Raydium CPMM pool."""

    pool: str = _str()
    config: str = _str()
    quote_mint: str = _str()
    user_quote_account: str = _str()


@_wire
class MarketContext(ServerValue):
    """The market a token trades on; any ``market_type`` is kept as the server wrote it."""

    market_type: str = _str()
    pumpfun: PumpFunContext | None = _optional("object", default=None, cls=PumpFunContext)
    pumpswap: PumpSwapContext | None = _optional("object", default=None, cls=PumpSwapContext)
    meteora_dbc: MeteoraDbcContext | None = _optional("object", default=None, cls=MeteoraDbcContext)
    meteora_damm_v2: MeteoraDammV2Context | None = _optional("object", default=None, cls=MeteoraDammV2Context)
    raydium_launchpad: RaydiumLaunchpadContext | None = _optional("object", default=None, cls=RaydiumLaunchpadContext)
    raydium_cpmm: RaydiumCpmmContext | None = _optional("object", default=None, cls=RaydiumCpmmContext)


@_wire
class AutoBuyConfig(ClientValue):
    """Buy what a watched wallet buys.

    Attributes:
        wallet_pubkey: the wallet of yours that buys.
        amount_quote_units: lamports for each buy on a SOL market.
        amount_usd1_units: USD1 base units for each buy on a USD1 market; None: USD1 markets are not bought.
    """

    wallet_pubkey: str = _str()
    amount_quote_units: int = _u64()
    amount_usd1_units: int | None = _optional("u64", default=None)


@_wire
class WatchWallet(ClientValue):
    """A foreign wallet to follow.

    Attributes:
        mirror_sell: sell a copied position when the watched wallet sells. Official sources disagree: the documentation
            calls it reserved and unused, the protocol crate implements it.
    """

    pubkey: str = _str()
    auto_buy: AutoBuyConfig | None = _optional("object", default=None, cls=AutoBuyConfig)
    mirror_sell: bool = _defaulted("bool", default=False)


@_wire
class MirrorConfig(ClientValue):
    """Limits on copy trading. A field left at None is not written, and the server's own default applies.

    The service documents these defaults: 1 position per wallet, a cooldown of 30 s, 5 SOL, 2 500 basis points. Its
    protocol crate reads absence as 0. Set every limit that you rely on: 0 lifts the limit (for the slippage, 0 means
    the server's default).

    Attributes:
        max_positions_per_wallet: open copies of one watched wallet.
        cooldown_sec: seconds between two copies.
        skip_creator_tokens: skip tokens that the watched wallet created.
        max_active_sol: SOL in open copies.
        buy_slippage_bps: basis points for the copied purchase.
        min_liquidity_sol: SOL that the pool must hold.
        max_entry_drift_pct: percent that the price may have moved since the copied purchase.
        max_consecutive_losses: losses in a row after which copying that wallet is switched off.
    """

    max_positions_per_wallet: int | None = _unset("u32", default=None, read_default=0)
    cooldown_sec: int | None = _unset("u64", default=None, read_default=0)
    skip_creator_tokens: bool | None = _unset("bool", default=None, read_default=False)
    max_active_sol: float | None = _unset("f64", default=None, read_default=0.0)
    buy_slippage_bps: int | None = _unset("u16", default=None, read_default=0)
    min_liquidity_sol: float | None = _optional("f64", default=None)
    max_entry_drift_pct: float | None = _optional("f64", default=None)
    max_consecutive_losses: int | None = _optional("u32", default=None)


# ── server messages (docs/protocol.md 4) ─────────────────────────────────────────────────────────────────────────────


@_wire
class HelloOk(ServerValue):
    """The session is open."""

    type: ClassVar[str] = "hello_ok"
    session_id: int = _u64()
    server_time_ms: int = _u64()
    limits: Limits = _object(Limits)


@_wire
class Pong(ServerValue):
    """The answer to an application ``ping``."""

    type: ClassVar[str] = "pong"
    server_time_ms: int = _u64()


@_wire
class ErrorMessage(ServerValue):
    """The server reports an error; in an open session it is logged as a warning, too.

    Attributes:
        code: an open set; seen are ``wallet_not_registered``, ``invalid_strategy`` and ``capacity_exceeded`` (a limit
            of the tier was reached; the connection stays open).
    """

    type: ClassVar[str] = "error"
    code: str = _str()
    message: str = _str()


@_wire
class PnlUpdate(ServerValue):
    """Profit and loss of one position now (low lane).

    Attributes:
        profit_units: proceeds minus entry, in quote units; negative is a loss.
        proceeds_units: what selling everything now would return after slippage and fees.
    """

    type: ClassVar[str] = "pnl_update"
    is_frequent = True
    is_conflated = True
    position_id: int = _u64()
    profit_units: int = _i64()
    proceeds_units: int = _u64()
    server_time_ms: int = _u64()
    token_price_quote: int | None = _optional("u64", default=None)
    market_cap_quote: int | None = _optional("u64", default=None)
    watched: bool = _omitted("bool", default=False)


@_wire
class LiquiditySnapshot(ServerValue):
    """What a position's pool absorbs now (low lane); ``liquidity_trend`` is growing, stable or draining."""

    type: ClassVar[str] = "liquidity_snapshot"
    is_frequent = True
    is_conflated = True
    position_id: int = _u64()
    bands: tuple[SlippageBand, ...] = _list(SlippageBand)
    liquidity_trend: str = _str()
    server_time_ms: int = _u64()
    watched: bool = _omitted("bool", default=False)


@_wire
class TradeTick(ServerValue):
    """One trade in a position's market (low lane); ``side`` is buy or sell."""

    type: ClassVar[str] = "trade_tick"
    is_frequent = True
    position_id: int = _u64()
    time_ms: int = _u64()
    side: str = _str()
    token_amount: int = _u64()
    quote_amount: int = _u64()
    price_quote: int = _u64()
    maker: str | None = _optional("str", default=None)
    tx_signature: str | None = _optional("str", default=None)
    watched: bool = _omitted("bool", default=False)


@_wire
class BalanceUpdate(ServerValue):
    """What a wallet holds of a token now."""

    type: ClassVar[str] = "balance_update"
    wallet_pubkey: str = _str()
    mint: str = _str()
    token_account: str | None = _optional("str", default=None)
    token_program: str | None = _optional("str", default=None)
    tokens: int = _u64()
    slot: int = _u64()


@_wire
class PositionOpened(ServerValue):
    """A position is tracked from now on, or is announced again after a reconnect.

    Attributes:
        entry_quote_units: what it cost, in quote units.
        opened_at_ms: when it was opened, by the server's clock.
        watched: it belongs to a wallet that is only watched; its exits are not yours to sell.
        mirror_source: the watched wallet whose buy this one copied.
    """

    type: ClassVar[str] = "position_opened"
    position_id: int = _u64()
    wallet_pubkey: str = _str()
    mint: str = _str()
    token_account: str = _str()
    token_program: str | None = _optional("str", default=None)
    tokens: int = _u64()
    entry_quote_units: int = _u64()
    market_context: MarketContext | None = _optional("object", default=None, cls=MarketContext)
    token_name: str | None = _optional("str", default=None)
    token_symbol: str | None = _optional("str", default=None)
    token_decimals: int | None = _optional("u8", default=None)
    token_price_quote: int | None = _optional("u64", default=None)
    market_cap_quote: int | None = _optional("u64", default=None)
    pool_liquidity_quote: int | None = _optional("u64", default=None)
    opened_at_ms: int | None = _optional("u64", default=None)
    slot: int = _u64()
    watched: bool = _omitted("bool", default=False)
    mirror_source: str | None = _optional("str", default=None)


@_wire
class PositionClosed(ServerValue):
    """A position is not tracked any more."""

    type: ClassVar[str] = "position_closed"
    position_id: int = _u64()
    wallet_pubkey: str = _str()
    mint: str = _str()
    token_account: str | None = _optional("str", default=None)
    reason: str = _str()
    mirror_source: str | None = _optional("str", default=None)
    slot: int = _u64()
    watched: bool = _omitted("bool", default=False)


@_wire
class ExitSignalWithTx(ServerValue):
    """A threshold is met: here is the unsigned sale.

    Attributes:
        reason: as the server wrote it; several spellings mean the same (docs/protocol.md 4).
        unsigned_tx_b64: standard base64 of the transaction, to be checked and signed.
        sell_tokens: a ladder level's part, in the token's atomic units; None means the whole position.
        level_index: which ladder level, from 0.
    """

    type: ClassVar[str] = "exit_signal_with_tx"
    session_id: int = _u64()
    position_id: int = _u64()
    wallet_pubkey: str = _str()
    mint: str = _str()
    token_account: str | None = _optional("str", default=None)
    token_program: str | None = _optional("str", default=None)
    position_tokens: int = _u64()
    profit_units: int = _i64()
    reason: str = _str()
    triggered_at_ms: int = _u64()
    market_context: MarketContext | None = _optional("object", default=None, cls=MarketContext)
    unsigned_tx_b64: str = _str()
    sell_tokens: int | None = _optional("u64", default=None)
    level_index: int | None = _optional("u32", default=None)
    mirror_source: str | None = _optional("str", default=None)
    watched: bool = _omitted("bool", default=False)


@_wire
class MirrorBuySignal(ServerValue):
    """A watched wallet bought: here is the unsigned copy of that buy. ``input`` is SOL or USD1."""

    type: ClassVar[str] = "mirror_buy_signal"
    session_id: int = _u64()
    watched_wallet: str = _str()
    mint: str = _str()
    user_wallet: str = _str()
    amount_quote_units: int = _u64()
    input: str = _str()
    unsigned_tx_b64: str = _str()
    slippage_bps: int = _u16()
    send_mode: str | None = _optional("str", default=None)
    tip_lamports: int | None = _optional("u64", default=None)
    market_context: MarketContext | None = _optional("object", default=None, cls=MarketContext)


@_wire
class MirrorBuyFailed(ServerValue):
    """A copy of a watched wallet's buy was not made.

    Attributes:
        reason: an open set; documented are ``insufficient_balance``, ``no_route``, ``below_min_liquidity``,
            ``cooldown_active`` and ``max_positions_reached``.
    """

    type: ClassVar[str] = "mirror_buy_failed"
    watched_wallet: str = _str()
    mint: str = _str()
    reason: str = _str()


@_wire
class MirrorWalletAutoDisabled(ServerValue):
    """Copying a watched wallet was switched off after too many losses.

    Attributes:
        reason: ``consecutive_loss_limit_reached`` or ``consecutive_losses``: official sources name both.
        loss_count: losses in a row.
    """

    type: ClassVar[str] = "mirror_wallet_auto_disabled"
    watched_wallet: str = _str()
    reason: str = _str()
    loss_count: int = _u32()


@attrs.frozen(kw_only=False, weakref_slot=False)
class UnknownMessage:
    """A well-formed message of a type this version does not know; newer servers may send them.

    Attributes:
        type: the wire's type name.
        raw: the bytes received.
    """

    type: str
    raw: bytes = attrs.field(repr=lambda raw: f"<{len(raw)} bytes>")


# ── client messages (docs/protocol.md 5) ─────────────────────────────────────────────────────────────────────────────


@_wire
class Ping(ClientValue):
    """Asks for a ``pong``."""

    type: ClassVar[str] = "ping"
    client_time_ms: int = _u64()


@_wire
class Configure(ClientValue):
    """The first message of every session."""

    type: ClassVar[str] = "configure"
    wire_aliases = {"wallet_pubkey": "wallet_pubkeys"}  # noqa: RUF012 - a ClassVar of the base
    wallet_pubkeys: tuple[str, ...] = _one_or_more_str()
    strategy: StrategyConfig = _object(StrategyConfig)
    send_mode: str | None = _optional("str", default=None)
    tip_lamports: int | None = _optional("u64", default=None)
    watch_wallets: tuple[WatchWallet, ...] = _omitted("list", default=(), cls=WatchWallet)
    mirror_config: MirrorConfig | None = _optional("object", default=None, cls=MirrorConfig)


@_wire
class UpdateStrategy(ClientValue):
    """Replaces the strategy of all positions."""

    type: ClassVar[str] = "update_strategy"
    strategy: StrategyConfig = _object(StrategyConfig)


@_wire
class UpdatePositionStrategy(ClientValue):
    """Replaces the strategy of one position."""

    type: ClassVar[str] = "update_position_strategy"
    position_id: int = _u64()
    strategy: StrategyConfig = _object(StrategyConfig)


@_wire
class ClosePosition(ClientValue):
    """Stops tracking a position; exactly one selector."""

    type: ClassVar[str] = "close_position"
    position_id: int | None = _optional("u64", default=None)
    token_account: str | None = _optional("str", default=None)


@_wire
class RequestExitSignal(ClientValue):
    """Asks for an exit now; exactly one selector. ``slippage_bps`` 0 to 65 535, None for the server's choice."""

    type: ClassVar[str] = "request_exit_signal"
    position_id: int | None = _optional("u64", default=None)
    token_account: str | None = _optional("str", default=None)
    slippage_bps: int | None = _optional("u16", default=None)


@_wire
class UpdateWallets(ClientValue):
    """The full new list of wallets; positions of removed ones stay until closed."""

    type: ClassVar[str] = "update_wallets"
    wallet_pubkeys: tuple[str, ...] = _one_or_more_str()


@_wire
class UpdateWatchWallets(ClientValue):
    """The full new list of watched wallets."""

    type: ClassVar[str] = "update_watch_wallets"
    watch_wallets: tuple[WatchWallet, ...] = _list(WatchWallet)


@_wire
class MirrorBuyResult(ClientValue):
    """Tells whether a ``mirror_buy_signal`` was signed and submitted."""

    type: ClassVar[str] = "mirror_buy_result"
    mint: str = _str()
    success: bool = _bool()


ServerMessage: TypeAlias = (
    HelloOk
    | Pong
    | ErrorMessage
    | PnlUpdate
    | LiquiditySnapshot
    | TradeTick
    | BalanceUpdate
    | PositionOpened
    | PositionClosed
    | ExitSignalWithTx
    | MirrorBuySignal
    | MirrorBuyFailed
    | MirrorWalletAutoDisabled
    | UnknownMessage
)
ClientMessage: TypeAlias = (
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

#: Wire name to class, for the decoders. ``sell_now`` is what old clients call ``request_exit_signal``.
SERVER_MESSAGES: Final[dict[str, type[ServerValue]]] = {
    cls.type: cls
    for cls in (
        *(HelloOk, Pong, ErrorMessage, PnlUpdate, LiquiditySnapshot, TradeTick, BalanceUpdate, PositionOpened),
        *(PositionClosed, ExitSignalWithTx, MirrorBuySignal, MirrorBuyFailed, MirrorWalletAutoDisabled),
    )
}
CLIENT_MESSAGES: Final[dict[str, type[ClientValue]]] = {
    **{
        cls.type: cls
        for cls in (
            *(Ping, Configure, UpdateStrategy, UpdatePositionStrategy, ClosePosition, RequestExitSignal),
            *(UpdateWallets, UpdateWatchWallets, MirrorBuyResult),
        )
    },
    "sell_now": RequestExitSignal,
}
