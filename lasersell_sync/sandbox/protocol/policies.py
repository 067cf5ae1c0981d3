"""What the live service leaves open (docs/protocol.md 6, 12), answered one way or the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Policies:
    """Switches of the service's behaviour; a client must live with every combination."""

    #: a second session on one key replaces the first, or else is refused with ``session_limit``
    replace_sessions: bool = False
    #: ``hello_ok`` comes at once, as documented, or else after ``configure``, as from the live server
    hello_first: bool = False
    #: a session that comes back gets the holdings and positions again that its key knows
    reannounce: bool = True
    #: a position keeps its id when a session comes back
    stable_ids: bool = True
    #: an exit that was signalled before a reconnect, and is not sold yet, is signalled again
    resend_exits: bool = False
    #: an exit whose transaction fails on the chain is signalled again with a fresh one
    rebuild_exits: bool = False
    #: a ``ping`` keeps a session of tier 0 from its end after 45 minutes
    ping_is_activity: bool = True
    #: a wrong or missing key gets an ``error`` message on the stream, or else HTTP 401 at the upgrade
    refuse_keys_in_stream: bool = False
    #: the node parses the calls inside a simulation where it knows their program, as Agave does, or else gives them
    #: compiled: indexes and base58
    parsed_inner_instructions: bool = False
    #: a ladder level with a trailing stop does not sell: the trailing stop starts at the level, and the target profit
    #: stays a hard cap (the strategy page); or else it sells, and the trailing stop holds for the rest (the crate)
    trail_from_level: bool = False
    #: the breakeven trail sells at 2 % below the entry (the strategy page), or else at the entry (the crate)
    breakeven_below_entry: bool = False
    #: what the liquidity guard does: ``scale`` ladder sales down and carry the rest on (the crate), ``defer`` a level
    #: until the pool takes all of it (the strategy page), ``exit`` when liquidity halves (the daemon's page)
    liquidity_guard: Literal["scale", "defer", "exit"] = "scale"
    #: ``mirror_wallet_auto_disabled`` gives the crate's reason, or else the documentation's
    crate_loss_reason: bool = False
    #: ``mirror_sell`` of a watch wallet sells copies (the crate), or else does nothing (the documentation)
    mirror_sell_sells: bool = True

    def __post_init__(self) -> None:
        if self.liquidity_guard not in ("scale", "defer", "exit"):
            raise ValueError(f"liquidity_guard: {self.liquidity_guard!r} is not scale, defer or exit. Choose one")
