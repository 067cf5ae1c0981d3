"""What nodes say of a transaction of unknown layout, one by one and together, and what is signed then."""

from __future__ import annotations

import base64
import contextlib
import itertools
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import pytest
from solders.instruction import AccountMeta
from solders.keypair import Keypair
from solders.message import to_bytes_versioned
from solders.transaction import VersionedTransaction

from lasersell_sync.exceptions import ConfigurationError, UnsafeTransactionError
from lasersell_sync.trading.guard import SigningGuard
from lasersell_sync.trading.keys.signer import Signer
from tests.support import router_trade as rt
from tests.support.http_server import Answer, json_answer
from tests.support.router_trade import RouterTrade, honest_purchase, honest_sale
from tests.support.solana_node import RpcFailure, SolanaNode
from tests.support.waiting import PATIENCE_S

SIGNER = Signer.from_keypair(rt.KEYPAIR)
SOL = 10**9
Script = Callable[[SolanaNode, RouterTrade], None]


@contextlib.contextmanager
def nodes(count: int) -> Iterator[list[SolanaNode]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(SolanaNode()) for _ in range(count)]


@contextlib.contextmanager
def guarded(*asked: SolanaNode, **options: Any) -> Iterator[SigningGuard]:
    options = {"simulation_timeout_s": 0.3, "max_buy_lamports": SOL, **options}
    with contextlib.closing(SigningGuard(rpc=[node.url for node in asked] or None, **options)) as guard:
        yield guard


def refusal(trade: RouterTrade, guard: SigningGuard) -> UnsafeTransactionError:
    with pytest.raises(UnsafeTransactionError) as caught:
        SIGNER.sign(trade.signal(), guard=guard, context=trade.context)
    return caught.value


def sign(trade: RouterTrade, guard: SigningGuard) -> str:
    return SIGNER.sign(trade.signal(), guard=guard, context=trade.context)


def learn_funds(guard: SigningGuard) -> None:
    """Until every node has said what the wallet holds."""
    answered = threading.Semaphore(0)
    guard.learn_funds(SIGNER.wallet, answered.release)
    for _ in guard.rpc:
        assert answered.acquire(timeout=PATIENCE_S)


# ── one node's verdict ───────────────────────────────────────────────────────────────────────────────────────────


def ok(node: SolanaNode, trade: RouterTrade) -> None:
    trade.answers(node)


def theft(node: SolanaNode, trade: RouterTrade) -> None:
    robbed = honest_sale() if trade.side == "sale" else honest_purchase()
    robbed.metas, robbed.first = trade.metas, trade.first
    robbed.add_lamports(rt.WALLET, -3 * SOL)
    robbed.add_lamports(rt.VAULT, 3 * SOL)
    robbed.answers(node)


def fails(node: SolanaNode, trade: RouterTrade) -> None:
    failing = honest_sale()
    failing.failure = {"InstructionError": [2, {"Custom": 6001}]}
    failing.answers(node)


def cannot(node: SolanaNode, _: RouterTrade) -> None:
    node.say["simulateTransaction"] = lambda params: Answer(429, b"slow down")


def _answers_with(change: Callable[[dict[str, Any]], None]) -> Script:
    """As an honest node, with one thing of its answer changed."""

    def script(node: SolanaNode, trade: RouterTrade) -> None:
        trade.answers(node)

        def say(params: list[Any]) -> object:
            answer = trade.simulated(params)
            change(answer)
            return answer

        node.say["simulateTransaction"] = say

    return script


def _says(answer: object) -> Script:
    def script(node: SolanaNode, trade: RouterTrade) -> None:
        trade.answers(node)
        node.say["simulateTransaction"] = lambda params: answer

    return script


def _raises(code: int) -> Script:
    def script(node: SolanaNode, trade: RouterTrade) -> None:
        trade.answers(node)

        def say(params: list[Any]) -> object:
            raise RpcFailure(code)

        node.say["simulateTransaction"] = say

    return script


def _hangs(node: SolanaNode, trade: RouterTrade) -> None:
    trade.answers(node)
    node.say["simulateTransaction"] = node.hang


def _behind(node: SolanaNode, trade: RouterTrade) -> None:
    """It does not know the position yet, and says so."""
    old = honest_sale()
    old.slot = rt.SLOT - 100
    old.answers(node)


def _sets(**fields: object) -> Script:
    return _answers_with(lambda answer: answer["value"].update(fields))


def _older(answer: dict[str, Any]) -> None:
    answer["context"]["slot"] = rt.SLOT - 100


def _cuts_accounts(answer: dict[str, Any]) -> None:
    answer["value"]["accounts"].pop()


def _no_lamports(answer: dict[str, Any]) -> None:
    del answer["value"]["accounts"][0]["lamports"]


def _no_heights(answer: dict[str, Any]) -> None:
    for item in answer["value"]["innerInstructions"][0]["instructions"]:
        item["stackHeight"] = None


CANNOT: dict[str, Script] = {
    "429": cannot,
    "500": _says(Answer(500, b"oops")),
    "silence": _hangs,
    "garbage": _says(Answer(200, b"<html>")),
    "no JSON object": _says(json_answer([])),
    "null": _says(None),
    "a number": _says(7),
    "behind": _behind,
    "an older state, whatever was asked": _answers_with(_older),
    "no such method": _raises(-32601),
    "node is unhealthy": _raises(-32005),
    "no accounts": _sets(accounts=None),
    "too few accounts": _answers_with(_cuts_accounts),
    "accounts that are none": _sets(accounts=[7]),
    "an account without lamports": _answers_with(_no_lamports),
    "no inner instructions": _sets(innerInstructions=None),
    "inner instructions of nothing": _sets(innerInstructions=[{"index": 99, "instructions": []}]),
    "inner instructions without heights": _answers_with(_no_heights),
    "balances of fewer accounts": _sets(preBalances=[1]),
    "token balances that are none": _sets(preTokenBalances=[{"accountIndex": 999}]),
    "the blockhash is unknown": _sets(err="BlockhashNotFound"),
    "the payer is unknown": _sets(err="AccountNotFound"),
    "an error that nobody knows": _sets(err={"Surprise": 1}),
}


@pytest.mark.parametrize("name", CANNOT)
def test_simulation_node_that_cannot_say_refuses_a_rich_wallet(name: str):
    with nodes(1) as (node,), guarded(node) as guard:
        trade = honest_sale(wallet_lamports=100 * SOL)
        trade.answers(node)
        learn_funds(guard)
        CANNOT[name](node, trade)
        error = refusal(trade, guard)
    assert error.rule == "simulation", error
    assert "100000000000 lamports (2000000000 at most)" in error.problem


@pytest.mark.parametrize("name", CANNOT)
def test_simulation_node_that_cannot_say_lets_a_poor_wallet_sell(name: str, caplog: pytest.LogCaptureFixture):
    with nodes(1) as (node,), guarded(node) as guard, caplog.at_level(logging.WARNING):
        trade = honest_sale(wallet_lamports=SOL)
        trade.answers(node)
        learn_funds(guard)
        CANNOT[name](node, trade)
        assert sign(trade, guard)
    assert "signed without a simulation" in caplog.text


@pytest.mark.parametrize(
    "error", [{"InstructionError": [2, {"Custom": 1}]}, {"InsufficientFundsForRent": {"account_index": 0}}]
)
def test_simulation_that_fails_is_not_signed_whatever_the_wallet_holds(error: object):
    with nodes(1) as (node,), guarded(node) as guard:
        trade = honest_sale(wallet_lamports=SOL)
        trade.answers(node)
        learn_funds(guard)
        trade.failure = error
        refused = refusal(trade, guard)
    assert refused.rule == "simulation_fails"


# ── all nodes together ───────────────────────────────────────────────────────────────────────────────────────────

VERDICTS: dict[str, Script] = {"theft": theft, "ok": ok, "fails": fails, "cannot": cannot}
#: What two nodes come to: the rule of the refusal, or None where it is signed.
REFUSED_BY = {"theft": "lamports", "fails": "simulation_fails", "cannot": "simulation"}


@pytest.mark.parametrize(("one", "other"), list(itertools.product(VERDICTS, repeat=2)))
def test_simulation_verdicts_of_two_nodes(one: str, other: str):
    """Any theft refuses; else any ok signs; else any failure asks anew; else it is the wallet's size that decides."""
    decisive = next(verdict for verdict in VERDICTS if verdict in (one, other))
    with nodes(2) as asked, guarded(*asked, simulation_timeout_s=60.0) as guard:
        trade = honest_sale(wallet_lamports=100 * SOL)
        for node in asked:
            trade.answers(node)
        learn_funds(guard)
        for node, verdict in zip(asked, (one, other), strict=True):
            VERDICTS[verdict](node, trade)
        if decisive == "ok":
            assert sign(trade, guard)
        else:
            rules = [offence.rule for offence in refusal(trade, guard).offences]
            assert REFUSED_BY[decisive] in rules


def test_simulation_with_one_of_two_nodes_hanging_does_not_wait_for_it():
    """The limit is far away, and the hanging node lets go only afterwards."""
    with nodes(2) as asked, guarded(*asked, simulation_timeout_s=60.0) as guard:
        trade = honest_sale()
        ok(asked[0], trade)
        _hangs(asked[1], trade)
        for _ in range(3):
            assert sign(trade, guard)
        assert not asked[1].let_go.is_set()
        asked[1].let_go.set()


def test_simulation_node_that_hangs_is_not_asked_again_until_it_answers():
    with nodes(2) as asked, guarded(*asked, simulation_timeout_s=60.0) as guard:
        trade = honest_sale()
        ok(asked[0], trade)
        arrived = threading.Semaphore(0)

        def hang(params: list[Any]) -> Answer:
            arrived.release()
            return asked[1].hang()

        asked[1].say["simulateTransaction"] = hang
        assert sign(trade, guard)
        assert arrived.acquire(timeout=PATIENCE_S)
        peer = guard._simulating._simulators.peers[1]
        peer._owed = {number: moment - 10.0 for number, moment in peer._owed.items()}
        for _ in range(5):
            assert sign(trade, guard)
        assert not arrived.acquire(blocking=False)
        asked[1].let_go.set()


def test_simulation_theft_that_comes_late_is_logged(caplog: pytest.LogCaptureFixture):
    with nodes(2) as asked, guarded(*asked, simulation_timeout_s=60.0) as guard, caplog.at_level(logging.WARNING):
        trade = honest_sale()
        ok(asked[0], trade)
        theft(asked[1], trade)
        robbed = asked[1].say["simulateTransaction"]
        go_on = threading.Event()

        def later(params: list[Any]) -> Any:
            assert go_on.wait(PATIENCE_S)
            return robbed(params)

        asked[1].say["simulateTransaction"] = later
        assert sign(trade, guard)
        go_on.set()
        logged = threading.Event()
        handler = logging.Handler()
        handler.emit = lambda record: logged.set() if "after it was decided" in record.getMessage() else None  # type: ignore[method-assign]
        logging.getLogger("lasersell_sync").addHandler(handler)
        try:
            assert logged.wait(PATIENCE_S) or "after it was decided" in caplog.text
        finally:
            logging.getLogger("lasersell_sync").removeHandler(handler)


def test_simulation_node_that_is_behind_and_catches_up_signs():
    with nodes(1) as (node,), guarded(node, simulation_timeout_s=30.0) as guard:
        trade = honest_sale()
        trade.context = attrs.evolve(trade.context, min_context_slot=rt.SLOT)
        trade.answers(node)
        trade.slot = rt.SLOT - 1

        def catch_up(params: list[Any]) -> Any:
            try:
                return trade.simulated(params)
            finally:
                trade.slot = rt.SLOT

        node.say["simulateTransaction"] = catch_up
        assert sign(trade, guard)
        assert node.count("simulateTransaction") == 2


def test_simulation_compares_accounts_of_one_slot_only():
    """The wallet spent 3 SOL between the two answers: that is no theft."""
    with nodes(1) as (node,), guarded(node, simulation_timeout_s=30.0) as guard:
        trade = honest_sale(says_before=False)
        trade.answers(node)
        reads = itertools.count()

        def accounts(params: list[Any]) -> Any:
            answer = trade.accounts(params)
            if next(reads) == 0:
                answer["context"]["slot"] -= 1
                answer["value"][0]["lamports"] += 3 * SOL
            return answer

        node.say["getMultipleAccounts"] = accounts
        assert sign(trade, guard)
        assert node.count("getMultipleAccounts") >= 2


def test_simulation_many_at_once_go_side_by_side():
    """Forty transactions, of which each waits for all others to have been asked."""
    count = 40
    with nodes(1) as (node,), guarded(node, simulation_timeout_s=60.0) as guard:
        trade = honest_sale()
        trade.answers(node)
        everybody = threading.Barrier(count, timeout=PATIENCE_S)

        def say(params: list[Any]) -> Any:
            everybody.wait()
            return trade.simulated(params)

        node.say["simulateTransaction"] = say
        signed: list[str] = []
        threads = [threading.Thread(target=lambda: signed.append(sign(trade, guard))) for _ in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_S)
        assert len(signed) == count


# ── without a simulation ─────────────────────────────────────────────────────────────────────────────────────────


def test_unsimulated_purchase_is_refused():
    with nodes(1) as (node,), guarded(node) as guard:
        trade = honest_purchase(wallet_lamports=SOL)
        trade.answers(node)
        learn_funds(guard)
        cannot(node, trade)
        assert refusal(trade, guard).rule == "simulation"


def test_unsimulated_sale_of_a_wallet_whose_funds_nobody_knows_is_refused():
    with nodes(1) as (node,), guarded(node) as guard:
        trade = honest_sale(wallet_lamports=SOL)
        cannot(node, trade)
        assert "an unknown number of lamports" in refusal(trade, guard).problem


def test_unsimulated_sale_counts_wrapped_sol():
    wrapped = rt.get_associated_token_address(rt.WALLET, rt.SOL, rt.TOKEN)
    with nodes(1) as (node,), guarded(node) as guard:
        trade = honest_sale(wallet_lamports=SOL)
        trade.holds(wrapped, rt.token(rt.SOL, rt.WALLET, 99 * SOL))
        trade.answers(node)
        learn_funds(guard)
        cannot(node, trade)
        assert refusal(trade, guard).rule == "simulation"


def test_unsimulated_sale_believes_the_node_that_says_most():
    with nodes(2) as asked, guarded(*asked) as guard:
        for node, lamports in zip(asked, (SOL, 100 * SOL), strict=True):
            honest_sale(wallet_lamports=lamports).answers(node)
        learn_funds(guard)
        trade = honest_sale(wallet_lamports=SOL)
        for node in asked:
            cannot(node, trade)
        assert refusal(trade, guard).rule == "simulation"


def test_unsimulated_sales_add_up():
    """Each may bring 2 SOL, so that the second one is refused."""
    with nodes(1) as (node,), guarded(node) as guard:
        trade = honest_sale(wallet_lamports=SOL)
        trade.answers(node)
        learn_funds(guard)
        cannot(node, trade)
        assert sign(trade, guard)
        assert refusal(trade, guard).rule == "simulation"


def test_opaque_static_signs_without_asking_anybody():
    with guarded(opaque="static") as guard:
        assert sign(honest_sale(), guard)
        assert sign(honest_purchase(), guard)


def test_opaque_refuse_refuses():
    with nodes(1) as (node,), guarded(node, opaque="refuse") as guard:
        trade = honest_sale()
        trade.answers(node)
        assert refusal(trade, guard).rule == "opaque"
        assert node.asked == []


def test_opaque_without_a_node_refuses_and_names_the_argument():
    with guarded() as guard:
        error = refusal(honest_sale(), guard)
    assert error.rule == "simulation"
    assert "SigningGuard(rpc=" in error.remedy
    with pytest.raises(UnsafeTransactionError, match=r"SigningGuard\(rpc="):
        SIGNER.sign(honest_sale().signal())


def test_opaque_broken_rule_is_refused_without_asking_a_node():
    with nodes(1) as (node,), guarded(node) as guard:
        trade = honest_sale()
        trade.answers(node)
        trade.metas.append(AccountMeta(rt.THIEF, is_signer=True, is_writable=False))
        assert refusal(trade, guard).rule == "only_signer"
        assert node.asked == []


def test_opaque_program_that_a_user_allowed_is_simulated_all_the_same():
    """Trust in a program must not switch the rules off."""
    allowed = {str(rt.ROUTER): ["*"]}
    with guarded(allow=allowed) as guard:
        assert refusal(honest_sale(), guard).rule == "simulation"


# ── options ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("opaque", "perhaps"), ("opaque", None), ("simulation_timeout_s", 0), ("simulation_timeout_s", True),
        ("simulation_timeout_s", float("nan")), ("simulation_timeout_s", 61), ("max_unsimulated_lamports", -1),
        ("max_unsimulated_lamports", 1.5), ("service_programs", "one"), ("service_programs", ["none"]),
        ("service_programs", [str(rt.TOKEN)]), ("co_signers", "one"), ("co_signers", ["none"]),
    ],
)  # fmt: skip
def test_opaque_option_out_of_range_raises_and_is_named(field: str, value: object):
    with pytest.raises(ConfigurationError) as caught:
        SigningGuard(**{field: value})  # type: ignore[arg-type]
    assert caught.value.field == field


def test_service_program_is_judged_as_the_router_is():
    other = rt.address("another service's program")

    def through_another() -> RouterTrade:
        trade = honest_sale()
        real = trade.b64
        trade.b64 = lambda: _with_program(real(), other)  # type: ignore[method-assign]
        return trade

    with nodes(1) as (node,):
        trade = through_another()
        trade.answers(node)
        with guarded(node) as guard:
            assert refusal(trade, guard).rule == "program"
        with guarded(node, service_programs=[str(other)]) as guard:
            assert sign(trade, guard)


def _with_program(tx_b64: str, program: object) -> str:
    raw = base64.b64decode(tx_b64)
    return base64.b64encode(raw.replace(bytes(rt.ROUTER), bytes(program))).decode()  # type: ignore[call-overload]


def test_co_signer_that_is_named_keeps_its_signature():
    partner = Keypair.from_seed(bytes([5]) * 32)
    with nodes(1) as (node,):
        trade = honest_sale()
        trade.metas.append(AccountMeta(partner.pubkey(), is_signer=True, is_writable=False))
        trade.answers(node)
        signal = trade.exit_signal()
        message = VersionedTransaction.from_bytes(base64.b64decode(signal.unsigned_tx_b64)).message
        theirs = partner.sign_message(to_bytes_versioned(message))
        half = VersionedTransaction.populate(
            message, [VersionedTransaction.from_bytes(base64.b64decode(signal.unsigned_tx_b64)).signatures[0], theirs]
        )
        signal = attrs.evolve(signal, unsigned_tx_b64=base64.b64encode(bytes(half)).decode())
        with guarded(node) as guard, pytest.raises(UnsafeTransactionError, match="co_signers"):
            SIGNER.sign(signal, guard=guard, context=trade.context)
        with guarded(node, co_signers=[str(partner.pubkey())]) as guard:
            signed = SIGNER.sign(signal, guard=guard, context=trade.context)
    both = VersionedTransaction.from_bytes(base64.b64decode(signed))
    both.verify_and_hash_message()
    assert both.signatures[1] == theirs


def test_explain_shows_every_nodes_verdict():
    with nodes(2) as asked, guarded(*asked) as guard:
        trade = honest_sale()
        ok(asked[0], trade)
        theft(asked[1], trade)
        report = guard.explain(trade.signal(), context=trade.context)
        text = str(report)
        assert not report.accepted
        assert f"simulated by {asked[0].url}: ok" in text
        assert f"simulated by {asked[1].url}: theft" in text
        trade.metas.append(AccountMeta(rt.THIEF, is_signer=True, is_writable=False))
        assert "not simulated" in str(guard.explain(trade.signal(), context=trade.context))
