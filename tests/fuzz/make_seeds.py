"""Writes the texts that ``fuzz_core`` starts from: ``python tests/fuzz/make_seeds.py OUT [CORPUS]``.

With a second argument, or a corpus beside the checkout, its messages; always some frames and messages of our own.
"""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
LONGEST = 4000


def texts(corpus: Path) -> list[bytes]:
    sys.path.insert(0, str(ROOT))
    from benchmarks import data

    out = data.mixed(60)
    out += [b"\x81" + bytes([len(text[:100])]) + text[:100] + b"\x89\x02hi\x88\x02\x03\xe8" for text in out[:20]]
    out += [b"\x01\x03abc\x80\x7e\x01\x00" + b"x" * 256, b"1.7976931348623158e308", b'"\\ud83d\\ude00\xf0\x9f\x9a\x80"']
    if corpus.is_file():
        for line in corpus.read_text("utf-8").strip("\n").split("\n"):
            case = json.loads(line)
            if "recipe" not in case:
                out.append(case["wire"].encode() if "wire" in case else base64.b64decode(case["wire_b64"]))
    return [text for text in out if 0 < len(text) <= LONGEST]


def main() -> None:
    corpus = Path(sys.argv[2]) if len(sys.argv) > 2 else ROOT.parent / "shared" / "protocol" / "corpus.jsonl"
    found = texts(corpus)
    Path(sys.argv[1]).write_bytes(b"".join(len(text).to_bytes(4, "little") + text for text in found))
    print(f"{len(found)} texts")


if __name__ == "__main__":
    main()
