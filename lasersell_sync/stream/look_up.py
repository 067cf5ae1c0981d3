"""Names to addresses, on threads that may be left behind: ``getaddrinfo`` cannot be interrupted."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from typing import Any, TypeAlias

from lasersell_sync.exceptions import TransportError
from lasersell_sync.locks import signal_safe_lock
from lasersell_sync.processes import after_fork
from lasersell_sync.stream.waiter import Waiter, WakeUp
from lasersell_sync.timeouts import TimeBudget

__all__ = ["Address", "look_up"]

Address: TypeAlias = tuple[Any, ...]


class _LookUp:
    """One question to the resolver, and who waits for its answer."""

    def __init__(self, host: str) -> None:
        self._host = host
        self.watchers: list[WakeUp] = []
        self.answer: list[Address] | OSError | None = None

    def start(self) -> None:
        threading.Thread(target=self._run, name="lasersell-dns", daemon=True).start()

    def _run(self) -> None:
        answer: list[Address] | OSError
        try:
            answer = socket.getaddrinfo(self._host, None, type=socket.SOCK_STREAM)
        except OSError as error:
            answer = error
        except (UnicodeError, MemoryError) as error:  # of the IDNA codec, about a name that no resolver takes
            answer = OSError(f"{type(error).__name__}: {error}")
        with _lock:
            self.answer = answer
            if _pending.get(self._host) is self:
                del _pending[self._host]
            for watcher in self.watchers:
                watcher.set()


# Guards the table, and each look-up's watchers and answer.
_lock = signal_safe_lock()
#: By host: a resolver that hangs is asked once, however many attempts to connect come and go meanwhile.
_pending: dict[str, _LookUp] = {}


def _in_child() -> None:
    global _lock, _pending
    _lock, _pending = signal_safe_lock(), {}


after_fork(_in_child)


def look_up(host: str, port: int, endpoint: str, budget: TimeBudget, waiter: Waiter) -> list[Address]:
    """Addresses of ``host``, in the system's order.

    Raises:
        TransportError: the name does not exist, was not resolved in time, or no thread could be started for it.
        Aborted: ``close()`` was called.
    """
    with contextlib.suppress(socket.gaierror, UnicodeError):
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    done = WakeUp()
    pending: _LookUp | None = None
    try:
        pending = _join(host, done)
        waiter.wait(done, selectors.EVENT_READ, budget)
    except TimeoutError:
        raise TransportError("dns", endpoint, "the name was not resolved in time; is the network up?") from None
    except (RuntimeError, MemoryError) as error:
        raise TransportError("dns", endpoint, f"the look-up could not be started: {error or 'out of memory'}") from None
    finally:
        if pending is not None:
            with _lock:
                pending.watchers.remove(done)
        done.close()
    answer = pending.answer
    if isinstance(answer, OSError):
        raise TransportError("dns", endpoint, f"{answer.strerror or answer}; check the host name") from answer
    return [
        (family, kind, protocol, name, (address[0], port, *address[2:]))
        for family, kind, protocol, name, address in answer or []
    ]


def _join(host: str, done: WakeUp) -> _LookUp:
    """The look-up of this host that is under way, or a new one; ``done`` is set with its answer."""
    with _lock:
        pending = _pending.get(host)
        if pending is None:
            pending = _LookUp(host)
            # Noted once it has started, and before it can have ended: that needs the lock.
            pending.start()
            _pending[host] = pending
        pending.watchers.append(done)
        return pending
