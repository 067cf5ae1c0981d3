"""The fenced blocks of the README and the pages: which ones run, and why the others do not."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import attrs

ROOT = Path(__file__).resolve().parents[2]
#: Where pages are looked for: a new page there is found without a change here.
PATTERNS = ("*.md", "docs/**/*.md", "examples/*.md", "csrc/*.md")
#: Languages of a block that runs, and of one that is data or output.
RUNS = frozenset({"python", "sh"})
DATA = frozenset({"json", "toml", "text"})

_FENCE = re.compile(r"^( *)```([\w-]*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
#: The visible paragraph right before a block that does not run.
_REASON = re.compile(r"^ *\*Not run in CI(?: as printed)?: ([^*]*)\*\n\n\Z", re.MULTILINE)


@attrs.frozen
class Block:
    """One fenced block.

    Attributes:
        page: its page's path from the root of the repository.
        line: number of its first line.
        language: the word behind the fence; empty when there is none.
        text: what stands between the fences, without the indentation of the fence.
        reason: why it does not run; None when it has to.
    """

    page: str
    line: int
    language: str
    text: str
    reason: str | None

    @property
    def is_run(self) -> bool:
        """True for code without a reason why it does not run."""
        return self.language in RUNS and self.reason is None

    @property
    def place(self) -> str:
        """``docs/selling.md:6``, for messages and test ids."""
        return f"{self.page}:{self.line}"


def pages() -> list[Path]:
    """The README and every other page, sorted."""
    return sorted(path for pattern in PATTERNS for path in ROOT.glob(pattern))


def blocks(page: Path) -> list[Block]:
    """The blocks of a page, in its order."""
    text = page.read_text("utf-8")
    return list(_blocks(page.relative_to(ROOT).as_posix(), text))


def _blocks(name: str, text: str) -> Iterator[Block]:
    for match in _FENCE.finditer(text):
        reason = _REASON.search(text[: match.start()])
        yield Block(
            page=name,
            line=text.count("\n", 0, match.start()) + 2,
            language=match[2],
            text=textwrap.dedent(match[3]),
            reason=reason[1].strip() if reason else None,
        )


def every_block() -> list[Block]:
    """The blocks of all pages."""
    return [block for page in pages() for block in blocks(page)]


def reasons(page: Path) -> int:
    """How many paragraphs of a page say that a block does not run, wherever they stand."""
    return page.read_text("utf-8").count("*Not run in CI")
