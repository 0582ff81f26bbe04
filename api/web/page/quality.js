// Data quality: what each rule of each stream did, day by day.

import { board, fill, section, tag } from "./board.js";
import { el, nothing, table } from "./dom.js";
import { calendarText, number } from "./format.js";

const DAYS = 14;
const KIND = { rejected: "bad", reject: "bad", repaired: "warn", normalised: "warn", changed: "warn", deduplicated: "", dropped: "bad", accept: "good", accepted: "good", good: "good", warn: "warn", late: "warn", skip: "", failed: "bad" };

export function show(main) {
  const part = section("full", "Rules", `Records by rule, over the last ${DAYS} days that have any.`);
  return board(main, {
    title: "Data quality", sub: "Asking the server…", sections: [part], paths: ["/v1/quality"], every: 5000,
    look([{ quality }], { line }) {
      const days = [...new Set(quality.map((count) => count.day))].sort().slice(-DAYS);
      const rules = new Map();
      for (const { stream, rule, day, records, action } of quality) {
        const key = `${stream} ${rule} ${action}`;
        if (!rules.has(key)) rules.set(key, { stream, rule, action, days: new Map(), total: 0 });
        const entry = rules.get(key);
        entry.days.set(day, (entry.days.get(day) ?? 0) + Number(records));
        entry.total += Number(records);
      }
      const total = [...rules.values()].reduce((sum, rule) => sum + rule.total, 0);
      line.textContent = `${number(rules.size)} rules acted on ${number(total)} records`;
      fill(part, ruleTable([...rules.values()].sort((a, b) => a.stream.localeCompare(b.stream) || b.total - a.total), days));
    },
  });
}

function ruleTable(rules, days) {
  if (!rules.length) return nothing("No rule has acted yet", "Checks and normalisations of streams are counted here, by day.");
  const most = Math.max(...rules.flatMap((rule) => days.map((day) => rule.days.get(day) ?? 0)), 1);
  const bars = (rule) => el("span", { class: "bars", role: "img", "aria-label": days.map((day) => `${day}: ${rule.days.get(day) ?? 0}`).join(", ") }, days.map((day) => {
    const bar = el("i", { title: `${calendarText(day, "date")}: ${number(rule.days.get(day) ?? 0)}` });
    bar.style.setProperty("--share", String(Math.sqrt((rule.days.get(day) ?? 0) / most)));
    return bar;
  }));
  return table("Rules", [
    { title: "Stream", cell: (r) => r.stream }, { title: "Rule", cell: (r) => r.rule }, { title: "Did", cell: (r) => tag(r.action ?? "–", KIND[r.action] ?? "") }, { title: "Records", class: "num", sort: (r) => r.total, cell: (r) => number(r.total) },
    { title: "Newest day", class: "num", cell: (r) => number(r.days.get(days.at(-1)) ?? 0) }, { title: `Last ${days.length} days`, cell: bars },
  ], rules, sorting);
}

const sorting = { by: null, down: false };
