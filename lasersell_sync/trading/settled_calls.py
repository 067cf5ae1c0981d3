"""The thread on which users are told what became of their transactions."""

from __future__ import annotations

import queue
import threading

from lasersell_sync import _log
from lasersell_sync.trading.pending_txs import Calls

__all__ = ["SettledCalls"]

log = _log.logger("trading")


class SettledCalls:
    """Calls callbacks one after the other, on ``lasersell-confirm-calls``; the thread starts with the first call.

    It is a thread of its own because users may take their time, and neither copies nor questions may wait for that.

    Threads: any.
    """

    def __init__(self) -> None:
        #: None ends the thread.
        self._queue: queue.SimpleQueue[Calls | None] = queue.SimpleQueue()
        #: Guards the thread's start, and that nothing is queued behind its end.
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False

    @property
    def thread(self) -> threading.Thread | None:
        """To be joined; None before the first call."""
        return self._thread

    def run(self, calls: Calls) -> None:
        """Have them called, in order."""
        if not calls:
            return
        with self._lock:
            if self._closed:
                return
            self._queue.put(calls)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="lasersell-confirm-calls", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """What is queued is still called; what comes later is not. Idempotent."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._queue.put(None)

    def _run(self) -> None:
        while (calls := self._queue.get()) is not None:
            for callback, result in calls:
                try:
                    callback(result)
                except BaseException:
                    # On a thread of ours nothing that user code raises is meant for anybody else.
                    log.exception("on_settled of %s failed", result.signature)
