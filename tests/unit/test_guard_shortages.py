"""The guard's own threads: what an answer raises ends none of them, and a thread that cannot be started hangs no sale."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

import pytest

from lasersell_sync.autosell.reports import Refusals
from lasersell_sync.autosell.signing_gate import ENFORCE, SigningGate
from lasersell_sync.exceptions import ConcurrencyError, TxSubmitError
from lasersell_sync.runtime.timeouts import TimeBudget
from lasersell_sync.trading.guard.node_facts import GuardNodes
from lasersell_sync.trading.guard.report import Finding, SimulationVerdict, Verdicts
from lasersell_sync.trading.guard.simulators import Peer, Simulators
from lasersell_sync.trading.solana.rpc_node import RpcNode
from lasersell_sync.trading.solana.send_targets import SendTargetRpc
from tests.support.waiting import PATIENCE_S, until

#: Nobody is asked anything: each question is the test's own function.
TARGETS = [SendTargetRpc("http://127.0.0.1:9"), SendTargetRpc("http://127.0.0.2:9")]
#: So many threads die or fail, and the next question is still answered.
MANY = 100


class PanicException(BaseException):
    """What solders raises when its Rust code panics; the real class cannot be raised by hand."""


@pytest.fixture
def simulators() -> Iterator[Simulators]:
    made = Simulators(TARGETS, timeout_s=0.5)
    yield made
    made.close()


@contextlib.contextmanager
def no_threads() -> Iterator[None]:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with pytest.MonkeyPatch.context() as shortage:
        shortage.setattr(threading.Thread, "start", refuse)
        yield


def fine(peer: Peer, _budget: TimeBudget) -> Finding:
    return Finding(peer.label, SimulationVerdict.OK, "")


def panics(_peer: object, _budget: TimeBudget) -> Finding:
    raise PanicException("called `Option::unwrap()` on a `None` value")


def asked(simulators: Simulators, question: Callable[[Peer, TimeBudget], Finding]) -> Verdicts:
    done: list[Verdicts] = []
    simulators.ask(question, done.append)
    until(lambda: done)
    return done[0]


def test_guard_nodes_question_that_panics_is_an_error_of_that_node() -> None:
    answers = list(GuardNodes(TARGETS).ask(panics, timeout_s=PATIENCE_S))  # type: ignore[type-var]
    assert sorted(answer.node for answer in answers) == [0, 1]
    assert all(isinstance(answer.error, TxSubmitError) for answer in answers)
    assert {answer.error.kind for answer in answers if answer.error is not None} == {"decode_response"}


def test_guard_nodes_without_threads_are_errors_that_say_so() -> None:
    def one(_node: RpcNode, _budget: TimeBudget) -> int:
        return 1

    nodes = GuardNodes(TARGETS)
    with no_threads():
        answers = list(nodes.ask(one, timeout_s=PATIENCE_S))
    assert all("no thread to ask with" in str(answer.error) for answer in answers)
    assert len(answers) == 2
    assert [answer.value for answer in nodes.ask(one, timeout_s=PATIENCE_S)] == [1, 1]


def test_simulators_answers_that_panic_leave_the_threads_alive(simulators: Simulators) -> None:
    """As many as a node may have threads, and more."""
    for _ in range(MANY):
        assert asked(simulators, panics).verdict is SimulationVerdict.CANNOT
    for peer in simulators.peers:
        # As a sample of the accounts does, which is no question.
        for _ in range(MANY):
            peer.submit(lambda: panics(None, TimeBudget(None)))
    verdicts = asked(simulators, fine)
    assert verdicts.verdict is SimulationVerdict.OK


def test_simulators_without_threads_decide_at_once_and_ask_when_there_are_some(simulators: Simulators) -> None:
    for _ in range(MANY):
        done: list[Verdicts] = []
        with no_threads():
            simulators.ask(fine, done.append)
        assert [verdicts.verdict for verdicts in done] == [SimulationVerdict.CANNOT]
    assert asked(simulators, fine).verdict is SimulationVerdict.OK
    assert simulators.ask_and_wait(fine).verdict is SimulationVerdict.OK


def test_simulators_without_a_clock_decide_when_the_nodes_time_is_over(
    simulators: Simulators, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One node hangs, and the thread that would notice could not be started; the wait ends all the same."""
    start, go_on = threading.Thread.start, threading.Event()

    def refuse_the_clock(thread: threading.Thread) -> None:
        if thread.name == "lasersell-simulate-clock":
            raise RuntimeError("can't start new thread")
        start(thread)

    def hangs(_peer: Peer, _budget: TimeBudget) -> Finding:
        go_on.wait(PATIENCE_S)
        raise TxSubmitError("response_read", "too late")

    monkeypatch.setattr(threading.Thread, "start", refuse_the_clock)
    assert simulators.ask_and_wait(hangs).verdict is SimulationVerdict.CANNOT
    go_on.set()


def test_signing_gate_case_is_ready_whatever_ends_its_judgement() -> None:
    """An exit waits for its case: one that never gets ready is never sold and never reported."""

    class Guard:
        def __init__(self, begin: Callable[[Callable[[], None]], None]) -> None:
            self.run_aside = begin

        def judge(self, *_: object, reads_tables: bool = True, **__: object) -> object:
            if reads_tables:
                raise PanicException
            return None

        def lacks_tables(self, _: object) -> bool:
            return True

    def no_thread(_: Callable[[], None]) -> None:
        raise RuntimeError("can't start new thread")

    for begin, words in ((lambda work: work(), "PanicException"), (no_thread, "can't start new thread")):
        gate = SigningGate(Guard(begin), ENFORCE, Refusals(), None, print)  # type: ignore[arg-type]
        case = gate.open("AA", wallet="w", mint="m", key=None, request=None, context=None, may_be_allowed=False)
        assert case.is_ready
        with pytest.raises((RuntimeError, ConcurrencyError), match=words):
            case.judgement()
