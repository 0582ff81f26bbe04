// The page: which part is shown, by the address after #. Addresses: #/d/<dashboard>?range=1h&genre=jazz, #/system, #/sql?q=…

import { ask } from "./api.js";
import { el, failed, loading, nothing } from "./dom.js";
import { zoneName } from "./format.js";
import { onSettings, settings, toggleTheme, toggleZone } from "./settings.js";
import * as dashboard from "./dashboard.js";
import * as sql from "./sql.js";
import * as system from "./system.js";

const main = document.getElementById("main");
const nav = document.getElementById("nav");
const themeButton = document.getElementById("theme");
const zoneButton = document.getElementById("zone");
let dashboards = [];
let close = () => {};
let turn = 0;

function place() {
  const [path, search] = location.hash.replace(/^#/, "").split("?");
  const [part, name] = path.split("/").filter(Boolean);
  return { part: part ?? "", name: name === undefined ? "" : decodeURIComponent(name), query: new URLSearchParams(search ?? "") };
}

function drawNav({ part, name }) {
  const link = (href, text, here) => el("a", { href, "aria-current": here ? "page" : null }, text);
  nav.replaceChildren(...dashboards.map((d) => link(`#/d/${encodeURIComponent(d.name)}`, d.title, part === "d" && d.name === name)), link("#/system", "System", part === "system"), link("#/sql", "SQL", part === "sql"));
}

async function route() {
  const mine = ++turn;
  close();
  close = () => {};
  const here = place();
  if (!here.part) {
    const first = dashboards[0];
    location.replace(first ? `#/d/${encodeURIComponent(first.name)}` : "#/system");
    return;
  }
  drawNav(here);
  const path = here.part === "d" ? `#/d/${encodeURIComponent(here.name)}` : `#/${here.part}`;
  const go = (query) => {
    const next = query.toString() ? `${path}?${query}` : path;
    if (next === location.hash) route(); else location.hash = next;
  };
  main.replaceChildren(loading());
  let shut = () => {};
  if (here.part === "d") shut = await dashboard.show(main, here.name, here.query, go);
  else if (here.part === "system") shut = await system.show(main);
  else if (here.part === "sql") shut = await sql.show(main, here.query, go);
  else main.replaceChildren(nothing("There is no such page", "Choose one above."));
  // Somebody may have gone on while this part was still being made.
  if (mine === turn) close = shut; else shut();
}

function drawTools() {
  themeButton.textContent = settings.dark ? "Light" : "Dark";
  themeButton.setAttribute("aria-label", `Switch to ${settings.dark ? "light" : "dark"} colours`);
  zoneButton.textContent = settings.utc ? "UTC" : "Local time";
  zoneButton.setAttribute("aria-label", `Times are in ${zoneName()}; switch to ${settings.utc ? "local time" : "UTC"}`);
  document.getElementById("where").textContent = `Times in ${zoneName()}`;
}

async function begin() {
  try {
    dashboards = (await ask("/v1/dashboards")).dashboards;
  } catch (problem) {
    main.replaceChildren(failed(problem, begin));
    setTimeout(() => { if (!dashboards.length && main.querySelector(".bad")) begin(); }, 5000);
    return;
  }
  window.addEventListener("hashchange", route);
  route();
}

themeButton.addEventListener("click", toggleTheme);
zoneButton.addEventListener("click", toggleZone);
onSettings(drawTools);
drawTools();
begin();
