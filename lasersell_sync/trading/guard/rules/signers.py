"""Who pays for a transaction and who signs it."""

from __future__ import annotations

from collections.abc import Iterator

from lasersell_sync.trading.guard.decoded import Decoded, shown
from lasersell_sync.trading.guard.expected import Expected
from lasersell_sync.trading.guard.rules.rule import Limits, Offence, rule

__all__ = ["SIGNER_RULES"]


@rule("wallet", "the trade is for the wallet that signs", is_kept_in_report_mode=True)
def _wallet(_: Decoded, trade: Expected, __: Limits) -> Iterator[Offence]:
    if trade.wallet is not None and trade.wallet != trade.signer:
        yield Offence(
            f"the trade is for {shown(trade.wallet)}, and {shown(trade.signer)} is to sign it", trade.wallet,
            "sign with the wallet that the trade is for",
        )  # fmt: skip


@rule("fee_payer", "our wallet pays the fee", is_kept_in_report_mode=True)
def _fee_payer(tx: Decoded, trade: Expected, _: Limits) -> Iterator[Offence]:
    if tx.fee_payer != trade.signer:
        yield Offence(
            f"the fee payer is {shown(tx.fee_payer)}", tx.fee_payer, "sign with the wallet that it was built for"
        )


@rule("only_signer", "nobody else has to sign, but for co-signers that the user names", is_kept_in_report_mode=True)
def _only_signer(tx: Decoded, _: Expected, limits: Limits) -> Iterator[Offence]:
    if tx.signers == 1:
        return
    others = [key for key in tx.keys[1 : tx.signers] if key not in limits.co_signers]
    if others:
        yield Offence(
            f"{tx.signers} signatures are required", others[0],
            "if it is right that this one signs, too: SigningGuard(co_signers=[...])",
        )  # fmt: skip


SIGNER_RULES = (_wallet, _fee_payer, _only_signer)
