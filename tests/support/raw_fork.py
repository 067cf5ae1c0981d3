"""``fork()`` of C, which runs none of Python's hooks."""

from __future__ import annotations


def raw_fork() -> int:
    """Fork while no other thread waits for the interpreter lock with a request to give it up.

    The child inherits such a request, gives the lock up, and waits for ever until a thread that it does not have takes
    it: CPython's own limit, whatever library is in use. A longer switch interval holds requests off for a moment.
    """
    import ctypes
    import sys
    import time

    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(0.5)
    time.sleep(0.001)  # taking the lock again ends a request that was made before
    try:
        return int(ctypes.PyDLL(None).fork())
    finally:
        sys.setswitchinterval(interval_s)
