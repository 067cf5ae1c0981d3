"""What a transaction costs beyond what it trades, and what it may cost at most."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple

import attrs

from lasersell_sync.trading.guard.decoded import Decoded
from lasersell_sync.trading.guard.expected import Expected
from lasersell_sync.trading.guard.inner_instructions import InnerInstruction
from lasersell_sync.trading.guard.rules.fees import compute_budget, network_fee_lamports
from lasersell_sync.trading.guard.rules.lamports import lamports_by_destination
from lasersell_sync.trading.guard.rules.rule import Limits
from lasersell_sync.trading.guard.simulation import NOTHING, AccountState, Simulation

__all__ = ["Costs", "Money", "RentOf", "costs_of"]


# ── What a transaction costs at most, beyond what it trades ─────────────────────────────────────────────────────────


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


# ── What a simulated trade moves: tokens, money, fees, and whom it pays ─────────────────────────────────────────────


#: Lamports that an account of so many bytes must hold.
RentOf = Callable[[int], int]
States = Mapping[bytes, AccountState]

#: The most that routing may take, of what the trade moves, in basis points, and in SOL at the least so much: the
#: service's fees are 2, 0.9 and 0.5 %, and at least 0.01 SOL (docs/protocol.md 8).
_ROUTING_BPS: Final = 250
_BPS: Final = 10_000
_LEAST_ROUTING_LAMPORTS: Final = 10_000_000
_SOL: Final = "SOL"


@attrs.frozen
class Money:
    """The sums of a simulation.

    Attributes:
        currency: what the trade is paid in.
        tokens_sold: by us; negative in a purchase.
        gained: of the currency, by us; network fee, tips, partner fee and rent are not in it.
        lamports: the same in lamports, wrapped SOL among them, whatever the currency is.
        routing: of the currency, what others got than us, the market, tip accounts and the partner.
        receiver: who got most of that.
        tips_over: lamports that tip accounts and the partner get above the caps.
    """

    currency: str
    tokens_sold: int
    gained: int
    lamports: int
    routing: int
    receiver: bytes | None
    tips_over: int

    def most_routing(self, moved: int) -> int:
        """The highest routing fee for a trade that moves so much of the currency."""
        share = -(-moved * _ROUTING_BPS // _BPS)
        return max(share, _LEAST_ROUTING_LAMPORTS) if self.currency == _SOL else share

    @classmethod
    def of(
        cls, simulation: Simulation, before: States, tx: Decoded, trade: Expected, limits: Limits, rent: RentOf
    ) -> Money:
        """Adds up a simulation; the arguments are those of ``simulation_offences``."""
        return _Books(simulation, before, tx, trade, limits, rent).close()


class _Books:
    """One simulation's accounts, by whose they are."""

    def __init__(
        self, simulation: Simulation, before: States, tx: Decoded, trade: Expected, limits: Limits, rent: RentOf
    ) -> None:
        self._trade, self._limits, self._tx, self._rent = trade, limits, tx, rent
        self._inner = simulation.inner
        self._fee = network_fee_lamports(tx)
        self._states = {key: (before.get(key, NOTHING), after) for key, after in simulation.after.items()}
        self._ours = {key for key, states in self._states.items() if key == trade.signer or self._is_ours(states)}
        self._market = set(_market_accounts(simulation.inner, tx, limits))

    def _is_ours(self, states: Iterable[AccountState]) -> bool:
        return any(state.token is not None and state.token.owner == self._trade.signer for state in states)

    def close(self) -> Money:
        tips, tips_over = self._tips()
        costs = self._fee + tips + self._rent_of_others()
        lamports = sum(self._lamports(key) for key in self._ours) + costs
        currency = self._currency()
        if currency == _SOL:
            gained, gains = lamports, self._gains(self._lamports)
        else:
            gained = sum(self._units(key, currency) for key in self._ours)
            gains = self._gains(lambda key: self._units(key, currency))
        routing = sum(gains.values())
        receiver = max(gains, key=gains.__getitem__, default=None)
        return Money(currency, self._tokens_sold(), gained, lamports, routing, receiver, tips_over)

    # ── differences ──

    def _lamports(self, key: bytes) -> int:
        before, after = self._states[key]
        return after.lamports - before.lamports

    def _units(self, key: bytes, currency: str) -> int:
        """Of a currency that is a token."""
        currencies = self._limits.known.currencies
        before, after = (
            state.token.amount if state.token is not None and currencies.get(state.token.mint) == currency else 0
            for state in self._states[key]
        )
        return after - before

    def _tokens_sold(self) -> int:
        sold = 0
        for key in self._ours:
            before, after = (
                state.token.amount if state.token is not None and state.token.mint == self._trade.mint else 0
                for state in self._states[key]
            )
            sold += before - after
        return sold

    def _currency(self) -> str:
        """What was said, else what our accounts show."""
        known, market = self._limits.known.currencies, self._trade.market
        announced = None if market is None or market.quote_mint is None else known.get(market.quote_mint)
        said = self._trade.currency or announced
        if said is not None and said in known.values():
            return said
        for currency in set(known.values()) - {_SOL}:
            if any(self._units(key, currency) for key in self._ours):
                return currency
        return _SOL

    # ── whom it pays ──

    def _tips(self) -> tuple[int, int]:
        """What tip accounts and the partner get, within their caps; and what they get beyond."""
        limits = self._limits
        partners = {limits.partner, self._trade.partner}
        got = {"tip": 0, "partner": 0}
        for key in self._states.keys() - self._ours:
            bucket = "tip" if key in limits.tip_accounts else "partner" if key in partners else None
            if bucket is not None:
                got[bucket] += max(0, self._lamports(key))
        within = {bucket: min(lamports, limits.max_lamports[bucket]) for bucket, lamports in got.items()}
        return sum(within.values()), sum(got.values()) - sum(within.values())

    def _rent_of_others(self) -> int:
        """Rent of accounts that the market opens for the trade; each what the chain asks, and all within the cap."""
        rent = sum(
            min(after.lamports, self._rent(after.size or 0))
            for key, (_, after) in self._states.items()
            if self._is_new_market_account(key)
        )
        return min(rent, self._limits.max_lamports["own"])

    def _is_new_market_account(self, key: bytes) -> bool:
        before, after = self._states[key]
        if key in self._ours or before.lamports or not after.lamports or after.program is None:
            return False
        program = self._limits.programs.get(after.program)
        return program is not None and program.is_market

    def _gains(self, gain: Callable[[bytes], int]) -> dict[bytes, int]:
        """What everybody gains who is neither us, nor the market, nor a sender, nor the partner."""
        limits = self._limits
        settled = self._ours | self._market | limits.tip_accounts | {limits.partner, self._trade.partner}
        gains = {key: gain(key) for key in self._states.keys() - settled if not self._is_new_market_account(key)}
        for key, lamports in self._gifts_to_the_market().items():
            gains[key] = gains.get(key, 0) + lamports
        return {key: units for key, units in gains.items() if units > 0}

    def _gifts_to_the_market(self) -> dict[bytes, int]:
        """Lamports that an opaque program sends from our wallet to accounts of the market: no trade needs it.

        An account that exists only during the transaction is not meant: what it gets goes on.
        """
        gifts: dict[bytes, int] = {}
        if self._trade.side == "purchase":
            return gifts
        opaque = {item.program_key for item in self._tx.opaque}
        for inner in self._inner:
            target = inner.roles.get("destination")
            if inner.name != "system.transfer" or inner.caller not in opaque or target not in self._market:
                continue
            before, after = self._states.get(target, (NOTHING, NOTHING))
            if inner.roles.get("source") == self._trade.signer and before.lamports and after.lamports:
                gifts[target] = gifts.get(target, 0) + inner.lamports
        return gifts


def _market_accounts(inner: Iterable[InnerInstruction], tx: Decoded, limits: Limits) -> Iterable[bytes]:
    """Accounts that a listed market was called with: what they gain is the price's business."""
    for item in inner:
        program = limits.programs.get(item.program_key)
        if program is not None and program.is_market:
            yield from item.accounts
    for swap in tx.swaps:
        yield from (account for account in swap.instruction.accounts if account is not None)
