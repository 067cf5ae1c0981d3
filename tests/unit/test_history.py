"""The history of trades over REST: paging, lazy requests, values, and answers that are none."""

from __future__ import annotations

from datetime import datetime, timezone
from functools import partial
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from solders.keypair import Keypair

from lasersell_sync import ConfigurationError, ExitApiClient, ExitApiError, HistoryPage, HistoryTrade
from tests.support.http_server import HttpServer, json_answer

WALLET, MINT = str(Keypair().pubkey()), str(Keypair().pubkey())
CLOSED = {
    "id": "8c1f", "session_id": 7, "position_id": 2**63 + 5, "wallet_pubkey": WALLET, "mint": MINT,
    "entry_quote_units": 1_000_000_000, "exit_quote_units": 900_000_000, "profit_quote_units": -100_000_000,
    "tokens": 2**64 - 1, "exit_reason": "stop_loss", "market_kind": "pumpfun", "strategy_target_profit_pct": 15,
    "strategy_stop_loss_pct": 10.5, "opened_at": "2026-11-29T10:00:00Z", "closed_at": "2026-11-29T10:00:01.5Z",
}  # fmt: skip
OPEN = {name: CLOSED[name] for name in ("wallet_pubkey", "mint", "entry_quote_units", "tokens", "opened_at")}


utc = partial(datetime, tzinfo=timezone.utc)


def trades(first: int, end: int) -> list[dict[str, Any]]:
    return [{**OPEN, "id": number} for number in range(first, end)]


class Book:
    """A history that changes between requests; answers by the query's limit and offset."""

    def __init__(self, *steps: list[dict[str, Any]], total: bool = True, most: int = 200) -> None:
        self._steps, self._total, self._most = list(steps), total, most
        self.queries: list[dict[str, str]] = []

    def __call__(self, path: str) -> dict[str, Any]:
        query = {name: values[0] for name, values in parse_qs(urlsplit(path).query).items()}
        self.queries.append(query)
        listed = self._steps.pop(0) if len(self._steps) > 1 else self._steps[0]
        offset, limit = int(query["offset"]), min(int(query["limit"]), self._most)
        answer: dict[str, Any] = {"trades": listed[offset : offset + limit]}
        return {**answer, "total": len(listed)} if self._total else answer


def pages_of(book: Book, **arguments: Any) -> list[HistoryPage]:
    with ExitApiClient("key") as client:
        client._ask = lambda _method, path: (book(path), "")  # type: ignore[method-assign, assignment]
        return list(client.history(**arguments))


def test_history_request_names_page_wallet_and_mint() -> None:
    with (
        HttpServer(json_answer({"trades": [CLOSED], "total": 1, "new": 1})) as server,
        ExitApiClient("secret-key").with_base_url(server.url) as client,
    ):
        (page,) = client.history(mint=MINT, wallet=WALLET, page_size=3)
    (seen,) = server.requests
    assert (seen.method, seen.body, seen.headers["x-api-key"]) == ("GET", b"", "secret-key")
    path, _, query = seen.path.partition("?")
    assert path == "/v1/history"
    assert parse_qs(query) == {"limit": ["3"], "offset": ["0"], "mint": [MINT], "wallet": [WALLET]}
    assert list(page) == [
        HistoryTrade(
            id="8c1f", session_id=7, position_id=2**63 + 5, wallet_pubkey=WALLET, mint=MINT,
            entry_quote_units=1_000_000_000, exit_quote_units=900_000_000, profit_quote_units=-100_000_000,
            tokens=2**64 - 1, exit_reason="stop_loss", market_kind="pumpfun",
            strategy_pct={"target_profit_pct": 15.0, "stop_loss_pct": 10.5},
            opened_at=datetime(2026, 11, 29, 10, tzinfo=timezone.utc),
            closed_at=datetime(2026, 11, 29, 10, 0, 1, 500_000, tzinfo=timezone.utc),
        )
    ]  # fmt: skip
    assert page.trades[0].is_closed


def test_history_pages_are_requested_when_they_are_reached() -> None:
    book = Book(trades(0, 5))
    with ExitApiClient("key") as client:
        client._ask = lambda _method, path: (book(path), "")  # type: ignore[method-assign, assignment]
        pages = client.history(page_size=2)
        assert book.queries == []
        next(pages)
        assert len(book.queries) == 1
        assert [len(page) for page in pages] == [2, 1]
    assert [query["offset"] for query in book.queries] == ["0", "2", "4"]


@pytest.mark.parametrize("total", [True, False])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5])
def test_history_of_any_length_is_complete(count: int, total: bool) -> None:
    pages = pages_of(Book(trades(0, count), total=total), page_size=2)
    assert [trade.id for page in pages for trade in page] == list(range(count))
    assert len(pages) == max(1, -(-count // 2))
    assert {page.total for page in pages} == {count if total else None}


def test_history_server_that_answers_with_shorter_pages_is_read_to_the_end() -> None:
    pages = pages_of(Book(trades(0, 5), total=False, most=2), page_size=50)
    assert [trade.id for page in pages for trade in page] == [0, 1, 2, 3, 4]


def test_history_trade_that_opens_between_two_requests_brings_no_repeat() -> None:
    """The newest is first, so the older ones move down by one place."""
    pages = pages_of(Book(trades(0, 4), trades(-1, 4)), page_size=2)
    assert [trade.id for page in pages for trade in page] == [0, 1, 2, 3]


def test_history_server_that_ignores_the_offset_ends() -> None:
    with ExitApiClient("key") as client:
        client._ask = lambda *_: ({"trades": trades(0, 2)}, "")  # type: ignore[method-assign, assignment]
        assert [len(page) for page in client.history(page_size=2)] == [2]


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-29T10:00:00Z", utc(2026, 11, 29, 10)),
        ("2026-11-29 10:00:00", utc(2026, 11, 29, 10)),
        ("2026-11-29T12:00:00+02:00", utc(2026, 11, 29, 10)),
        ("2026-11-29T10:00:00.123456789Z", utc(2026, 11, 29, 10, 0, 0, 123_456)),
        ("2026-11-29T10:00:00.1+00:00", utc(2026, 11, 29, 10, 0, 0, 100_000)),
    ],
)
def test_history_moments_have_a_time_zone(text: str, moment: datetime) -> None:
    (page,) = pages_of(Book([{**OPEN, "id": 1, "opened_at": text}]))
    (trade,) = page
    assert trade.opened_at == moment
    assert trade.opened_at.utcoffset() is not None
    assert (trade.is_closed, trade.exit_quote_units, trade.strategy_pct) == (False, None, {})


def test_history_whole_numbers_written_as_texts_are_read() -> None:
    (page,) = pages_of(Book([{**CLOSED, "tokens": str(2**64 - 1), "profit_quote_units": "-3"}]))
    (trade,) = page
    assert (trade.tokens, trade.profit_quote_units) == (2**64 - 1, -3)


@pytest.mark.parametrize(
    ("answer", "place"),
    [
        ({}, "trades"),
        ({"trades": {}}, "trades"),
        ({"trades": [5]}, r"trades\[0\]"),
        ({"trades": [CLOSED, {**CLOSED, "mint": None}]}, r"trades\[1\].mint"),
        ({"trades": [{**CLOSED, "id": None}]}, r"trades\[0\].id"),
        ({"trades": [{**CLOSED, "id": True}]}, r"trades\[0\].id"),
        ({"trades": [{**CLOSED, "tokens": -1}]}, r"trades\[0\].tokens"),
        ({"trades": [{**CLOSED, "tokens": 1.5}]}, r"trades\[0\].tokens"),
        ({"trades": [{**CLOSED, "tokens": True}]}, r"trades\[0\].tokens"),
        ({"trades": [{**CLOSED, "exit_reason": 5}]}, r"trades\[0\].exit_reason"),
        ({"trades": [{**CLOSED, "opened_at": "yesterday"}]}, r"trades\[0\].opened_at"),
        ({"trades": [CLOSED], "total": "many"}, "total"),
    ],
)
def test_history_answer_that_is_none_is_a_parse_error_that_names_the_place(answer: dict[str, Any], place: str) -> None:
    with (
        HttpServer(json_answer(answer)) as server,
        ExitApiClient("key").with_base_url(server.url) as client,
        pytest.raises(ExitApiError, match=place) as caught,
    ):
        list(client.history())
    assert caught.value.kind == "parse"


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"page_size": 0}, "page_size"),
        ({"page_size": 201}, "page_size"),
        ({"page_size": True}, "page_size"),
        ({"page_size": "50"}, "page_size"),
        ({"mint": "x"}, "mint"),
        ({"wallet": "x"}, "wallet"),
    ],
)
def test_history_argument_out_of_range_raises_at_the_call(arguments: dict[str, Any], field: str) -> None:
    """Not at the first page, far from the mistake."""
    with ExitApiClient("key") as client, pytest.raises(ConfigurationError) as caught:
        client.history(**arguments)
    assert caught.value.field == field
