"""Logger names, and how a secret is written in a log or an error: not at all."""

from __future__ import annotations

import logging

ROOT = "lasersell_sync"


def logger(area: str) -> logging.Logger:
    """The logger ``lasersell_sync.<area>``; the front door hangs a NullHandler on the root of these."""
    return logging.getLogger(f"{ROOT}.{area}")


def scrub(text: str, *secrets: str | None) -> str:
    """``text`` without the given secrets, for words that came from a server or a dependency.

    Foreign texts may quote the request that failed; whoever shows such a text passes it through here first.
    """
    for secret in secrets:
        if secret:
            text = text.replace(secret, "[redacted]")
    return text


def shorten(text: str, limit: int = 220) -> str:
    """At most ``limit`` characters of ``text``, control characters replaced, so that a log line stays one line."""
    clean = "".join(c if c.isprintable() else " " for c in text[: limit + 1])
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"
