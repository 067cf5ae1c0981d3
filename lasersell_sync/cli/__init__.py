"""The command line: ``lasersell-sync``, or ``python -m lasersell_sync``.

One file per command. This one imports without click and rich, so that a bare installation can say what it lacks.
"""

from __future__ import annotations

import sys

from lasersell_sync.runtime.optional_deps import install_hint

__all__ = ["main"]

_EXTRA_PACKAGES = ("base58", "click", "h11", "rich", "websockets", "werkzeug")
_MISSING = f"the command line needs extra packages: {install_hint('cli')}"


def main() -> None:
    """Run the command that the process's arguments name; never returns.

    Raises:
        SystemExit: always; 0 when the command did what it says, 2 for arguments that make no sense, else 1.
    """
    try:
        from lasersell_sync.cli.group import lasersell_sync_command
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA_PACKAGES:
            raise
        sys.exit(f"lasersell-sync: {_MISSING} ({error.name} is missing)")
    # A terminal or log that cannot show an arrow or a tick gets a question mark, not a traceback.
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")
    lasersell_sync_command(prog_name="lasersell-sync")
