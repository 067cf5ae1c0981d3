"""Waiting that can be interrupted: for one descriptor, and for the look-up of a name."""

from __future__ import annotations

import contextlib
import os
import select
import selectors
import socket
import threading
from collections.abc import Callable
from types import BuiltinFunctionType
from typing import Any, TypeAlias

from lasersell_sync.exceptions import TransportError
from lasersell_sync.runtime.fork_guard import after_fork
from lasersell_sync.runtime.locks import is_held_here, signal_safe_lock
from lasersell_sync.runtime.timeouts import TimeBudget

__all__ = ["Aborted", "Address", "Waiter", "WakeUp", "look_up", "new_selector"]


# ── How a thread that waits for a descriptor is woken ───────────────────────────────────────────────────────────────


def new_selector() -> selectors.BaseSelector:
    """A selector that needs no descriptor of its own: a process that has none to spare can still wait.

    Under gevent or eventlet the one that they put in the place of the system's.
    """
    if isinstance(getattr(select, "poll", None), BuiltinFunctionType):
        return selectors.PollSelector()
    return selectors.DefaultSelector()


class Aborted(Exception):
    """``close()`` was called while a wait was under way; never reaches a user."""


class WakeUp:
    """A descriptor that becomes readable when ``set`` is called: how another thread ends a ``select``.

    Threads: ``set`` from any, also after ``close``; the rest belongs to the thread that waits.
    """

    def __init__(self) -> None:
        self._read_fd, self._write_fd = os.pipe()
        os.set_blocking(self._read_fd, False)
        os.set_blocking(self._write_fd, False)
        # Guards the descriptors: a late ``set`` must not write into a number that someone else owns by now.
        self._lock = signal_safe_lock()
        self._closed = False

    def fileno(self) -> int:
        """For selectors."""
        return self._read_fd

    def set(self) -> None:
        """Wake the waiter; cheap, and harmless when it is awake."""
        with self._lock:
            if not self._closed:
                # A full pipe wakes as well as a fuller one.
                with contextlib.suppress(BlockingIOError):
                    os.write(self._write_fd, b"\0")

    @property
    def is_held_here(self) -> bool:
        """True in a signal handler that interrupted ``set`` or ``close`` on this thread."""
        return is_held_here(self._lock)

    def drain(self) -> None:
        """Forget the wake-ups so far."""
        with contextlib.suppress(BlockingIOError):
            while len(os.read(self._read_fd, 4096)) == 4096:
                pass

    def close(self) -> None:
        """Give the descriptors back."""
        with self._lock:
            self.let_go()

    def let_go(self) -> None:
        """As ``close``, without the lock: in a forked child a thread of the parent's may hold it."""
        if not self._closed:
            self._closed = True
            os.close(self._read_fd)
            os.close(self._write_fd)


class Waiter:
    """Waits for one descriptor within a budget, and no longer than until ``stopped()`` says so.

    Threads: one, the reader.
    """

    def __init__(self, wake_up: WakeUp, stopped: Callable[[], bool]) -> None:
        self._wake_up = wake_up
        self._stopped = stopped

    def wait(self, target: Any, events: int, budget: TimeBudget) -> None:
        """Return when ``target`` is ready.

        Raises:
            Aborted: ``close()`` was called.
            TimeoutError: the budget is used up.
        """
        with new_selector() as selector:
            selector.register(self._wake_up, selectors.EVENT_READ)
            selector.register(target, events)
            while True:
                if self._stopped():
                    raise Aborted
                ready = [key.fileobj for key, _ in selector.select(budget.remaining_s())]
                if target in ready:
                    return
                if self._wake_up in ready:
                    self._wake_up.drain()
                elif budget.expired():
                    raise TimeoutError


# ── Names to addresses, on threads that may be left behind: ``getaddrinfo`` cannot be interrupted ───────────────────


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
