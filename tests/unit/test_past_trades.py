"""The service's list of past trades ends an exit of an earlier process, and never begins one."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

import attrs
import pytest

from lasersell_sync.autosell.questions import Opened, PastTrades, proof_of_sale
from lasersell_sync.exceptions import ExitApiError
from lasersell_sync.trading.rest.account import HistoryTrade
from lasersell_sync.trading.sending.outcome import SellOutcome
from lasersell_sync.trading.solana.account_history import Finding, Verdict
from tests.support.selling import Rig

CONFIRMED, FAILED, EXPIRED = SellOutcome.CONFIRMED, SellOutcome.FAILED_ONCHAIN, SellOutcome.EXPIRED
OPENED_S = 1_700_000_000
BEGAN_S = OPENED_S + 1_000


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, tz=timezone.utc)


def trade(opened_s: float = OPENED_S, closed_s: float | None = BEGAN_S + 30, **more: Any) -> HistoryTrade:
    known: dict[str, Any] = {
        "id": 1, "session_id": 1, "position_id": 1, "wallet_pubkey": "wallet", "mint": "mint",
        "entry_quote_units": 100, "exit_quote_units": None if closed_s is None else 120,
        "profit_quote_units": None if closed_s is None else 20, "tokens": 1_000,
        "exit_reason": None if closed_s is None else "stop_loss", "market_kind": None, "strategy_pct": {},
        "opened_at": at(opened_s), "closed_at": None if closed_s is None else at(closed_s),
    }  # fmt: skip
    return HistoryTrade(**{**known, **more})


WITH_MOMENT = Opened(100, OPENED_S * 1_000, BEGAN_S * 1_000)
WITHOUT_MOMENT = Opened(100, None, BEGAN_S * 1_000)


SOLD = PastTrades([trade()], is_complete=True)

# ── what is proven ──


@pytest.mark.parametrize("opened", [WITH_MOMENT, WITHOUT_MOMENT])
def test_trade_of_the_opening_that_was_sold_proves_its_end(opened: Opened) -> None:
    words = proof_of_sale(opened, SOLD)
    assert words is not None
    assert all(part in words for part in ("stop_loss", "120 units", "2023-11-14T22:30:30"))


@pytest.mark.parametrize(
    ("opened", "trades"),
    [
        (WITH_MOMENT, []),
        (WITH_MOMENT, [trade(closed_s=None)]),
        (WITH_MOMENT, [trade(exit_quote_units=None)]),  # closed, and nobody says that it was sold
        (WITH_MOMENT, [trade(exit_quote_units=0)]),
        (WITH_MOMENT, [trade(OPENED_S - 5)]),  # another opening
        (WITH_MOMENT, [trade(), trade(closed_s=None)]),  # two token accounts
        (WITHOUT_MOMENT, [trade(closed_s=None)]),
        (WITHOUT_MOMENT, [trade(closed_s=BEGAN_S - 61)]),  # it was closed before the exit began
        (WITHOUT_MOMENT, [trade(BEGAN_S + 61, BEGAN_S + 90)]),  # it was opened after that
        (WITHOUT_MOMENT, [trade(entry_quote_units=101)]),
        (WITHOUT_MOMENT, [trade(), trade(OPENED_S + 1, closed_s=None)]),
        (WITHOUT_MOMENT, [trade(), trade(BEGAN_S + 50, closed_s=None)]),  # by clocks that differ it may be the one
    ],
)
def test_trades_that_may_be_another_opening_prove_nothing(opened: Opened, trades: list[HistoryTrade]) -> None:
    assert proof_of_sale(opened, PastTrades(trades, is_complete=True)) is None


def test_list_that_may_lack_older_trades_proves_nothing_without_a_moment() -> None:
    past = PastTrades([trade()], is_complete=False)
    assert proof_of_sale(WITH_MOMENT, past) is not None
    assert proof_of_sale(WITHOUT_MOMENT, past) is None


def test_trade_of_the_opening_is_known_by_its_moment_in_whole_seconds() -> None:
    opened = Opened(999, OPENED_S * 1_000 + 789, BEGAN_S * 1_000)
    assert proof_of_sale(opened, SOLD) is not None


def test_later_opening_of_the_same_token_is_not_asked_to_be_sold() -> None:
    for opened, later_s in ((WITH_MOMENT, 40), (WITHOUT_MOMENT, 400)):
        past = PastTrades([trade(BEGAN_S + later_s, None), trade()], is_complete=True)
        assert proof_of_sale(opened, past) is not None


# ── what follows from it ──


@pytest.fixture
def rig() -> Rig:
    """Its whole exit was asked for when the process died, and no node can say what became of the tokens."""
    made = Rig(with_api=True)
    made.opened(opened_at_ms=OPENED_S * 1_000)
    made.exit()
    made.settle(FAILED)
    made.stream.asked.clear()
    made.sender.is_reachable = False
    return made


def listed(rig: Rig, trades: list[HistoryTrade] | Exception) -> None:
    assert rig.api is not None
    of_the_token = [attrs.evolve(one, mint=rig.key().mint) for one in trades] if isinstance(trades, list) else trades
    rig.api.past_trades = of_the_token


def test_take_up_ends_by_the_trade_history_where_nodes_cannot_say(rig: Rig) -> None:
    listed(rig, [trade()])
    rig.restart()
    (report,) = rig.reports
    assert (report.outcome, rig.stream.asked) == (EXPIRED, [])
    assert "sold at 2023-11-14T22:30:30+00:00 (stop_loss) for 120 units: it is not sold without" in report.detail
    rig.sender.is_reachable = True
    rig.lines.advance(300)
    assert (rig.stream.asked, rig.problems, len(rig.reports)) == ([], [], 1)


@pytest.mark.parametrize("trades", [[], [trade(closed_s=None)], ExitApiError("transport", "nobody answers"), OSError()])
def test_take_up_goes_on_by_the_nodes_alone(rig: Rig, trades: list[HistoryTrade] | Exception) -> None:
    """Whatever the history says, it begins nothing."""
    listed(rig, trades)
    rig.restart()
    rig.lines.advance(30)
    assert (rig.reports, rig.stream.asked) == ([], [])
    rig.sender.is_reachable = True
    rig.lines.advance(30)
    assert rig.stream.asked


def test_take_up_asks_for_past_trades_of_its_wallet_and_token_once_a_minute(rig: Rig) -> None:
    assert rig.api is not None
    rig.restart(announced=False)
    assert rig.api.history_questions == []
    rig.lines.advance(59)
    key = rig.key()
    assert rig.api.history_questions == [{"mint": key.mint, "wallet": key.wallet, "page_size": 200}]
    rig.lines.advance(60)
    assert len(rig.api.history_questions) == 2


def test_take_up_while_paused_asks_for_no_past_trades(rig: Rig) -> None:
    assert rig.api is not None
    listed(rig, [trade()])
    rig.is_paused = True
    rig.restart()
    rig.lines.advance(30)
    assert (rig.api.history_questions, rig.reports) == ([], [])


def test_take_up_without_past_trades_is_decided_by_the_nodes() -> None:
    """A REST client of the user's may only build."""
    rig = Rig(with_api=True)
    rig.opened(opened_at_ms=OPENED_S * 1_000)
    rig.exit()
    rig.settle(FAILED)
    rig.stream.asked.clear()

    class Builder:
        build_sell_tx = rig.api.build_sell_tx if rig.api is not None else None

    rig.api = Builder()  # type: ignore[assignment]
    rig.restart()
    assert len(rig.stream.asked) == 1


def test_trade_history_that_comes_after_the_proof_ends_nothing(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[Callable[[], None]] = []
    rig.sender.is_reachable = True
    rig.restart(announced=False)
    monkeypatch.setattr(
        rig.services.questions, "trades", lambda _wallet, _mint, then: answers.append(lambda: then(SOLD))
    )
    rig.opened(opened_at_ms=OPENED_S * 1_000)
    assert len(rig.stream.asked) == 1
    answers.pop()()
    rig.exit()
    rig.settle(CONFIRMED)
    assert rig.outcomes == [("whole", CONFIRMED)]


def test_trade_history_of_a_level_under_way_ends_nothing(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was signed since the question decides."""
    answers: list[Callable[[], None]] = []
    rig.restart(announced=False)
    monkeypatch.setattr(
        rig.services.questions, "trades", lambda _wallet, _mint, then: answers.append(lambda: then(SOLD))
    )
    rig.opened(opened_at_ms=OPENED_S * 1_000)
    rig.level(0)
    answers.pop()()
    rig.lines.run()
    assert rig.reports == []


def test_nodes_that_prove_it_touched_need_no_trade_history(rig: Rig) -> None:
    rig.sender.is_reachable = True
    rig.sender.verdict = Verdict(Finding.TOUCHED, "somebody touched it in slot 7")
    listed(rig, ExitApiError("transport", "nobody answers"))
    rig.restart()
    assert rig.outcomes == [("whole", EXPIRED)]
