"""Code blocks of the pages: the tutorial from its first to its last step, and every Python block's names."""

from __future__ import annotations

import ast
import importlib
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import lasersell_sync as ls
from lasersell_sync.sandbox import Sandbox
from tests.examples.trading import ROOT
from tests.support.processes import PATIENCE_S, Program

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
#: A line that stands right before a block that no test can run, with the reason in words.
NOT_RUN = re.compile(r"<!-- not run(?: as printed)?: .{20,} -->")


def blocks(page: Path, language: str) -> list[str]:
    """The texts of a page's fenced blocks."""
    return [textwrap.dedent(text) for _, found, text in FENCE.findall(page.read_text("utf-8")) if found == language]


PYTHON = [
    pytest.param(text, id=f"{page.name}-{number}")
    for page in PAGES
    for number, text in enumerate(blocks(page, "python"))
]
#: Blocks that make their own sandbox, on free ports, and need nothing that another block defines.
ALONE = [block for block in PYTHON if "from lasersell_sync.sandbox import Sandbox" in block.values[0]]


@pytest.mark.parametrize("text", PYTHON)
def test_python_block_of_a_page_names_only_what_exists(text: str) -> None:
    """It is Python, and each name of the package in it is there: a renamed class or function shows."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "ls":
            assert node.attr in ls.__all__, f"ls.{node.attr}"
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lasersell_sync"):
            module = importlib.import_module(node.module or "")
            assert not [alias.name for alias in node.names if not hasattr(module, alias.name)]


@pytest.mark.parametrize("text", ALONE)
def test_block_with_a_sandbox_of_its_own_runs_as_printed(text: str, tmp_path: Path) -> None:
    """In a fresh process, with warnings as errors."""
    with Program("-W", "error", "-c", text, cwd=tmp_path) as program:
        code, output, _ = program.end()
    assert code == 0, output


def test_marker_of_a_block_that_is_not_run_gives_a_reason() -> None:
    """Each marker has a reason, and stands right before a block."""
    for page in PAGES:
        text = page.read_text("utf-8")
        markers = re.findall(r"^<!-- not run.*$", text, re.MULTILINE)
        assert all(NOT_RUN.fullmatch(marker) for marker in markers), page.name
        assert len(re.findall(r"^<!-- not run.*-->\n```", text, re.MULTILINE)) == len(markers), page.name


def test_tutorial_ends_with_a_guarded_sale(tmp_path: Path) -> None:
    """Its programs as printed, in its order: a wallet, a dry run that sells nothing, and a sale with a journal."""
    wallet_program, bot, buy = blocks(ROOT / "docs" / "tutorial.md", "python")
    (tmp_path / "bot.py").write_text(bot)
    (tmp_path / "buy.py").write_text(buy)
    with Sandbox(stream_port=0, api_port=0, rpc_port=0, speed=5, landing_delay_ms=20, pnl_flush_ms=20) as sandbox:
        settings = {
            "LASERSELL_API_KEY": sandbox.api_key,
            "LASERSELL_STREAM_URL": sandbox.stream_url,
            "LASERSELL_API_URL": sandbox.api_url,
            "LASERSELL_RPC_URL": sandbox.rpc_url,
            "LASERSELL_KEYPAIR": "wallet.json",
        }
        with Program("-c", wallet_program, cwd=tmp_path) as program:
            assert program.end()[0] == 0
        wallet = ls.Signer.from_json_file(tmp_path / "wallet.json").wallet
        for number, words in enumerate(("ready, dry run", "ready, selling")):
            selling = {"BOT_SELLS": "yes"} if number else {}
            mint = sandbox.mints[number]
            with Program("bot.py", env=settings | selling, cwd=tmp_path) as running:
                running.line_with(words)
                with Program("buy.py", mint, env=settings, cwd=tmp_path) as buying:
                    assert buying.line_with("bought:").strip() == "bought: confirmed"
                running.line_with(f"watching {mint}")
                ending = "confirmed" if number else "unknown (dry run)"
                assert ending in running.line_with(f"exit of {mint}")
                running.stop(signal.SIGINT)
            held = sandbox.token_balance(wallet, mint)
            assert bool(held) is not bool(number), held
        journal = [sys.executable, "-m", "lasersell_sync", "journal", "sales.journal"]
        shown = subprocess.run(
            journal, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_S, check=True
        ).stdout
        assert "confirmed" in shown.lower()
