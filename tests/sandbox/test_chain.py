"""What lands, what it does to the ledger, and what is refused; transactions are built with solders, or by the API."""

from __future__ import annotations

import random
import struct
from fractions import Fraction
from typing import Any

import pytest
from solders.compute_budget import request_heap_frame, set_compute_unit_limit, set_compute_unit_price
from solders.errors import SignerError
from solders.hash import Hash
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.message import Message, MessageV0, to_bytes_versioned
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.system_program import TransferParams, transfer
from solders.transaction import VersionedTransaction

from lasersell_sync.sandbox.chain.addresses import (
    ASSOCIATED_TOKEN_PROGRAM,
    COMPUTE_BUDGET_PROGRAM,
    PUMP_FUN_PROGRAM,
    SYSTEM_PROGRAM,
    TIP_ACCOUNTS,
    TOKEN_PROGRAM,
    WRAPPED_SOL_MINT,
)
from lasersell_sync.sandbox.chain.blockchain import REBROADCAST_S, STATUS_CACHE_SLOTS, Fate, TransactionRefused
from lasersell_sync.sandbox.chain.ledger import token_address
from tests.sandbox.players import NOBODY, Rig, signed

MARKETS = ["pump_fun", "pump_swap"]
FEE = 15_000  # base fee and the priority fee of our own transactions


def send_lamports(source: Pubkey, target: Pubkey, lamports: int) -> Instruction:
    return transfer(TransferParams(from_pubkey=source, to_pubkey=target, lamports=lamports))


def holdings(rig: Rig, *owners: Pubkey) -> dict[Pubkey, Any]:
    return {owner: dict(rig.exchange.ledger.token_accounts_of(owner)) for owner in owners}


def rewritten(transaction: VersionedTransaction, old: bytes, new: bytes) -> VersionedTransaction:
    """The transaction with some bytes of its message changed and its signatures kept."""
    raw = bytes(transaction)
    assert raw.count(old) == 1
    return VersionedTransaction.from_bytes(raw.replace(old, new))


def refused(rig: Rig, transaction: VersionedTransaction, **options: bool) -> TransactionRefused:
    with pytest.raises(TransactionRefused) as caught:
        rig.exchange.send_transaction(transaction, skip_preflight=options.get("skip_preflight", False))
    return caught.value


@pytest.mark.parametrize("market_type", MARKETS)
def test_a_buy_spends_what_it_says(rig: Rig, market_type: str) -> None:
    """A buy moves lamports from the wallet into pool, fees and rent, and not a lamport more."""
    wallet, listing = rig.wallet(), rig.listing(market_type, "climb")
    before = rig.exchange.ledger.lamports(wallet.pubkey())
    record = rig.buy(wallet, listing, lamports=10**9)
    assert record.err is None
    assert record.fee_lamports == FEE
    (holding,) = rig.exchange.positions.book.holdings_of(wallet.pubkey())
    rent = 1_488_440
    assert holding.entry_lamports is not None
    assert 10**9 - 10 < holding.entry_lamports <= 10**9
    assert before - rig.exchange.ledger.lamports(wallet.pubkey()) == holding.entry_lamports + rent + FEE
    assert rig.exchange.ledger.token_balance(wallet.pubkey(), listing.mint) > 0


@pytest.mark.parametrize("market_type", MARKETS)
def test_a_sale_of_everything_empties_the_account(rig: Rig, market_type: str) -> None:
    """Amount 0 at the API means the whole balance, and no wrapped SOL is left behind."""
    wallet, listing = rig.wallet(), rig.listing(market_type, "climb")
    rig.buy(wallet, listing)
    assert rig.sell(wallet, listing).err is None
    assert rig.exchange.ledger.token_balance(wallet.pubkey(), listing.mint) == 0
    assert rig.exchange.ledger.token_account(token_address(wallet.pubkey(), WRAPPED_SOL_MINT)) is None


def test_the_ledger_follows_the_instructions_not_the_api(rig: Rig) -> None:
    """A transaction that nobody asked the API for works just the same: here a legacy one with two transfers."""
    wallet, target = rig.wallet(), Keypair().pubkey()
    blockhash, _ = rig.latest_blockhash()
    instructions = [send_lamports(wallet.pubkey(), target, 70), send_lamports(wallet.pubkey(), target, 7)]
    message = Message.new_with_blockhash(instructions, wallet.pubkey(), blockhash)
    record = rig.send(VersionedTransaction(message, [wallet]))
    assert (record.err, record.fee_lamports) == (None, 5_000)
    assert rig.exchange.ledger.lamports(target) == 77
    assert record.instructions == ("system.transfer lamports=70", "system.transfer lamports=7")


@pytest.mark.parametrize("market_type", MARKETS)
def test_slippage_is_enforced_on_the_chain(rig: Rig, market_type: str) -> None:
    """When the price has left the signed limit, the sale fails with the program's number and costs only the fee."""
    wallet, listing = rig.wallet(), rig.listing(market_type, "climb")
    rig.buy(wallet, listing)
    order = signed(rig.sell_order(wallet, listing, slippage_bps=100), wallet)
    rig.multiply_price(listing.mint, Fraction(9, 10))
    lamports, accounts = rig.exchange.ledger.lamports(wallet.pubkey()), holdings(rig, wallet.pubkey())
    refusal = refused(rig, order)
    assert refusal.code == -32002
    assert "custom program error" in refusal.message
    record = rig.send(order, skip_preflight=True)
    index = 2 if market_type == "pump_fun" else 3
    assert record.err == {"InstructionError": [index, {"Custom": 6003 if market_type == "pump_fun" else 6004}]}
    assert rig.exchange.ledger.lamports(wallet.pubkey()) == lamports - FEE
    assert holdings(rig, wallet.pubkey()) == accounts


def test_a_buy_over_its_limit_fails(rig: Rig) -> None:
    """A buy whose cost rose above the signed maximum gets TooMuchSolRequired."""
    wallet, listing = rig.wallet(), rig.listing("pump_fun", "climb")
    order = rig.build_buy(
        listing,
        wallet.pubkey(),
        budget_lamports=10**9,
        slippage_bps=10,
        delivery=NOBODY,
        partner_fee=None,
    )
    rig.multiply_price(listing.mint, Fraction(11, 10))
    record = rig.send(signed(order.tx_b64, wallet), skip_preflight=True)
    assert record.err == {"InstructionError": [3, {"Custom": 6002}]}
    assert rig.exchange.ledger.token_balance(wallet.pubkey(), listing.mint) == 0


def test_a_failure_takes_back_the_instructions_before_it(rig: Rig) -> None:
    """If the second instruction fails, the first has not happened either; the fee is paid all the same."""
    wallet, target = rig.wallet(), Keypair().pubkey()
    before = rig.exchange.ledger.lamports(wallet.pubkey())
    transaction = rig.transaction(
        wallet, send_lamports(wallet.pubkey(), target, 10**6), send_lamports(wallet.pubkey(), target, 10**12)
    )
    record = rig.send(transaction, skip_preflight=True)
    assert record.err == {"InstructionError": [1, {"Custom": 1}]}
    assert rig.exchange.ledger.lamports(target) == 0
    assert rig.exchange.ledger.lamports(wallet.pubkey()) == before - 5_000


def test_a_wrong_signer_is_refused(rig: Rig) -> None:
    """A transaction signed by another key never gets in, with preflight or without."""
    wallet, thief = rig.wallet(1), rig.wallet(2)
    message = rig.transaction(wallet, send_lamports(wallet.pubkey(), thief.pubkey(), 5)).message
    forged = VersionedTransaction.populate(message, [thief.sign_message(to_bytes_versioned(message))])
    for skip_preflight in (False, True):
        assert refused(rig, forged, skip_preflight=skip_preflight).code == -32003
    unsigned = VersionedTransaction.populate(message, [Signature.default()])
    assert refused(rig, unsigned).code == -32003


def test_an_amount_changed_after_signing_is_refused(rig: Rig) -> None:
    """One changed byte of the signed message makes the signature wrong."""
    wallet, listing = rig.wallet(), rig.listing("pump_fun", "climb")
    rig.buy(wallet, listing)
    honest = signed(rig.sell_order(wallet, listing), wallet)
    tokens = rig.exchange.ledger.token_balance(wallet.pubkey(), listing.mint)
    tampered = rewritten(honest, struct.pack("<Q", tokens), struct.pack("<Q", tokens - 1))
    assert refused(rig, tampered).code == -32003
    assert rig.send(honest).err is None


def test_a_known_signature_over_other_bytes_is_refused(rig: Rig) -> None:
    """A signature that has landed before does not let changed bytes pass as a repetition."""
    wallet = rig.wallet()
    honest = rig.transaction(wallet, send_lamports(wallet.pubkey(), Keypair().pubkey(), 0x1122334455))
    tampered = rewritten(honest, struct.pack("<Q", 0x1122334455), struct.pack("<Q", 0x1122334456))
    rig.exchange.send_transaction(honest, skip_preflight=True)
    assert refused(rig, tampered).code == -32003
    rig.advance(1)
    assert refused(rig, tampered, skip_preflight=True).code == -32003


def mutations(raw: bytes, rng: random.Random) -> bytes:
    """Some bytes changed, cut out or put in."""
    data = bytearray(raw)
    for _ in range(rng.randint(1, 4)):
        place, kind = rng.randrange(len(data) + 1), rng.random()
        if kind < 0.6:
            data[place : place + 1] = rng.randbytes(1)
        elif kind < 0.8:
            del data[place : place + rng.randint(1, 5)]
        else:
            data[place:place] = rng.randbytes(rng.randint(1, 4))
    return bytes(data)


@pytest.mark.parametrize("market_type", MARKETS)
def test_mutated_transactions_break_nothing(rig: Rig, market_type: str) -> None:
    """Damaged transactions are refused or fail on the chain, and every lamport stays accounted for (seed 20260101)."""
    rng, wallet, listing = random.Random(20260101), rig.wallet(), rig.listing(market_type, "climb")
    rig.buy(wallet, listing)
    raw = bytes(signed(rig.sell_order(wallet, listing), wallet))
    total, paid = rig.exchange.ledger.total_lamports(), sum(item.fee_lamports for item in rig.exchange.chain.records())
    codes = set()
    for number in range(2_000):
        try:
            damaged = VersionedTransaction.from_bytes(mutations(raw, rng))
            if number % 2:
                # Signed anew, so that the damage reaches the programs.
                damaged = VersionedTransaction(damaged.message, [wallet])
        except (ValueError, SignerError):
            continue
        try:
            rig.exchange.send_transaction(damaged, skip_preflight=True)
        except TransactionRefused as refusal:
            codes.add(refusal.code)
    assert codes == {-32602, -32003}
    rig.advance(1)
    assert len(rig.exchange.chain.records()) > 20
    fees = sum(item.fee_lamports for item in rig.exchange.chain.records()) - paid
    assert rig.exchange.ledger.total_lamports() == total - fees


def test_the_number_of_signatures_must_be_exact(rig: Rig) -> None:
    """Missing and surplus signatures are malformed transactions."""
    wallet = rig.wallet()
    good = rig.transaction(wallet, send_lamports(wallet.pubkey(), Keypair().pubkey(), 5))
    for signatures in ([], [*good.signatures, *good.signatures]):
        assert refused(rig, VersionedTransaction.populate(good.message, signatures)).code == -32602


def test_blockhashes_expire(rig: Rig) -> None:
    """A blockhash is good for 150 blocks; then preflight says so, and without preflight the transaction never lands."""
    wallet = rig.wallet()
    early = rig.transaction(wallet, send_lamports(wallet.pubkey(), Keypair().pubkey(), 5))
    late = rig.transaction(wallet, send_lamports(wallet.pubkey(), Keypair().pubkey(), 6))
    rig.skip_slots(147)
    assert rig.send(early).err is None
    rig.skip_slots(10)
    refusal = refused(rig, late)
    assert (refusal.code, refusal.message) == (-32002, "Transaction simulation failed: Blockhash not found")
    assert refusal.data is not None
    assert refusal.data["err"] == "BlockhashNotFound"
    before = rig.exchange.ledger.lamports(wallet.pubkey())
    assert rig.send(late, skip_preflight=True) is None
    assert rig.signature_status(late.signatures[0]) is None
    assert rig.exchange.ledger.lamports(wallet.pubkey()) == before


def test_blockhash_slots_without_blocks_do_not_age_it(rig: Rig) -> None:
    """A thousand slots without a block change no height; 151 blocks later the blockhash is dead all the same."""
    wallet = rig.wallet()
    transaction = rig.transaction(wallet, send_lamports(wallet.pubkey(), Keypair().pubkey(), 5))
    slot, height = rig.slot(), rig.block_height()
    rig.skip_slots(1_000, empty=True)
    assert (rig.slot(), rig.block_height()) == (slot + 1_000, height)
    blockhash, last_height = rig.latest_blockhash()
    assert (blockhash, last_height) == (transaction.message.recent_blockhash, height + 150)
    assert rig.ask_chain(lambda chain: chain.slots.accepted(blockhash, slot + 1_000))
    rig.skip_slots(140)
    assert rig.accepts_blockhash(blockhash)
    rig.skip_slots(400, empty=True)
    assert rig.latest_blockhash()[0] != blockhash
    assert rig.send(transaction).err is None
    rig.skip_slots(20)
    assert not rig.accepts_blockhash(blockhash)
    assert not rig.ask_chain(lambda chain: chain.slots.accepted(blockhash, chain.slots.slot()))


def test_slot_time_and_rent_are_those_that_were_asked_for() -> None:
    """As the chain was before September 2026: 400 ms a slot, 2 039 280 lamports for a token account."""
    rig = Rig(slot_ms=400, rent_lamports_per_byte=6_960)
    wallet, listing = rig.wallet(), rig.listing("pump_fun", "climb")
    slot, before = rig.slot(), rig.exchange.ledger.lamports(wallet.pubkey())
    rig.advance(40.0)
    assert rig.slot() == slot + 100
    record = rig.buy(wallet, listing)
    spent = before - rig.exchange.ledger.lamports(wallet.pubkey())
    assert spent == record.swaps[0].lamports + 2_039_280 + record.fee_lamports


def test_a_foreign_blockhash_is_unknown(rig: Rig) -> None:
    """A blockhash this chain never had is not accepted."""
    wallet = rig.wallet()
    message = MessageV0.try_compile(
        wallet.pubkey(), [send_lamports(wallet.pubkey(), Keypair().pubkey(), 5)], [], Hash(bytes([7]) * 32)
    )
    assert refused(rig, VersionedTransaction(message, [wallet])).message.endswith("Blockhash not found")


def test_the_same_transaction_lands_once(rig: Rig) -> None:
    """Sending again gives the same signature and no second execution; preflight says when it has been executed."""
    wallet, target = rig.wallet(), Keypair().pubkey()
    transaction = rig.transaction(wallet, send_lamports(wallet.pubkey(), target, 100))
    first = rig.exchange.send_transaction(transaction, skip_preflight=False)
    assert rig.exchange.send_transaction(transaction, skip_preflight=False) == first
    rig.advance(1)
    assert rig.exchange.send_transaction(transaction, skip_preflight=True) == first
    refusal = refused(rig, transaction)
    assert (refusal.code, (refusal.data or {})["err"]) == (-32002, "AlreadyProcessed")
    rig.advance(1)
    assert rig.exchange.ledger.lamports(target) == 100
    assert len(rig.exchange.chain.records()) == 1


def test_a_wallet_without_money_cannot_send(rig: Rig) -> None:
    """An account that never had lamports is told so; without preflight its transaction never lands."""
    pauper = Keypair()
    transaction = rig.transaction(pauper, send_lamports(pauper.pubkey(), Keypair().pubkey(), 1))
    assert "no record of a prior credit" in refused(rig, transaction).message
    assert rig.send(transaction, skip_preflight=True) is None


def test_programs_that_are_not_here_fail(rig: Rig) -> None:
    """An unknown program fails the transaction as a whole."""
    wallet = rig.wallet()
    record = rig.send(rig.transaction(wallet, Instruction(Keypair().pubkey(), b"", [])), skip_preflight=True)
    assert record.err == "ProgramAccountNotFound"


def test_nobody_sells_what_is_not_his(rig: Rig) -> None:
    """Putting the victim's token account into one's own sale is a constraint violation of the program."""
    victim, thief = rig.wallet(1), rig.wallet(2)
    listing = rig.listing("pump_fun", "climb")
    rig.buy(victim, listing)
    rig.buy(thief, listing)
    honest = rig.exchange.market.venue(listing).sell_instructions(listing, thief.pubkey(), 1_000, 0)[0]
    accounts = list(honest.accounts)
    accounts[5] = AccountMeta(token_address(victim.pubkey(), listing.mint), is_signer=False, is_writable=True)
    record = rig.send(rig.transaction(thief, Instruction(PUMP_FUN_PROGRAM, honest.data, accounts)), skip_preflight=True)
    assert record.err == {"InstructionError": [0, {"Custom": 2006}]}


def test_tokens_can_be_given_away_by_their_owner_only(rig: Rig) -> None:
    """Token transfers need the owner's signature; with it, plain and checked transfers move tokens."""
    owner, friend = rig.wallet(1), rig.wallet(2)
    listing = rig.listing("pump_fun", "climb")
    rig.buy(owner, listing)
    rig.buy(friend, listing)
    source, target = (token_address(wallet.pubkey(), listing.mint) for wallet in (owner, friend))

    def give(authority: Pubkey) -> Instruction:
        accounts = [
            AccountMeta(source, is_signer=False, is_writable=True),
            AccountMeta(target, is_signer=False, is_writable=True),
            AccountMeta(authority, is_signer=True, is_writable=False),
        ]
        return Instruction(TOKEN_PROGRAM, struct.pack("<BQ", 3, 1_000), accounts)

    stolen = rig.send(rig.transaction(friend, give(friend.pubkey())), skip_preflight=True)
    assert stolen.err == {"InstructionError": [0, {"Custom": 4}]}
    before = rig.exchange.ledger.token_balance(friend.pubkey(), listing.mint)
    assert rig.send(rig.transaction(owner, give(owner.pubkey()))).err is None
    assert rig.exchange.ledger.token_balance(friend.pubkey(), listing.mint) == before + 1_000


@pytest.mark.parametrize(
    ("program", "data"),
    [
        (SYSTEM_PROGRAM, b""),
        (SYSTEM_PROGRAM, b"\x02\x00\x00\x00\x01"),
        (SYSTEM_PROGRAM, b"\xff" * 12),
        (TOKEN_PROGRAM, b""),
        (TOKEN_PROGRAM, b"\x03\x01"),
        (TOKEN_PROGRAM, b"\xee"),
        (TOKEN_PROGRAM, b"\x09"),
        (TOKEN_PROGRAM, b"\x11"),
        (ASSOCIATED_TOKEN_PROGRAM, b"\x01"),
        (ASSOCIATED_TOKEN_PROGRAM, b"\x07"),
        (PUMP_FUN_PROGRAM, b""),
        (PUMP_FUN_PROGRAM, b"\x00" * 24),
        (PUMP_FUN_PROGRAM, bytes([102, 6, 61, 18, 1, 218, 235, 234])),
        (PUMP_FUN_PROGRAM, bytes([102, 6, 61, 18, 1, 218, 235, 234]) + bytes(16)),
    ],
)
def test_garbled_instructions_fail_and_cost_the_fee(rig: Rig, program: Pubkey, data: bytes) -> None:
    """Truncated data and missing accounts are errors of the instruction, never of the exchange."""
    wallet = rig.wallet()
    before = rig.exchange.ledger.lamports(wallet.pubkey())
    record = rig.send(rig.transaction(wallet, Instruction(program, data, [])), skip_preflight=True)
    assert record.err["InstructionError"][0] == 0
    assert rig.exchange.ledger.lamports(wallet.pubkey()) == before - 5_000


def test_statuses_ripen(rig: Rig) -> None:
    """A landed transaction is processed at once, confirmed a slot later, finalized after 32."""
    wallet = rig.wallet()
    transaction = rig.transaction(wallet, send_lamports(wallet.pubkey(), Keypair().pubkey(), 5))
    signature = rig.exchange.send_transaction(transaction, skip_preflight=False)
    assert rig.signature_status(signature) is None
    rig.advance(0.41)
    stages = []
    for skipped in (0, 1, 31):
        rig.skip_slots(skipped)
        status = rig.signature_status(signature)
        assert status is not None
        assert status["err"] is None
        stages.append((status["confirmationStatus"], status["confirmations"]))
    assert stages == [("processed", 0), ("confirmed", 1), ("finalized", None)]


def test_old_statuses_are_history(rig: Rig) -> None:
    """A status that left the cache is found by those who search the history, and by nobody else."""
    wallet = rig.wallet()
    record = rig.send(rig.transaction(wallet, send_lamports(wallet.pubkey(), Keypair().pubkey(), 5)))
    signature = Signature.from_string(record.signature)

    def found(*, search_history: bool) -> bool:
        return rig.ask_chain(lambda chain: chain.status(signature, search_history=search_history)) is not None

    rig.skip_slots(STATUS_CACHE_SLOTS - 5)
    assert found(search_history=False)
    rig.skip_slots(10)
    assert not found(search_history=False)
    assert found(search_history=True)


def test_blockhashes_of_every_commitment_are_good_from_the_start(rig: Rig) -> None:
    """A finalized blockhash is 32 slots older than a processed one, and dies 32 slots earlier."""

    def latest(commitment: str) -> tuple[Hash, int]:
        return rig.ask_chain(lambda chain: chain.slots.latest_blockhash(commitment))

    blockhashes = [latest(commitment) for commitment in ("processed", "confirmed", "finalized")]
    heights = [height for _, height in blockhashes]
    assert [heights[0] - height for height in heights] == [0, 1, 32]
    for skipped, good in ((118, [True, True, True]), (1, [True, True, False]), (31, [True, False, False])):
        rig.skip_slots(skipped)
        assert [rig.accepts_blockhash(blockhash) for blockhash, _ in blockhashes] == good


# -- compute budget and tips


def test_a_priority_fee_is_paid_for_the_limit(rig: Rig) -> None:
    """Price times limit, rounded up, comes on top of the base fee, whatever is used; the record tells both."""
    wallet = rig.wallet()
    gift = send_lamports(wallet.pubkey(), Keypair().pubkey(), 5)
    record = rig.send(rig.transaction(wallet, set_compute_unit_limit(1_001), set_compute_unit_price(2_500), gift))
    assert (record.err, record.fee_lamports, record.units_used) == (None, 5_003, 450)
    default = rig.send(rig.transaction(wallet, set_compute_unit_price(1_000_000), gift))
    assert default.fee_lamports == 5_000 + 200_000


@pytest.mark.parametrize(
    ("instructions", "err"),
    [
        ([set_compute_unit_limit(5), set_compute_unit_limit(6)], {"DuplicateInstruction": 1}),
        ([set_compute_unit_price(5), set_compute_unit_price(5)], {"DuplicateInstruction": 1}),
        ([request_heap_frame(5)], {"InstructionError": [0, "InvalidInstructionData"]}),
        ([Instruction(COMPUTE_BUDGET_PROGRAM, b"\x09", [])], {"InstructionError": [0, "InvalidInstructionData"]}),
        ([Instruction(COMPUTE_BUDGET_PROGRAM, b"\x04" + bytes(4), [])], "InvalidLoadedAccountsDataSizeLimit"),
    ],
)
def test_a_senseless_budget_makes_a_transaction_invalid(rig: Rig, instructions: list[Instruction], err: object) -> None:
    """Preflight tells what is wrong; without it the transaction never lands, and costs nothing."""
    wallet = rig.wallet()
    gift = send_lamports(wallet.pubkey(), Keypair().pubkey(), 5)
    before = rig.exchange.ledger.lamports(wallet.pubkey())
    refusal = refused(rig, rig.transaction(wallet, *instructions, gift))
    assert (refusal.code, (refusal.data or {})["err"]) == (-32002, err)
    assert rig.send(rig.transaction(wallet, *instructions, gift), skip_preflight=True) is None
    assert rig.exchange.ledger.lamports(wallet.pubkey()) == before


@pytest.mark.parametrize(
    ("limit_units", "err"),
    [
        (200, {"InstructionError": [1, "ComputationalBudgetExceeded"]}),
        (400, {"InstructionError": [2, "ProgramFailedToComplete"]}),
    ],
)
def test_who_runs_out_of_units_fails(rig: Rig, limit_units: int, err: object) -> None:
    """A built-in program and a compiled one fail each in its own way; what went before is taken back."""
    wallet, friend, listing = rig.wallet(), Keypair().pubkey(), rig.listing("pump_fun", "climb")
    sale = rig.exchange.market.venue(listing).sell_instructions(listing, wallet.pubkey(), 1_000, 0)[0]
    transaction = rig.transaction(
        wallet, set_compute_unit_limit(limit_units), send_lamports(wallet.pubkey(), friend, 5), sale
    )
    record = rig.send(transaction, skip_preflight=True)
    assert (record.err, record.units_used) == (err, limit_units)
    assert rig.exchange.ledger.lamports(friend) == 0


def test_tips_are_told(rig: Rig) -> None:
    """A transfer to a sender's account is a tip, to any other a transfer; a failed transaction has tipped nobody."""
    wallet = rig.wallet()
    tips = [send_lamports(wallet.pubkey(), accounts[0], 700) for accounts in TIP_ACCOUNTS.values()]
    gift = send_lamports(wallet.pubkey(), Keypair().pubkey(), 5)
    assert rig.send(rig.transaction(wallet, gift, *tips)).tip_lamports == 1_400
    failing = rig.transaction(wallet, *tips, send_lamports(wallet.pubkey(), Keypair().pubkey(), 10**15))
    assert rig.send(failing, skip_preflight=True).tip_lamports == 0


def test_an_account_may_be_named_once(rig: Rig) -> None:
    """A message with the same account twice is not executed."""
    wallet, friend = rig.wallet(), Keypair().pubkey()
    good = rig.transaction(wallet, send_lamports(wallet.pubkey(), friend, 5)).message
    doubled = bytes(good).replace(bytes(SYSTEM_PROGRAM), bytes(friend), 1)
    twice = VersionedTransaction(MessageV0.from_bytes(doubled), [wallet])
    assert (refused(rig, twice).data or {})["err"] == "AccountLoadedTwice"


# -- what gets lost


def order(rig: Rig, *fates: Fate) -> None:
    rig.instruct_chain(lambda chain: chain.fates.extend(fates))


def test_a_late_landing_happens_when_it_was_ordered(rig: Rig) -> None:
    """29 s later it lands, once; sending it again meanwhile changes nothing; the next one is on time."""
    wallet, friend = rig.wallet(), Keypair().pubkey()
    order(rig, Fate("late", landing_delay_s=29.0))
    late = rig.transaction(wallet, send_lamports(wallet.pubkey(), friend, 5))
    signature = rig.exchange.send_transaction(late, skip_preflight=True)
    rig.advance(28.9)
    assert rig.exchange.send_transaction(late, skip_preflight=True) == signature
    assert rig.signature_status(signature) is None
    rig.advance(0.2)
    assert rig.exchange.ledger.lamports(friend) == 5
    assert rig.send(rig.transaction(wallet, send_lamports(wallet.pubkey(), friend, 6))).err is None
    assert len(rig.exchange.chain.records()) == 2


def test_a_landing_too_late_never_happens(rig: Rig) -> None:
    """The blockhash lives 150 blocks, which is 30 s."""
    wallet = rig.wallet()
    order(rig, Fate("late", landing_delay_s=31.0))
    rig.exchange.send_transaction(
        rig.transaction(wallet, send_lamports(wallet.pubkey(), Keypair().pubkey(), 5)), skip_preflight=True
    )
    rig.advance(200)
    assert rig.exchange.chain.records() == []


def test_a_lost_transaction_can_be_sent_again(rig: Rig) -> None:
    """What was lost to order is not retried by the node; the same bytes again land."""
    wallet = rig.wallet()
    order(rig, Fate("lost"))
    transaction = rig.transaction(wallet, send_lamports(wallet.pubkey(), Keypair().pubkey(), 5))
    assert rig.send(transaction) is None
    rig.advance(10)
    assert rig.exchange.chain.records() == []
    assert rig.send(transaction).err is None


def test_a_doomed_transaction_never_lands(rig: Rig) -> None:
    """However often the same bytes are sent; another transaction of the same wallet does."""
    wallet = rig.wallet()
    order(rig, Fate("never"))
    doomed = rig.transaction(wallet, send_lamports(wallet.pubkey(), Keypair().pubkey(), 5))
    for _ in range(3):
        assert rig.send(doomed) is None
    assert rig.send(rig.transaction(wallet, send_lamports(wallet.pubkey(), Keypair().pubkey(), 6))).err is None


def test_airdrops_meet_no_fate(rig: Rig) -> None:
    """What was ordered waits for a transaction that somebody sends."""
    wallet = rig.wallet()
    order(rig, Fate("never"))
    rig.exchange.airdrop(wallet.pubkey(), 7)
    rig.advance(1)
    assert len(rig.exchange.chain.records()) == 1
    assert rig.send(rig.transaction(wallet, send_lamports(wallet.pubkey(), Keypair().pubkey(), 5))) is None


def landed_of(rig: Rig, wallet: Keypair, count: int, **options: Any) -> list[int]:
    """Send transfers of 1, 2, 3 … lamports; which of them landed."""
    friend = Keypair().pubkey()
    sent = {}
    for lamports in range(1, count + 1):
        transaction = rig.transaction(wallet, send_lamports(wallet.pubkey(), friend, lamports))
        sent[str(rig.exchange.send_transaction(transaction, skip_preflight=True, **options))] = lamports
    rig.advance(100)
    return [sent[record.signature] for record in rig.exchange.chain.records()]


def test_losses_are_drawn_from_the_seed() -> None:
    """With maxRetries 0 about the given share is lost: the same ones for one seed, others for another."""
    stories = []
    for seed in (5, 5, 6):
        rig = Rig(seed=seed, loss_probability=0.3)
        stories.append(landed_of(rig, rig.wallet(), 200, max_retries=0))
    assert stories[0] == stories[1]
    assert stories[0] != stories[2]
    assert 110 <= len(stories[0]) <= 170


def test_a_node_tries_again() -> None:
    """Unless told how often, the node sends a lost transaction again until it lands, or its blockhash is dead."""
    rig = Rig(loss_probability=0.5)
    wallet = rig.wallet()
    assert sorted(landed_of(rig, wallet, 50)) == list(range(1, 51))
    rig = Rig(loss_probability=1.0)
    wallet = rig.wallet()
    assert landed_of(rig, wallet, 3) == []
    assert rig.ask_chain(lambda chain: chain.next_landing_s()) is None


def test_a_node_tries_again_as_often_as_told() -> None:
    """With maxRetries 2 there are three chances, two seconds apart."""
    rig = Rig(loss_probability=1.0)
    wallet = rig.wallet()
    transaction = rig.transaction(wallet, send_lamports(wallet.pubkey(), Keypair().pubkey(), 5))
    signature = rig.exchange.send_transaction(transaction, skip_preflight=True, max_retries=2)
    rig.advance(REBROADCAST_S * 1.5)
    rig.instruct_chain(lambda chain: setattr(chain, "loss_probability", 0.0))
    rig.advance(REBROADCAST_S)
    assert rig.signature_status(signature) is not None
