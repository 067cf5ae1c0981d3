"""The web page in a real browser: what it shows of a running exchange, and what its buttons do."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator

import pytest
from websockets.exceptions import ConnectionClosed

from lasersell_sync.sandbox import Sandbox
from lasersell_sync.sandbox.web import WebPage
from tests.sandbox.browser import Page, browser
from tests.sandbox.players import PATIENCE_S, Trader, receive, signed, strategy

TABLES = ("pools", "positions", "sessions", "signals", "transactions")


@pytest.fixture(scope="module")
def new_tab() -> Iterator[Callable[[], Page]]:
    """One browser for the module."""
    with browser() as new_tab:
        yield new_tab


@pytest.fixture
def tab(new_tab: Callable[[], Page]) -> Iterator[Page]:
    """A tab for each test."""
    page = new_tab()
    yield page
    page.close()


@pytest.fixture
def web(sandbox: Sandbox) -> Iterator[WebPage]:
    """The page of the sandbox, on a free port."""
    with WebPage(sandbox, port=0) as page:
        yield page


def row(table: str, *words: str) -> str:
    """In the page: the text of the first row of a table that holds all these words; undefined as long as none does."""
    return (
        f"[...document.querySelectorAll('#{table} tbody tr')].map(row => row.innerText)"
        f".find(text => {json.dumps(words)}.every(word => text.includes(word)))"
    )


def test_a_trade_is_shown_from_the_first_step_to_the_last(tab: Page, web: WebPage, trader: Trader) -> None:
    """Pools, session, transaction, position, signal and close appear one after the other, without a reload."""
    sandbox, mint = trader.sandbox, trader.sandbox.mints[0]
    symbol = sandbox.mint_info[mint].symbol
    tab.open(web.url)
    tab.until("document.querySelector('#link').dataset.state == 'live'")
    # All the pools there are, and nothing else yet.
    tab.until(row("pools", symbol))
    assert tab.ask("document.querySelectorAll('#pools tbody tr').length") == len(sandbox.mints)
    for table in TABLES[1:]:
        assert tab.text(f"#{table} tbody") == "none yet"

    stream = trader.stream(strategy(target=1_000_000))
    tab.until(row("sessions", "live", trader.pubkey[:4]))
    trader.landed(trader.buy(mint))
    assert "buy" in tab.until(row("transactions", "ok", symbol))
    assert "%" in tab.until(row("positions", "open", symbol))

    (position,) = sandbox.positions()
    sandbox.force_exit(position.position_id, "manual")
    signal = receive(stream, "exit_signal_with_tx")
    tab.until(row("signals", "exit_signal_with_tx", "manual", symbol))
    trader.landed(trader.send(signed(signal["unsigned_tx_b64"], trader.wallet)))
    tab.until(row("positions", "closed: manual"))
    tab.until(row("transactions", "sell"))
    counts = {name: tab.text(f"[data-count={name}]") for name in ("positions", "signals", "transactions")}
    assert counts == {"positions": "0", "signals": "1", "transactions": "2"}
    assert tab.complaints == []


def test_what_came_before_the_page_is_shown_too(tab: Page, web: WebPage, trader: Trader) -> None:
    """Signals included: the server has kept them."""
    stream = trader.stream(strategy(target=1_000_000))
    trader.landed(trader.buy(trader.sandbox.mints[0]))
    receive(stream, "position_opened")
    trader.sandbox.force_exit(trader.sandbox.positions()[0].position_id, "stop_loss")
    receive(stream, "exit_signal_with_tx")
    tab.open(web.url)
    tab.until(row("signals", "stop_loss"))
    tab.until(row("transactions", "buy"))


def test_a_lost_server_is_told_and_found_again(tab: Page, sandbox: Sandbox) -> None:
    """The page says so, and goes on by itself when a server is back on the same port."""
    with WebPage(sandbox, port=0) as web:
        tab.open(web.url)
        tab.until("document.querySelector('#link').dataset.state == 'live'")
        port = int(web.url.rsplit(":", 1)[1].strip("/"))
    tab.until("document.querySelector('#link').dataset.state == 'lost'")
    with WebPage(sandbox, port=port):
        tab.until("document.querySelector('#link').dataset.state == 'live'")


def test_texts_of_the_exchange_are_never_markup(tab: Page, web: WebPage, trader: Trader) -> None:
    """A reason that reads like HTML is shown as it is."""
    stream = trader.stream(strategy(target=1_000_000))
    trader.landed(trader.buy(trader.sandbox.mints[0]))
    receive(stream, "position_opened")
    tab.open(web.url)
    evil = "<img src=x onerror=document.title='owned'>"
    trader.sandbox.force_exit(trader.sandbox.positions()[0].position_id, evil)
    assert evil in tab.until(row("signals", "onerror"))
    assert tab.ask("document.title") == "LaserSell sandbox"
    assert tab.ask("document.images.length") == 0


def press(tab: Page, name: str) -> str:
    """Click a fault's button; what the page then says."""
    tab.ask("document.querySelector('#outcome').textContent = ''")
    tab.click(f'button[data-fault="{name}"]')
    outcome = "document.querySelector('#outcome').innerText"
    return str(tab.until(f"{outcome}.endsWith('…') ? '' : {outcome}"))


@pytest.fixture
def faults(tab: Page, web: WebPage) -> Page:
    tab.open(web.url)
    return tab


def test_every_button_is_obeyed(faults: Page) -> None:
    """Each has a name, says what it does, and the control API knows what it asks for."""
    names = faults.ask("[...document.querySelectorAll('#faults button')].map(button => button.innerText)")
    assert len(names) >= 17
    assert len(set(names)) == len(names)
    assert faults.ask("[...document.querySelectorAll('#faults button')].every(button => button.title)")
    for name in names:
        assert press(faults, name).startswith(f"{name}: done")
    assert press(faults, "clear").endswith("Nothing else is in force")
    assert faults.complaints == []


def test_drop_and_close_end_the_connections(faults: Page, trader: Trader) -> None:
    """The first without a word, the second with a close frame."""
    for name, code in (("drop", None), ("close", 1001)):
        stream = trader.stream()
        assert "1 connection(s)" in press(faults, name)
        with pytest.raises(ConnectionClosed) as caught:
            stream.recv(timeout=PATIENCE_S)
        assert (caught.value.rcvd.code if caught.value.rcvd else None) == code
        assert trader.sandbox.wait_for(lambda: not trader.sandbox.sessions(), PATIENCE_S)


def test_error_and_corrupt_frames_reach_the_client(faults: Page, trader: Trader) -> None:
    stream = trader.stream()
    press(faults, "error message")
    assert receive(stream, "error")["code"] == "rate_limited"
    press(faults, "corrupt frame")
    with pytest.raises(json.JSONDecodeError):
        receive(stream)


def test_mute_lasts_until_unmute(faults: Page, trader: Trader) -> None:
    stream = trader.stream()
    press(faults, "mute")
    stream.send('{"type":"ping","client_time_ms":1}')
    with pytest.raises(TimeoutError):
        stream.recv(timeout=0.1)
    press(faults, "unmute")
    assert receive(stream)["type"] == "pong"


def test_answers_and_transactions_are_spoiled_once(faults: Page, trader: Trader) -> None:
    """What is in force is told, happens to the next call, and is over."""
    mint = trader.sandbox.mints[0]
    assert press(faults, "REST 429").endswith("In force: api any call")
    assert trader.post("/v1/buy", trader.buy_body(mint)).status_code == 429
    order = trader.post("/v1/buy", trader.buy_body(mint)).json()
    transaction = signed(order["tx"], trader.wallet)
    press(faults, "RPC error")
    tx_b64 = base64.b64encode(bytes(transaction)).decode()
    assert trader.rpc("sendTransaction", tx_b64, {"encoding": "base64"})["error"]["code"] == -32005
    assert press(faults, "lost transaction").endswith("In force: a transaction: lost")
    # Lost, and the node does not try again; the same bytes once more do land.
    signature = trader.send(transaction, maxRetries=0)
    assert trader.sandbox.transactions() == []
    assert trader.send(transaction) == signature
    assert trader.landed(signature).err is None


def test_a_restarted_stream_takes_clients_again(faults: Page, trader: Trader) -> None:
    for name in ("restart", "restart, forget"):
        stream = trader.stream()
        press(faults, name)
        with pytest.raises(ConnectionClosed):
            stream.recv(timeout=PATIENCE_S)
        assert trader.sandbox.wait_for(lambda: not trader.sandbox.sessions(), PATIENCE_S)
    trader.stream()
