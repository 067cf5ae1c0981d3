"""What a transaction is supposed to be, by the signal that brought it or the request that asked for it."""

from __future__ import annotations

from decimal import ROUND_CEILING, Decimal
from typing import NamedTuple

from lasersell_sync.exceptions import ConfigurationError
from lasersell_sync.messages import ExitSignalWithTx, MirrorBuySignal
from lasersell_sync.trading.build_tx import BuildBuyTxRequest, BuildSellTxRequest
from lasersell_sync.trading.guard.addresses import from_text, require_address

__all__ = ["BUY", "SELL", "Expected", "Request", "Signal", "expected_trade"]

SELL = "sale"
BUY = "purchase"

Signal = ExitSignalWithTx | MirrorBuySignal
Request = BuildSellTxRequest | BuildBuyTxRequest

_BPS = 10_000
_DECIMALS = {"SOL": 9, "USD1": 6}


class Expected(NamedTuple):
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
        asked_by_user: whether these are the user's words; a signal's are the server's.
        partner: who may get a partner fee, because the user's request says so.
    """

    signer: bytes
    wallet: bytes | None = None
    side: str | None = None
    mint: bytes | None = None
    token_account: bytes | None = None
    max_tokens: int | None = None
    currency: str | None = None
    max_spend: int | None = None
    asked_by_user: bool = False
    partner: bytes | None = None


def expected_trade(signer: bytes, source: Signal | Request | None) -> Expected:
    """From a signal, a request, or nothing.

    Raises:
        ConfigurationError: it names something that is not an address, or is none of the three.
        ValueError: a signal names something that is not an address.
    """
    if source is None:
        return Expected(signer)
    if isinstance(source, ExitSignalWithTx):
        account = source.token_account
        return Expected(
            signer, from_text(source.wallet_pubkey), SELL, from_text(source.mint),
            token_account=None if account is None else from_text(account),
            max_tokens=source.position_tokens if source.sell_tokens is None else source.sell_tokens,
        )  # fmt: skip
    if isinstance(source, MirrorBuySignal):
        return Expected(
            signer, from_text(source.user_wallet), BUY, from_text(source.mint),
            currency=source.input, max_spend=_with_slippage(source.amount_quote_units, source.slippage_bps),
        )  # fmt: skip
    if isinstance(source, (BuildSellTxRequest, BuildBuyTxRequest)):
        return _requested(signer, source)
    raise ConfigurationError(
        "request", f"a {type(source).__name__} is neither a BuildSellTxRequest nor a BuildBuyTxRequest"
    )


def _requested(signer: bytes, request: Request) -> Expected:
    recipient = request.partner_fee_recipient
    expected = Expected(
        signer, require_address("user_pubkey", request.user_pubkey), mint=require_address("mint", request.mint),
        asked_by_user=True, partner=None if recipient is None else require_address("partner_fee_recipient", recipient),
    )  # fmt: skip
    if isinstance(request, BuildSellTxRequest):
        return expected._replace(side=SELL, max_tokens=request.amount_tokens or None)
    budget = _atomic(request.amount, request.input) if request.amount_in_total is None else request.amount_in_total
    return expected._replace(side=BUY, currency=request.input, max_spend=_with_slippage(budget, request.slippage_bps))


def _atomic(amount: float | None, currency: str) -> int:
    """Human units in smallest ones; the server may round to the nearest, so that a half is given."""
    exact = Decimal(repr(amount or 0)).scaleb(_DECIMALS[currency])
    return int(exact.to_integral_value(ROUND_CEILING))


def _with_slippage(budget: int, slippage_bps: int) -> int:
    return budget * (_BPS + slippage_bps) // _BPS
