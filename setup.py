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
CORE = Path("csrc")
# Every C file but the one that Cython writes; csrc/README.md says what each is for.
SOURCES = ["csrc/_core.pyx", *sorted(map(str, CORE.glob("[!_]*.c")))]
DEPENDS = sorted(map(str, [*CORE.glob("*.h"), *CORE.glob("*.pxi")]))


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
