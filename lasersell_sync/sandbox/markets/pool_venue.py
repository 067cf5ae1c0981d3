"""AMM markets: a constant-product pool of two token accounts, the token's and the quote currency's."""

from __future__ import annotations

from solders.pubkey import Pubkey

from lasersell_sync.sandbox.chain.anchor import Anchor
from lasersell_sync.sandbox.chain.ledger import InsufficientFunds, Ledger, token_address
from lasersell_sync.sandbox.chain.runtime import Swap, custom
from lasersell_sync.sandbox.markets.anchor_venue import AnchorVenue, open_account
from lasersell_sync.sandbox.markets.currencies import SOL, Currency
from lasersell_sync.sandbox.markets.listings import Listing
from lasersell_sync.sandbox.markets.pools import Fill, Reserves, buy_fill, sell_fill

#: A pool as a graduated token finds it.
START_POOL_TOKENS = 206_900_000 * 10**6


def start_pool_quote(quote: Currency) -> int:
    """The quote currency of such a pool: 85 SOL, or about their worth."""
    return 85 * 10**9 if quote == SOL else 12_750 * 10**6


class PoolVenue(AnchorVenue):
    """The common part of the AMM markets: the reserves are the balances of the pool's two accounts."""

    empty_code: int

    # -- genesis

    def open(self, ledger: Ledger, listing: Listing, crowd: Pubkey, start_quote: int | None) -> None:
        """A pool as a graduated token finds it, or with other depth at the same number of tokens."""
        quote = start_pool_quote(listing.quote) if start_quote is None else start_quote
        self.fund(ledger, listing, crowd, tokens=START_POOL_TOKENS, quote=quote)

    def fund(self, ledger: Ledger, listing: Listing, crowd: Pubkey, *, tokens: int, quote: int) -> None:
        """Create the pool out of the crowd's purse."""
        owner, (base_vault, quote_vault) = self.vault_owner(listing), self.vaults(listing)
        open_account(ledger, owner, listing.mint, payer=crowd, address=base_vault)
        open_account(ledger, owner, listing.quote.mint, payer=crowd, address=quote_vault)
        ledger.move_tokens(token_address(crowd, listing.mint), base_vault, tokens)
        ledger.move_tokens(token_address(crowd, listing.quote.mint), quote_vault, quote)

    def pull(self, ledger: Ledger, listing: Listing, crowd: Pubkey, keep_ppm: int) -> None:
        """The liquidity provider leaves with all but a part of both sides; the price stays."""
        for vault, mint in zip(self.vaults(listing), (listing.mint, listing.quote.mint), strict=True):
            amount = ledger.tokens_in(vault)
            taken = min(amount - 1, amount - amount * keep_ppm // 1_000_000)
            ledger.move_tokens(vault, token_address(crowd, mint), max(0, taken))

    # -- trading

    def reserves(self, ledger: Ledger, listing: Listing) -> Reserves:
        """The balances of the pool's two accounts."""
        base, quote = (ledger.token_account(vault) for vault in self.vaults(listing))
        if base is None or quote is None:
            raise custom(Anchor.ACCOUNT_NOT_INITIALIZED)
        return Reserves(base.amount, quote.amount)

    def buyable_tokens(self, ledger: Ledger, listing: Listing) -> int:
        """All but the last token."""
        return self.reserves(ledger, listing).tokens - 1

    def buy(self, ledger: Ledger, listing: Listing, trader: Pubkey, tokens: int, max_lamports: int) -> Swap:
        """Tokens out, quote currency in."""
        base, quote = self.trader_accounts(ledger, listing, trader)
        if tokens == 0:
            raise custom(self.zero_code)
        reserves = self.reserves(ledger, listing)
        if tokens >= reserves.tokens:
            raise custom(self.empty_code)
        fill = buy_fill(reserves, self.fees, tokens)
        if fill.total_lamports > max_lamports:
            raise custom(self.slippage_code)
        base_vault, quote_vault = self.vaults(listing)
        try:
            ledger.move_tokens(quote, quote_vault, fill.raw_lamports + fill.lp_fee_lamports)
            self.pay_fees(ledger, listing, trader, quote, fill)
        except InsufficientFunds as error:
            raise custom(1) from error  # the Token program's answer to the transfer inside
        ledger.move_tokens(base_vault, base, tokens)
        return self.done(ledger, listing, "buy", trader, fill)

    def sell(self, ledger: Ledger, listing: Listing, trader: Pubkey, tokens: int, min_lamports: int) -> Swap:
        """Tokens in, quote currency out."""
        base, quote = self.trader_accounts(ledger, listing, trader)
        if tokens == 0:
            raise custom(self.zero_code)
        fill = sell_fill(self.reserves(ledger, listing), self.fees, tokens)
        if fill.total_lamports < min_lamports:
            raise custom(self.slippage_code)
        base_vault, quote_vault = self.vaults(listing)
        try:
            ledger.move_tokens(base, base_vault, tokens)
        except InsufficientFunds as error:
            raise custom(1) from error
        ledger.move_tokens(quote_vault, quote, fill.total_lamports)
        self.pay_fees(ledger, listing, trader, quote_vault, fill)
        return self.done(ledger, listing, "sell", trader, fill)

    def pay_fees(self, ledger: Ledger, listing: Listing, trader: Pubkey, payer: Pubkey, fill: Fill) -> None:
        """Send on what does not stay in the pool; for a pool that keeps all its fees, nothing."""
