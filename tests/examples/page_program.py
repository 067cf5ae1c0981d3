"""Runs the blocks of one page as printed, in its order: ``python -m tests.examples.page_program PAGE``.

One process and one sandbox serve the page. A Python block gets the names that the page's earlier blocks defined; any
other name that it uses without defining it comes from ``page_names``. A shell block runs with the sandbox's settings in its
environment and ``lasersell-sync`` on its path. What a block opens is closed at its end.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

import lasersell_sync as ls
from lasersell_sync.sandbox import Sandbox
from tests.examples.page_names import Names
from tests.examples.page_shell import missing_command, run_block
from tests.examples.pages import ROOT, Block, blocks
from tests.examples.trading import Account
from tests.support.processes import PATIENCE_S

_OPENED = (ls.AutoSeller, ls.StreamSession, ls.TxSender, ls.ExitApiClient)


def main() -> None:
    """Run them all; the first error ends it with a traceback that names the page's line."""
    page, folder = ROOT / sys.argv[1], Path.cwd()
    options = {"stream_port": 0, "api_port": 0, "rpc_port": 0, "speed": 5, "landing_delay_ms": 20, "pnl_flush_ms": 20}
    with Sandbox(**options) as sandbox:  # type: ignore[arg-type]
        account = Account.on(sandbox, folder)
        account.register()
        os.environ.update(account.environment)
        (folder / "bot.py").write_text((ROOT / "tests/examples/page_bot.py").read_text("utf-8"))
        (folder / "examples").symlink_to(ROOT / "examples")
        sys.path.insert(0, str(folder))
        names = Names(account, importlib.import_module("bot"))
        defined: dict[str, object] = {"__name__": "__main__"}
        for block in blocks(page):
            if block.is_run and missing_command(block.text):
                print("lacks", missing_command(block.text), flush=True)
            elif block.is_run:
                _run(block, names, defined, folder)
                sandbox.faults.clear()
                print(f"\nran {block.place}", flush=True)
        ls.close_rpc_connections()


def _run(block: Block, names: Names, defined: dict[str, object], folder: Path) -> None:
    if block.language == "sh":
        _run_shell(block, folder)
    elif "\ndef test_" in block.text:
        _run_tests(block, folder)
    else:
        _run_python(block, names, defined)


def _run_python(block: Block, names: Names, defined: dict[str, object]) -> None:
    # The empty lines give a traceback the line numbers of the page.
    tree = ast.parse("\n" * (block.line - 1) + block.text, block.page)
    with ExitStack() as stack:
        needed = sorted(_needed(tree) - set(defined))
        lent = names.lend(needed, stack, block.place)
        space = {**defined, **lent}
        try:
            exec(compile(tree, block.page, "exec"), space)  # the page's own code
        finally:
            for name, value in space.items():
                if name not in lent and isinstance(value, _OPENED):
                    value.close()
    kept = {name: value for name, value in space.items() if name not in lent and not isinstance(value, _OPENED)}
    defined.update(kept)


def _needed(tree: ast.Module) -> set[str]:
    """Names that a block uses and does not define."""
    used: set[str] = set()
    own: set[str] = set(dir(builtins))
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            (used if isinstance(node.ctx, ast.Load) else own).add(node.id)
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            own.add(node.name)
        elif isinstance(node, ast.arg):
            own.add(node.arg)
        elif isinstance(node, ast.alias):
            own.add((node.asname or node.name).split(".")[0])
        elif isinstance(node, (ast.MatchAs, ast.ExceptHandler)) and node.name:
            own.add(node.name)
    return used - own


def _run_tests(block: Block, folder: Path) -> None:
    """A block of tests runs in a pytest, beside the bot that it imports."""
    path = folder / f"test_line_{block.line}.py"
    path.write_text(block.text)
    plugin = ("-p", "lasersell_sync.integrations.pytest_plugin", "--strict-markers", "-p", "no:cacheprovider")
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-m", "pytest", "-q", *plugin, str(path)]
    done = subprocess.run(command, cwd=folder, env=environment, timeout=PATIENCE_S, check=False)
    if done.returncode != pytest.ExitCode.OK:
        raise SystemExit(f"{block.place}: its tests failed")


def _run_shell(block: Block, folder: Path) -> None:
    problem = run_block(block.text, folder)
    if problem is not None:
        raise SystemExit(f"{block.place}: {problem}")


if __name__ == "__main__":
    main()
