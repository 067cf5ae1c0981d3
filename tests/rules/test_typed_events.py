"""The types of ``on`` and ``wait_for`` know every event: a new one must not be Any, or an error, to a type checker."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lasersell_sync.session.events import EVENT_TYPES, EVERY
from tests.typing.write_typed_events import PATH, text


def test_typed_events_are_those_that_exist(tmp_path: Path) -> None:
    """Written by ``python -m tests.typing.write_typed_events``."""
    ruff = shutil.which("ruff", path=str(Path(sys.executable).parent))
    if ruff is None:
        pytest.skip("no ruff beside this Python")
    fresh = tmp_path / PATH.name
    fresh.write_text(text())
    root = Path(__file__).resolve().parents[2]
    subprocess.run([ruff, "format", "-q", "--config", str(root / "pyproject.toml"), str(fresh)], check=True)
    assert PATH.read_text() == fresh.read_text(), "run python -m tests.typing.write_typed_events, and ruff format"


def test_typed_events_name_each_event_twice_in_on_and_once_in_wait_for() -> None:
    names = re.findall(r'Literal\["([^"]+)"\]', PATH.read_text())
    assert {name: names.count(name) for name in set(names)} == dict.fromkeys((*EVENT_TYPES, EVERY), 3)
