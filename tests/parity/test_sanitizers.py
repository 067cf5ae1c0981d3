"""Under ``sanitized.sh`` the core is what it says: a deliberate crime is caught."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.parity import programs
from tests.parity.cores import compiled

_core = compiled()

pytestmark = pytest.mark.skipif(
    os.environ.get("LASERSELL_SANITIZED") != "1",
    reason="the core is not built with sanitizers: tests/parity/sanitized.sh",
)

#: Reads bytes that were given back, from Python where nobody can object.
CRIME = """
import ctypes, sys
from lasersell_sync._core import Decoder, FrameParser
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
block = libc.malloc(ctypes.c_size_t(64))
ctypes.memset(block, ord("x"), 64)
view = memoryview((ctypes.c_char * 64).from_address(block)).cast("B")
FrameParser().feed(view)
print("a living block may be read", flush=True)
libc.free(ctypes.c_void_p(block))
FrameParser().feed(view)
print("and a dead one too", flush=True)
"""


def test_reading_freed_memory_is_caught() -> None:
    """The report names the compiled core's own source line, so the core is instrumented and not only its allocator."""
    done = subprocess.run(
        [sys.executable, "-c", CRIME],
        cwd=programs.ROOT,
        env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0"},
        capture_output=True,
        text=True,
        timeout=programs.LIMIT_S,
        check=False,
    )
    assert done.returncode != 0
    assert done.stdout == "a living block may be read\n"
    assert "AddressSanitizer: heap-use-after-free" in done.stderr
    assert "ws_frame.c:" in done.stderr


def test_both_sanitizers_are_compiled_in() -> None:
    """Glue and plain C are one module, built with one set of options."""
    module = Path(str(_core.__file__)).read_bytes()
    for call in (
        b"__asan_report_load",
        b"__ubsan_handle_out_of_bounds_abort",
        b"__ubsan_handle_pointer_overflow_abort",
    ):
        assert call in module
