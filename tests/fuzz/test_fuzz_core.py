"""The fuzz driver builds and finds nothing in a short round; README.md has the long ones."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = ["tests/fuzz/fuzz_core.c", *sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("csrc/[!_]*.c"))]
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


def build(out: Path) -> None:
    """With sanitizers, or without where the compiler has none; skips where there is no compiler."""
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None or sys.platform == "win32":
        pytest.skip("no C compiler")
    for options in (SANITIZERS, []):
        command = [*compiler.split(), "-g", "-O1", *options, "-DFUZZ_STANDALONE", "-Icsrc", *SOURCES, "-o", str(out)]
        made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
        if made.returncode == 0:
            return
    pytest.fail(made.stderr)


def test_a_short_round(tmp_path: Path, rand: random.Random) -> None:
    """Every text, and a few broken copies of each, keep every promise."""
    build(tmp_path / "fuzz_core")
    seeds = tmp_path / "seeds.bin"
    subprocess.run([sys.executable, "tests/fuzz/make_seeds.py", str(seeds)], cwd=ROOT, timeout=60, check=True)
    seed = str(rand.randrange(10**9))
    # A preloaded allocator (this suite itself under a sanitizer) is not for this program.
    environ = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    done = subprocess.run(
        [str(tmp_path / "fuzz_core"), str(seeds), "5", seed],
        env=environ,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, f"seed {seed}: {done.stderr}"
    assert "no complaint" in done.stdout
