"""What a market is quoted in: SOL (traded as wrapped SOL where a program wants a token) or USD1."""

from __future__ import annotations

from dataclasses import dataclass

from solders.pubkey import Pubkey

from lasersell_sync.sandbox.chain.addresses import USD1_MINT, WRAPPED_SOL_MINT


@dataclass(frozen=True, slots=True)
class Currency:
    """``name`` as the wire's ``input`` and ``output`` spell it; amounts count ``10 ** -decimals`` of one."""

    name: str
    mint: Pubkey
    decimals: int

    @property
    def is_native(self) -> bool:
        """Whether wallets keep it as plain lamports and wrap it for a trade."""
        return self.mint == WRAPPED_SOL_MINT


SOL = Currency("SOL", WRAPPED_SOL_MINT, 9)
USD1 = Currency("USD1", USD1_MINT, 6)
CURRENCIES = {currency.name: currency for currency in (SOL, USD1)}
