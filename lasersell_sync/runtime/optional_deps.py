"""Optional packages: what is missing, and the line that installs it."""

from __future__ import annotations

import importlib.util

__all__ = ["install_hint", "require_extra"]


def install_hint(extra: str) -> str:
    """The command that installs an extra, for a checkout and for a published release."""
    return f"in a checkout, pip install '.[{extra}]'; from PyPI, pip install 'lasersell-sync[{extra}]'"


def require_extra(package: str, *, extra: str, purpose: str) -> None:
    """Say early that an optional package is missing, before anything is opened.

    Args:
        package: the name to import.
        extra: ours that installs it.
        purpose: what it is needed for, to begin the sentence.

    Raises:
        ImportError: with the command to run.
    """
    if importlib.util.find_spec(package) is None:
        raise ImportError(f"{purpose} needs {package}: {install_hint(extra)}", name=package)
