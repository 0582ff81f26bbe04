// Alerts: what fires, since when, and who was told.

import { board, fill, section, tag } from "./board.js";
import { el, nothing, table } from "./dom.js";
import { ago, duration, number, time } from "./format.js";

const KIND = { firing: "bad", pending: "warn", ok: "good", resolved: "good" };

export function show(main) {
  const parts = { firing: section("full", "Now", null), alerts: section("full", "Alerts", null), told: section("full", "Told", null) };
  return board(main, {
    title: "Alerts", sub: "Asking the server…", sections: Object.values(parts), paths: ["/v1/alerts"], every: 3000,
    look([{ alerts }], { line }) {
      const firing = alerts.filter((alert) => alert.state === "firing").length;
      line.textContent = firing ? `${number(firing)} of ${number(alerts.length)} fire` : `None of ${number(alerts.length)} fires`;
      const instances = alerts.flatMap((alert) => (alert.instances ?? []).map((instance) => ({ alert, ...instance })));
      fill(parts.firing, instances.length ? nowTable(instances) : nothing("All is quiet", "An alert whose condition holds appears here."));
      fill(parts.alerts, alertTable(alerts));
      const told = alerts.flatMap((alert) => (alert.deliveries ?? []).map((delivery) => ({ alert: alert.name, ...delivery })));
      fill(parts.told, told.length ? toldTable(told) : nothing("Nobody was told yet", "Messages to topics, webhooks and mail appear here."));
    },
  });
}

function nowTable(instances) {
  return table("Now", [
    { title: "Alert", cell: (i) => i.alert.name }, { title: "State", cell: (i) => tag(String(i.state).toLowerCase(), KIND[String(i.state).toLowerCase()] ?? "") }, { title: "Severity", cell: (i) => i.alert.severity },
    { title: "Since", class: "num", cell: (i) => ago(i.since) }, { title: "Message", class: "wide", cell: (i) => i.message },
  ], instances);
}

function alertTable(alerts) {
  if (!alerts.length) return nothing("No alerts", "Declare one under [[alerts]] in the configuration.");
  const channels = (a) => Object.entries(a.channels ?? {}).filter(([, to]) => to && to.length !== 0).map(([kind]) => kind).join(", ") || "page only";
  return table("Alerts", [
    { title: "Alert", cell: (a) => el("span", { title: a.sql }, a.name) }, { title: "State", cell: (a) => (a.error ? tag("cannot be checked", "bad", a.error) : a.waits_for ? tag("waits", "warn", a.waits_for) : tag(a.state, KIND[a.state] ?? "")) }, { title: "Severity", cell: (a) => a.severity },
    { title: "Tells", cell: channels }, { title: "Every", class: "num", cell: (a) => duration(a.every_seconds) }, { title: "Looked at", class: "num", cell: (a) => ago(a.checked) },
  ], alerts);
}

function toldTable(told) {
  const text = (value) => (value && typeof value === "object" ? Object.values(value).flat().join(", ") : String(value ?? "–"));
  return table("Told", [
    { title: "Alert", cell: (d) => d.alert }, { title: "To", cell: (d) => text(d.to ?? d.receiver) }, { title: "State", cell: (d) => tag(String(d.state ?? d.standing ?? "–").toLowerCase(), { delivered: "good", failed: "bad", waiting: "warn" }[String(d.state ?? d.standing).toLowerCase()] ?? "", d.error) },
    { title: "Time", class: "num", cell: (d) => time(d.at ?? d.next ?? d.time) }, { title: "Text", class: "wide", cell: (d) => d.text ?? d.notice?.text ?? "" },
  ], told);
}
