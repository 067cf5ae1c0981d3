"""``lasersell-sync journal`` as a process: for people, for scripts, beside a seller that runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lasersell_sync import ExitKey, Journal, SellOutcome

PATIENCE_S = 60.0


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    asked = [sys.executable, "-m", "lasersell_sync", "journal", *arguments]
    return subprocess.run(asked, check=False, capture_output=True, text=True, timeout=PATIENCE_S)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "sales.journal"
    with Journal(path) as journal:
        key = ExitKey("W" * 40, "A" * 40, "M" * 40, "whole", 1)
        exit_id = journal.received(key, position_id=3, reason="stop_loss", tokens=2**64 - 1).id
        journal.signed(exit_id, signature="S" * 80, blockhash="B" * 40)
        journal.settled(exit_id, "S" * 80, SellOutcome.CONFIRMED, slot=12, detail="")
        journal.finished(exit_id, SellOutcome.CONFIRMED, detail="[sold]")
        journal.received(key._replace(part="level 0"), position_id=3, reason="chained_tp", tokens=5)
        journal.buying(signature="Y" * 80, wallet="W" * 40, mint="M" * 40, watched_wallet="V" * 40, blockhash="B" * 40)
    return path


def test_people_see_exits_and_purchases(file: Path) -> None:
    shown = run(str(file))
    assert (shown.returncode, shown.stderr) == (0, "")
    for words in ("18,446,744,073,709,551,615", "stop_loss", "confirmed", "level 0", "received", "not known yet"):
        assert words in shown.stdout
    assert "level 0" in run(str(file), "--unfinished").stdout
    assert "whole" not in run(str(file), "--unfinished").stdout


def test_one_exit_tells_its_story(file: Path) -> None:
    shown = run(str(file), "--exit", "1").stdout
    steps = ["received", "signed", "confirmed", "finished"]
    assert [word for word in shown.split() if word in steps] == ["confirmed", *steps, "confirmed"]
    assert "[sold]" in shown
    assert "S" * 80 in shown
    missing = run(str(file), "--exit", "9")
    assert (missing.returncode, missing.stdout) == (1, "")
    assert "there is no exit 9" in missing.stderr


def test_scripts_get_objects_while_the_seller_runs(file: Path) -> None:
    with Journal(file):
        lines = [json.loads(line) for line in run(str(file), "--json").stdout.splitlines()]
        (story,) = [json.loads(line) for line in run(str(file), "--json", "--exit", "1").stdout.splitlines()]
    assert [(line["kind"], line["outcome"]) for line in lines] == [("exit", "confirmed"), ("exit", None), ("buy", None)]
    assert lines[0]["tokens"] == 2**64 - 1
    assert lines[0]["transactions"][0]["slot"] == 12
    assert [step["step"] for step in story["steps"]] == ["received", "signed", "confirmed", "finished"]


def test_what_is_no_journal_is_told_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("hello\n" * 1000)
    told = run(str(path))
    assert (told.returncode, told.stdout) == (1, "")
    assert "not a journal" in told.stderr
    assert "Traceback" not in told.stderr
