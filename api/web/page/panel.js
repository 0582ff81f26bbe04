// One panel: a card with a chart, a figure or a table; what it waits for, what went wrong, and files to keep.

import { ask } from "./api.js";
import { bar, gauge, heading, heatmap, line, pie, places, spark, statusColour, toNumber, writer } from "./charts.js";
import { el, failed, light, loading, menu, nothing, statusWord, table } from "./dom.js";
import { cell, duration, formatted, isNumeric, number, time, words } from "./format.js";

const WIDTH = { line: 8, bar: 6, pie: 4, gauge: 4, table: 6, number: 3, heatmap: 8 };
const MEDIUM = { number: 4, pie: 6, gauge: 6 };
const DRAW = { line, bar, pie, gauge, heatmap };

// Rows of twelve columns, filled to the edge; a declared width is kept as it is. Figures stand with figures, charts with
// charts, and a gauge with either.
export function widths(panels) {
  const spans = new Array(panels.length);
  const wish = (panel) => panel.width ?? WIDTH[panel.kind];
  for (let i = 0; i < panels.length;) {
    let end = i;
    let sum = 0;
    let kind = null;
    while (end < panels.length && sum + wish(panels[end]) <= 12) {
      const own = panels[end].kind === "gauge" ? null : panels[end].kind === "number" ? "figure" : "chart";
      if (kind && own && own !== kind) break;
      kind = kind ?? own;
      sum += wish(panels[end]);
      end += 1;
    }
    const row = panels.slice(i, end);
    const fixed = row.some((panel) => panel.width);
    const mixed = kind === "figure" && row.some((panel) => panel.kind === "gauge");
    const share = (panel) => (mixed ? Math.floor((wish(panel) * 12) / sum) : Math.round((wish(panel) * 12) / sum));
    // What is left over goes to the gauge, else to the last.
    const takes = mixed ? row.findIndex((panel) => panel.kind === "gauge") : row.length - 1;
    const others = row.reduce((total, panel, k) => total + (k === takes ? 0 : share(panel)), 0);
    row.forEach((panel, k) => { spans[i + k] = fixed ? wish(panel) : k === takes ? 12 - others : share(panel); });
    i = end;
  }
  return spans;
}

export class PanelCard {
  constructor(panel, number, span, path) {
    Object.assign(this, { panel, number, path, data: null, problem: null, asTable: false, asked: new URLSearchParams(), sorting: { by: null, down: false } });
    this.note = el("span", { class: "note" });
    this.light = el("span", { class: "lamp" });
    this.body = el("div", { class: "body" }, loading());
    this.toggle = panel.kind in DRAW ? el("button", { type: "button", "aria-pressed": "false", onclick: () => this.flip() }, "Show as table") : null;
    this.files = el("div", { class: "files" });
    const about = panel.description ? el("p", { class: "about" }, panel.description) : null;
    const query = panel.sql ? el("a", { href: "/sql", onclick: (event) => { event.currentTarget.href = `/sql?${new URLSearchParams({ q: this.statement() })}`; } }, "Open in SQL") : panel.view ? el("a", { href: `/catalog?name=view:${encodeURIComponent(panel.view)}` }, "Where it comes from") : null;
    this.card = el("section", { class: "card panel", "aria-label": panel.title, data: { kind: panel.kind, panel: String(number) }, style: { "--span": String(span), "--span-medium": String(MEDIUM[panel.kind] ?? 12) } },
      el("header", {}, this.light, el("h2", { title: panel.description ?? null }, panel.title), this.note, menu("⋯", `More about ${panel.title}`, about, this.toggle, query, this.files)), this.body);
    this.resize = new ResizeObserver(() => this.chart && this.draw());
    this.resize.observe(this.body);
  }

  // Another range or filter: what is there stays, dimmed, until its successor comes.
  ask(asked) {
    this.asked = asked;
    this.card.classList.add("waiting");
    const link = (format, text) => el("a", { href: `${this.path}?${new URLSearchParams([...asked, ["format", format]])}`, download: "" }, text);
    this.files.replaceChildren(el("b", {}, "Download"), link("xlsx", "Excel"), link("csv", "CSV"), el("a", { href: `${this.path}?${asked}`, download: `${this.panel.title}.json` }, "JSON"));
  }

  // The panel's SQL with what is chosen written into it, to be tried and changed by hand.
  statement() {
    const known = { from: this.data?.from ?? "1970-01-01T00:00:00Z", to: this.data?.to ?? "2200-01-01T00:00:00Z", now: new Date().toISOString() };
    return this.panel.sql.trim().replace(/\$([a-z_]\w*)/gi, (_, name) => `'${(known[name] ?? this.asked.getAll(name).join("|")).replaceAll("'", "''")}'`);
  }

  take(data) {
    this.data = data;
    this.problem = null;
    this.card.classList.remove("waiting");
    this.draw();
  }

  fail(problem) {
    this.problem = problem;
    this.card.classList.remove("waiting");
    this.draw();
  }

  flip() {
    this.asTable = !this.asTable;
    this.toggle.setAttribute("aria-pressed", String(this.asTable));
    this.toggle.textContent = this.asTable ? "Show as chart" : "Show as table";
    this.draw();
  }

  async again() {
    this.replace(loading());
    try { this.take(await ask(`${this.path}?${this.asked}`)); } catch (problem) { this.fail(problem); }
  }

  draw() {
    this.card.dataset.status = this.problem ? "" : this.data?.status ?? "";
    this.light.replaceChildren(...[light(this.problem ? null : this.data?.status)].filter(Boolean));
    if (this.problem) { this.note.textContent = ""; return this.replace(failed(this.problem, () => this.again())); }
    if (!this.data) return undefined;
    const { data, panel } = this;
    this.note.textContent = this.noteText();
    this.note.title = [this.note.textContent, data.as_of ? `as of ${time(data.as_of, { date: "auto" })}` : ""].filter(Boolean).join(" · ");
    if (panel.kind === "number") return this.replace(...this.figure());
    if (!data.rows.length) return this.replace(nothing("Nothing to show", data.from || [...this.asked].length ? "Widen the range or clear a filter." : "Rows appear here as they come."));
    if (this.asTable || panel.kind === "table") return this.replace(this.table());
    if (!this.chart) {
      const place = el("div", { class: "chart" });
      this.replace(place);
      this.chart = window.echarts.init(place, null, { renderer: "canvas" });
    }
    this.chart.resize();
    try {
      this.chart.setOption(DRAW[panel.kind](data, panel, this.body.clientWidth, this.body.clientHeight), { notMerge: true });
    } catch (error) {
      this.replace(failed({ title: "The chart cannot be drawn", detail: `${error.message}: look at the rows as a table` }));
    }
    return undefined;
  }

  noteText() {
    const { data, panel } = this;
    const parts = [];
    if (data.truncated) parts.push(`first ${number(data.rows.length)} rows`);
    const series = data.series && panel.kind !== "heatmap" ? data.columns.findIndex((c) => c.name === data.series) : -1;
    const shown = series >= 0 ? new Set(data.rows.map((row) => row[series])).size : data.rows.length;
    if (["bar", "pie", "line", "table"].includes(panel.kind) && data.groups_total > shown) parts.push(`top ${shown} of ${number(data.groups_total)}`);
    if (data.from && panel.range_ms && !data.to && !this.asked.get("from") && Math.abs(Date.now() - Date.parse(data.from) - panel.range_ms) < 120000) parts.push(`last ${duration(panel.range_ms / 1000).replace(/ 0 \w+/g, "")}`);
    const unused = (panel.ignores ?? []).filter((name) => this.asked.get(name));
    if (unused.length) parts.push(`not by ${unused.map(words).join(", ")}`);
    if (data.stale) parts.push("stopped: see Pipelines");
    return parts.join(" · ");
  }

  figure() {
    const { data, panel } = this;
    const { y } = places(data);
    const column = data.columns[y[0]]?.name ?? panel.y[0];
    const raw = data.rows[0]?.[y[0]];
    const value = raw === undefined && data.additive?.[0] ? 0 : raw ?? null;
    const format = panel.formats?.[column];
    const shown = el("span", {}, formatted(value, format, panel.unit));
    const unit = panel.unit && !(format && format !== "integer" && format !== "decimal" && format !== "text") ? el("small", {}, panel.unit) : null;
    const course = data.course?.length > 1 ? spark(data.course, data.window_ms) : null;
    const box = el("div", { class: "figure" }, shown, unit);
    if (data.status) box.style.setProperty("--figure", statusColour(data.status));
    return [box, this.change(value, column), course];
  }

  // What became of the figure since the one it is compared with.
  change(value, column) {
    const { data, panel } = this;
    const at = data.columns.findIndex((c) => c.name === panel.compare);
    if (at < 0) return panel.compare_label ? el("p", { class: "change" }, panel.compare_label) : null;
    const before = toNumber(data.rows[0]?.[at]);
    const now = toNumber(value);
    if (before === null || now === null) return el("p", { class: "change" }, "nothing to compare with");
    const share = before === 0 ? null : (100 * (now - before)) / Math.abs(before);
    const arrow = now > before ? "▲" : now < before ? "▼" : "＝";
    const text = share === null ? formatted(now - before, panel.formats?.[column], panel.unit) : `${Math.abs(share).toFixed(1)} %`;
    return el("p", { class: "change", title: `before: ${writer(panel, column)(before)}` }, el("b", { data: { way: now > before ? "up" : now < before ? "down" : "same" } }, `${arrow} ${text}`), ` ${panel.compare_label ?? "vs before"}`);
  }

  table() {
    const { data, panel } = this;
    const marks = new Map((data.marks ?? []).map(([row, column, colour]) => [`${row} ${column}`, colour]));
    const rows = data.rows.map((values, i) => ({ values, i }));
    const numeric = (i) => isNumeric(data.columns[i].type);
    const columns = data.columns.map((column, i) => ({
      title: heading(panel, column.name), class: numeric(i) ? "num" : ["TIMESTAMP", "DATE"].includes(column.type) ? "nowrap" : null,
      sort: ({ values }) => (numeric(i) ? toNumber(values[i]) : values[i]),
      cell: ({ values, i: row }) => this.cell(values, i, marks.get(`${row} ${i}`)),
    }));
    return table(panel.title, columns, rows, this.sorting);
  }

  cell(values, i, colour) {
    const { data, panel } = this;
    const { name, type } = data.columns[i];
    const value = values[i];
    if (name === panel.status) return colour ? el("span", { class: "stand", data: { status: colour } }, light(colour), statusWord(colour)) : "–";
    if (value === null) return "–";
    const format = panel.formats?.[name];
    const text = format ? formatted(value, format, panel.unit) : cell(value, type);
    const target = panel.links?.[name];
    const shown = target ? el("a", target.startsWith("/") ? { href: this.link(target, values) } : { href: this.link(target, values), target: "_blank", rel: "noopener" }, text) : text;
    return colour && colour !== "green" ? el("span", { class: "stand", data: { status: colour } }, light(colour), shown) : colour && !isNumeric(type) ? el("span", { class: "stand", data: { status: colour } }, light(colour), shown) : shown;
  }

  link(target, values) {
    return target.replace(/\{(\w+)\}/g, (_, column) => {
      const at = this.data.columns.findIndex((c) => c.name === column);
      return encodeURIComponent(at < 0 || values[at] === null ? "" : String(values[at]));
    });
  }

  replace(...nodes) {
    this.chart?.dispose();
    this.chart = null;
    // A table keeps its place while its figures change under the reader.
    const before = this.body.querySelector(".scroll");
    const [scrolled, focused] = [before?.scrollTop ?? 0, before === document.activeElement && before];
    this.body.replaceChildren(...nodes.filter(Boolean));
    const scroll = this.body.querySelector(".scroll");
    if (scroll) { scroll.scrollTop = scrolled; if (focused) scroll.focus({ preventScroll: true }); }
  }

  close() {
    this.resize.disconnect();
    this.chart?.dispose();
  }
}
