"""What the six markets' programs have in common: Anchor instructions that swap a token against a quote currency.

A venue is the rules of one market: it builds instructions for the REST side and executes them for the ledger side,
from the same account list.

A subclass says how its program spells an instruction and which accounts it lists; the base class writes transactions
from that and reads them back. On every market a purchase names the tokens and the most they may cost, a sale the tokens
and the least they may bring: all programs have instructions of both kinds, and exact tokens are easy to account for.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from solders.instruction import AccountMeta, Instruction
from solders.pubkey import Pubkey

from lasersell_sync.sandbox.chain.addresses import SYSTEM_PROGRAM
from lasersell_sync.sandbox.chain.anchor import (
    EVENT_TAG,
    Anchor,
    Call,
    check_anchor_accounts,
    derived_address,
    event_tag,
)
from lasersell_sync.sandbox.chain.instructions import (
    close_token_account,
    create_token_account,
    sync_native,
    transfer,
    transfer_checked,
)
from lasersell_sync.sandbox.chain.ledger import InsufficientFunds, Ledger, token_address
from lasersell_sync.sandbox.chain.runtime import Invocation, ProgramError, Swap, custom
from lasersell_sync.sandbox.markets.listings import Listing, TradeForm, chosen_form, matching_form
from lasersell_sync.sandbox.markets.pools import FeeSchedule, Fill, Reserves, price_lamports, tokens_for_budget


class AnchorVenue:
    """The common part of a venue. Stateless: a market's state lives in the ledger."""

    market_type: str
    route_name: str
    program: Pubkey
    fees: FeeSchedule
    #: the AMM market its tokens move to when their curve is complete
    graduates_to: str | None = None
    #: the pool they move to follows from the token: nobody else can open it
    pool_follows_from_token = False
    #: its tokens trade against SOL alone
    sol_only = False
    #: some of its coins pay their creator fee to whoever trades them
    has_cashback = False
    buy_call: Call
    sell_call: Call
    #: where a purchase and a sale name the traded token and the user
    mint_indexes: tuple[int, int]
    user_index: int
    #: what its events of a purchase and of a sale are called; None: it calls itself for none
    event_names: tuple[str, str] | None = None
    #: the program's own error numbers
    halted_code: int
    zero_code: int
    slippage_code: int
    #: an instruction that cannot trade a cashback coin is asked to
    cashback_code: int = Anchor.CONSTRAINT_SEEDS

    @property
    def least_tokens_code(self) -> int:
        """A purchase for an exact price brings too few tokens; a program may have a number of its own for it."""
        return self.slippage_code

    # -- what a subclass says

    def pool(self, listing: Listing) -> Pubkey:
        """The account that identifies the pool."""
        raise NotImplementedError

    def vault_owner(self, listing: Listing) -> Pubkey:
        """Who owns the pool's token accounts."""
        raise NotImplementedError

    def vaults(self, listing: Listing) -> tuple[Pubkey, Pubkey]:
        """The pool's accounts of token and quote currency."""
        raise NotImplementedError

    def pool_token_account(self, listing: Listing) -> Pubkey:
        """The pool's account of the traded token."""
        return self.vaults(listing)[0]

    def market_context(self, listing: Listing, user: Pubkey) -> dict[str, object]:
        """The wire's ``market_context`` of a listing, for a user's position."""
        raise NotImplementedError

    def buy_accounts(self, listing: Listing, user: Pubkey) -> list[AccountMeta]:
        """The accounts of a classic purchase, in the program's order."""
        raise NotImplementedError

    def sell_accounts(self, listing: Listing, user: Pubkey) -> list[AccountMeta]:
        """The accounts of a classic sale, in the program's order."""
        raise NotImplementedError

    def today_buys(self) -> Sequence[TradeForm]:
        """Today's forms of a purchase, where they differ from the classic one."""
        return ()

    def today_sells(self) -> Sequence[TradeForm]:
        """Today's forms of a sale, where they differ from the classic one."""
        return ()

    def reserves(self, ledger: Ledger, listing: Listing) -> Reserves:
        """What the price is computed from."""
        raise NotImplementedError

    def buy(self, ledger: Ledger, listing: Listing, trader: Pubkey, tokens: int, max_lamports: int) -> Swap:
        """Execute a purchase on the ledger. Raises ``ProgramError``."""
        raise NotImplementedError

    def sell(self, ledger: Ledger, listing: Listing, trader: Pubkey, tokens: int, min_lamports: int) -> Swap:
        """Execute a sale on the ledger. Raises ``ProgramError``."""
        raise NotImplementedError

    def spends_tokens(self, listing: Listing) -> bool:
        """Whether the quote currency is taken from a token account; a curve may take plain lamports."""
        del listing
        return True

    def ask_fees(self, invocation: Invocation, listing: Listing, tokens: int) -> None:
        """What a program asks another one before it trades; most ask nothing."""

    def cashback_owner(self, listing: Listing, user: Pubkey) -> Pubkey | None:
        """Whose account of the quote currency takes a user's cashback; None: there is none to open."""
        del listing, user
        return None

    # -- instructions

    @property
    def buy_forms(self) -> tuple[TradeForm, ...]:
        """Every instruction that buys, the classic one first."""
        classic = TradeForm(self.buy_call, self.mint_indexes[0], self.user_index, self.buy_accounts)
        return (classic, *self.today_buys())

    @property
    def sell_forms(self) -> tuple[TradeForm, ...]:
        """Every instruction that sells, the classic one first."""
        classic = TradeForm(self.sell_call, self.mint_indexes[1], self.user_index, self.sell_accounts)
        return (classic, *self.today_sells())

    def buys_exact_quote(self, listing: Listing) -> bool:
        """Whether a purchase names what to spend and the least tokens, in place of tokens and what they may cost."""
        return chosen_form(self.buy_forms, listing).exact_quote

    def buy_instructions(self, listing: Listing, user: Pubkey, tokens: int, max_lamports: int) -> list[Instruction]:
        """Make sure of the accounts, swap; SOL is wrapped before, and what was not needed is unwrapped after."""
        form = chosen_form(self.buy_forms, listing)
        swap = Instruction(self.program, form.call.pack(tokens, max_lamports), form.accounts(listing, user))
        prepared = [create_token_account(user, listing.mint)]
        if not (self.spends_tokens(listing) and listing.quote.is_native):
            return [*prepared, swap]
        wrapped = token_address(user, listing.quote.mint)
        wrap = [
            create_token_account(user, listing.quote.mint),
            transfer(user, wrapped, max_lamports),
            sync_native(wrapped),
        ]
        return [*wrap, *prepared, swap, close_token_account(wrapped, user)]

    def sell_instructions(self, listing: Listing, user: Pubkey, tokens: int, min_lamports: int) -> list[Instruction]:
        """Swap into the quote account; wrapped SOL is unwrapped."""
        form = chosen_form(self.sell_forms, listing)
        swap = Instruction(self.program, form.call.pack(tokens, min_lamports), form.accounts(listing, user))
        if not self.spends_tokens(listing):
            return [swap]
        create = create_token_account(user, listing.quote.mint)
        if not listing.quote.is_native:
            return [create, swap]
        return [create, swap, close_token_account(token_address(user, listing.quote.mint), user)]

    # -- execution

    def execute(self, invocation: Invocation, listings: dict[Pubkey, Listing]) -> None:
        """Run one swap. Raises ``ProgramError``."""
        if invocation.data.startswith(EVENT_TAG):
            self._take_event(invocation)
            return
        buy, sell = (matching_form(forms, invocation.data) for forms in (self.buy_forms, self.sell_forms))
        form = buy or sell
        if form is None:
            raise custom(Anchor.INSTRUCTION_FALLBACK_NOT_FOUND)
        numbers = form.call.unpack(invocation.data)
        if numbers is None:
            raise custom(Anchor.INSTRUCTION_DID_NOT_DESERIALIZE)
        if len(invocation.accounts) <= max(form.mint_index, form.user_index):
            raise custom(Anchor.ACCOUNT_NOT_ENOUGH_KEYS)
        listing = listings.get(invocation.accounts[form.mint_index].pubkey)
        if listing is None:
            raise custom(Anchor.ACCOUNT_NOT_INITIALIZED)
        if listing.market_type != self.market_type:
            raise self.moved(listing)
        user = invocation.accounts[form.user_index].pubkey
        check_anchor_accounts(invocation.accounts, form.accounts(listing, user))
        if listing.cashback and not form.takes_cashback:
            raise custom(self.cashback_code)
        if listing.halted:
            raise custom(self.halted_code)
        self.ask_fees(invocation, listing, numbers[0])
        ledger = ProgramLedger(invocation)
        if buy is not None and buy.exact_quote:
            swap = self._buy_for(ledger, listing, user, *numbers)
        else:
            swap = (self.sell if buy is None else self.buy)(ledger, listing, user, *numbers)
        invocation.swaps.append(swap)
        self._emit(invocation, swap)

    def _buy_for(self, ledger: Ledger, listing: Listing, user: Pubkey, least_tokens: int, quote: int) -> Swap:
        """Spend so much; what it buys must be enough."""
        tokens = tokens_for_budget(self.reserves(ledger, listing), self.fees, quote)
        if tokens < least_tokens:
            raise custom(self.least_tokens_code)
        return self.buy(ledger, listing, user, tokens, quote)

    # -- events, which these programs write by calling themselves

    def _emit(self, invocation: Invocation, swap: Swap) -> None:
        authority = AccountMeta(self.event_authority, is_signer=True, is_writable=False)
        if self.event_names and any(meta.pubkey == authority.pubkey for meta in invocation.accounts):
            name = self.event_names[0 if swap.side == "buy" else 1]
            numbers = struct.pack("<QQ?", swap.tokens, swap.lamports, swap.side == "buy")
            data = EVENT_TAG + event_tag(name) + bytes(swap.mint) + numbers + bytes(swap.trader)
            invocation.call(Instruction(self.program, data, [authority]), signed_for=[authority.pubkey])

    def _take_event(self, invocation: Invocation) -> None:
        """Nothing happens; the call stands in the transaction's record for those who read it."""
        if invocation.address(0, signer=True) != self.event_authority:
            raise custom(Anchor.CONSTRAINT_SEEDS)

    @property
    def event_authority(self) -> Pubkey:
        """The address that signs for a program's events."""
        return self.derived(b"__event_authority")

    def moved(self, listing: Listing) -> ProgramError:
        """The answer to a trade in a token that is not, or not any more, on this market."""
        del listing
        return custom(Anchor.ACCOUNT_NOT_INITIALIZED)

    def derived(self, *seeds: bytes) -> Pubkey:
        """An address of this program."""
        return derived_address(self.program, *seeds)

    def trader_accounts(self, ledger: Ledger, listing: Listing, trader: Pubkey) -> tuple[Pubkey, Pubkey]:
        """The trader's accounts of token and quote currency; both must exist if the venue spends tokens."""
        base, quote = token_address(trader, listing.mint), token_address(trader, listing.quote.mint)
        needed = (base, quote) if self.spends_tokens(listing) else (base,)
        if any(ledger.token_account(address) is None for address in needed):
            raise custom(Anchor.ACCOUNT_NOT_INITIALIZED)
        return base, quote

    def done(self, ledger: Ledger, listing: Listing, side: str, trader: Pubkey, fill: Fill) -> Swap:
        """The record of a trade that has just been executed."""
        price = price_lamports(self.reserves(ledger, listing), listing.decimals)
        account = token_address(trader, listing.mint)
        return Swap(listing.mint, side, trader, account, fill.tokens, fill.total_lamports, price)


def open_account(
    ledger: Ledger, owner: Pubkey, mint: Pubkey, *, payer: Pubkey, address: Pubkey | None = None
) -> Pubkey:
    """Genesis: a token account (the associated one, unless another address is given); fine if it exists."""
    account = token_address(owner, mint) if address is None else address
    if ledger.token_account(account) is None:
        ledger.open_token_account(account, mint=mint, owner=owner, payer=payer)
    return account


class ProgramLedger(Ledger):
    """The invocation's ledger, with every movement recorded as a call inside.

    A wallet signs for its own accounts, the program for those of the addresses that it derives. Lamports of an account
    that the program owns move without a call, as they do on the main net.

    Threads: not thread-safe; the exchange's lock guards it.
    """

    def __init__(self, invocation: Invocation) -> None:
        # The same tables and the same undo log: nothing is copied.
        vars(self).update(vars(invocation.ledger))
        self._invocation = invocation
        self._signers = {meta.pubkey for meta in invocation.accounts if meta.is_signer}
        self._named = {meta.pubkey for meta in invocation.accounts}

    def names(self, address: Pubkey) -> bool:
        """Whether the instruction at work names an account."""
        return address in self._named

    def move_tokens(self, source: Pubkey, target: Pubkey, amount: int) -> None:
        """As ``Ledger.move_tokens``. Raises ``InsufficientFunds``, ``ProgramError``."""
        account = self._tokens[source]
        if account.amount < amount:
            raise InsufficientFunds(f"{source} lacks {amount - account.amount} tokens")
        if not amount:
            return
        decimals = self._mints[account.mint].decimals
        move = transfer_checked(source, account.mint, target, owner=account.owner, amount=amount, decimals=decimals)
        derived = [] if account.owner in self._signers else [account.owner]
        self._invocation.call(move, signed_for=derived)

    def move_lamports(self, source: Pubkey, target: Pubkey, amount_lamports: int) -> None:
        """As ``Ledger.move_lamports``. Raises ``InsufficientFunds``, ``ProgramError``."""
        if source not in self._signers or SYSTEM_PROGRAM not in self._named:
            super().move_lamports(source, target, amount_lamports)
        elif self.lamports(source) < amount_lamports:
            raise InsufficientFunds(f"{source} lacks {amount_lamports - self.lamports(source)} lamports")
        elif amount_lamports:
            self._invocation.call(transfer(source, target, amount_lamports))
