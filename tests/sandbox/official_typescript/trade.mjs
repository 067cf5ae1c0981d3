// One whole trade with the official SDK in its local mode: register, connect, buy, position, exit signal, land, close.
// Told by the environment: SANDBOX_API_KEY, SANDBOX_RPC_URL, SANDBOX_MINT. Tells what happened, one JSON object a line.

import { ExitApiClient, proveOwnership } from "@lasersell/lasersell-sdk/exit-api";
import { StreamClient, singleWalletStreamConfigureOptional } from "@lasersell/lasersell-sdk/stream/client";
import { StreamSession } from "@lasersell/lasersell-sdk/stream/session";
import { sendTargetRpc, signAndSendUnsignedTxB64 } from "@lasersell/lasersell-sdk/tx";
import { Connection, Keypair } from "@solana/web3.js";

const { SANDBOX_API_KEY: apiKey, SANDBOX_RPC_URL: rpcUrl, SANDBOX_MINT: mint } = process.env;
const tell = (step, facts = {}) => console.log(JSON.stringify({ step, ...facts }));

const wallet = Keypair.generate();
const pubkey = wallet.publicKey.toBase58();
const rpc = sendTargetRpc(rpcUrl);
const chain = new Connection(rpcUrl, "confirmed");

async function landed(signature) {
  for (;;) {
    const { value } = await chain.getSignatureStatuses([signature]);
    if (value[0] !== null) {
      return value[0].err;
    }
    await new Promise((done) => setTimeout(done, 20));
  }
}

// Its defaults (200 ms to connect, 900 ms an attempt) are a trader's; this machine may be busier than a trader's.
const patient = { connect_timeout_ms: 10_000, attempt_timeout_ms: 10_000 };
const api = new ExitApiClient(apiKey, patient).withLocalMode(true);
await api.registerWallet(proveOwnership(wallet));
tell("registered", { wallet: pubkey });

const client = new StreamClient(apiKey).withLocalMode(true);
const configure = singleWalletStreamConfigureOptional(pubkey, { target_profit_pct: 10 });
const session = await StreamSession.connect(client, configure);
tell("connected");

const { tx } = await api.buildBuyTx({ mint, user_pubkey: pubkey, amount_in_total: 100_000_000, slippage_bps: 1_000 });
const bought = await signAndSendUnsignedTxB64(rpc, tx, wallet);
tell("bought", { signature: bought, err: await landed(bought) });

for (let event = await session.recv(); event !== null; event = await session.recv()) {
  tell(event.type, { kind: event.message.type, position: event.handle?.position_id, mint: event.handle?.mint });
  if (event.type === "exit_signal_with_tx") {
    const sold = await signAndSendUnsignedTxB64(rpc, event.message.unsigned_tx_b64, wallet);
    tell("sold", { signature: sold, reason: event.message.reason, err: await landed(sold) });
  }
  if (event.type === "position_closed") {
    break;
  }
}
session.close();
tell("done", { lamports: await chain.getBalance(wallet.publicKey) });
// The SDK's keepalive timer would hold the process for another 30 s.
process.exit(0);
