"""The protocol's corpus: messages with the reference implementation's verdict (../shared/protocol/README.md)."""

from __future__ import annotations

import base64
import functools
import json
import os
from pathlib import Path
from typing import Any

import pytest

_BESIDE_THE_CHECKOUT = Path(__file__).parents[3] / "shared" / "protocol" / "corpus.jsonl"


@functools.cache
def cases() -> tuple[dict[str, Any], ...]:
    """Every case, with its bytes as ``data``. Skips where there is no corpus, but not in CI."""
    for path in (_BESIDE_THE_CHECKOUT, Path(os.environ.get("LASERSELL_CORPUS", "/nonexistent"))):
        if path.is_file():
            lines = path.read_text("utf-8").strip("\n").split("\n")  # not splitlines(): strings hold U+2028
            return tuple({**case, "data": _data(case)} for case in map(json.loads, lines))
    reason = "no corpus.jsonl beside the checkout, and LASERSELL_CORPUS does not name one"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def _data(case: dict[str, Any]) -> bytes:
    if "wire" in case:
        return str(case["wire"]).encode()
    if "wire_b64" in case:
        return base64.b64decode(case["wire_b64"])
    return "".join(text * count for text, count in case["recipe"]["parts"]).encode()
