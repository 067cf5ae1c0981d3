"""Listening sockets: one port, on every loopback address the host has."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import socket
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self

_LOOPBACK = ("127.0.0.1", "::1")
#: Connections the system keeps for us until we accept them.
BACKLOG = 1_024
_MAX_CONNECTIONS = 10_000
#: How often to look for a port that is free on both address families.
_FREE_PORT_ATTEMPTS = 50


class Startable:
    """What is a context manager of ``start`` and ``stop``."""

    def start(self) -> Self:
        """Begin."""
        raise NotImplementedError

    def stop(self) -> None:
        """End; again is fine."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


def listen(service: str, port: int, host: str | None) -> list[socket.socket]:
    """Bind and listen; port 0 picks one number that is free on every address.

    Args:
        service: Named in errors.
        port: 0 to 65535.
        host: An IP address; None or ``"localhost"`` means every loopback address of this machine.

    Raises:
        OSError: The port is taken (or may not be used); the text names port and service.
    """
    addresses = _LOOPBACK if host in (None, "localhost") else (str(host),)
    for _ in range(_FREE_PORT_ATTEMPTS):
        try:
            return _bind_all(addresses, port)
        except OSError as error:
            if port == 0 and error.errno == errno.EADDRINUSE:
                continue  # free on one family, taken on the other
            raise OSError(error.errno, f"{service} cannot listen on port {port}: {error.strerror}") from error
    raise OSError(errno.EADDRINUSE, f"{service} found no port that is free on {' and '.join(addresses)}")


def _bind_all(addresses: tuple[str, ...], port: int) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    try:
        for address in addresses:
            try:
                sockets.append(_bind(address, port))
            except OSError as error:
                if len(addresses) > 1 and error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    continue  # this machine has no such loopback address
                raise
            port = sockets[0].getsockname()[1]
        if not sockets:
            raise OSError(errno.EADDRNOTAVAIL, "no loopback address")
    except BaseException:
        close_all(sockets)
        raise
    return sockets


def _bind(address: str, port: int) -> socket.socket:
    version = ipaddress.ip_address(address).version
    # With the protocol's number: without it asyncio does not set TCP_NODELAY, and a second small write waits 40 ms.
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if version == 6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((address, port))
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def close_all(sockets: list[socket.socket]) -> None:
    """Close sockets."""
    for listener in sockets:
        listener.close()


def url_of(scheme: str, sockets: list[socket.socket]) -> str:
    """The URL of what listens there, without a path."""
    address, port = sockets[0].getsockname()[:2]
    return f"{scheme}://[{address}]:{port}" if ":" in address else f"{scheme}://{address}:{port}"


def log_loop_errors(loop: asyncio.AbstractEventLoop, log: logging.Logger) -> None:
    """What the loop complains about (a client gone while we wrote, too many open files), at debug level."""
    loop.set_exception_handler(lambda _loop, error: log.debug("%s: %s", error.get("message"), error.get("exception")))


def is_loopback(sockets: list[socket.socket]) -> bool:
    """Whether only this machine can connect."""
    return all(ipaddress.ip_address(listener.getsockname()[0].partition("%")[0]).is_loopback for listener in sockets)


def connection_limit() -> int:
    """How many connections one service holds at a time: a quarter of what the process may open.

    Three services at their limits leave a quarter for everything else.
    """
    try:
        import resource
    except ImportError:  # Windows
        return _MAX_CONNECTIONS
    soft_limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MAX_CONNECTIONS if soft_limit == resource.RLIM_INFINITY else max(16, min(_MAX_CONNECTIONS, soft_limit // 4))
