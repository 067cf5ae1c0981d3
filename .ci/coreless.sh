# Sourced: pytest arguments that leave out tests in which neither core has a part.
coreless=()
for name in account_history ages blockhash_question callback_executor deadlines death_by_agreement departure doubtful_parts exit_api \
    expected_price expiry fault_proxy 'guard*' history http http_framing http_wire 'journal*' keys_interrupted lines log mirror \
    openings overtaking past_trades pause_barrier pending_txs position position_judging proxy public_keys questions quotes \
    recorded_nodes refusals request_shares retry sell_policy sell_report_value seller_health send_connections signer solana_rpc \
    start_watch strategy stream_tip take_up timeouts tips tls token_amounts tunnel tx tx_sender warm_up wire_tx wire_tx_v1; do
    coreless+=("--ignore-glob=tests/unit/test_$name.py")
done
coreless+=(--ignore=tests/loopback/test_{autosell_engine,autosell_lying_node,guard_replay,router_autosell,router_guard}.py)
coreless+=(--ignore=tests/loopback/test_{trading_sandbox,tx_sender_sandbox}.py)
