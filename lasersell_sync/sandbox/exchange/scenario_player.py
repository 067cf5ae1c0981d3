"""The script of a scenario at work: its wallets, and what they and the market do, at a moment or by hand."""

from __future__ import annotations

import base64
import logging
from collections import deque
from collections.abc import Iterable, Sequence
from fractions import Fraction

from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from lasersell_sync.sandbox.chain.blockchain import Chain
from lasersell_sync.sandbox.chain.ledger import InsufficientFunds, Ledger
from lasersell_sync.sandbox.chain.runtime import Swap
from lasersell_sync.sandbox.exchange.api_keys import KeyRing
from lasersell_sync.sandbox.exchange.orders import OrderBuilder, OrderTerms
from lasersell_sync.sandbox.exchange.position_service import PositionService
from lasersell_sync.sandbox.markets.currencies import SOL, USD1
from lasersell_sync.sandbox.markets.listings import Listing
from lasersell_sync.sandbox.markets.market import Market, seeded_keypair
from lasersell_sync.sandbox.markets.scenario import Action, Scenario, WalletPlan
from lasersell_sync.sandbox.markets.venues import CURVES

_log = logging.getLogger("lasersell_sync.sandbox.exchange")

#: What the scenario's wallets tolerate.
SCRIPTED_TERMS = OrderTerms(slippage_bps=2_000)


class ScenarioPlayer:
    """Plays a scenario's actions, and those of the scripting API.

    Threads: not thread-safe; the exchange's lock guards it.
    """

    def __init__(
        self,
        scenario: Scenario,
        *,
        seed: int,
        ledger: Ledger,
        market: Market,
        orders: OrderBuilder,
        chain: Chain,
        positions: PositionService,
    ) -> None:
        self._scenario = scenario
        self._seed = seed
        self._ledger = ledger
        self._market = market
        self._orders = orders
        self._chain = chain
        self._positions = positions
        #: the scenario's own wallets by name, in its order
        self.wallets: dict[str, Keypair] = {}
        self._actions = deque(scenario.actions)
        #: when the first session was configured, on the virtual clock
        self._start_s: float | None = None

    # -- genesis

    def invite_wallets(self, keys: KeyRing, key_ids: Iterable[str]) -> None:
        """Make the scenario's wallets, with their money and what they hold."""
        every_key = list(key_ids)
        for plan in self._scenario.wallets:
            for name in plan.names():
                keypair = self.wallets[name] = seeded_keypair(self._seed, f"wallet:{name}")
                self._endow(keypair.pubkey(), plan)
                if plan.for_clients:
                    for key_id in every_key:
                        keys.register(key_id, keypair.pubkey(), name)

    def _endow(self, wallet: Pubkey, plan: WalletPlan) -> None:
        self.fund(wallet, lamports=round(plan.sol * 10**SOL.decimals), usd1_units=round(plan.usd1 * 10**USD1.decimals))
        if plan.holds:
            for listing in self._market.listings.values():
                self._give(wallet, listing, round(plan.holds * 10**listing.quote.decimals))

    def fund(self, wallet: Pubkey, *, lamports: int, usd1_units: int) -> None:
        """Play money out of nothing."""
        self._ledger.credit(wallet, lamports)
        self._market.give_usd1(wallet, usd1_units)

    def grant(self, wallet: Pubkey, listing: Listing, quote_units: int) -> None:
        """Give a wallet tokens as if it had bought them for so much, without moving the price. Raises ValueError."""
        self._give(wallet, listing, quote_units)
        self._market.holders_changed(listing.mint)

    def _give(self, wallet: Pubkey, listing: Listing, quote_units: int) -> None:
        try:
            tokens = self._market.give_tokens(wallet, listing, quote_units)
        except InsufficientFunds as error:
            raise ValueError(str(error)) from error
        self._positions.granted(wallet, listing.mint, tokens=tokens, cost=quote_units)

    # -- moments

    def begin(self, now_s: float) -> bool:
        """Start the scenario: the first session is configured. False if it has started already."""
        if self._start_s is not None:
            return False
        self._start_s = now_s
        for mint in self._market.listings:
            self._market.holders_changed(mint)
        return True

    def next_action_s(self) -> float | None:
        """When the next scripted action is due, on the virtual clock."""
        if self._start_s is None or not self._actions:
            return None
        return self._start_s + self._actions[0].at_s

    def act_if_due(self, now_s: float) -> None:
        """Play the scripted actions that are due; what cannot be done is logged and left out."""
        while (moment_s := self.next_action_s()) is not None and moment_s <= now_s:
            action = self._actions.popleft()
            try:
                self.act(action)
            except ValueError as error:
                _log.warning("the scenario could not %s %s: %s", action.act, action.token, error)

    # -- actions

    def act(self, action: Action) -> None:
        """Do something now. Raises ValueError with what is wrong."""
        listing = self.listing(action.token)
        if action.act in ("buy", "sell"):
            self._trade(action, listing)
        elif action.act == "price":
            self.multiply_price(listing, Fraction(action.multiplier).limit_denominator(10**9))
        elif action.act == "pull":
            if not self._market.pull_liquidity(listing.mint, round(action.keep_pct * 10_000)):
                raise ValueError(f"{listing.symbol} trades on a bonding curve, which has no liquidity to pull")
            self._positions.repriced(listing.mint)
        elif action.act == "graduate":
            if listing.market_type not in CURVES:
                raise ValueError(f"{listing.symbol} does not trade on a bonding curve")
            self._publish(self._market.buy_out(listing.mint))
        else:
            self._market.halt(listing.mint, halted=action.act == "halt")

    def listing(self, token: str) -> Listing:
        """A listing by symbol or mint. Raises ValueError."""
        for listing in self._market.listings.values():
            if token in (listing.symbol, str(listing.mint)):
                return listing
        raise ValueError(f"no token {token!r} is listed here")

    def multiply_price(self, listing: Listing, ratio: Fraction) -> None:
        """Move a price by one trade of the crowd."""
        self._publish(self._market.multiply_price(listing.mint, ratio.numerator, ratio.denominator))

    def _publish(self, swap: Swap | None) -> None:
        if swap is not None:
            self._positions.traded(swap)
            self.look_for_graduates([swap])

    def look_for_graduates(self, swaps: Sequence[Swap]) -> None:
        """Purchases were made: move the tokens whose curve they have bought out."""
        for mint in dict.fromkeys(swap.mint for swap in swaps if swap.side == "buy"):
            if self._market.graduate_if_complete(mint):
                self._positions.graduated(mint)

    def _trade(self, action: Action, listing: Listing) -> None:
        """A wallet of the scenario's signs and sends a transaction like anybody's, except that it cannot get lost."""
        keypair = self.wallets.get(action.wallet or "")
        if keypair is None:
            raise ValueError(f"wallet {action.wallet!r} is none of the scenario's")
        wallet = keypair.pubkey()
        if action.act == "buy":
            budget = round(action.amount * 10**listing.quote.decimals)
            order = self._orders.buy(listing, wallet, budget, SCRIPTED_TERMS)
        else:
            tokens = round(self._market.tokens_of(wallet, listing) * action.share_pct / 100)
            if tokens == 0:
                raise ValueError(f"wallet {action.wallet!r} holds no {listing.symbol}")
            order = self._orders.sell(listing, wallet, tokens, SCRIPTED_TERMS)
        unsigned = VersionedTransaction.from_bytes(base64.b64decode(order.tx_b64))
        self._chain.admit(VersionedTransaction(unsigned.message, [keypair]), skip_preflight=True, certain=True)
