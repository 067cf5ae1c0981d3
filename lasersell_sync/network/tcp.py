"""Socket options that every connection of ours gets."""

from __future__ import annotations

import socket
from typing import Final

__all__ = ["SOCKET_OPTIONS", "tune"]

#: Seconds after which the kernel gives a silent peer up.
DEAD_AFTER_S: Final = 15


def _options() -> list[tuple[int, int, int | bytes]]:  # the type that urllib3 wants
    options: list[tuple[int, int, int | bytes]] = [
        # Commands are small and must not wait for a full segment.
        (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    ]
    # An idle connection is asked after 5 s, and twice more: 15 s in all. Data that waits for an acknowledgement
    # silences these questions, and the kernel would repeat it for a quarter of an hour: TCP_USER_TIMEOUT bounds that at
    # the same 15 s. It is above our own keepalive (10 s), which also sees a server that is dead while its kernel is
    # not; this one needs no thread of ours, and it works for the connections of REST and RPC that lie idle.
    for name, value in (
        ("TCP_KEEPIDLE", DEAD_AFTER_S // 3),
        ("TCP_KEEPALIVE", DEAD_AFTER_S // 3),  # Platform-specific: macOS calls the first one so
        ("TCP_KEEPINTVL", DEAD_AFTER_S // 3),
        ("TCP_KEEPCNT", 2),
        ("TCP_USER_TIMEOUT", DEAD_AFTER_S * 1000),  # Platform-specific: Linux
    ):
        if hasattr(socket, name):
            options.append((socket.IPPROTO_TCP, getattr(socket, name), value))
    return options


SOCKET_OPTIONS: Final = _options()


def tune(sock: socket.socket) -> None:
    """Set them."""
    for option in SOCKET_OPTIONS:
        sock.setsockopt(*option)
