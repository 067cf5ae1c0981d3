"""The README's promises: its set-up lines, and its programs, run as they stand there."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from lasersell_sync import Journal, SellOutcome
from tests.examples.pages import blocks
from tests.examples.trading import ROOT, Account
from tests.support.processes import Program

README = (ROOT / "README.md").read_text(encoding="utf-8")
DEMO, TESTS, BEGINNING, *WAYS = [block.text for block in blocks(ROOT / "README.md")]
WAY_NAMES = ("handlers", "queue", "loop")


def test_readme_test_command_stands_there_once():
    """The gate takes the line from here and runs it."""
    (line,) = [line for line in README.splitlines() if "-m pytest" in line]
    assert line == "python3 -m venv .venv && .venv/bin/pip install -e '.[test]' && .venv/bin/python -m pytest -n auto"


def test_readme_set_up_commands_stand_alone_in_their_blocks():
    """The gate takes both lines from here; a reader copies each with one click."""
    for text, ending in ((DEMO, "lasersell-sync demo\n"), (TESTS, "-m pytest -n auto\n")):
        assert text.startswith("python3 -m venv .venv && ")
        assert text.endswith(ending)
        assert text.count("\n") == 1


def test_every_way_to_consume_is_short():
    assert len(WAYS) == len(WAY_NAMES)
    assert all(len(way.splitlines()) <= 10 for way in WAYS)


@pytest.mark.parametrize("way", WAYS, ids=WAY_NAMES)
def test_a_way_to_consume_sells_a_position(way: str, account: Account):
    """The program from the page, with nothing added, against an exchange on which its wallet buys."""
    mint = account.sandbox.mints[0]
    with Program("-c", f"{BEGINNING}\n\n{way}", env=account.environment, cwd=account.folder) as program:
        assert account.connected()
        account.buy(mint)
        code, output, _ = program.end()
    assert code == 0, output
    assert "closed: target_profit" in output
    assert "UNKNOWN" not in output
    assert account.sold(mint)
    assert account.disconnected()


def test_readme_program_shows_a_sale_that_its_node_refuses(account: Account):
    """Nothing is configured: neither logging nor callbacks beyond those of the page."""
    mint = account.sandbox.mints[0]
    with Program("-c", f"{BEGINNING}\n\n{WAYS[0]}", env=account.environment, cwd=account.folder) as program:
        assert account.connected()
        account.buy(mint)
        account.sandbox.faults.rpc("sendTransaction", status=403, times=None, handled=False)
        line = program.line_with("HTTP 403")
        assert "sent again" in line
        program.stop(signal.SIGINT)


def test_readme_loop_shows_amounts_in_the_positions_currency(account: Account):
    mint = account.sandbox.mints[0]
    with Program("-c", f"{BEGINNING}\n\n{WAYS[2]}", env=account.environment, cwd=account.folder) as program:
        assert account.connected()
        account.buy(mint)
        assert re.search(r"profit: [+-][0-9]+\.[0-9]{6} SOL", program.line_with("profit: "))
        program.stop(signal.SIGINT)


BARE = ("sign_unsigned_tx", "send_transaction", "confirm_signature", "Keypair.from_json")
PAGES = ["README.md", "examples/README.md", *(f"docs/{p.name}" for p in ROOT.glob("docs/*.md"))]


@pytest.mark.parametrize("page", [*PAGES, *(f"examples/{p.name}" for p in ROOT.glob("examples/*.py"))])
def test_pages_and_examples_sell_through_the_signer_and_its_guard(page: str):
    """The bare functions, which sign what they are given, are for those who migrate; performance.md measures them, protocol.md lists names."""
    if page in {"docs/migrating.md", "docs/performance.md", "docs/protocol.md"}:
        return
    text = (ROOT / page).read_text(encoding="utf-8")
    assert [name for name in BARE if name in text] == []


def test_the_page_on_selling_sells(account: Account, tmp_path: Path):
    """Its first program, with nothing added, in a folder of its own; the second way to the same end is its journal."""
    program_text = blocks(ROOT / "docs" / "selling.md")[0].text
    mint = account.sandbox.mints[0]
    account.register()
    with Program("-c", program_text, env=account.environment, cwd=tmp_path) as program:
        assert account.connected()
        account.buy(mint)
        program.line_with("SellOutcome.CONFIRMED")
        program.stop(signal.SIGINT)
    assert account.sold(mint)
    with Journal(tmp_path / "sales.journal") as journal:
        assert [record.outcome for record in journal.exits()] == [SellOutcome.CONFIRMED]


@pytest.mark.parametrize("page", ["CHANGELOG.md", *PAGES])
def test_links_lead_somewhere(page: str):
    """Every relative link of the pages names a file of this repository."""
    path: Path = ROOT / page
    targets = re.findall(r"\]\((?!https?://)([^)#]+)", path.read_text(encoding="utf-8"))
    missing = [target for target in targets if not (path.parent / target).exists()]
    assert missing == []
