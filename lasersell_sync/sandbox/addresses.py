"""Solana addresses the local exchange needs: programs, mints, fee recipients, tip accounts.

Data only. The values are the public mainnet addresses, so that a transaction built here carries the same program ids
as one built by the live service; nothing in the sandbox ever talks to those programs.
"""

from __future__ import annotations

from solders.pubkey import Pubkey

SYSTEM_PROGRAM = Pubkey.from_string("11111111111111111111111111111111")
TOKEN_PROGRAM = Pubkey.from_string("TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA")
ASSOCIATED_TOKEN_PROGRAM = Pubkey.from_string("ATokenGPvbdGVxr1b2hvZbsiqW5xWH25efTNsLJA8knL")
COMPUTE_BUDGET_PROGRAM = Pubkey.from_string("ComputeBudget111111111111111111111111111111")
PUMP_FUN_PROGRAM = Pubkey.from_string("6EF8rrecthR5Dkzon8Nwu78hRvfCKubJ14M5uBEwF6P")
PUMP_SWAP_PROGRAM = Pubkey.from_string("pAMMBay6oceH9fJKBRHGP5D4bD4sWpmSwMn52FMfXEA")
RAYDIUM_CPMM_PROGRAM = Pubkey.from_string("CPMMoo8L3F4NbTegBCKVNunggL7H1ZpdTHKxQB5qKP1C")
RAYDIUM_LAUNCHPAD_PROGRAM = Pubkey.from_string("LanMV9sAd7wArD4vJFi2qDdfnVhFxYSUg6eADduJ3uj")
METEORA_DBC_PROGRAM = Pubkey.from_string("dbcij3LWUppWqq96dh6gJWwBifmcGfLSB5D4DuSMaqN")
METEORA_DAMM_V2_PROGRAM = Pubkey.from_string("cpamdpZCGKUy5JxQXB4dcpGPiikHawvSWAd6mEn1sGG")
LASERSELL_ROUTER_PROGRAM = Pubkey.from_string("77Fvqi4CFY8AumYEDWbXPwcHf2Hujod6FECSitxPtfon")
#: Called by the two pump markets through other programs only; it appears in their account lists.
PUMP_FEES_PROGRAM = Pubkey.from_string("pfeeUxB6jkeY1Hxd7CsFCAjcbHA9rWtchMGdZ6VojVZ")

WRAPPED_SOL_MINT = Pubkey.from_string("So11111111111111111111111111111111111111112")
USD1_MINT = Pubkey.from_string("USD1ttGY1N17NEEHLmELoaybftRBUSErhqYiQzvEmuB")

PUMP_FUN_FEE_RECIPIENT = Pubkey.from_string("CebN5WGQ4jvEPvsVU4EoHEpgzq1VV7AbicfhtW4xC9iM")
PUMP_SWAP_FEE_RECIPIENT = Pubkey.from_string("62qc2CNXwrYqQScmEdiZFFAnJR262PxWEuNQtxfafNgV")
#: One of the eight accounts that buy tokens back, named by every trade of the two pump markets since April 2026.
PUMP_BUYBACK_FEE_RECIPIENT = Pubkey.from_string("5YxQFdt3Tr9zJLvkFccqXVUwhdTWJQc1fFg2YPbxvxeD")

#: Where tips go, by ``send_mode``. ``rpc`` pays none.
TIP_ACCOUNTS: dict[str, tuple[Pubkey, ...]] = {
    "helius_sender": tuple(
        Pubkey.from_string(address)
        for address in (
            "4ACfpUFoaSD9bfPdeu6DBt89gB6ENTeHBXCAi87NhDEE",
            "D2L6yPZ2FmmmTKPgzaMKdhu6EWZcTpLy1Vhx8uvZe7NZ",
            "9bnz4RShgq1hAnLnZbP8kbgBg1kEmcJBYQq3gQbmnSta",
            "5VY91ws6B2hMmBFRsXkoAAdsPHBJwRfBht4DXox3xkwn",
            "2nyhqdwKcJZR2vcqCyrYsaPVdAnFoJjiksCXJ7hfEYgD",
            "2q5pghRs6arqVjRvT5gfgWfWcHWmw1ZuCzphgd5KfWGJ",
            "wyvPkWjVZz1M8fHQnMMCDTQDbkManefNNhweYk5WkcF",
            "3KCKozbAaF75qEU33jtzozcJ29yJuaLJTy2jFdzUY8bT",
            "4vieeGHPYPG2MmyPRcYjdiDmmhN3ww7hsFNap8pVN3Ey",
            "4TQLFNWK8AovT1gFvda5jfw2oJeRMKEmw7aH6MGBJ3or",
        )
    ),
    "astralane": tuple(
        Pubkey.from_string(address)
        for address in (
            "astrazznxsGUhWShqgNtAdfrzP2G83DzcWVJDxwV9bF",
            "astra4uejePWneqNaJKuFFA8oonqCE1sqF6b45kDMZm",
            "astra9xWY93QyfG6yM8zwsKsRodscjQ2uU2HKNL5prk",
            "astraRVUuTHjpwEVvNBeQEgwYx9w9CFyfxjYoobCZhL",
            "astraEJ2fEj8Xmy6KLG7B3VfbKfsHXhHrNdCQx7iGJK",
            "astraubkDw81n4LuutzSQ8uzHCv4BhPVhfvTcYv8SKC",
            "astraZW5GLFefxNPAatceHhYjfA1ciq9gvfEg2S47xk",
            "astrawVNP4xDBKT7rAdxrLYiTSTdqtUr63fSMduivXK",
        )
    ),
}
