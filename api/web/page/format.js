// Numbers, sizes and times as people read them.

import { settings } from "./settings.js";

// The browser's language decides how numbers and dates are written.
const whole = new Intl.NumberFormat(undefined, { maximumFractionDigits: 0 });
const fine = new Intl.NumberFormat(undefined, { maximumFractionDigits: 3 });
const two = new Intl.NumberFormat(undefined, { minimumFractionDigits: 2, maximumFractionDigits: 2 });
const one = new Intl.NumberFormat(undefined, { maximumFractionDigits: 1 });
const short = new Intl.NumberFormat(undefined, { notation: "compact", maximumFractionDigits: 1 });
const CURRENCIES = { "€": "EUR", $: "USD", "£": "GBP", "¥": "JPY", EUR: "EUR", USD: "USD", GBP: "GBP", CHF: "CHF" };

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
  const day = (d) => dayFormat(zone()).format(d);
  const withDate = date === true || (date === "auto" && day(at) !== day(new Date()));
  const clock = new Intl.DateTimeFormat("en-GB", options).format(at);
  return withDate ? `${day(at)} ${clock}` : clock;
}

const dayFormats = new Map();
function dayFormat(timeZone) {
  if (!dayFormats.has(timeZone)) dayFormats.set(timeZone, new Intl.DateTimeFormat(undefined, { timeZone, year: "numeric", month: "short", day: "numeric" }));
  return dayFormats.get(timeZone);
}

// Days, months and years are calendar things: their midnight is UTC's, whatever the clock on the wall says.
const calendar = {
  date: new Intl.DateTimeFormat(undefined, { timeZone: "UTC", year: "numeric", month: "short", day: "numeric" }),
  month: new Intl.DateTimeFormat(undefined, { timeZone: "UTC", year: "numeric", month: "short" }),
  year: new Intl.DateTimeFormat(undefined, { timeZone: "UTC", year: "numeric" }),
};

export function calendarText(value, step) {
  const at = new Date(value);
  return value === null || value === undefined ? "–" : Number.isNaN(at.getTime()) ? String(value) : calendar[step].format(at);
}

// Whether all values are midnights of UTC: then they are days, or months, or years.
export function calendarStep(values) {
  const times = values.filter((v) => v !== null && v !== undefined).map((v) => new Date(v));
  if (!times.length || !times.every((t) => t.getTime() % 86400000 === 0)) return null;
  if (!times.every((t) => t.getUTCDate() === 1)) return "date";
  return times.length > 1 && times.every((t) => t.getUTCMonth() === 0) ? "year" : "month";
}

function money(value, unit, digits) {
  const currency = CURRENCIES[unit || "€"];
  const style = currency ? { style: "currency", currency, currencyDisplay: "narrowSymbol" } : {};
  const text = new Intl.NumberFormat(undefined, { ...style, ...digits }).format(value);
  return currency || !unit ? text : `${text} ${unit}`;
}

// A value by its declared format; the word of the format carries its unit. `short` is for axes and labels.
export function formatted(value, format, unit, { compactly = false } = {}) {
  if (value === null || value === undefined) return "–";
  if (typeof value === "object") return cell(value);
  const figure = typeof value === "string" && format !== "text" && value.trim() !== "" && !Number.isNaN(Number(value)) ? Number(value) : value;
  switch (format) {
    case "integer": return compactly ? compact(Math.round(Number(figure))) : whole.format(figure);
    case "decimal": return two.format(figure);
    case "percent": return `${one.format(figure)} %`;
    case "share": return `${one.format(Number(figure) * 100)} %`;
    case "money": return compactly && Math.abs(figure) >= 10000 ? money(figure, unit, { notation: "compact", maximumFractionDigits: 1 }) : money(figure, unit, compactly ? { maximumFractionDigits: 0 } : { minimumFractionDigits: Math.abs(figure) >= 100000 ? 0 : 2, maximumFractionDigits: Math.abs(figure) >= 100000 ? 0 : 2 });
    case "duration_ms": return duration(Number(figure) / 1000);
    case "bytes": return bytes(Number(figure));
    case "date": case "month": case "year": return calendarText(value, format);
    case "time": return time(value, { date: "auto" });
    case "text": return String(value);
    default: return compactly ? compact(typeof figure === "bigint" ? Number(figure) : figure) : number(figure);
  }
}

// Whether a format says the unit itself.
export function hasUnit(format) {
  return ["percent", "share", "money", "duration_ms", "bytes", "date", "month", "year", "time"].includes(format);
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
  if (type === "DATE") return calendarText(value, "date");
  if (typeof value === "object") return JSON.stringify(value, (_, v) => (typeof v === "bigint" ? v.toString() : v));
  if (typeof value === "number" || typeof value === "bigint") return number(value);
  return String(value);
}

// A cell to the last digit, as somebody who asked for it in SQL wants to copy it.
export function exact(value, type) {
  if (type === "DATE") return String(value);
  return typeof value === "number" || typeof value === "bigint" ? String(value) : cell(value, type);
}

export function isNumeric(type) {
  return /^(TINYINT|SMALLINT|INTEGER|BIGINT|REAL|DOUBLE|DECIMAL)/.test(type);
}

// window_start → "window start"
export function words(name) {
  return name.replaceAll("_", " ");
}
