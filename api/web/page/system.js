// The state of the server: what it holds, how busy it is, and its throughput.

import { board, section } from "./board.js";
import { throughput } from "./charts.js";
import { el } from "./dom.js";
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
    title: "System", sub: "Asking the server…", sections: [list, rates], paths: ["/v1/status", "/v1/topics"], every: 2000,
    look([status, topics], { line }) {
      line.textContent = `Version ${status.version} · up ${duration(status.uptime_s)} · cluster ${status.cluster_id}`;
      tiles(list, status, topics.topics);
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

function tiles(list, status, topics) {
  const records = topics.reduce((sum, topic) => sum + topic.records, 0);
  const size = topics.reduce((sum, topic) => sum + topic.bytes, 0);
  const tile = (name, value, unit) => el("div", { class: "tile" }, el("dt", {}, name), el("dd", {}, value, unit ? el("small", {}, ` ${unit}`) : null));
  list.replaceChildren(tile("Records in", compact(Math.round(status.rates.records_in_per_s)), "/s"), tile("Bytes in", bytes(status.rates.bytes_in_per_s), "/s"), tile("Messages kept", compact(records)), tile("Log size", bytes(size)),
    tile("Connections", number(status.counters.connections_open ?? 0)), tile("Processor", processor(status), "% of a core"), tile("Memory", bytes(status.process.resident_bytes)), tile("Durability", status.durability));
}
