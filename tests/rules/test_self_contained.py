"""The repository needs and cites nothing outside itself, and states an address once."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ("lasersell_sync", "tests", "docs", "benchmarks", "examples", "csrc", ".ci", ".github")
BUILT = {".so", ".pyc", ".svg", ".html", ".png", ".jsonl"}
ADDRESSES = ROOT / "lasersell_sync" / "trading" / "guard" / "addresses.json"
#: Documents that only the project's planners had.
ELSEWHERE = re.compile(r"\.\./shared|(?<!docs/)\b(?:ARCHITECTURE|HOTPATH|HOUSE|STYLE|PROTOCOL)\.md")


def texts() -> Iterator[tuple[Path, str]]:
    """Each text file of the checkout that people wrote."""
    top = [
        path
        for path in ROOT.iterdir()
        if path.is_file() and path.suffix in {".md", ".toml", ".py", ".in", ".yml", ".yaml"}
    ]
    for path in [*top, *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*"))]:
        generated = (
            path.suffix in BUILT or path.name in {"_core.c", Path(__file__).name} or "node_modules" in path.parts
        )
        if path.is_file() and not generated:
            yield path, path.read_text("utf-8")


def test_texts_cite_no_file_outside_the_repository() -> None:
    """A reader of a clone or of an sdist finds what a comment names."""
    assert not [f"{path.relative_to(ROOT)}: {found}" for path, text in texts() for found in ELSEWHERE.findall(text)]


def test_cited_pages_of_docs_exist() -> None:
    """``docs/name.md`` in code, tests and pages names a page that is there."""
    missing = {
        f"{path.relative_to(ROOT)}: {page}"
        for path, text in texts()
        for page in re.findall(r"\bdocs/[a-z/-]+\.md\b", text)
        if not (ROOT / page).is_file()
    }
    assert not missing


def test_addresses_of_programs_agree_with_the_protocol() -> None:
    """The guard's and the sandbox's one data file says what docs/protocol.md section 10 says."""
    section = (ROOT / "docs" / "protocol.md").read_text("utf-8").split("## 10. ")[1].split("\n## ")[0]
    documented = set(re.findall(r"^\| .* \| `([1-9A-HJ-NP-Za-km-z]{32,44})`", section, flags=re.MULTILINE))
    assert len(documented) == 12
    assert documented <= set(json.loads(ADDRESSES.read_text("utf-8"))["programs"].values())


def test_tip_accounts_stand_in_one_file() -> None:
    """No module repeats what the data file has: two copies drift apart."""
    tips = [tip for accounts in json.loads(ADDRESSES.read_text("utf-8"))["tip_accounts"].values() for tip in accounts]
    package = [(path, text) for path, text in texts() if ROOT / "lasersell_sync" in path.parents and path != ADDRESSES]
    assert not [f"{path.relative_to(ROOT)}: {tip}" for path, text in package for tip in tips if tip in text]
