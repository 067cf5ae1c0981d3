"""Questions to nodes and the REST API run beside the seller's workers, and many balances are one question."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from typing import Any

import pytest

from lasersell_sync.autosell.questions import PastTrades, Questions
from lasersell_sync.autosell.signing_gate import PauseBarrier
from lasersell_sync.exceptions import ExitApiError, TxSubmitError
from lasersell_sync.trading.rest.account import HistoryPage, HistoryTrade
from lasersell_sync.trading.rest.tx_requests import BuildSellTxRequest, BuildTxResponse, SellOutput
from lasersell_sync.trading.solana.token_accounts import AmountProof
from tests.support.waiting import PATIENCE_S, until

REQUEST = BuildSellTxRequest("1" * 32, "1" * 32, 5, SellOutput.SOL, 100)


class Nodes:
    """Answers when a test lets it."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.error: Exception | None = None

    def proven_amounts(self, proofs: Mapping[str, AmountProof]) -> dict[str, int]:
        self.asked.append(list(proofs))
        assert self.may_answer.wait(PATIENCE_S)
        if self.error is not None:
            raise self.error
        return {account: len(account) for account in proofs if account != "unproven"}


class Api:
    def __init__(self) -> None:
        self.asked = 0
        self.history_questions: list[dict[str, Any]] = []
        self.listed: list[HistoryTrade] = []
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.error: Exception | None = None

    def history(self, **question: Any) -> Iterator[HistoryPage]:
        self.history_questions.append(question)
        assert self.may_answer.wait(PATIENCE_S)
        if self.error is not None:
            raise self.error
        yield HistoryPage(trades=tuple(self.listed), offset=0, total=None)

    def build_sell_tx(self, request: BuildSellTxRequest) -> BuildTxResponse:
        self.asked += 1
        assert self.may_answer.wait(PATIENCE_S)
        if self.error is not None:
            raise self.error
        return BuildTxResponse("AA==")


@pytest.fixture
def nodes() -> Nodes:
    return Nodes()


@pytest.fixture
def api() -> Api:
    return Api()


@pytest.fixture
def barrier() -> PauseBarrier:
    return PauseBarrier()


@pytest.fixture
def questions(nodes: Nodes, api: Api, barrier: PauseBarrier) -> Iterator[Questions]:
    made = Questions(nodes, api, barrier)
    yield made
    nodes.may_answer.set()
    api.may_answer.set()
    made.close()


def test_balances_that_wait_together_are_one_question(questions: Questions, nodes: Nodes) -> None:
    answers: dict[str, int | None] = {}
    nodes.may_answer.clear()
    names = ["first", *(f"account {number}" for number in range(150)), "unproven"]
    for name in names:
        questions.balance(name, AmountProof(), lambda amount, name=name: answers.update({name: amount}))
        until(lambda: nodes.asked)
    nodes.may_answer.set()
    until(lambda: len(answers) == len(names))
    assert [len(asked) for asked in nodes.asked] == [1, 100, 51]
    assert answers["unproven"] is None
    assert answers["account 7"] == len("account 7")


@pytest.mark.parametrize("error", [TxSubmitError("request_send", "nobody answers"), ValueError("a bug")])
def test_balance_that_cannot_be_asked_for_is_not_proven_and_logged(
    questions: Questions, nodes: Nodes, error: Exception, caplog: Any
) -> None:
    answers: list[int | None] = []
    nodes.error = error
    questions.balance("one", AmountProof(), answers.append)
    until(lambda: answers == [None])
    assert "balances of 1 token accounts" in caplog.text
    nodes.error = None
    questions.balance("one", AmountProof(), answers.append)
    until(lambda: answers == [None, 3])


def test_api_that_hangs_holds_up_no_balance(questions: Questions, api: Api) -> None:
    api.may_answer.clear()
    for _ in range(40):
        questions.build(REQUEST, lambda *_: None)
    until(lambda: api.asked == 4)
    answers: list[int | None] = []
    questions.balance("one", AmountProof(), answers.append)
    until(lambda: answers == [3])


@pytest.mark.parametrize("error", [ExitApiError("transport", "nobody answers"), ValueError("a bug")])
def test_build_that_fails_hands_the_error_over(questions: Questions, api: Api, error: Exception) -> None:
    ends: list[tuple[Any, Any]] = []
    api.error = error
    questions.build(REQUEST, lambda *end: ends.append(end))
    until(lambda: ends == [(None, error)])


def a_trade(mint: str) -> HistoryTrade:
    moment = datetime.fromtimestamp(0, tz=timezone.utc)
    return HistoryTrade(
        id=mint, session_id=None, position_id=None, wallet_pubkey="wallet", mint=mint, entry_quote_units=1,
        exit_quote_units=1, profit_quote_units=0, tokens=1, exit_reason=None, market_kind=None, strategy_pct={},
        opened_at=moment, closed_at=moment,
    )  # fmt: skip


def test_trades_of_one_wallet_that_wait_together_are_one_request(questions: Questions, api: Api) -> None:
    answers: dict[str, PastTrades | None] = {}
    api.listed = [a_trade("first"), a_trade("mint 3")]
    api.may_answer.clear()
    mints = ["first", *(f"mint {number}" for number in range(40))]
    for mint in mints:
        questions.trades("wallet", mint, lambda past, mint=mint: answers.update({mint: past}))
        until(lambda: api.history_questions)
    api.may_answer.set()
    until(lambda: len(answers) == len(mints))
    assert api.history_questions == [
        {"wallet": "wallet", "mint": "first", "page_size": 200}, {"wallet": "wallet", "page_size": 200},
    ]  # fmt: skip
    assert answers["first"] == PastTrades([api.listed[0]], is_complete=True)
    assert answers["mint 3"] == PastTrades([api.listed[1]], is_complete=True)
    assert answers["mint 4"] == PastTrades([], is_complete=True)


def test_trades_of_a_full_page_may_lack_older_ones(questions: Questions, api: Api) -> None:
    answers: list[PastTrades | None] = []
    api.listed = [a_trade("mint")] * 200
    questions.trades("wallet", "mint", answers.append)
    until(lambda: answers)
    assert answers == [PastTrades(api.listed, is_complete=False)]


@pytest.mark.parametrize("error", [ExitApiError("transport", "nobody answers"), ValueError("a bug"), StopIteration()])
def test_trades_that_cannot_be_asked_for_prove_nothing_and_are_logged(
    questions: Questions, api: Api, error: Exception, caplog: Any
) -> None:
    answers: list[PastTrades | None] = []
    api.error = error
    questions.trades("wallet", "mint", answers.append)
    until(lambda: answers == [None])
    assert "past trades of wallet" in caplog.text
    api.error = None
    questions.trades("wallet", "mint", answers.append)
    until(lambda: len(answers) == 2)
    assert answers[1] is not None


def test_trades_of_an_api_that_hangs_hold_up_no_build_and_no_history(questions: Questions, api: Api) -> None:
    api.may_answer.clear()
    for wallet in range(40):
        questions.trades(f"wallet {wallet}", "mint", lambda _: None)
    until(lambda: api.history_questions)
    for _ in range(4):
        questions.build(REQUEST, lambda *_: None)
    until(lambda: api.asked == 4)
    assert len(api.history_questions) == 1


def test_trades_while_paused_are_not_asked_for(questions: Questions, api: Api, barrier: PauseBarrier) -> None:
    answers: list[PastTrades | None] = []
    assert barrier.pause(PATIENCE_S)
    questions.trades("wallet", "mint", answers.append)
    until(lambda: answers == [None])
    assert api.history_questions == []


def test_build_while_paused_is_not_asked(questions: Questions, api: Api, barrier: PauseBarrier) -> None:
    ends: list[tuple[Any, Any]] = []
    assert barrier.pause(PATIENCE_S)
    questions.build(REQUEST, lambda *end: ends.append(end))
    until(lambda: ends == [(None, None)])
    assert api.asked == 0
    barrier.resume()
    questions.build(REQUEST, lambda *end: ends.append(end))
    until(lambda: len(ends) == 2)
    assert ends[1][0] is not None


def test_pause_waits_for_a_build_under_way(questions: Questions, api: Api, barrier: PauseBarrier) -> None:
    api.may_answer.clear()
    ends: list[tuple[Any, Any]] = []
    questions.build(REQUEST, lambda *end: ends.append(end))
    until(lambda: api.asked == 1)
    assert barrier.pause(0.02) is False
    api.may_answer.set()
    assert barrier.pause(PATIENCE_S)


def test_close_drops_what_waits(questions: Questions) -> None:
    questions.close()
    questions.balance("one", AmountProof(), lambda _: pytest.fail("asked after close"))
    questions.build(REQUEST, lambda *_: pytest.fail("asked after close"))


class PanicException(BaseException):
    """What solders raises when its Rust code panics; the real class cannot be raised by hand."""


@pytest.mark.parametrize("kind", [PanicException, SystemExit, MemoryError])
def test_sender_and_rest_client_that_raise_anything_leave_no_question_without_an_answer(
    questions: Questions, nodes: Nodes, api: Api, kind: type[BaseException]
) -> None:
    """An exit that waits for an answer would wait for ever."""
    nodes.error, api.error = kind("why"), kind("why")  # type: ignore[assignment]
    balances: list[int | None] = []
    ends: list[tuple[BuildTxResponse | None, Exception | None]] = []
    questions.balance("one", AmountProof(), balances.append)
    questions.build(REQUEST, lambda *end: ends.append(end))
    until(lambda: balances and ends)
    assert balances == [None]
    assert ends[0][0] is None
    assert "why" in str(ends[0][1])
    nodes.error = api.error = None
    questions.balance("one", AmountProof(), balances.append)
    questions.build(REQUEST, lambda *end: ends.append(end))
    until(lambda: len(balances) == len(ends) == 2)
    assert balances[1] == 3
    assert ends[1] == (BuildTxResponse("AA=="), None)


def test_questions_without_a_thread_are_answered_at_once_and_asked_when_there_is_one(
    questions: Questions, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever gets "not proven" asks again; nothing waits for a thread that never started."""
    balances: list[int | None] = []
    ends: list[tuple[BuildTxResponse | None, Exception | None]] = []

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as shortage:
        shortage.setattr(threading.Thread, "start", refuse)
        questions.balance("one", AmountProof(), balances.append)
        questions.balance("two", AmountProof(), balances.append)
        questions.build(REQUEST, lambda *end: ends.append(end))
    assert balances == [None, None]
    assert "no thread" in str(ends[0][1])
    assert any("balances cannot be asked for now" in record.getMessage() for record in caplog.records)
    questions.balance("one", AmountProof(), balances.append)
    questions.build(REQUEST, lambda *end: ends.append(end))
    until(lambda: len(balances) == 3 and len(ends) == 2)
    assert balances[2] == 3
    assert ends[1] == (BuildTxResponse("AA=="), None)
