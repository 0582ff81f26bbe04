// What is stored and what queries read, in bytes and in money.

import { ask } from "./api.js";
import { fill, section } from "./board.js";
import { el, nothing, table } from "./dom.js";
import { ago, bytes, number } from "./format.js";

export function sections() {
  return {
    costs: section("full", "Storage and costs", "An estimate by the prices of [costs] in the configuration; also the tables stored_bytes and cost_estimate of SQL."),
    queries: section("full", "Queries", "The last queries of SQL and what each read; also the table query_log."),
  };
}

// Fills the sections; a token that sees only a part of the data is told why there is nothing.
export async function look(parts) {
  try {
    const [costs, queries] = await Promise.all([ask("/v1/costs"), ask("/v1/queries?limit=50")]);
    fill(parts.costs, costTable(costs));
    fill(parts.queries, queryTable(queries.queries));
  } catch (problem) {
    for (const part of Object.values(parts)) fill(part, nothing(problem.title ?? "No figures", problem.detail ?? ""));
  }
}

const money = (value, currency) => `${value.toLocaleString(undefined, { minimumFractionDigits: 2, maximumFractionDigits: value < 0.1 ? 6 : 2 })} ${currency}`;

function costTable(costs) {
  const lines = costs.lines.filter((line) => line.bytes);
  if (!lines.length) return nothing("Nothing is stored yet", "What topics and tables hold will be here.");
  return el("div", { class: "flow" },
    el("p", { class: "lead" }, `Storing comes to ${money(costs.stored_per_month, costs.currency)} a month, reading since the start to ${money(costs.scanned_since_start, costs.currency)}.`),
    table("Storage and costs", [
      { title: "", cell: (l) => l.item }, { title: "Where", cell: (l) => l.kind }, { title: "What", cell: (l) => l.name },
      { title: "Size", class: "num", cell: (l) => bytes(l.bytes) }, { title: "Per GiB", class: "num", cell: (l) => money(l.price_per_gib, costs.currency) },
      { title: "Cost", class: "num", cell: (l) => money(l.cost, costs.currency) }, { title: "Per", cell: (l) => l.per },
    ], lines.sort((a, b) => b.cost - a.cost || b.bytes - a.bytes)));
}

function queryTable(queries) {
  if (!queries.length) return nothing("No query yet", "Ask one under SQL, or open a dashboard.");
  return table("Queries", [
    { title: "When", cell: (q) => ago(q.at) }, { title: "Who", cell: (q) => (q.token ? `${q.kind} (${q.token})` : q.kind) },
    { title: "Time", class: "num", cell: (q) => `${number(q.ms)} ms` }, { title: "Rows", class: "num", cell: (q) => (q.error ? el("span", { class: "tag bad", title: q.error }, "failed") : number(q.rows)) },
    { title: "Parquet", class: "num", cell: (q) => bytes(q.scanned.parquet_bytes) }, { title: "Log", class: "num", cell: (q) => bytes(q.scanned.log_bytes) },
    { title: "SQL", cell: (q) => el("code", { title: q.sql }, q.sql.replace(/\s+/g, " ").slice(0, 90)) },
  ], queries);
}
