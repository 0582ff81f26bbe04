// The catalog: from sources over topics, streams, views and tables to panels, who answers for them, and the way from one to the next.

import { ask, showLink } from "./api.js";
import { el, nothing, table } from "./dom.js";
import { ago, bytes, duration, number } from "./format.js";

const KINDS = [["source", "Sources"], ["topic", "Topics"], ["stream", "Streams"], ["view", "Views"], ["table", "Tables"], ["files", "Files in the lake"], ["job", "Jobs"], ["sink", "Sinks"], ["alert", "Alerts"], ["dashboard", "Dashboards"], ["panel", "Panels"]];
const NAMES = { source: "source", topic: "topic", stream: "stream", view: "view", table: "table", files: "Parquet files", job: "job", sink: "sink", alert: "alert", dashboard: "dashboard", panel: "panel" };

export async function show(main, { query }, go) {
  document.title = "Catalog – Millpond";
  showLink("");
  const { entries, lineage } = await ask("/v1/catalog");
  const id = (entry) => `${entry.kind}:${entry.name}`;
  const list = el("div", { class: "entries" });
  const detail = el("div", { class: "entry" });
  const search = el("input", { type: "search", placeholder: "name, column, owner…", "aria-label": "Search the catalog", value: query.get("q") ?? "" });
  let chosen = query.get("name");
  const matches = (entry) => {
    const text = [entry.name, entry.title, entry.owner, entry.description, ...(entry.columns ?? []).map((c) => c.name)].join(" ").toLowerCase();
    return search.value.toLowerCase().split(/\s+/).every((word) => text.includes(word));
  };
  const draw = () => {
    const found = entries.filter(matches);
    list.replaceChildren(...KINDS.flatMap(([kind, title]) => {
      const some = found.filter((entry) => entry.kind === kind);
      return some.length ? [el("h3", {}, title, el("small", {}, ` ${number(some.length)}`)), ...some.map((entry) => el("a", { href: `/catalog?name=${encodeURIComponent(id(entry))}`, "aria-current": id(entry) === chosen ? "true" : null }, entry.title ?? entry.name))] : [];
    }));
    if (!found.length) list.replaceChildren(nothing("Nothing is called so", "Try another word."));
    const entry = entries.find((one) => id(one) === chosen) ?? found.find((one) => one.kind === "stream") ?? found[0];
    detail.replaceChildren(...(entry ? [card(entry, entries, lineage)] : []));
  };
  search.addEventListener("input", draw);
  main.replaceChildren(el("div", { class: "head" }, el("div", { class: "grow" }, el("h1", {}, "Catalog"), el("p", { class: "sub" }, "Tables, columns, owners, freshness, and the way from source to chart"))),
    el("div", { class: "catalog" }, el("aside", { class: "card" }, el("div", { class: "pad" }, search), list), detail));
  draw();
  return { close() {}, update(next) { chosen = next.get("name"); draw(); if (chosen) detail.scrollIntoView({ block: "nearest" }); } };
}

function card(entry, entries, lineage) {
  const facts = [];
  const fact = (name, value) => { if (value !== null && value !== undefined && value !== "") facts.push(el("div", {}, el("dt", {}, name), el("dd", {}, value))); };
  fact("Owner", entry.owner ?? "nobody is named");
  fact("Fresh as of", entry.fresh_as_of ? el("span", { title: entry.fresh_as_of }, ago(entry.fresh_as_of)) : null);
  fact("Records", entry.records === undefined ? null : number(entry.records));
  fact("Rows", entry.rows === undefined ? null : number(entry.rows));
  fact("Files", entry.files === undefined ? null : number(entry.files));
  fact("Size", entry.bytes === undefined ? null : bytes(entry.bytes));
  fact("Partitions", entry.partitions === undefined ? null : number(entry.partitions));
  fact("Window", entry.window_ms ? duration(entry.window_ms / 1000).replace(/ 0 \w+/g, "") : null);
  fact("Keys", entry.keys?.length ? entry.keys.join(", ") : null);
  fact("Event time", entry.event_time);
  fact("Reads", entry.path);
  fact("Writes", entry.to);
  fact("Steps", entry.steps ? entry.steps.join(", ") : null);
  fact("Severity", entry.severity);
  fact("Panels", entry.panels ? entry.panels.join(", ") : null);
  const query = ["stream", "view", "table"].includes(entry.kind) ? el("a", { class: "button", href: `/sql?${new URLSearchParams({ q: `SELECT * FROM ${quoted(entry.name)} LIMIT 50` })}` }, "Look at rows") : entry.kind === "topic" ? el("a", { class: "button", href: `/topics?topic=${encodeURIComponent(entry.name)}` }, "Newest records") : ["dashboard", "panel"].includes(entry.kind) ? el("a", { class: "button", href: `/d/${encodeURIComponent(entry.dashboard ?? entry.name)}` }, "Open") : null;
  return el("section", { class: "card", "aria-label": entry.name },
    el("header", {}, el("h2", { class: "mono" }, entry.title ?? entry.name), el("span", { class: "tag" }, NAMES[entry.kind]), query),
    entry.description || ["source", "job", "sink", "alert"].includes(entry.kind) ? el("p", { class: "lead" }, entry.description ?? "") : el("p", { class: "lead" }, "No description: write one as description = \"…\" in the configuration."),
    el("dl", { class: "facts" }, facts), way(entry, entries, lineage),
    entry.columns?.length ? table(`Columns of ${entry.name}`, [
      { title: "Column", class: "mono", cell: (c) => c.name }, { title: "Type", class: "mono dim", cell: (c) => c.type }, { title: "", cell: (c) => (entry.keys?.includes(c.name) ? "key" : c.name === entry.event_time ? "event time" : "") }, { title: "Meaning", cell: (c) => c.description ?? "" },
    ], entry.columns) : null,
    entry.sql ? el("pre", { class: "code", tabindex: "0" }, entry.sql.trim()) : null);
}

function quoted(name) {
  return /^[a-z_][a-z0-9_]*$/.test(name) ? name : `"${name}"`;
}

// Everything before and after an entry, as columns from left to right.
function way(entry, entries, lineage) {
  const own = `${entry.kind}:${entry.name}`;
  const walk = (from, next) => {
    const levels = [];
    const seen = new Set([own]);
    for (let here = [own]; here.length;) {
      here = [...new Set(here.flatMap((id) => lineage.filter((arrow) => arrow[from] === id).map((arrow) => arrow[next])))].filter((id) => !seen.has(id));
      here.forEach((id) => seen.add(id));
      if (here.length) levels.push(here);
    }
    return levels;
  };
  const levels = [...walk(1, 0).reverse(), [own], ...walk(0, 1)];
  if (levels.length < 2) return null;
  const title = (id) => entries.find((one) => `${one.kind}:${one.name}` === id)?.title ?? id.slice(id.indexOf(":") + 1);
  return el("div", { class: "way", role: "group", "aria-label": "Lineage" }, levels.map((level) => el("ul", {}, level.map((id) => el("li", {}, el("a", { href: `/catalog?name=${encodeURIComponent(id)}`, "aria-current": id === own ? "true" : null }, el("small", {}, NAMES[id.split(":")[0]]), title(id)))))));
}
