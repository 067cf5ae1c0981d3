"""The thread that lets time pass: it runs the exchange whenever something is due and sleeps otherwise."""

from __future__ import annotations

import logging
import threading

from lasersell_sync.sandbox.exchange.exchange import Exchange

_log = logging.getLogger("lasersell_sync.sandbox.scheduler")


class Scheduler:
    """Owns the thread ``lasersell-sandbox-scheduler``. With nothing planned it waits without waking up."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lasersell-sandbox-scheduler", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End and join the thread; fine if it never started."""
        self._stopping.set()
        self._exchange.wake()
        if self._thread.ident is not None:
            self._thread.join(1.0)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._exchange.run_and_wait(self._stopping.is_set)
            except Exception:  # noqa: BLE001
                # A bug of ours must not freeze the market silently; the state was left as far as it got.
                _log.exception("the exchange failed while running what was due")
                self._stopping.wait(0.1)
