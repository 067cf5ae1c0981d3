"""The Exit API: building transactions, the account, its history."""
