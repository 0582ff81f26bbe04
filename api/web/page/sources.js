// Sources: files that are read into topics, how far a load is, what was kept and what was not, and a load on demand.

import { ask, post } from "./api.js";
import { board, count, fill, section, tag } from "./board.js";
import { el, failed, nothing, table } from "./dom.js";
import { duration, number, perSecond, time } from "./format.js";

const KIND = { done: "good", succeeded: "good", loading: "good", running: "good", watching: "good", waiting: "", idle: "", paused: "warn", failed: "bad", failing: "bad", interrupted: "warn" };

export function show(main, { query }) {
  const parts = { sources: section("full", "Sources", "Rows that are no records are kept in <source>.rejected, with file, line and reason."), runs: section("full", "Loads", null) };
  const chosen = query.get("source");
  parts.runs.card.hidden = !chosen;
  return board(main, {
    title: "Sources", sub: "Files that are read into topics", sections: Object.values(parts), paths: ["/v1/sources"], every: 2000,
    async look([{ sources }], { line, again }) {
      const bad = sources.filter((source) => source.error).length;
      line.textContent = `${number(sources.length)} ${sources.length === 1 ? "source" : "sources"}${bad ? ` · ${number(bad)} in trouble` : ""}`;
      fill(parts.sources, sourceTable(sources, chosen, again));
      if (!sources.some((source) => source.name === chosen)) return;
      try {
        const { runs } = await ask(`/v1/sources/${encodeURIComponent(chosen)}`);
        fill(parts.runs, runs.length ? runTable(chosen, runs) : nothing(`${chosen} was never loaded`, "Its loads appear here."));
      } catch (problem) {
        fill(parts.runs, failed(problem));
      }
    },
  });
}

function progress({ progress: now, name }) {
  if (!now) return "";
  const share = now.bytes ? now.bytes_done / now.bytes : 0;
  return el("span", { class: "nowrap" }, el("progress", { max: 1, value: share, "aria-label": `Progress of ${name}` }), ` ${Math.floor(100 * share)} % · ${perSecond(now.rows_per_s)}${now.remaining_s === null || now.remaining_s === undefined ? "" : ` · ${duration(now.remaining_s)} left`}`);
}

function rules(byRule) {
  return Object.entries(byRule ?? {}).map(([rule, n]) => `${rule}: ${number(n)}`).join("\n") || null;
}

function sourceTable(sources, chosen, again) {
  if (!sources.length) return nothing("No sources", "Declare one under [[sources]] in the configuration.");
  const order = (source) => {
    const send = (what, title) => el("button", { type: "button", class: "quiet", onclick: async (event) => {
      event.target.disabled = true;
      try { await post(`/v1/sources/${encodeURIComponent(source.name)}/${what}`, {}); await again(); } catch (problem) { event.target.disabled = false; event.target.textContent = "failed"; event.target.title = problem.detail ?? ""; }
    } }, title);
    return el("span", { class: "nowrap" }, send("run", "Load now"), source.state === "paused" ? send("resume", "Resume") : send("pause", "Pause"));
  };
  return table("Sources", [
    { title: "Source", cell: (s) => el("a", { href: `/sources?source=${encodeURIComponent(s.name)}`, "aria-current": s.name === chosen ? "true" : null, title: s.path ?? null }, s.name) },
    { title: "Topic", cell: (s) => s.topic }, { title: "When", cell: (s) => String(s.when ?? "–") }, { title: "State", cell: (s) => tag(s.error ? "failing" : s.state, s.error ? "bad" : KIND[s.state] ?? "", s.error) }, { title: "Now", cell: progress },
    { title: "Rows", class: "num", cell: (s) => number(s.rows) }, { title: "Published", class: "num", cell: (s) => number(s.published) }, { title: "Known before", class: "num", cell: (s) => number(s.skipped) },
    { title: "Rejected", class: "num", cell: (s) => el("span", { title: rules(s.rejected_by_rule) }, count(s.rejected, "warn")) }, { title: "Next", class: "num", cell: (s) => time(s.next) }, { title: "", cell: order },
  ], sources);
}

function runTable(source, runs) {
  return table(`Loads of ${source}`, [
    { title: "Began", class: "nowrap", cell: (r) => time(r.started, { date: "auto" }) }, { title: "State", cell: (r) => tag(r.state, KIND[r.state] ?? "", r.error) }, { title: "Why", cell: (r) => String(r.trigger) }, { title: "Took", class: "num", cell: (r) => duration(r.seconds) },
    { title: "Files", class: "num", cell: (r) => number(r.files) }, { title: "Loaded before", class: "num", cell: (r) => number(r.files_known) }, { title: "Rows", class: "num", cell: (r) => number(r.rows) }, { title: "Published", class: "num", cell: (r) => number(r.published) },
    { title: "Rejected", class: "num", cell: (r) => el("span", { title: rules(r.rejected_by_rule) }, count(r.rejected, "warn")) }, { title: "Retries", class: "num", cell: (r) => number(r.retries) }, { title: "Error", class: "wide", cell: (r) => r.error ?? "" },
  ], runs);
}
