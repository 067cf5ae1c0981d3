"""Transactions on the sandbox's chain: what is told of each is what its ledger says.

Virtual time: blockhashes die after 150 slots of 200 ms. Where time stands still, ``skip_slots`` moves it.
"""

from __future__ import annotations

import base64
import itertools
import json
import random
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from solders.hash import Hash
from solders.keypair import Keypair
from solders.message import MessageV0
from solders.pubkey import Pubkey
from solders.system_program import TransferParams, transfer
from solders.token.associated import get_associated_token_address
from solders.transaction import VersionedTransaction

from lasersell_sync.sandbox import Sandbox
from lasersell_sync.trading import (
    BuildBuyTxRequest,
    BuildSellTxRequest,
    ExitApiClient,
    PendingTx,
    SellOutcome,
    SellOutput,
    SendTargetAstralane,
    SendTargetHeliusSender,
    SendTargetRpc,
    TxSender,
    close_rpc_connections,
    prove_ownership,
    sign_unsigned_tx_b64,
)
from tests.support.solana_node import SolanaNode
from tests.support.waiting import PATIENCE_S, until

CONFIRMED, EXPIRED, UNKNOWN = SellOutcome.CONFIRMED, SellOutcome.EXPIRED, SellOutcome.UNKNOWN
SLOT_S = 0.2
#: How long a branch may grow that is given up, and how far a node may lag behind: 12.8 s and 120 s.
FORK_SLOTS = 64
LAG_SLOTS = 600


class Player:
    """A wallet with play money on a sandbox, whose node it asks without the client that is tested."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.wallet = Keypair()
        self._amounts = itertools.count(1_000_000)
        sandbox.script.fund(str(self.wallet.pubkey()), sol=100)

    def rpc(self, method: str, *params: object) -> Any:
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
        request = urllib.request.Request(self.sandbox.rpc_url, body, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            return json.load(answer)["result"]

    def gift(self, *, lamports: int | None = None, commitment: str = "processed") -> Gift:
        blockhash = self.rpc("getLatestBlockhash", {"commitment": commitment})["value"]["blockhash"]
        return Gift(self.wallet, Hash.from_string(blockhash), next(self._amounts) if lamports is None else lamports)

    def landed(self, gift: Gift) -> int:
        """How often it is on the chain."""
        times = [record.signature for record in self.sandbox.transactions()].count(gift.signature)
        assert self.sandbox.balance_lamports(str(gift.to)) in (0, gift.lamports), "the ledger knows how often"
        return times


class Gift:
    """A transfer to somebody new."""

    def __init__(self, wallet: Keypair, blockhash: Hash, lamports: int) -> None:
        self.to, self.lamports = Keypair().pubkey(), lamports
        instruction = transfer(TransferParams(from_pubkey=wallet.pubkey(), to_pubkey=self.to, lamports=lamports))
        signed = VersionedTransaction(MessageV0.try_compile(wallet.pubkey(), [instruction], [], blockhash), [wallet])
        self.b64 = base64.b64encode(bytes(signed)).decode()
        self.signature, self.blockhash = str(signed.signatures[0]), str(blockhash)


@pytest.fixture
def world() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        stack.callback(close_rpc_connections)
        yield stack


@pytest.fixture
def make_player(world: ExitStack) -> Callable[..., Player]:
    def make(**options: Any) -> Player:
        return Player(world.enter_context(Sandbox(stream_port=0, api_port=0, rpc_port=0, **options)))

    return make


@pytest.fixture
def make_sender(world: ExitStack) -> Callable[..., TxSender]:
    def make(*targets: Any, **options: Any) -> TxSender:
        given = [SendTargetRpc(target.sandbox.rpc_url) if isinstance(target, Player) else target for target in targets]
        options = {"poll_s": 0.02, "keep_warm_s": None, **options}
        return world.enter_context(TxSender(given, **options))

    return make


def first_look(player: Player, sender: TxSender, *, known: bool = True) -> None:
    """Wait until the node was asked about everything that is under way, and had heard of its blockhashes or not."""
    with sender._pending._lock:
        rules = [tracked.rule for tracked in sender._pending._under_way.values()]
    until(lambda: all(rule is not None and rule.is_known_to(0) is known and rule.bound is not None for rule in rules))


def submit(sender: TxSender, gift: Gift) -> PendingTx:
    """``TxSender.submit`` returns before anything is sent: wait until a node took it."""
    pending = sender.submit(gift.b64)
    until(lambda: pending.result(0).accepted_by)
    return pending


# ── the usual ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_purchase_and_its_sale(make_player: Any, make_sender: Any) -> None:
    """The service's own transactions, for all three ways of sending; amounts as the ledger has them."""
    player = make_player(landing_delay_ms=50)
    sandbox, wallet = player.sandbox, player.wallet
    mint, owner = sandbox.mints[0], str(wallet.pubkey())
    account = str(get_associated_token_address(wallet.pubkey(), Pubkey.from_string(mint)))
    astralane = SendTargetAstralane(api_key="key-of-a-trader", url=sandbox.rpc_url + "/iris")
    sender = make_sender(SendTargetHeliusSender(sandbox.rpc_url + "/fast"), astralane, player)
    sender.warm()
    assert sender.token_amounts([account]) == {account: 0}
    with ExitApiClient(sandbox.api_key).with_base_url(sandbox.api_url) as api:
        api.register_wallet(prove_ownership(wallet))
        for mode in ("helius_sender", "astralane", "rpc"):
            tip = {} if mode == "rpc" else {"tip_lamports": 1_000_000}
            buy = BuildBuyTxRequest(mint, owner, slippage_bps=2_000, amount_in_total=10**7, send_mode=mode, **tip)
            bought = sender.send(sign_unsigned_tx_b64(api.build_buy_tx(buy).tx, wallet), timeout_s=PATIENCE_S)
            assert bought.outcome is CONFIRMED, bought
            held = sandbox.token_balance(owner, mint)
            assert held > 0
            assert sender.token_amounts([account]) == {account: held}
            sale = BuildSellTxRequest(mint, owner, 0, SellOutput.SOL, 2_000, send_mode=mode, **tip)
            sold = sender.send(sign_unsigned_tx_b64(api.build_sell_tx_b64(sale), wallet), timeout_s=PATIENCE_S)
            assert sold.outcome is CONFIRMED, sold
            assert sender.token_amounts([account]) == {account: 0}


def test_it_fails_on_the_chain(make_player: Any, make_sender: Any) -> None:
    """More than the wallet has: it costs its fee, and the chain's words are told."""
    player = make_player(landing_delay_ms=10)
    result = make_sender(player).send(player.gift(lamports=10**15).b64, timeout_s=PATIENCE_S)
    assert result.outcome is SellOutcome.FAILED_ONCHAIN
    assert result.detail == '{"InstructionError": [0, {"Custom": 1}]}'
    assert result.slot == player.sandbox.transactions()[-1].slot


def test_a_changed_transaction_is_rejected(make_player: Any, make_sender: Any) -> None:
    """Its signature is wrong, says every node."""
    player = make_player()
    raw = bytearray(base64.b64decode(player.gift().b64))
    raw[-9] ^= 1  # the amount
    result = make_sender(player).send(base64.b64encode(raw).decode(), timeout_s=PATIENCE_S)
    assert result.outcome is SellOutcome.REJECTED
    assert "verification" in result.detail


# ── lost and late ────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_gets_lost_lands_with_a_later_copy(make_player: Any, make_sender: Any) -> None:
    """Once."""
    player = make_player(landing_delay_ms=10)
    player.sandbox.faults.transactions("lost", times=3)
    gift = player.gift()
    result = make_sender(player, rebroadcast_s=0.1).send(gift.b64, timeout_s=PATIENCE_S)
    assert result.outcome is CONFIRMED
    assert player.landed(gift) == 1
    assert player.sandbox.faults.pending["transactions"] == []


def test_a_landing_29_seconds_late(make_player: Any, make_sender: Any) -> None:
    """Accepted, answered with HTTP 500, and on the chain a moment before its blockhash dies."""
    player = make_player(clock="manual")
    sender = make_sender(player)
    player.sandbox.faults.transactions("late", landing_delay_ms=29_000)
    player.sandbox.faults.rpc("sendTransaction", status=500)
    gift = player.gift()
    pending = sender.submit(gift.b64)
    until(lambda: not player.sandbox.faults.pending["transactions"])
    first_look(player, sender)
    for _ in range(28):
        player.sandbox.advance(1)
    assert pending.result(0.2).outcome is UNKNOWN
    player.sandbox.advance(1.5)
    assert player.landed(gift) == 1
    # Confirmed a slot later.
    player.sandbox.advance(1)
    assert pending.result(PATIENCE_S).outcome is CONFIRMED


def test_it_lands_in_the_last_slot(make_player: Any, make_sender: Any) -> None:
    """Time stands still there: nothing proves that it will not land until it has."""
    player = make_player(clock="manual")
    sender = make_sender(player)
    sandbox, gift = player.sandbox, player.gift()
    sandbox.faults.transactions("late", landing_delay_ms=150 * SLOT_S * 1000 + 10)
    pending = submit(sender, gift)
    first_look(player, sender)
    sandbox.advance(150 * SLOT_S)
    assert player.rpc("isBlockhashValid", gift.blockhash, {"commitment": "processed"})["value"] is True
    for _ in range(3):
        before = len(sandbox.transactions())
        assert before == 0
        assert pending.result(0.1).outcome is UNKNOWN
    sandbox.advance(0.1)
    assert player.landed(gift) == 1
    sandbox.skip_slots(1_000)
    assert pending.result(PATIENCE_S).outcome is CONFIRMED


@pytest.mark.parametrize("commitment", ["processed", "confirmed", "finalized"])
def test_what_never_lands_expires(commitment: str, make_player: Any, make_sender: Any) -> None:
    """With any blockhash, after its life and not long after it."""
    player = make_player(clock="manual")
    sender = make_sender(player)
    player.sandbox.skip_slots(100)
    player.sandbox.faults.transactions("never", times=2)
    gift = player.gift(commitment=commitment)
    pending, tracked = submit(sender, gift), player.gift(commitment=commitment)
    watched = sender.track(tracked.signature, blockhash=tracked.blockhash)
    first_look(player, sender)
    player.sandbox.skip_slots(118)
    assert pending.result(0.2).outcome is UNKNOWN
    player.sandbox.skip_slots(40 + FORK_SLOTS)
    assert pending.result(PATIENCE_S).outcome is EXPIRED
    assert watched.result(PATIENCE_S).outcome is EXPIRED
    assert player.landed(gift) == 0


def test_what_never_lands_expires_as_time_flows(make_player: Any, make_sender: Any) -> None:
    """The whole life of a blockhash, at forty times the pace."""
    player = make_player(speed=40)
    player.sandbox.faults.transactions("never", times=100)
    gift = player.gift()
    began = player.sandbox.now_s
    result = make_sender(player, rebroadcast_s=0.1).send(gift.b64, timeout_s=PATIENCE_S)
    assert result.outcome is EXPIRED
    assert player.sandbox.now_s - began > 150 * SLOT_S
    assert player.rpc("isBlockhashValid", gift.blockhash, {"commitment": "processed"})["value"] is False


def test_a_dead_blockhash_expires(make_player: Any, make_sender: Any) -> None:
    """No node ever called it valid: what a lagging node may not know yet is waited for."""
    player = make_player(clock="manual", landing_delay_ms=0)
    gift = player.gift()
    player.sandbox.skip_slots(151)
    sender = make_sender(player)
    pending = submit(sender, gift)
    first_look(player, sender, known=False)
    player.sandbox.skip_slots(LAG_SLOTS)
    assert pending.result(0.2).outcome is UNKNOWN
    player.sandbox.skip_slots(200)
    assert pending.result(PATIENCE_S).outcome is EXPIRED


# ── nodes that lag ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_node_200_slots_behind_calls_nothing_expired_that_has_landed(make_player: Any, make_sender: Any) -> None:
    """It does not know the blockhash, then not the transaction; it is believed when it has caught up with them."""
    player = make_player(clock="manual", landing_delay_ms=0)
    sandbox, sender, gift = player.sandbox, make_sender(player), player.gift()
    sandbox.faults.rpc_lag(200)
    pending = submit(sender, gift)
    sandbox.advance(0)
    assert player.landed(gift) == 1
    for slots in (100, 99):
        sandbox.skip_slots(slots)
        assert pending.result(0.2).outcome is UNKNOWN
    sandbox.skip_slots(2)
    assert pending.result(PATIENCE_S).outcome is CONFIRMED


def test_a_node_that_lags_for_ever_still_proves_an_expiry(make_player: Any, make_sender: Any) -> None:
    """200 slots after everybody else."""
    player = make_player(clock="manual")
    sandbox, sender, gift = player.sandbox, make_sender(player), player.gift()
    sandbox.faults.rpc_lag(200)
    sandbox.faults.transactions("never")
    pending = submit(sender, gift)
    sandbox.skip_slots(200)
    rule = pending._tracked.rule
    until(lambda: rule.is_bounded_by(0, confirmed=False))
    sandbox.skip_slots(1)
    until(lambda: rule.is_bounded_by(0))
    sandbox.skip_slots(149)
    assert pending.result(0.2).outcome is UNKNOWN
    sandbox.skip_slots(3)
    assert pending.result(PATIENCE_S).outcome is EXPIRED


def test_a_node_that_falls_behind_later_does_not_make_it_expire(make_player: Any, make_sender: Any) -> None:
    """It told its heights when it was at the tip, lags from then on, and cannot see the landing."""
    player = make_player(clock="manual")
    sandbox, sender, gift = player.sandbox, make_sender(player), player.gift()
    sandbox.faults.transactions("late", landing_delay_ms=149 * SLOT_S * 1000)
    pending = submit(sender, gift)
    first_look(player, sender)
    sandbox.advance(140 * SLOT_S)
    sandbox.faults.rpc_lag(200)
    sandbox.advance(20 * SLOT_S)
    assert player.landed(gift) == 1
    for _ in range(2):
        sandbox.skip_slots(80)
        assert pending.result(0.2).outcome is UNKNOWN
    sandbox.skip_slots(60)
    assert pending.result(PATIENCE_S).outcome is CONFIRMED


# ── several targets, one of which hangs ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("place", [0, 1, 2])
def test_one_of_three_targets_hangs(place: int, world: ExitStack, make_player: Any, make_sender: Any) -> None:
    """Wherever it stands, the transaction lands by the others, once."""
    player = make_player(landing_delay_ms=10)
    hanging = world.enter_context(SolanaNode())
    hanging.say["sendTransaction"] = hanging.hang
    targets = [SendTargetRpc(player.sandbox.rpc_url) for _ in range(3)]
    targets[place] = SendTargetRpc(hanging.url)
    sender = make_sender(*targets, rpcs=player.sandbox.rpc_url, send_timeout_s=1.0, rebroadcast_s=0.2)
    gift = player.gift()
    assert sender.send(gift.b64, timeout_s=PATIENCE_S).outcome is CONFIRMED
    assert player.landed(gift) == 1
    hanging.let_go.set()


def test_every_target_hangs(world: ExitStack, make_player: Any, make_sender: Any) -> None:
    """It is unknown until its blockhash is dead, and expired then: nobody has it."""
    player = make_player(clock="manual")
    nodes = [world.enter_context(SolanaNode()) for _ in range(3)]
    for node in nodes:
        node.say["sendTransaction"] = node.hang
    targets = [SendTargetRpc(node.url) for node in nodes]
    sender = make_sender(*targets, rpcs=player.sandbox.rpc_url, send_timeout_s=0.3, rebroadcast_s=0.1)
    gift = player.gift()
    began = time.monotonic()
    pending = sender.submit(gift.b64)
    assert time.monotonic() - began < 5
    first_look(player, sender)
    assert pending.result(0).outcome is UNKNOWN
    player.sandbox.skip_slots(168 + FORK_SLOTS)
    assert pending.result(PATIENCE_S).outcome is EXPIRED
    for node in nodes:
        node.let_go.set()


# ── nodes whose answers are spoiled ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 429, "retry_after_s": 0.05},
        {"status": 503},
        {"body": "<html>bad gateway</html>"},
        {"body": ""},
        {"hang_up": True},
        {"error_code": -32005},
        {"error_code": -32603},
    ],
)
def test_spoiled_answers_decide_nothing(fault: dict[str, Any], make_player: Any, make_sender: Any) -> None:
    """Neither of the send, though the transaction was taken, nor of the questions after it."""
    player = make_player(landing_delay_ms=10)
    sender = make_sender(player)
    for method in ("sendTransaction", "getSignatureStatuses", "getEpochInfo", "isBlockhashValid"):
        player.sandbox.faults.rpc(method, times=2, **fault)
    gift = player.gift()
    assert sender.send(gift.b64, timeout_s=PATIENCE_S).outcome is CONFIRMED
    assert player.landed(gift) == 1


def test_after_a_restart_everything_is_found_again(make_player: Any, make_sender: Any) -> None:
    """By another sender that has no bytes: what landed, what failed, what never will."""
    player = make_player(clock="manual", landing_delay_ms=100)
    sandbox = player.sandbox
    first = make_sender(player)
    gifts = {"landed": player.gift(), "failed": player.gift(lamports=10**15), "lost": player.gift()}
    told: list[Any] = []
    ends = [first.submit(gifts[name].b64, on_settled=told.append) for name in ("landed", "failed")]
    until(lambda: all(pending.result(0).accepted_by for pending in ends))  # only the next one is lost
    sandbox.faults.transactions("never")
    ends.append(first.submit(gifts["lost"].b64, on_settled=told.append))
    until(lambda: ends[-1].result(0).accepted_by)
    first.close()
    assert {pending.result().outcome for pending in ends} == {UNKNOWN}
    assert told == []
    sandbox.advance(1.0)
    second = make_sender(player)
    found = {name: second.track(gift.signature, blockhash=gift.blockhash) for name, gift in gifts.items()}
    first_look(player, second)
    sandbox.skip_slots(400)
    outcomes = {name: pending.result(PATIENCE_S).outcome for name, pending in found.items()}
    assert outcomes == {"landed": CONFIRMED, "failed": SellOutcome.FAILED_ONCHAIN, "lost": EXPIRED}


def test_in_bad_weather_every_outcome_is_what_the_ledger_says(
    make_player: Any, make_sender: Any, rand: random.Random
) -> None:
    """Forty transactions from four threads; a third of what is sent gets lost, answers are spoiled, the node lags at times."""
    player = make_player(speed=30, landing_delay_ms=400, loss_probability=0.3)
    sandbox = player.sandbox
    sender = make_sender(player, rebroadcast_s=0.1, send_timeout_s=2.0)
    done = threading.Event()

    def weather() -> None:
        while not done.wait(0.1):
            method = rand.choice(["sendTransaction", "getSignatureStatuses", "getEpochInfo", "isBlockhashValid"])
            fault = rand.choice([{"status": 500}, {"hang_up": True}, {"body": "x"}, {"error_code": -32005}])
            if len(sandbox.faults.pending["answers"]) < 3:
                sandbox.faults.rpc(method, handled=rand.random() < 0.7, **fault)
            sandbox.faults.rpc_lag(rand.choice([0, 0, 0, 5, 40]))

    ends: list[tuple[Gift, Any]] = []

    def trade() -> None:
        for _ in range(10):
            gift = player.gift()
            ends.append((gift, sender.submit(gift.b64)))

    sandbox.faults.transactions("never", times=8)
    threads = [threading.Thread(target=trade) for _ in range(4)]
    threads.append(threading.Thread(target=weather))
    for thread in threads:
        thread.start()
    for thread in threads[:-1]:
        thread.join()
    results = [(gift, pending.result(60.0)) for gift, pending in ends]
    assert len(results) == 40
    done.set()
    threads[-1].join()
    for gift, result in results:
        expected = CONFIRMED if player.landed(gift) else EXPIRED
        assert result.outcome is expected, result
    assert {result.outcome for _, result in results} >= {CONFIRMED, EXPIRED}
