"""The stream, level two: positions, deadlines, liquidity, and typed events over a connection."""
