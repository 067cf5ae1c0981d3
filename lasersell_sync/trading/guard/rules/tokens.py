"""Where tokens go, and the lamports of closed token accounts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lasersell_sync.trading.guard.decoded import Decoded, shown
from lasersell_sync.trading.guard.expected import Expected
from lasersell_sync.trading.guard.rules.accounts import OURS, is_own
from lasersell_sync.trading.guard.rules.fees import is_partner_account
from lasersell_sync.trading.guard.rules.rule import Limits, Offence, rule

__all__ = ["TOKEN_RULES"]


@rule(
    "token_transfer", "tokens are transferred between own accounts, and a fee to the partner",
    kinds=["token.transfer", "token.transfer_checked"],
)  # fmt: skip
def _token_transfer(tx: Decoded, trade: Expected, limits: Limits) -> Iterator[Offence]:
    for kind, mint_at, target_at in (("token.transfer", None, 1), ("token.transfer_checked", 1, 2)):
        for item in tx.by_kind.get(kind, ()):
            target = item.account(target_at)
            mints: Sequence[bytes | None] = _mints(tx, limits) if mint_at is None else (item.account(mint_at),)
            if not any(
                is_own(tx, trade, limits, mint, target) or is_partner_account(mint, target, trade, limits)
                for mint in mints
            ):
                yield Offence(f"instruction {item.number} transfers tokens to {shown(target)}", target, OURS)


def _mints(tx: Decoded, limits: Limits) -> list[bytes | None]:
    """What an unchecked transfer may be of: it does not name its mint."""
    return [*(mint for swap in tx.swaps for mint in (swap.paid_mint, swap.got_mint)), *limits.known.currencies]


@rule("token_close", "closed token accounts leave their lamports to our wallet", kinds=["token.close_account"])
def _token_close(tx: Decoded, trade: Expected, _: Limits) -> Iterator[Offence]:
    for item in tx.by_kind.get("token.close_account", ()):
        target = item.account(1)
        if target != trade.signer:
            yield Offence(f"instruction {item.number} closes an account in favour of {shown(target)}", target)


TOKEN_RULES = (_token_transfer, _token_close)
