"""What is asked of the REST API, checked before it is sent, and what it answers (docs/protocol.md 7)."""

from __future__ import annotations

from enum import Enum
from typing import Any, Final

import attrs

from lasersell_sync.exceptions import ConfigurationError
from lasersell_sync.messages import MarketContext, WireValue, from_mapping
from lasersell_sync.pubkeys import pubkey_text, require_pubkey

__all__ = ["BuildBuyTxRequest", "BuildSellTxRequest", "BuildTxResponse", "SellOutput"]

ASSETS: Final = ("SOL", "USD1")

_SEND_MODES = ("rpc", "helius_sender", "astralane")
_U64_MAX = 2**64 - 1
_BPS_MAX = 10_000
_PARTNER_BPS_MAX = 50
_PARTNER_LAMPORTS_MAX = 50_000_000


class SellOutput(str, Enum):
    """What a sale pays out."""

    SOL = "SOL"
    USD1 = "USD1"


# ── checks ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _shown(value: object) -> str:
    """Numbers and short words as they are; of anything else the type: the wrong argument may be a secret key."""
    if isinstance(value, (int, float)) or (isinstance(value, str) and len(value) <= 20):
        return repr(value)
    return f"a {type(value).__name__}"


def _whole(low: int, high: int, unit: str) -> Any:
    """A validator: an int from ``low`` to ``high``, or None where the field allows it."""

    def check(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
        if value is None and attribute.default is None:
            return
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ConfigurationError(
                attribute.name, f"{_shown(value)} is not a whole number of {unit} from {low} to {high}"
            )

    return check


def _pubkey(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if value is not None or attribute.default is not None:
        require_pubkey(attribute.name, value)


def _text(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if value is not None and (not isinstance(value, str) or not value):
        raise ConfigurationError(attribute.name, "a non-empty str, or None, is needed")


def _send_mode(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if value is not None and value not in _SEND_MODES:
        raise ConfigurationError(attribute.name, f"{_shown(value)} is not one of {', '.join(_SEND_MODES)}")


def _market_context(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if value is not None and not isinstance(value, MarketContext):
        raise ConfigurationError(attribute.name, f"a MarketContext, or None, is needed, not {type(value).__name__}")


def _to_market_context(value: Any) -> Any:
    """A dict as the official SDK takes it; anything else as it is, for the validator to name."""
    return from_mapping(MarketContext, value, lambda problem: ConfigurationError("market_context", problem))


def _asset(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if value not in ASSETS:
        raise ConfigurationError(attribute.name, f"{_shown(value)} is not 'SOL' or 'USD1'")


def _to_sell_output(value: Any) -> Any:
    """``"SOL"`` as ``SellOutput.SOL``; anything else as it is, for the validator to name."""
    return SellOutput(value) if value in ASSETS else value


def _to_plain_str(value: Any) -> Any:
    return value.value if isinstance(value, SellOutput) else value


# ── requests and answers ─────────────────────────────────────────────────────────────────────────────────────────


@attrs.frozen
class _BuildTxRequest:
    """What sales and purchases share: who trades what, and the optional fields of both."""

    mint: str = attrs.field(converter=pubkey_text, validator=_pubkey)
    user_pubkey: str = attrs.field(converter=pubkey_text, validator=_pubkey)
    mode: str | None = attrs.field(default=None, validator=_text, kw_only=True)
    send_mode: str | None = attrs.field(default=None, validator=_send_mode, kw_only=True)
    tip_lamports: int | None = attrs.field(default=None, validator=_whole(0, _U64_MAX, "lamports"), kw_only=True)
    partner_fee_recipient: str | None = attrs.field(
        default=None, converter=pubkey_text, validator=_pubkey, kw_only=True
    )
    partner_fee_bps: int | None = attrs.field(
        default=None, validator=_whole(0, _PARTNER_BPS_MAX, "basis points"), kw_only=True
    )
    partner_fee_lamports: int | None = attrs.field(
        default=None, validator=_whole(0, _PARTNER_LAMPORTS_MAX, "lamports"), kw_only=True
    )

    def __attrs_post_init__(self) -> None:
        if self.partner_fee_bps is not None and self.partner_fee_lamports is not None:
            raise ConfigurationError("partner_fee_lamports", "give partner_fee_bps or partner_fee_lamports, not both")

    def to_payload(self) -> dict[str, object]:
        """The request's JSON object; optional fields that are None are left out."""
        return {name: _plain(value) for name, value in attrs.asdict(self, recurse=False).items() if value is not None}


@attrs.frozen
class BuildSellTxRequest(_BuildTxRequest):
    """A sale to be built (``POST /v1/sell``, docs/protocol.md 7).

    Args:
        mint: the token's mint, base58.
        user_pubkey: the selling wallet, base58.
        amount_tokens: the token's atomic units; 0 sells the whole balance.
        output: what to be paid in.
        slippage_bps: basis points, 0 to 10 000.
        mode: passed on as it is; by keyword only, as all that follow.
        market_context: where the token trades, when known (``PositionOpened.market_context``); spares a look-up.
        send_mode: ``rpc``, ``helius_sender`` or ``astralane``: how it will be sent.
        tip_lamports: tip for that sender.
        partner_fee_recipient: wallet that gets the partner fee, base58.
        partner_fee_bps: 0 to 50; excludes ``partner_fee_lamports``. Partner fees need tier 2.
        partner_fee_lamports: 0 to 50 000 000.

    Raises:
        ConfigurationError: a value out of range; names the field.

    Threads: immutable, any.
    """

    amount_tokens: int = attrs.field(validator=_whole(0, _U64_MAX, "atomic units"))
    output: SellOutput = attrs.field(converter=_to_sell_output, validator=_asset)
    slippage_bps: int = attrs.field(validator=_whole(0, _BPS_MAX, "basis points"))
    market_context: MarketContext | None = attrs.field(
        default=None, converter=_to_market_context, validator=_market_context, kw_only=True
    )


@attrs.frozen
class BuildBuyTxRequest(_BuildTxRequest):
    """A purchase to be built (``POST /v1/buy``, docs/protocol.md 7).

    Args:
        mint: the token's mint, base58.
        user_pubkey: the buying wallet, base58.
        slippage_bps: basis points, 0 to 10 000.
        amount_in_total: what to spend, in lamports or USD1 base units; excludes ``amount``.
        amount: what to spend, in SOL or USD1, above 0; excludes ``amount_in_total``.
        input: ``SOL`` or ``USD1``: what to pay with.
        mode: passed on as it is; by keyword only, as all that follow.
        send_mode: ``rpc``, ``helius_sender`` or ``astralane``: how it will be sent.
        tip_lamports: tip for that sender.
        partner_fee_recipient: wallet that gets the partner fee, base58.
        partner_fee_bps: 0 to 50; excludes ``partner_fee_lamports``. Partner fees need tier 2.
        partner_fee_lamports: 0 to 50 000 000.

    Raises:
        ConfigurationError: a value out of range; names the field.

    Threads: immutable, any.
    """

    slippage_bps: int = attrs.field(validator=_whole(0, _BPS_MAX, "basis points"))
    amount_in_total: int | None = attrs.field(default=None, validator=_whole(1, _U64_MAX, "atomic units"))
    amount: float | None = attrs.field(default=None)
    input: str = attrs.field(default="SOL", converter=_to_plain_str, validator=_asset)

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        amount = self.amount
        if (amount is None) == (self.amount_in_total is None):
            raise ConfigurationError("amount", "give exactly one of amount and amount_in_total")
        if amount is None:
            return
        # The upper bound refuses infinity too; comparing, unlike isfinite, takes an int of any size.
        is_number = isinstance(amount, (int, float)) and not isinstance(amount, bool)
        if not is_number or not 0 < amount <= _U64_MAX:
            raise ConfigurationError(
                "amount", f"{_shown(amount)} is not a positive number of SOL or USD1 (exact amounts: amount_in_total)"
            )


def _plain(value: object) -> object:
    """What json.dumps writes for it; wire objects by their own schema, without the fields that are not there."""
    if isinstance(value, WireValue):
        fields = ((name, getattr(value, name)) for name in value.wire_names)
        return {name: _plain(item) for name, item in fields if item is not None}
    return value.value if isinstance(value, SellOutput) else value


@attrs.frozen
class BuildTxResponse:
    """An unsigned transaction, to be checked and signed.

    Attributes:
        tx: standard base64.
        route: the server's ``{"market_type", "pool_id"?}``, or None.
        debug: whatever the server added, or None.
    """

    tx: str = attrs.field(repr=lambda tx: f"<{len(tx)} characters>")
    route: Any = None
    debug: Any = attrs.field(default=None, repr=False)
