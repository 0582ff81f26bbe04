// A box for SQL over topics, views and the lake, and its result.

import { ask, save, showLink } from "./api.js";
import { el, failed, loading, nothing, table } from "./dom.js";
import { bytes, exact, isNumeric, number } from "./format.js";
import { onSettings } from "./settings.js";

const ROWS = 1000;

export async function show(main, { query }, go) {
  document.title = "SQL – Millpond";
  showLink("");
  const names = el("div", { class: "names" }, loading());
  const text = el("textarea", { spellcheck: "false", autocapitalize: "off", autocomplete: "off", "aria-label": "SQL" });
  const result = el("div", { class: "result" });
  const status = el("span", { role: "status", class: "grow" });
  const button = el("button", { type: "button", class: "primary", onclick: () => go(new URLSearchParams({ q: text.value })) }, "Run");
  const file = (format, title) => el("button", { type: "button", onclick: () => download(text.value, format, status) }, title);
  text.value = query.get("q") ?? "";
  text.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); go(new URLSearchParams({ q: text.value })); }
  });
  main.replaceChildren(el("div", { class: "head" }, el("div", { class: "grow" }, el("h1", {}, "SQL"), el("p", { class: "sub" }, "History in Parquet and the live log are one table. CREATE and DROP change streams, tables and views. Times are compared in UTC."))),
    el("div", { class: "sql" },
      el("div", {}, el("section", { class: "card" }, text, el("div", { class: "run" }, button, file("csv", "CSV"), file("xlsx", "Excel"), status, el("span", {}, el("kbd", {}, "Ctrl"), " + ", el("kbd", {}, "Enter")))), result),
      el("aside", { class: "card" }, el("header", {}, el("h2", {}, "Tables")), names)));
  const put = (sql) => { text.value = sql; text.focus(); };
  listNames(names, text, put);
  const answer = { last: null };
  const draw = () => answer.last && result.replaceChildren(resultTable(answer.last));
  const forget = onSettings(draw);
  if (text.value.trim()) {
    result.replaceChildren(el("section", { class: "card" }, el("div", { class: "body" }, loading())));
    // What changes something waits for a click: the statement may come from a link.
    const run = async (read_only) => {
      const started = performance.now();
      try {
        answer.last = await ask("/v1/sql", { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ sql: text.value, limit: ROWS, read_only }) });
        const ms = Math.round(performance.now() - started);
        status.textContent = `${number(answer.last.rows.length)} ${answer.last.rows.length === 1 ? "row" : "rows"} in ${number(ms)} ms${answer.last.scanned ? ` · ${bytes(answer.last.scanned.bytes)} read` : ""}${answer.last.truncated ? ` · cut at ${number(ROWS)}: add LIMIT, or take CSV` : ""}`;
        draw();
      } catch (problem) {
        status.textContent = "";
        const asks = read_only && problem.type === "urn:millpond:problem:statement-changes";
        const apply = el("button", { type: "button", onclick: () => run(false) }, "Apply");
        result.replaceChildren(el("section", { class: "card" }, asks ? el("div", { class: "body" }, el("p", {}, "This changes what is declared on the server."), apply) : failed(problem)));
      }
    };
    await run(true);
  } else {
    result.replaceChildren(el("section", { class: "card" }, nothing("No query yet", "Write one above, or click a table on the side.")));
  }
  text.focus({ preventScroll: true });
  return { close: forget };
}

async function listNames(place, text, put) {
  try {
    const [views, streams] = await Promise.all([ask("/v1/views"), ask("/v1/streams")]);
    const entry = (name, columns, sql) => el("button", { type: "button", title: columns.map((c) => `${c.name} ${c.type}`).join("\n"), onclick: () => put(sql) }, name);
    const quoted = (name) => (/^[a-z_][a-z0-9_]*$/.test(name) ? name : `"${name}"`);
    const list = (title, nodes) => (nodes.length ? [el("h3", {}, title), nodes] : []);
    place.replaceChildren(...[
      list("Streams", streams.streams.map((s) => entry(s.name, s.columns, `SELECT * FROM ${quoted(s.name)} ORDER BY _timestamp DESC LIMIT 50`))),
      list("Views", views.views.map((v) => entry(v.name, v.columns, `SELECT * FROM ${quoted(v.name)}${v.window_ms ? " ORDER BY window_start DESC" : ""} LIMIT 50`))),
    ].flat(2));
    if (!place.childElementCount) place.replaceChildren(nothing("No tables", "Declare a stream or a view in the configuration."));
    const first = streams.streams[0];
    if (!text.value && first) text.placeholder = `SELECT count(*) FROM ${quoted(first.name)}`;
  } catch (problem) {
    place.replaceChildren(failed(problem));
  }
}

function resultTable(answer) {
  if (!answer.rows.length) return el("section", { class: "card" }, nothing("No rows", "The query ran and found nothing."));
  const columns = answer.columns.map((column, i) => ({
    title: column.name, class: isNumeric(column.type) ? "num" : column.type === "TIMESTAMP" ? "nowrap" : null,
    cell: (row) => (row[i] === null ? el("span", { class: "dim" }, "null") : exact(row[i], column.type)),
  }));
  return el("section", { class: "card" }, table("Result", columns, answer.rows));
}

async function download(sql, format, status) {
  if (!sql.trim()) return;
  status.textContent = "Asking…";
  try {
    await save(`/v1/sql?format=${format}`, `millpond.${format}`, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ sql, read_only: true }) });
    status.textContent = "Downloaded";
  } catch (problem) {
    status.textContent = problem.detail ?? "the server does not answer";
  }
}
