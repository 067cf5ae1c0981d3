"""Code blocks of the README and the pages name their language, and a block that does not run gives its reason.

``tests/examples/test_pages.py`` runs the others.
"""

from __future__ import annotations

import ast
import importlib
import json

import pytest

import lasersell_sync as ls
from tests.examples.pages import DATA, RUNS, Block, blocks, every_block, pages, reasons

BLOCKS = every_block()
PYTHON = [block for block in BLOCKS if block.language == "python"]
#: What begins a line that belongs into a block that runs.
COMMANDS = ("lasersell-sync ", "pip ", "python", "export ", "curl ", "import ", "from ", "./", ".venv/", "bash ", "cd ")


def _place(block: Block) -> str:
    return block.place


@pytest.mark.parametrize("block", BLOCKS, ids=_place)
def test_block_of_a_page_is_code_that_runs_or_data(block: Block) -> None:
    """A block names its language. Data has no commands in it, and needs no reason for not running."""
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


@pytest.mark.parametrize("block", PYTHON, ids=_place)
def test_python_block_of_a_page_names_only_what_exists(block: Block) -> None:
    """It is Python, and each name of the package in it is there: also where the block does not run."""
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "ls":
            assert hasattr(ls, node.attr), f"ls.{node.attr}"
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lasersell_sync"):
            module = importlib.import_module(node.module or "")
            assert not [alias.name for alias in node.names if not hasattr(module, alias.name)]
