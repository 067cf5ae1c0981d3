"""The session's table and the connection's own record of positions: what one of them forgot, both learn again."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from lasersell_sync.codec import server_message_from_text
from lasersell_sync.messages import ServerMessage
from tests.support.offline_session import OfflineSession
from tests.support.stream_server import ACCOUNT, closed, opened


def message(fields: dict[str, object]) -> ServerMessage:
    return server_message_from_text(json.dumps(fields))


@pytest.fixture
def rig() -> Iterator[OfflineSession]:
    rig = OfflineSession(deadline_s=1000.0, stable_after_s=5.0)
    rig.connect()
    yield rig
    rig.close()


@pytest.mark.parametrize("opened_at_ms", [None, 5])
def test_position_that_one_record_forgot_is_known_to_both_after_the_next_announcement(
    rig: OfflineSession, opened_at_ms: int | None
) -> None:
    """A close by id alone that names another mint: a contradiction for the table, an end for the connection."""
    announcement = message({**opened(7), "opened_at_ms": opened_at_ms})
    rig.receive(announcement)
    rig.receive(message({**closed(7), "token_account": None, "mint": "another"}))
    assert len(rig.state.table.handles()) == 1
    assert rig.writer.position_id_of(ACCOUNT) is None
    rig.receive(announcement)
    assert rig.writer.position_id_of(ACCOUNT) == 7
    assert [handle.position_id for handle in rig.state.table.handles()] == [7]


def test_position_announced_again_shares_the_names_of_its_earlier_handle(rig: OfflineSession) -> None:
    """Names are long texts; a new copy of each with every announcement would be hashed anew each time."""
    rig.receive(message(opened(7)))
    (before,) = rig.state.table.handles()
    rig.receive(message({**opened(7), "tokens": 12}))
    (after,) = rig.state.table.handles()
    assert (before.tokens, after.tokens) == (1000, 12)
    assert after.token_account is before.token_account
    assert after.wallet_pubkey is before.wallet_pubkey
    assert after.mint is before.mint
