"""Turns "buy this", "sell that" into real unsigned transactions."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Final

from solders.instruction import Instruction
from solders.pubkey import Pubkey

from lasersell_sync.sandbox.chain.addresses import TIP_ACCOUNTS
from lasersell_sync.sandbox.chain.instructions import COMPUTE_UNIT_LIMIT, transfer
from lasersell_sync.sandbox.chain.ledger import U64_MAX
from lasersell_sync.sandbox.chain.slots import SlotClock
from lasersell_sync.sandbox.chain.transactions import (
    Version,
    write_unsigned,
)
from lasersell_sync.sandbox.markets.listings import Listing
from lasersell_sync.sandbox.markets.market import Market
from lasersell_sync.sandbox.markets.pools import BPS, NO_ROUTING_FEE, RoutingFee, sell_fill, tokens_for_budget
from lasersell_sync.sandbox.router.routed_orders import RoutedOrders
from lasersell_sync.sandbox.router.shapes import RouterOrder

_VERSIONS: Final[tuple[Version, ...]] = (0, "legacy", 1)
#: The lower part of a lot chooses among a market's instructions.
_FORMS = 16


def drawn_version(listing: Listing) -> Version:
    """The format that the seed has drawn for a token's direct trades."""
    return _VERSIONS[listing.lot // _FORMS % len(_VERSIONS)]


DEFAULT_TIP_LAMPORTS = 1_000


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
class OrderTerms:
    """What a purchase and a sale have in common."""

    slippage_bps: int
    delivery: Delivery = Delivery()
    partner_fee: PartnerFee | None = None
    routing_fee: RoutingFee = NO_ROUTING_FEE


def _order(terms: OrderTerms, tokens: int, limit_lamports: int, *, buying: bool) -> RouterOrder:
    fee = terms.routing_fee
    return RouterOrder(buying, tokens, limit_lamports, fee.bps, fee.least_lamports)


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

    def buy(self, listing: Listing, user: Pubkey, budget_lamports: int, terms: OrderTerms) -> UnsignedTransaction:
        """As many tokens as the budget buys now, fees included; slippage raises what they may cost when it lands.

        Raises ``OrderRejected`` if the budget buys nothing.
        """
        venue = self._market.venue(listing)
        self._market.open_cashback(listing, user)
        market_lamports, slippage_bps = budget_lamports, terms.slippage_bps
        if self._routed is not None:
            market_lamports = terms.routing_fee.budget_without(budget_lamports, listing.quote)
        tokens = tokens_for_budget(self._market.reserves(listing), venue.fees, market_lamports)
        if tokens == 0:
            raise OrderRejected("amount is too small to buy anything")
        limit_lamports = min(U64_MAX, market_lamports * (BPS + slippage_bps) // BPS)
        if venue.buys_exact_quote(listing):
            # Slippage takes from the tokens in place of adding to the price.
            tokens, limit_lamports = max(1, tokens * (BPS - min(slippage_bps, BPS)) // BPS), market_lamports
        direct = venue.buy_instructions(listing, user, tokens, limit_lamports)
        order = _order(terms, tokens, limit_lamports, buying=True)
        return self._unsigned(listing, user, direct, order, terms, budget_lamports)

    def sell(self, listing: Listing, user: Pubkey, tokens: int, terms: OrderTerms) -> UnsignedTransaction:
        """Sell tokens, 0 for all that the wallet holds; slippage lowers what they may bring when it lands.

        Raises ``OrderRejected`` if the wallet holds none.
        """
        tokens = tokens or self._market.tokens_of(user, listing)
        if tokens == 0:
            raise OrderRejected("the wallet holds none of this token")
        venue = self._market.venue(listing)
        self._market.open_cashback(listing, user)
        net_lamports = sell_fill(self._market.reserves(listing), venue.fees, tokens).total_lamports
        limit_lamports = net_lamports * (BPS - terms.slippage_bps) // BPS
        direct = venue.sell_instructions(listing, user, tokens, limit_lamports)
        order = _order(terms, tokens, limit_lamports, buying=False)
        return self._unsigned(listing, user, direct, order, terms, net_lamports)

    def _unsigned(
        self,
        listing: Listing,
        user: Pubkey,
        direct: list[Instruction],
        order: RouterOrder,
        terms: OrderTerms,
        trade_lamports: int,
    ) -> UnsignedTransaction:
        instructions = direct if self._routed is None else self._routed.route(listing, user, direct, order)
        partner_fee = [] if terms.partner_fee is None else terms.partner_fee.instructions(user, trade_lamports)
        blockhash, _ = self._slots.latest_blockhash()
        delivered = [*instructions, *partner_fee, *terms.delivery.instructions(user)]
        if self._routed is not None:
            raw = self._routed.unsigned(listing, user, delivered, blockhash)
        else:
            version = drawn_version(listing) if self._direct_version is None else self._direct_version
            raw = write_unsigned(version, user, delivered, blockhash, unit_limit=COMPUTE_UNIT_LIMIT)
        tx_b64 = base64.b64encode(raw).decode("ascii")
        return UnsignedTransaction(tx_b64, listing, self._market.venue(listing).pool(listing))
