"""Where lamports go, and how many."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from lasersell_sync.trading.guard.decoded import CREATE_WITH_SEED, Decoded, shown, transferred_lamports
from lasersell_sync.trading.guard.expected import BUY, Expected
from lasersell_sync.trading.guard.rules.accounts import is_own
from lasersell_sync.trading.guard.rules.fees import is_partner
from lasersell_sync.trading.guard.rules.rule import Limits, Offence, rule

__all__ = ["LAMPORT_RULES", "lamports_by_destination"]


@rule(
    "destination", "lamports go to own accounts, senders' tip accounts and the partner only", kinds=["system.transfer"]
)
def _destination(tx: Decoded, trade: Expected, limits: Limits) -> Iterator[Offence]:
    for item in tx.by_kind.get("system.transfer", ()):
        target = item.account(1)
        if _bucket(tx, trade, limits, target) is None:
            yield Offence(
                f"instruction {item.number} sends {transferred_lamports(item)} lamports to {shown(target)}", target,
                "if that is right: SigningGuard(tip_accounts=[...]), (partner=...) or (own_accounts=[...])",
                amount=transferred_lamports(item),
            )  # fmt: skip


@rule(
    "lamports", "what leaves the wallet is capped: tips, partner fee, and what own accounts get",
    is_kept_in_report_mode=True, kinds=["system.transfer", "associated_token.create", CREATE_WITH_SEED],
)  # fmt: skip
def _lamports(tx: Decoded, trade: Expected, limits: Limits) -> Iterable[Offence]:
    creations = len(tx.by_kind.get("associated_token.create", ()))
    rent = limits.token_account_rent() * creations if creations else 0
    sends_more = tx.seeded or tx.opaque or tx.spending or "system.transfer" in tx.by_kind
    if not sends_more and rent <= limits.max_lamports["own"]:
        return ()  # most sales: the rent of a token account is all that leaves
    last: dict[str, bytes | None] = {}
    sums = lamports_by_destination(tx, trade, limits, last)
    for created in tx.seeded:
        sums["own"] += created.lamports
        last["own"] = created.address
    sums["own"] += rent
    if tx.opaque:
        sums["own"] -= _opaque_budget(trade, limits)
    if tx.spending:
        # What a market takes as lamports need not be wrapped first.
        wrapped = sum(swap.most_in for swap in tx.swaps if not swap.pays_lamports and swap.is_purchase)
        sums["own"] -= min(tx.spending.get("SOL", 0), wrapped)
    found = []
    for bucket, lamports in sums.items():
        if lamports > 0 and lamports > (cap := _cap(bucket, trade, limits)):
            problem = f"{lamports} lamports go to {_BUCKETS[bucket]}, {cap} at most"
            remedy = f"if that is right: SigningGuard({_CAPS[bucket]}=...)"
            found.append(Offence(problem, last.get(bucket), remedy, amount=lamports))
    return found


def _cap(bucket: str, trade: Expected, limits: Limits) -> int:
    """The guard's; of tips what was asked for, or what the sender takes at least where that is more."""
    asked = trade.context.tip_lamports if trade.tip_lamports is None else trade.tip_lamports
    if bucket != "tip" or asked is None:
        return limits.max_lamports[bucket]
    minimum = limits.known.minimum_tips.get(trade.send_mode or "", 0)
    return max(asked, minimum, trade.context.minimum_tip_lamports or 0)


def _opaque_budget(trade: Expected, limits: Limits) -> int:
    """Lamports that a purchase of unknown layout may wrap first."""
    if trade.side != BUY or trade.currency not in (None, "SOL"):
        return 0
    return min((cap for cap in (limits.max_buy["SOL"], trade.max_spend) if cap is not None), default=0)


def lamports_by_destination(
    tx: Decoded, trade: Expected, limits: Limits, last: dict[str, bytes | None] | None = None
) -> dict[str, int]:
    """What System transfers send to tip accounts, the partner and own accounts; notes in ``last`` where they went."""
    sums = {"tip": 0, "partner": 0, "own": 0}
    for item in tx.by_kind.get("system.transfer", ()):
        target = item.account(1)
        bucket = _bucket(tx, trade, limits, target)
        if bucket is not None:
            sums[bucket] += transferred_lamports(item)
            if last is not None:
                last[bucket] = target
    return sums


_CAPS = {"tip": "max_tip_lamports", "partner": "max_partner_fee_lamports", "own": "max_rent_lamports"}
_BUCKETS = {"tip": "tip accounts", "partner": "the partner", "own": "own accounts (beyond what the market spends)"}


def _bucket(tx: Decoded, trade: Expected, limits: Limits, target: bytes | None) -> str | None:
    """Which of the permitted kinds of destination it is."""
    if target in limits.tip_accounts:
        return "tip"
    if is_partner(target, trade, limits):
        return "partner"
    if target == trade.signer or is_own(tx, trade, limits, limits.known.wrapped_sol, target):
        return "own"
    return None


LAMPORT_RULES = (_destination, _lamports)
