// Topics: what they hold, how fast they grow, and their newest records.

import { ask } from "./api.js";
import { board, fill, section } from "./board.js";
import { el, failed, nothing, table } from "./dom.js";
import { bytes, number, perSecond, time } from "./format.js";

const PEEK = 20;
const sorting = { by: null, down: false };

export function show(main, { query }, go) {
  const parts = { topics: section("full", "Topics", null), records: section("full", "Newest records", null) };
  const topic = query.get("topic");
  parts.records.card.hidden = !topic;
  return board(main, {
    title: "Topics", sub: "Every topic that Kafka clients see", sections: Object.values(parts), paths: ["/v1/topics"],
    async look([{ topics }], { line }) {
      const own = topics.filter((t) => !t.internal);
      line.textContent = `${number(own.length)} topics · ${number(topics.reduce((sum, t) => sum + t.records, 0))} messages · ${bytes(topics.reduce((sum, t) => sum + t.bytes, 0))}`;
      fill(parts.topics, topicTable(topics, topic));
      const one = topics.find((t) => t.name === topic);
      if (one) fill(parts.records, await newest(one));
    },
  });
}

// The last records of all partitions, the newest first.
async function newest(topic) {
  try {
    const partitions = [...Array(Math.min(topic.partitions, 32)).keys()];
    const answers = await Promise.all(partitions.map((p) => ask(`/v1/topics/${encodeURIComponent(topic.name)}/records?partition=${p}&limit=${PEEK}`)));
    const records = answers.flatMap((answer) => answer.records.map((record) => ({ partition: answer.partition, ...record })));
    records.sort((a, b) => String(b.timestamp).localeCompare(String(a.timestamp)) || b.offset - a.offset);
    if (!records.length) return nothing(`${topic.name} is empty`, "Records appear here as producers send them.");
    const text = (value) => (value === undefined || value === null ? "–" : typeof value === "object" ? JSON.stringify(value, (_, v) => (typeof v === "bigint" ? v.toString() : v)) : String(value));
    return table(`Newest records of ${topic.name}`, [
      { title: "Place", class: "nowrap mono", cell: (r) => `${r.partition} · ${r.offset}` }, { title: "Time", class: "nowrap", cell: (r) => time(r.timestamp, { date: "auto" }) },
      { title: "Key", class: "mono", cell: (r) => text(r.key ?? r.key_text ?? r.key_base64) }, { title: "Value", class: "mono wide", cell: (r) => text(r.value ?? r.value_text ?? r.value_base64) },
    ], records.slice(0, 50));
  } catch (problem) {
    return failed(problem);
  }
}

function topicTable(topics, chosen) {
  if (!topics.length) return nothing("No topics", "Declare one under [[topics]] in the configuration, or create it with any Kafka client.");
  const name = (t) => el("a", { href: `/topics?topic=${encodeURIComponent(t.name)}`, "aria-current": t.name === chosen ? "true" : null }, t.name);
  return table("Topics", [
    { title: "Topic", sort: (t) => t.name, cell: (t) => el("span", {}, name(t), t.stream ? el("span", { class: "tag good beside" }, "stream") : t.internal ? el("span", { class: "tag beside" }, "internal") : null) },
    { title: "Partitions", class: "num", sort: (t) => t.partitions, cell: (t) => number(t.partitions) }, { title: "Messages", class: "num", sort: (t) => t.records, cell: (t) => number(t.records) }, { title: "Size", class: "num", sort: (t) => t.bytes, cell: (t) => bytes(t.bytes) },
    { title: "Records in", class: "num", sort: (t) => t.records_per_s, cell: (t) => perSecond(t.records_per_s) }, { title: "Bytes in", class: "num", sort: (t) => t.bytes_per_s, cell: (t) => `${bytes(t.bytes_per_s)}/s` }, { title: "Newest", class: "num", sort: (t) => t.newest, cell: (t) => time(t.newest) },
  ], topics, sorting);
}
