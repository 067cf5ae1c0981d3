"""The chain: accounts, programs, transactions, slots, and the clock that drives them."""
