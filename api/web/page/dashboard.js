// One dashboard: its panels, drawn live. Range and filters live in the address, so that a link shows the same.

import { ask, listen, showLink } from "./api.js";
import { el, light, menu, nothing, statusWord } from "./dom.js";
import { ago, duration, time } from "./format.js";
import { filterControl, rangeControl } from "./filters.js";
import { PanelCard, widths } from "./panel.js";
import { onSettings } from "./settings.js";

const WORST = ["green", "orange", "red"];

export async function show(main, { name, query }, go) {
  const path = `/v1/dashboards/${encodeURIComponent(name)}`;
  const dashboard = await ask(`${path}?data=false`);
  document.title = `${dashboard.title} – Millpond`;
  const page = new Page(dashboard, path, go);
  main.replaceChildren(page.head, page.grid);
  page.update(query);
  return { close: () => page.close(), update: (next) => page.update(next) };
}

class Page {
  constructor(dashboard, path, go) {
    Object.assign(this, { dashboard, path, go, paused: false, seen: null, watermark: null, stop() {} });
    const spans = widths(dashboard.panels);
    this.panels = dashboard.panels.map((panel, i) => new PanelCard(panel, i, spans[i], `${path}/panels/${i}`));
    this.sub = el("p", { class: "sub", role: "status" }, "Waiting for the first figures…");
    this.stand = el("span", { class: "standing" });
    this.controls = el("div", { class: "controls" });
    this.pause = el("button", { type: "button", "aria-pressed": "false", onclick: () => this.toggle() }, "Pause");
    this.files = el("div", { class: "files" });
    const refresh = el("button", { type: "button", onclick: () => this.refresh() }, "Refresh");
    this.head = el("div", {}, el("div", { class: "head" },
      el("div", { class: "grow" }, el("h1", {}, dashboard.title, this.stand), dashboard.description ? el("p", { class: "lede" }, dashboard.description) : null, this.sub),
      el("div", { class: "acts" }, this.pause, refresh, menu("Export", "Export this dashboard", this.files))), this.controls);
    this.grid = this.panels.length ? el("div", { class: "grid" }, this.panels.map((panel) => panel.card)) : nothing("This dashboard has no panels yet", "Declare them under [[dashboards.panels]] in the configuration.");
    this.timer = setInterval(() => this.tell(), 1000);
    this.forget = onSettings(() => this.panels.forEach((panel) => panel.draw()));
  }

  // The address says something else now: the same page, other rows.
  update(query) {
    this.query = query;
    const known = ["range", "from", "to", ...this.dashboard.filters.map((filter) => filter.name)];
    this.asked = new URLSearchParams([...query].filter(([key]) => known.includes(key)));
    const change = (changes) => {
      const next = new URLSearchParams(this.query);
      for (const [key, values] of Object.entries(changes)) {
        next.delete(key);
        for (const value of [values].flat()) if (value !== null && value !== undefined) next.append(key, value);
      }
      this.go(next);
    };
    const range = rangeControl(this.dashboard, query, change);
    const focused = this.controls.contains(document.activeElement) ? document.activeElement.dataset.key : null;
    const open = this.controls.querySelector("details[open]")?.dataset.key;
    this.controls.replaceChildren(...[range, ...this.dashboard.filters.filter((f) => f.kind !== "period").map((filter) => filterControl(filter, query, change, this.panels))].flat().filter(Boolean));
    if (open) { const again = this.controls.querySelector(`details[data-key="${open}"]`); if (again) again.open = true; }
    if (focused) this.controls.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
    const file = (format, text) => el("a", { href: `${this.path}?${new URLSearchParams([...this.asked, ["format", format]])}`, download: format === "json" ? `${this.dashboard.name}.json` : "" }, text);
    this.files.replaceChildren(file("xlsx", "Excel, a sheet for each panel"), file("csv", "CSV"), file("json", "JSON"));
    this.panels.forEach((panel) => panel.ask(this.asked));
    if (this.paused) this.refresh(); else this.listen();
  }

  listen() {
    this.stop();
    if (!this.panels.length) return;
    this.stop = listen(`${this.path}/live?${this.asked}`, {
      panel: (data) => {
        if (data.event_watermark && (!this.watermark || data.event_watermark > this.watermark)) this.watermark = data.event_watermark;
        this.panels[data.panel].take(data);
        this.seen = Date.now();
        this.tell();
      },
      problem: ({ panel, problem }) => { this.panels[panel].fail(problem); this.tell(); },
      look: () => { this.seen = Date.now(); this.tell(); },
    });
  }

  toggle() {
    this.paused = !this.paused;
    this.pause.textContent = this.paused ? "Resume" : "Pause";
    this.pause.setAttribute("aria-pressed", String(this.paused));
    if (this.paused) { this.stop(); this.stop = () => {}; showLink("paused"); } else this.listen();
    this.tell();
  }

  // One question for all panels: what one of them cannot answer is said in its place.
  async refresh() {
    this.panels.forEach((panel) => panel.card.classList.add("waiting"));
    try {
      const { panels } = await ask(`${this.path}?${new URLSearchParams([...this.asked, ["fresh", "true"]])}`);
      panels.forEach(({ data, problem }, i) => (data ? this.panels[i].take(data) : this.panels[i].fail(problem)));
      this.seen = Date.now();
    } catch (problem) {
      this.panels.forEach((panel) => panel.fail(problem));
    }
    this.tell();
  }

  tell() {
    const colours = this.panels.map((panel) => (panel.problem ? null : panel.data?.status)).filter(Boolean);
    const worst = WORST.findLast((colour) => colours.includes(colour));
    if (this.stand.dataset.status !== (worst ?? "")) {
      this.stand.dataset.status = worst ?? "";
      this.stand.replaceChildren(...(worst ? [el("span", { class: "stand", data: { status: worst } }, light(worst), statusWord(worst))] : []));
    }
    if (!this.seen) return;
    const asOf = this.panels.map((panel) => panel.data?.as_of).filter(Boolean).sort()[0];
    const parts = [this.paused ? "Paused" : "Live", `updated ${ago(this.seen)}`];
    if (this.paused && asOf) parts.push(`as of ${time(asOf)}`);
    if (this.watermark) parts.push(`events up to ${time(this.watermark)}`);
    if (this.panels.some((panel) => panel.panel.sql)) parts.push(`SQL every ${duration(this.dashboard.refresh_ms / 1000).replace(/ 0 \w+/g, "").replace(".0", "")}`);
    this.sub.textContent = parts.join(" · ");
  }

  close() {
    this.stop();
    this.forget();
    clearInterval(this.timer);
    showLink("");
    this.panels.forEach((panel) => panel.close());
  }
}
