"""The market: the sandbox's listings, their pools, and the crowd that moves the prices.

A mint's tape starts when a user's buy lands in it while no user holds it, and ends when the last user has sold; the
crowd then walks the price back to where it began. So the same seed and the same actions give the same prices, whenever
they happen.
"""

from __future__ import annotations

import hashlib
import logging

from solders.keypair import Keypair
from solders.pubkey import Pubkey

from lasersell_sync.sandbox.addresses import WRAPPED_SOL_MINT
from lasersell_sync.sandbox.ledger import Ledger, token_address
from lasersell_sync.sandbox.listings import Listing, Venue
from lasersell_sync.sandbox.pools import Reserves, trade_to_reach
from lasersell_sync.sandbox.pump_fun import PumpFun
from lasersell_sync.sandbox.pump_swap import PumpSwap
from lasersell_sync.sandbox.runtime import ProgramError, Swap
from lasersell_sync.sandbox.tapes import Tape

_log = logging.getLogger("lasersell_sync.sandbox.market")

#: symbol, name, market type, story. The first is the one demos use.
_CATALOGUE = (
    ("MOONCAT", "Moon Cat", "pump_fun", "climb"),
    ("COMET", "Comet", "pump_swap", "climb"),
    ("ANVIL", "Anvil", "pump_fun", "fall"),
    ("BOOMER", "Boomerang", "pump_swap", "peak"),
    ("KITE", "Kite", "pump_fun", "climb"),
    ("YEAST", "Yeast", "pump_swap", "climb"),
)
_CROWD_LAMPORTS = 10**6 * 10**9
#: The way home after a story: at most this much a tick.
_HOMEWARD_PPM = 30_000
_PPM = 1_000_000


def seeded_keypair(seed: int, purpose: str) -> Keypair:
    """A keypair that depends on nothing but the seed and its purpose."""
    return Keypair.from_seed(hashlib.sha256(f"lasersell-sandbox:{seed}:{purpose}".encode()).digest())


class Market:
    """Listings, venues and tapes.

    Threads: not thread-safe; the exchange's lock guards it.
    """

    def __init__(self, ledger: Ledger, *, seed: int) -> None:
        self._ledger = ledger
        self._seed = seed
        self._venues: dict[str, Venue] = {venue.market_type: venue for venue in (PumpFun(), PumpSwap())}
        self._crowd = seeded_keypair(seed, "crowd").pubkey()
        self.listings: dict[Pubkey, Listing] = {}
        self._homes: dict[Pubkey, Reserves] = {}
        self._tapes: dict[Pubkey, Tape] = {}
        self._chapters: dict[Pubkey, int] = {}
        #: owners of token accounts that are no user's
        self._own: set[Pubkey] = {self._crowd}
        #: mints whose price is walking home
        self._homeward: set[Pubkey] = set()
        self._open_listings()

    def _open_listings(self) -> None:
        self._ledger.create_mint(WRAPPED_SOL_MINT, decimals=9)
        self._ledger.credit(self._crowd, _CROWD_LAMPORTS)
        for symbol, name, market_type, story in _CATALOGUE:
            mint = seeded_keypair(self._seed, f"mint:{symbol}").pubkey()
            creator = seeded_keypair(self._seed, f"creator:{symbol}").pubkey()
            listing = Listing(mint, symbol, name, 6, creator, market_type, story)
            self.listings[mint] = listing
            self.venue(listing).open(self._ledger, listing, self._crowd)
            self._own.add(self.venue(listing).pool(listing))
            self._homes[mint] = self.reserves(listing)

    @property
    def venues(self) -> list[Venue]:
        """The markets there are."""
        return list(self._venues.values())

    def venue(self, listing: Listing) -> Venue:
        """The market a listing trades on."""
        return self._venues[listing.market_type]

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
        accounts = (self.venue(listing).pool_token_account(listing), token_address(self._crowd, listing.mint))
        held = self.supply(listing)
        for address in accounts:
            account = self._ledger.token_account(address)
            held -= account.amount if account is not None else 0
        return held

    # -- the crowd

    def holders_changed(self, mint: Pubkey) -> None:
        """Start or end a mint's tape, after user trades in it."""
        held = self.held_by_users(self.listings[mint])
        if held and mint not in self._tapes:
            chapter = self._chapters.get(mint, 0)
            self._chapters[mint] = chapter + 1
            suffix = f":{chapter}" if chapter else ""
            self._tapes[mint] = Tape(self.listings[mint].tape, f"{self._seed}:{mint}{suffix}")
            self._homeward.discard(mint)
            _log.debug("tape %s of %s starts", self.listings[mint].tape, self.listings[mint].symbol)
        elif not held and self._tapes.pop(mint, None) is not None:
            self._homeward.add(mint)

    def needs_ticks(self, *, watched: bool) -> bool:
        """Whether ``tick`` would do anything; resting tapes move only while someone watches."""
        return bool(self._homeward) or any(watched or not tape.resting for tape in self._tapes.values())

    def tick(self, *, watched: bool) -> list[Swap]:
        """One market tick: the crowd's trades, in listing order."""
        swaps = []
        for mint in self.listings:
            tape = self._tapes.get(mint)
            if tape is not None and (watched or not tape.resting):
                swaps.append(self._push(mint, *tape.step()))
            elif mint in self._homeward:
                swaps.append(self._walk_home(mint))
        return [swap for swap in swaps if swap is not None]

    def multiply_price(self, mint: Pubkey, ratio_numerator: int, ratio_denominator: int) -> Swap | None:
        """One crowd trade that moves the price by a ratio, as far as the pool allows; None if no trade is needed."""
        return self._push(mint, ratio_numerator, ratio_denominator)

    def _walk_home(self, mint: Pubkey) -> Swap | None:
        home, now = self._homes[mint], self.reserves(self.listings[mint])
        ratio_ppm = home.lamports * now.tokens * _PPM // (home.tokens * now.lamports)
        if abs(ratio_ppm - _PPM) < 1_000:
            self._homeward.discard(mint)
            return None
        return self._push(mint, min(max(ratio_ppm, _PPM - _HOMEWARD_PPM), _PPM + _HOMEWARD_PPM), _PPM)

    def _push(self, mint: Pubkey, numerator: int, denominator: int) -> Swap | None:
        listing = self.listings[mint]
        venue = self.venue(listing)
        side, tokens = trade_to_reach(self.reserves(listing), numerator, denominator)
        self._ledger.begin()
        try:
            if side == "buy":
                # Never the last token: graduation is another storey.
                tokens = min(tokens, venue.buyable_tokens(self._ledger, listing) - 1)
                swap = venue.buy(self._ledger, listing, self._crowd, tokens, 2**64 - 1) if tokens > 0 else None
            else:
                tokens = min(tokens, self._crowd_tokens(mint))
                swap = venue.sell(self._ledger, listing, self._crowd, tokens, 0) if tokens > 0 else None
        except ProgramError as error:
            self._ledger.rollback()
            _log.warning("the crowd could not %s %s: %s", side, listing.symbol, error)
            return None
        self._ledger.commit()
        return swap

    def _crowd_tokens(self, mint: Pubkey) -> int:
        account = self._ledger.token_account(token_address(self._crowd, mint))
        return account.amount if account is not None else 0
