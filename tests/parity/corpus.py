"""The protocol's corpus: messages with the reference implementation's verdict (tests/corpus/README.md)."""

from __future__ import annotations

import base64
import functools
import json
from pathlib import Path
from typing import Any

CORPUS = Path(__file__).parents[1] / "corpus" / "corpus.jsonl"


@functools.cache
def cases() -> tuple[dict[str, Any], ...]:
    """Every case, with its bytes as ``data``."""
    lines = CORPUS.read_text("utf-8").strip("\n").split("\n")  # not splitlines(): strings hold U+2028
    return tuple({**case, "data": _data(case)} for case in map(json.loads, lines))


def _data(case: dict[str, Any]) -> bytes:
    if "wire" in case:
        return str(case["wire"]).encode()
    if "wire_b64" in case:
        return base64.b64decode(case["wire_b64"])
    return "".join(text * count for text, count in case["recipe"]["parts"]).encode()
