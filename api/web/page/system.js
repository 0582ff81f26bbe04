// The state of the server: what it holds, how busy it is, and its throughput.

import { board, section } from "./board.js";
import { throughput } from "./charts.js";
import { el, light } from "./dom.js";
import { bytes, compact, duration, number } from "./format.js";
import { onSettings } from "./settings.js";

export function show(main) {
  const list = el("dl", { class: "tiles full" });
  const rates = section("full", "Throughput", null);
  const place = el("div", { class: "chart" });
  rates.body.replaceChildren(place);
  let chart = null;
  let history = null;
  const drawRates = () => {
    if (!chart) return;
    if (history?.until) { chart.hideLoading(); chart.setOption(throughput(history), { notMerge: true }); } else chart.showLoading("default", { text: "The first figures come after ten seconds", color: "transparent", textColor: getComputedStyle(document.body).color, maskColor: "transparent", fontSize: 14 });
  };
  const made = board(main, {
    title: "System", sub: "Asking the server…", sections: [list, rates], paths: ["/v1/status", "/v1/topics", "/v1/sinks"], every: 2000,
    look([status, topics, { sinks }], { line }) {
      line.textContent = `Version ${status.version} · up ${duration(status.uptime_s)} · cluster ${status.cluster_id}${copies(status.replication)}`;
      tiles(list, status, topics.topics, sinks);
      history = status.rates.history;
      drawRates();
    },
  });
  chart = window.echarts.init(place);
  const resize = new ResizeObserver(() => chart.resize());
  resize.observe(place);
  const forget = onSettings(drawRates);
  drawRates();
  return { close: () => { made.close(); forget(); resize.disconnect(); chart.dispose(); } };
}

// Share of one processor since the look before.
let before = null;
function processor(status) {
  const now = { at: Date.parse(status.now), used: status.process.cpu_seconds };
  const share = before && now.at > before.at ? (100 * (now.used - before.used)) / ((now.at - before.at) / 1000) : null;
  before = now;
  return share === null ? "–" : `${Math.max(0, share).toFixed(share < 10 ? 1 : 0)}`;
}

// What is asked for and not kept: more copies than there are brokers.
function copies({ brokers, clamped, asked }) {
  const factors = Object.entries(asked).map(([topic, factor]) => `${topic} asks for ${factor}`);
  return clamped ? ` · one copy of each record, as there is ${number(brokers)} broker: a larger replication factor is taken as 1${factors.length ? ` (${factors.join(", ")})` : ""}` : "";
}

// How the databases of the sinks stand, as one.
function postgres(sinks) {
  const tables = sinks.filter((sink) => sink.kind === "postgres" && sink.state !== "off");
  const away = tables.filter((sink) => sink.state === "away");
  const behind = tables.reduce((sum, sink) => sum + (sink.lag ?? 0), 0);
  if (!tables.length) return { text: "none", unit: null, status: null };
  return away.length ? { text: "away", unit: null, status: "red" } : { text: "up", unit: behind ? `${compact(behind)} behind` : null, status: "green" };
}

function tiles(list, status, topics, sinks) {
  const records = topics.reduce((sum, topic) => sum + topic.records, 0);
  const size = topics.reduce((sum, topic) => sum + topic.bytes, 0);
  const tile = (name, value, unit, state) => el("div", { class: "tile", "aria-label": name, data: { status: state ?? "" } }, el("dt", {}, name), el("dd", {}, light(state), value, unit ? el("small", {}, ` ${unit}`) : null));
  const { availability, disk } = status;
  const percent = (share) => `${(Math.floor(share * 10000) / 100).toFixed(2)} %`;
  const database = postgres(sinks);
  const free = disk ? disk.free_bytes / disk.bytes : null;
  list.replaceChildren(tile("Records in", compact(Math.round(status.rates.records_in_per_s)), "/s"), tile("Bytes in", bytes(status.rates.bytes_in_per_s), "/s"), tile("Messages kept", compact(records)), tile("Log size", bytes(size)),
    tile("Connections", number(status.counters.connections_open ?? 0)), tile("Processor", processor(status), "% of a core"), tile("Memory", bytes(status.process.resident_bytes)), tile("Durability", status.durability),
    tile("Uptime", percent(availability.share), `of 30 days, target ${Math.round(availability.target * 100)} %`, availability.status), tile("Disk free", disk ? bytes(disk.free_bytes) : "–", disk ? `${Math.round(free * 100)} %` : null, free === null ? null : free < 0.1 ? "red" : free < 0.2 ? "orange" : "green"),
    tile("PostgreSQL", database.text, database.unit, database.status), tile("Open files", number(status.process.open_files)));
}
