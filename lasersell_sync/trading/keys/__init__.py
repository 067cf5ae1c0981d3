"""Wallet keys: signers, key files, keystores."""
