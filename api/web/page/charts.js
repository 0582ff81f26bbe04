// From a panel's data to a chart. Each function takes the data as /v1/dashboards/{name}/panels/{n} answers it.

import { bytes, compact, number, time, words } from "./format.js";
import { reducedMotion, settings } from "./settings.js";
import { svg } from "./dom.js";

const LIGHT = ["#0b6e69", "#d07a1f", "#4a68b0", "#a4386b", "#748f2c", "#8562b3", "#c0513f", "#2f93ab", "#a8892a", "#5b6b67", "#27594a", "#c9799f"];
const DARK = ["#56c4b6", "#f0a75a", "#8aa6ec", "#e083b0", "#b2ce6a", "#bd9df0", "#f08a7c", "#6cc6dd", "#d9bd62", "#a2b3ae", "#86c7a8", "#eba9c7"];

export function colours() {
  return settings.dark ? DARK : LIGHT;
}

function css(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

// A colour for a value of a column: the same in every panel, and when the order changes.
const given = new Map();
function colourOf(column, value) {
  if (!given.has(column)) given.set(column, new Map());
  const values = given.get(column);
  if (!values.has(value)) values.set(value, values.size);
  const list = colours();
  return list[values.get(value) % list.length];
}

function base() {
  const text = { fontFamily: css("--sans"), color: css("--ink") };
  return {
    animation: !reducedMotion, animationDuration: 350, animationDurationUpdate: 350,
    aria: { enabled: true }, useUTC: settings.utc, textStyle: text, color: colours(),
    tooltip: {
      confine: true, backgroundColor: css("--card"), borderColor: css("--rule-strong"), borderWidth: 1, padding: [8, 12],
      textStyle: { ...text, fontSize: 13 }, extraCssText: "box-shadow: 0 6px 20px -10px rgb(0 0 0 / 40%); border-radius: 8px; font-feature-settings: 'tnum';",
    },
  };
}

function axes() {
  const label = { color: css("--soft"), fontSize: 12, hideOverlap: true };
  const split = { lineStyle: { color: css("--rule"), type: [3, 3] } };
  return {
    value: { type: "value", axisLabel: { ...label, formatter: compact }, splitLine: split, splitNumber: 4, axisLine: { show: false }, axisTick: { show: false } },
    time: { type: "time", axisLabel: { ...label, formatter: tick }, axisLine: { lineStyle: { color: css("--rule-strong") } }, axisTick: { show: false }, splitLine: { show: false } },
    category: { type: "category", axisLabel: label, axisLine: { lineStyle: { color: css("--rule-strong") } }, axisTick: { show: false } },
  };
}

function tick(value) {
  const clock = time(value, { seconds: new Date(value).getSeconds() !== 0, date: false });
  return clock === "00:00" ? time(value, { seconds: false, date: true }).slice(5, 10) : clock;
}

function legend(names) {
  return {
    show: names.length > 1, type: "scroll", bottom: 0, left: 6, right: 6, icon: "roundRect", itemWidth: 11, itemHeight: 4, itemGap: 14, data: names,
    textStyle: { color: css("--soft"), fontSize: 12.5, lineHeight: 19 }, pageIconColor: css("--soft"), pageIconInactiveColor: css("--rule-strong"), pageTextStyle: { color: css("--soft") }, pageIconSize: 10,
  };
}

const escape = (text) => window.echarts.format.encodeHTML(String(text));

function lines(title, items, unit) {
  const rows = items.map(({ marker, name, value }) =>
    `<tr><td style="border:0;padding:1px 14px 1px 0">${marker ?? ""}${escape(name)}</td><td style="border:0;padding:1px 0;text-align:right;font-weight:500">${escape(number(value))}${unit ? ` ${escape(unit)}` : ""}</td></tr>`);
  return `<div style="color:${css("--soft")};font-size:12px;margin-bottom:3px">${escape(title)}</div><table style="font-size:13px;width:auto">${rows.join("")}</table>`;
}

// Where each column of the data's rows is.
function places(data) {
  const at = (name) => data.columns.findIndex((column) => column.name === name);
  const named = (name, fallback) => (name && at(name) >= 0 ? at(name) : fallback);
  const x = named(data.x, 0);
  const series = data.series ? named(data.series, -1) : -1;
  const taken = new Set([x, series]);
  const y = (data.y?.length ? data.y.map(at) : data.columns.map((_, i) => i)).filter((i) => i >= 0 && !taken.has(i));
  return { x, series, y, isTime: data.columns[x]?.type === "TIMESTAMP" };
}

// One list of points per line: [{name, points: [[x, y]]}].
function split(data) {
  const { x, series, y, isTime } = places(data);
  const byName = new Map();
  for (const row of data.rows) {
    for (const column of y) {
      const value = data.columns[column].name;
      const name = series < 0 ? words(value) : y.length > 1 ? `${label(row[series])} · ${words(value)}` : label(row[series]);
      if (!byName.has(name)) byName.set(name, []);
      byName.get(name).push([isTime ? Date.parse(row[x]) : row[x], toNumber(row[column])]);
    }
  }
  const fill = isTime && data.window_ms && (data.additive ?? []).every(Boolean);
  return [...byName].map(([name, points]) => ({ name, points: fill ? withZeros(points, data.window_ms) : points }));
}

// A window without a row is a count of nothing, not a gap: as long as there are few enough to draw.
function withZeros(points, step) {
  const sorted = [...points].sort((a, b) => a[0] - b[0]);
  const span = sorted.length ? (sorted.at(-1)[0] - sorted[0][0]) / step : 0;
  if (span > 5000) return sorted;
  const filled = [];
  for (const point of sorted) {
    while (filled.length && point[0] - filled.at(-1)[0] > step * 1.5) filled.push([filled.at(-1)[0] + step, 0]);
    filled.push(point);
  }
  return filled;
}

function toNumber(value) {
  return value === null || value === undefined ? null : Number(value);
}

export function label(value) {
  return value === null || value === undefined ? "(none)" : value === "" ? "(empty)" : String(value);
}

// Windows that may still change are shaded.
function openWindows(data) {
  if (!data.event_watermark || !data.window_ms) return undefined;
  const from = Math.floor(Date.parse(data.event_watermark) / data.window_ms) * data.window_ms;
  return { silent: true, itemStyle: { color: css("--ink"), opacity: 0.045 }, label: { show: false }, data: [[{ xAxis: from }, { xAxis: "max" }]] };
}

export function line(data) {
  const { isTime } = places(data);
  const series = split(data);
  const names = series.map((one) => one.name);
  const axis = axes();
  const single = series.length === 1;
  return {
    ...base(), legend: legend(names), grid: { left: 8, right: 18, top: 16, bottom: names.length > 1 ? 34 : 6, containLabel: true },
    tooltip: { ...base().tooltip, trigger: "axis", axisPointer: { lineStyle: { color: css("--faint") } }, order: "valueDesc",
      formatter: (items) => lines(isTime ? time(items[0].axisValue, { date: "auto" }) : items[0].axisValueLabel, items.slice(0, 14).map((i) => ({ marker: i.marker, name: i.seriesName, value: i.value[1] })), data.unit) },
    xAxis: isTime ? axis.time : { ...axis.category, boundaryGap: false }, yAxis: axis.value,
    series: series.map((one, i) => ({
      type: "line", name: one.name, data: one.points, showSymbol: one.points.length < 3, symbolSize: 6, lineStyle: { width: single ? 2.2 : 1.8 }, color: single ? css("--pond") : colourOf(data.series, one.name),
      areaStyle: single ? { opacity: 0.1 } : undefined, emphasis: { focus: "series" }, markArea: i === 0 && isTime ? openWindows(data) : undefined,
    })),
  };
}

export function bar(data) {
  const { x, series, y, isTime } = places(data);
  const axis = axes();
  const tip = { ...base().tooltip, trigger: "axis", axisPointer: { type: "shadow", shadowStyle: { color: css("--ink"), opacity: 0.05 } } };
  if (isTime) {
    const groups = split(data);
    return {
      ...base(), legend: legend(groups.map((g) => g.name)), grid: { left: 8, right: 18, top: 16, bottom: groups.length > 1 ? 34 : 6, containLabel: true }, xAxis: axis.time, yAxis: axis.value,
      tooltip: { ...tip, formatter: (items) => lines(time(items[0].axisValue), items.map((i) => ({ marker: i.marker, name: i.seriesName, value: i.value[1] })), data.unit) },
      series: groups.map((g) => ({ type: "bar", stack: series >= 0 ? "all" : undefined, name: g.name, data: g.points, color: groups.length === 1 ? css("--pond") : colourOf(data.series, g.name), barMaxWidth: 26 })),
    };
  }
  const names = [...new Set(data.rows.map((row) => label(row[x])))];
  const stacks = new Map();
  for (const row of data.rows) {
    for (const column of y) {
      const value = words(data.columns[column].name);
      const name = series < 0 ? value : y.length > 1 ? `${label(row[series])} · ${value}` : label(row[series]);
      if (!stacks.has(name)) stacks.set(name, new Array(names.length).fill(null));
      stacks.get(name)[names.indexOf(label(row[x]))] = toNumber(row[column]);
    }
  }
  const several = stacks.size > 1;
  return {
    ...base(), legend: legend([...stacks.keys()]), grid: { left: 8, right: several ? 18 : 58, top: 6, bottom: several ? 34 : 4, containLabel: true },
    tooltip: { ...tip, formatter: (items) => lines(items[0].axisValueLabel, items.filter((i) => i.value !== null).map((i) => ({ marker: i.marker, name: i.seriesName, value: i.value })), data.unit) },
    xAxis: several ? axis.value : { ...axis.value, show: false }, yAxis: { ...axis.category, inverse: true, data: names, axisLine: { show: false }, axisLabel: { ...axis.category.axisLabel, color: css("--ink"), fontSize: 13, width: 130, overflow: "truncate", interval: 0 } },
    series: [...stacks].map(([name, values]) => ({
      type: "bar", name, data: values, stack: series >= 0 ? "all" : undefined, color: several ? colourOf(data.series, name) : css("--pond"), barMaxWidth: 22, itemStyle: { borderRadius: several ? 0 : [0, 4, 4, 0] },
      label: { show: !several, position: "right", color: css("--soft"), fontSize: 12.5, formatter: (p) => compact(p.value) },
    })),
  };
}

export function pie(data, width) {
  const { x, y } = places(data);
  const narrow = width < 400;
  const middle = narrow ? ["50%", "42%"] : ["28%", "50%"];
  const slices = data.rows.map((row) => ({ name: label(row[x]), value: toNumber(row[y[0]]), itemStyle: { color: colourOf(data.columns[x].name, label(row[x])) } }));
  if (data.rest?.length) slices.push({ name: `${data.groups_total - data.rows.length} others`, value: data.rest[0], itemStyle: { color: css("--rule-strong") } });
  const total = slices.reduce((sum, slice) => sum + (slice.value ?? 0), 0);
  const share = (value) => `${total ? ((100 * value) / total).toFixed(1) : 0} %`;
  const byName = new Map(slices.map((slice) => [slice.name, slice.value]));
  return {
    ...base(),
    legend: narrow ? { ...legend(slices.map((s) => s.name)), show: true, formatter: (name) => `${name}  ${share(byName.get(name) ?? 0)}` } : { ...legend(slices.map((s) => s.name)), show: true, orient: "vertical", type: "scroll", left: "56%", right: 4, top: "middle", bottom: "auto", itemWidth: 10, itemHeight: 10, itemGap: 8,
      formatter: (name) => `{name|${name.length > 17 ? `${name.slice(0, 16)}…` : name}}{share|${share(byName.get(name) ?? 0)}}`,
      textStyle: { rich: { name: { color: css("--ink"), fontSize: 13, width: 104 }, share: { color: css("--soft"), fontSize: 12.5, align: "right", width: 48 } } } },
    tooltip: { ...base().tooltip, trigger: "item", formatter: (p) => lines(share(p.value), [{ marker: p.marker, name: p.name, value: p.value }], data.unit) },
    series: [{ type: "pie", radius: narrow ? ["46%", "72%"] : ["52%", "82%"], center: middle, data: slices, label: { show: false }, itemStyle: { borderColor: css("--card"), borderWidth: 2, borderRadius: 3 }, emphasis: { scaleSize: 4 } }],
    graphic: [{ type: "group", left: middle[0], top: middle[1], bounding: "raw", silent: true, children: [
      { type: "text", style: { text: compact(total), x: 0, y: -7, textAlign: "center", textVerticalAlign: "middle", fill: css("--ink"), font: `500 24px ${css("--sans")}` } },
      { type: "text", style: { text: data.unit || words(data.columns[y[0]].name), x: 0, y: 15, textAlign: "center", textVerticalAlign: "middle", fill: css("--soft"), font: `12.5px ${css("--sans")}` } },
    ] }],
  };
}

// Throughput of the whole server over the last minutes.
export function throughput(history) {
  const until = Date.parse(history.until);
  const points = (list) => list.map((value, i) => [until - (list.length - 1 - i) * history.every_s * 1000, value]);
  const axis = axes();
  const line = (name, list, yAxisIndex, color, area) => ({ type: "line", name, yAxisIndex, data: points(list), showSymbol: false, color, lineStyle: { width: 2 }, areaStyle: area ? { opacity: 0.1 } : undefined });
  return {
    ...base(), animation: false, legend: legend(["records in", "bytes in", "bytes out"]), grid: { left: 8, right: 8, top: 30, bottom: 34, containLabel: true }, xAxis: { ...axis.time, minInterval: 15000 },
    yAxis: [{ ...axis.value, min: 0, name: "records/s", nameTextStyle: { color: css("--faint"), align: "left", fontSize: 11.5 } },
      { ...axis.value, min: 0, name: "bytes/s", nameTextStyle: { color: css("--faint"), align: "right", fontSize: 11.5 }, splitLine: { show: false }, axisLabel: { ...axis.value.axisLabel, formatter: (value) => bytes(value).replace(/(\d\d)\.\d+ /, "$1 ") } }],
    tooltip: { ...base().tooltip, trigger: "axis", formatter: (items) => lines(time(items[0].axisValue), items.map((i) => ({ marker: i.marker, name: i.seriesName, value: i.seriesIndex ? `${bytes(i.value[1])}/s` : `${number(i.value[1])}/s` }))) },
    series: [line("records in", history.records_in, 0, css("--pond"), true), line("bytes in", history.bytes_in, 1, colours()[1]), line("bytes out", history.bytes_out, 1, colours()[2])],
  };
}

// A number's course as a small line: points are [time, value].
export function spark(points, step) {
  const clean = withZeros(points.map(([at, value]) => [Date.parse(at), toNumber(value) ?? 0]), step);
  if (clean.length < 2) return null;
  const [first, last] = [clean[0][0], clean.at(-1)[0]];
  const most = Math.max(...clean.map((p) => p[1]), 0);
  const least = Math.min(...clean.map((p) => p[1]), 0);
  const place = ([at, value]) => `${((at - first) / (last - first || 1) * 100).toFixed(2)},${(39 - ((value - least) / (most - least || 1)) * 36).toFixed(2)}`;
  const path = `M${clean.map(place).join("L")}`;
  return svg("svg", { class: "spark", viewBox: "0 0 100 42", preserveAspectRatio: "none", "aria-hidden": "true" },
    svg("path", { class: "fill", d: `${path}L100,42L0,42Z` }), svg("path", { class: "line", d: path }));
}
