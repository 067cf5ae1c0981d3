"""The market: the sandbox's listings, their pools, and the crowd that moves the prices.

A mint's price path starts when a user's buy lands in it while no user holds it, and ends when the last user has sold;
the crowd then walks the price back to where it began. So the same seed and the same actions give the same prices,
whenever they happen. The crowd is many traders, drawn by the seed, who trade out of one purse.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass, replace
from functools import partial

from solders.keypair import Keypair
from solders.pubkey import Pubkey

from lasersell_sync.sandbox.chain.addresses import PUMP_FEES_PROGRAM
from lasersell_sync.sandbox.chain.ledger import U64_MAX, InsufficientFunds, Ledger, token_address
from lasersell_sync.sandbox.chain.programs import Execute
from lasersell_sync.sandbox.chain.runtime import ProgramError, Swap
from lasersell_sync.sandbox.markets.anchor_venue import open_account
from lasersell_sync.sandbox.markets.currencies import SOL, USD1, Currency
from lasersell_sync.sandbox.markets.listings import SUPPLY, Listing
from lasersell_sync.sandbox.markets.pools import Reserves, trade_to_reach
from lasersell_sync.sandbox.markets.price_paths import PPM, PricePath
from lasersell_sync.sandbox.markets.pump_fun import execute_pump_fees
from lasersell_sync.sandbox.markets.scenario import Scenario, TokenPlan
from lasersell_sync.sandbox.markets.venues import CURVES, POOLS, VENUES, Venue

_log = logging.getLogger("lasersell_sync.sandbox.market")

TOKEN_DECIMALS = 6
_CROWD_LAMPORTS = 10**9 * 10**9
_CROWD_WRAPPED_LAMPORTS = 10**8 * 10**9
_CROWD_USD1_UNITS = 10**9 * 10**6
_CROWD_TRADERS = 24
#: How far a price moves per tick on its way back after a price path, at most.
_HOMEWARD_PPM = 30_000


def seeded_keypair(seed: int, purpose: str) -> Keypair:
    """A keypair that depends on nothing but the seed and its purpose."""
    return Keypair.from_seed(hashlib.sha256(f"lasersell-sandbox:{seed}:{purpose}".encode()).digest())


@dataclass(frozen=True, slots=True)
class Moves:
    """What a market tick has brought: trades in their order, and mints whose pool changed without one."""

    swaps: list[Swap]
    repriced: list[Pubkey]


class Market:
    """Listings, venues and price paths.

    Threads: not thread-safe; the exchange's lock guards it.
    """

    def __init__(self, ledger: Ledger, *, seed: int, scenario: Scenario, today: bool = False) -> None:
        self._ledger = ledger
        #: trades are written in today's forms
        self._today = today
        self._seed = seed
        self._crowd = seeded_keypair(seed, "crowd").pubkey()
        self._traders = [seeded_keypair(seed, f"trader:{number}").pubkey() for number in range(_CROWD_TRADERS)]
        self.listings: dict[Pubkey, Listing] = {}
        self._plans: dict[Pubkey, TokenPlan] = {}
        self._homes: dict[Pubkey, Reserves] = {}
        self._paths: dict[Pubkey, PricePath] = {}
        self._chapters: dict[Pubkey, int] = {}
        #: owners of token accounts that are no user's
        self._own: set[Pubkey] = {self._crowd}
        #: mints whose price is walking home
        self._homeward: set[Pubkey] = set()
        self._fill_purse()
        for plan in scenario.tokens:
            self._list(plan)

    def _fill_purse(self) -> None:
        self._ledger.credit(self._crowd, _CROWD_LAMPORTS)
        for currency in (SOL, USD1):
            self._ledger.create_mint(currency.mint, decimals=currency.decimals)
            open_account(self._ledger, self._crowd, currency.mint, payer=self._crowd)
        wrapped = token_address(self._crowd, SOL.mint)
        self._ledger.move_lamports(self._crowd, wrapped, _CROWD_WRAPPED_LAMPORTS)
        self._ledger.sync_native(wrapped)
        self._ledger.mint_tokens(token_address(self._crowd, USD1.mint), _CROWD_USD1_UNITS)

    def open_cashback(self, listing: Listing, user: Pubkey) -> None:
        """Open the account that a user's cashback goes to, as the service does before it builds a trade."""
        owner = self.venue(listing).cashback_owner(listing, user)
        if owner is not None:
            open_account(self._ledger, owner, listing.quote.mint, payer=self._crowd)

    def _draws_cashback(self, symbol: str) -> bool:
        """One pump coin of three."""
        return hashlib.sha256(f"{self._seed}:cashback:{symbol}".encode()).digest()[0] % 3 == 0

    def _list(self, plan: TokenPlan) -> None:
        mint = seeded_keypair(self._seed, f"mint:{plan.symbol}").pubkey()
        creator = f"creator:{plan.symbol}" if plan.creator is None else f"wallet:{plan.creator}"
        listing = Listing(
            mint,
            plan.symbol,
            plan.name,
            TOKEN_DECIMALS,
            seeded_keypair(self._seed, creator).pubkey(),
            plan.market_type,
            plan.price_path,
            plan.quote,
            launched_on=plan.market_type if plan.market_type in CURVES else None,
            today=self._today,
            lot=hashlib.sha256(f"{self._seed}:form:{plan.symbol}".encode()).digest()[0],
            cashback=self._today and VENUES[plan.market_type].has_cashback and self._draws_cashback(plan.symbol),
        )
        self.listings[mint], self._plans[mint] = listing, plan
        self._ledger.create_mint(mint, decimals=TOKEN_DECIMALS)
        self._ledger.mint_tokens(open_account(self._ledger, self._crowd, mint, payer=self._crowd), SUPPLY)
        venue = self.venue(listing)
        venue.open(self._ledger, listing, self._crowd, plan.liquidity)
        self._own |= {venue.pool(listing), venue.vault_owner(listing)}
        self._homes[mint] = self.reserves(listing)

    @property
    def programs(self) -> dict[Pubkey, Execute]:
        """What executes the instructions of the markets' programs."""
        venues = {venue.program: partial(venue.execute, listings=self.listings) for venue in VENUES.values()}
        return {PUMP_FEES_PROGRAM: execute_pump_fees, **venues}

    def venue(self, listing: Listing) -> Venue:
        """The market a listing trades on."""
        return VENUES[listing.market_type]

    def reserves(self, listing: Listing) -> Reserves:
        """The listing's reserves now."""
        return self.venue(listing).reserves(self._ledger, listing)

    def is_own(self, owner: Pubkey) -> bool:
        """Whether an owner of tokens is a pool or the crowd, not a user."""
        return owner in self._own

    def supply(self, listing: Listing) -> int:
        """The listing's supply in smallest units."""
        mint = self._ledger.mint(listing.mint)
        return mint.supply if mint is not None else 0

    def held_by_users(self, listing: Listing) -> int:
        """Tokens that are neither the pool's nor the crowd's."""
        pooled = self._ledger.tokens_in(self.venue(listing).pool_token_account(listing))
        return self.supply(listing) - pooled - self._crowd_tokens(listing.mint)

    # -- money

    def funds(self, wallet: Pubkey, currency: Currency) -> int:
        """What a wallet has of a currency, in its smallest unit."""
        if currency.is_native:
            return self._ledger.lamports(wallet)
        return self._ledger.token_balance(wallet, currency.mint)

    def tokens_of(self, wallet: Pubkey, listing: Listing) -> int:
        """What a wallet holds of a token, in its smallest unit."""
        return self._ledger.token_balance(wallet, listing.mint)

    def give_usd1(self, wallet: Pubkey, units: int) -> None:
        """Play money; the account's rent is the crowd's."""
        if units:
            account = open_account(self._ledger, wallet, USD1.mint, payer=self._crowd)
            self._ledger.mint_tokens(account, units)

    def give_tokens(self, wallet: Pubkey, listing: Listing, quote_units: int) -> int:
        """Tokens of the crowd's, at the pool's price and without a trade; how many.

        Raises ``InsufficientFunds`` if the crowd has not so many.
        """
        reserves = self.reserves(listing)
        tokens = quote_units * reserves.tokens // reserves.lamports
        if tokens > self._crowd_tokens(listing.mint):
            raise InsufficientFunds(f"{listing.symbol}: the crowd has not {tokens} tokens to give")
        account = open_account(self._ledger, wallet, listing.mint, payer=self._crowd)
        self._ledger.move_tokens(token_address(self._crowd, listing.mint), account, tokens)
        return tokens

    # -- the crowd

    def holders_changed(self, mint: Pubkey) -> None:
        """Start or end a mint's price path, after user trades in it."""
        held = self.held_by_users(self.listings[mint])
        if held and mint not in self._paths:
            chapter = self._chapters.get(mint, 0)
            self._chapters[mint] = chapter + 1
            suffix = f":{chapter}" if chapter else ""
            plan = self._plans[mint]
            seed = f"{self._seed}:{mint}{suffix}"
            self._paths[mint] = PricePath(plan.draw_phases, seed, rest_noise_ppm=plan.rest_noise_ppm)
            self._homeward.discard(mint)
            _log.debug("price path %s of %s starts", plan.price_path, plan.symbol)
        elif not held and self._paths.pop(mint, None) is not None:
            self._set_halted(mint, halted=False)
            self._homeward.add(mint)

    def needs_ticks(self, *, watched: bool) -> bool:
        """Whether ``tick`` would do anything; resting price paths move only while someone watches."""
        return bool(self._homeward) or any(
            self._moves(price_path, watched=watched) for price_path in self._paths.values()
        )

    def _moves(self, price_path: PricePath, *, watched: bool) -> bool:
        return not price_path.still and (watched or not price_path.resting)

    def tick(self, *, watched: bool) -> Moves:
        """One market tick: the crowd's trades, in listing order."""
        moves = Moves([], [])
        for mint in self.listings:
            price_path = self._paths.get(mint)
            swap = None
            if price_path is not None and self._moves(price_path, watched=watched):
                swap = self._play(mint, price_path, moves)
            elif mint in self._homeward:
                swap = self._walk_home(mint)
            if swap is not None:
                moves.swaps.append(swap)
        return moves

    def _play(self, mint: Pubkey, price_path: PricePath, moves: Moves) -> Swap | None:
        step = price_path.step()
        self._set_halted(mint, halted=step.halted)
        if step.liquidity_ppm is not None and self.pull_liquidity(mint, step.liquidity_ppm):
            moves.repriced.append(mint)
        if step.halted:
            return None
        trader = self._traders[step.lot % len(self._traders)]
        return self._push(mint, step.numerator, step.denominator, trader)

    def multiply_price(self, mint: Pubkey, ratio_numerator: int, ratio_denominator: int) -> Swap | None:
        """One crowd trade that moves the price by a ratio, as far as the pool allows; None if no trade is needed."""
        return self._push(mint, ratio_numerator, ratio_denominator, self._crowd)

    def _walk_home(self, mint: Pubkey) -> Swap | None:
        home, now = self._homes[mint], self.reserves(self.listings[mint])
        ratio_ppm = home.lamports * now.tokens * PPM // (home.tokens * now.lamports)
        if abs(ratio_ppm - PPM) < 1_000:
            self._homeward.discard(mint)
            return None
        ratio_ppm = min(max(ratio_ppm, PPM - _HOMEWARD_PPM), PPM + _HOMEWARD_PPM)
        swap = self._push(mint, ratio_ppm, PPM, self._crowd)
        if swap is None:
            self._homeward.discard(mint)  # as near as the pool's last tokens let it come
        return swap

    def _push(self, mint: Pubkey, numerator: int, denominator: int, trader: Pubkey) -> Swap | None:
        listing = self.listings[mint]
        side, tokens = trade_to_reach(self.reserves(listing), numerator, denominator)
        # Only a token that is meant to graduate is ever bought out by the crowd.
        spare = 0 if self._plans[mint].may_graduate and not listing.graduated else 1
        if side == "buy":
            tokens = min(tokens, self.venue(listing).buyable_tokens(self._ledger, listing) - spare)
        else:
            tokens = min(tokens, self._crowd_tokens(mint))
        return self._trade(listing, side, tokens, trader)

    def _trade(self, listing: Listing, side: str, tokens: int, trader: Pubkey) -> Swap | None:
        """A trade out of the crowd's purse, recorded as one trader's."""
        if tokens <= 0 or listing.halted:
            return None
        venue = self.venue(listing)
        self._ledger.begin()
        try:
            if side == "buy":
                swap = venue.buy(self._ledger, listing, self._crowd, tokens, U64_MAX)
            else:
                swap = venue.sell(self._ledger, listing, self._crowd, tokens, 0)
        except ProgramError as error:
            self._ledger.rollback()
            _log.warning("the crowd could not %s %s: %s", side, listing.symbol, error)
            return None
        self._ledger.commit()
        return replace(swap, trader=trader)

    def _crowd_tokens(self, mint: Pubkey) -> int:
        return self._ledger.token_balance(self._crowd, mint)

    # -- what happens to pools

    def pull_liquidity(self, mint: Pubkey, keep_ppm: int) -> bool:
        """Take all but a part out of both sides of a pool; False on a bonding curve, which has no providers."""
        listing = self.listings[mint]
        venue = POOLS.get(listing.market_type)
        if venue is not None:
            venue.pull(self._ledger, listing, self._crowd, keep_ppm)
        return venue is not None

    def halt(self, mint: Pubkey, *, halted: bool) -> None:
        """Stop or resume all trade in a mint. A running price path decides again at its next tick."""
        self._set_halted(mint, halted=halted)

    def _set_halted(self, mint: Pubkey, *, halted: bool) -> None:
        if self.listings[mint].halted != halted:
            self.listings[mint] = replace(self.listings[mint], halted=halted)

    def buy_out(self, mint: Pubkey) -> Swap | None:
        """The crowd buys everything a bonding curve still has for sale; None if there is no such curve."""
        listing = self.listings[mint]
        if listing.market_type not in CURVES:
            return None
        tokens = self.venue(listing).buyable_tokens(self._ledger, listing)
        return self._trade(listing, "buy", tokens, self._crowd)

    def graduate_if_complete(self, mint: Pubkey) -> bool:
        """Move a token whose curve is sold out to its AMM pool; whether it has just moved."""
        listing = self.listings[mint]
        curve = CURVES.get(listing.market_type)
        if curve is None or curve.graduates_to is None or not curve.complete(self._ledger, listing):
            return False
        tokens, quote_units = curve.empty(self._ledger, listing, self._crowd)
        pool = POOLS[curve.graduates_to]
        if listing.quote.is_native and not curve.spends_tokens(listing):
            self._wrap(quote_units)
        graduate = replace(listing, market_type=pool.market_type)
        self.listings[mint] = graduate
        pool.fund(self._ledger, graduate, self._crowd, tokens=tokens, quote=quote_units)
        self._own |= {pool.pool(graduate), pool.vault_owner(graduate)}
        _log.info("%s graduates to %s", listing.symbol, pool.market_type)
        return True

    def _wrap(self, lamports: int) -> None:
        wrapped = token_address(self._crowd, SOL.mint)
        self._ledger.move_lamports(self._crowd, wrapped, lamports)
        self._ledger.sync_native(wrapped)
