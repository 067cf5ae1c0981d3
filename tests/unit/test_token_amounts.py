"""What it takes to believe what nodes say that a token account holds; the questions are in test_tx_sender.py."""

from __future__ import annotations

import pytest

from lasersell_sync.trading.solana.expiry import SlotTime
from lasersell_sync.trading.solana.token_accounts import AmountProof


def test_tokens_are_believed_at_once_and_not_from_before_the_last_landing():
    """No newest block is needed for that."""
    proof = AmountProof(since=100)
    assert proof.saw(5, 99) is None
    assert proof.saw(5, 100) == 5
    assert AmountProof(announced=100).saw(5, 1) == 5


@pytest.mark.parametrize(
    ("since", "announced", "tip", "bound"),
    [
        (0, 100, 50, 100),
        (0, 100, 150, 150),
        (120, 100, 50, 120),
        (120, None, 50, 120),
        (120, None, 150, 150),
        (0, None, 50, 50 + SlotTime().lag_blocks),
    ],
)
def test_emptiness_is_believed_from_two_looks_at_new_enough_states(
    since: int, announced: int | None, tip: int, bound: int
):
    """Nothing before the nodes' newest block is known; older states, however often, say nothing."""
    proof = AmountProof(since=since, announced=announced)
    assert [proof.saw(0, 10_000) for _ in range(3)] == [None] * 3
    proof.saw_tips(tip, SlotTime())
    assert [proof.saw(0, bound - 1) for _ in range(3)] == [None] * 3
    assert [proof.saw(0, bound), proof.saw(0, bound - 1), proof.saw(0, bound)] == [None, None, 0]


def test_nodes_that_do_not_agree_prove_no_emptiness():
    proof = AmountProof(announced=1)
    proof.saw_tips(100, SlotTime())
    assert proof.saw(0, 100) is None
    assert proof.saw(7, 90) == 7
    assert proof.saw(0, 100) is None
    assert proof.saw(0, 101) == 0


def test_proof_absurd_tip_is_corrected_by_the_next_one():
    """One node said a slot that no chain reaches; the bound it made does not stay."""
    proof = AmountProof(announced=1)
    proof.saw_tips(2**62, SlotTime())
    assert proof.saw(0, 100) is None
    assert proof.wants_tips
    proof.saw_tips(100, SlotTime())
    assert [proof.saw(0, 101), proof.saw(0, 102)] == [None, 0]
    assert not proof.wants_tips
