"""A position whose transaction nodes are judging: what may happen meanwhile, and what follows from their verdicts."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import attrs
import pytest

from lasersell_sync.autosell.services import SellPolicy
from lasersell_sync.messages import ExitSignalWithTx
from lasersell_sync.trading.guard import SigningGuard
from lasersell_sync.trading.guard.rules.rule import Offence, Rule
from lasersell_sync.trading.guard.signing_guard import Judgement
from lasersell_sync.trading.guard.simulating import SIMULATION
from lasersell_sync.trading.sending.outcome import SellOutcome
from tests.support.selling import Rig, on_another_block

CONFIRMED, REJECTED = SellOutcome.CONFIRMED, SellOutcome.REJECTED
OK: list[tuple[Rule, Offence]] = []
CANNOT = [(SIMULATION, Offence("no node could simulate it"))]
THEFT = [(Rule("lamports", "", lambda *_: (), is_kept_in_report_mode=True), Offence("it takes 1 SOL"))]


class AskedGuard(SigningGuard):
    """A guard that has everything simulated by nodes which answer when, and what, a test says."""

    def __init__(self) -> None:
        super().__init__(rpc="http://127.0.0.1:9")
        self.asked: list[tuple[Judgement, Callable[[Judgement], None]]] = []

    def needs_simulation(self, judgement: Judgement) -> bool:
        return not judgement.offences

    def simulate(self, judgement: Judgement, then: Callable[[Judgement], None]) -> None:
        self.asked.append((judgement, then))

    def answer(self, offences: list[tuple[Rule, Offence]]) -> None:
        judgement, then = self.asked.pop(0)
        then(judgement._replace(offences=[*judgement.offences, *offences]))


class Bench:
    """A position, and the nodes of its guard."""

    def __init__(self, **options: Any) -> None:
        self.nodes = AskedGuard()
        self.rig = Rig(guard=self.nodes, **options)
        self.rig.opened()

    def answer(self, offences: list[tuple[Rule, Offence]]) -> None:
        self.nodes.answer(offences)
        self.rig.lines.run()

    @property
    def refused(self) -> int:
        return len(self.rig.gate.refusals.all())


@pytest.fixture
def bench() -> Bench:
    return Bench()


def newer(rig: Rig) -> ExitSignalWithTx:
    return attrs.evolve(rig.signal, unsigned_tx_b64=on_another_block(rig.signal.unsigned_tx_b64))


def test_nothing_is_signed_before_the_nodes_have_answered(bench: Bench):
    bench.rig.exit()
    bench.rig.lines.advance(5)
    assert (len(bench.nodes.asked), bench.rig.sender.sent) == (1, [])
    bench.answer(OK)
    assert len(bench.rig.sender.sent) == 1


def test_nodes_are_asked_before_the_journal_has_the_exit(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    """The journal's write and the simulation take place at the same time, and the exit is judged once."""
    asked: list[int] = []
    write = bench.rig.journal.received

    def received(*args: Any, **more: Any) -> Any:
        asked.append(len(bench.nodes.asked))
        bench.nodes.answer(OK)  # the nodes are faster than the disk
        assert bench.rig.sender.sent == []
        return write(*args, **more)

    monkeypatch.setattr(bench.rig.journal, "received", received)
    bench.rig.exit()
    assert asked == [1]
    assert (len(bench.rig.sender.sent), bench.nodes.asked) == (1, [])


def test_pause_while_nodes_judge_signs_nothing_until_resume(bench: Bench):
    bench.rig.exit()
    bench.rig.is_paused = True
    bench.answer(OK)
    bench.rig.lines.advance(5)
    assert bench.rig.sender.sent == []
    bench.rig.is_paused = False
    bench.rig.do(bench.rig.position.unpaused)
    bench.answer(OK)  # what the nodes said before the pause is out of date
    assert len(bench.rig.sender.sent) == 1


def test_close_while_nodes_judge_signs_nothing_and_ends_the_exit(bench: Bench):
    bench.rig.exit()
    bench.rig.closed()
    (report,) = bench.rig.reports
    assert report.detail == "the position was closed"
    bench.answer(OK)
    assert bench.rig.sender.sent == []
    assert len(bench.rig.reports) == 1


@pytest.mark.parametrize("verdict", [THEFT, CANNOT], ids=["theft", "cannot"])
def test_newer_signal_while_nodes_judge_is_judged_when_the_first_is_refused(
    bench: Bench, verdict: list[tuple[Rule, Offence]]
):
    bench.rig.exit()
    bench.rig.exit(newer(bench.rig))
    bench.answer(verdict)
    assert bench.rig.sender.sent == []
    bench.answer(OK)
    assert len(bench.rig.sender.sent) == 1
    assert bench.refused == 0


def test_newer_signal_while_nodes_judge_is_not_sent_beside_the_first(bench: Bench):
    bench.rig.exit()
    bench.rig.exit(newer(bench.rig))
    bench.answer(OK)
    assert (len(bench.rig.sender.sent), bench.nodes.asked) == (1, [])


def test_newer_signal_of_an_exit_that_was_refused_as_theft_is_judged_anew(bench: Bench):
    """One node's bad answer does not keep an exit for ever."""
    bench.rig.exit()
    bench.answer(THEFT)
    assert (bench.refused, bench.rig.outcomes) == (1, [("whole", REJECTED)])
    bench.rig.exit()
    bench.answer(OK)
    assert (bench.refused, len(bench.rig.sender.sent)) == (0, 1)


def test_exit_that_no_node_can_simulate_is_listed_and_judged_again_until_one_can(bench: Bench):
    bench.rig.exit()
    bench.answer(CANNOT)
    assert (bench.refused, len(bench.rig.refusals), bench.nodes.asked) == (1, 1, [])
    bench.rig.lines.advance(1)
    bench.answer(CANNOT)
    bench.rig.lines.advance(1)
    assert bench.nodes.asked == []  # the second pause is longer
    bench.rig.lines.advance(1)
    bench.answer(OK)
    assert (bench.refused, len(bench.rig.sender.sent), len(bench.rig.refusals)) == (0, 1, 1)
    bench.rig.settle(CONFIRMED)
    assert bench.rig.outcomes == [("whole", CONFIRMED)]


def test_exit_that_no_node_can_simulate_is_rejected_once_when_its_signal_is_too_old():
    bench = Bench(policy=SellPolicy(max_signal_age_s=60))
    signal = bench.rig.exit()
    bench.answer(CANNOT)
    assert bench.rig.reports == []
    bench.rig.position._current._received_ns -= 61 * 10**9  # type: ignore[union-attr]
    bench.rig.lines.advance(1)
    assert (bench.nodes.asked, bench.refused) == ([], 1)
    assert bench.rig.outcomes == [("whole", REJECTED)]
    assert signal.unsigned_tx_b64 not in bench.rig.stream.asked


def test_exit_received_at_a_negative_monotonic_time_is_judged():
    """Python promises no start of the monotonic clock."""
    bench = Bench(policy=SellPolicy(max_signal_age_s=1e9))
    bench.rig.exit(age_s=time.monotonic() + 5)
    bench.answer(OK)
    assert len(bench.rig.sender.sent) == 1


def test_newer_signal_of_an_exit_that_waits_for_a_node_is_judged_at_once(bench: Bench):
    bench.rig.exit()
    bench.answer(CANNOT)
    bench.rig.exit()
    bench.answer(OK)
    assert (bench.refused, len(bench.rig.sender.sent)) == (0, 1)
    bench.rig.lines.advance(10)
    assert (bench.nodes.asked, len(bench.rig.sender.sent)) == ([], 1)


def test_exit_that_waits_for_a_node_can_be_allowed_at_once(bench: Bench):
    bench.rig.exit()
    bench.answer(CANNOT)
    (refusal,) = bench.rig.gate.refusals.all()
    assert refusal.key is not None
    bench.rig.gate.refusals.allow_once(refusal.key)
    bench.rig.do(lambda: bench.rig.position.allowed(refusal.key))  # type: ignore[arg-type]
    bench.answer(CANNOT)
    assert len(bench.rig.sender.sent) == 1


def test_close_of_a_position_whose_exit_waits_for_a_node_ends_it(bench: Bench):
    bench.rig.exit()
    bench.answer(CANNOT)
    bench.rig.closed()
    bench.rig.lines.advance(10)
    assert (bench.nodes.asked, bench.refused, len(bench.rig.reports)) == ([], 0, 1)


def built_by_rest(bench: Bench) -> None:
    """A level whose signal is too old, so that the REST API builds its transaction."""
    bench.rig.exit(bench.rig.old_level(0), age_s=1_000)
    bench.nodes.asked.pop(0)  # about the signal, before its turn came


def test_part_built_by_rest_that_no_node_can_simulate_is_judged_again_until_one_can():
    bench = Bench(with_api=True)
    built_by_rest(bench)
    bench.answer(CANNOT)
    assert bench.rig.api is not None
    assert (bench.refused, len(bench.rig.refusals), bench.nodes.asked, bench.rig.reports) == (1, 1, [], [])
    bench.rig.lines.advance(1)
    bench.answer(CANNOT)
    bench.rig.lines.advance(1)
    assert bench.nodes.asked == []  # the second pause is longer
    bench.rig.lines.advance(1)
    bench.answer(OK)
    assert (bench.refused, len(bench.rig.sender.sent), len(bench.rig.refusals)) == (0, 1, 1)
    assert len(bench.rig.api.requests) == 1
    bench.rig.settle(CONFIRMED)
    assert bench.rig.outcomes == [("level 0", CONFIRMED)]


def test_part_built_by_rest_that_no_node_can_simulate_is_rejected_once_when_it_is_too_old():
    bench = Bench(policy=SellPolicy(max_signal_age_s=60), with_api=True)
    built_by_rest(bench)
    bench.answer(CANNOT)
    assert bench.rig.reports == []
    bench.rig.position._current.built_ns -= 61 * 10**9  # type: ignore[union-attr]
    bench.rig.lines.advance(1)
    assert (bench.nodes.asked, bench.refused) == ([], 1)
    assert bench.rig.outcomes == [("level 0", REJECTED)]


def test_newer_signal_of_a_part_built_by_rest_that_waits_for_a_node_is_judged_at_once():
    bench = Bench(with_api=True)
    built_by_rest(bench)
    bench.answer(CANNOT)
    bench.rig.level(0)
    bench.answer(OK)
    assert (bench.refused, len(bench.rig.sender.sent)) == (0, 1)
    bench.rig.lines.advance(10)
    assert (bench.nodes.asked, len(bench.rig.sender.sent)) == ([], 1)
