"""The automatic seller around a scripted stream: what it hears, whose it is, pauses, callbacks, and its end."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from solders.keypair import Keypair

import lasersell_sync as ls
from lasersell_sync.autosell import keyed_executor as lines_module
from lasersell_sync.autosell.auto_seller import AutoSeller
from lasersell_sync.autosell.position_seller import PositionSeller
from lasersell_sync.codec import message_to_dict
from lasersell_sync.exceptions import JournalError
from lasersell_sync.session import health as start_watch
from lasersell_sync.trading.sending.outcome import TxResult
from tests.support.market_transactions import desk, stranger
from tests.support.selling import (
    MARKET,
    FakeApi,
    FakeSender,
    exit_signal,
    on_another_block,
    that_also_pays_a_stranger,
)
from tests.support.stream_server import Peer, ScriptedServer, opened
from tests.support.waiting import PATIENCE_S, until

CONFIRMED, REJECTED, UNKNOWN = ls.SellOutcome.CONFIRMED, ls.SellOutcome.REJECTED, ls.SellOutcome.UNKNOWN
WALLET = desk(MARKET).address


def signal(**changes: Any) -> dict[str, Any]:
    """The exit of a whole position, with a transaction of its own; None takes a field away."""
    one = message_to_dict(exit_signal())
    one |= {"unsigned_tx_b64": on_another_block(exit_signal().unsigned_tx_b64), **changes}
    return {name: value for name, value in one.items() if value is not None}


def announced(**changes: Any) -> dict[str, Any]:
    one = exit_signal()
    return opened(one.position_id, account=one.token_account, **{"wallet_pubkey": WALLET, "mint": one.mint, **changes})


class Stage:
    """A seller, its session, and what it told."""

    def __init__(self, session: ls.StreamSession, to_send: queue.Queue[Any], peers: list[Peer]) -> None:
        self.session = session
        self.to_send = to_send
        self.peers = peers
        self.sender = FakeSender()
        self.told: queue.Queue[ls.SellReport] = queue.Queue()

    def seller(self, **options: Any) -> AutoSeller:
        options.setdefault("journal", ":memory:")
        options.setdefault("sender", self.sender)
        # The scripted server announces nothing unless a test wants it.
        options.setdefault("sell_unannounced", True)
        seller = AutoSeller(self.session, ls.Signer(desk(MARKET).wallet), **options)
        seller.on_outcome(self.told.put)
        return seller

    def say(self, *messages: dict[str, Any]) -> None:
        self.to_send.put(messages)

    def report(self) -> ls.SellReport:
        return self.told.get(timeout=PATIENCE_S)

    def wait_for_sent(self, count: int) -> None:
        until(lambda: len(self.sender.sent) >= count)
        assert len(self.sender.sent) == count


@pytest.fixture
def stage() -> Iterator[Stage]:
    to_send: queue.Queue[Any] = queue.Queue()
    peers: list[Peer] = []

    def script(peer: Peer) -> None:
        peer.greet()
        peers.append(peer)
        listens = threading.Thread(target=peer.serve, daemon=True)
        listens.start()
        while (messages := to_send.get()) is not None:
            peer.send(*messages)
        listens.join(PATIENCE_S)

    with ScriptedServer(script) as server:
        client = ls.StreamClient("key").with_endpoint(server.url)
        configure = ls.StreamConfigure([WALLET], ls.StrategyConfig(target_profit_pct=5.0, stop_loss_pct=1.0))
        with ls.StreamSession.connect(client, configure) as session:
            yield Stage(session, to_send, peers)
        to_send.put(None)


# ── set up and started ───────────────────────────────────────────────────────────────────────────────────────────


def test_autoseller_that_is_not_started_is_reported_by_log_and_health(
    stage: Stage, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(start_watch, "OVERDUE_AFTER_S", 0.0)
    seller = stage.seller()
    stage.say(announced())
    until(lambda: "not started" in stage.session.health().problem)
    assert not stage.session.health().ok
    assert "seller.start()" in caplog.text
    with seller:
        assert stage.session.health().ok
    assert stage.session.health().ok


def test_autoseller_that_is_closed_unstarted_is_not_missed(
    stage: Stage, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    seller = stage.seller()
    seller.close()
    monkeypatch.setattr(start_watch, "OVERDUE_AFTER_S", 0.0)
    stage.say(announced())
    stage.session.wait_for("position_opened", PATIENCE_S)
    assert stage.session.health().ok
    assert "not started" not in caplog.text


@pytest.mark.parametrize(
    ("argument", "value", "remedy"),
    [
        ("sender", ls.SendTargetRpc("https://node.example"), "TxSender(SendTargetRpc(url))"),
        ("sender", None, "TxSender("),
        ("sender", ls.TxSender, "the class TxSender"),
        ("guard", "strict", "SigningGuard("),
        ("guard", True, "SigningGuard("),
        ("policy", {"max_refreshes": 3}, "SellPolicy("),
        ("exit_api", "key", "ExitApiClient("),
    ],
)
def test_autoseller_argument_of_another_kind_is_refused_with_what_belongs_there(
    stage: Stage, argument: str, value: Any, remedy: str
):
    with pytest.raises(ls.ConfigurationError) as caught:
        stage.seller(**{argument: value})
    assert caught.value.field == argument
    assert remedy in str(caught.value)


def test_autoseller_with_a_wrong_layout_file_is_refused_before_it_sells(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """At construction, before the journal is opened, and when the guard is replaced."""
    path = tmp_path / "journal"
    with stage.seller(guard=ls.SigningGuard()) as seller:
        monkeypatch.setenv("LASERSELL_GUARD_LAYOUTS", str(tmp_path / "missing.json"))
        with pytest.raises(ls.ConfigurationError, match=r"missing\.json: it cannot be read"):
            seller.guard = ls.SigningGuard()
    with pytest.raises(ls.ConfigurationError, match=r"missing\.json: it cannot be read"):
        stage.seller(guard=ls.SigningGuard(), journal=path)
    assert not path.exists()


def test_autoseller_without_a_session_is_refused():
    signer = ls.Signer(desk(MARKET).wallet)
    with pytest.raises(ls.ConfigurationError, match=r"session: a StreamClient .*StreamSession.connect"):
        AutoSeller(ls.StreamClient("key"), signer, sender=FakeSender(), journal=":memory:")  # type: ignore[arg-type]


def test_autoseller_warns_at_start_of_a_send_mode_that_does_not_fit(stage: Stage, caplog: pytest.LogCaptureFixture):
    """Every sale would tip nobody, and the sender would ignore it in silence."""
    node = ls.SendTargetRpc("http://127.0.0.1:9")
    with ls.TxSender([ls.SendTargetHeliusSender("http://127.0.0.1:9"), node]) as sender:
        seller = stage.seller(sender=sender)
        assert "send_mode" not in caplog.text
        with seller:
            pass
    assert "StreamConfigure(..., send_mode='helius_sender', tip_lamports=1000000)" in caplog.text


def test_autoseller_warns_of_a_guard_that_no_node_simulates_for_at_start_and_at_a_swap(
    stage: Stage, caplog: pytest.LogCaptureFixture
):
    """The stage's sender names no nodes; guards that need none are silent."""
    warning = "nothing that goes through a program of unknown layout"
    with stage.seller(guard=ls.SigningGuard(opaque="static")) as seller:
        assert warning not in caplog.text
        seller.guard = ls.SigningGuard()
        assert caplog.text.count(warning) == 1
        seller.guard = ls.SigningGuard(opaque="refuse")
        assert caplog.text.count(warning) == 1
    with stage.seller(guard=ls.SigningGuard()):
        assert caplog.text.count(warning) == 2
    assert "SigningGuard(rpc=" in caplog.text


# ── which account, whose wallet ──────────────────────────────────────────────────────────────────────────────────


def test_a_signal_without_a_token_account_takes_the_positions(stage: Stage):
    with stage.seller():
        stage.say(announced(), signal(token_account=None))
        stage.wait_for_sent(1)
        stage.sender.settle(CONFIRMED)
        assert stage.report().key.token_account == exit_signal().token_account


def test_without_a_position_it_is_derived(stage: Stage):
    """The wallet's own account for this mint and token program."""
    token = "TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA"
    with stage.seller():
        stage.say(signal(token_account=None, token_program=token, position_id=99))
        stage.wait_for_sent(1)
        stage.sender.settle(CONFIRMED)
        assert stage.report().key.token_account == exit_signal().token_account


def test_what_cannot_be_derived_is_refused_and_told(stage: Stage):
    with stage.seller():
        stage.say(signal(token_account=None, token_program=None, position_id=99))
        report = stage.report()
        stage.say(signal(token_account=None, token_program="no address", position_id=99))
        assert stage.report().outcome is REJECTED
    assert report.outcome is REJECTED
    assert "no token account" in report.detail
    assert stage.sender.sent == []


def test_watched_positions_are_never_sold(stage: Stage):
    """A foreign position's exit is somebody else's; the next one is ours."""
    with stage.seller():
        stage.say(signal(watched=True), signal())
        stage.wait_for_sent(1)
        stage.sender.settle(CONFIRMED)
        stage.report()
    assert stage.told.empty()


def test_a_wallet_without_a_signer_is_told(stage: Stage):
    with stage.seller():
        stage.say(signal(wallet_pubkey=str(Keypair().pubkey())))
        report = stage.report()
    assert report.outcome is REJECTED
    assert isinstance(report.error, ls.ConfigurationError)


def test_every_wallet_has_its_signer(stage: Stage):
    for signers, field in (
        ([], "signers"),
        ([ls.Signer(desk(MARKET).wallet)] * 2, "signers[1]"),
        (["key"], "signers[0]"),
    ):
        with pytest.raises(ls.ConfigurationError) as caught:
            AutoSeller(stage.session, signers, sender=stage.sender, journal=":memory:")
        assert caught.value.field == field


# ── pauses, callbacks, dry runs ──────────────────────────────────────────────────────────────────────────────────


def test_pause_and_resume(stage: Stage):
    with stage.seller() as seller:
        seller.pause()
        assert seller.is_paused
        stage.say(announced(), signal())
        stage.session.wait_for("exit_signal_with_tx", PATIENCE_S)
        seller.resume()
        stage.wait_for_sent(1)


def test_a_callback_that_raises_harms_nothing(stage: Stage, caplog: pytest.LogCaptureFixture):
    seller = stage.seller()
    seller.on_outcome(lambda report: 1 / 0)
    with seller:
        stage.say(signal())
        stage.wait_for_sent(1)
        stage.sender.settle(CONFIRMED)
        stage.report()
        stage.say(announced(entry_quote_units=9), signal())
        stage.wait_for_sent(2)
    assert "ZeroDivisionError" in caplog.text


def test_a_callback_may_close_the_seller(stage: Stage):
    closed = threading.Event()
    seller = stage.seller()

    @seller.on_outcome
    def close(report: ls.SellReport) -> None:
        seller.close()
        closed.set()

    seller.start()
    stage.say(signal())
    stage.wait_for_sent(1)
    stage.sender.settle(CONFIRMED)
    assert closed.wait(PATIENCE_S)
    assert stage.report().outcome is CONFIRMED


def test_a_dry_run_writes_nothing_into_the_journal(stage: Stage, tmp_path):
    """A later, real run must not take the exit for sold."""
    with ls.Journal(tmp_path / "sales.journal") as journal:
        with stage.seller(journal=journal, dry_run=True):
            stage.say(signal())
            report = stage.report()
        assert journal.exits() == []
    assert (report.outcome, report.is_dry_run) == (UNKNOWN, True)
    assert stage.sender.sent == []


def test_a_journal_that_refuses_is_told_and_waited_for(stage: Stage, monkeypatch: pytest.MonkeyPatch):
    problems: queue.Queue[Exception] = queue.Queue()
    seller = stage.seller()
    seller.on_problem(problems.put)
    refusing = threading.Event()
    refusing.set()
    real = seller._journal.begun

    def begun(*args: Any, **kwargs: Any) -> None:
        if refusing.is_set():
            raise JournalError("full", "sales.journal", "no room")
        real(*args, **kwargs)

    monkeypatch.setattr(seller._journal, "begun", begun)
    with seller:
        stage.say(signal())
        error = problems.get(timeout=PATIENCE_S)
        assert stage.sender.sent == []
        refusing.clear()
        stage.wait_for_sent(1)
    assert isinstance(error, JournalError)
    assert error.kind == "full"


def test_an_error_that_nobody_thought_of_is_told_and_the_exit_is_sold(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """The log has its words, but not what may be a transaction in them; the callback gets the error itself."""
    canary = exit_signal().unsigned_tx_b64
    problems: queue.Queue[Exception] = queue.Queue()
    seller = stage.seller()
    seller.on_problem(problems.put)
    left = [RuntimeError(f"cannot read {canary} of 7")]
    real = seller._journal.begun

    def begun(*args: Any, **kwargs: Any) -> None:
        if left:
            raise left.pop()
        real(*args, **kwargs)

    monkeypatch.setattr(seller._journal, "begun", begun)
    with seller:
        stage.say(announced(), signal())
        assert str(problems.get(timeout=PATIENCE_S)) == f"cannot read {canary} of 7"
        until(lambda: any(message["type"] == "request_exit_signal" for message in stage.peers[0].received))
        assert stage.sender.sent == []
        stage.say(signal())
        stage.wait_for_sent(1)
        stage.sender.settle(CONFIRMED)
        assert stage.report().outcome is CONFIRMED
    assert (
        f"whole of token account {exit_signal().token_account} (generation 1): RuntimeError: cannot read [redacted] of 7"
        in caplog.text
    )
    assert canary[:100] not in caplog.text


def test_a_word_that_always_ends_in_an_error_does_not_hold_up_the_next(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """It is tried twice."""
    problems: queue.Queue[Exception] = queue.Queue()
    seller = stage.seller()
    seller.on_problem(problems.put)
    real = PositionSeller.signalled

    def signalled(self: PositionSeller, signal: ls.ExitSignalWithTx, received_ns: int, **more: Any) -> None:
        if signal.reason == "poison":
            raise RuntimeError("a bug")
        real(self, signal, received_ns, **more)

    monkeypatch.setattr(lines_module, "_AGAIN_AFTER_S", 0.01)
    monkeypatch.setattr(PositionSeller, "signalled", signalled)
    with seller:
        stage.say(announced(), signal(reason="poison"), signal())
        stage.wait_for_sent(1)
    assert problems.qsize() == 2
    assert "is not followed, after 2 tries" in caplog.text


# ── the end ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_close_tells_what_may_still_land(stage: Stage):
    with stage.seller() as seller:
        stage.say(signal())
        stage.wait_for_sent(1)
        seller.close()
        seller.close()
        report = stage.report()
        assert (report.outcome, report.transactions) == (UNKNOWN, 1)
        # What comes now is nobody's business.
        stage.sender._open.popitem()[1](TxResult(signature=stage.sender.sent[0], outcome=CONFIRMED))
        stage.say(signal())
        stage.session.wait_for("exit_signal_with_tx", PATIENCE_S)
    assert stage.told.empty()
    with pytest.raises(ls.ConcurrencyError):
        seller.start()


def test_refused_exit_is_allowed_once_in_the_callback_that_reports_it(stage: Stage):
    """By the seller's own methods; a second transaction needs a second permission."""
    refusals: queue.Queue[ls.Refusal] = queue.Queue()
    theft = that_also_pays_a_stranger(exit_signal().unsigned_tx_b64)
    with stage.seller() as seller:

        @seller.on_refused
        def decide(refusal: ls.Refusal) -> None:
            assert refusal.key is not None
            assert seller.refused() == [refusal]
            refusals.put(refusal)
            seller.allow_once(refusal.key)

        stage.say(announced(), signal(unsigned_tx_b64=theft))
        refusal = refusals.get(timeout=PATIENCE_S)
        assert [each.rule for each in refusal.error.offences] == ["destination"]
        stage.wait_for_sent(1)
        until(lambda: seller.refused() == [])
        assert refusal.key is not None
        with pytest.raises(ls.ConcurrencyError, match="may still land"):
            seller.allow_once(refusal.key)
        with pytest.raises(ls.ConfigurationError, match="is not refused"):
            seller.allow_once(refusal.key._replace(part="level 3"))


def test_guard_is_replaced_while_the_seller_runs(stage: Stage):
    theft = that_also_pays_a_stranger(exit_signal().unsigned_tx_b64)
    with stage.seller() as seller:
        stage.say(announced(), signal(unsigned_tx_b64=theft))
        assert stage.report().outcome is REJECTED
        generous = ls.SigningGuard(tip_accounts=[str(stranger())], max_tip_lamports=2 * 10**9)
        seller.guard = generous
        assert seller.guard is generous
        stage.say(signal(unsigned_tx_b64=on_another_block(theft)))
        stage.wait_for_sent(1)
        with pytest.raises(ls.ConfigurationError, match="guard"):
            seller.guard = "none"  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("guard_mode", "lenient"),
        ("never_sell", "So11111111111111111111111111111111111111112"),
        ("never_sell", ["no address"]),
        ("max_buys_lamports_per_hour", -1),
        ("max_buys_usd1_units_per_hour", 1.5),
        ("max_fees_lamports_per_hour", True),
    ],
)
def test_autoseller_with_wrong_terms_is_refused_by_name(stage: Stage, argument: str, value: Any):
    with pytest.raises(ls.ConfigurationError) as caught:
        stage.seller(**{argument: value})
    assert caught.value.field == argument


def test_a_legs_caller_is_released_by_close(stage: Stage):
    """It waits for a leg that will never end."""

    class Api:
        def build_sell_tx(self, request: ls.BuildSellTxRequest) -> ls.BuildTxResponse:
            return ls.BuildTxResponse(desk(MARKET).sell(tokens=request.amount_tokens))

    with stage.seller(exit_api=Api()) as seller:
        one = exit_signal()
        bands = [{"slippage_bps": 500, "max_tokens": 10**9, "coverage_pct": 1.0}]
        liquidity = {"type": "liquidity_snapshot", "position_id": one.position_id, "bands": bands}
        stage.say(announced(tokens=10**12), liquidity | {"liquidity_trend": "draining", "server_time_ms": 1})
        handle = stage.session.wait_for("position_opened", PATIENCE_S).handle
        results: queue.Queue[ls.LegsReport] = queue.Queue()

        def sell() -> None:
            results.put(seller.sell_in_legs(handle, ls.LegPlan(slippage_bps=600)))

        thread = threading.Thread(target=sell)
        thread.start()
        stage.wait_for_sent(1)
        seller.close()
        result = results.get(timeout=PATIENCE_S)
        thread.join(PATIENCE_S)
    assert result.detail == "the seller was closed"
    # Half of what the band absorbs, because liquidity drains.
    assert [leg.tokens for leg in result.legs] in ([], [5 * 10**8])


def test_legs_are_refused_where_they_cannot_work(stage: Stage):
    handle = ls.PositionHandle(
        position_id=1, token_account="A", wallet_pubkey=WALLET, mint="M", tokens=1, entry_quote_units=1
    )
    plan = ls.LegPlan(slippage_bps=500)
    with stage.seller() as seller, pytest.raises(ls.ConfigurationError, match="exit_api"):
        seller.sell_in_legs(handle, plan)
    told: queue.Queue[Exception] = queue.Queue()
    seller = stage.seller(exit_api=FakeApi())
    with pytest.raises(ls.ConcurrencyError, match="does not run"):
        seller.sell_in_legs(handle, plan)

    @seller.on_outcome
    def in_a_callback(report: ls.SellReport) -> None:
        with contextlib.suppress(queue.Full):
            try:
                seller.sell_in_legs(handle, plan)
            except ls.ConcurrencyError as error:
                told.put(error)

    with seller:
        stage.say(signal())
        stage.wait_for_sent(1)
        stage.sender.settle(CONFIRMED)
        assert "start a thread" in str(told.get(timeout=PATIENCE_S))


def _start_in_child(seller: AutoSeller, journal: ls.Journal, answers: Any) -> None:
    for use in (seller.start, seller.close, journal.unfinished):
        try:
            use()
        except ls.ForkedProcessError:
            answers.put("refused")
        else:
            answers.put("accepted")


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_is_refused(stage: Stage, tmp_path):
    """Two processes with one seller would sell twice. Its close() is silent there: nothing of it is the child's."""
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    with ls.Journal(tmp_path / "sales.journal") as journal:
        seller = stage.seller(journal=journal)
        child = context.Process(target=_start_in_child, args=(seller, journal, answers))
        child.start()
        assert [answers.get(timeout=PATIENCE_S) for _ in range(3)] == ["refused", "accepted", "refused"]
        child.join(PATIENCE_S)
        seller.close()


def test_what_is_asked_for_reaches_the_server(stage: Stage):
    """By token account, with the policy's slippage."""
    with stage.seller():
        stage.say(announced(), signal())
        stage.wait_for_sent(1)
        stage.sender.settle(ls.SellOutcome.EXPIRED)
        until(lambda: any(message["type"] == "request_exit_signal" for message in stage.peers[0].received))
    (asked,) = [message for message in stage.peers[0].received if message["type"] == "request_exit_signal"][:1]
    expected = {
        "type": "request_exit_signal",
        "token_account": exit_signal().token_account,
        "slippage_bps": 2_020,
    }
    assert json.loads(json.dumps(asked)) == expected
