"""The examples as a user runs them: real processes, real ports, and the exchange's ledger as the judge."""

from __future__ import annotations

import concurrent.futures
import json
import re
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from lasersell_sync import Journal, SellOutcome
from lasersell_sync.sandbox.assertions import LedgerAssertions
from tests.examples.trading import EXAMPLES, Account
from tests.support.processes import Program
from tests.support.waiting import until

BOTS = ("callback_bot.py", "queue_consumer.py")
STOPS = (signal.SIGINT, signal.SIGTERM)


def bot(name: str, account: Account, *arguments: str) -> Program:
    # In a folder of its own, where it keeps its journal.
    return Program(str(EXAMPLES / name), *arguments, env=account.environment, cwd=account.folder)


@pytest.mark.parametrize("name", BOTS)
def test_a_bot_buys_and_sells_on_the_exit_signal(name: str, account: Account):
    """From an empty wallet to a position that the ledger says is sold; then the program ends by itself."""
    mint = account.sandbox.mints[0]
    with bot(name, account, "--buy", mint, "--sol", "0.1", "--once") as program:
        code, output, _ = program.end()
    assert code == 0, output
    assert account.sold(mint)
    (position,) = account.sandbox.positions()
    assert position.close_reason == "target_profit"
    assert "closed: target_profit" in output
    assert account.disconnected()


@pytest.mark.parametrize("number", STOPS)
@pytest.mark.parametrize("name", BOTS)
def test_a_bot_that_is_stopped_leaves_nothing_behind(name: str, number: signal.Signals, account: Account):
    """With a position open and prices coming in: gone soon, status 0, no traceback, and its session with it."""
    mint = account.sandbox.mints[0]
    with bot(name, account, "--buy", mint) as program:
        program.line_with("position 1 in")
        code, output, _ = program.stop(number)
    assert code == 0, output
    assert "Traceback" not in output
    assert account.disconnected()


@pytest.mark.parametrize("name", BOTS)
def test_a_bot_with_a_wrong_key_fails_at_once(name: str, account: Account):
    environment = {**account.environment, "LASERSELL_API_KEY": "another-key-0123456789"}
    with Program(str(EXAMPLES / name), env=environment, cwd=account.folder) as program:
        code, output, _ = program.end()
    assert code == 1
    assert "another-key" not in output
    assert "401" in output or "403" in output


# ── the bot that sells by itself ─────────────────────────────────────────────────────────────────────────────────


def test_the_selling_bot_buys_and_sells(account: Account, tmp_path: Path):
    """Its journal knows what the ledger knows."""
    mint, journal = account.sandbox.mints[0], str(tmp_path / "sales.journal")
    with bot("autosell_bot.py", account, "--buy", mint, "--journal", journal, "--once") as program:
        code, output, _ = program.end()
    assert code == 0, output
    assert account.sold(mint)
    with Journal(journal) as read:
        (record,) = read.exits()
    assert (record.reason, record.outcome) == ("target_profit", SellOutcome.CONFIRMED)
    assert account.disconnected()


def test_the_selling_bot_is_killed_and_sells_once(account: Account, tmp_path: Path):
    """kill -9 with a sale under way; the next start finds it and sells nothing twice."""
    mint, journal = account.sandbox.mints[0], str(tmp_path / "sales.journal")
    with bot("autosell_bot.py", account, "--buy", mint, "--journal", journal) as program:
        program.line_with("bought: confirmed")
        account.sandbox.faults.transactions("late", landing_delay_ms=20_000)
        assert account.sandbox.wait_for(lambda: [p for p in account.sandbox.positions() if p.exit_reason], 60)

        def is_signed() -> bool:
            with Journal(journal, read_only=True) as read:
                return any(record.state == "signed" for record in read.exits())

        until(is_signed)
        program.process.kill()
        program.process.wait()
    with bot("autosell_bot.py", account, "--journal", journal, "--once") as program:
        code, output, _ = program.end()
    assert code == 0, output
    assert "taken up" in output
    LedgerAssertions(account.sandbox).assert_sold_exactly_once(account.wallet, mint)


@pytest.mark.parametrize("number", STOPS)
def test_the_selling_bot_stops_in_good_order(number: signal.Signals, account: Account, tmp_path: Path):
    mint, journal = account.sandbox.mints[0], str(tmp_path / "sales.journal")
    with bot("autosell_bot.py", account, "--buy", mint, "--journal", journal) as program:
        program.line_with("bought: confirmed")
        code, output, _ = program.stop(number)
    assert code == 0, output
    assert "Traceback" not in output
    assert account.disconnected()


# ── the Flask app ────────────────────────────────────────────────────────────────────────────────────────────────


class Site:
    """The Flask app in a web server."""

    def __init__(self, program: Program, said: str = "Running on") -> None:
        self.program = program
        found = re.search(r"http://127\.0\.0\.1:\d+", program.line_with(said))
        assert found is not None
        self.url = found.group()

    def positions(self) -> list[dict[str, object]]:
        with urllib.request.urlopen(f"{self.url}/positions", timeout=30) as answer:
            return json.load(answer)


def flask_run(environment: dict[str, str], folder: Path) -> Program:
    environment = {**environment, "SALES_JOURNAL": str(folder / "sales.journal")}
    return Program("-m", "flask", "--app", str(EXAMPLES / "flask_app.py"), "run", "--port", "0", env=environment)


@pytest.fixture
def site(account: Account) -> Iterator[Site]:
    with flask_run(account.environment, account.folder) as program:
        yield Site(program)


def test_the_flask_app_shows_positions_and_sells_them(site: Site, account: Account):
    """Lazily connected with the first request; one session however many requests there are."""
    mint = account.sandbox.mints[0]
    assert not account.sandbox.sessions()
    assert site.positions() == []
    assert account.connected()

    account.buy(mint)
    assert account.holds(mint)
    until(site.positions, patience_s=30)
    (position,) = account.sandbox.positions()
    shown = site.positions()[0]
    assert shown["position_id"] == position.position_id
    assert shown["wallet"] == account.wallet
    assert shown["mint"] == mint
    assert shown["entry_units"] == position.entry_lamports
    assert shown["entry"] == f"{position.entry_lamports / 1e9:.6f} SOL"
    assert shown["currency"] == "SOL"
    assert shown["tokens"] == account.sandbox.token_balance(account.wallet, mint)

    assert account.sold(mint)
    until(lambda: site.positions() == [], patience_s=30)
    assert len(account.sandbox.sessions(include_closed=True)) == 1


@pytest.mark.parametrize("number", STOPS)
def test_the_session_ends_with_the_flask_worker(site: Site, account: Account, number: signal.Signals):
    site.positions()
    assert account.connected()
    code, output, _ = site.program.stop(number)
    # The development server leaves SIGTERM to the system.
    assert code in (0, -number), output
    assert "Traceback" not in output
    assert account.disconnected()


def test_a_refused_key_is_an_answer_and_no_crash(account: Account):
    with flask_run({**account.environment, "LASERSELL_API_KEY": "another-key-0123456789"}, account.folder) as program:
        site = Site(program)
        for _ in range(2):
            with pytest.raises(urllib.error.HTTPError) as caught:
                site.positions()
            assert caught.value.code == 503
            with caught.value as answer:
                assert "another-key" not in answer.read().decode()


def gunicorn(environment: dict[str, str], folder: Path, *options: str) -> Program:
    where = ("--chdir", str(EXAMPLES), "--bind", "127.0.0.1:0", "--workers", "1")
    environment = {**environment, "SALES_JOURNAL": str(folder / "sales.journal"), "HOME": str(folder)}
    return Program("-m", "gunicorn", *where, *options, "flask_app:app", env=environment)


GUNICORNS = {
    "threads": ("--worker-class", "gthread", "--threads", "8"),
    "threads, preload": ("--worker-class", "gthread", "--threads", "8", "--preload"),
    "gevent": ("--worker-class", "gevent"),
}


@pytest.mark.parametrize("kind", GUNICORNS)
def test_the_flask_app_under_gunicorn_serves_many_requests_at_once_with_one_session(kind: str, account: Account):
    """The first requests come together: one of them connects, all are answered; SIGTERM says goodbye."""
    with gunicorn(account.environment, account.folder, *GUNICORNS[kind]) as program:
        site = Site(program, "Listening at")
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            assert list(pool.map(lambda _: site.positions(), range(16))) == [[]] * 16
        assert len(account.sandbox.sessions(include_closed=True)) == 1
        _, output, _ = program.stop(signal.SIGTERM)
        assert "Traceback" not in output
    assert account.disconnected()


def test_the_flask_app_preloaded_under_gevent_is_refused_with_what_to_do(account: Account):
    """gunicorn patches in the worker, after the parent has imported this library: an answer, and no worker that hangs."""
    options = ("--worker-class", "gevent", "--preload", "--timeout", "20")
    with gunicorn(account.environment, account.folder, *options) as program:
        site = Site(program, "Listening at")

        def refused(_: int) -> str:
            with pytest.raises(urllib.error.HTTPError) as caught:
                site.positions()
            assert caught.value.code == 503
            return str(json.load(caught.value)["error"])

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            for words in pool.map(refused, range(16)):
                assert "gevent patched the threading module after lasersell_sync was imported" in words
                assert "monkey.patch_all() at the very top" in words
        _, output, _ = program.stop(signal.SIGTERM)
        assert "Traceback" not in output
    assert not account.sandbox.sessions(include_closed=True)


def test_the_flask_app_preloaded_under_gevent_works_when_gunicorns_settings_patch_first(
    account: Account, tmp_path: Path
):
    """The remedy: a settings file is read before anything else."""
    (tmp_path / "settings.py").write_text("from gevent import monkey\nmonkey.patch_all()\n")
    options = ("--worker-class", "gevent", "--preload", "--config", str(tmp_path / "settings.py"))
    with gunicorn(account.environment, account.folder, *options) as program:
        site = Site(program, "Listening at")
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            assert list(pool.map(lambda _: site.positions(), range(16))) == [[]] * 16
        assert len(account.sandbox.sessions(include_closed=True)) == 1
        program.stop(signal.SIGTERM)
    assert account.disconnected()
