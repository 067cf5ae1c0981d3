"""Turns "buy this", "sell that" into real unsigned transactions."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Final

from solders.instruction import Instruction
from solders.pubkey import Pubkey

from lasersell_sync.sandbox.chain.addresses import TIP_ACCOUNTS
from lasersell_sync.sandbox.chain.instructions import COMPUTE_UNIT_LIMIT, transfer
from lasersell_sync.sandbox.chain.slots import SlotClock
from lasersell_sync.sandbox.chain.transactions import (
    Version,
    write_unsigned,
)
from lasersell_sync.sandbox.markets.listings import Listing
from lasersell_sync.sandbox.markets.market import Market
from lasersell_sync.sandbox.markets.pools import BPS, NO_ROUTING_FEE, RoutingFee, sell_fill, tokens_for_budget
from lasersell_sync.sandbox.router.orders import RoutedOrders

_VERSIONS: Final[tuple[Version, ...]] = (0, "legacy", 1)
#: The lower part of a lot chooses among a market's instructions.
_FORMS = 16


def drawn_version(listing: Listing) -> Version:
    """The format that the seed has drawn for a token's direct trades."""
    return _VERSIONS[listing.lot // _FORMS % len(_VERSIONS)]


DEFAULT_TIP_LAMPORTS = 1_000
_U64_MAX = 2**64 - 1


class OrderRejected(ValueError):
    """The order cannot become a transaction."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """How a transaction will be sent: a sender wants a tip, ``rpc`` (or None) does not."""

    send_mode: str | None = None
    tip_lamports: int | None = None

    def instructions(self, payer: Pubkey) -> list[Instruction]:
        """The tip, if there is one to pay."""
        accounts = TIP_ACCOUNTS.get(self.send_mode or "")
        tip_lamports = DEFAULT_TIP_LAMPORTS if self.tip_lamports is None else self.tip_lamports
        if accounts is None or tip_lamports == 0:
            return []
        # Spread over the accounts by payer, so that one wallet's transactions look alike from run to run.
        return [transfer(payer, accounts[bytes(payer)[0] % len(accounts)], tip_lamports)]


@dataclass(frozen=True, slots=True)
class PartnerFee:
    """A fee for whoever sent the user: ``bps`` of the trade, or fixed lamports."""

    recipient: Pubkey
    bps: int | None = None
    lamports: int | None = None

    def instructions(self, payer: Pubkey, trade_lamports: int) -> list[Instruction]:
        """The transfer of the fee."""
        fee_lamports = self.lamports if self.lamports is not None else trade_lamports * (self.bps or 0) // BPS
        return [transfer(payer, self.recipient, fee_lamports)] if fee_lamports else []


@dataclass(frozen=True, slots=True)
class UnsignedTransaction:
    """The transaction as base64, and the market it goes to."""

    tx_b64: str
    listing: Listing
    pool: Pubkey


class OrderBuilder:
    """Builds transactions against the market's current reserves.

    Args:
        market: What is traded.
        slots: Where blockhashes come from.
        routed: Builds trades that go through the Router; None: trades go to the markets directly.
        direct_version: The format of direct trades; None: the one that the seed has drawn for the token.

    Threads: not thread-safe; the exchange's lock guards it.
    """

    def __init__(
        self,
        market: Market,
        slots: SlotClock,
        routed: RoutedOrders | None = None,
        direct_version: Version | None = 0,
    ) -> None:
        self._market = market
        self._slots = slots
        self._routed = routed
        self._direct_version = direct_version

    def buy(
        self,
        listing: Listing,
        user: Pubkey,
        *,
        budget_lamports: int,
        slippage_bps: int,
        delivery: Delivery,
        partner_fee: PartnerFee | None = None,
        routing_fee: RoutingFee = NO_ROUTING_FEE,
    ) -> UnsignedTransaction:
        """As many tokens as the budget buys now, fees included; slippage raises what they may cost when it lands.

        Raises ``OrderRejected`` if the budget buys nothing.
        """
        venue = self._market.venue(listing)
        self._market.open_cashback(listing, user)
        market_lamports = budget_lamports
        if self._routed is not None:
            market_lamports = routing_fee.budget_without(budget_lamports, listing.quote)
        tokens = tokens_for_budget(self._market.reserves(listing), venue.fees, market_lamports)
        if tokens == 0:
            raise OrderRejected("amount is too small to buy anything")
        limit_lamports = min(_U64_MAX, market_lamports * (BPS + slippage_bps) // BPS)
        if venue.buys_exact_quote(listing):
            # Slippage takes from the tokens in place of adding to the price.
            tokens, limit_lamports = max(1, tokens * (BPS - min(slippage_bps, BPS)) // BPS), market_lamports
        instructions = venue.buy_instructions(listing, user, tokens, limit_lamports)
        if self._routed is not None:
            instructions = self._routed.route(
                listing, user, instructions, buying=True, tokens=tokens, limit=limit_lamports, fee=routing_fee
            )
        if partner_fee is not None:
            instructions += partner_fee.instructions(user, budget_lamports)
        return self._unsigned(listing, user, instructions, delivery)

    def sell(
        self,
        listing: Listing,
        user: Pubkey,
        *,
        tokens: int,
        slippage_bps: int,
        delivery: Delivery,
        partner_fee: PartnerFee | None = None,
        routing_fee: RoutingFee = NO_ROUTING_FEE,
    ) -> UnsignedTransaction:
        """Sell ``tokens``; slippage lowers what they may bring when it lands."""
        venue = self._market.venue(listing)
        self._market.open_cashback(listing, user)
        net_lamports = sell_fill(self._market.reserves(listing), venue.fees, tokens).total_lamports
        limit_lamports = net_lamports * (BPS - slippage_bps) // BPS
        instructions = venue.sell_instructions(listing, user, tokens, limit_lamports)
        if self._routed is not None:
            instructions = self._routed.route(
                listing, user, instructions, buying=False, tokens=tokens, limit=limit_lamports, fee=routing_fee
            )
        if partner_fee is not None:
            instructions += partner_fee.instructions(user, net_lamports)
        return self._unsigned(listing, user, instructions, delivery)

    def _unsigned(
        self, listing: Listing, user: Pubkey, instructions: list[Instruction], delivery: Delivery
    ) -> UnsignedTransaction:
        blockhash, _ = self._slots.latest_blockhash()
        delivered = [*instructions, *delivery.instructions(user)]
        if self._routed is not None:
            raw = self._routed.unsigned(listing, user, delivered, blockhash)
        else:
            version = drawn_version(listing) if self._direct_version is None else self._direct_version
            raw = write_unsigned(version, user, delivered, blockhash, unit_limit=COMPUTE_UNIT_LIMIT)
        tx_b64 = base64.b64encode(raw).decode("ascii")
        return UnsignedTransaction(tx_b64, listing, self._market.venue(listing).pool(listing))
