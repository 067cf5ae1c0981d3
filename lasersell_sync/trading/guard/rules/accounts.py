"""Rules about accounts: who pays and signs, which accounts may be writable."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from lasersell_sync.trading.guard.addresses import token_account
from lasersell_sync.trading.guard.decoded import (
    CREATE_WITH_SEED,
    Decoded,
    Instruction,
    Swap,
    is_own_token_account,
    shown,
)
from lasersell_sync.trading.guard.expected import Expected
from lasersell_sync.trading.guard.programs import SYSTEM_PROGRAM
from lasersell_sync.trading.guard.rules.fees import is_partner
from lasersell_sync.trading.guard.rules.rule import Limits, Offence, rule

__all__ = ["ACCOUNT_RULES", "OURS", "SIGNER_RULES", "fresh_accounts", "is_own"]


# ── Who pays for a transaction and who signs it ─────────────────────────────────────────────────────────────────────


@rule("wallet", "the trade is for the wallet that signs", is_kept_in_report_mode=True)
def _wallet(_: Decoded, trade: Expected, __: Limits) -> Iterable[Offence]:
    if trade.wallet is None or trade.wallet == trade.signer:
        return ()
    problem = f"the trade is for {shown(trade.wallet)}, and {shown(trade.signer)} is to sign it"
    return (Offence(problem, trade.wallet, "sign with the wallet that the trade is for"),)


@rule("fee_payer", "our wallet pays the fee", is_kept_in_report_mode=True)
def _fee_payer(tx: Decoded, trade: Expected, _: Limits) -> Iterable[Offence]:
    if tx.fee_payer == trade.signer:
        return ()
    problem = f"the fee payer is {shown(tx.fee_payer)}"
    return (Offence(problem, tx.fee_payer, "sign with the wallet that it was built for"),)


@rule("only_signer", "nobody else has to sign, but for co-signers that the user names", is_kept_in_report_mode=True)
def _only_signer(tx: Decoded, _: Expected, limits: Limits) -> Iterable[Offence]:
    others = [] if tx.signers == 1 else [key for key in tx.keys[1 : tx.signers] if key not in limits.co_signers]
    if not others:
        return ()
    remedy = "if it is right that this one signs, too: SigningGuard(co_signers=[...])"
    return (Offence(f"{tx.signers} signatures are required", others[0], remedy),)


SIGNER_RULES = (_wallet, _fee_payer, _only_signer)


# ── Whose accounts a trade uses and creates ─────────────────────────────────────────────────────────────────────────


@rule("own_account", "the market takes from and pays to our own accounts")
def _own_account(tx: Decoded, trade: Expected, limits: Limits) -> Iterator[Offence]:
    for swap in tx.swaps:
        number = swap.instruction.number
        if swap.user != trade.signer:
            yield Offence(f"instruction {number} trades for {shown(swap.user)}", swap.user)
        if not swap.gets_lamports and not is_own(tx, trade, limits, swap.got_mint, swap.target):
            yield Offence(f"instruction {number} pays to {shown(swap.target)}, which is not ours", swap.target, OURS)
        if not (
            swap.pays_lamports
            or _is_signalled_source(swap, trade)  # before the next: it spares the derivation of an account
            or is_own(tx, trade, limits, swap.paid_mint, swap.source)
        ):
            yield Offence(f"instruction {number} takes from {shown(swap.source)}", swap.source, OURS)
        if swap.third_party_fee:
            yield Offence(
                f"instruction {number} gives a share of the trade to a third party", swap.instruction.accounts[-1]
            )


@rule(
    "account_creation", "accounts are created for our wallet only, and wrapped SOL is all that is created by hand",
    kinds=["associated_token.create", "token.initialize_account", CREATE_WITH_SEED],
)  # fmt: skip
def _account_creation(tx: Decoded, trade: Expected, limits: Limits) -> Iterable[Offence]:
    found: list[Offence] = []
    for item in tx.by_kind.get("associated_token.create", ()):
        if not _is_our_plain_account(item, trade, limits):
            found += _associated_account(item, trade, limits)
    if tx.seeded or "token.initialize_account" in tx.by_kind:
        found += _made_by_hand(tx, trade, limits)
    return found


def _made_by_hand(tx: Decoded, trade: Expected, limits: Limits) -> Iterator[Offence]:
    """Of instructions that create an account and initialise it, each by itself."""
    for item in tx.by_kind.get("token.initialize_account", ()):
        if _owner_of_initialized(item) != trade.signer:
            yield Offence(
                f"instruction {item.number} makes {shown(_owner_of_initialized(item))} an owner", item.account(0)
            )
    for created in tx.seeded:
        if created.address not in fresh_accounts(tx, trade, limits):
            yield Offence(
                f"instruction {created.instruction.number} creates an account that does not become our wrapped SOL",
                created.address,
            )


def _is_our_plain_account(item: Instruction, trade: Expected, limits: Limits) -> bool:
    """Whether nothing is wrong with it: the usual case, which a sale pays for."""
    keys, places, signer = item.keys, item.places, trade.signer
    if keys[places[0]] != signer or keys[places[2]] != signer or keys[places[4]] != SYSTEM_PROGRAM:
        return False
    mint, program = keys[places[3]], keys[places[5]]
    return (
        mint is not None
        and program is not None
        and program in limits.known.token_programs_of(mint)
        and token_account(signer, mint, program) == keys[places[1]]
    )


def _associated_account(item: Instruction, trade: Expected, limits: Limits) -> Iterator[Offence]:
    """Paid by us and ours, or the partner's for a currency; and made by the programs that make such accounts."""
    payer, account, owner, mint, system, token_program = map(item.keys.__getitem__, item.places[:6])
    is_partners = is_partner(owner, trade, limits) and mint in limits.known.currencies
    for party, is_right in ((payer, payer == trade.signer), (owner, owner == trade.signer or is_partners)):
        if not is_right:
            yield Offence(f"instruction {item.number} creates an account for {shown(party)}", party)
    if system != SYSTEM_PROGRAM or token_program not in limits.known.token_programs_of(mint):
        wrong = system if system != SYSTEM_PROGRAM else token_program
        yield Offence(f"instruction {item.number} lets {shown(wrong)} create an account", wrong)
    elif owner is not None and mint is not None and token_account(owner, mint, token_program or b"") != account:
        yield Offence(f"instruction {item.number} creates {shown(account)}, which is not its owner's account", account)


def _owner_of_initialized(item: Instruction) -> bytes | None:
    return item.account(2) if item.data[0] == 1 else item.data[1:33]


OURS = "if the account is yours: SigningGuard(own_accounts=[...])"


def _is_signalled_source(swap: Swap, trade: Expected) -> bool:
    """Tokens may come from the account that the signal names, wherever it is: only our signature moves them."""
    return swap.paid_mint == trade.mint and swap.source is not None and swap.source == trade.token_account


def is_own(tx: Decoded, trade: Expected, limits: Limits, mint: bytes | None, account: bytes | None) -> bool:
    """Whether a token account of this mint is the wallet's."""
    if is_own_token_account(trade.signer, mint, account, limits.known) or account in limits.own_accounts:
        return True
    return mint == limits.known.wrapped_sol and account in fresh_accounts(tx, trade, limits)


def fresh_accounts(tx: Decoded, trade: Expected, limits: Limits) -> set[bytes]:
    """Accounts created by our seed and made our wrapped SOL in this transaction.

    Both, because an account that is created and not yet initialised can be made anybody's by anybody.
    """
    if not tx.seeded:
        return set()
    known = limits.known
    initialized = {
        item.account(0)
        for item in tx.by_kind.get("token.initialize_account", ())
        if item.account(1) == known.wrapped_sol and _owner_of_initialized(item) == trade.signer
    }
    return {
        account.derived
        for account in tx.seeded
        if account.address == account.derived
        and account.base == trade.signer
        and account.owner in known.token_programs_of(known.wrapped_sol)
        and account.derived in initialized
    }


ACCOUNT_RULES = (_own_account, _account_creation)
