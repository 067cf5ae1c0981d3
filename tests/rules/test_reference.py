"""Every public name has its entry in the API reference, and every term of the site's navigation its page."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import lasersell_sync
from lasersell_sync import sandbox

DOCS = Path(__file__).parents[2] / "docs"
ENTRIES = Counter(
    entry
    for page in (DOCS / "reference").glob("*.md")
    for entry in re.findall(r"^::: ([\w.]+)$", page.read_text("utf-8"), re.MULTILINE)
)


def test_public_names_have_one_entry_each_in_the_reference() -> None:
    """A new name needs a ``:::`` line in docs/reference, also one that ``__all__`` leaves out; a removed one loses it."""
    public = {f"lasersell_sync.{name}" for name in lasersell_sync._HOME_OF}
    public |= {f"lasersell_sync.sandbox.{name}" for name in sandbox.__all__}
    assert sorted(public - ENTRIES.keys()) == []
    listed = {
        entry
        for entry in ENTRIES
        if entry.removeprefix("lasersell_sync.").split(".")[0] not in {"sandbox", "integrations"}
    }
    assert sorted(listed - public) == []
    assert [entry for entry, count in ENTRIES.items() if count > 1] == []


def test_pages_of_docs_are_in_the_navigation() -> None:
    """mkdocs.yml lists each page once: a page that no menu leads to is not read."""
    navigation = (DOCS.parent / "mkdocs.yml").read_text("utf-8").split("\nnav:\n")[1]
    listed = re.findall(r": ([\w/-]+\.md)$", navigation, re.MULTILINE)
    assert sorted(listed) == sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))


def test_terms_of_the_glossary_are_defined_once_in_order() -> None:
    """One term, one meaning."""
    terms = re.findall(r"^\| \*\*(.+?)\*\* \|", (DOCS / "glossary.md").read_text("utf-8"), re.MULTILINE)
    assert len(terms) > 50
    assert terms == sorted(set(terms), key=str.lower)
