"""The glue reads no byte behind a message's text, and both cores make the same of it."""

from __future__ import annotations

import random

from tests.parity import programs
from tests.parity.cores import compiled, scaled

compiled()

FUZZ = """
import sys
from tests.fuzz import fuzz_glue
print(fuzz_glue.run(int(sys.argv[1]), int(sys.argv[2])), "inputs")
"""
EVERY_CUT = """
from tests.fuzz import fuzz_glue
glue = fuzz_glue.Glue()
first = {}
for text in fuzz_glue.message_texts():
    first.setdefault(text.partition(b",")[0], text)
count = 0
for text in fuzz_glue.cut_texts(list(first.values())):
    glue.take(text)
    count += 1
print(count, "inputs")
"""


def test_glue_text_cut_at_every_byte_reads_nothing_behind_it() -> None:
    """An unreadable page, or under a sanitizer the end of a heap block, lies right behind the text."""
    assert int(programs.run(EVERY_CUT).split()[0]) > 1000


def test_glue_changed_texts_read_nothing_behind_them(rand: random.Random) -> None:
    """A short round; README.md has the long ones."""
    seed = str(rand.randrange(10**9))
    assert programs.run(FUZZ, str(scaled(5000)), seed).split()[0] == str(scaled(5000))
