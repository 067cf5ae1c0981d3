"""How many examples Hypothesis tries: few in every run, which are others each time; more by hand."""

from __future__ import annotations

import os


def examples(count: int) -> int:
    """``count``, or as many as the variable ``LASERSELL_EXAMPLES`` says."""
    return int(os.environ.get("LASERSELL_EXAMPLES") or count)
