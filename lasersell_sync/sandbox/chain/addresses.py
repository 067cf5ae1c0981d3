"""Solana addresses the local exchange needs: programs, mints, fee recipients, tip accounts.

Data only: public mainnet addresses, from the guard's data file; none of the guard's code runs. A transaction built here
carries the same program ids as one built by the live service; nothing in the sandbox ever talks to those programs.
"""

from __future__ import annotations

import json
from importlib import resources

from solders.pubkey import Pubkey

_FILE = resources.files("lasersell_sync") / "trading" / "guard" / "addresses.json"
_ADDRESSES = json.loads(_FILE.read_text(encoding="utf-8"))


def _program(name: str) -> Pubkey:
    return Pubkey.from_string(_ADDRESSES["programs"][name])


def _mint(name: str) -> Pubkey:
    return Pubkey.from_string(_ADDRESSES["mints"][name])


SYSTEM_PROGRAM = _program("system")
TOKEN_PROGRAM = _program("token")
ASSOCIATED_TOKEN_PROGRAM = _program("associated_token")
COMPUTE_BUDGET_PROGRAM = _program("compute_budget")
PUMP_FUN_PROGRAM = _program("pump_fun")
PUMP_SWAP_PROGRAM = _program("pump_swap")
RAYDIUM_CPMM_PROGRAM = _program("raydium_cpmm")
RAYDIUM_LAUNCHPAD_PROGRAM = _program("raydium_launchpad")
METEORA_DBC_PROGRAM = _program("meteora_dbc")
METEORA_DAMM_V2_PROGRAM = _program("meteora_damm_v2")
LASERSELL_ROUTER_PROGRAM = _program("lasersell_router")
#: Called by the two pump markets through other programs only; it appears in their account lists.
PUMP_FEES_PROGRAM = _program("pump_fees")

WRAPPED_SOL_MINT = _mint("wrapped_sol")
USD1_MINT = _mint("usd1")

PUMP_FUN_FEE_RECIPIENT = Pubkey.from_string("CebN5WGQ4jvEPvsVU4EoHEpgzq1VV7AbicfhtW4xC9iM")
PUMP_SWAP_FEE_RECIPIENT = Pubkey.from_string("62qc2CNXwrYqQScmEdiZFFAnJR262PxWEuNQtxfafNgV")
#: One of the eight accounts that buy tokens back, named by every trade of the two pump markets since April 2026.
PUMP_BUYBACK_FEE_RECIPIENT = Pubkey.from_string("5YxQFdt3Tr9zJLvkFccqXVUwhdTWJQc1fFg2YPbxvxeD")

#: Where tips go, by ``send_mode``. ``rpc`` pays none.
TIP_ACCOUNTS: dict[str, tuple[Pubkey, ...]] = {
    mode: tuple(map(Pubkey.from_string, _ADDRESSES["tip_accounts"][mode])) for mode in ("helius_sender", "astralane")
}
