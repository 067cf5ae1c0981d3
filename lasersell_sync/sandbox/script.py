"""The scripting API: make things happen in the market, by hand or from a test."""

from __future__ import annotations

from collections.abc import Sequence

from solders.pubkey import Pubkey

from lasersell_sync.sandbox.exchange.exchange import Exchange
from lasersell_sync.sandbox.markets.currencies import SOL, USD1
from lasersell_sync.sandbox.markets.scenario import Action


class Script:
    """What a scenario's ``[[action]]`` can do, as calls; get it as ``Sandbox.script``.

    A token is named by its symbol or its mint, a scenario's wallet by its name. Amounts are in whole units of the
    token's quote currency: 1.5 is 1.5 SOL, or 1.5 USD1. Everything happens at once, at the clock's present moment,
    except for trades of wallets: those are transactions and land like any other.

    Every method raises ValueError, naming what is wrong: no such token or wallet, nothing to sell, a number out of
    range.

    Threads: every method may be called from any thread.
    """

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def buy(self, wallet: str, token: str, amount: float) -> None:
        """Let one of the scenario's wallets buy for an amount."""
        self._act("buy", token, wallet=wallet, amount=_within("amount", amount, 0, 1e9))

    def sell(self, wallet: str, token: str, share_pct: float = 100.0) -> None:
        """Let one of the scenario's wallets sell a share of what it holds."""
        self._act("sell", token, wallet=wallet, share_pct=_within("share_pct", share_pct, 0.01, 100))

    def price(self, token: str, multiplier: float) -> None:
        """Multiply a price, by one trade of the crowd, as far as the pool allows."""
        self._act("price", token, multiplier=_within("multiplier", multiplier, 1e-6, 1e6))

    def pull_liquidity(self, token: str, keep_pct: float = 5.0) -> None:
        """Rug: the provider leaves with all but a share of both sides of an AMM pool. The price itself stays."""
        self._act("pull", token, keep_pct=_within("keep_pct", keep_pct, 0.01, 100))

    def halt(self, token: str) -> None:
        """Stop trading it until ``resume``: transactions fail on the chain. A running price path may resume it too."""
        self._act("halt", token)

    def resume(self, token: str) -> None:
        """End a halt."""
        self._act("resume", token)

    def graduate(self, token: str) -> None:
        """The crowd buys the rest of a bonding curve, and the token moves to its AMM pool."""
        self._act("graduate", token)

    def grant(self, wallet: str, token: str, amount: float) -> None:
        """Open a position without a trade: the wallet gets tokens as if it had bought them for an amount.

        ``wallet`` is any wallet's public key, or the name of one of the scenario's.
        """
        player, amount = self._exchange.player, _within("amount", amount, 0, 1e9)
        with self._exchange.change():
            listing = player.listing(token)
            player.grant(self._address(wallet), listing, round(amount * 10**listing.quote.decimals))

    def fund(self, wallet: str, *, sol: float = 0.0, usd1: float = 0.0) -> None:
        """Play money for any wallet, by public key or by name."""
        lamports = round(_within("sol", sol, 0, 1e6) * 10**SOL.decimals)
        usd1_units = round(_within("usd1", usd1, 0, 1e9) * 10**USD1.decimals)
        with self._exchange.change():
            self._exchange.player.fund(self._address(wallet), lamports=lamports, usd1_units=usd1_units)

    def lookup_table(self, addresses: Sequence[str]) -> str:
        """Create an address look-up table of 1 to 256 addresses; its own address. Transactions may use it at once."""
        if isinstance(addresses, str) or not 1 <= len(addresses) <= 256:
            raise ValueError("addresses must be a list of 1 to 256 public keys")
        return str(self._exchange.put_lookup_table([self._address(address) for address in addresses]))

    def _act(self, act: str, token: str, **details: float | str) -> None:
        self._exchange.act(Action(0.0, act, token, **details))  # type: ignore[arg-type]

    def _address(self, wallet: str | Pubkey) -> Pubkey:
        if isinstance(wallet, Pubkey):
            return wallet
        keypair = self._exchange.player.wallets.get(wallet)
        if keypair is not None:
            return keypair.pubkey()
        try:
            return Pubkey.from_string(wallet)
        except ValueError as error:
            raise ValueError(f"wallet is neither a public key nor one of the scenario's: {wallet!r}") from error


def _within(name: str, value: float, least: float, most: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
        raise ValueError(f"{name} must be a number from {least:g} to {most:g}, not {value!r}")
    return float(value)
