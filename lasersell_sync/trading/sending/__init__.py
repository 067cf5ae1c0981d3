"""Sending transactions and following them to their end."""
