"""The forms that the Router's instructions may have, since its real layout is not public (docs/protocol.md 10).

A seed chooses one of ``SHAPES`` and, in it, discriminators and the order of the first accounts, so that no client can
know the layout: it must cope with a program whose instructions it cannot read.
"""

from __future__ import annotations

import hashlib
import random
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from solders.instruction import AccountMeta
from solders.pubkey import Pubkey

from lasersell_sync.sandbox.chain.transactions import Version

#: The Router's own accounts, in one of many orders; the market's stand before or behind them.
HEADER = ("user", "mint", "config", "vault", "vault_tokens", "escrow", "user_quote")
_NUMBERS = {"tokens": "Q", "limit": "Q", "fee_bps": "H", "least_fee": "Q", "route": "B"}

#: ``"wallet"``: a System transfer out of the wallet. ``"tokens"``: out of the wallet's account of the quote currency,
#: and with it out of a sale's proceeds. ``"escrow"``: a sale's money passes through an account of the Router's own.
FeeFrom = Literal["wallet", "tokens", "escrow"]


@dataclass(frozen=True, slots=True)
class RouterOrder:
    """What an instruction of the Router asks for."""

    buying: bool
    tokens: int
    limit: int
    fee_bps: int
    least_fee: int


@dataclass(frozen=True, slots=True)
class RouterShape:
    """One layout."""

    name: str
    fee_from: FeeFrom
    #: the transaction's format
    version: Version = 0
    #: mint and pool accounts come out of an address look-up table
    uses_table: bool = False
    #: the Router creates, fills and closes the wrapped-SOL account itself
    wraps: bool = False
    #: the market's accounts stand in front of the Router's
    market_first: bool = False
    #: how many bytes a discriminator has
    tag_bytes: int = 8
    #: the order of the numbers
    numbers: tuple[str, ...] = ("tokens", "limit", "fee_bps", "least_fee")
    header: tuple[str, ...] = HEADER
    buy_tag: bytes = b""
    sell_tag: bytes = b""

    # -- data

    @property
    def _layout(self) -> struct.Struct:
        return struct.Struct("<" + "".join(_NUMBERS[name] for name in self.numbers))

    def pack(self, order: RouterOrder) -> bytes:
        """An instruction's data."""
        values = {
            "tokens": order.tokens,
            "limit": order.limit,
            "fee_bps": order.fee_bps,
            "least_fee": order.least_fee,
            "route": 1,
        }
        tag = self.buy_tag if order.buying else self.sell_tag
        return tag + self._layout.pack(*(values[name] for name in self.numbers))

    def unpack(self, data: bytes) -> RouterOrder | None:
        """What data asks for; None if it is of no instruction of this shape."""
        tag, body = data[: self.tag_bytes], data[self.tag_bytes :]
        if tag not in (self.buy_tag, self.sell_tag) or len(body) != self._layout.size:
            return None
        values = dict(zip(self.numbers, self._layout.unpack(body), strict=True))
        return RouterOrder(
            tag == self.buy_tag, values["tokens"], values["limit"], values["fee_bps"], values["least_fee"]
        )

    # -- accounts

    def arrange(self, header: dict[str, AccountMeta], market: Sequence[AccountMeta]) -> list[AccountMeta]:
        """All accounts in this shape's order."""
        own = [header[name] for name in self.header]
        return [*market, *own] if self.market_first else [*own, *market]

    def find(self, name: str, accounts: Sequence[AccountMeta]) -> Pubkey | None:
        """The address of one of the Router's own accounts; None if there are too few accounts."""
        if len(accounts) < len(self.header):
            return None
        place = self.header.index(name)
        return accounts[place - len(self.header) if self.market_first else place].pubkey


SHAPES = (
    RouterShape("plain", "wallet"),
    RouterShape("market first", "tokens", market_first=True, numbers=("limit", "tokens", "least_fee", "fee_bps")),
    RouterShape(
        "legacy",
        "tokens",
        version="legacy",
        wraps=True,
        numbers=("fee_bps", "tokens", "limit", "least_fee", "route"),
    ),
    RouterShape("escrow", "escrow", tag_bytes=4, numbers=("route", "tokens", "limit", "fee_bps", "least_fee")),
    RouterShape("table", "wallet", uses_table=True, market_first=True, tag_bytes=1),
    RouterShape(
        "wrapping table",
        "tokens",
        uses_table=True,
        wraps=True,
        numbers=("route", "limit", "tokens", "fee_bps", "least_fee"),
    ),
    RouterShape("version 1", "tokens", version=1),
    RouterShape(
        "version 1 escrow",
        "escrow",
        version=1,
        wraps=True,
        market_first=True,
        tag_bytes=2,
        numbers=("tokens", "fee_bps", "limit", "least_fee"),
    ),
)


def seeded_shape(seed: int, number: int | None = None) -> RouterShape:
    """The shape that a seed draws; with a number, that one of ``SHAPES`` with what the seed draws inside it."""
    rng = random.Random(int.from_bytes(hashlib.sha256(f"lasersell-router:{seed}".encode()).digest()[:8], "big"))  # noqa: S311
    shape = rng.choice(SHAPES)
    if number is not None:
        shape = SHAPES[number]
    header = tuple(rng.sample(HEADER, len(HEADER)))
    buy_tag = rng.randbytes(shape.tag_bytes)
    sell_tag = bytes([buy_tag[0] ^ rng.randrange(1, 256)]) + rng.randbytes(shape.tag_bytes - 1)
    return replace(shape, header=header, buy_tag=buy_tag, sell_tag=sell_tag)
