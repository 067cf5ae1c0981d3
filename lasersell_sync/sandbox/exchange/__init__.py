"""The exchange: sessions, positions, exits, copy trading and orders under one lock."""
