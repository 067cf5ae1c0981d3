"""Code blocks of the README and the pages: each runs against the sandbox as printed.

``tests/rules/test_page_blocks.py`` sees to the others: each says on its page why it does not run.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

import lasersell_sync as ls
from lasersell_sync.sandbox import Sandbox
from tests.examples.page_shell import missing_command, shell
from tests.examples.pages import ROOT, blocks, every_block
from tests.support.processes import PATIENCE_S, Program

#: Pages whose every block is run by a test of their own, which names each block it takes.
TOLD_AS_A_STORY = {"README.md": "test_readme.py", "docs/tutorial.md": "below"}
RUN_HERE = sorted({block.page for block in every_block() if block.is_run and block.page not in TOLD_AS_A_STORY})


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
