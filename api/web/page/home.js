// The start page: every dashboard of every system, and how it stands.

import { el, light, nothing, statusWord } from "./dom.js";
import { bySystem, dashboards, onDashboards, systemTitle } from "./nav.js";

export function show(main) {
  document.title = "Millpond";
  const lists = el("div", { class: "systems" });
  const draw = () => {
    const list = dashboards();
    if (!list.length) {
      lists.replaceChildren(nothing("No dashboards yet", "Declare one under [[dashboards]] in the configuration. Topics, the catalog and SQL are in the menu."));
      return;
    }
    lists.replaceChildren(...[...bySystem(list)].map(([system, cards]) => el("section", { class: "system" }, el("h2", {}, systemTitle(system)), el("div", { class: "cards" }, cards.map(card)))));
  };
  const bad = () => {
    const count = (status) => dashboards().filter((d) => d.status === status).length;
    const parts = [["red", "in alarm"], ["orange", "to watch"], ["green", "good"]].filter(([status]) => count(status)).map(([status, text]) => `${count(status)} ${text}`);
    return parts.join(" · ") || "What is declared, system by system";
  };
  const sub = el("p", { class: "sub" }, bad());
  main.replaceChildren(el("div", { class: "head" }, el("div", { class: "grow" }, el("h1", {}, "Dashboards"), sub)), lists);
  draw();
  const forget = onDashboards(() => { draw(); sub.textContent = bad(); });
  return { close: forget };
}

function card(dashboard) {
  const status = dashboard.has_status ? el("span", { class: "stand", data: { status: dashboard.status ?? "none" } }, light(dashboard.status), statusWord(dashboard.status)) : null;
  return el("a", { class: "card tilecard", href: `/d/${encodeURIComponent(dashboard.name)}`, data: { status: dashboard.status ?? "none" } },
    el("h3", {}, dashboard.title), dashboard.description ? el("p", {}, dashboard.description) : null,
    el("p", { class: "meta" }, status, el("span", {}, `${dashboard.panels} ${dashboard.panels === 1 ? "panel" : "panels"}`), dashboard.owner ? el("span", {}, dashboard.owner) : null));
}
