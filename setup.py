"""Builds the one compiled module, ``lasersell_sync._core``; everything else is in pyproject.toml.

``LASERSELL_BUILD_EXTENSION`` decides what a failed build means:

* ``yes``: an error (CI and wheels);
* ``no``: do not try; the package runs on its pure-Python fallback;
* unset: try; on failure install without it, and the first connection says so.
"""

import os
import re
import sys
from pathlib import Path

from setuptools import Extension, setup

CHOICES = ("", "yes", "no")
# The C files below the glue know nothing of Python; csrc/README.md says what each is for.
SOURCES = ["csrc/_core.pyx", "csrc/json_scan.c", "csrc/tx_wire.c", "csrc/utf8.c", "csrc/ws_frame.c"]
DEPENDS = [
    "csrc/json_scan.h",
    "csrc/tx_wire.h",
    "csrc/utf8.h",
    "csrc/ws_frame.h",
    "csrc/id_table.h",
    "csrc/py_glue.h",
    "csrc/decoder.pxi",
    "csrc/caller.pxi",
    "csrc/frames.pxi",
    "csrc/handles.pxi",
    "csrc/clocks.h",
    "csrc/process_mark.h",
    "csrc/handover.pxi",
    "csrc/intake.pxi",
    "csrc/lanes.pxi",
    "csrc/maker.pxi",
    "csrc/newest.pxi",
    "csrc/pump.pxi",
    "csrc/records.pxi",
    "csrc/recent.pxi",
    "csrc/transactions.pxi",
]


def extensions() -> list[Extension]:
    """The extension, required, optional, or none, as LASERSELL_BUILD_EXTENSION says."""
    choice = os.environ.get("LASERSELL_BUILD_EXTENSION", "")
    if choice not in CHOICES:
        sys.exit(f"LASERSELL_BUILD_EXTENSION={choice!r}: use 'yes', 'no', or leave it unset")
    if choice == "no":
        return []
    return [
        Extension(
            "lasersell_sync._core",
            sources=SOURCES,
            depends=DEPENDS,
            include_dirs=["csrc"],
            extra_compile_args=["-O3", "-fno-strict-aliasing"] if sys.platform != "win32" else [],
            optional=choice != "yes",
        )
    ]


def readme() -> str:
    """README.md with absolute links: on PyPI, relative ones lead nowhere."""
    here = Path(__file__).parent
    source = re.search(r'^Source = "(.*)"$', (here / "pyproject.toml").read_text("utf-8"), re.MULTILINE)
    assert source is not None, "pyproject.toml has no [project.urls] Source"
    return re.sub(r"\]\((?!https?://|#)", f"]({source[1]}/blob/main/", (here / "README.md").read_text("utf-8"))


setup(ext_modules=extensions(), long_description=readme(), long_description_content_type="text/markdown")
