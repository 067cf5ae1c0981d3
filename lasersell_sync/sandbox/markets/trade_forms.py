"""The instructions by which a market's program can be asked for the same trade: older and today's ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from solders.instruction import AccountMeta
from solders.pubkey import Pubkey

from lasersell_sync.sandbox.markets.listings import Call, Listing


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
