"""What the live service leaves open (PROTOCOL.md §12), answered one way or the other."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Policies:
    """Switches of the service's behaviour; a client must live with every combination."""

    #: a second session on one key replaces the first, or else is refused with ``session_limit``
    replace_sessions: bool = False
    #: ``hello_ok`` comes at once, as documented, or else after ``configure``, as from the live server
    hello_first: bool = False
    #: a session that comes back is told again of holdings and positions its key knows
    reannounce: bool = True
    #: a position keeps its id when a session comes back
    stable_ids: bool = True
    #: an exit that was signalled before a reconnect, and is not sold yet, is signalled again
    resend_exits: bool = False
    #: an exit whose transaction fails on the chain is signalled again with a fresh one
    rebuild_exits: bool = False
    #: a ``ping`` keeps a session of tier 0 from its end after 45 minutes
    ping_is_activity: bool = True
    #: a wrong or missing key gets an ``error`` message on the stream, or else HTTP 401 at the upgrade
    refuse_keys_in_stream: bool = False
    #: the node parses the calls inside a simulation where it knows their program, as Agave does, or else gives them
    #: compiled: indexes and base58
    parsed_inner_instructions: bool = False
