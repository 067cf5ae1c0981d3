"""What user code raises: which of it is the library's to report, and which is meant for the user's own thread."""

from __future__ import annotations

import threading
import time

__all__ = ["as_exception", "passes_through"]

#: Every thread of the library has such a name.
_OURS = "lasersell-"


def passes_through(error: BaseException, *, began_at: float | None = None) -> bool:
    """Whether an error of user code that the library called goes on to the caller instead of being reported.

    A handler, tap or callback may raise anything: ``SystemExit``, a Rust panic of solders, ``CancelledError``. None of
    that ends the library's work. On the user's own thread (``run``) three things are not the handler's doing and pass:
    Ctrl-C, the end of a greenlet, and a gevent or eventlet time-out that was set before the handler was called.

    Args:
        error: what was raised.
        began_at: when the user code was called, in seconds by the monotonic clock; None when that is not known.
    """
    if isinstance(error, Exception) or threading.current_thread().name.startswith(_OURS):
        return False
    if isinstance(error, KeyboardInterrupt):
        return True
    if any(cls.__name__ == "GreenletExit" for cls in type(error).__mro__):
        return True
    # gevent.Timeout and eventlet.Timeout say how long they run, not since when: one that is longer than the call has
    # been under way was set before it.
    lasts_s = getattr(error, "seconds", None)
    return isinstance(lasts_s, (int, float)) and began_at is not None and time.monotonic() - began_at < lasts_s


def as_exception(error: BaseException) -> Exception:
    """The error itself, or an Exception with its words, for whoever is told Exceptions only."""
    if isinstance(error, Exception):
        return error
    told = RuntimeError(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)
    told.__cause__ = error
    return told
