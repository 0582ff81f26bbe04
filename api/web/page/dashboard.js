// One dashboard: its panels, drawn live. Range and filters live in the address, so that a link shows the same.

import { ask, listen, showLink } from "./api.js";
import { bar, line, pie, spark } from "./charts.js";
import { el, failed, loading, nothing, table } from "./dom.js";
import { ago, cell, duration, isNumeric, number, time, words } from "./format.js";
import { onSettings } from "./settings.js";

const RANGES = [["15m", "15 min"], ["1h", "1 h"], ["6h", "6 h"], ["24h", "24 h"], ["7d", "7 d"], ["30d", "30 d"]];
const WIDTH = { line: 8, bar: 6, pie: 4, table: 6, number: 3 };
const DRAW = { line, bar, pie };

// Rows of twelve columns, filled to the edge.
function widths(panels) {
  const spans = new Array(panels.length);
  for (let i = 0; i < panels.length;) {
    const number = panels[i].kind === "number";
    let end = i;
    let sum = 0;
    while (end < panels.length && (panels[end].kind === "number") === number && sum + WIDTH[panels[end].kind] <= 12) { sum += WIDTH[panels[end].kind]; end += 1; }
    let left = 12;
    for (let k = i; k < end; k += 1) {
      spans[k] = k === end - 1 ? left : Math.round((WIDTH[panels[k].kind] * 12) / sum);
      left -= spans[k];
    }
    i = end;
  }
  return spans;
}

export async function show(main, name, query, go) {
  let dashboard;
  try {
    dashboard = await ask(`/v1/dashboards/${encodeURIComponent(name)}`);
  } catch (problem) {
    main.replaceChildren(failed(problem, () => show(main, name, query, go)));
    return () => {};
  }
  document.title = `${dashboard.title} – Millpond`;
  dashboard.filters = dashboard.filters.map((filter) => filter.name);
  const fresh = el("p", { class: "sub" }, "Waiting for the first figures…");
  const status = { at: null, watermark: null };
  const page = `/v1/dashboards/${encodeURIComponent(name)}`;
  const asked = new URLSearchParams([...query].filter(([key]) => ["range", "from", "to", ...dashboard.filters].includes(key)));
  const spans = widths(dashboard.panels);
  const panels = dashboard.panels.map((panel, i) => new PanelCard(panel, spans[i], `${page}/panels/${i}`, asked));
  const grid = panels.length ? el("div", { class: "grid" }, panels.map((panel) => panel.card)) : nothing("This dashboard has no panels yet", "Declare them under [[dashboards.panels]] in the configuration.");
  main.replaceChildren(
    el("div", { class: "head" }, el("div", { class: "grow" }, el("h1", {}, dashboard.title), fresh), controls(dashboard, query, go, panels)),
    grid);
  const tell = () => {
    if (!status.at) return;
    const mark = status.watermark ? ` · events up to ${time(status.watermark)}` : "";
    fresh.textContent = `Updated ${ago(status.at)}${mark}`;
  };
  const timer = setInterval(tell, 1000);
  const stop = panels.length ? listen(`${page}/live?${asked}`, {
    panel(data) {
      status.at = Date.now();
      if (data.event_watermark && (!status.watermark || data.event_watermark > status.watermark)) status.watermark = data.event_watermark;
      panels[data.panel].take(data);
      tell();
    },
    problem({ panel, problem }) { panels[panel].fail(problem); },
  }) : () => {};
  const forget = onSettings(() => panels.forEach((panel) => panel.draw()));
  return () => { stop(); forget(); clearInterval(timer); showLink(""); panels.forEach((panel) => panel.close()); };
}

function controls(dashboard, query, go, panels) {
  const change = (changes) => {
    const next = new URLSearchParams(query);
    for (const [key, value] of Object.entries(changes)) value ? next.set(key, value) : next.delete(key);
    go(next);
  };
  const range = query.get("range") ?? "";
  const custom = query.get("from") || query.get("to");
  const button = (value, text) => el("button", { type: "button", "aria-pressed": String(!custom && range === value), onclick: () => change({ range: value, from: "", to: "" }) }, text);
  const segments = el("div", { class: "segments", role: "group", "aria-label": "Time range" }, button("", "Auto"), RANGES.map(([value, text]) => button(value, text)));
  const filters = dashboard.filters.map((key) => {
    const list = `values-${key}`;
    const input = el("input", { type: "search", placeholder: "all", value: query.get(key) ?? "", list, autocomplete: "off", spellcheck: "false", onchange: (event) => change({ [key]: event.target.value.trim() }) });
    const options = el("datalist", { id: list });
    input.addEventListener("focus", () => options.replaceChildren(...valuesOf(key, panels).map((value) => el("option", { value }))));
    return el("label", { class: "filter" }, words(key), input, options);
  });
  const from = custom ? el("button", { type: "button", class: "quiet", onclick: () => change({ from: "", to: "" }) }, `${query.get("from") ? time(query.get("from"), { date: true }) : "…"} – ${query.get("to") ? time(query.get("to"), { date: true }) : "now"} ✕`) : null;
  return el("div", { class: "controls" }, segments, from, filters);
}

// The values of a key that the panels show now.
function valuesOf(key, panels) {
  const values = new Set();
  for (const { data } of panels) {
    const at = data?.columns?.findIndex((column) => column.name === key) ?? -1;
    if (at >= 0) for (const row of data.rows) if (row[at] !== null && row[at] !== "") values.add(String(row[at]));
  }
  return [...values].sort().slice(0, 200);
}

class PanelCard {
  constructor(panel, span, path, asked) {
    this.panel = panel;
    this.data = null;
    this.problem = null;
    this.asTable = false;
    this.path = path;
    this.asked = asked;
    this.note = el("span", { class: "note" });
    this.body = el("div", { class: "body" }, loading());
    const chart = panel.kind in DRAW;
    this.toggle = chart ? el("button", { type: "button", class: "quiet", "aria-pressed": "false", onclick: () => this.flip() }, "Table") : null;
    const title = el("h2", {}, panel.title);
    this.card = el("section", { class: "card panel", "aria-label": panel.title, data: { kind: panel.kind }, style: { "--span": String(span), "--span-medium": panel.kind === "number" ? "3" : panel.kind === "pie" ? "6" : "12" } },
      el("header", {}, title, this.note, el("div", { class: "acts" }, this.toggle, el("a", { class: "quiet button", href: `${path}?${asked}`, target: "_blank", rel: "noopener" }, "JSON"))), this.body);
    this.resize = new ResizeObserver(() => this.chart?.resize());
    this.resize.observe(this.body);
  }

  take(data) {
    this.data = data;
    this.problem = null;
    this.draw();
  }

  fail(problem) {
    this.problem = problem;
    this.draw();
  }

  flip() {
    this.asTable = !this.asTable;
    this.toggle.setAttribute("aria-pressed", String(this.asTable));
    this.toggle.textContent = this.asTable ? "Chart" : "Table";
    this.draw();
  }

  async again() {
    this.body.replaceChildren(loading());
    try { this.take(await ask(`${this.path}?${this.asked}`)); } catch (problem) { this.fail(problem); }
  }

  draw() {
    if (this.problem) return this.replace(failed(this.problem, () => this.again()));
    if (!this.data) return undefined;
    const { data, panel } = this;
    this.note.textContent = this.noteText();
    this.note.title = this.note.textContent;
    if (panel.kind === "number") return this.replace(...this.figure());
    if (!data.rows.length) return this.replace(nothing("No rows in this range", "Widen the range or clear a filter; the chart fills as events arrive."));
    if (this.asTable || panel.kind === "table") return this.replace(this.table());
    if (!this.chart) {
      const place = el("div", { class: "chart" });
      this.replace(place);
      this.chart = window.echarts.init(place, null, { renderer: "canvas" });
    }
    this.chart.setOption(DRAW[panel.kind](data, this.body.clientWidth), { notMerge: true });
    return undefined;
  }

  noteText() {
    const { data, panel } = this;
    const parts = [];
    if (data.truncated) parts.push("cut at the row limit");
    const shown = data.series && panel.kind !== "pie" ? new Set(data.rows.map((row) => row[data.columns.findIndex((c) => c.name === data.series)])).size : data.rows.length;
    if (panel.kind !== "number" && data.groups_total > shown) parts.push(`top ${shown} of ${number(data.groups_total)}`);
    if (data.from) parts.push(data.to || this.asked.get("from") ? "chosen range" : `last ${duration(Math.round((Date.now() - Date.parse(data.from)) / 60000) * 60).replace(" 0 s", "").replace(" 0 min", "").replace(" 0 h", "")}`);
    const unused = [...this.asked.keys()].filter((key) => !["range", "from", "to"].includes(key) && !panel.keys.includes(key));
    if (unused.length) parts.push(`not by ${unused.map(words).join(", ")}`);
    if (data.stale) parts.push("stopped: see System");
    return parts.join(" · ");
  }

  figure() {
    const { data } = this;
    const at = data.columns.findIndex((column) => isNumeric(column.type));
    const value = data.rows[0]?.[at >= 0 ? at : 0];
    const shown = value === undefined && data.additive?.[0] ? 0 : value;
    const course = data.course?.length > 1 ? spark(data.course, data.window_ms) : null;
    return [el("div", { class: "figure" }, el("span", {}, typeof shown === "string" && at < 0 ? shown : number(shown ?? null)), data.unit ? el("small", {}, data.unit) : null), course];
  }

  table() {
    const columns = this.data.columns.map((column, i) => ({
      title: words(column.name), class: isNumeric(column.type) ? "num" : column.type === "TIMESTAMP" ? "nowrap" : null, cell: (row) => (row[i] === null ? "–" : cell(row[i], column.type)),
    }));
    return table(this.panel.title, columns, this.data.rows);
  }

  replace(...nodes) {
    this.chart?.dispose();
    this.chart = null;
    // A table keeps its place while its figures change under the reader.
    const scrolled = this.body.querySelector(".scroll")?.scrollTop ?? 0;
    this.body.replaceChildren(...nodes.filter(Boolean));
    const scroll = this.body.querySelector(".scroll");
    if (scroll) scroll.scrollTop = scrolled;
  }

  close() {
    this.resize.disconnect();
    this.chart?.dispose();
  }
}
