"""The command before its sub-commands: version, help, and what it says when its packages are missing."""

from __future__ import annotations

import subprocess

import pytest

import lasersell_sync
from tests.support.processes import Program, command


def test_version_tells_the_backend():
    with command("--version") as program:
        code, stdout, _ = program.end()
    assert code == 0
    assert stdout == f"lasersell-sync {lasersell_sync.__version__} (backend: {lasersell_sync.backend()})\n"


def test_help_names_the_commands():
    with command("--help") as program:
        code, stdout, _ = program.end()
    assert code == 0
    assert "demo" in stdout
    assert "sandbox" in stdout


@pytest.mark.parametrize("package", ["base58", "click", "h11", "rich", "websockets", "werkzeug"])
def test_a_missing_package_is_answered_with_the_line_that_installs_it(package: str):
    """A bare ``pip install lasersell-sync`` has the script, but not what it needs."""
    code = f"import sys; sys.modules[{package!r}] = None; from lasersell_sync.cli import main; main()"
    with Program("-c", code, stderr=subprocess.PIPE) as program:
        code, stdout, stderr = program.end()
    assert code == 1
    assert stdout == ""
    assert "pip install 'lasersell-sync[cli]'" in stderr
    assert "Traceback" not in stderr


def test_another_import_error_is_not_hidden_behind_that_line():
    """A broken dependency of another kind must show itself."""
    code = "import sys; sys.modules['solders'] = None; from lasersell_sync.cli import main; main()"
    with Program("-c", code, stderr=subprocess.PIPE) as program:
        code, _, stderr = program.end()
    assert code == 1
    assert "solders" in stderr
    assert "pip install" not in stderr
