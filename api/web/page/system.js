// The state of the server: how records flow, and what each part holds.

import { ask, poll, post, showLink } from "./api.js";
import { throughput } from "./charts.js";
import { el, failed, loading, nothing, table } from "./dom.js";
import { ago, bytes, compact, duration, number, perSecond, time } from "./format.js";
import { onSettings } from "./settings.js";

const EVERY = 2000;
// A stage is late above these, in seconds: shown as slow, then as bad.
const SLOW = { durable: 1, view: 5, lake: 300 };
const BAD = { durable: 10, view: 60, lake: 3600 };

export async function show(main) {
  document.title = "System – Millpond";
  const parts = { tiles: el("dl", { class: "tiles" }), flow: section("full", "Flow", "From the producer to Parquet: how far each stage is behind the newest record."), rates: section("full", "Throughput", null),
    views: section("full", "Views", null), streams: section("full", "Streams", "Records that are no row of their stream are kept in <stream>.rejected, with the rule they broke."), topics: section("full", "Topics", null), groups: section("half", "Consumer groups", null), lake: section("half", "Lake", null) };
  const sub = el("p", { class: "sub" }, "Asking the server…");
  main.replaceChildren(el("div", { class: "head" }, el("div", { class: "grow" }, el("h1", {}, "System"), sub)), parts.tiles,
    el("div", { class: "grid" }, parts.flow.card, parts.rates.card, parts.views.card, parts.streams.card, parts.topics.card, parts.groups.card, parts.lake.card));
  const chart = { place: el("div", { class: "chart" }), drawn: null, data: null };
  parts.rates.body.replaceChildren(chart.place);
  chart.drawn = window.echarts.init(chart.place);
  const resize = new ResizeObserver(() => chart.drawn.resize());
  resize.observe(chart.place);
  const drawRates = () => {
    const history = chart.data?.history;
    if (history?.until) chart.drawn.setOption(throughput(history), { notMerge: true });
    else chart.drawn.showLoading("default", { text: "The first figures come after ten seconds", color: "transparent", textColor: getComputedStyle(document.body).color, maskColor: "transparent", fontSize: 14 });
    if (history?.until) chart.drawn.hideLoading();
  };
  const look = async () => {
    try {
      const [status, topics, groups, lag, views, streams, lake] = await Promise.all(["/v1/status", "/v1/topics", "/v1/groups", "/v1/lag", "/v1/views", "/v1/streams", "/v1/lake"].map((path) => ask(path)));
      showLink("live");
      sub.textContent = `Version ${status.version} · up ${duration(status.uptime_s)} · cluster ${status.cluster_id}`;
      tiles(parts.tiles, status, topics.topics);
      chart.data = status.rates;
      drawRates();
      fill(parts.flow, flow(lag.topics, topics.topics));
      fill(parts.views, viewTable(views.views));
      fill(parts.streams, streamTable(streams.streams));
      fill(parts.topics, topicTable(topics.topics));
      fill(parts.groups, groupTable(groups.groups));
      fill(parts.lake, lakeTable(lake, look));
    } catch (problem) {
      showLink("lost");
      if (!chart.data) main.querySelector(".grid").before(failed(problem));
    }
  };
  const stop = poll(EVERY, look);
  const forget = onSettings(drawRates);
  return () => { stop(); forget(); resize.disconnect(); chart.drawn.dispose(); showLink(""); };
}

function section(width, title, lead) {
  const body = el("div", { class: "pad" }, loading());
  const card = el("section", { class: `card ${width}`, "aria-label": title }, el("header", {}, el("h2", {}, title)), lead ? el("p", { class: "lead" }, lead) : null, body);
  return { card, body };
}

// Keeps the place where somebody scrolled to, and the focus, while figures change.
function fill(part, node) {
  const old = part.body.querySelector(".scroll");
  const [top, focused] = [old?.scrollTop ?? 0, old && old === document.activeElement];
  part.body.className = node.classList.contains("scroll") || node.classList.contains("flow") ? "" : "pad";
  part.body.replaceChildren(node);
  const scroll = part.body.querySelector(".scroll");
  if (scroll) { scroll.scrollTop = top; if (focused) scroll.focus({ preventScroll: true }); }
}

// Share of one processor since the look before.
let before = null;
function processor(status) {
  const now = { at: Date.parse(status.now), used: status.process.cpu_seconds };
  const share = before && now.at > before.at ? (100 * (now.used - before.used)) / ((now.at - before.at) / 1000) : null;
  before = now;
  return share === null ? "–" : `${Math.max(0, share).toFixed(share < 10 ? 1 : 0)}`;
}

function tiles(list, status, topics) {
  const records = topics.reduce((sum, topic) => sum + topic.records, 0);
  const size = topics.reduce((sum, topic) => sum + topic.bytes, 0);
  const tile = (name, value, unit) => el("div", { class: "tile" }, el("dt", {}, name), el("dd", {}, value, unit ? el("small", {}, ` ${unit}`) : null));
  list.replaceChildren(tile("Records in", compact(Math.round(status.rates.records_in_per_s)), "/s"), tile("Bytes in", bytes(status.rates.bytes_in_per_s), "/s"), tile("Messages kept", compact(records)), tile("Log size", bytes(size)),
    tile("Connections", number(status.counters.connections_open ?? 0)), tile("Processor", processor(status), "% of a core"), tile("Memory", bytes(status.process.resident_bytes)), tile("Durability", status.durability));
}

function flow(lag, topics) {
  const rows = lag.filter((topic) => topic.stages.length > 1);
  if (!rows.length) return nothing("No topic feeds a view or the lake", "Declare a stream and a view in the configuration; every topic is listed below.");
  return el("div", { class: "flow" }, rows.map((topic) => {
    const about = topics.find((t) => t.name === topic.topic);
    return el("div", { class: "row" },
      el("div", { class: "topic" }, topic.topic, el("small", {}, `${perSecond(about?.records_per_s)} · ${number(about?.records)} messages`)),
      el("ol", { class: "stages" }, el("li", { class: "stage", data: { state: "good" } }, el("b", {}, "Produced"), el("span", {}, number(topic.partitions.reduce((sum, p) => sum + p.produced, 0)))), grouped(topic.stages).map(stage)));
  }));
}

// All views of a topic as one stage: the one that is furthest behind speaks for them.
function grouped(stages) {
  const views = stages.filter((s) => s.stage === "view").sort((a, b) => b.seconds - a.seconds || b.records - a.records);
  const first = stages.findIndex((s) => s.stage === "view");
  return stages.filter((s, i) => s.stage !== "view" || i === first).map((s) => (s.stage === "view" ? { ...views[0], count: views.length } : s));
}

function stage({ stage: kind, name, records, seconds, count: views }) {
  const state = records === 0 ? "good" : seconds > BAD[kind] ? "bad" : seconds > SLOW[kind] ? "warn" : "good";
  const title = { durable: "Durable", view: views > 1 ? `In ${views} views` : `In ${name}`, lake: "In Parquet" }[kind];
  const text = records === 0 ? "up to date" : `${number(records)} behind · ${duration(seconds)}`;
  return el("li", { class: "stage", data: { state }, title: views > 1 && records ? `furthest behind: ${name}` : null }, el("b", {}, title), el("span", {}, text));
}

function viewTable(views) {
  if (!views.length) return nothing("No views", "Declare one under [[views]] in the configuration: CREATE MATERIALIZED VIEW … AS SELECT ….");
  return table("Views", [
    { title: "View", cell: (v) => el("span", { title: v.sql }, v.name) }, { title: "Stream", cell: (v) => v.stream }, { title: "Window", class: "num", cell: (v) => (v.window_ms ? duration(v.window_ms / 1000).replace(" 0 s", "").replace(" 0 min", "") : "none") },
    { title: "Events up to", class: "num", cell: (v) => time(v.status?.event_watermark) }, { title: "Rows applied", class: "num", cell: (v) => number(v.status?.rows_applied) }, { title: "Late", class: "num", cell: (v) => count(v.status?.late, "warn") },
    { title: "Behind", class: "num", cell: (v) => (v.status?.error ? el("span", { class: "tag bad", title: v.status.error }, "stopped") : v.status?.lag_records ? `${number(v.status.lag_records)} · ${duration(v.status.lag_ms / 1000)}` : el("span", { class: "tag good" }, "up to date")) },
  ], views);
}

function streamTable(streams) {
  if (!streams.length) return nothing("No streams", "Declare one under [[streams]] in the configuration: a topic with columns and event time.");
  const rules = (s) => el("span", {}, Object.entries(s.rejected_by_rule ?? {}).sort((a, b) => b[1] - a[1]).map(([rule, n]) => el("span", { class: "tag rule" }, `${rule} ${number(n)}`)));
  return table("Streams", [
    { title: "Stream", cell: (s) => s.name }, { title: "Topic", cell: (s) => s.topic }, { title: "Event time", cell: (s) => el("span", { class: "mono" }, s.event_time) }, { title: "Columns", class: "num", cell: (s) => number(s.columns.length) },
    { title: "Events up to", class: "num", cell: (s) => time(s.event_watermark) }, { title: "Rejected", class: "num", cell: (s) => count(s.rejected, "warn") }, { title: "by rule", class: "rules", cell: rules },
  ], streams);
}

function count(value, kind) {
  return value ? el("span", { class: `tag ${kind}` }, number(value)) : number(value ?? 0);
}

function topicTable(topics) {
  if (!topics.length) return nothing("No topics", "Declare one under [[topics]] in the configuration, or create it with any Kafka client.");
  return table("Topics", [
    { title: "Topic", cell: (t) => el("a", { href: `/v1/topics/${encodeURIComponent(t.name)}/records`, target: "_blank", rel: "noopener", title: "The newest records, as JSON" }, t.name, t.stream ? el("span", { class: "tag good beside" }, "stream") : t.internal ? el("span", { class: "tag beside" }, "internal") : null) },
    { title: "Partitions", class: "num", cell: (t) => number(t.partitions) }, { title: "Messages", class: "num", cell: (t) => number(t.records) }, { title: "Size", class: "num", cell: (t) => bytes(t.bytes) },
    { title: "Records in", class: "num", cell: (t) => perSecond(t.records_per_s) }, { title: "Bytes in", class: "num", cell: (t) => `${bytes(t.bytes_per_s)}/s` }, { title: "Newest", class: "num", cell: (t) => time(t.newest) },
  ], topics);
}

function groupTable(groups) {
  if (!groups.length) return nothing("No consumer groups", "One appears here when a consumer joins or commits offsets.");
  return table("Consumer groups", [
    { title: "Group", cell: (g) => g.group }, { title: "State", cell: (g) => el("span", { class: `tag ${g.state === "Stable" ? "good" : g.state === "Empty" ? "" : "warn"}` }, g.state) },
    { title: "Members", class: "num", cell: (g) => number(g.members) }, { title: "Lag", class: "num", cell: (g) => number(g.lag) },
  ], groups);
}

function lakeTable(lake, look) {
  if (!lake.tables.length) return nothing("Nothing settles in the lake", "Declare [[lake.tables]] with a topic in the configuration.");
  const flush = (topic) => el("button", { type: "button", class: "quiet", onclick: async (event) => {
    event.target.disabled = true;
    try { await post(`/v1/lake/${encodeURIComponent(topic)}/flush`, {}); await look(); } catch (problem) { event.target.textContent = "failed"; event.target.title = problem.detail ?? ""; }
  } }, "Flush now");
  return table(`Lake at ${lake.url}`, [
    { title: "Topic", cell: (t) => t.topic }, { title: "Files", class: "num", cell: (t) => number(t.files) }, { title: "Rows", class: "num", cell: (t) => number(t.rows) }, { title: "Size", class: "num", cell: (t) => bytes(t.bytes) }, { title: "Not yet", class: "num", cell: (t) => number(t.lag_records) },
    { title: "Last flush", class: "num", cell: (t) => (t.error ? el("span", { class: "tag bad", title: t.error }, "failing") : ago(t.last_flush)) }, { title: "", cell: (t) => flush(t.topic) },
  ], lake.tables);
}
