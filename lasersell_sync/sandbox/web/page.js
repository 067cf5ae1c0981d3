// Shows what /events sends, and posts what the fault buttons say. Texts from the exchange become text nodes, never markup.
"use strict";

const MINUS = "−";

// ── how values are written ──────────────────────────────────────────────────────────────────────────────────────────

const grouped = new Intl.NumberFormat("en");
const whole = (value) => grouped.format(value);
const shortened = (address) => (address && address.length > 12 ? `${address.slice(0, 4)}…${address.slice(-4)}` : address ?? "");

function money(units, decimals) {
  return (units / 10 ** decimals).toLocaleString("en", { maximumSignificantDigits: 6 });
}

function profit(row) {
  if (row.profit === null) return { text: "" };
  const percent = row.entry > 0 ? ` (${((100 * row.profit) / row.entry).toFixed(1)} %)` : "";
  const sign = row.profit < 0 ? MINUS : "+";
  return {
    text: `${sign}${money(Math.abs(row.profit), row.quote_decimals)}${percent.replace("-", MINUS)}`,
    tone: row.profit < 0 ? "bad" : "good",
  };
}

const address = (value) => ({ text: shortened(value), title: value ?? "", kind: "address" });
const number = (text, more = {}) => ({ text, kind: "number", ...more });
const plain = (value) => ({ text: value ?? "" });

// ── the tables: columns as [heading, row => cell, true for a column of numbers] ─────────────────────────────────────

const TABLES = {
  pools: {
    title: "Pools",
    columns: [
      ["token", (row) => ({ text: row.symbol, title: row.name })],
      ["mint", (row) => address(row.mint)],
      ["market", (row) => plain(row.market)],
      ["story", (row) => plain(row.halted ? `${row.price_path}, halted` : row.price_path)],
      ["price", (row) => number(`${money(row.price, row.quote_decimals)} ${row.quote}`), true],
      ["market cap", (row) => number(`${money(row.market_cap, row.quote_decimals)} ${row.quote}`), true],
      ["liquidity", (row) => number(`${money(row.liquidity, row.quote_decimals)} ${row.quote}`), true],
    ],
  },
  positions: {
    title: "Positions",
    columns: [
      ["id", (row) => number(whole(row.position)), true],
      ["wallet", (row) => address(row.wallet)],
      ["token", (row) => plain(row.symbol)],
      ["tokens", (row) => number(whole(row.tokens)), true],
      ["entry", (row) => number(money(row.entry, row.quote_decimals)), true],
      ["profit", (row) => number("", profit(row)), true],
      ["signalled", (row) => plain(row.signalled)],
      ["state", (row) => plain(row.closed === null ? "open" : `closed: ${row.closed}`)],
      ["copy of", (row) => address(row.copy_of)],
    ],
  },
  sessions: {
    title: "Sessions",
    columns: [
      ["id", (row) => number(whole(row.session)), true],
      ["key", (row) => plain(row.key)],
      ["state", (row) => ({ text: row.state, tone: row.state === "live" ? "good" : "" })],
      ["wallets", (row) => ({ text: row.wallets.map(shortened).join(" "), title: row.wallets.join(" "), kind: "address" })],
      ["positions", (row) => number(whole(row.positions)), true],
      ["watched wallets", (row) => number(whole(row.watched)), true],
    ],
  },
  signals: {
    title: "Signals",
    columns: [
      ["no.", (row) => number(whole(row.number)), true],
      ["type", (row) => plain(row.type)],
      ["session", (row) => number(row.session === null ? "" : whole(row.session)), true],
      ["position", (row) => number(row.position === null ? "" : whole(row.position)), true],
      ["wallet", (row) => address(row.wallet)],
      ["token", (row) => plain(row.symbol)],
      ["reason", (row) => plain(row.reason)],
    ],
  },
  transactions: {
    title: "Transactions",
    columns: [
      ["signature", (row) => address(row.signature)],
      ["slot", (row) => number(whole(row.slot)), true],
      ["payer", (row) => address(row.payer)],
      ["result", (row) => (row.error === null ? { text: "ok", tone: "good" } : { text: row.error, tone: "bad" })],
      ["trades", (row) => plain(row.trades.map((trade) => `${trade.side} ${whole(trade.tokens)} ${trade.symbol}`).join(", "))],
      ["fee", (row) => number(whole(row.fee), { title: "lamports" }), true],
    ],
  },
};

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function cell({ text, title = "", tone = "", kind = "" }) {
  return element("td", { textContent: text, title, className: `${kind} ${tone}`.trim() });
}

function buildTables() {
  for (const [name, { title, columns }] of Object.entries(TABLES)) {
    const headings = columns.map(([heading, , isNumber]) =>
      element("th", { textContent: heading, scope: "col", className: isNumber ? "number" : "" }));
    const table = element("table", { id: name }, element("thead", {}, element("tr", {}, ...headings)), element("tbody"));
    const box = element("div", { className: "scroll" }, table);
    document.querySelector("main").append(element("section", {}, element("h2", { textContent: title }), box));
  }
}

function show(picture) {
  document.querySelector('[data-count="slot"]').textContent = whole(picture.slot);
  for (const [name, value] of Object.entries(picture.counts)) {
    document.querySelector(`[data-count="${name}"]`).textContent = whole(value);
  }
  for (const [name, { columns }] of Object.entries(TABLES)) {
    const rows = picture[name].map((row) => element("tr", {}, ...columns.map(([, write]) => cell(write(row)))));
    const nothing = element("td", { textContent: "none yet", className: "empty", colSpan: columns.length });
    document.querySelector(`#${name} tbody`).replaceChildren(...(rows.length ? rows : [element("tr", {}, nothing)]));
  }
}

// ── faults: what the control API is told, and what it means ─────────────────────────────────────────────────────────

const FAULTS = [
  { name: "drop", title: "end every connection without a word", action: "drop" },
  { name: "close", title: "close every connection with code 1001", action: "close", body: { code: 1001, reason: "going away" } },
  { name: "mute", title: "say nothing, read nothing, answer no ping; sockets stay open", action: "mute" },
  { name: "unmute", title: "speak again", action: "unmute" },
  { name: "half-open", title: "forget the connections without telling the clients", action: "half-open" },
  { name: "error message", title: "rate_limited, to every session", action: "error", body: { code: "rate_limited", message: "ordered from the page" } },
  { name: "corrupt frame", title: "a text frame that is cut short", action: "corrupt", body: { kind: "json" } },
  { name: "slow link", title: "2,000 bytes a second", action: "slow-link", body: { bytes_per_s: 2000 } },
  { name: "latency", title: "500 ms", action: "latency", body: { ms: 500 } },
  { name: "RPC error", title: "the next sendTransaction is refused with -32005", action: "rpc", body: { method: "sendTransaction", error_code: -32005, error_message: "Node is behind", handled: false } },
  { name: "RPC 503", title: "the next JSON-RPC call is answered with HTTP 503", action: "rpc", body: { status: 503 } },
  { name: "node hangs", title: "the first JSON-RPC node takes requests and answers none", action: "node", body: { hangs: true } },
  { name: "node ahead", title: "the first JSON-RPC node is 500 blocks ahead, and calls blockhashes dead", action: "node", body: { heights_ahead: 500 } },
  { name: "node behind", title: "the first JSON-RPC node is 100 slots behind", action: "node", body: { lag_slots: 100 } },
  { name: "REST 429", title: "the next REST call is answered with HTTP 429", action: "api", body: { status: 429, retry_after_s: 1 } },
  { name: "late landing", title: "the next transaction lands 10 s later", action: "transactions", body: { fate: "late", landing_delay_ms: 10000 } },
  { name: "lost transaction", title: "the next transaction gets lost; sent again, it may land", action: "transactions", body: { fate: "lost" } },
  { name: "restart", title: "restart the stream service: down for a second, sessions kept", action: "restart", body: { keep_sessions: true, down_ms: 1000 } },
  { name: "restart, forget", title: "restart the stream service: down for a second, sessions lost", action: "restart", body: { keep_sessions: false, down_ms: 1000 } },
  { name: "clear", title: "order nothing any more", action: "clear" },
];

function buildButtons() {
  for (const { name, title, action, body = {} } of FAULTS) {
    const button = element("button", { type: "button", textContent: name, title });
    button.dataset.fault = name;
    button.addEventListener("click", () => order(name, action, body));
    document.querySelector("#faults").append(button);
  }
}

async function order(name, action, body) {
  const outcome = document.querySelector("#outcome");
  outcome.textContent = `${name} …`;
  try {
    const headers = { "Content-Type": "application/json" };
    const answer = await fetch(`sandbox/${action}`, { method: "POST", headers, body: JSON.stringify(body) });
    const told = await answer.json();
    outcome.textContent = answer.ok ? `${name}: done${reach(told)}. ${await pending()}` : `${name}: ${told.error}`;
  } catch (error) {
    outcome.textContent = `${name}: ${error}`;
  }
}

const reach = ({ connections }) => (connections === undefined ? "" : `, ${connections} connection(s)`);

async function pending() {
  const { answers, transactions, latency_ms: latency, bytes_per_s: rate, nodes } = await (await fetch("sandbox/faults")).json();
  const waiting = [
    ...answers.map(({ service, call }) => `${service} ${call ?? "any call"}`),
    ...transactions.map((fate) => `a transaction: ${fate}`),
    ...Object.entries(nodes).map(([number, lies]) => `node ${number}: ${Object.keys(lies).join(", ")}`),
    ...(latency ? [`latency ${latency} ms`] : []),
    ...(rate ? [`${whole(rate)} bytes/s`] : []),
  ];
  return waiting.length ? `In force: ${waiting.join(", ")}` : "Nothing else is in force";
}

// ── the link ────────────────────────────────────────────────────────────────────────────────────────────────────────

function listen() {
  const link = document.querySelector("#link");
  const tell = (state, words) => {
    link.dataset.state = state;
    link.textContent = words;
  };
  const events = new EventSource("events");
  events.addEventListener("open", () => tell("live", "live"));
  events.addEventListener("error", () => {
    // The browser tries again by itself, unless the server refused.
    const refused = events.readyState === EventSource.CLOSED;
    tell("lost", refused ? "refused: too many pages are open; reload later" : "lost, trying again");
  });
  events.addEventListener("picture", (event) => show(JSON.parse(event.data)));
}

buildTables();
buildButtons();
listen();
