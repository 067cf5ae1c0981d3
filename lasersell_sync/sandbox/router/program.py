"""The LaserSell Router: takes an order, calls the market, and takes the routing fee, all in one instruction.

Its layout is one of ``shapes.py``. The Router's own accounts are a configuration, a vault for fees in lamports,
the vault's account of the quote currency, and an escrow account of the same, through which some shapes pass the money.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from solders.instruction import AccountMeta, Instruction
from solders.pubkey import Pubkey

from lasersell_sync.sandbox.chain.addresses import (
    ASSOCIATED_TOKEN_PROGRAM,
    LASERSELL_ROUTER_PROGRAM,
    SYSTEM_PROGRAM,
    TOKEN_PROGRAM,
)
from lasersell_sync.sandbox.chain.anchor import Anchor, derived_address
from lasersell_sync.sandbox.chain.instructions import readonly, signer, transfer, transfer_checked, writable
from lasersell_sync.sandbox.chain.ledger import Ledger, token_address
from lasersell_sync.sandbox.chain.runtime import Invocation, Swap, custom
from lasersell_sync.sandbox.markets.anchor_venue import open_account
from lasersell_sync.sandbox.markets.currencies import CURRENCIES, Currency
from lasersell_sync.sandbox.markets.listings import Listing
from lasersell_sync.sandbox.markets.pools import RoutingFee
from lasersell_sync.sandbox.markets.venues import VENUES, Venue
from lasersell_sync.sandbox.router.shapes import RouterOrder, RouterShape
from lasersell_sync.sandbox.router.thefts import RouterTheft

_UNKNOWN_INSTRUCTION = 6000
_WRONG_ACCOUNT = 6001
_FEE_TOO_HIGH = 6002
_MOST_FEE_BPS = 1_000


def router_address(*seeds: bytes) -> Pubkey:
    """An address of the Router's."""
    return derived_address(LASERSELL_ROUTER_PROGRAM, *seeds)


VAULT = router_address(b"vault")
AUTHORITY = router_address(b"authority")
CONFIG = router_address(b"config")


class Router:
    """Builds the Router's instructions, and executes them.

    Args:
        shape: Its layout.
        listings: What trades, by mint; looked up for each instruction.

    Threads: not thread-safe; the exchange's lock guards it.
    """

    def __init__(self, shape: RouterShape, listings: dict[Pubkey, Listing]) -> None:
        self.shape = shape
        self._listings = listings
        #: what a compromised Router does besides; None: nothing
        self.theft: RouterTheft | None = None

    def open(self, ledger: Ledger, payer: Pubkey) -> None:
        """Genesis: the Router's own accounts."""
        ledger.move_lamports(payer, VAULT, ledger.rent_lamports(0))
        ledger.move_lamports(payer, CONFIG, ledger.rent_lamports(0))
        for currency in CURRENCIES.values():
            for owner in (VAULT, AUTHORITY):
                open_account(ledger, owner, currency.mint, payer=payer)

    # -- building

    def route(
        self, listing: Listing, user: Pubkey, direct: Sequence[Instruction], order: RouterOrder
    ) -> list[Instruction]:
        """The instructions of a direct trade with the Router around the market's.

        Args:
            listing: What is traded.
            user: Who trades.
            direct: What a direct trade would be, with exactly one instruction of the market.
            order: The same trade for the Router.
        """
        venue = VENUES[listing.market_type]
        place = next(index for index, item in enumerate(direct) if item.program_id == venue.program)
        market = list(direct[place].accounts)
        if self._does_all(listing):
            # The Router does all of it: nothing but its own instruction is left.
            market += [meta for item in direct for meta in item.accounts if item is not direct[place]]
            before, after = [], []
        else:
            before, after = list(direct[:place]), list(direct[place + 1 :])
        accounts = self.shape.arrange(self._header(listing, user), _once(market + self._programs(venue)))
        return [*before, Instruction(LASERSELL_ROUTER_PROGRAM, self.shape.pack(order), accounts), *after]

    def _does_all(self, listing: Listing) -> bool:
        """Whether the Router itself creates and closes accounts; where the market is paid in lamports it never does."""
        return self.shape.wraps and VENUES[listing.market_type].spends_tokens(listing)

    def _header(self, listing: Listing, user: Pubkey) -> dict[str, AccountMeta]:
        quote = listing.quote.mint
        spends = VENUES[listing.market_type].spends_tokens(listing)
        # Where the market is paid in lamports, the wallet has no account of the quote currency: it stands for itself.
        return {
            "user": signer(user),
            "mint": readonly(listing.mint),
            "config": readonly(CONFIG),
            "vault": writable(VAULT),
            "vault_tokens": writable(token_address(VAULT, quote)),
            "escrow": writable(token_address(AUTHORITY, quote)),
            "user_quote": writable(token_address(user, quote) if spends else user),
        }

    def _programs(self, venue: Venue) -> list[AccountMeta]:
        programs = (venue.program, SYSTEM_PROGRAM, TOKEN_PROGRAM, ASSOCIATED_TOKEN_PROGRAM, AUTHORITY)
        return [readonly(program) for program in programs]

    # -- executing

    def execute(self, invocation: Invocation) -> None:
        """Run one instruction. Raises ``ProgramError``."""
        order = self.shape.unpack(invocation.data)
        if order is None:
            raise custom(_UNKNOWN_INSTRUCTION)
        user, listing = self._parties(invocation)
        if order.fee_bps > _MOST_FEE_BPS:
            raise custom(_FEE_TOO_HIGH)
        venue = VENUES[listing.market_type]
        if self.theft is not None:
            order = self.theft.changed(order, invocation.ledger, token_address(user, listing.mint))
        build = venue.buy_instructions if order.buying else venue.sell_instructions
        direct = build(listing, user, order.tokens, order.limit)
        place = next(index for index, item in enumerate(direct) if item.program_id == venue.program)
        before, after = (direct[:place], direct[place + 1 :]) if self._does_all(listing) else ([], [])
        swap = direct[place]
        for instruction in (*before, swap):
            invocation.call(instruction)
        self._take_fee(invocation, listing, user, order)
        if self.theft is not None:
            self.theft.steal(invocation, listing, user, thief=VAULT)
        for instruction in after:
            invocation.call(instruction)

    def _parties(self, invocation: Invocation) -> tuple[Pubkey, Listing]:
        """Who trades what; and the Router's own accounts are the real ones."""
        found = {name: self.shape.find(name, invocation.accounts) for name in self.shape.header}
        user, mint = found["user"], found["mint"]
        if user is None or mint is None:
            raise custom(Anchor.ACCOUNT_NOT_ENOUGH_KEYS)
        listing = self._listings.get(mint)
        if listing is None:
            raise custom(Anchor.ACCOUNT_NOT_INITIALIZED)
        for name, meta in self._header(listing, user).items():
            if found[name] != meta.pubkey:
                raise custom(_WRONG_ACCOUNT)
        if user not in {meta.pubkey for meta in invocation.accounts if meta.is_signer}:
            raise custom(Anchor.ACCOUNT_NOT_SIGNER)
        return user, listing

    # -- the fee

    def _take_fee(self, invocation: Invocation, listing: Listing, user: Pubkey, order: RouterOrder) -> None:
        swap = invocation.swaps[-1]
        fee = RoutingFee(order.fee_bps, order.least_fee).of(swap.lamports, listing.quote)
        invocation.swaps[-1] = replace(swap, routing_fee=fee)
        in_lamports = not VENUES[listing.market_type].spends_tokens(listing)
        if in_lamports or (self.shape.fee_from == "wallet" and listing.quote.is_native):
            _pay(invocation, transfer(user, VAULT, fee))
        elif self.shape.fee_from == "escrow" and not order.buying:
            self._pass_through_escrow(invocation, listing.quote, user, swap, fee)
        else:
            self._pay_in_tokens(invocation, listing.quote, user, fee)

    def _pay_in_tokens(self, invocation: Invocation, quote: Currency, user: Pubkey, fee: int) -> None:
        """Out of the wallet's account; what that has not (a least fee above the proceeds) comes out of the wallet."""
        source = token_address(user, quote.mint)
        part = min(fee, invocation.ledger.tokens_in(source)) if quote.is_native else fee
        _move(invocation, quote, source, token_address(VAULT, quote.mint), user, part)
        _pay(invocation, transfer(user, VAULT, fee - part))

    def _pass_through_escrow(self, invocation: Invocation, quote: Currency, user: Pubkey, swap: Swap, fee: int) -> None:
        """All proceeds to the escrow; the fee on to the vault, the rest back to the wallet."""
        mine, escrow = token_address(user, quote.mint), token_address(AUTHORITY, quote.mint)
        part = min(fee, swap.lamports)
        _move(invocation, quote, mine, escrow, user, swap.lamports)
        _move(invocation, quote, escrow, token_address(VAULT, quote.mint), AUTHORITY, part)
        _move(invocation, quote, escrow, mine, AUTHORITY, swap.lamports - part)
        if quote.is_native:
            _pay(invocation, transfer(user, VAULT, fee - part))


def _move(invocation: Invocation, quote: Currency, source: Pubkey, target: Pubkey, owner: Pubkey, amount: int) -> None:
    if amount:
        move = transfer_checked(source, quote.mint, target, owner=owner, amount=amount, decimals=quote.decimals)
        invocation.call(move, signed_for=[owner] if owner == AUTHORITY else [])


def _pay(invocation: Invocation, payment: Instruction) -> None:
    """A System transfer of more than nothing."""
    if any(payment.data[4:]):
        invocation.call(payment)


def _once(metas: Sequence[AccountMeta]) -> list[AccountMeta]:
    """Each account once, with the strongest flags that it has anywhere."""
    flags: dict[Pubkey, tuple[bool, bool]] = {}
    for meta in metas:
        signs, writes = flags.get(meta.pubkey, (False, False))
        flags[meta.pubkey] = (signs or meta.is_signer, writes or meta.is_writable)
    return [AccountMeta(key, is_signer=signs, is_writable=writes) for key, (signs, writes) in flags.items()]
