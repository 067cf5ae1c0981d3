"""Which core runs: the choice, the one warning, and the broken build, each in a process of its own."""

from __future__ import annotations

import importlib.machinery
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import lasersell_sync

PACKAGE = Path(lasersell_sync.__file__).parent
BINARIES = tuple(f"*{suffix}" for suffix in importlib.machinery.EXTENSION_SUFFIXES)
ASK = "import lasersell_sync.codec as codec; print(codec.backend()); import lasersell_sync._backend as b; print(b.Decoder.__module__)"
#: What a connection does first; twice, for the second one is silent.
CONNECT = ASK + "; b.warn_of_fallback(); b.warn_of_fallback()"


# An editable install answers for every submodule that a copy lacks, with the checkout's; the copy must stand alone.
ALONE = "import sys; sys.meta_path[:] = [f for f in sys.meta_path if 'Editable' not in getattr(f, '__name__', '')]; "


def ask(home: Path, *options: str, pure: str | None = None, code: str = ASK) -> subprocess.CompletedProcess[str]:
    """Import the package that lies in ``home`` in a new process."""
    environ = {name: value for name, value in os.environ.items() if name not in ("LASERSELL_PURE", "PYTHONWARNINGS")}
    environ["PYTHONPATH"] = str(home)
    if pure is not None:
        environ["LASERSELL_PURE"] = pure
    return subprocess.run(
        [sys.executable, *options, "-c", ALONE + code],
        env=environ,
        cwd=home,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def unbuilt(tmp_path: Path) -> Path:
    """A directory with the package in it, without its compiled module."""
    ignored = shutil.ignore_patterns(*BINARIES, "__pycache__", "sandbox", "cli")
    shutil.copytree(PACKAGE, tmp_path / "lasersell_sync", ignore=ignored)
    return tmp_path


def is_built() -> bool:
    return any(path for suffix in BINARIES for path in PACKAGE.glob(f"_core{suffix[1:]}"))


def test_compiled_is_the_default() -> None:
    """Where it was built, it runs, and says nothing."""
    if not is_built():
        pytest.skip("lasersell_sync._core is not built")
    answer = ask(PACKAGE.parent, "-W", "error")
    assert (answer.stdout.split(), answer.stderr) == (["compiled", "lasersell_sync._core"], "")


def test_lasersell_pure_1_chooses_the_fallback(unbuilt: Path) -> None:
    """LASERSELL_PURE=1 chooses the fallback silently, built or not."""
    for home in (PACKAGE.parent, unbuilt):
        answer = ask(home, "-W", "error", pure="1")
        assert (answer.stdout.split(), answer.stderr) == (["pure", "lasersell_sync._pure.decoder"], "")


def test_lasersell_pure_of_another_value_is_ignored(unbuilt: Path) -> None:
    """Another value has no effect: the warning comes."""
    assert "RuntimeWarning" in ask(unbuilt, pure="0", code=CONNECT).stderr
    assert "RuntimeWarning" in ask(unbuilt, pure="", code=CONNECT).stderr


def test_not_built_warns_once_and_works(unbuilt: Path) -> None:
    """One warning that says what is slower and what to do; no traceback, because nothing is broken."""
    answer = ask(unbuilt, code=CONNECT)
    assert answer.stdout.split() == ["pure", "lasersell_sync._pure.decoder"]
    assert answer.stderr.count("RuntimeWarning") == 1
    for words in ("pure-Python decoder", "not built", "C compiler", "reinstall", "LASERSELL_PURE=1"):
        assert words in answer.stderr
    assert "Traceback" not in answer.stderr


def test_import_without_the_core_is_silent_where_warnings_are_errors(unbuilt: Path) -> None:
    """pytest imports the plugin in every project of the environment: their test runs go on."""
    plugin = "; import lasersell_sync.integrations.pytest_plugin"
    answer = ask(unbuilt, "-W", "error", code=ASK + plugin)
    assert (answer.returncode, answer.stderr) == (0, "")


def test_first_connection_without_the_core_warns_at_the_users_line(unbuilt: Path) -> None:
    """Before anything is opened: here nobody listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound, never listening: a connection is refused
        url = f"ws://127.0.0.1:{unused.getsockname()[1]}/v1/ws"
        program = f"""
import lasersell_sync as ls
strategy = ls.StrategyConfig(target_profit_pct=1.0, stop_loss_pct=1.0)
client = ls.StreamClient("key").with_endpoint({url!r})
for _ in range(2):
    try:
        client.connect(ls.StreamConfigure(["11111111111111111111111111111111"], strategy))  # the user's line
    except ls.TransportError as error:
        print("refused")
"""
        path = unbuilt / "program.py"
        path.write_text(program)
        answer = ask(unbuilt, code=f"import runpy; runpy.run_path({str(path)!r}, run_name='__main__')")
    assert answer.stdout.split() == ["refused", "refused"], answer.stderr
    assert answer.stderr.count("RuntimeWarning") == 1
    assert f"{path}:7: RuntimeWarning" in answer.stderr


def test_not_built_is_an_error_where_warnings_are(unbuilt: Path) -> None:
    """Who turns warnings into errors finds out at the first connection."""
    answer = ask(unbuilt, "-W", "error", code=CONNECT)
    assert answer.returncode != 0
    assert "RuntimeWarning" in answer.stderr


def test_a_broken_build_is_loud(unbuilt: Path) -> None:
    """A file that does not load is told with its cause, and the fallback still works."""
    binary = unbuilt / "lasersell_sync" / f"_core{importlib.machinery.EXTENSION_SUFFIXES[0]}"
    binary.write_bytes(b"\x7fELF no such thing")
    answer = ask(unbuilt, code=CONNECT)
    assert answer.stdout.split() == ["pure", "lasersell_sync._pure.decoder"]
    assert answer.stderr.count("RuntimeWarning") == 1
    for words in ("FAILS TO LOAD", "ImportError", binary.name, "Traceback"):
        assert words in answer.stderr


def test_a_core_that_lacks_a_name_is_loud(unbuilt: Path) -> None:
    """A module of another version, which imports but is not what the package needs, is a broken build too."""
    (unbuilt / "lasersell_sync" / "_core.py").write_text("Decoder = None\n")
    answer = ask(unbuilt, code=CONNECT)
    assert answer.stdout.split() == ["pure", "lasersell_sync._pure.decoder"]
    assert "FAILS TO LOAD" in answer.stderr


def test_both_cores_have_the_stubs_names() -> None:
    """``_core.pyi`` is the truth about both: the names, and their parameters."""
    import ast
    import inspect

    from tests.parity.cores import PURE, compiled

    stub = ast.parse((PACKAGE / "_core.pyi").read_text())
    names = {node.name for node in stub.body if isinstance(node, (ast.ClassDef, ast.FunctionDef))}
    assert set(PURE.__all__) == names
    fast = compiled()
    for name in names:
        assert [str(parameter.kind) for parameter in inspect.signature(getattr(fast, name)).parameters.values()] == [
            str(parameter.kind) for parameter in inspect.signature(getattr(PURE, name)).parameters.values()
        ]
    for cls in [node for node in stub.body if isinstance(node, ast.ClassDef)]:
        for method in [node for node in cls.body if isinstance(node, ast.FunctionDef) and node.name != "__init__"]:
            for module in (PURE, fast):
                assert getattr(getattr(module, cls.name), method.name).__doc__
