"""Code blocks of the README and the pages: each runs against the sandbox as printed, or the page says why it does not."""

from __future__ import annotations

import ast
import importlib
import json
import os
import signal
from pathlib import Path

import pytest

import lasersell_sync as ls
from lasersell_sync.sandbox import Sandbox
from tests.examples.page_shell import missing_command, shell
from tests.examples.pages import DATA, ROOT, RUNS, Block, blocks, every_block, pages, reasons
from tests.support.processes import PATIENCE_S, Program

BLOCKS = every_block()
#: Pages whose every block is run by a test of their own, which names each block it takes.
TOLD_AS_A_STORY = {"README.md": "test_readme.py", "docs/tutorial.md": "below"}
RUN_HERE = sorted({block.page for block in BLOCKS if block.is_run and block.page not in TOLD_AS_A_STORY})
#: What begins a line that belongs into a block that runs.
COMMANDS = ("lasersell-sync ", "pip ", "python", "export ", "curl ", "import ", "from ", "./", ".venv/", "bash ", "cd ")


def _ids(block: Block) -> str:
    return block.place


@pytest.mark.parametrize("page", RUN_HERE)
def test_blocks_of_a_page_run_as_printed(page: str, tmp_path: Path) -> None:
    """In one process with one sandbox, in the page's order, with warnings as errors."""
    wanted = [block for block in blocks(ROOT / page) if block.is_run]
    with Program("-W", "error", "-m", "tests.examples.page_program", page, cwd=tmp_path) as program:
        code, output, _ = program.end(2 * PATIENCE_S)
    assert code == 0, output
    lacking = [block for block in wanted if missing_command(block.text)]
    assert not (lacking and os.environ.get("CI")), f"install {missing_command(lacking[0].text)}"
    ran = [line for line in output.splitlines() if line.startswith("ran ")]
    assert ran == [f"ran {block.place}" for block in wanted if block not in lacking], output


@pytest.mark.parametrize("block", BLOCKS, ids=_ids)
def test_block_of_a_page_is_code_that_runs_or_data(block: Block) -> None:
    """A block names its language. Data has no commands in it, and gives no reason for not running."""
    assert block.language in RUNS | DATA, f"{block.place}: write sh, python, json, toml or text behind the fence"
    if block.language in DATA:
        assert not [line for line in block.text.splitlines() if line.startswith(COMMANDS)], block.place
        assert block.reason is None, block.place
    if block.language == "json":
        json.loads(block.text)


def test_reason_of_a_page_stands_right_before_a_block_and_is_a_sentence() -> None:
    """One that has lost its block, or says nothing, fails."""
    for page in pages():
        found = [block.reason for block in blocks(page) if block.reason is not None]
        assert len(found) == reasons(page), page.name
        assert all(len(reason) >= 20 and reason.endswith(".") for reason in found), page.name


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "python"], ids=_ids)
def test_python_block_of_a_page_names_only_what_exists(block: Block) -> None:
    """It is Python, and each name of the package in it is there: also where the block does not run."""
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "ls":
            assert node.attr in ls.__all__, f"ls.{node.attr}"
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lasersell_sync"):
            module = importlib.import_module(node.module or "")
            assert not [alias.name for alias in node.names if not hasattr(module, alias.name)]


def test_tutorial_ends_with_a_guarded_sale(tmp_path: Path) -> None:
    """Its blocks as printed, in its order: a wallet, a dry run that sells nothing, and a sale with a journal."""
    tutorial = blocks(ROOT / "docs" / "tutorial.md")
    install, serve, settings, wallet_program, keypair, bot, start, buy, purchase, sell, show = tutorial
    assert install.reason
    assert settings.reason
    assert serve.text == "lasersell-sync sandbox\n"
    assert keypair.text == "export LASERSELL_KEYPAIR=wallet.json\n"
    (tmp_path / "bot.py").write_text(bot.text)
    (tmp_path / "buy.py").write_text(buy.text)
    with Sandbox(stream_port=0, api_port=0, rpc_port=0, speed=5, landing_delay_ms=20, pnl_flush_ms=20) as sandbox:
        environment = {
            "LASERSELL_API_KEY": sandbox.api_key,
            "LASERSELL_STREAM_URL": sandbox.stream_url,
            "LASERSELL_API_URL": sandbox.api_url,
            "LASERSELL_RPC_URL": sandbox.rpc_url,
            "LASERSELL_KEYPAIR": "wallet.json",
        }
        with Program("-c", wallet_program.text, cwd=tmp_path) as program:
            assert program.end()[0] == 0
        wallet = ls.Signer.from_json_file(tmp_path / "wallet.json").wallet
        for number, (run, words) in enumerate(((start, "ready, dry run"), (sell, "ready, selling"))):
            mint = sandbox.mints[number]
            with shell(f"exec env {run.text}", tmp_path, environment) as running:
                running.line_with(words)
                # The page's token is the first one of the sandbox; the second purchase is of another.
                assert sandbox.mints[0] in purchase.text
                with shell(purchase.text.replace(sandbox.mints[0], mint), tmp_path, environment) as buying:
                    assert buying.line_with("bought:").strip() == "bought: confirmed"
                running.line_with(f"watching {mint}")
                ending = "confirmed" if number else "unknown (dry run)"
                assert ending in running.line_with(f"exit of {mint}")
                running.stop(signal.SIGINT)
            held = sandbox.token_balance(wallet, mint)
            assert bool(held) is not bool(number), held
        with shell(show.text, tmp_path, environment) as shown:
            assert "confirmed" in shown.end()[1].lower()
