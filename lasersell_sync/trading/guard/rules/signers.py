"""Who pays for a transaction and who signs it."""

from __future__ import annotations

from collections.abc import Iterable

from lasersell_sync.trading.guard.decoded import Decoded, shown
from lasersell_sync.trading.guard.expected import Expected
from lasersell_sync.trading.guard.rules.rule import Limits, Offence, rule

__all__ = ["SIGNER_RULES"]


@rule("wallet", "the trade is for the wallet that signs", is_kept_in_report_mode=True)
def _wallet(_: Decoded, trade: Expected, __: Limits) -> Iterable[Offence]:
    if trade.wallet is None or trade.wallet == trade.signer:
        return ()
    problem = f"the trade is for {shown(trade.wallet)}, and {shown(trade.signer)} is to sign it"
    return (Offence(problem, trade.wallet, "sign with the wallet that the trade is for"),)


@rule("fee_payer", "our wallet pays the fee", is_kept_in_report_mode=True)
def _fee_payer(tx: Decoded, trade: Expected, _: Limits) -> Iterable[Offence]:
    if tx.fee_payer == trade.signer:
        return ()
    problem = f"the fee payer is {shown(tx.fee_payer)}"
    return (Offence(problem, tx.fee_payer, "sign with the wallet that it was built for"),)


@rule("only_signer", "nobody else has to sign, but for co-signers that the user names", is_kept_in_report_mode=True)
def _only_signer(tx: Decoded, _: Expected, limits: Limits) -> Iterable[Offence]:
    others = [] if tx.signers == 1 else [key for key in tx.keys[1 : tx.signers] if key not in limits.co_signers]
    if not others:
        return ()
    remedy = "if it is right that this one signs, too: SigningGuard(co_signers=[...])"
    return (Offence(f"{tx.signers} signatures are required", others[0], remedy),)


SIGNER_RULES = (_wallet, _fee_payer, _only_signer)
