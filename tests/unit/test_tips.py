"""Whether what a stream builds fits what a sender sends to."""

from __future__ import annotations

import pytest

from lasersell_sync import SendTargetAstralane, SendTargetHeliusSender, SendTargetRpc
from lasersell_sync.trading.sending.tips import send_mode_warnings

RPC = SendTargetRpc("https://node.example")
HELIUS = SendTargetHeliusSender()
CHEAP_HELIUS = SendTargetHeliusSender("https://sender.helius-rpc.com/fast?swqos_only=true")
OWN_HELIUS = SendTargetHeliusSender(minimum_tip_lamports=7)
ASTRALANE = SendTargetAstralane("key")


@pytest.mark.parametrize(
    ("targets", "send_mode", "tip_lamports"),
    [
        ([RPC], None, None),
        ([RPC], "rpc", None),
        ([RPC, RPC], None, 5),
        ([HELIUS], "helius_sender", 1_000_000),
        ([HELIUS, RPC], "helius_sender", 2_000_000),
        ([RPC, HELIUS], "helius_sender", 1_000_000),
        ([CHEAP_HELIUS], "helius_sender", 5_000),
        ([OWN_HELIUS], "helius_sender", 7),
        ([ASTRALANE], "astralane", 10_000),
    ],
)
def test_send_mode_that_fits_the_targets_warns_of_nothing(targets, send_mode, tip_lamports):
    assert send_mode_warnings(targets, send_mode, tip_lamports) == []


@pytest.mark.parametrize(
    ("targets", "send_mode", "tip_lamports", "problems"),
    [
        ([HELIUS], None, None, ["send_mode is None", "send_mode='helius_sender', tip_lamports=1000000"]),
        ([RPC, HELIUS], "rpc", 1_000_000, ["send_mode is 'rpc'", "helius sender"]),
        ([HELIUS], "helius_sender", None, ["tip_lamports is 1000", "tip_lamports=1000000"]),
        ([HELIUS], "helius_sender", 999_999, ["tip_lamports is 999999", "tip_lamports=1000000"]),
        ([HELIUS], "helius_sender", 0, ["tip_lamports is 0", "tip_lamports=1000000"]),
        ([CHEAP_HELIUS], "helius_sender", 4_999, ["tip_lamports is 4999", "tip_lamports=5000"]),
        ([OWN_HELIUS], "helius_sender", 6, ["tip_lamports=7"]),
        ([ASTRALANE], "helius_sender", 10_000_000, ["astralane nothing", "send_mode='astralane', tip_lamports=10000"]),
        ([HELIUS, ASTRALANE], "helius_sender", 1_000_000, ["astralane nothing"]),
        ([RPC], "helius_sender", 1_000_000, ["sends to rpc", "a tip for nothing", "send_mode='rpc'"]),
        ([RPC], "astralane", None, ["send_mode='rpc'"]),
    ],
)
def test_send_mode_that_does_not_fit_warns_once_with_the_line_that_mends_it(targets, send_mode, tip_lamports, problems):
    (warning,) = send_mode_warnings(targets, send_mode, tip_lamports)
    assert "Write StreamConfigure(..." in warning
    for problem in problems:
        assert problem in warning


def test_send_mode_of_nobody_warns_for_each_sender():
    assert len(send_mode_warnings([HELIUS, ASTRALANE], None, None)) == 2
