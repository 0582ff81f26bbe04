// How records flow: from the producer through views to Parquet, and how far each stage is behind.

import { board, count, fill, section } from "./board.js";
import { el, nothing, table } from "./dom.js";
import { duration, number, perSecond, time } from "./format.js";

// A stage is late above these, in seconds: shown as slow, then as bad.
const SLOW = { durable: 1, view: 5, derived: 5, table: 5, lake: 300 };
const BAD = { durable: 10, view: 60, derived: 60, table: 60, lake: 3600 };

export function show(main) {
  const parts = {
    flow: section("full", "Flow", "From the producer to Parquet: how far each stage is behind the newest record."),
    views: section("full", "Views", null),
    streams: section("full", "Streams", "Records that are no row of their stream are kept in <stream>.rejected, with the rule they broke."),
    groups: section("full", "Consumer groups", null),
  };
  return board(main, {
    title: "Pipelines", sub: "What is read, worked out and written, and how far it is", sections: Object.values(parts), every: 2000,
    paths: ["/v1/lag", "/v1/topics", "/v1/views", "/v1/streams", "/v1/groups"],
    look([lag, topics, views, streams, groups]) {
      fill(parts.flow, flow(lag.topics, topics.topics));
      fill(parts.views, viewTable(views.views));
      fill(parts.streams, streamTable(streams.streams));
      fill(parts.groups, groupTable(groups.groups));
    },
  });
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
  const title = { durable: "Durable", view: views > 1 ? `In ${views} views` : `In ${name}`, derived: `To ${name}`, table: `Table ${name}`, lake: "In Parquet" }[kind];
  const text = records === 0 ? "up to date" : `${number(records)} behind · ${duration(seconds)}`;
  return el("li", { class: "stage", data: { state }, title: views > 1 && records ? `furthest behind: ${name}` : null }, el("b", {}, title), el("span", {}, text));
}

function viewTable(views) {
  if (!views.length) return nothing("No views", "Declare one in SQL, or under [[views]] in the configuration: CREATE MATERIALIZED VIEW … AS SELECT ….");
  return table("Views", [
    { title: "View", cell: (v) => el("span", { title: v.sql }, v.name) }, { title: "Stream", cell: (v) => v.stream }, { title: "Window", class: "num", cell: (v) => (v.window_ms ? duration(v.window_ms / 1000).replace(" 0 s", "").replace(" 0 min", "") : "none") },
    { title: "Events up to", class: "num", cell: (v) => time(v.status?.event_watermark) }, { title: "Rows applied", class: "num", cell: (v) => number(v.status?.rows_applied) }, { title: "Late", class: "num", cell: (v) => count(v.status?.late, "warn") },
    { title: "Behind", class: "num", cell: (v) => (v.status?.error ? el("span", { class: "tag bad", title: v.status.error }, "stopped") : v.status?.state === "paused" ? el("span", { class: "tag warn" }, "paused") : v.status?.fill_left ? el("span", { title: v.status.fill?.waits_for }, `${number(v.status.fill_left)} to fill, ${number(v.status.fill?.rows_per_s ?? 0)}/s`) : v.status?.successor ? el("span", { class: "tag warn", title: v.status.successor.error ?? v.status.successor.fill.waits_for ?? v.status.successor.sql }, `new version: ${number(v.status.successor.left)} to fill`) : v.status?.lag_records ? `${number(v.status.lag_records)} · ${duration(v.status.lag_ms / 1000)}` : el("span", { class: "tag good" }, "up to date")) },
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

function groupTable(groups) {
  if (!groups.length) return nothing("No consumer groups", "One appears here when a consumer joins or commits offsets.");
  return table("Consumer groups", [
    { title: "Group", cell: (g) => g.group }, { title: "State", cell: (g) => el("span", { class: `tag ${g.state === "Stable" ? "good" : g.state === "Empty" ? "" : "warn"}` }, g.state) },
    { title: "Members", class: "num", cell: (g) => number(g.members) }, { title: "Lag", class: "num", cell: (g) => number(g.lag) },
  ], groups);
}
