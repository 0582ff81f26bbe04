// The list of pages at the side: dashboards by system with how they stand, then data and operations.

import { el, light } from "./dom.js";

const side = document.getElementById("side");
const shade = document.getElementById("shade");
const menu = document.getElementById("menu");
const known = { dashboards: [], pages: [], listeners: new Set() };

// [part, title, the route that must be served]
const DATA = [["topics", "Topics", "topics"], ["catalog", "Catalog", null], ["lake", "Lake", "lake"], ["sql", "SQL", null]];
const WORK = [["pipelines", "Pipelines", "lag"], ["sources", "Sources", "sources"], ["jobs", "Jobs", "jobs"], ["alerts", "Alerts", "alerts"], ["quality", "Data quality", "quality"], ["system", "System", null]];

export function setDashboards({ dashboards, pages }) {
  const before = new Map(known.dashboards.map((d) => [d.name, d.status]));
  // Asked without how they stand, they stand as they stood.
  known.dashboards = dashboards.map((d) => ({ ...d, status: d.status ?? before.get(d.name) ?? null }));
  known.pages = pages ?? [];
  for (const listener of known.listeners) listener(known);
}

export function dashboards() {
  return known.dashboards;
}

export function onDashboards(listener) {
  known.listeners.add(listener);
  return () => known.listeners.delete(listener);
}

export function bySystem(list) {
  const systems = new Map();
  for (const dashboard of list) {
    const name = dashboard.system ?? "";
    if (!systems.has(name)) systems.set(name, []);
    systems.get(name).push(dashboard);
  }
  return systems;
}

export function systemTitle(name) {
  return name ? name[0].toUpperCase() + name.slice(1) : "Dashboards";
}

export function drawNav({ part, name }) {
  const link = (href, text, here, before) => el("a", { href, "aria-current": here ? "page" : null }, before, el("span", {}, text));
  const group = (title, links) => (links.length ? el("section", {}, el("h2", {}, title), links) : null);
  const pages = (list) => list.filter(([, , route]) => route === null || known.pages.includes(route)).map(([page, title]) => link(`/${page}`, title, part === page));
  const lists = [...bySystem(known.dashboards)].map(([system, list]) =>
    group(systemTitle(system), list.map((d) => link(`/d/${encodeURIComponent(d.name)}`, d.title, part === "d" && d.name === name, light(d.status)))));
  const focused = side.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
  const top = side.scrollTop;
  side.replaceChildren(...[el("section", {}, link("/", "All dashboards", part === "")), ...lists, group("Data", pages(DATA)), group("Operations", pages(WORK))].filter(Boolean));
  side.scrollTop = top;
  if (focused) side.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
}

function open(wanted) {
  document.body.classList.toggle("menu-open", wanted);
  shade.hidden = !wanted;
  menu.setAttribute("aria-expanded", String(wanted));
  if (wanted) side.querySelector("a")?.focus();
}

menu.addEventListener("click", () => open(menu.getAttribute("aria-expanded") !== "true"));
shade.addEventListener("click", () => open(false));
side.addEventListener("click", (event) => { if (event.target.closest("a")) open(false); });
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && menu.getAttribute("aria-expanded") === "true") { open(false); menu.focus(); }
});
