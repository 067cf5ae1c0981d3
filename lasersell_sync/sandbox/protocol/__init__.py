"""The wire of the stream and the rules of the service: messages, tiers, exit conditions, policies."""
