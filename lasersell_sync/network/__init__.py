"""What stream, REST and RPC share on the way to a server: where a key may travel, proxies, TLS, socket options."""
