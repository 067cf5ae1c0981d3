"""What an automatic seller tells ``session.health()``."""

from __future__ import annotations

from collections.abc import Iterable

from lasersell_sync.autosell.take_up import TakeUp
from lasersell_sync.callback_executor import CallbackExecutor
from lasersell_sync.session.concerns import Concern
from lasersell_sync.trading.outcome import TxResult

__all__ = ["seller_concerns"]


def seller_concerns(
    *,
    is_paused: bool,
    take_ups: Iterable[TakeUp],
    undecided: Iterable[TxResult],
    held_back_purchases: int,
    callbacks: CallbackExecutor,
) -> list[Concern]:
    """Everything that waits or fails, each with what to do.

    Args:
        is_paused: nothing is signed.
        take_ups: of exits that an earlier process left unfinished.
        undecided: transactions of which nothing was proven for a minute.
        held_back_purchases: how many wait for exits of the same token.
        callbacks: where the user's code runs.
    """
    found: list[Concern] = []
    if is_paused:
        found.append(Concern("the seller is paused: nothing is sold until seller.resume()", is_problem=False))
    found += [
        Concern(waits_for, is_problem=take_up.is_undecided) for take_up in take_ups if (waits_for := take_up.waits_for)
    ]
    found += [
        Concern(
            f"transaction {each.signature} is undecided: {each.detail}. Look it up by its signature", is_problem=True
        )
        for each in undecided
    ]
    if held_back_purchases:
        text = f"{held_back_purchases} copied purchases wait until no exit of their token can land any more"
        found.append(Concern(text, is_problem=False))
    return [*found, *_callback_concerns(callbacks)]


def _callback_concerns(callbacks: CallbackExecutor) -> list[Concern]:
    found: list[Concern] = []
    slow = callbacks.slow()
    if slow is not None:
        what, running_s = slow
        waiting = callbacks.waiting
        text = f"{what} has run for {running_s:.0f} s, and {waiting} callbacks wait behind it: let it return fast"
        found.append(Concern(text, is_problem=True))
    if callbacks.errors:
        text = f"{callbacks.errors} callbacks raised, the latest was {callbacks.last_error}: the log has the traceback"
        found.append(Concern(text, is_problem=False))
    return found
