"""A sandbox with its overseer, in which many rounds are played, and what goes wrong in it."""

from __future__ import annotations

import collections
import random
import time
from typing import Any

from solders.keypair import Keypair

import lasersell_sync as ls
from lasersell_sync.sandbox import Policies, Sandbox
from lasersell_sync.sandbox.assertions import LedgerAssertions
from lasersell_sync.sandbox.servers.node_lies import TRUTHFUL, NodeLies
from lasersell_sync.trading.solana.signing import sign_unsigned_tx_b64, signature_of
from tests.support.overseer import Overseer
from tests.support.stages import CALM_MARKETS

#: Virtual seconds per real second: a landing takes 20 ms.
SPEED = 20.0
#: The one of the calm markets that is paid in USD1. A part of less than a dollar there brings a unit less than its share,
#: for a market rounds down: the guard then refuses the transaction that was asked for in place of a dead one.
USD1_MARKET, USD1_PER_SOL = 3, 100
#: A lie ends in time for the round to end: nodes that contradict each other for a minute make an exit UNKNOWN.
_LIE_S = 2.0
#: A sale by hand lands within a few slots.
_BY_HAND_S = 10.0
#: Of the node that lies; each is one way. A node without a history is none of them: slots pass so quickly here that its
#: status cache proves nothing, and a part waits a minute to end as UNKNOWN.
_LIES: tuple[dict[str, Any], ...] = (
    {"heights_ahead": 500}, {"heights_ahead": 500, "stale_index_slots": 600}, {"stale_index_slots": 600},
    {"lag_slots": 200}, {"odd_item": "text"}, {"odd_item": "list"}, {"odd_item": "empty"},
    {"absurd_numbers": True},
)  # fmt: skip
_WOULD_FAIL = (
    '{"jsonrpc":"2.0","id":1,"result":{"context":{"slot":1},"value":{"err":{"InstructionError":[0,{"Custom":1}]},'
    '"logs":[],"accounts":null,"unitsConsumed":1}}}'
)
#: Of the node that simulates routed trades beside an honest one.
_SIMULATIONS: tuple[dict[str, Any], ...] = (
    {"delay_ms": 3_000}, {"hang_up": True}, {"error_code": -32005}, {"body": "<html>502 Bad Gateway</html>"},
    {"body": _WOULD_FAIL}, {"status": 500},
)  # fmt: skip


class World:
    """One sandbox with an overseer; many rounds are played in it.

    Args:
        chance: chooses its policies, its nodes, and whether trades go through the Router, if they are not given.
    """

    def __init__(
        self,
        chance: random.Random,
        *,
        api_key: str = "sandbox-key",
        policies: Policies | None = None,
        is_routed: bool | None = None,
    ) -> None:
        self.policies = policies or Policies(
            replace_sessions=chance.random() < 0.5,
            hello_first=chance.random() < 0.5,
            reannounce=chance.random() < 0.7,
            stable_ids=chance.random() < 0.5,
            resend_exits=chance.random() < 0.5,
            rebuild_exits=chance.random() < 0.3,
        )
        self.is_routed = chance.random() < 0.5 if is_routed is None else is_routed
        self.has_two_nodes = chance.random() < 0.7
        self.sandbox = Sandbox(
            scenario=CALM_MARKETS, seed=chance.randrange(2**32), speed=SPEED, tier=3,
            api_key=api_key, policies=self.policies, pnl_flush_ms=20_000, stream_port=0, api_port=0, rpc_port=0,
            router=self.is_routed, rpc_nodes=2 if self.has_two_nodes else 1,
        )  # fmt: skip
        self.sandbox.start()
        self.overseer = Overseer(self.sandbox)
        self.ledger = LedgerAssertions(self.sandbox)
        self.api = ls.ExitApiClient(self.sandbox.api_key).with_base_url(self.sandbox.api_url)
        self.repeats_exits = self.policies.resend_exits
        #: Since ``begin_round``.
        self.events: collections.Counter[str] = collections.Counter()
        self._lie_ends_at = 0.0
        self._count_lies()

    def _count_lies(self) -> None:
        """Each time that a node asks how it is to lie, and is told to."""
        look = self.sandbox.faults.node_lies

        def counted(number: int) -> NodeLies:
            lies = look(number)
            self.events["answer that was a lie"] += lies != TRUTHFUL
            return lies

        self.sandbox.faults.node_lies = counted  # type: ignore[method-assign]

    def close(self) -> None:
        self.api.close()
        self.sandbox.stop()

    def begin_round(self) -> None:
        """Count anew."""
        self.events = collections.Counter({"round through the Router": int(self.is_routed)})

    # -- faults

    def make_trouble(self, chance: random.Random, *, late_s: float, dead: int = 0) -> None:
        """Something goes wrong, or several things.

        Args:
            chance: which.
            late_s: real seconds by which landings are late.
            dead: so many transactions must be lost; 0: by chance.
        """
        faults = self.sandbox.faults
        if dead:
            faults.transactions("never", times=dead)
        elif chance.random() < 0.6:
            fate = chance.choice(("late", "lost", "never"))
            delay_ms = late_s * SPEED * 1000 if fate == "late" else 0
            faults.transactions(fate, landing_delay_ms=delay_ms, times=chance.choice((1, 2)))
        if chance.random() < 0.5:
            self._spoil_answers(chance)
        if chance.random() < 0.15:
            faults.drop()
        if self.has_two_nodes:
            self._let_the_second_node_lie(chance)
        if chance.random() < 0.15 and not self.is_routed:
            faults.rpc_lag(chance.choice((1, 5, 40, 200)))
        elif chance.random() < 0.5:
            faults.rpc_lag(0)

    def _spoil_answers(self, chance: random.Random) -> None:
        """Of a routed trade, the guard asks a node before it is signed: without an answer the exit waits for the user."""
        what = chance.choice(
            (
                {"status": 500}, {"status": 429, "retry_after_s": 1}, {"body": "<html>502 Bad Gateway</html>"},
                {"body": '{"jsonrpc":"2.0","result":null'}, {"hang_up": True}, {"error_code": -32005},
                {"status": 503, "handled": False}, {"hang_up": True, "handled": False}, {"delay_ms": 150},
            )
        )  # fmt: skip
        methods: list[str | None] = ["sendTransaction", "getSignatureStatuses", "getEpochInfo", "isBlockhashValid"]
        if not self.is_routed:
            methods += [None, "getMultipleAccounts"]
        self.sandbox.faults.rpc(chance.choice(methods), times=chance.choice((1, 2, 4)), **what)

    def _let_the_second_node_lie(self, chance: random.Random) -> None:
        if chance.random() < 0.7:
            self.events["round with two nodes of which one lies"] = 1
            self._lie_ends_at = time.monotonic() + _LIE_S
            self.sandbox.faults.node(1, **chance.choice(_LIES))
        if self.is_routed and chance.random() < 0.5:
            self.events["round whose simulating node hung or lied"] = 1
            self.sandbox.faults.rpc("simulateTransaction", node=1, times=4, **chance.choice(_SIMULATIONS))

    def let_lies_end(self) -> None:
        """Called now and then."""
        if self._lie_ends_at and time.monotonic() > self._lie_ends_at:
            self._lie_ends_at = 0.0
            self.sandbox.faults.node(1)

    def end_trouble(self) -> None:
        """Nothing is wrong any more."""
        self._lie_ends_at = 0.0
        self.sandbox.faults.clear()

    # -- the user's own hand

    def buy_again(self, key: Keypair, mint: str, amount: float) -> int:
        """The user sells a position by hand, and buys the token anew; how many tokens there are then.

        Whatever the seller has sent has landed, or cannot land any more, before that.
        """
        wallet = str(key.pubkey())
        self.end_trouble()
        self.sandbox.skip_slots(200)
        if left := self.sandbox.token_balance(wallet, mint):
            self._sell_by_hand(key, mint, left)
        self.sandbox.script.grant(wallet, mint, amount)
        return self.sandbox.token_balance(wallet, mint)

    def _sell_by_hand(self, key: Keypair, mint: str, tokens: int) -> None:
        wallet = str(key.pubkey())
        pays = "USD1" if mint == self.sandbox.mints[USD1_MARKET] else "SOL"
        request = ls.BuildSellTxRequest(mint, wallet, tokens, ls.SellOutput(pays), 2_000)
        signed = sign_unsigned_tx_b64(self.api.build_sell_tx(request).tx, key)
        self.overseer.foreign.add(signature_of(signed))
        ls.send_transaction_b64_to(ls.SendTargetRpc(self.sandbox.rpc_url), signed)
        sold = self.sandbox.wait_for(lambda: self.sandbox.token_balance(wallet, mint) == 0, _BY_HAND_S)
        assert sold, f"what {wallet} sold by hand did not land"
