"""Files with secrets: read only if nobody else can."""

from __future__ import annotations

import os
import stat

from lasersell_sync.exceptions import ConfigurationError

__all__ = ["read_private_file"]

_OTHERS = 0o077


def read_private_file(path: str | os.PathLike[str], field: str, max_bytes: int) -> bytes:
    """The file's content. Where there are no file modes (Windows), nothing about them is checked.

    Args:
        path: where.
        field: what errors call it.
        max_bytes: more than this is not what was meant.

    Raises:
        ConfigurationError: not a file, not readable, too long, or readable or writable by others than its owner.
    """
    shown = os.fspath(path)
    try:
        # The descriptor is asked and read, so that nobody can put another file in its place in between. Not blocking:
        # a pipe would wait for a writer.
        descriptor = os.open(shown, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        raise ConfigurationError(field, f"{shown} cannot be read: {error.strerror}") from error
    content = b""
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ConfigurationError(field, f"{shown} is not a file")
        if os.name == "posix":
            _require_private(shown, field, status)
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            content = file.read(max_bytes + 1)
        if len(content) > max_bytes:
            raise ConfigurationError(field, f"{shown} is longer than {max_bytes} bytes: not a key")
        return content
    finally:
        # Ctrl-C may come at any line, and shows no secret in the traceback's frames.
        del content
        os.close(descriptor)


def _require_private(shown: str, field: str, status: os.stat_result) -> None:
    if status.st_mode & _OTHERS:
        mode = stat.S_IMODE(status.st_mode)
        raise ConfigurationError(
            field, f"{shown} is open to others than its owner (mode {mode:04o}): chmod 600 {shown}"
        )
    if status.st_uid not in (os.geteuid(), 0):
        raise ConfigurationError(field, f"{shown} belongs to another user (uid {status.st_uid}): chown it to yourself")
