// Jobs: when they run next, how the last runs went, and a run for any past day.

import { ask, post } from "./api.js";
import { board, fill, section, tag } from "./board.js";
import { el, failed, nothing, table } from "./dom.js";
import { ago, duration, number, time, words } from "./format.js";

const KIND = { succeeded: "good", running: "good", queued: "", failed: "bad", interrupted: "warn", cancelled: "warn" };

export function show(main, { query }) {
  const parts = { jobs: section("full", "Jobs", null), runs: section("full", "Runs", null) };
  const chosen = query.get("job");
  parts.runs.card.hidden = !chosen;
  const day = el("input", { type: "date", "aria-label": "Day to run for; empty means yesterday" });
  const said = el("span", { role: "status", class: "sub" });
  return board(main, {
    title: "Jobs", sub: "What runs by the clock, and what ran", sections: Object.values(parts), paths: ["/v1/jobs"], every: 3000,
    async look([{ jobs }], { line, again }) {
      const bad = jobs.filter((job) => job.state === "failed").length;
      line.textContent = `${number(jobs.length)} ${jobs.length === 1 ? "job" : "jobs"}${bad ? ` · ${number(bad)} failed last time` : ""}`;
      fill(parts.jobs, jobTable(jobs, chosen));
      const job = jobs.find((one) => one.name === chosen);
      if (!job || parts.runs.body.contains(document.activeElement)) return;
      const run = el("button", { type: "button", class: "primary", onclick: async () => {
        try {
          const made = await post(`/v1/jobs/${encodeURIComponent(job.name)}/run${day.value ? `?day=${day.value}` : ""}`, {});
          said.textContent = `Run ${made.run} for ${made.day} is queued`;
          again();
        } catch (problem) { said.textContent = problem.detail ?? problem.title; }
      } }, "Run for this day");
      try {
        const { runs } = await ask(`/v1/jobs/${encodeURIComponent(job.name)}/runs?limit=50`);
        fill(parts.runs, el("div", {}, el("div", { class: "runbar" }, el("b", {}, job.name), day, run, said), runs.length ? runTable(runs) : nothing("No run yet", "Its first run appears here.")));
      } catch (problem) {
        fill(parts.runs, failed(problem));
      }
    },
  });
}

function state(run) {
  return run ? el("span", {}, tag(run.state, KIND[run.state] ?? "", run.error), run.late ? tag("late", "warn") : null) : "never ran";
}

function jobTable(jobs, chosen) {
  if (!jobs.length) return nothing("No jobs", "Declare one under [[jobs]] in the configuration.");
  const recent = (job) => el("span", { class: "recent", role: "img", "aria-label": `last runs: ${(job.recent ?? []).map((run) => run.state).join(", ")}` }, [...(job.recent ?? [])].reverse().map((run) => el("i", { data: { state: KIND[run.state] || "idle" }, title: `${run.day}: ${run.state}` })));
  return table("Jobs", [
    { title: "Job", cell: (j) => el("a", { href: `/jobs?job=${encodeURIComponent(j.name)}`, "aria-current": j.name === chosen ? "true" : null }, j.name) },
    { title: "Runs", cell: (j) => (j.schedule ? el("span", {}, el("span", { class: "mono" }, j.schedule), ` ${j.time_zone ?? ""}`) : j.after?.length ? `after ${j.after.join(", ")}` : "on demand") },
    { title: "Steps", cell: (j) => (j.steps ?? []).join(" → ") }, { title: "State", cell: (j) => state(j.last) }, { title: "Last runs", cell: recent },
    { title: "Took", class: "num", cell: (j) => duration(j.last?.seconds) }, { title: "Next", class: "num", cell: (j) => time(j.next) }, { title: "Good", class: "num", cell: (j) => ago(j.last_success) },
  ], jobs);
}

function runTable(runs) {
  const steps = (run) => el("span", {}, run.steps.map((step) => tag(`${step.name} ${duration(step.seconds)}`, KIND[step.state] ?? "", step.message)));
  return table("Runs", [
    { title: "Day", class: "nowrap", cell: (r) => r.day }, { title: "State", cell: state }, { title: "Why", cell: (r) => words(String(r.trigger)) }, { title: "Began", class: "num", cell: (r) => time(r.started) },
    { title: "Took", class: "num", cell: (r) => duration(r.seconds) }, { title: "Steps", cell: steps }, { title: "Error", class: "wide", cell: (r) => r.error ?? "" },
  ], runs);
}
