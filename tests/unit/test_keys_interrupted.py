"""Keys and Ctrl-C: no frame keeps a secret wherever the interrupt comes, and a keystore is there whole or not at all."""

from __future__ import annotations

import ast
import errno
import json
import os
import signal
import sys
import threading
import unicodedata
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from lasersell_sync.exceptions import ConfigurationError
from lasersell_sync.trading.keys import keystore
from lasersell_sync.trading.keys.signer import KEYPAIR_ENVIRONMENT, Signer
from tests.unit.test_signer import ADDRESS, BASE58, CANARY, NUMBERS, PASSPHRASE, frames, posix, shown

OURS = ("signer.py", "keystore.py", "key_file.py")


@pytest.fixture(autouse=True)
def _cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keystore, "_MEMORY_KIB", 64)
    monkeypatch.setattr(keystore, "_ITERATIONS", 1)


@cache
def lines_that_clear(path: str) -> frozenset[int]:
    """Where an interrupt finds what the line is about to let go of, or has not put under a ``try`` yet."""
    tree = ast.parse(Path(path).read_text())
    cleared = {node.lineno for node in ast.walk(tree) if isinstance(node, (ast.Delete, ast.Try))}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            # The imports and empty defaults that a function begins with.
            for statement in node.body:
                if isinstance(statement, ast.Try):
                    break
                cleared.update(range(statement.lineno, (statement.end_lineno or statement.lineno) + 1))
    return frozenset(cleared)


def interrupt_at(count: int, call: Callable[[], object]) -> BaseException | None:
    """The KeyboardInterrupt that comes at the ``count``-th line of our modules; None: the call ends before it."""
    left = count

    def trace(frame: Any, event: str, _: object) -> Any:
        nonlocal left
        if not frame.f_code.co_filename.endswith(OURS):
            return None
        if event == "line" and frame.f_lineno not in lines_that_clear(frame.f_code.co_filename):
            left -= 1
            if left == 0:
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except KeyboardInterrupt as interrupt:
        return interrupt
    finally:
        sys.settrace(before)
    return None


def interruptions(call: Callable[[], object]) -> Iterator[BaseException]:
    count = 0
    while (interrupt := interrupt_at(count := count + 1, call)) is not None:
        yield interrupt
    assert count > 3  # there was something to interrupt


def loads(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], object]:
    key_file = tmp_path / "id.json"
    key_file.write_text(NUMBERS)
    key_file.chmod(0o600)
    if name == "keystore":
        Signer.from_keypair(CANARY).save_keystore(tmp_path / "store", PASSPHRASE)
        return lambda: Signer.from_keystore(tmp_path / "store", PASSPHRASE)
    if name == "file":
        return lambda: Signer.from_json_file(key_file)
    if name in ("numbers", "base58"):
        return lambda: Signer.from_base58(NUMBERS if name == "numbers" else BASE58)
    monkeypatch.setenv(KEYPAIR_ENVIRONMENT, str(key_file) if name == "env path" else BASE58)
    return Signer.from_env


@pytest.mark.parametrize("name", ["keystore", "file", "numbers", "base58", "env path", "env secret"])
def test_loading_interrupted_at_any_line_keeps_no_secret_in_a_frame(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for interrupt in interruptions(loads(name, tmp_path, monkeypatch)):
        assert not shown(frames(interrupt))


def test_saving_interrupted_at_any_line_keeps_no_secret_and_leaves_all_or_nothing(tmp_path: Path) -> None:
    signer = Signer.from_keypair(CANARY)
    path = tmp_path / "store"

    def save() -> None:
        path.unlink(missing_ok=True)
        signer.save_keystore(path, PASSPHRASE)

    whole = 0
    for interrupt in interruptions(save):
        assert not shown(frames(interrupt))
        left = [file for file in tmp_path.iterdir() if file != path]
        # The interrupt came between the two steps of the clean-up itself, or there is nothing.
        assert all(file.name.endswith(".partial") for file in left)
        for file in left:
            file.unlink()
        if path.exists():
            assert Signer.from_keystore(path, PASSPHRASE).wallet == ADDRESS
            whole += 1
    assert whole


@posix
def test_keystore_interrupted_by_a_signal_in_argon2_keeps_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real one: the key derivation runs for longer than the timer."""
    monkeypatch.setattr(keystore, "_MEMORY_KIB", 65_536)
    monkeypatch.setattr(keystore, "_ITERATIONS", 8)
    assert threading.current_thread() is threading.main_thread()

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        with pytest.raises(KeyboardInterrupt) as caught:
            Signer.from_keypair(CANARY).save_keystore(tmp_path / "store", PASSPHRASE)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert not shown(frames(caught.value))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("step", ["write", "fsync", "link"])
def test_keystore_that_the_disk_refuses_is_not_there_at_all(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if step == "write":
        monkeypatch.setattr(keystore, "_write_synced", full)
    else:
        monkeypatch.setattr(os, step, full)
    if step == "link":
        monkeypatch.setattr(Path, "replace", full)
    path = tmp_path / "store"
    with pytest.raises(ConfigurationError, match="No space left") as caught:
        Signer.from_keypair(CANARY).save_keystore(path, PASSPHRASE)
    assert caught.value.field == "path"
    assert not path.exists() or step == "link"
    assert not [file for file in tmp_path.iterdir() if file.name.endswith(".partial")]


def test_keystore_on_a_file_system_without_hard_links_is_whole_and_never_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    path = tmp_path / "store"
    signer = Signer.from_keypair(CANARY)
    signer.save_keystore(path, PASSPHRASE)
    assert Signer.from_keystore(path, PASSPHRASE).wallet == ADDRESS
    before = path.read_bytes()
    with pytest.raises(ConfigurationError, match="never overwritten"):
        signer.save_keystore(path, PASSPHRASE)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


# ── passphrases and costs ──

WORDS = "Pässwört für Müllér"


@pytest.mark.parametrize("saved", ["NFC", "NFD"])
@pytest.mark.parametrize("opened", ["NFC", "NFD"])
def test_keystore_opens_however_the_accents_are_composed(saved: str, opened: str, tmp_path: Path) -> None:
    """macOS and Linux keyboards give different code points for one passphrase."""
    path = tmp_path / "store"
    assert unicodedata.normalize("NFC", WORDS) != unicodedata.normalize("NFD", WORDS)
    Signer.from_keypair(CANARY).save_keystore(path, unicodedata.normalize(saved, WORDS))  # type: ignore[arg-type]
    assert Signer.from_keystore(path, unicodedata.normalize(opened, WORDS)).wallet == ADDRESS  # type: ignore[arg-type]


def test_keystore_passphrase_length_counts_composed_characters(tmp_path: Path) -> None:
    """Nine letters with nine accents are nine characters, in either form."""
    for form in ("NFC", "NFD"):
        with pytest.raises(ConfigurationError, match="9 characters"):
            Signer.from_keypair(CANARY).save_keystore(
                tmp_path / "store",
                unicodedata.normalize(form, "ä" * 9),  # type: ignore[arg-type]
            )


@pytest.mark.parametrize(("memory_kib", "iterations"), [(1_048_576, 5), (65_537, 64), (1_048_576, 64)])
def test_keystore_whose_cost_is_too_high_in_all_is_refused_before_it_is_paid(
    memory_kib: int, iterations: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each number is within its own bound; the product would take minutes."""
    path = tmp_path / "store"
    Signer.from_keypair(CANARY).save_keystore(path, PASSPHRASE)
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "memory_kib": memory_kib, "iterations": iterations}))

    def pay(*_: object) -> bytes:
        raise AssertionError("the cost was paid")

    monkeypatch.setattr(keystore, "_key", pay)
    with pytest.raises(ConfigurationError, match="take too long"):
        Signer.from_keystore(path, PASSPHRASE)


# ── LASERSELL_KEYPAIR: the path, or the secret ──


def test_environment_variable_with_the_path_of_a_key_file_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "id.json"
    path.write_text(NUMBERS)
    path.chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for value in (str(path), f" {path}\n", "~/id.json", "id.json", "./id.json"):
        monkeypatch.setenv(KEYPAIR_ENVIRONMENT, value)
        assert Signer.from_env().wallet == ADDRESS


@posix
def test_environment_variable_with_a_path_that_others_can_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "id.json"
    path.write_text(NUMBERS)
    path.chmod(0o644)
    monkeypatch.setenv(KEYPAIR_ENVIRONMENT, str(path))
    with pytest.raises(ConfigurationError, match=f"chmod 600 {path}") as caught:
        Signer.from_env()
    assert caught.value.field == KEYPAIR_ENVIRONMENT


@pytest.mark.parametrize(
    "value", [BASE58[:-1], BASE58 + "x", NUMBERS[:-1], f"/no/such/{BASE58}", BASE58 * 60, "a\0b"[:1]]
)
def test_environment_variable_that_is_neither_is_refused_and_not_repeated(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A secret with a slip in it must not come back as the name of a file that cannot be read."""
    monkeypatch.setenv(KEYPAIR_ENVIRONMENT, value)
    with pytest.raises(ConfigurationError, match="path of a file") as caught:
        Signer.from_env()
    assert caught.value.field == KEYPAIR_ENVIRONMENT
    assert not shown(frames(caught.value))


def test_environment_variable_with_the_path_of_a_keystore_names_what_opens_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "store"
    Signer.from_keypair(CANARY).save_keystore(path, PASSPHRASE)
    monkeypatch.setenv(KEYPAIR_ENVIRONMENT, str(path))
    with pytest.raises(ConfigurationError, match="from_keystore"):
        Signer.from_env()
