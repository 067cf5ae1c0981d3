"""The stream's transport alone: one link, opened as the reader thread opens it, and what a failure says."""

from __future__ import annotations

import threading
import traceback
from typing import Any

import pytest

from lasersell_sync.exceptions import TransportError
from lasersell_sync.network.proxy import to_proxy
from lasersell_sync.runtime.timeouts import TimeBudget
from lasersell_sync.stream.transport import Link, Waiter, WakeUp, open_link

API_KEY = "canary-key-0123456789"


class Dialer:
    """Opens links; ``stop()`` is what ``close()`` does."""

    def __init__(self) -> None:
        self._wake_up = WakeUp()
        self._stopped = threading.Event()

    def open(self, url: str, *, timeout_s: float = 5.0, proxy: str | None = None, **options: Any) -> Link:
        options = {"ssl_context": None, **options}
        waiter = Waiter(self._wake_up, self._stopped.is_set)
        return open_link(url, API_KEY, budget=TimeBudget(timeout_s), waiter=waiter, proxy=to_proxy(proxy), **options)

    def stop(self) -> None:
        self._stopped.set()
        self._wake_up.set()

    def __enter__(self) -> Dialer:
        return self

    def __exit__(self, *_: object) -> None:
        self._wake_up.close()


def open_and_close(url: str, **options: Any) -> None:
    with Dialer() as dialer:
        dialer.open(url, **options).close()


def failure_of(url: str, **options: Any) -> TransportError:
    with Dialer() as dialer, pytest.raises(TransportError) as caught:
        dialer.open(url, **options).close()
    return caught.value


def whole_text(error: BaseException) -> str:
    """All that a log of this error could show, its whole ancestry included, suppressed or not."""
    texts = []
    link: BaseException | None = error
    while link is not None:
        texts += [str(link), repr(link), repr(getattr(link, "__dict__", {})), *traceback.format_exception(link)]
        link = link.__cause__ or link.__context__
    return "\n".join(texts)
