"""What a transaction costs at most, beyond what it trades."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from lasersell_sync.trading.guard.decoded import Decoded
from lasersell_sync.trading.guard.expected import Expected
from lasersell_sync.trading.guard.rules.fees import compute_budget
from lasersell_sync.trading.guard.rules.lamports import lamports_by_destination
from lasersell_sync.trading.guard.rules.rule import Limits

__all__ = ["Costs", "costs_of"]

#: What the network takes for each signature.
_SIGNATURE_LAMPORTS = 5_000


class Costs(NamedTuple):
    """What a transaction costs at most.

    Attributes:
        purchases: what its purchases can take, by currency.
        fee_lamports: the network's fee, the priority fee, tips and the partner's fee.
    """

    purchases: Mapping[str, int]
    fee_lamports: int


def costs_of(tx: Decoded, trade: Expected, limits: Limits) -> Costs:
    """By what its instructions say."""
    sums = lamports_by_destination(tx, trade, limits)
    network = _SIGNATURE_LAMPORTS * tx.signers + compute_budget(tx).priority_fee_lamports
    fee_lamports = network + sums["tip"] + sums["partner"]
    return Costs(tx.spending, fee_lamports)
