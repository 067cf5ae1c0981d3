"""Hooks of the documentation build (mkdocs.yml): links out of ``docs/`` lead to the repository's page of that file."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"\]\((\.\./[^)#\s]*)")


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:  # noqa: ARG001 - mkdocs passes all
    """``](../examples/README.md)`` of a page becomes its address in the repository, if the file is there."""
    folder = posixpath.dirname(f"docs/{page.file.src_uri}")

    def address(link: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(folder, link[1]))
        if path.startswith("docs/"):
            return link[0]
        if not (ROOT / path).exists():
            return link[0]  # mkdocs warns about it
        return f"]({config.repo_url}/blob/main/{path}"

    return LINK.sub(address, markdown)
