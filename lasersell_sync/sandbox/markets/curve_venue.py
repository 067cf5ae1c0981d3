"""Bonding curves: markets priced by virtual reserves, which end when the last token for sale is sold."""

from __future__ import annotations

from solders.pubkey import Pubkey

from lasersell_sync.sandbox.chain.anchor import Anchor
from lasersell_sync.sandbox.chain.ledger import BondingCurve, InsufficientFunds, Ledger, token_address
from lasersell_sync.sandbox.chain.runtime import ProgramError, Swap, custom
from lasersell_sync.sandbox.markets.anchor_venue import AnchorVenue, open_account
from lasersell_sync.sandbox.markets.currencies import SOL, Currency
from lasersell_sync.sandbox.markets.listings import SUPPLY, Listing
from lasersell_sync.sandbox.markets.pools import Fill, Reserves, buy_fill, sell_fill

#: A fresh curve on mainnet: 1 073 million virtual tokens and 30 virtual SOL; 793.1 million tokens are for sale.
GENESIS_VIRTUAL_TOKENS = 1_073_000_000 * 10**6
GENESIS_REAL_TOKENS = 793_100_000 * 10**6


def genesis_quote(quote: Currency) -> int:
    """The virtual quote currency of a fresh curve: 30 SOL, or about their worth."""
    return 30 * 10**9 if quote == SOL else 4_500 * 10**6


class CurveVenue(AnchorVenue):
    """The common part of the bonding curves; a curve's numbers are an account of the ledger."""

    complete_code: int
    #: more tokens than the seller has
    short_code = 1

    def moved(self, listing: Listing) -> ProgramError:
        """A graduated token's curve is complete; another market's token has no curve here."""
        if listing.graduated and self.market_type == listing.launched_on:
            return custom(self.complete_code)
        return super().moved(listing)

    # -- genesis and graduation

    def open(self, ledger: Ledger, listing: Listing, crowd: Pubkey, start_quote: int | None) -> None:
        """A curve that the crowd has already bought from, so that the price has room both ways.

        ``start_quote`` is where: its virtual quote currency, 5/3 of a fresh curve's unless given.
        """
        fresh = genesis_quote(listing.quote)
        virtual_quote = fresh * 5 // 3 if start_quote is None else max(fresh, start_quote)
        virtual_tokens = GENESIS_VIRTUAL_TOKENS * fresh // virtual_quote
        real_tokens = GENESIS_REAL_TOKENS - (GENESIS_VIRTUAL_TOKENS - virtual_tokens)
        if real_tokens <= 0:
            raise ValueError(f"{listing.symbol}: no curve reaches {virtual_quote} quote units; start lower")
        base_vault, _ = self.vaults(listing)
        open_account(ledger, self.vault_owner(listing), listing.mint, payer=crowd, address=base_vault)
        self.open_purse(ledger, listing, crowd)
        # The tokens that are not for sale wait on the curve for the pool it graduates to.
        on_curve = real_tokens + SUPPLY - GENESIS_REAL_TOKENS
        ledger.move_tokens(token_address(crowd, listing.mint), base_vault, on_curve)
        ledger.put_curve(
            self.pool(listing), BondingCurve(virtual_tokens, virtual_quote, real_tokens, virtual_quote - fresh)
        )
        self.take_quote(ledger, listing, crowd, virtual_quote - fresh)

    def empty(self, ledger: Ledger, listing: Listing, crowd: Pubkey) -> tuple[int, int]:
        """Graduation: everything on a complete curve goes to the crowd's purse; (tokens, quote units)."""
        curve, (base_vault, _) = self._curve(ledger, listing), self.vaults(listing)
        tokens = ledger.tokens_in(base_vault)
        ledger.move_tokens(base_vault, token_address(crowd, listing.mint), tokens)
        self.give_quote(ledger, listing, crowd, curve.real_lamports)
        ledger.put_curve(self.pool(listing), BondingCurve(curve.virtual_tokens, curve.virtual_lamports, 0, 0))
        return tokens, curve.real_lamports

    def complete(self, ledger: Ledger, listing: Listing) -> bool:
        """Whether every token for sale is sold."""
        return self._curve(ledger, listing).complete

    # -- money, which a curve may keep as plain lamports or in a vault

    def open_purse(self, ledger: Ledger, listing: Listing, payer: Pubkey) -> None:
        """Genesis: where the curve keeps its quote currency."""
        vault = self.vaults(listing)[1]
        open_account(ledger, self.vault_owner(listing), listing.quote.mint, payer=payer, address=vault)

    def take_quote(self, ledger: Ledger, listing: Listing, trader: Pubkey, amount: int) -> None:
        """From a trader to the curve. Raises ``InsufficientFunds``."""
        ledger.move_tokens(token_address(trader, listing.quote.mint), self.vaults(listing)[1], amount)

    def give_quote(self, ledger: Ledger, listing: Listing, trader: Pubkey, amount: int) -> None:
        """From the curve to a trader."""
        ledger.move_tokens(self.vaults(listing)[1], token_address(trader, listing.quote.mint), amount)

    def pay_buy(self, ledger: Ledger, listing: Listing, trader: Pubkey, fill: Fill) -> None:
        """A purchase's price and fees; here both go to the vault, where fees wait outside the curve's own reserves."""
        self.take_quote(ledger, listing, trader, fill.total_lamports)

    def pay_sale(self, ledger: Ledger, listing: Listing, trader: Pubkey, fill: Fill) -> None:
        """A sale's proceeds to the trader; here its fees stay in the vault."""
        self.give_quote(ledger, listing, trader, fill.total_lamports)

    # -- trading

    def _curve(self, ledger: Ledger, listing: Listing) -> BondingCurve:
        curve = ledger.curve(self.pool(listing))
        if curve is None:
            raise custom(Anchor.ACCOUNT_NOT_INITIALIZED)
        return curve

    def reserves(self, ledger: Ledger, listing: Listing) -> Reserves:
        """The curve's virtual reserves."""
        curve = self._curve(ledger, listing)
        return Reserves(curve.virtual_tokens, curve.virtual_lamports)

    def buyable_tokens(self, ledger: Ledger, listing: Listing) -> int:
        """What is left for sale."""
        return self._curve(ledger, listing).real_tokens

    def buy(self, ledger: Ledger, listing: Listing, trader: Pubkey, tokens: int, max_lamports: int) -> Swap:
        """Take tokens off the curve; a buy larger than what is left gets what is left, as on mainnet."""
        curve = self._curve(ledger, listing)
        base, _ = self.trader_accounts(ledger, listing, trader)
        if curve.complete:
            raise custom(self.complete_code)
        tokens = min(tokens, curve.real_tokens)
        if tokens == 0:
            raise custom(self.zero_code)
        fill = buy_fill(Reserves(curve.virtual_tokens, curve.virtual_lamports), self.fees, tokens)
        if fill.total_lamports > max_lamports:
            raise custom(self.slippage_code)
        try:
            self.pay_buy(ledger, listing, trader, fill)
        except InsufficientFunds as error:
            raise custom(1) from error  # the answer to the transfer inside
        ledger.move_tokens(self.vaults(listing)[0], base, tokens)
        self._move_curve(ledger, listing, curve, tokens=-tokens, lamports=fill.raw_lamports)
        return self.done(ledger, listing, "buy", trader, fill)

    def sell(self, ledger: Ledger, listing: Listing, trader: Pubkey, tokens: int, min_lamports: int) -> Swap:
        """Put tokens back on the curve."""
        curve = self._curve(ledger, listing)
        base, _ = self.trader_accounts(ledger, listing, trader)
        if curve.complete:
            raise custom(self.complete_code)
        if tokens == 0:
            raise custom(self.sell_zero_code)
        fill = sell_fill(Reserves(curve.virtual_tokens, curve.virtual_lamports), self.fees, tokens)
        try:
            ledger.move_tokens(base, self.vaults(listing)[0], tokens)
        except InsufficientFunds as error:
            raise custom(self.short_code) from error
        if fill.total_lamports < min_lamports or fill.raw_lamports > curve.real_lamports:
            raise custom(self.sell_slippage_code)
        self.pay_sale(ledger, listing, trader, fill)
        self._move_curve(ledger, listing, curve, tokens=tokens, lamports=-fill.raw_lamports)
        return self.done(ledger, listing, "sell", trader, fill)

    @property
    def sell_zero_code(self) -> int:
        """A sale of nothing; a program may have a number of its own for it."""
        return self.zero_code

    @property
    def sell_slippage_code(self) -> int:
        """A sale that brings too little; a program may have a number of its own for it."""
        return self.slippage_code

    def _move_curve(self, ledger: Ledger, listing: Listing, curve: BondingCurve, *, tokens: int, lamports: int) -> None:
        after = BondingCurve(
            curve.virtual_tokens + tokens,
            curve.virtual_lamports + lamports,
            curve.real_tokens + tokens,
            curve.real_lamports + lamports,
        )
        ledger.put_curve(self.pool(listing), after)
