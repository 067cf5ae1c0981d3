"""The JSON-RPC service: its methods by subject."""
