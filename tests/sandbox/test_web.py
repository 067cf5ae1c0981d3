"""The web page's server: what it serves, to whom, and how it ends. The page itself is tested in a browser."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from lasersell_sync.sandbox import Sandbox
from lasersell_sync.sandbox import web as web_module
from lasersell_sync.sandbox.web import MAX_PAGES, WebPage
from tests.sandbox.players import PATIENCE_S, Trader, receive, strategy


@pytest.fixture
def web(sandbox: Sandbox) -> Iterator[WebPage]:
    """The page of the sandbox, on a free port."""
    with WebPage(sandbox, port=0) as page:
        yield page


@pytest.fixture
def http() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False
        yield session


class Events:
    """An open page: the pictures it is sent."""

    def __init__(self, http: requests.Session, web: WebPage) -> None:
        self.answer = http.get(web.url + "events", stream=True, timeout=PATIENCE_S)
        self._lines = self.answer.iter_lines(chunk_size=1)

    def picture(self) -> dict[str, Any]:
        for line in self._lines:
            if line.startswith(b"data: "):
                return dict(json.loads(line[6:]))
        raise AssertionError("the events ended")

    def until(self, wanted: Any) -> dict[str, Any]:
        while True:
            picture = self.picture()
            if wanted(picture):
                return picture


@pytest.mark.parametrize(
    ("path", "mimetype", "words"),
    [("", "text/html", "<title>"), ("page.js", "text/javascript", "EventSource"), ("page.css", "text/css", "table")],
)
def test_the_page_is_served_with_its_parts(
    http: requests.Session, web: WebPage, path: str, mimetype: str, words: str
) -> None:
    """Nothing in it comes from elsewhere, and the browser is told to hold it to that."""
    answer = http.get(web.url + path, timeout=PATIENCE_S)
    assert (answer.status_code, answer.headers["Content-Type"].split(";")[0]) == (200, mimetype)
    assert words in answer.text
    assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
    assert "://" not in answer.text


def test_events_begin_with_the_picture_and_go_on_with_what_changes(
    http: requests.Session, web: WebPage, trader: Trader
) -> None:
    """A trade, as data: every number is the ledger's."""
    sandbox, mint = trader.sandbox, trader.sandbox.mints[0]
    events = Events(http, web)
    first = events.picture()
    assert [pool["mint"] for pool in first["pools"]] == sandbox.mints
    assert first["counts"] == {"positions": 0, "sessions": 0, "signals": 0, "transactions": 0}

    stream = trader.stream(strategy(target=1_000_000))
    trader.landed(trader.buy(mint))
    receive(stream, "position_opened")
    (record,) = sandbox.positions()
    picture = events.until(lambda picture: picture["positions"])
    (position,) = picture["positions"]
    assert (position["position"], position["wallet"]) == (record.position_id, trader.pubkey)
    assert (position["tokens"], position["entry"]) == (record.tokens, record.entry_lamports)
    assert isinstance(position["profit"], int)
    assert [(session["state"], session["positions"]) for session in picture["sessions"]] == [("live", 1)]
    (transaction,) = picture["transactions"]
    assert transaction["trades"] == [{"side": "buy", "tokens": record.tokens, "symbol": sandbox.mint_info[mint].symbol}]

    sandbox.force_exit(record.position_id, "manual")
    (signal,) = events.until(lambda picture: picture["signals"])["signals"]
    assert (signal["type"], signal["position"], signal["reason"]) == (
        "exit_signal_with_tx", record.position_id, "manual",
    )  # fmt: skip
    stream.close()
    gone = events.until(lambda picture: picture["counts"]["sessions"] == 0)
    assert [session["state"] for session in gone["sessions"]] == ["closed"]


def test_no_key_is_shown(http: requests.Session, web: WebPage, trader: Trader) -> None:
    """A page may be on a screen that others see."""
    trader.stream()
    picture = Events(http, web).until(lambda picture: picture["counts"]["sessions"])
    assert trader.sandbox.api_key not in json.dumps(picture)


def test_a_quiet_exchange_says_that_it_lives(
    http: requests.Session, web: WebPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that proxies and browsers keep the connection, and a closed page is noticed."""
    monkeypatch.setattr(web_module, "HEARTBEAT_S", 0.05)
    answer = http.get(web.url + "events", stream=True, timeout=PATIENCE_S)
    assert any(line == b": nothing new" for line in answer.iter_lines(chunk_size=1))
    answer.close()


def test_one_page_too_many_is_refused_until_another_is_closed(
    http: requests.Session, web: WebPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages hold workers; the files and the control API must still be served."""
    monkeypatch.setattr(web_module, "HEARTBEAT_S", 0.05)
    pages = [Events(http, web) for _ in range(MAX_PAGES)]
    for page in pages:
        page.picture()
    refused = http.get(web.url + "events", timeout=PATIENCE_S)
    assert (refused.status_code, refused.json()["error"]) == (503, f"{MAX_PAGES} pages are open already; close one")
    assert http.get(web.url, timeout=PATIENCE_S).status_code == 200
    pages[0].answer.close()
    deadline_s = time.monotonic() + PATIENCE_S
    while http.get(web.url + "events", stream=True, timeout=PATIENCE_S).status_code != 200:
        assert time.monotonic() < deadline_s


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "localhost.evil.example", "10.0.0.1", "["])
def test_a_foreign_name_that_leads_here_gets_nothing(http: requests.Session, web: WebPage, host: str) -> None:
    """A page elsewhere can make its own name point to 127.0.0.1; its Host header gives it away."""
    for path in ("", "events", "sandbox/mute"):
        answer = http.get(web.url + path, headers={"Host": host}, timeout=PATIENCE_S)
        assert answer.status_code == 403


@pytest.mark.parametrize("host", ["localhost", "localhost:8083", "127.0.0.1", "[::1]:8083", "[::1]"])
def test_the_names_of_this_machine_are_fine(http: requests.Session, web: WebPage, host: str) -> None:
    assert http.get(web.url, headers={"Host": host}, timeout=PATIENCE_S).status_code == 200


def test_faults_go_through_to_the_control_api(http: requests.Session, web: WebPage, sandbox: Sandbox) -> None:
    """Without a key: whoever can open the page may order what is on it."""
    answer = http.post(web.url + "sandbox/latency", json={"ms": 250}, timeout=PATIENCE_S)
    assert (answer.status_code, answer.json()) == (200, {"ok": True})
    assert sandbox.faults.conditions.latency_s == 0.25
    assert http.get(web.url + "sandbox/faults", timeout=PATIENCE_S).json()["latency_ms"] == 250
    refused = http.post(web.url + "sandbox/latency", json={"ms": "long"}, timeout=PATIENCE_S)
    assert refused.status_code == 400


def test_faults_must_be_ordered_as_json(http: requests.Session, web: WebPage) -> None:
    """A form or a plain text is what a foreign page could send without being asked."""
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        answer = http.post(web.url + "sandbox/drop", data="{}", headers={"Content-Type": kind}, timeout=PATIENCE_S)
        assert answer.status_code == 415


def test_what_is_not_there_is_not_found(http: requests.Session, web: WebPage) -> None:
    assert http.get(web.url + "web.py", timeout=PATIENCE_S).status_code == 404
    assert http.post(web.url, json={}, timeout=PATIENCE_S).status_code == 405
    assert http.post(web.url + "sandbox/nonsense", json={}, timeout=PATIENCE_S).status_code == 404


def test_it_stops_with_pages_open(http: requests.Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, however long the next news would take; no thread is left."""
    monkeypatch.setattr(web_module, "HEARTBEAT_S", 10 * PATIENCE_S)
    # Of a sandbox that was not started: nothing happens there that would wake the page by chance.
    web = WebPage(Sandbox(), port=0).start()
    events = Events(http, web)
    events.picture()
    begun_s = time.monotonic()
    web.stop()
    web.stop()
    assert time.monotonic() - begun_s < PATIENCE_S
    assert not [thread for thread in threading.enumerate() if "sandbox-web" in thread.name]


def test_a_taken_port_is_told(sandbox: Sandbox, web: WebPage) -> None:
    port = int(web.url.rsplit(":", 1)[1].strip("/"))
    with pytest.raises(OSError, match=f"web cannot listen on port {port}"):
        WebPage(sandbox, port=port).start()


def test_the_url_is_known_once_it_runs(sandbox: Sandbox) -> None:
    with pytest.raises(RuntimeError, match="started"):
        _ = WebPage(sandbox, port=0).url
