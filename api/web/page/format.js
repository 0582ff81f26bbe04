// Numbers, sizes and times as people read them.

import { settings } from "./settings.js";

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const fine = new Intl.NumberFormat("en", { maximumFractionDigits: 3 });
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

export function number(value) {
  if (value === null || value === undefined) return "–";
  if (typeof value === "bigint") return whole.format(value);
  if (typeof value !== "number") return String(value);
  return Number.isInteger(value) || Math.abs(value) >= 1000 ? whole.format(value) : fine.format(value);
}

export function compact(value) {
  return value === null || value === undefined ? "–" : Math.abs(value) < 10000 ? number(value) : short.format(value);
}

export function bytes(value) {
  if (value === null || value === undefined) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let unit = 0;
  let size = value;
  while (size >= 1024 && unit < units.length - 1) { size /= 1024; unit += 1; }
  return `${unit === 0 ? whole.format(size) : size.toFixed(size < 10 ? 2 : 1)} ${units[unit]}`;
}

export function perSecond(value) {
  return value === null || value === undefined ? "–" : `${value > 0 && value < 10 ? value.toFixed(1) : compact(Math.round(value))}/s`;
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 1) return seconds <= 0 ? "0 s" : `${Math.max(1, Math.round(seconds * 1000))} ms`;
  if (seconds < 60) return `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  return `${Math.floor(seconds / 86400)} d ${Math.floor((seconds % 86400) / 3600)} h`;
}

function zone() {
  return settings.utc ? "UTC" : Intl.DateTimeFormat().resolvedOptions().timeZone;
}

export function zoneName() {
  if (settings.utc) return "UTC";
  const part = new Intl.DateTimeFormat("en", { timeZoneName: "shortOffset" }).formatToParts(new Date()).find((p) => p.type === "timeZoneName");
  const name = zone();
  return name === "UTC" || !part ? name : `${name} (${part.value.replace("GMT", "UTC")})`;
}

export function time(value, { seconds = true, date = "auto" } = {}) {
  if (value === null || value === undefined) return "–";
  const at = new Date(value);
  if (Number.isNaN(at.getTime())) return String(value);
  const options = { timeZone: zone(), hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
  if (seconds) options.second = "2-digit";
  const day = (d) => new Intl.DateTimeFormat("en-CA", { timeZone: zone() }).format(d);
  const withDate = date === true || (date === "auto" && day(at) !== day(new Date()));
  const clock = new Intl.DateTimeFormat("en-GB", options).format(at);
  return withDate ? `${day(at)} ${clock}` : clock;
}

export function ago(value) {
  if (!value) return "never";
  const seconds = (Date.now() - new Date(value).getTime()) / 1000;
  return seconds < 1.5 ? "just now" : `${duration(Math.round(seconds))} ago`;
}

// A cell of a result: by the SQL type of its column.
export function cell(value, type) {
  if (value === null || value === undefined) return "null";
  if (type === "TIMESTAMP") return time(value, { date: true });
  if (typeof value === "object") return JSON.stringify(value, (_, v) => (typeof v === "bigint" ? v.toString() : v));
  if (typeof value === "number" || typeof value === "bigint") return number(value);
  return String(value);
}

// A cell to the last digit, as somebody who asked for it in SQL wants to copy it.
export function exact(value, type) {
  return typeof value === "number" || typeof value === "bigint" ? String(value) : cell(value, type);
}

export function isNumeric(type) {
  return /^(TINYINT|SMALLINT|INTEGER|BIGINT|REAL|DOUBLE|DECIMAL)/.test(type);
}

// window_start → "window start"
export function words(name) {
  return name.replaceAll("_", " ");
}
