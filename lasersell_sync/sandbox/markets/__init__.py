"""The markets: their programs, pools and prices, and the scenarios that move them."""
