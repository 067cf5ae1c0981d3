"""The servers: stream, REST, JSON-RPC, control API, web page, replay, and their faults."""
