"""Writes the texts that the fuzz driver starts from: ``python tests/fuzz/make_seeds.py OUT``.

Messages and frames of our own, and the protocol's corpus (tests/corpus). OUT is a directory, which gets one file for
each text (libFuzzer), or a file, which gets them all, each behind its size.
"""

from __future__ import annotations

import base64
import hashlib
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
LONGEST = 4000


def message_texts() -> list[bytes]:
    """One message of each kind that the benchmarks know, and a few more of the frequent ones."""
    sys.path.insert(0, str(ROOT))
    from benchmarks import data

    return data.mixed(60)


def texts() -> list[bytes]:
    sys.path.insert(0, str(ROOT))
    from benchmarks import data
    from tests.parity import corpus
    from tests.parity.streams import STREAMS, frame

    out = data.mixed(60)
    out += [frame(1, text[:100]) + frame(9, b"hi") + frame(8, b"\x03\xe8") for text in out[:20]]
    out += [frame(1, b"abc", fin=False) + frame(0, b"x" * 256), frame(10, b"x" * 125), frame(9, b"x" * 200)]
    out += STREAMS.values()
    out += [b"1.7976931348623158e308", b'"\\ud83d\\ude00\xf0\x9f\x9a\x80"']
    out += [base64.b64encode(text)[:size] for text in out[:3] for size in (4, 60, 400)]
    out += [bytes([2, 3, 1, 7, 2, 8, 9, 4, 0, 0]), b"\x05\x81\x01" + bytes(129) + b"\x82\x01" + bytes(130)]
    out += [case["data"] for case in corpus.cases() if "recipe" not in case]
    return [text for text in out if 0 < len(text) <= LONGEST]


def main() -> None:
    out = Path(sys.argv[1])
    found = texts()
    if out.is_dir():
        for text in found:
            (out / hashlib.sha256(text).hexdigest()[:16]).write_bytes(text)
    else:
        out.write_bytes(b"".join(len(text).to_bytes(4, "little") + text for text in found))
    print(f"{len(found)} texts")


if __name__ == "__main__":
    main()
