"""Who pays for a transaction and who signs it."""

from __future__ import annotations

from lasersell_sync.trading.guard.decoded import Decoded, shown
from lasersell_sync.trading.guard.expected import Expected
from lasersell_sync.trading.guard.rules.rule import Limits, Offence, rule

__all__ = ["SIGNER_RULES"]


@rule("wallet", "the trade is for the wallet that signs")
def _wallet(_: Decoded, trade: Expected, __: Limits) -> Offence | None:
    if trade.wallet is None or trade.wallet == trade.signer:
        return None
    return Offence(
        f"the trade is for {shown(trade.wallet)}, and {shown(trade.signer)} is to sign it", trade.wallet,
        "sign with the wallet that the trade is for",
    )  # fmt: skip


@rule("fee_payer", "our wallet pays the fee")
def _fee_payer(tx: Decoded, trade: Expected, _: Limits) -> Offence | None:
    if tx.fee_payer == trade.signer:
        return None
    return Offence(
        f"the fee payer is {shown(tx.fee_payer)}", tx.fee_payer, "sign with the wallet that it was built for"
    )


@rule("only_signer", "nobody else has to sign")
def _only_signer(tx: Decoded, _: Expected, __: Limits) -> Offence | None:
    return None if tx.signers == 1 else Offence(f"{tx.signers} signatures are required", tx.keys[1])


SIGNER_RULES = (_wallet, _fee_payer, _only_signer)
