"""Solana: reading and signing transactions, asking nodes."""
