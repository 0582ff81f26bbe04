// From a panel's data to a chart. Each function takes the data as /v1/dashboards/{name}/panels/{n} answers it, the panel as
// declared, and the width there is.

import { bytes, calendarStep, calendarText, compact, formatted, hasUnit, number, time, words } from "./format.js";
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

export function statusColour(status) {
  return css({ green: "--good", orange: "--warn", red: "--bad" }[status] ?? "--pond");
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

function axes(format, unit) {
  const label = { color: css("--soft"), fontSize: 12, hideOverlap: true };
  const split = { lineStyle: { color: css("--rule"), type: [3, 3] } };
  const value = (v) => (format ? formatted(v, format, unit, { compactly: true }) : compact(v));
  return {
    value: { type: "value", axisLabel: { ...label, formatter: value }, splitLine: split, splitNumber: 4, axisLine: { show: false }, axisTick: { show: false } },
    time: { type: "time", axisLabel: label, axisLine: { lineStyle: { color: css("--rule-strong") } }, axisTick: { show: false }, splitLine: { show: false } },
    category: { type: "category", axisLabel: label, axisLine: { lineStyle: { color: css("--rule-strong") } }, axisTick: { show: false } },
  };
}

// The axis of times: clocks, or days and months where the data are such.
function timeAxis(axis, step, { bars = false } = {}) {
  const formatter = step ? (value) => (new Date(value).getTime() % 86400000 === 0 ? tickDay(value, step) : "") : tick;
  const least = step === "year" ? 31536000000 : step === "month" ? 28 * 86400000 : step === "date" ? 86400000 : undefined;
  return { ...axis.time, minInterval: least, boundaryGap: bars ? ["3%", "3%"] : undefined, axisLabel: { ...axis.time.axisLabel, formatter } };
}

// A month stands without its year but in January, a day never has one.
function tickDay(value, step) {
  const text = calendarText(value, step);
  const bare = text.replace(/,?\s*\d{4}$/, "");
  return step === "year" ? text : step === "date" ? bare : new Date(value).getUTCMonth() === 0 ? `${bare} ’${String(new Date(value).getUTCFullYear()).slice(2)}` : bare;
}

function tick(value) {
  const clock = time(value, { seconds: new Date(value).getSeconds() !== 0, date: false });
  return clock === "00:00" ? time(value, { seconds: false, date: true }).replace(/,?\s*\d{4}? 00:00$/, "") : clock;
}

function legend(names) {
  return {
    show: names.length > 1, type: "scroll", bottom: 0, left: 6, right: 6, icon: "roundRect", itemWidth: 11, itemHeight: 4, itemGap: 14, data: names,
    textStyle: { color: css("--soft"), fontSize: 12.5, lineHeight: 19 }, pageIconColor: css("--soft"), pageIconInactiveColor: css("--rule-strong"), pageTextStyle: { color: css("--soft") }, pageIconSize: 10,
  };
}

const escape = (text) => window.echarts.format.encodeHTML(String(text));

function lines(title, items, write) {
  const rows = items.map(({ marker, name, value }) =>
    `<tr><td style="border:0;padding:1px 14px 1px 0">${marker ?? ""}${escape(name)}</td><td style="border:0;padding:1px 0;text-align:right;font-weight:500">${escape(write(value))}</td></tr>`);
  return `<div style="color:${css("--soft")};font-size:12px;margin-bottom:3px">${escape(title)}</div><table style="font-size:13px;width:auto">${rows.join("")}</table>`;
}

// Heading of a column: declared, or its name in words.
export function heading(panel, name) {
  return panel.labels?.[name] ?? words(name);
}

// How a column's values are written with their unit.
export function writer(panel, name, { compactly = false } = {}) {
  const format = panel.formats?.[name];
  return (value) => {
    const text = formatted(value, format, panel.unit, { compactly });
    return panel.unit && !hasUnit(format) && value !== null && value !== undefined ? `${text} ${panel.unit}` : text;
  };
}

// Where each column of the data's rows is.
export function places(data) {
  const at = (name) => data.columns.findIndex((column) => column.name === name);
  const named = (name, fallback) => (name && at(name) >= 0 ? at(name) : fallback);
  const x = named(data.x, data.x ? 0 : -1);
  const series = data.series ? named(data.series, -1) : -1;
  const taken = new Set([x, series]);
  const y = (data.y?.length ? data.y.map(at) : data.columns.map((_, i) => i)).filter((i) => i >= 0 && !taken.has(i));
  const isTime = ["TIMESTAMP", "DATE"].includes(data.columns[x]?.type);
  const step = isTime && !data.window_ms ? calendarStep(data.rows.map((row) => row[x])) : null;
  return { x, series, y, isTime, step };
}

// One list of points per line: [{name, points: [[x, y]]}].
function split(data, panel) {
  const { x, series, y, isTime } = places(data);
  const byName = new Map();
  for (const row of data.rows) {
    for (const column of y) {
      const value = heading(panel, data.columns[column].name);
      const name = series < 0 ? value : y.length > 1 ? `${label(row[series])} · ${value}` : label(row[series]);
      if (!byName.has(name)) byName.set(name, []);
      byName.get(name).push([isTime ? Date.parse(row[x]) : label(row[x]), toNumber(row[column])]);
    }
  }
  const fill = isTime && data.window_ms && (data.additive ?? []).every(Boolean);
  return [...byName].map(([name, points]) => ({ name, points: fill ? withZeros(points, data.window_ms) : isTime ? [...points].sort((a, b) => a[0] - b[0]) : points }));
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

export function toNumber(value) {
  return value === null || value === undefined || value === "" || Number.isNaN(Number(value)) ? null : Number(value);
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

// The figure to be reached, as a line across.
function targetLine(panel, write, axis = "yAxis") {
  if (panel.target === null || panel.target === undefined) return undefined;
  return { silent: true, symbol: "none", lineStyle: { color: css("--soft"), type: [5, 4], width: 1.2 }, data: [{ [axis]: panel.target }],
    label: { position: "insideEndTop", color: css("--soft"), fontSize: 11.5, formatter: `target ${write(panel.target)}` } };
}

function title(value, isTime, step) {
  return step ? calendarText(value, step) : isTime ? time(value, { date: "auto" }) : value;
}

export function line(data, panel) {
  const { isTime, step, y } = places(data);
  const series = split(data, panel);
  const names = series.map((one) => one.name);
  const first = data.columns[y[0]]?.name;
  const axis = axes(panel.formats?.[first], panel.unit);
  const write = writer(panel, first);
  const single = series.length === 1;
  const stacked = panel.style === "stacked";
  const filled = single || stacked || panel.style === "area";
  const at = [...new Set(series.flatMap((one) => one.points.map((p) => p[0])))];
  // Months differ in length: they stand evenly, each under its name.
  const evenly = !isTime || (step && step !== "date");
  if (evenly && isTime) at.sort((a, b) => a - b);
  if (evenly) for (const one of series) one.points = one.points.map(([x, y]) => [at.indexOf(x), y]);
  return {
    ...base(), useUTC: step ? true : settings.utc, legend: legend(names), grid: { left: 8, right: 22, top: 16, bottom: names.length > 1 ? 34 : 6, containLabel: true },
    tooltip: { ...base().tooltip, trigger: "axis", axisPointer: { lineStyle: { color: css("--faint") } }, order: stacked ? "seriesDesc" : "valueDesc",
      formatter: (items) => lines(title(evenly && isTime ? Number(items[0].axisValue) : items[0].axisValue, isTime, step), items.slice(0, 14).map((i) => ({ marker: i.marker, name: i.seriesName, value: i.value[1] })), write) },
    xAxis: evenly ? { ...axis.category, boundaryGap: false, data: at.map(String), axisLabel: { ...axis.category.axisLabel, formatter: (_, i) => (step ? tickDay(at[i], step) : at[i]) } } : timeAxis(axis, step), yAxis: axis.value,
    series: series.map((one, i) => ({
      type: "line", name: one.name, data: one.points, stack: stacked ? "all" : undefined, showSymbol: one.points.length < 32 && (single || Boolean(step)), symbol: "circle", symbolSize: one.points.length < 3 ? 7 : 5, lineStyle: { width: single ? 2.2 : 1.8 }, color: single ? css("--pond") : colourOf(data.series, one.name),
      areaStyle: filled ? { opacity: stacked ? 0.32 : 0.1 } : undefined, emphasis: { focus: "series" }, markArea: i === 0 && isTime ? openWindows(data) : undefined, markLine: i === 0 ? targetLine(panel, write) : undefined,
    })),
  };
}

// Rows and columns of bars: {names, stacks: [[name, values]]}, a value per name.
function stacksOf(data, panel) {
  const { x, series, y } = places(data);
  const names = [...new Set(data.rows.map((row) => label(row[x])))];
  const stacks = new Map();
  for (const row of data.rows) {
    for (const column of y) {
      const value = heading(panel, data.columns[column].name);
      const name = series < 0 ? value : y.length > 1 ? `${label(row[series])} · ${value}` : label(row[series]);
      if (!stacks.has(name)) stacks.set(name, new Array(names.length).fill(null));
      stacks.get(name)[names.indexOf(label(row[x]))] = toNumber(row[column]);
    }
  }
  return { names, stacks: [...stacks] };
}

export function bar(data, panel, width) {
  const { x, series, isTime, step, y } = places(data);
  const first = data.columns[y[0]]?.name;
  const axis = axes(panel.formats?.[first], panel.unit);
  const [write, brief] = [writer(panel, first), writer(panel, first, { compactly: true })];
  const tip = { ...base().tooltip, trigger: "axis", axisPointer: { type: "shadow", shadowStyle: { color: css("--ink"), opacity: 0.05 } } };
  const stack = series >= 0 || panel.style === "stacked" ? "all" : undefined;
  if (isTime && !step) {
    const groups = split(data, panel);
    return {
      ...base(), legend: legend(groups.map((g) => g.name)), grid: { left: 8, right: 18, top: 16, bottom: groups.length > 1 ? 34 : 6, containLabel: true }, xAxis: timeAxis(axis, step, { bars: true }), yAxis: axis.value,
      tooltip: { ...tip, formatter: (items) => lines(title(items[0].axisValue, isTime, step), items.map((i) => ({ marker: i.marker, name: i.seriesName, value: i.value[1] })), write) },
      series: groups.map((g, i) => ({ type: "bar", stack, name: g.name, data: g.points, color: groups.length === 1 ? css("--pond") : colourOf(data.series, g.name), barMaxWidth: 26, itemStyle: { borderRadius: stack ? 0 : [3, 3, 0, 0] }, markLine: i === 0 ? targetLine(panel, write) : undefined })),
    };
  }
  const { names, stacks } = stacksOf(data, panel);
  const several = stacks.length > 1;
  const upright = panel.style === "vertical" || (isTime && panel.style !== "horizontal");
  const marked = new Map((data.marks ?? []).map(([row, column, colour]) => [`${row} ${column}`, colour]));
  const named = (name) => (step ? calendarText(name, step) : name);
  const valueOf = (values, i) => {
    const colour = !several ? marked.get(`${i} ${y[0]}`) : undefined;
    return colour ? { value: values[i], itemStyle: { color: statusColour(colour) } } : values[i];
  };
  const radius = several || stack ? 0 : upright ? [4, 4, 0, 0] : [0, 4, 4, 0];
  const list = stacks.map(([name, values], i) => ({
    type: "bar", name, data: values.map((_, k) => valueOf(values, k)), stack, color: several ? colourOf(data.series, name) : css("--pond"), barMaxWidth: upright ? 40 : 22, itemStyle: { borderRadius: radius },
    label: { show: !several && (!upright || names.length <= Math.max(4, width / 60)), position: upright ? "top" : "right", color: css("--soft"), fontSize: 12.5, formatter: (p) => brief(p.value) },
    markLine: i === 0 ? targetLine(panel, write, upright ? "yAxis" : "xAxis") : undefined,
  }));
  const tooltip = { ...tip, formatter: (items) => lines(named(items[0].name), items.filter((i) => i.value !== null && i.value !== undefined).map((i) => ({ marker: i.marker, name: i.seriesName, value: i.value })), write) };
  const grid = { left: 8, top: upright ? 24 : 6, right: several || upright ? 18 : 78, bottom: several ? 34 : 4, containLabel: true };
  const category = { ...axis.category, data: names };
  if (upright) {
    return { ...base(), legend: legend(stacks.map(([name]) => name)), grid, tooltip, yAxis: axis.value, xAxis: { ...category, axisLabel: { ...axis.category.axisLabel, formatter: (name) => (step ? tickDay(name, step) : name), width: Math.max(52, width / names.length - 8), overflow: "truncate" } }, series: list };
  }
  return {
    ...base(), legend: legend(stacks.map(([name]) => name)), grid, tooltip,
    xAxis: several ? axis.value : { ...axis.value, show: false }, yAxis: { ...category, inverse: true, axisLine: { show: false }, axisLabel: { ...axis.category.axisLabel, formatter: named, color: css("--ink"), fontSize: 13, width: Math.min(150, width * 0.36), overflow: "truncate", interval: 0 } },
    series: list,
  };
}

export function pie(data, panel, width) {
  const { x, y } = places(data);
  const narrow = width < 400;
  const middle = narrow ? ["50%", "42%"] : ["28%", "50%"];
  const column = data.columns[y[0]].name;
  const [write, brief] = [writer(panel, column), (value) => formatted(value, panel.formats?.[column], panel.unit, { compactly: true })];
  const slices = data.rows.map((row) => ({ name: label(row[x]), value: toNumber(row[y[0]]), itemStyle: { color: colourOf(data.columns[x].name, label(row[x])) } }));
  if (data.rest?.length) slices.push({ name: `${number(data.groups_total - data.rows.length)} others`, value: data.rest[0], itemStyle: { color: css("--rule-strong") } });
  const total = slices.reduce((sum, slice) => sum + (slice.value ?? 0), 0);
  const share = (value) => `${total ? ((100 * value) / total).toFixed(1) : 0} %`;
  const byName = new Map(slices.map((slice) => [slice.name, slice.value]));
  const below = hasUnit(panel.formats?.[column]) || !panel.unit ? heading(panel, column) : panel.unit;
  return {
    ...base(),
    legend: narrow ? { ...legend(slices.map((s) => s.name)), show: true, formatter: (name) => `${name}  ${share(byName.get(name) ?? 0)}` } : { ...legend(slices.map((s) => s.name)), show: true, orient: "vertical", type: "scroll", left: "56%", right: 4, top: "middle", bottom: "auto", itemWidth: 10, itemHeight: 10, itemGap: 8,
      formatter: (name) => `{name|${name.length > 17 ? `${name.slice(0, 16)}…` : name}}{share|${share(byName.get(name) ?? 0)}}`,
      textStyle: { rich: { name: { color: css("--ink"), fontSize: 13, width: 104 }, share: { color: css("--soft"), fontSize: 12.5, align: "right", width: 48 } } } },
    tooltip: { ...base().tooltip, trigger: "item", formatter: (p) => lines(share(p.value), [{ marker: p.marker, name: p.name, value: p.value }], write) },
    series: [{ type: "pie", radius: narrow ? ["46%", "72%"] : ["52%", "82%"], center: middle, data: slices, label: { show: false }, itemStyle: { borderColor: css("--card"), borderWidth: 2, borderRadius: 3 }, emphasis: { scaleSize: 4 } }],
    graphic: [{ type: "group", left: middle[0], top: middle[1], bounding: "raw", silent: true, children: [
      { type: "text", style: { text: brief(total), x: 0, y: -7, textAlign: "center", textVerticalAlign: "middle", fill: css("--ink"), font: `500 24px ${css("--sans")}` } },
      { type: "text", style: { text: below, x: 0, y: 15, textAlign: "center", textVerticalAlign: "middle", fill: css("--soft"), font: `12.5px ${css("--sans")}` } },
    ] }],
  };
}

// The colour of a figure by the panel's rules, as the server decides it: the first that matches, else green.
function judged(panel, column, value) {
  const rules = panel.thresholds.filter((rule) => !rule.column || rule.column === column);
  if (!rules.length) return null;
  const matches = (rule) => (rule.below === null || value < rule.below) && (rule.above === null || value > rule.above) && (rule.equals === null || String(value) === rule.equals);
  return rules.find(matches)?.colour ?? "green";
}

// The zones of a gauge: [share of the way where it ends, colour].
function zones(panel, column, least, most) {
  const limits = panel.thresholds.flatMap((rule) => [rule.below, rule.above]).filter((limit) => limit !== null && limit > least && limit < most);
  const ends = [...new Set([...limits, most])].sort((a, b) => a - b);
  let from = least;
  return ends.map((end) => {
    const colour = judged(panel, column, (from + end) / 2);
    from = end;
    return [(end - least) / (most - least), colour ? statusColour(colour) : css("--rule-strong")];
  });
}

export function gauge(data, panel, width, height) {
  const { y } = places(data);
  const column = data.columns[y[0]].name;
  const value = toNumber(data.rows[0]?.[y[0]]);
  const [least, most] = [panel.min ?? 0, panel.max ?? 100];
  const colour = data.status ? statusColour(data.status) : css("--pond");
  const write = writer(panel, column);
  const size = Math.min(width, (height || 270) * 1.28);
  const ring = { type: "gauge", startAngle: 205, endAngle: -25, min: least, max: most, center: ["50%", "60%"], splitNumber: 4, axisTick: { show: false }, splitLine: { show: false }, axisLabel: { show: false }, pointer: { show: false }, title: { show: false }, detail: { show: false }, silent: true };
  const thick = Math.max(13, size * 0.062);
  const radius = size * 0.4;
  const labels = { show: true, distance: -thick - 24, color: css("--faint"), fontSize: 11.5, formatter: (v) => (v === least || v === most ? formatted(v, panel.formats?.[column], panel.unit, { compactly: true }) : "") };
  const series = [
    { ...ring, radius: radius + 9, axisLine: { lineStyle: { width: 3, color: zones(panel, column, least, most), opacity: 0.85 } }, data: [] },
    { ...ring, radius, axisLine: { roundCap: true, lineStyle: { width: thick, color: [[1, css("--sunk")]] } }, axisLabel: { ...labels, distance: -2 * thick - 2 },
      progress: { show: value !== null, width: thick, roundCap: true, itemStyle: { color: colour } }, data: value === null ? [] : [{ value: Math.max(least, Math.min(most, value)) }],
      detail: { show: true, offsetCenter: [0, "-4%"], formatter: () => (value === null ? "–" : write(value)), color: css("--ink"), fontSize: Math.max(22, size * 0.105), fontWeight: 500, fontFamily: css("--sans") } },
  ];
  if (panel.target !== null && panel.target !== undefined) {
    const at = (panel.target - least) / (most - least);
    const mark = [[Math.max(0, at - 0.006), "transparent"], [Math.min(1, at + 0.006), css("--ink")], [1, "transparent"]];
    series.push({ ...ring, z: 5, radius: radius + 4, axisLine: { lineStyle: { width: thick + 8, color: mark } }, data: [{ value: panel.target, name: `target ${write(panel.target)}` }],
      title: { show: true, offsetCenter: [0, "26%"], color: css("--soft"), fontSize: 12.5, fontFamily: css("--sans") } });
  }
  return { ...base(), aria: { enabled: true, label: { description: `${panel.title}: ${value === null ? "no figure" : write(value)}` } }, tooltip: { show: false }, series };
}

export function heatmap(data, panel, width) {
  const { x, series, y, isTime, step } = places(data);
  const column = data.columns[y[0]].name;
  const axis = axes(panel.formats?.[column], panel.unit);
  const write = writer(panel, column);
  const keys = (at, time) => { const all = [...new Set(data.rows.map((row) => (time ? row[at] : label(row[at]))))]; return time || data.columns[at].type.includes("INT") ? all.sort((a, b) => (time ? Date.parse(a) - Date.parse(b) : Number(a) - Number(b))) : all; };
  const [columns, rows] = [keys(x, isTime), keys(series, false)];
  const cells = data.rows.map((row) => [columns.indexOf(isTime ? row[x] : label(row[x])), rows.indexOf(label(row[series])), toNumber(row[y[0]])]);
  const values = cells.map((cell) => cell[2]).filter((value) => value !== null);
  const named = (value) => (isTime ? title(value, isTime, step) : value);
  const roomy = width / Math.max(1, columns.length) > 44;
  return {
    ...base(), grid: { left: 8, right: 12, top: 8, bottom: 44, containLabel: true },
    tooltip: { ...base().tooltip, formatter: (p) => lines(`${rows[p.value[1]]} · ${named(columns[p.value[0]])}`, [{ name: heading(panel, column), value: p.value[2] }], write) },
    xAxis: { ...axis.category, data: columns, splitArea: { show: false }, axisLine: { show: false }, axisLabel: { ...axis.category.axisLabel, formatter: (v) => (isTime && !step ? tick(v) : String(named(v))) } },
    yAxis: { ...axis.category, data: rows, inverse: true, axisLine: { show: false }, axisLabel: { ...axis.category.axisLabel, color: css("--ink"), width: Math.min(130, width * 0.3), overflow: "truncate", interval: 0 } },
    visualMap: { type: "continuous", min: Math.min(0, ...values), max: Math.max(...values, 1), calculable: false, orient: "horizontal", left: "center", bottom: 0, itemWidth: 10, itemHeight: Math.min(160, width * 0.4), text: [write(Math.max(...values)), write(Math.min(0, ...values))], textStyle: { color: css("--soft"), fontSize: 11.5 }, inRange: { color: settings.dark ? ["#13211f", "#1b4a45", "#2f8a80", "#7fe0d2"] : ["#eef4f1", "#b6dcd5", "#4fa79e", "#07514c"] } },
    series: [{ type: "heatmap", data: cells, itemStyle: { borderColor: css("--card"), borderWidth: 2, borderRadius: 3 }, label: { show: roomy && columns.length * rows.length <= 150, fontSize: 11.5, formatter: (p) => formatted(p.value[2], panel.formats?.[column], panel.unit, { compactly: true }) } }],
  };
}

// Throughput of the whole server over the last minutes.
export function throughput(history) {
  const until = Date.parse(history.until);
  const points = (list) => list.map((value, i) => [until - (list.length - 1 - i) * history.every_s * 1000, value]);
  const axis = axes();
  const line = (name, list, yAxisIndex, color, area) => ({ type: "line", name, yAxisIndex, data: points(list), showSymbol: false, color, lineStyle: { width: 2 }, areaStyle: area ? { opacity: 0.1 } : undefined });
  return {
    ...base(), animation: false, legend: legend(["records in", "bytes in", "bytes out"]), grid: { left: 8, right: 8, top: 30, bottom: 34, containLabel: true }, xAxis: { ...timeAxis(axis, null), minInterval: 15000 },
    yAxis: [{ ...axis.value, min: 0, name: "records/s", nameTextStyle: { color: css("--faint"), align: "left", fontSize: 11.5 } },
      { ...axis.value, min: 0, name: "bytes/s", nameTextStyle: { color: css("--faint"), align: "right", fontSize: 11.5 }, splitLine: { show: false }, axisLabel: { ...axis.value.axisLabel, formatter: (value) => bytes(value).replace(/(\d\d)\.\d+ /, "$1 ") } }],
    tooltip: { ...base().tooltip, trigger: "axis", formatter: (items) => lines(time(items[0].axisValue), items.map((i) => ({ marker: i.marker, name: i.seriesName, value: i.seriesIndex ? `${bytes(i.value[1])}/s` : `${number(i.value[1])}/s` })), (value) => value) },
    series: [line("records in", history.records_in, 0, css("--pond"), true), line("bytes in", history.bytes_in, 1, colours()[1]), line("bytes out", history.bytes_out, 1, colours()[2])],
  };
}

// A number's course as a small line: points are [time or name, value]. Without a step the points stand evenly.
export function spark(points, step) {
  const timed = step ? points.map(([at, value]) => [Date.parse(at), toNumber(value) ?? 0]) : points.map(([, value], i) => [i, toNumber(value) ?? 0]);
  const clean = step ? withZeros(timed, step) : timed;
  if (clean.length < 2) return null;
  const [first, last] = [clean[0][0], clean.at(-1)[0]];
  const most = Math.max(...clean.map((p) => p[1]), 0);
  const least = Math.min(...clean.map((p) => p[1]), 0);
  const place = ([at, value]) => `${((at - first) / (last - first || 1) * 100).toFixed(2)},${(39 - ((value - least) / (most - least || 1)) * 36).toFixed(2)}`;
  const path = `M${clean.map(place).join("L")}`;
  return svg("svg", { class: "spark", viewBox: "0 0 100 42", preserveAspectRatio: "none", "aria-hidden": "true" },
    svg("path", { class: "fill", d: `${path}L100,42L0,42Z` }), svg("path", { class: "line", d: path }));
}
