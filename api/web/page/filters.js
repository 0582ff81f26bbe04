// What a dashboard can be filtered by: a range or period, choices, texts, days. Each change goes into the address.

import { el } from "./dom.js";
import { time, words } from "./format.js";

const UNITS = { s: ["second", "seconds"], m: ["minute", "minutes"], h: ["hour", "hours"], d: ["day", "days"], w: ["week", "weeks"], mo: ["month", "months"], y: ["year", "years"] };
const SHORT = { s: "s", m: "min", h: "h", d: "d", w: "w", mo: "mo", y: "y" };
const NAMED = { all: "All", today: "Today", month: "This month", ytd: "This year" };
const BUTTONS_MAX = 7;

export function periodText(word, { brief = false } = {}) {
  if (NAMED[word]) return NAMED[word];
  const [, count, unit] = word.match(/^(\d+)([a-z]+)$/) ?? [];
  if (!UNITS[unit]) return word;
  return brief ? `${count} ${SHORT[unit]}` : `${count} ${UNITS[unit][count === "1" ? 0 : 1]}`;
}

// The lengths of time to choose from: the period filter's, or those for a page whose panels look back.
export function rangeControl(dashboard, query, change) {
  const filter = dashboard.filters.find((one) => one.kind === "period");
  const [key, words] = filter ? [filter.name, filter.options] : ["range", dashboard.ranges ?? []];
  if (!words.length) return null;
  const custom = query.get("from") || query.get("to");
  const chosen = custom ? null : query.get(key) ?? filter?.default ?? "";
  const pick = (word) => change({ [key]: word || null, from: null, to: null });
  const label = filter?.label ?? "Time range";
  const known = words.includes(chosen) || custom || chosen === "" ? words : [...words, chosen];
  const own = custom ? el("button", { type: "button", class: "quiet", data: { key: "custom" }, onclick: () => change({ from: null, to: null }) }, `${dayOf(query.get("from"), "…")} – ${dayOf(query.get("to"), "now")} ✕`) : null;
  if (known.length > BUTTONS_MAX) {
    return [el("label", { class: "filter" }, label, el("select", { data: { key }, onchange: (event) => pick(event.target.value) }, [filter?.default ? null : option("", "Auto", chosen), ...known.map((word) => option(word, periodText(word), chosen))])), own];
  }
  const button = (word, text) => el("button", { type: "button", data: { key: `${key}-${word}` }, "aria-pressed": String(!custom && chosen === word), onclick: () => pick(word) }, text);
  return [el("div", { class: "segments", role: "group", "aria-label": label }, filter?.default ? null : button("", "Auto"), known.map((word) => button(word, periodText(word, { brief: !filter })))), own];
}

function dayOf(value, otherwise) {
  return value ? time(/^\d+$/.test(value) ? Number(value) : value, { date: true, seconds: false }).replace(/ 00:00$/, "") : otherwise;
}

function option(value, text, chosen) {
  return el("option", { value, selected: value === chosen }, text);
}

export function filterControl(filter, query, change, panels) {
  const values = query.has(filter.name) ? query.getAll(filter.name).flatMap((v) => (filter.kind === "multi" ? v.split("|") : [v])).filter(Boolean) : filter.default ? filter.default.split(filter.kind === "multi" ? "|" : "\n") : [];
  const label = words(filter.label);
  const unset = filter.default ? "" : null;
  const common = { data: { key: filter.name }, class: values.length ? "set" : null };
  switch (filter.kind) {
    case "select": {
      const options = values[0] && !filter.options.includes(values[0]) ? [values[0], ...filter.options] : filter.options;
      return el("label", { class: "filter", title: filter.problem?.detail ?? null }, label, el("select", { ...common, onchange: (event) => change({ [filter.name]: event.target.value || unset }) }, option("", "All", values[0] ?? ""), options.map((one) => option(one, one, values[0]))));
    }
    case "multi": return several(filter, label, values, unset, change);
    case "date": return el("label", { class: "filter" }, label, el("input", { ...common, type: "date", value: values[0] ?? "", onchange: (event) => change({ [filter.name]: event.target.value || unset }) }));
    default: {
      const list = `values-${filter.name}`;
      const options = el("datalist", { id: list });
      const input = el("input", { ...common, type: "search", placeholder: "all", value: values[0] ?? "", list, autocomplete: "off", spellcheck: "false", onchange: (event) => change({ [filter.name]: event.target.value.trim() || unset }) });
      input.addEventListener("focus", () => options.replaceChildren(...(filter.options.length ? filter.options : valuesOf(filter.column, panels)).map((value) => el("option", { value }))));
      return el("label", { class: "filter" }, label, input, options);
    }
  }
}

function several(filter, label, values, unset, change) {
  const box = (one) => el("label", { class: "check" }, el("input", { type: "checkbox", value: one, checked: values.includes(one), data: { key: `${filter.name}-${one}` }, onchange: (event) => {
    const next = event.target.checked ? [...values, one] : values.filter((other) => other !== one);
    change({ [filter.name]: next.length ? next : unset });
  } }), one);
  const text = !values.length ? "All" : values.length <= 2 ? values.join(", ") : `${values.length} chosen`;
  const all = [...new Set([...values, ...filter.options])];
  return el("div", { class: "filter" }, el("span", {}, label), el("details", { class: "pop", data: { key: filter.name } },
    el("summary", { class: `button pick ${values.length ? "set" : ""}`, "aria-label": `${label}: ${text}` }, text), el("div", { class: "items choices" }, el("button", { type: "button", class: "quiet", onclick: () => change({ [filter.name]: unset }) }, "All"), all.map(box))));
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
