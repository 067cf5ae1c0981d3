# Sourced: pytest arguments that leave out tests in which neither core has a part.
coreless=()
for name in callback_executor death_by_agreement doubtful_parts exit_api expected_price fault_proxy 'guard*' history http http_wire \
    'journal*' keys_interrupted lines mirror openings pause_barrier position public_keys questions quotes recorded_nodes refusals \
    sell_policy sell_report_value signer solana_rpc stream_tip tips token_amounts tx tx_sender wire_tx wire_tx_v1; do
    coreless+=("--ignore-glob=tests/unit/test_$name.py")
done
coreless+=(--ignore=tests/loopback/test_{guard_replay,router_autosell,router_guard,tx_sender_sandbox}.py)
