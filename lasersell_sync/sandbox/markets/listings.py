"""What is traded: a listing is one token on one market, and its trade forms are the instructions for a trade."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from solders.instruction import AccountMeta
from solders.pubkey import Pubkey

from lasersell_sync.sandbox.chain.anchor import Call
from lasersell_sync.sandbox.markets.currencies import SOL, Currency

#: Tokens of every mint here, in smallest units.
SUPPLY = 1_000_000_000 * 10**6


@dataclass(frozen=True, slots=True)
class Listing:
    """A token of the sandbox: identity, market and price path."""

    mint: Pubkey
    symbol: str
    name: str
    decimals: int
    creator: Pubkey
    market_type: str
    price_path: str
    quote: Currency = SOL
    #: the bonding curve it came from, if it did; it has graduated when that is not where it trades
    launched_on: str | None = None
    #: nobody trades it while this is so
    halted: bool = False
    #: its trades are written in today's forms, which of them by ``lot``; or else in the classic ones
    today: bool = False
    lot: int = 0
    #: a pump coin whose creator fee goes to whoever trades it, once they claim it
    cashback: bool = False

    @property
    def graduated(self) -> bool:
        """Whether it has moved from a bonding curve to an AMM pool."""
        return self.launched_on not in (None, self.market_type)


@dataclass(frozen=True, slots=True)
class TradeForm:
    """One instruction: its data, its accounts, and where among them the traded token and the user stand."""

    call: Call
    mint_index: int
    user_index: int
    accounts: Callable[[Listing, Pubkey], list[AccountMeta]]
    #: a purchase that names what to spend and the least tokens, in place of tokens and what they may cost
    exact_quote: bool = False
    #: whether it trades coins whose creator fee is cashback
    takes_cashback: bool = True


def chosen_form(forms: Sequence[TradeForm], listing: Listing) -> TradeForm:
    """The form in which the service writes a listing's trades: the first, or one of the others for today's."""
    todays = [form for form in forms[1:] if form.takes_cashback or not listing.cashback]
    if not listing.today or not todays:
        return forms[0]
    return todays[listing.lot % len(todays)]


def matching_form(forms: Sequence[TradeForm], data: bytes) -> TradeForm | None:
    """The form that an instruction's data is of."""
    return next((form for form in forms if form.call.matches(data)), None)
