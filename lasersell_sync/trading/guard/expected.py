"""What the trade should be: the signal or request, what the session knows, and the guard's options."""

from __future__ import annotations

from collections.abc import Collection, Container, Mapping
from decimal import ROUND_CEILING, Decimal
from enum import Enum
from typing import Any, Final

import attrs

from lasersell_sync.exceptions import ConfigurationError
from lasersell_sync.messages import ExitSignalWithTx, MirrorBuySignal, PositionOpened
from lasersell_sync.trading.guard.addresses import AnnouncedMarket, announced_market, from_text, require_address
from lasersell_sync.trading.rest.tx_requests import BuildBuyTxRequest, BuildSellTxRequest, SellOutput
from lasersell_sync.trading.solana.send_targets import SendTargetRpc

__all__ = [
    "BUY",
    "NOTHING_KNOWN",
    "SELL",
    "Expected",
    "GuardOptions",
    "OpaqueMode",
    "Request",
    "Signal",
    "TradeContext",
    "expected_trade",
    "opaque_mode",
]


# ── What a session knows about a position beyond the signal that sells it ───────────────────────────────────────────


_U64_MAX = 2**64 - 1
_BPS_MAX = 10_000


def _whole(most: int) -> Any:
    def check(_: object, attribute: attrs.Attribute[int | None], value: object) -> None:
        if value is None:
            return
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
            shown = repr(value) if isinstance(value, (int, float)) else f"a {type(value).__name__}"
            raise ConfigurationError(attribute.name, f"{shown} is not a whole number from 0 to {most}")

    return check


def _announcement(_: object, __: attrs.Attribute[PositionOpened | None], value: object) -> None:
    if value is not None and not isinstance(value, PositionOpened):
        raise ConfigurationError("announcement", f"a {type(value).__name__} is not a PositionOpened")


@attrs.frozen(kw_only=True)
class TradeContext:
    """What a session knows about a position beyond the signal that sells it; ``AutoSeller`` fills it.

    ``SigningGuard.check`` compares a sale's price and pool with it. None in a field: not known.

    Args:
        announcement: the newest ``position_opened`` of the position.
        is_announced: False: no link of the session announced the position, and the journal does not have it.
        position_tokens: the balance now, in the token's smallest units; default: as in the announcement.
        proceeds_units: the newest ``proceeds_units`` of a ``pnl_update``, which is at most 10 s old.
        own_token_accounts: token accounts that the wallets of this session are known to own, base58: anything that
            answers ``in``. A transaction of a program whose layout is not known must not name them.
        min_context_slot: the slot in which the position was seen last; default: the announcement's. A simulation from
            an older state says nothing.
        slippage_bps: the slippage that the transaction was asked for with, from 0 to 10 000 basis points.
        tip_lamports: the tip that the stream was configured with, in lamports.
        minimum_tip_lamports: the largest minimum of the targets that the transaction is sent to, in lamports.

        never_sell: the mints that are never sold, 32 bytes each, in place of the guard's list.

    Raises:
        ConfigurationError: a value out of range, or an announcement that is none.

    Threads: immutable, any.
    """

    announcement: PositionOpened | None = attrs.field(default=None, validator=_announcement)
    is_announced: bool | None = None
    position_tokens: int | None = attrs.field(default=None, validator=_whole(_U64_MAX))
    proceeds_units: int | None = attrs.field(default=None, validator=_whole(_U64_MAX))
    own_token_accounts: Container[str] = attrs.field(default=(), eq=False, repr=False)
    min_context_slot: int | None = attrs.field(default=None, validator=_whole(_U64_MAX))
    slippage_bps: int | None = attrs.field(default=None, validator=_whole(_BPS_MAX))
    tip_lamports: int | None = attrs.field(default=None, validator=_whole(_U64_MAX))
    minimum_tip_lamports: int | None = attrs.field(default=None, validator=_whole(_U64_MAX))
    never_sell: frozenset[bytes] | None = None

    @property
    def newest_slot(self) -> int | None:
        """The newest slot in which the position is known to have been there."""
        announced = None if self.announcement is None else self.announcement.slot
        return max((slot for slot in (self.min_context_slot, announced) if slot is not None), default=None)


NOTHING_KNOWN: Final = TradeContext()


# ── What a signing guard was told at its construction, checked ──────────────────────────────────────────────────────


_MAX_TIMEOUT_S = 60


class OpaqueMode(str, Enum):
    """What becomes of a program whose layout nobody knows."""

    SIMULATE = "simulate"
    STATIC = "static"
    REFUSE = "refuse"


def opaque_mode(value: object) -> OpaqueMode:
    """What an argument ``opaque`` means.

    Raises:
        ConfigurationError: none of the three.
    """
    try:
        return OpaqueMode(value)
    except ValueError:
        shown = repr(value) if isinstance(value, str) else f"a {type(value).__name__}"
        raise ConfigurationError("opaque", f"{shown} is not 'simulate', 'static' or 'refuse'") from None


@attrs.frozen(kw_only=True)
class GuardOptions:
    """The arguments of ``SigningGuard``, checked; its docstring explains them."""

    max_buy_lamports: int | None
    max_buy_usd1_units: int | None
    max_buy_usdc_units: int | None
    max_tip_lamports: int
    max_partner_fee_lamports: int
    max_priority_fee_lamports: int
    max_rent_lamports: int
    partner: str | None
    own_accounts: tuple[str, ...]
    tip_accounts: tuple[str, ...]
    max_slippage_bps: int
    never_sell: tuple[str, ...]
    allow: Mapping[str, Collection[str]]
    usdc_quotes: bool
    min_usd1_per_sol: float | None
    layouts: str | None
    rpc: tuple[SendTargetRpc, ...]
    service_programs: tuple[str, ...]
    co_signers: tuple[str, ...]
    opaque: OpaqueMode
    simulation_timeout_s: float
    max_unsimulated_lamports: int

    def __attrs_post_init__(self) -> None:
        for name in ("max_buy_lamports", "max_buy_usd1_units", "max_buy_usdc_units"):
            if getattr(self, name) is not None:
                _require_amount(name, getattr(self, name))
        for name in (
            "max_tip_lamports", "max_partner_fee_lamports", "max_priority_fee_lamports", "max_rent_lamports",
            "max_unsimulated_lamports",
        ):  # fmt: skip
            _require_amount(name, getattr(self, name))
        limit_s = self.simulation_timeout_s
        if isinstance(limit_s, bool) or not isinstance(limit_s, (int, float)) or not 0 < limit_s <= _MAX_TIMEOUT_S:
            raise ConfigurationError(
                "simulation_timeout_s", f"a number of seconds above 0 and up to {_MAX_TIMEOUT_S} is needed"
            )
        _require_amount("max_slippage_bps", self.max_slippage_bps, _BPS_MAX)
        if not isinstance(self.usdc_quotes, bool):
            raise ConfigurationError("usdc_quotes", f"a {type(self.usdc_quotes).__name__} is not True or False")
        if self.max_buy_usdc_units is not None and not self.usdc_quotes:
            raise ConfigurationError("max_buy_usdc_units", "nothing is bought with USDC without usdc_quotes=True")
        rate = self.min_usd1_per_sol
        if rate is not None and (
            isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 < rate < float("inf")
        ):
            raise ConfigurationError("min_usd1_per_sol", f"{rate!r} is not a positive number of USD1 for one SOL")


def _require_amount(field: str, value: object, most: int = _U64_MAX) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        shown = repr(value) if isinstance(value, (int, float)) else f"a {type(value).__name__}"
        raise ConfigurationError(field, f"{shown} is not a whole number from 0 to {most}")


# ── What a transaction is supposed to be, by the signal that brought it or the request that asked for it ────────────


SELL = "sale"
BUY = "purchase"

Signal = ExitSignalWithTx | MirrorBuySignal
Request = BuildSellTxRequest | BuildBuyTxRequest

_BPS = 10_000
_DECIMALS = {"SOL": 9, "USD1": 6}


# Not frozen, though nobody changes it once it is made: to write the fields of a frozen one would cost twice as much.
@attrs.define(eq=False)
class Expected:
    """What is known about a trade; None: nobody said.

    Attributes:
        signer: the wallet that is about to sign.
        wallet: the wallet that the trade is for.
        side: ``sale`` or ``purchase``.
        mint: the token.
        token_account: where a sale's tokens are, says the signal; they may be taken from there, never sent there.
        max_tokens: a sale may sell so many, in the token's smallest units.
        currency: what a purchase is paid with, ``SOL`` or ``USD1``.
        max_spend: a purchase may cost so much, in lamports or USD1 base units.
        output: what a sale is to pay, ``SOL`` or ``USD1``, because the user's request says so.
        asked_by_user: whether these are the user's words; a signal's are the server's.
        partner: who may get a partner fee, because the user's request says so.
        partner_fee_bps: its share of the trade, in basis points.
        partner_fee_lamports: its fixed amount.
        tip_lamports: the tip that was asked for.
        send_mode: how the transaction is to be sent, says the user's request.
        context: what the session knows about the position.
        held_tokens: the whole position, in the token's smallest units.
        reference_units: what selling the whole position should bring, in lamports or USD1 base units; may be negative.
        market: where the position trades, by its announcement, else by the signal or request itself.
        slippage_bps: what a sale may bring less than that, in basis points; None: as the guard's limit says.
    """

    signer: bytes
    wallet: bytes | None = None
    side: str | None = None
    mint: bytes | None = None
    token_account: bytes | None = None
    max_tokens: int | None = None
    currency: str | None = None
    max_spend: int | None = None
    output: str | None = None
    asked_by_user: bool = False
    partner: bytes | None = None
    partner_fee_bps: int | None = None
    partner_fee_lamports: int | None = None
    tip_lamports: int | None = None
    send_mode: str | None = None
    context: TradeContext = NOTHING_KNOWN
    held_tokens: int | None = None
    reference_units: int | None = None
    market: AnnouncedMarket | None = None
    slippage_bps: int | None = None

    def least_proceeds(self, tokens: int, max_slippage_bps: int) -> int:
        """The floor: the least that a sale of so many tokens must bring; 1 where nothing is known of its price.

        Args:
            tokens: what is sold, in the token's smallest units.
            max_slippage_bps: the guard's limit, for a transaction that nobody asked for with a slippage.
        """
        slippage_bps = max_slippage_bps if self.slippage_bps is None else self.slippage_bps
        # A market rounds down once more for a part than for the whole that its share is taken of.
        rounding_units = 1 if self._is_part(tokens) else 0
        return max(1, (self.reference_of(tokens) - rounding_units) * (_BPS - slippage_bps) // _BPS)

    def reference_of(self, tokens: int) -> int:
        """What selling so many tokens should bring, in lamports or USD1 base units; 0 where nothing is known."""
        if self.reference_units is None or self.reference_units <= 0:
            return 0
        if self.held_tokens and self._is_part(tokens):
            return self.reference_units * tokens // self.held_tokens
        return self.reference_units

    def _is_part(self, tokens: int) -> bool:
        """Whether so many tokens are known to be less than all."""
        return self.held_tokens is not None and tokens < self.held_tokens


def expected_trade(signer: bytes, source: Signal | Request | None, context: TradeContext | None = None) -> Expected:
    """From a signal, a request, or nothing, and what the session knows about the position.

    Raises:
        ConfigurationError: it names something that is not an address, or is none of the three.
        ValueError: a signal names something that is not an address.
    """
    announcement = None if context is None else context.announcement
    place = None if announcement is None else announcement.market_context
    if place is None and isinstance(source, (ExitSignalWithTx, MirrorBuySignal, BuildSellTxRequest)):
        place = source.market_context
    expected = _from_source(signer, source, None if place is None else announced_market(place))
    if context is not None:
        _add_context(expected, source, context)
    return expected


def _from_source(signer: bytes, source: Signal | Request | None, market: AnnouncedMarket | None) -> Expected:
    if source is None:
        return Expected(signer, market=market)
    if isinstance(source, ExitSignalWithTx):
        account = source.token_account
        return Expected(
            signer, from_text(source.wallet_pubkey), SELL, from_text(source.mint),
            token_account=None if account is None else from_text(account),
            max_tokens=source.position_tokens if source.sell_tokens is None else source.sell_tokens, market=market,
        )  # fmt: skip
    if isinstance(source, MirrorBuySignal):
        return Expected(
            signer, from_text(source.user_wallet), BUY, from_text(source.mint),
            currency=source.input, max_spend=_with_slippage(source.amount_quote_units, source.slippage_bps),
            market=market,
        )  # fmt: skip
    if isinstance(source, (BuildSellTxRequest, BuildBuyTxRequest)):
        return _requested(signer, source, market)
    raise ConfigurationError(
        "request", f"a {type(source).__name__} is neither a BuildSellTxRequest nor a BuildBuyTxRequest"
    )


def _requested(signer: bytes, request: Request, market: AnnouncedMarket | None) -> Expected:
    recipient = request.partner_fee_recipient
    expected = Expected(
        signer, require_address("user_pubkey", request.user_pubkey), mint=require_address("mint", request.mint),
        asked_by_user=True, partner=None if recipient is None else require_address("partner_fee_recipient", recipient),
        partner_fee_bps=request.partner_fee_bps, partner_fee_lamports=request.partner_fee_lamports,
        tip_lamports=request.tip_lamports, send_mode=request.send_mode, slippage_bps=request.slippage_bps,
        market=market,
    )  # fmt: skip
    if isinstance(request, BuildSellTxRequest):
        expected.side, expected.max_tokens = SELL, request.amount_tokens or None
        expected.output = SellOutput(request.output).value
        return expected
    budget = _atomic(request.amount, request.input) if request.amount_in_total is None else request.amount_in_total
    expected.side, expected.currency = BUY, request.input
    expected.max_spend = _with_slippage(budget, request.slippage_bps)
    return expected


# ── what a sale should bring ─────────────────────────────────────────────────────────────────────────────────────


def _add_context(expected: Expected, source: Signal | Request | None, context: TradeContext) -> None:
    signal = source if isinstance(source, ExitSignalWithTx) else None
    held = _held_tokens(signal, context)
    expected.context, expected.held_tokens = context, held
    expected.slippage_bps = source.slippage_bps if isinstance(source, BuildSellTxRequest) else context.slippage_bps
    expected.reference_units = _reference_units(signal, held, context)


def _held_tokens(signal: ExitSignalWithTx | None, context: TradeContext) -> int | None:
    """The least that anybody says: a larger whole would make the price of a part of it smaller."""
    announced = None if context.announcement is None else context.announcement.tokens
    known = announced if context.position_tokens is None else context.position_tokens
    said = None if signal is None else signal.position_tokens
    return min((tokens for tokens in (known, said) if tokens is not None), default=None)


def _reference_units(signal: ExitSignalWithTx | None, held: int | None, context: TradeContext) -> int | None:
    """Of the whole position: the smaller of entry and profit, and of the newest proceeds."""
    found: list[int] = [] if context.proceeds_units is None else [context.proceeds_units]
    opened = context.announcement
    if signal is not None and opened is not None:
        entry = opened.entry_quote_units
        if held is not None and held < opened.tokens:
            # A part was sold since, and its cost went with it.
            entry = entry * held // opened.tokens
        found.append(entry + signal.profit_units)
    return min(found, default=None)


def _atomic(amount: float | None, currency: str) -> int:
    """Human units in smallest ones; the server may round to the nearest, so that a half is given."""
    exact = Decimal(repr(amount or 0)).scaleb(_DECIMALS[currency])
    return int(exact.to_integral_value(ROUND_CEILING))


def _with_slippage(budget: int, slippage_bps: int) -> int:
    return budget * (_BPS + slippage_bps) // _BPS
