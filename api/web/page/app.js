// The page: which part is shown, by the address. Addresses: /, /d/<dashboard>?period=12mo&skill=Rust, /topics, /sql?q=…

import { ask, poll, save } from "./api.js";
import { drawNav, setDashboards } from "./nav.js";
import { el, failed, loading, nothing } from "./dom.js";
import { zoneName } from "./format.js";
import { onSettings, settings, toggleTheme, toggleZone } from "./settings.js";
import { token } from "./token.js";
import * as alerts from "./alerts.js";
import * as catalog from "./catalog.js";
import * as dashboard from "./dashboard.js";
import * as home from "./home.js";
import * as jobs from "./jobs.js";
import * as lake from "./lake.js";
import * as pipelines from "./pipelines.js";
import * as quality from "./quality.js";
import * as sources from "./sources.js";
import * as sql from "./sql.js";
import * as system from "./system.js";
import * as topics from "./topics.js";

const PARTS = { "": home, d: dashboard, alerts, catalog, jobs, lake, pipelines, quality, sources, sql, system, topics };

const main = document.getElementById("main");
const themeButton = document.getElementById("theme");
const zoneButton = document.getElementById("zone");
let shown = { key: null, close() {} };
let turn = 0;

function place() {
  const [part, name] = location.pathname.split("/").filter(Boolean);
  return { part: part ?? "", name: name === undefined ? "" : decodeURIComponent(name), query: new URLSearchParams(location.search) };
}

// Another address of this page; a part that knows how only changes what the query changes.
export function go(address, { replace = false } = {}) {
  history[replace ? "replaceState" : "pushState"](null, "", address);
  route();
}

async function route() {
  const mine = ++turn;
  const here = place();
  const key = `${here.part}/${here.name}`;
  if (shown.key === key && shown.update) {
    shown.update(here.query);
    return;
  }
  shown.close();
  shown = { key: null, close() {} };
  drawNav(here);
  const path = here.name ? `/${here.part}/${encodeURIComponent(here.name)}` : `/${here.part}`;
  const goQuery = (query) => go(query.toString() ? `${path}?${query}` : path);
  const part = PARTS[here.part];
  if (!part) {
    main.replaceChildren(nothing("There is no such page", "Choose one in the menu."));
    return;
  }
  main.replaceChildren(loading());
  window.scrollTo(0, 0);
  let made;
  try {
    made = await part.show(main, here, goQuery);
  } catch (problem) {
    if (mine === turn) main.replaceChildren(failed(problem.title ? problem : { title: "This page failed", detail: String(problem.message ?? problem) }, route));
    return;
  }
  // Somebody may have gone on while this part was still being made.
  if (mine === turn) shown = { key, ...made }; else made.close();
}

function drawTools() {
  themeButton.textContent = settings.dark ? "Light" : "Dark";
  themeButton.setAttribute("aria-label", `Switch to ${settings.dark ? "light" : "dark"} colours`);
  zoneButton.textContent = settings.utc ? "UTC" : "Local";
  zoneButton.setAttribute("aria-label", `Times are in ${zoneName()}; switch to ${settings.utc ? "local time" : "UTC"}`);
  document.getElementById("where").textContent = `Times in ${zoneName()}`;
}

// Links of the page change the address without a new load.
document.addEventListener("click", (event) => {
  const link = event.target.closest?.("a[href]");
  if (!link || event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || link.target || link.hasAttribute("download")) return;
  const url = new URL(link.href);
  if (url.origin !== location.origin || !(url.pathname.split("/")[1] in PARTS) || (url.hash && url.pathname === location.pathname)) return;
  event.preventDefault();
  if (url.pathname + url.search !== location.pathname + location.search) go(url.pathname + url.search);
  main.focus({ preventScroll: true });
});

// A file that the server keeps behind a token cannot be a plain link.
document.addEventListener("click", (event) => {
  const link = event.target.closest?.("a[download]");
  if (!link || !token() || link.protocol === "blob:" || link.origin !== location.origin) return;
  event.preventDefault();
  save(link.href, link.download || "millpond").catch((problem) => window.alert(problem.detail ?? problem.title));
});

async function lookAtDashboards() {
  try { setDashboards(await ask("/v1/dashboards")); } catch { /* the page itself says that the server does not answer */ }
  drawNav(place());
}

async function begin() {
  // Addresses of the first version: /#/d/music?range=1h
  if (location.hash.startsWith("#/")) history.replaceState(null, "", location.hash.slice(1));
  try {
    setDashboards(await ask("/v1/dashboards?status=false"));
  } catch (problem) {
    main.replaceChildren(failed(problem, begin));
    setTimeout(() => { if (main.querySelector(".bad")) begin(); }, 5000);
    return;
  }
  window.addEventListener("popstate", route);
  route();
  poll(20000, lookAtDashboards);
}

themeButton.addEventListener("click", toggleTheme);
zoneButton.addEventListener("click", toggleZone);
onSettings(drawTools);
drawTools();
main.append(el("div", { class: "grid" }, loading()));
begin();
