"""What an import loads, and what waits for its first use: a program that only reads pays for reading only.

Times are measured elsewhere; what costs time is known by name, and these names are checked.
"""

from __future__ import annotations

import ast
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import lasersell_sync

#: Packages and modules of which each costs milliseconds, and what needs them.
WAITING = {
    "solders": "signing",
    "urllib3": "REST and RPC requests",
    "sqlite3": "the journal",
    "cryptography": "pins and key stores",
    "certifi": "systems without authorities of their own",
    "tenacity": "the first attempt of anything",
    "redis": "the relay",
    "flask": "an integration",
    "django": "an integration",
    "celery": "an integration",
    "base58": "the sandbox",
    "h11": "the sandbox",
    "websockets": "the sandbox",
    "werkzeug": "the sandbox",
    "click": "the command line",
    "rich": "the command line",
    "asyncio": "nobody here",
    "email": "a Retry-After date",
    "pathlib": "an authority file",
    "lasersell_sync.trading": "what trades",
    "lasersell_sync.sandbox": "tests",
    "lasersell_sync.cli": "the command line",
}


def run(program: str, **environ: str) -> str:
    """What a fresh process prints."""
    result = subprocess.run(
        [sys.executable, "-S", "-W", "ignore::RuntimeWarning", "-c", PATHS + textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environ,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


# Without ``site``: what installed packages load at every start (.pth files) is not our import.
PATHS = f"import sys; sys.path[:] = {sys.path!r}\n"


def test_importing_loads_nothing_that_can_wait() -> None:
    """Neither foreign packages nor parts of ours that a reader of the stream never touches."""
    program = f"""
        import attrs, websocket
        theirs = set(sys.modules)
        import lasersell_sync
        print([name for name in {list(WAITING)} if name in sys.modules and name not in theirs])
    """
    assert run(program) == "[]"


@pytest.mark.skipif(lasersell_sync.backend() != "compiled", reason="the fallback runs here")
def test_import_with_the_compiled_core_does_not_load_the_fallback() -> None:
    """Its modules are read for nothing where the compiled core does the work."""
    program = "import lasersell_sync; print(lasersell_sync.backend(), 'lasersell_sync._pure' in sys.modules)"
    assert run(program) == "compiled False"
    assert run(program, LASERSELL_PURE="1") == "pure True"


def test_names_that_trade_come_with_their_first_use() -> None:
    """By attribute, by from-import, and with them neither HTTP nor cryptography."""
    program = """
        import lasersell_sync
        assert "ExitApiClient" in dir(lasersell_sync)
        assert "lasersell_sync.trading" not in sys.modules
        first = lasersell_sync.ExitApiClient
        from lasersell_sync import ExitApiClient, sign_unsigned_tx_b64
        from lasersell_sync.trading import ExitApiClient as same
        assert first is ExitApiClient is same
        assert "ExitApiClient" in vars(lasersell_sync)
        print([name for name in ("solders", "urllib3", "tenacity") if name in sys.modules])
    """
    assert run(program) == "[]"


def test_a_name_that_is_not_there_is_not_found() -> None:
    """As in any module, and without loading anything."""
    program = """
        import lasersell_sync
        try:
            lasersell_sync.ExitApiClientt
        except AttributeError as error:
            print(error, hasattr(lasersell_sync, "nothing"), "lasersell_sync.trading" in sys.modules)
    """
    assert run(program) == "module 'lasersell_sync' has no attribute 'ExitApiClientt' False False"


def test_everything_can_be_imported_at_once() -> None:
    """``import *`` brings every public name, also those that wait."""
    program = """
        from lasersell_sync import *
        import lasersell_sync
        print([name for name in lasersell_sync.__all__ if name not in globals()])
    """
    assert run(program) == "[]"


def test_import_of_the_pytest_plugin_loads_no_other_module_of_the_package() -> None:
    """pytest imports it in every project whose environment has the package."""
    program = """
        import lasersell_sync.integrations.pytest_plugin
        print(sorted(name for name in sys.modules if name.startswith("lasersell_sync")))
    """
    names = ["lasersell_sync", "lasersell_sync._version", "lasersell_sync.integrations"]
    assert run(program) == str([*names, "lasersell_sync.integrations.pytest_plugin"])


def test_import_on_windows_names_wsl_in_one_sentence() -> None:
    """Not an error of some module deep below that lacks a system call."""
    program = """
        sys.platform = "win32"
        try:
            import lasersell_sync
        except ImportError as error:
            print(error)
    """
    assert run(program) == "lasersell_sync does not run on Windows: use it in WSL, the Windows Subsystem for Linux."


def test_stub_of_the_front_door_has_the_names_and_homes_of_the_module() -> None:
    """Type checkers read the stub, programs the table."""
    stub = ast.parse(Path(lasersell_sync.__file__).with_suffix(".pyi").read_text("utf-8"))
    homes = {alias.name: node.module for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    table = {name: f"lasersell_sync.{home}" for name, home in lasersell_sync._HOME_OF.items()}
    assert homes == {"__version__": "lasersell_sync._version", **table}
    listed = next(node for node in stub.body if isinstance(node, ast.Assign))
    assert set(ast.literal_eval(listed.value)) == set(lasersell_sync.__all__)
