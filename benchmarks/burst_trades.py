"""The positions of a burst, with a sale of each: direct ones of the sandbox's markets, and sales through a router."""

from __future__ import annotations

import base64
import itertools
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final
from unittest import mock

from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.token.associated import get_associated_token_address

from benchmarks import data
from tests.support import router_trade

__all__ = [
    "SLOT",
    "Position",
    "RouterTrades",
    "direct_keypair",
    "direct_positions",
    "message_of",
    "router_keypair",
]

SLOT: Final = router_trade.SLOT
TOKENS: Final = 10**9
#: Little enough to sell without a simulation, when no node can make one; so are the sales through a router.
WALLET_LAMPORTS: Final = 500_000_000
_SMALLER: Final = 100
_SMALL: Final = {name: getattr(router_trade, name) // _SMALLER for name in ("PROCEEDS", "MARKET_FEE", "ROUTING")}
_MESSAGE_AT: Final = 65


@dataclass(frozen=True)
class Position:
    """One position and the sale of all of it.

    Attributes:
        tx_b64: unsigned.
    """

    wallet: str
    mint: str
    token_account: str
    tokens: int
    tx_b64: str
    entry_units: int = 70_000

    @property
    def message(self) -> bytes:
        """What its signature will sign; a name for the sale, too."""
        return message_of(base64.b64decode(self.tx_b64))

    def opened(self, number: int) -> bytes:
        """The frame that announces it."""
        fields = {
            "tokens": self.tokens, "entry_quote_units": self.entry_units, "market_context": _MARKET, "slot": SLOT - 5,
        }  # fmt: skip
        return self._frame("position_opened", number, **fields)

    def exit_signal(self, number: int, *, level: int | None = None) -> bytes:
        """The frame that signals its exit; with ``level``, as a level that sells so many tokens."""
        fields: dict[str, object] = {
            "session_id": 1, "position_tokens": self.tokens, "profit_units": -5, "reason": "stop_loss",
            "triggered_at_ms": time.time_ns() // 1_000_000, "market_context": _MARKET, "unsigned_tx_b64": self.tx_b64,
        }  # fmt: skip
        if level is not None:
            # The whole is larger than what this level sells.
            fields |= {"sell_tokens": self.tokens, "position_tokens": 2 * self.tokens, "level_index": level}
            fields["reason"] = "take_profit_level"
        return self._frame("exit_signal_with_tx", number, **fields)

    def _frame(self, kind: str, number: int, **fields: object) -> bytes:
        position = {"position_id": number, "wallet_pubkey": self.wallet, "mint": self.mint}
        message = {"type": kind, **position, "token_account": self.token_account, **fields}
        return data.frame(json.dumps(message, separators=(",", ":")).encode())


_MARKET: Final = {"market_type": "pump_fun", "pumpfun": {}}


def message_of(transaction: bytes) -> bytes:
    """The message of a transaction with one signature."""
    return transaction[_MESSAGE_AT:]


# ── direct sales ─────────────────────────────────────────────────────────────────────────────────────────────────


@lru_cache(maxsize=1)
def direct_positions(count: int) -> Sequence[Position]:
    """Positions of the wallet of ``direct_keypair``, each of another token, and sales as the sandbox builds them."""
    from lasersell_sync.sandbox.exchange.orders import Delivery
    from lasersell_sync.sandbox.markets.scenario import parse_scenario
    from tests.sandbox.players import Rig

    tokens = "".join(
        f'[[token]]\nsymbol = "C{number}"\nmarket = "pump_fun"\nquote = "SOL"\nrest_noise_pct = 0\n'
        for number in range(count)
    )
    rig = Rig(scenario=parse_scenario(f'about = "A burst."\n{tokens}', "burst"))
    wallet = direct_keypair().pubkey()
    sales = [
        rig.build_sell(listing, wallet, tokens=TOKENS, slippage_bps=500, delivery=Delivery("rpc"), partner_fee=None)
        for listing in rig.listings
    ]
    return [
        Position(
            str(wallet), str(sale.listing.mint), str(get_associated_token_address(wallet, sale.listing.mint)), TOKENS,
            sale.tx_b64,
        )
        for sale in itertools.islice(sales, count)
    ]  # fmt: skip


def direct_keypair() -> Keypair:
    """A test's, of no worth."""
    return Keypair.from_seed(bytes([1]) * 32)


# ── sales through a router ───────────────────────────────────────────────────────────────────────────────────────


class RouterTrades:
    """Honest sales of one wallet through a program of unknown layout, and what a node says that they do.

    Args:
        count: so many positions, each of another token.
    """

    def __init__(self, count: int) -> None:
        self.positions: list[Position] = []
        self._by_account: dict[Pubkey, router_trade.RouterTrade] = {}
        for number in range(count):
            mint = router_trade.address(f"coin {number}")
            account = get_associated_token_address(router_trade.WALLET, mint, router_trade.TOKEN)
            read = tuple(mint if key == router_trade.MINT else key for key in router_trade._READ)
            with mock.patch.multiple(router_trade, MINT=mint, ACCOUNT=account, _READ=read, **_SMALL):
                trade = router_trade.honest_sale(wallet_lamports=WALLET_LAMPORTS)
            self._by_account[account] = trade
            self.positions.append(
                Position(
                    str(router_trade.WALLET), str(mint), str(account), router_trade.TOKENS, trade.b64(),
                    router_trade.ENTRY // _SMALLER,
                )
            )  # fmt: skip

    def simulated(self, params: list[Any]) -> dict[str, Any]:
        """A node's answer to ``simulateTransaction``."""
        keys = router_trade.RouterTrade.keys_of(params[0])
        return next(trade for key in keys if (trade := self._by_account.get(key)) is not None).simulated(params)

    @staticmethod
    def accounts(params: list[Any]) -> dict[str, Any]:
        """A node's answer to ``getMultipleAccounts``: the wallet's money, and nothing else."""
        wallet = router_trade.Account(WALLET_LAMPORTS).shown()
        values = [wallet if address == str(router_trade.WALLET) else None for address in params[0]]
        return {"context": {"slot": SLOT, "apiVersion": "4.0.0"}, "value": values}


def router_keypair() -> Keypair:
    """The wallet of these sales; a test's, of no worth."""
    return router_trade.KEYPAIR
