"""The LaserSell Router: its program, its layouts, and the trades that go through it."""
