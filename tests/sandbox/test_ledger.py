"""The ledger's tables, and that a transaction is all or nothing."""

from __future__ import annotations

import pytest
from solders.keypair import Keypair

from lasersell_sync.sandbox.chain.addresses import WRAPPED_SOL_MINT
from lasersell_sync.sandbox.chain.ledger import InsufficientFunds, Ledger, token_address

ALICE, BOB, MINT = (Keypair.from_seed(bytes([number]) * 32).pubkey() for number in (1, 2, 3))

RENT = 1_488_440


@pytest.fixture
def ledger() -> Ledger:
    ledger = Ledger()
    ledger.credit(ALICE, 10**10)
    for mint, decimals in ((MINT, 6), (WRAPPED_SOL_MINT, 9)):
        ledger.create_mint(mint, decimals=decimals)
        for owner in (ALICE, BOB):
            ledger.open_token_account(token_address(owner, mint), mint=mint, owner=owner, payer=ALICE)
    ledger.mint_tokens(token_address(ALICE, MINT), 1_000)
    return ledger


def snapshot(ledger: Ledger) -> tuple[object, ...]:
    accounts = [dict(ledger.token_accounts_of(owner)) for owner in (ALICE, BOB)]
    return accounts, ledger.lamports(ALICE), ledger.lamports(BOB), ledger.total_lamports(), ledger.mint(MINT)


def test_rollback_takes_everything_back(ledger: Ledger) -> None:
    """After a rollback every table is what it was at begin, closed and opened accounts included."""
    before = snapshot(ledger)
    ledger.begin()
    ledger.move_lamports(ALICE, BOB, 500)
    ledger.move_tokens(token_address(ALICE, MINT), token_address(BOB, MINT), 1_000)
    ledger.close_token_account(token_address(ALICE, MINT), ALICE)
    ledger.open_token_account(token_address(ALICE, MINT), mint=MINT, owner=BOB, payer=ALICE)
    ledger.rollback()
    assert snapshot(ledger) == before


def test_commit_tells_what_changed(ledger: Ledger) -> None:
    """A commit lists every touched token account with its first and last state."""
    source, target = token_address(ALICE, MINT), token_address(BOB, MINT)
    ledger.begin()
    ledger.move_tokens(source, target, 300)
    ledger.move_tokens(source, target, 200)
    changes = ledger.commit()
    amounts = {address: (old.amount, new.amount) for address, (old, new) in changes.items() if old and new}
    assert amounts == {source: (1_000, 500), target: (0, 500)}


def test_nothing_is_spent_twice(ledger: Ledger) -> None:
    """A debit beyond the balance is refused and changes nothing."""
    before = snapshot(ledger)
    with pytest.raises(InsufficientFunds):
        ledger.move_tokens(token_address(ALICE, MINT), token_address(BOB, MINT), 1_001)
    with pytest.raises(InsufficientFunds):
        ledger.move_lamports(BOB, ALICE, ledger.lamports(BOB) + 1)
    assert snapshot(ledger) == before


def test_a_transfer_to_oneself_changes_nothing(ledger: Ledger) -> None:
    """Source and target being one account neither creates nor destroys tokens."""
    account = token_address(ALICE, MINT)
    ledger.move_tokens(account, account, 700)
    state = ledger.token_account(account)
    assert state is not None
    assert state.amount == 1_000


def test_wrapped_sol_is_lamports(ledger: Ledger) -> None:
    """Wrapped SOL counts lamports above rent, moves them along, and gives all back when closed."""
    source, target = token_address(ALICE, WRAPPED_SOL_MINT), token_address(BOB, WRAPPED_SOL_MINT)
    total = ledger.total_lamports()
    ledger.move_lamports(ALICE, source, 5_000)
    ledger.sync_native(source)
    ledger.move_tokens(source, target, 2_000)
    assert ledger.lamports(target) == RENT + 2_000
    ledger.close_token_account(target, BOB)
    assert ledger.lamports(BOB) == RENT + 2_000
    assert ledger.total_lamports() == total
